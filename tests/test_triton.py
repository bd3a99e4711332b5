"""Groups and their Triton kernels, on a GPU or by Triton's interpreter: each against NumPy, on what it reads."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_programs import Program, programs
from test_operations import SHAPES, TYPED, program, sample

import slpc
from slpc import samples
from slpc.backends import numpy_backend, torch_backend, triton_functions, triton_kernels
from slpc.ir.graph import Graph, Value
from slpc.ir.ops import OPS
from slpc.ir.parse import parse
from slpc.ir.target import Target
from slpc.ir.types import DTYPES, DType
from slpc.ir.verify import verify
from slpc.passes.adjoint import adjoint
from slpc.passes.attention import as_attention
from slpc.passes.fuse import fuse
from slpc.passes.groups import Group, as_group, groups
from slpc.passes.kernels import as_product_sum
from slpc.passes.legalize import legalize
from slpc.passes.simplify import simplify

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

ROOT = Path(__file__).parent.parent
EPSILON = {"f64": 1e-12, "f32": 2e-6, "f16": 4e-3, "bf16": 3e-2}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TORCH = {d.name: getattr(torch, "bfloat16" if d.name == "bf16" else d.numpy_name) for d in DTYPES.values()}


def module(text: str, path: Path) -> Any:
    """Triton reads a kernel's source from its file."""
    path.write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def tensor(array: Any, dtype: DType) -> Any:
    array = np.asarray(array)
    plain = array.astype(np.float64 if dtype.is_float else array.dtype)
    return torch.tensor(plain, dtype=TORCH[dtype.name], device=DEVICE)


def legal(graph: Graph) -> Graph:
    return legalize(graph, numpy_backend.TARGET)


def fused(graph: Graph) -> list[Group]:
    return groups(graph, triton_functions.fusible)


def values(graph: Graph, given: Mapping[str, Any]) -> dict[Value, Any]:
    """Every value that owns memory, by NumPy."""
    wanted = [n.result for n in graph.nodes if not n.op.view]
    whole = Graph(graph.name, graph.inputs, graph.nodes, wanted, {}, graph.first_data)
    found = numpy_backend.load(numpy_backend.emit(whole), batch=True)(*(given[v.name] for v in graph.inputs))
    return {v: given[v.name] for v in graph.inputs} | dict(zip(wanted, found, strict=True))


def in_order(graph: Graph, made: Sequence[Group]) -> None:
    """The groups can run one after the other, among the operations that are in none; what they read is stored."""
    inside = {n for g in made for n in g.nodes if not n.op.view}
    home = {v: g for g in made for v in g.results}
    stored = {*graph.inputs, *home, *(n.result for n in graph.nodes if n not in inside and not n.op.view)}
    assert all(v in stored for g in made for v in g.reads)
    assert sum(len(g.results) for g in made) == len(home)
    waiting = list(made)
    done: set[Value] = set(graph.inputs)
    loose = [n for n in graph.nodes if n not in inside and not n.op.view]
    while waiting or loose:
        ready = [g for g in waiting if done.issuperset(g.reads)]
        free = [n for n in loose if all(r in done or not r.name for r in map(slpc.ir.graph.buffer, n.operands))]
        assert ready or free, "a cycle"
        done.update(v for g in ready for v in g.results)
        done.update(n.result for n in free)
        waiting = [g for g in waiting if g not in ready]
        loose = [n for n in loose if n not in free]


def check(graph: Graph, given: Mapping[str, Any], folder: Path) -> list[Group]:
    """Every group's kernel against NumPy, on what it reads."""
    graph = legal(simplify(graph))
    made = fused(graph)
    in_order(graph, made)
    kernels = [triton_kernels.kernel(g, f"k{i}", lambda v: v.name) for i, g in enumerate(made)]
    if DEVICE == "cpu" and any(k.library for k in kernels):
        pytest.skip("the interpreter has no libdevice")
    loaded = module("\n".join(triton_kernels.source(kernels)) + "\n", folder / "kernels.py")
    known = values(graph, given)
    for group, kernel in zip(made, kernels, strict=True):
        arrays = [tensor(known[v], v.dtype) for v in group.reads]
        results = [torch.full(v.shape, 7, dtype=TORCH[v.dtype.name], device=DEVICE) for v in group.results]
        with np.errstate(all="ignore"):
            getattr(loaded, kernel.name)[(kernel.programs,)](*arrays, *results, num_warps=kernel.warps)
        rounded = max(EPSILON.get(r.dtype.name, 0.0) for n in group.nodes for r in (*n.operands, *n.results))
        for value, got in zip(group.results, results, strict=True):
            want = np.asarray(known[value], np.float64)
            scale = np.abs(want[np.isfinite(want)]).max(initial=1e-30)
            tolerance = rounded * scale if value.dtype.is_float else 0
            np.testing.assert_allclose(got.double().cpu().numpy(), want, 0, tolerance,
                                       err_msg=f"{value}\n{kernel.text}")
    return made


def stems(made: Sequence[Group]) -> list[tuple[set[str], set[str]]]:
    return [({v.name for v in g.reads}, {v.name for v in g.results}) for g in made]


def gradient(graph: Graph) -> Graph:
    return simplify(adjoint(graph))


# Operations ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_operations(name: str, dtype: str, tmp_path: Path) -> None:
    shapes = SHAPES[2][:len(OPS[name].operands)]
    graph = parse(program(name, dtype, shapes))
    given = sample(name, dtype, shapes, np.random.default_rng(0))
    fusible = [n for n in legal(graph).nodes if n.op.name == name and triton_functions.fusible(n)]
    made = check(graph, given, tmp_path)
    assert made or not fusible


@pytest.mark.parametrize("name", ["maximum", "minimum", "sign", "abs", "where"])
def test_not_a_number_is_let_through(name: str, tmp_path: Path) -> None:
    call = "where(x < y, x, y)" if name == "where" else f"{name}(x, y)" if name[0] == "m" else f"{name}(x)"
    graph = parse(f"def f(x: f32[4], y: f32[4]):\n    return {call} * 1, max(x, axis=0) * y\n")
    nan, inf = np.nan, np.inf
    x, y = np.array([1, nan, -inf, 0], np.float32), np.array([nan, 2, inf, -0.0], np.float32)
    check(graph, {"x": x, "y": y}, tmp_path)


def test_short_erf_is_near_enough(tmp_path: Path) -> None:
    """Within half a unit in the last place of bfloat16 and float16 beside NumPy's, from subnormals to where it is 1."""
    special = pytest.importorskip("scipy.special")
    graph = parse("def f(x: f16[4000]):\n    return erf(x)\n")
    group, = fused(graph)
    kernel = triton_kernels.kernel(group, "k", lambda v: v.name)
    assert "short_erf" in kernel.text
    loaded = module("\n".join(triton_kernels.source([kernel])), tmp_path / "kernels.py")
    x = np.concatenate([np.geomspace(1e-7, 6e4, 1999), [0.0], -np.geomspace(1e-7, 6e4, 1999), [np.inf]])
    x = x.astype(np.float16)
    got = torch.empty(4000, dtype=torch.float16, device=DEVICE)
    loaded.k[(kernel.programs,)](torch.from_numpy(x).to(DEVICE), got)
    want = special.erf(x.astype(np.float64))
    error = np.abs(got.double().cpu().numpy() - want)
    assert np.all(error <= np.maximum(np.abs(want) * 9e-4, 6e-8))


# Groups ----------------------------------------------------------------------------------------------------------

LAYERNORM = """
def f(x: f32[6, 37], gamma: f32[37] = normal(1, 0.1), beta: f32[37] = normal(0, 0.1), *, y: f32[6, 37]):
    z = layernorm(x) * gamma + beta
    return sum(softmax(z, axis=-1) * y)
"""


def test_layernorm_is_one_pass_each_way(tmp_path: Path) -> None:
    graph = gradient(parse(LAYERNORM))
    made = check(graph, samples.draw(graph, 0), tmp_path)
    forward = next(g for g in made if "x" in {v.name for v in g.reads})
    assert {v.name for v in forward.reads} == {"x", "gamma", "beta"}
    assert sum(v.type.size == 6 * 37 for v in forward.results) == 1
    backward = next(g for g in made if "x_bar" in {v.name for v in g.results})
    assert backward.rows is not None and backward.rows.columns == 37


def test_the_derivative_of_an_activation_reads_what_it_read(tmp_path: Path) -> None:
    graph = gradient(parse("def f(x: f32[8, 4], w: f32[4, 64], u: f32[64, 4]):\n"
                           "    h = x @ w\n    g = gelu(h)\n    y = g @ u\n    return sum(y * y)\n"))
    made = check(graph, samples.draw(graph, 0), tmp_path)
    sets = stems(made)
    assert ({"h"}, {"g"}) in sets
    assert ({"h", "g_bar"}, {"h_bar"}) in sets


def test_vocabulary_loss_and_its_gradient_are_one_pass(tmp_path: Path) -> None:
    graph = gradient(parse("def f(x: f32[6, 4], u: f32[4, 40], *, t: i64[6] = integers(-40, 40)):\n"
                           "    s = x @ u\n    hit = take_along_axis(s, t[:, None], axis=-1)[:, 0]\n"
                           "    return sum(logsumexp(s, axis=-1) - hit)\n"))
    made = check(graph, samples.draw(graph, 0), tmp_path)
    readers = [g for g in made if "s" in {v.name for v in g.reads}]
    assert len(readers) == 1
    assert "s_bar" in {v.name for v in readers[0].results}


def test_large_results_that_die_apart_are_not_joined() -> None:
    """Both read x, but computed together they would be alive together."""
    graph = legal(parse("def f(x: f32[64, 64], *, v: f32[64, 64]):\n    a = exp(x)\n    b = a @ v\n"
                        "    c = sum(b) * sin(x)\n    return sum(c @ v)\n"))
    assert all(sum(v.type.size > 1 for v in g.results) <= 1 for g in fused(graph))


def test_results_of_the_program_are_joined() -> None:
    """An optimizer's new parameters and moments come of one pass."""
    graph = legal(parse("def f(p: f32[64], m: f32[64], g: f32[64]):\n    n = 0.9 * m + g\n    return p - n, n\n"))
    assert stems(fused(graph)) == [({"p", "m", "g"}, {"n", "out0"})]


@pytest.mark.parametrize("text", [
    "def f(x: f32[8, 40], y: f32[40, 8]):\n    return x + y.T\n",
    "def f(x: f32[2, 3, 5, 64], y: f32[10, 192]):\n"
    "    return reshape(permute_dims(x, (0, 2, 1, 3)), (10, 192)) + y\n",
    "def f(x: f32[7, 12]):\n    return exp(x[1:6, ::2]) * x[0, 6:]\n",
    "def f(x: f32[3, 1100]):\n    return softmax(x[:, ::-1], axis=-1)\n",
    "def f(x: f32[3, 4, 40], b: f32[4, 1]):\n    return max(x * b, axis=(1, 2)) + sum(x, axis=2)[:, 1]\n",
    "def f(x: f32[5, 5]):\n    i = arange(5)\n    return where(i[:, None] >= i[None, :], x, -inf), sum(x)\n",
    "def f(x: i64[5, 70]):\n    return max(x, axis=1), min(x, axis=1), sum(x, axis=1), x * 3 - abs(x)\n",
    "def f(x: f64[4, 33]):\n    return layernorm(x), exp(0.1 * x) / 3\n",
])
def test_layouts(text: str, tmp_path: Path) -> None:
    graph = parse(text)
    check(graph, samples.draw(graph, 0), tmp_path)


@pytest.mark.parametrize(("name", "constants"), [
    ("transformer", {"L": 1, "T": 12, "B": 1}), ("transformer", {"L": 1, "T": 12, "B": 1, "dtype": "bf16"}),
    ("mlp", {}), ("softmax_attention", {"T": 20}), ("attention", {"T": 20}), ("gmm", {}),
])
def test_programs(name: str, constants: dict[str, Any], tmp_path: Path) -> None:
    graph = gradient(slpc.load(str(ROOT / "programs" / f"{name}.slp"), **constants))
    check(graph, samples.draw(graph, 0), tmp_path)


def test_equal_layers_have_one_kernel() -> None:
    graph = legal(gradient(slpc.load(str(ROOT / "programs" / "transformer.slp"), L=4, T=16)))
    few = legal(gradient(slpc.load(str(ROOT / "programs" / "transformer.slp"), L=3, T=16)))
    distinct = [{triton_kernels.canonical(g) for g in fused(each)} for each in (graph, few)]
    assert distinct[0] == distinct[1]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs(tmp_path_factory: pytest.TempPathFactory, given: Program) -> None:
    graph = parse(given.text)
    graph = legal(gradient(graph) if given.smooth else simplify(graph))
    in_order(graph, fused(graph))


# Attention -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize(("length", "causal"), [(128, True), (100, False), (100, True)])
def test_attention(length: int, causal: bool, softmax: bool) -> None:
    spec = importlib.util.spec_from_file_location("attention", ROOT / "backends" / "triton_attention.py")
    assert spec is not None and spec.loader is not None
    kernels = importlib.util.module_from_spec(spec)
    sys.modules["attention"] = kernels
    spec.loader.exec_module(kernels)
    generator = torch.Generator().manual_seed(0)

    def heads(fill: float | None = None) -> Any:
        made = torch.randn(1, length, 2, 64, generator=generator) * 0.3
        return (made if fill is None else torch.full_like(made, fill)).half().to(DEVICE).permute(0, 2, 1, 3)

    q, k, v, g = (heads() for _ in range(4))
    out, dq, dk, dv = (heads(float("nan")) for _ in range(4))
    logarithm = torch.full((1, 2, length), float("nan"), device=DEVICE)
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    scores = 0.5 * wide[0] @ wide[1].mT
    if causal:
        scores = scores.masked_fill(~torch.ones(length, length, dtype=torch.bool, device=DEVICE).tril(), -torch.inf)
    want = (scores.softmax(-1) if softmax else scores.exp()) @ wide[2]
    (want * g.double()).sum().backward()
    if softmax:
        kernels.attend(q, k, v, out, logarithm, scale=0.5, causal=causal)
        assert (logarithm - scores.logsumexp(-1)).abs().max() < 1e-3
        sums = (out.float() * g.float()).sum(-1).contiguous()
        kernels.attention_backward(q, k, v, g, dq, dk, dv, logarithm, sums, scale=0.5, causal=causal)
    else:
        kernels.attend(q, k, v, out, scale=0.5, causal=causal)
        kernels.attention_backward(q, k, v, g, dq, dk, dv, scale=0.5, causal=causal)
    for got, exact in zip((out, dq, dk, dv), (want, *(x.grad for x in wide)), strict=True):
        assert (got.double() - exact).norm() < 2e-3 * exact.norm()


# Regions ---------------------------------------------------------------------------------------------------------

GPU = Target("gpu", arena=True, regions=True, products_as_blas=True, fusible=triton_functions.fusible,
             adds_products=True)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_groups_become_regions(dtype: str) -> None:
    """The text says the same program, and reads back; a kernel or a product with a sum can run each region."""
    graph = gradient(slpc.load(str(ROOT / "programs" / "transformer.slp"), dtype=dtype))
    made = verify(legalize(graph, GPU))
    assert str(parse(str(made))) == str(made)
    assert legalize(made, GPU) is made or str(legalize(made, GPU)) == str(made)
    drawn = samples.draw(graph, 0).values()
    plain, regions = (numpy_backend.load(numpy_backend.emit(legal(g)), batch=True)(*drawn) for g in (graph, made))
    for a, b in zip(plain, regions, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(b, a, 0, 0 if dtype == "f32" else EPSILON[dtype] * np.abs(a).max())
    kinds = [(as_product_sum(body) is not None, as_group(body, triton_functions.fusible) is not None)
             for body in made.regions()]
    assert set(kinds) == {(True, False), (False, True)}
    assert not [n for n in made.nodes if n.op.elementwise]


def test_layers_share_their_regions() -> None:
    count = [len(list(legalize(gradient(slpc.load(str(ROOT / "programs" / "mlp.slp"), L=layers)), GPU).regions()))
             for layers in (6, 9)]
    assert count[0] == count[1]


def test_results_lie_over_what_is_read_element_by_element() -> None:
    graph = legal(parse("def f(x: f32[4, 9], y: f32[4, 9], z: f32[9, 4]):\n"
                        "    a = exp(x - max(x, axis=1, keepdims=True)) + y\n    return a * z.T, a\n"))
    group, = fused(graph)
    pairs = {(group.reads[p].name, group.results[q].name) for p, q in triton_kernels.takes_over(group)}
    assert {x for x, _ in pairs} == {"x", "y"}


ATTENDING = replace(GPU, attends=lambda heads, softmax: True)


@pytest.mark.parametrize("scores", [
    "softmax(where(j <= i, q @ k.mT / 2.0, -inf), axis=-1)", "softmax(0.5 * (q @ k.mT), axis=-1)",
    "softmax(where(j > i, -inf, (q * 0.5) @ k.mT), axis=-1)", "exp(q @ k.mT)",
    "where(i >= j, exp(0.5 * (q @ k.mT)), 0)",
])
def test_attention_is_found_however_it_is_spelt(scores: str) -> None:
    """Forward and backward become the two regions of the kernels, with the same numbers."""
    graph = simplify(parse(f"""
def f(x: f64[24, 8], w: f64[3, 8, 8] = normal(0, 0.2)):
    q, k, v = (permute_dims(reshape(x @ w[n], (24, 2, 4)), (1, 0, 2)) for n in range(3))
    i, j = arange(24)[:, None], arange(24)[None, :]
    return sum(sin({scores} @ v))
""".replace("(permute_dims(reshape(x @ w[n], (24, 2, 4)), (1, 0, 2)) for n in range(3))",
            ", ".join(f"permute_dims(reshape(x @ w[{n}], (24, 2, 4)), (1, 0, 2))" for n in range(3)))))
    derived = simplify(adjoint(fuse(graph)))
    made = verify(legalize(derived, ATTENDING))
    kinds = [kind for body in made.regions() if (kind := as_attention(body)) is not None]
    assert [kind.backward for kind in kinds] == [False, True]
    assert all(kind.softmax == ("softmax" in scores) and kind.causal == ("where" in scores) for kind in kinds)
    drawn = samples.draw(derived, 0).values()
    plain, regions = (numpy_backend.load(numpy_backend.emit(legal(g)), batch=True)(*drawn) for g in (derived, made))
    for a, b in zip(plain, regions, strict=True):
        np.testing.assert_allclose(b, a, 0, 1e-5 * np.abs(a).max())  # scores are f32 in the kernels


@pytest.mark.parametrize("text", ["return attend(q, k, v)", "return sum(wide(attend(q, k, v) * w))"])
def test_attention_alone_and_its_gradient_reach_the_kernels(text: str) -> None:
    """Merged into one region they would run by blocks."""
    kind = "bf16[2, 3, 1024, 64]"
    graph = parse(f"def attend(q, k, v):\n    return softmax(q @ k.mT / 8, axis=-1) @ v\n\n"
                  f"def f(q: {kind}, k: {kind}, v: {kind}, *, w: {kind}):\n    {text}\n")
    made = slpc.adjoint(graph, fused=slpc.api.fusion(True, "torch", "cuda"))
    found = [as_attention(n.attributes["body"]) for n in legalize(made, torch_backend.TARGETS["cuda"]).nodes
             if n.op.name == "region"]
    assert [kind.backward for kind in found if kind is not None] == [False, True]

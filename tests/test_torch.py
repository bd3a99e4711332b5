"""The torch backend: every operation and every program against NumPy, in planned orders too, in as much memory as the
plan says. What has the mark `cuda` runs where torch sees a device."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agreement import by_numpy, close
from hypothesis import HealthCheck, given, settings
from orders import random_order
from random_programs import Program, programs
from test_operations import CASES, EPSILON, INDEX, TYPED, program
from test_operations import sample as operands

import slpc
from slpc import measuring, planning, samples, tensors
from slpc.backends import torch_backend
from slpc.ir.diagnostics import SlpError
from slpc.ir.graph import Graph
from slpc.ir.ops import OPS
from slpc.ir.parse import parse
from slpc.ir.types import DTYPES
from slpc.ir.verify import verify
from slpc.passes.arena import place
from slpc.passes.legalize import legalize
from slpc.passes.schedule import scheduled
from slpc.passes.tasks import tasks

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted(path.stem for path in (ROOT / "programs").glob("*.slp"))
TYPED_PROGRAMS = [name for name in PROGRAMS if "\ndtype = " in (ROOT / "programs" / f"{name}.slp").read_text("utf-8")]
DEVICES = ["cpu", pytest.param("cuda", marks=[
    pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")])]
TOLERANCE = {"f64": 1e-12, "f32": 2e-5, "f16": 1e-2, "bf16": 8e-2}
SMALLER = {
    "gmm": dict(n=2, K=2, d=2), "kalman": dict(N=4), "kepler": dict(steps=3), "lstm": dict(T=3, B=3, d=4, n=5),
    "attention": dict(T=40, d=8), "softmax_attention": dict(T=40, d=8), "mlp": dict(L=3, d=12, m=9),
    "transformer": dict(L=2, d=8, H=2, B=2, T=9, V=17),
}
LARGER = {
    "mlp": dict(L=8, d=64, m=500), "attention": dict(T=512), "softmax_attention": dict(T=512),
    "transformer": dict(L=1, d=64, T=128, V=512), "lstm": dict(T=3, B=64, n=64), "gmm": dict(n=4, K=2),
    "kalman": dict(N=4),
}
"""Sizes at which a plan's bytes are many, or its operations few."""
ALLOWED = {"cpu": 64 << 10, "cuda": 1 << 20}


def load(name: str, **constants: Any) -> Graph:
    return slpc.load(str(ROOT / "programs" / f"{name}.slp"), **constants)


def target(device: str) -> Any:
    return torch_backend.TARGETS[device]


def tensors_of(inputs: Any, device: str = "cpu") -> list[Any]:
    return [tensors.from_numpy(x, device) for x in inputs]


def arrays_of(results: Any) -> list[Any]:
    return list(map(tensors.to_numpy, results))


def in_arena(graph: Graph, device: str = "cpu") -> Any:
    legal = verify(legalize(graph, target(device)))
    return torch_backend.load(torch_backend.emit(legal, place(legal, target(device)), device=device))


def without(graph: Graph, device: str = "cpu") -> Any:
    return torch_backend.load(torch_backend.emit(verify(legalize(graph, target(device))), device=device))


def agree(graph: Graph, inputs: list[Any], device: str = "cpu", looser: float = 1.0) -> None:
    """Without an arena, in one, and into given tensors, against NumPy."""
    want = by_numpy(graph)(*inputs)
    ready = tensors_of(inputs, device)
    run = in_arena(graph, device)
    given = [torch.ones(v.shape, dtype=tensors.dtype_of(v.dtype), device=device) for v in graph.outputs]
    for found in (without(graph, device)(*ready), run(*ready), run(*ready, out=given), run(*ready, out=given), given):
        assert len(found) == len(want)
        for a, b, v in zip(arrays_of(found), want, graph.outputs, strict=True):
            close(a, b, looser * TOLERANCE.get(v.dtype.name, 0.0), v.name)


# Operations ------------------------------------------------------------------------------------------------------

SHAPES = [((), (), ()), ((37,), (37,), (37,)), ((), (3, 19), (19,)), ((5, 1), (1, 20), ()), ((0,), (), (0,)),
          ((2, 1, 9), (3, 1), ())]


def test_no_hole() -> None:
    assert torch_backend.lowered() == set(OPS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_elementwise(name: str, dtype: str, device: str) -> None:
    """Scalars, vectors, and operands that are repeated, against NumPy; with and without an arena."""
    rng = np.random.default_rng(5)
    for shapes in SHAPES:
        graph = parse(program(name, dtype, shapes[:len(OPS[name].operands)]))
        point = operands(name, dtype, shapes[:len(OPS[name].operands)], rng)
        if DTYPES[dtype].kind == "int" and name == "pow":
            point["y"] = np.clip(np.abs(point["y"]), 1, 5).astype(DTYPES[dtype].numpy)
        want = by_numpy(graph)(*point.values())[0]
        for made in (without, in_arena):
            got = tensors.to_numpy(made(graph, device)(*tensors_of(point.values(), device))[0])
            close(got, want, 64 * EPSILON.get(dtype, 0.0))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_not_elementwise(name: str, device: str) -> None:
    """Against NumPy's own functions."""
    rng = np.random.default_rng(6)
    for inputs, expression, reference in CASES[name]:
        graph = parse(f"def f({inputs}):\n    y_ = {expression}\n    return y_\n")
        point = [INDEX[v.name] if v.name in INDEX else rng.uniform(-2, 2, v.shape) for v in graph.inputs]
        want = point[0] if reference is None else reference(*point)
        for made in (without, in_arena):
            found = tensors.to_numpy(made(graph, device)(*tensors_of(point, device))[0])
            assert np.shape(found) == np.shape(want), expression
            np.testing.assert_allclose(found, want, rtol=1e-13, atol=1e-13, err_msg=expression)


CONSTANTS = """
def f(x: {d}[4], c: bool[4], n: {i}[4]):
    a = 1 - x + (2 - x) - (x - 3)
    b = 1 / x + x / 3 + 2 ** x + x ** 2 + x ** 0.5
    m = maximum(x, 1) + minimum(1, x) + maximum(2, x) + x % 2 + 7 % x + x // 2 + 7 // x
    w = where(c, x, 0) + where(c, 1, x) + where(3 > x, 1, 2 * x) + where(x == 1, -3, x)
    k = n % 3 + 7 % n + n // -1 + n // 2 + 7 // n + n ** 2 + maximum(n, 2) + n % -1 + abs(n) + sign(n)
    return a, b, m, w, k, sign(x), sum(x) * 2, -x[::-1], flip(stack([x, a]), 0), cumsum(x[::-2], 0), cbrt(x)
"""


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "index"), [("f64", "i64"), ("f32", "i32"), ("bf16", "i64"), ("f16", "i32")])
def test_numbers_beside_tensors(dtype: str, index: str, device: str) -> None:
    graph = parse(CONSTANTS.format(d=dtype, i=index))
    x = np.array([0.5, 1.0, 2.25, 3.5], DTYPES[dtype].numpy)
    agree(graph, [x, np.array([True, False, True, False]), np.array([-2, 1, 5, 3], DTYPES[index].numpy)], device)


def test_integers_divided_by_nought_and_the_smallest_by_minus_one() -> None:
    graph = parse("def f(x: i32[4], y: i32[4]):\n    return x // y, x % y\n")
    x, y = np.array([7, -2**31, -7, 5], np.int32), np.array([0, -1, 2, -3], np.int32)
    found = arrays_of(in_arena(graph)(*tensors_of([x, y])))
    np.testing.assert_array_equal(found[0], [0, -2**31, -4, -2])
    np.testing.assert_array_equal(found[1], [0, 0, 1, -1])


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_sums_of_sixteen_bits_are_sums_in_f32(dtype: str) -> None:
    """3000 ones: a running sum in bfloat16 would stop at 256, in float16 at 2048."""
    graph = parse(f"""
def f(x: {dtype}[3000], i: i64[3000]):
    return (sum(x), cumsum(x, 0)[2999], (x[None, :] @ x[:, None])[0, 0], scatter_add(x, i, shape=(2,))[1],
            sum(reshape(x, (30, 100)), axis=0)[3])
""")
    found = in_arena(graph)(*tensors_of([np.ones(3000, DTYPES[dtype].numpy), np.ones(3000, np.int64)]))
    assert [float(x) for x in found[:4]] == pytest.approx([3000.0] * 4, rel=2.0**-8)
    assert float(found[4]) == 30.0


def test_nan_and_signs() -> None:
    graph = parse("def f(x: f64[5]):\n    return sign(x), maximum(x, 0), minimum(0, x), max(x), where(x != x, 1, 0)\n")
    x = np.array([np.nan, -0.0, 2.0, -np.inf, np.inf])
    for a, b in zip(arrays_of(in_arena(graph)(*tensors_of([x]))), by_numpy(graph)(x), strict=True):
        np.testing.assert_array_equal(a, b)


# Programs --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_value_and_gradient(name: str, device: str) -> None:
    graph = slpc.adjoint(load(name, **SMALLER.get(name, {})))
    agree(graph, list(samples.draw(graph, 3).values()), device, looser=10.0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TYPED_PROGRAMS)
def test_in_bfloat16(name: str, device: str) -> None:
    """`-D dtype=bf16`, against NumPy in float64 on the same numbers; the tolerance is some roundings of bfloat16."""
    graph = slpc.adjoint(load(name, dtype="bf16", **SMALLER.get(name, {})))
    inputs = samples.draw(graph, 3)
    exact = slpc.adjoint(load(name, dtype="f64", **SMALLER.get(name, {})))
    double = {k: x.astype(np.float64) if x.dtype.kind not in "ib" else x for k, x in inputs.items()}
    want = by_numpy(exact)(*double.values())
    found = arrays_of(in_arena(graph, device)(*tensors_of(inputs.values(), device)))
    assert [v.dtype.name for v in graph.outputs] == ["f32", *["bf16"] * (len(graph.outputs) - 1)]  # the loss in f32
    for a, b, v in zip(found, want, graph.outputs, strict=True):
        assert np.linalg.norm(np.asarray(a, np.float64) - b) <= 0.06 * np.linalg.norm(b), v.name


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the device")
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", ["attention", "softmax_attention", "mlp", "transformer"])
def test_the_program_of_a_gpu_by_tritons_interpreter(name: str, dtype: str) -> None:
    """Groups as Triton kernels, products added to what is there: the text for CUDA, run on the CPU."""
    pytest.importorskip("triton")
    graph = slpc.adjoint(load(name, dtype=dtype, **SMALLER[name]))
    inputs = list(samples.draw(graph, 3).values())
    legal = verify(legalize(graph, target("cuda")))
    assert any(n.op.name == "region" for n in legal.nodes)
    text = torch_backend.emit(legal, place(legal, target("cuda")), kind="cuda")
    assert "@triton.jit" in text
    want = by_numpy(graph)(*inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of the interpreter
        found = arrays_of(torch_backend.load(text)(*tensors_of(inputs)))
    for a, b, v in zip(found, want, graph.outputs, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= (0.06 if dtype == "bf16" else 1e-5) * np.linalg.norm(b), v.name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize(("name", "sizes"), [
    ("attention", dict(T=600, d=8)), ("softmax_attention", dict(T=601, d=8)),
    ("transformer", dict(L=1, d=16, H=2, B=2, T=150, V=700))])
def test_regions_run_by_blocks(name: str, sizes: dict[str, int], dtype: str, device: str) -> None:
    """Attention and the vocabulary loss without their wide values, the last blocks shorter: the same numbers in less
    memory, which is the memory predicted."""
    graph = load(name, dtype=dtype, **sizes)
    whole, blocked = (slpc.api.adjoint(graph, fused=fused) for fused in (False, True))
    assert list(blocked.regions())
    inputs = list(samples.draw(whole, 3).values())
    agree(blocked, inputs, device, looser=10.0)
    planned, less = (planning.plan(g, backend="torch", device=device) for g in (whole, blocked))
    if device == "cpu":  # a block for a GPU is larger than these
        assert less.peak_bytes < planned.peak_bytes
    measured = measuring.peak_bytes(less, "torch", device)
    assert measured == pytest.approx(less.peak_bytes, abs=max(ALLOWED[device], less.peak_bytes // 100))


@pytest.mark.parametrize("name", ["mlp", "lstm", "transformer", "softmax_attention", "gmm"])
@pytest.mark.parametrize("seed", range(2))
def test_orders_that_repeat(name: str, seed: int) -> None:
    graph = legalize(slpc.adjoint(load(name, **SMALLER.get(name, {}))), target("cpu"))
    seen = tasks(graph, target("cpu"))
    agree(scheduled(seen, random_order(seen, np.random.default_rng(seed))), list(samples.draw(graph, 3).values()),
          looser=10.0)


@settings(deadline=None, max_examples=int(os.environ.get("SLPC_EXAMPLES", "0")) or 8, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs(drawn: Program) -> None:
    """The gradient of whatever program, in its own order and in another."""
    graph = legalize(slpc.adjoint(parse(drawn.text)), target("cpu"))
    inputs = [np.asarray(drawn.inputs.get(v.name, np.ones(v.shape, v.dtype.numpy)[()])) for v in graph.inputs]
    seen = tasks(graph, target("cpu"))
    for again in (graph, scheduled(seen, random_order(seen, np.random.default_rng(0)))):
        agree(again, inputs, looser=100.0)


def test_a_long_program_is_in_parts() -> None:
    lines = "\n".join(f"    x = x * 1.0001 + y[{i % 7}]" for i in range(1500))
    graph = parse(f"def f(x: f64[3], y: f64[7], i: i64[2]):\n{lines}\n    return x, y[i]\n")
    text = torch_backend.emit(legalize(graph, target("cpu")), place(legalize(graph, target("cpu")), target("cpu")))
    assert text.count("\ndef _block_f_") > 2
    rng = np.random.default_rng(0)
    agree(graph, [rng.normal(size=3), rng.normal(size=7), np.array([1, -2])])


# Memory ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_predicted_is_measured(name: str, device: str) -> None:
    """At every budget: what torch's allocator had alive at once in a first call, inputs beforehand."""
    graph = slpc.adjoint(load(name, **LARGER.get(name, {})))
    if not any(v.shape for v in graph.values()):
        return  # scalars are torch's own, a few bytes each
    for plan in planning.curve(graph, (0, 0.1, 0.33, 1), effort="quick", backend="torch", device=device):
        measured = measuring.peak_bytes(plan, "torch", device)
        assert measured == pytest.approx(plan.peak_bytes, abs=max(ALLOWED[device], plan.peak_bytes // 100))


def test_arena_is_kept_for_calls_with_out() -> None:
    f = slpc.compile(load("mlp", L=4, d=64, m=500), grad=True, backend="torch")
    inputs = f.from_numpy(samples.draw(f.graph))
    given = f.buffers()
    f(**inputs, out=given)
    assert measuring.allocated_on_cpu(lambda: f(**inputs, out=given)) < 1 << 10


def test_a_value_does_not_keep_the_arena() -> None:
    f = slpc.compile(load("mlp"), backend="torch")
    value = f(**samples.draw(f.graph))
    assert value.untyped_storage().nbytes() == 4


def test_threads_have_arenas_of_their_own() -> None:
    f = slpc.compile(load("mlp", m=9), grad=True, backend="torch")
    samples_ = [f.from_numpy(samples.draw(f.graph, seed)) for seed in range(4)]
    want = [f.flat(**x) for x in samples_]
    wrong = []

    def work(at: int) -> None:
        given = f.buffers()
        for _ in range(20):
            f(**samples_[at], out=given)
            if not all(torch.equal(a, b) for a, b in zip(given.values(), want[at], strict=True)):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# The API ---------------------------------------------------------------------------------------------------------

def test_tensors_in_tensors_out() -> None:
    f = slpc.compile(load("mlp"), grad=True, backend="torch", recompute_budget=0.2)
    inputs = samples.draw(f.graph)
    ready = f.from_numpy(inputs)
    value, grads = f(**ready)
    assert isinstance(value, torch.Tensor) and value.shape == () and list(grads) == ["W", "w"]
    assert f.plan is not None and f.plan.peak_bytes > 0
    again, _ = f(**inputs)  # arrays of NumPy on the CPU, by their memory
    assert torch.equal(value, again)
    ready["W"].requires_grad_()
    assert not f(**ready)[0].requires_grad


class Foreign:
    """What another library's array offers: DLPack, and nothing else."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


def test_dlpack_in_and_out_without_copies() -> None:
    f = slpc.compile("def f(x: f64[3]):\n    return 2 * x\n" and slpc.parse("def f(x: f64[3]):\n    return 2 * x\n"),
                     backend="torch")
    x = torch.arange(3.0, dtype=torch.float64)
    assert tensors.convert(Foreign(x), f.graph.inputs[0], (3,), "cpu").data_ptr() == x.data_ptr()
    y = f(Foreign(x))
    assert np.from_dlpack(y).ctypes.data == y.data_ptr()
    np.testing.assert_array_equal(np.from_dlpack(y), [0, 2, 4])


def test_a_batch_of_points() -> None:
    f = slpc.compile(load("lecture"), grad=True, backend="torch")
    one = torch.linspace(1.0, 2.0, 5, dtype=torch.float64)
    value, grads = f.batch(one, 0.5)
    want, expected = slpc.compile(load("lecture"), grad=True).batch(one.numpy(), 0.5)
    np.testing.assert_allclose(value, want, rtol=1e-14)
    for name in expected:
        np.testing.assert_allclose(grads[name], expected[name], rtol=1e-13)


def test_pickled_as_text() -> None:
    f = slpc.compile(load("lecture"), grad=True, backend="torch")
    again = pickle.loads(pickle.dumps(f))
    assert again.running == f.running and torch.equal(again(1.5, 0.5)[0], f(1.5, 0.5)[0])


def test_f32_is_f32_whatever_the_session_says() -> None:
    f = slpc.compile(load("mlp"), grad=True, backend="torch")
    inputs = samples.draw(f.graph)
    want = f.flat(**inputs)
    of = torch.backends.mkldnn.matmul
    of.fp32_precision = "bf16"
    try:
        for a, b in zip(f.flat(**inputs), want, strict=True):
            assert torch.equal(a, b)
        assert of.fp32_precision == "bf16"
    finally:
        of.fp32_precision = "ieee"


def test_the_module_needs_torch_alone(tmp_path: Path) -> None:
    file = tmp_path / "step.py"
    made = subprocess.run(
        [sys.executable, "-m", "slpc", "compile", str(ROOT / "programs" / "mlp.slp"), "--grad", "--backend", "torch",
         "-o", str(file)], capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    code = ("import sys, torch, step\n"
            "found = step.loss(torch.zeros(4, 64, 64), torch.zeros(64), torch.zeros(64, 64), torch.ones(64))\n"
            "assert float(found[0]) == 1.0 and found[1].shape == (4, 64, 64)\n"
            "assert not any(m.partition('.')[0] == 'slpc' for m in sys.modules)\n")
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                         env={"PATH": "/usr/bin:/bin"})
    assert ran.returncode == 0, ran.stderr


def test_deterministic_algorithms_are_satisfied() -> None:
    f = slpc.compile(load("transformer", **SMALLER["transformer"]), grad=True, backend="torch", deterministic=True)
    inputs = samples.draw(f.graph)
    torch.use_deterministic_algorithms(True)
    try:
        first, again = f.flat(**inputs), f.flat(**inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("name", ["mlp", "transformer", "lecture"])
def test_a_cuda_graph_gives_the_same_bits(name: str) -> None:
    plain = slpc.compile(load(name), grad=True, backend="torch", device="cuda", deterministic=True)
    replayed = slpc.compile(load(name), grad=True, backend="torch", device="cuda", graph=True, deterministic=True)
    for seed in (0, 1, 0):
        inputs = plain.from_numpy(samples.draw(plain.graph, seed))
        want = plain.flat(**inputs)
        for _ in range(2):
            assert all(torch.equal(a, b) for a, b in zip(replayed.flat(**inputs), want, strict=True))


# Errors ----------------------------------------------------------------------------------------------------------

def error(call: Any) -> str:
    with pytest.raises(SlpError) as caught:
        call()
    return str(caught.value)


def test_tensors_that_do_not_fit() -> None:
    f = slpc.compile(slpc.parse("def f(x: f32[2, 3]):\n    return 2 * x\n"), backend="torch")
    assert "E0405" in error(lambda: f(torch.zeros(2, 3, dtype=torch.float64)))
    assert "E0404" in error(lambda: f(torch.zeros(3, 2)))
    found = error(lambda: f(torch.zeros(3, 2).T))
    assert "E0414" in found and "row by row" in found and "x.contiguous()" in found
    found = error(lambda: f(torch.zeros(2, 3, device="meta")))
    assert "E0414" in found and "is on meta, and the program runs on cpu" in found
    assert "E0404" in error(lambda: f("text"))
    x = torch.zeros(2, 3)
    for out in ([x], [torch.zeros(3, 2).T], [torch.zeros(2, 3).double()], [np.zeros((2, 3))],
                [torch.zeros(2, 3, device="meta")]):
        assert "E0413" in error(lambda out=out: f(x, out=out))


def test_an_index_out_of_range_is_an_error_at_the_users_line() -> None:
    text = "def f(E: f64[9, 4], *, i: i64[2], j: i32[2]):\n    y = E[i]\n    z = E[i, j]\n    return y, z\n"
    f = slpc.compile(slpc.parse(text), backend="torch")
    E = torch.arange(36.0, dtype=torch.float64).view(9, 4)

    def run(i: list[int], j: list[int]) -> Any:
        return f(E, torch.tensor(i), torch.tensor(j, dtype=torch.int32))

    y, z = run([-9, 8], [-1, 3])
    assert torch.equal(y, E[[0, 8]]) and torch.equal(z, torch.tensor([3.0, 35.0], dtype=torch.float64))
    found = error(lambda: run([0, 9], [0, 0]))
    assert "E0406" in found and "index 9 is out of range for an axis of length 9" in found
    assert "index -5 is out of range for an axis of length 4" in error(lambda: run([0, 1], [0, -5]))


def test_what_is_not_there() -> None:
    if not torch.cuda.is_available():
        assert "E0504" in error(lambda: slpc.compile(load("lecture"), backend="torch", device="cuda"))
    assert "E0411" in error(lambda: slpc.compile(load("lecture"), backend="torch", device="tpu"))
    assert "E0706" in error(lambda: slpc.compile(load("lecture"), device="cpu"))
    assert "E0706" in error(lambda: slpc.compile(load("lecture"), backend="torch", graph=True))
    f = slpc.compile(load("rosenbrock"), grad=True, backend="torch")
    assert "E0702" in error(f.scipy)
    assert "E0702" in error(lambda: f.bind(None, None))


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = error(lambda: slpc.compile(load("lecture"), backend="torch"))
    assert "E0501" in found and "pip install 'slpc[torch]'" in found


def test_a_device_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the run, with the budget that would fit. A device of so many bytes is made up."""
    graph = slpc.adjoint(load("transformer", L=1, d=64, T=128, V=512))
    f: Any = slpc.compile(graph, backend="torch", recompute_budget=0)
    less, = planning.curve(graph, (0.33,), effort="quick", backend="torch", device="cuda")
    f.running = replace(f.running, device="cuda")
    f._planned = f.plan.peak_bytes + torch_backend.CUBLAS
    assert less.peak_bytes < f._planned
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (less.peak_bytes, 1 << 40))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    found = error(f._check_room)
    assert "E0408" in found and "beyond its inputs" in found and "are free" in found
    assert "recompute_budget=0.33" in found

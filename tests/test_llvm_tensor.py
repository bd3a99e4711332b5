"""Programs of arrays as native loops: every operation, every program and its gradient against NumPy, in planned orders
too, in as much memory as the plan says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import by_numpy, close
from hypothesis import HealthCheck, given, settings
from orders import random_order
from random_programs import Program, programs
from test_operations import CASES, EPSILON, INDEX, TYPED, program
from test_operations import sample as operands

import slpc
from slpc import samples
from slpc.backends import llvm_backend, llvm_loops, llvm_nests
from slpc.backends.llvm_backend import TARGET
from slpc.ir.graph import Graph
from slpc.ir.ops import OPS
from slpc.ir.parse import parse
from slpc.ir.types import DTYPES
from slpc.ir.verify import verify
from slpc.measuring import peak_bytes
from slpc.passes.arena import place
from slpc.passes.inlining import inlined
from slpc.passes.legalize import legalize
from slpc.passes.schedule import scheduled
from slpc.passes.tasks import tasks

PROGRAMS = sorted(path.stem for path in (Path(__file__).parent.parent / "programs").glob("*.slp"))
TOLERANCE = {"f64": 1e-12, "f32": 2e-5, "f16": 1e-2, "bf16": 8e-2}


def load(name: str, **constants: Any) -> Graph:
    return slpc.load(str(Path(__file__).parent.parent / "programs" / f"{name}.slp"), **constants)


def loops(graph: Graph) -> Any:
    """The program as loops, however small it is."""
    legal = verify(legalize(graph, TARGET))
    return llvm_backend.load(llvm_backend.emit(legal, place(legal, TARGET, inlined(legal, TARGET))))


def agree(graph: Graph, inputs: list[Any], looser: float = 1.0) -> None:
    """The program as loops, fresh and into given arrays, against NumPy."""
    run = loops(graph)
    want = by_numpy(graph)(*inputs)
    given = [np.full(v.shape, 1, v.dtype.numpy) for v in graph.outputs]
    for found in (run(*inputs), run(*inputs, out=given), run(*inputs, out=given), given):
        assert len(found) == len(want)
        for a, b, v in zip(found, want, graph.outputs, strict=True):
            close(a, b, looser * TOLERANCE.get(v.dtype.name, 0.0), v.name)


# Operations ------------------------------------------------------------------------------------------------------

SHAPES = [((37,), (37,), (37,)), ((), (3, 19), (19,)), ((5, 1), (1, 20), ()), ((0,), (), (0,)), ((2, 1, 9), (3, 1), ())]


def test_no_hole() -> None:
    loops_of = {name for name, op in OPS.items() if op.elementwise} | llvm_nests.lowered()
    assert loops_of | {"copy", "region", "all_reduce", "wait"} == {name for name, op in OPS.items() if not op.view}


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_elementwise(name: str, dtype: str) -> None:
    """Vectors, the elements that are left over, and operands that are repeated, against NumPy."""
    rng = np.random.default_rng(5)
    for shapes in SHAPES:
        graph = parse(program(name, dtype, shapes[:len(OPS[name].operands)]))
        point = operands(name, dtype, shapes[:len(OPS[name].operands)], rng)
        if DTYPES[dtype].kind == "int" and name in ("floor_divide", "mod", "pow"):
            point["y"] = np.clip(np.abs(point["y"]), 1, 5).astype(DTYPES[dtype].numpy)
        got, want = loops(graph)(*point.values())[0], by_numpy(graph)(*point.values())[0]
        close(got, want, 64 * EPSILON.get(dtype, 0.0))


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_not_elementwise(name: str) -> None:
    """Against NumPy's own functions."""
    rng = np.random.default_rng(6)
    for inputs, expression, reference in CASES[name]:
        graph = parse(f"def f({inputs}):\n    y_ = {expression}\n    return y_\n")
        point = [INDEX[v.name] if v.name in INDEX else rng.uniform(-2, 2, v.shape) for v in graph.inputs]
        found = loops(graph)(*point)[0]
        want = point[0] if reference is None else reference(*point)
        assert np.shape(found) == np.shape(want), expression
        np.testing.assert_allclose(found, want, rtol=1e-13, atol=1e-13, err_msg=expression)


REDUCTIONS = [("(70,)", "0"), ("(7, 131)", "1"), ("(131, 70)", "0"), ("(3, 40, 5)", "1"), ("(4, 5, 6)", "(0, 2)"),
              ("(2, 1, 300)", "(0, 1, 2)"), ("(33, 1)", "1"), ("(1, 33)", "0"), ("(6, 3)", "1")]


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16", "i32", "i64", "bool"])
@pytest.mark.parametrize("name", ["sum", "max", "min", "cumsum"])
def test_reductions(name: str, dtype: str) -> None:
    """Along rows and down columns, in rows and in transposed order, in every dtype; NaN is found."""
    if dtype == "bool" and name in ("sum", "cumsum"):
        pytest.skip("numbers only")
    rng = np.random.default_rng(7)
    for shape, axis in REDUCTIONS:
        if name == "cumsum" and "," in axis:
            continue
        x = (rng.uniform(-3, 3, eval(shape)) * 10).astype(DTYPES[dtype].numpy)
        text = f"def f(x: {dtype}{list(x.shape)}):\n    return {name}(x, axis={axis})\n"
        close(loops(parse(text))(x)[0], by_numpy(parse(text))(x)[0], 40 * EPSILON.get(dtype, 0.0), text)
        if x.ndim == 2:
            turned = text.replace(str(list(x.shape)), str(list(x.T.shape))).replace("(x,", "(x.T,")
            x = np.ascontiguousarray(x.T)
            close(loops(parse(turned))(x)[0], by_numpy(parse(turned))(x)[0], 40 * EPSILON.get(dtype, 0.0), turned)
    if DTYPES[dtype].is_float and name != "cumsum":
        x = np.ones(70).astype(DTYPES[dtype].numpy)
        x[41] = np.nan
        assert np.isnan(loops(parse(f"def f(x: {dtype}[70]):\n    return {name}(x, axis=0)\n"))(x)[0].astype(float))


def test_sums_of_f32_are_rounded_once() -> None:
    x = np.random.default_rng(8).uniform(0, 1, (3, 100_000)).astype(np.float32)
    found = loops(parse("def f(x: f32[3, 100000]):\n    return sum(x, axis=1)\n"))(x)[0]
    assert np.array_equal(found, x.astype(np.float64).sum(1).astype(np.float32))


LAYOUTS = ["x @ y", "x @ y.mT.mT[:, ::-1]", "(x.T).T @ y", "x[:, 1:] @ y[1:]", "y.T @ x.T", "x[:, ::-1] @ y[::-1]",
           "broadcast_to(x[0], (60, 40)) @ y", "x[:1] @ y", "x @ y[:, :1]", "(x @ y)[::2] @ y.T",
           "x @ y[:, 3]", "y.T @ x[2]", "x[:, 1] @ (x @ y)", "y[4] @ y[:9].T", "x[::2] @ y[:, 1:2]", "x[:, :1] @ y[:1]",
           "x.T @ broadcast_to(y[0, 0], (60,))"]


@pytest.mark.parametrize("dtype", ["f64", "f32", "bf16", "i64"])
@pytest.mark.parametrize("expression", LAYOUTS)
def test_products(expression: str, dtype: str) -> None:
    """As a BLAS takes its operands, and as it does not; vectors too."""
    rng = np.random.default_rng(9)
    graph = parse(f"def f(x: {dtype}[60, 40], y: {dtype}[40, 50]):\n    return {expression}\n")
    agree(graph, [(rng.uniform(-1, 1, v.shape) * 9).astype(v.dtype.numpy) for v in graph.inputs])


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(("m", "k", "n"), [(2, 300, 5), (7, 257, 65), (97, 41, 530), (150, 600, 1100), (6, 64, 64),
                                           (64, 1030, 2)])
def test_large_products(m: int, k: int, n: int, dtype: str) -> None:
    """Panels and tiles that are full and that are not, both operands as they lie and transposed, and batches."""
    rng = np.random.default_rng(10)
    for left, right in ((f"{m}, {k}", f"{k}, {n}"), (f"{k}, {m}", f"{k}, {n}"), (f"{m}, {k}", f"{n}, {k}"),
                        (f"{k}, {m}", f"{n}, {k}")):
        a, b = ("x" if left.startswith(f"{m}, ") else "x.mT"), ("y" if right.startswith(f"{k}, ") else "y.mT")
        text = f"def f(x: {dtype}[3, {left}], y: {dtype}[{right}]):\n    return {a} @ {b}\n"
        graph = parse(text)
        agree(graph, [rng.uniform(-1, 1, v.shape).astype(v.dtype.numpy) for v in graph.inputs])


@pytest.mark.parametrize("wrong", [4, -5, 2**40, -(2**62), 2**63 - 1])
def test_an_index_out_of_range_is_an_error(wrong: int) -> None:
    text = "def f(E: f64[4, 3000], *, tok: i64[3]):\n    y = E[tok]\n    return sum(y * y)\n"
    f = slpc.compile(slpc.parse(text), grad=True, backend="llvm")
    with pytest.raises(slpc.SlpError, match=f"index {wrong} is out of range for an axis of length 4") as caught:
        f(np.ones((4, 3000)), np.array([0, wrong, 1]))
    assert caught.value.code == "E0406"
    assert caught.value.diagnostics[0].span.line == 2
    value, grads = f(np.ones((4, 3000)), np.array([0, -1, 0]))
    assert value == 9000
    assert grads["E"][:, 0].tolist() == [4, 0, 0, 2]


# Programs --------------------------------------------------------------------------------------------------------

def arrays(graph: Graph) -> bool:
    return any(v.shape for v in graph.values())


ARRAYS = [name for name in PROGRAMS if arrays(load(name))]
SHORTER = {"gmm": dict(n=6, K=3, d=2), "kalman": dict(N=4), "lstm": dict(T=5)}
DOUBLE = {name: {"dtype": "f64"} for name in ("attention", "lstm", "mlp", "softmax_attention", "transformer")}


@pytest.mark.parametrize("name", ARRAYS)
def test_programs(name: str) -> None:
    """Values and gradients in f64 to 1e-12, and in the dtype that the program declares."""
    for constants in ({**SHORTER.get(name, {}), **DOUBLE.get(name, {})}, SHORTER.get(name, {})):
        graph = slpc.adjoint(load(name, **constants))
        agree(graph, list(samples.draw(graph, 3).values()))


@pytest.mark.parametrize("name", ARRAYS)
def test_the_front_door(name: str) -> None:
    graph = load(name, **SHORTER.get(name, {}))
    f, g = (slpc.compile(graph, grad=True, backend=backend) for backend in ("llvm", "numpy"))
    inputs = samples.draw(f.graph, 4)
    for a, b in zip(f.flat(**inputs), g.flat(**inputs), strict=True):
        close(a, b, TOLERANCE[np.asarray(b).dtype.name.replace("loat", "")])


@pytest.mark.parametrize("name", ["mlp", "transformer", "attention", "lstm"])
def test_plans(name: str) -> None:
    """What a plan computes again, in its order."""
    small = {"transformer": dict(L=2, d=16, H=2, B=2, T=11, V=29), "lstm": dict(T=4, B=3, d=4, n=9)}
    graph = slpc.adjoint(load(name, **small.get(name, {}), **DOUBLE[name]))
    planned = slpc.plan(graph, recompute_budget=0.3, backend="llvm", effort="quick").graph
    assert planned.scheduled
    agree(planned, list(samples.draw(graph, 5).values()))


@settings(deadline=None, max_examples=int(os.environ.get("SLPC_EXAMPLES", "0")) or 8, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs(drawn: Program) -> None:
    """The gradient of whatever program, in its own order and in another."""
    graph = verify(legalize(slpc.adjoint(parse(drawn.text)), TARGET))
    if not arrays(graph):
        return
    inputs = [np.asarray(drawn.inputs.get(v.name, np.ones(v.shape, v.dtype.numpy)[()])) for v in graph.inputs]
    seen = tasks(graph, TARGET)
    for each in (graph, scheduled(seen, random_order(seen, 0))):
        assert place(each, TARGET, inlined(each, TARGET)).live_peak <= place(each, TARGET).live_peak
        agree(each, inputs, 1000.0 if any(v.dtype.name == "f64" for v in each.values()) else 30.0)


# Inlining --------------------------------------------------------------------------------------------------------

def inner(text: str) -> set[str]:
    """The values that their readers compute."""
    return {node.result.name for node in inlined(legalize(parse(text), TARGET), TARGET)}


def test_a_chain_is_one_loop() -> None:
    text = ("def f(x: f32[900], y: f32[900]):\n    a = exp(x)\n    b = a * y\n    c = b + a\n    s = sum(c)\n"
            "    return s\n")
    assert inner(text) == {"b", "c"}  # a has two readers
    mask = "def f(x: f32[9, 9]):\n    i = arange(9)\n    m = i[:, None] < i\n    y = where(m, x, 0.0)\n    return y\n"
    assert inner(mask) == {"i", "m"}


def test_what_would_take_more_memory_stays() -> None:
    text = ("def f(x: f32[30, 30]):\n    a = x @ x\n    b = a @ x\n{}    c = a * b\n{}    d = e + c\n"
            "    return d @ d\n")
    product = "    e = x @ x.T\n"
    assert inner(text.format(product, "")) == {"c"}
    assert inner(text.format("", product)) == set()  # a and b would be kept longer, and c is only as large as one


def test_the_result_lies_over_what_a_chain_reads_last() -> None:
    text = ("def f(x: f32[30, 30]):\n    a = x @ x\n    b = exp(a)\n    c = b + x\n    d = c * c.T\n"
            "    return d @ d\n")
    graph = legalize(parse(text), TARGET)
    placement = place(graph, TARGET, inlined(graph, TARGET))
    heirs = {v.name: heir.name for v, heir in placement.heirs.items()}
    assert heirs == {"a": "c"}
    agree(graph, [np.random.default_rng(0).uniform(-1, 1, (30, 30)).astype(np.float32) / 9])


# Memory, threads, text -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["mlp", "transformer", "attention"])
def test_the_peak_is_the_arenas(name: str) -> None:
    """tracemalloc's peak of a first call, of one after it, which allocates the outputs, and of one into given arrays,
    which allocates nothing."""
    larger = {"mlp": dict(L=8, d=64, m=500), "attention": dict(T=512), "transformer": dict(L=2, d=32, T=64, V=256)}
    f = slpc.compile(load(name, **larger[name]), grad=True, backend="llvm")
    inputs = samples.draw(f.graph, 0)
    size = place(f.graph, TARGET, inlined(f.graph, TARGET)).size
    assert size <= place(f.graph, TARGET).size
    slpc.compile(load(name, **larger[name]), grad=True, backend="llvm")(**inputs)
    given = f.buffers()
    outputs = sum(v.type.bytes for v in f.graph.outputs)
    arena = lambda: f(**inputs, out=given)  # noqa: E731
    for call, wanted in ((lambda: f(**inputs), size), (arena, size), (lambda: f(**inputs), outputs), (arena, 0)):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        call()
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        assert peak == pytest.approx(wanted, abs=max(16 << 10, wanted // 100))


@pytest.mark.parametrize("budget", [0, 0.33])
def test_a_plan_says_what_is_measured(budget: float) -> None:
    """What loops compute that read it is no part of it, what products pack is."""
    plan = slpc.plan(slpc.adjoint(load("mlp", L=4, d=40, m=900)), recompute_budget=budget, backend="llvm")
    assert peak_bytes(plan, "llvm") == pytest.approx(plan.peak_bytes, abs=8 << 10)


def test_threads_have_arenas_of_their_own() -> None:
    f = slpc.compile(load("mlp", L=4, d=32, m=300), grad=True, backend="llvm")
    several = [samples.draw(f.graph, seed) for seed in range(4)]
    expected = [f.flat(**inputs) for inputs in several]
    found: dict[int, dict[str, Any]] = {}

    def loop(which: int) -> None:
        for _ in range(20):
            found[which] = f.buffers()
            f.flat(**several[which], out=found[which])

    threads = [threading.Thread(target=loop, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in range(4):
        for a, b in zip(found[which].values(), expected[which], strict=True):
            np.testing.assert_array_equal(a, b)


THREADED = """
import hashlib, os, sys
import slpc
from slpc import samples
graph = slpc.load(sys.argv[1], **eval(sys.argv[2]))
f = slpc.compile(graph, grad=True, backend="llvm")
inputs, found = samples.draw(f.graph, 0), f.buffers()
def digest():
    f(**inputs, out=found)
    return hashlib.sha256(b"".join(a.tobytes() for a in found.values())).hexdigest()
first = digest()
assert all(digest() == first for _ in range(60))
child = os.fork()
if child == 0:
    os._exit(0 if digest() == first else 1)
assert os.waitpid(child, 0)[1] == 0
print(first)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the child is forked")
@pytest.mark.parametrize(("name", "sizes"), [
    ("transformer", {"L": 1, "d": 96, "T": 160, "V": 300, "H": 3}), ("softmax_attention", {"T": 700}),
    ("mlp", {"L": 3, "d": 96, "m": 400})])
def test_any_number_of_threads_gives_the_same_bits(name: str, sizes: dict[str, int]) -> None:
    """And so does a child process that was forked after threads had run. Blocks of attention add to the same sums;
    products of few blocks have memory for as many threads alone."""
    path = str(Path(__file__).parent.parent / "programs" / f"{name}.slp")
    found = {subprocess.run([sys.executable, "-c", THREADED, path, str(sizes)], check=True, capture_output=True,
                            text=True, env={**os.environ, "SLPC_NUM_THREADS": str(count)}, timeout=100).stdout
             for count in (1, 2, 5)}
    assert len(found) == 1 and len(found.pop().strip()) == 64


def test_the_text_is_enough() -> None:
    """It is the same every time, and has the arena and the outputs' places in its head."""
    graph = legalize(slpc.adjoint(load("mlp")), TARGET)
    placement = place(graph, TARGET)
    text = llvm_backend.emit(graph, placement)
    assert text == llvm_backend.emit(graph, place(graph, TARGET))
    assert f"; arena {placement.size} " in text


def test_axes_that_lie_end_to_end_are_one() -> None:
    a = llvm_loops.Access("%p", DTYPES["f64"], (12, 4, 1))
    b = llvm_loops.Access("%q", DTYPES["f64"], (0, 0, 1))
    assert llvm_loops.collapsed((2, 3, 4), {"a": a})[0] == (24,)
    shape, accesses = llvm_loops.collapsed((2, 3, 4), {"a": a, "b": b})
    assert shape == (6, 4)
    assert accesses["a"].strides == (4, 1)
    assert accesses["b"].strides == (0, 1)

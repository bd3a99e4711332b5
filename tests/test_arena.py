"""The NumPy backend in an arena: equal in every bit to the program without one, in as much memory as was predicted."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from orders import random_order
from random_programs import Program, programs

import slpc
from slpc import samples
from slpc.backends import numpy_backend
from slpc.backends.numpy_backend import TARGET
from slpc.ir.graph import Graph
from slpc.ir.parse import parse
from slpc.ir.verify import verify
from slpc.passes.arena import Placement, place
from slpc.passes.legalize import legalize
from slpc.passes.liveness import lives
from slpc.passes.schedule import scheduled
from slpc.passes.tasks import tasks

PROGRAMS = sorted(path.stem for path in (Path(__file__).parent.parent / "programs").glob("*.slp"))
ALLOWED = 64 << 10
LARGER = {
    "mlp": dict(L=8, d=64, m=500),
    "attention": dict(T=512),
    "softmax_attention": dict(T=512),
    "transformer": dict(L=3, d=64, T=128, V=512),
    "lstm": dict(B=64, n=64),
    "gmm": dict(n=15, K=3),
}


def load(name: str, **constants: Any) -> Graph:
    return slpc.load(str(Path(__file__).parent.parent / "programs" / f"{name}.slp"), **constants)


def legal(name: str, grad: bool = True, **constants: Any) -> Graph:
    graph = load(name, **constants)
    return verify(legalize(slpc.adjoint(graph) if grad else graph, TARGET))


def drawn(graph: Graph) -> list[Any]:
    return list(samples.draw(graph, 3).values())


def in_arena(graph: Graph, **options: Any) -> Callable[..., Any]:
    return numpy_backend.load(numpy_backend.emit(graph, place(graph, TARGET), **options))


def without(graph: Graph) -> Callable[..., Any]:
    return numpy_backend.load(numpy_backend.emit(graph))


def assert_same_bits(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8))


def arrays(graph: Graph) -> bool:
    return any(v.shape for v in graph.values())


def buffers(graph: Graph) -> list[Any]:
    return [np.full(v.shape, 1, v.dtype.numpy) for v in graph.outputs]


def peak(call: Callable[[], Any]) -> int:
    """Most bytes that the call has allocated at once, what it returns included."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    result = call()
    found = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    del result
    return found


def check_measured(graph: Graph, predicted: int, inputs: Sequence[Any]) -> None:
    """A first call, arena and outputs made inside it, takes what was predicted; a later one with `out=` no array."""
    in_arena(graph)(*inputs)  # what NumPy and BLAS allocate once and for all
    call = in_arena(graph)
    assert peak(lambda: call(*inputs)) == pytest.approx(predicted, abs=max(ALLOWED, predicted // 100))
    given = buffers(graph)
    call(*inputs, out=given)
    assert peak(lambda: call(*inputs, out=given)) < 32 << 10  # NumPy converts and repeats 1024 elements at a time


def check_no_overlap(graph: Graph, placement: Placement) -> None:
    """No two values that are alive together share a byte, but for a value and what it is written over as it dies."""
    seen = tasks(graph, TARGET)
    alive = lives(seen, seen.order)
    value = [seen.values[b] for b in alive.buffer]
    span = [(placement.offsets[v], placement.offsets[v] + v.type.bytes) for v in value]
    assert max((end for _, end in span), default=0) <= placement.size
    now: list[int] = []
    for copy in range(len(value)):
        now = [other for other in now if alive.end[other] >= alive.start[copy]]
        for other in now:
            apart = span[copy][1] <= span[other][0] or span[other][1] <= span[copy][0]
            heir = placement.heirs.get(value[other]) is value[copy] and alive.end[other] == alive.start[copy]
            assert apart or heir, f"{value[copy].name} and {value[other].name}"
        now.append(copy)
    for node, start in placement.workspace.items():
        end = start + TARGET.workspace(node)
        step = seen.nodes.index(node)
        for copy in range(len(value)):
            if alive.start[copy] <= step <= alive.end[copy]:
                assert span[copy][1] <= start or end <= span[copy][0], f"{value[copy].name} and a workspace"


@pytest.mark.parametrize("grad", [False, True], ids=["value", "grad"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_same_bits_with_and_without(name: str, grad: bool) -> None:
    graph = legal(name, grad)
    inputs = drawn(graph)
    expected = without(graph)(*inputs)
    assert_same_bits(in_arena(graph)(*inputs), expected)
    if arrays(graph):
        assert_same_bits(in_arena(graph, poison=True)(*inputs), expected)
        call = in_arena(graph)
        for _ in range(2):
            given = buffers(graph)
            assert_same_bits(call(*inputs, out=given), expected)
            assert_same_bits(given, expected)
        poisoned = in_arena(graph, poison=True)
        for _ in range(2):
            assert_same_bits(poisoned(*inputs, out=buffers(graph)), expected)


SMALLER = {
    "gmm": dict(n=2, K=2, d=2),
    "kalman": dict(N=4),
    "lstm": dict(T=3, B=3, d=4, n=5),
    "transformer": dict(L=2, d=8, H=2, B=2, T=9, V=17),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PROGRAMS)
def test_any_order_with_repeats(name: str, seed: int) -> None:
    """A legal order, whatever it repeats, gives the same bits; nothing that is alive is written over."""
    graph = legal(name, **SMALLER.get(name, {}))
    if not arrays(graph):
        pytest.skip("runs on Python floats")
    seen = tasks(graph, TARGET)
    planned = verify(scheduled(seen, random_order(seen, seed)))
    inputs = drawn(graph)
    expected = without(graph)(*inputs)
    placement = place(planned, TARGET)
    check_no_overlap(planned, placement)
    assert_same_bits(in_arena(planned, poison=True)(*inputs), expected)
    assert_same_bits(in_arena(planned)(*inputs, out=buffers(planned)), expected)


@settings(deadline=None, max_examples=int(os.environ.get("SLPC_EXAMPLES", "0")) or 25, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(programs())
def test_random_programs(program: Program) -> None:
    """The gradient of whatever program, in its own order and in another."""
    graph = verify(legalize(slpc.adjoint(parse(program.text)), TARGET))
    inputs = [program.inputs.get(v.name, np.ones(v.shape, v.dtype.numpy)[()]) for v in graph.inputs]
    if not arrays(graph):
        return
    expected = without(graph)(*inputs)
    for each in (graph, scheduled(tasks(graph, TARGET), random_order(tasks(graph, TARGET), 0))):
        check_no_overlap(each, place(each, TARGET))
        assert_same_bits(in_arena(each, poison=True)(*inputs), expected)
        assert_same_bits(in_arena(each)(*inputs, out=buffers(each)), expected)


def test_outputs_that_are_arrays_of_one_scalar() -> None:
    f = slpc.compile(slpc.parse("""
def f(x: f64[3], y: f64[2]):
    z = reshape(sum(x), (1, 1))
    return z @ reshape(y, (1, 2)), z, max(x, axis=-1, keepdims=True)
"""))
    wanted = [[6.0, 12.0]], [[6.0]], [3.0]
    for found in (f([1, 2, 3], [1, 2]), f([1, 2, 3], [1, 2], out=f.buffers())):
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_two_live_values_overlap(name: str) -> None:
    graph = legal(name)
    placement = place(graph, TARGET)
    check_no_overlap(graph, placement)
    assert placement.live_peak <= placement.size <= 1.02 * placement.live_peak


@pytest.mark.parametrize("sizes", ["as declared", "larger"])
@pytest.mark.parametrize("grad", [False, True], ids=["value", "grad"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_predicted_is_measured(name: str, grad: bool, sizes: str) -> None:
    """tracemalloc's peak of a first call, arena and outputs made inside it, is the size of the arena."""
    graph = legal(name, grad, **(LARGER.get(name, {}) if sizes == "larger" else {}))
    if not arrays(graph):
        pytest.skip("runs on Python floats")
    check_measured(graph, place(graph, TARGET).size, drawn(graph))


PLANNED = {
    **LARGER,
    "transformer": dict(L=1, d=32, H=2, B=1, T=64, V=256),
    "lstm": dict(T=2, B=128, n=64),
    "gmm": dict(n=4, K=2, d=2),
    "kalman": dict(N=4),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_predicted_is_measured_at_every_budget(name: str) -> None:
    """What a plan says of its peak is what a first call takes, whatever it computes again."""
    graph = slpc.adjoint(load(name, **PLANNED.get(name, {})))
    if not arrays(graph):
        pytest.skip("runs on Python floats")
    inputs = drawn(graph)
    for plan in slpc.curve(graph, (0, 0.1, 0.33, 1), effort="quick"):
        check_measured(plan.graph, plan.peak_bytes, inputs)


def test_a_result_keeps_its_own_bytes_only() -> None:
    graph = legal("mlp", L=8, d=64, m=500)
    call = in_arena(graph)
    inputs = drawn(graph)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    result = call(*inputs)
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < sum(np.asarray(r).nbytes for r in result) + ALLOWED


def test_no_later_call_touches_a_result() -> None:
    """Values of earlier calls stay, whatever way they are held: views of views, memoryviews, in any thread."""
    graph = legal("mlp", L=4, d=32, m=300)
    call = in_arena(graph)
    several = [list(samples.draw(graph, seed).values()) for seed in range(5)]
    expected = [without(graph)(*inputs) for inputs in several]
    found = [call(*inputs) for inputs in several]
    parts = [result[1][1:, ::2].T[3] for result in found]
    raw = [memoryview(result[1]) for result in found]
    for result, values in zip(found, expected, strict=True):
        assert_same_bits(result, values)
    del found, result
    for inputs in reversed(several):
        call(*inputs)
        call(*inputs, out=buffers(graph))
    for part, memory, values in zip(parts, raw, expected, strict=True):
        assert np.array_equal(part, values[1][1:, ::2].T[3])
        assert memory.tobytes() == values[1].tobytes()


def test_a_later_call_allocates_its_outputs_alone() -> None:
    graph = legal("mlp", L=8, d=64, m=500)
    call = in_arena(graph)
    inputs = drawn(graph)
    results = [call(*inputs) for _ in range(2)]
    assert peak(lambda: call(*inputs)) < sum(np.asarray(r).nbytes for r in results[0]) + (32 << 10)
    assert all(array.base is None for array in call(*inputs)[1:])


def test_a_call_within_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What interrupts a call, a signal's handler say, may call the same function."""
    graph = legal("mlp", L=2, d=8, m=20)
    call = in_arena(graph)
    inputs, others = (list(samples.draw(graph, seed).values()) for seed in range(2))
    expected, between = without(graph)(*inputs), without(graph)(*others)
    negative, found = np.negative, []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(np, "negative", negative)
        found.append(call(*others))
        return negative(*args, **kwargs)

    for _ in range(3):
        monkeypatch.setattr(np, "negative", interrupted)
        assert_same_bits(call(*inputs), expected)
    assert len(found) == 3
    for result in found:
        assert_same_bits(result, between)


def test_the_arena_goes_with_the_function() -> None:
    graph = legal("mlp", L=8, d=64, m=500)
    inputs = drawn(graph)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    call = in_arena(graph)
    for _ in range(2):
        call(*inputs)
    size = place(graph, TARGET).size
    assert tracemalloc.get_traced_memory()[0] - before > size
    del call
    gc.collect()
    left = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert left < size // 2


def test_threads_have_arenas_of_their_own() -> None:
    graph = legal("mlp", L=4, d=32, m=300)
    call = in_arena(graph)
    several = [list(samples.draw(graph, seed).values()) for seed in range(4)]
    expected = [without(graph)(*inputs) for inputs in several]
    found: dict[int, list[Any]] = {}

    def loop(which: int) -> None:
        for _ in range(20):
            found[which] = buffers(graph)
            call(*several[which], out=found[which])

    threads = [threading.Thread(target=loop, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in range(4):
        assert_same_bits(found[which], expected[which])

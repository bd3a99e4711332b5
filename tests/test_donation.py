"""Outputs that are written over inputs: the same values with and without, in less memory, whatever the order."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from orders import random_order
from random_programs import Program, programs

import slpc
from slpc import samples
from slpc.backends import numpy_backend
from slpc.backends.numpy_backend import TARGET
from slpc.ir.diagnostics import Fault, SlpError
from slpc.ir.donation import donations
from slpc.ir.graph import Graph
from slpc.ir.parse import parse
from slpc.ir.verify import verify
from slpc.passes.arena import place
from slpc.passes.donation import lodgings, settled
from slpc.passes.legalize import legalize
from slpc.passes.liveness import lives
from slpc.passes.schedule import scheduled
from slpc.passes.simplify import simplify
from slpc.passes.tasks import tasks
from slpc.passes.update import OPTIMIZERS, training_step

N = 3000
HEAD = f'@donated(w="v")\ndef f(w: f64[2, {N}], x: f64[2, {N}], y: f64[{N}]):\n'
CASES = {
    "in place": "v = w - x",
    "not read": "v = x * x",
    "read before": "s = sum(w); v = w * x + s",
    "a chain that begins with it": "v = sin(0.9 * w + 1.0) - x",
    "a chain whose other end reads it": "t = 2.0 * x; v = t + w * t",
    "read twice": "v = w * w - x",
    "read in two ways": "v = w - flip(w, axis=1)",
    "turned around": "v = flip(w, axis=0)",
    "by layers": "v = stack([w[0] - y, w[1] * y])",
    "by layers, the other way round": "v = stack([w[1] - y, w[0] * y])",
    "one layer as it was": "v = stack([w[0], w[1] * y])",
    "layers that read one another": "a = w[0] - y; v = stack([a, w[1] * a])",
    "the second layer reads the first": "v = stack([w[0] - y, w[1] * w[0]])",
    "a sum of a layer after its update": "a = 0.5 * w[0]; s = sum(w[0]); v = stack([a + s, w[1] - s])",
    "a product": f"v = w @ (x.T @ x)[:1, :1] @ x[:1] if {N} == 0 else (w @ x.T) @ x",
    "a transpose of it": f"v = reshape(w.T, (2, {N})) - w",
    "a reduction of it": "v = w - broadcast_to(sum(w, axis=0), w.shape)",
    "chosen": "v = where(x > 0, w, x)",
    "read by others": "v = w - x; t = v * v; s = sum(t)",
    "a view of what is computed": f"v = reshape(reshape(w - x, (2 * {N},)), (2, {N}))",
    "a constant": f"v = zeros((2, {N}))",
    "padded": f"v = concat([w[:, :{N - 9}] * 2.0, zeros((2, 9))], axis=1)",
}


def case(name: str) -> tuple[Graph, Graph]:
    """The program with its donation and without."""
    text = HEAD + "".join(f"    {line.strip()}\n" for line in CASES[name].split(";")) + "    return v, sum(x * v)\n"
    return simplify(parse(text)), simplify(parse(text.split("\n", 1)[1]))


def arguments(graph: Graph) -> list[Any]:
    return [np.array(x) for x in samples.draw(graph, 3).values()]


def address(array: Any) -> int:
    return array.data_ptr() if isinstance(array, torch.Tensor) else array.ctypes.data


@pytest.mark.parametrize("backend", ["numpy", "llvm", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_values_in_the_input_s_memory(name: str, backend: str) -> None:
    donating, plain = map(verify, case(name))
    made: Callable[..., Any] = torch.from_numpy if backend == "torch" else np.array
    given, again = ([made(x) for x in arguments(plain)] for _ in range(2))
    expected = slpc.compile(plain, backend=backend).flat(*given)
    f = slpc.compile(donating, backend=backend)
    found = f.flat(*given)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert address(found[0]) == address(given[0])
    into = f.flat(*again, out=f.buffers())
    assert address(into[0]) == address(again[0]) and "v" not in f.buffers()
    np.testing.assert_array_equal(into[0], expected[0])


@pytest.mark.parametrize("name", CASES)
def test_orders_that_keep_to_it(name: str) -> None:
    """Random orders with repeats, settled, and poison in what is not alive."""
    graph, plain = case(name)
    expected = slpc.compile(plain).flat(*arguments(plain))
    seen = tasks(legalize(graph, TARGET), TARGET)
    for seed in range(5):
        order = settled(seen, random_order(seen, seed, 0.0))
        assert order is not None
        planned = verify(scheduled(seen, order))
        emitted = numpy_backend.emit(planned, place(planned, TARGET), poison=True)
        for a, b in zip(expected, numpy_backend.load(emitted)(*arguments(graph)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_memory_that_it_saves() -> None:
    """Nothing for an update in place; a copy where the operation reads its operand otherwise."""
    size = 8 * 2 * N
    for name, peak in (("in place", size), ("not read", size), ("a chain that begins with it", size),
                       ("by layers", size), ("one layer as it was", size), ("read in two ways", 2 * size),
                       ("chosen", size)):
        graph = legalize(case(name)[0], TARGET)
        placement = place(graph, TARGET)
        assert peak <= placement.size <= peak + 256, name  # the products of x and v, and the sum of them
        assert graph.outputs[0] in lodgings(graph, TARGET)


def test_what_overwrites_runs_last_and_once() -> None:
    seen = tasks(legalize(case("read before")[0], TARGET), TARGET)
    writing = next(t for t, others in enumerate(seen.overwrites) if len(others) > 1)
    assert settled(seen, [*seen.order, writing]) is None  # it would add x twice
    with pytest.raises(Fault) as caught:
        lives(seen, [*seen.order, seen.overwrites[writing][0]])
    assert caught.value.code == "E0601" and "written over" in caught.value.message


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(smooth=True))
def test_steps_of_random_programs(program: Program) -> None:
    """Each update against the gradient and NumPy, on a random order."""
    graph = slpc.parse(program.text)
    if graph.outputs[0].shape or not [v for v in graph.parameters if v.dtype.is_float]:
        return
    gradient = slpc.adjoint(graph)
    expected = slpc.compile(graph, grad=True)(**program.inputs)[1]
    for number, optimizer in enumerate(OPTIMIZERS):
        step = training_step(gradient, optimizer)
        verify(step.graph)
        assert slpc.parse(str(step.graph)) == step.graph
        seen = tasks(legalize(step.graph, TARGET), TARGET)
        order = settled(seen, random_order(seen, number, 0.0))
        assert order is not None
        f = slpc.compile(verify(scheduled(seen, order)))
        drawn = {k: np.array(v) for k, v in samples.draw(step.graph, 0).items()}
        given = drawn | {k: np.array(v) for k, v in program.inputs.items()}
        before = {p: given[p].copy() for p in step.parameters}
        results = f.flat(**{k: v if v.shape else v[()] for k, v in given.items()})
        for p, new in zip(step.parameters, results[len(step.values):][::1 + len(step.state[step.parameters[0]])],
                          strict=True):
            g = expected[p]
            if optimizer in ("sgd", "momentum"):
                change = g
            else:
                change = g / (np.sqrt(g * g) + 1e-8) + (0.01 * before[p] if optimizer == "adamw" else 0)
            np.testing.assert_allclose(new, before[p] - 0.001 * change, rtol=1e-9, atol=1e-12)


def test_arguments_that_cannot_be_written_over() -> None:
    f = slpc.compile(case("in place")[0])
    w, x, y = arguments(f.graph)
    frozen = w.copy()
    frozen.flags.writeable = False
    for wrong, told in ((w.tolist(), "list"), (np.asfortranarray(w), "row by row"), (frozen, "writeable"),
                        (x, "shares")):
        with pytest.raises(SlpError) as caught:
            f(wrong, x, y)
        assert caught.value.code == "E0413" and told in str(caught.value) and "copy" in str(caught.value)


def test_a_derivative_keeps_its_inputs() -> None:
    """The adjoint reads the inputs after the outputs are there, so it donates nothing."""
    graph = case("in place")[0]
    for derived in (slpc.adjoint(graph, of="out1"), slpc.tangent(graph)):
        assert not derived.donated and not donations(verify(derived))


def test_peak_of_a_first_call() -> None:
    graph = case("a chain that begins with it")[0]
    f, before = slpc.compile(graph), slpc.compile(graph)
    given = arguments(graph)
    before.flat(*arguments(graph))
    tracemalloc.start()
    f.flat(*given)
    measured = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    predicted = place(f.graph, TARGET).size
    assert abs(measured - predicted) <= 8192 and predicted < 3 * 8 * 2 * N


def test_it_is_kept_by_passes_and_pickle() -> None:
    import pickle

    graph = case("by layers")[0]
    assert graph.donated == {"w": "v"} and pickle.loads(pickle.dumps(graph)) == graph
    assert slpc.plan(graph).graph.donated == graph.donated
    assert str(graph).startswith('@donated(w="v")\n')
    assert graph != case("by layers")[1]

"""Loops that were unrolled are found again, and native loops have the bits of straight code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_export import COMPILERS, SANITIZED, needs_compiler, run_in_c

import slpc
from slpc import export
from slpc.backends import c_backend, llvm_backend, llvm_object
from slpc.backends.pieces import Pieces
from slpc.backends.rolled import Moving, Walking
from slpc.ir.graph import Graph
from slpc.passes.scalarise import scalarise

PENDULUM = """
def slope(angle, speed):
    return speed, -9.81 * sin(angle) - 0.1 * speed

def f(angle: f64 = 1.0, speed: f64 = 0.3):
    for step in range(12):
        k1, l1 = slope(angle, speed)
        k2, l2 = slope(angle + 0.05 * k1, speed + 0.05 * l1)
        angle, speed = angle + 0.1 * k2, speed + 0.1 * l2
    return angle ** 2 + speed ** 2
"""

RECURRENT = """
def f(x: f64[14] = normal(0, 1), w: f64[3] = normal(0, 0.5), *, keep: f64[14] = uniform(0, 1)):
    h = w[0]
    states = []
    for i in range(14):
        h = tanh(w[1] * h + x[i]) * keep[i] + w[2]
        states.append(h)
    return sum([s * s for s in states]), stack(states)
"""

REVERSED = """
def f(x: f64[20] = normal(0, 1)):
    a = x[19]
    for i in range(19):
        a = a * 0.5 + sin(x[18 - i])
    return a
"""

TWO_BACK = """
def f(a: f64 = 1.0, b: f64 = 0.5, c: f64 = 0.4):
    for i in range(14):
        a, b = b, tanh(a + c * b)
    return a * b
"""

MASKED = """
def f(a: f64 = 1.0, n: i32 = 3):
    total = 0.0
    for i in range(14):
        a = where(a > 0.5, a * 0.75, exp(a) - astype(n, f64) * 0.1)
        n = n + 1
        total = total + maximum(a, 0.125 * total)
    return total
"""

NARROW = """
def f(a: f32 = 1.0, b: f16 = 0.5):
    for i in range(14):
        a = tanh(a * 1.25 + astype(b, f32))
        b = astype(a, f16) * b
    return a, b
"""

NESTED = """
def f(a: f64 = 1.0, b: f64 = 0.5):
    for i in range(12):
        for j in range(5):
            a = a + 0.01 * sin(b)
            b = b * 0.99 + a * 0.001
        a, b = b / (1 + a * a), a
    return a - b
"""

COUNTED = """
def f(a: f64 = 1.0):
    for i in range(20):
        a = sin(a) * i + 0.5
    return a
"""

BLOCKS = {"pendulum": PENDULUM, "recurrent": RECURRENT, "reversed": REVERSED, "two back": TWO_BACK, "masked": MASKED,
          "narrow": NARROW, "nested": NESTED, "counted": COUNTED}


def graphs() -> list[Any]:
    made = []
    for name, text in BLOCKS.items():
        value = slpc.parse(text)
        made.append(pytest.param(value, id=name))
        if name != "narrow":
            made.append(pytest.param(slpc.adjoint(value), id=f"{name} gradient"))
    made.append(pytest.param(slpc.adjoint(slpc.tangent(slpc.parse(PENDULUM))), id="pendulum second"))
    return made


def inputs(graph: Graph, points: int = 0) -> list[Any]:
    rng = np.random.default_rng(3)
    shape = (points,) if points else ()
    return [rng.integers(1, 5, (*shape, *v.shape)).astype(v.dtype.numpy) if v.dtype.name == "i32"
            else rng.uniform(0.2, 1.5, (*shape, *v.shape)).astype(v.dtype.numpy) for v in graph.inputs]


def compiled(graph: Graph, monkeypatch: pytest.MonkeyPatch, roll: int, *, batch: bool) -> Any:
    monkeypatch.setattr(llvm_backend, "ROLL_BATCH" if batch else "ROLL", roll)
    return llvm_backend.load(llvm_backend.emit_batch(graph) if batch else llvm_backend.emit(graph), batch=batch)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("graph", graphs())
def test_loops_have_the_bits_of_straight_code(graph: Graph, batch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(graph, 19 if batch else 0)
    straight, rolled = (compiled(graph, monkeypatch, roll, batch=batch)(*given) for roll in (0, 20))
    for a, b in zip(straight, rolled, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@needs_compiler
@pytest.mark.parametrize("kind", ["obj", "c"])
@pytest.mark.parametrize("graph", graphs())
def test_loops_in_c(graph: Graph, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object file has the bits of the function in process; C text is clean under the sanitizers, and NumPy's to its
    rounding."""
    module = llvm_object if kind == "obj" else c_backend
    points = [dict(zip((v.name for v in graph.inputs), inputs(graph), strict=True))]
    monkeypatch.setattr(module, "ROLL", 20)
    if kind == "c" and any(v.dtype.name == "f16" for v in graph.values()):
        with pytest.raises(slpc.SlpError):
            run_in_c(graph, kind, tmp_path, COMPILERS[0], [], points)
        return
    (found,) = run_in_c(graph, kind, tmp_path, COMPILERS[-1], SANITIZED if kind == "c" else [], points)
    wanted = (compiled(graph, monkeypatch, 20, batch=False)(*points[0].values()) if kind == "obj" else
              slpc.compile(graph).flat(**points[0]))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0 if kind == "obj" else 1e-12, atol=0 if kind == "obj" else 1e-14)


def test_a_long_simulation_is_short_for_c() -> None:
    graph = slpc.adjoint(slpc.parse(PENDULUM.replace("range(12)", "range(400)")))
    content, header = export.render(graph, "c")
    assert content.decode().count("for (int ") == 2
    assert len(content) < 10_000
    assert export.render(graph, "h")[0].decode() == header
    assert len(export.render(graph, "obj")[0]) < 20_000


def loops(text: str, *, gradient: bool) -> list[Any]:
    graph = slpc.parse(text)
    pieces = Pieces(scalarise(slpc.adjoint(graph) if gradient else graph), 20)
    return [pieces.loops[number] for number in sorted(pieces.loops)]


@pytest.mark.parametrize("name", ["pendulum", "recurrent", "reversed", "two back", "masked", "narrow", "nested"])
def test_a_loop_is_found(name: str) -> None:
    assert len(loops(BLOCKS[name], gradient=False)) >= 1


@pytest.mark.parametrize("name", ["pendulum", "recurrent", "two back"])
def test_its_adjoint_is_a_loop_that_walks_back(name: str) -> None:
    forward, *_, backward = loops(BLOCKS[name], gradient=True)
    assert abs(forward.count - backward.count) <= 3
    assert -1 in {source.step for sources in backward.sources for source in sources if isinstance(source, Moving)}


def test_inputs_and_outputs_are_walked_over() -> None:
    (loop,) = loops(RECURRENT.replace("sum([s * s for s in states]), ", ""), gradient=False)
    read = {source.step for sources in loop.sources for source in sources if isinstance(source, Walking)}
    assert read == {1}
    assert [w.step for w in loop.written.values()] == [1]


def test_a_loop_whose_constants_differ_is_straight_code() -> None:
    assert loops(COUNTED, gradient=False) == []


def body(rng: np.random.Generator, length: int) -> list[str]:
    """A block of random operations on two states, an invariant, an element of an array and what it made itself."""
    known, lines = ["s", "t", "w", "x[i]"], []
    for k in range(length):
        a, b = rng.choice(known, 2)
        form = rng.choice(["{a} + {b}", "{a} * {b}", "{a} - 0.5 * {b}", "sin({a})", "cos({a})", "{a} / (1 + {b} * {b})",
                           "where({a} > {b}, {a}, 0.25 * {b})"])
        lines.append(f"        v{k} = {form.format(a=a, b=b)}")
        known.append(f"v{k}")
    return [*lines, f"        s, t = tanh({known[-1]}), tanh({known[-2]} - s)"]


@pytest.mark.parametrize("seed", range(6))
def test_random_blocks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    text = "\n".join(["def f(s: f64, t: f64, w: f64, x: f64[12]):", "    kept = []", "    for i in range(12):",
                      *body(rng, 8), "        kept.append(s * t)", "    for i in range(12):", *body(rng, 5),
                      "        kept[i] = kept[i] * t", "    return sum(kept), s"]) + "\n"
    graph = slpc.adjoint(slpc.parse(text))
    assert len(Pieces(scalarise(graph), 20).loops) >= 2
    test_loops_have_the_bits_of_straight_code(graph, False, monkeypatch)
    test_loops_have_the_bits_of_straight_code(graph, True, monkeypatch)

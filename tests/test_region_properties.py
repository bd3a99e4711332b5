"""Random programs that work row by row, by blocks of any size: the values and gradients of the unfused program, to the
bound that docs/regions.md states, and nothing as wide as the scores outside a region.

A program makes scores of rows against columns, and works on them with random operations: functions, masks by position
and by data, statistics of rows, two scores together. It returns several results: rowed, and sums over rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slpc import function, samples
from slpc.ir.graph import Graph
from slpc.ir.parse import parse
from slpc.passes.adjoint import adjoint
from slpc.passes.fuse import fuse
from slpc.passes.merge import merge
from slpc.passes.regions import unfused
from slpc.passes.simplify import simplify

ROUNDING = {"f32": 2.0**-24, "f64": 2.0**-53}
UNITS = 2
"""Fused and unfused differ by at most so many times n u of the largest element, n the longest sum of the program."""

STEPS = (
    "sigmoid({x})", "exp(tanh({x}))", "2 * tanh({x} / 2)", "square(relu(tanh({x})))", "tanh({x}) + tanh({y})",
    "tanh({x}) * tanh({y})", "softmax({x})", "{x} - max({x}, axis=1, keepdims=True)",
    "tanh({x}) / (1 + sum(abs(tanh({x})), axis=1, keepdims=True))", "where({mask}, {x}, 0)", "where({mask}, {x}, {y})",
    "softmax(where({mask}, {x}, -1e30))", "where({mask}, exp(tanh({x})), 0)",
    "tanh({x}) - mean({x}, axis=1, keepdims=True)",
    "tanh({x}) * p[None, :]", "tanh({x}) + tanh(h)[:, :1]")
MASKS = ("j <= i", "j >= i", "j > i - {n}", "(j <= i) & (j > i - {n})", "j < {n}", "j <= i + {n}", "abs(i - j) < {n}",
         "broadcast_to((p > 0)[None, :], (T, S))", "(i - j < {n}) | (p > 0)[None, :]",
         "h[:, :1] > 0.1 * astype(j, h.dtype)")
RESULTS = ("{x} @ v", "({x}.T @ h).T", "sum({x}, axis=1)", "sum({x}, axis=0)", "sum({x})", "sum({x} * {x}, axis=0)",
           "max({x}, axis=1)", "h + {x} @ k")


@dataclass(frozen=True)
class Rowwise:
    """The lines of a body and what it returns, its sizes, and the rows of a block (0: as the backend finds best)."""

    lines: tuple[str, ...]
    results: tuple[str, ...]
    T: int
    S: int
    rows: int

    def text(self, dtype: str, tiled: bool) -> str:
        """The program: a sum of all results, weighed, in which the body is a region or stands for itself."""
        decorator = f"@tile(rows={self.rows})\n" if self.rows else "@tile\n"
        body = "".join(f"    {line}\n" for line in self.lines)
        names = [f"r{n}" for n in range(len(self.results))]
        total = " + ".join(f"sum(cos({n + 1} * {name}))" for n, name in enumerate(names))
        return (f"T, S, d, e = {self.T}, {self.S}, 3, 2\n\n{decorator if tiled else ''}def rows(h, k, v, p):\n"
                f"    i, j = arange(T)[:, None], arange(S)[None, :]\n{body}    return {', '.join(self.results)},\n\n"
                f"def f(H: {dtype}[T, d] = normal(0, 1), K: {dtype}[S, d] = normal(0, 1),\n"
                f"      V: {dtype}[S, e] = normal(0, 1), P: {dtype}[S] = normal(0, 1)):\n"
                f"    {', '.join(names)}, = rows(H, K, V, P)\n    return {total}\n")


@st.composite
def rowwise(draw: st.DrawFn) -> Rowwise:
    """A random body; the sizes are all different, so that what is T x S is known by its shape."""
    T, S = draw(st.sampled_from([(1, 7), (5, 11), (13, 9), (17, 23), (24, 20)]))
    lines = ["x0 = h @ k.T / 2"]
    if draw(st.booleans()):
        lines.append("x1 = sin(h) @ k.T")
    for _ in range(draw(st.integers(1, 5))):
        made = len(lines)
        x, y = (f"x{draw(st.integers(max(0, made - 2), made - 1))}" for _ in range(2))
        mask = draw(st.sampled_from(MASKS)).format(n=draw(st.integers(1, 8)))
        lines.append(f"x{made} = {draw(st.sampled_from(STEPS)).format(x=x, y=y, mask=mask)}")
    last = f"x{len(lines) - 1}"
    results = draw(st.lists(st.sampled_from(RESULTS), min_size=1, max_size=3, unique=True))
    rows = draw(st.sampled_from([0, 1, 3, 7, T, T + 5]))
    return Rowwise(tuple(lines), tuple(r.format(x=last) for r in results), T, S, rows)


def results(graph: Graph, inputs: list[numpy.ndarray]) -> list[numpy.ndarray]:
    return [numpy.asarray(x) for x in function.build(graph, values=len(graph.outputs)).flat(*inputs)]


def agree(fused: Graph, plain: Graph, program: Rowwise, dtype: str) -> None:
    """Equal to the bound: n u of the largest element."""
    inputs = list(samples.draw(plain, 1).values())
    longest = program.T * program.S + 3
    for x, y in zip(results(fused, inputs), results(plain, inputs), strict=True):
        assert numpy.isfinite(y).all()
        largest = max(1.0, float(numpy.max(numpy.abs(y), initial=0)))
        assert float(numpy.max(numpy.abs(x - y), initial=0)) <= UNITS * longest * ROUNDING[dtype] * largest


@pytest.mark.parametrize("dtype", ROUNDING)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=rowwise())
def test_blocks_of_any_size(dtype: str, program: Rowwise) -> None:
    """A region by blocks, and its adjoint."""
    graph = simplify(parse(program.text(dtype, tiled=True)))
    gradient = simplify(adjoint(graph))
    assert program.T == 1 or any(n.op.name == "region" for n in gradient.nodes)
    agree(gradient, simplify(unfused(gradient)), program, dtype)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(program=rowwise())
def test_nothing_as_wide_is_left_outside(program: Rowwise) -> None:
    """Without the decorator it is found, however little it gains; its adjoint is a region as well, and both merged
    compute the same."""
    plain = simplify(parse(program.text("f64", tiled=False)))
    if program.T == 1:
        return
    gradient = simplify(merge(simplify(adjoint(fuse(plain, least=0.0)))))
    wide = {(program.T, program.S), (program.S, program.T)}
    assert [v for n in gradient.nodes for v in n.results if v.shape in wide] == []
    agree(gradient, simplify(adjoint(plain)), program, "f64")

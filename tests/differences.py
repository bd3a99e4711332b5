"""What a derivative is held against: differences of order six, the tangent, random cotangents, second differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slpc.backends import numpy_backend
from slpc.ir.graph import Graph
from slpc.ir.verify import verify
from slpc.passes.adjoint import adjoint
from slpc.passes.legalize import legalize
from slpc.passes.simplify import simplify
from slpc.passes.tangent import tangent

Arrays = dict[str, Any]
Function = Callable[[Arrays], Arrays]


def runner(graph: Graph, *, simplified: bool = True, arrays: bool = False) -> Function:
    """The program by the NumPy backend, inputs and outputs by name. `arrays`: never on Python floats."""
    legal = verify(legalize(simplify(graph) if simplified else graph, numpy_backend.TARGET))
    entry = numpy_backend.load(numpy_backend.emit(legal), graph.name, batch=arrays)
    names = [v.name for v in graph.outputs]
    inputs = [v.name for v in graph.inputs]
    return lambda point: dict(zip(names, entry(*(point[n] for n in inputs)), strict=True))


def run(graph: Graph, point: Mapping[str, Any], *, simplified: bool = True, arrays: bool = False) -> Arrays:
    """One run: outputs by name."""
    return runner(graph, simplified=simplified, arrays=arrays)(dict(point))


def moved(point: Arrays, direction: Arrays, step: float) -> Arrays:
    """The point, a step along a direction."""
    return {k: x + step * direction[k] if k in direction else x for k, x in point.items()}


def difference(f: Function, point: Arrays, direction: Arrays, h: float) -> Arrays:
    """The derivative of every output along a direction: central differences of order six (Fornberg 1988, table 1)."""
    total: Arrays = {}
    for weight, step in ((45, 1), (-9, 2), (1, 3)):
        ahead, behind = f(moved(point, direction, step * h)), f(moved(point, direction, -step * h))
        for name, x in ahead.items():
            if np.asarray(x).dtype.kind == "f":
                total[name] = total.get(name, 0.0) + weight * (x - behind[name]) / (60 * h)
    return total


def directions(rng: np.random.Generator, graph: Graph, names: Sequence[str]) -> Arrays:
    """A random direction for each of the inputs."""
    drawn = {}
    for name in names:
        value = graph.input(name)
        drawn[name] = np.asarray(rng.normal(size=value.shape), value.dtype.numpy)[()]
    return drawn


def close(got: Any, want: Any, tolerance: float, what: str = "") -> None:
    """Equal but for rounding: the difference counts against the largest entry, or against 1."""
    assert np.shape(got) == np.shape(want), (what, np.shape(got), np.shape(want))
    scale = max(1.0, float(np.max(np.abs(np.asarray(want, np.float64)), initial=0.0)))
    np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=tolerance,
                               atol=tolerance * scale, err_msg=what)


def inner(a: Any, b: Any) -> float:
    """The sum of the products."""
    return float(np.sum(np.asarray(a, np.float64) * np.asarray(b, np.float64)))


def check_derivatives(graph: Graph, point: Arrays, rng: np.random.Generator, *, wrt: Sequence[str] | None = None,
                      h: float = 1e-3, tolerance: float = 1e-7, second: bool = True) -> None:
    """Tangent against differences, adjoint against tangent along random cotangents, and, with `second`, the tangent of
    the adjoint against differences of the adjoint. For programs that are smooth near the point, in float64."""
    names = [v.name for v in graph.parameters if v.dtype.is_float] if wrt is None else list(wrt)
    along = directions(rng, graph, names)
    first = verify(tangent(graph, wrt=names))
    seeds = {f"{k}_dot": d for k, d in along.items()}
    by_tangent = run(first, point | seeds)
    by_difference = difference(runner(graph), point, along, h)
    floats = [v for v in graph.outputs if v.dtype.is_float]
    for value in floats:
        close(by_tangent[f"{value.name}_dot"], by_difference[value.name], tolerance, f"tangent of {value.name}")
    for value in floats:
        reverse = verify(adjoint(graph, of=value.name, wrt=names))
        bar = f"{value.name}_bar"
        weights = np.asarray(rng.normal(size=value.shape), value.dtype.numpy)[()] if value.shape else 1.0
        at = point | ({bar: weights} if value.shape else {})
        gradients = run(reverse, at)
        forward = inner(weights, by_tangent[f"{value.name}_dot"])
        parts = [inner(gradients[f"{n}_bar"], along[n]) for n in names]
        assert abs(forward - sum(parts)) <= tolerance * max(1.0, sum(map(abs, parts))), f"adjoint of {value.name}"
        if second:
            twice = run(verify(tangent(reverse, wrt=names)), at | seeds)
            by_difference = difference(runner(reverse), at, along, h)
            for n in names:
                close(twice[f"{n}_bar_dot"], by_difference[f"{n}_bar"], tolerance, f"second order in {n}")

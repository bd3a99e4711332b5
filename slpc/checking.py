"""gradcheck: derivatives held against each other and against differences of the values.

Along random directions v and random weights w of the output, for y = f(x) and s(x) = sum(w * y):

    adjoint and tangent       <grad s, v> = <w, J v>                 the dot-product test, to rounding
    adjoint and differences   <grad s, v> = d s(x + h v) / d h       Ridders' extrapolation
    second order              <H v, u> = d <grad s(x + h v), u> / d h,   and   <H v, u> = <H u, v>

All of it in float64, whatever the program's dtypes: what is checked is the calculus, not the rounding. (The dot-product
test: Griewank and Walther, "Evaluating Derivatives", 2008, section 3.3; differences: Ridders, "Accurate computation of
F'(x) and F'(x) F''(x)", Advances in Engineering Software 4, 1982.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import api, samples
from .function import Function, build
from .inputs import convert
from .ir.graph import Graph
from .ir.types import f64
from .passes.convert import in_dtype

Arrays = dict[str, Any]
_ROUNDING = 1e-9
_DIFFERENCE = 1e-6


class Check(NamedTuple):
    """One comparison: two numbers that mathematics says are equal, and how far apart they may be."""

    name: str
    found: float
    expected: float
    tolerance: float

    @property
    def error(self) -> float:
        """How far apart they are; NaN where either is, so that a point outside the function's domain is no success."""
        return 0.0 if self.found == self.expected else abs(self.found - self.expected)

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Report:
    """What `gradcheck` found. True where every check holds; printed, one line a check."""

    program: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{c.name}: {c.found:.12g} and {c.expected:.12g}, off by {c.error:.1e} of {c.tolerance:.1e}"
                 + ("" if c.ok else "   WRONG") for c in self.checks]
        return "\n".join([f"{self.program}: {'ok' if self.ok else 'a derivative is wrong'}", *lines])

    def as_json(self) -> dict[str, Any]:
        """The stable fields of `slpc gradcheck --json`."""
        return {"program": self.program, "ok": self.ok, "checks": [
            {**c._asdict(), "error": c.error, "ok": c.ok} for c in self.checks]}


def gradcheck(program: api.Source, *, wrt: Sequence[str] | None = None, of: str | None = None, seed: int = 0,
              directions: int = 2, inputs: Mapping[str, Any] | None = None, **constants: Any) -> Report:
    """Check adjoint and tangent of one output, to second order, at a point.

    `inputs` gives some of the point; the rest is drawn from `seed` as the defaults say. `directions` is how many random
    directions are tried. SlpError for a program or inputs that do not fit; a wrong derivative is no error but a report
    that is false.
    """
    graph = in_dtype(api.graph_of(program, **constants), f64)
    return _Checker(graph, api.differentiated(graph, wrt), of, seed, inputs or {}).run(directions)


class _Checker:
    """One program at one point: its value, adjoint, tangent and Hessian-vector product as functions of a step."""

    def __init__(self, graph: Graph, wrt: Sequence[str], of: str | None, seed: int, given: Mapping[str, Any]) -> None:
        import numpy

        self.graph, self.wrt = graph, list(wrt)
        self.value = api.compile(graph)
        self.adjoint = api.compile(graph, wrt=wrt, of=of)
        self.tangent = _compiled(api.tangent(graph, wrt=wrt))
        self.product = _compiled(api.hvp(graph, wrt=wrt, of=of))
        self.output = of or graph.outputs[0].name
        self.generator = numpy.random.default_rng([seed, 1])
        point = samples.draw(graph, seed, given)
        for value in graph.inputs:
            if value.name in given:
                found = given[value.name]
                if value.dtype is f64 and isinstance(found, numpy.ndarray) and found.dtype.kind not in "iub":
                    found = found.astype(numpy.float64)  # of a lower precision, as the program was
                point[value.name] = convert(found, value, value.shape)
        self.point: Arrays = point
        self.weights = {name: self._normal(self.adjoint.graph.input(name).shape) for name in self.adjoint.seeds}

    def run(self, directions: int) -> Report:
        """All checks along some random directions."""
        checks: list[Check] = []
        for number in range(1, directions + 1):
            label = f" {number}" if directions > 1 else ""
            checks += self._first(f"direction{label}", self._direction())
            checks += self._second(f"direction{label}", self._direction(), self._direction())
        return Report(self.graph.name, tuple(checks))

    def _first(self, label: str, v: Arrays) -> list[Check]:
        gradient = self._gradient(0.0, v)
        reverse, scale = _dot(gradient, v)
        dots = dict(zip(self.tangent.outputs, self.tangent.flat(**self.point, **_named(v, "_dot"))))
        forward = self._weighed(dots[self.output + "_dot"])
        slope, doubt = ridders(lambda h: self._weighed(self._output(h, v)))
        allowed = _allowed(scale, doubt)
        return [Check(f"{label}: adjoint against tangent", reverse, forward, _ROUNDING * scale),
                Check(f"{label}: adjoint against differences", reverse, slope, allowed)]

    def _second(self, label: str, v: Arrays, u: Arrays) -> list[Check]:
        found, scale = _dot(self._curvature(v), u)
        mirrored, other = _dot(self._curvature(u), v)
        slope, doubt = ridders(lambda h: _dot(self._gradient(h, v), u)[0])
        allowed = _allowed(scale, doubt)
        return [Check(f"{label}: Hessian is symmetric", found, mirrored, _ROUNDING * max(scale, other)),
                Check(f"{label}: Hessian against differences", found, slope, allowed)]

    # The program along a direction -----------------------------------------------------------------------------

    def _moved(self, h: float, v: Arrays) -> Arrays:
        return self.point | {name: self.point[name] + h * v[name] for name in self.wrt} if h else self.point

    def _output(self, h: float, v: Arrays) -> Any:
        found = dict(zip(self.value.outputs, self.value.flat(**self._moved(h, v))))
        return found[self.output]

    def _gradient(self, h: float, v: Arrays) -> Arrays:
        found = self.adjoint.flat(**self._moved(h, v), **self.weights)
        return dict(zip(self.wrt, found[len(found) - len(self.wrt):]))

    def _curvature(self, v: Arrays) -> Arrays:
        """The Hessian of s times v."""
        found = dict(zip(self.product.outputs,
                         self.product.flat(**self.point, **self.weights, **_named(v, "_dot"))))
        return {name: found[f"{name}_bar_dot"] for name in self.wrt}

    def _weighed(self, y: Any) -> float:
        """sum(w * y); y itself for a scalar."""
        import numpy

        return float(numpy.sum(self.weights.get(f"{self.output}_bar", 1.0) * y))

    # Random directions -----------------------------------------------------------------------------------------

    def _direction(self) -> Arrays:
        return {name: self._normal(self.graph.input(name).shape) for name in self.wrt}

    def _normal(self, shape: tuple[int, ...]) -> Any:
        return self.generator.standard_normal(shape)


def ridders(function: Callable[[float], float], step: float = 0.05, shrink: float = 1.6, levels: int = 14,
            ) -> tuple[float, float]:
    """The derivative of `function` at 0 and an estimate of its error.

    Central differences with steps that shrink, extrapolated to step 0 by Neville's scheme; the entry of the tableau
    that differs least from its neighbours is taken (Ridders, 1982). Steps at which the function is not finite are
    passed over.
    """
    import math

    row: list[float] = []
    best, doubt = math.nan, math.inf
    for _ in range(levels):
        above, below = function(step), function(-step)
        entry = (above - below) / (2 * step)
        noise = 2.3e-16 * max(abs(above), abs(below)) / step
        step /= shrink
        if not math.isfinite(entry):
            row = []
            continue
        previous, row = row, [entry]
        factor = 1.0
        for at, before in enumerate(previous):
            factor *= shrink * shrink
            row.append((row[at] * factor - before) / (factor - 1))
            off = max(abs(row[-1] - row[at]), abs(row[-1] - before), noise)
            if off < doubt:
                best, doubt = row[-1], off
    return best, doubt


def _allowed(scale: float, doubt: float) -> float:
    """How far a difference may be off: its own error, unless that is so large that anything would pass."""
    return _DIFFERENCE * scale + (10 * doubt if doubt <= 1e-4 * scale else 0.0)


def _compiled(graph: Graph) -> Function:
    return build(graph, values=len(graph.outputs))


def _named(direction: Arrays, suffix: str) -> Arrays:
    return {name + suffix: v for name, v in direction.items()}


def _dot(a: Arrays, b: Arrays) -> tuple[float, float]:
    """The inner product, and the sum of the terms' sizes: what its rounding error is measured by."""
    import numpy

    total = sum(float(numpy.sum(a[name] * b[name])) for name in b)
    return total, sum(float(numpy.sum(numpy.abs(a[name] * b[name]))) for name in b)

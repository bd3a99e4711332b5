"""Compiled derivative programs that run along many directions at one point, all directions and results as vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import api
from .function import backend_named, build
from .inputs import convert
from .ir.diagnostics import Diagnostic, SlpError, near
from .ir.graph import Graph, Value
from .passes.activity import chosen_inputs, chosen_output
from .passes.adjoint import adjoint
from .passes.regions import unfused
from .passes.simplify import simplify
from .passes.tangent import tangent

FEW = 16
"""So many directions run one after the other on a backend whose batches cost more than a call."""


class Sweeps:
    """A program whose last inputs are a direction, and whose outputs are linear in it.

    Inputs and outputs are found by their place, so a value of the user's may have any name. A program of scalars runs
    along all directions at once.
    """

    def __init__(self, graph: Graph, seeds: int, runs: int, backend: str, data: Mapping[str, Any]) -> None:
        self.seeds = graph.inputs[len(graph.inputs) - seeds:]
        self.results = graph.outputs
        few = 1 if hasattr(backend_named(backend), "emit_batch") else FEW
        self._at_once = bool(seeds) and runs > few and not any(v.shape for v in graph.values())
        self._data = data
        with api.placed(graph.file):
            self._function = build(graph, values=len(graph.outputs), batch=self._at_once, backend=backend)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], directions: Any) -> Any:
        """The results, a row for each row of `directions`; a program without seeds has one direction only.

        SlpError E0401 to E0408 for arguments that do not fit.
        """
        import numpy

        graph = self._function.graph
        for name in sorted(kwargs.keys() & self._data.keys()):
            raise SlpError(Diagnostic("E0402", f"{name} is given twice: it was given as data before", "", graph.file))
        most = len(graph.inputs) - len(self.seeds)
        if len(args) > most:
            raise SlpError(Diagnostic("E0402", f"{graph.name} takes {most} inputs, not {len(args)}", "", graph.file))
        runs = len(directions)
        found = numpy.empty((runs, size(self.results)), numpy.result_type(*(v.dtype.numpy for v in self.results)))
        places = list(slices(self.results).values())
        if self._at_once:
            for value, at, result in zip(self.results, places, self._run(args, kwargs, directions)):
                found[:, at] = numpy.broadcast_to(result, (runs, *value.shape)).reshape(runs, value.type.size)
        else:
            for row, direction in zip(found, directions):
                for at, result in zip(places, self._run(args, kwargs, direction)):
                    row[at] = numpy.ravel(result)
        return found

    def _run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], directions: Any) -> tuple[Any, ...]:
        """One call, along one direction or several."""
        lead = directions.shape[:-1]
        seeds = {v.name: directions[..., at].reshape((*lead, *v.shape)).astype(v.dtype.numpy)
                 for v, at in zip(self.seeds, slices(self.seeds).values())}
        return self._function.flat(*args, **kwargs, **self._data, **seeds)


class Derivatives:
    """What is differentiated: a program in some of its inputs (`wrt`; the floating-point parameters unless said), other
    inputs being fixed as `data`. SlpError E0402 to E0405 and E0412 for names, data and dtypes that do not fit."""

    def __init__(self, graph: Graph, wrt: Sequence[str] | None, backend: str, data: Mapping[str, Any] | None) -> None:
        graph = unfused(graph)
        self.graph, self.backend = graph, backend
        self.inputs = chosen_inputs(graph, api.differentiated(graph, wrt))
        self.data = {name: self._datum(name, given) for name, given in (data or {}).items()}

    def _datum(self, name: str, given: Any) -> Any:
        names = [v.name for v in self.graph.inputs if v not in self.inputs]
        if name not in names:
            raise SlpError(Diagnostic("E0402", f"{name} is no data of {self.graph.name}", near(name, names)
                                      or f"its data are {', '.join(names) or 'none'}", self.graph.file))
        value = self.graph.input(name)
        return convert(given, value, value.shape)

    @property
    def outputs(self) -> list[Value]:
        """The floating-point outputs; SlpError E0412 if there is none."""
        found = [v for v in self.graph.outputs if v.dtype.is_float]
        if not found:
            raise SlpError(Diagnostic("E0412", f"{self.graph.name} has no floating-point output", "", self.graph.file))
        return found

    def scalar_output(self, of: str | None) -> Value:
        """The first output, or that named; SlpError E0403 where there is none, E0412 for an array."""
        output = chosen_output(self.graph, of)
        if output.shape:
            raise SlpError(Diagnostic("E0412", f"a Hessian is of a scalar, and {output!r} is none",
                                      "differentiate sum(y), or take slpc.jacobian of slpc.adjoint", self.graph.file))
        return output

    def forward(self, runs: int) -> Sweeps:
        """From a direction of the inputs to the derivatives of all outputs: the Jacobian times a vector."""
        return self._sweeps(self._tangent(self.graph, len(self.outputs)), len(self.inputs), runs)

    def reverse(self, of: Value, runs: int) -> Sweeps:
        """From weights of the elements of one output to the gradient of their sum: a vector times the Jacobian. A
        scalar output has the weight 1, and no seed."""
        return self._sweeps(self.gradient(of), 1 if of.shape else 0, runs)

    def second(self, gradient: Graph, runs: int) -> Sweeps:
        """From a direction of the inputs to the Hessian times it, of the program whose gradient this is."""
        return self._sweeps(self.product(gradient), len(self.inputs), runs)

    def gradient(self, of: Value) -> Graph:
        """The program whose outputs are the gradient of one output, nothing else."""
        with api.placed(self.graph.file):
            return _last(adjoint(self.graph, wrt=[v.name for v in self.inputs], of=of.name), len(self.inputs))

    def product(self, gradient: Graph) -> Graph:
        """The program whose last inputs are a direction, and whose outputs are the Hessian times it."""
        return self._tangent(gradient, len(self.inputs))

    def _tangent(self, graph: Graph, results: int) -> Graph:
        with api.placed(graph.file):
            return _last(tangent(graph, wrt=[v.name for v in self.inputs]), results)

    def _sweeps(self, graph: Graph, seeds: int, runs: int) -> Sweeps:
        return Sweeps(graph, seeds, runs, self.backend, self.data)


def _last(g: Graph, count: int) -> Graph:
    """The program of its last outputs alone."""
    outputs = g.outputs[len(g.outputs) - count:]
    return simplify(Graph(g.name, g.inputs, g.nodes, outputs, g.defaults, g.first_data, g.scheduled, g.file))


def size(values: Sequence[Value]) -> int:
    """Their elements, all together."""
    return sum(v.type.size for v in values)


def slices(values: Sequence[Value]) -> dict[str, slice]:
    """Where each stands, by name, when they are laid end to end."""
    return dict(zip((v.name for v in values), _cuts(values)))


def _cuts(values: Sequence[Value]) -> Iterator[slice]:
    first = 0
    for value in values:
        yield slice(first, first + value.type.size)
        first += value.type.size

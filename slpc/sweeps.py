"""Compiled derivative programs that run along many directions at one point, all directions and results as vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import api
from .function import backend_named, build
from .ir.diagnostics import Diagnostic, SlpError
from .ir.graph import Graph, Value
from .passes.activity import chosen_inputs, chosen_output
from .passes.adjoint import adjoint
from .passes.simplify import simplify
from .passes.tangent import tangent

FEW = 16
"""So many directions run one after the other on a backend whose batches cost more than a call."""


class Sweeps:
    """A program whose last inputs are a direction, and whose outputs are linear in it.

    Inputs and outputs are found by their place, so a value of the user's may have any name.
    """

    def __init__(self, graph: Graph, seeds: int, runs: int, backend: str) -> None:
        self.seeds = graph.inputs[len(graph.inputs) - seeds:]
        self.results = graph.outputs
        native = hasattr(backend_named(backend), "emit_batch")
        self._at_once = bool(seeds) and runs > 1 and (
            native or (runs > FEW and not any(v.shape for v in graph.values())))
        with api.placed(graph.file):
            self._function = build(graph, values=len(graph.outputs), batch=self._at_once, backend=backend)

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], directions: Any) -> Any:
        """The results, a row for each row of `directions`; a program without seeds has one direction only."""
        import numpy

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
        return self._function.flat(*args, **kwargs, **seeds)


def forward(graph: Graph, wrt: Sequence[Value], runs: int, backend: str) -> Sweeps:
    """From a direction of `wrt` to the derivatives of all floating-point outputs: the Jacobian times a vector."""
    with api.placed(graph.file):
        derived = _last(tangent(graph, wrt=_names(wrt)), len(differentiable(graph)))
    return Sweeps(derived, len(wrt), runs, backend)


def reverse(graph: Graph, wrt: Sequence[Value], of: Value, runs: int, backend: str) -> Sweeps:
    """From weights of the elements of one output to the gradient of their sum: a vector times the Jacobian. A scalar
    output has the weight 1, and no seed."""
    return Sweeps(gradient(graph, wrt, of), 1 if of.shape else 0, runs, backend)


def second(graph: Graph, wrt: Sequence[Value], runs: int, backend: str) -> Sweeps:
    """From a direction of `wrt` to the Hessian times it, given the program of the gradient alone."""
    with api.placed(graph.file):
        derived = _last(tangent(graph, wrt=_names(wrt)), len(wrt))
    return Sweeps(derived, len(wrt), runs, backend)


def gradient(graph: Graph, wrt: Sequence[Value], of: Value) -> Graph:
    """The program whose outputs are the gradient of one output, nothing else."""
    with api.placed(graph.file):
        return _last(adjoint(graph, wrt=_names(wrt), of=of.name), len(wrt))


def _last(g: Graph, count: int) -> Graph:
    """The program of its last outputs alone."""
    outputs = g.outputs[len(g.outputs) - count:]
    return simplify(Graph(g.name, g.inputs, g.nodes, outputs, g.defaults, g.first_data, g.scheduled, g.file))


def differentiated(graph: Graph, wrt: Sequence[str] | None) -> list[Value]:
    """The inputs to differentiate in: the floating-point parameters unless said. SlpError E0403, E0412."""
    return chosen_inputs(graph, api.differentiated(graph, wrt))


def differentiable(graph: Graph) -> list[Value]:
    """The floating-point outputs; SlpError E0412 if there is none."""
    found = [v for v in graph.outputs if v.dtype.is_float]
    if not found:
        raise SlpError(Diagnostic("E0412", f"{graph.name} has no floating-point output", "", graph.file))
    return found


def scalar_output(graph: Graph, of: str | None) -> Value:
    """The output of a Hessian: the first, or that named. SlpError E0403 where there is none, E0412 for an array."""
    output = chosen_output(graph, of)
    if output.shape:
        raise SlpError(Diagnostic("E0412", f"a Hessian is of a scalar, and {output!r} is none",
                                  "differentiate sum(y), or take slpc.jacobian of slpc.adjoint", graph.file))
    return output


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


def _names(values: Sequence[Value]) -> list[str]:
    return [v.name for v in values]

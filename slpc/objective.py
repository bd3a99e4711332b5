"""A program as SciPy's optimisers want it: value, gradient and Hessian over one vector of all parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from . import api
from .function import build
from .inputs import convert
from .ir.diagnostics import Diagnostic, SlpError
from .ir.graph import Distribution, Graph
from .sparse import products
from .sweeps import Derivatives


class Objective:
    """The first output of a program over the vector of the inputs `wrt`, end to end; the other inputs are `data`, or
    have their numeric defaults.

    SlpError E0401 for data that is missing, E0402 for data that is none, E0702 for a program that is not of f64.
    """

    def __init__(self, graph: Graph, wrt: Sequence[str], data: Mapping[str, Any], backend: str) -> None:
        self._gradient_graph = api.adjoint(graph, wrt=wrt)
        self._graph, self._wrt, self._data, self._backend = graph, tuple(wrt), data, backend
        self._given = numpy.concatenate([numpy.zeros(0), *(
            numpy.zeros(v.type.size) if v.name in wrt else numpy.ravel(self._datum(v.name)) for v in graph.inputs)])
        for name in data:
            if name in wrt or all(v.name != name for v in graph.inputs):
                raise SlpError(Diagnostic("E0402", f"{name} is no data of {graph.name}",
                                          f"its variables are {', '.join(wrt)}", graph.file))
        starts, at = {}, 0
        for v in graph.inputs:
            starts[v.name] = slice(at, at + v.type.size)
            at += v.type.size
        self._variables = numpy.concatenate([numpy.arange(starts[n].start, starts[n].stop) for n in wrt])
        self._found = numpy.empty(sum(v.type.size for v in self._gradient_graph.outputs))
        function = build(self._gradient_graph, values=len(graph.outputs), wrt=wrt, backend=backend)
        self._run = function.bind(self._given, out=self._found)
        self._last: Any = None
        self._hessian: _Hessian | None = None

    def value(self, x: Any) -> float:
        """The value at x."""
        self._at(x)
        return float(self._found[0])

    def gradient(self, x: Any) -> Any:
        """The gradient at x, a vector as x is."""
        self._at(x)
        return self._found[-len(self._variables):].copy()

    def hessian(self, x: Any) -> Any:
        """The Hessian at x, a symmetric matrix: one product with it for each colour of its pattern."""
        if self._hessian is None:
            self._hessian = _Hessian(Derivatives(self._graph, self._wrt, self._backend, self._data), self._given,
                                     self._variables)
        return self._hessian(x)

    def _at(self, x: Any) -> None:
        """Run at x, unless the last run was there."""
        if self._last is None or not numpy.array_equal(x, self._last):
            self._given[self._variables] = x
            self._run()
            self._last = numpy.array(x, dtype=float)

    def _datum(self, name: str) -> Any:
        value = self._graph.input(name)
        given = self._data.get(name, self._graph.defaults.get(name))
        if given is None or isinstance(given, Distribution):
            raise SlpError(Diagnostic("E0401", f"the input {value!r} is missing", f"give it: f.scipy({name}=...)",
                                      self._graph.file))
        if name not in self._data and value.shape:
            return numpy.full(value.shape, given)
        return convert(given, value, value.shape)


class _Hessian:
    def __init__(self, of: Derivatives, given: Any, variables: Any) -> None:
        gradient = of.gradient(of.scalar_output(None))
        self._pattern, self._directions, self._places = products(of, gradient)
        program = of.product(gradient)
        count = sum(v.type.size for v in program.inputs)
        self._given = numpy.concatenate([given, numpy.zeros(count - len(given))])
        self._variables, self._seeds = variables, slice(len(given), count)
        self._found = numpy.empty(len(variables))
        self._run = build(program, values=len(program.outputs), backend=of.backend).bind(self._given, out=self._found)

    def __call__(self, x: Any) -> Any:
        self._given[self._variables] = x
        found = numpy.empty(self._directions.shape)
        for row, direction in zip(found, self._directions):
            self._given[self._seeds] = direction
            self._run()
            row[:] = self._found
        matrix = numpy.zeros(self._pattern.shape)
        matrix[self._pattern.rows, self._pattern.columns] = found.ravel()[self._places]
        return (matrix + matrix.T) / 2

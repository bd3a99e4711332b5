"""Whole Jacobians and Hessians of small programs, one sweep a column or a row, whichever are fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import sweeps
from .ir.graph import Graph, Value

Blocks = dict[str, dict[str, Any]]


class Jacobian:
    """A callable that takes the program's inputs and returns `{output: {input: array}}`, each array of the output's
    shape followed by the input's. `mode` is "tangent" or "adjoint"."""

    def __init__(self, graph: Graph, wrt: Sequence[str] | None = None, backend: str = "numpy") -> None:
        self.graph = graph
        self._inputs = sweeps.differentiated(graph, wrt)
        self._outputs = sweeps.differentiable(graph)
        columns, rows = sweeps.size(self._inputs), sweeps.size(self._outputs)
        self.mode = "tangent" if columns <= rows else "adjoint"
        self._sweeps = [sweeps.forward(graph, self._inputs, columns, backend)] if self.mode == "tangent" else [
            sweeps.reverse(graph, self._inputs, y, y.type.size, backend) for y in self._outputs]

    def __call__(self, *args: Any, **kwargs: Any) -> Blocks:
        """The blocks at one point; arguments as `slpc.compile` takes them."""
        from numpy import concatenate, eye

        if self.mode == "tangent":
            matrix = self._sweeps[0](args, kwargs, eye(sweeps.size(self._inputs))).T
        else:
            matrix = concatenate([run(args, kwargs, eye(y.type.size)) for y, run in zip(self._outputs, self._sweeps)])
        return _cut(matrix, self._outputs, self._inputs)


class Hessian:
    """A callable that takes the program's inputs and returns `{input: {input: array}}`: the second derivatives of one
    scalar output, each array of the first input's shape followed by the second's."""

    def __init__(self, graph: Graph, wrt: Sequence[str] | None = None, of: str | None = None,
                 backend: str = "numpy") -> None:
        self.graph = graph
        self._inputs = sweeps.differentiated(graph, wrt)
        gradient = sweeps.gradient(graph, self._inputs, sweeps.scalar_output(graph, of))
        self._sweeps = sweeps.second(gradient, self._inputs, sweeps.size(self._inputs), backend)

    def __call__(self, *args: Any, **kwargs: Any) -> Blocks:
        """The blocks at one point; arguments as `slpc.compile` takes them."""
        from numpy import eye

        matrix = self._sweeps(args, kwargs, eye(sweeps.size(self._inputs))).T
        return _cut(matrix, self._inputs, self._inputs)


def _cut(matrix: Any, rows: Sequence[Value], columns: Sequence[Value]) -> Blocks:
    """The matrix as its blocks, each in memory of its own and of the dtype of its row."""
    down, across = sweeps.slices(rows), sweeps.slices(columns)
    return {y.name: {x.name: matrix[down[y.name], across[x.name]].astype(y.dtype.numpy).reshape(y.shape + x.shape)[()]
                     for x in columns} for y in rows}

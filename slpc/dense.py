"""Whole Jacobians and Hessians of small programs, one sweep a column or a row, whichever are fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .ir.graph import Value
from .sweeps import Derivatives, size, slices

Blocks = dict[str, dict[str, Any]]


class Jacobian:
    """A callable that takes the program's inputs and returns `{output: {input: array}}`, each array of the output's
    shape followed by the input's. `mode` is "tangent" or "adjoint"."""

    def __init__(self, of: Derivatives) -> None:
        self.graph = of.graph
        self._inputs, self._outputs = of.inputs, of.outputs
        columns, rows = size(self._inputs), size(self._outputs)
        self.mode = "tangent" if columns <= rows else "adjoint"
        self._sweeps = [of.forward(columns)] if self.mode == "tangent" else [
            of.reverse(y, y.type.size) for y in self._outputs]

    def __call__(self, *args: Any, **kwargs: Any) -> Blocks:
        """The blocks at one point; arguments as `slpc.compile` takes them."""
        from numpy import concatenate, eye

        if self.mode == "tangent":
            matrix = self._sweeps[0](args, kwargs, eye(size(self._inputs))).T
        else:
            matrix = concatenate([run(args, kwargs, eye(y.type.size)) for y, run in zip(self._outputs, self._sweeps)])
        return _cut(matrix, self._outputs, self._inputs)


class Hessian:
    """A callable that takes the program's inputs and returns `{input: {input: array}}`: the second derivatives of one
    scalar output, each array of the first input's shape followed by the second's."""

    def __init__(self, of: Derivatives, output: str | None = None) -> None:
        self.graph = of.graph
        self._inputs = of.inputs
        self._sweeps = of.second(of.gradient(of.scalar_output(output)), size(self._inputs))

    def __call__(self, *args: Any, **kwargs: Any) -> Blocks:
        """The blocks at one point; arguments as `slpc.compile` takes them."""
        from numpy import eye

        return _cut(self._sweeps(args, kwargs, eye(size(self._inputs))).T, self._inputs, self._inputs)


def _cut(matrix: Any, rows: Sequence[Value], columns: Sequence[Value]) -> Blocks:
    """The matrix as its blocks, each in memory of its own and of the dtype of its row."""
    down, across = slices(rows), slices(columns)
    return {y.name: {x.name: matrix[down[y.name], across[x.name]].astype(y.dtype.numpy).reshape(y.shape + x.shape)[()]
                     for x in columns} for y in rows}

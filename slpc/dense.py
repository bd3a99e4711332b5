"""Whole Jacobians and Hessians of small programs, one sweep a column or a row, whichever are fewer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import api
from .function import Function, build
from .ir.diagnostics import Diagnostic, SlpError
from .ir.graph import Graph, Value

Blocks = dict[str, dict[str, Any]]


class Jacobian:
    """A callable that takes the program's inputs and returns `{output: {input: array}}`, each array of the output's
    shape followed by the input's. `mode` is "tangent" or "adjoint"."""

    def __init__(self, graph: Graph, wrt: Sequence[str] | None = None) -> None:
        self.graph = graph
        self._inputs = _active(graph, wrt)
        self._outputs = [v for v in graph.outputs if v.dtype.is_float]
        if not self._outputs:
            raise SlpError(Diagnostic("E0412", f"{graph.name} has no floating-point output", "", graph.file))
        names = [v.name for v in self._inputs]
        columns, rows = _size(self._inputs), _size(self._outputs)
        self.mode = "tangent" if columns <= rows else "adjoint"
        self._sweeps: list[Function]
        if self.mode == "tangent":
            forward = api.tangent(graph, wrt=names)
            self._sweeps = [build(forward, values=len(forward.outputs))]
        else:
            self._sweeps = [api.compile(graph, wrt=names, of=v.name) for v in self._outputs]

    def __call__(self, *args: Any, **kwargs: Any) -> Blocks:
        """The blocks at one point; arguments as `slpc.compile` takes them."""
        from numpy import zeros

        blocks: Blocks = {y.name: {x.name: zeros((*y.shape, *x.shape), y.dtype.numpy) for x in self._inputs}
                          for y in self._outputs}
        (self._by_columns if self.mode == "tangent" else self._by_rows)(blocks, args, kwargs)
        return {y: {x: block[()] for x, block in row.items()} for y, row in blocks.items()}

    def _by_columns(self, blocks: Blocks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sweep = self._sweeps[0]
        at = _places(sweep)

        def columns(x: Value, index: tuple[int, ...], seeds: dict[str, Any]) -> None:
            results = sweep.flat(*args, **kwargs, **seeds)
            for y in self._outputs:
                blocks[y.name][x.name][(..., *index)] = results[at[y.name + "_dot"]]

        _each_direction(self._inputs, "_dot", columns)

    def _by_rows(self, blocks: Blocks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for y, sweep in zip(self._outputs, self._sweeps):
            def row(_: Value, index: tuple[int, ...], seeds: dict[str, Any], y: Value = y,
                    sweep: Function = sweep) -> None:
                _, gradients = sweep(*args, **kwargs, **{k: s for k, s in seeds.items() if k in sweep.seeds})
                for x, gradient in gradients.items():
                    blocks[y.name][x][index] = gradient

            _each_direction([y], "_bar", row)


class Hessian:
    """A callable that takes the program's inputs and returns `{input: {input: array}}`: the second derivatives of one
    scalar output, each array of the first input's shape followed by the second's."""

    def __init__(self, graph: Graph, wrt: Sequence[str] | None = None, of: str | None = None) -> None:
        output = graph.outputs[0] if of is None else next((v for v in graph.outputs if v.name == of), graph.outputs[0])
        if output.shape:
            raise SlpError(Diagnostic("E0412", f"a Hessian is of a scalar, and {output!r} is none",
                                      "differentiate sum(y), or take slpc.jacobian of slpc.adjoint", graph.file))
        self.graph = graph
        self._inputs = _active(graph, wrt)
        product = api.hvp(graph, wrt=[v.name for v in self._inputs], of=of)
        self._sweep = build(product, values=len(product.outputs))

    def __call__(self, *args: Any, **kwargs: Any) -> Blocks:
        """The blocks at one point; arguments as `slpc.compile` takes them."""
        from numpy import zeros

        at = _places(self._sweep)
        blocks: Blocks = {a.name: {b.name: zeros((*a.shape, *b.shape), a.dtype.numpy) for b in self._inputs}
                          for a in self._inputs}

        def columns(b: Value, index: tuple[int, ...], seeds: dict[str, Any]) -> None:
            results = self._sweep.flat(*args, **kwargs, **seeds)
            for a in self._inputs:
                blocks[a.name][b.name][(..., *index)] = results[at[f"{a.name}_bar_dot"]]

        _each_direction(self._inputs, "_dot", columns)
        return {a: {b: block[()] for b, block in row.items()} for a, row in blocks.items()}


def jacobian(program: api.Source, wrt: Sequence[str] | None = None) -> Jacobian:
    """A callable that computes all first derivatives of all outputs in `wrt` (the parameters unless said)."""
    return Jacobian(api.graph_of(program), wrt)


def hessian(program: api.Source, wrt: Sequence[str] | None = None, of: str | None = None) -> Hessian:
    """A callable that computes all second derivatives of one scalar output in `wrt` (the parameters unless said)."""
    return Hessian(api.graph_of(program), wrt, of)


def _active(graph: Graph, wrt: Sequence[str] | None) -> list[Value]:
    if wrt is None:
        chosen = [v for v in graph.parameters if v.dtype.is_float]
    else:
        with api.placed(graph.file):
            chosen = [graph.input(name) for name in ((wrt,) if isinstance(wrt, str) else wrt)]
    if not chosen:
        raise SlpError(Diagnostic("E0412", f"{graph.name} has no input to differentiate in", "name them with wrt",
                                  graph.file))
    return chosen


def _size(values: Sequence[Value]) -> int:
    return sum(v.type.size for v in values)


def _places(function: Function) -> dict[str, int]:
    return {v.name: i for i, v in enumerate(function.graph.outputs)}


def _each_direction(values: Sequence[Value], suffix: str,
                    visit: Callable[[Value, tuple[int, ...], dict[str, Any]], None]) -> None:
    """Call `visit` with each unit direction: the value, the index of its one, and all seeds by name."""
    from numpy import ndindex, zeros

    seeds: dict[str, Any] = {v.name + suffix: zeros(v.shape, v.dtype.numpy) for v in values}
    for value in values:
        seed = seeds[value.name + suffix]
        for index in ndindex(*value.shape):
            seed[index] = 1
            visit(value, index, seeds)
            seed[index] = 0

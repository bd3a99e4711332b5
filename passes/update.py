"""A training step as one graph: loss, gradient and update, that of each parameter as soon as its gradient is known.

The optimizer's text (optimizers.slp) is put behind the adjoint, and what it computes is written over what it was given
(`ir.donation`), so that no gradient lives longer than its update. The gradient of a stacked parameter comes in pieces,
one for each layer (a `place`), and each piece is updated by itself.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..ir.diagnostics import Fault, near
from ..ir.donation import fault
from ..ir.entities import Helper
from ..ir.graph import Graph, Node, Value, buffer
from ..ir.parse import helpers, prelude
from ..ir.shapes import Index
from ..ir.source import Source
from ..ir.statements import Statements
from ..ir.types import TensorType, f32, f64
from .donation import in_order, on_demand
from .in_place import piece_offsets, tiled
from .parallel import mean
from .rebuild import extended
from .simplify import simplify

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
"""The optimizers among the functions of optimizers.slp."""

PHASES = ("whole", "first", "more", "last")
"""Of the gradient of several micro-batches: all of it is there, its sum is begun, added to, or completed and used."""


@dataclass(frozen=True, eq=False)
class Step:
    """A training step: the inputs of `graph` are parameters, data, and what the optimizer keeps; all but the data,
    `rate` and `step` are donated to the outputs that follow the values of the program.

    `state` has for each parameter the names of its buffers, `sums` the name of the sum of its gradients, where
    micro-batches are added up.
    """

    graph: Graph
    values: tuple[str, ...]
    parameters: tuple[str, ...]
    data: tuple[str, ...]
    state: Mapping[str, tuple[str, ...]]
    sums: Mapping[str, str]
    rate: str
    step: str


@cache
def _texts() -> dict[str, Helper]:
    """The functions of optimizers.slp."""
    path = Path(__file__).with_name("optimizers.slp")
    return helpers(Source(path.read_text(encoding="utf-8"), path.name), library=True)


def buffers_of(optimizer: str) -> tuple[str, ...]:
    """The names of what an optimizer keeps of each parameter; Fault E0609 for an unknown one."""
    if optimizer not in OPTIMIZERS:
        raise Fault("E0609", f"there is no optimizer '{optimizer}'",
                    near(optimizer, OPTIMIZERS) or f"the optimizers are {', '.join(OPTIMIZERS)}")
    names = [p.arg for p in _texts()[optimizer].definition.args.args]
    return tuple(names[2:names.index("rate")])


def training_step(gradient: Graph, optimizer: str, options: Mapping[str, Any] | None = None, *,
                  clip: float | None = None, micro_batches: int = 1, phase: str = "whole",
                  processes: int = 1) -> Step:
    """The step of a program of value and gradient (`passes.adjoint`).

    `options` are the constants of the optimizer's text, such as `beta1`. With `clip` the gradient is brought down to
    that norm, taken over all parameters; so all gradients are there before the first update. With several
    `micro_batches` their gradients are added up in buffers of their own, and `phase` says at which of them this is:
    "first", "more", or "last", which updates by their mean. Of several `processes` each has a part of the batch, and
    the loss and what updates are means over them (`passes.parallel`). Numbers of 16 bits are updated in f32.

        y, w_bar = ...              y, w_bar = ...
        return y, w_bar             t: f64[3] = 0.1 * w_bar
                                    w_new: f64[3] = w - t
                                    return y, w_new

    Fault E0609 for an unknown optimizer, E0202 for an option that it does not have.
    """
    return _Step(gradient, optimizer, options or {}, clip, micro_batches, phase, processes).run()


@dataclass(frozen=True)
class _Piece:
    """A part of a parameter's gradient, and where in the parameter it belongs (None: it is all of it)."""

    gradient: Value
    at: Index | None


class _Step:
    """A step under construction."""

    def __init__(self, gradient: Graph, optimizer: str, options: Mapping[str, Any], clip: float | None,
                 micro_batches: int, phase: str, processes: int) -> None:
        self.gradient, self.optimizer, self.options = gradient, optimizer, options
        self.clip, self.micro_batches, self.phase, self.processes = clip, micro_batches, phase, processes
        names = {f"{v.name}_bar": v for v in gradient.inputs}
        self.bars = {names[v.name]: v for v in gradient.outputs if v.name in names}
        self.values = [v for v in gradient.outputs if v.name not in names]
        self.builder = extended(gradient)
        self.reader = Statements(self.builder, Source(""), prelude())
        self.reader.globals.update(_texts())
        self.arrays = self.reader.arrays

    def run(self) -> Step:
        """The step, its operations in order."""
        builder = self.builder
        kept = () if self.phase in ("first", "more") else buffers_of(self.optimizer)
        state = {p: [self._input(f"{p.name}_{k}", p) for k in kept] for p in self.bars}
        sums = {p: self._input(f"{p.name}_sum", p) for p in self.bars} if self.phase != "whole" else {}
        rate, step = (builder.input(name, TensorType(f64), number, data=True)
                      for name, number in (("rate", 0.001), ("step", 1.0)))
        pieces = {p: self._pieces(bar) for p, bar in self.bars.items()}
        made: dict[Value, Value] = {}
        if self.phase in ("first", "more"):
            for p, parts in pieces.items():
                made[sums[p]] = self._joined(p, parts, [self._added(sums[p], part) for part in parts])
        else:
            for p, parts in pieces.items():
                pieces[p] = [_Piece(mean(self.arrays, self._mean(sums.get(p), part), self.processes, p.name), part.at)
                             for part in parts]
            factor = self._factor(pieces) if self.clip is not None else None
            for p, parts in pieces.items():
                updates = [self._updated(p, part, state[p], factor, rate, step) for part in parts]
                found = [self._joined(p, parts, each) for each in zip(*updates, strict=True)]
                made |= dict(zip((p, *state[p]), found, strict=True))
        values = [mean(self.arrays, v, self.processes, v.name) if v.dtype.is_float and not v.shape else v
                  for v in self.values]
        outputs = [*values, *made.values()]
        names = [*(v.name for v in self.values), *(f"{old.name}_new" for old in made)]
        for node in builder.nodes[len(self.gradient.nodes):]:
            if not node.result.name:
                builder.name_value(node.result, "update_t")
        graph = builder.finish(outputs, names, self.gradient)
        graph.donated = {old.name: new.name for old, new in
                         zip(made, graph.outputs[len(self.values):], strict=True)}
        graph = simplify(graph)
        graph.nodes = self._in_order(graph)
        return Step(graph, tuple(v.name for v in self.values), tuple(p.name for p in self.bars),
                    tuple(v.name for v in self.gradient.inputs if v not in self.bars),
                    {p.name: tuple(v.name for v in buffers) for p, buffers in state.items()},
                    {p.name: v.name for p, v in sums.items()}, rate.name, step.name)

    def _in_order(self, graph: Graph) -> tuple[Node, ...]:
        """What depends on a gradient runs as soon as it can, and what only state and parameters enter right before."""
        names = {v.name for v in self.gradient.values()}
        update = {n: None for n in graph.nodes if n.result.name not in names}
        late: dict[Node, None] = {}
        for node in update:
            if all(buffer(v).node is None or v.node in late for v in node.operands):
                late[node] = None
        order = in_order(graph, update)
        order = in_order(graph, update, _overlapping(order or ()))
        assert order is not None, graph
        nodes = graph.nodes
        graph.nodes = tuple(on_demand(order, late))
        return graph.nodes if fault(graph) is None else nodes

    def _input(self, name: str, parameter: Value) -> Value:
        return self.builder.input(name, parameter.type, 0.0, data=True)

    def _pieces(self, bar: Value) -> list[_Piece]:
        node = bar.node
        if node is None or node.op.name != "place" or not tiled(node) or None in piece_offsets(node):
            return [_Piece(bar, None)]
        return [_Piece(v, at) for v, at in zip(node.operands, node.attributes["at"], strict=True)]

    def _part(self, whole: Value, piece: _Piece) -> Value:
        if piece.at is None:
            return whole
        part = self.arrays.slice(whole, piece.at)
        self.builder.name_value(part, f"{whole.name}_t")
        return part

    def _joined(self, p: Value, pieces: Sequence[_Piece], found: Sequence[Value]) -> Value:
        at = [piece.at for piece in pieces if piece.at is not None]
        return self.arrays.place(list(found), at, p.shape) if at else found[0]

    def _added(self, sum_: Value, piece: _Piece) -> Value:
        if self.phase == "first":
            return piece.gradient
        return self.arrays.elementwise("add", self._part(sum_, piece), piece.gradient)

    def _mean(self, sum_: Value | None, piece: _Piece) -> Value:
        if sum_ is None:
            return piece.gradient
        total = self.arrays.elementwise("add", self._part(sum_, piece), piece.gradient)
        return self.arrays.elementwise("multiply", total, 1.0 / self.micro_batches)

    def _factor(self, pieces: Mapping[Value, Sequence[_Piece]]) -> Value:
        """By which all gradients are multiplied."""
        total: Value | None = None
        for parts in pieces.values():
            for part in parts:
                found = self._call("square_norm", [self._wide(part.gradient)])[0]
                found = self.arrays.astype(found, f64)
                total = found if total is None else self.arrays.elementwise("add", total, found)
        return self._call("clipping", [total, self.clip])[0]

    def _updated(self, p: Value, piece: _Piece, state: Sequence[Value], factor: Value | None, rate: Value,
                 step: Value) -> list[Value]:
        """The new parameter and the new buffers, of this piece."""
        w, g, *kept = (self._wide(self._part(v, piece)) if v is not None else self._wide(piece.gradient)
                       for v in (p, None, *state))
        if factor is not None:
            g = self.arrays.elementwise("multiply", g, self.arrays.astype(factor, g.dtype))
        made = [self.arrays.astype(v, p.dtype)
                for v in self._call(self.optimizer, [w, g, *kept, rate, step], self.options)]
        if not made[0].name:
            self.builder.name_value(made[0], f"{p.name}_new_t")
        return made

    def _wide(self, value: Value) -> Value:
        """In f32, if it has fewer bits."""
        return self.arrays.astype(value, f32) if value.dtype.bytes < 4 else value

    def _call(self, name: str, arguments: list[Any], options: Mapping[str, Any] | None = None) -> list[Value]:
        """What a function of optimizers.slp returns."""
        call = ast.parse(f"{name}()", mode="eval").body
        assert isinstance(call, ast.Call)
        found = self.reader.inline(_texts()[name], arguments, dict(options or {}), call)
        return list(found) if isinstance(found, tuple) else [found]


def _overlapping(order: Sequence[Node]) -> dict[Node, Node]:
    """For each sum over processes that is waited for, the beginning of the next one in this order: while that is
    computed, the first is on the wire."""
    begun = [n for n in order if n.op.name == "all_reduce"]
    waits = {n.operands[0].node: n for n in order if n.op.name == "wait"}
    return {waits[first]: then for first, then in pairwise(begun)}

"""Forward mode: the graph of a program's value and its derivative along a direction.

Each value's tangent follows it: the sum over its operands of their tangent times the local derivative (Wengert 1964;
Griewank and Walther 2008, chapter 2). Elementwise operations read the text of the table, as the adjoint does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.graph import Constant, Graph, Node, Value
from ..ir.ops import OPS
from ..ir.tables import rows
from .activity import chosen_inputs, dependent, not_differentiable
from .adjoint import extreme
from .derivatives import derivatives, emit
from .masks import Masked, Masks
from .rebuild import extended
from .regions import tangent_region
from .rewrite import Folding


def tangent(graph: Graph, *, wrt: Sequence[str] | None = None) -> Graph:
    """The program of value and directional derivative: the outputs of `graph`, then `y_dot` for each that is
    floating-point.

    For each x of `wrt` (all floating-point parameters) there is a data input `x_dot` of its type: the direction.
    Raises SlpError E0403 for unknown names, E0412 for what has no derivative.

        def f(x: f64):              def f(x: f64, *, x_dot: f64):
            y: f64 = sin(x)             y: f64 = sin(x)
            return y                    y_dot_t: f64 = cos(x)
                                        y_dot: f64 = x_dot * y_dot_t
                                        return y, y_dot
    """
    sweep = _Forward(graph, chosen_inputs(graph, wrt))
    sweep.run()
    builder, mark = sweep.builder, len(sweep.builder.nodes)
    dots, names = [], [v.name for v in graph.outputs]
    for output in graph.outputs:
        if output.dtype.is_float:
            dots.append(sweep.selected(output) or sweep.arrays.full(output.shape, 0.0, output.dtype))
            names.append(f"{output.name}_dot")
    sweep.name_rest(mark, "dot_t")
    return builder.finish([*graph.outputs, *dots], names, graph)


def of_body(body: Graph, wrt: Sequence[Value]) -> tuple[Graph, dict[Value, Value], list[Value]]:
    """The tangents of a region's body: the graph of those that are not zero, the input that stands for the tangent of
    each of `wrt`, and the outputs of the body whose tangents the outputs are."""
    sweep = _Forward(body, list(wrt))
    seeded = sweep.run()
    mark = len(sweep.builder.nodes)
    dots = [(y, dot) for y in body.outputs if (dot := sweep.selected(y)) is not None]
    sweep.name_rest(mark, "dot_t")
    made = sweep.builder.finish([dot for _, dot in dots], [f"{y.name}_dot" for y, _ in dots], body)
    return made, seeded, [y for y, _ in dots]


class _Forward:
    """The state of one forward sweep."""

    def __init__(self, graph: Graph, wrt: list[Value]) -> None:
        self.graph, self.wrt = graph, wrt
        self.builder = extended(graph, nodes=False)
        self.builder.adopt(graph.nodes)
        self.arrays = Folding(self.builder)
        self.masks = Masks(self.arrays)
        self.active = dependent(graph, wrt)
        self.tangents: dict[Value, Masked] = {}

    def run(self) -> dict[Value, Value]:
        """The sweep; the input that stands for the tangent of each of `wrt`."""
        builder = self.builder
        seeds = {v: builder.input(f"{v.name}_dot", v.type, data=True) for v in self.wrt}
        self.tangents.update((v, Masked(seed)) for v, seed in seeds.items())
        for node in self.graph.nodes:
            builder.nodes.append(node)
            if not any(v in self.active for v in node.results):
                continue
            mark = len(builder.nodes)
            self.arrays.span = node.results[0].span
            for value, found in self._tangents(node):
                self.tangents[value] = found
                if found.whole and not found.value.name and not isinstance(found.value, Constant):
                    builder.name_value(found.value, f"{value.name}_dot")
            self.name_rest(mark, f"{node.results[0].name}_dot_t")
        return seeds

    def name_rest(self, mark: int, stem: str) -> None:
        """Name what was emitted since `mark` and has no name yet."""
        for node in self.builder.nodes[mark:]:
            for value in node.results:
                if not value.name:
                    self.builder.name_value(value, stem)

    def _tangents(self, node: Node) -> list[tuple[Value, Masked]]:
        """The tangents of the node's results that have one."""
        if node.op.name == "region":
            inputs = node.attributes["body"].inputs
            seeds = {x: t for x, v in zip(inputs, node.operands, strict=True) if (t := self.selected(v)) is not None}
            return [(v, Masked(t)) for v, t in tangent_region(self.builder, node, seeds).items()]
        found = self._elementwise(node) if node.op.elementwise else RULES[node.op.name](self, node)
        return [] if found is None else [(node.results[0], found)]

    def _elementwise(self, node: Node) -> Masked | None:
        if node.op.name == "astype":
            x = self.tangents[node.operands[0]]
            return Masked(self.arrays.astype(x.value, node.results[0].dtype), x.mask, x.clean)
        total: Masked | None = None
        for position, derivative in enumerate(derivatives(node.op)):
            seed = self.tangents.get(node.operands[position])
            if seed is None:
                continue
            if derivative is None:
                if node.op.derivatives[position] is None:
                    raise not_differentiable(self.graph, node, position)
                continue
            names = dict(zip(node.op.operands, node.operands, strict=True)) | {"z": node.results[0], "g": seed.value}
            condition = None if derivative.condition is None else emit(self.arrays, derivative.condition, names)
            mask, lives = self.masks.narrowed(seed.mask, condition, derivative.holds)
            if not lives:
                continue
            clean = seed.clean and derivative.linear and mask is seed.mask
            part = Masked(emit(self.arrays, derivative.term, names), mask, clean)
            total = part if total is None else self.masks.add(total, part)
        return total

    def selected(self, value: Value) -> Value | None:
        """A value's tangent, zero outside its mask; None if it has none."""
        found = self.tangents.get(value)
        return None if found is None else self.masks.select(found)


_Rule = Callable[[_Forward, Node], Masked | None]
RULES: dict[str, _Rule] = {}


_rule = rows(RULES)


@_rule("reshape permute_dims broadcast_to slice sum cumsum copy gather scatter_add all_reduce wait")
def _linear(sweep: _Forward, node: Node) -> Masked | None:
    """Linear in its first operand: the same operation of the tangent."""
    x = sweep.selected(node.operands[0])
    return None if x is None else Masked(sweep.arrays.emit(node.op, (x, *node.operands[1:]), node.attributes))


@_rule("place")
def _place(sweep: _Forward, node: Node) -> Masked | None:
    """The tangents of those operands that have one."""
    parts = [(sweep.selected(v), at) for v, at in zip(node.operands, node.attributes["at"], strict=True)]
    live = [(v, at) for v, at in parts if v is not None]
    if not live:
        return None
    return Masked(sweep.arrays.place([v for v, _ in live], [at for _, at in live], node.attributes["shape"]))


@_rule("matmul")
def _matmul(sweep: _Forward, node: Node) -> Masked | None:
    """The product rule."""
    a, b = node.operands
    total: Value | None = None
    for left, right in ((sweep.selected(a), b), (a, sweep.selected(b))):
        if left is not None and right is not None:
            part = sweep.arrays.emit(OPS["matmul"], (left, right))
            total = part if total is None else sweep.arrays.elementwise("add", total, part)
    return None if total is None else Masked(total)


@_rule("max min")
def _extremum(sweep: _Forward, node: Node) -> Masked | None:
    """The mean of the tangents of the elements that are extreme."""
    x = sweep.selected(node.operands[0])
    if x is None:
        return None
    arrays = sweep.arrays
    chosen, count = extreme(arrays, node)
    total = arrays.reduce("sum", arrays.elementwise("where", chosen, x, 0.0), node.attributes["axis"])
    return Masked(arrays.elementwise("divide", total, count))


@_rule("stop_gradient arange")
def _nothing(sweep: _Forward, node: Node) -> Masked | None:
    """No derivative passes."""
    return None


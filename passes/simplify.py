"""Simplify: the rules of `rewrite`, common subexpressions, dead values, transposes absorbed into products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.graph import EMPTY, Builder, Constant, Graph, Node, Value
from ..ir.ops import OPS, Operation
from .rebuild import extended
from .rewrite import Folding

_MOST_ROUNDS = 20


def simplify(graph: Graph) -> Graph:
    """An equal program with less to do: no result changes in any bit, names and outputs stay. Idempotent.

    A `@scheduled` program is left alone: its order and its repeats are deliberate.

        z1: f64 = x * 1.0           (x is used instead)
        z2: f64 = sin(x)            z2: f64 = sin(x)
        z3: f64 = sin(x)            (z2 is used instead)
    """
    if graph.scheduled:
        return graph
    for _ in range(_MOST_ROUNDS):
        graph, changed = _round(graph)
        if not changed:
            break
    return graph


class _Sharing(Folding):
    """Folding that also answers an operation that was emitted before with its result."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder)
        self.known: dict[tuple[Any, ...], Value] = {}
        self.uses: Mapping[int, int] = {}

    def emit(self, op: Operation, operands: Sequence[Value], attributes: Mapping[str, Any] = EMPTY) -> Value:
        key = (op.name, *[("#", v.bits, v.dtype) if isinstance(v, Constant) else id(v) for v in operands],
               *attributes.values()) if op.name != "copy" else None
        if key is not None:
            found = self.known.get(key)
            if found is not None:
                self.fired += 1
                return found
        value = super().emit(op, operands, attributes)
        if key is not None:
            self.known[key] = value
        return value


def _round(graph: Graph) -> tuple[Graph, bool]:
    """One sweep over the live nodes, and whether anything changed."""
    live, uses = _live(graph)
    builder = extended(graph, nodes=False)
    arrays = _Sharing(builder)
    now: dict[Value, Value] = {}
    for at, node in enumerate(graph.nodes):
        if not live[at]:
            arrays.fired += 1
            continue
        old = node.results[0]
        arrays.span = old.span
        operands = tuple(now.get(v, v) for v in node.operands)
        mark = len(builder.nodes)
        value = _absorbed(arrays, node, operands, uses, now) or arrays.emit(node.op, operands, node.attributes)
        now[old] = value
        for made in builder.nodes[mark:]:
            result = made.results[0]
            if result is value:
                result.name = old.name
            elif not result.name:
                builder.name_value(result, f"{old.name}_t")
    outputs = _outputs(graph, now)
    simpler = builder.finish(outputs, [v.name for v in graph.outputs])
    return (simpler, True) if arrays.fired else (graph, False)


def _outputs(graph: Graph, now: Mapping[Value, Value]) -> list[Value]:
    """The outputs under their own names: what stands for one now is renamed, unless it is an input or an output."""
    outputs = [now.get(v, v) for v in graph.outputs]
    own = {v.name for v in graph.outputs}
    for old, new in zip(graph.outputs, outputs, strict=True):
        if new.node is not None and new.name not in own:
            new.name = old.name
    return outputs


def _live(graph: Graph) -> tuple[list[bool], dict[Value, int]]:
    """Which nodes an output depends on, and how often each value is read by those."""
    needed = set(graph.outputs)
    live = [False] * len(graph.nodes)
    uses: dict[Value, int] = dict.fromkeys(graph.outputs, 1)
    for at in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[at]
        if any(v in needed for v in node.results):
            live[at] = True
            needed.update(node.operands)
            for v in node.operands:
                uses[v] = uses.get(v, 0) + 1
    return live, uses


def _absorbed(arrays: _Sharing, node: Node, operands: tuple[Value, ...], uses: Mapping[Value, int],
              now: Mapping[Value, Value]) -> Value | None:
    """`(A @ B).mT` of a product that is read nowhere else is `B.mT @ A.mT`: the transposes are views, and cancel."""
    if node.op.name != "permute_dims" or uses[node.operands[0]] != 1:
        return None
    axes = node.attributes["axes"]
    last = len(axes) - 1
    product = operands[0].node
    if product is None or product.op.name != "matmul" or axes != (*range(last - 1), last, last - 1):
        return None
    a, b = product.operands
    if not any(v.node is not None and v.node.op.name == "permute_dims" for v in (a, b)):
        return None
    arrays.fired += 1
    return arrays.emit(OPS["matmul"], (arrays.transpose(b), arrays.transpose(a)))

"""Simplify: the rules of `rewrite`, common subexpressions, dead values, transposes absorbed into products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ir.graph import EMPTY, Builder, Constant, Graph, Node, Value
from ..ir.ops import OPS, Operation
from .donation import in_order
from .rebuild import extended
from .rewrite import Folding


def simplify(graph: Graph) -> Graph:
    """An equal program with less to do: no result changes in any bit, names and outputs stay. Idempotent.

    A `@scheduled` program is left alone: its order and its repeats are deliberate.

        z1: f64 = x * 1.0           (x is used instead)
        z2: f64 = sin(x)            z2: f64 = sin(x)
        z3: f64 = sin(x)            (z2 is used instead)
    """
    if graph.scheduled:
        return graph
    graph, uses = _swept(graph, {})
    # One sweep is a fixed point of the rules, which look at operands alone. Absorption looks at readers, too.
    while any(_absorbable(node, uses) for node in graph.nodes):
        graph, uses = _swept(graph, uses)
    return graph


class _Sharing(Folding):
    """Folding that also answers an operation that was emitted before with its result."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder)
        self.known: dict[tuple[Any, ...], Value] = {}
        self.bodies: dict[tuple[Any, ...], Graph] = {}
        self.results: dict[tuple[Any, ...], tuple[Value, ...]] = {}
        self.kept: list[Graph] = []  # what the keys' identities belong to

    def emit(self, op: Operation, operands: Sequence[Value], attributes: Mapping[str, Any] = EMPTY) -> Value:
        key = (op.name, *[("#", v.bits, v.dtype) if isinstance(v, Constant) else id(v) for v in operands],
               *attributes.values()) if op.name != "copy" else None
        if key is not None:
            found = self.known.get(key)
            if found is not None:
                return found
        value = super().emit(op, operands, attributes)
        if key is not None:
            self.known[key] = value
        return value

    def region(self, node: Node, operands: Sequence[Value], wanted: Sequence[Value]) -> dict[Value, Value]:
        """The region again, of a simplified body without the results that nobody reads: what these have become."""
        whole: Graph = node.attributes["body"]
        places = tuple(node.results.index(v) for v in wanted)
        body = self.bodies.get((id(whole), places))
        if body is None:
            outputs = [whole.outputs[p] for p in places]
            body = simplify(Graph(whole.name, whole.inputs, whole.nodes, outputs, {}, whole.first_data))
            body = whole if whole.same_body(body.tiled(whole.rows)) else body.tiled(whole.rows)
            self.bodies[id(whole), places] = body
            self.kept.append(whole)
        key = ("region", id(body), *map(id, operands))
        if key not in self.results:
            self.results[key] = self.builder.region(body, operands, span=self.span)
            for old, new in zip(wanted, self.results[key], strict=True):
                new.name = old.name
        return dict(zip(wanted, self.results[key], strict=True))


def _swept(graph: Graph, uses: Mapping[Value, int]) -> tuple[Graph, dict[Value, int]]:
    """One sweep over the live nodes, and how often each value of its result is read. `uses` says it of the graph;
    where it says nothing, no transpose is absorbed."""
    builder = extended(graph, nodes=False)
    arrays = _Sharing(builder)
    now: dict[Value, Value] = {}
    live, read = _live(graph.nodes, graph.outputs)
    for node in live:
        old = node.results[0]
        arrays.span = old.span
        operands = tuple([now.get(v, v) for v in node.operands])
        if node.op.name == "region":
            now.update(arrays.region(node, operands, [v for v in node.results if v in read]))
            continue
        mark = len(builder.nodes)
        if _absorbable(node, uses):
            value = _absorbed(arrays, operands[0])
        else:
            value = arrays.emit(node.op, operands, node.attributes)
        now[old] = value
        for at in range(mark, len(builder.nodes)):
            result = builder.nodes[at].results[0]
            if result is value:
                result.name = old.name
            elif not result.name:
                builder.name_value(result, f"{old.name}_t")
    outputs = [now.get(v, v) for v in graph.outputs]
    builder.nodes, found = _live(builder.nodes, outputs)
    return _donating(builder.finish(outputs, [v.name for v in graph.outputs]), graph.donated), found


def _donating(graph: Graph, donated: Mapping[str, str]) -> Graph:
    """The graph with these donations, its operations in an order that they allow. One is given up where there is none:
    where a rewrite reads an input beside the output that is made of it."""
    for old, new in donated.items():
        graph.donated[old] = new
        nodes = in_order(graph)
        if nodes is None:
            del graph.donated[old]
        else:
            graph.nodes = tuple(nodes)
    return graph


def _live(nodes: Sequence[Node], outputs: Sequence[Value]) -> tuple[list[Node], dict[Value, int]]:
    """The nodes that an output depends on, in order, and how often each value is read by those and as an output."""
    uses: dict[Value, int] = dict.fromkeys(outputs, 1)
    live = []
    for node in reversed(nodes):
        if any(v in uses for v in node.results):
            live.append(node)
            for v in node.operands:
                uses[v] = uses.get(v, 0) + 1
    live.reverse()
    return live, uses


def _absorbable(node: Node, uses: Mapping[Value, int]) -> bool:
    """Is it the transpose of a product of a transpose, which is read nowhere else?"""
    if node.op.name != "permute_dims" or uses.get(node.operands[0]) != 1:
        return False
    axes = node.attributes["axes"]
    last = len(axes) - 1
    product = node.operands[0].node
    return product is not None and product.op.name == "matmul" and axes == (*range(last - 1), last, last - 1) and any(
        v.node is not None and v.node.op.name == "permute_dims" for v in product.operands)


def _absorbed(arrays: _Sharing, product: Value) -> Value:
    """`(A @ B).mT` as `B.mT @ A.mT`: the transposes are views, and cancel."""
    assert product.node is not None
    a, b = product.node.operands
    return arrays.emit(OPS["matmul"], (arrays.transpose(b), arrays.transpose(a)))

"""By batch: a whole program, forward and backward, as one region over the samples that its results are sums over.

Value and gradient of a mean over samples need each sample's activations only while that sample is worked on. By blocks
of samples the activations of one block are there at a time, nothing is computed twice, and the gradients of the weights
accumulate. What mixes samples (a normalisation over the batch) is found in the operations and leaves the program alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.diagnostics import Fault
from ..ir.graph import Graph, Node, Value
from ..ir.rows import SUMMED, Axis, Classes, Cut, result_cut, rows_of
from .fuse import Part, boundary, enclosed, replaced


def by_batch(graph: Graph, *, least: float = 1.0, smallest: int = 0) -> Graph:
    """The program with one region over its samples, if what lies inside it is `least` times as many bytes as what it
    reads by rows and gives, and one value there has at least `smallest`; else the program itself."""
    if graph.scheduled or any(n.op.name == "region" for n in graph.nodes):
        return graph
    classes = Classes(graph.nodes)
    best: Part | None = None
    seen: set[Axis] = set()
    for value in (*graph.data, *graph.parameters):
        for axis in range(value.type.rank):
            root = classes.find((value, axis))
            if value.shape[axis] > 1 and root not in seen:
                seen.add(root)
                part = _along(graph, classes, (value, axis))
                if part is not None and part.gain >= least and max(
                        v.type.bytes for v in part.wide) >= smallest and (best is None or part.gain > best.gain):
                    best = part
    return graph if best is None else replaced(graph, [best])


def _along(graph: Graph, classes: Classes, axis: Axis) -> Part | None:
    """The part of all operations that work sample by sample along an axis, and of the sums over it."""
    cut: dict[Value, Cut] = {}
    behind: set[Value] = set()
    nodes: list[Node] = []
    try:
        for value in graph.inputs:
            cut[value] = classes.place(value, axis)
        for node in graph.nodes:
            place = classes.place(node.result, axis)
            states = [cut.get(v) for v in node.operands]
            if SUMMED in states or any(v in behind for v in node.operands):
                if place is not None:
                    return None
                behind.add(node.result)
                continue
            cut[node.result] = result_cut(node, states, place, axis[0])
            if cut[node.result] is not None:
                nodes.append(node)
    except Fault:
        return None
    return _part(graph, classes, axis, nodes)


def _part(graph: Graph, classes: Classes, axis: Axis, nodes: Sequence[Node]) -> Part | None:
    operands, results = boundary(graph, nodes)
    stored = sum(v.type.bytes for n in nodes if not n.op.view for v in n.results)
    crossing = sum(v.type.bytes for v in operands if classes.along(v, axis)) + sum(v.type.bytes for v in results)
    for first in operands:
        if classes.along(first, axis) != [max(0, first.type.rank - 2)]:
            continue
        order = [first, *(v for v in operands if v is not first)]
        body = enclosed("by_batch", nodes, order, results)
        try:
            rows_of(body)
        except Fault:
            continue
        return Part(tuple(nodes), body, tuple(order), tuple(results), stored / max(crossing, 1),
                    tuple(v for n in nodes if not n.op.view for v in n.results))
    return None

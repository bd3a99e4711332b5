"""Merge: two regions that meet through row-wise code alone become one, so that nothing is computed twice.

A region and its adjoint are such a pair where the loss follows at once: the logits of a block of tokens, their loss
and all cotangents are then done while the block is there.

    a, b = part(X, U)                   a, c = part_1(X, U)     # what part computed is shared by both halves
    s = b / 6
    c = part_bar(X, U, s)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from ..ir.diagnostics import Fault
from ..ir.graph import Graph, Node, Value
from ..ir.rows import rows_of
from .fuse import Part, boundary, enclosed, replaced
from .simplify import simplify

MOST = 64
"""Operations between two regions; more are a program of their own."""


def merge(graph: Graph, apart: Callable[[Graph], bool] = lambda body: False) -> Graph:
    """The program with those neighbouring regions merged whose bodies share work, but for bodies that stay `apart`.
    `@scheduled` programs are left alone."""
    if graph.scheduled:
        return graph
    while True:
        regions = [n for n in graph.nodes if n.op.name == "region" and not apart(n.attributes["body"])]
        for first, second in pairwise(regions):
            if set(first.operands) & set(second.operands) and (part := _merged(graph, first, second)) is not None:
                graph = replaced(graph, [part])
                break
        else:
            return graph


def _merged(graph: Graph, first: Node, second: Node) -> Part | None:
    """The part that both regions and all between them make; None where the rows of some are not independent, or nothing
    is spared."""
    bodies = [n.attributes["body"] for n in (first, second)]
    between = _between(graph, first, second)
    if between is None or rows_of(bodies[0]).lengths != rows_of(bodies[1]).lengths:
        return None
    nodes = [first, *between, second]
    operands, results = boundary(graph, nodes)
    body = simplify(enclosed(bodies[0].name, nodes, operands, results)).tiled(bodies[0].rows)
    try:
        if rows_of(body).lengths != rows_of(bodies[0]).lengths:
            return None
    except Fault:
        return None
    if sum(n.flops for n in body.nodes) >= sum(n.flops for n in nodes):
        return None
    return Part(tuple(nodes), body, tuple(operands), tuple(results), 0.0, ())


def _between(graph: Graph, first: Node, second: Node) -> Sequence[Node] | None:
    """What lies on a way from one region to the other; None where that is no row's work."""
    place = {n: at for at, n in enumerate(graph.nodes)}
    nodes = graph.nodes[place[first] + 1:place[second]]
    below: set[Value] = set(first.results)
    for node in nodes:
        if any(v in below for v in node.operands):
            below.update(node.results)
    above: set[Value] = set(second.operands)
    for node in reversed(nodes):
        if any(v in above for v in node.results):
            above.update(node.operands)
    found = [n for n in nodes if any(v in below and v in above for v in n.results)]
    return None if len(found) > MOST or any(n.op.name == "region" for n in found) else found

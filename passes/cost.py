"""What a program costs: arithmetic operations and moved elements, and the ratio of gradient to value."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph
from .activity import chosen_inputs, chosen_output
from .adjoint import adjoint
from .simplify import simplify


def operations(graph: Graph) -> int:
    """Flops of all operations, each weighed as its row says, and elements moved without arithmetic."""
    return sum(node.flops + node.moved for node in graph.nodes)


def flops(graph: Graph) -> int:
    """Flops of all operations, each weighed as its row says."""
    return sum(node.flops for node in graph.nodes)


def ratio(graph: Graph, of: str | None = None, wrt: Sequence[str] | None = None) -> float:
    """Counted cost of value and gradient over that of the value alone: at most 5 (Baur and Strassen 1983, Theorem 1).

    Reading an input counts one for each element on both sides: a program that reads one element of an array still has
    a gradient of the array's size to write.
    """
    read = sum(v.type.size for v in chosen_inputs(graph, wrt))
    chosen_output(graph, of)
    value = operations(simplify(graph)) + read
    both = operations(simplify(adjoint(graph, of=of, wrt=wrt))) + read
    return both / value if value else 1.0

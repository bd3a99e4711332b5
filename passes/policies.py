"""The textbook's choices of what to keep for the backward pass, each as an order of execution.

The lecture names keep-all, the block inputs, every sqrt(L)-th of them (Chen, Xu, Zhang and Guestrin 2016) and all but
the T x T matrices. min-cut is what torch does: the fewest bytes from which the backward pass can be computed without
running a product again (the partitioner of AOTAutograd, 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import networkx

from .recompute import keeping
from .segments import Chain, chains
from .tasks import Tasks

CUTTABLE = 4000
"""A minimum cut is looked for in programs of up to so many tasks."""


def keep_all(tasks: Tasks) -> list[int]:
    """Every value once, in the order of the text."""
    return list(tasks.order)


def blocks(tasks: Tasks) -> list[int]:
    """The inputs of the repeated block are kept; a block is computed again when its backward part begins."""
    return keeping(tasks, entries(tasks))


def sqrt(tasks: Tasks) -> list[int]:
    """Of L block inputs every sqrt(L)-th is kept."""
    found = entries(tasks)
    return keeping(tasks, found[::max(1, math.isqrt(len(found)))])


def no_square(tasks: Tasks) -> list[int]:
    """All but what comes from products of activations that are larger than both factors: the T x T of attention."""
    return keeping(tasks, set(range(len(tasks.values))) - squares(tasks))


def min_cut(tasks: Tasks) -> list[int]:
    """The fewest bytes from which the backward pass follows by cheap operations alone."""
    return keeping(tasks, _cut(tasks))


POLICIES: dict[str, Callable[[Tasks], list[int]]] = {
    "keep-all": keep_all, "blocks": blocks, "sqrt": sqrt, "no-square": no_square, "min-cut": min_cut,
}


def entries(tasks: Tasks) -> list[int]:
    """The inputs of the blocks that a program repeats; of a program that repeats none, every buffer of its forward pass
    that crosses alone, or else all that are as large as the largest."""
    found: list[Chain] = chains(tasks)
    if found:
        block = min(found, key=lambda chain: len(chain.segments))
        return [b for s in block.segments for b in s.entries]
    forward = [b for b, t in enumerate(tasks.writer) if tasks.forward[t]]
    most = max((tasks.bytes[b] for b in forward), default=0)
    return [b for b in forward if tasks.bytes[b] == most]


def squares(tasks: Tasks) -> frozenset[int]:
    """Forward buffers of two equal last axes that come from a product of two activations and are larger than either."""
    found: set[int] = set()
    inputs = {v.type for v in tasks.graph.parameters}
    for task, node in enumerate(tasks.nodes):
        if not tasks.forward[task]:
            continue
        shape = node.result.shape
        if len(shape) < 2 or shape[-1] != shape[-2]:
            continue
        product = (node.op.name == "matmul" and all(node.result.type.size > v.type.size for v in node.operands)
                   and (len(tasks.reads[task]) == 2 or all(v.type in inputs for v in node.operands)
                        or not tasks.reads[task]))
        if product or any(r in found and tasks.values[r].shape == shape for r in tasks.reads[task]):
            found.update(tasks.writes[task])
    return frozenset(found)


def _cut(tasks: Tasks) -> Collection[int]:
    """Each forward buffer is an edge of its bytes; what is dear, or reads nothing, cannot be computed again."""
    forward = [b for b, t in enumerate(tasks.writer) if tasks.forward[t]]
    if len(tasks.nodes) > CUTTABLE:
        return forward
    graph = networkx.DiGraph()
    for b in forward:
        task = tasks.writer[b]
        graph.add_edge((b, "in"), (b, "out"), capacity=tasks.bytes[b] or 1)
        if tasks.nodes[task].op.family == "product" or not tasks.reads[task]:
            graph.add_edge("source", (b, "in"))
        for reader in tasks.readers[b]:
            if tasks.forward[reader]:
                for w in tasks.writes[reader]:
                    graph.add_edge((b, "out"), (w, "in"))
            else:
                graph.add_edge((b, "out"), "sink")
    if "source" not in graph or "sink" not in graph:
        return []
    _, (front, _) = networkx.minimum_cut(graph, "source", "sink")
    return [b for b in forward if (b, "in") in front and (b, "out") not in front]

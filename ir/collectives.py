"""Sums over processes: begun by one operation, there after another.

`h = all_reduce(g, processes=2)` begins the sum of g over the processes, each of which runs this program on data of its
own, and `s = wait(h)` is that sum. What lies between runs while the bytes are on the wire, and the memory of h is taken
until then: a plan sees both. Of one process the sum of g is g.
"""

from __future__ import annotations

from .graph import Graph, buffer


def unawaited(graph: Graph) -> str | None:
    """The name of a sum that something reads before it is there; None if there is none."""
    begun = {n.result for n in graph.nodes if n.op.name == "all_reduce"}
    for node in graph.nodes:
        for v in node.operands:
            if v in begun and node.op.name != "wait":
                return v.name
        if node.op.name == "wait" and node.operands[0] not in begun:
            return node.result.name
    return next((v.name for v in graph.outputs if buffer(v) in begun), None)


def wire_bytes(graph: Graph) -> int:
    """Bytes that each process sends: of each sum over n processes 2 (n - 1) / n of its bytes, as a ring does it
    (Patarasuk and Yuan 2009), which is the least."""
    total = 0
    for node in graph.nodes:
        if node.op.name == "all_reduce":
            n = node.attributes["processes"]
            total += 2 * (n - 1) * node.result.type.bytes // n
    return total

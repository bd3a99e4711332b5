"""What a program costs: arithmetic operations, bytes moved, and the ratio of gradient to value.

Flops are weighed as the rows of `ir/ops.py` say. Bytes are those that no machine goes below: each operation reads each
of its operands once and writes its results once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.graph import Constant, Graph, Node, Value
from ..ir.layout import layout
from ..ir.target import Target
from .activity import chosen_inputs, chosen_output
from .adjoint import adjoint
from .blocks import blocks, by_blocks
from .simplify import simplify


@dataclass(frozen=True)
class Cost:
    """One run of an operation: flops, and bytes read and written."""

    node: Node
    flops: int
    read: int
    written: int

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.read + self.written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, flops a byte (Williams, Waterman and Patterson 2009, section 3); 0 without bytes."""
        return self.flops / self.bytes if self.bytes else 0.0


def costs(graph: Graph) -> list[Cost]:
    """The cost of each operation in the order of the graph; views cost nothing and are left out."""
    return [Cost(n, n.flops, _read(n), sum(v.type.bytes for v in n.results)) for n in graph.nodes if not n.op.view]


@dataclass(frozen=True)
class RegionCost:
    """All runs of a region that has blocks: flops of these, and of its body on whole arrays. Masks that compare
    positions make the difference: columns that they leave out are not computed."""

    region: str
    runs: int
    flops: int
    whole: int


def regions(graph: Graph, target: Target) -> list[RegionCost]:
    """What masks cut in the regions of a graph that is legal for the target, in the order of the program; regions in
    which they cut nothing are left out."""
    found: dict[str, RegionCost] = {}
    for node in graph.nodes:
        if by_blocks(node, target) and (loop := blocks(node, target)).masked:
            name = node.attributes["body"].name
            before = found.get(name, RegionCost(name, 0, 0, 0))
            found[name] = RegionCost(name, before.runs + 1, before.flops + loop.flops, before.whole + node.flops)
    return list(found.values())


def moved(node: Node) -> int:
    """Bytes that one run of an operation reads and writes."""
    return _read(node) + sum(v.type.bytes for v in node.results)


def _read(node: Node) -> int:
    """Bytes of the distinct operands. A gather reads only what its indices name."""
    distinct = [v for v in dict.fromkeys(node.operands) if not isinstance(v, Constant)]
    if node.op.name == "gather":
        table = node.operands[0]
        return node.result.type.bytes + sum(_bytes(v) for v in distinct if v is not table)
    return sum(map(_bytes, distinct))


def _bytes(value: Value) -> int:
    """Bytes that lie beneath a value: an axis that is broadcast is read once."""
    lies = layout(value)
    if lies is None:
        return value.type.bytes
    return value.dtype.bytes * math.prod(n for n, stride in zip(lies.shape, lies.strides, strict=True) if stride)


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

"""Over which operand's memory a result may be written, once nothing reads the operand any more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ..ir.graph import Constant, Node, Value, buffer
from ..ir.layout import layout, rowwise, sliced
from ..ir.shapes import Index, disjoint
from ..ir.target import Target


def heirlooms(node: Node, operands: Sequence[Value], target: Target) -> list[tuple[Value, Value, int]]:
    """The operands' buffers over which a result may lie, the result, and the offset in bytes in it. `operands` are
    those of the task."""
    if node.op.name == "place":
        return [(root, node.result, at) for root, at in pieces(node)]
    if node.op.name == "region":
        pairs = [(node.operands[p], node.results[q]) for p, q in target.takes_over(node)]
    else:
        own = [node.operands[p] for p in target.in_place.get(node.op.name, ())]
        inner = [v for v in operands if v not in node.operands] if own else []
        pairs = [(v, node.result) for v in (*own, *inner)]
    return [(buffer(v), z, 0) for v, z in pairs if replaceable(z, operands, v)]


def replaceable(result: Value, operands: Sequence[Value], value: Value) -> bool:
    """May the result be written over this operand? It is the whole of its buffer, element for element, and no other
    operand looks into that buffer differently."""
    root = buffer(value)
    if value.type is not result.type or isinstance(root, Constant):
        return False
    return all(whole(v, root) for v in operands if buffer(v) is root)


def pieces(node: Node) -> list[tuple[Value, int]]:
    """What a `place` puts together without gaps or overlaps can be written where it belongs from the beginning."""
    roots = [buffer(v) for v in node.operands]
    if not tiled(node) or len(set(roots)) != len(roots):
        return []
    return [(root, at) for operand, root, at in zip(node.operands, roots, piece_offsets(node), strict=True)
            if at is not None and whole(operand, root)]


def tiled(node: Node) -> bool:
    """Does a `place` put its operands together without gaps or overlaps?"""
    size = sum(v.type.size for v in node.operands)
    return size == node.result.type.size and disjoint(node.attributes["at"])


def piece_offsets(node: Node) -> list[int | None]:
    """For each operand of a `place` the bytes at which it begins in the result; None where it lies there in parts."""
    at: Sequence[Index] = node.attributes["at"]
    everything = rowwise(node.result.shape)
    found = (sliced(everything, v.shape, index) for v, index in zip(node.operands, at, strict=True))
    return [piece.offset * node.result.dtype.bytes if piece.contiguous else None for piece in found]


def whole(view: Value, root: Value) -> bool:
    """Is it the whole of its buffer, row by row?"""
    lies = layout(view)
    return not isinstance(view, Constant) and lies is not None and lies.contiguous and view.type.size == root.type.size


def operands_of(node: Node, within: Collection[Node]) -> Iterator[Value]:
    """What the node's loop reads from memory, where the nodes in `within` are inlined; constants left out."""
    stack = list(reversed(node.operands))
    seen: set[Value] = set()
    while stack:
        value = stack.pop()
        made = buffer(value).node
        if value in seen or isinstance(buffer(value), Constant):
            continue
        seen.add(value)
        if made is None or made not in within:
            yield value
        else:
            stack += reversed(made.operands)

"""A program of scalars cut into pieces: what is read, what is written, and what one piece hands to a later one.

Compilers take more than linear time on a long function. So a long program becomes functions of some hundred
operations; what one computes and another reads lies in the workspace, in slots of 8 bytes that are used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.graph import Constant, Graph, Node, Value

PIECE = 800
"""Operations in one function; a program of up to twice as many is one piece."""

Element = tuple[int, int]
"""An input or output by its position, and an element of it, counted row by row."""


class Pieces:
    """A graph that `scalarise` returned.

    `pieces` are its operations in order; `inputs` says which values are elements of inputs, `sinks` to which elements
    of outputs a value goes, `fixed` which elements are constants; `slots` where in the workspace the values lie that a
    later piece reads, and `width` how many slots there are.
    """

    def __init__(self, graph: Graph) -> None:
        self.inputs: dict[Value, Element] = {v: (i, 0) for i, v in enumerate(graph.inputs)}
        self.sinks: dict[Value, list[Element]] = {}
        self.fixed: list[tuple[Element, Constant]] = []
        self.slots: dict[Value, int] = {}
        self.width = 0
        operations: list[Node] = []
        for node in graph.nodes:
            value = node.results[0]
            if node.op.name == "slice":
                source = node.operands[0]
                self.inputs[value] = (self.inputs[source][0], _flat(node.attributes["index"], source.shape))
            elif not value.shape:
                operations.append(node)
        for position, value in enumerate(graph.outputs):
            for place, element in _elements(value):
                if isinstance(element, Constant):
                    self.fixed.append(((position, place), element))
                else:
                    self.sinks.setdefault(element, []).append((position, place))
        length = PIECE if len(operations) > 2 * PIECE else max(1, len(operations))
        self.pieces = [operations[i:i + length] for i in range(0, len(operations), length)] or [[]]
        if len(self.pieces) > 1:
            self._spread()

    def _spread(self) -> None:
        piece_of = {node.results[0]: number for number, nodes in enumerate(self.pieces) for node in nodes}
        last: dict[Value, int] = {}
        for number, nodes in enumerate(self.pieces):
            for node in nodes:
                for v in node.operands:
                    if piece_of.get(v, number) != number:
                        last[v] = number
        ending: dict[int, list[int]] = {}
        free: list[int] = []
        for number, nodes in enumerate(self.pieces):
            free += ending.pop(number, [])
            for node in nodes:
                v = node.results[0]
                if v in last:
                    if free:
                        slot = free.pop()
                    else:
                        slot, self.width = self.width, self.width + 1
                    self.slots[v] = slot
                    ending.setdefault(last[v] + 1, []).append(slot)


def _flat(index: Sequence[int], shape: Sequence[int]) -> int:
    """The number of an element, counted row by row."""
    place = 0
    for i, n in zip(index, shape, strict=True):
        place = place * n + i
    return place


def _elements(value: Value) -> Iterator[tuple[int, Value]]:
    """Each element of an output: its number, and the scalar that it is."""
    node = value.node
    if not value.shape:
        yield 0, value
    elif node is not None and node.op.name == "place":
        given = {_flat(at, value.shape): v for v, at in zip(node.operands, node.attributes["at"], strict=True)}
        zero = Constant(0, value.dtype)
        for place in range(value.type.size):
            yield place, given.get(place, zero)
    elif value.type.size:
        assert node is not None and node.op.name == "copy", node
        yield from _elements(node.operands[0])

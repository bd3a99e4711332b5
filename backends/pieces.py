"""A program of scalars cut into pieces: what is read, what is written, and what one piece hands to a later one.

Compilers take more than linear time on a long function. So a long program becomes functions of some hundred
operations; what one computes and another reads lies in the workspace, in slots of 8 bytes that are used again. Loops
that were unrolled (passes/repeats.py) are pieces of their own, if asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.graph import Constant, Graph, Node, Value
from ..passes.repeats import Place, Places, Run, runs
from .rolled import Loop, Rolled, Same

PIECE = 800
"""Operations in one function, unless said; a program of up to twice as many is one piece."""

ROLL = 300
"""Operations that an unrolled loop must save to be a loop again."""

Element = Place
"""An element of an input or output."""


class Pieces:
    """A graph that `scalarise` returned.

    `pieces` are its operations in order, of a loop one block, and `loops` the loops by the piece's number; `inputs`
    says which values are elements of inputs, `sinks` to which elements of outputs a value goes, `fixed` which elements
    are constants; `slots` where in the workspace the values lie that a later piece reads (`homes` all places, where
    there are several), and `width` how many slots there are. With `roll`, unrolled loops that save at least so many
    operations are loops again.
    """

    def __init__(self, graph: Graph, roll: int = 0, piece: int = PIECE) -> None:
        self.piece = piece
        self.inputs: dict[Value, Element] = {v: (i, 0) for i, v in enumerate(graph.inputs)}
        self.sinks: dict[Value, list[Element]] = {}
        self.fixed: list[tuple[Element, Constant]] = []
        self.slots: dict[Value, int] = {}
        self.homes: dict[Value, list[int]] = {}
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
        self.loops: dict[int, Loop] = {}
        self.pieces: list[list[Node]] = []
        operations = _together(operations)
        if roll and len(operations) > roll:
            places = Places(operations, self.inputs, self.sinks)
            self._cut(operations, runs(places, roll), places)
        else:
            self._cut(operations, [], None)
        if len(self.pieces) > 1:
            self._spread()

    def _cut(self, operations: list[Node], found: Sequence[Run], places: Places | None) -> None:
        straight = len(operations) - sum(run.end - run.start for run in found)
        length = self.piece if straight > 2 * self.piece else max(1, straight)
        rolled = Rolled(operations, found, places, self.inputs, self.sinks) if places is not None and found else None
        if rolled is not None:
            self.slots, self.homes, self.width = rolled.slots, rolled.homes, rolled.width
        at = 0
        for run in [*found, Run(len(operations), 0, 0)]:
            self.pieces += [operations[i:min(i + length, run.start)] for i in range(at, run.start, length)]
            if rolled is not None and run.count:
                self.loops[len(self.pieces)] = rolled.loop(run)
                self.pieces.append(operations[run.start:run.start + run.period])
            at = run.end
        self.pieces = self.pieces or [[]]

    def reads(self, number: int) -> Iterator[Value]:
        """What the operations of a piece read that is not computed in the same loop; moving operands are left out."""
        loop = self.loops.get(number)
        if loop is None:
            for node in self.pieces[number]:
                yield from node.operands
            return
        for values in loop.before.values():
            yield from values
        for sources in loop.sources:
            yield from (source.value for source in sources if isinstance(source, Same))

    def made(self, number: int) -> Iterator[Value]:
        """What a piece computes and others can read."""
        loop = self.loops.get(number)
        yield from (node.results[0] for node in self.pieces[number]) if loop is None else loop.last.values()

    def _spread(self) -> None:
        piece_of = {v: number for number in range(len(self.pieces)) for v in self.made(number)}
        last: dict[Value, int] = {}
        for number in range(len(self.pieces)):
            for v in self.reads(number):
                if piece_of.get(v, number) != number:
                    last[v] = number
        ending: dict[int, list[int]] = {}
        free: list[int] = []
        for number in range(len(self.pieces)):
            free += ending.pop(number, [])
            for v in self.made(number):
                if v in last and v not in self.slots:
                    if free:
                        slot = free.pop()
                    else:
                        slot, self.width = self.width, self.width + 1
                    self.slots[v] = slot
                    self.homes.setdefault(v, []).append(slot)
                    ending.setdefault(last[v] + 1, []).append(slot)


def _together(operations: Sequence[Node]) -> list[Node]:
    """Sine and cosine of one angle next to each other, so that one function can reduce it once for both."""
    first: dict[Value, Node] = {}
    partner: dict[Node, Node] = {}
    for node in operations:
        if node.op.name in ("sin", "cos"):
            other = first.setdefault(node.operands[0], node)
            if other.op is not node.op:
                partner[other] = node
    moved = set(partner.values())
    return [n for node in operations if node not in moved for n in (node, partner.get(node)) if n is not None]


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

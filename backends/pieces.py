"""A program of scalars cut into pieces: what is read, what is written, and what one piece hands to a later one.

Compilers take more than linear time on a long function. So a long program becomes functions of some hundred
operations; what one computes and another reads lies in the workspace, in slots of 8 bytes that are used again. Loops
that were unrolled (passes/repeats.py) are pieces of their own, if asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..ir.graph import Constant, Graph, Node, Value
from ..passes.repeats import Places, Run, runs

PIECE = 800
"""Operations in one function; a program of up to twice as many is one piece."""

Element = tuple[int, int]
"""An input or output by its position, and an element of it, counted row by row."""


class Same(NamedTuple):
    """An operand of a loop's operation: the same value in every block."""

    value: Value


class Computed(NamedTuple):
    """An operand that operation `row` of the loop's body has computed, so many blocks before."""

    row: int
    back: int


class Moving(NamedTuple):
    """An operand that lies in the workspace: in slot `first` for the first block, `step` slots further for each."""

    first: int
    step: int
    value: Value


class Walking(NamedTuple):
    """An element of an input, or an output: `element` for the first block, `step` elements further for each."""

    element: Element
    step: int
    value: Value


Source = Same | Computed | Moving | Walking


@dataclass
class Loop:
    """A run of equal blocks, for which the piece holds the operations of the first.

    `sources` say what each operation reads; `before` the values that stand for what operation `row` computed one block
    before the first, two blocks, ...; `kept` the slot of an operation's value in the first block, the next ones lie
    behind it; `last` the values of the last block that others read; `written` the output that a value goes to.
    """

    count: int
    sources: list[list[Source]]
    before: dict[int, list[Value]]
    kept: dict[int, int]
    last: dict[int, Value]
    written: dict[int, Walking]


class Pieces:
    """A graph that `scalarise` returned.

    `pieces` are its operations in order, of a loop one block, and `loops` the loops by the piece's number; `inputs`
    says which values are elements of inputs, `sinks` to which elements of outputs a value goes, `fixed` which elements
    are constants; `slots` where in the workspace the values lie that a later piece reads (`homes` all places, where
    there are several), and `width` how many slots there are. With `roll`, unrolled loops that save at least so many
    operations are loops again.
    """

    def __init__(self, graph: Graph, roll: int = 0) -> None:
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
        if len(operations) > (roll or 2 * PIECE):
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
        length = PIECE if straight > 2 * PIECE else max(1, straight)
        rolled = _Rolled(self, operations, found, places) if places is not None and found else None
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


class _Rolled:
    """Runs as loops: which values lie in arrays.

    The values at places p, p + s, p + 2 s, ... of the program are one array if any loop reads them so: (s, p mod s) is
    its name, and all that are read or that a loop computes there have a slot in it, in their order.
    """

    def __init__(self, pieces: Pieces, operations: list[Node], found: Sequence[Run], places: Places) -> None:
        self.pieces, self.operations, self.runs, self.places = pieces, operations, found, places
        self.values = [node.results[0] for node in operations]
        self.run_of: list[Run | None] = [None] * len(operations)
        for run in found:
            self.run_of[run.start:run.end] = [run] * (run.end - run.start)
        self.last: dict[Run, dict[int, Value]] = {run: {} for run in found}
        self.extent: dict[tuple[int, int], tuple[int, int]] = {}
        alone: list[tuple[int, int]] = []  # operations in no run that belong to an array, by its stride
        self._read(alone)
        self.base: dict[tuple[int, int], int] = {}
        for (stride, rest), (first, end) in self.extent.items():
            self.base[stride, rest] = pieces.width
            pieces.width += (end - first) // stride + 1
        for at, stride in alone:
            self._settle(at, stride)
        for at, run in self.single.items():
            if (run.period, at % run.period) in self.base:
                self._settle(at, run.period)
            else:
                self.last[run][at - run.end + run.period] = self.values[at]

    def _settle(self, at: int, stride: int) -> None:
        value, slot = self.values[at], self.slot(at, stride)
        homes = self.pieces.homes.setdefault(value, [])
        if slot not in homes:
            homes.append(slot)
        self.pieces.slots.setdefault(value, slot)

    def slot(self, at: int, stride: int) -> int:
        """Where the value of an operation lies in its array."""
        key = stride, at % stride
        return self.base[key] + (at - self.extent[key][0]) // stride

    def _widen(self, stride: int, first: int, end: int) -> None:
        key = stride, first % stride
        low, high = self.extent.get(key, (first, first))
        self.extent[key] = min(low, first, end), max(high, first, end)

    def _read(self, alone: list[tuple[int, int]]) -> None:
        """Who reads what a loop computes, other than its own later blocks, and which arrays loops read."""
        self.single: dict[int, Run] = {}
        for i, node in enumerate(self.operations):
            if self.run_of[i] is None:
                for j in range(len(node.operands)):
                    if self.places.inner[i, j]:
                        self._one(int(self.places.at[i, j]))
        for run in self.runs:
            for i in range(run.start, run.start + run.period):
                for j, (at, move) in enumerate(self._moves(i, run)):
                    if not self.places.inner[i, j]:
                        continue
                    if not move:
                        self._one(at)
                    elif move == run.period:
                        for before in range(at, run.start, run.period):
                            self._one(before)
                    else:
                        self._widen(abs(move), at, at + move * (run.count - 1))
                        alone += [(k, abs(move)) for k in range(at, at + move * run.count, move)
                                  if self.run_of[k] is None]
        for run in self.runs:
            for at in range(run.start, run.start + run.period):
                if (run.period, at % run.period) in self.extent:
                    self._widen(run.period, at, at + run.period * (run.count - 1))

    def _moves(self, i: int, run: Run) -> Iterator[tuple[int, int]]:
        for j in range(len(self.operations[i].operands)):
            at = int(self.places.at[i, j])
            yield at, int(self.places.at[i + run.period, j]) - at

    def _one(self, at: int) -> None:
        """The value of one operation is read by itself: where it is one of a run, but not of its last block, all that
        the run has in that place lie in an array."""
        run = self.run_of[at]
        if run is not None:
            self.single[at] = run
            if at < run.end - run.period:
                self._widen(run.period, at, at)

    def loop(self, run: Run) -> Loop:
        """The loop of a run."""
        made = Loop(run.count, [], {}, {}, self.last[run], {})
        for row in range(run.period):
            i = run.start + row
            made.sources.append([self._source(i, j, at, move, run)
                                 for j, (at, move) in enumerate(self._moves(i, run))])
            for source in made.sources[-1]:
                if isinstance(source, Computed) and source.back > len(made.before.get(source.row, ())):
                    made.before[source.row] = [self.values[run.start + source.row - back * run.period]
                                               for back in range(1, source.back + 1)]
            if (run.period, i % run.period) in self.base:
                made.kept[row] = self.slot(i, run.period)
            for output, element in self.pieces.sinks.get(self.values[i], ()):
                step = int(self.places.at[i + run.period, -1]) - element
                made.written[row] = Walking((output, element), step, self.values[i])
        return made

    def _source(self, i: int, j: int, at: int, move: int, run: Run) -> Source:
        value = self.operations[i].operands[j]
        if not move:
            return Same(value)
        if not self.places.inner[i, j]:
            return Walking(self.pieces.inputs[value], move, value)
        if move == run.period:
            return Computed((at - run.start) % run.period, max(0, -((at - run.start) // run.period)))
        stride = abs(move)
        return Moving(self.slot(at, stride), move // stride, value)


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

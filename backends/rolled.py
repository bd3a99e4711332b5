"""Runs of equal blocks (passes/repeats.py) as loops: what an operation of the body reads, and where its value goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..ir.graph import Node, Value
from ..passes.repeats import Place, Places, Run


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

    element: Place
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


class Rolled:
    """Runs as loops: which values lie in arrays.

    The values at places p, p + s, p + 2 s, ... of the program are one array if any loop reads them so: (s, p mod s) is
    its name, and all that are read or that a loop computes there have a slot in it, in their order. `slots`, `homes`
    and `width` are what `Pieces` calls so.
    """

    def __init__(self, operations: Sequence[Node], found: Sequence[Run], places: Places, inputs: Mapping[Value, Place],
                 sinks: Mapping[Value, Sequence[Place]]) -> None:
        self.operations, self.runs, self.places, self.inputs, self.sinks = operations, found, places, inputs, sinks
        self.slots: dict[Value, int] = {}
        self.homes: dict[Value, list[int]] = {}
        self.width = 0
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
            self.base[stride, rest] = self.width
            self.width += (end - first) // stride + 1
        for at, stride in alone:
            self._settle(at, stride)
        for at, run in self.single.items():
            if (run.period, at % run.period) in self.base:
                self._settle(at, run.period)
            else:
                self.last[run][at - run.end + run.period] = self.values[at]

    def _settle(self, at: int, stride: int) -> None:
        value, slot = self.values[at], self.slot(at, stride)
        homes = self.homes.setdefault(value, [])
        if slot not in homes:
            homes.append(slot)
        self.slots.setdefault(value, slot)

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
            for output, element in self.sinks.get(self.values[i], ()):
                step = int(self.places.at[i + run.period, -1]) - element
                made.written[row] = Walking((output, element), step, self.values[i])
        return made

    def _source(self, i: int, j: int, at: int, move: int, run: Run) -> Source:
        value = self.operations[i].operands[j]
        if not move:
            return Same(value)
        if not self.places.inner[i, j]:
            return Walking(self.inputs[value], move, value)
        if move == run.period:
            return Computed((at - run.start) % run.period, max(0, -((at - run.start) // run.period)))
        stride = abs(move)
        return Moving(self.slot(at, stride), move // stride, value)

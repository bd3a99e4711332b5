"""Checkpointing of a chain: which segments to run again and what to keep of each, by dynamic programming.

T(s, t, m) is the least forward flops that take segments s to t - 1 there and back in m bytes, the cotangents of the
exits of t - 1 among them; the entries of s are among them too, as long as they are needed, or are held outside. Either
segment s keeps something of its own (an option), and the rest follows before its backward part; or the chain is swept
to some k, what lies behind k is done, and the front is done again (Griewank and Walther 2000; with several options a
stage, Beaumont, Eyraud-Dubois and Shilova 2021, whose weights are extended here by the gradients, which stay once they
are made). Equal stretches are solved once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from .segments import Chain
from .stages import Option, Stage

Row = NDArray[numpy.float64]
STEPS = 4000
"""Memory is counted in so many units; in half as many where segments are more than MANY."""
MANY = 64
SWEEP = -1
"""In the place of units: the stretch runs forward alone."""


@dataclass(frozen=True)
class _Way:
    """An option of the first segment or the k of a split, the units of memory that it needs at least, the flops that it
    adds, and the rows of the stretches that it consists of, each with the units that they have less to use."""

    choice: Option | int
    least: int
    flops: int
    rows: tuple[tuple[Row, int], ...]

    def at(self, units: int) -> float:
        """Flops in so many units of memory."""
        if units < max(self.least, *(shift for _, shift in self.rows)):
            return math.inf
        return self.flops + sum(float(row[units - shift]) for row, shift in self.rows)


class Programme:
    """The table T of one chain. `unit` is the bytes of one step of memory."""

    def __init__(self, chain: Chain, most: int) -> None:
        self.chain = chain
        self.tasks = chain.tasks
        self.n = len(chain.segments)
        self.unit = max(1, -(-most // (STEPS if self.n <= MANY else STEPS // 2)))
        self.width = -(-most // self.unit) + 1
        self.stages = [Stage(chain, at) for at in range(self.n)]
        self.kinds = tuple(s.kind for s in chain.segments)
        options: dict[int, list[Option]] = {}
        again: dict[int, list[Option]] = {}
        for kind, stage in zip(self.kinds, self.stages, strict=True):
            if kind not in options:
                options[kind], again[kind] = stage.options(), stage.again()
        self.options, self.again = ([found[kind] for kind in self.kinds] for found in (options, again))
        self.crossing = [0] * (self.n + 1)
        for at, stage in enumerate(self.stages):
            self.crossing[at + 1] = sum(self.chain.bytes[b] for b in stage.cotangents[0])
        self.rows: dict[tuple[object, ...], Row] = {}
        for length in range(1, self.n + 1):
            for s in range(self.n - length + 1):
                held = s > 0 and any(option.exits for option in self.options[s - 1])
                for inside in (True, False)[:1 + held]:
                    key = self._key(s, s + length, inside)
                    if key not in self.rows:
                        self.rows[key] = self._solve(s, s + length, inside)

    @property
    def forward_flops(self) -> int:
        """Of all segments, once."""
        return sum(stage.flops for stage in self.stages)

    def _key(self, s: int, t: int, inside: bool) -> tuple[object, ...]:
        return (self.kinds[s:t], self.crossing[t], t == self.n, inside)

    def _units(self, size: int) -> int:
        return -(-size // self.unit)

    def row(self, s: int, t: int, inside: bool) -> Row:
        """T(s, t, .), by units of memory, the entries of s in it or not."""
        if s == t:
            row = numpy.full(self.width, numpy.inf)
            row[self._units(self.crossing[t]):] = 0.0
            return row
        return self.rows[self._key(s, t, inside)]

    def _gradients(self, s: int, t: int) -> int:
        return sum(stage.gradients for stage in self.stages[s:t])

    def _ways(self, s: int, t: int, inside: bool) -> Iterator[_Way]:
        """Each way to do s to t - 1: an option of s, or the k of a split."""
        stage, incoming, units = self.stages[s], self.crossing[t], self._units
        if s + 1 == t < self.n:
            rest = self.row(t, t, True)
            for option in self.again[s]:
                sizes = option.inside if inside else option.outside
                yield _Way(option, units(sizes.backward_peak), option.flops, ((rest, units(sizes.held)),))
        later = self._gradients(s + 1, t)
        for option in self.options[s]:
            sizes = option.inside if inside else option.outside
            least = units(max(incoming + sizes.forward_peak, later + sizes.backward_peak))
            rest = self.row(s + 1, t, not option.exits)
            yield _Way(option, least, stage.flops + option.flops, ((rest, units(sizes.held)),))
        gradients = [0] * (t + 1)
        for k in range(t - 1, s, -1):
            gradients[k] = gradients[k + 1] + self.stages[k].gradients
        entries = stage.entry_bytes if inside else 0
        swept, flops = 0, 0
        for k in range(s + 1, t):
            before = self.stages[k - 1]
            swept = max(swept, before.passing if k - 1 > s else before.alone)
            flops += before.flops
            behind, front = self.row(k, t, True), self.row(s, k, inside)
            yield _Way(k, units(incoming + entries + swept), flops,
                       ((behind, units(entries)), (front, units(gradients[k]))))

    def _solve(self, s: int, t: int, inside: bool) -> Row:
        best = numpy.full(self.width, numpy.inf)
        for way in self._ways(s, t, inside):
            least = max(way.least, *(shift for _, shift in way.rows))
            if least < self.width:
                parts = [row[least - shift:self.width - shift] for row, shift in way.rows]
                numpy.minimum(best[least:], sum(parts[1:], parts[0] + way.flops), out=best[least:])
        return best

    def cheapest(self, flops: int) -> list[int] | None:
        """The order of tasks in the least memory whose forward parts, run as often as it runs them, cost no more than
        `flops`; None if there is none."""
        affordable = numpy.flatnonzero(self.row(0, self.n, True) <= flops)
        return self.order(int(affordable[0])) if len(affordable) else None

    def order(self, units: int) -> list[int]:
        """The order of tasks that the table has for so many units of memory (beside what is shared)."""
        order: list[int] = []
        seen: set[int] = set()
        stack: list[tuple[int, int, bool, int | Option]] = [(0, self.n, True, units)]
        while stack:
            s, t, inside, what = stack.pop()
            if isinstance(what, Option):
                order.extend(self.stages[s].run(what))
            elif what < 0:
                for j in range(s, t):
                    order.extend(self.stages[j].forward_again if j in seen else self.chain.segments[j].forward)
                    seen.add(j)
            elif s < t:
                stack.extend(reversed(self._steps(s, t, inside, what)))
        return order

    def _steps(self, s: int, t: int, inside: bool, units: int) -> list[tuple[int, int, bool, int | Option]]:
        """What comes in turn: stretches with the units of memory for each, the entries in them or not; sweeps (SWEEP in
        their place); and options: the backward part of one segment."""
        choice = min(self._ways(s, t, inside), key=lambda way: way.at(units)).choice
        stage = self.stages[s]
        if not isinstance(choice, Option):
            entries = self._units(stage.entry_bytes if inside else 0)
            return [(s, choice, inside, SWEEP), (choice, t, True, units - entries),
                    (s, choice, inside, units - self._units(self._gradients(choice, t)))]
        if choice.again:
            return [(s, t, inside, choice)]
        held = (choice.inside if inside else choice.outside).held
        return [(s, s + 1, inside, SWEEP), (s + 1, t, not choice.exits, units - self._units(held)),
                (s, s + 1, inside, choice)]

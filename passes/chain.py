"""Checkpointing of a chain: which segments to run again and what to keep of each, by dynamic programming.

T(s, t, m) is the least forward flops that take segments s to t - 1 there and back in m bytes, with the entries of s
held outside and the cotangents of the exits of t - 1 inside. Either segment s keeps something of its own (an option),
and the rest follows before its backward part; or the chain is swept to some k, what lies behind k is done, and the
front is done again (Griewank and Walther 2000; with several options a stage, Beaumont, Eyraud-Dubois and Shilova 2021,
whose weights are extended here by the gradients, which stay once they are made). Equal stretches are solved once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
from numpy.typing import NDArray

from .recompute import on_demand
from .segments import Chain, Segment
from .tasks import Tasks

Row = NDArray[numpy.float64]
STEPS = 2000
"""Memory is counted in so many units."""
EVALUATIONS = 600
WORK = 60_000
"""So many sets of kept buffers are tried for each kind of segment, or as many as run so many tasks."""


@dataclass(frozen=True)
class Option:
    """What a segment keeps, as places in its list of buffers; bytes and flops of its two parts.

    `forward_peak` and `backward_peak` count what is kept and the exits where they are held, but not the entries.
    """

    kept: frozenset[int]
    bytes: int
    flops: int
    forward_peak: int
    backward_peak: int


class Stage:
    """A segment's numbers: its options, and what it costs to run it forward alone."""

    def __init__(self, chain: Chain, at: int) -> None:
        self.chain, self.at = chain, at
        self.tasks: Tasks = chain.tasks
        self.segment: Segment = chain.segments[at]
        self.buffers = [b for t in self.segment.forward for b in self.tasks.writes[t]]
        self.own = [b for b in self.buffers if b not in chain.shared and b not in self.segment.exits]
        self.inside = frozenset(self.own)
        self.place = {b: i for i, b in enumerate(self.buffers)}

    @cached_property
    def flops(self) -> int:
        """Of the forward part."""
        return sum(self.tasks.flops[t] for t in self.segment.forward)

    @cached_property
    def exit_bytes(self) -> int:
        """Of all exits."""
        return sum(self.chain.bytes[b] for b in self.segment.exits)

    @cached_property
    def read_exits(self) -> tuple[int, ...]:
        """Those exits that the backward part needs."""
        read = {b for t in self.segment.backward for b in self.tasks.reads[t]}
        return tuple(b for b in self.segment.exits if b in read)

    def held(self, followed: bool) -> int:
        """Bytes of exits that stay till the backward part: all of them where the rest of the chain follows."""
        return self.exit_bytes if followed else sum(self.chain.bytes[b] for b in self.read_exits)

    @cached_property
    def gradients(self) -> int:
        """Bytes that stay once the backward part is done."""
        return sum(self.chain.bytes[b] for t in self.segment.backward for b in self.tasks.writes[t]
                   if b in self.chain.sticky)

    @cached_property
    def alone(self) -> int:
        """Peak of the forward part when nothing is kept but the exits."""
        return _peak(self.chain, self.again, (), self.segment.exits)

    @cached_property
    def again(self) -> list[int]:
        """The forward part without what is there from the first time."""
        shared = self.chain.shared
        return [t for t in self.segment.forward if not all(b in shared for b in self.tasks.writes[t])]

    def backward(self, kept: Collection[int]) -> list[int]:
        """The backward part with what it computes again."""
        given_up = self.inside.difference(kept)
        return on_demand(self.tasks, self.segment.backward, lambda b: b not in given_up)

    def option(self, kept: Collection[int]) -> Option:
        """The numbers of keeping these of the segment's own buffers."""
        tasks, held = self.tasks, set(kept)
        size = sum(self.chain.bytes[b] for b in held)
        order = self.backward(held)
        flops = sum(tasks.flops[t] for t in order) - sum(tasks.flops[t] for t in self.segment.backward)
        forward = _peak(self.chain, self.again, (), {*held, *self.segment.exits})
        incoming, passing = self.cotangents
        start = [*held, *incoming, *self.read_exits]
        stay = self.chain.sticky | passing | self.outgoing
        return Option(frozenset(self.place[b] for b in held), size, flops, forward,
                      _peak(self.chain, order, start, stay))

    @cached_property
    def cotangents(self) -> tuple[list[int], frozenset[int]]:
        """Backward buffers that are there when the backward part begins, and those that earlier segments read too."""
        tasks, chain = self.tasks, self.chain
        incoming: list[int] = []
        passing = set()
        below = self.below
        for later in chain.segments[self.at + 1:]:
            for t in later.backward:
                for b in tasks.writes[t]:
                    if b in chain.sticky:
                        continue
                    readers = tasks.readers[b]
                    if any(r in below or r in self.mine for r in readers):
                        incoming.append(b)
                        if any(r in below for r in readers):
                            passing.add(b)
        return incoming, frozenset(passing)

    @cached_property
    def outgoing(self) -> frozenset[int]:
        """Buffers of the backward part that earlier segments read."""
        return frozenset(b for t in self.segment.backward for b in self.tasks.writes[t]
                         if any(r in self.below for r in self.tasks.readers[b]))

    @cached_property
    def below(self) -> frozenset[int]:
        return frozenset(t for s in self.chain.segments[:self.at] for t in s.backward)

    @cached_property
    def mine(self) -> frozenset[int]:
        return frozenset(self.segment.backward)

    def options(self) -> list[Option]:
        """A Pareto set of options, by flips of one buffer from the ends and from what is found on the way."""
        tried: dict[frozenset[int], Option] = {}
        queue: list[frozenset[int]] = []

        most = min(EVALUATIONS, WORK // (len(self.segment.forward) + len(self.segment.backward) + 1))

        def attempt(kept: frozenset[int]) -> None:
            if kept not in tried and len(tried) < max(most, 2):
                tried[kept] = self.option(kept)
                queue.append(kept)

        read = frozenset(b for t in self.segment.backward for b in self.tasks.reads[t] if b in self.inside)
        attempt(read)
        attempt(frozenset())
        while queue:
            best = {o.kept for o in _pareto(tried.values())}
            at = next((i for i, kept in enumerate(queue) if tried[kept].kept in best), None)
            if at is None:
                break
            kept = queue.pop(at)
            for b in self.own:
                attempt(kept ^ {b})
        return _pareto(tried.values())


def _pareto(options: Collection[Option]) -> list[Option]:
    """Those that no other beats in flops, bytes and backward peak at once."""
    found: list[Option] = []
    for o in sorted(options, key=lambda o: (o.flops, o.bytes, o.backward_peak, sorted(o.kept))):
        if not any(p.bytes <= o.bytes and p.backward_peak <= o.backward_peak and p.forward_peak <= o.forward_peak
                   for p in found):
            found.append(o)
    return found


def _peak(chain: Chain, order: Sequence[int], start: Collection[int], stay: Collection[int]) -> int:
    """Most bytes alive in a stretch: `start` are there before, `stay` there after, what else it reads is outside."""
    tasks, size = chain.tasks, chain.bytes
    last: dict[int, int] = {}
    for step, task in enumerate(order):
        for b in tasks.reads[task]:
            last[b] = step
    alive = sum(size[b] for b in start)
    there = set(start)
    peak = alive
    for step, task in enumerate(order):
        new = [b for b in tasks.writes[task] if b not in there]
        alive += sum(size[b] for b in new)
        there.update(new)
        dying = [b for b in tasks.reads[task] if b in there and last[b] == step and b not in stay]
        handed = set()
        for r, w, at in tasks.hands_over[task]:
            if r in dying and w in new and (w, at) not in handed:
                handed.add((w, at))
                dying.remove(r)
                there.remove(r)
                alive -= size[r]
        peak = max(peak, alive + tasks.workspace[task])
        for b in (*dying, *(b for b in new if b not in last and b not in stay)):
            alive -= size[b]
            there.remove(b)
    return peak


class Programme:
    """The table T of one chain. `unit` is the bytes of one step of memory."""

    def __init__(self, chain: Chain, most: int) -> None:
        self.chain = chain
        self.tasks = chain.tasks
        self.n = len(chain.segments)
        self.unit = max(1, -(-most // STEPS))
        self.width = -(-most // self.unit) + 1
        self.stages = [Stage(chain, at) for at in range(self.n)]
        kinds = [s.kind for s in chain.segments]
        known: dict[int, list[Option]] = {}
        self.options = [known.setdefault(k, stage.options()) if k not in known else known[k]
                        for k, stage in zip(kinds, self.stages, strict=True)]
        self.kinds = tuple(kinds)
        self.crossing = [0] * (self.n + 1)
        for at, stage in enumerate(self.stages):
            self.crossing[at + 1] = sum(self.chain.bytes[b] for b in stage.cotangents[0])
        self.rows: dict[tuple[object, ...], Row] = {}
        for length in range(1, self.n + 1):
            for s in range(self.n - length + 1):
                key = self._key(s, s + length)
                if key not in self.rows:
                    self.rows[key] = self._solve(s, s + length)

    @property
    def forward_flops(self) -> int:
        """Of all segments, once."""
        return sum(stage.flops for stage in self.stages)

    def _key(self, s: int, t: int) -> tuple[object, ...]:
        return (self.kinds[s:t], self.crossing[t], t == self.n)

    def _units(self, size: int) -> int:
        return -(-size // self.unit)

    def row(self, s: int, t: int) -> Row:
        """T(s, t, .), by units of memory."""
        if s == t:
            row = numpy.full(self.width, numpy.inf)
            row[self._units(self.crossing[t]):] = 0.0
            return row
        return self.rows[self._key(s, t)]

    def _gradients(self, s: int, t: int) -> int:
        return sum(stage.gradients for stage in self.stages[s:t])

    def _choices(self, s: int, t: int) -> Iterator[tuple[Option | int, Row]]:
        """Each way to do s to t - 1: an option of s, or the k of a split; and its flops by units of memory."""
        rest = self.row(s + 1, t)
        stage, incoming = self.stages[s], self.crossing[t]
        held = stage.held(s + 1 < t)
        later = self._gradients(s + 1, t)
        for option in self.options[s]:
            needed = max(incoming + option.forward_peak, later + option.backward_peak)
            yield option, self._shifted(rest, option.bytes + held, needed) + (stage.flops + option.flops)
        gradients = [0] * (t + 1)
        for k in range(t - 1, s, -1):
            gradients[k] = gradients[k + 1] + self.stages[k].gradients
        swept, flops = 0, 0
        for k in range(s + 1, t):
            before = self.stages[k - 1]
            swept = max(swept, before.alone + (self.stages[k - 2].exit_bytes if k - 1 > s else 0))
            flops += before.flops
            behind = self._shifted(self.row(k, t), before.exit_bytes, incoming + swept)
            yield k, behind + self._shifted(self.row(s, k), gradients[k], 0) + flops

    def _shifted(self, row: Row, taken: int, needed: int) -> Row:
        """The row with `taken` bytes less to use, and nothing below `needed` bytes."""
        shift, least = self._units(taken), self._units(needed)
        moved = numpy.full(self.width, numpy.inf)
        if shift < self.width:
            moved[shift:] = row[:self.width - shift]
        moved[:least] = numpy.inf
        return moved

    def _solve(self, s: int, t: int) -> Row:
        best = numpy.full(self.width, numpy.inf)
        for _, row in self._choices(s, t):
            numpy.minimum(best, row, out=best)
        return best

    def cheapest(self, flops: int) -> list[int] | None:
        """The order of tasks in the least memory whose forward parts, run as often as it runs them, cost no more than
        `flops`; None if there is none."""
        affordable = numpy.flatnonzero(self.row(0, self.n) <= flops)
        return self.order(int(affordable[0])) if len(affordable) else None

    def order(self, units: int) -> list[int]:
        """The order of tasks that the table has for so many units of memory (beside what is shared)."""
        order: list[int] = []
        seen: set[int] = set()
        stack: list[tuple[str, int, int, Collection[int], int]] = [("solve", 0, self.n, (), units)]
        while stack:
            what, s, t, kept, m = stack.pop()
            if what == "sweep":
                for j in range(s, t):
                    self._run(j, order, seen)
            elif what == "back":
                stage = self.stages[s]
                order.extend(stage.backward([stage.buffers[i] for i in kept]))
            elif s < t:
                stack.extend(reversed(self._steps(s, t, m)))
        return order

    def _run(self, j: int, order: list[int], seen: set[int]) -> None:
        order.extend(self.stages[j].again if j in seen else self.chain.segments[j].forward)
        seen.add(j)

    def _steps(self, s: int, t: int, m: int) -> list[tuple[str, int, int, Collection[int], int]]:
        choice, _ = min(self._choices(s, t), key=lambda c: float(c[1][m]))
        stage = self.stages[s]
        if isinstance(choice, Option):
            held = stage.held(s + 1 < t)
            left = m - self._units(choice.bytes + held)
            return [("sweep", s, s + 1, (), 0), ("solve", s + 1, t, (), left), ("back", s, s + 1, choice.kept, 0)]
        return [("sweep", s, choice, (), 0),
                ("solve", choice, t, (), m - self._units(self.stages[choice - 1].exit_bytes)),
                ("solve", s, choice, (), m - self._units(self._gradients(choice, t)))]

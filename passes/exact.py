"""Least peaks of small programs: a search over all states of a pebble game.

A state is the set of buffers that are alive; a move runs a task whose operands are there and gives buffers up (Sethi
1975; Hong and Kung 1981). What a path costs is the flops of its runs, so a schedule within budget and memory is a path
from nothing to all outputs, and A* (Hart, Nilsson and Raphael 1968) finds it or shows that there is none: what has to
run at least if nothing more were given up is a lower bound on the way that is left. Three things keep the states few.
Buffers are given up only where room is needed, and never more than that; what no run within the budget can read is
forgotten; and a state that is known at no greater cost is not looked at again. States are expanded many at a time, as
columns of arrays of truth values.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from .bounds import allowed_flops, lower_bound
from .contract import contract
from .donation import settled
from .liveness import lives
from .tasks import Tasks

Array = numpy.ndarray[Any, Any]
EFFORT = {"quick": 100_000, "default": 400_000, "proof": 8_000_000}
"""States that are made for one budget; some hundred thousand take a second."""
SHARE = 3
"""One question takes at most one in so many of them: a single hard one leaves something for the others."""
CLOSE = 0.001
"""What no question has decided is left open when so little, relatively, is to be gained."""
CHUNK = 512
"""So many states are expanded at a time."""


@dataclass(frozen=True)
class ExactPlan:
    """An order with repeats, its peak in bytes, and the bytes that no schedule within the budget stays below."""

    order: tuple[int, ...]
    peak: int
    bound: int

    @property
    def proven(self) -> bool:
        """No schedule within the budget has a lower peak."""
        return self.peak == self.bound


def exact(tasks: Tasks, budget: float, *, effort: str = "default", hint: Sequence[int] | None = None) -> ExactPlan:
    """The order of least peak whose repeats cost at most `budget` times the forward flops, or the best found.

    `hint` is an order within the budget; the result is never worse. The peak is bisected between that and a lower
    bound, and each question widens one side. The same plan every time.
    """
    order = tuple(hint) if hint is not None else tasks.order
    peak = lives(tasks, order).peak
    low = lower_bound(tasks, budget, "quick", enough=peak).bytes
    contracted = contract(tasks)
    game = _Game(contracted.tasks, allowed_flops(tasks, budget))
    left = EFFORT[effort]
    unknown: tuple[int, int] | None = None  # the least and the largest size that was asked for without an answer
    while left > 0 and peak > low:
        asked = _next(low, peak, unknown, game.unit)
        if asked is None:
            break
        answer = game.within(asked, min(left, EFFORT[effort] // SHARE))
        left -= answer.work
        if answer.path is None and not answer.complete:
            unknown = (asked, asked) if unknown is None else (min(asked, unknown[0]), max(asked, unknown[1]))
        elif answer.path is None:
            low = max(low, min(answer.next, peak))
        else:
            found = settled(tasks, contracted.expand(answer.path))
            reached = lives(tasks, found).peak if found is not None else peak
            if found is None or reached >= peak:
                break  # a donation does not allow that order
            order, peak = tuple(found), reached
    return ExactPlan(order, peak, min(low, peak))


def _next(low: int, peak: int, unknown: tuple[int, int] | None, unit: int) -> int | None:
    """The size to ask for next, between what is known to be too little and what is known to do, in units: in the
    wider gap where one in the middle could not be decided. None if the gaps are small."""
    first, last = low, peak - unit
    if unknown is not None:
        below, above = unknown[0] - low, peak - unknown[1]
        if max(below, above) <= max(CLOSE * peak, unit):
            return None
        first, last = (low, unknown[0] - unit) if below >= above else (unknown[1] + unit, peak - unit)
    return min(max(first, (first + last) // 2 // unit * unit), last) if first <= last else None


@dataclass(frozen=True)
class _Answer:
    """The tasks that run in so much memory, or None; whether all states were looked at; how many were made; and the
    least larger size in which some more can be reached."""

    path: tuple[int, ...] | None
    complete: bool
    work: int
    next: int


class _Game:
    """The moves of one program within a budget. Columns are states, rows buffers or tasks."""

    def __init__(self, tasks: Tasks, allowed: int) -> None:
        self.tasks = tasks
        self.unit = math.gcd(*tasks.bytes, *tasks.workspace) or 1
        self.size = numpy.array(tasks.bytes, dtype=numpy.int64)
        self.flops = numpy.array(tasks.flops, dtype=numpy.float64)
        self.output = numpy.array(tasks.output, dtype=bool)
        self.most = float(sum(tasks.flops) + min(allowed, 1 << 52))
        count, buffers = len(tasks.nodes), len(tasks.values)
        self.reads = numpy.zeros((buffers, count), numpy.float32)
        above = numpy.zeros((count, buffers), numpy.float32)
        for task in range(count):
            self.reads[list(tasks.reads[task]), task] = 1
            behind = numpy.asarray(above[:, list(tasks.reads[task])].any(axis=1))
            behind[task] = True
            above[behind, tasks.writes[task][0]:tasks.writes[task][-1] + 1] = 1
        self.above = above[:, self.output]
        """For each output the tasks that it depends on."""

    def within(self, limit: int, most: int) -> _Answer:
        """Is there a path in so many bytes? At most `most` states are made."""
        self.limit, self.next = limit, 1 << 62
        start = numpy.zeros((len(self.size), 1), bool)
        known = {_keys(start)[0]: 0}
        states, spent, came, ran = [start], [0.0], [-1], [-1]  # by number: a column, its flops, whence, by which task
        waiting: dict[float, list[int]] = {float(self._rest(start)[1][0]): [0]}
        queue = list(waiting)
        while queue:
            numbers = waiting[queue[0]]
            chunk, numbers[-CHUNK:] = numbers[-CHUNK:], []
            if not numbers:
                del waiting[heapq.heappop(queue)]
            columns = numpy.concatenate([states[n] for n in chunk], axis=1)
            old = [n for n, key in zip(chunk, _keys(columns), strict=True) if known[key] == n]
            if len(old) < len(chunk):
                columns = numpy.concatenate([states[n] for n in old], axis=1) if old else columns[:, :0]
            if not old:
                continue
            flops = numpy.array([spent[n] for n in old])
            for made, cost, way, origin, tasks in self._moves(columns, flops):
                for at, key in enumerate(_keys(made)):
                    number = known.get(key)
                    if number is not None and spent[number] <= cost[at]:
                        continue
                    known[key] = new = len(states)
                    states.append(made[:, at:at + 1])
                    spent.append(float(cost[at]))
                    came.append(old[origin[at]])
                    ran.append(int(tasks[at]))
                    if way[at] == cost[at]:
                        return _Answer(_path(new, came, ran), True, len(states), self.next)
                    if way[at] not in waiting:
                        heapq.heappush(queue, float(way[at]))
                    waiting.setdefault(float(way[at]), []).append(new)
            if len(states) > most:
                return _Answer(None, False, len(states), self.next)
        return _Answer(None, True, len(states), self.next)

    def _rest(self, states: Array) -> tuple[Array, Array]:
        """The tasks that have to run at least once more, as nothing else is there, and what they cost."""
        tasks = self.tasks
        needed = self.output[:, None] & ~states
        absent = ~states
        runs = numpy.zeros((len(self.flops), states.shape[1]), bool)
        for task in reversed(range(len(runs))):
            row = runs[task]
            for b in tasks.writes[task]:
                row |= needed[b]
            for b in tasks.reads[task]:
                needed[b] |= row & absent[b]
        return runs, self.flops @ runs

    def _worth_running(self, states: Array, runs: Array, slack: Array) -> Array:
        """Tasks of which some output depends that is not there yet, and that have to run or can be paid for."""
        missing = ~states[self.output]
        found: Array = (self.above @ missing.astype(numpy.float32) > 0) & (runs | (self.flops[:, None] <= slack))
        return found

    def _moves(self, states: Array, spent: Array) -> Iterator[tuple[Array, Array, Array, Array, Array]]:
        """What follows from some states: new states, their flops, the flops of the whole way at least, the columns that
        they come from, and the tasks that were run."""
        runs, rest = self._rest(states)
        useful = self._worth_running(states, runs, self.most - spent - rest)
        alive = self.size @ states
        made: list[Array] = []
        origins: list[Array] = []
        ran: list[Array] = []
        for task, (reads, writes) in enumerate(zip(self.tasks.reads, self.tasks.writes, strict=True)):
            there = states[list(writes)]
            again = (there & self.output[list(writes), None]).any(axis=0)
            able = numpy.flatnonzero(useful[task] & states[list(reads)].all(axis=0) & ~there.all(axis=0) & ~again)
            if not len(able):
                continue
            new = states[:, able]
            total = alive[able] + self.size[list(writes)] @ ~new[list(writes)] + self.tasks.workspace[task]
            new[list(writes)] = True
            column, dropped = self._drops(task, new, total - self.limit)
            if len(column):
                made.append(new[:, column] & ~dropped)
                origins.append(able[column])
                ran.append(numpy.full(len(column), task))
        if made:
            yield self._affordable(numpy.concatenate(made, axis=1), spent, numpy.concatenate(origins),
                                   numpy.concatenate(ran))

    def _affordable(self, states: Array, spent: Array, origin: Array,
                    ran: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Those from which the outputs can be reached within the budget, without what no run can read any more."""
        cost = spent[origin] + self.flops[ran]
        runs, rest = self._rest(states)
        kept = numpy.flatnonzero(cost + rest <= self.most)
        states, cost, way, origin, ran = states[:, kept], cost[kept], (cost + rest)[kept], origin[kept], ran[kept]
        useful = self._worth_running(states, runs[:, kept], self.most - way)
        states = states & ((self.reads @ useful.astype(numpy.float32) > 0) | self.output[:, None])
        return states, cost, way, origin, ran

    def _drops(self, task: int, states: Array, excess: Array) -> tuple[Array, Array]:
        """All ways to give up as much as a task needs and no more: columns, and what is given up from each.

        Operands whose memory a result takes come first, in the order in which `passes.liveness` pairs them; then what
        the task does not touch, the largest first, so that leaving out any of it would be too little.
        """
        tasks = self.tasks
        column = numpy.arange(states.shape[1])
        dropped = numpy.zeros((len(self.size), len(column)), bool)
        gained = numpy.zeros(len(column), numpy.int64)
        slots: dict[tuple[int, int], Array] = {}
        heirlooms = [(r, (w, at)) for r, w, at in tasks.hands_over[task] if not tasks.output[r] and tasks.bytes[r]]
        touched = {*tasks.reads[task], *tasks.writes[task]}
        others = [b for b in range(len(self.size)) if b not in touched and not tasks.output[b] and tasks.bytes[b]]
        others = [b for b in sorted(others, key=lambda b: (-tasks.bytes[b], b)) if states[b].any()]
        available = self.size[others, None] * states[others]
        behind = numpy.zeros((len(others) + 1, states.shape[1]), numpy.int64)
        behind[:-1] = available[::-1].cumsum(axis=0)[::-1]
        done: list[tuple[Array, Array]] = []
        for step, b in enumerate([*(r for r, _ in heirlooms), *others]):
            enough = gained >= excess[column]
            done.append((column[enough], dropped[:, enough]))
            column, dropped, gained = column[~enough], dropped[:, ~enough], gained[~enough]
            slots = {slot: taken[~enough] for slot, taken in slots.items()}
            if not len(column):
                break
            self._missed(excess[column] - gained)
            slot = heirlooms[step][1] if step < len(heirlooms) else None
            taken = slots.get(slot, numpy.zeros(len(column), bool)) if slot is not None else None
            free = states[b, column] & ~dropped[b]
            if taken is not None:
                free &= ~taken
            with_it = numpy.flatnonzero(free)
            if step < len(heirlooms):
                without = numpy.arange(len(column))
            else:
                possible = gained + behind[step - len(heirlooms) + 1, column]
                self._missed((excess[column] - possible)[possible < excess[column]])
                without = numpy.flatnonzero(possible >= excess[column])
            more = dropped[:, with_it]
            more[b] = True
            if taken is not None and slot is not None:
                slots.setdefault(slot, taken)
            slots = {s: numpy.concatenate([t[without], t[with_it] | (s == slot)]) for s, t in slots.items()}
            column = numpy.concatenate([column[without], column[with_it]])
            dropped = numpy.concatenate([dropped[:, without], more], axis=1)
            gained = numpy.concatenate([gained[without], gained[with_it] + tasks.bytes[b]])
        enough = gained >= excess[column]
        self._missed((excess[column] - gained)[~enough])
        done.append((column[enough], dropped[:, enough]))
        return numpy.concatenate([c for c, _ in done]), numpy.concatenate([d for _, d in done], axis=1)

    def _missed(self, excess: Array) -> None:
        """So many bytes more would allow another move."""
        if len(excess):
            self.next = min(self.next, self.limit + int(excess.min()))


def _keys(states: Array) -> list[bytes]:
    """A name for each column."""
    packed = numpy.ascontiguousarray(numpy.packbits(states, axis=0).T)
    width = packed.shape[1]
    text = packed.tobytes()
    return [text[at:at + width] for at in range(0, len(text), width)]


def _path(number: int, came: Sequence[int], ran: Sequence[int]) -> tuple[int, ...]:
    """The tasks on the way to a state."""
    found = []
    while came[number] >= 0:
        found.append(ran[number])
        number = came[number]
    return tuple(reversed(found))

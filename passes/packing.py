"""Packing: an offset for each unit of memory, such that none that live at the same time overlap.

The problem is dynamic storage allocation, NP-hard (Garey and Johnson 1979, SR2). First fit by decreasing size is at the
live peak on most programs. Where it is not and OR-tools is installed, its CP-SAT solver looks for a packing into the
live peak itself, and where that finds none, units that stick out are placed earlier and all is tried again.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left, insort
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy

FEW = 4000
"""Up to so many units are placed by first fit over all of them; more by the order of time, in n log n."""
WORK = 25_000
"""From each of its orders, first fit is tried again until so many units have been placed; a quarter of it goes to
outputs that lie lowest."""
SOLVABLE = 200
"""The solver is asked about so many units at the most, for so much of its deterministic time:"""
SOLVER_TIME = 2.0
SOLVER_CONFLICTS = 1000
"""And for so many conflicts, of some milliseconds each, which that clock counts at next to nothing here."""
CLOSE = 1.01
"""A packing within this factor of the live peak is good enough."""
PROMISED = 1.02
"""One that is not even within this factor is worth the long search."""
HARDLY_MORE = 1.005
"""What a packing with some units lowest may take, beside the best one."""


@dataclass(frozen=True)
class Part:
    """Bytes that are taken from one step to another, at an offset within a unit."""

    start: int
    end: int
    bytes: int
    offset: int = 0


Unit = Sequence[Part]
"""What is placed as one: a value with all those whose memory it takes over, or a workspace. The first part is whole."""


def pack(units: Sequence[Unit], alignment: int, goal: int, kept: Container[int] = (), quick: bool = False) -> list[int]:
    """An offset for each unit. `goal` is the live peak: a packing of that size is not improved on. The same for the
    same units every time. With `quick` it is what first fit finds at once.

    Units in `kept` lie lowest where that takes hardly more, so that the rest of the block can be given back behind
    them.
    """
    by_time = _in_time(units, alignment)
    if len(units) > FEW or size(units, by_time) == 0:
        return by_time
    search = _Search(units, alignment, goal)
    low = search.best([search.with_lowest(kept)], 0 if quick else WORK // 4)
    if size(units, low) <= goal * CLOSE:
        return low
    best = min(by_time, search.best(search.orders(), 0), key=lambda offsets: size(units, offsets))
    if quick:
        return best
    if size(units, best) > goal * CLOSE:
        best = min(best, _solved(units, alignment, int(goal * CLOSE)) or best, key=lambda offsets: size(units, offsets))
    if size(units, best) > goal * PROMISED:
        best = min(best, search.best(search.orders(), WORK), key=lambda offsets: size(units, offsets))
    return low if size(units, low) <= HARDLY_MORE * size(units, best) else best


def size(units: Sequence[Unit], offsets: Sequence[int]) -> int:
    """Bytes from 0 to the end of the highest unit."""
    return max((o + unit[0].bytes for o, unit in zip(offsets, units, strict=True)), default=0)


def _aligned(offset: int, size: int, alignment: int) -> int:
    """The next offset that suits a value of that size."""
    step = _step(size, alignment)
    return -(-offset // step) * step


def _step(size: int, alignment: int) -> int:
    """What the offset of a value of that size is a multiple of: elements are at most 8 bytes."""
    return alignment if size >= alignment else min(8, size & -size or 1)


class _Search:
    """First fit in several orders. From each on, a unit that sticks out of the goal is placed earlier, at random; what
    does not make it worse is gone on from, and now and then what does."""

    def __init__(self, units: Sequence[Unit], alignment: int, goal: int) -> None:
        self.units, self.goal = units, goal
        self.fit = _FirstFit(units, alignment)
        self.sizes = self.fit.sizes
        self.begin = [min(part.start for part in unit) for unit in units]
        ends = [max(part.end for part in unit) for unit in units]
        self.life = [last - first + 1 for first, last in zip(self.begin, ends, strict=True)]
        self.decreasing = sorted(range(len(units)), key=lambda u: (-self.sizes[u], self.begin[u], u))

    def with_lowest(self, kept: Container[int]) -> list[int]:
        """Some units first, all by decreasing size."""
        return [u for u in self.decreasing if u in kept] + [u for u in self.decreasing if u not in kept]

    def orders(self) -> list[list[int]]:
        """By decreasing size, and with the longest lives at the bottom."""
        sizes, life = self.sizes, self.life
        found = [self.decreasing, sorted(self.decreasing, key=lambda u: (-sizes[u], -life[u]))]
        for share in (20, 5):
            long = sorted(life, reverse=True)[len(life) // share]
            found.append(sorted((u for u in self.decreasing if life[u] >= long), key=lambda u: -life[u])
                         + [u for u in self.decreasing if life[u] < long])
        return found

    def best(self, orders: Sequence[list[int]], work: int) -> list[int]:
        """The best packing from these orders on: first fit is tried again from each until `work` units are placed."""
        best: tuple[int, list[int]] | None = None
        choice = random.Random(0)
        for order in orders:
            offsets = self.fit(order)
            excess = self._excess(offsets)
            for _ in range(work // len(self.units) + 1):
                found = size(self.units, offsets), offsets
                if best is None or found[0] < best[0]:
                    best = found
                if best[0] <= self.goal * CLOSE:
                    return best[1]
                sticking = [u for u in order if offsets[u] + self.sizes[u] > self.goal]
                moved = choice.choice(sticking)
                at = order.index(moved)
                changed = order[:at] + order[at + 1:]
                changed.insert(choice.randrange(max(at, 1)), moved)
                attempt = self.fit(changed)
                worth = self._excess(attempt)
                if worth <= excess or choice.random() < 0.03:
                    excess, order, offsets = worth, changed, attempt
        assert best is not None
        return best[1]

    def _excess(self, offsets: Sequence[int]) -> int:
        """By how much units stick out of the goal, summed."""
        return sum(max(0, offset + size - self.goal) for offset, size in zip(offsets, self.sizes, strict=True))


class _FirstFit:
    """First fit in any order of the units. For each unit, those that it meets in time, and the stretch that each of
    them closes to it, as offsets from where that one lies."""

    def __init__(self, units: Sequence[Unit], alignment: int) -> None:
        self.sizes = [unit[0].bytes for unit in units]
        self.steps = [_step(size, alignment) for size in self.sizes]
        owner = numpy.array([u for u, unit in enumerate(units) for _ in unit])
        start, end, offset, high = (numpy.array([number for unit in units for number in (
            [getattr(part, name) if name else part.offset + part.bytes for part in unit])], dtype=numpy.int64)
            for name in ("start", "end", "offset", ""))
        self.meets = []
        for u, unit in enumerate(units):
            others, low, above = [], [], []
            for part in unit:
                at = numpy.flatnonzero((start <= part.end) & (end >= part.start) & (owner != u))
                others.append(owner[at])
                low.append(offset[at] - (part.offset + part.bytes))
                above.append(high[at] - part.offset)
            self.meets.append((numpy.concatenate(others), numpy.concatenate(low), numpy.concatenate(above)))

    def __call__(self, order: Sequence[int], fixed: Mapping[int, int] | None = None) -> list[int]:
        """The offsets, by unit: each in turn at the lowest that is free during its whole life, or where it is fixed."""
        offsets = numpy.full(len(self.sizes), -1, dtype=numpy.int64)
        for u in order:
            if fixed is not None and u in fixed:
                offsets[u] = fixed[u]
                continue
            others, low, high = self.meets[u]
            placed = offsets[others]
            there = placed >= 0
            base = placed[there]
            begins = base + low[there]
            sort = begins.argsort(kind="stable")
            begins = begins[sort]
            free = numpy.maximum.accumulate(numpy.concatenate(([0], (base + high[there])[sort])))
            step = self.steps[u]
            free = -(-free // step) * step
            fits = numpy.flatnonzero(begins >= free[:-1])
            offsets[u] = free[fits[0]] if len(fits) else free[-1]
        return offsets.tolist()


def _solved(units: Sequence[Unit], alignment: int, goal: int) -> list[int] | None:
    """A packing into the goal as rectangles of time and memory, if the solver finds one. Units below the alignment are
    fitted in afterwards. None where there is none, it finds none, it is not installed, or the units are too many."""
    if len(units) > SOLVABLE or find_spec("ortools") is None:
        return None
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    large = [u for u, unit in enumerate(units) if unit[0].bytes >= alignment]
    lowest = {u: model.new_int_var(0, goal // alignment - units[u][0].bytes // alignment, "") for u in large}
    times, places = [], []
    for u in large:
        for part in _in_lines(units[u], alignment):
            low, high = part.offset // alignment, -(-(part.offset + part.bytes) // alignment)
            times.append(model.new_fixed_size_interval_var(part.start, part.end - part.start + 1, ""))
            places.append(model.new_interval_var(lowest[u] + low, high - low, lowest[u] + high, ""))
    model.add_no_overlap_2d(times, places)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = SOLVER_TIME
    solver.parameters.max_number_of_conflicts = SOLVER_CONFLICTS
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    fixed = {u: solver.value(low) * alignment for u, low in lowest.items()}
    rest = sorted((u for u in range(len(units)) if u not in fixed), key=lambda u: (-units[u][0].bytes, u))
    return _FirstFit(units, alignment)([*large, *rest], fixed)


def _in_lines(unit: Unit, alignment: int) -> Unit:
    """The unit's parts, or one for all of them where they meet within a line."""
    if all(part.offset % alignment == 0 and part.bytes % alignment == 0 for part in unit):
        return unit
    return [Part(min(part.start for part in unit), max(part.end for part in unit), unit[0].bytes)]


def _in_time(units: Sequence[Unit], alignment: int) -> list[int]:
    """An allocator run over time: best fit among the free blocks, which are joined when they meet. A unit is taken as a
    whole for as long as any part of it lives."""
    offsets = [0] * len(units)
    free: list[tuple[int, int]] = [(0, 1 << 62)]  # (offset, bytes), by offset
    ending: list[tuple[int, int]] = []
    begins = [min(part.start for part in unit) for unit in units]
    for u in sorted(range(len(units)), key=lambda u: (begins[u], -units[u][0].bytes, u)):
        whole = units[u][0].bytes
        if not whole:
            continue
        while ending and ending[0][0] < begins[u]:
            done = heapq.heappop(ending)[1]
            _release(free, offsets[done], units[done][0].bytes)
        found = min((block for block in free
                     if _aligned(block[0], whole, alignment) + whole <= block[0] + block[1]),
                    key=lambda block: (block[1], block[0]))
        at = bisect_left(free, found)
        offset = offsets[u] = _aligned(found[0], whole, alignment)
        after = offset + whole
        rest = [(found[0], offset - found[0]), (after, found[0] + found[1] - after)]
        free[at:at + 1] = [block for block in rest if block[1]]
        heapq.heappush(ending, (max(part.end for part in units[u]), u))
    return offsets


def _release(free: list[tuple[int, int]], offset: int, size: int) -> None:
    """Give a block back, joined with its neighbours."""
    insort(free, (offset, size))
    at = bisect_left(free, (offset, size))
    if at + 1 < len(free) and offset + size == free[at + 1][0]:
        free[at:at + 2] = [(offset, size + free[at + 1][1])]
    if at and sum(free[at - 1]) == free[at][0]:
        free[at - 1:at + 1] = [(free[at - 1][0], free[at - 1][1] + free[at][1])]

"""Packing: an offset for each unit of memory, such that none that live at the same time overlap.

The problem is dynamic storage allocation, NP-hard (Garey and Johnson 1979, SR2). First fit by decreasing size is at the
live peak on most programs. Where it is not, orders for first fit are searched: what decides is how the units lie that
live at the few moments at which memory is nearly full, so these alone are tried again and again. Where that does not
help either and OR-tools is installed, its CP-SAT solver looks for a packing.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Mapping, Sequence
from importlib.util import find_spec

from .first_fit import Exact, Part, Tight, Unit, step_of

FEW = 4000
"""Up to so many units are placed by first fit over all of them; more by the order of time, in n log n."""
WORK = 200_000
"""From the two orders that look best, a search tries first fit again until so many units have been placed; a twentieth
of it goes to each order before."""
LOWER = 0.97
"""A search aims at this fraction of the best height so far."""
SOLVABLE = 200
"""The solver is asked about so many units at the most, for so much of its deterministic time:"""
SOLVER_TIME = 2.0
SOLVER_CONFLICTS = 1000
"""And for so many conflicts, of some milliseconds each, which that clock counts at next to nothing here."""
SOLVER_CONFLICTS = 2000
"""And for so many conflicts, of some milliseconds each, which that clock counts at next to nothing here."""
CLOSE = 1.01
"""A packing within this factor of the live peak is good enough."""
HARDLY_MORE = 1.005
"""What a packing with some units lowest may take, beside the best one."""
WORSE = 0.03
"""How often a search goes on from what is worse."""


def pack(units: Sequence[Unit], alignment: int, goal: int, kept: Container[int] = (), quick: bool = False) -> list[int]:
    """An offset for each unit. `goal` is the live peak: a packing of that size is not improved on. The same for the
    same units every time. With `quick` it is what first fit finds at once.

    Units in `kept` lie lowest where that takes hardly more, so that the rest of the block can be given back behind
    them.
    """
    by_time = _in_time(units, alignment)
    if len(units) > FEW or size(units, by_time) == 0:
        return by_time
    exact = Exact(units, alignment)
    orders = _orders(units, kept)
    low = exact(orders[0])
    enough = int(goal * CLOSE)
    if size(units, low) <= enough:
        return low
    best = by_time
    for order in orders[1:]:
        best = min(best, exact(order), key=lambda offsets: size(units, offsets))
        if size(units, best) <= enough:
            break
    if not quick and size(units, best) > enough:
        for order in _searched(units, goal, orders):
            best = min(best, exact(order), key=lambda offsets: size(units, offsets))
        if size(units, best) > enough:
            best = min(best, _solved(units, exact, alignment, enough) or best, key=lambda offsets: size(units, offsets))
    return low if size(units, low) <= HARDLY_MORE * size(units, best) else best


def size(units: Sequence[Unit], offsets: Sequence[int]) -> int:
    """Bytes from 0 to the end of the highest unit."""
    return max((o + unit[0].bytes for o, unit in zip(offsets, units, strict=True)), default=0)


def _aligned(offset: int, size: int, alignment: int) -> int:
    """The next offset that suits a value of that size."""
    step = step_of(size, alignment)
    return -(-offset // step) * step


def _orders(units: Sequence[Unit], kept: Container[int]) -> list[list[int]]:
    """Orders to begin with: those kept first, all by size, the longest lives first among equals or at the bottom, and
    those kept last."""
    sizes = [unit[0].bytes for unit in units]
    begin = [min(part.start for part in unit) for unit in units]
    life = [_life(unit) for unit in units]
    decreasing = sorted(range(len(units)), key=lambda u: (-sizes[u], begin[u], u))
    found = [sorted(decreasing, key=lambda u: u not in kept), decreasing,
             sorted(decreasing, key=lambda u: (-sizes[u], -life[u]))]
    for share in (20, 5):
        long = sorted(life, reverse=True)[len(life) // share]
        found.append(sorted((u for u in decreasing if life[u] >= long), key=lambda u: -life[u])
                     + [u for u in decreasing if life[u] < long])
    return [*found, sorted(decreasing, key=lambda u: u in kept)]


def _life(unit: Unit) -> int:
    """Steps from its first to its last."""
    return max(part.end for part in unit) - min(part.start for part in unit) + 1


class _Search:
    """First fit in one order after another. A unit that sticks out is placed earlier, at random; what does not make it
    worse is gone on from, and now and then what does. Units stick out of a little less than the best height so far."""

    def __init__(self, tight: Tight, order: Sequence[int]) -> None:
        self.tight = tight
        self.choice = random.Random(0)
        self.order = [u for u in order if u in tight.parts]
        self.tops = tight(self.order)
        self.best = max(self.tops.values()), self.order

    def go_on(self, work: int) -> None:
        """Until so many units have been placed."""
        tight, choice = self.tight, self.choice
        for _ in range(work // len(self.order)):
            if self.best[0] <= tight.goal * CLOSE:
                break
            goal = max(tight.goal, int(self.best[0] * LOWER))
            moved = choice.choice([u for u in self.order if self.tops[u] > goal])
            at = self.order.index(moved)
            changed = self.order[:at] + self.order[at + 1:]
            changed.insert(choice.randrange(max(at, 1)), moved)
            tops = tight(changed)
            if _excess(tops, goal) <= _excess(self.tops, goal) or choice.random() < WORSE:
                self.order, self.tops = changed, tops
                self.best = min(self.best, (max(tops.values()), changed), key=lambda found: found[0])


def _excess(tops: Mapping[int, int], goal: int) -> int:
    """By how much units stick out of the goal, summed."""
    return sum(max(0, top - goal) for top in tops.values())


def _searched(units: Sequence[Unit], goal: int, orders: Sequence[list[int]]) -> Iterable[list[int]]:
    """Orders that pack lower what lives when memory is nearly full; behind it what takes most bytes for longest."""
    tight = Tight(units, goal)
    at_ease = sorted((u for u in orders[0] if u not in tight.parts), key=lambda u: -units[u][0].bytes * _life(units[u]))
    searches = [_Search(tight, order) for order in orders]
    for work, several in ((WORK // 20, len(searches)), (WORK, 2)):
        for search in searches[:several]:
            search.go_on(work)
        searches.sort(key=lambda search: search.best[0])
    return [search.best[1] + at_ease for search in searches]


def _solved(units: Sequence[Unit], exact: Exact, alignment: int, goal: int) -> list[int] | None:
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
    solver.parameters.max_number_of_conflicts = SOLVER_CONFLICTS
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    fixed = {u: solver.value(low) * alignment for u, low in lowest.items()}
    rest = sorted((u for u in range(len(units)) if u not in fixed), key=lambda u: (-units[u][0].bytes, u))
    return exact([*large, *rest], fixed)


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

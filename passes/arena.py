"""One arena: an offset for each value, such that no two that are alive together overlap.

The problem is dynamic storage allocation, NP-hard (Garey and Johnson 1979, SR2). First fit by decreasing size is near
the optimum on programs (Gergov 1999 proves a factor 3 for a relative of it); where it is not at the live peak, the
units that stick out are placed earlier and all is tried again, and single units are moved in the order.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left, insort
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy

from ..ir.graph import Graph, Node, Value
from ..ir.target import Target
from .liveness import Lives, lives
from .tasks import Tasks, tasks

FEW = 4000
"""Up to so many units are placed by first fit over all of them; more by the order of time, in n log n."""
TRIES = 30
MOVES, UNITS_MOVED = 300, 15_000
"""Most moves that are tried, and most units that are placed anew in them: some tenths of a second."""
HARDLY_MORE = 1.005
"""What a placement with the outputs lowest may take, beside the best one."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Offsets in bytes into one arena of `size` bytes, of each value that owns memory and of each node's workspace.

    `heirs`: the value that takes over a value's memory as it dies; it is written over it. `live_peak` is the most bytes
    alive at once, which `size` can't go below.
    """

    size: int
    live_peak: int
    offsets: Mapping[Value, int]
    workspace: Mapping[Node, int]
    heirs: Mapping[Value, Value]


@dataclass(frozen=True)
class Part:
    """Bytes that are taken from one step to another, at an offset within a unit."""

    start: int
    end: int
    bytes: int
    offset: int = 0


Unit = Sequence[Part]
"""What is placed as one: a value with all those whose memory it takes over, or a workspace. The first part is whole."""


def place(graph: Graph, target: Target) -> Placement:
    """The arena of a program as it is scheduled. The same for the same program, whatever the hash seed."""
    seen = tasks(graph, target)
    alive = lives(seen, seen.order)
    units, home, workspaces = _units(seen, alive)
    kept = {unit for copy, (unit, _) in enumerate(home) if seen.output[alive.buffer[copy]]}
    offsets = pack(units, target.alignment, alive.peak, kept)
    value = [seen.values[b] for b in alive.buffer]
    return Placement(
        _size(units, offsets), alive.peak,
        {value[copy]: offsets[unit] + at for copy, (unit, at) in enumerate(home)},
        {seen.nodes[task]: offsets[unit] for task, unit in workspaces.items()},
        {value[copy]: value[heir] for copy, heir in enumerate(alive.heir) if heir >= 0})


def _units(seen: Tasks, alive: Lives) -> tuple[list[list[Part]], list[tuple[int, int]], dict[int, int]]:
    """The units, the unit and the offset in it of each copy, and the unit of each task's workspace."""
    home: list[tuple[int, int]] = [(0, 0)] * len(alive.buffer)
    units: list[list[Part]] = []
    for copy in range(len(alive.buffer) - 1, -1, -1):  # an heir comes after those whose memory it takes
        start, end, size = alive.start[copy], alive.end[copy], seen.bytes[alive.buffer[copy]]
        heir = alive.heir[copy]
        if heir < 0:
            home[copy] = (len(units), 0)
            units.append([Part(start, end, size)])
            continue
        unit, at = home[heir]
        at += alive.offset[copy]
        home[copy] = (unit, at)
        for i, part in enumerate(units[unit]):
            if (part.offset, part.bytes, part.start) == (at, size, end):
                units[unit][i] = Part(start, part.end, size, at)
                break
        else:
            units[unit].append(Part(start, end - 1, min(size, units[unit][0].bytes - at), at))
    workspaces = {}
    for step, task in enumerate(alive.order):
        if seen.workspace[task]:
            workspaces[task] = len(units)
            units.append([Part(step, step, seen.target.padded(seen.workspace[task]))])
    return units, home, workspaces


def pack(units: Sequence[Unit], alignment: int, goal: int, kept: Container[int] = ()) -> list[int]:
    """An offset for each unit. `goal` is the live peak: a placement of that size is not improved on.

    Units in `kept` lie lowest where that takes hardly more, so that the rest of the block can be given back behind
    them.
    """
    by_time = _in_time(units, alignment)
    if len(units) > FEW:
        return by_time
    decreasing = sorted(range(len(units)), key=lambda u: (-units[u][0].bytes, units[u][0].start, u))
    first, rest = [u for u in decreasing if u in kept], [u for u in decreasing if u not in kept]
    low = _tried(units, first, rest, alignment, goal)
    size = _size(units, low)
    if size <= goal:
        return low
    others = by_time, _moved(units, decreasing, alignment, goal), _tried(units, [], decreasing, alignment, goal)
    best = min(others, key=lambda offsets: _size(units, offsets))
    return low if size <= HARDLY_MORE * _size(units, best) else best


def _tried(units: Sequence[Unit], first: list[int], order: list[int], alignment: int, goal: int) -> list[int]:
    """The best of some first fits: those of `first` always before, the others in `order`, what stuck out earlier."""
    best: list[int] = []
    for _ in range(TRIES):
        offsets = _first_fit(units, first + order, alignment)
        if not best or _size(units, offsets) < _size(units, best):
            best = offsets
        sticking = {u for u in order if offsets[u] + units[u][0].bytes > goal}
        if not sticking:
            break
        order = [u for u in order if u in sticking] + [u for u in order if u not in sticking]
    return best


def _moved(units: Sequence[Unit], order: list[int], alignment: int, goal: int) -> list[int]:
    """First fit, improved by moving one unit in the order to another place, by chance, as long as nothing is lost."""
    chance = random.Random(0)
    best = _first_fit(units, order, alignment)
    size = _size(units, best)
    for _ in range(min(MOVES, UNITS_MOVED // len(units))):
        if size <= goal:
            break
        other = list(order)
        other.insert(chance.randrange(len(order)), other.pop(chance.randrange(len(order))))
        offsets = _first_fit(units, other, alignment)
        if (found := _size(units, offsets)) <= size:
            order, best, size = other, offsets, found
    return best


def _size(units: Sequence[Unit], offsets: Sequence[int]) -> int:
    return max((o + unit[0].bytes for o, unit in zip(offsets, units, strict=True)), default=0)


def _aligned(offset: int, size: int, alignment: int) -> int:
    """The next offset that suits a value of that size: elements are at most 8 bytes."""
    step = alignment if size >= alignment else min(8, size & -size or 1)
    return -(-offset // step) * step


def _first_fit(units: Sequence[Unit], order: Sequence[int], alignment: int) -> list[int]:
    """Each unit in turn at the lowest offset that is free during its whole life."""
    offsets = [0] * len(units)
    count = sum(map(len, units))
    start, end, low, high = (numpy.zeros(count, dtype=numpy.int64) for _ in range(4))
    placed = 0
    for u in order:
        size = units[u][0].bytes
        taken: list[tuple[int, int]] = []  # stretches in which the unit cannot begin
        for part in units[u]:
            meets = numpy.flatnonzero((start[:placed] <= part.end) & (end[:placed] >= part.start))
            taken += zip((low[meets] - (part.offset + part.bytes)).tolist(), (high[meets] - part.offset).tolist(),
                         strict=True)
        offset = 0
        for below, above in sorted(taken):
            if below >= offset:
                break
            if above > offset:
                offset = _aligned(above, size, alignment)
        offsets[u] = offset
        for part in units[u]:
            start[placed], end[placed] = part.start, part.end
            low[placed] = offset + part.offset
            high[placed] = low[placed] + part.bytes
            placed += 1
    return offsets


def _in_time(units: Sequence[Unit], alignment: int) -> list[int]:
    """An allocator run over time: best fit among the free blocks, which are joined when they meet. A unit is taken as a
    whole for as long as any part of it lives."""
    offsets = [0] * len(units)
    free: list[tuple[int, int]] = [(0, 1 << 62)]  # (offset, bytes), by offset
    ending: list[tuple[int, int]] = []
    begins = [min(part.start for part in unit) for unit in units]
    for u in sorted(range(len(units)), key=lambda u: (begins[u], -units[u][0].bytes, u)):
        size = units[u][0].bytes
        if not size:
            continue
        while ending and ending[0][0] < begins[u]:
            done = heapq.heappop(ending)[1]
            _release(free, offsets[done], units[done][0].bytes)
        found = min((block for block in free
                     if _aligned(block[0], size, alignment) + size <= block[0] + block[1]),
                    key=lambda block: (block[1], block[0]))
        at = bisect_left(free, found)
        offset = offsets[u] = _aligned(found[0], size, alignment)
        after = offset + size
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

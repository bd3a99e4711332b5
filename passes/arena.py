"""One arena: an offset for each value, such that no two that are alive together overlap.

The problem is dynamic storage allocation, NP-hard (Garey and Johnson 1979, SR2). First fit by decreasing size is near
the optimum on programs (Gergov 1999 proves a factor 3 for a relative of it); where it is not at the live peak, the
units that stick out are placed earlier and all is tried again.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass

import numpy

from ..ir.graph import Graph, Node, Value
from ..ir.target import Target
from .liveness import Lives, lives
from .tasks import Tasks, tasks

FEW = 4000
"""Up to so many units are placed by first fit over all of them; more by the order of time, in n log n."""
TRIES = 30


@dataclass(frozen=True, eq=False)
class Placement:
    """Offsets in bytes into one arena of `size` bytes, of each value that owns memory and of each node's workspace.

    `over`: the result is written over that operand's value, at the same offset. `live_peak` is the most bytes alive at
    once, which `size` can't go below.
    """

    size: int
    live_peak: int
    offsets: Mapping[Value, int]
    workspace: Mapping[Node, int]
    over: Mapping[Value, Value]


@dataclass(frozen=True)
class Unit:
    """Bytes that are taken from one step to another: a chain of values in one place, or a workspace."""

    start: int
    end: int
    bytes: int


def place(graph: Graph, target: Target) -> Placement:
    """The arena of a program as it is scheduled. The same for the same program, whatever the hash seed."""
    seen = tasks(graph, target)
    alive = lives(seen, seen.order)
    units, unit_of, workspaces = _units(seen, alive)
    offsets = pack(units, target.alignment, alive.peak)
    value = [seen.values[b] for b in alive.buffer]
    return Placement(
        max((o + u.bytes for o, u in zip(offsets, units, strict=True)), default=0), alive.peak,
        {value[copy]: offsets[unit] for copy, unit in enumerate(unit_of)},
        {seen.nodes[task]: offsets[unit] for task, unit in workspaces.items()},
        {value[copy]: value[below] for copy, below in enumerate(alive.over) if below >= 0})


def _units(seen: Tasks, alive: Lives) -> tuple[list[Unit], list[int], dict[int, int]]:
    """The units, the unit of each copy, and the unit of each task's workspace."""
    unit_of: list[int] = []
    spans: list[list[int]] = []
    for copy, below in enumerate(alive.over):
        if below >= 0:
            unit = unit_of[below]
            spans[unit][1] = alive.end[copy]
        else:
            unit = len(spans)
            spans.append([alive.start[copy], alive.end[copy], seen.bytes[alive.buffer[copy]]])
        unit_of.append(unit)
    workspaces = {}
    for step, task in enumerate(alive.order):
        if seen.workspace[task]:
            workspaces[task] = len(spans)
            spans.append([step, step, seen.target.padded(seen.workspace[task])])
    return [Unit(*span) for span in spans], unit_of, workspaces


def pack(units: list[Unit], alignment: int, goal: int) -> list[int]:
    """An offset for each unit. `goal` is the live peak: a placement of that size is not improved on."""
    by_time = _in_time(units, alignment)
    best, size = by_time, _size(units, by_time)
    if len(units) > FEW or size <= goal:
        return best
    order = sorted(range(len(units)), key=lambda u: (-units[u].bytes, units[u].start, u))
    for _ in range(TRIES):
        offsets = _first_fit(units, order, alignment)
        tops = [offsets[u] + units[u].bytes for u in range(len(units))]
        if max(tops) < size:
            best, size = offsets, max(tops)
        if size <= goal:
            break
        sticking = {u for u, top in enumerate(tops) if top > goal}
        order = [u for u in order if u in sticking] + [u for u in order if u not in sticking]
    return best


def _size(units: list[Unit], offsets: list[int]) -> int:
    return max((o + u.bytes for o, u in zip(offsets, units, strict=True)), default=0)


def _aligned(offset: int, size: int, alignment: int) -> int:
    """The next offset that suits a value of that size: elements are at most 8 bytes."""
    step = alignment if size >= alignment else min(8, size & -size or 1)
    return -(-offset // step) * step


def _first_fit(units: list[Unit], order: list[int], alignment: int) -> list[int]:
    """Each unit in turn at the lowest offset that is free during its whole life."""
    offsets = [0] * len(units)
    start = numpy.array([units[u].start for u in order])
    end = numpy.array([units[u].end for u in order])
    low = numpy.zeros(len(order), dtype=numpy.int64)
    high = numpy.zeros(len(order), dtype=numpy.int64)
    for at, u in enumerate(order):
        unit = units[u]
        if not unit.bytes:
            continue
        meets = numpy.flatnonzero((start[:at] <= unit.end) & (end[:at] >= unit.start))
        meets = meets[numpy.argsort(low[meets], kind="stable")]
        offset = 0
        for below, above in zip(low[meets].tolist(), high[meets].tolist(), strict=True):
            if offset + unit.bytes <= below:
                break
            if above > offset:
                offset = _aligned(above, unit.bytes, alignment)
        offsets[u] = offset
        low[at], high[at] = offset, offset + unit.bytes
    return offsets


def _in_time(units: list[Unit], alignment: int) -> list[int]:
    """An allocator run over time: best fit among the free blocks, which are joined when they meet."""
    offsets = [0] * len(units)
    free: list[tuple[int, int]] = [(0, 1 << 62)]  # (offset, bytes), by offset
    ending: list[tuple[int, int]] = []
    for u in sorted(range(len(units)), key=lambda u: (units[u].start, -units[u].bytes, u)):
        unit = units[u]
        if not unit.bytes:
            continue
        while ending and ending[0][0] < unit.start:
            _release(free, offsets[ending[0][1]], units[ending[0][1]].bytes)
            heapq.heappop(ending)
        found = min((block for block in free
                     if _aligned(block[0], unit.bytes, alignment) + unit.bytes <= block[0] + block[1]),
                    key=lambda block: (block[1], block[0]))
        at = bisect_left(free, found)
        offset = offsets[u] = _aligned(found[0], unit.bytes, alignment)
        after = offset + unit.bytes
        rest = [(found[0], offset - found[0]), (after, found[0] + found[1] - after)]
        free[at:at + 1] = [block for block in rest if block[1]]
        heapq.heappush(ending, (unit.end, u))
    return offsets


def _release(free: list[tuple[int, int]], offset: int, size: int) -> None:
    """Give a block back, joined with its neighbours."""
    insort(free, (offset, size))
    at = bisect_left(free, (offset, size))
    if at + 1 < len(free) and offset + size == free[at + 1][0]:
        free[at:at + 2] = [(offset, size + free[at + 1][1])]
    if at and sum(free[at - 1]) == free[at][0]:
        free[at - 1:at + 1] = [(free[at - 1][0], free[at - 1][1] + free[at][1])]

"""First fit: units in some order, each at the lowest offset that is free for as long as it lives.

`Exact` takes all units, to the byte. `Tight` takes those alone that live when memory is nearly as full as it gets, in
granules, and their free places are bits of whole numbers: some hundred orders a second, for a search among orders.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Part:
    """Bytes that are taken from one step to another, at an offset within a unit."""

    start: int
    end: int
    bytes: int
    offset: int = 0


Unit = Sequence[Part]
"""What is placed as one: a value with all those whose memory it takes over, or a workspace. The first part is whole."""

FULL = 0.9
"""Memory is nearly full where so much of the live peak is alive."""
GRANULES = 512
"""The live peak is at least so many granules."""


def step_of(size: int, alignment: int) -> int:
    """What the offset of a value of that size is a multiple of: elements are at most 8 bytes."""
    return alignment if size >= alignment else min(8, size & -size or 1)


class Exact:
    """First fit of all units. For each, those that it meets in time, and the stretch that each of them closes to it, as
    offsets from where that one lies."""

    def __init__(self, units: Sequence[Unit], alignment: int) -> None:
        self.sizes = [unit[0].bytes for unit in units]
        self.steps = [step_of(size, alignment) for size in self.sizes]
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


class Tight:
    """First fit of the units that live at a step at which memory is nearly full. `parts` has where each of their parts
    begins and ends: among moments, and in granules."""

    def __init__(self, units: Sequence[Unit], goal: int) -> None:
        parts = [(u, part) for u in _tight(units, goal) for part in units[u] if part.bytes]
        moments = _moments([part for _, part in parts])
        granule = 1 << max(0, (goal // GRANULES).bit_length() - 1)
        self.goal = -(-goal // granule)
        self.count = len(moments)
        self.ceiling = (1 << 2 * self.goal) - 1
        self.parts: dict[int, list[tuple[int, int, int, int]]] = {}
        self.sizes: dict[int, int] = {}
        for u, part in parts:
            first, last = bisect_left(moments, part.start), bisect_right(moments, part.end)
            low, high = part.offset // granule, -(-(part.offset + part.bytes) // granule)
            self.parts.setdefault(u, []).append((first, last, low, high))
            self.sizes[u] = -(-units[u][0].bytes // granule)

    def __call__(self, order: Sequence[int]) -> dict[int, int]:
        """Where each unit of the order ends, in granules, as first fit has it."""
        taken = [0] * self.count
        tops = {}
        for u in order:
            places = self.ceiling
            for first, last, low, high in self.parts[u]:
                busy = 0
                for occupied in taken[first:last]:
                    busy |= occupied
                places &= _runs(~busy & self.ceiling, high - low) >> low
            at = (places & -places).bit_length() - 1 if places else 2 * self.goal
            tops[u] = at + self.sizes[u]
            if places:
                for first, last, low, high in self.parts[u]:
                    mask = ((1 << high - low) - 1) << at + low
                    for moment in range(first, last):
                        taken[moment] |= mask
        return tops


def _runs(free: int, length: int) -> int:
    """The bits at which a run of so many bits that are set begins."""
    have = 1
    while have < length:
        more = min(have, length - have)
        free &= free >> more
        have += more
    return free


def _tight(units: Sequence[Unit], goal: int) -> list[int]:
    """The units that live at a step at which memory is nearly full."""
    steps = 1 + max((part.end for unit in units for part in unit), default=0)
    change = numpy.zeros(steps + 1, dtype=numpy.int64)
    for unit in units:
        for part in unit:
            change[part.start] += part.bytes
            change[part.end + 1] -= part.bytes
    full = numpy.flatnonzero(change.cumsum() >= FULL * goal).tolist()
    return [u for u, unit in enumerate(units)
            if any(bisect_left(full, part.start) < bisect_right(full, part.end) for part in unit)]


def _moments(parts: Sequence[Part]) -> list[int]:
    """Steps at which all meet that meet at any step: at which something has begun since the last, and something ends
    (the maximal cliques of an interval graph; Fulkerson and Gross 1965, section 7)."""
    begins, ends = {part.start for part in parts}, {part.end for part in parts}
    moments, begun = [], False
    for step in sorted(begins | ends):
        begun = begun or step in begins
        if begun and step in ends:
            moments.append(step)
            begun = False
    return moments

"""Repeats: loops that were unrolled, found again in the order of a program of scalars.

A run is `count` blocks of `period` operations each, laid end to end, which differ in nothing but the places that they
read and write: each place stays, or moves by as many operations (or elements of an input or output) from every block to
the next one. So blocks are equal by structure, whoever wrote them out: a loop in the text, its adjoint, or a person.
Windows of operations that recur say which periods are worth a look (Karp, Miller and Rosenberg, "Rapid identification
of repeated patterns", 1972); all is vectorised, and linear in the program for each period.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from ..ir.graph import Constant, Node, Value

FEWEST, LONGEST = 4, 2_000
"""Blocks of a run, operations of a block."""

WINDOW, PERIODS = 8, 12
"""Operations of a window, periods that are tried."""

DEEPEST = 3
"""Blocks that a value is carried along in registers."""

Place = tuple[int, int]
"""An input or output by its position, and an element of it."""

Integers = numpy.ndarray[Any, numpy.dtype[numpy.int64]]


@dataclass(frozen=True)
class Run:
    """Operations from `start` on: `count` blocks of `period` operations."""

    start: int
    period: int
    count: int

    @property
    def end(self) -> int:
        """The first operation after it."""
        return self.start + self.period * self.count


class Places:
    """What each operation reads and writes, as numbers: a row for each, its operands, then the output that it goes to.

    `at` is the number of the operation that made an operand, or of an element; `inner` where it is the former; `kind`
    is equal where operations, constants, inputs and outputs are.
    """

    def __init__(self, nodes: Sequence[Node], inputs: Mapping[Value, Place],
                 sinks: Mapping[Value, Sequence[Place]]) -> None:
        self.position = {node.results[0]: i for i, node in enumerate(nodes)}
        width = max((len(node.operands) for node in nodes), default=0) + 1
        at, inner, found = [0] * (len(nodes) * width), bytearray(len(nodes) * width), []
        kinds: dict[Any, int] = {}
        for i, node in enumerate(nodes):
            value = node.results[0]
            key: list[Any] = [node.op.name, value.type.dtype, *node.attributes.items()]
            for j, v in enumerate(node.operands, i * width):
                made = self.position.get(v)
                if made is not None:
                    at[j], inner[j] = made, 1
                elif isinstance(v, Constant):
                    key.append((j - i * width, v.type.dtype, v.bits))
                else:
                    number, at[j] = inputs[v]
                    key.append((j - i * width, number))
            written = sinks.get(value)
            if written:
                key.append(("to", written[0][0], i if len(written) > 1 else 0))
                at[(i + 1) * width - 1] = written[0][1]
            found.append(kinds.setdefault(tuple(key), len(kinds)))
        self.kind = numpy.array(found, numpy.int64)
        self.at = numpy.array(at, numpy.int64).reshape(-1, width)
        self.inner = numpy.array(inner, bool).reshape(-1, width)[:, :-1]


def runs(places: Places, least: int) -> list[Run]:
    """The runs, in order, that save at least so many operations each when they are written as loops.

    What a run reads of operations before it, at places that move, was made by operations that are in no run, or in one
    whose blocks are as long as the move.
    """
    found: list[Run] = []
    taken: list[Run] = []
    for period in _periods(places.kind):
        found += [run for run in _of(places, period) if _saved(run) >= least]
    for run in sorted(found, key=lambda run: (-_saved(run), run.start)):
        rest = _beside(run, taken)
        if rest is not None and _saved(rest) >= least:
            taken.append(rest)
    owner = numpy.zeros(len(places.kind), numpy.int64)
    valid = []
    for run in sorted(taken, key=lambda run: run.start):
        legal = _legal(places, run, owner)
        if legal is not None and _saved(legal) >= least:
            owner[legal.start:legal.end] = legal.period
            valid.append(legal)
    return valid


def _saved(run: Run) -> int:
    return run.period * (run.count - 1) if run.count >= FEWEST else 0


def _periods(kind: Integers) -> list[int]:
    """The most frequent distances of equal windows."""
    if len(kind) < 2 * WINDOW:
        return []
    with numpy.errstate(over="ignore"):
        windows = numpy.zeros(len(kind) - WINDOW + 1, numpy.uint64)
        for i in range(WINDOW):
            windows = windows * numpy.uint64(0x9E3779B97F4A7C15) + kind[i:i + len(windows)].astype(numpy.uint64)
    order = numpy.argsort(windows, kind="stable")
    distance = numpy.diff(order)[windows[order[1:]] == windows[order[:-1]]]
    often = numpy.bincount(distance[distance <= LONGEST], minlength=1)
    return [int(p) for p in numpy.argsort(-often, kind="stable")[:PERIODS] if often[p]]


def _of(places: Places, period: int) -> list[Run]:
    """The longest runs of that period: where three blocks in a row move alike."""
    kind, at = places.kind, places.at
    if len(kind) < FEWEST * period:
        return []
    equal = kind[period:] == kind[:-period]
    moved = at[period:] - at[:-period]
    alike = equal[period:] & equal[:-period] & (moved[period:] == moved[:-period]).all(axis=1)
    edges = numpy.flatnonzero(numpy.diff(numpy.concatenate([[False], alike, [False]]).astype(numpy.int8)))
    return [Run(int(a), period, int(b - a) // period + 2) for a, b in edges.reshape(-1, 2)]


def _beside(run: Run, taken: Sequence[Run]) -> Run | None:
    """What is left of a run outside of others."""
    start, end = run.start, run.end
    for other in taken:
        if other.start < end and start < other.end:
            if other.start <= start:
                start = other.end
            elif other.end >= end:
                end = other.start
            else:
                return None
    return Run(start, run.period, (end - start) // run.period) if end > start else None


def _legal(places: Places, run: Run, owner: Integers) -> Run | None:
    """The run, begun so many blocks later that whatever stays or moves back in the program was made before it; None
    where it reads what a loop cannot reach."""
    period = run.period
    for _ in range(2):
        rows = slice(run.start, run.start + period)
        inner = places.inner[rows]
        at = places.at[rows, :-1]
        move = places.at[run.start + period:run.start + 2 * period, :-1] - at
        outside = inner & (move != period)
        late = outside & (at >= run.start)
        if not late.any():
            break
        if (move[late] >= period).any():
            return None
        later = int(((at[late] - run.start) // (period - move[late])).max()) + 1
        run = Run(run.start + later * period, period, run.count - later)
        if run.count < FEWEST:
            return None
    else:
        return None
    carried = inner & (move == period)
    if (at[carried] < run.start - DEEPEST * period).any():
        return None
    for first, step in set(zip(at[outside].tolist(), move[outside].tolist(), strict=True)):
        if step:
            read = first + step * numpy.arange(run.count)
            if read.max() >= run.start or not numpy.isin(owner[read], (0, abs(step))).all():
                return None
    return run

"""Colourings that say which columns and rows of a sparse matrix one sweep can compute together.

Columns that have no row in common may share a forward sweep (Curtis, Powell and Reid 1974); that is a colouring at
distance 2 of the bipartite graph of rows and columns (Coleman and Moré 1983). A few dense rows would make every pair of
columns meet; they are computed by reverse sweeps, and the columns coloured by the other rows alone (Coleman and Verma
1998). Of a symmetric matrix one of the entries (i, j), (j, i) is enough; that is a star colouring of its graph (Coleman
and Moré 1984; Gebremedhin, Manne and Pothen 2005, section 4).

All are greedy: vertex by vertex, the first colour that is allowed. The colours that a vertex has seen are a bit set, so
that the work is linear in the entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy

from .sparsity import Pattern

NONE = -1
"""The colour of a column or row that has no entry."""


@dataclass(frozen=True)
class Split:
    """How sweeps share out a Jacobian: `rows[i]` is the colour of row i, if a reverse sweep computes it, else `NONE`;
    `columns[j]` that of column j by the other rows."""

    rows: list[int]
    columns: list[int]

    @property
    def reverse(self) -> int:
        """How many reverse sweeps."""
        return 1 + max(self.rows, default=NONE)

    @property
    def forward(self) -> int:
        """How many forward sweeps."""
        return 1 + max(self.columns, default=NONE)

    @property
    def sweeps(self) -> int:
        """How many sweeps in all."""
        return self.reverse + self.forward


def split(pattern: Pattern, blocks: Sequence[int]) -> Split:
    """The split of fewest sweeps: all rows forward, all in reverse, or in reverse those with more than 2^k entries. Of
    equals, that with the fewest in reverse, which cost more each.

    `blocks` are the numbers of rows of each output: a reverse sweep is of one output.
    """
    counts = numpy.bincount(pattern.rows, minlength=pattern.shape[0])
    most = int(counts.max(initial=0))
    masks = {int(dense.sum()): dense for dense in
             (counts > limit for limit in (most, *(1 << k for k in range(most.bit_length())), 0))}
    best: Split | None = None
    for least, dense in sorted(((_least(pattern, d, blocks), d) for d in masks.values()), key=itemgetter(0)):
        if best is None or least <= best.sweeps:
            made = _split(pattern, dense, blocks)
            best = made if best is None else min(best, made, key=lambda s: (s.sweeps, s.reverse))
    assert best is not None
    return best


def _split(pattern: Pattern, dense: Any, blocks: Sequence[int]) -> Split:
    reverse = dense[pattern.rows]
    of_row = neighbours(pattern.rows[reverse], pattern.columns[reverse], pattern.shape[0])
    of_column = neighbours(pattern.columns[~reverse], pattern.rows[~reverse], pattern.shape[1])
    rows: list[int] = []
    first = used = 0
    for count in blocks:
        found = distance_2(of_row[first:first + count])
        rows += [NONE if colour == NONE else used + colour for colour in found]
        used += 1 + max(found, default=NONE)
        first += count
    return Split(rows, distance_2(of_column))


def _least(pattern: Pattern, dense: Any, blocks: Sequence[int]) -> int:
    """No split has fewer sweeps: the entries of one column of an output, or of one row, need one each."""
    reverse = dense[pattern.rows]
    forward = numpy.bincount(pattern.rows[~reverse], minlength=1).max()
    width = pattern.shape[1]
    of_output = numpy.searchsorted(numpy.cumsum(blocks), pattern.rows[reverse], side="right")
    places, counts = numpy.unique(of_output * width + pattern.columns[reverse], return_counts=True)
    most = numpy.zeros(len(blocks), int)
    numpy.maximum.at(most, places // max(width, 1), counts)
    return int(forward + most.sum())


def neighbours(of: Any, what: Any, count: int) -> list[list[int]]:
    """For each of `count` vertices, what it is joined to, given the ends of the edges."""
    order = numpy.argsort(of, kind="stable")
    bounds = [0, *numpy.cumsum(numpy.bincount(of, minlength=count)).tolist()]
    sorted_ends = what[order].tolist()
    return [sorted_ends[a:b] for a, b in pairwise(bounds)]


def _orders(near: Sequence[Sequence[int]]) -> Iterable[list[int]]:
    """As they come, and those with most neighbours first (Welsh and Powell 1967)."""
    natural = list(range(len(near)))
    return natural, sorted(natural, key=lambda v: -len(near[v]))


def _first_allowed(forbidden: int) -> int:
    """The lowest bit that is not set."""
    return (~forbidden & (forbidden + 1)).bit_length() - 1


def distance_2(near: Sequence[Sequence[int]]) -> list[int]:
    """A colour for each vertex, from 0, such that two with a neighbour in common differ; `NONE` for one without
    neighbours. `near[v]` are the neighbours of v, on the other side of a bipartite graph."""
    return min((_distance_2(near, order) for order in _orders(near)), key=lambda c: max(c, default=NONE))


def _distance_2(near: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    seen: dict[int, int] = {}
    colours = [NONE] * len(near)
    for v in order:
        if near[v]:
            forbidden = 0
            for w in near[v]:
                forbidden |= seen.get(w, 0)
            colours[v] = _first_allowed(forbidden)
            for w in near[v]:
                seen[w] = seen.get(w, 0) | 1 << colours[v]
    return colours


def star(pattern: Pattern) -> list[int]:
    """A star colouring of the graph of a symmetric pattern: neighbours differ, and every path of four vertices has
    three colours. `NONE` for a vertex whose row is empty.

    So of each edge (v, w), v is the only neighbour of w that has its colour, or w the only one of v.
    """
    near = neighbours(pattern.rows, pattern.columns, pattern.shape[0])
    full = [bool(n) for n in near]
    near = [[w for w in n if w != v] for v, n in enumerate(near)]
    found = min((_Star(near).run(order) for order in _orders(near)), key=lambda c: max(c, default=NONE))
    return [colour if there else NONE for colour, there in zip(found, full, strict=True)]


class _Star:
    """The state of one greedy star colouring. Of each vertex: the colours that its neighbours have (`once`), those that
    two or more have (`twice`), and the first neighbour of each colour (`first`).

    A second neighbour of w of colour c makes a path v, w, x with v and x of colour c. It is allowed if the colour of w
    is not among `twice` of v, nor of x. `locked` of w are the colours c whose x forbids it.
    """

    def __init__(self, near: Sequence[Sequence[int]]) -> None:
        n = len(near)
        self.near = near
        self.colours = [NONE] * n
        self.once, self.twice, self.locked = [0] * n, [0] * n, [0] * n
        self.first: list[dict[int, int]] = [{} for _ in range(n)]

    def run(self, order: Iterable[int]) -> list[int]:
        """The colours, given in this order."""
        for v in order:
            forbidden = self.once[v]
            for w in self.near[v]:
                if self.colours[w] != NONE:
                    alone = not self.twice[v] >> self.colours[w] & 1
                    forbidden |= self.locked[w] if alone else self.once[w]
            self._give(v, _first_allowed(forbidden))
        return self.colours

    def _give(self, v: int, colour: int) -> None:
        colours, bit = self.colours, 1 << colour
        colours[v] = colour
        for w in self.near[v]:
            if self.once[w] & bit == 0:
                self.once[w] |= bit
                self.first[w][colour] = v
            else:
                self.twice[w] |= bit
                if colours[w] != NONE:
                    self.locked[v] |= 1 << colours[w]
                    self.locked[self.first[w][colour]] |= 1 << colours[w]
            if colours[w] != NONE and self.twice[v] >> colours[w] & 1:
                self.locked[w] |= bit

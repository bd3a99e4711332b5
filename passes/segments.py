"""A deep program as a chain: the forward pass cut where little crosses, each piece with its part of the backward pass,
and equal pieces found by their structure.

Where a single tensor crosses again and again, those are the cuts (a network of layers). Where none does, but the
operations repeat with a period (a recurrent network, a scan), the cuts lie a period apart, where least crosses.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy

from ..ir.graph import Constant, Graph, Value, buffer
from .activity import dependent
from .tasks import Tasks

LONGEST = 20_000
REPEATS = 0.75
"""Operations repeat with a period if so many of them are what they are one period before; in no longer programs."""
MOST = 256
"""More segments than so many are joined: the programme over them is quadratic and worse."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Tasks of the forward pass between two cuts, and those of the backward pass that come from them.

    `entries` and `exits` are the buffers that cross the cuts on its two sides and are read right behind them. Equal
    `kind`: equal structure.
    """

    forward: tuple[int, ...]
    backward: tuple[int, ...]
    entries: tuple[int, ...]
    exits: tuple[int, ...]
    kind: int


@dataclass(frozen=True, eq=False)
class Chain:
    """The segments of a program in forward order, for one choice of cuts.

    `shared` are forward buffers that other segments read too, which stay: masks, positions, what passes by.
    """

    tasks: Tasks
    segments: tuple[Segment, ...]
    shared: frozenset[int]

    @cached_property
    def assembled(self) -> frozenset[int]:
        """Outputs that are put together from pieces that lie in their memory already."""
        tasks = self.tasks
        return frozenset(
            w for task, handed in enumerate(tasks.hands_over) for w in tasks.writes[task]
            if tasks.output[w] and tasks.nodes[task].op.name == "place"
            and sum(tasks.readers[r] == (task,) for r, _, _ in handed) == len(tasks.reads[task]))

    @cached_property
    def sticky(self) -> frozenset[int]:
        """Backward buffers that stay once they are made: outputs, and the pieces of outputs."""
        tasks = self.tasks
        outputs = {b for b, output in enumerate(tasks.output) if output}
        return frozenset(outputs.union(*(tasks.reads[tasks.writer[b]] for b in self.assembled)))

    @cached_property
    def bytes(self) -> tuple[int, ...]:
        """Of each buffer; what is assembled from pieces takes no more than they."""
        return tuple(0 if b in self.assembled else size for b, size in enumerate(self.tasks.bytes))


@lru_cache(maxsize=2)
def chains(tasks: Tasks) -> list[Chain]:
    """The program as a chain, once for each way to cut its repeated block; none where nothing repeats."""
    if all(tasks.forward):
        return []
    cutter = _Cutter(tasks)
    made = []
    single = cutter.single_crossings()
    if single:
        finest = cutter.chain(single)
        period = _period([s.kind for s in finest.segments])
        if period == 1 or len(single) <= MOST:
            made.append(finest if len(single) <= MOST else cutter.chain(_thinned(single)))
        if period > 1:
            made += [cutter.chain(_thinned(single[phase::period])) for phase in range(period)]
    if not made or max(len(s.forward) for s in made[0].segments) > len(cutter.forward) // 2:
        made = [cutter.chain(_thinned(cuts)) for cuts in cutter.periodic()] or made
    return made


def _thinned(cuts: Sequence[int]) -> Sequence[int]:
    return cuts[::-(-len(cuts) // MOST)]


def _period(kinds: Sequence[int]) -> int:
    """The p of the longest stretch in which each kind equals the kind p before, if that is a whole period; else 1."""
    best, longest = 1, 0
    for p in range(1, len(kinds) // 2 + 1):
        same = [a == b for a, b in zip(kinds, kinds[p:], strict=False)]
        run = max((len(list(group)) for equal, group in itertools.groupby(same) if equal), default=0)
        if run >= p and run > longest:
            best, longest = p, run
    return best


class _Cutter:
    """Cuts one program in different ways."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.forward = [t for t in tasks.order if tasks.forward[t]]
        self.active = self._active()
        self.kinds: dict[Any, int] = {}
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        for i, t in enumerate(self.forward):
            for b in tasks.reads[t]:
                self.last[b] = i
            for b in tasks.writes[t]:
                self.first[b] = self.last[b] = i

    def _active(self) -> set[int]:
        """Buffers that a derivative passes through."""
        graph = self.tasks.graph
        outputs = {v.name for v in graph.outputs}
        roots = [v for v in graph.inputs if f"{v.name}_bar" in outputs]
        roots = roots or [v for v in graph.parameters if v.dtype.is_float]
        through = {buffer(v) for v in dependent(graph, roots)}
        return {b for b, v in enumerate(self.tasks.values) if v in through}

    def single_crossings(self) -> list[int]:
        """Places in the forward order behind which exactly one active buffer is read later, one place a buffer."""
        ending: dict[int, list[int]] = {}
        open_: dict[int, None] = {}
        cuts: list[int] = []
        before = -1
        for i, t in enumerate(self.forward):
            for b in self.tasks.writes[t]:
                if b in self.active and self.last[b] > i:
                    open_[b] = None
                    ending.setdefault(self.last[b], []).append(b)
            for b in ending.pop(i, ()):
                del open_[b]
            if len(open_) == 1:
                (only,) = open_
                if only != before and i + 1 < len(self.forward):
                    cuts.append(i)
                    before = only
        return cuts

    def periodic(self) -> list[list[int]]:
        """Cuts a period apart, for the places in it where least crosses; none if the operations have no period."""
        tasks, count = self.tasks, len(self.forward)
        names: dict[Any, int] = {}
        what = numpy.array([names.setdefault((n.op.name, n.result.type, tuple(v.type for v in n.operands)), len(names))
                            for n in (tasks.nodes[t] for t in self.forward)])
        if count < 6 or count > LONGEST:
            return []
        equal = [float((what[p:] == what[:-p]).mean()) for p in range(1, count // 3 + 1)]
        if max(equal) < REPEATS:
            return []
        period = 1 + next(i for i, share in enumerate(equal) if share >= max(equal) - 0.02)
        crossing = numpy.zeros(count + 1)
        for b in self.active & self.first.keys():
            crossing[self.first[b]] += tasks.bytes[b]
            crossing[self.last[b]] -= tasks.bytes[b]
        weight = crossing.cumsum()
        places = sorted(range(period), key=lambda place: (float(weight[place:count - 1:period].mean()), place))
        return [list(range(place, count - 1, period)) for place in places[:2]]

    def chain(self, cuts: Sequence[int]) -> Chain:
        """The segments between these cuts."""
        tasks = self.tasks
        bounds = [-1, *cuts, len(self.forward) - 1]
        pieces = [tuple(self.forward[a + 1:b + 1]) for a, b in itertools.pairwise(bounds)]
        of: dict[int, int] = {b: s for s, piece in enumerate(pieces) for t in piece for b in tasks.writes[t]}
        reach = {b: bisect_left(bounds, last) - 1 for b, last in self.last.items()}
        exits = [tuple(b for t in piece for b in tasks.writes[t] if b in self.active and reach[b] == s + 1)
                 for s, piece in enumerate(pieces)]
        crossing = {b: s + 1 for s, crosses in enumerate(exits) for b in crosses}
        home = {t: s for s, piece in enumerate(pieces) for t in piece} | self._backward(of, crossing, len(pieces))
        back: list[list[int]] = [[] for _ in pieces]
        for t in tasks.order:
            if not tasks.forward[t]:
                back[home[t]].append(t)
        shared = frozenset(b for s, piece in enumerate(pieces) for t in piece for b in tasks.writes[t]
                           if b not in crossing and any(home[r] != s for r in tasks.readers[b]))
        segments = tuple(Segment(piece, tuple(b), entries, leave, self._kind(piece, b, entries))
                         for piece, b, entries, leave in zip(pieces, back, [(), *exits], exits, strict=False))
        return Chain(tasks, segments, shared)

    def _backward(self, of: dict[int, int], crossing: dict[int, int], count: int) -> dict[int, int]:
        """The segment of each backward task: the first that all it reads comes from. What is larger than all that it
        reads, and reads no forward value, is left to the first segment that needs it."""
        tasks = self.tasks
        home: dict[int, int] = {}
        for t in tasks.order:
            if not tasks.forward[t]:
                home[t] = min((crossing.get(b, of[b]) for b in tasks.reads[t]
                               if b in of and (b in self.active or not tasks.forward[tasks.writer[b]])),
                              default=count - 1)
                of.update(dict.fromkeys(tasks.writes[t], home[t]))
        for t in reversed(tasks.order):
            if tasks.forward[t] or any(tasks.forward[tasks.writer[b]] for b in tasks.reads[t]):
                continue
            made = tasks.writes[t]
            readers = [r for b in made for r in tasks.readers[b]]
            if readers and sum(tasks.bytes[b] for b in made) > sum(tasks.bytes[b] for b in tasks.reads[t]):
                home[t] = min(home[t], max(home[r] for r in readers))
        return home

    def _kind(self, forward: Sequence[int], backward: Sequence[int], entries: Sequence[int]) -> int:
        """A number for the structure: operations, types and what is read from where, names aside."""
        tasks = self.tasks
        inside: dict[Value, Any] = {tasks.values[b]: f"entry {i}" for i, b in enumerate(entries)}
        key = []
        for t in (*forward, *backward):
            node = tasks.nodes[t]
            key.append((node.op.name, tuple(v.type for v in node.results),
                        tuple(map(_frozen, node.attributes.values())),
                        tuple(self._operand(v, inside) for v in node.operands)))
            for v in node.results:
                inside[v] = len(inside)
        found = (tuple(key), len(forward))
        return self.kinds.setdefault(found, len(self.kinds))

    def _operand(self, value: Value, inside: dict[Value, Any]) -> Any:
        """An operand: through which views it is read, and what lies beneath."""
        views = []
        while value.node is not None and value.node.op.view:
            views.append((value.node.op.name, value.type))
            value = value.node.operands[0]
        if isinstance(value, Constant):
            return (tuple(views), value.bits, value.dtype)
        return (tuple(views), inside.get(value, "outside" if value.node is not None else "input"), value.type)


def _frozen(attribute: Any) -> Any:
    if isinstance(attribute, Graph):
        return id(attribute)  # equal bodies of regions are one
    return tuple(attribute) if isinstance(attribute, list) else attribute

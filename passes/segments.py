"""A deep program as a chain: the forward pass cut where a single tensor crosses, each piece with its part of the
backward pass, and equal pieces found by their structure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ..ir.graph import Constant, Value, buffer
from .activity import dependent
from .tasks import Tasks

MOST = 256
"""More segments than so many are joined: the programme over them is quadratic and worse."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Tasks of the forward pass between two cuts, and those of the backward pass that come from them.

    `entry` and `exit` are the buffers that cross the cuts (-1 at the ends of the program). Equal `kind`: equal
    structure.
    """

    forward: tuple[int, ...]
    backward: tuple[int, ...]
    entry: int
    exit: int
    kind: int


@dataclass(frozen=True, eq=False)
class Chain:
    """The segments of a program in forward order, for one choice of cuts.

    `shared` are forward buffers that several segments read though no derivative passes through them: masks, positions.
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
    """The program as a chain, once for each way to cut its repeated block; none where no tensor crosses alone."""
    cutter = _Cutter(tasks)
    cuts = cutter.cuts
    if not cuts or all(tasks.forward):
        return []
    finest = cutter.chain(cuts)
    period = _period([s.kind for s in finest.segments])
    if period == 1:
        choices = [cuts]
    else:
        choices = [cuts[phase::period] for phase in range(period)]
        if len(cuts) <= MOST:
            choices.insert(0, cuts)
    return [cutter.chain(_thinned(chosen)) if chosen is not cuts or len(cuts) > MOST else finest for chosen in choices]


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
        self.place = {t: i for i, t in enumerate(self.forward)}
        self.active = self._active()
        self.cuts, self.crossing = self._single_crossings()
        self.kinds: dict[Any, int] = {}

    def _active(self) -> set[int]:
        """Buffers that a derivative passes through."""
        graph = self.tasks.graph
        outputs = {v.name for v in graph.outputs}
        roots = [v for v in graph.inputs if f"{v.name}_bar" in outputs]
        roots = roots or [v for v in graph.parameters if v.dtype.is_float]
        through = {buffer(v) for v in dependent(graph, roots)}
        return {b for b, v in enumerate(self.tasks.values) if v in through}

    def _single_crossings(self) -> tuple[list[int], dict[int, int]]:
        """Places in the forward order behind which exactly one active buffer is read later, and that buffer."""
        tasks = self.tasks
        last: dict[int, int] = {}
        for i, t in enumerate(self.forward):
            for b in tasks.reads[t]:
                last[b] = i
        ending: dict[int, list[int]] = {}
        open_: dict[int, None] = {}
        cuts: list[int] = []
        crossing: dict[int, int] = {}
        for i, t in enumerate(self.forward):
            for b in tasks.writes[t]:
                if b in self.active and last.get(b, i) > i:
                    open_[b] = None
                    ending.setdefault(last[b], []).append(b)
            for b in ending.pop(i, ()):
                del open_[b]
            if len(open_) == 1:
                (only,) = open_
                if i + 1 < len(self.forward) and crossing.get(cuts[-1] if cuts else -1) != only:
                    cuts.append(i)
                    crossing[i] = only
        return cuts, crossing

    def chain(self, cuts: Sequence[int]) -> Chain:
        """The segments between these cuts."""
        tasks = self.tasks
        count = len(cuts) + 1
        bounds = [-1, *cuts, len(self.forward) - 1]
        pieces = [tuple(self.forward[a + 1:b + 1]) for a, b in itertools.pairwise(bounds)]
        of: dict[int, int] = {b: s for s, piece in enumerate(pieces) for t in piece for b in tasks.writes[t]}
        crossing = {self.crossing[c]: s + 1 for s, c in enumerate(cuts)}
        of_task = {t: s for s, piece in enumerate(pieces) for t in piece}
        back: list[list[int]] = [[] for _ in range(count)]
        for t in tasks.order:
            if tasks.forward[t]:
                continue
            s = min((crossing.get(b, of[b]) for b in tasks.reads[t]
                     if b in of and (b in self.active or not tasks.forward[tasks.writer[b]])), default=count - 1)
            back[s].append(t)
            of_task[t] = s
            of.update(dict.fromkeys(tasks.writes[t], s))
        shared = frozenset(b for s, piece in enumerate(pieces) for t in piece for b in tasks.writes[t]
                           if b not in crossing and any(of_task[r] != s for r in tasks.readers[b]))
        entries = [-1, *(self.crossing[c] for c in cuts)]
        exits = [*entries[1:], -1]
        segments = tuple(Segment(piece, tuple(b), entry, exit_, self._kind(piece, b, entry))
                         for piece, b, entry, exit_ in zip(pieces, back, entries, exits, strict=True))
        return Chain(tasks, segments, shared)

    def _kind(self, forward: Sequence[int], backward: Sequence[int], entry: int) -> int:
        """A number for the structure: operations, types and what is read from where, names aside."""
        tasks = self.tasks
        inside: dict[Value, Any] = {}
        if entry >= 0:
            inside[tasks.values[entry]] = "entry"
        key = []
        for t in (*forward, *backward):
            node = tasks.nodes[t]
            key.append((node.op.name, node.result.type, tuple(map(_frozen, node.attributes.values())),
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
    return tuple(attribute) if isinstance(attribute, list) else attribute

"""Which values lie in the memory of donated inputs, and the orders of execution that this leaves.

A donated output y is written over its input x. Where a `place` puts y together, each piece is written where it belongs,
so that a stacked parameter is updated layer by layer; and what is computed in place on the way to y lies there too:

    @donated(w="w_new")
    def f(w: f32[2, 9], g: f32[9], h: f32[9]):
        w_0: f32[9] = w[0]
        t: f32[9] = 0.9 * w_0                   # in the memory of w[0], which nothing else reads
        p: f32[9] = t - g                       # the same
        ...
        w_new: f32[2, 9] = place(p_row, q_row, at=(s_[0:1], s_[1:2]), shape=(2, 9))     # nothing to do

None of these takes memory of its own, and nothing may read that part of x once one of them has been written.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.donation import donations
from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..ir.layout import layout
from ..ir.target import Target
from .in_place import heirlooms, operands_of, piece_offsets, pieces, tiled
from .rebuild import extended

if TYPE_CHECKING:
    from .tasks import Tasks


@dataclass(frozen=True, eq=False)
class Lodging:
    """Where a value lies: in `input`, from byte `offset` on. None of the nodes `before` runs after it is written."""

    input: Value
    offset: int
    before: tuple[Node, ...]


def lodgings(graph: Graph, target: Target, inlined: Collection[Node] = ()) -> dict[Value, Lodging]:
    """What lies in donated inputs, of a graph that is legal for the target."""
    return _Lodgings(graph, target, inlined).found if graph.donated else {}


def donating(graph: Graph, target: Target) -> Graph | None:
    """The graph in an order that its donations allow, a copy behind each output that the target cannot write over its
    input because the operation reads that otherwise than in place. None if there is no such order."""
    if not graph.donated:
        return graph
    nodes = in_order(graph)
    if nodes is None:
        return None
    builder = extended(graph)
    builder.nodes, builder.donated = list(nodes), dict(graph.donated)
    over = donations(graph)
    outputs = [v if v not in over or _writable(buffer(v), None, over[v], 0, target) else builder.emit("copy", (v,))
               for v in graph.outputs]
    return builder.finish(outputs, [v.name for v in graph.outputs], graph)


def _writable(value: Value, operands: Collection[Value] | None, x: Value, offset: int, target: Target) -> bool:
    """Can the value be written over x from `offset` on while its operation reads these operands (its own unless said)?
    """
    node, size = value.node, value.type.bytes
    assert node is not None
    operands = node.operands if operands is None else operands
    meeting = [v for v in operands if meets(v, x, offset, size)]
    if node.op.name == "place":
        own = dict(zip(node.operands, piece_offsets(node), strict=True)) if tiled(node) else {}
        return all(exact(v, offset + at) if (at := own.get(v)) is not None else False for v in meeting)
    places: Collection[int] = target.in_place.get(node.op.name, ())
    if node.op.name == "region":
        places = [p for p, q in target.takes_over(node) if node.results[q] is value]
    refused = {v for p, v in enumerate(node.operands) if p not in places}
    return not meeting or (bool(places) and all(
        exact(v, offset) and v.type.bytes == size and v not in refused for v in meeting))


def _span(view: Value) -> tuple[int, int]:
    """The bytes of its buffer from the first to behind the last that it looks at."""
    lies = layout(view)
    root = buffer(view)
    if lies is None:
        return 0, root.type.bytes
    if 0 in lies.shape:
        return 0, 0
    ends = [(n - 1) * stride for n, stride in zip(lies.shape, lies.strides, strict=True)]
    first = lies.offset + sum(e for e in ends if e < 0)
    last = lies.offset + sum(e for e in ends if e > 0)
    return first * root.dtype.bytes, (last + 1) * root.dtype.bytes


def meets(view: Value, x: Value, offset: int, size: int) -> bool:
    """Does it look at any of these bytes of x?"""
    if buffer(view) is not x:
        return False
    first, end = _span(view)
    return first < offset + size and offset < end


def exact(view: Value, offset: int) -> bool:
    """Does it lie row by row from there on?"""
    lies = layout(view)
    return lies is not None and lies.contiguous and lies.offset * view.dtype.bytes == offset


class _Lodgings:
    """The search for them, in one graph."""

    def __init__(self, graph: Graph, target: Target, inlined: Collection[Node]) -> None:
        self.target = target
        self.found: dict[Value, Lodging] = {}
        given = donations(graph)
        donated = set(given.values())
        self.outputs = {buffer(v) for v in graph.outputs}
        self.place = {node: at for at, node in enumerate(graph.nodes)}
        self.operands: dict[Node, list[Value]] = {}
        self.readers: dict[Value, list[Node]] = {}
        self.views: dict[Value, list[tuple[Node, Value]]] = {x: [] for x in donated}
        for node in graph.nodes:
            if node.op.view or node in inlined:
                continue
            self.operands[node] = list(operands_of(node, inlined))
            for v in self.operands[node]:
                root = buffer(v)
                if root in donated:
                    self.views[root].append((node, v))
                elif not isinstance(root, Constant):
                    self.readers.setdefault(root, []).append(node)
        for y, x in given.items():
            self._output(buffer(y), x)

    def _output(self, y: Value, x: Value) -> None:
        node = y.node
        assert node is not None and _writable(y, self.operands[node], x, 0, self.target), y
        self._lodge(y, x, 0)
        if node.op.name != "place":
            self._path(y, x, 0)
            return
        for root, at in pieces(node):
            if self._fits(root, x, at):
                self._lodge(root, x, at)
                self._path(root, x, at)

    def _path(self, value: Value, x: Value, offset: int) -> None:
        """What leads to a value in place, from the last that reads this part of x: it lies there, too."""
        stack = [[value]]
        while stack:
            path = stack.pop()
            node = path[-1].node
            assert node is not None
            if any(meets(v, x, offset, value.type.bytes) for v in self.operands[node]):
                if all(self._fits(v, x, offset) for v in path[1:]):
                    for v in path[1:]:
                        self._lodge(v, x, offset)
                continue
            for root, result, at in heirlooms(node, self.operands[node], self.target):
                if result is path[-1] and at == 0 and root.node in self.operands and self.readers.get(root) == [node] \
                        and node.op.name != "place":
                    stack.append([*path, root])

    def _fits(self, value: Value, x: Value, offset: int) -> bool:
        """Can the value lie there, in the order of the text?"""
        node = value.node
        if node not in self.operands or value in self.found or value in self.outputs:
            return False
        return _writable(value, self.operands[node], x, offset, self.target) and all(
            self.place[n] < self.place[node] for n in self._before(value, x, offset))

    def _before(self, value: Value, x: Value, offset: int) -> Iterator[Node]:
        size = value.type.bytes
        for node, view in self.views[x]:
            if node is not value.node and meets(view, x, offset, size):
                yield node

    def _lodge(self, value: Value, x: Value, offset: int) -> None:
        self.found[value] = Lodging(x, offset, tuple(dict.fromkeys(self._before(value, x, offset))))


def settled(tasks: Tasks, order: Sequence[int]) -> list[int] | None:
    """The order, with what is written over a donated input moved behind the last read of what it destroys; None where
    that cannot be."""
    if not any(tasks.overwrites):
        return list(order)
    left: dict[int, int] = {}
    for task in order:
        left[task] = left.get(task, 0) + 1
    made: list[int] = []
    there: set[int] = set()
    waiting: list[int] = []

    def runs(task: int) -> bool:
        if not there.issuperset(tasks.reads[task]) or any(left.get(t, 0) > (t == task) for t in tasks.overwrites[task]):
            return False
        left[task] -= 1
        there.update(tasks.writes[task])
        made.append(task)
        return True

    for task in order:
        if runs(task):
            while (done := next((t for t in waiting if runs(t)), None)) is not None:
                waiting.remove(done)
        else:
            waiting.append(task)
    return None if waiting else made


def on_demand(nodes: Sequence[Node], waiting: Collection[Node]) -> list[Node]:
    """The nodes in their order, but for those that are `waiting`: each stands right before the first that reads it."""
    made: list[Node] = []
    left = set(waiting)
    for node in nodes:
        stack = [] if node in left else [node]
        while stack:
            needed = [v.node for v in stack[-1].operands if v.node in left]
            if needed:
                left.remove(needed[0])
                stack.append(needed[0])
            else:
                made.append(stack.pop())
    return made


def in_order(graph: Graph, early: Collection[Node] = (),
             behind: Mapping[Node, Node] | None = None) -> Sequence[Node] | None:
    """The nodes in an order in which nothing reads a donated input after it has been overwritten, nor, if that can be,
    a piece of it; otherwise as they stand, but for those that are `early`: each as soon as it can run, and for those
    that come `behind` others, where that can be. None if there is no such order.
    """
    tried: Sequence[tuple[Mapping[Node, Node], bool]] = ((behind or {}, True), ({}, True), ({}, False))
    return next((found for late, by_pieces in tried if (found := _sorted(graph, early, late, by_pieces))), None)


def _sorted(graph: Graph, early: Collection[Node], late: Mapping[Node, Node],
            by_pieces: bool) -> Sequence[Node] | None:
    """The topological order that takes the first node that is ready, an early one before all others."""
    place = {node: at for at, node in enumerate(graph.nodes)}
    after = [{place[v.node] for v in node.operands if v.node is not None} for node in graph.nodes]
    for node, before in late.items():
        after[place[node]].add(place[before])
    given = donations(graph)
    views: dict[Value, list[tuple[int, Value]]] = {x: [] for x in given.values()}
    for at, node in enumerate(graph.nodes):
        for v in () if node.op.view else node.operands:
            if buffer(v) in views:
                views[buffer(v)].append((at, v))
    for y, x in given.items():
        root = buffer(y)
        assert root.node is not None
        parts = pieces(root.node) if by_pieces and root.node.op.name == "place" else []
        for value, offset in ((root, 0), *parts):
            if value.node is not None:
                at = place[value.node]
                after[at].update(t for t, v in views[x] if t != at and meets(v, x, offset, value.type.bytes))
    behind: list[list[int]] = [[] for _ in graph.nodes]
    for at, needed in enumerate(after):
        for earlier in needed:
            behind[earlier].append(at)
    waits = [len(needed) for needed in after]
    rank = [(node not in early, at) for at, node in enumerate(graph.nodes)]
    ready = [rank[at] for at, count in enumerate(waits) if not count]
    heapq.heapify(ready)
    made = []
    while ready:
        _, at = heapq.heappop(ready)
        made.append(graph.nodes[at])
        for then in behind[at]:
            waits[then] -= 1
            if not waits[then]:
                heapq.heappush(ready, rank[then])
    return made if len(made) == len(graph.nodes) else None

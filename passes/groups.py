"""Groups: elementwise operations, casts, broadcasts and sums of rows that one kernel does in one pass over memory.

A value of a group that nothing else reads is never stored. One that several groups read is computed again in each of
them where that reads no more bytes than it has; arithmetic costs nothing beside memory on a processor that does a
hundred operations in the time of a read (Williams, Waterman and Patterson 2009). So the derivative of an activation
reads what the activation read, and the values between are neither kept nor stored.

A group may give several results: those of the same rows that read the same array are computed together, unless more
memory would be needed for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..ir.layout import Layout, chain, reshaped, rowwise, through
from .in_place import pieces

MOST_COLUMNS = 1 << 16
"""Elements of a row that a kernel reduces without storing them: more do not fit the registers of a multiprocessor."""
MOST_OPERANDS, MOST_OPERATIONS = 16, 128
"""Arrays that one kernel reads, and operations that it does."""
SLACK = 1.25
"""What is read to compute a value again, over the value's own bytes: as many, and statistics of rows."""
FAR = 4000
"""Operations between two that are looked at, when it is asked whether one needs the other."""

REDUCTIONS = ("sum", "max", "min")


@dataclass(frozen=True)
class Rows:
    """What a group with reductions runs over: `count` rows, the reductions along each of them."""

    count: int
    columns: int


@dataclass(frozen=True, eq=False)
class Group:
    """Operations in order, the values that own the memory they read, and the results that are stored. Without
    reductions it runs over the elements of its results, and `rows` is None."""

    nodes: tuple[Node, ...]
    reads: tuple[Value, ...]
    results: tuple[Value, ...]
    rows: Rows | None


def groups(graph: Graph, fusible: Callable[[Node], bool]) -> list[Group]:
    """The groups of a graph that is legal for its target, in the order of their last results.

        a: bf16[9, 4] = exp(x)                # one group: a and s are not stored
        s: bf16[9, 1] = reshape(sum(a, axis=1), (9, 1))
        y: bf16[9, 4] = a / broadcast_to(s, (9, 4))

    `fusible` says for which operations there is code in a kernel; this pass sees to it that their values meet. Linear
    in the graph, but for a search of bounded length for each pair that may be joined.
    """
    found = _Grouping(graph, fusible)
    return _joined(graph, found, [found.group([v]) for v in found.roots()])


def fits(node: Node, fusible: Callable[[Node], bool]) -> bool:
    """Can the operation be part of a group?"""
    if not fusible(node):
        return False
    if node.op.elementwise or node.op.name in ("copy", "arange"):
        return True
    rows = along_rows(node)
    return rows is not None and 0 < rows.columns <= MOST_COLUMNS


def as_group(body: Graph, fusible: Callable[[Node], bool]) -> Group | None:
    """The body of a region as one group; None where a kernel cannot do it in one pass."""
    rows = None
    for node in body.nodes:
        if node.op.view:
            continue
        found = None if node.op.elementwise else along_rows(node)
        if not fits(node, fusible) or (found and (rows or found) != found):
            return None
        rows = rows or found
    bound: set[Value] = set()
    for node in body.nodes:
        if node.op.view:
            continue
        for root, views in map(chain, node.operands):
            if root in bound:
                assert rows is not None
                if not meets(rows, root, views):
                    return None
                bound.add(node.result)
        if not node.op.elementwise and along_rows(node) is not None:
            bound.add(node.result)
    sizes = {v.type.size for v in body.outputs}
    if not (len(sizes) == 1 if rows is None else sizes <= {rows.count, rows.count * rows.columns}):
        return None
    return Group(body.nodes, body.inputs, body.outputs, rows)


def along_rows(node: Node) -> Rows | None:
    """The rows along which an operation works: of a reduction over its last axes, of a gather that takes one element
    of each row, and of the scatter that is its transpose. None for every other operation."""
    name = node.op.name
    if name in REDUCTIONS:
        shape, axes = node.operands[0].shape, node.attributes["axis"]
        kept = len(shape) - len(axes)
        if any(axis < kept and shape[axis] != 1 for axis in axes):
            return None
        return Rows(math.prod(n for i, n in enumerate(shape) if i not in axes), math.prod(shape[a] for a in axes))
    if name in ("gather", "scatter_add"):
        table = node.operands[0].shape if name == "gather" else node.result.shape
        indices = node.operands[1:]
        count = math.prod(table[:-1])
        if len(indices) == len(table) and indices[0].type.size == count and table and all(
                _counts(v, axis, table) for axis, v in enumerate(indices[:-1])):
            return Rows(count, table[-1])
    return None


def _counts(value: Value, axis: int, table: Sequence[int]) -> bool:
    """Is the index of that axis, in the order of rows, the row's own?"""
    root, views = chain(value)
    if root.node is None or root.node.op.name != "arange":
        return False
    a = root.node.attributes
    lies = through(rowwise(root.shape), views)
    rows = tuple(table[:-1])
    lies = None if lies is None else reshaped(lies, rows)
    own = tuple(int(i == axis) for i in range(len(rows)))
    return (a["start"], a["step"]) == (0, 1) and lies is not None and lies.offset == 0 and all(
        n == 1 or s == o for n, s, o in zip(rows, lies.strides, own, strict=True))


def read(value: Value) -> Value:
    """What is read for an operand: the value that owns the memory, or the view that picks a part of it."""
    found, views = chain(value)
    for view in views:
        assert view.node is not None
        if view.node.op.name == "broadcast_to":
            break
        if view.type.size < found.type.size:
            found = view
    return found


def meets(rows: Rows, root: Value, views: Sequence[Value]) -> bool:
    """Does an element of a computed value, seen through views, belong to the row in which it is computed?

    A value has an element for each row, or one for each of its columns; its order must stay, and one for a row may be
    repeated along it.
    """
    lies = through(rowwise(root.shape), views)
    size = math.prod(lies.shape) if lies is not None else -1
    if lies is None or lies.offset:
        return False
    if size == root.type.size:
        return lies.contiguous
    if root.type.size != rows.count or size != rows.count * rows.columns:
        return False
    seen = reshaped(lies, (rows.count, rows.columns))
    return seen is not None and (rows.count == 1 or seen.strides[0] == 1) and (
        rows.columns == 1 or seen.strides[1] == 0)


@dataclass
class _Part:
    """What it takes to compute a value from what is stored: values that own memory, or views of a part of one."""

    reads: dict[Value, None]
    count: int
    rows: Rows | None


class _Grouping:
    """Which values are stored, and what the others are made of."""

    def __init__(self, graph: Graph, fusible: Callable[[Node], bool]) -> None:
        self.graph = graph
        self.place = {node: at for at, node in enumerate(graph.nodes)}
        outputs = {buffer(v): None for v in graph.outputs}
        self.kept = {*outputs, *(root for v in outputs if v.node is not None and v.node.op.name == "place"
                                 for root, _ in pieces(v.node))}
        self.fused = {n for n in graph.nodes if not n.op.view and n.result.type.size and fits(n, fusible)}
        self.readers: dict[Value, dict[Node, None]] = {}
        for node in graph.nodes:
            if not node.op.view:
                for v in node.operands:
                    self.readers.setdefault(buffer(v), {})[node] = None
        self.stored = {v for v in self._made() if v in self.kept or self._unfused(v)}
        self.parts: dict[Value, _Part] = {}
        self._decide()

    def _made(self) -> Iterator[Value]:
        return (n.result for n in self.graph.nodes if n in self.fused)

    def _unfused(self, value: Value) -> bool:
        """Does an operation read it that is in no group?"""
        return any(reader not in self.fused for reader in self.readers.get(value, ()))

    def _free(self, value: Value) -> bool:
        """Is it the place of an element, which no memory is read for?"""
        return value.node is not None and value.node.op.name == "arange" and value.node in self.fused

    def inner(self, value: Value) -> bool:
        """Is a value that owns memory computed by the groups that read it?"""
        return value.node in self.fused and (value not in self.stored or self._free(value))

    def _decide(self) -> None:
        many = self._read_by_many()
        for node in self.graph.nodes:
            if node in self.fused:
                part = self._part(node)
                self.parts[node.result] = part
                if node.result not in self.stored and node.result in many and not self._free(node.result) and (
                        sum(v.type.bytes for v in part.reads) > SLACK * node.result.type.bytes):
                    self.stored.add(node.result)

    def _read_by_many(self) -> set[Value]:
        """The values that more than one stored value is made of."""
        into: dict[Value, tuple[Value, ...]] = {}
        for node in reversed(self.graph.nodes):
            if node in self.fused:
                v = node.result
                readers = (r.result for r in self.readers.get(v, ()) if r in self.fused)
                met = dict.fromkeys(x for r in readers for x in into.get(r, ()))
                into[v] = (v,) if v in self.stored else tuple(met)[:2]
        return {v for v, found in into.items() if len(found) > 1}

    def _part(self, node: Node) -> _Part:
        """What the node's value is made of; operands that do not fit are stored."""
        rows = along_rows(node) if not node.op.elementwise else None
        for v in node.operands:
            root, views = chain(v)
            if not self.inner(root) or self.parts[root].rows is None:
                continue
            has = self.parts[root].rows
            assert has is not None
            rows = rows or has
            if rows != has or not meets(has, root, views):
                self.stored.add(root)
        part = self._sum(node, rows)
        if part.count > MOST_OPERATIONS or len(part.reads) > MOST_OPERANDS:
            for root in map(buffer, node.operands):
                if self.inner(root) and self.parts[root].count > 1:
                    self.stored.add(root)
            part = self._sum(node, rows)
        return part

    def _sum(self, node: Node, rows: Rows | None) -> _Part:
        reads: dict[Value, None] = {}
        count = 1
        own = along_rows(node) if not node.op.elementwise else None
        roots: set[Value] = set()
        for v in node.operands:
            root = buffer(v)
            if isinstance(root, Constant):
                continue
            if not self.inner(root):
                reads[read(v)] = None
            elif root not in roots:
                roots.add(root)
                reads.update(self.parts[root].reads)
                count += self.parts[root].count
                own = own or self.parts[root].rows
        return _Part(reads, count, own)

    def roots(self) -> list[Value]:
        """The values that are stored by groups, in order; an `arange` alone is left to the backend."""
        return [v for v in self._made() if v in self.stored and not self._free(v)]

    def group(self, results: Sequence[Value]) -> Group:
        """The group of these results, each computed from the others where it is made of them."""
        nodes: dict[Node, None] = {}
        reads: dict[Value, None] = {}
        wanted = set(results)
        stack = list(results)
        seen = set(stack)
        while stack:
            value = stack.pop()
            assert value.node is not None
            nodes[value.node] = None
            for v in value.node.operands:
                root, views = chain(v)
                if isinstance(root, Constant):
                    continue
                nodes.update((view.node, None) for view in views if view.node is not None)
                if root in seen:
                    continue
                seen.add(root)
                if root in wanted or self.inner(root):
                    stack.append(root)
                else:
                    reads[root] = None
        ordered = sorted(nodes, key=self.place.__getitem__)
        rows = next((r for n in ordered if (r := along_rows(n)) is not None), None)
        first = {v: (-1 if v.node is None else self.place[v.node]) for v in reads}
        return Group(tuple(ordered), tuple(sorted(reads, key=lambda v: (first[v], v.name))),
                     tuple(sorted(results, key=lambda v: self.place[_maker(v)])), rows)


def _maker(value: Value) -> Node:
    assert value.node is not None
    return value.node


# Joining ---------------------------------------------------------------------------------------------------------

def _joined(graph: Graph, found: _Grouping, made: list[Group]) -> list[Group]:
    """Groups over the same rows that read the same array, or of which one reads the other's result, made one."""
    joining = _Joining(graph, found, made)
    for number in range(len(made)):
        joining.join(number)
    return joining.groups()


class _Joining:
    """Groups by the number of the last group in them."""

    def __init__(self, graph: Graph, found: _Grouping, made: Sequence[Group]) -> None:
        self.graph, self.found = graph, found
        self.members: dict[int, Group] = dict(enumerate(made))
        self.home: dict[Value, int] = {v: i for i, g in enumerate(made) for v in g.results}
        self.moved: dict[int, int] = {}
        self.parts = {g: _parts(g) for g in made}
        self.reading: dict[Value, list[int]] = {}
        for i, g in enumerate(made):
            for v in self.parts[g]:
                self.reading.setdefault(v, []).append(i)

    def join(self, number: int) -> None:
        """Take earlier groups into this one, the nearest first."""
        group = self.members[number]
        near = {self.home[v] for v in group.reads if v in self.home}
        parts = self.parts[group]
        for v in parts:
            if v.type.size == max(w.type.size for w in parts):
                near.update(self.home_of(i) for i in self.reading.get(v, ())[-8:] if i < number)
        for other in sorted(near - {number}, reverse=True):
            if other in self.members and self._fit(self.members[other], self.members[number]) \
                    and not self._between(other, number):
                self._take(other, number)

    def home_of(self, number: int) -> int:
        """Where the group of that number is now."""
        while number not in self.members:
            number = self.moved[number]
        return number

    def _fit(self, one: Group, two: Group) -> bool:
        """Can a kernel compute both, and is no more memory needed?"""
        large = max(v.type.size for g in (one, two) for v in (*self.parts[g], *g.results))
        results = [v for v in (*one.results, *two.results) if 4 * v.type.size > large]
        if sum(v not in self.found.kept for v in results) > 1 or len({*one.reads, *two.reads}) > MOST_OPERANDS \
                or len({*one.nodes, *two.nodes}) > 2 * MOST_OPERATIONS:
            return False
        rows = one.rows or two.rows
        if rows is None:
            return len({v.type.size for v in (*one.results, *two.results)}) == 1 and self._in_order(one, two, None)
        if one.rows is not None and two.rows is not None and one.rows != two.rows:
            return False
        return self._in_order(one, two, rows) and all(
            v.type.size in (rows.count, rows.count * rows.columns) for v in (*one.results, *two.results))

    def _in_order(self, one: Group, two: Group, rows: Rows | None) -> bool:
        """Does the second group see the results of the first element by element?"""
        for node in two.nodes:
            for v in node.operands if not node.op.view else ():
                root, views = chain(v)
                if root in one.results:
                    lies = through(rowwise(root.shape), views)
                    if lies is None or not (meets(rows, root, views) if rows else _whole(lies, root)):
                        return False
        return True

    def _between(self, first: int, last: int) -> bool:
        """Is there an operation outside both that needs the first group and that the last one needs?"""
        place = self.found.place
        begin = min(place[_maker(v)] for v in self.members[first].results)
        stack = [v for v in self.members[last].reads if self.home.get(v) != first]
        seen: set[Value] = set()
        while stack:
            value = stack.pop()
            if value in seen or value.node is None:
                continue
            seen.add(value)
            home = self.home.get(value)
            if home == first or len(seen) > FAR:
                return True
            if home is not None:
                if max(place[_maker(v)] for v in self.members[home].results) > begin:
                    stack += self.members[home].reads
            elif place[value.node] > begin:
                stack += self._stored(value.node)
        return False

    def _stored(self, node: Node) -> Iterable[Value]:
        return (buffer(v) for v in node.operands)

    def _take(self, first: int, last: int) -> None:
        results = (*self.members.pop(first).results, *self.members[last].results)
        self.moved[first] = last
        group = self.found.group(results)
        self.members[last] = group
        self.parts[group] = _parts(group)
        for v in results:
            self.home[v] = last

    def groups(self) -> list[Group]:
        """The groups; a result that only its own group reads is stored no more."""
        outside: dict[Value, set[int]] = {}
        for number, group in self.members.items():
            for v in group.reads:
                outside.setdefault(v, set()).add(number)
        made = []
        for group in self.members.values():
            results = [v for v in group.results
                       if v in self.found.kept or v in outside or self.found._unfused(v)]
            if results:
                made.append(Group(group.nodes, group.reads, tuple(results), group.rows))
        return made


def _parts(group: Group) -> dict[Value, None]:
    """What it reads, in the order of its operations: values that own memory, or views of a part of one."""
    outside = set(group.reads)
    return {read(v): None for n in group.nodes if not n.op.view for v in n.operands if buffer(v) in outside}


def _whole(lies: Layout, root: Value) -> bool:
    return lies.contiguous and math.prod(lies.shape) == root.type.size

"""Rows: which axes of a body's values a loop over blocks of rows cuts, and whether it may.

A region runs its body block by block. The axes that are cut are those of the first operand up to its rows, the last
axis but one (of a vector, its only one): heads, sequences, rows. Each operand then is *rowed* along such an axis (a
block sees its part) or *whole*; each result is rowed (parts are laid end to end) or *accumulated* (a sum over the rows:
parts are added in order). All of this is derived from the operations: axes that run together are one class, and an
operation may sum over a class, never mix it otherwise.

    s = q @ k.T         # q: f32[T, d], k: f32[S, d]    rows of s are rows of q; k is whole
    p = softmax(s)      # along S: each row for itself
    y = p @ v           # rowed
    g = p.T @ y         # accumulated: contracts the rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .diagnostics import Fault
from .graph import Constant, Graph, Node, Value
from .tables import rows as _table

SUMMED: Final = -1
"""Instead of an axis: a sum over the rows, of which each block has a part."""

Cut = int | None


@dataclass(frozen=True, eq=False)
class Rows:
    """How a body is cut. `lengths` are those of the axes that are cut, the rows last; `cut` says for each value, cut by
    cut, which axis of the value it is, `SUMMED`, or None for what is the same in every block."""

    body: Graph
    lengths: tuple[int, ...]
    cut: Mapping[Value, tuple[Cut, ...]]

    def rowed(self, value: Value) -> bool:
        """Does each block have its own part of the value, and no sum?"""
        return any(c is not None for c in self.cut[value]) and SUMMED not in self.cut[value]

    def summed(self, value: Value) -> bool:
        """Is it added up over blocks?"""
        return SUMMED in self.cut[value]

    def sizes(self, rows: Sequence[int]) -> tuple[int, ...]:
        """The lengths of a block along each axis: `rows` says them from the last; what it does not say is 1."""
        given = [1] * len(self.lengths)
        for at in range(1, min(len(rows), len(given)) + 1):
            given[-at] = rows[-at]
        return tuple(min(g, n) for g, n in zip(given, self.lengths, strict=True))


def rows_of(body: Graph) -> Rows:
    """How the body is cut. Fault E0121 where its rows are not independent; the message says which line mixes them.

    Leading axes of the first operand that are not independent are not cut. Linear in the body, up to the inverse of
    Ackermann's function.
    """
    first = body.inputs[0] if body.inputs else None
    if first is None or not first.shape:
        raise Fault("E0121", f"'{body.name}' has no rows: its first operand is {first.type if first else 'none'}",
                    "the first operand of a region is an array, cut along its last axis but one")
    classes = Classes(body.nodes)
    row = max(0, first.type.rank - 2)
    cuts: list[tuple[int, dict[Value, Cut]]] = []
    for axis in range(row + 1):
        if first.shape[axis] <= 1:  # one block has it all
            cuts.append((1, dict.fromkeys(body.values(), None)))
            continue
        try:
            cuts.append((first.shape[axis], _cut(body, classes, (first, axis))))
        except Fault:
            if axis == row:
                raise
    return Rows(body, tuple(n for n, _ in cuts),
                {v: tuple(found[v] for _, found in cuts) for v in body.values()})


Axis = tuple[Value, int]


class Classes:
    """Axes that run together, by union-find."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.parent: dict[Axis, Axis] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """Join the axes that run together in an operation."""
        if not counting(node):
            PAIRS[node.op.name](self, node)

    def find(self, axis: Axis) -> Axis:
        """The class of an axis."""
        root = axis
        while (above := self.parent.get(root, root)) != root:
            root = above
        while axis != root:
            self.parent[axis], axis = root, self.parent.get(axis, axis)
        return root

    def join(self, x: Value, i: int, y: Value, j: int) -> None:
        """The two axes run together."""
        if not isinstance(x, Constant) and not isinstance(y, Constant):
            a, b = self.find((x, i)), self.find((y, j))
            if a != b:
                self.parent[b] = a

    def along(self, value: Value, axis: Axis) -> list[int]:
        """The axes of the value that run with `axis`."""
        root = self.find(axis)
        return [i for i in range(value.type.rank) if self.find((value, i)) == root]

    def place(self, value: Value, axis: Axis) -> Cut:
        """The one axis of the value that runs with `axis`, None if there is none; Fault E0121 where two do."""
        found = self.along(value, axis)
        if len(found) > 1:
            raise Fault("E0121", f"'{value.name}' has the rows of '{axis[0].name}' along two of its axes, so no block "
                                 "of rows can be computed by itself")
        return found[0] if found else None


def _cut(body: Graph, classes: Classes, axis: Axis) -> dict[Value, Cut]:
    """What the cut along one axis makes of each value; Fault E0121 where an operation mixes the blocks."""
    cut: dict[Value, Cut] = {v: classes.place(v, axis) for v in body.inputs}
    for node in body.nodes:
        states = [cut.get(v) for v in node.operands]
        for result in node.results:
            cut[result] = result_cut(node, states, classes.place(result, axis), axis[0])
    for value in body.outputs:
        if cut[value] is None:
            raise Fault("E0121", f"'{value.name}' is the same for all rows of '{axis[0].name}'",
                        "compute it outside, and give it as an operand")
    return cut


def result_cut(node: Node, states: Sequence[Cut], place: Cut, first: Value) -> Cut:
    """What a cut along the rows of `first` makes of an operation's result: `states` has the cuts of its operands,
    `place` the result's axis of that class. Fault E0121 where the operation mixes rows."""
    if counting(node):
        return place
    if SUMMED in states:
        if place is None and _linear(node, states):
            return SUMMED
        line = next(v for v, s in zip(node.operands, states, strict=True) if s == SUMMED)
        raise Fault("E0121", f"'{node.result.name}' needs '{line.name}', a sum over the rows of '{first.name}', which "
                             "is known only when all of them are done")
    if place is not None or states[:1] != [None]:
        if node.op.name == "cumsum" and node.attributes["axis"] == place:
            raise _mixed(node, first)
        looked_up = {"gather": states[0] if states else None, "scatter_add": place}.get(node.op.name)
        if looked_up is not None and looked_up < len(node.operands) - 1 and not _by_place(node.operands[1 + looked_up]):
            raise _mixed(node, first)
    if place is not None:
        return place
    if all(s is None for s in states):
        return None
    sums = node.op.name == "sum" or (node.op.name == "matmul" and None not in states) or (
        node.op.name == "scatter_add" and None not in states)
    if not sums:
        raise _mixed(node, first)
    return SUMMED


def counting(node: Node) -> bool:
    """Is it a view of an `arange` that still counts? Each such view is made for itself: one may count rows, and another
    of the same `arange` columns."""
    return node.op.view and counted(node.result) is not None


def _mixed(node: Node, first: Value) -> Fault:
    from .show import show_node

    return Fault("E0121", f"`{show_node(node)}` mixes the rows of '{first.name}'",
                 "only sums and products may run over the rows, as results")


def _by_place(index: Value) -> bool:
    """Does the index count 0, 1, 2, ..., so that rows are taken one by one?"""
    counts = counted(index)
    return counts is not None and counts[1:] == (0, 1)


def _linear(node: Node, states: Sequence[Cut]) -> bool:
    """Is the sum of what the operation makes of parts what it makes of their sum?"""
    name = node.op.name
    if node.op.view or name in ("copy", "negative", "sum", "place"):
        return all(s == SUMMED for s in states)
    if name in ("add", "subtract"):
        return all(s == SUMMED for s in states)
    if name == "multiply":
        return any(isinstance(v, Constant) for v in node.operands)
    if name == "divide":
        return isinstance(node.operands[1], Constant)
    return False


# Which axes run together, one rule for each operation -------------------------------------------------------------

PAIRS: dict[str, Callable[[Classes, Node], None]] = {}
_pairs = _table(PAIRS)


def _same(classes: Classes, node: Node) -> None:
    """Element by element."""
    for operand in node.operands:
        for axis in range(operand.type.rank):
            classes.join(node.result, axis, operand, axis)


def counted(value: Value) -> tuple[int, int, int] | None:
    """(axis, start, step) of a value that counts start, start + step, ... along that axis and is the same along all
    others: an `arange`, seen through views. None for any other value."""
    chain = []
    while value.node is not None and value.node.op.view:
        chain.append(value.node)
        value = value.node.operands[0]
    if value.node is None or value.node.op.name != "arange":
        return None
    axis = 0
    for view in reversed(chain):
        x, z = view.operands[0], view.result
        if view.op.name == "reshape":
            found = [j for i, j in matched(x.shape, z.shape) if i == axis]
            if not found:
                return None
            axis = found[0]
        elif view.op.name == "permute_dims":
            axis = view.attributes["axes"].index(axis)
        elif view.op.name == "broadcast_to":
            lead = z.type.rank - x.type.rank
            if x.shape[axis] != z.shape[lead + axis]:
                return None
            axis += lead
        elif view.op.name != "stop_gradient":
            return None
    return axis, value.node.attributes["start"], value.node.attributes["step"]


def matched(old: Sequence[int], new: Sequence[int]) -> list[tuple[int, int]]:
    """The axes that a reshape leaves as they are, as pairs; axes of length 1 aside."""
    pairs = []
    i = j = 0
    while i < len(old) and j < len(new):
        if old[i] == 1 or new[j] == 1:
            i, j = i + (old[i] == 1), j + (new[j] == 1 and old[i] != 1)
            continue
        if old[i] == new[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
            continue
        n, m = old[i], new[j]
        while n != m:
            if n < m:
                i += 1
                if i == len(old):
                    return pairs
                n *= old[i]
            else:
                j += 1
                if j == len(new):
                    return pairs
                m *= new[j]
        i, j = i + 1, j + 1
    return pairs


@_pairs("reshape")
def _reshape(classes: Classes, node: Node) -> None:
    x, z = node.operands[0], node.result
    if z.type.size:
        for i, j in matched(x.shape, z.shape):
            classes.join(z, j, x, i)


@_pairs("broadcast_to")
def _broadcast(classes: Classes, node: Node) -> None:
    x, z = node.operands[0], node.result
    lead = z.type.rank - x.type.rank
    for axis, n in enumerate(x.shape):
        if n == z.shape[lead + axis]:
            classes.join(z, lead + axis, x, axis)


@_pairs("permute_dims")
def _permute(classes: Classes, node: Node) -> None:
    for new, old in enumerate(node.attributes["axes"]):
        classes.join(node.result, new, node.operands[0], old)


@_pairs("slice")
def _slice(classes: Classes, node: Node) -> None:
    _pieces(classes, node.operands[0], node.result, node.attributes["index"])


@_pairs("place")
def _place(classes: Classes, node: Node) -> None:
    for operand, index in zip(node.operands, node.attributes["at"], strict=True):
        _pieces(classes, node.result, operand, index)


def _pieces(classes: Classes, whole: Value, piece: Value, index: Sequence[int | tuple[int, int, int]]) -> None:
    """The axes that a constant index takes as they are."""
    j = 0
    for axis, entry in enumerate(index):
        if not isinstance(entry, int):
            if entry == (0, whole.shape[axis], 1):
                classes.join(whole, axis, piece, j)
            j += 1


@_pairs("sum max min")
def _reduction(classes: Classes, node: Node) -> None:
    x = node.operands[0]
    kept = [axis for axis in range(x.type.rank) if axis not in node.attributes["axis"]]
    for new, old in enumerate(kept):
        classes.join(node.result, new, x, old)


@_pairs("matmul")
def _matmul(classes: Classes, node: Node) -> None:
    (x, y), z = node.operands, node.result
    rank = z.type.rank
    for axis in range(rank - 2):
        classes.join(z, axis, x, axis)
        classes.join(z, axis, y, axis)
    classes.join(z, rank - 2, x, rank - 2)
    classes.join(z, rank - 1, y, rank - 1)
    classes.join(x, rank - 1, y, rank - 2)


@_pairs("gather")
def _gather(classes: Classes, node: Node) -> None:
    _indexed(classes, node.operands[0], node.result, node.operands[1:])


@_pairs("scatter_add")
def _scatter(classes: Classes, node: Node) -> None:
    _indexed(classes, node.result, node.operands[0], node.operands[1:])


def _indexed(classes: Classes, table: Value, taken: Value, indices: Sequence[Value]) -> None:
    """`taken = table[indices]`: an index that is the place along its axis takes the rows one by one."""
    rank = indices[0].type.rank
    for index in indices:
        for axis in range(rank):
            classes.join(taken, axis, index, axis)
    for axis in range(len(indices), table.type.rank):
        classes.join(table, axis, taken, rank + axis - len(indices))
    for axis, index in enumerate(indices):
        counts = counted(index)
        if counts is not None and counts[1:] == (0, 1) and table.shape[axis] == index.shape[counts[0]]:
            classes.join(table, axis, taken, counts[0])


@_pairs("arange region")
def _nothing(classes: Classes, node: Node) -> None:
    """No operand, or none that is known."""


def _fill() -> None:
    from .ops import OPS

    for op in OPS.values():
        if op.elementwise or op.name in ("copy", "stop_gradient", "cumsum") or op.family == "collective":
            PAIRS.setdefault(op.name, _same)


_fill()

"""Inlining: which elementwise operations are computed in the loop of what reads them, so that they need no memory.

A chain of elementwise operations then is one pass over memory, with the reduction or the concatenation behind it. The
peak never grows by it: an operation is inlined only if the operands that must be kept until its reader runs take no
more bytes than its own result would, or if the reader follows at once and can lie where the result would have lain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..ir.target import Target
from .donation import exact, lodgings, meets

INTO = {"copy", "sum", "max", "min", "cumsum", "place"}
"""Operations besides the elementwise ones whose loops can compute what they read."""
BY_PLACE = INTO | {"gather", "scatter_add"}
"""Those that can compute an `arange`, whose element is its place."""
MOST_OPERANDS, MOST_OPERATIONS = 12, 64
"""Arrays that one loop reads, and operations that it does: addresses and values are to stay in registers."""


def inlined(graph: Graph, target: Target) -> frozenset[Node]:
    """The nodes that their readers compute.

        a: f32[9] = exp(x)              # in the loop of s, and so is b
        b: f32[9] = a * y
        s: f32 = sum(b, axis=0)

    An operation with several readers is inlined where computing it again is as cheap as reading it: one flop an
    element, of one array. What reads a donated input is inlined where that part of it is still there then. Linear in
    the graph.
    """
    return frozenset(_Inlining(graph, target).run())


class _Inlining:
    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph = graph
        self.lodged = list(lodgings(graph, target).items())
        self.donated = {lodging.input for _, lodging in self.lodged}
        self.place = {node: at for at, node in enumerate(graph.nodes)}
        self.kept = {buffer(v) for v in graph.outputs}
        self.readers: dict[Value, list[Node]] = {}
        self.viewed: set[Value] = set()
        self.last: dict[Value, int] = {}
        for at, node in enumerate(graph.nodes):
            for v in dict.fromkeys(node.operands):
                if node.op.view:
                    continue
                root = buffer(v)
                self.last[root] = at
                self.readers.setdefault(root, []).append(node)
                if root is not v:
                    self.viewed.add(root)
        self.found: dict[Node, tuple[Value, ...]] = {}  # with what is read for it
        self.length: dict[Node, int] = {}

    def run(self) -> Iterator[Node]:
        for node in self.graph.nodes:
            if node.op.view or node.result in self.kept:
                continue
            readers = self.readers.get(node.result, [])
            if node.op.name == "arange":
                if all(_by_place(node.result, reader) for reader in readers):
                    self.found[node] = ()
            elif (node.op.elementwise or node.op.name == "copy") and readers and node.result not in self.viewed \
                    and all(reader.op.elementwise or reader.op.name in INTO for reader in readers):
                self._try(node, readers)
        yield from self.found

    def _try(self, node: Node, readers: list[Node]) -> None:
        """Inline the node, unless more memory or time would be needed."""
        operands = self._operands(node)
        inner = [v.node for v in node.operands if v.node in self.found]
        if len(readers) > 1 and (node.op.weight > 1 or node.op.name == "divide" or len(operands) > 1 or inner):
            return
        length = 1 + sum(self.length.get(n, 0) for n in inner if n is not None)
        if length > MOST_OPERATIONS or any(len({*operands, *self._operands(reader)}) > MOST_OPERANDS
                                           for reader in readers if reader.op.name != "place"):
            return
        until = max(self.place[reader] for reader in readers)
        if self.lodged and not self._still_there(node, operands, readers):
            return
        longer = [r for r in dict.fromkeys(map(buffer, operands))
                  if r.node is not None and r not in self.kept and self.last[r] < until]
        if sum(r.type.bytes for r in longer) > node.result.type.bytes and not self._next(node, until):
            return
        for r in longer:
            self.last[r] = until
        self.found[node], self.length[node] = operands, length

    def _still_there(self, node: Node, operands: Sequence[Value], readers: Sequence[Node]) -> bool:
        """Has none of the readers run after what is written over the donated inputs that the node reads? The one that
        writes may read the elements that it writes."""
        for v in operands:
            for value, home in self.lodged if buffer(v) in self.donated else ():
                if value.node is node or not meets(v, home.input, home.offset, value.type.bytes):
                    continue
                for reader in readers:
                    after = self.place[reader] - self.place[value.node]  # type: ignore[index]
                    if after > 0 or (after == 0 and not (
                            value.type.bytes == v.type.bytes and exact(v, home.offset) and reader.op.elementwise)):
                        return False
        return True

    def _next(self, node: Node, until: int) -> bool:
        """Does an elementwise reader of the same type follow at once, which then can lie where the node would have?"""
        reader = self.graph.nodes[until]
        start = self.place[node] + 1
        return (reader.op.elementwise and reader.result.type is node.result.type and until - start < MOST_OPERATIONS
                and all(n.op.view or n in self.found for n in self.graph.nodes[start:until]))

    def _operands(self, node: Node) -> tuple[Value, ...]:
        """What the node's loop reads, as far as is decided."""
        read: dict[Value, None] = {}
        for v in node.operands:
            made = buffer(v).node
            inner = self.found.get(made) if made is not None else None
            read.update(dict.fromkeys((v,) if inner is None else inner))
        return tuple(v for v in read if not isinstance(buffer(v), Constant))


def _by_place(value: Value, reader: Node) -> bool:
    """Can the reader's loop compute the arange?"""
    if reader.op.name == "gather":
        return buffer(reader.operands[0]) is not value
    return reader.op.elementwise or reader.op.name in BY_PLACE

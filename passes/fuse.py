"""Fuse: what works row by row on large values is enclosed in regions, so that these are never stored whole.

A part begins where an operation makes rows much wider than those that it reads: scores of a query against all keys,
logits of a token over all words, the hidden layer of an MLP, a table of distances. It grows until every wide value is
read inside only: over the readers of wide values, over what makes other wide values that they read, over what depends
on no input (masks, positions), and over all that lies between. Which axes are rows, and whether an operation may work
on a block of them, is read off the operations (ir/rows.py); nothing is known of attention. Rabe and Staats (2021)
and Dao, Fu, Ermon, Rudra and Ré (2022) do this by hand for softmax attention.

    S: f32[T, T] = Q @ K_t          # T wide, from d
    P: f32[T, T] = exp(S)
    R: f32[T, d] = P @ V            # narrow again: Q, K and V in, R out, nothing T x T is left
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir.arrays import Arrays
from ..ir.diagnostics import Fault
from ..ir.graph import Builder, Constant, Graph, Node, Value
from ..ir.rows import Axis, Classes, Rows, rows_of
from .rebuild import extended
from .regions import STATISTIC, substitute

PAYS = 4.0
"""A part is fused by default if its widest value is so many times wider than all that it reads and gives, by row."""
SMALLEST = 1 << 18
"""And if that value takes so many bytes: below, a loop costs more than it spares."""

LARGEST = 1000
"""So many operations are no row's work, but a program."""


@dataclass(frozen=True)
class Refused:
    """Why what begins at a node, which makes wide rows, is not fused."""

    node: Node
    reason: str


@dataclass(frozen=True, eq=False)
class Part:
    """Operations that share a loop over rows. `gain` is the width of the widest value over that of the boundary, by
    row; `wide` are the values inside that are as wide."""

    nodes: tuple[Node, ...]
    body: Graph
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    gain: float
    wide: tuple[Value, ...]


def fuse(graph: Graph, *, least: float = 1.0, smallest: int = 0) -> Graph:
    """The program with regions in the place of all parts whose `gain` is at least `least`, and whose widest value takes
    at least `smallest` bytes, and `least` times those of the sums over rows, to which every block adds.

    Equal parts share one body. Statistics of rows that the derivative can use (maxima, sums) become results. A
    `@scheduled` program is left alone.
    """
    if graph.scheduled:
        return graph
    chosen = [part for part in _Parts(graph, least).found()
              if isinstance(part, Part) and max(v.type.bytes for v in part.wide) >= max(smallest, least * _sums(part))]
    return replaced(graph, chosen) if chosen else graph


def _sums(part: Part) -> int:
    """Bytes of the results that are sums over rows."""
    rows = rows_of(part.body)
    return sum(v.type.bytes for v in part.body.outputs if rows.summed(v))


def refusals(graph: Graph) -> list[Refused]:
    """What begins like a part and is none, and what stops it."""
    return [part for part in _Parts(graph, 1.0).found() if isinstance(part, Refused)]


class _Parts:
    """The search for parts in one graph, that gain `least` or more."""

    def __init__(self, graph: Graph, least: float) -> None:
        self.graph, self.least = graph, least
        self.place = {node: at for at, node in enumerate(graph.nodes)}
        self.outputs = set(graph.outputs)
        self.readers: dict[Value, list[Node]] = {}
        self.settled: set[Node] = set()
        for node in graph.nodes:
            for v in dict.fromkeys(node.operands):
                self.readers.setdefault(v, []).append(node)
            if all(isinstance(v, Constant) or v.node in self.settled for v in node.operands):
                self.settled.add(node)

    def found(self) -> Iterator[Part | Refused]:
        """Disjoint parts, and what is none; those of the largest values first."""
        taken: set[Node] = set()
        tried: set[Node] = set()
        for seed in sorted((n for n in self.graph.nodes if self._widens(n)),
                           key=lambda n: (-n.result.type.bytes, self.place[n])):
            if seed in taken or seed in tried:
                continue
            parts, reasons = [], []
            rank = seed.result.type.rank
            for axis in (*range(rank - 2, -1, -1), rank - 1):
                growth = _Growth(self, seed, axis, taken)
                try:
                    parts.append(growth.part())
                except Fault as fault:
                    reasons.append(fault.message)
                    tried |= growth.nodes
                    if growth.meagre:  # along another axis the loop would sum over its blocks what it gives
                        break
            if parts:
                part = min(parts, key=lambda p: sum(v.type.bytes for v in p.results))
                taken.update(n for n in part.nodes if n not in self.settled)
                yield part
            else:
                yield Refused(seed, reasons[0])

    def _widens(self, node: Node) -> bool:
        """Does the operation make rows wider than those it reads?"""
        if node.op.name == "region" or len(node.results[0].shape) < 2 or node in self.settled:
            return False
        z = node.result
        if node.op.name == "matmul":
            return z.shape[-1] > node.operands[0].shape[-1] and z.shape[-2] > 1
        if not node.op.elementwise:
            return False
        made = [_beneath(v) for v in node.operands if not isinstance(v, Constant)]
        return all(2 * v.type.size <= z.type.size for v in made)


def _beneath(value: Value) -> Value:
    """What a value repeats."""
    while value.node is not None and value.node.op.name in ("broadcast_to", "reshape"):
        value = value.node.operands[0]
    return value


class _Growth:
    """One part, from the operation that makes wide rows on."""

    def __init__(self, parts: _Parts, seed: Node, axis: int, taken: set[Node]) -> None:
        self.parts, self.seed, self.taken = parts, seed, taken
        self.classes = Classes()
        self.nodes: set[Node] = set()
        z = seed.result
        self.row: Axis = (z, axis)
        self.others: list[Axis] = [(z, a) for a in range(min(axis, z.type.rank - 2))]
        self.enough = 0
        self.meagre = False
        self._add(seed)
        read = [v for v in map(_beneath, seed.operands) if not isinstance(v, Constant)]
        narrow = max((self._width(v) for v in read if self.classes.along(v, self.row)), default=1)
        self.enough = math.isqrt(self._width(z) * narrow)
        """Wider than this is wide: the geometric mean of the widths before and behind the seed."""

    def part(self) -> Part:
        """The part; Fault E0121 with the reason where there is none."""
        self._grow()
        nodes = sorted(self.nodes, key=self.parts.place.__getitem__)
        made = {v for n in nodes for v in n.results}
        results = [v for n in nodes for v in n.results
                   if v in self.parts.outputs or any(r not in self.nodes for r in self.parts.readers.get(v, ()))]
        results = [v for v in results if v.node not in self.parts.settled]
        operands = list(dict.fromkeys(v for n in nodes for v in n.operands
                                      if v not in made and not isinstance(v, Constant)))
        widths = {v: self._width(v) for v in made if self.classes.along(v, self.row)}
        widest = max(widths.values())
        across = sum(w for v in (*operands, *results) if self.classes.along(v, self.row)
                     and (w := self._width(v)) <= self.enough)
        gain = widest / max(across, 1)
        if gain < self.parts.least:
            self.meagre = True
            raise Fault("E0121", f"what it reads and gives is {1 / gain:.1f} times as wide as its widest value")
        statistics = [v for v in self._statistics(nodes, widths, widest) if v not in results]
        results += statistics
        body, order = self._body(nodes, operands, results)
        wide = tuple(v for n in nodes for v in n.results if widths.get(v, 0) > self.enough)
        return Part(tuple(nodes), body, tuple(order), tuple(results), gain, wide)

    def _grow(self) -> None:
        pending = [self.seed]
        while pending:
            node = pending.pop()
            for value in node.results:
                if node not in self.parts.settled and self._wide(value):
                    if value in self.parts.outputs:
                        raise Fault("E0121", f"'{value.name}' is an output")
                    pending += self._added(self.parts.readers.get(value, ()))
            pending += self._added(v.node for v in node.operands if v.node is not None
                                   and (v.node in self.parts.settled or self._wide(v) or _slight(v.node)))
            if not pending:
                pending += self._added(self._between())

    def _added(self, nodes: Iterable[Node]) -> list[Node]:
        new = [n for n in dict.fromkeys(nodes) if n not in self.nodes]
        if len(self.nodes) + len(new) > LARGEST:
            self.nodes.update(new)
            raise Fault("E0121", f"more than {LARGEST} operations hang together")
        for node in new:
            if node in self.taken:
                raise Fault("E0121", f"'{node.results[0].name}' belongs to another region")
            self._add(node)
        return new

    def _add(self, node: Node) -> None:
        if node.op.name == "region":
            raise Fault("E0121", f"'{node.results[0].name}' is made by another region")
        self.nodes.add(node)
        self.classes.add(node)
        for value in (*node.operands, *node.results):
            if not isinstance(value, Constant):
                self.classes.place(value, self.row)

    def _between(self) -> list[Node]:
        """What lies on a way from one operation of the part to another."""
        place = self.parts.place
        first, last = min(place[n] for n in self.nodes), max(place[n] for n in self.nodes)
        nodes = self.parts.graph.nodes[first:last + 1]
        below: set[Node] = set()
        for node in nodes:
            if any(v.node in self.nodes or v.node in below for v in node.operands if v.node not in self.parts.settled):
                below.add(node)
        above: set[Node] = set()
        for node in reversed(nodes):
            if any(r in self.nodes or r in above for v in node.results for r in self.parts.readers.get(v, ())):
                above.add(node)
        return [n for n in nodes if n in below and n in above and n not in self.nodes]

    def _width(self, value: Value) -> int:
        """Elements of the value in one row."""
        lengths = [value.shape[a] for axis in (self.row, *self.others) for a in self.classes.along(value, axis)]
        width = value.type.size
        for n in lengths:
            width //= max(n, 1)
        return width

    def _wide(self, value: Value) -> bool:
        return not isinstance(value, Constant) and bool(self.classes.along(value, self.row)) \
            and self._width(value) > self.enough

    def _statistics(self, nodes: Sequence[Node], widths: dict[Value, int],
                    widest: int) -> list[Value]:
        """Narrow values that are reduced from wide ones and that wide ones depend on: kept for the derivative, which
        then need not compute them again."""
        found = []
        for node in nodes:
            if node.op.family != "reduction" or widths.get(node.operands[0], 0) <= self.enough:
                continue
            value = node.result
            if STATISTIC * widths.get(value, widest) <= widest and self._feeds_wide(value):
                found.append(value)
        return found

    def _feeds_wide(self, value: Value) -> bool:
        stack, seen = [value], {value}
        while stack:
            for reader in self.parts.readers.get(stack.pop(), ()):
                if reader in self.nodes and reader.result not in seen:
                    if self._wide(reader.result):
                        return True
                    seen.add(reader.result)
                    stack.append(reader.result)
        return False

    def _body(self, nodes: Sequence[Node], operands: Sequence[Value],
              results: Sequence[Value]) -> tuple[Graph, list[Value]]:
        """The body, and its operands in the order in which it takes them: first the one of which most axes are cut."""
        name = f"{results[0].name}_rows" if results else "rows"
        best: tuple[Graph, list[Value], Rows] | None = None
        for first in operands:
            if self.classes.along(first, self.row) != [max(0, first.type.rank - 2)]:
                continue
            order = [first, *(v for v in operands if v is not first)]
            body = enclosed(name, nodes, order, results)
            rows = rows_of(body)
            if best is None or len(rows.lengths) > len(best[2].lengths):
                best = body, order, rows
            if len(best[2].lengths) > len(self.others):
                break
        if best is None:
            raise Fault("E0121", f"nothing that is read has the rows of '{self.row[0].name}' along its last axis but "
                                 "one")
        return best[0], best[1]


def _slight(node: Node) -> bool:
    """Is it a view that swaps the last two axes alone, or puts in or takes out axes of length 1? Such a view is taken
    into the part: the operand is what it looks into."""
    if node.op.name == "reshape":
        x, z = node.operands[0].shape, node.result.shape
        return [n for n in x if n != 1] == [n for n in z if n != 1]
    if node.op.name != "permute_dims":
        return False
    axes = node.attributes["axes"]
    last = len(axes) - 1
    return bool(axes == (*range(last - 1), last, last - 1))


def boundary(graph: Graph, nodes: Sequence[Node]) -> tuple[list[Value], list[Value]]:
    """What some of a graph's operations read from outside, and what of theirs is read there or is an output."""
    inside = set(nodes)
    made = {v for n in nodes for v in n.results}
    read = {v for n in graph.nodes if n not in inside for v in n.operands} | set(graph.outputs)
    operands = dict.fromkeys(v for n in nodes for v in n.operands if v not in made and not isinstance(v, Constant))
    return list(operands), [v for n in nodes for v in n.results if v in read]


def enclosed(name: str, nodes: Sequence[Node], operands: Sequence[Value], results: Sequence[Value]) -> Graph:
    """The nodes as a graph of its own, regions among them replaced by their bodies."""
    builder = Builder(name)
    now: dict[Value, Value] = {v: builder.input(v.name, v.type, span=v.span) for v in operands}
    substitute(Arrays(builder), Graph(name, operands, nodes, results, {}, len(operands)), now, named=True)
    return builder.finish([now[v] for v in results]).tiled(())


def replaced(graph: Graph, parts: Sequence[Part]) -> Graph:
    """The graph with a region in the place of each part: where its last operand is there, before its first reader."""
    inside = {n: part for part in parts for n in part.nodes}
    builder = extended(graph, nodes=False)
    builder.adopt(n for n in graph.nodes if n not in inside)
    bodies: dict[tuple[Any, ...], Graph] = {}
    now: dict[Value, Value] = {}
    for item in _order(graph, parts, inside):
        operands = [now.get(v, v) for v in item.operands]
        if isinstance(item, Part):
            body = bodies.setdefault(structure(item.body), item.body)
            results = builder.region(body, operands, span=item.nodes[0].result.span)
            for old, new in zip(item.results, results, strict=True):
                new.name = old.name
                now[old] = new
        elif operands == list(item.operands):
            builder.nodes.append(item)
        else:
            now.update(zip(item.results, builder.again(item, operands), strict=True))
    return builder.finish([now.get(v, v) for v in graph.outputs], [v.name for v in graph.outputs])


def _order(graph: Graph, parts: Sequence[Part], inside: dict[Node, Part]) -> Iterator[Node | Part]:
    """Operations and parts, each after what it reads; operations as the graph has them where that is possible."""
    outside_reads = {v for n in graph.nodes if n not in inside for v in n.operands} | set(graph.outputs)
    made_by: dict[Value, Part] = {v: part for part in parts for v in part.results}
    done: set[Node | Part] = set()
    settled = {n for n in inside if any(v in outside_reads and v not in made_by for v in n.results)}

    def first(item: Node | Part) -> Iterator[Node | Part]:
        """What has to come before the item and has not yet, then the item; without recursion."""
        stack: list[tuple[Node | Part, bool]] = [(item, False)]
        while stack:
            at, ready = stack.pop()
            if at in done:
                continue
            if ready:
                done.add(at)
                yield at
                continue
            stack.append((at, True))
            for v in reversed(at.operands):
                if v in made_by:
                    stack.append((made_by[v], False))
                elif v.node is not None and v.node not in done:
                    stack.append((v.node, False))

    for node in graph.nodes:
        if node not in inside or node in settled:
            yield from first(node)
        elif any(v in made_by for v in node.results):
            yield from first(inside[node])


def structure(body: Graph) -> tuple[Any, ...]:
    """Equal for bodies that differ in names alone."""
    number = {v: at for at, v in enumerate(body.values())}

    def operand(v: Value) -> Any:
        return (v.bits, v.dtype) if isinstance(v, Constant) else number[v]

    return (tuple(v.type for v in body.inputs),
            tuple((n.op.name, tuple(map(operand, n.operands)), repr(sorted(n.attributes.items()))) for n in body.nodes),
            tuple(map(operand, body.outputs)))

"""Which elements of the outputs depend on which elements of the inputs: the pattern of a Jacobian, without its values.

Each element of each value has a bit set, a Python integer, of the input elements that a derivative reaches it from. An
operation joins the sets of what it reads, element by element; a view of an array is the same view of its sets
(Griewank and Walther 2008, section 7.1). Arrays of sets are NumPy arrays of objects. Inputs are taken a strip at a
time, so that memory grows with the elements that depend on one strip, not with elements times inputs.

The pattern is exact as far as structure goes: an entry that is left out is zero at every point. Numbers are not looked
at, so what cancels (`x - x`) is an entry; so is, of a gather, each element that an index could take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import numpy

from ..ir.graph import Graph, Node, Value
from ..ir.shapes import Index
from ..ir.tables import rows
from ..ir.types import Shape
from .activity import dependent, differentiable_operands

STRIP = 4096
"""Input elements that one pass over the program follows."""

Bits = Any
"""The set of one element, an int; of an array, an array of ints."""


class Pattern(NamedTuple):
    """The entries of a matrix that may differ from zero, row by row, columns ascending within a row."""

    rows: numpy.ndarray[Any, numpy.dtype[numpy.int64]]
    columns: numpy.ndarray[Any, numpy.dtype[numpy.int64]]
    shape: tuple[int, int]


def pattern(graph: Graph, inputs: Sequence[Value], outputs: Sequence[Value]) -> Pattern:
    """The pattern of the Jacobian: a row for each element of `outputs`, a column for each of `inputs`, end to end."""
    active = dependent(graph, inputs)
    steps = [(node, frozenset(p for p in differentiable_operands(node) if node.operands[p] in active))
             for node in graph.nodes if node.results[0] in active]
    last: dict[Value, int] = {node.operands[p]: at for at, (node, positions) in enumerate(steps) for p in positions}
    last |= dict.fromkeys(outputs, len(steps))
    dying: list[list[Value]] = [[] for _ in range(len(steps) + 1)]
    for value, at in last.items():
        dying[at].append(value)
    width = sum(v.type.size for v in inputs)
    found = []
    for start in range(0, width, STRIP):
        known = dict(_unit_sets(inputs, start))
        for at, (node, positions) in enumerate(steps):
            rule = RULES.get(node.op.name, _union)
            known[node.results[0]] = rule(node, [known[v] if p in positions else 0
                                                 for p, v in enumerate(node.operands)])
            for value in dying[at]:
                del known[value]
        found += [(rows, columns + start) for rows, columns in _entries([known.get(v, 0) for v in outputs], outputs)]
    height = sum(v.type.size for v in outputs)
    none = numpy.zeros(0, numpy.int64)
    rows = numpy.concatenate([none, *(r for r, _ in found)])
    columns = numpy.concatenate([none, *(c for _, c in found)])
    order = numpy.argsort(rows, kind="stable")
    return Pattern(rows[order], columns[order], (height, width))


def _unit_sets(inputs: Sequence[Value], start: int) -> Iterator[tuple[Value, Bits]]:
    """Each element of the strip is the set of itself; the others are empty."""
    first = 0
    for value in inputs:
        size = value.type.size
        sets = numpy.zeros(size, object)
        for element in range(max(0, start - first), min(size, start + STRIP - first)):
            sets[element] = 1 << (first + element - start)
        first += size
        yield value, sets.reshape(value.shape) if value.shape else sets[0]


def _entries(sets: Sequence[Bits], outputs: Sequence[Value]) -> Iterator[tuple[Any, Any]]:
    """Row and column numbers of the members of all sets, some thousand rows at a time."""
    flat: list[int] = []
    for bits, value in zip(sets, outputs, strict=True):
        flat += _array(_repeated(bits, value.shape)).ravel().tolist()
    full = [row for row, bits in enumerate(flat) if bits]
    for at in range(0, len(full), 1024):
        block = full[at:at + 1024]
        raw = b"".join(flat[row].to_bytes(STRIP // 8, "little") for row in block)
        members = numpy.unpackbits(numpy.frombuffer(raw, numpy.uint8), bitorder="little").reshape(len(block), STRIP)
        rows, columns = numpy.nonzero(members)
        yield numpy.asarray(block)[rows], columns


# One rule for each operation that is not elementwise: the sets of its result ---------------------------------------

_Rule = Callable[[Node, list[Bits]], Bits]
RULES: dict[str, _Rule] = {}


_rule = rows(RULES)


def _union(node: Node, sets: list[Bits]) -> Bits:
    """Elementwise."""
    return reduce(or_, sets)


def _array(sets: Bits) -> Any:
    return numpy.asarray(sets, object)


def _repeated(sets: Bits, shape: Shape) -> Bits:
    return numpy.broadcast_to(_array(sets), shape)[()]


def _any(sets: Bits, axes: tuple[int, ...], keepdims: bool = False) -> Bits:
    joined = numpy.bitwise_or.reduce(_array(sets), axis=axes, initial=0)
    return numpy.expand_dims(joined, axes) if keepdims else joined


@_rule("copy stop_gradient arange")
def _same(node: Node, sets: list[Bits]) -> Bits:
    return sets[0]


@_rule("reshape")
def _reshape(node: Node, sets: list[Bits]) -> Bits:
    return _array(sets[0]).reshape(node.attributes["shape"])[()]


@_rule("broadcast_to")
def _broadcast(node: Node, sets: list[Bits]) -> Bits:
    return _repeated(sets[0], node.attributes["shape"])


@_rule("permute_dims")
def _permute(node: Node, sets: list[Bits]) -> Bits:
    return _array(sets[0]).transpose(node.attributes["axes"])[()]


@_rule("slice")
def _slice(node: Node, sets: list[Bits]) -> Bits:
    return sets[0][_subscript(node.attributes["index"])]


@_rule("place")
def _place(node: Node, sets: list[Bits]) -> Bits:
    made = numpy.zeros(node.attributes["shape"], object)
    for part, at in zip(sets, node.attributes["at"], strict=True):
        made[_subscript(at)] |= part
    return made


def _subscript(index: Index) -> tuple[Any, ...]:
    return tuple(e if isinstance(e, int) else slice(e[0], None if e[1] < 0 else e[1], e[2]) for e in index)


@_rule("sum max min")
def _reduce(node: Node, sets: list[Bits]) -> Bits:
    return _any(sets[0], node.attributes["axis"])


@_rule("cumsum")
def _cumsum(node: Node, sets: list[Bits]) -> Bits:
    return numpy.bitwise_or.accumulate(sets[0], axis=node.attributes["axis"])


@_rule("matmul")
def _matmul(node: Node, sets: list[Bits]) -> Bits:
    """An element is made of a row and a column."""
    shape = node.results[0].shape
    rows, columns = (numpy.broadcast_to(_any(x, (axis,), keepdims=True), shape) if isinstance(x, numpy.ndarray) else 0
                     for x, axis in zip(sets, (-1, -2), strict=True))
    return rows | columns


@_rule("gather")
def _gather(node: Node, sets: list[Bits]) -> Bits:
    """Any element along the axes that are indexed."""
    return _repeated(_any(sets[0], tuple(range(len(node.operands) - 1))), node.results[0].shape)


@_rule("scatter_add")
def _scatter(node: Node, sets: list[Bits]) -> Bits:
    """To any element along the axes that are indexed."""
    return _repeated(_any(sets[0], tuple(range(node.operands[1].type.rank))), node.results[0].shape)

"""Which elements of the outputs depend on which elements of the inputs: the pattern of a Jacobian, without its values.

Each element of each value has a bit set, a Python integer, of the input elements that a derivative reaches it from. An
operation joins the sets of what it reads, element by element; a view of an array is the same view of its sets
(Griewank and Walther 2008, section 7.1). Arrays of sets are NumPy arrays of objects. Inputs are taken a strip at a
time, so that memory grows with the elements that depend on one strip, not with elements times inputs.

The pattern is exact as far as structure goes: an entry that is left out is zero at every point. Numbers are not looked
at, so what cancels (`x - x`) is an entry. Indices and conditions are looked at where they are known (`decided`); of a
gather whose index is not, each element that it could take is an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy

from ..ir.graph import Constant, Graph, Node, Value
from ..ir.shapes import Index
from ..ir.tables import rows
from ..ir.types import Shape
from .activity import dependent, differentiable_operands
from .rebuild import extended
from .simplify import simplify

STRIP = 4096
"""Input elements that one pass over the program follows."""

Bits = Any
"""The set of one element, an int; of an array, an array of ints."""


class Pattern(NamedTuple):
    """The entries of a matrix that may differ from zero, row by row, columns ascending within a row."""

    rows: numpy.ndarray[Any, numpy.dtype[numpy.int64]]
    columns: numpy.ndarray[Any, numpy.dtype[numpy.int64]]
    shape: tuple[int, int]


Known = Mapping[Value, Any]
"""The arrays of indices and conditions that do not depend on the point."""


def pattern(graph: Graph, inputs: Sequence[Value], outputs: Sequence[Value], known: Known = MappingProxyType({}),
            ) -> Pattern:
    """The pattern of the Jacobian: a row for each element of `outputs`, a column for each of `inputs`, end to end.

    IndexError for a known index that is out of range.
    """
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
        sets = dict(_unit_sets(inputs, start))
        for at, (node, positions) in enumerate(steps):
            rule = RULES.get(node.op.name, _union)
            sets[node.results[0]] = rule(node, [sets[v] if p in positions else 0
                                                for p, v in enumerate(node.operands)], known)
            for value in dying[at]:
                del sets[value]
        found += [(rows, columns + start) for rows, columns in _entries([sets.get(v, 0) for v in outputs], outputs)]
    height = sum(v.type.size for v in outputs)
    none = numpy.zeros(0, numpy.int64)
    rows = numpy.concatenate([none, *(r for r, _ in found)])
    columns = numpy.concatenate([none, *(c for _, c in found)])
    order = numpy.argsort(rows, kind="stable")
    return Pattern(rows[order], columns[order], (height, width))


def decided(graph: Graph, data: Sequence[str]) -> tuple[Graph, list[Value]] | None:
    """A program of the inputs `data` alone, and which values of the graph its outputs are: the indices and conditions
    that they and constants decide. None if there are none."""
    settled = {v for v in graph.inputs if v.name in data}
    nodes: list[Node] = []
    wanted: dict[Value, None] = {}
    for node in graph.nodes:
        for operand in node.operands[_DECIDING.get(node.op.name, slice(0, 0))]:
            if operand in settled:
                wanted[operand] = None
        if all(isinstance(v, Constant) or v in settled for v in node.operands):
            settled.update(node.results)
            nodes.append(node)
    if not wanted:
        return None
    builder = extended(graph, nodes=False)
    builder.inputs = [v for v in graph.inputs if v.name in data]
    builder.first_data, builder.nodes = None, nodes
    builder.defaults = {}
    return simplify(builder.finish(list(wanted), original=graph)), list(wanted)


_DECIDING = {"gather": slice(1, None), "scatter_add": slice(1, None), "where": slice(0, 1)}
"""The operands that say which elements of the others are taken."""


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
    """Row and column numbers of the members of all sets, some thousand rows at a time; most bytes are zero."""
    flat: list[int] = []
    for bits, value in zip(sets, outputs, strict=True):
        flat += _array(_repeated(bits, value.shape)).ravel().tolist()
    full = [row for row, bits in enumerate(flat) if bits]
    width = STRIP // 8
    for first in range(0, len(full), 1024):
        block = full[first:first + 1024]
        raw = numpy.frombuffer(b"".join(flat[row].to_bytes(width, "little") for row in block), numpy.uint8)
        at = numpy.flatnonzero(raw)
        byte, bit = numpy.nonzero(numpy.unpackbits(raw[at], bitorder="little").reshape(-1, 8))
        row, column = numpy.divmod(at[byte], width)
        yield numpy.asarray(block)[row], 8 * column + bit


# One rule for each operation that is not elementwise: the sets of its result ---------------------------------------

_Rule = Callable[[Node, list[Bits], Known], Bits]
RULES: dict[str, _Rule] = {}


_rule = rows(RULES)


def _union(node: Node, sets: list[Bits], known: Known) -> Bits:
    """Elementwise."""
    return reduce(or_, sets)


def _array(sets: Bits) -> Any:
    return numpy.asarray(sets, object)


def _repeated(sets: Bits, shape: Shape) -> Bits:
    return numpy.broadcast_to(_array(sets), shape)[()]


def _any(sets: Bits, axes: tuple[int, ...], keepdims: bool = False) -> Bits:
    joined = numpy.bitwise_or.reduce(_array(sets), axis=axes, initial=0)
    return numpy.expand_dims(joined, axes) if keepdims else joined


@_rule("copy stop_gradient arange all_reduce wait")
def _same(node: Node, sets: list[Bits], known: Known) -> Bits:
    return sets[0]


@_rule("reshape")
def _reshape(node: Node, sets: list[Bits], known: Known) -> Bits:
    return _array(sets[0]).reshape(node.attributes["shape"])[()]


@_rule("broadcast_to")
def _broadcast(node: Node, sets: list[Bits], known: Known) -> Bits:
    return _repeated(sets[0], node.attributes["shape"])


@_rule("permute_dims")
def _permute(node: Node, sets: list[Bits], known: Known) -> Bits:
    return _array(sets[0]).transpose(node.attributes["axes"])[()]


@_rule("slice")
def _slice(node: Node, sets: list[Bits], known: Known) -> Bits:
    return sets[0][_subscript(node.attributes["index"])]


@_rule("place")
def _place(node: Node, sets: list[Bits], known: Known) -> Bits:
    made = numpy.zeros(node.attributes["shape"], object)
    for part, at in zip(sets, node.attributes["at"], strict=True):
        made[_subscript(at)] |= part
    return made


def _subscript(index: Index) -> tuple[Any, ...]:
    return tuple(e if isinstance(e, int) else slice(e[0], None if e[1] < 0 else e[1], e[2]) for e in index)


@_rule("sum max min")
def _reduce(node: Node, sets: list[Bits], known: Known) -> Bits:
    return _any(sets[0], node.attributes["axis"])


@_rule("cumsum")
def _cumsum(node: Node, sets: list[Bits], known: Known) -> Bits:
    return numpy.bitwise_or.accumulate(sets[0], axis=node.attributes["axis"])


@_rule("matmul")
def _matmul(node: Node, sets: list[Bits], known: Known) -> Bits:
    """An element is made of a row and a column."""
    shape = node.results[0].shape
    rows, columns = (numpy.broadcast_to(_any(x, (axis,), keepdims=True), shape) if isinstance(x, numpy.ndarray) else 0
                     for x, axis in zip(sets, (-1, -2), strict=True))
    return rows | columns


@_rule("where")
def _where(node: Node, sets: list[Bits], known: Known) -> Bits:
    """The branch that is taken, or both."""
    condition = known.get(node.operands[0])
    return sets[1] | sets[2] if condition is None else numpy.where(condition, _array(sets[1]), _array(sets[2]))[()]


@_rule("gather")
def _gather(node: Node, sets: list[Bits], known: Known) -> Bits:
    """The elements that are taken, or any along the axes that are indexed."""
    indices: Any = tuple(known.get(v) for v in node.operands[1:])
    if all(i is not None for i in indices):
        return sets[0][indices]
    return _repeated(_any(sets[0], tuple(range(len(indices)))), node.results[0].shape)


@_rule("scatter_add")
def _scatter(node: Node, sets: list[Bits], known: Known) -> Bits:
    """To the elements that are indexed, or to any along those axes."""
    indices: Any = tuple(known.get(v) for v in node.operands[1:])
    if all(i is not None for i in indices):
        made = numpy.zeros(node.results[0].shape, object)
        numpy.bitwise_or.at(made, indices, sets[0])
        return made
    return _repeated(_any(sets[0], tuple(range(node.operands[1].type.rank))), node.results[0].shape)

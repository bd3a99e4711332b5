"""Scalarise: a program of small arrays as a program of their elements.

What is left of arrays are the inputs, read element by element, and the outputs, put together at the end. Between them
every operation is one on scalars: views cost nothing, a product of matrices is its multiplications and additions, and
an element that nothing reads is not computed. Sums are added in pairs, pairs of pairs, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from ..ir.diagnostics import Fault
from ..ir.graph import EMPTY, Constant, Graph, Node, Value
from ..ir.ops import OPS
from ..ir.tables import rows
from .rebuild import extended
from .regions import unfused
from .rewrite import Folding
from .simplify import simplify

MOST = 200_000
"""Scalar operations that a program of arrays may become."""

Elements = numpy.ndarray[Any, numpy.dtype[numpy.object_]]


def scalarise(graph: Graph) -> Graph:
    """An equal program of scalar operations; a program that has no arrays is returned as it is.

        def f(x: f64[2]):              def f(x: f64[2]):
            z: f64[2] = sin(x)             x_0: f64 = x[0]
            s: f64 = sum(z, axis=0)        z_0: f64 = sin(x_0)
            return s                       x_1: f64 = x[1]
                                           z_1: f64 = sin(x_1)
                                           s: f64 = z_0 + z_1
                                           return s

    Fault E0701 where an operation moves data by indices that are data, or where there would be more than `MOST`
    operations: such programs run as loops over arrays.
    """
    if not any(v.shape for v in graph.values()):
        return graph
    graph = unfused(graph)
    check(graph)
    return simplify(_Scalarised(graph).finish())


def fits(graph: Graph, most: int) -> bool:
    """Can the graph be scalarised, to at most so many operations?"""
    try:
        check(graph, most)
    except Fault:
        return False
    return True


def check(graph: Graph, most: int = MOST) -> None:
    """Fault E0701 where the graph cannot be scalarised, or is more than so many operations then."""
    graph = unfused(graph)
    total = sum(v.type.size for v in graph.inputs)
    for node in graph.nodes:
        if node.op.name in ("gather", "scatter_add"):
            raise Fault("E0701", f"{node.op.name} goes by indices that are data, and has no scalar form",
                        "emit an object file, which has loops")
        if node.op.name not in ("broadcast_to", "permute_dims"):  # which NumPy does without a copy
            total += max(node.results[0].type.size, node.flops // 2)
        if total > most:
            raise Fault("E0701", f"with arrays of this size {graph.name} has more than {most} operations on scalars",
                        "emit an object file, which has loops over arrays")


class _Scalarised:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.builder = extended(graph, nodes=False)
        self.arrays = Folding(self.builder)
        self.elements: dict[Value, Elements] = {}
        self.read: dict[tuple[Value, tuple[int, ...]], Value] = {}

    def finish(self) -> Graph:
        for value in self.graph.inputs:
            self.elements[value] = _array(value.shape, [(value, index) if value.shape else value
                                                        for index in numpy.ndindex(*value.shape)])
        for node in self.graph.nodes:
            self.arrays.span = node.results[0].span
            mark = len(self.builder.nodes)
            found = _RULES.get(node.op.name, _each)(self, node, [self.of(v) for v in node.operands])
            result = node.results[0]
            self.elements[result] = found
            self._name(result, found, mark)
        outputs = [self._output(v) for v in self.graph.outputs]
        return self.builder.finish(outputs, [v.name for v in self.graph.outputs])

    def of(self, value: Value) -> Elements:
        """The elements of an operand; a constant is one."""
        return _array((), [value]) if isinstance(value, Constant) else self.elements[value]

    def scalar(self, element: Any) -> Value:
        """An element as a value: that of an input is read when it is first used."""
        if isinstance(element, Value):
            return element
        known = self.read.get(element)
        if known is None:
            value, index = element
            known = self.arrays.emit(OPS["slice"], (value,), {"index": index})
            known = self.read[element] = known
            if not known.name:
                self.builder.name_value(known, "_".join([value.name, *map(str, index)]))
        return known

    def emit(self, name: str, *operands: Any, attributes: Mapping[str, Any] = EMPTY) -> Value:
        """One operation on scalars."""
        return self.arrays.emit(OPS[name], [self.scalar(v) for v in operands], attributes)

    def zero(self, node: Node) -> Value:
        return self.arrays.constant(0, node.results[0].dtype)

    def tree(self, name: str, items: Sequence[Any], empty: Value) -> Value:
        """The items combined in pairs, pairs of pairs, ..."""
        level = list(items)
        while len(level) > 1:
            level = [self.emit(name, level[i], level[i + 1]) if i + 1 < len(level) else level[i]
                     for i in range(0, len(level), 2)]
        return self.scalar(level[0]) if level else empty

    def _name(self, result: Value, found: Elements, mark: int) -> None:
        """Elements are called NAME_i_j, a scalar as it was; what else was made NAME_t."""
        places: dict[Value, tuple[int, ...]] = {}
        for index, element in numpy.ndenumerate(found):
            if isinstance(element, Value):
                places[element] = index
        for made in self.builder.nodes[mark:]:
            value = made.results[0]
            if not value.name:
                place = places.get(value)
                self.builder.name_value(value, f"{result.name}_t" if place is None else
                                        "_".join([result.name, *map(str, place)]))

    def _output(self, value: Value) -> Value:
        found = self.of(value)
        if not value.shape:
            return self.scalar(found[()])
        pieces, at = [], []
        for index, element in numpy.ndenumerate(found):
            scalar = self.scalar(element)
            if not (isinstance(scalar, Constant) and scalar.bits == self.arrays.constant(0, value.dtype).bits):
                pieces.append(scalar)
                at.append(index)
        if not value.type.size:
            nothing = self.arrays.full(value.shape, 0, value.dtype)
            self.builder.name_value(nothing, f"{value.name}_t")
            return nothing
        if not pieces:
            pieces, at = [self.arrays.constant(0, value.dtype)], [(0,) * len(value.shape)]
        whole = self.arrays.emit(OPS["place"], pieces, {"at": tuple(at), "shape": value.shape})
        if not whole.name:
            self.builder.name_value(whole, value.name)
        return whole


def _array(shape: tuple[int, ...], items: Sequence[Any]) -> Elements:
    made = numpy.empty(len(items), object)
    for i, item in enumerate(items):
        made[i] = item
    return made.reshape(shape)


Rule = Callable[[_Scalarised, Node, list[Elements]], Elements]
_RULES: dict[str, Rule] = {}


_rule = rows(_RULES)


def _each(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    """Elementwise: the operation on each element."""
    assert node.op.elementwise, node.op.name
    shape = node.results[0].shape
    spread = [numpy.broadcast_to(x, shape) for x in v]
    return _array(shape, [s.emit(node.op.name, *(x[i] for x in spread), attributes=node.attributes)
                          for i in numpy.ndindex(*shape)])


@_rule("broadcast_to")
def _broadcast(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    return numpy.broadcast_to(v[0], node.attributes["shape"])


@_rule("reshape")
def _reshape(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    return v[0].reshape(node.attributes["shape"])


@_rule("permute_dims")
def _permute(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    return v[0].transpose(node.attributes["axes"])


@_rule("slice")
def _slice(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    index = tuple(e if isinstance(e, int) else slice(e[0], None if e[1] < 0 else e[1], e[2])
                  for e in node.attributes["index"])
    found = numpy.empty(node.results[0].shape, object)
    found[...] = v[0][index] if found.shape else _array((), [v[0][index]])
    return found


@_rule("stop_gradient copy")
def _same(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    return v[0]


def _along(x: Elements, axes: tuple[int, ...]) -> Elements:
    """The axes that are reduced, together, last."""
    kept = [a for a in range(x.ndim) if a not in axes]
    return x.transpose([*kept, *axes]).reshape([*(x.shape[a] for a in kept), -1] if x.size else
                                               [*(x.shape[a] for a in kept), 0])


@_rule("sum max min")
def _reduction(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    result = node.results[0]
    names = {"sum": "add", "max": "maximum", "min": "minimum"}
    name = names[node.op.name]
    if result.dtype.kind == "bool":
        name = {"max": "logical_or", "min": "logical_and"}[node.op.name]
    rows = _along(v[0], node.attributes["axis"])
    return _array(result.shape, [s.tree(name, list(rows[i]), s.zero(node)) for i in numpy.ndindex(*result.shape)])


@_rule("cumsum")
def _cumsum(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    axis = node.attributes["axis"]
    axis = axis[0] if isinstance(axis, tuple) else axis
    found = v[0].copy()
    rows = numpy.moveaxis(found, axis, -1)
    for i in numpy.ndindex(*rows.shape[:-1]):
        for k in range(1, rows.shape[-1]):
            rows[(*i, k)] = s.emit("add", rows[(*i, k - 1)], rows[(*i, k)])
    return found


@_rule("matmul")
def _matmul(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    shape = node.results[0].shape
    a = numpy.broadcast_to(v[0], (*shape[:-2], *v[0].shape[-2:]))
    b = numpy.broadcast_to(v[1], (*shape[:-2], *v[1].shape[-2:]))
    found = []
    for *batch, i, j in numpy.ndindex(*shape):
        row, column = a[(*batch, i)], b[(*batch, slice(None), j)]
        found.append(s.tree("add", [s.emit("multiply", x, y) for x, y in zip(row, column)], s.zero(node)))
    return _array(shape, found)


@_rule("place")
def _place(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    found = numpy.empty(node.attributes["shape"], object)
    zero: Any = s.zero(node)
    found[...] = _array((), [zero])
    for piece, at in zip(v, node.attributes["at"]):
        index = tuple(e if isinstance(e, int) else slice(e[0], None if e[1] < 0 else e[1], e[2]) for e in at)
        there = found[index] if any(isinstance(e, slice) for e in index) else None
        if there is None:
            found[index] = piece[()] if found[index] is zero else s.emit("add", found[index], piece[()])
            continue
        for i in numpy.ndindex(*there.shape):
            there[i] = piece[i] if there[i] is zero else s.emit("add", there[i], piece[i])
    return found


@_rule("arange")
def _arange(s: _Scalarised, node: Node, v: list[Elements]) -> Elements:
    a = node.attributes
    numbers = range(a["start"], a["stop"], a["step"])
    return _array((len(numbers),), [s.arrays.constant(float(n) if a["dtype"].is_float else n, a["dtype"])
                                    for n in numbers])

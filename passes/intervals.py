"""Intervals: which columns a block of rows needs, where a mask leaves the others out.

A mask compares positions of rows with positions of columns (`j <= i`), so for a block of rows it is the same for all
columns left of some bound, and for all right of another. What is known there is followed through the body: where the
mask leaves a score out stands -inf, its exponential is 0, and so is what that is multiplied by. If each sum and product
over the columns is of zeros there, and each maximum of -inf, the columns outside add nothing, and a block sees those
between the bounds alone: half of them of a causal mask, as many as a window is wide.

    S = where(j <= i, Q @ K.T, -inf)    rows 64 to 127: -inf from column 128 on
    P = softmax(S)                      0 from column 128 on
    R = P @ V                           of the first 128 columns
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy

from ..ir.graph import Constant, Graph, Node, Value
from ..ir.rows import Axis, Classes, Rows, counted

Side = tuple[Any, int] | None
"""A number that a value is in all columns on one side of a bound, with that bound; None where nothing is known."""

_COMPARES: Final = {"less": (1, 1), "less_equal": (1, 0), "greater": (-1, 1), "greater_equal": (-1, 0)}
_FOLDED: Final[dict[str, Callable[..., Any]]] = {
    name: getattr(numpy, name) for name in
    ("exp", "exp2", "expm1", "negative", "add", "subtract", "multiply", "divide", "maximum", "minimum", "tanh", "sqrt",
     "abs", "logical_not", "logical_and", "logical_or", "less", "less_equal", "greater", "greater_equal", "equal",
     "not_equal")}
_NEUTRAL: Final = {"sum": 0.0, "max": -numpy.inf, "min": numpy.inf}


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns that masks cut: how many there are, and which axis of a value they are."""

    length: int
    axes: Mapping[Value, int]
    _intervals: _Intervals

    def interval(self, first: int, last: int) -> tuple[int, int]:
        """The columns [lo, hi) that rows `first` to `last` need; all of them where some row needs none, so that it is
        computed as in the whole program."""
        for row in (first, last):
            lo, hi = self._intervals.bounds(row, row)
            if lo >= hi:
                return 0, self.length
        lo, hi = self._intervals.bounds(first, last)
        return (lo, hi) if lo < hi else (0, self.length)


def columns_of(rows: Rows) -> Columns | None:
    """The columns of a body whose masks compare its rows with them; None where there are none."""
    body = rows.body
    classes = Classes(body.nodes)
    forms = _forms(rows, classes)
    for node in body.nodes:
        if node.op.name in _COMPARES:
            form = _difference(forms, node)
            if form is not None and form[0] and len(form[1]) == 1:
                root = next(iter(form[1]))
                axes: dict[Value, int] = {}
                for v in body.values():
                    for axis in classes.along(v, root):
                        if v in axes or axis in rows.cut[v]:
                            return None
                        axes[v] = axis
                length = root[0].shape[root[1]]
                if any(v.shape[axis] != length for v, axis in axes.items()):
                    return None
                return Columns(length, axes, _Intervals(body, length, axes, rows, forms))
    return None


_Form = tuple[int, dict[Axis, int], int]
"""A value that is `row * form[0] + sum of coefficient * position along a class + form[2]`."""


def _forms(rows: Rows, classes: Classes) -> dict[Value, _Form]:
    """The values that are linear in positions of rows and of other axes."""
    found: dict[Value, _Form] = {}
    for node in rows.body.nodes:
        z = node.result
        counts = counted(z)
        if counts is not None:
            axis, start, step = counts
            cut = rows.cut[z]
            if axis not in cut:
                found[z] = 0, {classes.find((z, axis)): step}, start
            elif cut[-1] == axis:
                found[z] = step, {}, start
            continue
        operands = [(0, {}, int(v.number)) if isinstance(v, Constant) and v.dtype.kind == "int" else found.get(v)
                    for v in node.operands]
        known = [form for form in operands if form is not None]
        if len(known) < len(operands) or not known:
            continue
        name = node.op.name
        if node.op.view and name != "slice":
            found[z] = known[0]
        elif name == "negative":
            found[z] = _combined(known[0], -1, (0, {}, 0), 1)
        elif name in ("add", "subtract"):
            found[z] = _combined(known[0], 1, known[1], 1 if name == "add" else -1)
        elif name == "multiply" and (constant := next((v for v in node.operands if isinstance(v, Constant)), None)):
            found[z] = _combined(known[node.operands[0] is constant], int(constant.number), (0, {}, 0), 1)
    return found


def _combined(x: _Form, a: int, y: _Form, b: int) -> _Form:
    classes = {k: a * x[1].get(k, 0) + b * y[1].get(k, 0) for k in (*x[1], *y[1])}
    return a * x[0] + b * y[0], {k: c for k, c in classes.items() if c}, a * x[2] + b * y[2]


def _difference(forms: Mapping[Value, _Form], node: Node) -> _Form | None:
    """The form that is at most 0 where the comparison holds."""
    x, y = (forms.get(v) if not isinstance(v, Constant) else (0, {}, int(v.number)) if v.dtype.kind == "int" else None
            for v in node.operands)
    if x is None or y is None:
        return None
    sign, strict = _COMPARES[node.op.name]
    row, classes, rest = _combined(x, sign, y, -sign)
    return row, classes, rest + strict


class _Intervals:
    """What is known of a body's values on either side of some columns."""

    def __init__(self, body: Graph, length: int, axes: Mapping[Value, int], rows: Rows,
                 forms: Mapping[Value, _Form]) -> None:
        self.body, self.length, self.axes, self.rows = body, length, axes, rows
        self.compares = {n: form for n in body.nodes if n.op.name in _COMPARES and n.result in axes
                         and (form := _difference(forms, n)) is not None and len(form[1]) == 1}

    def bounds(self, first: int, last: int) -> tuple[int, int]:
        """The columns outside of which nothing contributes to these rows."""
        left = self._side(first, last, True)
        right = self._side(first, last, False)
        return max(0, min(left, self.length)), max(0, min(right, self.length))

    def _side(self, first: int, last: int, left: bool) -> int:
        """How far the columns on one side contribute nothing."""
        known: dict[Value, Side] = {}
        nearest, furthest = (min, max) if left else (max, min)
        found = self.length if left else 0
        none = 0 if left else self.length
        for node in self.body.nodes:
            z = node.result
            across = [v for v in node.operands if v in self.axes]
            if not across:
                if node.op.name == "broadcast_to" and z in self.axes and isinstance(node.operands[0], Constant):
                    known[z] = node.operands[0].number, self.length if left else 0
                elif z in self.axes and node.op.name == "broadcast_to" and (side := known.get(node.operands[0])):
                    known[z] = side
                continue
            if z not in self.axes:
                bound = self._reduced(node, known, furthest)
                found = none if bound is None else nearest(found, bound)
            elif node in self.compares:
                known[z] = self._compared(self.compares[node], first, last, left)
            else:
                known[z] = self._through(node, known, left, nearest, furthest)
            if found == none:
                return none
        for v in self.body.outputs:
            if v in self.axes:
                side = known.get(v)
                found = nearest(found, side[1]) if side is not None and side[0] == 0 and self.rows.summed(v) else none
        return found

    def _reduced(self, node: Node, known: Mapping[Value, Side], furthest: Callable[..., int]) -> int | None:
        """The bound beyond which an operation that takes the columns together takes nothing in."""
        sides = [known.get(v) for v in node.operands if v in self.axes]
        if node.op.name == "matmul":
            zeros = [side[1] for side in sides if side is not None and side[0] == 0]
            return furthest(zeros) if zeros else None
        if node.op.name in _NEUTRAL and sides[0] is not None:
            value, bound = sides[0]
            kind = node.operands[0].dtype.kind
            neutral = _NEUTRAL[node.op.name] if kind != "bool" else node.op.name == "min"
            return bound if value == neutral and (kind != "int" or node.op.name == "sum") else None
        return None

    def _compared(self, form: _Form, first: int, last: int, left: bool) -> Side:
        """What a comparison is on a side, for all of the rows."""
        row, classes, rest = form
        (step,) = classes.values()
        low, high = sorted((row * first + rest, row * last + rest))
        if left:  # of the columns 0, 1, ...: step * column + low > 0, or step * column + high <= 0
            return (True, -high // step + 1) if step > 0 else (False, -(-low // -step))
        return (False, -low // step + 1) if step > 0 else (True, -(-high // -step))

    def _through(self, node: Node, known: Mapping[Value, Side], left: bool, nearest: Callable[..., int],
                 furthest: Callable[..., int]) -> Side:
        """What is known of a result that has the columns."""
        name = node.op.name
        everywhere = self.length if left else 0
        sides: list[Side] = [(v.number, everywhere) if isinstance(v, Constant) else known.get(v)
                             for v in node.operands]
        there = [side for side in sides if side is not None]
        zeros = [side[1] for side in there if side[0] == 0]
        if name == "matmul" or name == "sum":
            return (0.0, furthest(zeros)) if zeros else None
        if name in ("max", "min") or (node.op.view and name != "slice") or name in ("copy", "astype"):
            return sides[0]
        if name == "slice":
            return sides[0] if node.operands[0].shape[self.axes[node.operands[0]]] == self.length else None
        if not node.op.elementwise:
            return None
        if name == "where":
            return _chosen(sides, nearest)
        if name in ("logical_and", "logical_or"):
            settled = [side[1] for side in there if bool(side[0]) == (name == "logical_or")]
            if settled:
                return name == "logical_or", furthest(settled)
        if name == "multiply" and zeros:
            return 0.0, furthest(zeros)
        if name == "divide" and sides[0] is not None and sides[0][0] == 0:
            return sides[0]
        if name in ("add", "subtract") and sides[0] is not None and sides[0][0] == -numpy.inf:
            return sides[0]
        if name == "add" and sides[1] is not None and sides[1][0] == -numpy.inf:
            return sides[1]
        if len(there) < len(sides) or (name not in _FOLDED and name != "sigmoid"):
            return None
        numbers = [side[0] for side in there]
        with numpy.errstate(all="ignore"):
            value = 1 / (1 + numpy.exp(-numbers[0])) if name == "sigmoid" else _FOLDED[name](*numbers)
        return value, nearest(side[1] for side in there)


def _chosen(sides: Sequence[Side], nearest: Callable[..., int]) -> Side:
    condition, x, y = sides
    if condition is not None:
        taken = x if condition[0] else y
        return (taken[0], nearest(condition[1], taken[1])) if taken is not None else None
    if x is not None and y is not None and x[0] == y[0]:
        return x[0], nearest(x[1], y[1])
    return None

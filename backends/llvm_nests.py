"""One rule for each operation on arrays: the loop nest that computes its result into memory.

An elementwise operation whose result has no memory of its own is computed by the nest that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from ..ir.graph import Constant, Node, Value, buffer, stays_below
from ..ir.layout import Layout, layout, rowwise, sliced
from ..ir.shapes import disjoint
from ..ir.tables import rows
from ..ir.types import DType, Shape, bool_, f64
from .llvm_loops import Access, Accesses, Loops, collapsed
from .llvm_lowering import kind, lower, rounded
from .llvm_math import FUNCTIONS
from .llvm_writer import Lane

UNROLLED = 4
"""Vectors that a reduction takes at once, so that one addition does not wait for the one before."""


class Scope(Protocol):
    """Where a nest stands."""

    lanes: int
    """Elements of 8 bytes in a vector register."""

    def pointer(self, w: Loops, root: Value, offset: int = 0) -> str:
        """The address of an element of a value that owns memory, or of an input."""

    def in_memory(self, value: Value) -> bool:
        """Has the value, which is no view, memory?"""

    def adds(self, value: Value) -> bool:
        """Is the value, a product's, added to what is there?"""

    def inherited(self, node: Node, position: int) -> bool:
        """Does the operand's memory lie already where it belongs in the result's?"""

    def fault(self, w: Loops, node: Node, index: Lane, length: int) -> None:
        """Leave the program: an index is out of range."""

    def workspace(self, w: Loops, node: Node) -> str:
        """The address of the workspace for an operation."""

    def region(self, node: Node) -> str:
        """The name of a region's function."""


Rule = Callable[[Loops, Node, Scope], None]
_RULES: dict[str, Rule] = {}


def lowered() -> set[str]:
    """The operations on arrays that have a rule, besides the elementwise ones."""
    return set(_RULES)


def loops(w: Loops, node: Node, scope: Scope) -> None:
    """The lines that compute the node's result."""
    if any(v.type.size for v in node.results):
        _RULES.get(node.op.name, _elementwise)(w, node, scope)


rule = rows(_RULES)


# What a nest reads -----------------------------------------------------------------------------------------------

class Expression:
    """Operations computed element by element in one nest, the last of them the one that is asked for, and what they
    read from memory."""

    def __init__(self, wanted: Sequence[Value], scope: Scope) -> None:
        self.scope = scope
        self.leaves: list[Value] = []
        self.nodes: list[Node] = []
        stack: list[tuple[Value, bool]] = [(v, False) for v in reversed(wanted)]
        seen: set[Value] = set()
        while stack:
            value, ready = stack.pop()
            if ready:
                assert value.node is not None
                self.nodes.append(value.node)
            elif value not in seen and not isinstance(value, Constant):
                seen.add(value)
                if self._is_leaf(value):
                    self.leaves.append(value)
                else:
                    assert value.node is not None
                    stack.append((value, True))
                    stack += [(v, False) for v in reversed(value.node.operands)]

    def _is_leaf(self, value: Value) -> bool:
        node = value.node
        return node is None or node.op.view or node.op.name == "arange" or self.scope.in_memory(value)

    def accesses(self, w: Loops, shape: Shape) -> dict[object, Access]:
        """What is read, over a domain of that shape."""
        return {v: access(w, v, self.scope) for v in self.leaves if not isinstance(buffer(v), Constant)}

    def work(self, accesses: Accesses, size: int) -> float:
        """About how many ns a nest over so many elements takes one thread."""
        return size * sum((0.03 * len(self.nodes), 0.7 * sum(n.op.name in FUNCTIONS for n in self.nodes),
                           *(0.05 * a.dtype.bytes * any(a.strides) for a in accesses.values())))

    def lanes(self, accesses: Accesses, also: Sequence[DType] = ()) -> int:
        """How many elements a vector has: those of the widest dtype fill a register."""
        dtypes = [a.dtype for a in accesses.values()] + list(also)
        return self.scope.lanes * 8 // max([4, *(d.bytes for d in dtypes)])

    @property
    def heavy(self) -> bool:
        """Does it call functions of mathematics?"""
        return any(n.op.name in FUNCTIONS for n in self.nodes)

    def element(self, w: Loops, value: Value, accesses: Accesses, known: dict[Value, Lane] | None = None) -> Lane:
        """The lanes of `value`, one of those that were wanted or an operation on them."""
        found = {} if known is None else known

        def lane(v: Value) -> Lane:
            root = buffer(v)
            if isinstance(root, Constant):
                return w.constant(root.number, kind(root.dtype))
            if v not in found:
                found[v] = w.load(accesses[v])
            return found[v]

        for node in self.nodes:
            if node.result not in found:
                found[node.result] = lower(w, node, lane)
        return lane(value)


def access(w: Loops, value: Value, scope: Scope) -> Access:
    """Where a value lies, over its own axes."""
    lies, root = layout(value), buffer(value)
    assert lies is not None
    return _access(w, root, lies, scope)


def _access(w: Loops, root: Value, lies: Layout, scope: Scope) -> Access:
    node = root.node
    if node is not None and node.op.name == "arange" and not scope.in_memory(root):
        return Access(str(lies.offset), root.dtype, lies.strides, (node.attributes["start"], node.attributes["step"]))
    return Access(scope.pointer(w, root, lies.offset), root.dtype, lies.strides)


def written(w: Loops, result: Value, scope: Scope) -> Access:
    """Where an operation's result lies, row by row."""
    return Access(scope.pointer(w, result), result.dtype, rowwise(result.shape).strides)


# Elementwise -----------------------------------------------------------------------------------------------------

def _elementwise(w: Loops, node: Node, scope: Scope) -> None:
    if node.op.name == "copy" and scope.inherited(node, 0):
        return
    expression = Expression(node.operands, scope)
    expression.nodes.append(node)
    _assign(w, expression, node.result, written(w, node.result, scope), scope)


def _assign(w: Loops, expression: Expression, value: Value, target: Access, scope: Scope, *, add: bool = False,
            alone: bool = True) -> None:
    """Write (or add) each element of a value to the target, which has its shape. Threads may share a nest that is all
    its operation needs."""
    accesses: dict[object, Access] = expression.accesses(w, value.shape)
    accesses["target"] = target
    lanes, work = expression.lanes(accesses), expression.work(accesses, value.type.size) if alone else 0.0
    shape, accesses = collapsed(value.shape, accesses)

    def body(here: Accesses) -> None:
        found = expression.element(w, value, here)
        if add:
            found = _added(w.load(here["target"]), found)
        w.store(found, here["target"])

    def row(here: Accesses) -> None:
        if not shape:
            body(here)
        else:
            w.sweep(shape[-1], here, _widths(lanes, shape[-1]), body, work)

    if len(shape) > 1 and any(a.strides[-2] == 1 and a.strides[-1] > 1 for a in accesses.values()):
        # A transposed operand: down some columns at a time, so that what is fetched with an element is used.
        w.nest(shape[:-2], accesses, lambda block: w.sweep(
            shape[-1], block, _widths(lanes, shape[-1]), lambda columns: w.nest(shape[-2:-1], columns, body),
            work), work)
    else:
        w.nest(shape[:-1], accesses, row, work)


def _added(a: Lane, b: Lane) -> Lane:
    return a | b if a.kind == "i1" else a + b


def _widths(lanes: int, n: int, unrolled: int = 1) -> list[int]:
    """Vectors of several registers where that pays, of one, and single elements."""
    return [k for k in dict.fromkeys((lanes * unrolled, lanes)) if 1 < k <= n] + [1]


# Reductions ------------------------------------------------------------------------------------------------------

Combine = Callable[[Lane, Lane], Lane]


class Reduction:
    """How elements are combined: sums of f32 in f64, rounded once, unless the kind is given."""

    def __init__(self, w: Loops, name: str, dtype: DType, within: str = "") -> None:
        self.w, self.name, self.dtype = w, name, dtype
        self.kind = within or ("double" if name == "sum" and dtype.is_float else kind(dtype))

    def widened(self, x: Lane) -> Lane:
        return rounded(self.w, x, f64) if self.kind == "double" and x.kind != "double" else x

    def first(self) -> Lane:
        """What changes nothing."""
        if self.name == "sum":
            return self.w.constant(0, self.kind)
        low = self.name == "max"
        if self.dtype.is_float:
            return self.w.constant(-math.inf if low else math.inf, self.kind)
        if self.dtype is bool_:
            return self.w.constant(0 if low else 1, "i1")
        bits = 8 * self.dtype.bytes - 1
        return self.w.constant(-(1 << bits) if low else (1 << bits) - 1, self.kind)

    def combine(self, a: Lane, b: Lane) -> Lane:
        if self.name == "sum":
            return a + b
        if self.dtype is bool_:
            return a | b if self.name == "max" else a & b
        if self.dtype.is_float:
            return self.w.intrinsic({"max": "maximum", "min": "minimum"}[self.name], a.kind, a, b)
        return self.w.select(a > b if self.name == "max" else a < b, a, b)

    def across(self, x: Lane, lanes: int) -> Lane:
        """The lanes of a vector combined, halves with halves; the result has one lane."""
        w = self.w
        while lanes > 1:
            half = lanes // 2
            parts = []
            for start in (0, half):
                listed = ", ".join(f"i32 {start + i}" for i in range(half))
                t = f"<{lanes} x {x.kind}>"
                parts.append(w.line(x.kind, f"shufflevector {t} {x.name}, {t} poison, <{half} x i32> <{listed}>"))
            lanes = half
            if lanes == 1:
                parts = [w.line(x.kind, f"extractelement <1 x {x.kind}> {p.name}, i64 0") for p in parts]
            with w.at_lanes(lanes):
                x = self.combine(*parts)
        return x


@rule("sum max min")
def _reduce(w: Loops, node: Node, scope: Scope) -> None:
    x, axes = node.operands[0], node.attributes["axis"]
    expression = Expression([x], scope)
    order = [a for a in range(len(x.shape)) if a not in axes] + list(axes)
    accesses = {key: Access(a.at, a.dtype, tuple(a.strides[i] for i in order), a.numbers)
                for key, a in expression.accesses(w, x.shape).items()}
    shape = tuple(x.shape[i] for i in order)
    reduced(w, node, Reduction(w, node.op.name, x.dtype), shape, len(axes), accesses, expression.heavy,
            lambda here: expression.element(w, x, here), expression.lanes(accesses), scope,
            expression.work(accesses, x.type.size))


def reduced(w: Loops, node: Node, reduction: Reduction, shape: Shape, count: int, accesses: Accesses, heavy: bool,
            element: Callable[[Accesses], Lane], lanes: int, scope: Scope, work: float) -> None:
    """A reduction over the last `count` axes of a domain, which takes about `work` ns."""
    kept, over = shape[:len(shape) - count], shape[len(shape) - count:]
    outer = {key: Access(a.at, a.dtype, a.strides[:len(kept)], a.numbers) for key, a in accesses.items()}
    outer["target"] = written(w, node.result, scope)
    inner = {key: Access("", a.dtype, a.strides[len(kept):], a.numbers) for key, a in accesses.items()}
    kept, outer = collapsed(kept, outer)
    over, inner = collapsed(over, inner)

    def joined(here: Accesses) -> dict[object, Access]:
        """The accesses of this result's element, over the axes that are reduced."""
        return {key: Access(here[key].at, a.dtype, a.strides, a.numbers) for key, a in inner.items()}

    unrolled = 1 if heavy else UNROLLED
    along = sum(a.strides[-1] == 1 for a in inner.values()) if over else 0
    across = sum(a.strides[-1] == 1 for key, a in outer.items() if key != "target") if kept else 0
    if kept and (not over or across > along or (across == along and kept[-1] > over[-1])):
        w.nest(kept[:-1], outer, lambda row: w.sweep(
            kept[-1], row, _widths(lanes, kept[-1], unrolled),
            lambda here: _down(w, reduction, over, here, inner, element), work), work)
    else:
        widths = _widths(lanes, over[-1], unrolled) if over else [1]
        w.nest(kept, outer, lambda here: _along(w, reduction, over, widths, joined(here), element, here["target"]),
               work)


def _along(w: Loops, reduction: Reduction, over: Shape, widths: Sequence[int], accesses: Accesses,
           element: Callable[[Accesses], Lane], target: Access) -> None:
    """One element of the result: vectors go along the last axis that is reduced."""
    used: list[int] = []
    left = over[-1] if over else 1
    for k in widths:
        if left >= k or not (used or left):
            used.append(k)
            left %= k
    slots = {k: w.kept(reduction.kind, k) for k in used}
    for k, slot in slots.items():
        with w.at_lanes(k):
            w.put(reduction.first(), slot)

    def body(here: Accesses) -> None:
        slot = slots[w.lanes]
        x = reduction.widened(element(here))
        w.put(reduction.combine(w.got(reduction.kind, slot), x), slot)

    if over:
        w.nest(over[:-1], accesses, lambda row: w.sweep(over[-1], row, widths, body))
    else:
        body(accesses)
    found: list[Lane] = []
    for k, slot in slots.items():
        with w.at_lanes(k):
            whole = w.got(reduction.kind, slot)
        found.append(reduction.across(whole, k))
    total = found[0]
    for x in found[1:]:
        total = reduction.combine(total, x)
    w.store(_narrowed(w, total, reduction.dtype), target)


def _narrowed(w: Loops, x: Lane, dtype: DType) -> Lane:
    return rounded(w, x, dtype) if dtype.is_float else x


def _down(w: Loops, reduction: Reduction, over: Shape, here: Accesses, inner: Accesses,
          element: Callable[[Accesses], Lane]) -> None:
    """As many elements of the result as there are lanes: vectors go along its last axis."""
    lanes = w.lanes
    slot = w.kept(reduction.kind, lanes)
    w.put(reduction.first(), slot)
    unit = {key: a.strides[0] for key, a in here.items()}

    def body(at: Accesses) -> None:
        with w.at_lanes(lanes):
            x = reduction.widened(element({k: Access(a.at, a.dtype, (unit[k],), a.numbers) for k, a in at.items()}))
            w.put(reduction.combine(w.got(reduction.kind, slot), x), slot)

    with w.at_lanes(1):
        w.nest(over, {key: Access(here[key].at, a.dtype, a.strides, a.numbers) for key, a in inner.items()}, body)
    w.store(_narrowed(w, w.got(reduction.kind, slot), reduction.dtype), here["target"])


@rule("cumsum")
def _cumsum(w: Loops, node: Node, scope: Scope) -> None:
    x, axis = node.operands[0], node.attributes["axis"]
    expression = Expression([x], scope)
    order = [a for a in range(len(x.shape)) if a != axis] + [axis]
    accesses: dict[object, Access] = expression.accesses(w, x.shape)
    accesses["target"] = written(w, node.result, scope)
    accesses = {key: Access(a.at, a.dtype, tuple(a.strides[i] for i in order), a.numbers)
                for key, a in accesses.items()}
    reduction = Reduction(w, "sum", x.dtype)
    slot = w.kept(reduction.kind, 1)

    def body(here: Accesses) -> None:
        total = w.got(reduction.kind, slot) + reduction.widened(expression.element(w, x, here))
        w.put(total, slot)
        w.store(_narrowed(w, total, x.dtype), here["target"])

    def row(here: Accesses) -> None:
        w.put(reduction.first(), slot)
        w.nest((x.shape[axis],), here, body)

    w.nest(tuple(x.shape[a] for a in order[:-1]), accesses, row)


# Data movement ---------------------------------------------------------------------------------------------------

@rule("arange")
def _arange(w: Loops, node: Node, scope: Scope) -> None:
    """What is not read by loops alone."""
    target = written(w, node.result, scope)
    a = node.attributes
    numbers = Access("0", node.result.dtype, (1,), (a["start"], a["step"]))
    w.sweep(node.result.type.size, {"target": target, "numbers": numbers}, [1],
            lambda here: w.store(w.load(here["numbers"]), here["target"]))


@rule("place")
def _place(w: Loops, node: Node, scope: Scope) -> None:
    result, at = node.result, node.attributes["at"]
    apart = disjoint(at)
    if not apart or sum(v.type.size for v in node.operands) != result.type.size:
        w.zeroed(scope.pointer(w, result), result.type.bytes)
    whole = rowwise(result.shape)
    for position, (piece, index) in enumerate(zip(node.operands, at, strict=True)):
        if not piece.type.size or scope.inherited(node, position):
            continue
        lies = sliced(whole, piece.shape, index)
        target = Access(scope.pointer(w, result, lies.offset), result.dtype, lies.strides)
        _assign(w, Expression([piece], scope), piece, target, scope, add=not apart, alone=False)


def _row_at(w: Loops, node: Node, indices: Sequence[Value], lies: Layout, start: str, dtype: DType,
            here: Accesses, expression: Expression, scope: Scope) -> str:
    """The address of the row that the indices say: each is checked, negative ones count from the end."""
    at = start
    known: dict[Value, Lane] = {}
    for axis, value in enumerate(indices):
        index = expression.element(w, value, here, known)
        if index.kind != "i64":
            index = w.cast(index, "sext", "i64")
        length = lies.shape[axis]
        if not stays_below(value, length):
            scope.fault(w, node, index, length)
            index = w.select(index < 0, index + length, index)
        step = index * lies.strides[axis]
        at = w.line("ptr", f"getelementptr {_stored(dtype)}, ptr {at}, i64 {step.name}").name
    return at


def _stored(dtype: DType) -> str:
    return f"i{8 * dtype.bytes}"


@rule("gather")
def _gather(w: Loops, node: Node, scope: Scope) -> None:
    x, *indices = node.operands
    _moved(w, node, indices, x, node.result, scope, add=False)


@rule("scatter_add")
def _scatter(w: Loops, node: Node, scope: Scope) -> None:
    updates, *indices = node.operands
    w.zeroed(scope.pointer(w, node.result), node.result.type.bytes)
    if updates.type.size:
        _moved(w, node, indices, node.result, updates, scope, add=True)


def _moved(w: Loops, node: Node, indices: Sequence[Value], table: Value, rows: Value, scope: Scope, add: bool) -> None:
    """Rows of the table at the indices: to the rows, or with `add` the rows added to them."""
    expression = Expression(indices, scope)
    over = indices[0].shape
    lies = layout(table)
    assert lies is not None
    start = scope.pointer(w, buffer(table), lies.offset)
    rest = lies.strides[len(indices):]
    accesses: dict[object, Access] = expression.accesses(w, over)
    lies_rows = access(w, rows, scope)
    accesses["rows"] = Access(lies_rows.at, rows.dtype, lies_rows.strides[:len(over)], lies_rows.numbers)

    def row(here: Accesses) -> None:
        at = _row_at(w, node, indices, lies, start, table.dtype, here, expression, scope)
        shape, both = collapsed(rows.shape[len(over):], {
            "table": Access(at, table.dtype, rest),
            "rows": Access(here["rows"].at, rows.dtype, lies_rows.strides[len(over):], lies_rows.numbers)})

        def body(one: Accesses) -> None:
            if add:
                w.store(_added(w.load(one["table"]), w.load(one["rows"])), one["table"])
            else:
                w.store(w.load(one["table"]), one["rows"])

        def along(one: Accesses) -> None:
            if shape:
                w.sweep(shape[-1], one, _widths(scope.lanes * 8 // table.dtype.bytes, shape[-1]), body)
            else:
                body(one)

        w.nest(shape[:-1], both, along)

    w.nest(over, accesses, row)

"""NumPy's array semantics over a builder: literals take a dtype, shapes are broadcast, axes normalised.

The reader speaks to the graph through this, and so do the rules of the passes. What goes in are values or Python
numbers (weak: they take the dtype of what they meet, NEP 50); what comes out are values, and every node emitted is
canonical: no implicit broadcast, no implicit cast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import literals, shapes
from .diagnostics import Fault, Span
from .graph import EMPTY, Builder, Constant, Value
from .literals import Number
from .ops import OPS, Operation
from .shapes import Index
from .types import DType, Shape, bool_, f64, i64, matrix

Operand = Value | bool | int | float


class Arrays:
    """The array operations, emitted into one builder. `span` is the source place given to what is emitted next."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.span: Span | None = None

    def emit(self, op: Operation, operands: Sequence[Value], attributes: Mapping[str, Any] = EMPTY) -> Value:
        """One operation. A subclass may answer with a value that exists already instead."""
        return self.builder.emit(op, operands, attributes, span=self.span)

    def constant(self, number: Number, dtype: DType) -> Constant:
        """A scalar constant of that dtype."""
        return self.builder.constant(number, dtype)

    # Elementwise -----------------------------------------------------------------------------------------------

    def elementwise(self, name: str, *operands: Operand, expected: DType | None = None) -> Value:
        """The operation `name` on operands promoted and broadcast. `expected` types literals that meet no value."""
        op = OPS[name]
        if len(operands) != len(op.operands):
            raise Fault("E0201", f"{name} takes {len(op.operands)} operands, not {len(operands)}")
        if name == "where":
            condition = self.value(operands[0], bool_)
            values = [condition, *self.promote(op, operands[1:], expected)]
        else:
            values = self.promote(op, operands, expected)
        return self.emit(op, self.broadcast(values))

    def promote(self, op: Operation, operands: Sequence[Operand], expected: DType | None = None) -> list[Value]:
        """Values of one dtype: that of the values among them, NumPy's own where literals or integers ask for more."""
        dtype: DType | None = None
        for position, operand in enumerate(operands):
            if isinstance(operand, Value):
                if dtype is not None and operand.dtype is not dtype:
                    first = next(o for o in operands if isinstance(o, Value))
                    raise Fault("E0302", f"dtypes {dtype} and {operand.dtype} meet in {op.symbol or op.name}",
                                _agreement(first, operand), position)
                dtype = operand.dtype
        has_float = any(isinstance(o, float) for o in operands)
        if dtype is None:
            all_bool = all(isinstance(o, bool) for o in operands)
            dtype = expected or (f64 if has_float or op.domain == "float" else bool_ if all_bool else i64)
        if dtype.kind == "int" and (has_float or op.domain == "float"):
            dtype = f64  # as NumPy: integers that meet a float literal, / or sin(i) are float64
        if dtype.kind == "bool" and any(not isinstance(o, Value | bool) for o in operands):
            raise Fault("E0302", f"a bool meets a number in {op.symbol or op.name}",
                        "write where(x, 1.0, 0.0) or astype(x, f64)")
        return [self.value(o, dtype) for o in operands]

    def value(self, operand: Operand, dtype: DType) -> Value:
        """The operand as a value of that dtype; an integer value is cast, a literal becomes a constant."""
        if not isinstance(operand, Value):
            return self.constant(operand, dtype)
        return operand if operand.dtype is dtype else self.astype(operand, dtype)

    def broadcast(self, values: Sequence[Value]) -> list[Value]:
        """The values in one shape, by views; constants stay scalars."""
        arrays = [v.type.shape for v in values if not isinstance(v, Constant)]
        if not arrays or all(s == arrays[0] for s in arrays):
            return list(values)
        shape = shapes.broadcast_shapes(arrays)
        return [v if isinstance(v, Constant) else self.broadcast_to(v, shape) for v in values]

    def astype(self, x: Value, dtype: DType) -> Value:
        """x in another dtype; x itself where it has that dtype, and a constant of a constant if the dtype holds it."""
        if x.dtype is dtype:
            return x
        number = literals.cast(x.number, dtype) if isinstance(x, Constant) else None
        return self.emit(OPS["astype"], (x,), {"dtype": dtype}) if number is None else self.constant(number, dtype)

    # Views -----------------------------------------------------------------------------------------------------

    def broadcast_to(self, x: Value, shape: Shape) -> Value:
        """x repeated to `shape`; x itself where it has that shape."""
        return x if x.shape == shape and not isinstance(x, Constant) else self.emit(
            OPS["broadcast_to"], (x,), {"shape": shape})

    def full(self, shape: Shape, number: Number, dtype: DType) -> Value:
        """A constant repeated to `shape`: no memory, no work. The constant itself for a scalar."""
        if not shape:
            return self.constant(number, dtype)
        return self.emit(OPS["broadcast_to"], (self.constant(number, dtype),), {"shape": shape})

    def reshape(self, x: Value, shape: Shape) -> Value:
        """x's elements in another shape, of which one length may be -1; x itself where nothing changes."""
        if shape.count(-1) == 1:
            rest = 1
            for n in shape:
                rest *= n if n != -1 else 1
            if rest == 0 or x.type.size % rest:
                raise Fault("E0303", f"{matrix(x.shape)} does not fit reshape to {matrix(shape)}")
            shape = tuple(x.type.size // rest if n == -1 else n for n in shape)
        return x if x.shape == shape else self.emit(OPS["reshape"], (x,), {"shape": shape})

    def permute(self, x: Value, axes: Shape) -> Value:
        """Axes in another order; x itself where it is the same order."""
        axes = tuple(self.axis(a, x.type.rank) for a in axes)
        return x if axes == tuple(range(x.type.rank)) else self.emit(OPS["permute_dims"], (x,), {"axes": axes})

    def transpose(self, x: Value) -> Value:
        """The last two axes exchanged."""
        if x.type.rank < 2:
            raise Fault("E0304", f"a transpose needs two axes; the shape is {matrix(x.shape)}")
        order = tuple(range(x.type.rank))
        return self.permute(x, (*order[:-2], order[-1], order[-2]))

    def slice(self, x: Value, index: Index) -> Value:
        """x at a full constant index; x itself where everything is taken."""
        whole = all(entry == (0, n, 1) for entry, n in zip(index, x.shape, strict=True))
        return x if whole else self.emit(OPS["slice"], (x,), {"index": shapes.canonical(index)})

    def unsqueeze(self, x: Value, axes: Sequence[int]) -> Value:
        """x with axes of length 1 put in, such that they stand at `axes` of the result."""
        rest = iter(x.shape)
        return self.reshape(x, tuple(1 if i in axes else next(rest) for i in range(x.type.rank + len(axes))))

    # Reductions ------------------------------------------------------------------------------------------------

    def reduce(self, name: str, x: Value, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Value:
        """sum, max or min over axes (all, if None). A scalar is returned as it is."""
        axes = self.axes(axis, x.type.rank)
        if name == "sum" and x.dtype is bool_:
            x = self.astype(x, i64)
        result = self.emit(OPS[name], (x,), {"axis": axes}) if axes else x
        return self.unsqueeze(result, axes) if keepdims and axes else result

    def any(self, x: Value, axes: Sequence[int]) -> Value:
        """Does one of the elements along the axes hold? False where there is none."""
        result = shapes.reduce((x.type,), {"axis": tuple(axes)})
        return self.reduce("max", x, axes) if x.type.size or not result.size else self.full(result.shape, False, bool_)

    def cumsum(self, x: Value, axis: int) -> Value:
        """Running sums along one axis."""
        return self.emit(OPS["cumsum"], (x,), {"axis": self.axis(axis, x.type.rank)})

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis as one from 0; Fault E0304 where there is none."""
        if not -rank <= axis < rank:
            raise Fault("E0304", f"axis {axis} is out of range for {rank} axes", "", "axis")
        return axis % rank

    def axes(self, axis: int | Sequence[int] | None, rank: int) -> Shape:
        """Axes in increasing order."""
        if axis is None:
            return tuple(range(rank))
        listed = [axis] if isinstance(axis, int) else list(axis)
        found = sorted(self.axis(a, rank) for a in listed)
        if len(set(found)) != len(found):
            raise Fault("E0304", f"an axis is given twice in {tuple(listed)}", "", "axis")
        return tuple(found)

    # Products --------------------------------------------------------------------------------------------------

    def matmul(self, a: Value, b: Value) -> Value:
        """NumPy's `a @ b`: vectors, matrices, and stacks of matrices, whose leading axes broadcast."""
        if not a.type.rank or not b.type.rank:
            raise Fault("E0307", f"cannot multiply {matrix(a.shape)} @ {matrix(b.shape)}", "use * with a scalar")
        a, b = self.promote(OPS["matmul"], (a, b))
        if a.shape[-1] != b.shape[-2 if b.type.rank > 1 else -1]:
            raise Fault("E0307", f"cannot multiply {matrix(a.shape)} @ {matrix(b.shape)}",
                        "the last axis of the left operand and the last but one of the right must be equal")
        left = self.reshape(a, (1, *a.shape)) if a.type.rank == 1 else a
        right = self.reshape(b, (*b.shape, 1)) if b.type.rank == 1 else b
        product = self._stacked(left, right)
        shape = list(product.shape)
        if b.type.rank == 1:
            del shape[-1]
        if a.type.rank == 1:
            del shape[len(product.shape) - 2]
        return self.reshape(product, tuple(shape))

    def _stacked(self, a: Value, b: Value) -> Value:
        if a.type.rank > 2 and b.type.rank == 2:
            # One product with more rows, not one for each leading index: the weight is never repeated.
            rows = self.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
            return self.reshape(self.emit(OPS["matmul"], (rows, b)), (*a.shape[:-1], b.shape[-1]))
        if a.shape[:-2] != b.shape[:-2]:
            lead = shapes.broadcast_shapes((a.shape[:-2], b.shape[:-2]))
            a = self.broadcast_to(a, (*lead, *a.shape[-2:]))
            b = self.broadcast_to(b, (*lead, *b.shape[-2:]))
        return self.emit(OPS["matmul"], (a, b))

    # Data movement ---------------------------------------------------------------------------------------------

    def arange(self, start: int, stop: int, step: int = 1, dtype: DType = i64) -> Value:
        """start, start + step, ... below stop."""
        if step == 0:
            raise Fault("E0203", "the step of arange is 0")
        if any(abs(bound) >= 2**62 for bound in (start, stop, step)):
            raise Fault("E0309", "the bounds of arange are too large")
        return self.emit(OPS["arange"], (), {"start": start, "stop": stop, "step": step, "dtype": dtype})

    def concat(self, pieces: Sequence[Value], axis: int) -> Value:
        """The pieces behind one another along an axis."""
        if not pieces:
            raise Fault("E0203", "concat of no arrays")
        rank = pieces[0].type.rank
        axis = self.axis(axis, rank)
        at: list[Index] = []
        end = 0
        for position, piece in enumerate(pieces):
            other = pieces[0]
            if piece.type.rank != rank or any(
                    m != n for i, (m, n) in enumerate(zip(piece.shape, other.shape, strict=True)) if i != axis):
                raise Fault("E0301", f"concat along axis {axis}: shapes {matrix(other.shape)} and "
                                     f"{matrix(piece.shape)}", "", position)
            n = piece.shape[axis]
            at.append(tuple((end, end + n, 1) if i == axis else (0, m, 1) for i, m in enumerate(piece.shape)))
            end += n
        if len(pieces) == 1:
            return pieces[0]
        return self.place(pieces, at, tuple(end if i == axis else m for i, m in enumerate(pieces[0].shape)))

    def stack(self, pieces: Sequence[Value], axis: int = 0) -> Value:
        """The pieces along a new axis."""
        if not pieces:
            raise Fault("E0203", "stack of no arrays")
        rank = pieces[0].type.rank
        axis = self.axis(axis, rank + 1)
        whole = [(0, n, 1) for n in pieces[0].shape]
        at: list[Index] = [(*whole[:axis], i, *whole[axis:]) for i in range(len(pieces))]
        for position, piece in enumerate(pieces):
            if piece.shape != pieces[0].shape:
                raise Fault("E0301", f"stack: shapes {matrix(pieces[0].shape)} and {matrix(piece.shape)}", "", position)
        shape = pieces[0].shape
        return self.place(pieces, at, (*shape[:axis], len(pieces), *shape[axis:]))

    def place(self, pieces: Sequence[Value], at: Sequence[Index], shape: Shape) -> Value:
        """Zeros of `shape` with each piece added at its constant index."""
        return self.emit(OPS["place"], tuple(pieces), {"at": tuple(map(shapes.canonical, at)), "shape": shape})

    def gather(self, x: Value, indices: Sequence[Value]) -> Value:
        """`x[i, j, ...]`: index arrays, broadcast together, for the leading axes."""
        return self.emit(OPS["gather"], (x, *self.broadcast(indices)))

    def scatter_add(self, updates: Value, indices: Sequence[Value], shape: Shape) -> Value:
        """Zeros of `shape` with updates added at the leading indices."""
        return self.emit(OPS["scatter_add"], (updates, *indices), {"shape": shape})

    def take_along_axis(self, x: Value, indices: Value, axis: int) -> Value:
        """NumPy's: `result[.., k, ..] = x[.., indices[.., k, ..], ..]` along one axis."""
        axis = self.axis(axis, x.type.rank)
        if indices.type.rank != x.type.rank:
            raise Fault("E0301", f"take_along_axis: indices of shape {matrix(indices.shape)} for "
                                 f"{matrix(x.shape)}; they need the same number of axes")
        grid: list[Value] = []
        for i, n in enumerate(x.shape):
            if i == axis:
                grid.append(indices)
            else:
                steps = self.arange(0, n, 1, indices.dtype)
                grid.append(self.reshape(steps, tuple(n if j == i else 1 for j in range(x.type.rank))))
        return self.gather(x, grid)


def _agreement(a: Value, b: Value) -> str:
    """What makes two values of different dtypes fit: a dtype for the one that is made of numbers alone, or a cast."""
    for loose, other in ((a, b), (b, a)):
        if loose.node is not None and loose.node.op.name in ("where", "broadcast_to", "arange") \
                and all(isinstance(o, Constant) or o.dtype is bool_ for o in loose.node.operands):
            return f"numbers that meet no value are {loose.dtype}: write dtype={other.dtype}, or {other.dtype}(1) for 1"
    wider = max((a.dtype, b.dtype), key=lambda d: (d.is_float, d.bytes))
    return f"convert one of them, for example astype(x, {wider})"


"""The functions of the language that are more than a row of the operation table: what each call emits.

Names, arguments and meaning are NumPy's (the array API standard's). A function takes the reader first, which has the
arrays (`reader.arrays`) and the dtype that an annotation asks for (`reader.expected`). What can be said in the
language itself stands in prelude.slp instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import constants
from .diagnostics import Fault
from .entities import Function, describe
from .graph import Constant, Value
from .ops import OPS
from .types import DTYPES, DType, Shape, bool_, f64, i64, matrix

if TYPE_CHECKING:
    from .expressions import Expressions

Number = bool | int | float


# What an argument must be ----------------------------------------------------------------------------------------

_MOST_AXES = 64  # NumPy's own limit


def _array(reader: Expressions, x: Any, what: str, axes: int = 0, made: dict[int, Value] | None = None) -> Value:
    """A value; a number becomes a constant, a list of values is stacked.

    `axes` is how deep in a list x stands, `made` has what the lists in it came to: one that stands there often is
    stacked once.
    """
    if isinstance(x, Value):
        return x
    if axes > _MOST_AXES:
        raise Fault("E0203", f"{what} takes a list of at most {_MOST_AXES} lists within one another")
    if isinstance(x, list | tuple) and x:
        made = {} if made is None else made
        if id(x) not in made:
            made[id(x)] = reader.arrays.stack(_arrays(reader, x, what, axes, made))
        return made[id(x)]
    if isinstance(x, bool | int | float):
        return reader.arrays.constant(x, bool_ if isinstance(x, bool) else i64 if isinstance(x, int) else f64)
    raise Fault("E0203", f"{what} takes a value, not {describe(x)}")


def _arrays(reader: Expressions, items: Any, what: str, axes: int = 0,
            made: dict[int, Value] | None = None) -> list[Value]:
    """Values of one dtype from a list of values and numbers."""
    if isinstance(items, Value) or not isinstance(items, list | tuple):
        raise Fault("E0203", f"{what} takes a list of values, not {describe(items)}", f"write {what}([a, b])")
    made = {} if made is None else made
    nested = [_array(reader, x, what, axes + 1, made) if isinstance(x, list | tuple) else x
              for x in reader.iterate(items)]
    for x in nested:
        if not isinstance(x, Value | bool | int | float):
            raise Fault("E0203", f"{what} takes values, not {describe(x)}")
    return reader.arrays.promote(OPS["copy"], nested, reader.expected)


def _integer(x: Any, what: str) -> int:
    operand = what.split()[-1]  # an axis is the argument `axis`
    if isinstance(x, Value) and not isinstance(x, Constant):
        raise Fault("E0116", f"{what} must be a constant; this depends on the program's inputs", "", operand)
    if isinstance(x, Constant):
        x = x.number
    if not isinstance(x, int) or isinstance(x, bool):
        raise Fault("E0203", f"{what} must be an integer, not {describe(x)}", "", operand)
    return x


def _shape(x: Any, what: str = "a shape") -> Shape:
    """A shape from an integer or a tuple of integers; -1 is left to reshape."""
    items = x if isinstance(x, list | tuple) else (x,)
    shape = tuple(_integer(n, what) for n in items)
    size = 1
    for n in shape:
        if n < -1:
            raise Fault("E0203", f"{what} has the negative length {n}")
        size *= max(n, 1)
    if size >= 2**62:
        raise Fault("E0203", f"{matrix(shape)} has more elements than any machine can address")
    return shape


def _lengths(x: Any) -> Shape:
    shape = _shape(x)
    if -1 in shape:
        raise Fault("E0203", "a shape has the negative length -1")
    return shape


def _axis(x: Any) -> int | tuple[int, ...] | None:
    if x is None:
        return None
    if isinstance(x, list | tuple):
        return tuple(_integer(a, "an axis") for a in x)
    return _integer(x, "an axis")


def _dtype(x: Any) -> DType:
    if isinstance(x, DType):
        return x
    raise Fault("E0203", f"a dtype is needed here, not {describe(x)}", f"one of {', '.join(DTYPES)}", "dtype")


# Elementwise -----------------------------------------------------------------------------------------------------

def _elementwise(name: str) -> Callable[..., Any]:
    arity = len(OPS[name].operands)

    def build(reader: Expressions, *operands: Any) -> Any:
        if len(operands) != arity:
            raise Fault("E0201", f"{name} takes {arity} operand{'s' if arity > 1 else ''}, not {len(operands)}")
        for x in operands:
            if not isinstance(x, Value | bool | int | float):
                hint = "stack([...]) makes an array of a list" if isinstance(x, list | tuple) else ""
                raise Fault("E0203", f"{name} takes values or numbers, not {describe(x)}", hint)
        if not any(isinstance(x, Value) for x in operands) and name != "where":
            found = constants.elementwise(name, operands)
            if found is not None:
                return found
        if name in _WHOLE and isinstance(operands[0], Value) and operands[0].dtype.kind == "int":
            return operands[0]
        return reader.arrays.elementwise(name, *operands, expected=reader.expected)

    return build


_WHOLE = ("floor", "ceil", "round")


def _where(reader: Expressions, condition: Any, x: Any, y: Any) -> Any:
    if isinstance(condition, bool):
        return x if condition and not isinstance(x, Value) and not isinstance(y, Value) else _chosen(
            reader, condition, x, y)
    return _elementwise("where")(reader, condition, x, y)


def _chosen(reader: Expressions, condition: bool, x: Any, y: Any) -> Any:
    if not isinstance(x, Value) and not isinstance(y, Value):
        return x if condition else y
    left, right = reader.arrays.broadcast(reader.arrays.promote(OPS["where"], (x, y), reader.expected))
    return left if condition else right


def _whole(x: Number) -> int:
    """A number cut to an integer."""
    if isinstance(x, float) and not math.isfinite(x):
        raise Fault("E0309", f"{x} is no integer")
    return int(x)


def _astype(reader: Expressions, x: Any, dtype: Any) -> Value:
    to = _dtype(dtype)
    if isinstance(x, bool | int | float):
        return reader.arrays.constant(_whole(x) if to.kind == "int" else x, to)
    return reader.arrays.astype(_array(reader, x, "astype"), to)


# Reductions ------------------------------------------------------------------------------------------------------

_PAIRWISE = {"sum": "add", "max": "maximum", "min": "minimum"}


def _reduction(name: str) -> Callable[..., Any]:
    def build(reader: Expressions, x: Any, *more: Any, axis: Any = None, keepdims: Any = False) -> Any:
        if more:
            if name != "sum" and (len(more) > 1 or isinstance(more[0], Value | float) or not isinstance(x, Value)
                                  or (isinstance(more[0], int) and not _is_axis(x, more[0]))):
                raise Fault("E0204", f"{name} is a reduction over axes; it does not compare two values",
                            f"write {_PAIRWISE[name]}(a, b), or {name}(x, axis=...)")
            if name != "sum":
                raise Fault("E0204", f"the second argument of {name} is not clear",
                            f"write {_PAIRWISE[name]}(a, b) for two values, or {name}(x, axis={more[0]})")
            if len(more) > 1:
                raise Fault("E0202", f"{name} takes one value", f"write {name}(x, axis=..., keepdims=...)")
            axis = more[0]
        if isinstance(x, list | tuple) and axis is None and not any(isinstance(item, list | tuple) for item in x):
            return _fold(reader, name, x)
        value = _array(reader, x, name)
        return reader.arrays.reduce(name, value, _axis(axis), bool(keepdims))

    return build


def _is_axis(x: Value, axis: int) -> bool:
    return isinstance(axis, int) and axis != 0 and -x.type.rank <= axis < x.type.rank


def _fold(reader: Expressions, name: str, items: Sequence[Any]) -> Any:
    """A reduction of a list of values or numbers: one by one, from the left."""
    if not items:
        if name == "sum":
            return 0
        raise Fault("E0306", f"{name} of an empty list has no value")
    total = items[0]
    for item in items[1:]:
        reader.tick()
        if isinstance(total, Value) or isinstance(item, Value):
            total = reader.arrays.elementwise(_PAIRWISE[name], total, item)
        else:
            total = total + item if name == "sum" else (max if name == "max" else min)(total, item)
    return total


def _cumsum(reader: Expressions, x: Any, axis: Any = None) -> Value:
    value = _array(reader, x, "cumsum")
    if axis is None and value.type.rank != 1:
        raise Fault("E0202", "cumsum needs axis= for an array that is not a vector")
    return reader.arrays.cumsum(value, 0 if axis is None else _integer(axis, "an axis"))


# Shapes ----------------------------------------------------------------------------------------------------------

def _broadcast_to(reader: Expressions, x: Any, shape: Any) -> Value:
    if isinstance(x, bool | int | float):
        return _full(reader, shape, x)
    return reader.arrays.broadcast_to(_array(reader, x, "broadcast_to"), _lengths(shape))


def _reshape(reader: Expressions, x: Any, *shape: Any) -> Value:
    return reader.arrays.reshape(_array(reader, x, "reshape"), _shape(shape[0] if len(shape) == 1 else shape))


def _permute_dims(reader: Expressions, x: Any, axes: Any) -> Value:
    value = _array(reader, x, "permute_dims")
    order = _axis(axes)
    order = order if isinstance(order, tuple) else () if order is None else (order,)
    if len(order) != value.type.rank:
        raise Fault("E0304", f"permute_dims: {len(order)} axes for an array of {value.type.rank}")
    return reader.arrays.permute(value, order)


def _expand_dims(reader: Expressions, x: Any, axis: Any = 0) -> Value:
    value = _array(reader, x, "expand_dims")
    return reader.arrays.unsqueeze(value, (reader.arrays.axis(_integer(axis, "an axis"), value.type.rank + 1),))


def _squeeze(reader: Expressions, x: Any, axis: Any) -> Value:
    value = _array(reader, x, "squeeze")
    axes = reader.arrays.axes(_axis(axis), value.type.rank)
    for a in axes:
        if value.shape[a] != 1:
            raise Fault("E0303", f"squeeze: axis {a} has length {value.shape[a]}, not 1")
    return reader.arrays.reshape(value, tuple(n for i, n in enumerate(value.shape) if i not in axes))


def _moveaxis(reader: Expressions, x: Any, source: Any, destination: Any) -> Value:
    value = _array(reader, x, "moveaxis")
    rank = value.type.rank
    start = reader.arrays.axis(_integer(source, "an axis"), rank)
    order = [i for i in range(rank) if i != start]
    order.insert(reader.arrays.axis(_integer(destination, "an axis"), rank), start)
    return reader.arrays.permute(value, tuple(order))


def _flip(reader: Expressions, x: Any, axis: Any = None) -> Value:
    value = _array(reader, x, "flip")
    axes = reader.arrays.axes(_axis(axis), value.type.rank)
    return reader.arrays.slice(value, tuple((n - 1, -1, -1) if i in axes else (0, n, 1)
                                            for i, n in enumerate(value.shape)))


# Making arrays ---------------------------------------------------------------------------------------------------

def _full(reader: Expressions, shape: Any, number: Any, dtype: Any = None) -> Value:
    if isinstance(number, Value):
        value = number if dtype is None else reader.arrays.astype(number, _dtype(dtype))
        return reader.arrays.broadcast_to(value, _lengths(shape))
    if not isinstance(number, bool | int | float):
        raise Fault("E0203", f"an array is filled with a number, not {describe(number)}")
    kind = bool_ if isinstance(number, bool) else i64 if isinstance(number, int) else f64
    to = _dtype(dtype) if dtype is not None else reader.expected or kind
    return reader.arrays.full(_lengths(shape), _whole(number) if to.kind == "int" else number, to)


def _filled(number: float) -> Callable[..., Value]:
    return lambda reader, shape, dtype=f64: _full(reader, shape, number, reader.expected or dtype)


def _like(number: float) -> Callable[..., Value]:
    def build(reader: Expressions, x: Any, dtype: Any = None) -> Value:
        value = _array(reader, x, "zeros_like")
        return _full(reader, value.shape, number, value.dtype if dtype is None else dtype)

    return build


def _arange(reader: Expressions, start: Any, stop: Any = None, step: Any = 1, dtype: Any = i64) -> Value:
    if stop is None:
        start, stop = 0, start
    return reader.arrays.arange(_integer(start, "a bound of arange"), _integer(stop, "a bound of arange"),
                                _integer(step, "the step of arange"), _dtype(dtype))


def _diagonal(reader: Expressions, rows: int, columns: int, k: int, op: str) -> Value:
    """A mask of `column op row + k` as a comparison of aranges, from which later passes can prove things."""
    row = reader.arrays.reshape(reader.arrays.arange(0, rows), (rows, 1))
    column = reader.arrays.arange(k * -1, columns - k) if k else reader.arrays.arange(0, columns)
    return reader.arrays.elementwise(op, reader.arrays.broadcast_to(column, (rows, columns)),
                                     reader.arrays.broadcast_to(row, (rows, columns)))


def _eye(reader: Expressions, n: Any, m: Any = None, k: Any = 0, dtype: Any = f64) -> Value:
    rows = _integer(n, "the size of eye")
    columns = rows if m is None else _integer(m, "the size of eye")
    mask = _diagonal(reader, rows, columns, _integer(k, "k"), "equal")
    return reader.arrays.elementwise("where", mask, 1.0, 0.0, expected=reader.expected or _dtype(dtype))


def _triangle(op: str) -> Callable[..., Value]:
    def build(reader: Expressions, x: Any, k: Any = 0) -> Value:
        value = _array(reader, x, "tril")
        if value.type.rank < 2:
            raise Fault("E0304", f"a triangle needs two axes; the shape is {matrix(value.shape)}")
        mask = _diagonal(reader, value.shape[-2], value.shape[-1], _integer(k, "k"), op)
        zero = False if value.dtype is bool_ else 0
        return reader.arrays.elementwise("where", mask, value, zero)

    return build


# Moving data -----------------------------------------------------------------------------------------------------

def _concat(reader: Expressions, items: Any, axis: Any = 0) -> Value:
    return reader.arrays.concat(_arrays(reader, items, "concat"), _integer(axis, "an axis"))


def _stack(reader: Expressions, items: Any, axis: Any = 0) -> Value:
    pieces = [reader.arrays.reshape(reader.builder.emit("copy", (p,)), ()) if isinstance(p, Constant) else p
              for p in _arrays(reader, items, "stack")]
    return reader.arrays.stack(pieces, _integer(axis, "an axis"))


def _place(reader: Expressions, *pieces: Any, at: Any, shape: Any) -> Value:
    from .subscripts import full_index

    size = _lengths(shape)
    if not isinstance(at, tuple | list) or len(at) != len(pieces):
        raise Fault("E0308", "place(a, b, at=(s_[...], s_[...]), shape=...) takes an index for each operand")
    return reader.arrays.place(_arrays(reader, list(pieces), "place"), [full_index(size, i) for i in at], size)


def _take(reader: Expressions, x: Any, indices: Any, axis: Any = 0) -> Value:
    from .subscripts import subscript

    value = _array(reader, x, "take")
    at = reader.arrays.axis(_integer(axis, "an axis"), value.type.rank)
    return subscript(reader.arrays, value, (*[slice(None)] * at, _array(reader, indices, "take")))


def _take_along_axis(reader: Expressions, x: Any, indices: Any, axis: Any = -1) -> Value:
    return reader.arrays.take_along_axis(_array(reader, x, "take_along_axis"),
                                         _array(reader, indices, "take_along_axis"), _integer(axis, "an axis"))


def _scatter_add(reader: Expressions, updates: Any, *indices: Any, shape: Any) -> Value:
    return reader.arrays.scatter_add(_array(reader, updates, "scatter_add"),
                                     [_array(reader, i, "scatter_add") for i in indices], _lengths(shape))


def _copy(reader: Expressions, x: Any) -> Value:
    if not isinstance(x, Value):
        x = reader.arrays.constant(x, reader.expected) if reader.expected else _array(reader, x, "copy")
    return reader.arrays.emit(OPS["copy"], (x,))


def _stop_gradient(reader: Expressions, x: Any) -> Value:
    return reader.arrays.emit(OPS["stop_gradient"], (_array(reader, x, "stop_gradient"),))


def _all_reduce(reader: Expressions, x: Any, processes: Any) -> Value:
    count = _integer(processes, "the number of processes")
    if count < 1:
        raise Fault("E0203", f"a sum over {count} processes")
    return reader.arrays.emit(OPS["all_reduce"], (_array(reader, x, "all_reduce"),), {"processes": count})


def _wait(reader: Expressions, x: Any) -> Value:
    return reader.arrays.emit(OPS["wait"], (_array(reader, x, "wait"),))


def _matmul(reader: Expressions, a: Any, b: Any) -> Value:
    return reader.arrays.matmul(_array(reader, a, "matmul"), _array(reader, b, "matmul"))


# Python's own, on constants --------------------------------------------------------------------------------------

def _range(reader: Expressions, *bounds: Any) -> range:
    for b in bounds:
        if isinstance(b, Value):
            raise Fault("E0116", "the bounds of a range are constants; this depends on the program's inputs",
                        "the program is straight-line: loop to a constant and mask with where")
    if not 1 <= len(bounds) <= 3 or any(not isinstance(b, int) or isinstance(b, bool) for b in bounds):
        raise Fault("E0203", "range takes one to three integers")
    if len(bounds) == 3 and bounds[2] == 0:
        raise Fault("E0203", "the step of a range is 0")
    return range(*bounds)


def _len(reader: Expressions, x: Any) -> int:
    if isinstance(x, Value) and x.type.rank:
        return x.shape[0]
    if isinstance(x, range):
        return constants.length(x)
    if isinstance(x, list | tuple):
        return len(x)
    raise Fault("E0203", f"{describe(x)} has no length")


def _zip(reader: Expressions, *sequences: Any) -> list[Any]:
    return list(zip(*[list(reader.iterate(s)) for s in sequences], strict=False))


def _enumerate(reader: Expressions, sequence: Any, start: int = 0) -> list[Any]:
    return list(enumerate(reader.iterate(sequence), _integer(start, "start")))


def _sequence(kind: type[list[Any]] | type[tuple[Any, ...]]) -> Callable[..., Any]:
    return lambda reader, items=(): kind(reader.iterate(items))


def _number(name: str, dtype: DType, kind: type[int] | type[float]) -> Callable[..., Any]:
    def build(reader: Expressions, x: Any) -> Any:
        if isinstance(x, Value):
            return reader.arrays.astype(x, dtype)
        try:
            return kind(x)
        except (OverflowError, ValueError, TypeError):
            raise Fault("E0309", f"{name}({x}) has no value") from None

    return build


_BUILDERS: dict[str, Callable[..., Any]] = {
    **{name: _elementwise(name) for name, op in OPS.items() if op.elementwise},
    "where": _where, "astype": _astype,
    "sum": _reduction("sum"), "max": _reduction("max"), "min": _reduction("min"), "cumsum": _cumsum,
    "broadcast_to": _broadcast_to, "reshape": _reshape, "permute_dims": _permute_dims, "expand_dims": _expand_dims,
    "squeeze": _squeeze, "moveaxis": _moveaxis, "flip": _flip,
    "zeros": _filled(0.0), "ones": _filled(1.0), "full": _full, "zeros_like": _like(0.0), "ones_like": _like(1.0),
    "arange": _arange, "eye": _eye, "tril": _triangle("less_equal"), "triu": _triangle("greater_equal"),
    "concat": _concat, "stack": _stack, "place": _place, "take": _take, "take_along_axis": _take_along_axis,
    "scatter_add": _scatter_add, "copy": _copy, "stop_gradient": _stop_gradient, "matmul": _matmul,
    "all_reduce": _all_reduce, "wait": _wait,
    "range": _range, "len": _len, "zip": _zip, "enumerate": _enumerate, "list": _sequence(list),
    "tuple": _sequence(tuple), "reversed": lambda reader, items: list(reader.iterate(items))[::-1],
    "int": _number("int", i64, int), "float": _number("float", f64, float),
}
FUNCTIONS: dict[str, Function] = {name: Function(name, build) for name, build in _BUILDERS.items()}

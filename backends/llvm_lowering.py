"""One row for each operation on scalars: the LLVM instructions that compute its result, at any number of lanes.

float16 and bfloat16 are stored so and computed in float32: their lanes are floats, rounded after each operation.
Integers wrap around; a division of integers by 0 gives 0, as NumPy's does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.graph import Constant, Node, Value
from ..ir.ops import OPS
from ..ir.tables import rows
from ..ir.types import DType, bool_, f64
from .llvm_math import FUNCTIONS, SINGLE
from .llvm_writer import Lane, Writer

_KINDS = {"f16": "float", "bf16": "float", "f32": "float", "f64": "double", "i32": "i32", "i64": "i64", "bool": "i1"}
_MEMORY = {"f16": "i16", "bf16": "i16", "bool": "i8"}

Lowering = Callable[[Writer, Node, Sequence[Lane]], Lane]
_LOWERINGS: dict[str, Lowering] = {}


def lowered() -> set[str]:
    """The operations on scalars that have a lowering."""
    return set(_LOWERINGS)


def lower(w: Writer, node: Node, lane: Callable[[Value], Lane]) -> Lane:
    """The instructions that compute the node's result, its operands being values."""
    return instructions(w, node, [constant(w, v) if isinstance(v, Constant) else lane(v) for v in node.operands])


def instructions(w: Writer, node: Node, operands: Sequence[Lane]) -> Lane:
    """The instructions that compute the node's result of such operands."""
    return _LOWERINGS[node.op.name](w, node, operands)


def constant(w: Writer, value: Constant) -> Lane:
    """A constant of the program."""
    return w.constant(value.number, kind(value.dtype))


def kind(dtype: DType) -> str:
    """The LLVM type in which values of the dtype are computed."""
    return _KINDS[dtype.name]


def memory_kind(dtype: DType) -> str:
    """The LLVM type in which values of the dtype are stored."""
    return _MEMORY.get(dtype.name) or _KINDS[dtype.name]


def from_memory(w: Writer, stored: Lane, dtype: DType) -> Lane:
    """What was loaded, as it is computed with."""
    if dtype is bool_:
        return stored.differs(0)
    if dtype.name == "f16":
        return w.cast(w.cast(stored, "bitcast", "half"), "fpext", "float")
    if dtype.name == "bf16":
        return w.cast(w.cast(stored, "zext", "i32") << 16, "bitcast", "float")
    return stored


def to_memory(w: Writer, value: Lane, dtype: DType) -> Lane:
    """A value, rounded to its dtype before, as it is stored."""
    if dtype is bool_:
        return w.cast(value, "zext", "i8")
    if dtype.name == "f16":
        return w.cast(w.cast(value, "fptrunc", "half"), "bitcast", "i16")
    if dtype.name == "bf16":
        return w.cast(w.cast(value, "bitcast", "i32").logical_shift(16), "trunc", "i16")
    return value


def rounded(w: Writer, value: Lane, dtype: DType) -> Lane:
    """A float or double, rounded to the dtype (to nearest, ties to even)."""
    if dtype is f64:
        return value if value.kind == "double" else w.cast(value, "fpext", "double")
    if value.kind == "double":
        value = w.cast(value, "fptrunc", "float")
    if dtype.name == "f16":
        return w.cast(w.cast(value, "fptrunc", "half"), "fpext", "float")
    if dtype.name == "bf16":
        bits = w.cast(value, "bitcast", "i32")
        up = bits + ((bits.logical_shift(16) & 1) + 0x7FFF)
        near = w.cast((up.logical_shift(16)) << 16, "bitcast", "float")
        return w.select(value.is_nan, value, near)
    return value


_row = rows(_LOWERINGS)


# Arithmetic ------------------------------------------------------------------------------------------------------

_INFIX: dict[str, Callable[[Lane, Lane], Lane]] = {
    "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
}


@_row("add subtract multiply divide")
def _infix(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    return _narrow(w, node, _INFIX[node.op.name](*v))


def _narrow(w: Writer, node: Node, found: Lane) -> Lane:
    dtype = node.results[0].dtype
    return rounded(w, found, dtype) if dtype.is_float else found


@_row("negative")
def _negative(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    return -v[0]


@_row("abs")
def _abs(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    x = v[0]
    return w.intrinsic("fabs", x.kind, x) if node.results[0].dtype.is_float else w.select(x < 0, -x, x)


@_row("sign")
def _sign(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    x = v[0]
    one, zero = w.constant(1, x.kind), w.constant(0, x.kind)
    found = w.select(x > 0, one, w.select(x < 0, w.constant(-1, x.kind), zero))
    return w.select(x.is_nan, x, found) if node.results[0].dtype.is_float else found


@_row("maximum minimum")
def _extremum(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    a, b = v
    if node.results[0].dtype.is_float:
        return w.intrinsic(node.op.name, a.kind, a, b)
    return w.select(a > b if node.op.name == "maximum" else a < b, a, b)


@_row("floor ceil round")
def _rounding(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    return w.intrinsic({"round": "roundeven"}.get(node.op.name, node.op.name), v[0].kind, v[0])


@_row("mod floor_divide")
def _division(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    if node.results[0].dtype.is_float:
        return _narrow(w, node, (_float_mod if node.op.name == "mod" else _float_floor)(w, *v))
    a, b = v
    one, zero = w.constant(1, a.kind), w.constant(0, a.kind)
    nothing, minus = b.equals(0), b.equals(-1)
    safe = w.select(nothing | minus, one, b)  # INT_MIN / -1 traps
    quotient = a / safe
    rest = a - quotient * safe
    below = rest.differs(0) & ((rest ^ safe) < 0)
    if node.op.name == "mod":
        found = w.select(below, rest + safe, rest)
        return w.select(nothing | minus, zero, found)
    found = w.select(below, quotient - 1, quotient)
    return w.select(nothing, zero, w.select(minus, -a, found))


def _remainder(w: Writer, a: Lane, b: Lane) -> tuple[Lane, Lane]:
    """fmod, and the remainder of the floored division, whose sign is that of b."""
    t = w.type(a.kind)
    rest = w.line(a.kind, f"frem {t} {a.name}, {b.name}")
    other = (rest < 0) ^ (b < 0)
    moved = w.select(other & rest.differs(0), rest + b, rest)
    zero = w.intrinsic("copysign", a.kind, w.constant(0.0, a.kind), b)
    return rest, w.select(rest.equals(0), zero, moved)


def _float_mod(w: Writer, a: Lane, b: Lane) -> Lane:
    rest, found = _remainder(w, a, b)
    return w.select(b.equals(0), rest, found)


def _float_floor(w: Writer, a: Lane, b: Lane) -> Lane:
    """floor(a / b) of the exact quotient, as Python and NumPy compute it."""
    rest, _ = _remainder(w, a, b)
    q = (a - rest) / b
    q = w.select(rest.differs(0) & ((rest < 0) ^ (b < 0)), q - 1, q)
    low = w.intrinsic("floor", a.kind, q)
    near = w.select(q - low > 0.5, low + 1, low)
    ratio = a / b
    near = w.select(q.equals(0), w.intrinsic("copysign", a.kind, w.constant(0.0, a.kind), ratio), near)
    return w.select(b.equals(0), ratio, near)


@_row("pow")
def _pow(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    if not node.results[0].dtype.is_float:
        return w.integer_power(*v)
    exponent = node.operands[1]
    short = _POWERS.get(float(exponent.number)) if isinstance(exponent, Constant) else None
    if short is None:
        return _function(w, node, v)
    return rounded(w, short(rounded(w, v[0], f64)), node.results[0].dtype)


def _square(x: Lane) -> Lane:
    return x * x


_POWERS: dict[float, Callable[[Lane], Lane]] = {
    1.0: lambda x: x, 2.0: _square, 3.0: lambda x: x * x * x, 4.0: lambda x: _square(_square(x)),
    -1.0: lambda x: 1.0 / x, -2.0: lambda x: _square(1.0 / x),
}
"""Powers that a few operations give within 1.5 ulp, without overflow on the way."""


# Functions -------------------------------------------------------------------------------------------------------

def _function(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    """Of f32 and less in f32 where llvm_single has a formula, else in f64, and rounded."""
    dtype = node.results[0].dtype
    if dtype is not f64 and node.op.name in SINGLE:
        return rounded(w, w.function(node.op.name, *v), dtype)
    return rounded(w, w.function(node.op.name, *(rounded(w, x, f64) for x in v)), dtype)


for _name in FUNCTIONS:
    if _name in OPS and _name != "pow":
        _row(_name)(_function)


@_row("sqrt")
def _sqrt(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    return _narrow(w, node, w.intrinsic("sqrt", v[0].kind, v[0]))


# Comparisons and logic -------------------------------------------------------------------------------------------

_COMPARISONS: dict[str, Callable[[Lane, Lane], Lane]] = {
    "less": lambda a, b: a < b, "less_equal": lambda a, b: a <= b, "greater": lambda a, b: a > b,
    "greater_equal": lambda a, b: a >= b, "equal": lambda a, b: a.equals(b), "not_equal": lambda a, b: a.differs(b),
}


@_row("less less_equal greater greater_equal equal not_equal")
def _comparison(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    if node.operands[0].dtype is bool_:
        v = [w.cast(x, "zext", "i8") for x in v]
    return _COMPARISONS[node.op.name](*v)


@_row("logical_and")
def _and(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    return v[0] & v[1]


@_row("logical_or")
def _or(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    return v[0] | v[1]


@_row("logical_not")
def _not(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    return v[0] ^ True


@_row("where")
def _where(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    return w.select(*v)


@_row("astype")
def _astype(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    """Floating point to an integer cuts off, and saturates where it does not fit; NaN becomes 0."""
    x, source, target = v[0], node.operands[0].dtype, node.results[0].dtype
    if target is source:
        return x
    if target is bool_:
        return x.differs(0)
    if source.is_float:
        return rounded(w, x, target) if target.is_float else w.saturated(x, kind(target))
    if target.is_float:
        wide = "double" if target is f64 or source.bytes == 8 else "float"
        op = "uitofp" if source is bool_ else "sitofp"
        if source.name == "i64" and target is not f64:
            return rounded(w, w.cast(x, op, "float"), target)
        return rounded(w, w.cast(x, op, wide), target)
    op = "zext" if source is bool_ else "sext" if target.bytes > source.bytes else "trunc"
    return w.cast(x, op, kind(target))


@_row("copy stop_gradient reshape broadcast_to")
def _same(w: Writer, node: Node, v: Sequence[Lane]) -> Lane:
    """Of a scalar all of these are the scalar."""
    return v[0]

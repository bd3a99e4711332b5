"""Scalars that stand in the text: how a number is rounded to a dtype, printed, and compared by its bits."""

from __future__ import annotations

import math
import struct
from typing import Any

from .diagnostics import Fault
from .types import DType

Number = bool | int | float

_INTEGER_LIMITS = {"i32": 2**31, "i64": 2**63}


def rounded(number: Number, dtype: DType) -> Number:
    """The number as `dtype` stores it, as a Python number; Fault E0309 where it overflows."""
    if dtype.kind == "bool":
        return bool(number)
    if dtype.kind == "int":
        if isinstance(number, float) and not (math.isfinite(number) and number.is_integer()):
            raise Fault("E0309", f"{number} is not an integer, as {dtype} needs")
        whole = int(number)
        limit = _INTEGER_LIMITS[dtype.name]
        if not -limit <= whole < limit:
            raise Fault("E0309", f"{short(number)} overflows {dtype}")
        return whole
    try:
        value = float(number)
    except OverflowError:
        raise Fault("E0309", f"{short(number)} overflows {dtype}") from None
    if not math.isfinite(value):
        return value
    if dtype.name == "f64":
        return value
    stored = _round_float(value, dtype)
    if math.isinf(stored):
        raise Fault("E0309", f"{number} overflows {dtype}", "write inf if that is meant")
    return stored


def cast(number: Number, dtype: DType) -> Number | None:
    """The number converted to `dtype` as `astype` does: a fraction is cut, an integer wrapped, what is too large for
    floating point is infinite. None where NumPy leaves it open: an integer of NaN, or of a float outside its range."""
    if dtype.kind == "bool":
        return bool(number)
    if dtype.kind == "float":
        return float(number) if dtype.name == "f64" else _round_float(float(number), dtype)
    limit = _INTEGER_LIMITS[dtype.name]
    if not isinstance(number, float):
        return (int(number) + limit) % (2 * limit) - limit
    return int(number) if -limit <= number < limit else None


def _round_float(value: float, dtype: DType) -> float:
    try:
        if dtype.name == "f32":
            return float(struct.unpack("f", struct.pack("f", value))[0])
        if dtype.name == "f16":
            return float(struct.unpack("e", struct.pack("e", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(dtype.numpy.type(value))


def short(number: Number) -> str:
    """The number as a message shows it: not all digits of a vast one."""
    if isinstance(number, int) and number.bit_length() > 200:
        return f"an integer of {number.bit_length()} bits"
    return str(number)


def bits(number: Number) -> Any:
    """A key that is equal for equal bits: NaN equals itself, 0.0 and -0.0 differ."""
    if isinstance(number, float):
        return "nan" if math.isnan(number) else struct.pack("d", number)
    return number


def text(number: Number, dtype: DType) -> str:
    """The shortest literal that reads back to the same number of that dtype."""
    if dtype.kind != "float":
        return str(number)
    value = float(number)
    if not math.isfinite(value):
        return str(value)
    if dtype.name != "f64":
        short = str(dtype.numpy.type(value))
        if bits(rounded(float(short), dtype)) == bits(value):
            return repr(float(short))
    return repr(value)

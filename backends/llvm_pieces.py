"""What the formulas of `llvm_exponentials` and `llvm_angles` are made of, and the table that they stand in."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

from . import llvm_engine
from .llvm_writer import Lane, Writer

INF, NAN = math.inf, math.nan
MAGIC = 6755399441055744.0
"""1.5 * 2^52: adding it rounds to an integer, which then stands in the low bits."""
MAGIC_BITS = 0x4338000000000000

FUNCTIONS: dict[str, Callable[..., Lane]] = {}
"""Every function of f64, by the name of its operation: a formula over lanes."""


def function(formula: Callable[..., Lane]) -> Callable[..., Lane]:
    """Enters a formula under its name (a trailing underscore is Python's need)."""
    FUNCTIONS[formula.__name__.rstrip("_")] = formula
    return formula


SELDOM: set[str] = set()
"""Functions that are called in a branch that is seldom taken, or are long: never inlined."""


def seldom(formula: Callable[..., Lane]) -> Callable[..., Lane]:
    """Enters the formula of such a function."""
    SELDOM.add(formula.__name__)
    return function(formula)


def polynomial(w: Writer, z: Lane, coefficients: Sequence[float]) -> Lane:
    """By Horner's scheme in z^2, coefficients taken in pairs: one product more than Horner's, and half the latency
    (Knuth, "The Art of Computer Programming", 4.6.4)."""
    pairs = [w.fma(coefficients[i + 1], z, coefficients[i]) if i + 1 < len(coefficients) else coefficients[i]
             for i in range(0, len(coefficients), 2)]
    found, square = pairs[-1], z * z
    for pair in reversed(pairs[:-1]):
        found = w.fma(found, square, pair)
    assert isinstance(found, Lane)
    return found


def magnitude(w: Writer, x: Lane) -> Lane:
    """|x|."""
    return w.intrinsic("fabs", x.kind, x)


def beyond(w: Writer, x: Lane, limit: float) -> Lane:
    """Negative where |x| > limit, or x is NaN: for `Writer.rarely`."""
    bits: int = struct.unpack("<q", struct.pack("<d", limit))[0]
    return bits - w.cast(magnitude(w, x), "bitcast", "i64")


def with_sign(w: Writer, x: Lane, sign: Lane) -> Lane:
    """|x| with the sign bit of another."""
    return w.intrinsic("copysign", x.kind, x, sign)


def square_root(w: Writer, x: Lane) -> Lane:
    """Correctly rounded, as IEEE 754 asks of hardware."""
    return w.intrinsic("sqrt", "double", x)


def power_of_two(w: Writer, exponent: Lane) -> Lane:
    """2^exponent for an i64 from -1022 to 1023."""
    return w.cast((exponent + 1023) << 52, "bitcast", "double")


def scales(w: Writer) -> bool:
    """Has the machine at hand an instruction for `scaled` at that many lanes?"""
    return w.lanes % 8 == 0 and llvm_engine.lanes() == 8


def scaled(w: Writer, x: Lane, n: Lane) -> Lane:
    """x * 2^n for a whole n, which is a double, rounded once: AVX-512's, register by register."""
    one = "<8 x double>"
    name = "llvm.x86.avx512.mask.scalef.pd.512"
    w.declared[name] = f"declare {one} @{name}({one}, {one}, {one}, i8, i32)"
    found = []
    for start in range(0, w.lanes, 8):
        a, b = w.lane_range(x, start, 8), w.lane_range(n, start, 8)
        found.append(w.line("double", f"call {one} @{name}({one} {a}, {one} {b}, {one} {a}, i8 -1, i32 4)"))
    while len(found) > 1:
        found = [w.joined(a, b, w.lanes // len(found)) for a, b in zip(found[::2], found[1::2], strict=True)]
    return found[0]


def clamped(w: Writer, x: Lane, low: float, high: float) -> Lane:
    """x within bounds; NaN stays."""
    x = w.select(x > high, high, x)
    return w.select(x < low, low, x)

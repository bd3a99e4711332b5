"""What the formulas of `llvm_exponentials` and `llvm_angles` are made of, and the table that they stand in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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


def with_sign(w: Writer, x: Lane, sign: Lane) -> Lane:
    """|x| with the sign bit of another."""
    return w.intrinsic("copysign", x.kind, x, sign)


def square_root(w: Writer, x: Lane) -> Lane:
    """Correctly rounded, as IEEE 754 asks of hardware."""
    return w.intrinsic("sqrt", "double", x)


def power_of_two(w: Writer, exponent: Lane) -> Lane:
    """2^exponent for an i64 from -1022 to 1023."""
    return w.cast((exponent + 1023) << 52, "bitcast", "double")


def clamped(w: Writer, x: Lane, low: float, high: float) -> Lane:
    """x within bounds; NaN stays."""
    x = w.select(x > high, high, x)
    return w.select(x < low, low, x)

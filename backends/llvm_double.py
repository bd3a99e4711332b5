"""Sums and products that carry the rounding error along: a value is `high + low`, two doubles to about 100 bits, or
two floats to about 45.

Dekker, "A floating-point technique for extending the available precision" (1971); Muller et al., "Handbook of
Floating-Point Arithmetic" (2nd edition, 2018), chapters 4 and 14.
"""

from __future__ import annotations

from typing import NamedTuple

from .llvm_writer import Lane, Writer


class Pair(NamedTuple):
    """An unevaluated sum; `low` is below the last bit of `high`, or near it."""

    high: Lane
    low: Lane


def fast_two_sum(a: Lane | float, b: Lane) -> Pair:
    """a + b, exactly, where |a| >= |b|."""
    s = b + a
    return Pair(s, b - (s - a))


def two_sum(a: Lane, b: Lane | float) -> Pair:
    """a + b, exactly."""
    s = a + b
    bb = s - a
    return Pair(s, (a - (s - bb)) + (b - bb))


def two_product(w: Writer, a: Lane, b: Lane | float) -> Pair:
    """a * b, exactly."""
    p = a * b
    return Pair(p, w.fma(a, b, -p))


def quotient(w: Writer, a: Pair, b: Pair) -> Pair:
    """a / b, to about twice the working precision."""
    q = a.high / b.high
    rest = w.fma(-q, b.high, a.high)
    return Pair(q, ((rest - q * b.low) + a.low) / b.high)


def root(w: Writer, a: Pair) -> Pair:
    """The square root of a, to about twice the working precision; a.high is positive."""
    s = w.intrinsic("sqrt", "double", a.high)
    return Pair(s, (w.fma(-s, s, a.high) + a.low) / (s + s))

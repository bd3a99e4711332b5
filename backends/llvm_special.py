"""The error function, its complement and the logarithm of the gamma function as LLVM IR: NIST Digital Library of
Mathematical Functions, chapters 7 and 5."""

from __future__ import annotations

import math

from . import llvm_coefficients as fitted
from .llvm_double import two_product
from .llvm_exponentials import Exponential
from .llvm_pieces import clamped, function, magnitude, polynomial, with_sign
from .llvm_writer import Lane, Writer

NEAR, FAR = 0.5, 28.0
"""Between them erfc is what remains when exp(-x^2) is taken out of it; beyond, it is 0."""


@function
def erf(w: Writer, x: Lane) -> Lane:
    """x + x p(x^2) to 1, then 1 - erfc(x)."""
    a = magnitude(w, x)
    return w.choice(a < 1.0, lambda: _near(w, x), lambda: with_sign(w, 1.0 - _complement(w, a), x))


@function
def erfc(w: Writer, x: Lane) -> Lane:
    """1 - erf(x), without cancellation."""
    def far() -> Lane:
        found = _complement(w, magnitude(w, x))
        return w.select(x < 0.0, 2.0 - found, found)

    return w.choice(x < NEAR, lambda: w.choice(x > -NEAR, lambda: 1.0 - _near(w, x), far), far)


def _near(w: Writer, x: Lane) -> Lane:
    """erf(x) for |x| <= 1."""
    return w.fma(x, polynomial(w, x * x, fitted.ERF), x)


def _complement(w: Writer, a: Lane) -> Lane:
    """erfc(a) = exp(-a^2) f(q) / (1 + 2 a) for a >= 1/2, where f varies little with q = (a - 4) / (a + 4)."""
    a = clamped(w, a, NEAR, FAR)
    square = two_product(w, -a, a)
    e = Exponential(w, square.high, square.low)
    f = polynomial(w, (a - 4.0) / (a + 4.0), fitted.ERFC)
    return e.scaled((f + w.fma(f, e.p.high, f * e.p.low)) / (a + a + 1.0))


@function
def lgamma(w: Writer, x: Lane) -> Lane:
    """log |gamma(x)|: for x > 8 Stirling's series (DLMF 5.11.1), below it what is left from 1 to 3 when the zeros are
    taken out, and the logarithm of the factors from there (5.5.1). Below 0 it is the C library's."""
    bits = w.cast(x, "bitcast", "i64")
    below = bits | (0x7FF0000000000000 - bits)  # negative where x is, or NaN
    less, small = x < 1.0, x < 8.0
    steps = clamped(w, w.intrinsic("floor", "double", x) - 2.0, 0.0, 5.0)  # from 1 to 3
    low, one = x - steps, w.constant(1.0, "double")
    a, b, c, d, e = (w.select(steps >= float(i), x - float(i), one) for i in range(1, 6))
    logarithm = w.function("log", w.select(small ^ less, ((a * b) * (c * d)) * e, x))

    def left() -> Lane:
        first, second = w.select(less, x, low - 1.0), w.select(less, x - 1.0, low - 2.0)
        rest = first * (second * polynomial(w, second, fitted.LGAMMA))
        return rest + w.select(less, -logarithm, logarithm)

    def stirling() -> Lane:
        r = 1.0 / x
        tail = w.fma(r, polynomial(w, r * r, fitted.STIRLING), 0.5 * math.log(2 * math.pi) - 0.5)
        return w.fma(x - 0.5, logarithm - 1.0, tail)

    return w.rarely(below, w.choice(small, left, stirling), lambda: w.library("lgamma", x))

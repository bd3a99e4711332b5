"""The functions of networks for float32, computed in float32: twice the lanes of float64, within 1 ulp of float32.

The formulas are those of `llvm_exponentials` with shorter polynomials, without branches: a mask's infinities cost what
other numbers do. Functions that are not here are computed in float64 and rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import llvm_coefficients as fitted
from .llvm_double import Pair, fast_two_sum, quotient, two_product, two_sum
from .llvm_pieces import INF, NAN, clamped, magnitude, polynomial, with_sign
from .llvm_writer import Lane, Writer

SINGLE: dict[str, Callable[..., Lane]] = {}
"""Every function of f32, by the name of its operation: a formula over lanes."""

LOG2_E = 1.4426950408889634
LN2_SHORT, LN2_REST = float.fromhex("0x1.62ep-1"), float.fromhex("0x1.0bfbe8e7bcd5ep-15")
"""log(2) with 12 bits, so that multiples are exact, and the rest."""
MAGIC, MAGIC_BITS = 12582912.0, 0x4B400000
"""1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits."""
NEAR = 0.92
"""Below it, erf is a polynomial; above it, 1 less an exponential."""


def single(formula: Callable[..., Lane]) -> Callable[..., Lane]:
    """Enters a formula under its name."""
    SINGLE[formula.__name__] = formula
    return formula


class _Exponential:
    """exp(x + low) = 2^n (1 + r + tail), |r| <= log(2) / 2; n as an i32. |x| is at most 110."""

    def __init__(self, w: Writer, x: Lane, low: Lane | None = None) -> None:
        self.w = w
        shifted = w.fma(x, LOG2_E, MAGIC)
        n = shifted - MAGIC
        self.n = w.cast(shifted, "bitcast", "i32") - MAGIC_BITS
        r0 = w.fma(n, -LN2_SHORT, x)  # exact
        self.r = r = w.fma(n, -LN2_REST, r0)
        rest = w.fma(n, -LN2_REST, r0 - r)
        self.tail = w.fma(r * r, polynomial(w, r, fitted.EXP_SINGLE), rest if low is None else rest + low)

    def pair(self) -> Pair:
        """1 + r + tail."""
        one = fast_two_sum(1.0, self.r)
        return fast_two_sum(one.high, one.low + self.tail)

    def value(self) -> Lane:
        """exp(x), through overflow and underflow."""
        return self.scaled(self.pair().high)

    def scaled(self, x: Lane) -> Lane:
        """x * 2^n, rounded once."""
        half = self.n >> 1
        return (x * _power_of_two(self.w, half)) * _power_of_two(self.w, self.n - half)

    def less_one(self) -> Pair:
        """exp(x) - 1 as a pair; n is at most 127."""
        s = _power_of_two(self.w, self.n)
        p = fast_two_sum(self.r, self.tail)
        base = two_sum(s, -1.0)
        high = two_sum(base.high, s * p.high)
        return Pair(high.high, high.low + (base.low + s * p.low))


def _power_of_two(w: Writer, exponent: Lane) -> Lane:
    """2^exponent for an i32 from -126 to 127."""
    return w.cast((exponent + 127) << 23, "bitcast", "float")


@single
def exp(w: Writer, x: Lane) -> Lane:
    """e^x."""
    return _Exponential(w, clamped(w, x, -104.0, 89.0)).value()


@single
def expm1(w: Writer, x: Lane) -> Lane:
    """e^x - 1."""
    e = _Exponential(w, clamped(w, x, -20.0, 88.0)).less_one()
    near = w.select(magnitude(w, x) < 1e-8, x, e.high + e.low)  # keeps the sign of zero
    return w.select(x > 87.0, w.function("exp", x), near)


@single
def tanh(w: Writer, x: Lane) -> Lane:
    """E / (E + 2) with E = exp(2 |x|) - 1."""
    a = clamped(w, magnitude(w, x), 0.0, 10.0)
    e = _Exponential(w, a + a).less_one()
    t = two_sum(e.high, 2.0)
    found = quotient(w, e, Pair(t.high, t.low + e.low))
    return with_sign(w, found.high + found.low, x)


@single
def sigmoid(w: Writer, x: Lane) -> Lane:
    """e / (1 + e) with e = exp(-|x|), or 1 / (1 + e)."""
    e = _Exponential(w, clamped(w, -magnitude(w, x), -104.0, 0.0))
    one = e.pair()
    high, low = e.scaled(one.high), e.scaled(one.low)
    total = fast_two_sum(1.0, high)
    below = x < 0.0
    top = Pair(w.select(below, high, 1.0), w.select(below, low, 0.0))
    found = quotient(w, top, Pair(total.high, total.low + low))
    return found.high + found.low


def _logarithm(w: Writer, x: Lane, rest: Lane | None = None) -> Lane:
    """log(x + rest) for x = 2^k (1 + f): f - f^2 / 2 + f^3 p(f), and its values at the ends."""
    tiny = x < 2.0 ** -126
    bits = w.cast(w.select(tiny, x * 2.0 ** 25, x), "bitcast", "i32") + (0x3F800000 - 0x3F3504F3)
    exponent = (bits >> 23) - w.select(tiny, w.constant(127 + 25, "i32"), w.constant(127, "i32"))
    k = w.cast(exponent, "sitofp", "float")
    f = w.cast((bits & 0x007FFFFF) + 0x3F3504F3, "bitcast", "float") - 1.0
    last = k * LN2_REST
    if rest is not None:  # beyond 2^100 there is none
        moved = two_sum(f, w.select(exponent > 100, 0.0, rest * _power_of_two(w, -exponent)))
        f, last = moved.high, w.fma(moved.low, 1.0 - moved.high, last)
    square = f * f
    tail = w.fma(f, square * polynomial(w, f, fitted.LOG_SINGLE), last)
    found = w.fma(k, LN2_SHORT, f + w.fma(square, -0.5, tail))
    found = w.select(x < INF, found, x)
    found = w.select(x.equals(0.0), -INF, found)
    return w.select(x < 0.0, NAN, found)


@single
def log(w: Writer, x: Lane) -> Lane:
    """Natural logarithm."""
    return _logarithm(w, x)


@single
def log1p(w: Writer, x: Lane) -> Lane:
    """log(1 + x), 1 + x as a pair."""
    y = two_sum(x, 1.0)
    return w.select(magnitude(w, x) < 1e-8, x, _logarithm(w, y.high, y.low))


@single
def erf(w: Writer, x: Lane) -> Lane:
    """x + x p(x^2) near 0, else 1 - exp(-|x| q(|x|))."""
    a = magnitude(w, x)
    near = w.fma(x, _horner(w, x * x, fitted.ERF_SINGLE), x)
    t = clamped(w, a, NEAR, 4.0)
    q = two_product(w, -t, _horner(w, t, fitted.ERFC_SINGLE))
    far = 1.0 - _Exponential(w, q.high, q.low).value()
    return w.select(a < NEAR, near, with_sign(w, far, x))


def _horner(w: Writer, z: Lane, coefficients: Sequence[float]) -> Lane:
    """A polynomial with fewer roundings than Estrin's scheme has, one after the other."""
    found: Lane | float = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        found = w.fma(z, found, coefficient)
    assert isinstance(found, Lane)
    return found

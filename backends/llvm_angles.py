"""Trigonometric functions and their inverses as LLVM IR."""

from __future__ import annotations

from . import llvm_coefficients as fitted
from .llvm_double import Pair, fast_two_sum, quotient, two_product, two_sum
from .llvm_pieces import INF, MAGIC, beyond, function, magnitude, polynomial, square_root, with_sign
from .llvm_writer import Lane, Writer

TWO_OVER_PI = 0.6366197723675814
HALF_PI, HALF_PI_LOW, HALF_PI_LAST = 1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33
PI, PI_LOW = 3.141592653589793, 1.2246467991473532e-16
LARGEST_ANGLE = 2.0 ** 30
"""Beyond it three words of pi / 2 are too few, and the C library's reduction is called (Payne and Hanek, 1983)."""


class Angle:
    """x = n pi / 2 + r: r as a pair, the two low bits of n. Cody and Waite (1980) with FMA: r is accurate to 2^-100."""

    def __init__(self, w: Writer, x: Lane) -> None:
        self.w = w
        shifted = w.fma(x, TWO_OVER_PI, MAGIC)
        n = shifted - MAGIC
        self.quadrant = w.cast(shifted, "bitcast", "i64")
        first = w.fma(-n, HALF_PI, x)  # exact: a multiple of 2^-53 below 1
        second = two_product(w, n, -HALF_PI_LOW)
        r = first + second.high
        low = (first - r) + second.high  # exact: first is a multiple of the last bit of the other
        self.r = Pair(r, w.fma(n, -HALF_PI_LAST, low + second.low))
        self.z = two_product(w, r, r)
        self.c = fast_two_sum(1.0, -0.5 * self.z.high)

    def sine(self) -> tuple[Lane, Lane]:
        """sin(r) as r and what is to be added to it."""
        w, r, z = self.w, self.r, self.z.high
        return r.high, w.fma(z * r.high, polynomial(w, z, fitted.SIN), self.c.high * r.low)

    def cosine(self) -> tuple[Lane, Lane]:
        """cos(r) as 1 - r^2 / 2 and what is to be added to it, but for the rounding of r^2."""
        w, r, z = self.w, self.r, self.z.high
        return self.c.high, w.fma(z * z, polynomial(w, z, fitted.COS), w.fma(-r.high, r.low, self.c.low))

    def turned(self, quarters: int) -> Lane:
        """sin(x + quarters pi / 2)."""
        w = self.w
        s, c = self.sine(), self.cosine()
        n = self.quadrant + quarters if quarters else self.quadrant
        sine = with_sign(w, s[0] + s[1], s[0])  # keeps the sign of zero
        found = w.select((n & 1).equals(0), sine, c[0] + c[1])
        flipped = w.cast(found, "bitcast", "i64") ^ ((n & 2) << 62)
        return w.cast(flipped, "bitcast", "double")


def _large(w: Writer, x: Lane, found: Lane, name: str) -> Lane:
    return w.rarely(beyond(w, x, LARGEST_ANGLE), found, lambda: w.library(name, x))


@function
def sin(w: Writer, x: Lane) -> Lane:
    """Sine."""
    return _large(w, x, Angle(w, x).turned(0), "sin")


@function
def cos(w: Writer, x: Lane) -> Lane:
    """Cosine."""
    return _large(w, x, Angle(w, x).turned(1), "cos")


@function
def tan(w: Writer, x: Lane) -> Lane:
    """Sine by cosine, both as pairs."""
    angle = Angle(w, x)
    s, c = fast_two_sum(*angle.sine()), angle.cosine()
    c = fast_two_sum(c[0], w.fma(angle.z.low, -0.5, c[1]))
    even = (angle.quadrant & 1).equals(0)
    above = Pair(w.select(even, s.high, -c.high), w.select(even, s.low, -c.low))
    below = Pair(w.select(even, c.high, s.high), w.select(even, c.low, s.low))
    q = quotient(w, above, below)
    return _large(w, x, w.select(x.equals(0.0), x, q.high + q.low), "tan")


# Inverses --------------------------------------------------------------------------------------------------------

class _Arc:
    """What asin and acos share: asin on [0, 1/2], or the square root that stands for the rest."""

    def __init__(self, w: Writer, x: Lane) -> None:
        self.a = magnitude(w, x)
        self.central = self.a <= 0.5
        self.z = w.select(self.central, self.a * self.a, 0.5 - 0.5 * self.a)  # exact beyond 1/2
        self.tail = self.z * polynomial(w, self.z, fitted.ASIN)
        s = square_root(w, self.z)
        safe = w.select(s > 0.0, s, 1.0)
        low = w.fma(-s, s, self.z) / (safe + safe)
        self.twice = Pair(s + s, 2.0 * w.fma(s, self.tail, low))  # 2 asin(s)


@function
def asin(w: Writer, x: Lane) -> Lane:
    """asin(x); beyond 1/2 as pi / 2 - 2 asin(sqrt((1 - x) / 2))."""
    arc = _Arc(w, x)
    t = fast_two_sum(HALF_PI, -arc.twice.high)
    outer = t.high + (t.low + (HALF_PI_LOW - arc.twice.low))
    return with_sign(w, w.select(arc.central, w.fma(arc.a, arc.tail, arc.a), outer), x)


@function
def acos(w: Writer, x: Lane) -> Lane:
    """acos(x), with asin's polynomial."""
    arc = _Arc(w, x)
    t = fast_two_sum(HALF_PI, -x)
    middle = t.high + (t.low + (HALF_PI_LOW - x * arc.tail))
    near = arc.twice.high + arc.twice.low
    u = fast_two_sum(PI, -arc.twice.high)
    far = u.high + (u.low + (PI_LOW - arc.twice.low))
    return w.select(arc.central, middle, w.select(x > 0.0, near, far))


ATAN_AT = ((0.5, 0.4636476090008061, 2.2698777452961687e-17), (1.0, 0.7853981633974483, 3.061616997868383e-17),
           (1.5, 0.982793723247329, 1.3903311031230998e-17))
"""(c, atan(c), the rest of it)."""


def _arc_tangent(w: Writer, t: Pair, base: Lane | float, base_low: Lane | float) -> Pair:
    """base + atan(t) for |t| <= 7/16."""
    z = t.high * t.high
    tail = w.fma(t.high * z, polynomial(w, z, fitted.ATAN), t.low)
    s = two_sum(t.high, base)
    return Pair(s.high, s.low + (tail + base_low))


@function
def atan(w: Writer, x: Lane) -> Lane:
    """atan(x) = atan(c) + atan((x - c) / (1 + c x)), c the nearest of five."""
    a = magnitude(w, x)
    zero, one = w.constant(0.0, "double"), w.constant(1.0, "double")
    above, below, base, low = a, one, zero, zero
    for edge, (c, at, rest) in zip((0.4375, 0.6875, 1.1875), ATAN_AT, strict=True):
        inside = a >= edge
        above = w.select(inside, a - c, above)
        below = w.select(inside, w.fma(a, c, 1.0), below)
        base, low = w.select(inside, at, base), w.select(inside, rest, low)
    outside = a >= 2.4375
    above, below = w.select(outside, -1.0, above), w.select(outside, a, below)
    base, low = w.select(outside, HALF_PI, base), w.select(outside, HALF_PI_LOW, low)
    found = _arc_tangent(w, Pair(above / below, zero), base, low)
    return with_sign(w, found.high + found.low, x)


@function
def atan2(w: Writer, y: Lane, x: Lane) -> Lane:
    """The angle of (x, y): the arc tangent of the smaller by the larger, turned to its octant."""
    b, a = magnitude(w, y), magnitude(w, x)
    steep = b > a
    big, small = w.select(steep, b, a), w.select(steep, a, b)
    zero, one = w.constant(0.0, "double"), w.constant(1.0, "double")
    infinite, nothing = big.equals(INF), big.equals(0.0)
    small = w.select(infinite, w.select(small.equals(INF), one, zero), small)
    big = w.select(infinite | nothing, 1.0, big)
    scale = w.select(big > 2.0 ** 1000, 2.0 ** -100, w.select(big < 2.0 ** -900, 2.0 ** 100, one))
    big, small = big * scale, small * scale
    above, below, base, low = small, big, zero, zero
    for edge, (c, at, rest) in zip((0.4375, 0.6875), ATAN_AT, strict=False):
        inside = small >= edge * big
        above = w.select(inside, w.fma(big, -c, small), above)
        below = w.select(inside, w.fma(small, c, big), below)
        base, low = w.select(inside, at, base), w.select(inside, rest, low)
    t = above / below
    rest_of_t = w.fma(-t, below, above) / below
    angle = _arc_tangent(w, Pair(t, rest_of_t), base, low)
    turned = two_sum(-angle.high, HALF_PI)
    angle = Pair(w.select(steep, turned.high, angle.high),
                 w.select(steep, turned.low + (HALF_PI_LOW - angle.low), angle.low))
    behind = w.cast(x, "bitcast", "i64") < 0
    back = two_sum(-angle.high, PI)
    angle = Pair(w.select(behind, back.high, angle.high),
                 w.select(behind, back.low + (PI_LOW - angle.low), angle.low))
    found = with_sign(w, angle.high + angle.low, y)
    return w.select(x.is_nan | y.is_nan, x + y, found)

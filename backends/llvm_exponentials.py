"""Exponentials, logarithms, powers and roots as formulas over lanes, within 1 ulp (pow 2) on all of float64.

Reductions and kernels follow fdlibm (Ng, Sun Microsystems, 1993), with FMA and a second word (llvm_double) where
fdlibm has a table of cases; Muller, "Elementary Functions" (3rd edition, 2016).
"""

from __future__ import annotations

from . import llvm_coefficients as fitted
from .llvm_double import Pair, fast_two_sum, quotient, root, two_product, two_sum
from .llvm_pieces import (
    INF,
    MAGIC,
    MAGIC_BITS,
    NAN,
    beyond,
    clamped,
    function,
    magnitude,
    polynomial,
    power_of_two,
    scaled,
    scales,
    seldom,
    with_sign,
)
from .llvm_writer import Lane, Writer

SMALLEST = 0x0010000000000000
"""The bits of the smallest normal number."""
LOG2_E, LOG2_E_LOW = 1.4426950408889634, 2.0355273740931033e-17
LOG10_E, LOG10_E_LOW = 0.4342944819032518, 1.098319650216765e-17
LN2, LN2_LOW = 0.6931471805599453, 2.3190468138462996e-17
LN2_SHORT, LN2_REST = float.fromhex("0x1.62e42fefa3800p-1"), float.fromhex("0x1.ef35793c76730p-45")
"""log(2) with 42 bits, so that multiples are exact, and the rest."""
LOG10_2_SHORT, LOG10_2_REST = float.fromhex("0x1.34413509f7000p-2"), float.fromhex("0x1.3fde623e2566bp-43")


# Exponentials ----------------------------------------------------------------------------------------------------

class Exponential:
    """exp(high + low) = 2^n (1 + p): p as a pair, n as a double and as an i64. |high| is at most 2000."""

    def __init__(self, w: Writer, high: Lane, low: Lane | None = None) -> None:
        shifted = w.fma(high, LOG2_E, MAGIC)
        self.w = w
        self.n = shifted - MAGIC
        self.whole = w.cast(shifted, "bitcast", "i64") - MAGIC_BITS
        r0 = w.fma(self.n, -LN2_SHORT, high)  # exact
        rest = self.n * LN2_REST
        r = r0 - rest
        r_low = (r0 - r) - rest
        if low is not None:
            r, r_low = two_sum(r, r_low + low)
        square = two_product(w, r, 0.5 * r)
        tail = w.fma(square.high * (r + r), polynomial(w, r, fitted.EXP_TAIL), w.fma(r_low, r, r_low + square.low))
        p = fast_two_sum(r, square.high)
        self.p = fast_two_sum(p.high, p.low + tail)

    def scaled(self, x: Lane, offset: int = 0) -> Lane:
        """x * 2^(n + offset), rounded once, through overflow and underflow."""
        whole = self.whole + offset if offset else self.whole
        half = whole >> 1
        return (x * power_of_two(self.w, half)) * power_of_two(self.w, whole - half)

    def less_one(self) -> Pair:
        """exp - 1 as a pair; -64 <= n <= 1000."""
        s = power_of_two(self.w, self.whole)
        base = two_sum(s, -1.0)
        high = two_sum(base.high, s * self.p.high)
        return Pair(high.high, high.low + (base.low + s * self.p.low))


@function
def exp(w: Writer, x: Lane) -> Lane:
    """e^x: 1 + r + r^2 q(r) for x = n log(2) + r, n added to the exponent."""
    if scales(w):
        near_one, shifted = _near_one(w, clamped(w, x, -746.0, 710.0))
        return scaled(w, near_one, shifted - MAGIC)
    near_one, shifted = _near_one(w, x)
    found = w.cast(w.cast(near_one, "bitcast", "i64") + (w.cast(shifted, "bitcast", "i64") << 52), "bitcast", "double")
    return w.rarely(beyond(w, x, 708.0), found, lambda: w.function("exp_at_the_ends", x))


@seldom
def exp_at_the_ends(w: Writer, x: Lane) -> Lane:
    """e^x where it is not a normal number."""
    near_one, shifted = _near_one(w, clamped(w, x, -746.0, 710.0))
    whole = w.cast(shifted, "bitcast", "i64") - MAGIC_BITS
    half = whole >> 1
    return (near_one * power_of_two(w, half)) * power_of_two(w, whole - half)


def _near_one(w: Writer, x: Lane) -> tuple[Lane, Lane]:
    """e^r, and n in the low bits."""
    shifted = w.fma(x, LOG2_E, MAGIC)
    n = shifted - MAGIC
    r0 = w.fma(n, -LN2, x)  # exact: a multiple of 2^-53 below 1
    r = w.fma(n, -LN2_LOW, r0)
    one = fast_two_sum(1.0, r)
    return one.high + w.fma(r * r, polynomial(w, r, fitted.EXP), one.low), shifted


@function
def exp2(w: Writer, x: Lane) -> Lane:
    """2^x: x = n + f exactly, f log(2) as a pair."""
    x = clamped(w, x, -1080.0, 1024.0)
    shifted = x + MAGIC
    n = shifted - MAGIC
    f = x - n  # exact
    product = two_product(w, f, LN2)
    low = w.fma(f, LN2_LOW, product.low)
    r = product.high
    tail = w.fma(r * r, polynomial(w, r, fitted.EXP), w.fma(low, r, low))
    whole = w.cast(shifted, "bitcast", "i64") - MAGIC_BITS
    half = whole >> 1
    return (((r + tail) + 1.0) * power_of_two(w, half)) * power_of_two(w, whole - half)


@function
def expm1(w: Writer, x: Lane) -> Lane:
    """e^x - 1: (2^n - 1) + 2^n p, summed as a pair."""
    e = Exponential(w, clamped(w, x, -40.0, 40.0))
    small = e.less_one()
    near = w.select(magnitude(w, x) < 1e-300, x, small.high + small.low)  # keeps the sign of zero
    return w.select(x > 39.0, w.function("exp", x), near)


def _exponential_less_one(w: Writer, x: Lane) -> Pair:
    return Exponential(w, x).less_one()


@function
def sinh(w: Writer, x: Lane) -> Lane:
    """(e^x - e^-x) / 2."""
    a = magnitude(w, x)
    e = _exponential_less_one(w, clamped(w, a, 0.0, 24.0))
    part = quotient(w, e, _plus(e, 1.0))  # sinh = (E + E / (E + 1)) / 2 with E = exp - 1
    total = two_sum(e.high, part.high)
    near = 0.5 * (total.high + (total.low + (e.low + part.low)))
    near = w.select(a < 1e-8, a, near)
    return with_sign(w, w.select(a > 23.0, _half_exponential(w, a), near), x)


@function
def cosh(w: Writer, x: Lane) -> Lane:
    """(e^x + e^-x) / 2."""
    a = magnitude(w, x)
    e = _plus(_exponential_less_one(w, clamped(w, a, 0.0, 24.0)), 1.0)
    inverse = quotient(w, Pair(w.constant(1.0, "double"), w.constant(0.0, "double")), e)
    total = two_sum(e.high, inverse.high)
    near = 0.5 * (total.high + (total.low + (e.low + inverse.low)))
    return w.select(a > 23.0, _half_exponential(w, a), near)


def _half_exponential(w: Writer, a: Lane) -> Lane:
    """exp(a) / 2, which overflows later than exp(a)."""
    e = Exponential(w, clamped(w, a, 0.0, 712.0))
    return e.scaled((e.p.high + e.p.low) + 1.0, -1)


@function
def tanh(w: Writer, x: Lane) -> Lane:
    """sinh / cosh."""
    a = magnitude(w, x)
    capped = clamped(w, a, 0.0, 22.0)
    e = _exponential_less_one(w, capped + capped)
    found = quotient(w, e, _plus(e, 2.0))  # tanh = E / (E + 2) with E = exp(2 a) - 1
    return with_sign(w, w.select(a < 1e-8, a, found.high + found.low), x)


@function
def sigmoid(w: Writer, x: Lane) -> Lane:
    """1 / (1 + e^-x), from e^|x|: P / (1 + P), or 1 / (1 + P) for a negative x."""
    a = magnitude(w, x)
    p = _plus(_exponential_less_one(w, clamped(w, a, 0.0, 40.0)), 1.0)
    one = Pair(w.constant(1.0, "double"), w.constant(0.0, "double"))
    low, high = quotient(w, one, _plus(p, 1.0)), quotient(w, p, _plus(p, 1.0))
    near = w.select(x < 0.0, low.high + low.low, high.high + high.low)
    return w.select(x < -39.0, w.function("exp", x), near)


def _plus(a: Pair, b: float) -> Pair:
    s = two_sum(a.high, b)
    return Pair(s.high, s.low + a.low)


# Logarithms ------------------------------------------------------------------------------------------------------

class Split:
    """x = 2^k m with m from sqrt(1/2) to sqrt(2): k as a double, m - 1 exactly. x is positive and finite, and normal
    unless `any_size`."""

    def __init__(self, w: Writer, x: Lane, any_size: bool = True) -> None:
        base = w.constant(4503599627370496.0 + 1023, "double")
        if any_size:
            tiny = x < 2.0 ** -1022
            x = w.select(tiny, x * 2.0 ** 54, x)
            base = w.select(tiny, 4503599627370496.0 + 1023 + 54, base)
        bits = w.cast(x, "bitcast", "i64") + (0x3FF0000000000000 - 0x3FE6A09E00000000)
        exponent = bits.logical_shift(52)
        self.bias = exponent  # k + 1023 (+ 54 where tiny)
        counted = w.cast(exponent | 0x4330000000000000, "bitcast", "double")
        self.k = counted - base
        mantissa = (bits & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E00000000
        self.f = w.cast(mantissa, "bitcast", "double") - 1.0


def _at_the_ends(w: Writer, x: Lane, found: Lane) -> Lane:
    """A logarithm's values at 0, below it, at infinity and NaN."""
    found = w.select(x < INF, found, x)
    found = w.select(x.equals(0.0), -INF, found)
    return w.select(x < 0.0, NAN, found)


@function
def log(w: Writer, x: Lane) -> Lane:
    """Natural logarithm: fdlibm's, x = 2^k (1 + f), s = f / (2 + f)."""
    bits = w.cast(x, "bitcast", "i64")
    unusual = (bits - SMALLEST) | (0x7FEFFFFFFFFFFFFF - bits)  # negative but for positive normal numbers
    return w.rarely(unusual, _log(w, x, False), lambda: w.function("log_at_the_ends", x))


@seldom
def log_at_the_ends(w: Writer, x: Lane) -> Lane:
    """The logarithm of what is no positive normal number."""
    return _at_the_ends(w, x, _log(w, x, True))


def _log(w: Writer, x: Lane, any_size: bool) -> Lane:
    split = Split(w, x, any_size)
    f, k = split.f, split.k
    s = f / (f + 2.0)
    half = 0.5 * f * f
    z = s * s
    tail = z * polynomial(w, z, fitted.LOG)
    inner = w.fma(s, half + tail, k * LN2_REST)
    return w.fma(k, LN2_SHORT, f - (half - inner))


class Logarithm:
    """log(high + low) = k log(2) + m, m as a pair; the argument is positive and finite."""

    def __init__(self, w: Writer, high: Lane, low: Lane | None = None) -> None:
        self.w = w
        split = Split(w, high)
        self.k = split.k
        f = Pair(split.f, w.constant(0.0, "double"))
        if low is not None:
            exponent = 2046 - split.bias  # of 2^-k
            scale = w.cast(w.select(exponent < 0, 0, exponent) << 52, "bitcast", "double")
            f = two_sum(split.f, low * scale)
        d = two_sum(f.high, 2.0)
        s = quotient(w, f, Pair(d.high, d.low + f.low))
        self.m = logarithm_of_ratio(w, s)

    def total(self) -> Pair:
        """As a pair."""
        t = two_sum(self.k * LN2_SHORT, self.m.high)
        return fast_two_sum(t.high, t.low + self.w.fma(self.k, LN2_REST, self.m.low))

    def value(self) -> Lane:
        """Rounded to one double."""
        t = self.total()
        return t.high + t.low


def logarithm_of_ratio(w: Writer, s: Pair) -> Pair:
    """log((1 + s) / (1 - s)) = 2 s + 2/3 s^3 + ... for |s| <= 3 - 2 sqrt(2)."""
    z = two_product(w, s.high, s.high)
    z_low = w.fma(s.high + s.high, s.low, z.low)
    c = fast_two_sum(2.0 / 3.0, z.high * polynomial(w, z.high, fitted.LOG_TAIL))
    c_low = c.low + 3.700743415417188e-17  # of 2/3
    cube = two_product(w, s.high, z.high)
    cube_low = cube.low + w.fma(s.high, z_low, s.low * z.high)
    term = two_product(w, cube.high, c.high)
    term_low = term.low + w.fma(cube.high, c_low, cube_low * c.high)
    t = fast_two_sum(s.high + s.high, term.high)
    return Pair(t.high, t.low + (term_low + (s.low + s.low)))


@function
def log2(w: Writer, x: Lane) -> Lane:
    """Logarithm to base 2; exact at powers of 2."""
    log_x = Logarithm(w, x)
    m = two_product(w, log_x.m.high, LOG2_E)
    t = two_sum(log_x.k, m.high)
    low = m.low + w.fma(log_x.m.high, LOG2_E_LOW, log_x.m.low * LOG2_E)
    return _at_the_ends(w, x, t.high + (t.low + low))


@function
def log10(w: Writer, x: Lane) -> Lane:
    """Logarithm to base 10."""
    log_x = Logarithm(w, x)
    m = two_product(w, log_x.m.high, LOG10_E)
    t = two_sum(log_x.k * LOG10_2_SHORT, m.high)
    low = m.low + w.fma(log_x.m.high, LOG10_E_LOW, log_x.m.low * LOG10_E)
    return _at_the_ends(w, x, t.high + (t.low + w.fma(log_x.k, LOG10_2_REST, low)))


@function
def log1p(w: Writer, x: Lane) -> Lane:
    """log(1 + x), 1 + x as a pair."""
    y = two_sum(x, 1.0)
    found = _at_the_ends(w, y.high, Logarithm(w, y.high, y.low).value())
    return w.select(magnitude(w, x) < 1e-16, x, found)


@function
def asinh(w: Writer, x: Lane) -> Lane:
    """log(x + sqrt(x^2 + 1)), the argument as a pair."""
    a = magnitude(w, x)
    far = a > 2.0 ** 28
    b = w.select(far, 1.0, a)
    square = two_product(w, b, b)
    inner = two_sum(square.high, 1.0)
    r = root(w, Pair(inner.high, inner.low + square.low))
    t = two_sum(r.high, b)
    y = fast_two_sum(t.high, t.low + r.low)
    log_x = Logarithm(w, w.select(far, a, y.high), w.select(far, 0.0, y.low))
    log_x.k = w.select(far, log_x.k + 1.0, log_x.k)
    found = w.select(a < 2.0 ** -28, a, log_x.value())
    return with_sign(w, w.select(a < INF, found, a), x)


@function
def acosh(w: Writer, x: Lane) -> Lane:
    """log(x + sqrt(x^2 - 1)), the argument as a pair."""
    far = x > 2.0 ** 28
    b = w.select(far, 2.0, x)
    square = two_product(w, b, b)
    inner = two_sum(square.high, -1.0)
    r = root(w, Pair(inner.high, inner.low + square.low))
    one = x.equals(1.0)
    t = two_sum(b, w.select(one, 0.0, r.high))
    y = fast_two_sum(t.high, t.low + w.select(one, 0.0, r.low))
    log_x = Logarithm(w, w.select(far, x, y.high), w.select(far, 0.0, y.low))
    log_x.k = w.select(far, log_x.k + 1.0, log_x.k)
    found = w.select(x < INF, log_x.value(), x)
    return w.select(x < 1.0, NAN, found)


@function
def atanh(w: Writer, x: Lane) -> Lane:
    """log((1 + x) / (1 - x)) / 2; near 0 by the series itself."""
    a = magnitude(w, x)
    near = a < 0.171
    zero = w.constant(0.0, "double")
    small = logarithm_of_ratio(w, Pair(w.select(near, a, zero), zero))
    b = w.select(a < 1.0, a, 0.5)
    up, down = two_sum(b, 1.0), two_sum(-b, 1.0)
    q = quotient(w, up, down)
    y = fast_two_sum(q.high, q.low)
    large = Logarithm(w, y.high, y.low).value()
    found = 0.5 * w.select(near, small.high + small.low, large)
    found = w.select(a < 2.0 ** -28, a, found)
    found = w.select(a.equals(1.0), INF, found)
    return with_sign(w, w.select(a > 1.0, NAN, w.select(x.is_nan, x, found)), x)


# Powers and roots ------------------------------------------------------------------------------------------------

@function
def pow_(w: Writer, x: Lane, y: Lane) -> Lane:
    """x^y = exp(y log(x)), the logarithm and the product as pairs; special values as C99 F.10.4.4 has them."""
    a = magnitude(w, x)
    log_x = Logarithm(w, a).total()
    high = w.select(a < INF, w.select(a.equals(0.0), -INF, log_x.high), INF)
    low = w.select(a < INF, log_x.low, 0.0)
    p = high * y
    finite = magnitude(w, p) < 1000.0
    rest = w.select(finite, w.fma(high, y, -p) + low * y, 0.0)
    e = Exponential(w, clamped(w, p, -1000.0, 1000.0), rest)
    found = e.scaled((e.p.high + e.p.low) + 1.0)
    found = w.select(a.equals(1.0), 1.0, found)
    halved = 0.5 * y
    whole = y.equals(w.intrinsic("trunc", "double", y))
    odd = whole & halved.differs(w.intrinsic("trunc", "double", halved))
    negative = w.cast(x, "bitcast", "i64") < 0
    found = w.select(negative & odd, -found, found)
    found = w.select((x < 0.0) & (x > -INF) & y.differs(w.intrinsic("trunc", "double", y)), NAN, found)
    found = w.select(x.is_nan | y.is_nan, x + y, found)
    return w.select(x.equals(1.0) | y.equals(0.0), 1.0, found)


@function
def cbrt(w: Writer, x: Lane) -> Lane:
    """The cube root: a polynomial, twice Halley's step, once Newton's with an exact residual."""
    a = magnitude(w, x)
    tiny = a < 2.0 ** -1022
    a = w.select(tiny, a * 2.0 ** 54, a)
    bits = w.cast(a, "bitcast", "i64")
    biased = w.cast(bits.logical_shift(52) | 0x4330000000000000, "bitcast", "double")
    k = biased - (4503599627370496.0 + 1023)
    third = w.cast((k - 1.0) * (1.0 / 3.0) + MAGIC, "bitcast", "i64") - MAGIC_BITS  # floor(k / 3)
    r = w.cast(bits - ((third * 3) << 52), "bitcast", "double")  # 1 <= r < 8
    y = polynomial(w, r, fitted.CBRT)
    for _ in range(2):  # Halley: three times the digits
        cube = y * y * y
        y = y * (cube + (r + r)) / (cube + cube + r)
    square = two_product(w, y, y)
    cube_high = two_product(w, square.high, y)
    error = (r - cube_high.high) - (cube_high.low + square.low * y)
    y = y + error / (3.0 * square.high)
    exponent = w.select(tiny, third - 18, third)
    found = y * power_of_two(w, exponent)
    return w.select((x + x).equals(x) | x.is_nan, x, with_sign(w, found, x))  # 0, infinity


@function
def hypot(w: Writer, x: Lane, y: Lane) -> Lane:
    """sqrt(x^2 + y^2), scaled, squares and sum as pairs."""
    a, b = magnitude(w, x), magnitude(w, y)
    above = a > b
    big, small = w.select(above, a, b), w.select(above, b, a)
    far, tiny = big > 2.0 ** 500, big < 2.0 ** -400
    one = w.constant(1.0, "double")
    scale = w.select(far, 2.0 ** -600, w.select(tiny, 2.0 ** 600, one))
    back = w.select(far, 2.0 ** 600, w.select(tiny, 2.0 ** -600, one))
    big, small = big * scale, small * scale
    p, q = two_product(w, big, big), two_product(w, small, small)
    t = fast_two_sum(p.high, q.high)
    r = root(w, Pair(t.high, t.low + (p.low + q.low)))
    found = w.select(big.equals(0.0), 0.0, r.high + r.low) * back
    found = w.select(x.is_nan | y.is_nan, x + y, found)
    return w.select(a.equals(INF) | b.equals(INF), INF, found)

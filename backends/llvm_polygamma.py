"""The polygamma functions as LLVM IR: digamma by its asymptotic series in pairs, the others by Hurwitz's zeta function.

psi_n(x) = (-1)^(n+1) n! zeta(n + 1, x) for n > 0 (NIST Digital Library of Mathematical Functions, 5.15.1 and 25.11.12);
zeta by Euler and Maclaurin's formula (25.11.5) from where the argument has been raised to 12 + s. Arguments below 0 are
reflected. Within 4 ulp for x > 0 and n to 5 (near digamma's zero at 1.46 within 1e-19), with 2 ulp more for every 8
beyond; below 0 the sums can cancel.
"""

from __future__ import annotations

from .llvm_double import Pair, fast_two_sum, quotient, two_product, two_sum
from .llvm_exponentials import Logarithm
from .llvm_pieces import INF, NAN, function, seldom
from .llvm_writer import Lane, Writer

BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330,
             854513 / 138, -236364091 / 2730)
"""B_2, B_4, ..."""
PI, PI_LOW = 3.141592653589793, 1.2246467991473532e-16
RAISED = 12.0


def _added(a: Pair, b: Pair) -> Pair:
    s = two_sum(a.high, b.high)
    return fast_two_sum(s.high, s.low + (a.low + b.low))


@seldom
def digamma(w: Writer, x: Lane) -> Lane:
    """The logarithmic derivative of the gamma function."""
    zero, one = w.constant(0.0, "double"), w.constant(1.0, "double")
    below = x < 0.0
    start = Pair(*(w.select(below, b, a) for a, b in zip((x, zero), two_sum(-x, 1.0), strict=True)))

    def above(k: Lane) -> Pair:
        s = two_sum(start.high, k)
        return fast_two_sum(s.high, s.low + start.low)

    def step(state: list[Lane]) -> list[Lane]:
        k, high, low = state
        inside = above(k).high < RAISED
        term = quotient(w, Pair(one, zero), above(k))
        s = _added(Pair(high, low), term)
        return [w.select(inside, k + 1.0, k), w.select(inside, s.high, high), w.select(inside, s.low, low)]

    k, high, low = w.loop([zero, zero, zero], lambda state: above(state[0]).high < RAISED, step)
    a = above(k)
    r = quotient(w, Pair(one, zero), a)
    square = two_product(w, r.high, r.high)
    square_low = w.fma(r.high + r.high, r.low, square.low)
    series: Lane | float = 0.0
    for i in range(7, 0, -1):
        series = square.high * (series + BERNOULLI[i] / (2 * i + 2)) if isinstance(series, Lane) else (
            square.high * (BERNOULLI[i] / (2 * i + 2)))
    twelfth = two_product(w, square.high, 1 / 12)
    twelfth_low = w.fma(square.high, 4.625929269271485e-18, w.fma(square_low, 1 / 12, twelfth.low))
    assert isinstance(series, Lane)
    found = _added(Logarithm(w, a.high, a.low).total(), Pair(-0.5 * r.high, -0.5 * r.low))
    found = _added(found, Pair(-twelfth.high, -(twelfth_low + square.high * series)))
    found = _added(found, Pair(-high, -low))
    f = x - w.intrinsic("roundeven", "double", x)  # exact
    angle = two_product(w, f, PI)
    tangent = w.function("tan", angle.high)
    tangent = tangent + w.fma(tangent, tangent, 1.0) * w.fma(f, PI_LOW, angle.low)
    reflected = _added(found, Pair(-(PI / tangent), zero))
    value = w.select(below, reflected.high + reflected.low, found.high + found.low)
    value = w.select(w.intrinsic("fabs", "double", x) < 1e-20, -1.0 / x, value)
    value = w.select(below & f.equals(0.0), NAN, value)
    return w.select(x.equals(INF), x, value)


@seldom
def hurwitz(w: Writer, s: Lane, a: Lane) -> Lane:
    """zeta(s, a), the sum of (a + k)^-s over k from 0, for s > 1 and a > 0."""
    zero = w.constant(0.0, "double")
    limit = s + RAISED

    def step(state: list[Lane]) -> list[Lane]:
        k, high, low = state
        inside = a + k < limit
        t = two_sum(high, w.function("pow", a + k, -s))
        return [w.select(inside, k + 1.0, k), w.select(inside, t.high, high), w.select(inside, low + t.low, low)]

    k, high, low = w.loop([zero, zero, zero], lambda state: a + state[0] < limit, step)
    raised = a + k
    r = 1.0 / raised
    product, tail, factorial = s * (r * r), 0.5 * r, 2.0
    for i, number in enumerate(BERNOULLI, 1):
        tail = tail + product * (number / factorial)
        factorial *= (2 * i + 1) * (2 * i + 2)
        product = product * ((s + (2 * i - 1.0)) * (r * (s + 2.0 * i)) * r)
    rest = w.function("pow", raised, 1.0 - s) * (1.0 / (s - 1.0) + tail)
    total = two_sum(high, rest)
    return w.select(a.equals(0.0) | total.high.equals(INF), INF, total.high + (total.low + low))


@seldom
def factorial(w: Writer, n: Lane) -> Lane:
    """n! for a whole n that is not negative."""
    one = w.constant(1.0, "double")
    _, found = w.loop([one, one], lambda state: (state[0] <= n) & (state[0] < 200.0),
                      lambda state: [state[0] + 1.0, w.select(state[0] <= n, state[1] * state[0], state[1])])
    return found


@function
def polygamma(w: Writer, n: Lane, x: Lane) -> Lane:
    """Derivative n of digamma, for a whole n that is not negative."""
    s = w.select((n > 0.0) & (n < 200.0), n + 1.0, 2.0)  # 200! is infinite, whatever zeta is
    even = (0.5 * s).equals(w.intrinsic("floor", "double", 0.5 * s))
    below = x < 0.0
    one = w.constant(1.0, "double")
    fraction = x - w.intrinsic("floor", "double", x)
    other = w.intrinsic("ceil", "double", x) - x
    first = w.function("hurwitz", s, w.select(below, fraction, x))
    second = w.function("hurwitz", s, w.select(below, other, one))
    second = second - w.function("hurwitz", s, w.select(below, 1.0 - x, one))
    zeta = w.select(below, first + w.select(even, second, -second), first)
    zeta = w.select(below & fraction.equals(0.0), INF, zeta)
    value = w.function("factorial", n) * zeta
    value = w.select(even, value, -value)
    value = w.select(n.equals(0.0), w.function("digamma", x), value)
    return w.select((n >= 0.0) & n.equals(w.intrinsic("floor", "double", n)), value, NAN)

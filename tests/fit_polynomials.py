"""Fits the polynomials of backends/llvm_coefficients.py, and prints that file.

Interpolation at Chebyshev points, in 60 digits by mpmath: within a small factor of the best polynomial (Trefethen,
"Approximation Theory and Approximation Practice", 2013, Theorem 16.1).
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 60

Function = Callable[[mp.mpf], mp.mpf]


def odd(f: Function, first: int = 1) -> Function:
    """(f(x) - first x) / x^3 as a function of z = x^2."""
    return lambda z: (f(mp.sqrt(z)) - first * mp.sqrt(z)) / mp.sqrt(z) ** 3


# name: (what it approximates, function, from, to, degree)
FITS: dict[str, tuple[str, Function, mp.mpf, mp.mpf, int]] = {
    "EXP": ("(exp(r) - 1 - r) / r^2, |r| <= log(2) / 2", lambda r: (mp.expm1(r) - r) / r**2,
            mp.mpf("-0.3467"), mp.mpf("0.3467"), 9),
    "EXP_TAIL": ("(exp(r) - 1 - r - r^2 / 2) / r^3", lambda r: (mp.expm1(r) - r - r**2 / 2) / r**3,
                 mp.mpf("-0.3467"), mp.mpf("0.34671"), 9),
    "LOG": ("(log((1 + s) / (1 - s)) - 2 s) / s^3 in z = s^2, |s| <= 3 - 2 sqrt(2)",
            odd(lambda s: 2 * mp.atanh(s), 2), mp.mpf(0), mp.mpf("0.02945"), 6),
    "LOG_TAIL": ("(log((1 + s) / (1 - s)) - 2 s - 2/3 s^3) / s^5 in z = s^2",
                 lambda z: (odd(lambda s: 2 * mp.atanh(s), 2)(z) - mp.mpf(2) / 3) / z,
                 mp.mpf(0), mp.mpf("0.02945"), 7),
    "SIN": ("(sin(r) - r) / r^3 in z = r^2, |r| <= pi / 4", odd(mp.sin), mp.mpf(0), mp.mpf("0.6169"), 5),
    "COS": ("(cos(r) - 1 + r^2 / 2) / r^4 in z = r^2, |r| <= pi / 4",
            lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2, mp.mpf(0), mp.mpf("0.6169"), 5),
    "ATAN": ("(atan(t) - t) / t^3 in z = t^2, |t| <= 7/16", odd(mp.atan), mp.mpf(0), mp.mpf("0.1915"), 10),
    "ASIN": ("(asin(x) - x) / x^3 in z = x^2, |x| <= 1/2", odd(mp.asin), mp.mpf(0), mp.mpf("0.2501"), 12),
    "CBRT": ("cbrt(x), 1 <= x <= 8", mp.cbrt, mp.mpf(1), mp.mpf(8), 4),
    "ERF": ("erf(x) / x - 1 in z = x^2, |x| <= 1", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
            mp.mpf(0), mp.mpf(1), 12),
    "ERFC": ("(1 + 2 x) exp(x^2) erfc(x) in q = (x - 4) / (x + 4), 1/2 <= x <= 28",
             lambda q: (lambda x: (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x))(4 * (1 + q) / (1 - q)),
             mp.mpf("-0.7778"), mp.mpf("0.75001"), 20),
    "LGAMMA": ("log(gamma(x)) / ((x - 1) (x - 2)) in t = x - 2, 1 <= x <= 3",
               lambda t: mp.loggamma(2 + t) / (t * (1 + t)), mp.mpf("-1.0001"), mp.mpf("1.0002"), 27),
    "STIRLING": ("x (log(gamma(x)) - (x - 1/2) (log(x) - 1) - log(2 pi) / 2 + 1/2) in y = 1 / x^2, x >= 8",
                 lambda y: (lambda x: x * (mp.loggamma(x) - (x - 0.5) * (mp.log(x) - 1) - mp.log(2 * mp.pi) / 2
                                           + 0.5))(1 / mp.sqrt(y)), mp.mpf(0), mp.mpf("0.01563"), 6),
    "EXP_SINGLE": ("EXP for float32", lambda r: (mp.expm1(r) - r) / r**2, mp.mpf("-0.3467"), mp.mpf("0.34671"), 5),
    "LOG_SINGLE": ("(log(1 + f) - f + f^2 / 2) / f^3, sqrt(1/2) <= 1 + f <= sqrt(2)",
                   lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3, mp.mpf("-0.29293"), mp.mpf("0.41422"), 8),
    "ERF_SINGLE": ("erf(x) / x - 1 in z = x^2, |x| <= 0.92", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
                   mp.mpf(0), mp.mpf("0.847"), 6),
    "ERFC_SINGLE": ("-log(erfc(x)) / x, 0.92 <= x <= 4", lambda x: -mp.log(mp.erfc(x)) / x,
                    mp.mpf("0.92"), mp.mpf(4), 8),
}


def fit(f: Function, low: mp.mpf, high: mp.mpf, degree: int) -> list[mp.mpf]:
    """Coefficients, lowest first, of the interpolant at Chebyshev points: divided differences, then expanded."""
    n = degree + 1
    points = [(low + high) / 2 + (high - low) / 2 * mp.cos((2 * k + 1) * mp.pi / (2 * n)) for k in range(n)]
    table = [f(x) for x in points]
    for level in range(1, n):
        for i in range(n - 1, level - 1, -1):
            table[i] = (table[i] - table[i - 1]) / (points[i] - points[i - level])
    coefficients = [mp.mpf(0)]
    for i in range(n - 1, -1, -1):
        shifted = [mp.mpf(0), *coefficients]
        coefficients = [a - points[i] * b for a, b in zip(shifted, [*coefficients, mp.mpf(0)], strict=True)]
        coefficients[0] += table[i]
    return coefficients[:n]


def text() -> str:
    """The module's source."""
    title = "Coefficients of the polynomials of `llvm_math`, lowest first: printed by tests/fit_polynomials.py."
    lines = [f'"""{title}"""', ""]
    for name, (what, f, low, high, degree) in FITS.items():
        lines += [f"{name} = (", *(f"    {float(c)!r}," for c in fit(f, low, high, degree)), ")", f'"""{what}."""']
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(text(), end="")

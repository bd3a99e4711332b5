"""The functions of the LLVM backend against mpmath: ulps over their domains, and IEEE 754's special values."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fit_polynomials
import mpmath
import numpy as np
import pytest
from scipy import special

import slpc
from slpc.backends.llvm_math import FUNCTIONS, SELDOM, SINGLE

ROOT = Path(__file__).parent.parent
POINTS = 300
LIMITS = {"pow": 2.0, "erfc": 4.0, "lgamma": 4.0, "digamma": 4.0, "polygamma": 4.0}

UNARY = sorted({n for n in FUNCTIONS if n not in SELDOM} - {"pow", "atan2", "hypot", "polygamma"} | {"sqrt"})
BINARY = ("atan2", "hypot", "pow")

ORACLE: dict[str, Callable[..., Any]] = {
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x) / mpmath.log(2),
    "lgamma": lambda x: mpmath.log(abs(mpmath.gamma(x))),
    "pow": mpmath.power,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
}

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324,
           2.2e-308, -2.2e-308, 1e-300, 1e300, -1e300, 1.7976931348623157e308, 709.7, 709.8, -745.1, -745.2, 1e16,
           -1e16]


def logarithmic(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    return np.exp(rng.uniform(math.log(low), math.log(high), POINTS))


def signed(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return x * rng.choice([-1.0, 1.0], POINTS)


def samples(name: str) -> list[np.ndarray]:
    """Points all over the domain, and where the function is hard."""
    rng = np.random.default_rng(sum(map(ord, name)))
    wide = signed(rng, logarithmic(rng, 1e-300, 1e300))
    if name in ("exp", "exp2", "expm1", "sinh", "cosh", "tanh"):
        return [rng.uniform(-745, 709, POINTS), rng.uniform(-3, 3, POINTS), signed(rng, logarithmic(rng, 1e-20, 1))]
    if name in ("log", "log2", "log10", "sqrt"):
        return [logarithmic(rng, 1e-310, 1e308), rng.uniform(0.5, 2, POINTS),
                1 + signed(rng, logarithmic(rng, 1e-15, 0.3))]
    if name == "log1p":
        return [signed(rng, logarithmic(rng, 1e-20, 0.99)), logarithmic(rng, 1e-10, 1e308),
                rng.uniform(-0.99, 1, POINTS)]
    if name in ("sin", "cos", "tan"):
        return [rng.uniform(-10, 10, POINTS), signed(rng, logarithmic(rng, 1e-20, 1e9)), wide,
                np.arange(1, POINTS + 1) * (math.pi / 2)]
    if name in ("asin", "acos", "atanh"):
        return [rng.uniform(-1, 1, POINTS), signed(rng, logarithmic(rng, 1e-20, 1)),
                signed(rng, 1 - logarithmic(rng, 1e-15, 0.5))]
    if name == "acosh":
        return [1 + logarithmic(rng, 1e-15, 10), logarithmic(rng, 1, 1e308)]
    if name == "erfc":
        return [rng.uniform(-6, 26, POINTS), signed(rng, logarithmic(rng, 1e-20, 1))]
    if name == "lgamma":
        return [rng.uniform(0.01, 30, POINTS), logarithmic(rng, 1, 1e300), rng.uniform(0.9, 2.1, POINTS),
                1 + signed(rng, logarithmic(rng, 1e-15, 0.5)), 2 + signed(rng, logarithmic(rng, 1e-15, 0.5))]
    return [rng.uniform(-4, 4, POINTS), signed(rng, logarithmic(rng, 1e-20, 1e20)), wide]


def pairs(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(7)
    if name == "pow":
        return [(logarithmic(rng, 1e-3, 1e3), rng.uniform(-100, 100, POINTS)),
                (rng.uniform(0.9, 1.1, POINTS), rng.uniform(-7000, 7000, POINTS)),
                (logarithmic(rng, 1e-300, 1e300), rng.uniform(-1, 1, POINTS)),
                (rng.uniform(-20, 20, POINTS), rng.integers(-9, 9, POINTS).astype(float))]
    return [(rng.normal(size=POINTS), rng.normal(size=POINTS)),
            (signed(rng, logarithmic(rng, 1e-3, 1e3)), signed(rng, logarithmic(rng, 1e-3, 1e3))),
            (signed(rng, logarithmic(rng, 1e-300, 1e300)), signed(rng, logarithmic(rng, 1e-300, 1e300)))]


def ulps(got: float, exact: Any) -> float:
    """The error in units of the last place of float64 (of the smallest normal number below it)."""
    size = abs(exact)
    if size > mpmath.mpf(1.7976931348623157e308):
        return 0.0 if math.isinf(got) and (got > 0) == (exact > 0) else math.inf
    if not math.isfinite(got):
        return math.inf
    exponent = max(int(mpmath.floor(mpmath.log(size, 2))) if size else -1022, -1022)
    return float(abs(mpmath.mpf(got) - exact) / mpmath.ldexp(1, exponent - 52))


def compiled(name: str, dtype: str = "f64") -> slpc.Function:
    inputs = f"x: {dtype}, y: {dtype}" if name in BINARY else f"x: {dtype}"
    call = f"{name}(x, y)" if name in BINARY else f"{name}(x)"
    return slpc.compile(slpc.parse(f"def f({inputs}):\n    return {call}"), backend="llvm")


def oracle(name: str) -> Callable[..., Any]:
    return ORACLE.get(name) or getattr(mpmath, name)


def worst(name: str, f: slpc.Function, points: list[tuple[float, ...]]) -> tuple[float, tuple[float, ...]]:
    with mpmath.workdps(40 if name not in ("sin", "cos", "tan") else 360):
        exact = oracle(name)
        return max((ulps(f(*p), exact(*map(mpmath.mpf, p))), p) for p in points)


@pytest.mark.parametrize("name", UNARY)
def test_within_an_ulp(name: str) -> None:
    f = compiled(name)
    for xs in samples(name):
        error, at = worst(name, f, [(x,) for x in xs.tolist()])
        assert error <= LIMITS.get(name, 1.0), at


@pytest.mark.parametrize("name", BINARY)
def test_of_two_within_ulps(name: str) -> None:
    f = compiled(name)
    for xs, ys in pairs(name):
        error, at = worst(name, f, list(zip(xs.tolist(), ys.tolist(), strict=True)))
        assert error <= LIMITS.get(name, 1.0), at


def same(a: float, b: float) -> bool:
    """Equal to an ulp, signs of zeros told apart."""
    if math.isnan(b):
        return math.isnan(a)
    if b == 0 or math.isinf(b):
        return a == b and math.copysign(1, a) == math.copysign(1, b)
    return abs(a - b) <= 4 * max(np.spacing(abs(b)), 5e-324)


def c_lgamma(x: float) -> float:
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):  # a pole, or too large
        return math.inf


def logistic(x: float) -> float:
    """SciPy's underflows early."""
    return float(special.expit(x) if x > -40 else np.exp(x))


@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str) -> None:
    """Infinities, NaN, denormals and signed zeros, as C99's Annex F has them, by NumPy or the C library."""
    known = {"sigmoid": logistic, "erf": math.erf, "erfc": math.erfc, "lgamma": c_lgamma}
    reference = known.get(name) or getattr(np, name)
    f = compiled(name)
    with np.errstate(all="ignore"):
        for x in SPECIAL:
            assert same(f(x), float(reference(np.float64(x)))), x


@pytest.mark.parametrize("name", UNARY)
def test_vectors_have_the_bits_of_one(name: str) -> None:
    """Special values among others, which take the usual way."""
    f = compiled(name)
    x = np.concatenate([np.array([v, 0.75, 1.5]) for v in [*SPECIAL, *samples(name)[0].tolist()]])
    assert f.batch(x).tobytes() == np.array([f(v) for v in x]).tobytes()


@pytest.mark.parametrize("name", BINARY)
def test_special_values_of_two(name: str) -> None:
    reference = getattr(np, {"atan2": "arctan2", "pow": "power"}.get(name, name))
    f = compiled(name)
    with np.errstate(all="ignore"):
        for x in SPECIAL:
            for y in SPECIAL:
                want = float(reference(np.array([x, x]), np.array([y, 1.0]))[0])  # a lone 0.5 would be a square root
                assert same(f(x, y), want), (x, y)


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_single_precision(name: str) -> None:
    """One ulp of float32; where it is rounded from float64 half an ulp, and what the second rounding may add."""
    f = compiled(name, "f32")
    most = 1.0 if name in SINGLE else 0.5001
    sets = [(x,) for x in samples(name)] if name in UNARY else pairs(name)
    with mpmath.workdps(60), np.errstate(over="ignore"):
        exact = oracle(name)
        for columns in sets:
            for point in zip(*(c.astype(np.float32)[:60] for c in columns), strict=True):
                if not inside(name, *map(float, point)):
                    continue
                got, want = f(*point), exact(*(mpmath.mpf(float(x)) for x in point))
                if abs(want) > 3.4e38:
                    assert np.isinf(got), point
                else:
                    step = float(np.spacing(np.float32(abs(float(want)))))
                    assert abs(float(mpmath.mpf(float(got)) - want)) <= most * step, point


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_vectors_of_single_precision(name: str) -> None:
    """All exponents, and where the formulas change, in vectors, against float64."""
    rng = np.random.default_rng(3)
    bits = (np.arange(1 << 17, dtype=np.uint64) * 32749).astype(np.uint32)
    near = np.concatenate([rng.uniform(-2, 2, 1 << 18), rng.uniform(-110, 110, 1 << 16)]).astype(np.float32)
    x = np.concatenate([bits.view(np.float32), near, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)])
    f = slpc.compile(slpc.parse(f"def f(x: f32[{len(x)}]):\n    return {name}(x)"), backend="llvm")
    reference = {"sigmoid": lambda z: np.where(z > -40, special.expit(z), np.exp(z)), "erf": special.erf}
    with np.errstate(all="ignore"):
        want = (reference.get(name) or getattr(np, name))(x.astype(np.float64))
        got, near_it = f(x), want.astype(np.float32)
        error = np.abs(got - want) / np.spacing(np.abs(near_it))
    finite = np.isfinite(near_it)
    assert error[finite].max() <= 1.0, x[finite][np.argmax(error[finite])]
    np.testing.assert_array_equal(got[~finite], near_it[~finite])
    np.testing.assert_array_equal(np.signbit(got[want == 0]), np.signbit(near_it[want == 0]))


def inside(name: str, *point: float) -> bool:
    """Is a point, after it was rounded to float32, still one where the function is finite and has no zero's sign?"""
    x = point[0]
    outside = {"atanh": abs(x) >= 1, "asin": abs(x) > 1, "acos": abs(x) > 1, "acosh": x < 1, "log1p": x <= -1,
               "sqrt": x <= 0, "log": x <= 0, "log2": x <= 0, "log10": x <= 0, "lgamma": x <= 0}
    return all(math.isfinite(v) and (v or name not in BINARY) for v in point) and not outside.get(name, False)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_polygamma(n: int) -> None:
    rng = np.random.default_rng(n)
    f = slpc.compile(slpc.parse("def f(n: f64, x: f64):\n    return polygamma(n, x)"), backend="llvm")
    fixed = slpc.compile(slpc.parse(f"def f(x: f64):\n    return polygamma({n}.0, x)"), backend="llvm")
    with mpmath.workdps(40):
        for x in np.concatenate([rng.uniform(0.01, 50, POINTS), logarithmic(rng, 1e-9, 1e9),
                                 rng.uniform(1.4, 1.5, POINTS)]).tolist():
            exact = mpmath.psi(n, mpmath.mpf(x))
            assert ulps(f(float(n), x), exact) <= 4.0 or abs(f(float(n), x) - exact) < 1e-19, x
            assert fixed(x) == f(float(n), x)
        for x in rng.uniform(-20, 0, POINTS).tolist():  # a sum over both neighbouring poles, which may cancel
            size = math.factorial(n) * (abs(x - round(x)) ** -(n + 1) + 2.0 ** (n + 1) + 4)
            assert abs(f(float(n), x) - mpmath.psi(n, mpmath.mpf(x))) <= 1e-15 * size, x


def test_polygamma_s_special_values() -> None:
    """Poles and infinities, as SciPy has them."""
    f = slpc.compile(slpc.parse("def f(n: f64, x: f64):\n    return polygamma(n, x)"), backend="llvm")
    for x in (0.0, -0.0, -1.0, -7.0, math.inf, -math.inf, math.nan, 1e-310):
        assert same(f(0.0, x), float(special.psi(x))), x
    for n in (1.0, 2.0, 3.0):
        for x in (0.0, -1.0, -8.0, math.inf, math.nan):
            assert same(f(n, x), float(special.polygamma(int(n), x))), (n, x)
    assert math.isnan(f(-1.0, 2.0)) and math.isnan(f(0.5, 2.0)) and abs(f(1e300, 2.0)) == math.inf


def test_coefficients_are_those_that_the_script_prints() -> None:
    path = ROOT / "backends" / "llvm_coefficients.py"
    assert path.read_text("utf-8") == fit_polynomials.text()

"""docs/calculus.md, line by line: derivatives at kinks and poles, powers at zero, and branches that are not taken."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest
from differences import check_derivatives, run

from slpc.ir.parse import parse
from slpc.ir.verify import verify
from slpc.passes.adjoint import adjoint
from slpc.passes.tangent import tangent

INF, NAN = math.inf, math.nan


def scalar(expression: str, names: str = "x") -> Any:
    """`def f(x: f64): return expression`."""
    inputs = ", ".join(f"{n}: f64" for n in names)
    return verify(parse(f"def f({inputs}):\n    y_ = {expression}\n    return y_\n"))


def first(expression: str, **at: float) -> list[float]:
    """The gradient of a scalar program of its keywords; the same by tangent and adjoint, simplified and not, on Python
    floats and on arrays of points."""
    graph = scalar(expression, "".join(at))
    reverse = verify(adjoint(graph))
    found = []
    for name in at:
        seeds = {f"{name}_dot": 1.0}
        forward = verify(tangent(graph, wrt=[name]))
        answers = [run(forward, at | seeds)["y__dot"], run(forward, at | seeds, simplified=False)["y__dot"],
                   run(reverse, at)[f"{name}_bar"], run(reverse, at, simplified=False)[f"{name}_bar"]]
        if not any(v.shape for v in graph.values()):
            points = {k: np.full(3, x) for k, x in at.items()}
            answers += list(run(reverse, points, arrays=True)[f"{name}_bar"])
        assert all(same(a, answers[0]) for a in answers), (expression, name, answers)
        found.append(float(answers[0]))
    return found


def second(expression: str, **at: float) -> list[list[float]]:
    """The Hessian: the tangent of the adjoint, the adjoint of the adjoint and the adjoint of the tangent agree."""
    graph = scalar(expression, "".join(at))
    rows = []
    for row in at:
        gradient = adjoint(graph, wrt=list(at))
        twice = verify(tangent(gradient, wrt=list(at)))
        back = verify(adjoint(gradient, of=f"{row}_bar", wrt=list(at)))
        mixed = verify(adjoint(tangent(graph, wrt=list(at)), of="y__dot", wrt=list(at)))
        entries = []
        for column in at:
            seeds = {f"{n}_dot": float(n == column) for n in at}
            answers = [run(twice, at | seeds, simplified=s)[f"{row}_bar_dot"] for s in (True, False)]
            by_name = dict(zip([v.name for v in back.outputs], run(back, at).values(), strict=True))
            answers.append(by_name[back.outputs[len(gradient.outputs) + list(at).index(column)].name])
            seeds = {f"{n}_dot": float(n == row) for n in at}
            answers.append(run(mixed, at | seeds)[f"{column}_bar"])
            assert all(same(a, answers[0]) for a in answers), (expression, row, column, answers)
            entries.append(float(answers[0]))
        rows.append(entries)
    return rows


def same(a: float, b: float) -> bool:
    """Equal within a few units in the last place, NaN to NaN and each infinity to itself."""
    return bool(np.isclose(a, b, rtol=1e-14, atol=1e-300, equal_nan=True))


KINKS = [
    ("abs(x)", dict(x=0.0), [0.0]),
    ("relu(x)", dict(x=0.0), [0.0]),
    ("relu(x)", dict(x=1e-300), [1.0]),
    ("maximum(x, y)", dict(x=2.0, y=2.0), [0.5, 0.5]),
    ("minimum(x, y)", dict(x=2.0, y=2.0), [0.5, 0.5]),
    ("maximum(x, y)", dict(x=0.0, y=-0.0), [0.5, 0.5]),
    ("maximum(x, x)", dict(x=1.0), [1.0]),
    ("max([x, y, z])", dict(x=3.0, y=1.0, z=3.0), [0.5, 0.0, 0.5]),
    ("max(stack([x, y, z, w]))", dict(x=3.0, y=1.0, z=3.0, w=3.0), [1 / 3, 0.0, 1 / 3, 1 / 3]),
    ("min(stack([x, y, z]))", dict(x=3.0, y=3.0, z=3.0), [1 / 3, 1 / 3, 1 / 3]),
    ("hypot(x, y)", dict(x=0.0, y=0.0), [0.0, 0.0]),
    ("hypot(x, y)", dict(x=0.0, y=2.0), [0.0, 1.0]),
    ("floor(x) + ceil(x) + round(x) + sign(x) + x // 2", dict(x=2.0), [0.0]),
    ("x % y", dict(x=6.0, y=2.0), [1.0, -3.0]),
    ("x % y", dict(x=-7.0, y=2.0), [1.0, 4.0]),
    ("x % y", dict(x=1.0, y=0.1), [1.0, -9.0]),  # 0.1 is above a tenth
    ("clip(x, 0.0, 1.0)", dict(x=1.0), [0.5]),
    ("clip(x, 0.0, 1.0)", dict(x=2.0), [0.0]),
]
POLES = [
    ("sqrt(x)", dict(x=0.0), [INF]),
    ("cbrt(x)", dict(x=0.0), [INF]),
    ("cbrt(x)", dict(x=-0.0), [INF]),
    ("sqrt(x)", dict(x=-0.0), [-INF]),
    ("log(x)", dict(x=0.0), [INF]),
    ("log2(x)", dict(x=0.0), [INF]),
    ("log10(x)", dict(x=0.0), [INF]),
    ("log1p(x)", dict(x=-1.0), [INF]),
    ("asin(x)", dict(x=1.0), [INF]),
    ("asin(x)", dict(x=-1.0), [INF]),
    ("acos(x)", dict(x=-1.0), [-INF]),
    ("acosh(x)", dict(x=1.0), [INF]),
    ("atanh(x)", dict(x=-1.0), [INF]),
    ("x / y", dict(x=3.0, y=0.0), [INF, -INF]),
    ("x / y", dict(x=3.0, y=-0.0), [-INF, -INF]),
    ("x / y", dict(x=-3.0, y=0.0), [INF, INF]),
    ("atan2(x, y)", dict(x=0.0, y=0.0), [NAN, NAN]),
]
POWERS = [
    ("x ** 2", dict(x=0.0), [0.0], [[2.0]]),
    ("x ** 1", dict(x=0.0), [1.0], [[0.0]]),
    ("x ** 0", dict(x=0.0), [0.0], [[0.0]]),
    ("x ** 3", dict(x=0.0), [0.0], [[0.0]]),
    ("x ** 3", dict(x=-2.0), [12.0], [[-12.0]]),
    ("x ** 0.5", dict(x=0.0), [INF], [[-INF]]),
    ("x ** -1", dict(x=-2.0), [-0.25], [[-0.25]]),
    ("x ** 1.5", dict(x=0.0), [0.0], [[INF]]),
    ("0.0 ** x", dict(x=2.0), [0.0], [[0.0]]),
    ("2.0 ** x", dict(x=0.0), [math.log(2)], [[math.log(2) ** 2]]),
    ("x ** x", dict(x=1.0), [1.0], [[2.0]]),
]
SHARED = [  # the exponent is a value, but no derivative is taken in it
    (2.0, 0.0, 0.0, 2.0), (1.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 0.0), (3.0, 0.0, 0.0, 0.0), (3.0, -2.0, 12.0, -12.0),
    (2.0, -3.0, -6.0, 2.0), (-1.0, -2.0, -0.25, -0.25), (0.0, -2.0, 0.0, 0.0), (0.5, 0.0, INF, -INF),
]


@pytest.mark.parametrize(("expression", "at", "gradient"), KINKS + POLES, ids=lambda v: str(v))
def test_kinks_and_poles(expression: str, at: dict[str, float], gradient: list[float]) -> None:
    assert all(map(same, first(expression, **at), gradient)), first(expression, **at)


@pytest.mark.parametrize(("expression", "at"), [("abs(x)", dict(x=0.0)), ("relu(x)", dict(x=0.0)),
                                                ("hypot(x, y)", dict(x=0.0, y=0.0))])
def test_second_derivative_at_a_kink(expression: str, at: dict[str, float]) -> None:
    assert second(expression, **at) == [[0.0] * len(at)] * len(at)


@pytest.mark.parametrize(("expression", "at", "gradient", "hessian"), POWERS)
def test_powers(expression: str, at: dict[str, float], gradient: list[float], hessian: list[list[float]]) -> None:
    assert all(map(same, first(expression, **at), gradient)), first(expression, **at)
    assert all(map(same, second(expression, **at)[0], hessian[0])), second(expression, **at)


@pytest.mark.parametrize(("n", "x", "slope", "curvature"), SHARED)
def test_powers_of_a_value(n: float, x: float, slope: float, curvature: float) -> None:
    graph = parse("def f(x: f64, *, n: f64):\n    y_ = x ** n\n    return y_\n")
    found = run(verify(tangent(adjoint(graph), wrt=["x"])), dict(x=x, n=n, x_dot=1.0))
    assert (found["x_bar"], found["y__dot"], found["x_bar_dot"]) == (slope, slope, curvature)


@pytest.mark.parametrize(("x", "n", "want"), [(0.0, 2.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, -INF), (-2.0, 2.0, NAN),
                                              (2.0, 3.0, 8 * math.log(2)), (1.0, 5.0, 0.0)])
def test_powers_in_the_exponent(x: float, n: float, want: float) -> None:
    """Against the limit from the right, by mpmath, where there is one."""
    assert same(first("x ** n", x=x, n=n)[1], want)
    if x >= 0 and n > 0:
        with mpmath.workdps(50):
            assert float(mpmath.diff(lambda k: mpmath.mpf(x) ** k, n)) == pytest.approx(want, abs=1e-15)


def test_mixed_second_derivatives_of_a_power() -> None:
    x, n = 1.7, 2.3
    with mpmath.workdps(40):
        want = [[float(mpmath.diff(lambda a, b: a**b, (x, n), (2 - i - j, i + j))) for j in (0, 1)] for i in (0, 1)]
    np.testing.assert_allclose(second("x ** n", x=x, n=n), want, rtol=1e-13)


MASKED = [
    # the expression, where, the gradient, the second derivative
    ("where(x > 0, log(x), 0.0)", 0.0, 0.0, 0.0),
    ("where(x > 0, log(x), 0.0)", -1.0, 0.0, 0.0),
    ("where(x > 0, log(x), 0.0)", 2.0, 0.5, -0.25),
    ("where(x > 0, sqrt(x), 0.0)", 0.0, 0.0, 0.0),
    ("where(x <= 0, 0.0, sqrt(x))", 0.0, 0.0, 0.0),
    ("where(x == 0, 1.0, sin(x) / x)", 0.0, 0.0, 0.0),
    ("where(x > 0, log(x), 0.0) ** 2", 1.0, 0.0, 2.0),
    ("where(x > 0, log(x), 0.0) * where(x > 0, log(x), 0.0)", 1.0, 0.0, 2.0),
    ("where(x > 0, log(x) ** 2, 0.0)", 1.0, 0.0, 2.0),
    ("where(x > 0, log(x) ** 2, 0.0)", 0.0, 0.0, 0.0),
    ("where(x > 0, where(x > 1, sqrt(x - 1), log(x)), x)", 0.5, 2.0, -4.0),
    ("where(x > 0, where(x > 1, sqrt(x - 1), log(x)), x)", 0.0, 1.0, 0.0),
    ("where(x > 0, where(x > 1, sqrt(x - 1), log(x)), x)", 1.0, 1.0, -1.0),
    ("where(x > 0, log(x), sqrt(1 - x))", 0.0, -0.5, -0.25),
    ("exp(where(x > 0, 1 / x, -1 / x)) * where(x != 0, 1.0, 0.0)", 1.0, -math.e, 3 * math.e),
    ("x * where(x > 0, log(x), 0.0)", 0.0, 0.0, 0.0),
    ("where(x > 0, x * log(x), 0.0)", 0.0, 0.0, 0.0),
    ("where(x > 0, x, 0.0) ** 2", 0.0, 0.0, 0.0),
    ("sum([where(x > k, log(x - k), 0.0) for k in range(3)])", 1.0, 1.0, -1.0),
    ("sqrt(where(x > 0, x, 1.0))", 0.0, 0.0, 0.0),
    ("where(x > 0, 1.0, 2.0) * x ** 2", 0.0, 0.0, 4.0),
    ("where(x > 0, log(where(x > 0, x, 0.0)), 0.0)", -1.0, 0.0, 0.0),
    ("where((x > 0) & (x < 1), log(x) + log(1 - x), 0.0)", 1.0, 0.0, 0.0),
    ("where(~(x > 0) | (x > 1), 0.0, log(x))", 0.0, 0.0, 0.0),
    ("relu(x) * where(x > 0, 1 / x, 0.0)", 0.0, 0.0, 0.0),
    ("where(x > 0, atan2(x, x), 0.0)", 0.0, 0.0, 0.0),
    ("where(x > 0, x ** x, 0.0)", -1.0, 0.0, 0.0),
    ("softplus(x)", 0.0, 0.5, 0.25),
    ("sigmoid(x)", 0.0, 0.25, 0.0),
    ("silu(x)", 0.0, 0.5, 0.5),
    ("softplus(x)", -800.0, 0.0, 0.0),
    ("sigmoid(x)", 800.0, 0.0, 0.0),
    ("logsumexp(stack([x, 0.0]))", 0.0, 0.5, 0.25),
    ("logsumexp(stack([x, -inf]))", 3.0, 1.0, 0.0),
]


@pytest.mark.parametrize(("expression", "x", "slope", "curvature"), MASKED)
def test_a_branch_not_taken_never_poisons(expression: str, x: float, slope: float, curvature: float) -> None:
    assert first(expression, x=x) == pytest.approx([slope], abs=1e-15)
    assert second(expression, x=x)[0] == pytest.approx([curvature], abs=1e-14)


WOVEN = {
    "sum": "sum(where(x > 0, log(x), 0.0))",
    "sum of squares": "sum(where(x > 0, log(x), 0.0) ** 2)",
    "axis": "sum(sum(where(x > 0, log(x), 0.0), axis=0) ** 2)",
    "reshape": "sum(reshape(where(x > 0, log(x), 0.0), (3, 2)) * c)",
    "mask after reshape": "sum(where(reshape(x, (3, 2)) > 0, reshape(log(x), (3, 2)), 0.0) * c)",
    "transpose": "sum(where(x.T > 0, log(x).T, 0.0) ** 2)",
    "broadcast": "sum(where(x > 0, log(x[0]) * x, 0.0) * where(x[0] > 0, 1.0, 0.0))",
    "scalar broadcast": "sum(where(x > 2, log(x[0, 0]) + x * 0, 0.0))",
    "matmul": "sum(where(x > 0, log(x), 0.0) @ c)",
    "matmul inside": "sum(where(log(x) @ c > -1e9, log(x) @ c, 0.0))",
    "slice": "sum(where(x > 0, log(x), 0.0)[:, 1:] ** 2)",
    "mask after slice": "sum(where(x[:, 1:] > 0, log(x)[:, 1:], 0.0))",
    "gather": "sum(where(x > 0, log(x), 0.0)[i] ** 2)",
    "mask after gather": "sum(where(x[i] > 0, log(x)[i], 0.0))",
    "concat": "sum(where(concat([x, x]) > 0, concat([log(x), sqrt(x)]), 0.0))",
    "cumsum": "sum(cumsum(where(x > 0, log(x), 0.0), axis=1) ** 2)",
    "max": "max(where(x > 0, log(x), -9.0))",
    "mask around a sum": "where(sum(x) > 1e9, sum(log(x)), sum(x * x))",
    "cast": "sum(astype(where(x > 0, astype(log(x), f64), 0.0), f64))",
    "stack": "sum(stack([where(x > 0, log(x), 0.0), x]) ** 2)",
    "two masks": "sum(where(x > 0, log(x), where(x > -2, sqrt(x + 2), 0.0)) * where(x > 0, sqrt(x), 0.0))",
}


@pytest.mark.parametrize("name", WOVEN)
def test_masks_through_everything_that_mixes_elements(name: str) -> None:
    """At points with zeros and negative numbers the gradient and the Hessian-vector product are those of the program in
    which the argument of log and sqrt is replaced by 1 where it is not positive: finite, and right by differences."""
    body = WOVEN[name]
    if name in ("matmul inside",):
        x = np.array([[1.0, 2.0, 0.5], [3.0, 1.5, 0.25]])
    else:
        x = np.array([[1.0, 0.0, 2.5], [3.0, -1.0, -0.0]])
    point = {"x": x, "c": np.arange(6.0).reshape(3, 2) + 1, "i": np.array([0, 1, 1, 0])}
    inputs = "x: f64[2, 3], *, c: f64[3, 2], i: i64[4]"
    masked = verify(parse(f"def f({inputs}):\n    y_ = {body}\n    return y_\n"))
    safe = body.replace("log(x[0, 0])", "log(S(x[0, 0]))").replace("log(x[0])", "log(S(x[0]))")
    safe = safe.replace("log(x)", "log(S(x))").replace("sqrt(x)", "sqrt(S(x))").replace("sqrt(x + 2)", "sqrt(S(x + 2))")
    helper = "def S(x):\n    return where(x > 0, x, 1.0)\n"
    plain = verify(parse(f"{helper}def f({inputs}):\n    y_ = {safe}\n    return y_\n"))
    along = {"x_dot": np.arange(6.0).reshape(2, 3) - 2.5}
    answers = []
    for graph in (masked, plain):
        twice = verify(tangent(verify(adjoint(graph)), wrt=["x"]))
        for simplified in (True, False):
            found = run(twice, point | along, simplified=simplified)
            answers.append([found[k] for k in ("y_", "y__dot", "x_bar", "x_bar_dot")])
    for answer in answers:
        for got, want in zip(answer, answers[2], strict=True):
            assert np.isfinite(got).all()
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    point["x"] = np.where(point["x"] > 0, point["x"], -0.5)
    check_derivatives(plain, point, np.random.default_rng(0), wrt=["x"], tolerance=1e-6)


def test_infinities_and_nan() -> None:
    assert first("relu(x)", x=NAN) == [1.0]
    assert first("maximum(x, y)", x=NAN, y=1.0) == [0.0, 0.0]
    assert first("exp(x)", x=-INF) == [0.0]
    assert first("exp(x)", x=INF) == [INF]
    assert first("tanh(x)", x=INF) == [0.0]
    assert first("atan(x)", x=-INF) == [0.0]
    assert first("x * y", x=INF, y=2.0) == [2.0, INF]
    assert math.isnan(first("sin(x)", x=INF)[0])
    assert math.isnan(first("x * x", x=NAN)[0])
    assert math.isnan(first("0 * log(x)", x=0.0)[0])


def test_a_maximum_of_nan_gives_no_gradient() -> None:
    graph = parse("def f(x: f64[3]):\n    y_ = max(x)\n    return y_\n")
    point = {"x": np.array([1.0, NAN, 2.0])}
    assert not run(adjoint(graph), point)["x_bar"].any()
    assert math.isnan(run(tangent(graph), point | {"x_dot": np.ones(3)})["y__dot"])

"""Every operation, by being a row of the table: its value against mpmath or NumPy, its derivatives against mpmath,
differences and each other, over shapes, broadcasts and dtypes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest
from differences import Arrays, check_derivatives, close, directions, inner, run

from slpc.ir.ops import OPS
from slpc.ir.parse import parse
from slpc.ir.types import DTYPES
from slpc.ir.verify import verify
from slpc.passes.adjoint import adjoint
from slpc.passes.tangent import tangent

ELEMENTWISE = [name for name, op in OPS.items() if op.elementwise]
OTHERS = [name for name, op in OPS.items() if not op.elementwise and name != "region"]
SMOOTH = [name for name in ELEMENTWISE if any(d not in (None, "0") for d in OPS[name].derivatives)
          and OPS[name].domain in ("number", "float")]
EPSILON = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}

DOMAINS: dict[str, tuple[tuple[float, float], ...]] = {
    "log": ((0.1, 4.0),), "log2": ((0.1, 4.0),), "log10": ((0.1, 4.0),), "log1p": ((-0.8, 3.0),),
    "sqrt": ((0.1, 4.0),), "cbrt": ((0.1, 4.0),), "pow": ((0.2, 3.0), (-2.0, 2.0)), "tan": ((-1.2, 1.2),),
    "asin": ((-0.9, 0.9),), "acos": ((-0.9, 0.9),), "acosh": ((1.1, 4.0),), "atanh": ((-0.9, 0.9),),
    "divide": ((-2.0, 2.0), (0.3, 3.0)), "floor_divide": ((-9.0, 9.0), (0.3, 3.0)), "mod": ((-9.0, 9.0), (0.3, 3.0)),
    "lgamma": ((0.3, 6.0),), "polygamma": ((0.0, 3.0), (0.5, 6.0)),
}
"""Where operands are drawn from; (-2, 2) unless said."""

WHOLE = {"polygamma": (0,)}
"""Operands that are whole numbers, in which there is no derivative."""

EXACT: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y, "subtract": lambda x, y: x - y, "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y, "floor_divide": lambda x, y: mpmath.floor(x / y),
    "mod": lambda x, y: x - y * mpmath.floor(x / y), "pow": lambda x, y: x**y, "negative": lambda x: -x,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "abs": abs, "maximum": max, "minimum": min, "round": mpmath.nint, "exp2": lambda x: mpmath.mpf(2) ** x,
    "log2": lambda x: mpmath.log(x, 2), "lgamma": lambda x: mpmath.re(mpmath.loggamma(x)),
    "polygamma": lambda n, x: mpmath.psi(int(n), x), "less": lambda x, y: x < y, "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y, "greater_equal": lambda x, y: x >= y, "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y, "logical_and": lambda x, y: x and y, "logical_or": lambda x, y: x or y,
    "logical_not": lambda x: not x, "where": lambda c, x, y: x if c else y,
}
"""What mpmath calls by another name, or has no name for."""


def exact(name: str) -> Callable[..., Any]:
    """The operation on mpmath's numbers."""
    return EXACT.get(name) or getattr(mpmath, name)


def declared(name: str, dtype: str) -> tuple[str, ...]:
    """The operands' dtypes."""
    return ("bool", dtype, dtype) if name == "where" else (dtype,) * len(OPS[name].operands)


def program(name: str, dtype: str, shapes: tuple[tuple[int, ...], ...]) -> str:
    """`def f(x: f64[3], y: f64): return hypot(x, y)`."""
    op = OPS[name]
    inputs = ", ".join(f"{o}: {d}{list(s) if s else ''}"
                       for o, d, s in zip(op.operands, declared(name, dtype), shapes, strict=True))
    return f"def f({inputs}):\n    y_ = {name}({', '.join(op.operands)})\n    return y_\n"


def sample(name: str, dtype: str, shapes: tuple[tuple[int, ...], ...], rng: np.random.Generator) -> Arrays:
    """Operands within the operation's domain."""
    op = OPS[name]
    drawn: Arrays = {}
    domains = DOMAINS.get(name, ((-2.0, 2.0),) * len(op.operands))
    for position, (operand, kind, shape, (low, high)) in enumerate(
            zip(op.operands, declared(name, dtype), shapes, domains, strict=True)):
        if kind == "bool":
            x: Any = rng.integers(0, 2, shape).astype(bool)
        elif DTYPES[kind].kind == "int":
            x = rng.integers(-9, 10, shape)
        else:
            x = rng.uniform(low, high, shape)
            x = np.floor(x) if position in WHOLE.get(name, ()) else x
        drawn[operand] = np.asarray(x).astype(DTYPES[kind].numpy)[()]
    return drawn


def dtypes(name: str) -> list[str]:
    """The dtypes that the operation takes."""
    kinds = {"any": ("float", "int", "bool"), "mixed": ("float", "int", "bool"), "number": ("float", "int"),
             "float": ("float",), "bool": ("bool",)}[OPS[name].domain]
    return [d.name for d in DTYPES.values() if d.kind in kinds]


SHAPES = [((), (), ()), ((5,), (5,), (5,)), ((), (3, 4), (4,)), ((3, 1), (1, 4), ()), ((2, 3), (), (3,)),
          ((0,), (), (0,))]
TYPED = [(name, dtype) for name in ELEMENTWISE if name != "astype" for dtype in dtypes(name)]


def test_every_row_is_tested() -> None:
    """An operation that is not elementwise has cases below; an elementwise one has a function of mpmath."""
    assert set(CASES) == set(OTHERS)
    for name in ELEMENTWISE:
        assert name == "astype" or callable(exact(name))


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_value(name: str, dtype: str) -> None:
    """Against mpmath, within four units in the last place of the dtype (and exactly for integers and bools)."""
    rng = np.random.default_rng(1)
    op = OPS[name]
    function = exact(name)
    for shapes in SHAPES:
        shapes = shapes[:len(op.operands)]
        graph = verify(parse(program(name, dtype, shapes)))
        point = sample(name, dtype, shapes, rng)
        if DTYPES[dtype].kind == "int" and name in ("floor_divide", "mod", "pow"):
            point["y"] = np.where(point["y"] <= 0, 1 - point["y"], point["y"]).astype(DTYPES[dtype].numpy)[()]
            point["y"] = np.minimum(point["y"], 5).astype(DTYPES[dtype].numpy)[()]
        got = np.asarray(run(graph, point)["y_"])
        assert got.dtype == graph.outputs[0].dtype.numpy
        full = np.broadcast_shapes(*(np.shape(x) for x in point.values()))
        assert got.shape == full
        columns = [np.broadcast_to(x, full).ravel() for x in point.values()]
        for operands, found in zip(zip(*columns, strict=True), got.ravel(), strict=True):
            exactly = [x if isinstance(x, np.bool_) else mpmath.mpf(float(x)) for x in operands]
            with mpmath.workdps(40):
                want = function(*exactly)
            if got.dtype.kind in "bi":
                assert found == want, operands
            else:
                unit = EPSILON[dtype] * max(abs(float(want)), 2.0**-14)
                assert abs(float(found) - float(want)) <= 4 * unit, operands


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_to_second_order(name: str) -> None:
    """First and second derivatives, by tangent and by adjoint, against mpmath's at points away from kinks."""
    rng = np.random.default_rng(2)
    op, function = OPS[name], exact(name)
    moving = [i for i, d in enumerate(op.derivatives) if d is not None]
    names = [op.operands[i] for i in moving]
    graph = parse(program(name, "f64", ((),) * len(op.operands)))
    reverse = verify(adjoint(graph, wrt=names))
    twice = verify(tangent(reverse, wrt=names))
    for _ in range(4):
        point = sample(name, "f64", ((),) * len(op.operands), rng)
        values = [float(x) for x in point.values()]
        for direction in np.eye(len(names)):
            found = run(twice, {k: float(x) for k, x in point.items()}
                        | {f"{n}_dot": float(d) for n, d in zip(names, direction, strict=True)})
            column = int(np.argmax(direction))
            orders = [0] * len(values)
            orders[moving[column]] = 1
            first = partial(function, values, orders)
            close(found["y__dot"], first, 1e-13, f"{name}: tangent in {names[column]} at {point}")
            close(found[f"{names[column]}_bar"], first, 1e-13, f"{name}: adjoint in {names[column]} at {point}")
            for row, other in enumerate(names):
                both = list(orders)
                both[moving[row]] += 1
                close(found[f"{other}_bar_dot"], partial(function, values, both), 1e-11,
                      f"{name}: second order in {names[column]}, {other} at {point}")


def partial(function: Callable[..., Any], at: list[float], orders: list[int]) -> float:
    """A partial derivative by mpmath in sixty digits. Operands that nothing is differentiated in stay as they are."""
    moving = [i for i, n in enumerate(orders) if n]

    def moved(*xs: Any) -> Any:
        operands: list[Any] = [mpmath.mpf(x) for x in at]
        for i, x in zip(moving, xs, strict=True):
            operands[i] = x
        return function(*operands)

    with mpmath.workdps(60):
        return float(mpmath.diff(moved, tuple(mpmath.mpf(at[i]) for i in moving), tuple(orders[i] for i in moving)))


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_of_arrays(name: str) -> None:
    """The same over shapes that broadcast: differences, random cotangents, and second order."""
    rng = np.random.default_rng(3)
    op = OPS[name]
    names = [o for o, d in zip(op.operands, op.derivatives, strict=True) if d is not None]
    for shapes in SHAPES[1:]:
        shapes = shapes[:len(op.operands)]
        graph = parse(program(name, "f64", shapes))
        point = sample(name, "f64", shapes, rng)
        if name in ("floor", "ceil", "round", "abs", "mod", "floor_divide", "maximum", "minimum"):
            point = away(point)
        check_derivatives(graph, point, rng, wrt=names, tolerance=1e-6)


def away(point: Arrays) -> Arrays:
    """Points at which nothing jumps within some thousandths: operands keep clear of whole numbers and each other."""
    return {k: np.round(x * 4) / 4 + 0.11 + 0.07 * i for i, (k, x) in enumerate(point.items())}


@pytest.mark.parametrize(("name", "dtype"), [(n, d) for n in SMOOTH for d in ("f32", "bf16", "f16")])
def test_derivatives_in_narrow_dtypes(name: str, dtype: str) -> None:
    """The gradient is of the operand's dtype, and agrees with that in float64 as closely as that dtype can."""
    rng = np.random.default_rng(4)
    op = OPS[name]
    names = [o for o, d in zip(op.operands, op.derivatives, strict=True) if d is not None]
    shapes = ((4,), (4,), (4,))[:len(op.operands)]
    point = sample(name, dtype, shapes, rng)
    results = []
    for kind in (dtype, "f64"):
        graph = adjoint(parse(program(name, kind, shapes)), wrt=names)
        assert all(v.dtype.name in (kind, "bool") for v in graph.values())
        at = {k: np.asarray(x, DTYPES[kind].numpy) for k, x in point.items()}
        results.append(run(graph, at | {"y__bar": np.ones(4, DTYPES[kind].numpy)}))
    for n in names:
        narrow, wide = (r[f"{n}_bar"] for r in results)
        assert narrow.dtype == DTYPES[dtype].numpy
        close(narrow, wide, 40 * EPSILON[dtype], f"{name} in {n}")


@pytest.mark.parametrize(("source", "target"), list(itertools.product(DTYPES, DTYPES)))
def test_astype(source: str, target: str) -> None:
    graph = verify(parse(f"def f(x: {source}[4]):\n    y_ = copy(astype(x, {target}))\n    return y_\n"))
    x = np.array([0.0, 1.0, -2.0, 3.75]).astype(DTYPES[source].numpy)
    got = run(graph, {"x": x})["y_"]
    assert got.dtype == DTYPES[target].numpy
    assert np.array_equal(got, x.astype(DTYPES[target].numpy))
    if DTYPES[source].is_float and DTYPES[target].is_float:
        weights = np.array([1.0, -2.0, 0.5, 0.0]).astype(DTYPES[target].numpy)
        bar = run(verify(adjoint(graph)), {"x": x, "y__bar": weights})["x_bar"]
        assert bar.dtype == x.dtype
        assert np.array_equal(bar.astype(float), weights.astype(float))


# What is not elementwise -----------------------------------------------------------------------------------------

Case = tuple[str, str, Callable[..., Any]]
"""The inputs, the expression in .slp, and the same of NumPy."""

INDEX = {"i": np.array([[2, 0], [-1, 2]]), "j": np.array([[0, 3], [1, -4]]), "k": np.int64(1)}
"""Index arrays that the cases use: repeated, out of order, and from the end."""


def added(shape: tuple[int, ...], index: Any, x: Any) -> Any:
    made = np.zeros(shape)
    np.add.at(made, index, x)
    return made


CASES: dict[str, list[Case]] = {
    "broadcast_to": [
        ("x: f64", "broadcast_to(x, (2, 3))", lambda x: np.broadcast_to(x, (2, 3))),
        ("x: f64[3]", "broadcast_to(x, (2, 3))", lambda x: np.broadcast_to(x, (2, 3))),
        ("x: f64[2, 1, 1]", "broadcast_to(x, (4, 2, 1, 3))", lambda x: np.broadcast_to(x, (4, 2, 1, 3))),
        ("x: f64[1]", "broadcast_to(x, (0,))", lambda x: np.broadcast_to(x, (0,))),
    ],
    "reshape": [
        ("x: f64[2, 3]", "reshape(x, (3, 2))", lambda x: x.reshape(3, 2)),
        ("x: f64[2, 3]", "reshape(x.T, (-1,))", lambda x: x.T.reshape(-1)),
        ("x: f64[1, 1]", "reshape(x, ())", lambda x: x.reshape(())),
        ("x: f64", "reshape(x, (1, 1))", lambda x: x.reshape(1, 1)),
        ("x: f64[0, 3]", "reshape(x, (3, 0, 2))", lambda x: x.reshape(3, 0, 2)),
    ],
    "permute_dims": [
        ("x: f64[2, 3]", "x.T", lambda x: x.T),
        ("x: f64[2, 3, 4]", "permute_dims(x, (2, 0, 1))", lambda x: x.transpose(2, 0, 1)),
        ("x: f64[2, 3, 4]", "x.mT", lambda x: x.swapaxes(1, 2)),
    ],
    "slice": [
        ("x: f64[5]", "x[1]", lambda x: x[1]),
        ("x: f64[5]", "x[-2]", lambda x: x[-2]),
        ("x: f64[5, 4]", "x[1:4, ::2]", lambda x: x[1:4, ::2]),
        ("x: f64[5, 4]", "x[::-1, -1]", lambda x: x[::-1, -1]),
        ("x: f64[5, 4]", "x[-1:0:-2, 3:0:-1]", lambda x: x[-1:0:-2, 3:0:-1]),
        ("x: f64[5, 4]", "x[..., None, 2:]", lambda x: x[..., None, 2:]),
        ("x: f64[5]", "x[3:1]", lambda x: x[3:1]),
        ("x: f64[5]", "x[-9::-1]", lambda x: x[-9::-1]),
        ("x: f64[5]", "x[::-1][7:7]", lambda x: x[::-1][7:7]),
        ("x: f64[5]", "x[1:][::-1][0:2]", lambda x: x[1:][::-1][0:2]),
        ("x: f64[5, 4]", "x[1:3] * x[2:4] + x[0]", lambda x: x[1:3] * x[2:4] + x[0]),
    ],
    "stop_gradient": [("x: f64[3]", "stop_gradient(x)", None)],
    "sum": [
        ("x: f64[2, 3, 4]", "sum(x)", np.sum),
        ("x: f64[2, 3, 4]", "sum(x, axis=(0, -1))", lambda x: x.sum((0, 2))),
        ("x: f64[2, 3]", "sum(x, axis=1, keepdims=True)", lambda x: x.sum(1, keepdims=True)),
        ("x: f64[0, 3]", "sum(x, axis=0)", lambda x: x.sum(0)),
        ("x: f64", "sum(x)", lambda x: x),
    ],
    "max": [
        ("x: f64[2, 3]", "max(x)", np.max),
        ("x: f64[2, 3, 4]", "max(x, axis=(0, 2))", lambda x: x.max((0, 2))),
        ("x: f64[2, 3]", "max(x, axis=1, keepdims=True)", lambda x: x.max(1, keepdims=True)),
        ("x: f64[0, 3]", "max(x, axis=1)", lambda x: x.max(1)),
    ],
    "min": [
        ("x: f64[2, 3]", "min(x)", np.min),
        ("x: f64[2, 3, 4]", "min(x, axis=-2)", lambda x: x.min(1)),
    ],
    "cumsum": [
        ("x: f64[5]", "cumsum(x)", np.cumsum),
        ("x: f64[2, 3, 4]", "cumsum(x, axis=1)", lambda x: x.cumsum(1)),
        ("x: f64[2, 0]", "cumsum(x, axis=1)", lambda x: x.cumsum(1)),
    ],
    "matmul": [
        ("x: f64[2, 3], y: f64[3, 4]", "x @ y", np.matmul),
        ("x: f64[3], y: f64[3]", "x @ y", np.matmul),
        ("x: f64[2, 3], y: f64[3]", "x @ y", np.matmul),
        ("x: f64[3], y: f64[3, 2]", "x @ y", np.matmul),
        ("x: f64[5, 2, 3], y: f64[3, 4]", "x @ y", np.matmul),
        ("x: f64[2, 3], y: f64[5, 3, 4]", "x @ y", np.matmul),
        ("x: f64[5, 1, 2, 3], y: f64[4, 3, 2]", "x @ y", np.matmul),
        ("x: f64[3], y: f64[5, 3, 4]", "x @ y", np.matmul),
        ("x: f64[2, 3]", "x @ x.T", lambda x: x @ x.T),
        ("x: f64[2, 0], y: f64[0, 3]", "x @ y", np.matmul),
        ("x: f64[0, 2], y: f64[2, 3]", "x @ y", np.matmul),
    ],
    "all_reduce": [("x: f64[2, 3]", "wait(all_reduce(x.T, processes=1))", np.transpose)],
    "wait": [("x: f64", "wait(all_reduce(2 * x, processes=1))", lambda x: 2 * x)],
    "copy": [("x: f64[2, 3]", "copy(x.T)", np.transpose), ("x: f64", "copy(x)", lambda x: x)],
    "place": [
        ("x: f64[2, 3], y: f64[2, 2]", "concat([x, y], axis=1)", lambda x, y: np.concatenate([x, y], 1)),
        ("x: f64[3], y: f64[3]", "stack([x, y], axis=-1)", lambda x, y: np.stack([x, y], -1)),
        ("x: f64, y: f64", "stack([x, y, x])", lambda x, y: np.stack([x, y, x])),
        ("x: f64[3], y: f64[2]", "place(x, y, at=(s_[1:4], s_[2:4]), shape=(6,))",
         lambda x, y: added((6,), slice(1, 4), x) + added((6,), slice(2, 4), y)),
        ("x: f64[2]", "place(x, at=(s_[::-2],), shape=(4,))", lambda x: added((4,), slice(None, None, -2), x)),
        ("x: f64[0], y: f64[2]", "concat([x, y])", lambda x, y: y),
    ],
    "gather": [
        ("x: f64[3, 4], *, i: i64[2, 2]", "x[i]", lambda x, i: x[i]),
        ("x: f64[3, 4], *, i: i64[2, 2], j: i64[2, 2]", "x[i, j]", lambda x, i, j: x[i, j]),
        ("x: f64[3, 4], *, j: i64[2, 2]", "x[1:, j]", lambda x, j: x[1:, j]),
        ("x: f64[3, 4, 3], *, i: i64[2, 2]", "x[i, :, i]", lambda x, i: x[i, :, i]),
        ("x: f64[3, 4, 3], *, i: i64[2, 2]", "x[1, ..., i]", lambda x, i: x[1, ..., i]),
        ("x: f64[3, 4], *, i: i64[2, 2]", "x[None, i, ::2]", lambda x, i: x[None, i, ::2]),
        ("x: f64[3, 4], *, k: i64", "x[k]", lambda x, k: x[k]),
        ("x: f64[3, 4], *, k: i64", "x[k, k]", lambda x, k: x[k, k]),
        ("x: f64[3], *, i: i64[2, 2]", "x[i] * x[i] + x[-1]", lambda x, i: x[i] * x[i] + x[-1]),
        ("x: f64[2, 4], *, j: i64[2, 2]", "take_along_axis(x, j, axis=1)",
         lambda x, j: np.take_along_axis(x, j, 1)),
    ],
    "scatter_add": [
        ("x: f64[2, 2], *, i: i64[2, 2]", "scatter_add(x, i, shape=(3,))", lambda x, i: added((3,), i, x)),
        ("x: f64[2, 2, 3], *, i: i64[2, 2]", "scatter_add(x, i, shape=(3, 3))", lambda x, i: added((3, 3), i, x)),
        ("x: f64[2, 2], *, i: i64[2, 2], j: i64[2, 2]", "scatter_add(x, i, j, shape=(3, 4))",
         lambda x, i, j: added((3, 4), (i, j), x)),
    ],
    "arange": [
        ("x: f64", "x * arange(5, dtype=f64)", lambda x: x * np.arange(5)),
        ("x: f64", "x * arange(7, -3, -2, dtype=f64)", lambda x: x * np.arange(7, -3, -2)),
        ("x: f64", "x * arange(3, 3, dtype=f64)", lambda x: x * np.arange(0)),
    ],
}
CASES_BY_NAME = [(name, case) for name, cases in CASES.items() for case in cases]


def point_of(inputs: str, rng: np.random.Generator) -> tuple[str, Arrays]:
    """A point for a case: entries of whole quarters, all different, so that no maximum is tied."""
    graph = parse(f"def f({inputs}):\n    return x * 1\n")
    drawn: Arrays = {}
    for value in graph.inputs:
        if value.name in INDEX:
            drawn[value.name] = INDEX[value.name]
        else:
            drawn[value.name] = (rng.permutation(value.type.size) / 4 - 1).reshape(value.shape)[()]
    return graph.name, drawn


@pytest.mark.parametrize(("name", "case"), CASES_BY_NAME, ids=[c[1] for _, c in CASES_BY_NAME])
def test_not_elementwise(name: str, case: Case) -> None:
    """The value against NumPy; the derivatives by differences (of polynomials of degree two: exact), random cotangents,
    and to second order."""
    inputs, expression, reference = case
    rng = np.random.default_rng(5)
    _, point = point_of(inputs, rng)
    graph = verify(parse(f"def f({inputs}):\n    y_ = {expression}\n    return y_\n"))
    assert name in {n.op.name for n in graph.nodes} or graph.outputs[0].type.size in (0, 1) or name in expression
    got = run(graph, point)["y_"]
    if reference is None:
        gradient = run(verify(adjoint(graph)), point | {"y__bar": np.ones(graph.outputs[0].shape)})["x_bar"]
        assert np.array_equal(got, point["x"])
        assert not gradient.any()
        return
    want = reference(*point.values())
    assert np.shape(got) == np.shape(want)
    np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-14)
    for dtype in ("f32", "bf16"):
        narrow = parse(f"def f({inputs.replace('f64', dtype)}):\n    return {expression.replace('f64', dtype)}\n")
        kind = DTYPES[dtype].numpy
        found = run(narrow, {k: np.asarray(x).astype(kind)[()] if k in "xy" else x for k, x in point.items()})["out0"]
        assert np.asarray(found).dtype == kind
        close(found, want, 4 * EPSILON[dtype])
    check_derivatives(graph, point, rng, h=1e-2, tolerance=1e-9)


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_share_equally(name: str) -> None:
    """Of n equal extremes each has 1/n of the gradient; the tangent is their mean."""
    sign = 1.0 if name == "max" else -1.0
    graph = parse(f"def f(x: f64[2, 4]):\n    y_ = {name}(x, axis=1)\n    return y_\n")
    x = sign * np.array([[1.0, 3.0, 3.0, 3.0], [2.0, 0.0, 1.0, 2.0]])
    bar = run(verify(adjoint(graph)), {"x": x, "y__bar": np.array([3.0, 5.0])})["x_bar"]
    assert np.array_equal(bar, [[0.0, 1.0, 1.0, 1.0], [2.5, 0.0, 0.0, 2.5]])
    along = np.arange(8.0).reshape(2, 4)
    dot = run(verify(tangent(graph)), {"x": x, "x_dot": along})["y__dot"]
    assert np.array_equal(dot, [2.0, 5.5])


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_narrow_sums_accumulate_in_f32(dtype: str) -> None:
    """ml_dtypes alone sums 3000 ones to 256."""
    kind = DTYPES[dtype].numpy
    ones = np.ones((3000,), kind)
    expected = np.float32(3000).astype(kind)
    for expression in ("sum(x)", "cumsum(x)[-1]", "x @ x", "scatter_add(x, i, shape=(1,))[0]"):
        graph = parse(f"def f(x: {dtype}[3000], *, i: i64[3000]):\n    return {expression}\n")
        got = run(graph, {"x": ones, "i": np.zeros(3000, np.int64)})["out0"]
        assert got.dtype == kind
        assert got == expected, expression
    broadcast = parse(f"def f(b: {dtype}):\n    y_ = sum(broadcast_to(b, (3000,)) * 1)\n    return y_\n")
    assert run(adjoint(broadcast), {"b": kind.type(1)})["b_bar"] == expected


def test_single_precision_stays_single() -> None:
    """No value of a program in f32 is of another floating-point dtype, and no result is."""
    names = [n for n in ELEMENTWISE if OPS[n].domain in ("number", "float") and len(OPS[n].operands) == 1]
    body = "".join(f"    a{i} = {n}(x) * 2 + 0.5\n" for i, n in enumerate(names))
    graph = parse(f"def f(x: f32[3]):\n{body}    return {', '.join(f'a{i}' for i in range(len(names)))}\n")
    both = adjoint(graph, of="a3")
    assert {v.dtype.name for v in both.values()} <= {"f32", "bool"}
    x = np.full(3, 0.5, np.float32)
    for arrays in (run(graph, {"x": x}), run(both, {"x": x, "a3_bar": x})):
        assert {v.dtype for v in arrays.values()} == {np.dtype(np.float32)}


def test_adjoint_of_bfloat16_is_bfloat16() -> None:
    graph = parse("def f(x: bf16[4], *, y: bf16[4]):\n    z_ = sum(x * y)\n    return z_\n")
    point = {"x": np.ones(4, ml_dtypes.bfloat16), "y": np.arange(4).astype(ml_dtypes.bfloat16)}
    found = run(adjoint(graph), point)
    assert found["x_bar"].dtype == ml_dtypes.bfloat16
    along = directions(np.random.default_rng(0), graph, ["x"])
    dot = run(tangent(graph), point | {"x_dot": along["x"]})["z__dot"]
    assert float(dot) == pytest.approx(inner(found["x_bar"], along["x"]), rel=2**-6, abs=2**-6)

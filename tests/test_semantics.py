"""What programs mean where NumPy's reader might wonder: indices from data, empty arrays, scalars as outputs, lists of
values, integers and bools; and that programs may be long and deep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from differences import check_derivatives, run

import slpc
from slpc.ir.diagnostics import SlpError
from slpc.ir.parse import parse
from slpc.ir.verify import verify
from slpc.passes.adjoint import adjoint
from slpc.passes.simplify import simplify
from slpc.passes.tangent import tangent


def outputs(text: str, **point: Any) -> list[Any]:
    """The outputs of a program at a point, the same simplified and as it stands."""
    graph = verify(parse(text))
    plain = list(run(graph, point, simplified=False).values())
    small = list(run(graph, point).values())
    for a, b in zip(plain, small, strict=True):
        np.testing.assert_array_equal(a, b)
    return small


# Indices from data -----------------------------------------------------------------------------------------------

EMBEDDING = "def f(E: f64[4, 2], *, tok: i64[3]):\n    y = E[tok]\n    return sum(y * y)\n"


def test_negative_indices_from_data_count_from_the_end() -> None:
    E = np.arange(8.0).reshape(4, 2)
    value, grads = slpc.compile(slpc.parse(EMBEDDING), grad=True)(E=E, tok=np.array([-1, 0, -4]))
    assert value == np.sum(E[[-1, 0, -4]] ** 2)
    expected = np.zeros((4, 2))
    np.add.at(expected, [-1, 0, -4], 2 * E[[-1, 0, -4]])
    assert np.array_equal(grads["E"], expected)


def test_negative_indices_of_several_axes() -> None:
    x, i, j = np.arange(12.0).reshape(3, 4), np.array([0, -1, -3, 2]), np.array([-4, 3, -1, 0])
    text = "def f(x: f64[3, 4], *, i: i64[4], j: i64[4]):\n    return x[i, j], scatter_add(x[0], i, j, shape=(3, 4))\n"
    taken, added = slpc.compile(slpc.parse(text))(x, i, j)
    expected = np.zeros((3, 4))
    np.add.at(expected, (i, j), x[0])
    assert np.array_equal(taken, x[i, j])
    assert np.array_equal(added, expected)


@pytest.mark.parametrize("wrong", [4, -5, 2**40, -(2**62)])
def test_an_index_from_data_out_of_range_is_an_error(wrong: int) -> None:
    f = slpc.compile(slpc.parse(EMBEDDING), grad=True)
    scatter = slpc.compile(slpc.parse("def f(x: f64[2], *, i: i64[2]):\n    return scatter_add(x, i, shape=(4,))\n"))
    scalar = slpc.compile(slpc.parse("def f(x: f64[4, 2], *, i: i64):\n    return x[i], take(x, i, axis=0)\n"))
    for call in (lambda: f(E=np.ones((4, 2)), tok=np.array([0, wrong, 1])), lambda: scatter([1, 2], [0, wrong]),
                 lambda: scalar(np.ones((4, 2)), wrong)):
        with pytest.raises(SlpError) as caught:
            call()
        assert caught.value.code == "E0406"


def test_what_an_index_takes_is_the_callers_own() -> None:
    x = np.ones((3, 2))
    for text in ("x[i]", "x[1:2]", "x.T", "reshape(x, (6,))", "x", "broadcast_to(x, (3, 2))"):
        taken = slpc.compile(slpc.parse(f"def f(x: f64[3, 2], *, i: i64):\n    return {text}\n"))(x, 1)
        assert not np.shares_memory(taken, x), text
        taken[...] = 0.0


# Shapes ----------------------------------------------------------------------------------------------------------

def test_empty_arrays_have_values_and_gradients() -> None:
    text = ("def f(x: f64[0, 3], y: f64[3], w: f64):\n    a = sum(x * y, axis=0) + y\n    b = concat([x, y[None]])\n"
            "    c = x @ y\n    d = where(x > 0, log(x) * w, 0.0)\n    e = cumsum(x, axis=0)[::-1]\n"
            "    return sum(a) + sum(b) * w + sum(c) + sum(d) + sum(e), max(x, axis=1), x.T\n")
    graph = parse(text)
    point = {"x": np.zeros((0, 3)), "y": np.arange(3.0), "w": np.float64(2.0)}
    check_derivatives(graph, point, np.random.default_rng(0))
    total, largest, turned = outputs(text, **point)
    assert (total, largest.shape, turned.shape) == (9.0, (0,), (3, 0))


def test_shapes_are_constants_of_the_program() -> None:
    a, b, c = outputs("def f(x: f64[2, 3]):\n    n, m = x.shape\n    y = sum(x) / (n * m)\n"
                      "    return y + x.ndim + x.size, reshape(x, (m, n)), [x[i, -1] for i in range(x.shape[0])][1]\n",
                      x=np.arange(6.0).reshape(2, 3))
    assert (float(a), b.shape, float(c)) == (10.5, (3, 2), 5.0)


def test_outputs_of_every_kind() -> None:
    found = outputs("def f(x: f64, *, k: i32, b: bool):\n    return x, x, 2.5, 3, True, k + 1, ~b, x * 2, f32(x)\n",
                    x=np.float64(1.5), k=np.int32(4), b=np.bool_(True))
    assert [np.asarray(v).item() for v in found] == [1.5, 1.5, 2.5, 3, True, 5, False, 3.0, 1.5]
    assert [np.asarray(v).dtype.name for v in found[2:7]] == ["float64", "int64", "bool", "int32", "bool"]


def test_lists_of_values_are_arrays_to_what_takes_arrays() -> None:
    found = outputs("def f(x: f64 = 2.0):\n    return sum([[x, 1.0], [x, x]]), prod([x, x, 3.0]), mean([x, 5.0]), "
                    "max([[x], [7.0]], axis=0), softmax([x, x]), cumsum([x, x, 1.0])\n", x=2.0)
    for y, want in zip(found, (7.0, 12.0, 3.5, [7.0], [0.5, 0.5], [2.0, 4.0, 5.0]), strict=True):
        np.testing.assert_array_equal(y, want)


def test_integers_and_bools() -> None:
    i, j = np.array([7, -7, 2**31 - 1, 0], np.int32), np.array([2, 2, 3, 5], np.int32)
    expressions = {
        "i // j": i // j, "i % j": i % j, "i * i": np.array([49, 49, 1, 0]), "-i": -i, "abs(i)": abs(i),
        "i ** 2": i * i, "maximum(i, j)": np.maximum(i, j), "sum(i)": np.sum(i, dtype=np.int32),
        "cumsum(j)": np.array([2, 4, 7, 12]), "max(i)": i.max(), "sum(i > 0)": np.int64(2), "any(even)": np.True_,
        "all(even | (j > 1))": np.True_, "i / j": i / j,
    }
    body = f"    even = i % 2 == 0\n    return {', '.join(expressions)}\n"
    found = outputs(f"def f(*, i: i32[4], j: i32[4]):\n{body}", i=i, j=j)
    for (expression, want), got in zip(expressions.items(), found, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=expression)
    dtypes = ["int32"] * 10 + ["int64", "bool", "bool", "float64"]
    assert [np.asarray(v).dtype.name for v in found] == dtypes


def test_division_by_zero_of_integers_is_numpys() -> None:
    found = outputs("def f(*, i: i64[2]):\n    return i // 0 + i % 0\n", i=np.array([5, -5]))
    assert np.array_equal(found[0], [0, 0])


# Lists of values -------------------------------------------------------------------------------------------------

CHOLESKY = """
n = 4


def cholesky(A):
    L = [[0.0 for j in range(n)] for i in range(n)]
    for j in range(n):
        L[j][j] = sqrt(A[j][j] - sum([L[j][k] ** 2 for k in range(j)]))
        for i in range(j + 1, n):
            L[i][j] = (A[i][j] - sum([L[i][k] * L[j][k] for k in range(j)])) / L[j][j]
    return L


def log_determinant(X: f64[n, n]):
    A = X @ X.T + eye(n)
    L = cholesky([[A[i, j] for j in range(n)] for i in range(n)])
    total = 0.0
    for i, row in enumerate(L):
        total += 2 * log(row[i])
    return total, stack([stack(row) for row in L])
"""


def test_cholesky_of_scalars_against_numpy() -> None:
    """The gradient of log det A in A is the inverse of A."""
    X = np.random.default_rng(0).normal(size=(4, 4))
    A = X @ X.T + np.eye(4)
    (value, L), grads = slpc.compile(slpc.parse(CHOLESKY), grad=True)(X)
    np.testing.assert_allclose(L, np.linalg.cholesky(A), rtol=1e-12, atol=1e-14)
    assert value == pytest.approx(np.linalg.slogdet(A)[1], rel=1e-12)
    np.testing.assert_allclose(grads["X"], 2 * np.linalg.inv(A) @ X, rtol=1e-10)


# Depth -----------------------------------------------------------------------------------------------------------

def chain(count: int, *steps: str) -> str:
    """A program of `count` operations, each reading the one before."""
    body = "\n".join(f"    x{i + 1} = {steps[i % 2].format(f'x{i}')}" for i in range(count))
    return f"def f(x0: f64):\n{body}\n    return x{count}\n"


def test_a_hundred_thousand_deep() -> None:
    """No pass recurses."""
    count = 100_000
    graph = parse(chain(count, "{} * 0.5", "2 * {}"))
    assert len(graph.nodes) == count
    reverse, forward = simplify(adjoint(graph)), tangent(graph)
    assert max(len(verify(g).nodes) for g in (reverse, forward)) <= 2 * count
    assert str(reverse).count("\n") == len(reverse.nodes) + 2
    assert run(reverse, {"x0": 0.3}, simplified=False) == {f"x{count}": 0.3, "x0_bar": 1.0}


def test_a_chain_of_many_blocks_has_the_right_derivative() -> None:
    """Emitted text is cut into blocks of operations; values pass from one to the next."""
    count = 6_001
    found = run(adjoint(parse(chain(count, "sin({})", "asin({})"))), {"x0": 0.5})
    assert found == pytest.approx({f"x{count}": np.sin(0.5), "x0_bar": np.cos(0.5)}, rel=1e-10)

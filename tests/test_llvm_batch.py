"""Batches: any strides, shared values, ragged tails, any number of threads; the same bits as one point alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_llvm import SCALAR, native
from test_programs import PROGRAMS, double, sample

import slpc
from slpc.backends import llvm_backend, llvm_batch, llvm_engine

ALL = """
def f(x: f64, y: f64):
    a = sin(x) + cos(3 * y) + tan(x / 2) + atan2(y, x) + hypot(x, y) + atan(x)
    b = exp(x) + exp2(y) + expm1(x) + log(y + 3) + log2(y + 3) + log10(y + 3) + log1p(y * y) + cbrt(x)
    c = sinh(x) + cosh(y) + tanh(x) + asinh(y) + acosh(1 + x * x) + atanh(tanh(x)) + asin(tanh(y)) + acos(tanh(x))
    d = erf(x) + erfc(y) + lgamma(x * x + 0.5) + (y + 3) ** x + x // y + x % y + floor(x) + round(y) + sign(x)
    return a, b, c, d, where(x < y, maximum(a, b), minimum(c, d))
"""


def points(count: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, (count, columns))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 63, 511, 512, 513, 1500])
def test_a_point_of_a_batch_is_the_point_alone(count: int) -> None:
    f = native(ALL)
    rows = points(count, 2)
    found = f.batch(rows[:, 0], rows[:, 1])
    assert all(x.shape == (count,) and x.dtype == np.float64 for x in found)
    for i in range(count):
        assert tuple(x[i] for x in found) == f(*rows[i].tolist())


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 16])
def test_any_number_of_lanes(lanes: int) -> None:
    graph = slpc.parse(ALL)
    rows = points(100, 2)
    batch = llvm_backend.load(llvm_backend.emit_batch(graph, lanes=lanes), batch=True)
    for got, want in zip(batch(*rows.T), native(ALL).batch(*rows.T), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_chain_of_operations_takes_two_vectors_at_once() -> None:
    chain = "def f(x: f64, y: f64):\n" + "".join(f"    x = x * y + {i}\n" for i in range(20)) + "    return x\n"
    wide = "def f(x: f64, y: f64):\n    return " + ", ".join(f"x * {i} + y" for i in range(20)) + "\n"
    one, two = (slpc.compile(slpc.parse(text), backend="llvm", batch=True).text for text in (wide, chain))
    lanes = llvm_engine.lanes()
    assert f"; lanes {lanes}\n" in one
    assert f"; lanes {2 * lanes}\n" in two


def test_how_points_lie_in_memory() -> None:
    f = native("def f(x: f64, y: f64, z: f64):\n    return exp(x) * y + z, x - y", grad=True)
    rows = points(1000, 3)
    wanted = f.batch(*(np.ascontiguousarray(c) for c in rows.T))

    def check(found: Any) -> None:
        for got, want in zip([*found[0], *found[1].values()], [*wanted[0], *wanted[1].values()], strict=True):
            np.testing.assert_array_equal(got, want)

    check(f.batch(rows))
    check(f.batch(*rows.T))
    check(f.batch(*np.asfortranarray(rows).T))
    check(f.batch(*(np.ascontiguousarray(c[::-1])[::-1] for c in rows.T)))
    check(f.batch(z=rows[:, 2], x=rows[:, 0], y=rows[:, 1].tolist()))


def test_values_that_all_points_share() -> None:
    f = native("def f(x: f64, y: f64):\n    return sin(x) * y, y + 1", grad=True)
    x = points(700, 1)[:, 0]
    (a, b), grads = f.batch(x, 2.0)
    np.testing.assert_array_equal(a, f.batch(x, np.full(700, 2.0))[0][0])
    np.testing.assert_array_equal(b, np.full(700, 3.0))
    assert grads["y"].shape == (700,)


@pytest.mark.parametrize("name", SCALAR)
def test_programs_by_points(name: str) -> None:
    """Programs of scalars and of small arrays, value and gradients."""
    graph = double(name) if name != "kepler" else slpc.load(PROGRAMS / "kepler.slp", steps=5)
    f = slpc.compile(graph, grad=True, backend="llvm")
    drawn = [sample(graph, seed) for seed in range(9)]
    stacked = {k: np.stack([d[k] for d in drawn]) for k in drawn[0]}
    value, grads = f.batch(**stacked)
    for i, point in enumerate(drawn):
        alone, alone_grads = f(**point)
        for got, want in zip(value if isinstance(value, tuple) else (value,),
                             alone if isinstance(alone, tuple) else (alone,), strict=True):
            np.testing.assert_array_equal(got[i], want)
        for k, want in alone_grads.items():
            np.testing.assert_array_equal(grads[k][i], want)


def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm_batch, "THREAD", 512)
    f = native(ALL)
    rows = points(5000, 2)
    found = []
    for cores in (1, 2, 3, 7):
        monkeypatch.setattr(llvm_batch, "_cores", lambda cores=cores: cores)
        llvm_batch._threads.cache_clear()
        found.append(f.batch(rows))
    llvm_batch._threads.cache_clear()
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "i32", "i64", "bool"])
def test_other_dtypes(dtype: str) -> None:
    body = "x & ~y" if dtype == "bool" else "x * y + x"
    f = native(f"def f(x: {dtype}, y: {dtype}):\n    return {body}")
    kind = f.graph.inputs[0].dtype.numpy
    x, y = (np.random.default_rng(s).integers(0, 2 if dtype == "bool" else 9, 600).astype(kind) for s in (0, 1))
    found = f.batch(x, y)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, slpc.compile(f.graph).batch(x, y) if dtype != "bool" else x & ~y)


def test_special_values_in_any_lane() -> None:
    """A lane that takes a rare branch leaves the others alone."""
    f = native("def f(x: f64):\n    return exp(x), log(x), sin(x), cos(x), tan(x), 1 / x")
    x = points(64, 1)[:, 0]
    x[[3, 17, 18, 40, 63]] = np.inf, np.nan, -0.0, 1e300, -5e-324
    with np.errstate(all="ignore"):
        for got, want in zip(f.batch(x), (np.exp(x), np.log(x), np.sin(x), np.cos(x), np.tan(x), 1 / x), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-15)
            assert np.array_equal(np.signbit(got)[~np.isnan(got)], np.signbit(want)[~np.isnan(got)])


LOOPS = """
def f(x: f64, y: f64):
    for i in range(700):
        x = sin(x * 1.25) + log(y) * 0.125
        y = y * 0.875 + x * x
    return x, y
"""
PIECES = "\n".join(["def f(x: f64, y: f64):", *(f"""\
    x = sin(x * {1 + i / 7}) + log(y) * {i / 900}
    y = y * 0.875 + x * x""" for i in range(300)), "    return x, y", ""])


@pytest.mark.parametrize("text", [LOOPS, PIECES], ids=["loops", "pieces"])
def test_what_is_done_again(text: str) -> None:
    """Angles that are large, logarithms at their ends, in loops and in pieces: as the point alone, to the bit."""
    f = native(text)
    assert ".again(" in llvm_backend.emit_batch(f.graph)
    x, y = points(40, 2).T.copy()
    y = y ** 2
    x[3], x[17], y[11], y[30], y[31] = 1e300, -3e9, 0.0, -1.0, 5e-324
    found = f.batch(x, y)
    for i in range(40):
        np.testing.assert_array_equal([v[i] for v in found], f(x[i], y[i]))


def test_exponentials_that_underflow() -> None:
    """An instruction that scales, and two factors: the same bits."""
    f = native("def f(x: f64):\n    return exp(x)")
    ends = np.inf, -np.inf, np.nan, 1e9, -1e9
    x = np.concatenate([np.linspace(-750, -700, 4001), np.linspace(700, 720, 801), ends])
    np.testing.assert_array_equal(f.batch(x), [f(v) for v in x])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(f.batch(x), np.exp(x), rtol=3e-16, atol=5e-324)


@pytest.mark.parametrize(("arguments", "code"), [
    ((np.zeros(3), np.zeros(4)), "E0404"), ((np.zeros(3, np.float32), 1.0), "E0405"), ((np.zeros(3),), "E0401"),
    ((np.zeros((3, 3)),), "E0401"), ((np.zeros((3, 2)), np.zeros(3)), "E0404")])
def test_wrong_points(arguments: tuple[Any, ...], code: str) -> None:
    with pytest.raises(slpc.SlpError) as caught:
        native("def f(x: f64, y: f64):\n    return x * y").batch(*arguments)
    assert caught.value.code == code


def test_compiled_for_batches() -> None:
    graph = slpc.parse("def f(x: f64[2], y: f64):\n    return sum(x * y, axis=0)")
    f = slpc.compile(graph, batch=True, grad=True, backend="llvm")
    assert f.batched
    x = points(20, 2)
    value, grads = f(x, 3.0)
    np.testing.assert_allclose(value, 3 * x.sum(1))
    np.testing.assert_array_equal(grads["x"], np.full((20, 2), 3.0))
    np.testing.assert_array_equal(f.batch(x, 3.0)[0], value)
    with pytest.raises(slpc.SlpError):
        slpc.compile(graph).batch(x, 3.0)

"""The NumPy backend's erf of large arrays of float32, against SciPy's of float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import erf

import slpc
from slpc.backends import numpy_backend, numpy_erf
from slpc.passes.legalize import legalize

SIZES = [numpy_erf.FROM, numpy_erf.FROM + 15, 20 * numpy_erf.BLOCK + 1]


def compiled(shape: str, text: str = "erf(x)") -> Any:
    return slpc.compile(slpc.parse(f"def f(x: f32[{shape}]):\n    return {text}\n"))


def ulps(found: Any, x: Any) -> float:
    exact = erf(x.astype(np.float64))
    return float(np.max(np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32))))


@pytest.mark.parametrize("sign", [1, -1])
def test_within_four_ulp(sign: int) -> None:
    x = np.concatenate([np.geomspace(1e-37, 1e-4, 10_000), np.linspace(1e-4, 4.5, 1_000_000),
                        np.geomspace(4.5, 3e38, 10_000)]).astype(np.float32) * np.float32(sign)
    assert ulps(compiled(str(len(x)))(x), x) <= 4.0


def test_special_values() -> None:
    given = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45]
    x = np.resize(np.array(given, np.float32), numpy_erf.FROM)
    found = compiled(str(len(x)))(x)[:len(given)]
    assert np.array_equal(found, np.array([0, 0, 1, -1, np.nan, 1e-45, -1e-45], np.float32), equal_nan=True)
    assert np.signbit(found).tolist()[:4] == [False, True, False, True]


@pytest.mark.parametrize("size", SIZES)
def test_any_size(size: int) -> None:
    x = np.linspace(-3, 3, size, dtype=np.float32)
    f = compiled(str(size))
    assert "scipy" not in f.text
    assert ulps(f(x), x) <= 4.0


@pytest.mark.parametrize("text", ["erf(x)", "erf(x + x)", "erf(x.T)", "erf(x.T * 2)", "erf(x[:, 1:])",
                                  "erf(broadcast_to(x[0], (256, 258)))"])
def test_any_layout(text: str) -> None:
    """Over its operand, of views, of a row that is repeated: in the arena and without one, the same bits."""
    x = np.random.default_rng(0).normal(0, 1, (256, 258)).astype(np.float32)
    f = compiled("256, 258", text)
    plain = numpy_backend.load(numpy_backend.emit(legalize(f.graph, numpy_backend.TARGET)))
    wanted = eval(text, {"erf": erf, "x": x.astype(np.float64), "broadcast_to": np.broadcast_to})
    np.testing.assert_allclose(f(x), wanted, rtol=1e-6)
    assert np.array_equal(f(x), plain(x)[0])


def test_smaller_ones_are_scipys() -> None:
    x = np.linspace(-3, 3, numpy_erf.FROM - 1, dtype=np.float32)
    assert ulps(compiled(str(len(x)))(x), x) <= 1.0

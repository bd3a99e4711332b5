"""Programs in bfloat16: sums, statistics and what is added between blocks are in f32, and results rounded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slpc
from slpc import samples
from slpc.ir.types import bf16

PROGRAMS = Path(__file__).parent.parent / "programs"
SIZES: dict[str, dict[str, int]] = {
    "attention": {}, "softmax_attention": {}, "mlp": {}, "lstm": {"T": 6},
    "transformer": dict(L=2, d=64, H=4, B=2, T=128, V=96)}
UNIT = 2.0 ** -8
"""The most that one rounding to 8 bits errs by, as a fraction of the number."""
BACKENDS = ["numpy", "llvm", "torch"]


def wide(array: Any) -> Any:
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype == bf16.numpy else array


def errors(name: str, backend: str, budget: float | None = None, **options: Any) -> dict[str, float]:
    """For each output the norm of its error over its own norm, in units; f64 is given the same inputs."""
    low, high = (slpc.load(PROGRAMS / f"{name}.slp", dtype=d, **(SIZES[name] | options)) for d in ("bf16", "f64"))
    given = samples.draw(low, 3)
    exact = slpc.compile(high, grad=True, backend="llvm").flat(**{k: wide(x) for k, x in given.items()})
    f = slpc.compile(low, grad=True, backend=backend, recompute_budget=budget)
    found = f.to_numpy(f.flat(**f.from_numpy(given)))
    return {n: float(np.linalg.norm(wide(a) - b) / np.linalg.norm(b) / UNIT)
            for n, a, b in zip(f.outputs, found, exact, strict=True)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SIZES)
def test_every_program(name: str, backend: str) -> None:
    """Gradients go through some ten roundings of a third of a unit each on average, whose errors are independent.
    Losses are in f32."""
    found = errors(name, backend)
    assert all(e < (4 if name == "lstm" else 2.5) for e in found.values()), found
    assert next(iter(found.values())) < 0.8


@pytest.mark.parametrize("backend", BACKENDS)
def test_planned(backend: str) -> None:
    """Blocks read the heads as the products have them, and cast what they read."""
    found = errors("transformer", backend, 0.2, d=32)
    assert all(e < 2.5 for e in found.values()), found


@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_over_many_blocks(backend: str) -> None:
    """The gradients of keys and values are added up block by block: no less exact than that of the queries."""
    found = errors("softmax_attention", backend, T=4096)
    assert found["K_bar"] < 1.5 and found["V_bar"] < 1.5, found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", ["softmax(x)", "log_softmax(x)", "logsumexp(x, axis=1)", "layernorm(x)",
                                  "var(x, axis=1)", "std(x, axis=1)", "mean(x, axis=1)"])
def test_statistics_are_rounded_once(text: str, backend: str) -> None:
    """Of scores as large as 40, whose differences have no digits behind the point left in 16 bits."""
    text = f"def f(x: {{}}[16, 300]):\n    return {text}\n"
    x = (10 * np.random.default_rng(1).normal(size=(16, 300)) + 3).astype(bf16.numpy)
    f = slpc.compile(slpc.parse(text.format("bf16")), backend=backend)
    found = wide(f.to_numpy(f.flat(**f.from_numpy({"x": x})))[0])
    exact = slpc.compile(slpc.parse(text.format("f64")))(wide(x))
    np.testing.assert_allclose(found, exact, rtol=1.01 * UNIT, atol=1e-5)

"""Programs for SciPy's optimisers: the vector of parameters, its value, gradient and Hessian."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize
from test_programs import PROGRAMS, double, sample

import slpc

BACKENDS = ["numpy", "llvm"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["BFGS", "Newton-CG", "trust-exact", "trust-constr"])
def test_down_the_valley(method: str, backend: str) -> None:
    f = slpc.compile(PROGRAMS / "rosenbrock.slp", backend=backend)
    taken = f.scipy()
    if method == "BFGS":
        del taken["hess"]
    found = minimize(**taken, x0=[-1.2, 1.0], method=method)
    np.testing.assert_allclose(found.x, [1, 1], atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_and_data(backend: str) -> None:
    """The gradient by differences, the Hessian by differences of the gradient, both against slpc.hessian's blocks."""
    graph = slpc.load(PROGRAMS / "gmm.slp", K=2, n=4)
    point = sample(graph)
    data = {v.name: point[v.name] for v in graph.data}
    taken = slpc.compile(graph, grad=True, backend=backend).scipy(**data)
    x = np.concatenate([np.ravel(point[v.name]) for v in graph.parameters])
    value, grads = slpc.compile(graph, grad=True)(**point)
    assert taken["fun"](x) == pytest.approx(float(value), rel=1e-13)
    np.testing.assert_allclose(taken["jac"](x), np.concatenate([np.ravel(g) for g in grads.values()]), rtol=1e-10)
    assert check_grad(taken["fun"], taken["jac"], x) < 1e-5
    hessian = taken["hess"](x)
    blocks = slpc.hessian(graph)(**point)
    sizes = {v.name: v.type.size for v in graph.parameters}
    wanted = np.block([[blocks[a][b].reshape(sizes[a], sizes[b]) for b in sizes] for a in sizes])
    np.testing.assert_allclose(hessian, wanted, rtol=1e-8, atol=1e-8 * np.abs(wanted).max())


def test_some_of_the_inputs() -> None:
    f = slpc.compile(PROGRAMS / "rosenbrock.slp", wrt=["y"])
    taken = f.scipy(x=0.5)
    assert taken["fun"]([0.25]) == 0.25 and taken["jac"]([0.25]).shape == (1,)
    assert taken["hess"]([0.25]).tolist() == [[200.0]]
    assert f.scipy()["fun"]([1.0]) == f(x=-1.2, y=1.0)[0]


@pytest.mark.parametrize(("data", "code"), [
    ({}, "E0401"), ({"x": np.zeros((10, 2)), "z": 1.0}, "E0402"), ({"x": np.zeros((10, 2)), "q": 1.0}, "E0402"),
    ({"x": np.zeros(3)}, "E0404")])
def test_faults(data: dict[str, Any], code: str) -> None:
    with pytest.raises(slpc.SlpError) as caught:
        slpc.compile(double("gmm")).scipy(**data)
    assert caught.value.code == code


def test_of_f64_only() -> None:
    with pytest.raises(slpc.SlpError) as caught:
        slpc.compile(slpc.parse("def f(x: f32):\n    return x * x")).scipy()
    assert caught.value.code == "E0702"

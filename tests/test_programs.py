"""Every program of programs/: its values and gradients against torch, and the science that it claims against itself."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from references import REFERENCES
from scipy.stats import multivariate_normal

import slpc

PROGRAMS = Path(__file__).parent.parent / "programs"
NAMES = sorted(REFERENCES)
SINGLE = ["attention", "lstm", "mlp", "softmax_attention", "transformer"]  # declared in f32
SMALL = {
    "mlp": dict(L=3, d=12, m=9),
    "attention": dict(T=33, d=8),
    "softmax_attention": dict(T=33, d=8),
    "transformer": dict(L=2, d=16, H=2, B=2, T=11, V=29),
    "lstm": dict(T=5, B=3, d=4, n=6),
}

Arrays = dict[str, Any]


def load(name: str, **constants: Any) -> slpc.Graph:
    return slpc.load(str(PROGRAMS / f"{name}.slp"), **constants)


def double(name: str) -> slpc.Graph:
    """The program in float64, in a size that is quick to check."""
    return load(name, **SMALL.get(name, {}), **({"dtype": "f64"} if name in SINGLE else {}))


def sample(graph: slpc.Graph, seed: int = 0) -> Arrays:
    """Inputs drawn as their defaults say; a number is drawn within a tenth of itself."""
    rng = np.random.default_rng(seed)
    drawn: Arrays = {}
    for value in graph.inputs:
        default = graph.defaults[value.name]
        if isinstance(default, int | float):
            x = default * rng.uniform(0.9, 1.1) if default else rng.uniform(-0.1, 0.1)
        else:
            x = getattr(rng, default.name)(*default.arguments, size=value.shape)
        drawn[value.name] = np.asarray(x, value.dtype.numpy)[()]
    return drawn


def outputs(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def reference(name: str, graph: slpc.Graph, inputs: Arrays, **constants: Any) -> tuple[list[Any], Arrays]:
    """torch's values and the gradients of the first of them, in float64."""
    tensors = {k: torch.tensor(v) for k, v in inputs.items()}
    tensors = {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}
    for value in graph.parameters:
        tensors[value.name].requires_grad_()
    accepted = inspect.signature(REFERENCES[name]).parameters
    constants = {k: v for k, v in constants.items() if k in accepted}
    results = REFERENCES[name](tensors, **constants)
    results[0].backward()
    grads = {v.name: tensors[v.name].grad for v in graph.parameters}
    return ([r.detach().numpy() for r in results],
            {k: np.zeros_like(inputs[k]) if g is None else g.numpy() for k, g in grads.items()})


def close(got: Any, want: Any, tolerance: float) -> None:
    """Equal but for rounding: the difference counts against the largest entry."""
    assert np.shape(got) == np.shape(want)
    scale = np.max(np.abs(want), initial=0.0)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale)


def agree(name: str, graph: slpc.Graph, tolerance: float, **constants: Any) -> None:
    inputs = sample(graph)
    value, grads = slpc.compile(graph, grad=True)(**inputs)
    values, gradients = reference(name, graph, inputs, **constants)
    assert len(outputs(value)) == len(values)
    for got, want, declared in zip(outputs(value), values, graph.outputs, strict=True):
        assert np.asarray(got).dtype == declared.dtype.numpy
        close(got, want, tolerance)
    assert list(grads) == [v.name for v in graph.parameters]
    for parameter in graph.parameters:
        assert np.asarray(grads[parameter.name]).dtype == parameter.dtype.numpy
        close(grads[parameter.name], gradients[parameter.name], tolerance)


def test_every_program_has_a_reference() -> None:
    assert sorted(path.stem for path in PROGRAMS.glob("*.slp")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_starts_with_what_it_is(name: str) -> None:
    """A docstring: a title, and a year to say where it comes from."""
    text = (PROGRAMS / f"{name}.slp").read_text("utf-8")
    title, _, rest = text.removeprefix('"""').split('"""')[0].partition("\n\n")
    assert text.startswith('"""') and title.rstrip()[-1] in ".:!"
    assert any(word.strip("(),.;:\"'").isdigit() for word in rest.split())


@pytest.mark.parametrize("name", NAMES)
def test_text_reads_back(name: str) -> None:
    graph = load(name)
    again = slpc.parse(str(graph))
    assert again == graph
    assert str(again) == str(graph)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_in_double_against_torch(name: str) -> None:
    agree(name, double(name), 1e-10, **SMALL.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_as_declared_against_torch(name: str) -> None:
    agree(name, load(name), 2e-5 if name in SINGLE else 1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_by_differences(name: str) -> None:
    """Along a random direction, by central differences of order four."""
    graph = double(name)
    f = slpc.compile(graph, grad=True)
    plain = slpc.compile(graph)
    inputs = sample(graph, 1)
    rng = np.random.default_rng(2)
    direction = {v.name: rng.normal(size=v.shape) * (np.abs(inputs[v.name]) + 0.1) for v in graph.parameters}

    def along(t: float) -> float:
        return float(outputs(plain(**{k: x + t * direction[k] if k in direction else x
                                      for k, x in inputs.items()}))[0])

    grads = f(**inputs)[1]
    terms = [np.sum(grads[k] * direction[k]) for k in direction]
    h = 1e-3
    difference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    assert difference == pytest.approx(float(np.sum(terms)), rel=1e-6, abs=1e-7 * float(np.sum(np.abs(terms))))


def test_transformer_has_the_parameters_that_the_formula_counts() -> None:
    for sizes in (dict(L=2, d=32, V=128), dict(L=3, d=16, V=50)):
        L, d, V = sizes["L"], sizes["d"], sizes["V"]
        graph = load("transformer", **sizes)
        assert sum(v.type.size for v in graph.parameters) == 12 * d**2 * L + 2 * d * V


def test_attention_does_not_look_ahead() -> None:
    """What is made of query 3 alone has no gradient in any later key or value."""
    graph = load("softmax_attention", dtype="f64", T=9, d=4)
    inputs = sample(graph)
    inputs["Y"][np.arange(9) != 3] = 0.0
    _, grads = slpc.compile(graph, grad=True)(**inputs)
    for name in "KV":
        assert np.all(grads[name][:4] != 0)
        assert np.all(grads[name][4:] == 0)


def test_greeks_in_closed_form() -> None:
    f = slpc.compile(str(PROGRAMS / "black_scholes.slp"), grad=True)
    options = (100.0, 105.0, 0.03, 0.2, 1.0), (80.0, 120.0, 0.01, 0.4, 0.25), (30.0, 10.0, 0.05, 0.1, 2.0)
    for S, K, r, sigma, T in options:
        price, greeks = f(S=S, K=K, r=r, sigma=sigma, T=T)
        with mpmath.workdps(40):
            spread = mpmath.mpf(sigma) * mpmath.sqrt(T)
            d1 = (mpmath.log(mpmath.mpf(S) / K) + (r + mpmath.mpf(sigma) ** 2 / 2) * T) / spread
            d2 = d1 - spread
            paid = K * mpmath.exp(-mpmath.mpf(r) * T)
            known = {
                "S": mpmath.ncdf(d1),
                "K": -paid / K * mpmath.ncdf(d2),
                "r": T * paid * mpmath.ncdf(d2),
                "sigma": S * mpmath.npdf(d1) * mpmath.sqrt(T),
                "T": S * mpmath.npdf(d1) * sigma / (2 * mpmath.sqrt(T)) + r * paid * mpmath.ncdf(d2),
            }
            assert float(price) == pytest.approx(float(S * mpmath.ncdf(d1) - paid * mpmath.ncdf(d2)), rel=1e-11)
        for name, greek in known.items():
            assert float(greeks[name]) == pytest.approx(float(greek), rel=1e-9)


def test_second_greeks_in_closed_form() -> None:
    """Gamma, vanna, volga and charm: entries of the Hessian."""
    S, K, r, sigma, T = 90.0, 100.0, 0.02, 0.3, 0.5
    second = slpc.hessian(load("black_scholes"))(S=S, K=K, r=r, sigma=sigma, T=T)
    spread = sigma * math.sqrt(T)
    d1 = (math.log(S / K) + (r + sigma**2 / 2) * T) / spread
    d2 = d1 - spread
    density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    known = {
        ("S", "S"): density / (S * spread),
        ("S", "sigma"): -density * d2 / sigma,
        ("sigma", "sigma"): S * density * math.sqrt(T) * d1 * d2 / sigma,
        ("S", "T"): density * (2 * r * T - d2 * spread) / (2 * T * spread),
    }
    for (a, b), greek in known.items():
        assert float(second[a][b]) == pytest.approx(greek, rel=1e-11)
        assert float(second[b][a]) == pytest.approx(greek, rel=1e-11)


def test_valley_at_its_lowest_point() -> None:
    second = slpc.hessian(load("rosenbrock"))(x=1.0, y=1.0)
    assert [[float(second[a][b]) for b in "xy"] for a in "xy"] == [[802.0, -400.0], [-400.0, 200.0]]


def test_orbit_keeps_its_energy() -> None:
    """The drift is small, and falls with the fifth power of the step, as a method of order four makes it."""
    drift = []
    for steps, h in ((100, 0.02), (200, 0.01)):
        _, energy = slpc.compile(load("kepler", steps=steps, h=h))(x=1.5, y=0.0, vx=0.0, vy=3**-0.5)
        drift.append(abs(float(energy) + 0.5))
    assert drift[0] < 1e-6
    assert drift[0] / drift[1] > 14


def test_orbit_falls_to_the_perihelion() -> None:
    """Half a revolution takes pi, and ends at the distance 1 - 1/2."""
    distance, _ = slpc.compile(load("kepler", steps=200, h=math.pi / 200))(x=1.5, y=0.0, vx=0.0, vy=3**-0.5)
    assert float(distance) == pytest.approx(0.5, abs=1e-6)


def test_orbit_keeps_the_gradient_of_its_energy() -> None:
    """What is conserved along an orbit depends on the start at the end as it does at the start."""
    x, y, vx, vy = 1.4, 0.3, -0.1, 0.6
    _, grads = slpc.compile(load("kepler", steps=200, h=0.01), of="energy")(x=x, y=y, vx=vx, vy=vy)
    r = math.hypot(x, y)
    known = {"x": x / r**3, "y": y / r**3, "vx": vx, "vy": vy}
    assert {k: float(g) for k, g in grads.items()} == pytest.approx(known, abs=1e-6)


def test_filter_is_the_joint_gaussian() -> None:
    """The likelihood by innovations equals the density of all measurements at once, by SciPy."""
    N, h = 12, 0.3
    p = dict(q=0.2, r=0.4, x=0.5, v=-0.3, a=1.5, c=0.7)
    y = np.random.default_rng(5).normal(size=N)
    t = h * np.arange(1, N + 1)
    covariance = p["r"] * np.eye(N)
    for i in range(N):
        for j in range(N):
            s, u = sorted((t[i], t[j]))
            covariance[i, j] += p["a"] + p["c"] * s * u + p["q"] * (s**2 * u / 2 - s**3 / 6)
    density = multivariate_normal(p["x"] + p["v"] * t, covariance).logpdf(y)
    value = slpc.compile(load("kalman", N=N, h=h))(**p, y=y)
    assert float(value) == pytest.approx(-density, rel=1e-12)


def test_rotation_by_nothing() -> None:
    """At the angle 0 the formula divides by 0; the branch that is taken instead has the right gradient."""
    f = slpc.compile(str(PROGRAMS / "bundle_adjustment.slp"), grad=True)
    graph = load("bundle_adjustment")
    inputs = sample(graph) | dict(r1=0.0, r2=0.0, r3=0.0)
    value, grads = f(**inputs)
    values, gradients = reference("bundle_adjustment", graph, inputs)
    for got, want in zip(value, values, strict=True):
        close(got, want, 1e-12)
    for name, want in gradients.items():
        close(grads[name], want, 1e-10)


def test_attention_outlasts_large_scores() -> None:
    """Scores of some thousands overflow exp; the softmax subtracts the largest first."""
    graph = load("softmax_attention", dtype="f64", T=9, d=4)
    inputs = sample(graph)
    inputs["Q"] = 1e3 * inputs["Q"]
    value, grads = slpc.compile(graph, grad=True)(**inputs)
    values, gradients = reference("softmax_attention", graph, inputs)
    close(value, values[0], 1e-10)
    for name, want in gradients.items():
        # A saturated softmax has gradients far below what torch rounds off beside the probability 1.
        np.testing.assert_allclose(grads[name], want, rtol=1e-9, atol=1e-11)


def test_mixture_of_one_is_a_gaussian() -> None:
    graph = load("gmm", K=1, d=3, n=4)
    inputs = sample(graph)
    root = np.diag(np.exp(inputs["q"][0]))
    root[np.tril_indices(3, -1)] = inputs["l"][0]
    known = multivariate_normal(inputs["mu"][0], np.linalg.inv(root.T @ root)).logpdf(inputs["x"]).sum()
    assert float(slpc.compile(graph)(**inputs)) == pytest.approx(known, rel=1e-11)

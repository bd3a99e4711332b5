"""Fits the polynomial of backends/numpy_erf.py, and prints its coefficients.

The p of least greatest error of tanh(x p(x^2)) beside erf(x), relative to it, is the solution of a linear programme
(Rice, "The Approximation of Functions", 1964, section 3): an error of p counts x (1 - erf(x)^2) / erf(x) times.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from scipy.optimize import linprog

mp.mp.dps = 40
DEGREE, TOP = 7, 4.0
SCALE = 1e6
"""The solver's tolerances are absolute."""


def fitted() -> list[float]:
    """Coefficients of p, lowest first."""
    x = np.concatenate([TOP / 2 * (1 - np.cos(np.linspace(0, np.pi, 1500)))[1:], np.geomspace(1e-3, 0.5, 100)])
    exact = [mp.erf(each) for each in x]
    wanted = np.array([float(mp.atanh(e) / each) for e, each in zip(exact, x, strict=True)])
    weight = SCALE * np.array([float(each * (1 - e * e) / e) for e, each in zip(exact, x, strict=True)])
    basis = weight[:, None] * np.polynomial.chebyshev.chebvander(2 * (x / TOP) ** 2 - 1, DEGREE)
    error = -np.ones((len(x), 1))
    rows = np.vstack([np.hstack([basis, error]), np.hstack([-basis, error])])
    limits = np.concatenate([weight * wanted, -weight * wanted])
    bounds = [(None, None)] * (DEGREE + 1) + [(0, None)]
    found = linprog([0.0] * (DEGREE + 1) + [1.0], A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
    p = Chebyshev(found.x[:-1], domain=[0, TOP ** 2]).convert(kind=Polynomial)
    return [float(np.float32(c)) for c in p.coef]


if __name__ == "__main__":
    print(*fitted(), sep=",\n")

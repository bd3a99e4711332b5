"""How the tests of a backend compare it with NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from slpc.backends import numpy_backend
from slpc.ir.graph import Graph
from slpc.passes.legalize import legalize


def by_numpy(graph: Graph) -> Any:
    return numpy_backend.load(numpy_backend.emit(legalize(graph, numpy_backend.TARGET)), batch=True)


def close(got: Any, want: Any, tolerance: float, what: str = "") -> None:
    """Equal but for rounding: the difference counts against the largest entry."""
    got, want = np.asarray(got), np.asarray(want)
    assert (got.dtype, got.shape) == (want.dtype, want.shape), what
    if got.dtype.kind in "bi":
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    got, want = got.astype(np.float64), want.astype(np.float64)
    scale = np.max(np.abs(want), initial=0.0)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale, err_msg=what)

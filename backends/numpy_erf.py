"""erf of large arrays of float32: tanh(x p(x^2)), which NumPy computes several times as fast as SciPy its own.

SciPy's goes through float64, one element at a time. p is fitted to atanh(erf(x)) / x, each error weighed by what it
does to erf (tests/fit_erf.py); beyond |x| = 4 it grows, and tanh is 1. Within 4 ulp, as NumPy's exp is within 3.
"""

from __future__ import annotations

from ..ir.graph import Node
from ..ir.types import f32

FROM = 1 << 16
"""From so many elements on a block is long enough to be faster: it takes sixteen calls."""
SHARE, BLOCK = 16, 8192
"""Elements that are computed at a time: a sixteenth, so that the workspace is an eighth of the result, and not more
than so many, which lie in the nearest cache."""

HELPER = '''\
def erf(x, out, work):
    """erf(x) = tanh(x p(x^2)), by blocks of as many elements as a row of `work` has."""
    x, flat, length = x.reshape(-1), out.reshape(-1), work.shape[1]
    for start in range(0, x.size, length):
        part = x[start:start + length]
        square, p = work[:, :part.size]
        np.multiply(part, part, out=square)
        np.multiply(square, ERF[0], out=p)
        for coefficient in ERF[1:-1]:
            np.add(p, coefficient, out=p)
            np.multiply(p, square, out=p)
        np.add(p, ERF[-1], out=p)
        np.multiply(p, part, out=p)
        np.tanh(p, out=flat[start:start + length])
    return out


ERF = (5.421678217487624e-09, 2.7573982208650705e-08, -4.794583674083697e-06, 8.459648961434141e-05,
       -0.0006148380343802273, -0.00019528830307535827, 0.1027698665857315, 1.128379225730896)
'''
"""The function that a module has which calls it; its first argument may be its second."""


def fits(node: Node) -> bool:
    """Is the node such an erf?"""
    return node.op.name == "erf" and node.result.dtype is f32 and node.result.type.size >= FROM


def work_shape(node: Node) -> tuple[int, int]:
    """The shape of its workspace, of float32."""
    return 2, min(node.result.type.size // SHARE, BLOCK)

"""The machine that runs this, as a device for the roofline: measured in about a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from . import memory
from .ir.types import DType, f32, f64
from .passes.devices import Device

_WIDTH = 1536
"""Rows and columns of the product: past the caches' warm-up, some 10 ms on two cores."""
_CACHED = 1 << 17
"""Bytes of the array that is multiplied: in the second cache, and long against the cost of a call."""
_COPIED = 1 << 27
"""Bytes of the array that is copied: larger than caches are."""
_TIMES = 50
"""Runs of the product of arrays in one measurement."""
_TRIES = 3


def measure() -> Device:
    """The device `cpu`: the rates of NumPy's matrix product and of an elementwise product that stays in the cache, in
    f32 and f64, and the bandwidth of a copy, each the best of three."""
    import numpy

    source = numpy.ones(_COPIED, numpy.int8)
    copied = numpy.empty_like(source)
    bandwidth = 2 * _COPIED / _best(lambda: numpy.copyto(copied, source))
    dtypes = (f32, f64)
    return Device("cpu", "this machine under NumPy", {d: _product_rate(d) for d in dtypes},
                  {d: _vector_rate(d) for d in dtypes}, bandwidth, memory.machine_bytes(),
                  "measured: numpy.matmul, numpy.multiply and numpy.copyto, the best of three runs each")


def _product_rate(dtype: DType) -> float:
    import numpy

    factor = numpy.ones((_WIDTH, _WIDTH), dtype.numpy)
    product = numpy.empty_like(factor)
    return 2 * _WIDTH ** 3 / _best(lambda: numpy.matmul(factor, factor, out=product))


def _vector_rate(dtype: DType) -> float:
    import numpy

    x = numpy.ones(_CACHED // dtype.bytes, dtype.numpy)
    return _TIMES * x.size / _best(lambda: [numpy.multiply(x, x, out=x) for _ in range(_TIMES)])


def _best(run: Callable[[], object]) -> float:
    """Seconds of the fastest run, after one to warm up."""
    run()
    taken = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return max(min(taken), 1e-9)

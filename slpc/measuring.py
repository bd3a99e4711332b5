"""What a plan takes when it runs: the peak of a first call, as Python's allocator sees it."""

from __future__ import annotations

import tracemalloc

from . import function, samples
from .passes.checkpoint import Plan


def peak_bytes(plan: Plan, backend: str = "numpy") -> int:
    """Bytes that a first call of the planned program has allocated at most at once, its inputs made beforehand.

    NumPy's arrays are traced by `tracemalloc`. Another copy of the program is called before, so that what Python
    itself loads on the way is not counted.
    """
    graph = plan.graph
    inputs = list(samples.draw(graph).values())
    before, compiled = (function.build(graph, values=len(graph.outputs), backend=backend) for _ in range(2))
    before.flat(*inputs)
    del before
    tracemalloc.start()
    try:
        began = tracemalloc.get_traced_memory()[0]
        compiled.flat(*inputs)
        return tracemalloc.get_traced_memory()[1] - began
    finally:
        tracemalloc.stop()

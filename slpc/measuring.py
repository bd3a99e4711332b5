"""What a plan takes when it runs: the peak of a first call, as the allocator of the backend sees it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import function, samples
from .passes.checkpoint import Plan


def peak_bytes(plan: Plan, backend: str = "numpy", device: str = "cpu") -> int:
    """Bytes that a first call of the planned program has allocated at most at once, its inputs made beforehand.

    NumPy's arrays are traced by `tracemalloc`, torch's tensors by its own allocators. Another copy of the program is
    called before, so that what Python itself loads on the way is not counted.
    """
    graph = plan.graph
    running = None
    if backend == "torch":
        from .torch_function import Running

        running = Running(device)
    before, compiled = (function.build(graph, values=len(graph.outputs), backend=backend, running=running)
                        for _ in range(2))
    inputs = list(compiled.from_numpy(samples.draw(graph)).values())
    before.flat(*inputs)
    del before
    if backend != "torch":
        return _traced(lambda: compiled.flat(*inputs))
    return (allocated_on_cpu if device == "cpu" else allocated_on_cuda)(lambda: compiled.flat(*inputs))


def _traced(call: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        began = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - began
    finally:
        tracemalloc.stop()


def allocated_on_cpu(call: Callable[[], Any]) -> int:
    """The most bytes that the call has of torch's CPU allocator at once, by the profiler's record of each one."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    alive = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def allocated_on_cuda(call: Callable[[], Any]) -> int:
    """The most bytes that the call has of torch's CUDA allocator at once, with what cuBLAS holds all the time."""
    import torch

    with _without_workspaces():
        began = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return int(torch.cuda.max_memory_allocated() - began)


@contextmanager
def _without_workspaces() -> Iterator[None]:
    """cuBLAS's workspaces given back beforehand, so that a first call allocates them."""
    import torch

    torch.cuda.synchronize()
    clear: Any = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()
    yield

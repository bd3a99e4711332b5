"""Several processes, each with a part of the batch: how many there are, and how they find one another."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from .function import no_torch
from .ir.diagnostics import Diagnostic, SlpError

WATCHDOG = 60.0
"""Seconds after `timeout` at which torch itself ends a process that waits for another on a GPU."""


def count(backend: str, device: str, timeout: float) -> int:
    """How many processes torchrun has started, 1 if it has started none; they are joined by NCCL on CUDA, by gloo on
    the CPU. What takes longer than `timeout` seconds ends them. SlpError E0416 where the backend runs in one process.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started == 1:
        return 1
    if backend != "torch":
        raise SlpError(Diagnostic("E0416", f"torchrun has started {started} processes, and the backend {backend} runs "
                                           "in one", "backend=\"torch\" (--backend torch)"))
    try:
        from torch import distributed
    except ModuleNotFoundError:
        raise no_torch() from None
    if not distributed.is_initialized():
        try:
            _join(device, timeout)
        except (RuntimeError, ValueError) as error:
            raise gone(error) from None
        atexit.register(_leave)
    return started


def _join(device: str, timeout: float) -> None:
    import torch
    from torch import distributed

    if not device.startswith("cuda"):
        distributed.init_process_group("gloo", timeout=timedelta(seconds=timeout))
        return
    torch.cuda.set_device(device)
    distributed.init_process_group("nccl", timeout=timedelta(seconds=timeout + WATCHDOG),
                                   device_id=torch.device(device))


def own_device(device: str) -> str:
    """The device of this process: "cuda" is the GPU that torchrun has numbered for it."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def settling(device: str, timeout: float) -> Callable[[], None]:
    """A function that waits until a GPU has done what it was given. SlpError E0417, and the sums that wait are given
    up, where that takes longer than `timeout` seconds: NCCL itself would wait for a process that is gone, and torch's
    watchdog would end this one without a word to its user."""
    import torch
    from torch.distributed import distributed_c10d

    def settle() -> None:
        done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(device))
        until = time.monotonic() + timeout
        while not done.query():
            if time.monotonic() > until:
                distributed_c10d._abort_process_group()
                raise gone(TimeoutError(f"no answer in {timeout:g} s"))
            time.sleep(1e-4)

    return settle


def _leave() -> None:
    """Before the interpreter ends: gloo's threads would end the process with an abort if they were still running."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def agree(tensors: list[Any]) -> None:
    """All processes take the values of the first."""
    from torch import distributed

    for tensor in tensors:
        distributed.broadcast(tensor, 0)


def gone(error: Exception) -> SlpError:
    """E0417: one of the processes has ended, or has not answered in time."""
    told = str(error).strip().split("\n")[0][:200]
    return SlpError(Diagnostic("E0417", f"process {rank()} waited for another, which is gone: {told}",
                               "look at what that one printed; go on from what was saved"))

"""Several processes, each with a part of the batch: how many there are, and how they find one another."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta
from typing import Any

from .function import no_torch
from .ir.diagnostics import Diagnostic, SlpError


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
        kind = "nccl" if device.startswith("cuda") else "gloo"
        try:
            distributed.init_process_group(kind, timeout=timedelta(seconds=timeout))
        except (RuntimeError, ValueError) as error:
            raise gone(error) from None
        atexit.register(_leave)
    return started


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

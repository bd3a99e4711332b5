"""A training step with AdamW of programs/transformer.slp on one GPU, beside torch: time, and peak memory.

    python benchmarks/gpu_train.py              # the model of docs/training.md: B 8, T 2048, d 1024, L 12, V 32768
    python benchmarks/gpu_train.py --budgets 0.02,0.8 --peers eager,compile,hooks

A step is loss, gradients and update, parameters and state in bf16. Peak is beyond parameters, state and data, as
torch's allocator counts it; ours is also predicted. All run in one process, on the same card. The peers have a
parameter for each layer and torch's fused AdamW: after the backward pass (eager, compile, checkpoint), or of each
parameter as soon as its gradient is there (hooks, hooks-checkpoint).
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from typing import Any

import torch
from gpu import MODEL, ceiling, inputs, model, timed
from torch import Tensor

import slpc

RATE = 1e-4


def ours(sizes: dict[str, int], given: dict[str, Tensor], budget: float) -> tuple[float, float, float, float]:
    """Milliseconds, seconds of the first call, MiB measured and predicted."""
    begin = time.perf_counter()
    step = slpc.train_step(slpc.load(str(MODEL), dtype="bf16", **sizes), "adamw", rate=RATE, backend="torch",
                           device="cuda", graph=True, recompute_budget=budget,
                           parameters={k: x for k, x in given.items() if x.is_floating_point()})
    print(f"    planned and emitted in {time.perf_counter() - begin:.1f} s", flush=True)
    data = {k: x for k, x in given.items() if not x.is_floating_point()}
    return *measured(lambda: step(**data)), step.plan.peak_bytes / 2**20


def theirs(sizes: dict[str, int], given: dict[str, Tensor], kind: str) -> tuple[float, float, float]:
    """The same of torch."""
    held: dict[str, Any] = {}
    leaves = []
    for name, x in given.items():
        if not x.is_floating_point():
            held[name] = x
            continue
        pieces = [p.clone().requires_grad_(True) for p in (x if x.ndim == 3 else [x])]
        leaves += pieces
        held[name] = pieces if x.ndim == 3 else pieces[0]
    loss = model(sizes, checkpointed=kind.endswith("checkpoint"))
    if kind == "compile":
        torch._dynamo.reset()
        loss = torch.compile(loss)
    by_hooks = kind.startswith("hooks")
    optimizers = [torch.optim.AdamW(group, lr=RATE, fused=True)
                  for group in ([[p] for p in leaves] if by_hooks else [leaves])]

    def update(optimizer: torch.optim.AdamW) -> None:
        optimizer.step()
        optimizer.zero_grad()

    for p in leaves:
        p.grad = torch.zeros_like(p)
    for optimizer in optimizers:  # so that the state is there before anything is measured
        update(optimizer)
    for p, optimizer in zip(leaves, optimizers, strict=True) if by_hooks else ():
        p.register_post_accumulate_grad_hook(lambda p, optimizer=optimizer: update(optimizer))

    def step() -> Tensor:
        found = loss(held)
        found.backward()
        if not by_hooks:
            update(optimizers[0])
        return found.detach()

    return measured(step)


def measured(step: Any) -> tuple[float, float, float]:
    """Milliseconds of a step, seconds of the first, and MiB beyond what was there before it."""
    losses: list[Tensor] = []
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ms, first = timed(lambda: losses.append(step().clone()))
    peak = torch.cuda.max_memory_allocated() - before
    told = [float(x) for x in losses]
    assert all(map(math.isfinite, told)) and told[-1] < told[0], told
    print(f"    loss {told[0]:.4f} -> {told[-1]:.4f} in {len(told)} steps", flush=True)
    return ms, first / 1e3, peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", default="0,0.02,0.2,0.35,0.6,0.8,1.2,2")
    parser.add_argument("--peers", default="eager,hooks,compile,checkpoint,hooks-checkpoint")
    parser.add_argument("--sizes", default="L=12,d=1024,H=16,B=8,T=2048,V=32768")
    options = parser.parse_args()
    sizes = {name: int(n) for name, n in (pair.split("=") for pair in options.sizes.split(","))}
    given = inputs(sizes)
    most = ceiling() / 1e12
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {most:.0f} TFLOP/s in a large product")
    rows = ["| who | ms | peak MiB | predicted | first call s |", "|---|---|---|---|---|"]
    runs: list[tuple[str, Any]] = [(f"slpc, budget {b}", lambda b=b: ours(sizes, given, float(b)))
                                   for b in filter(None, options.budgets.split(","))]
    runs += [(f"torch {kind}", lambda kind=kind: theirs(sizes, given, kind))
             for kind in filter(None, options.peers.split(","))]
    for who, run in runs:
        gc.collect()
        torch.cuda.empty_cache()
        try:
            ms, first, peak, *predicted = run()
        except Exception as error:
            print(f"    {who}: {type(error).__name__}: {str(error)[:2000]}", flush=True)
            continue
        told = f"{predicted[0]:.0f}" if predicted else ""
        rows.append(f"| {who} | {ms:.1f} | {peak:.0f} | {told} | {first:.1f} |")
        print(rows[-1], flush=True)
    print("\n" + "\n".join(rows))


if __name__ == "__main__":
    main()

"""Trains the lecture's transformer on the bytes of a text.

    python examples/train.py --text README.md --steps 200 --budget 0.2
    python examples/train.py --text README.md --backend torch --device cuda -D dtype=bf16 -D T=512 -D d=512 -D L=8
    python examples/train.py --text README.md --steps 400 --resume train.npz
    torchrun --nproc-per-node 2 examples/train.py --text README.md --backend torch

A word is a byte, and the batch of a step is drawn from the text with the step's number as seed: a run that is
resumed sees what it would have seen, and its losses are the same. Ctrl-C saves, too.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import slpc
from slpc import machine, measuring, processes
from slpc.memory import human
from slpc.passes.cost import costs
from slpc.passes.devices import DEVICES, Device
from slpc.passes.roofline import arithmetic_seconds

PROGRAM = Path(__file__).parent.parent / "programs" / "transformer.slp"
WORDS = 256
SIZES: dict[str, Any] = {"L": 2, "d": 64, "H": 4, "B": 8, "T": 64}
COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
WARM_UP = 20
"""Steps over which the learning rate rises; it falls along a cosine to a tenth afterwards."""


def batch(text: np.ndarray[Any, Any], shape: tuple[int, int], seed: tuple[int, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Tokens and the tokens that follow them, of pieces of the text that the numbers of step and process choose."""
    rows, length = shape
    starts = np.random.default_rng(seed).integers(0, len(text) - length, rows)
    pieces = np.stack([text[at:at + length + 1] for at in starts])
    return {"tok": pieces[:, :-1].copy(), "target": pieces[:, 1:].copy()}


def rate_at(step: int, steps: int, most: float) -> float:
    """Linear warm-up, then a cosine (Loshchilov and Hutter 2017)."""
    if step < WARM_UP:
        return most * (step + 1) / WARM_UP
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return most * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def ideal_seconds(graph: slpc.Graph, device: Device) -> float:
    """Seconds that the products of value and gradient take at the device's peak, for the MFU."""
    return sum(arithmetic_seconds(c, device) for c in costs(slpc.adjoint(graph)) if c.node.op.family == "product")


def device_of(name: str) -> Device:
    """What the machine can do at most: the GPU by its maker's figures, the CPU as it is measured."""
    if name == "cpu":
        return machine.measure()
    import torch

    title = torch.cuda.get_device_name(name).lower()
    return next((d for d in DEVICES.values() if d.name in title), DEVICES["h100"])


def curve(losses: list[float], first: int, path: Path) -> bool:
    """The losses from a step on as a picture, or False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(first + 1, first + len(losses) + 1), losses)
    axes.set(xlabel="step", ylabel="loss, nats a byte")
    figure.savefig(path)
    return True


@click.command()
@click.option("--text", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--steps", type=click.IntRange(1), default=200, show_default=True, help="Steps in all, resumed ones too.")
@click.option("--stop", type=click.IntRange(1), help="Save and leave after so many of them.")
@click.option("--budget", default="0.2", show_default=True, help="Flops to spend again, of those of the forward pass.")
@click.option("--optimizer", default="adamw", show_default=True)
@click.option("--rate", default=3e-3, show_default=True, help="The largest learning rate.")
@click.option("--clip", type=float, default=1.0, show_default=True, help="The largest norm of the gradient; 0: any.")
@click.option("--backend", type=click.Choice(["numpy", "llvm", "torch"]), default="numpy", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("-D", "constants", multiple=True, metavar="NAME=VALUE", help="Sizes of the transformer, and its dtype.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), default=Path("train.npz"), show_default=True)
@click.option("--resume", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Go on from this file.")
@click.option("--losses", "log", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the losses, one JSON line a step.")
@click.option("--measure", is_flag=True, help="Measure the peak of a first call, too.")
def main(path: Path, steps: int, stop: int | None, budget: str, optimizer: str, rate: float, clip: float, backend: str,
         device: str, constants: tuple[str, ...], save: Path, resume: Path | None, log: Path | None,
         measure: bool) -> None:
    """Train the lecture's transformer on the bytes of a text."""
    sizes = SIZES | dict(c.partition("=")[::2] for c in constants) | {"V": WORDS}
    device = processes.own_device(device)
    graph = slpc.load(PROGRAM, **sizes)
    rank = processes.rank()
    console = Console(quiet=rank > 0)
    rows, length = next(v.shape for v in graph.data if v.name == "tok")
    text = np.frombuffer(path.read_bytes(), np.uint8).astype(np.int64)
    if len(text) <= length + 1:
        raise click.UsageError(f"{path} has {len(text)} bytes, and a sequence takes {length + 1}")
    with console.status("planning"):
        step = slpc.train_step(graph, optimizer, rate=rate, clip=clip or None, backend=backend, effort="quick",
                               recompute_budget=budget, device=device if backend == "torch" else None)
    if resume is not None:
        step.load(resume)
    console.print(f"{sum(v.type.size for v in graph.parameters):,} parameters; the step's peak beyond parameters and "
                  f"state: {human(step.plan.peak_bytes)}, with {step.plan.recompute_fraction:.0%} computed again")
    if measure:
        console.print(f"measured: {human(measuring.peak_bytes(step.plan, backend, device))}")
    losses: list[float] = []
    with suppress(KeyboardInterrupt), Progress(*COLUMNS, console=console) as bar:
        task = bar.add_task("", total=steps, completed=step.updates)
        ideal, began, first = ideal_seconds(graph, device_of(device)), time.perf_counter(), step.updates
        while step.updates < min(steps, stop or steps):
            at = step.updates
            step.rate = rate_at(at, steps, rate)
            losses.append(float(step(**batch(text, (rows, length), (at, rank)))))
            elapsed = (time.perf_counter() - began) / (step.updates - first)
            tokens = step.processes * rows * length / elapsed
            bar.update(task, completed=step.updates, description=(
                f"loss {losses[-1]:.3f}  {tokens:,.0f} tokens/s  MFU {ideal / elapsed:.1%}"))
            if log is not None and not rank:
                with log.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"step": at, "loss": losses[-1]}) + "\n")
    if rank:
        return
    step.save(save)
    if losses:
        console.print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps")
        picture = save.with_suffix(".png")
        if curve(losses, step.updates - len(losses), picture):
            console.print(f"{picture}: the losses")
    console.print(f"{save}: parameters and state after {step.updates} updates")


if __name__ == "__main__":
    try:
        main()
    except slpc.SlpError as error:
        raise SystemExit(str(error)) from None

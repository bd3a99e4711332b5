"""Value and gradient of tensor programs on the CPU, side by side: native loops, NumPy, torch eager, torch.compile.

    python benchmarks/tensor_cpu.py [--threads 2] [--compile] [NAME ...]

Calls take turns, so that what else the machine does meets all of them; medians, in ms, and ratios to native code. Each
backend of ours writes into given arrays. The arena is what a call takes beside its inputs, outputs included. torch runs
tests/references.py, written by hand as its users would.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SIZES: dict[str, list[dict[str, int]]] = {
    "mlp": [{}, {"L": 32}, {"L": 8, "d": 512, "m": 4096}],
    "attention": [{}, {"T": 1024}],
    "softmax_attention": [{}],
    "transformer": [{}, {"L": 4, "d": 128, "H": 4, "B": 1, "T": 256, "V": 1024},
                    {"L": 8, "d": 512, "H": 8, "B": 1, "T": 1024, "V": 8192}],
}


def medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of each call, after two that are not counted."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn > 1:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def by_torch(name: str, graph: Any, inputs: dict[str, Any], constants: dict[str, int],
             compiled: bool) -> Callable[[], Any]:
    """A call of torch's program and its backward pass."""
    import inspect

    import torch
    from references import REFERENCES

    given = {k: torch.tensor(v) for k, v in inputs.items()}
    parameters = [given[v.name].requires_grad_() for v in graph.parameters]
    accepted = inspect.signature(REFERENCES[name]).parameters
    program = lambda: REFERENCES[name](given, **{k: v for k, v in constants.items() if k in accepted})[0]  # noqa: E731
    run = torch.compile(program) if compiled else program
    return lambda: torch.autograd.grad(run(), parameters, allow_unused=True)


def measure(name: str, constants: dict[str, int], compiled: bool, rounds: int) -> str:
    """One row of the table."""
    import slpc
    from slpc import samples
    from slpc.backends.llvm_backend import TARGET
    from slpc.passes.arena import place
    from slpc.passes.inlining import inlined

    graph = slpc.load(str(ROOT / "programs" / f"{name}.slp"), **constants)
    inputs = samples.draw(graph, 0)
    calls: dict[str, Callable[[], Any]] = {}
    for backend in ("llvm", "numpy"):
        f = slpc.compile(graph, grad=True, backend=backend)
        calls[backend] = partial(f, **inputs, out=f.buffers())
        if backend == "llvm":
            arena = place(f.graph, TARGET, inlined(f.graph, TARGET)).size
    calls["torch"] = by_torch(name, graph, inputs, constants, False)
    if compiled:
        calls["torch.compile"] = by_torch(name, graph, inputs, constants, True)
    found = medians(calls, rounds)
    shown = ", ".join(f"{k}={v}" for k, v in constants.items())
    own = found.pop("llvm")
    cells = [f"{own:.3g}", *(f"{other:.3g} ({other / own:.2f}x)" for other in found.values())]
    return f"| {name} {shown} | {' | '.join(cells)} | {arena / 1e6:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes, and a C++ compiler")
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(options.threads)
    sys.path.insert(0, str(ROOT / "tests"))
    print(f"| ms, {options.threads} threads | llvm | numpy | torch |{' torch.compile |' * options.compile} arena, MB |")
    print("|---" * (5 + options.compile) + "|")
    for name in options.names or SIZES:
        for constants in SIZES[name]:
            print(measure(name, constants, options.compile, options.rounds), flush=True)


if __name__ == "__main__":
    main()

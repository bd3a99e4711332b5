"""Peak memory of value and gradient: plans of slpc, their lower bounds, the textbook's choices, and torch.

    python benchmarks/memory.py                     # every section of docs/memory-table.md, in an hour or so
    python benchmarks/memory.py mlp-32 programs     # these sections; the others stay as they are
    python benchmarks/memory.py mlp-32 --no-torch   # with torch's rows as they are

Everything is bytes alive at once beyond parameters and inputs, gradients included. What slpc plans is what a first call
takes (tests hold the two together), and where a section says so it is measured here by `tracemalloc`. torch's figures
are what its CPU allocator has alive at most, from the memory events of its profiler, in a run after one that compiles.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

if TYPE_CHECKING:
    from slpc.passes.checkpoint import Plan

PAGE = ROOT / "docs" / "memory-table.md"
BUDGETS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
MIB = 1 << 20


class Case(NamedTuple):
    """A program at a size. `torch`: nothing, "eager" (with and without checkpoints), or "compiled" as well."""

    title: str
    program: str
    sizes: dict[str, int]
    torch: str = ""
    measure: bool = False
    effort: str = "default"
    fused: bool = False


CASES = {
    "mlp-32": Case("MLP: 32 layers of 64, 64 samples", "mlp", {"L": 32, "d": 64, "m": 64}, "compiled", True),
    "mlp-8": Case("MLP: 8 layers of 512, 4096 samples", "mlp", {"L": 8, "d": 512, "m": 4096}, "compiled", True),
    "mlp-100": Case("MLP: 100 layers of 512, 4096 samples", "mlp", {"L": 100, "d": 512, "m": 4096}),
    "lstm-100": Case("LSTM: 100 steps, 64 sequences, width 128", "lstm", {"T": 100, "B": 64, "d": 64, "n": 128},
                     "eager", True),
    "transformer-4": Case("Transformer: L 4, d 128, H 4, T 256, V 1024", "transformer",
                          {"L": 4, "d": 128, "H": 4, "B": 1, "T": 256, "V": 1024}, "compiled", True),
    "transformer-12": Case("Transformer: L 12, d 512, H 8, T 1024, V 8192", "transformer",
                           {"L": 12, "d": 512, "H": 8, "B": 1, "T": 1024, "V": 8192}, "eager"),
    "transformer-12-fused": Case("Transformer: L 12, d 512, H 8, T 1024, V 8192, in regions", "transformer",
                                 {"L": 12, "d": 512, "H": 8, "B": 1, "T": 1024, "V": 8192}, fused=True),
    "transformer-48": Case("Transformer: L 48, d 512, H 8, T 1024, V 8192", "transformer",
                           {"L": 48, "d": 512, "H": 8, "B": 1, "T": 1024, "V": 8192}),
}
WHOLE = "programs"
"""The section of every program in programs/ at the size that it has there."""

INTRODUCTION = """\
# Peak memory, measured

By `benchmarks/memory.py`. MiB alive at once beyond parameters and inputs, gradients included; f32. A column is a
recomputation budget, the flops that may be spent again as a fraction of the forward pass's. "-": a choice that needs
more than that. The lower bound holds for every order that keeps the budget; its gap stands beside it. Seconds are of
one core, for all six budgets.
`torch.utils.checkpoint` is put around each layer and runs each once more, so it stands under 1. torch.compile's column
is what its `activation_memory_budget` is set to, which is a fraction of the bytes that it would save for the backward
pass and not of flops: 1 saves all of them. What it all means is said in [memory.md](memory.md).
"""


# One section ---------------------------------------------------------------------------------------------------

def section(case: Case, with_torch: bool) -> str:
    """The table of one case."""
    import slpc
    from slpc import measuring

    graph = slpc.adjoint(slpc.load(ROOT / "programs" / f"{case.program}.slp", **case.sizes), fused=case.fused)
    clock = [time.process_time()]
    plans = slpc.curve(graph, BUDGETS, effort=case.effort)
    for stage in ("placement", "bound"):
        clock.append(time.process_time())
        for found in plans:
            getattr(found, stage)
    clock.append(time.process_time())
    planned, placed, bounded = (after - before for before, after in pairwise(clock))
    rows = [["", *(f"{b:g}" for b in BUDGETS)], ["---"] + ["---:"] * len(BUDGETS),
            ["**slpc**", *(f"**{_mib(p.peak_bytes)}**" for p in plans)]]
    if case.measure:
        rows.append(["slpc, measured", *(_mib(measuring.peak_bytes(p)) for p in plans)])
    rows.append(["lower bound", *map(_bound, plans)])
    for mark in plans[0].marks:
        rows.append([mark.name, *(_mib(mark.peak_bytes) if mark.recompute_fraction <= b else "-" for b in BUDGETS)])
    if case.torch and with_torch:
        rows += _torch_rows(case)
    elif case.torch:
        rows += [line.strip("| ").split(" | ") for line in sections().get(f"## {case.title}", "").splitlines()
                 if line.startswith("| torch")]
    said = (f"{len(graph.nodes):,} operations; plans in {planned:.0f} s, arenas in {placed:.0f} s, "
            f"bounds in {bounded:.0f} s.")
    return "\n".join([f"## {case.title}\n", said + "\n", *map(_line, rows)]) + "\n"


def _bound(plan: Plan) -> str:
    return _mib(plan.lower_bound_bytes) + (" (0)" if plan.proven else f" ({100 * plan.gap:.1f}%)")


def _torch_rows(case: Case) -> list[list[str]]:
    command = [sys.executable, __file__, "--child", case.program, json.dumps(case.sizes), case.torch]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int | None] = json.loads(done.stdout.splitlines()[-1])

    def cell(name: str) -> str:
        peak = found.get(name)
        return _mib(peak) if peak is not None else "-"

    rows = [["torch", *[cell("torch eager")] * len(BUDGETS)],
            ["torch, checkpoint a layer", *["-"] * (len(BUDGETS) - 1), cell("torch checkpoint")]]
    if case.torch == "compiled":
        rows.append(["torch.compile, its own budget", *(cell(f"torch.compile {b:g}") for b in BUDGETS)])
    return rows


def child(program: str, sizes: dict[str, int], how: str) -> dict[str, int | None]:
    """torch's peaks, in this process, of a program that has been found to compute the same."""
    import torch
    import torch_programs

    import slpc
    from slpc import samples

    graph = slpc.load(ROOT / "programs" / f"{program}.slp", **sizes)
    drawn = samples.draw(graph)
    expected = float(slpc.compile(graph)(**drawn))
    inputs = {name: torch.as_tensor(x) for name, x in drawn.items()}
    loss = float(torch_programs.loss(program, inputs, sizes))
    assert abs(loss - expected) < 1e-4 * max(1.0, abs(expected)), (loss, expected)
    return torch_programs.peaks(program, inputs, [v.name for v in graph.parameters], sizes, how == "compiled")


def whole() -> str:
    """Every program at its own size: the peak, and beside it the gap to the bound, budget by budget."""
    import slpc

    rows = [["program", "kept", *(f"{b:g}" for b in BUDGETS)], ["---"] + ["---:"] * (len(BUDGETS) + 1)]
    for file in sorted((ROOT / "programs").glob("*.slp")):
        plans = slpc.curve(slpc.adjoint(slpc.load(file)), BUDGETS)
        cells = [f"{p.peak_bytes:,} ({100 * p.gap:.1f}%)" for p in plans]
        rows.append([file.stem, f"{plans[0].keep_all_bytes:,}", *cells])
        print(file.stem, flush=True)
    said = "Bytes, and the gap to the lower bound. Kept: everything, in the order of the text."
    return "\n".join(["## The programs in programs/, at the sizes that they have there\n", said + "\n",
                      *map(_line, rows)]) + "\n"


def _mib(bytes_: int) -> str:
    return f"{bytes_ / MIB:.3g}" if bytes_ < 1000 * MIB else f"{bytes_ / MIB:.0f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# The page ------------------------------------------------------------------------------------------------------

def sections() -> dict[str, str]:
    """The sections of the page as it is, by their headings."""
    text = PAGE.read_text("utf-8") if PAGE.exists() else ""
    return {s.split("\n", 1)[0]: s for s in re.split(r"(?m)^(?=## )", text) if s.startswith("## ")}


def write(text: str) -> None:
    """Put a section into the page, in the place of the one that it had."""
    found = sections() | {text.split("\n", 1)[0]: text}
    order = [f"## {case.title}" for case in CASES.values()]
    ranked = sorted(found, key=lambda title: order.index(title) if title in order else len(order))
    PAGE.write_text(INTRODUCTION + "\n" + "\n".join(found[title].rstrip("\n") + "\n" for title in ranked), "utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("sections", nargs="*", default=[*CASES, WHOLE], metavar="SECTION")
    options.add_argument("--no-torch", action="store_true")
    options.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        program, sizes, how = given.child
        found: dict[str, Any] = child(program, json.loads(sizes), how)
        print(json.dumps(found))
        return
    for name in given.sections:
        print(name, platform.machine(), flush=True)
        write(whole() if name == WHOLE else section(CASES[name], not given.no_torch))


if __name__ == "__main__":
    main()

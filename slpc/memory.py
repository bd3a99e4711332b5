"""How much memory a program needs and how much there is: asked before anything is allocated."""

from __future__ import annotations

import linecache
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from .ir.diagnostics import Diagnostic, SlpError
from .ir.donation import donations
from .ir.graph import Graph, Value, buffer
from .ir.show import dying

_SMALL = 1 << 26


@cache
def machine_bytes() -> int | None:
    """Bytes of memory that this process may have: the machine's, or its control group's; None where unknown."""
    known = []
    with suppress(AttributeError, OSError, ValueError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(known, default=None)


def peak_bytes(graph: Graph) -> int:
    """Most bytes alive at once in schedule order, inputs counted throughout, views and donated outputs at nothing."""
    live = peak = sum(v.type.bytes for v in graph.inputs)
    dead = dying(graph)
    over = {buffer(v) for v in donations(graph)}
    for at, node in enumerate(graph.nodes):
        live += 0 if node.op.view else sum(v.type.bytes for v in node.results if v not in over)
        peak = max(peak, live)
        live -= sum(v.type.bytes for v in dead.get(at, ()) if v.node is not None and not v.node.op.view)
    return peak


def check(graph: Graph, points: int = 1) -> None:
    """SlpError E0408 if the program, run on `points` points at once, needs more memory than the machine has."""
    there = machine_bytes()
    if there is None:
        return
    everything = points * sum(v.type.bytes for v in graph.values())
    if everything <= max(_SMALL, there // 2):
        return
    needed = points * peak_bytes(graph)
    if needed > there:
        largest = max(graph.values(), key=lambda v: v.type.bytes)
        raise SlpError(Diagnostic(
            "E0408", f"{graph.name} needs {human(needed)} of memory and the machine has {human(there)}",
            f"the largest value is {largest.name}: {largest.type}, {human(points * largest.type.bytes)}; "
            "make its sizes smaller, for example with -D", graph.file, largest.span, source_line(graph, largest)))


def source_line(graph: Graph, value: Value) -> str:
    """The line of the program's file that a value comes from; empty where it cannot be read."""
    return linecache.getline(graph.file, value.span.line).rstrip("\n") if value.span is not None else ""


def human(count: int) -> str:
    """Bytes in the largest binary unit below them: `1.5 MiB`."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"

"""A memory plan in words: what it takes, its timeline as a bar of text, what is alive at the peak, and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from . import report
from .ir.graph import Value
from .memory import human
from .passes.block_sizes import Blocking
from .passes.checkpoint import Plan
from .passes.cost import RegionCost
from .units import decimal

WIDTH = 72
"""Columns of the bar."""
LARGEST = 5
_BLOCKS = " ▁▂▃▄▅▆▇█"
_LETTERS = " .:-=+*#@"


class Alive(NamedTuple):
    """A copy that is alive at some step: its value, bytes, how often that value has been computed before, and from
    which step to which it lives."""

    value: Value
    bytes: int
    run: int
    start: int
    end: int

    @property
    def name(self) -> str:
        """Its name in the plan's program: `x`, `x_r1`, ..."""
        return f"{self.value.name}_r{self.run}" if self.run else self.value.name


def alive_at(plan: Plan, step: int) -> list[Alive]:
    """The copies alive at a step, the largest first. One that is being taken over in place is left to its heir."""
    tasks, lives = plan.tasks, plan.lives
    found, runs = [], [0] * len(tasks.values)
    for copy, b in enumerate(lives.buffer):
        start, end = lives.start[copy], lives.end[copy]
        if start <= step <= end and not (lives.heir[copy] >= 0 and end == step):
            found.append(Alive(tasks.values[b], tasks.bytes[b], runs[b], start, end))
        runs[b] += 1
    return sorted(found, key=lambda a: (-a.bytes, a.start))


def place(value: Value) -> str:
    """The line that a value stands in, or nothing."""
    return f"line {value.span.line}" if value.span is not None else ""


# As text -------------------------------------------------------------------------------------------------------

def show(plan: Plan, measured: int | None = None) -> None:
    """Everything that `slpc plan` says of one plan."""
    report.table([report.faint(what), said] for what, said in _facts(plan, measured))
    if not plan.order:
        return
    report.result("")
    step = plan.lives.peak_step
    for line in bar(plan.timeline, step):
        report.result(line)
    node = plan.tasks.nodes[plan.order[step]]
    report.result(f"\n{human(plan.timeline[step])} alive at step {step + 1}, which computes "
                  f"{report.name(node.result.name)} {report.faint(_at(node.result))}")
    report.table(_peak_rows(plan, step))


def _facts(plan: Plan, measured: int | None) -> Iterable[tuple[str, str]]:
    yield "peak", f"{human(plan.peak_bytes)} beyond the inputs; {human(plan.keep_all_bytes)} with everything kept"
    if human(plan.peak_bytes) != human(plan.lives.peak):
        yield "", f"{human(plan.lives.peak)} of it alive at once; the rest is lost between values in the arena"
    if measured is not None:
        yield "measured", f"{human(measured)} in a first call"
    if plan.proven:
        yield "bound", f"proven: {_scope(plan)} takes less"
    else:
        yield "bound", f"{human(plan.lower_bound_bytes)}, gap {plan.gap:.1%}: {_scope(plan)} takes less than that"
    again = plan.recompute_fraction
    yield "again", (f"{decimal(plan.recompute_flops, 'flop')}, {again:.1%} of the forward pass's "
                    f"{decimal(plan.forward_flops, 'flop')}" if plan.recompute_flops else "nothing is computed again")
    if plan.region_flops:
        yield "", f"{decimal(plan.region_flops, 'flop')} more inside regions"
    inputs = plan.tasks.graph.inputs
    if plan.masked:
        yield "masks", masks(plan.masked)
    if plan.regions:
        yield "regions", plan.regions
    smaller = [b for b in plan.blocks if b.smaller]
    for at, each in enumerate(smaller[:LARGEST]):
        yield "" if at else "blocks", f"{each.region}: {blocking(each)}"
    if len(smaller) > LARGEST:
        yield "", f"{len(smaller) - LARGEST} other regions by smaller blocks too"
    if plan.wire_bytes:
        yield "wire", f"{human(plan.wire_bytes)} from each process to the others"
    yield "inputs", f"{human(sum(v.type.bytes for v in inputs))}, not counted in the peak"
    yield "found by", f"{plan.found_by}, in {plan.seconds:.1f} s"


def blocking(chosen: Blocking) -> str:
    """By what blocks a region runs, and why."""
    by = f"by {_rows(chosen.size)}, {human(chosen.workspace)}"
    if not chosen.smaller:
        return f"{by}, which suits the caches and fits beside what is alive"
    return (f"{by}; {_rows(chosen.suited)} would suit the caches, but the {human(chosen.suited_workspace)} that they "
            "need are not free beside what is alive")


def masks(found: Sequence[RegionCost]) -> str:
    """What masks that compare positions cut in regions."""
    done, whole = sum(r.flops for r in found), sum(r.whole for r in found)
    return f"leave out {1 - done / whole:.1%} of the {decimal(whole, 'flop')} of {', '.join(r.region for r in found)}"


def _rows(size: Sequence[int]) -> str:
    """The size of a block; leading axes of which it has one are left out."""
    first = next((k for k, n in enumerate(size[:-1]) if n > 1), len(size) - 1)
    return " x ".join(map(str, size[first:])) + f" row{'s' if size[-1] != 1 else ''}"


def _scope(plan: Plan) -> str:
    if plan.budget is None:
        return "no order that computes as little again"
    return "no order within the budget" if plan.budget else "no order that computes nothing again"


def bar(timeline: Sequence[int], peak_step: int, width: int = WIDTH) -> list[str]:
    """The bytes alive over time as one line of blocks, and a line that points at the peak. A column is the most of its
    steps."""
    most, steps = max(timeline), len(timeline)
    width = min(width, steps)
    columns = [max(timeline[c * steps // width:max((c + 1) * steps // width, c * steps // width + 1)])
               for c in range(width)]
    marks = _BLOCKS if _unicode() else _LETTERS
    top = len(marks) - 1
    blocks = "".join(marks[-(-value * top // most) if most else 0] for value in columns)
    at = next(c for c in range(width) if c * steps // width <= peak_step < max((c + 1) * steps // width, 1))
    arrow = "▲" if _unicode() else "^"
    said = f"peak, step {peak_step + 1} of {steps}"
    pointer = f"{' ' * at}{arrow} {said}" if at < WIDTH // 2 else f"{said} {arrow}".rjust(at + 1)
    return [blocks, pointer]


def _unicode() -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        (_BLOCKS + "▲").encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _peak_rows(plan: Plan, step: int) -> list[list[str]]:
    total = plan.timeline[step] or 1
    found = alive_at(plan, step)
    rows = [[f"  {human(a.bytes)}", f"{a.bytes / total:.0%}", report.name(a.name), str(a.value.type),
             report.faint(place(a.value))] for a in found[:LARGEST]]
    workspace = plan.tasks.workspace[plan.order[step]]
    if workspace:
        rows.append([f"  {human(workspace)}", f"{workspace / total:.0%}", "workspace of this step", "", ""])
    rest = found[LARGEST:]
    if rest:
        bytes_ = sum(a.bytes for a in rest)
        rows.append([f"  {human(bytes_)}", f"{bytes_ / total:.0%}", f"{len(rest)} others", "", ""])
    return rows


def _at(value: Value) -> str:
    return f"({place(value)})" if value.span is not None else ""


def show_marks(plan: Plan) -> None:
    """The textbook choices on the same graph."""
    if plan.marks:
        report.result("\n" + report.faint("the textbook's choices on this graph"))
        report.table([f"  {mark.name}", human(mark.peak_bytes), f"{mark.recompute_fraction:.1%} again"]
                     for mark in plan.marks)


def show_curve(plans: Sequence[Plan]) -> None:
    """Peak against budget, a row for each."""
    rows = [[report.faint(cell) for cell in ("budget", "peak", "bound", "gap", "computed again")]]
    rows += [[f"{plan.budget:g}", human(plan.peak_bytes), human(plan.lower_bound_bytes),
              "proven" if plan.proven else f"{plan.gap:.1%}", f"{plan.recompute_fraction:.1%}"] for plan in plans]
    report.table(rows)


def show_outlook(plans: Sequence[Plan]) -> None:
    """Peak against budget without the bounds, which take longer than the plans."""
    rows = [[report.faint(cell) for cell in ("budget", "peak", "computed again")]]
    rows += [[f"{plan.budget:g}", human(plan.peak_bytes), f"{plan.recompute_fraction:.1%}"] for plan in plans]
    report.table(rows)


# As JSON -------------------------------------------------------------------------------------------------------

def as_json(plan: Plan, measured: int | None = None) -> dict[str, Any]:
    """The stable fields of `slpc plan --json`; bytes, flops and seconds. `measured_bytes` is null unless measured."""
    peak = alive_at(plan, plan.lives.peak_step) if plan.order else []
    return {
        "program": plan.tasks.graph.name,
        "peak_bytes": plan.peak_bytes, "measured_bytes": measured, "lower_bound_bytes": plan.lower_bound_bytes,
        "gap": plan.gap, "proven": plan.proven, "keep_all_bytes": plan.keep_all_bytes,
        "input_bytes": sum(v.type.bytes for v in plan.tasks.graph.inputs),
        "recompute_flops": plan.recompute_flops, "forward_flops": plan.forward_flops,
        "recompute_fraction": plan.recompute_fraction, "region_flops": plan.region_flops,
        "wire_bytes": plan.wire_bytes,
        "budget": plan.budget, "memory_limit": plan.memory_limit, "policy": plan.policy,
        "regions": plan.regions or None,
        "masked": [{"region": r.region, "flops": r.flops, "whole_flops": r.whole} for r in plan.masked],
        "blocks": [{"region": b.region, "rows": list(b.size), "workspace_bytes": b.workspace,
                    "suited_rows": list(b.suited), "suited_bytes": b.suited_workspace} for b in plan.blocks],
        "kept": list(plan.kept), "steps": len(plan.order), "found_by": plan.found_by, "seconds": plan.seconds,
        "peak_step": plan.lives.peak_step + 1 if plan.order else 0,
        "alive_at_peak": [{"name": a.name, "bytes": a.bytes, "type": str(a.value.type),
                           "line": a.value.span.line if a.value.span is not None else None} for a in peak],
        "timeline": list(plan.timeline),
        "marks": [{"name": mark.name, "peak_bytes": mark.peak_bytes, "recompute_fraction": mark.recompute_fraction}
                  for mark in plan.marks],
    }

"""Why a plan keeps a value or computes it again: its lives, what they cost, and what else was possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from . import report
from .ir.diagnostics import Fault, near
from .ir.graph import Value, buffer
from .memory import human
from .passes.alternatives import computed_again, held
from .passes.checkpoint import Plan
from .passes.donation import settled
from .passes.liveness import lives
from .plan_report import blocking
from .units import decimal


@dataclass(frozen=True)
class Life:
    """One copy: its name in the plan's program, the steps from which to which it is alive (from 1), how many of the
    steps between read it, and whether it is alive at the peak."""

    name: str
    first: int
    last: int
    reads: int
    at_peak: bool


@dataclass(frozen=True)
class Alternative:
    """Another fate of the value: what it is, the peak with all else as it is, and the flops spent on top of the plan's
    (negative: saved). `allowed`: within the plan's budget or limit."""

    what: str
    peak_bytes: int
    extra_flops: int
    allowed: bool


@dataclass(frozen=True)
class Reason:
    """Everything that `slpc why` says of a value."""

    plan: Plan
    value: Value
    fate: str
    lives: tuple[Life, ...]
    flops: int
    operands: tuple[str, ...]
    alternative: Alternative | None
    stored: str = ""
    """Why a value that makes rows wide, as scores do, is stored whole and not computed by blocks of rows."""
    blocks: str = ""
    """Of what a region makes: by what blocks, and why by these."""

    def as_json(self) -> dict[str, Any]:
        """The stable fields of `slpc why --json`."""
        from dataclasses import asdict

        span = self.value.span
        return {"value": self.value.name, "type": str(self.value.type), "bytes": self.value.type.bytes,
                "line": span.line if span is not None else None, "fate": self.fate,
                "lives": [asdict(life) for life in self.lives], "flops": self.flops, "operands": list(self.operands),
                "steps": len(self.plan.order), "peak_bytes": self.plan.lives.peak,
                "peak_step": self.plan.lives.peak_step + 1 if self.plan.order else 0,
                "alternative": asdict(self.alternative) if self.alternative is not None else None,
                "not_fused": self.stored or None, "blocks": self.blocks or None}

    def show(self) -> None:
        """The same in words."""
        plan, value = self.plan, self.value
        where = f" (line {value.span.line})" if value.span is not None else ""
        report.result(f"{report.name(value.name)}: {value.type}, {human(value.type.bytes)}{where}: {self.fate}")
        if self.stored:
            report.result(f"  not fused: {self.stored}")
        if not self.lives:
            return
        share = self.flops / plan.forward_flops if plan.forward_flops else 0.0
        rows = [["computed", f"by {_operation(value)} of {', '.join(self.operands) or 'nothing'}: "
                             f"{decimal(self.flops, 'flop')}, {share:.2%} of the forward pass"]]
        if self.blocks:
            rows.append(["blocks", self.blocks])
        for life in self.lives:
            count = f"{life.reads} step{'s' if life.reads != 1 else ''}"
            alive = f"alive from step {life.first} to {life.last} of {len(plan.order)}, read by {count}"
            rows.append([life.name, alive + (", alive at the peak" if life.at_peak else "")])
        rows.append(["peak", f"{human(plan.lives.peak)} at step {plan.lives.peak_step + 1}"])
        if self.alternative is not None:
            rows.append(["instead", _instead(self.alternative, plan.lives.peak)])
        report.table([report.faint("  " + row[0]), row[1]] for row in rows)


def reason(plan: Plan, name: str, stopped: Mapping[str, str] = MappingProxyType({})) -> Reason:
    """What the plan does with the value of that name; Fault E0608 if the program has none. `x_r1` means `x`. `stopped`
    says by name why values were not fused (`passes.fuse.refusals`). The name of a region means what it makes first."""
    found = _reason(plan, name)
    made = buffer(found.value).node
    region = made.attributes["body"].name if made is not None and made.op.name == "region" else ""
    blocks = next((blocking(b) for b in plan.blocks if b.region == region), "")
    return replace(found, stored=stopped.get(found.value.name, ""), blocks=blocks)


def _reason(plan: Plan, name: str) -> Reason:
    graph = plan.tasks.graph
    known = {n.attributes["body"].name: n.results[0] for n in graph.nodes if n.op.name == "region"}
    known |= {v.name: v for v in graph.values()}
    value = known.get(name) or known.get(_without_run(name))
    if value is None:
        for body in graph.regions():
            for inside in body.values():
                if inside.name == name:
                    fate = f"within the region {body.name}: a block of its rows is there at a time, never the whole"
                    return Reason(plan, inside, fate, (), 0, (), None)
        raise Fault("E0608", f"there is no value '{name}'", near(name, known) or
                    "slpc opt FILE -p adjoint,simplify names all values")
    root = buffer(value)
    if root.node is None:
        what = "an input" if root is value else f"a view of the input {root.name}"
        return Reason(plan, value, f"{what}: it is there all the time, and not counted", (), 0, (), None)
    if root is not value:
        below = _reason(plan, root.name)
        return Reason(plan, value, f"a view of {root.name}, which is {below.fate}", below.lives, below.flops,
                      below.operands, below.alternative)
    return _of_buffer(plan, value)


def _of_buffer(plan: Plan, value: Value) -> Reason:
    tasks, alive = plan.tasks, plan.lives
    b = tasks.values.index(value)
    task = tasks.writer[b]
    copies = [copy for copy, other in enumerate(alive.buffer) if other == b]
    found = tuple(_life(plan, copy, run) for run, copy in enumerate(copies))
    operands = tuple(dict.fromkeys(v.name for v in tasks.nodes[task].operands if v.name))
    flops = tasks.flops[task]
    if len(copies) > 1:
        again = "once" if len(copies) == 2 else f"{len(copies) - 1} times"
        other = _alternative(plan, "held", [held(tasks, plan.order, task)])
        return Reason(plan, value, f"computed again {again}", found, flops, operands, other)
    other = _alternative(plan, "computed again", computed_again(tasks, alive, copies[0]))
    return Reason(plan, value, _fate(plan, b), found, flops, operands, other)


def _fate(plan: Plan, b: int) -> str:
    """Of a buffer that is computed once."""
    tasks = plan.tasks
    if tasks.output[b]:
        return "an output, kept to the end"
    if tasks.forward[tasks.writer[b]] and any(not tasks.forward[r] for r in tasks.readers[b]):
        return "kept for the backward pass"
    return "computed once, and given back after its last read"


def _life(plan: Plan, copy: int, run: int) -> Life:
    alive, tasks = plan.lives, plan.tasks
    b, start, end = alive.buffer[copy], alive.start[copy], alive.end[copy]
    reads = sum(b in tasks.reads[plan.order[s]] for s in range(start + 1, end + 1))
    name = tasks.values[b].name
    return Life(f"{name}_r{run}" if run else name, start + 1, end + 1, reads, start <= alive.peak_step <= end)


def _alternative(plan: Plan, what: str, orders: Sequence[Sequence[int]]) -> Alternative | None:
    """The order of the least peak among those that are possible."""
    tasks = plan.tasks
    possible = [order for order in (settled(tasks, order) for order in orders) if order is not None]
    if not possible:
        return None
    peak, extra = min((lives(tasks, order).peak, sum(tasks.flops[t] for t in order)) for order in possible)
    extra -= sum(tasks.flops[t] for t in plan.order)
    spent = plan.recompute_flops + extra
    within = plan.budget is None or spent <= plan.budget * plan.forward_flops
    fits = plan.memory_limit is None or peak <= plan.memory_limit
    return Alternative(what, peak, extra, within and fits)


def _instead(other: Alternative, peak: int) -> str:
    if other.peak_bytes == peak:
        effect = f"the peak would stay at {human(peak)}"
    else:
        verb = "rise" if other.peak_bytes > peak else "fall"
        effect = f"the peak would {verb} by {human(abs(other.peak_bytes - peak))} to {human(other.peak_bytes)}"
    flops = f"{decimal(abs(other.extra_flops), 'flop')} {'more' if other.extra_flops >= 0 else 'less'}"
    return f"{other.what}: {effect}, with {flops}" + ("" if other.allowed else "; the plan may not spend that")


def _operation(value: Value) -> str:
    return value.node.op.name if value.node is not None else ""


def _without_run(name: str) -> str:
    stem, mark, number = name.rpartition("_r")
    return stem if mark and number.isdigit() else name

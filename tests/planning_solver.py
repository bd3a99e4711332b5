"""Least peaks of small programs by constraint programming.

Each task may run several times; each copy of a buffer is retained over an interval; the peak is the capacity of a
cumulative constraint over all intervals (Bartan and others 2023, "Moccasin", on a fixed order; here the order is free).
Two runs may have the same time: one after the other they need no more memory than that, so nothing keeps them apart.
The solver is CP-SAT of Google OR-tools, with effort counted in its deterministic time: the same plan every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from slpc.ir.diagnostics import Fault
from slpc.passes.bounds import allowed_flops, lower_bound
from slpc.passes.contract import contract
from slpc.passes.donation import settled
from slpc.passes.exact import ExactPlan
from slpc.passes.liveness import lives
from slpc.passes.tasks import Tasks

EFFORT = {"quick": 5.0, "default": 40.0, "proof": 400.0}
"""Deterministic time: about the seconds that one core takes."""
RUNS = {"quick": 80, "default": 160, "proof": 320}
"""All tasks together run at most so often, and each at least twice. A plan is called proven only where more could not
help."""


def exact(tasks: Tasks, budget: float, *, effort: str = "default", hint: Sequence[int] | None = None) -> ExactPlan:
    """The order of least peak whose repeats cost at most `budget` times the forward flops, or the best found.

    `hint` is an order within the budget that the search starts from; the result is never worse. Ctrl-C ends the search
    with the best found so far. Raises Fault E0411 where OR-tools is not installed.
    """
    start = tuple(hint) if hint is not None else tasks.order
    peak = lives(tasks, start).peak
    bound = lower_bound(tasks, budget, "quick" if effort == "quick" else "default", enough=peak).bytes
    if bound >= peak:
        return ExactPlan(start, peak, bound)
    contracted = contract(tasks)
    allowed = allowed_flops(tasks, budget)
    model = _Model(contracted.tasks, allowed, RUNS[effort], contracted.contract(start))
    order, reached = model.solve(EFFORT[effort], bound)
    order = tuple(settled(tasks, contracted.expand(order)) or start)
    found = lives(tasks, order).peak
    if model.complete:
        bound = max(bound, min(reached, found))
    return ExactPlan(order, found, bound) if found <= peak else ExactPlan(start, peak, bound)


def run_limits(tasks: Tasks, allowed: int) -> list[int]:
    """How often each task can run in a schedule without useless runs: once more than the budget pays for, and once for
    each run of what reads it; once where its results stay."""
    limits = [1] * len(tasks.nodes)
    for task in reversed(range(len(limits))):
        if all(tasks.output[b] for b in tasks.writes[task]):
            continue
        readers = sum(limits[reader] for b in tasks.writes[task] for reader in tasks.readers[b])
        paid = 1 + allowed // tasks.flops[task] if tasks.flops[task] else readers
        limits[task] = max(1, min(readers, paid))
    return limits


def _within(limits: Sequence[int], total: int) -> list[int]:
    """The limits cut to the highest number for which they are no more than `total` in all, but not below 2."""
    most = 2
    while most < max(limits) and sum(min(limit, most + 1) for limit in limits) <= total:
        most += 1
    return [min(limit, most) for limit in limits]


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of a task: whether it takes place and when, and up to when each of its results is retained."""

    task: int
    present: Any
    start: Any
    ends: dict[int, Any] = field(default_factory=dict)


class _Model:
    """The constraint model over runs and retention intervals."""

    def __init__(self, tasks: Tasks, allowed: int, most: int, start: Sequence[int]) -> None:
        if find_spec("ortools") is None:
            raise Fault("E0411", "exact plans need OR-tools", "pip install 'slpc[plan]'")
        from ortools.sat.python import cp_model

        self.tasks, self.start = tasks, start
        self.model = cp_model.CpModel()
        self.unit = math.gcd(*tasks.bytes, *tasks.workspace) or 1
        needed = run_limits(tasks, allowed)
        used = [start.count(task) for task in range(len(needed))]
        limits = [max(n, u) for n, u in zip(_within(needed, most), used, strict=True)]
        self.complete = all(limit >= n for limit, n in zip(limits, needed, strict=True))
        self.horizon = sum(limits)
        self.runs = [[self._run(task, k) for k in range(limit)] for task, limit in enumerate(limits)]
        self.chosen: dict[tuple[int, int, int, int], Any] = {}  # task, its run, buffer, the copy that it reads
        self.handed: dict[tuple[int, int, int, int], Any] = {}
        for task in range(len(needed)):
            for k in range(limits[task]):
                self._read(task, k)
        self._hand_over_once()
        self._capacity()
        repeats = [(run.present, tasks.flops[run.task]) for runs in self.runs for run in runs[1:]]
        self.model.add(sum(present * flops for present, flops in repeats) <= allowed)

    def _run(self, task: int, k: int) -> _Run:
        model, tasks = self.model, self.tasks
        present = model.new_constant(1) if k == 0 else model.new_bool_var(f"run {task}.{k}")
        run = _Run(task, present, model.new_int_var(0, self.horizon - 1, f"start {task}.{k}"))
        for b in tasks.writes[task]:
            low = self.horizon if tasks.output[b] else 1
            run.ends[b] = model.new_int_var(low, self.horizon, f"end {b}.{k}")
        return run

    def _read(self, task: int, k: int) -> None:
        """Every operand is the copy of one run before, which is retained to this one."""
        model, tasks, run = self.model, self.tasks, self.runs[task][k]
        if k:
            before = self.runs[task][k - 1]
            model.add_implication(run.present, before.present)
            model.add(run.start >= before.start + 1)
            for end in before.ends.values():
                model.add(run.start >= end + 1).only_enforce_if(run.present)  # right after, it would be kept
        for b in tasks.reads[task]:
            copies = self.runs[tasks.writer[b]]
            model.add(run.start >= copies[0].start + 1)
            choice = [run.present] if len(copies) == 1 else [
                model.new_bool_var(f"{task}.{k} reads {b}.{c}") for c in range(len(copies))]
            if len(copies) > 1:
                model.add(sum(choice) == run.present)
            for c, (copy, reads) in enumerate(zip(copies, choice, strict=True)):
                model.add_implication(reads, copy.present)
                model.add(run.start >= copy.start + 1).only_enforce_if(reads)
                self.chosen[task, k, b, c] = reads
                if tasks.output[b]:
                    continue
                if not any(r == b for r, _, _ in tasks.hands_over[task]):
                    model.add(copy.ends[b] >= run.start + 1).only_enforce_if(reads)
                    continue
                handed = self.handed[task, k, b, c] = model.new_bool_var(f"{task}.{k} takes {b}.{c}")
                model.add_implication(handed, reads)
                model.add(copy.ends[b] == run.start).only_enforce_if(handed)
                model.add(copy.ends[b] >= run.start + 1).only_enforce_if(reads, ~handed)

    def _hand_over_once(self) -> None:
        """A place in a result lies over one operand, and the memory of a copy goes to one result."""
        places: dict[tuple[int, int, int, int], list[Any]] = {}
        copies: dict[tuple[int, int], list[Any]] = {}
        for (task, k, b, c), handed in self.handed.items():
            copies.setdefault((b, c), []).append(handed)
            for r, written, offset in dict.fromkeys(self.tasks.hands_over[task]):
                if r == b:
                    places.setdefault((task, k, written, offset), []).append(handed)
        for group in (*places.values(), *copies.values()):
            if len(group) > 1:
                self.model.add_at_most_one(group)

    def _capacity(self) -> None:
        """All that is retained at a time, and workspaces, fit into the peak."""
        model, tasks, unit = self.model, self.tasks, self.unit
        intervals, demands = [], []
        for runs in self.runs:
            for k, run in enumerate(runs):
                for b, end in run.ends.items():
                    length = model.new_int_var(1, self.horizon, f"length {b}.{k}")
                    intervals.append(model.new_optional_interval_var(run.start, length, end, run.present, f"{b}.{k}"))
                    demands.append(tasks.bytes[b] // unit)
                if tasks.workspace[run.task]:
                    intervals.append(model.new_optional_fixed_size_interval_var(run.start, 1, run.present, "workspace"))
                    demands.append(tasks.workspace[run.task] // unit)
        self.peak = model.new_int_var(0, lives(tasks, self.start).peak // unit, "peak")
        model.add_cumulative(intervals, demands, self.peak)
        model.minimize(self.peak)

    def solve(self, effort: float, bound: int) -> tuple[tuple[int, ...], int]:
        """The best order found and the bound proven, in bytes, on orders of so many runs."""
        from ortools.sat.python import cp_model

        self.model.add(self.peak >= bound // self.unit)
        self._hint()
        solver = cp_model.CpSolver()
        solver.parameters.max_deterministic_time = effort
        solver.parameters.random_seed = 0
        for name, value in PARAMETERS.items():
            setattr(solver.parameters, name, value)
        status = solver.solve(self.model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return tuple(self.start), bound
        steps = [(solver.value(run.start), run.task) for runs in self.runs for run in runs if solver.value(run.present)]
        return tuple(task for _, task in sorted(steps)), math.ceil(solver.best_objective_bound - 1e-6) * self.unit

    def _hint(self) -> None:
        tasks, known = self.tasks, lives(self.tasks, self.start)
        copies = iter(range(len(known.buffer)))
        count: dict[int, int] = {}
        for step, task in enumerate(self.start):
            k = count[task] = count.get(task, -1) + 1
            run = self.runs[task][k]
            self.model.add_hint(run.start, step)
            if k:
                self.model.add_hint(run.present, 1)
            for b in tasks.writes[task]:
                copy = next(copies)
                end = known.end[copy] + (known.heir[copy] < 0)
                self.model.add_hint(run.ends[b], self.horizon if tasks.output[b] else end)
            for b in tasks.reads[task]:
                latest = count[tasks.writer[b]]
                for c in range(len(self.runs[tasks.writer[b]])):
                    if len(self.runs[tasks.writer[b]]) > 1:
                        self.model.add_hint(self.chosen[task, k, b, c], c == latest)
        for task, runs in enumerate(self.runs):
            for run in runs[count.get(task, 0) + 1:]:
                self.model.add_hint(run.present, 0)


PARAMETERS: dict[str, Any] = {"num_workers": 1}

"""Lower bounds on peak memory: bytes that no schedule within a recomputation budget stays below.

Whatever the order, and however often and deeply values are computed again: the operation with the largest working set
must run; the outputs stay once they are made, so the last of them stands beside all others; and what is alive at the
first run of a well chosen operation is bounded by a linear programme (`passes.pivots`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise

from .contract import contract
from .liveness import lives
from .pivots import Programme, ancestors
from .tasks import Tasks

WORK = {"quick": 2e6, "default": 1e7, "proof": 1e8}
"""Work spent on one budget. A linear programme costs its columns to the power 1.5."""
PACE = 3e6
"""Work in a second."""
SEGMENTS = {"quick": 4, "default": 12, "proof": 40}
"""In so many parts of the program the largest working set is a candidate for a pivot."""
MOST_PIVOTS = 6
MOST_BUDGET = 1e6
"""What an infinite budget is taken for."""
WHOLE = 1200
"""Programmes of at most so many columns are solved in whole numbers, if OR-tools is there."""
SMALL = 100
"""Each task of a program of at most so many is a candidate for a pivot."""
LARGEST = 20_000
"""Programs with more tasks than that get the combinatorial bounds alone."""


@dataclass(frozen=True)
class Bound:
    """Bytes that no schedule stays below, why, and at which tasks. `hint` says how to get a better bound, or ""."""

    bytes: int
    reason: str
    tasks: tuple[int, ...] = ()
    hint: str = ""


def lower_bound(tasks: Tasks, budget: float, effort: str = "default", enough: int | None = None) -> Bound:
    """The best bound found for schedules whose repeats cost at most `budget` times the forward flops.

    `effort` is "quick", "default" or "proof". The search ends when `enough` bytes are reached: the peak of a plan is
    proven optimal then. The same answer every time.
    """
    return lower_bounds(tasks, [budget], effort, [enough])[0]


def lower_bounds(tasks: Tasks, budgets: Sequence[float], effort: str = "default",
                 enough: Sequence[int | None] | None = None) -> list[Bound]:
    """`lower_bound` at each budget. A bound of a larger budget holds at a smaller one, so more budget never has the
    larger bound."""
    simple = max(largest_working_set(tasks), last_output(tasks), key=lambda bound: bound.bytes)
    found = [simple] * len(budgets)
    if len(tasks.nodes) <= LARGEST and tasks.nodes:
        if find_spec("scipy") is None:
            hint = "pip install 'slpc[plan]' for a better bound"
            return [Bound(simple.bytes, simple.reason, simple.tasks, hint)] * len(budgets)
        contracted = contract(tasks)
        search = _Search(contracted.tasks, effort)
        for at, budget in enumerate(budgets):
            bound = search.best(budget, enough[at] if enough is not None else None)
            if bound.bytes > simple.bytes:
                found[at] = replace(bound, tasks=tuple(contracted.members[p][-1] for p in bound.tasks))
    order = sorted(range(len(budgets)), key=lambda at: -budgets[at])
    for larger, smaller in pairwise(order):
        if found[smaller].bytes < found[larger].bytes:
            found[smaller] = found[larger]
    return found


def allowed_flops(tasks: Tasks, budget: float) -> int:
    """What repeats may cost. A budget that is itself a quotient of flops is not rounded below them."""
    return math.floor(min(budget, MOST_BUDGET) * tasks.forward_flops * (1 + 1e-12) + 1e-9)


def working_set(tasks: Tasks, task: int) -> int:
    """Bytes alive while a task runs, whatever else is: operands, results and workspace, once where a result may take
    over an operand's memory."""
    saved: dict[tuple[int, int], int] = {}
    for read, written, offset in tasks.hands_over[task]:
        if not tasks.output[read]:
            saved[written, offset] = max(saved.get((written, offset), 0), tasks.bytes[read])
    touched = (*tasks.reads[task], *tasks.writes[task])
    return sum(tasks.bytes[b] for b in touched) + tasks.workspace[task] - sum(saved.values())


def largest_working_set(tasks: Tasks) -> Bound:
    """The most that a single task needs."""
    task = max(range(len(tasks.nodes)), key=lambda t: working_set(tasks, t), default=-1)
    return Bound(working_set(tasks, task), "largest working set", (task,)) if task >= 0 else Bound(0, "no operation")


def last_output(tasks: Tasks) -> Bound:
    """The last of any set of outputs to be made stands beside the others of the set, and beside what it is made from.

    The best set holds the outputs with the largest needs, so one pass in the order of these finds it.
    """
    needs = []
    for task in dict.fromkeys(tasks.writer[b] for b, output in enumerate(tasks.output) if output):
        made = sum(tasks.bytes[b] for b in tasks.writes[task] if tasks.output[b])
        held = sum(tasks.bytes[b] for b in tasks.reads[task] if tasks.output[b])
        needs.append((working_set(tasks, task) - made - held, made, task))
    total, best = 0, Bound(0, "outputs")
    for need, made, task in sorted(needs, key=lambda entry: (-entry[0], entry[2])):
        total += made
        if total + need > best.bytes:
            best = Bound(total + need, "outputs", (task,))
    return best


class _Search:
    """Pivots are added one at a time, as long as the bound grows and there is work left."""

    def __init__(self, tasks: Tasks, effort: str) -> None:
        self.tasks, self.work = tasks, WORK[effort]
        self.unit = math.gcd(*tasks.bytes, *tasks.workspace) or 1
        self.candidates = _candidates(tasks, SEGMENTS[effort])
        self.above = {p: ancestors(tasks, p) for p in self.candidates}
        self.singles: dict[int, Programme] = {}
        self.whole = find_spec("ortools") is not None

    def best(self, budget: float, goal: int | None) -> Bound:
        """The best bound of the programmes that were tried."""
        flops, left = allowed_flops(self.tasks, budget), self.work
        best = Bound(0, "no pivot")
        chosen: tuple[int, ...] = ()
        while len(chosen) < MOST_PIVOTS and left > 0:
            start = best.bytes
            for pivot in self.candidates:
                pivots = self._with(chosen, pivot)
                if not pivots or left <= 0:
                    continue
                reached, spent = self._solve(self._programme(pivots), flops)
                left -= spent
                if reached > best.bytes:
                    best = Bound(reached, f"alive at {len(pivots)} operation{'s' * (len(pivots) > 1)}", pivots)
                if goal is not None and reached >= goal:
                    return best
            if best.bytes <= start * 1.001:
                break
            chosen = best.tasks
        return best

    def _solve(self, programme: Programme, flops: int) -> tuple[int, float]:
        """The bound of one programme and the work that it took."""
        work = len(programme.pivots) * programme.columns ** 1.5
        if self.whole and programme.columns <= WHOLE:
            reached, time = programme.solve_whole(flops, 0.1 * self.work / WORK["quick"])
            work += time * PACE
        else:
            reached = programme.solve(flops)
        return self.round_up(reached), work

    def round_up(self, size: float) -> int:
        """Every peak is a multiple of the unit of all sizes."""
        return math.ceil(size / self.unit) * self.unit

    def _programme(self, pivots: tuple[int, ...]) -> Programme:
        if len(pivots) > 1:
            return Programme(self.tasks, pivots)
        if pivots[0] not in self.singles:
            self.singles[pivots[0]] = Programme(self.tasks, pivots)
        return self.singles[pivots[0]]

    def _with(self, chosen: tuple[int, ...], pivot: int) -> tuple[int, ...]:
        """The pivots and one more in their order, or none where it is not comparable with them."""
        if pivot in chosen:
            return ()
        after = [p for p in chosen if self.above[p][pivot]]
        before = [p for p in chosen if self.above[pivot][p]]
        return (*before, pivot, *after) if len(before) + len(after) == len(chosen) else ()


def _candidates(tasks: Tasks, segments: int) -> list[int]:
    """Each task of a small program; else the largest working set of each part of it, and its fullest step."""
    count = len(tasks.nodes)
    if count <= SMALL:
        return list(range(count))
    alive = lives(tasks, tasks.order).alive
    found = []
    for segment in range(segments):
        part = range(segment * count // segments, (segment + 1) * count // segments)
        found.append(max(part, key=lambda t: (working_set(tasks, t), alive[t])))
    found.append(max(range(count), key=lambda t: alive[t]))
    return list(dict.fromkeys(found))

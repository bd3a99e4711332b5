"""Checkpoint: the order of execution, with recomputation, that has the least peak memory within a budget of flops.

Several ways are tried and the best is kept: the textbook's choices, a dynamic programme over the chain of segments
(`passes.chain`), and local search from each of them (`passes.search`). What they find goes into one archive, a set of
orders that no other beats in flops and peak; a budget takes the best that it can pay for. The runs that fill the
archive depend on the budget through the rung of a ladder alone, so more budget never gives more memory.
"""

from __future__ import annotations

import fnmatch
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from ..ir.collectives import wire_bytes
from ..ir.diagnostics import Fault, near
from ..ir.graph import Graph
from ..ir.target import Target
from .arena import Placement, likely_size, place
from .block_sizes import Blocking, BlockSizes
from .bounds import Bound, lower_bound
from .chain import Programme
from .contract import contract
from .cost import RegionCost, regions
from .donation import settled
from .exact import exact
from .inlining import inlined
from .legalize import legalize
from .liveness import Lives, lives
from .overlap import overlapped
from .packing import CLOSE
from .policies import POLICIES
from .recompute import keeping
from .regions import computed_again_inside
from .schedule import scheduled
from .search import Search
from .segments import chains
from .tasks import Tasks, tasks

LADDER = (0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.33, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, math.inf)
"""Budgets at which the search is run; it fills the gaps with what it passes on the way."""

LARGE = 20_000
COARSE = (0.0, 0.5, math.inf)
"""A program of more tasks than LARGE has a coarse ladder, and is no chain if a segment of it is as large."""

FAR = 3
"""Keeping everything is a start of the search where its peak is less than so many times the best one."""

EFFORTS = {"quick": 1, "default": 2, "proof": 6}
"""Rounds of local search from each start, and how many of the chain's orders are starts."""
SOLVED = {"quick": 0, "default": 64, "proof": 100}
"""Programs of up to so many tasks are also given to the exact search (`passes.exact`). Those of so many after
contraction are given to it for their order alone, which takes it seconds."""
TRIES = 3
"""A plan whose arena does not fit into the memory is looked for so often within less."""
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Larger blocks take what is free beside them, or this share of it where an arena has no place for so much."""
ASKED = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, math.inf)
"""It is asked at the budget itself, and at those of these below it where that proves nothing; for a limit of memory, at
these rungs of the ladder."""


@dataclass(frozen=True)
class Mark:
    """A textbook choice on the same graph."""

    name: str
    peak_bytes: int
    recompute_flops: int
    recompute_fraction: float


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """An order of execution and what it takes. Bytes are beyond the inputs; flops are arithmetic operations."""

    tasks: Tasks
    order: tuple[int, ...]
    budget: float | None
    memory_limit: int | None
    policy: str
    effort: str
    found_by: str
    seconds: float
    marks: tuple[Mark, ...] = field(default=())
    solver_bound: int = 0
    smallest: Tasks | None = None
    """The same tasks with the smallest blocks of every region, which the bound is of; None where that is no other."""
    blocks: tuple[Blocking, ...] = ()
    """The blocks of those regions of which there was a choice."""
    regions: str = ""
    """Why the program has other regions than those that pay in time; empty where it has these."""

    def __repr__(self) -> str:
        return (f"<slpc.Plan of {self.tasks.graph.name}: peak {self.peak_bytes} bytes, "
                f"{100 * self.recompute_fraction:.1f}% of the forward pass again>")

    @cached_property
    def lives(self) -> Lives:
        """Which copy is alive when."""
        return lives(self.tasks, self.order)

    @cached_property
    def graph(self) -> Graph:
        """The plan as a program: `@scheduled`, printable, and run as it stands."""
        return scheduled(self.tasks, self.order)

    @cached_property
    def placement(self) -> Placement:
        """Where each value of `graph` lies in the arena as it runs: what loops that read it compute has no place."""
        target = self.tasks.target
        return place(self.graph, target, inlined(self.graph, target) if target.inlines else ())

    @property
    def peak_bytes(self) -> int:
        """What the arena takes and the libraries allocate beside it, and so what a first call is measured at."""
        return self.placement.size + self.outside_bytes

    @cached_property
    def outside_bytes(self) -> int:
        """What the backend's libraries allocate beside the arena; it is counted at every step."""
        return self.tasks.target.outside(self.tasks.graph)

    @property
    def timeline(self) -> tuple[int, ...]:
        """Bytes alive at each step."""
        return tuple(a + self.outside_bytes for a in self.lives.alive)

    @cached_property
    def keep_all_bytes(self) -> int:
        """The peak of the same graph when everything is kept, in the order of its text."""
        return lives(self.tasks, self.tasks.order).peak + self.outside_bytes

    @cached_property
    def bound(self) -> Bound:
        """A lower bound on the peak of every order that recomputes no more than the budget (or than this plan)."""
        budget = self.budget if self.budget is not None else self.recompute_fraction
        return lower_bound(self.smallest or self.tasks, budget, self.effort, self.lives.peak)

    @property
    def lower_bound_bytes(self) -> int:
        """See `bound`."""
        return min(max(self.bound.bytes, self.solver_bound) + self.outside_bytes, self.peak_bytes)

    @property
    def gap(self) -> float:
        """(peak - bound) / bound; 0 where they are equal."""
        return (self.peak_bytes - self.lower_bound_bytes) / self.lower_bound_bytes if self.peak_bytes else 0.0

    @property
    def proven(self) -> bool:
        """No order within the budget has a lower peak."""
        return self.peak_bytes == self.lower_bound_bytes

    @property
    def forward_flops(self) -> int:
        """Flops of the forward program, once."""
        return self.tasks.forward_flops

    @cached_property
    def recompute_flops(self) -> int:
        """Flops of all that runs again."""
        return _flops(self.tasks, self.order) - sum(self.tasks.flops)

    @property
    def recompute_fraction(self) -> float:
        """Of the forward flops."""
        return self.recompute_flops / self.forward_flops if self.forward_flops else 0.0

    @cached_property
    def wire_bytes(self) -> int:
        """Bytes that each of several processes sends to the others."""
        return wire_bytes(self.graph)

    @cached_property
    def region_flops(self) -> int:
        """Flops that regions compute again inside themselves, which no budget is charged for."""
        return computed_again_inside(self.tasks.graph)

    @cached_property
    def masked(self) -> tuple[RegionCost, ...]:
        """The regions of which masks cut work, each run of its order of text counted once."""
        return tuple(regions(self.tasks.graph, self.tasks.target))

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """Names of the forward values that the backward pass reads and that are computed once."""
        seen = self.tasks
        runs = [0] * len(seen.nodes)
        for t in self.order:
            runs[t] += 1
        return tuple(seen.values[b].name for b, t in enumerate(seen.writer)
                     if seen.forward[t] and runs[t] == 1 and any(not seen.forward[r] for r in seen.readers[b]))


def plan(graph: Graph, target: Target, *, recompute_budget: float | None = None, memory_limit: int | None = None,
         keep: str | None = None, policy: str | None = None, effort: str = "default") -> Plan:
    """The plan of least peak within `recompute_budget` (a fraction of the forward flops; 0 unless said), or the one of
    least recomputation within `memory_limit` bytes, or a textbook `policy`, or to `keep` the forward values of a
    pattern. A `@scheduled` program is a plan already, and is returned as it stands.

    Raises Fault E0602 for a budget that is none, E0603 for a limit that cannot be met, E0604 for an unknown policy or
    effort, E0605 for a pattern that names nothing.
    """
    began = time.perf_counter()
    _check(recompute_budget, policy, effort)
    legal = legalize(graph, target)
    if graph.scheduled and policy is None and keep is None:
        seen = tasks(legal, target)
        return Plan(seen, seen.order, None, None, "scheduled", effort, "the program", time.perf_counter() - began)
    sizes = BlockSizes(legal, target)
    seen = sizes.least
    if policy is not None or keep is not None:
        wanted = POLICIES[policy](seen) if policy is not None else keeping(seen, _named(seen, keep or ""))
        order = tuple(settled(seen, wanted) or wanted)
        return _by_blocks(Plan(seen, order, None, None, policy or f"keep {keep}", effort, policy or "keep", 0.0,
                               smallest=seen), sizes, began)
    planner = Planner(seen, effort)

    def made(found: Found, budget: float | None) -> Plan:
        order = overlapped(seen, found.order, found.peak)
        return _by_blocks(Plan(seen, order, budget, memory_limit, "", effort, found.by + planner.interrupted, 0.0,
                               planner.marks, planner.proved(budget), seen), sizes, began)

    if memory_limit is None:
        return made(planner.within_budget(recompute_budget or 0.0), recompute_budget or 0.0)
    best = made(planner.within_memory(memory_limit), None)
    tighter = memory_limit
    for _ in range(TRIES):
        if best.peak_bytes <= memory_limit:
            break
        tighter -= max(best.peak_bytes - memory_limit, memory_limit // 100)  # what the arena loses between values
        fits = [f for f in planner.archive.entries if f.peak + planner.outside <= tighter]
        if not fits:
            break
        best = min(best, made(fits[0], None), key=lambda p: p.peak_bytes)
    return best


def curve(graph: Graph, target: Target, budgets: Sequence[float], *, effort: str = "default") -> list[Plan]:
    """A plan for each budget, in increasing order; the peaks fall or stay."""
    sizes = BlockSizes(legalize(graph, target), target)
    seen = sizes.least
    for budget in budgets:
        _check(budget, None, effort)
    planner = Planner(seen, effort)
    plans = []
    for budget in sorted(budgets):
        began = time.perf_counter()
        found = planner.within_budget(budget)
        order = overlapped(seen, found.order, found.peak)
        plans.append(_by_blocks(Plan(seen, order, budget, None, "", effort, found.by + planner.interrupted, 0.0,
                                     planner.marks, planner.proved(budget), seen), sizes, began))
    return plans


def _by_blocks(small: Plan, sizes: BlockSizes, began: float) -> Plan:
    """A plan whose blocks are the smallest, with the largest that do not raise its peak, or that fit into its memory,
    and do not take what is computed again beyond its budget."""
    found = replace(small, seconds=time.perf_counter() - began)
    if not sizes.run_by:
        return found
    limit = small.lives.peak if small.memory_limit is None else small.memory_limit - small.outside_bytes
    most = limit * (CLOSE if small.memory_limit is None else 1.0)
    best = likely_size(small.tasks, small.order), replace(found, blocks=sizes.chosen(small.tasks))
    for share in SHARES:
        seen = sizes.within(small.order, limit, share)
        larger = replace(found, tasks=seen, blocks=sizes.chosen(seen))
        if larger.lives.peak <= limit and (small.budget is None or larger.recompute_fraction <= small.budget):
            size = likely_size(seen, small.order)
            if size <= most:
                return larger
            best = min(best, (size, larger), key=lambda pair: pair[0])
    return best[1]


def _check(budget: float | None, policy: str | None, effort: str) -> None:
    if budget is not None and not budget >= 0:
        raise Fault("E0602", f"a budget of {budget} is none", "it is a fraction of the forward flops, from 0 up")
    if policy is not None and policy not in POLICIES:
        raise Fault("E0604", f"there is no policy '{policy}'",
                    near(policy, POLICIES) or f"one of {', '.join(POLICIES)}")
    if effort not in EFFORTS:
        raise Fault("E0604", f"there is no effort '{effort}'", near(effort, EFFORTS) or f"one of {', '.join(EFFORTS)}")


def _named(seen: Tasks, pattern: str) -> list[int]:
    names = {b: v.name for b, v in enumerate(seen.values) if seen.forward[seen.writer[b]]}
    found = [b for b, name in names.items() if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        few = ", ".join(list(names.values())[:8])
        raise Fault("E0605", f"'{pattern}' is the name of no value of the forward program",
                    near(pattern.strip("*?"), names.values()) or f"its values are {few}, ...")
    return found


def _flops(seen: Tasks, order: Sequence[int]) -> int:
    return sum(seen.flops[t] for t in order)


@dataclass(frozen=True)
class Found:
    """An order in the archive."""

    flops: int
    peak: int
    order: tuple[int, ...]
    by: str


class Archive:
    """Orders that no other beats in flops and peak at once, by increasing flops (and so by decreasing peak)."""

    def __init__(self) -> None:
        self.entries: list[Found] = []

    def add(self, flops: int, peak: int, order: Sequence[int], by: str) -> None:
        """Keep it, if nothing there is as good."""
        at = bisect_right(self.entries, flops, key=lambda f: f.flops)
        if at and self.entries[at - 1].peak <= peak:
            return
        end = at
        while end < len(self.entries) and self.entries[end].peak >= peak:
            end += 1
        if at and self.entries[at - 1].flops == flops:
            at -= 1
        self.entries[at:end] = [Found(flops, peak, tuple(order), by)]

    def within(self, flops: int) -> Found:
        """The least peak for so many flops."""
        return self.entries[bisect_right(self.entries, flops, key=lambda f: f.flops) - 1]


class Planner:
    """The archive of one program, filled rung by rung."""

    def __init__(self, seen: Tasks, effort: str) -> None:
        self.tasks = seen
        self.rounds = EFFORTS[effort]
        self.base = sum(seen.flops)
        self.archive = Archive()
        self.climbed = 0
        few = SOLVED[effort]
        self.solved = len(seen.nodes) <= few
        self.order_solved = len(seen.nodes) <= 3 * few and len(contract(seen).tasks.nodes) <= few
        self.effort = effort
        self.bounds: dict[float, int] = {}
        self.interrupted = ""
        self.outside = seen.target.outside(seen.graph)
        marks = []
        self.policies: list[Found] = []
        for name, policy in POLICIES.items():
            order = settled(seen, policy(seen)) or seen.order
            found = self._add(order, name)
            self.policies.append(found)
            marks.append(Mark(name, found.peak + self.outside, found.flops - self.base, self._fraction(found.flops)))
        self.marks = tuple(marks)
        most = int(self.policies[0].peak * 1.25)
        self.ladder = COARSE if len(seen.nodes) > LARGE else LADDER
        self.programmes = [Programme(chain, most) for chain in chains(seen)
                           if most and max(len(s.forward) + len(s.backward) for s in chain.segments) <= LARGE]

    def _fraction(self, flops: int) -> float:
        forward = self.tasks.forward_flops
        return (flops - self.base) / forward if forward else 0.0

    def _add(self, order: Sequence[int], by: str) -> Found:
        found = Found(_flops(self.tasks, order), lives(self.tasks, order).peak, tuple(order), by)
        self.archive.add(found.flops, found.peak, order, by)
        return found

    def _most(self, budget: float) -> int:
        """Flops in all that a budget allows."""
        return self.base + int(min(budget, 1e6) * self.tasks.forward_flops)

    def within_budget(self, budget: float) -> Found:
        """The least peak found."""
        self._climb(bisect_left(self.ladder, budget))
        most = self._most(budget)
        if self.solved:
            for asked in (budget, *(rung for rung in reversed(ASKED) if rung < budget)):
                self._solve(asked)
                if self.proved(budget) >= self.archive.within(most).peak:
                    break  # where nothing is proven, a smaller budget may have found more
        return self.archive.within(most)

    def proved(self, budget: float | None) -> int:
        """What the solver has shown that no order within the budget goes below; 0 where it was not asked."""
        return max((bound for rung, bound in self.bounds.items() if budget is not None and rung >= budget), default=0)

    def within_memory(self, limit: int) -> Found:
        """The least recomputation found; Fault E0603 if nothing fits."""
        possible = lower_bound(self.tasks, math.inf).bytes + self.outside <= limit
        for rung in range(len(self.ladder)):
            self._climb(rung)
            if self.solved and possible and self.ladder[rung] in ASKED:
                self._solve(self.ladder[rung])
            fits = [f for f in self.archive.entries if f.peak + self.outside <= limit]
            if fits and (self._fraction(fits[0].flops) <= self.ladder[rung] or rung == len(self.ladder) - 1):
                return fits[0]  # what costs less would have been found by now
        raise self._infeasible(limit)

    def _infeasible(self, limit: int) -> Fault:
        if self.solved:
            self._solve(math.inf)
        least = self.archive.entries[-1]
        seen = self.tasks
        bound = lower_bound(seen, math.inf)
        alive = lives(seen, least.order)
        forced = seen.nodes[least.order[alive.peak_step]].result
        at = ", ".join(f"'{seen.nodes[t].result.name}'" for t in bound.tasks) or "the program"
        reached = least.peak + self.outside
        least_possible = max(bound.bytes, self.proved(math.inf)) + self.outside
        return Fault("E0603", f"no plan fits into {limit:,} bytes: the least that was found is {reached:,} bytes, "
                              f"and nothing can go below {least_possible:,}",
                     f"the peak is at '{forced.name}'; the bound: {bound.reason}, {at}")

    def _climb(self, rung: int) -> None:
        """Search at each rung up to this one. Ctrl-C ends it, and what has been found is taken."""
        try:
            while self.climbed <= min(rung, len(self.ladder) - 1):
                self._search(self.ladder[self.climbed])
                self.climbed += 1
        except KeyboardInterrupt:
            self.climbed = len(self.ladder)
            self.interrupted = ", interrupted"

    def _search(self, budget: float) -> None:
        most = self._most(budget)
        best = self.archive.within(most)
        starts = {best.order: best.by}
        if self.policies[0].peak < FAR * best.peak:
            starts.setdefault(self.policies[0].order, "keep-all")
        offered = []
        for programme in self.programmes:
            for share in (1.0, 0.7):
                swept = programme.cheapest(programme.forward_flops + int((most - self.base) * share))
                swept = swept and settled(self.tasks, swept)
                if swept is not None and _flops(self.tasks, swept) <= most:
                    offered.append(self._add(swept, "chain"))
        offered.sort(key=lambda f: (f.peak, f.flops))
        starts.update((f.order, f.by) for f in offered[:self.rounds])
        for order, by in starts.items():
            name = f"search from {by.removeprefix('search from ')}"
            Search(self.tasks, order, most, partial(self.archive.add, by=name)).polish(0, self.rounds)
        if self.order_solved and budget == 0:
            self._solve(budget)

    def _solve(self, budget: float) -> None:
        """Search all states, from the best order on. Ctrl-C ends it."""
        if budget in self.bounds or self.interrupted:
            return
        best = self.archive.within(self._most(budget))
        try:
            found = exact(self.tasks, budget, effort="default" if self.effort == "proof" else "quick", hint=best.order)
        except KeyboardInterrupt:
            self.interrupted = ", interrupted"
            return
        self.bounds[budget] = found.bound
        if found.peak < best.peak:
            self._add(found.order, "exact search")

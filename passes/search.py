"""Local search on an explicit order of execution: at the moment of the peak, give up what is cheap to compute again.

Any graph, any nesting: a copy that is alive across the peak without being read there is dropped after its last read
before it and computed again ahead of the next, from what is there then, from values that are held longer, or from
others that are computed again too; one that was not read before is computed later instead. The opposite move takes back
a recomputation that the limit does not need. Every order is replayed exactly (`passes.liveness`); the estimates only
choose.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from ..ir.graph import Node
from .donation import settled
from .liveness import Lives, lives
from .tasks import Tasks

LONGEST = 48
"""A recomputation runs at most so many tasks."""
ALONE = 4
"""Where the best evictions together do not help, so many are tried one by one."""
STEP = 0.95
"""Each round aims at this fraction of the present peak."""
WORK = 600_000
"""A search visits so many steps for each round of polishing."""


def nothing(node: Node, share: float) -> bool:
    """Whatever a recomputation needs is held for it."""
    return False


def cheap(node: Node, share: float) -> bool:
    """What no product makes is computed again too."""
    return node.op.family != "product"


def large(node: Node, share: float) -> bool:
    """What is no smaller than what is given up is computed again too: a gradient of a weight can wait for a small
    cotangent that is held."""
    return share > 0.6


def everything(node: Node, share: float) -> bool:
    """All is computed again, down to what is there."""
    return True


@dataclass(frozen=True)
class Eviction:
    """A copy that is dropped between two of its reads: the tasks that make it again ahead of step `at`, what they cost,
    and the copies that are held longer for their sake. One that was not read before is made later, and not again."""

    copy: int
    after: int
    at: int
    run: tuple[int, ...]
    flops: int
    held: frozenset[int]
    later: bool


class Search:
    """One order and what can be done with it. `passed` is told flops, peak and order of each state on the way."""

    def __init__(self, tasks: Tasks, order: Sequence[int], most_flops: int,
                 passed: Callable[[int, int, Sequence[int]], None] = lambda flops, peak, order: None) -> None:
        self.tasks = tasks
        self.most_flops = most_flops
        self.passed = passed
        self.work = 0
        self.take(order)

    def take(self, order: Sequence[int]) -> None:
        """Go on from this order."""
        tasks = self.tasks
        self.work += len(order)
        self.order = list(order)
        self.lives: Lives = lives(tasks, self.order)
        self.alive: NDArray[numpy.int64] = numpy.array(self.lives.alive, dtype=numpy.int64)
        self.flops = sum(tasks.flops[t] for t in self.order)
        self.reads = self.lives.reads
        self.copies: list[list[int]] = [[] for _ in tasks.values]
        for copy, b in enumerate(self.lives.buffer):
            self.copies[b].append(copy)

    @property
    def peak(self) -> int:
        return self.lives.peak

    # Down: give up and compute again -------------------------------------------------------------------------------

    def down(self, goal: int) -> bool:
        """One round: the peak is brought towards `goal` by the cheapest evictions. Whether anything changed."""
        target = max(goal, int(self.peak * STEP))
        excess = numpy.maximum(self.alive - target, 0)
        step = int(self.alive.argmax())
        groups: dict[frozenset[int], list[Eviction]] = {}
        for eviction in self._evictions(step, excess):
            groups.setdefault(eviction.held, []).append(eviction)
        candidates = [[e] for group in groups.values() for e in group]
        candidates += [group for held, group in groups.items() if held and len(group) > 1]
        found = sorted(((-self._worth(excess, group), [e.copy for e in group], group) for group in candidates),
                       key=lambda f: f[:2])
        ranked = [group for worth, _, group in found if worth < 0]
        if not ranked:
            return False
        if self._evicted(self._enough(ranked, step, int(excess[step])), target):
            return True
        return any(self._evicted(group, target) for group in ranked[:ALONE])

    def _enough(self, ranked: Sequence[Sequence[Eviction]], step: int, needed: int) -> list[Eviction]:
        """The best groups that together take away what is needed at the peak."""
        chosen: list[Eviction] = []
        spent, gained, used = self.flops, 0, set[int]()
        for group in ranked:
            cost = sum(e.flops for e in group)
            if spent + cost > self.most_flops or any(e.copy in used for e in group):
                continue
            chosen += group
            used.update(e.copy for e in group)
            spent += cost
            gained += sum(self._bytes(e.copy) for e in group) - self._held_bytes(group, step)
            if gained >= needed:
                break
        return chosen

    def _evicted(self, chosen: Sequence[Eviction], target: int) -> bool:
        """Take the order with these evictions, if less of it is above the target. Whether that is so."""
        inserted: dict[int, list[int]] = {}
        for e in sorted(chosen, key=lambda e: e.copy):
            at = inserted.setdefault(e.at, [])
            at += [t for t in e.run if t not in at]
        moved = {self.lives.start[e.copy] for e in chosen if e.later}
        before = int(numpy.maximum(self.alive - target, 0).sum())
        old = self.order
        new = settled(self.tasks, [
            t for step in range(len(old) + 1)
            for t in (*inserted.get(step, ()), *(() if step in moved else old[step:step + 1]))])
        if new is None:
            return False
        self.take(new)
        if int(numpy.maximum(self.alive - target, 0).sum()) >= before or self.flops > self.most_flops:
            self.take(old)
            return False
        self.passed(self.flops, self.peak, self.order)
        return True

    def _bytes(self, copy: int) -> int:
        return self.tasks.bytes[self.lives.buffer[copy]]

    def _held_bytes(self, group: Sequence[Eviction], step: int) -> int:
        return sum(self._bytes(c) for c in group[0].held if self.lives.end[c] < step)

    def _evictions(self, step: int, excess: NDArray[numpy.int64]) -> Iterable[Eviction]:
        """Copies that are alive at a step and not read there, with the ways to make them again."""
        tasks, alive = self.tasks, self.lives
        here = {*tasks.reads[self.order[step]], *tasks.writes[self.order[step]]}
        for copy, b in enumerate(alive.buffer):
            if alive.start[copy] >= step or alive.end[copy] <= step or b in here or not tasks.bytes[b]:
                continue
            reads = self.reads[copy]
            nxt = bisect_left(reads, step)
            later = nxt == 0 and len(tasks.writes[tasks.writer[b]]) == 1
            if not later and (nxt == len(reads) or tasks.output[b]):
                continue
            after = reads[nxt - 1] if nxt else alive.start[copy] - 1
            at = reads[nxt] if nxt < len(reads) else len(self.order)
            seen = set()
            for again in (nothing, cheap, large, everything):
                found = self._again(copy, after, at, excess, again, later)
                if found is not None and (found.run, found.held) not in seen:
                    seen.add((found.run, found.held))
                    yield found

    def _again(self, copy: int, after: int, at: int, excess: NDArray[numpy.int64],
               again: Callable[[Node, float], bool], later: bool) -> Eviction | None:
        """How to make a copy again ahead of step `at`. What is gone by then is held longer where that costs nothing;
        else it is made again too, if `again` says so of its operation and its share of what is given up."""
        tasks, alive = self.tasks, self.lives
        run: list[int] = []
        held: set[int] = set()
        flops = -tasks.flops[tasks.writer[alive.buffer[copy]]] if later else 0
        stack = [(tasks.writer[alive.buffer[copy]], False)]
        planned: set[int] = set()
        while stack:
            task, ready = stack.pop()
            if ready:
                run.append(task)
                continue
            if task in planned:
                continue
            planned.add(task)
            if tasks.nodes[task] is not None and tasks.nodes[task].op.family == "collective":
                return None  # what is summed over processes is summed once
            self.work += 1
            flops += tasks.flops[task]
            if len(planned) > LONGEST or self.flops + flops > self.most_flops:
                return None
            stack.append((task, True))
            for r in tasks.reads[task]:
                latest = self._latest(r, at)
                if latest == copy or latest < 0:
                    return None
                end = alive.end[latest]
                if end >= at or not self._bytes(latest) or not excess[end + 1:at].any():
                    continue
                maker = tasks.writer[r]
                if tasks.output[r] or not again(tasks.nodes[maker], tasks.bytes[r] / self._bytes(copy)):
                    held.add(latest)
                else:
                    stack.append((maker, False))
        if any(self.lives.buffer[h] == alive.buffer[copy] for h in held):
            return None
        return Eviction(copy, after, at, tuple(run), flops, frozenset(held), later)

    def _latest(self, b: int, step: int) -> int:
        """The copy of a buffer that a read at that step would see."""
        copies = self.copies[b]
        at = bisect_left(copies, step, key=lambda c: self.lives.start[c])
        return copies[at - 1] if at else -1

    def _worth(self, excess: NDArray[numpy.int64], group: Sequence[Eviction]) -> float:
        """Bytes above the target, summed over time, that a group takes away, for each flop."""
        gain = 0
        for e in group:
            gain += int(numpy.minimum(excess[e.after + 1:e.at], self._bytes(e.copy)).sum())
        if group[0].held:
            last = max(e.at for e in group)
            for h in group[0].held:
                gain -= int(numpy.minimum(excess[self.lives.end[h] + 1:last] > 0, 1).sum()) * self._bytes(h)
        return gain / (sum(e.flops for e in group) + 1000.0)

    # Up: take back what the limit does not need --------------------------------------------------------------------

    def up(self, limit: int) -> bool:
        """Recomputations are taken back, the dearest for the room that they need first, while the peak stays within
        `limit`. Whether anything changed."""
        tasks, alive = self.tasks, self.lives
        room = limit - self.alive
        candidates = []
        made = 0
        for step, task in enumerate(self.order):
            copy = made
            made += len(tasks.writes[task])
            b = tasks.writes[task][0]
            if len(tasks.writes[task]) != 1 or self.copies[b][0] == copy:
                continue
            previous = self.copies[b][bisect_left(self.copies[b], copy) - 1]
            end = alive.end[previous]
            first = end if alive.heir[previous] >= 0 else end + 1
            size = tasks.bytes[b]
            width = max(step - first, 1)
            candidates.append((-tasks.flops[task] / (size * width + 1.0), step, first, size))
        removed = set()
        for worth, step, first, size in sorted(candidates):
            if not worth and not size:
                continue
            if first >= step or int(room[first:step].min()) >= size:
                room[first:step] -= size
                removed.add(step)
        if not removed:
            return False
        old = self.order
        self.take([t for step, t in enumerate(old) if step not in removed])
        if self.peak > limit:
            self.take(old)
            return False
        self.passed(self.flops, self.peak, self.order)
        return True

    def polish(self, goal: int, rounds: int) -> None:
        """Down and up in turn, until nothing more is found or the work of so many rounds is done; ends at the best."""
        best, order = (self.peak, self.flops), self.order
        for _ in range(rounds):
            while self.peak > goal and self.work < WORK * rounds and self.down(goal):
                pass
            self.up(self.peak)
            if (self.peak, self.flops) >= best:
                break
            best, order = (self.peak, self.flops), self.order
        self.take(order)

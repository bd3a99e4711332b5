"""Orders that compute values again on demand: ahead of a read of what was given up stands its recomputation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heappop, heappush

from .tasks import Tasks


def on_demand(tasks: Tasks, base: Sequence[int], available: Callable[[int], bool],
              anew: Collection[int] = ()) -> list[int]:
    """`base` with the tasks inserted that it needs again. `available(b)`: buffer b is there before the first task.

    A buffer that is computed again is held as long as `base`, or the recomputation of another buffer, still needs it;
    one of `anew` is computed for each task of `base` that needs it.
    """
    needed = _needed_until(tasks, base, available, anew)
    there = {b for task in base for b in tasks.reads[task] if available(b)}
    order: list[int] = []
    ends: list[list[int]] = [[] for _ in base]
    for b, step in needed.items():
        ends[step].append(b)
    for step, task in enumerate(base):
        for b in tasks.reads[task]:
            if b not in there:
                _compute(tasks, b, there, available, order)
        order.append(task)
        there.update(tasks.writes[task])
        for b in ends[step]:
            if not available(b):
                there.discard(b)
        there.difference_update(anew)
    return order


def _compute(tasks: Tasks, wanted: int, there: set[int], available: Callable[[int], bool], order: list[int]) -> None:
    """Append the tasks that make a buffer, what they need first. A walk with a stack: chains may be long."""
    stack = [wanted]
    while stack:
        b = stack[-1]
        if b in there or available(b):
            there.add(b)
            stack.pop()
            continue
        task = tasks.writer[b]
        missing = [r for r in tasks.reads[task] if r not in there and not available(r)]
        if missing:
            stack.extend(missing)
            continue
        there.update(tasks.reads[task])
        order.append(task)
        there.update(tasks.writes[task])
        stack.pop()


def _needed_until(tasks: Tasks, base: Sequence[int], available: Callable[[int], bool],
                  anew: Collection[int]) -> dict[int, int]:
    """For each buffer the last step of `base` that needs it: to read it, or to compute another again for a read."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    made = {b for task in base for b in tasks.writes[task]}
    for step, task in enumerate(base):
        for b in tasks.reads[task]:
            first.setdefault(b, step)
            last[b] = step
    pending = {b for b in first if b not in made and not available(b)}
    waiting = [-b for b in pending]
    heapify(waiting)
    while waiting:  # what is written later is taken first, so that a buffer's first need is known when it is taken
        b = -heappop(waiting)
        until = last[b] if b in anew else first[b]
        for r in tasks.reads[tasks.writer[b]]:
            first[r] = min(first.get(r, first[b]), first[b])
            last[r] = max(last.get(r, until), until)
            if r not in made and r not in pending and not available(r):
                pending.add(r)
                heappush(waiting, -r)
    return last


def keeping(tasks: Tasks, kept: Collection[int]) -> list[int]:
    """The order in which, of the forward buffers, only `kept` ones are there for the backward pass."""
    forward = [t for t in tasks.order if tasks.forward[t]]
    backward = [t for t in tasks.order if not tasks.forward[t]]
    held = set(kept)
    held.update(b for b, output in enumerate(tasks.output) if output and tasks.forward[tasks.writer[b]])
    return forward + on_demand(tasks, backward, held.__contains__)

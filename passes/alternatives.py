"""What else a plan could have done with one value: hold it where it is computed again, or compute it again where it is
held. Each is an order like any other, so what it takes is counted and not estimated.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from .liveness import Lives
from .tasks import Tasks


def held(tasks: Tasks, order: Sequence[int], task: int) -> list[int]:
    """The order in which `task` runs once and its results are held for all reads; repeats of others that served only
    its repeats are gone too."""
    first = order.index(task)
    return needed(tasks, [t for step, t in enumerate(order) if t != task or step == first])


def computed_again(tasks: Tasks, alive: Lives, copy: int) -> list[list[int]]:
    """The orders in which a copy is given up over its longest time without a read, and computed again before the next
    one; none if nothing reads it twice. In the first, what its computation reads is held until then; in the second,
    what is not there at that time is computed again too."""
    order, b = alive.order, alive.buffer[copy]
    reads = [s for s in range(alive.start[copy] + 1, alive.end[copy] + 1) if b in tasks.reads[order[s]]]
    times = [alive.start[copy], *reads]
    gaps = [(after - before, after) for before, after in pairwise(times)]
    if not gaps or max(gaps)[0] < 2:
        return []
    at = max(gaps)[1]
    there = {other for c, other in enumerate(alive.buffer) if alive.start[c] < at <= alive.end[c]} - {b}
    chain = _chain(tasks, b, there)
    orders = [[*order[:at], tasks.writer[b], *order[at:]], [*order[:at], *chain, *order[at:]]]
    return orders[:1 + (len(chain) > 1)]


def _chain(tasks: Tasks, wanted: int, there: set[int]) -> list[int]:
    """The tasks that compute a buffer from what is there, what they need first."""
    there = set(there)
    chain: list[int] = []
    stack = [wanted]
    while stack:
        task = tasks.writer[stack[-1]]
        missing = [r for r in tasks.reads[task] if r not in there]
        if missing:
            stack += missing
            continue
        if not there.issuperset(tasks.writes[task]):
            chain.append(task)
            there.update(tasks.writes[task])
        stack.pop()
    return chain


def needed(tasks: Tasks, order: Sequence[int]) -> list[int]:
    """The order without the runs whose results nothing reads."""
    wanted = {b for b, output in enumerate(tasks.output) if output}
    kept = []
    for task in reversed(order):
        if any(b in wanted for b in tasks.writes[task]):
            wanted.difference_update(tasks.writes[task])
            wanted.update(tasks.reads[task])
            kept.append(task)
    return kept[::-1]

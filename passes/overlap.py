"""Overlap: what is on the wire between processes while a plan computes.

A sum over processes (`passes.parallel`) begins right behind what computes its operand. What waits for it, an update,
runs when the sum of the next array has begun, where the memory of the plan has room for the gradient until then.

    w_begun = all_reduce(w_bar)         w_begun = all_reduce(w_bar)
    w_sum = wait(w_begun)               v_bar = x.T @ y_bar         # meanwhile
    w_new = w - w_sum                   v_begun = all_reduce(v_bar)
    v_bar = x.T @ y_bar                 w_sum = wait(w_begun)
    v_begun = all_reduce(v_bar)         w_new = w - w_sum
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from ..ir.diagnostics import Fault
from .liveness import lives
from .tasks import Tasks


def overlapped(tasks: Tasks, order: Sequence[int], peak: int) -> tuple[int, ...]:
    """The order with sums begun as early and waited for as late as `peak` bytes alive at once allow; the order itself
    where nothing is summed over processes."""
    names = [n.op.name for n in tasks.nodes]
    begun = [t for t in order if names[t] == "all_reduce"]
    if not begun:
        return tuple(order)
    early = _early(tasks, order, set(begun))
    best = early if _fits(tasks, early, peak) else tuple(order)
    arrays = [t for t in best if names[t] == "all_reduce" and tasks.nodes[t].result.shape]
    follower = dict(pairwise(arrays))
    begins = {t: tasks.writer[tasks.reads[t][0]] for t in order if names[t] == "wait"}
    until = {wait: follower[b] for wait, b in begins.items() if b in follower}
    chosen: set[int] = set()
    stack = [list(until)]
    while stack:  # all of them, or else each half of them
        more = stack.pop()
        made = _late(tasks, best, {wait: until[wait] for wait in (*chosen, *more)})
        if _fits(tasks, made, peak):
            chosen.update(more)
        elif len(more) > 1:
            stack += [more[len(more) // 2:], more[:len(more) // 2]]
    return _late(tasks, best, {wait: until[wait] for wait in until if wait in chosen})


def _fits(tasks: Tasks, order: Sequence[int], peak: int) -> bool:
    try:
        return lives(tasks, order).peak <= peak
    except Fault:
        return False


def _early(tasks: Tasks, order: Sequence[int], begun: Collection[int]) -> tuple[int, ...]:
    """Each of these tasks, which read one value, right behind what computes that."""
    behind = {b: t for t in begun for b in tasks.reads[t]}
    inputs = [t for t in order if t in begun and not tasks.reads[t]]
    made: list[int] = inputs
    for task in order:
        if task not in begun:
            made.append(task)
            made += [behind.pop(b) for b in tasks.writes[task] if b in behind]
    return tuple(made)


def _late(tasks: Tasks, order: Sequence[int], until: dict[int, int]) -> tuple[int, ...]:
    """Each of the tasks in `until`, and what reads its result, behind the task that it names there."""
    place = {t: at for at, t in enumerate(order)}
    made: list[int] = []
    held: dict[int, int] = {}
    free_at: dict[int, int] = {}
    for at, task in enumerate(order):
        waits = max((free_at.get(b, 0) for b in tasks.reads[task]), default=0)
        if task in until:
            waits = max(waits, place[until[task]])
        if waits > at:
            held[task] = waits
            free_at.update(dict.fromkeys(tasks.writes[task], waits))
            continue
        made.append(task)
        ready = [t for t, waits in held.items() if waits <= at]
        made += ready
        for t in ready:
            del held[t]
    return (*made, *held)

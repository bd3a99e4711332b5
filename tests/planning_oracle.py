"""What planners are tested against: random small task graphs, and the least peak by search over all states.

The search knows nothing of windows, intervals or linear programmes: it runs one task after another and drops values.
"""

from __future__ import annotations

import heapq
import random
from typing import Any

from slpc.ir.target import Target
from slpc.passes.tasks import Tasks


def made(reads: list[list[int]], writes: list[list[int]], sizes: list[int], flops: list[int], outputs: set[int],
         hands_over: list[list[tuple[int, int, int]]] | None = None, workspace: list[int] | None = None,
         forward: list[bool] | None = None) -> Tasks:
    """Tasks without a graph behind them."""
    nothing: Any = None
    count, buffers = len(reads), len(sizes)
    writer = [t for t in range(count) for _ in writes[t]]
    assert [b for row in writes for b in row] == list(range(buffers))
    readers: list[list[int]] = [[] for _ in range(buffers)]
    for task, row in enumerate(reads):
        for b in row:
            readers[b].append(task)
    return Tasks(
        nothing, Target("none"), (nothing,) * count, tuple(map(tuple, reads)), tuple(map(tuple, writes)),
        tuple(map(tuple, hands_over)) if hands_over else ((),) * count, tuple(flops),
        tuple(workspace) if workspace else (0,) * count, tuple(forward) if forward else (True,) * count,
        (nothing,) * buffers, tuple(writer), tuple(map(tuple, readers)), tuple(sizes),
        tuple(b in outputs for b in range(buffers)), ((),) * count)


def random_tasks(seed: int, most: int = 8) -> Tasks:
    """Up to `most` tasks with one or two results and up to three operands, some in place,
    some put together from their operands, some free to repeat."""
    draw = random.Random(seed)
    count = draw.randint(2, most)
    reads: list[list[int]] = []
    writes: list[list[int]] = []
    sizes: list[int] = []
    hands_over: list[list[tuple[int, int, int]]] = []
    for _ in range(count):
        known = len(sizes)
        read = draw.sample(range(known), min(known, draw.choice([0, 1, 1, 1, 2, 2, 3])))
        written = list(range(known, known + draw.choice([1, 1, 1, 1, 2])))
        placed = len(read) > 1 and len(written) == 1 and draw.random() < 0.3
        sizes.extend(sum(sizes[r] for r in read) if placed else draw.choice([1, 2, 4, 8, 8]) for _ in written)
        reads.append(read)
        writes.append(written)
        if placed:
            hands_over.append([(r, known, sum(sizes[b] for b in read[:at])) for at, r in enumerate(read)])
        else:
            hands_over.append([(r, w, 0) for r in read for w in written  # x * x names its operand twice
                               if sizes[r] == sizes[w] and draw.random() < 0.6 for _ in range(draw.choice([1, 2]))])
    used = {b for row in reads for b in row}
    outputs = {b for b in range(len(sizes)) if b not in used or draw.random() < 0.15}
    return made(reads, writes, sizes, [draw.choice([0, 1, 2, 5]) for _ in reads], outputs, hands_over,
                [draw.choice([0, 0, 0, 3]) for _ in reads])


def least_peak(tasks: Tasks, budget: float) -> int:
    """The least peak of all schedules within the budget: Dijkstra's algorithm on the largest step so far.

    A state is what is alive, which tasks have run, and the flops spent again; a move runs a task and drops any of what
    is alive. What is dropped by a step that could hand it over is counted once.
    """
    allowed = int(budget * tasks.forward_flops)
    goal = {b for b, output in enumerate(tasks.output) if output}
    queue: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = [(0, 0, (), ())]
    seen: dict[tuple[Any, Any], list[int]] = {}
    while queue:
        peak, spent, alive_key, done_key = heapq.heappop(queue)
        alive, done = set(alive_key), set(done_key)
        if goal <= alive:
            return peak
        known = seen.setdefault((alive_key, done_key), [])
        if any(other <= spent for other in known):
            continue
        known.append(spent)
        for task in range(len(tasks.reads)):
            if not alive.issuperset(tasks.reads[task]) or alive.issuperset(tasks.writes[task]):
                continue
            cost = spent + (tasks.flops[task] if task in done else 0)
            if cost > allowed or any(tasks.output[b] and b in alive for b in tasks.writes[task]):
                continue  # a second copy of an output would stay
            now = alive | set(tasks.writes[task])
            size = sum(tasks.bytes[b] for b in now) + tasks.workspace[task]
            droppable = sorted(b for b in now if not tasks.output[b])
            for choice in range(1 << len(droppable)):
                dropped = {b for at, b in enumerate(droppable) if choice >> at & 1}
                after = tuple(sorted(now - dropped))
                here = max(peak, size - _saved(tasks, task, dropped))
                heapq.heappush(queue, (here, cost, after, tuple(sorted(done | {task}))))
    raise AssertionError("no schedule")


def _saved(tasks: Tasks, task: int, dropped: set[int]) -> int:
    """As `passes.liveness` pairs them: in the order of `hands_over`, each operand and each result once."""
    given: set[int] = set()
    taken: set[tuple[int, int]] = set()
    saved = 0
    for read, written, at in tasks.hands_over[task]:
        if read in dropped and read not in given and (written, at) not in taken:
            given.add(read)
            taken.add((written, at))
            saved += tasks.bytes[read]
    return saved

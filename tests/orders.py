"""Random orders of execution: every task after what it reads, some of them several times."""

from __future__ import annotations

import numpy as np

from slpc.passes.tasks import Tasks


def random_order(tasks: Tasks, seed: int, repeats: float = 0.3) -> list[int]:
    """A random topological order in which `repeats` of the tasks run again, once they have run."""
    rng = np.random.default_rng(seed)
    waiting = [len(set(reads)) for reads in tasks.reads]
    ready = [t for t, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        task = ready.pop(int(rng.integers(len(ready))))
        order.append(task)
        for b in tasks.writes[task]:
            for reader in tasks.readers[b]:
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        while rng.random() < repeats:
            order.append(order[int(rng.integers(len(order)))])
    return order

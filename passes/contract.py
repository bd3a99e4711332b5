"""Contract: tasks that some best schedule runs right after one another become one.

A value b with a single reader v that writes its result c over it (of b's size, so nothing is gained by keeping b rather
than c) is made by a task u. If u is written over its only operand, or has none, then u can wait for v: keeping what u
reads costs no more than keeping b. If v reads nothing else, then v can follow u at once: c takes the place of b. Either
way, workspaces permitting, no schedule gets a larger peak or more flops: a plan of the contracted tasks is a plan of
the program, and a bound of theirs is a bound of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .tasks import Tasks


@dataclass(frozen=True, eq=False)
class Contracted:
    """The contracted tasks and, for each of them, the tasks of the program that it stands for, in order."""

    tasks: Tasks
    members: tuple[tuple[int, ...], ...]

    def expand(self, order: Sequence[int]) -> tuple[int, ...]:
        """An order of the contracted tasks as one of the program's."""
        return tuple(member for task in order for member in self.members[task])

    def contract(self, order: Sequence[int]) -> tuple[int, ...]:
        """An order of the program's tasks as one of the contracted: a task stands where its last member stood."""
        last = {members[-1]: task for task, members in enumerate(self.members)}
        return tuple(last[task] for task in order if task in last)


def contract(tasks: Tasks) -> Contracted:
    """The program in fewer tasks, of the same least peak at every budget. Linear in the reads."""
    groups = _Groups(tasks)
    for task in range(len(tasks.nodes)):
        groups.join(task)
    return groups.contracted()


class _Groups:
    """The groups so far, each known by its last task: what it reads and what its result may be written over."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.members: dict[int, tuple[int, ...]] = {t: (t,) for t in range(len(tasks.nodes))}
        self.reads = dict(enumerate(tasks.reads))
        self.hands_over = dict(enumerate(tasks.hands_over))
        self.workspace = dict(enumerate(tasks.workspace))

    def join(self, task: int) -> None:
        """Put the makers of operands before the task, as long as there is one that may stand there."""
        while (b := next((b for b in self.reads[task] if self._joins(b, task)), None)) is not None:
            maker = self.tasks.writer[b]
            result = self.tasks.writes[task][0]
            self.members[task] = (*self.members.pop(maker), *self.members[task])
            others = [read for read in self.reads[task] if read != b]
            self.hands_over[task] = tuple((read, result, 0) for read, _, _ in self.hands_over[maker]
                                          if read not in others)
            self.reads[task] = tuple(dict.fromkeys((*self.reads[maker], *others)))
            self.workspace[task] = max(self.workspace[maker], self.workspace[task])

    def _joins(self, b: int, task: int) -> bool:
        tasks, maker = self.tasks, self.tasks.writer[b]
        if tasks.output[b] or len(tasks.readers[b]) > 1 or len(tasks.writes[maker]) > 1 or len(tasks.writes[task]) > 1:
            return False
        result = tasks.writes[task][0]
        if tasks.bytes[b] != tasks.bytes[result] or (b, result, 0) not in self.hands_over[task]:
            return False
        before, after = self.workspace[maker], self.workspace[task]
        read = self.reads[maker]
        waits = before <= after and (not read or (
            len(read) == 1 and bool(self.hands_over[maker]) and tasks.bytes[read[0]] == tasks.bytes[b]))
        return waits or (after <= before and self.reads[task] == (b,) and not tasks.output[result])

    def contracted(self) -> Contracted:
        tasks = self.tasks
        kept = sorted(self.members)
        buffers = [b for task in kept for b in tasks.writes[task]]
        number = {b: at for at, b in enumerate(buffers)}
        readers: list[list[int]] = [[] for _ in buffers]
        for at, task in enumerate(kept):
            for b in self.reads[task]:
                readers[number[b]].append(at)
        made = replace(
            tasks, nodes=tuple(tasks.nodes[t] for t in kept),
            reads=tuple(tuple(number[b] for b in self.reads[t]) for t in kept),
            writes=tuple(tuple(number[b] for b in tasks.writes[t]) for t in kept),
            hands_over=tuple(tuple((number[r], number[w], at) for r, w, at in self.hands_over[t]) for t in kept),
            flops=tuple(sum(tasks.flops[m] for m in self.members[t]) for t in kept),
            workspace=tuple(self.workspace[t] for t in kept), forward=tuple(tasks.forward[t] for t in kept),
            values=tuple(tasks.values[b] for b in buffers),
            writer=tuple(at for at, t in enumerate(kept) for _ in tasks.writes[t]),
            readers=tuple(map(tuple, readers)), bytes=tuple(tasks.bytes[b] for b in buffers),
            output=tuple(tasks.output[b] for b in buffers), overwrites=((),) * len(kept))
        return Contracted(made, tuple(self.members[t] for t in kept))

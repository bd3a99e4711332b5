"""Which buffers are alive when: the lives of all copies in an order of execution, and the bytes alive at each step.

An order is a sequence of task numbers; a task that stands in it again computes its buffers again. A read is of the
latest copy. A copy lives from the step that writes it to its last read (an output to the end), and where the result of
a step takes the memory of an operand that dies there, the two are counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ..ir.diagnostics import Fault
from .tasks import Tasks


@dataclass(frozen=True, eq=False)
class Lives:
    """One entry for each copy: its buffer, first step, last step, the steps that read it, and the copy that takes its
    memory (-1: none), which begins `offset` bytes before it.

    `alive` is the bytes alive at each step, the workspace of that step included.
    """

    order: tuple[int, ...]
    buffer: tuple[int, ...]
    start: tuple[int, ...]
    end: tuple[int, ...]
    reads: Sequence[Sequence[int]]
    heir: tuple[int, ...]
    offset: tuple[int, ...]
    alive: tuple[int, ...]

    @property
    def peak(self) -> int:
        """Most bytes alive at once; 0 for a program without tasks."""
        return max(self.alive, default=0)

    @property
    def peak_step(self) -> int:
        """The first step at which the peak is reached."""
        return self.alive.index(self.peak)


def lives(tasks: Tasks, order: Sequence[int]) -> Lives:
    """The lives of all copies; linear in the reads of the order. Fault E0601 where a step reads what is not there
    (any more)."""
    current = [-1] * len(tasks.values)
    buffers: list[int] = []
    start: list[int] = []
    reads: list[list[int]] = []
    gone: set[int] = set()  # what these read has been written over
    dying: list[tuple[int, int, int, int]] = []  # step, copy that may die there, copy that may take over, offset
    for step, task in enumerate(order):
        if task in gone:
            raise _overwritten(tasks, task)
        gone.update(tasks.overwrites[task])
        for b in tasks.reads[task]:
            copy = current[b]
            if copy < 0:
                raise _not_there(tasks, task, b)
            reads[copy].append(step)
        handed = [(current[r], w, at) for r, w, at in tasks.hands_over[task]]
        for b in tasks.writes[task]:
            current[b] = len(buffers)
            buffers.append(b)
            start.append(step)
            reads.append([])
        for copy, w, at in handed:
            dying.append((step, copy, current[w], at))
    final = len(order) - 1
    end = [final if tasks.output[b] else steps[-1] if steps else first
           for b, first, steps in zip(buffers, start, reads, strict=True)]
    change = [0] * (len(order) + 1)
    for copy, b in enumerate(buffers):
        change[start[copy]] += tasks.bytes[b]
        change[end[copy] + 1] -= tasks.bytes[b]
    alive = [a + tasks.workspace[task] for a, task in zip(accumulate(change[:-1]), order, strict=True)]
    heir = [-1] * len(buffers)
    offset = [0] * len(buffers)
    taken: set[tuple[int, int]] = set()
    for step, copy, taker, at in dying:
        if end[copy] == step and heir[copy] < 0 and (taker, at) not in taken and not tasks.output[buffers[copy]]:
            heir[copy], offset[copy] = taker, at
            taken.add((taker, at))
            alive[step] -= tasks.bytes[buffers[copy]]
    return Lives(tuple(order), tuple(buffers), tuple(start), tuple(end), reads, tuple(heir), tuple(offset),
                 tuple(alive))


def _overwritten(tasks: Tasks, task: int) -> Fault:
    return Fault("E0601", f"'{tasks.nodes[task].result.name}' reads a donated input that has been written over",
                 "what is written over an input comes after all that reads it")


def _not_there(tasks: Tasks, task: int, b: int) -> Fault:
    return Fault("E0601", f"'{tasks.nodes[task].result.name}' reads '{tasks.values[b].name}', "
                          "which has not been computed", "every operation comes after what it reads")

"""Lower bounds on the peak from linear programmes over pivots.

Take tasks p_1, ..., p_K, each an ancestor of the next, and stop any schedule at the first run of each. These K steps
cut it into K + 1 windows. What is alive at each of them, and which tasks run at least once in the windows from i to j,
are numbers between 0 and 1 that every schedule obeys linear inequalities in: what a task reads was alive at the start
of its windows or is computed in them; ancestors of a pivot have run before it, descendants have not; an output that has
been made stays; runs beyond the first cost flops. The least memory in that relaxation bounds the peak of every schedule
from below, whatever its order and however deep its recomputation nests.

With one pivot this is a minimum cut with a budget. Checkmate (Jain and others 2020, equation 1) has a window for each
task; its relaxation is weak because a fraction of a value that is kept serves again in each window. Here the runs in
*every interval* of windows are variables of their own, so a programme is never weaker than that of a part of its
pivots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from .tasks import Tasks

Array = numpy.ndarray[Any, Any]


def ancestors(tasks: Tasks, task: int) -> Array:
    """The tasks that a task depends on, itself excluded, as a mask. Linear in the reads."""
    found = numpy.zeros(len(tasks.nodes), bool)
    stack = [task]
    while stack:
        for b in tasks.reads[stack.pop()]:
            writer = tasks.writer[b]
            if not found[writer]:
                found[writer] = True
                stack.append(writer)
    return found


def descendants(tasks: Tasks, task: int) -> Array:
    """The tasks that depend on a task, itself excluded, as a mask. Linear in the reads."""
    found = numpy.zeros(len(tasks.nodes), bool)
    stack = [task]
    while stack:
        for b in tasks.writes[stack.pop()]:
            for reader in tasks.readers[b]:
                if not found[reader]:
                    found[reader] = True
                    stack.append(reader)
    return found


@dataclass(frozen=True, eq=False)
class Unknowns:
    """A number between 0 and 1 for each task or buffer: its column in the programme, or -1 where `value` settles it."""

    column: Array
    value: Array

    def certain(self) -> Array:
        """Where the number is 1 whatever the solution."""
        return (self.column < 0) & (self.value > 0)

    def possible(self) -> Array:
        """Where the number can be more than 0."""
        return (self.column >= 0) | (self.value > 0)


class Programme:
    """The relaxation over pivots p_1, ..., p_K, ready to be solved at any budget.

    Window k ends with the first run of p_{k+1}, the last one with the schedule. `runs[i, j]`, for each task: it runs in
    one of the windows i to j. `alive[k]`, for each buffer: it is alive at the first run of pivot k. `dies[k]`: it is
    read there for the last time and a result takes over its memory.
    """

    def __init__(self, tasks: Tasks, pivots: Sequence[int]) -> None:
        self.tasks, self.pivots = tasks, tuple(pivots)
        self.size = numpy.array(tasks.bytes, dtype=float)
        self.flops = numpy.array(tasks.flops, dtype=float)
        self.writer = numpy.array(tasks.writer, dtype=numpy.int64)
        self.output = numpy.array(tasks.output, dtype=bool)
        self.final = numpy.array([all(tasks.output[b] for b in written) for written in tasks.writes], dtype=bool)
        self.columns = 1  # column 0 is the peak
        self.above = [ancestors(tasks, p) for p in self.pivots]
        self.below = [descendants(tasks, p) for p in self.pivots]
        last = len(self.pivots)
        self.runs = {(i, j): self._runs(i, j) for i in range(last + 1) for j in range(i, last + 1)}
        self.alive = [self._alive(k) for k in range(last)]
        self.dies = [self._dies(k) for k in range(last)]
        self.matrix, self.limit = self._inequalities()

    def _unknowns(self, certain: Array, possible: Array) -> Unknowns:
        free = possible & ~certain
        column = numpy.full(len(free), -1, dtype=numpy.int64)
        column[free] = numpy.arange(self.columns, self.columns + int(free.sum()))
        self.columns += int(free.sum())
        return Unknowns(column, certain.astype(float))

    def _runs(self, i: int, j: int) -> Unknowns:
        """A task whose results are all outputs runs once: its results stay. All others run at least once in all."""
        certain, possible = numpy.ones(len(self.flops), bool), numpy.ones(len(self.flops), bool)
        if i:  # these windows begin after a first run
            before = self.pivots[i - 1]
            certain &= self.below[i - 1]
            possible &= ~(self.final & self.above[i - 1])
            possible[before] = not self.final[before]
        if j < len(self.pivots):  # these windows end with a first run
            certain &= self.above[j]
            possible &= ~self.below[j]
            certain[self.pivots[j]] = possible[self.pivots[j]] = True
        return self._unknowns(certain, possible)

    def _alive(self, k: int) -> Unknowns:
        pivot, before = self.pivots[k], self.runs[0, k]
        certain = self.output & before.certain()[self.writer]
        certain[[*self.tasks.reads[pivot], *self.tasks.writes[pivot]]] = True
        return self._unknowns(certain, before.possible()[self.writer])

    def _dies(self, k: int) -> Unknowns:
        possible = numpy.zeros(len(self.size), bool)
        possible[[read for read, _, _ in self.tasks.hands_over[self.pivots[k]]]] = True
        return self._unknowns(numpy.zeros(len(self.size), bool), possible & ~self.output)

    def _inequalities(self) -> tuple[Any, Array]:
        """Matrix and right-hand sides: a row says that a sum is at most its limit. The last rows are the bytes at each
        pivot, then the flops."""
        rows, last = _Rows(), len(self.pivots)
        tasks, buffers = numpy.arange(len(self.flops)), numpy.arange(len(self.size))
        reader = numpy.array([t for t, row in enumerate(self.tasks.reads) for _ in row], dtype=numpy.int64)
        read = numpy.array([b for row in self.tasks.reads for b in row], dtype=numpy.int64)
        made = numpy.flatnonzero(self.output)
        for (i, j), runs in self.runs.items():
            rows.add((runs, reader, 1), (runs, self.writer[read], -1), *self._at_hand(i, read))
            for middle in range(i, j):
                rows.add((runs, tasks, 1), (self.runs[i, middle], tasks, -1), (self.runs[middle + 1, j], tasks, -1))
            if i < j:
                rows.add((self.runs[i + 1, j], tasks, 1), (runs, tasks, -1))
                rows.add((self.runs[i, j - 1], tasks, 1), (runs, tasks, -1))
            if j < last:
                rows.add((self.alive[j], buffers, 1), (runs, self.writer, -1), *self._at_hand(i, buffers))
        for k, pivot in enumerate(self.pivots):
            rows.add((self.runs[0, k], self.writer[made], 1), (self.alive[k], made, -1))
            places = {(written, offset) for _, written, offset in self.tasks.hands_over[pivot]}
            rows.total([(self.dies[k], numpy.ones(len(buffers)))], len(places))
        for k, pivot in enumerate(self.pivots):
            rows.total([(self.alive[k], self.size), (self.dies[k], -self.size)], -self.tasks.workspace[pivot],
                       peak=True)
        rows.total([(self.runs[k, k], self.flops) for k in range(last + 1)], float(self.flops.sum()))
        return rows.matrix(self.columns)

    def _at_hand(self, window: int, buffer: Array) -> list[tuple[Unknowns, Array, int]]:
        """What the tasks of a window find alive at its start."""
        return [(self.alive[window - 1], buffer, -1), (self.dies[window - 1], buffer, 1)] if window else []

    def solve(self, flops: int) -> float:
        """Bytes that no schedule whose repeats cost at most `flops` stays below, by linear programming.

        The number comes from the dual solution and holds however inexact that is (Neumaier and Shcherbina 2004, section
        3): every variable lies between known limits.
        """
        from scipy.optimize import linprog
        from scipy.sparse import diags_array

        scale = max(float(self.size.max(initial=0)), 1.0)
        rows = numpy.ones(len(self.limit))
        rows[-1 - len(self.pivots):-1] = 1 / scale
        rows[-1] = 1 / max(float(self.flops.sum()), 1.0)
        columns = numpy.ones(self.columns)
        columns[0] = scale
        matrix = diags_array(rows) @ self.matrix @ diags_array(columns)
        limit = self.limit.copy()
        limit[-1] += flops
        limit *= rows
        cost, high = numpy.zeros(self.columns), numpy.ones(self.columns)
        cost[0], high[0] = 1.0, self.most / scale
        found = linprog(cost, A_ub=matrix, b_ub=limit, bounds=numpy.stack([numpy.zeros(self.columns), high], 1),
                        method="highs-ds")
        if found.x is None:
            return 0.0
        dual = numpy.minimum(found.ineqlin.marginals, 0.0)
        reduced = cost - matrix.T @ dual
        safe = float(limit @ dual + numpy.minimum(reduced, 0.0) @ high)
        return (safe - 1e-9 * abs(safe)) * scale

    def solve_whole(self, flops: int, time: float) -> tuple[float, float]:
        """As `solve`, but a task runs or does not, and a buffer is alive or is not: by CP-SAT, in integers, in so much
        of its deterministic time (about seconds). What is proven by then holds, and comes with the time spent."""
        from ortools.sat.python import cp_model

        model = cp_model.CpModel()
        numbers = [model.new_int_var(0, self.most, "peak"), *(model.new_bool_var("") for _ in range(self.columns - 1))]
        limit = self.limit.astype(numpy.int64)
        limit[-1] += min(flops, len(self.runs) * sum(self.tasks.flops))
        weight = self.matrix.data.astype(numpy.int64)
        for low, high, most in zip(self.matrix.indptr, self.matrix.indptr[1:], limit.tolist(), strict=False):
            row = [numbers[c] for c in self.matrix.indices[low:high].tolist()]
            model.add(cp_model.LinearExpr.weighted_sum(row, weight[low:high].tolist()) <= most)
        model.minimize(numbers[0])
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.linearization_level = 2
        solver.parameters.random_seed = 0
        solver.parameters.catch_sigint_signal = False
        solver.parameters.max_deterministic_time = time
        solver.solve(model)
        return float(solver.best_objective_bound), float(solver.response_proto.deterministic_time)

    @property
    def most(self) -> int:
        """Bytes that are never alive at once."""
        return sum(self.tasks.bytes) + max(self.tasks.workspace, default=0)


class _Rows:
    """Inequalities under construction, as triples of row, column and weight. Settled numbers go to the right."""

    def __init__(self) -> None:
        self.row: list[Array] = []
        self.column: list[Array] = []
        self.weight: list[Array] = []
        self.limit: list[Array] = []
        self.count = 0

    def add(self, *terms: tuple[Unknowns, Array, int]) -> None:
        """One row for each position of the index arrays: the sum of weight * number is at most 0."""
        limit: Array = numpy.sum([-weight * numbers.value[index] for numbers, index, weight in terms], axis=0)
        free = [(numbers.column[index] >= 0) * weight for numbers, index, weight in terms if weight > 0]
        highest: Array = numpy.sum(free, axis=0)
        needed = highest > limit  # others hold whatever the numbers are
        row = numpy.cumsum(needed) - 1 + self.count
        for numbers, index, weight in terms:
            chosen = needed & (numbers.column[index] >= 0)
            self._entries(row[chosen], numbers.column[index][chosen], numpy.full(int(chosen.sum()), float(weight)))
        self.limit.append(limit[needed])
        self.count += int(needed.sum())

    def total(self, terms: list[tuple[Unknowns, Array]], limit: float, peak: bool = False) -> None:
        """One row: the sum over all entries of weight * number is at most the limit, or that and the peak."""
        for numbers, weight in terms:
            free = numbers.column >= 0
            self._entries(numpy.full(int(free.sum()), self.count), numbers.column[free], weight[free])
            limit -= float(weight @ numbers.value)
        if peak:
            self._entries(numpy.array([self.count]), numpy.array([0]), numpy.array([-1.0]))
        self.limit.append(numpy.array([limit]))
        self.count += 1

    def _entries(self, row: Array, column: Array, weight: Array) -> None:
        self.row.append(row)
        self.column.append(column)
        self.weight.append(weight)

    def matrix(self, columns: int) -> tuple[Any, Array]:
        from scipy.sparse import csr_matrix

        entries = numpy.concatenate(self.weight), (numpy.concatenate(self.row), numpy.concatenate(self.column))
        return csr_matrix(entries, shape=(self.count, columns)), numpy.concatenate(self.limit)

"""Block sizes: how large the blocks of each region are, chosen with the plan.

A region needs the workspace of one block while it runs. The order of execution is looked for with the smallest blocks
of every region. Then each region is given the largest that fit beside what is alive whenever it runs: where memory is
not at its peak those that suit the caches, at the peak smaller ones.

    @tile(rows=(1, 64))             # chosen: at the peak; elsewhere (2, 256)
    def R_rows_bar(Q, K, V, R_bar): ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir.graph import Graph, Node, Value
from ..ir.target import Target
from .blocks import blocks, by_blocks, choices
from .liveness import lives
from .rebuild import extended
from .tasks import Tasks, tasks

Size = tuple[int, ...]


@dataclass(frozen=True)
class Blocking:
    """By what blocks the region of that name runs: their size along each axis that is cut, rows last, and the bytes of
    workspace that they need; and the size that suits the caches, with what that needs."""

    region: str
    size: Size
    workspace: int
    suited: Size
    suited_workspace: int

    @property
    def smaller(self) -> bool:
        """Are the blocks smaller than suits the caches, for the sake of memory?"""
        return self.size != self.suited


class BlockSizes:
    """The choices of one program, which is legal for the target. `least` are its tasks with the smallest blocks;
    without a choice they are the program's own."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.made: dict[tuple[str, Size], Graph] = {}
        self.choices = {body.name: choices(body, target) for body in graph.regions()}
        self.run_by: dict[str, list[tuple[int, Node]]] = {}
        """By the name of a body of whose blocks there is a choice: the tasks that run it."""
        for task, node in enumerate(n for n in graph.nodes if not n.op.view):
            if by_blocks(node, target) and len(self.choices[node.attributes["body"].name]) > 1:
                self.run_by.setdefault(node.attributes["body"].name, []).append((task, node))
        self.least = self._tasks({name: self.choices[name][-1] for name in self.run_by})

    def within(self, order: Sequence[int], limit: int, share: float = 1.0) -> Tasks:
        """The tasks with the largest blocks that leave the order's live bytes at or below `limit`, if they take no more
        than a share of what is free there."""
        least = self.least
        alive = lives(least, order)
        room: dict[int, int] = {}
        for step, task in enumerate(order):
            free = limit - alive.alive[step] + least.target.padded(least.workspace[task])
            room[task] = min(free, room.get(task, free))
        chosen = {}
        for name, run_by in self.run_by.items():
            chosen[name] = next(
                (size for size in self.choices[name]
                 if all(self._workspace(node, size) <= share * room[t] for t, node in run_by if t in room)),
                self.choices[name][-1])
        return self._tasks(chosen)

    def chosen(self, seen: Tasks) -> tuple[Blocking, ...]:
        """The choices that tasks of `within` were made with, in the order of the program."""
        found = []
        for name, run_by in self.run_by.items():
            task, _ = run_by[0]
            body: Graph = seen.nodes[task].attributes["body"]
            assert body.rows is not None
            suited = self.choices[name][0]
            found.append(Blocking(body.name, body.rows, max(self._workspace(n, body.rows) for _, n in run_by),
                                  suited, max(self._workspace(n, suited) for _, n in run_by)))
        return tuple(found)

    def _workspace(self, node: Node, size: Size) -> int:
        sized = Node(node.op, node.operands, {"body": self._sized(node, size)})
        return self.target.padded(blocks(sized, self.target).workspace)

    def _sized(self, node: Node, size: Size) -> Graph:
        body: Graph = node.attributes["body"]
        return self.made.setdefault((body.name, size), body.tiled(size))

    def _tasks(self, chosen: Mapping[str, Size]) -> Tasks:
        """The program's tasks with these blocks, in the same order."""
        if not chosen:
            return tasks(self.graph, self.target)
        builder = extended(self.graph, nodes=False)
        builder.donated = dict(self.graph.donated)
        now: dict[Value, Value] = {}
        for node in self.graph.nodes:
            operands = [now.get(v, v) for v in node.operands]
            name = node.attributes["body"].name if node.op.name == "region" else ""
            if name in chosen:
                results = builder.region(self._sized(node, chosen[name]), operands, span=node.results[0].span)
                for old, new in zip(node.results, results, strict=True):
                    new.name = old.name
            elif operands == list(node.operands):
                builder.adopt([node])
                builder.nodes.append(node)
                continue
            else:
                results = builder.again(node, operands)
            now.update(zip(node.results, results, strict=True))
        outputs = [now.get(v, v) for v in self.graph.outputs]
        return tasks(builder.finish(outputs, [v.name for v in self.graph.outputs]), self.target)

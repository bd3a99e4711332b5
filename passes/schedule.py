"""Schedule: the program in a given order, operations repeated where the order repeats them, as a graph again."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Builder, Graph, Node, Value
from .rebuild import extended
from .tasks import Tasks


def scheduled(tasks: Tasks, order: Sequence[int]) -> Graph:
    """The graph whose tasks run in this order, marked `@scheduled`. A task's second run defines `x_r1`, and so on.

    Views are written again for each copy of what they look into, right before they are first read.

        z1: f64[9] = exp(x)             z1: f64[9] = exp(x)
        z2: f64[9] = sin(z1)            z2: f64[9] = sin(z1)
                                        z1_r1: f64[9] = exp(x)
    """
    return _Scheduled(tasks).run(order)


class _Scheduled:
    """The graph under construction, and the latest copy of each value."""

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.builder: Builder = extended(tasks.graph, nodes=False)
        self.builder.scheduled = True
        self.builder.adopt(tasks.graph.nodes)
        self.builder.donated = dict(tasks.graph.donated)
        self.latest: dict[Value, Value] = {}
        self.runs: dict[Value, int] = {}

    def run(self, order: Sequence[int]) -> Graph:
        for task in order:
            node = self.tasks.nodes[task]
            operands = tuple(map(self._operand, node.operands))
            self._copy(node, operands)
        graph = self.tasks.graph
        outputs = [self._operand(v) for v in graph.outputs]
        return self.builder.finish(outputs, [v.name for v in graph.outputs])

    def _operand(self, value: Value) -> Value:
        """The latest copy of a value. A chain of views is written anew where what it looks into has been."""
        chain = []
        root = value
        while root.node is not None and root.node.op.view:
            chain.append(root)
            root = root.node.operands[0]
        now = self.latest.get(root, root)
        for view in reversed(chain):
            assert view.node is not None
            known = self.latest.get(view)
            if known is None or known.node is None or known.node.operands[0] is not now:
                self._copy(view.node, (now,))
            now = self.latest[view]
        return now

    def _copy(self, node: Node, operands: tuple[Value, ...]) -> None:
        made = Node(node.op, operands, node.attributes)
        results = []
        for old in node.results:
            run = self.runs.get(old, 0)
            self.runs[old] = run + 1
            name = self.builder.fresh(f"{old.name}_r{run}") if run else old.name
            results.append(Value(name, old.type, made, old.span))
            self.latest[old] = results[-1]
        made.results = tuple(results)
        self.builder.nodes.append(made)


"""The program as a planner sees it: tasks that read and write buffers.

A task is an operation that owns memory; views have none and follow the buffer that they look into. Inputs are there
all the time and are not counted, so they do not appear.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..ir.graph import Graph, Node, Value, buffer
from ..ir.target import Target
from .donation import lodgings
from .in_place import heirlooms, operands_of


@dataclass(frozen=True, eq=False)
class Tasks:
    """Tasks in the order of the graph, and buffers in the order in which they are written; both are numbered from 0.

    Bytes are padded as the target's arena pads them. `hands_over` lists (buffer read, buffer written, offset in bytes)
    such that the result may lie with that offset over the operand's memory when the operand dies. `overwrites` lists,
    itself among them, the tasks that may not run once this one has written over what they read of a donated input
    (`passes.donation`); what lies there has no bytes. `flops` are those of an operation, or those that the device could
    do while its bytes are moved, if that is more (Williams, Waterman and Patterson 2009). `forward`: the task computes
    a value, not only a derivative.
    """

    graph: Graph
    target: Target
    nodes: tuple[Node, ...]
    reads: tuple[tuple[int, ...], ...]
    writes: tuple[tuple[int, ...], ...]
    hands_over: tuple[tuple[tuple[int, int, int], ...], ...]
    flops: tuple[int, ...]
    workspace: tuple[int, ...]
    forward: tuple[bool, ...]
    values: tuple[Value, ...]
    writer: tuple[int, ...]
    readers: tuple[tuple[int, ...], ...]
    bytes: tuple[int, ...]
    output: tuple[bool, ...]
    overwrites: tuple[tuple[int, ...], ...]

    @property
    def forward_flops(self) -> int:
        """Flops of the forward program: what a budget is a fraction of."""
        return sum(f for f, forward in zip(self.flops, self.forward, strict=True) if forward)

    def to_networkx(self) -> Any:
        """`graph.to_networkx()` with what the target adds, for other planners.

        Each node has three more attributes: `workspace`, the bytes that its operation needs while it runs; `in_place`,
        the pairs (value, offset in bytes) over whose memory it may be written if that value dies there; `forward`,
        whether it is part of the value and not only of a derivative. `bytes` are padded as in the arena. Inputs have
        neither workspace nor `in_place`.
        """
        made = self.graph.to_networkx()
        for attribute, nothing in (("workspace", 0), ("in_place", ()), ("forward", True)):
            for name in made:
                made.nodes[name][attribute] = nothing
        needed = forward_nodes(self.graph)
        for node in self.graph.nodes:
            for value in node.results:
                made.nodes[value.name]["forward"] = node in needed
        for b, value in enumerate(self.values):
            task = self.writer[b]
            made.nodes[value.name].update(
                bytes=self.bytes[b], workspace=self.workspace[task], output=self.output[b],
                in_place=tuple((self.values[r].name, at) for r, w, at in self.hands_over[task] if w == b))
        return made

    @property
    def order(self) -> tuple[int, ...]:
        """Each task once, as the graph has them."""
        return tuple(range(len(self.nodes)))


def tasks(graph: Graph, target: Target, inlined: Collection[Node] = (), outside: Collection[Value] = ()) -> Tasks:
    """The tasks of a graph that is legal for the target (`passes.legalize`). Nodes that are `inlined` belong to the
    task of their reader (`passes.inlining`). Outputs that lie `outside` have memory elsewhere, and count nothing."""
    nodes = tuple(n for n in graph.nodes if not n.op.view and n not in inlined)
    values = tuple(v for n in nodes for v in n.results)
    number = {v: i for i, v in enumerate(values)}
    kept = {buffer(v) for v in graph.outputs}
    elsewhere = {buffer(v) for v in outside}
    lodged = lodgings(graph, target, inlined)
    task_of = {n: t for t, n in enumerate(nodes)}
    overwrites: list[dict[int, None]] = [{} for _ in nodes]
    for value, lodging in lodged.items():
        assert value.node is not None
        task = task_of[value.node]
        overwrites[task] |= dict.fromkeys((*(task_of[n] for n in lodging.before), task))
    reads, writes, hands_over = [], [], []
    readers: list[list[int]] = [[] for _ in values]
    for task, node in enumerate(nodes):
        operands = list(operands_of(node, inlined))
        roots = [buffer(v) for v in operands]
        found = tuple(dict.fromkeys(number[r] for r in roots if r in number))
        for b in found:
            readers[b].append(task)
        reads.append(found)
        writes.append(tuple(number[v] for v in node.results))
        hands_over.append(tuple((number[r], number[z], at) for r, z, at in heirlooms(node, operands, target)
                                if r in number and not lodged.keys() & {r, z} and z not in elsewhere))
    needed = forward_nodes(graph)
    ridge = target.ridge(graph)
    needs = [_needs(n, target, ridge) for n in nodes]
    return Tasks(
        graph, target, nodes, tuple(reads), tuple(writes), tuple(hands_over),
        tuple(flops for flops, _ in needs), tuple(workspace for _, workspace in needs),
        tuple(n in needed for n in nodes),
        values, tuple(t for t, n in enumerate(nodes) for _ in n.results), tuple(map(tuple, readers)),
        tuple(0 if v in lodged or v in elsewhere else target.padded(v.type.bytes) for v in values),
        tuple(v in kept for v in values),
        tuple(map(tuple, overwrites)))


def _needs(node: Node, target: Target, ridge: int) -> tuple[int, int]:
    """Flops of one run of an operation, and the bytes that it needs beside operands and results: of a region that runs
    by blocks, the flops of all blocks, of the columns that each sees, and what one of them needs."""
    from .blocks import blocks, by_blocks
    from .cost import moved

    if not by_blocks(node, target):
        return max(node.flops, ridge * moved(node)), target.workspace(node)
    found = blocks(node, target)
    return found.flops, found.workspace


def forward_nodes(graph: Graph) -> set[Node]:
    """The nodes that some output depends on which is no derivative.

    The adjoint calls its gradients `x_bar` and the tangent its derivatives `y_dot`, and what an update writes over a
    donated input comes after them; all other outputs are values. A program without these is forward as a whole.
    """
    names = {v.name for v in (*graph.inputs, *graph.outputs)}

    def derived(name: str) -> bool:
        stem, bar, tail = name.rpartition("_")
        return bool(bar) and tail in ("bar", "dot") and (stem in names or derived(stem))

    updated = set(graph.donated.values())
    values = [v for v in graph.outputs if not derived(v.name) and v.name not in updated]
    if not values or len(values) == len(graph.outputs):
        return set(graph.nodes)
    found: set[Node] = set()
    stack = [v.node for v in values]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.add(node)
            stack.extend(v.node for v in node.operands)
    return found

"""Kernels: each group of operations that one kernel does (passes/groups.py) becomes a region, a def of its own.

    X: bf16[64, 32] = H @ W                         @tile()
    a: bf16[64, 32] = 0.5 * X                       def G_fused(X: bf16[64, 32]) -> bf16[64, 32]:
    b: bf16[64, 32] = X * 0.707031                      a: bf16[64, 32] = 0.5 * X
    c: bf16[64, 32] = erf(b)                            ...
    e: bf16[64, 32] = 1.0 + c                           return G
    G: bf16[64, 32] = a * e
                                                    X: bf16[64, 32] = H @ W
                                                    G: bf16[64, 32] = G_fused(X)

So the text says what a kernel computes, and what is planned is what runs: values within a region have no memory. Names
within lose their numbers, and equal layers share one def. A product and the sum that takes it are one region too, where
the library's product adds to what is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..ir.diagnostics import Fault
from ..ir.graph import Builder, Constant, Graph, Node, Value, buffer
from ..ir.layout import Layout, chain, layout
from ..ir.rows import rows_of
from ..ir.target import Target
from .groups import Group, fits, groups
from .rebuild import extended


def in_kernels(graph: Graph, target: Target) -> Graph:
    """The program with regions in the place of its groups of several operations. A `@scheduled` one is left alone.

    Operations whose values do not meet row by row (ir/rows.py) stay as they are, and so does a single one.
    """
    if graph.scheduled or not (target.fusible or target.adds_products):
        return graph
    sums = product_sums(graph, target) if target.adds_products else {}
    fusible = target.fusible
    made = groups(graph, lambda n: n not in sums and fusible is not None and fusible(n)) if fusible else []
    made += [Group((product, add), (), add.results, None) for add, product in sums.items()]
    return _Kernels(graph, made).run()


def product_sums(graph: Graph, target: Target) -> dict[Node, Node]:
    """The sums of a product and something that is there already, with the product: nothing else reads it, and the sum
    has to be stored for an operation that reads it."""
    readers: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        for v in node.operands if not node.op.view else ():
            readers.setdefault(buffer(v), []).append(node)
    outputs = {buffer(v) for v in graph.outputs}
    found: dict[Node, Node] = {}
    for node in reversed(graph.nodes):
        if node.op.name != "add" or not node.result.dtype.is_float or not 2 <= node.result.type.rank <= 3:
            continue
        if target.fusible is not None and node.result not in outputs and all(
                reader not in found and fits(reader, target.fusible) for reader in readers.get(node.result, ())):
            continue
        for product, other in (node.operands, node.operands[::-1]):
            made = product.node
            if made is not None and made.op.name == "matmul" and len(readers[product]) == 1 \
                    and product not in outputs and other is not product and _adds_to(other) \
                    and all(_outside(v, ()) is v for v in made.operands):
                found[node] = made
                break
    return found


def as_product_sum(body: Graph) -> tuple[Value, Value, Value] | None:
    """z, x and y where the body of a region is z + x @ y; None where it is something else."""
    if len(body.nodes) != 2 or len(body.inputs) != 3:
        return None
    product, add = body.nodes
    if product.op.name != "matmul" or add.op.name != "add" or product.result not in add.operands:
        return None
    other = add.operands[add.operands[0] is product.result]
    x, y = product.operands
    return (other, x, y) if other in body.inputs else None


def _adds_to(value: Value) -> bool:
    """Does it lie row by row, so that a product can be added to it?"""
    lies = layout(value)
    return not isinstance(buffer(value), Constant) and lies is not None and lies.contiguous


def _stem(name: str) -> str:
    """The name without its numbers."""
    return re.sub(r"_\d+(?=_|$)", "", name) or name


def _outside(value: Value, inside: Iterable[Value]) -> Value | None:
    """What is given to a group for an operand that it reads: the value itself, or what is repeated. None for what is
    computed inside, or is a constant."""
    root, views = chain(value)
    if root in inside or isinstance(root, Constant):
        return None
    given = root
    for view in views:
        assert view.node is not None
        if view.node.op.name == "broadcast_to":
            break
        given = view
    return given


class _Kernels:
    """The program under construction, and what each value of the original has become."""

    def __init__(self, graph: Graph, made: Sequence[Group]) -> None:
        self.graph = graph
        self.builder = extended(graph, nodes=False)
        self.builder.donated = dict(graph.donated)
        self.builder.adopt(graph.nodes)
        self.now: dict[Value, Value] = {}
        self.maker: dict[Value, Node | Group] = {}
        self.bodies: dict[Group, tuple[Graph, tuple[Value, ...]]] = {}
        for group in made:
            body = self._body(group) if sum(not n.op.view for n in group.nodes) > 1 else None
            if body is not None:
                self.bodies[group] = body
                self.maker.update((v, group) for v in group.results)
        for node in graph.nodes:
            for v in node.results:
                self.maker.setdefault(v, node)

    def run(self) -> Graph:
        """What the outputs need, in the order of the original as far as a group's operands allow."""
        if not self.bodies:
            return self.graph
        for node in self._live():
            for v in node.results:
                self._make(self.maker[v])
        outputs = [self.now.get(v, v) for v in self.graph.outputs]
        return self.builder.finish(outputs, [v.name for v in self.graph.outputs])

    def _live(self) -> list[Node]:
        """The operations that are emitted, or whose groups are."""
        needed: set[Value] = set()
        stack = list(self.graph.outputs)
        while stack:
            value = stack.pop()
            if value not in needed and value in self.maker:
                needed.add(value)
                stack += self._needs(self.maker[value])
        return [n for n in self.graph.nodes if any(v in needed for v in n.results)]

    def _needs(self, item: Node | Group) -> Sequence[Value]:
        return item.operands if isinstance(item, Node) else self.bodies[item][1]

    def _make(self, item: Node | Group) -> None:
        """Emit an operation or a group, after what it needs."""
        stack = [item]
        while stack:
            top = stack[-1]
            if top.results[0] in self.now:
                stack.pop()
                continue
            missing = [self.maker[v] for v in self._needs(top) if v in self.maker and v not in self.now]
            if missing:
                stack += missing[::-1]
                continue
            stack.pop()
            self._emit(top)

    def _emit(self, item: Node | Group) -> None:
        given = [self.now.get(v, v) for v in self._needs(item)]
        if isinstance(item, Node):
            self.now.update(zip(item.results, self.builder.again(item, given), strict=True))
            return
        found = self.builder.region(self.bodies[item][0], given, span=item.results[0].span)
        for old, new in zip(item.results, found, strict=True):
            new.name = old.name
            self.now[old] = new

    def _body(self, group: Group) -> tuple[Graph, tuple[Value, ...]] | None:
        """The group as a body of its own, and what it is given; None where its rows do not meet."""
        inside = {v for n in group.nodes if not n.op.view for v in n.results}
        given: dict[Value, Value] = {}
        looks: dict[tuple[Value, Layout | None], Value] = {}
        for node in group.nodes:
            for v in (_outside(o, inside) for o in node.operands) if not node.op.view else ():
                if v is not None:
                    given[v] = looks.setdefault((buffer(v), layout(v)), v)  # what looks alike into memory is one
        largest = sorted(looks.values(), key=lambda v: -v.type.size)
        for first in largest[:4]:
            order = (first, *(v for v in looks.values() if v is not first))
            body = _written(group, order, given)
            try:
                rows_of(body)
            except Fault:
                continue
            return body, order
        return None


def _written(group: Group, inputs: Sequence[Value], given: Mapping[Value, Value]) -> Graph:
    """The body with these inputs; `given` says which of them stands for what is read."""
    builder = Builder(f"{_stem(group.results[-1].name)}_fused")
    made = {v: builder.input(_stem(v.name), v.type) for v in inputs}
    now: dict[Value, Value] = {v: made[given[v]] for v in given}
    for node in group.nodes:
        if node.result in now or (node.op.view and node.operands[0] not in now
                                  and not isinstance(node.operands[0], Constant)):
            continue  # given, or a view of what is not
        operands = [now.get(v, v) for v in node.operands]
        now[node.result] = builder.emit(node.op, operands, node.attributes, name=_stem(node.result.name))
    body = builder.finish([now[v] for v in group.results])
    return body.tiled(())

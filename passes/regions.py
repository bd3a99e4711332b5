"""Regions among the other operations: their derivatives, and programs without them.

Rows that are independent stay so under differentiation: the cotangent of a rowed operand is rowed; that of a whole
operand is a sum over the rows, accumulated; the seed of an accumulated result is whole. So the adjoint of a region is
the region of the adjoint of its body, which computes the block again from the operands, and the tangent likewise.
Results of the region that are small beside what lies inside, statistics of each row, are given to it as operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..ir.arrays import Arrays
from ..ir.diagnostics import Fault
from ..ir.graph import Builder, Constant, Graph, Node, Value
from ..ir.rows import Rows, rows_of
from ..ir.target import Target
from ..ir.types import DType
from .rebuild import extended

STATISTIC = 8
"""A result this many times smaller than the largest value inside is a statistic: keeping it costs little."""


def unfused(graph: Graph, but: Callable[[Graph], bool] | None = None) -> Graph:
    """The same program without regions: each body stands in the place of its region, on whole arrays. Regions stay
    whose bodies `but` is true of."""
    if all(n.op.name != "region" or (but is not None and but(n.attributes["body"])) for n in graph.nodes):
        return graph
    builder = extended(graph, nodes=False)
    builder.scheduled = False
    builder.donated = dict(graph.donated)
    now = substitute(Arrays(builder), graph, {}, but=but)
    for old, new in now.items():
        if not new.name and not isinstance(new, Constant):
            new.name = old.name
    for node in builder.nodes:
        for value in node.results:
            if not value.name:
                builder.name_value(value, f"{graph.name}_t")
    return builder.finish([now.get(v, v) for v in graph.outputs], [v.name for v in graph.outputs])


def computed_again_inside(graph: Graph) -> int:
    """Flops that the bodies of regions have in common with others, and that the unfused program does once."""
    from .simplify import simplify

    if all(n.op.name != "region" for n in graph.nodes):
        return 0
    once = simplify(unfused(graph))
    return max(0, sum(n.flops for n in graph.nodes) - sum(n.flops for n in once.nodes))


def substitute(arrays: Arrays, body: Graph, now: dict[Value, Value], *, named: bool = False,
               but: Callable[[Graph], bool] | None = None) -> dict[Value, Value]:
    """The body's nodes emitted again, without names or with names like theirs, where `now` says what its inputs have
    become, and perhaps other values, which are not computed; regions are replaced by their bodies, but for those that
    `but` is true of. Returns the same with all values."""
    for node in body.nodes:
        if all(v in now for v in node.results):
            continue
        operands = [now.get(v, v) for v in node.operands]
        if node.op.name == "region":
            inner: Graph = node.attributes["body"]
            if but is not None and but(inner):
                now.update(zip(node.results, arrays.builder.region(inner, operands, span=node.results[0].span),
                               strict=True))
                continue
            inside = substitute(arrays, inner, dict(zip(inner.inputs, operands, strict=True)), named=named)
            now.update(zip(node.results, (inside[v] for v in inner.outputs), strict=True))
        else:
            arrays.span = node.result.span
            now[node.result] = made = arrays.emit(node.op, operands, node.attributes)
            if named and not made.name:
                arrays.builder.name_value(made, node.result.name)
    return now


def adjoint_region(builder: Builder, node: Node, seeds: Mapping[Value, Value],
                   wrt: Sequence[Value]) -> dict[Value, Value]:
    """Emit the region that computes the cotangents of a region's operands.

    `seeds` has the cotangents of those of its results that have one, `wrt` the inputs of its body whose cotangents are
    wanted. Returns the cotangent of each of them that is not zero.
    """
    from .adjoint import of_body

    body: Graph = node.attributes["body"]
    outer = dict(zip(body.outputs, node.results, strict=True))
    inside = {y: seeds[z] for y, z in outer.items() if z in seeds}
    made, seeded, bars = of_body(body, {y: _constant(g) for y, g in inside.items()}, wrt)
    operands = dict(zip(body.inputs, node.operands, strict=True)) | {g: inside[y] for y, g in seeded.items()}
    results = _emitted(builder, node, made, f"{body.name}_bar", operands)
    return dict(zip(bars, results, strict=True))


def tangent_region(builder: Builder, node: Node, seeds: Mapping[Value, Value]) -> dict[Value, Value]:
    """Emit the region that computes the tangents of a region's results. `seeds` has the tangents of those inputs of its
    body that have one. Returns the tangent of each result that depends on them."""
    from .tangent import of_body

    body: Graph = node.attributes["body"]
    made, seeded, dots = of_body(body, list(seeds))
    operands = dict(zip(body.inputs, node.operands, strict=True)) | {g: seeds[x] for x, g in seeded.items()}
    results = _emitted(builder, node, made, f"{body.name}_dot", operands)
    outer = dict(zip(body.outputs, node.results, strict=True))
    return {outer[y]: z for y, z in zip(dots, results, strict=True)}


def wide_sums(body: Graph, target: Target) -> Graph:
    """A body whose sums over the rows are of the dtypes in which the target adds their parts: that of a block is not
    rounded, and the parts are added as they are. The body itself where nothing changes."""
    rows = rows_of(body)
    if not any(rows.summed(v) and v.dtype in target.adds_in for v in body.outputs):
        return body
    inner = Builder(body.name, body.file)
    inner.inputs = list(body.inputs)
    inner.reserve(v.name for v in body.values())
    arrays = Arrays(inner)
    now: dict[Value, Value] = {}

    def widened(value: Value, dtype: DType) -> Value:
        value = now.get(value, value)
        return arrays.astype(value, target.adds_in[dtype]) if value.dtype is dtype else value

    for node in body.nodes:
        old = node.result
        arrays.span = old.span
        wide = rows.summed(old) and old.dtype in target.adds_in
        operands = [widened(v, old.dtype) if wide else now.get(v, v) for v in node.operands]
        now[old] = arrays.emit(node.op, operands, node.attributes)
        now[old].name = old.name
    for made in inner.nodes:
        if not made.result.name:
            inner.name_value(made.result, f"{body.name}_t")
    outputs = [now.get(v, v) for v in body.outputs]
    return inner.finish(outputs, [v.name for v in outputs]).tiled(body.rows)


def _constant(value: Value) -> Constant | None:
    """The constant that a value repeats, or is."""
    made = value.node
    if made is not None and made.op.name == "broadcast_to":
        value = made.operands[0]
    return value if isinstance(value, Constant) else None


def _emitted(builder: Builder, node: Node, made: Graph, name: str, operands: dict[Value, Value]) -> tuple[Value, ...]:
    """The region of a derivative's body: `made`, whose inputs stand for `operands`, less what the region knows."""
    from .simplify import simplify

    body: Graph = node.attributes["body"]
    known = {y: z for y, z in zip(body.outputs, node.results, strict=True) if _statistic(body, y)}
    inner = Builder(name, made.file)
    inner.inputs = list(made.inputs)
    inner.reserve({v.name for v in made.values()} - {y.name for y in known})
    now: dict[Value, Value] = {}
    for y, z in known.items():
        now[y] = inner.input(y.name, y.type, span=y.span)
        operands[now[y]] = z
    arrays = Arrays(inner)
    substitute(arrays, made, now)
    for old, new in now.items():
        if not new.name:
            new.name = old.name if old.name != new.name else new.name
    short = simplify(inner.finish([now.get(v, v) for v in made.outputs], [v.name for v in made.outputs]))
    given = _first(short, rows_of(body))
    graph = Graph(name, given, short.nodes, short.outputs, {}, len(given), rows=body.rows)
    return builder.region(graph, [operands[v] for v in given], span=node.results[0].span)


def _statistic(body: Graph, output: Value) -> bool:
    """Is it small beside the largest value inside, and none of the inputs' copies?"""
    largest = max(v.type.bytes for n in body.nodes for v in n.results)
    return STATISTIC * output.type.bytes <= largest and not rows_of(body).summed(output)


def _first(body: Graph, rows: Rows) -> list[Value]:
    """The inputs that are read, one first whose rows are those of the original body."""
    read = {v for n in body.nodes for v in n.operands}
    used = [v for v in body.inputs if v in read]
    for candidate in dict.fromkeys((*used, body.inputs[0])):
        order = [candidate, *(v for v in used if v is not candidate)]
        try:
            found = rows_of(Graph(body.name, order, body.nodes, body.outputs, {}, len(order), rows=()))
        except Fault:
            continue
        if found.lengths == rows.lengths:
            return order
    raise AssertionError(f"the derivative of {body.name} has no rows")

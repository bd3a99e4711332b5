"""Legalize: what a target stores but does not accumulate in is cast up before sums and products, and down after.

A sum of bfloat16 in bfloat16 stops growing at 256. So sums and products of f16 and bf16 are done in f32, and the
casts are operations of the program like any other: they are seen in its text, and counted in its plan.
"""

from __future__ import annotations

from ..ir.arrays import Arrays
from ..ir.graph import Graph, Value
from ..ir.ops import OPS
from ..ir.target import Target
from .rebuild import extended

ACCUMULATING = ("sum", "cumsum", "matmul", "scatter_add", "place")


def legalize(graph: Graph, target: Target) -> Graph:
    """An equal program whose sums and products are in dtypes that the target accumulates in.

        s: bf16 = sum(x, axis=0)        x_f32: f32[3000] = astype(x, f32)
                                        s_f32: f32 = sum(x_f32, axis=0)
                                        s: bf16 = astype(s_f32, bf16)
    """
    if not any(v.dtype in target.accumulates_in for v in graph.values()):
        return graph
    builder = extended(graph, nodes=False)
    arrays = Arrays(builder)
    now: dict[Value, Value] = {}
    for node in graph.nodes:
        old = node.results[0]
        arrays.span = old.span
        operands = tuple(now.get(v, v) for v in node.operands)
        wide = target.accumulates_in.get(old.dtype)
        if wide is None or node.op.name not in ACCUMULATING:
            value = arrays.emit(node.op, operands, node.attributes)
        else:
            raised = []
            for v in operands:
                cast = arrays.astype(v, wide) if v.dtype is old.dtype else v
                if not cast.name:
                    builder.name_value(cast, f"{v.name or old.name}_{wide}")
                raised.append(cast)
            result = arrays.emit(OPS[node.op.name], raised, node.attributes)
            builder.name_value(result, f"{old.name}_{wide}")
            value = arrays.astype(result, old.dtype)
        value.name = old.name
        now[old] = value
    return builder.finish([now.get(v, v) for v in graph.outputs], [v.name for v in graph.outputs])

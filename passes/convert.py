"""Convert: the same program in another floating-point dtype."""

from __future__ import annotations

from ..ir.arrays import Arrays
from ..ir.graph import Builder, Constant, Graph, Value
from ..ir.types import DType


def in_dtype(graph: Graph, to: DType) -> Graph:
    """The program with every floating-point value, input and constant in the dtype `to`; the graph itself where that
    is so already. A constant keeps the number that it has been rounded to.

        def f(x: f32):              def f(x: f64):
            y: f32 = sin(x)             y: f64 = sin(x)
            return y                    return y
    """
    if all(v.dtype is to or not v.dtype.is_float for v in graph.values()):
        return graph
    builder = Builder(graph.name, graph.file)
    builder.scheduled = graph.scheduled
    arrays = Arrays(builder)
    now: dict[Value, Value] = {}
    for position, value in enumerate(graph.inputs):
        type = value.type.with_dtype(to) if value.dtype.is_float else value.type
        now[value] = builder.input(value.name, type, graph.defaults.get(value.name),
                                   data=position >= graph.first_data, span=value.span)

    def converted(v: Value) -> Value:
        if not isinstance(v, Constant):
            return now[v]
        return builder.constant(v.number, to) if v.dtype.is_float else v

    for node in graph.nodes:
        old = node.result
        arrays.span = old.span
        attributes = node.attributes
        if "dtype" in attributes and attributes["dtype"].is_float:
            attributes = {**attributes, "dtype": to}
        value = arrays.emit(node.op, tuple(map(converted, node.operands)), attributes)
        builder.name_value(value, old.name)
        now[old] = value
    return builder.finish([converted(v) for v in graph.outputs], [v.name for v in graph.outputs])

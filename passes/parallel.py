"""Data parallelism: the mean over processes of what each computes from its own part of a batch.

The processes run the same program, so they meet in the same order at each sum. A sum is begun as soon as its operand is
there; what waits for it comes after the beginning of the next one, so that a gradient is on the wire while the backward
pass computes the one before.
"""

from __future__ import annotations

from ..ir.arrays import Arrays
from ..ir.graph import Constant, Graph, Value
from ..ir.ops import OPS
from .in_place import piece_offsets, tiled
from .rebuild import extended


def data_parallel(graph: Graph, processes: int) -> Graph:
    """A program of value and gradient whose scalar outputs and gradients are means over processes. The pieces of a
    gradient that a `place` puts together are summed one by one.

        return y, x_bar         x_bar_begun: f64[3] = all_reduce(x_bar, processes=2)
                                x_bar_sum: f64[3] = wait(x_bar_begun)
                                x_bar_1: f64[3] = 0.5 * x_bar_sum
                                ...
                                return y_1, x_bar_1
    """
    if processes == 1:
        return graph
    builder = extended(graph)
    arrays = Arrays(builder)
    inputs = {f"{v.name}_bar" for v in graph.inputs}
    outputs = []
    for v in graph.outputs:
        node = v.node
        if v.name in inputs and node is not None and node.op.name == "place" and tiled(node) \
                and None not in piece_offsets(node):
            parts = [mean(arrays, p, processes, v.name) for p in node.operands]
            v = arrays.place(parts, node.attributes["at"], v.shape)
        elif v.dtype.is_float and (v.name in inputs or not v.shape):
            v = mean(arrays, v, processes, v.name)
        outputs.append(v)
    return builder.finish(outputs, [v.name for v in graph.outputs], graph)


def mean(arrays: Arrays, value: Value, processes: int, name: str) -> Value:
    """The mean of a value over processes; the value itself where there is one, or it is a constant."""
    if processes == 1 or isinstance(value, Constant):
        return value
    builder = arrays.builder
    begun = arrays.emit(OPS["all_reduce"], (value,), {"processes": processes})
    builder.name_value(begun, f"{name}_begun")
    total = arrays.emit(OPS["wait"], (begun,))
    builder.name_value(total, f"{name}_sum")
    found = arrays.elementwise("multiply", total, 1.0 / processes)
    builder.name_value(found, f"{name}_mean")
    return found

"""Legalize: what a target would do behind the program's back is written into the program.

A sum of bfloat16 in bfloat16 stops growing at 256, so sums and products of f16 and bf16 are done in f32 where the
target says so; so are functions that it has in f32 alone. A reshape of what does not lie row by row, and a product of
what a BLAS cannot take as it lies, need a copy, and so does an output, which is given back row by row,
and one that is written over a donated input which its operation reads otherwise than in place. The casts and
copies are operations like any other: they are seen in the text, and counted in the plan.
"""

from __future__ import annotations

import math

from ..ir.arrays import Arrays
from ..ir.diagnostics import Fault
from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..ir.layout import layout, nested, reshaped
from ..ir.ops import OPS
from ..ir.shapes import disjoint, forwards
from ..ir.target import Target
from ..ir.types import DType, Shape
from .attention import with_attention
from .donation import donating
from .kernels import in_kernels
from .rebuild import extended
from .regions import unfused, wide_sums
from .simplify import simplify

ACCUMULATING = ("sum", "cumsum", "matmul", "scatter_add", "place")


def legalize(graph: Graph, target: Target) -> Graph:
    """An equal program that the target runs as it stands: no reshape that copies, no cast or copy that is not there.

        s: bf16 = sum(x, axis=0)        x_f32: f32[3000] = astype(x, f32)
                                        s_f32: f32 = sum(x_f32, axis=0)
                                        s: bf16 = astype(s_f32, bf16)

        y: f64[6] = reshape(x.T, (6,))  x_t: f64[3, 2] = x.T
                                        x_t_rows: f64[3, 2] = copy(x_t)
                                        y: f64[6] = reshape(x_t_rows, (6,))
    """
    graph = with_attention(graph, target)
    if not target.regions:
        whole = unfused(graph, target.serves)
        graph = whole if whole is graph or graph.scheduled else simplify(whole)  # what two bodies share is done once
    legal = _Legal(graph, target).run()
    made = donating(in_kernels(legal, target), target) or donating(legal, target)
    assert made is not None, graph
    return made


class _Legal:
    """The program under construction, and what each value of the original has become."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.builder = extended(graph, nodes=False)
        self.builder.donated = dict(graph.donated)
        self.arrays = Arrays(self.builder)
        self.now: dict[Value, Value] = {}
        self.rows: dict[Value, Value] = {}
        self.changed = False

    def run(self) -> Graph:
        graph, now = self.graph, self.now
        for node in graph.nodes:
            old = node.results[0]
            self.arrays.span = old.span
            operands = tuple(now.get(v, v) for v in node.operands)
            if node.op.name == "region":
                self._region(node, operands)
                continue
            if node.op.name == "reshape":
                operands = (self._viewable(operands[0], node.attributes["shape"]),)
            elif node.op.name == "matmul" and self.target.products_as_blas:
                operands = tuple(v if self._multiplied(v) else self._row_by_row(v) for v in operands)
            elif node.op.name in self.target.row_by_row:
                places = self.target.row_by_row[node.op.name]
                operands = tuple(self._row_by_row(v) if i in places and not _in_rows(v) else v
                                 for i, v in enumerate(operands))
            wide = self._wide(node)
            if node.op.name == "slice" and self.target.steps_forward:
                value = self._forwards(node, operands[0])
            elif node.op.family == "collective" and not self.target.collectives:
                value = self._alone(node, operands)
            elif wide is None:
                value = self.arrays.emit(node.op, operands, node.attributes)
            else:
                value = self._between_casts(node, operands, wide)
            value.name = old.name
            now[old] = value
        outputs = [now.get(v, v) for v in graph.outputs]
        for i, v in enumerate(outputs):
            if not (_in_rows(v) and v.type.size == buffer(v).type.size):
                outputs[i] = self._row_by_row(v)
        if not self.changed:
            return graph
        return self.builder.finish(outputs, [v.name for v in graph.outputs])

    def _region(self, node: Node, operands: tuple[Value, ...]) -> None:
        """The region, its operands as they lie; but what no program can be told to lie so is copied. Sums over rows of
        a dtype that is not summed in are added in the wider one, and converted afterwards."""
        body: Graph = node.attributes["body"]
        if self.target.regions:
            operands = tuple(v if _declared(v) else self._row_by_row(v) for v in operands)
            body = wide_sums(body, self.target)
        found = self.builder.region(body, operands, span=self.arrays.span)
        for old, new in zip(node.results, found, strict=True):
            if new.type is old.type:
                new.name = old.name
            else:
                self.builder.name_value(new, f"{old.name}_{new.dtype}")
                new = self.arrays.astype(new, old.dtype)
                new.name = old.name
                self.changed = True
            self.now[old] = new

    def _alone(self, node: Node, operands: tuple[Value, ...]) -> Value:
        """A sum over one process; Fault E0416 if there are more."""
        if node.attributes.get("processes", 1) > 1:
            raise Fault("E0416", f"'{node.result.name}' is a sum over {node.attributes['processes']} processes, and "
                                 f"the backend {self.target.name} runs in one", "backend=\"torch\" (--backend torch)")
        self.changed = True
        return self.arrays.emit(OPS["copy"], operands)

    def _wide(self, node: Node) -> DType | None:
        """The dtype in which the operation is done, if it is not that of its result."""
        name, dtype = node.op.name, node.result.dtype
        if name == "place" and disjoint(node.attributes["at"]):
            return None
        if name in ACCUMULATING and dtype in self.target.accumulates_in:
            return self.target.accumulates_in[dtype]
        return self.target.computed_in.get((name, dtype))

    def _between_casts(self, node: Node, operands: tuple[Value, ...], wide: DType) -> Value:
        """The operation in the wide dtype."""
        old = node.results[0]
        raised = []
        for v in operands:
            cast = self.arrays.astype(v, wide) if v.dtype is old.dtype else v
            if not cast.name and not isinstance(cast, Constant):
                self.builder.name_value(cast, f"{v.name or old.name}_{wide}")
            raised.append(cast)
        result = self.arrays.emit(node.op, raised, node.attributes)
        self.builder.name_value(result, f"{old.name}_{wide}")
        self.changed = True
        return self.arrays.astype(result, old.dtype)

    def _multiplied(self, x: Value) -> bool:
        """Does a product take it as it lies?"""
        lies = layout(x)
        if lies is None or not lies.matrix:
            return False
        joined = (math.prod(x.shape[:-2]), *x.shape[-2:])
        return not self.target.joined_batches or reshaped(lies, joined) is not None

    def _forwards(self, node: Node, x: Value) -> Value:
        """A slice, what it reverses put in the other order by a copy."""
        index, flipped = forwards(node.attributes["index"])
        value = self.arrays.emit(node.op, (x,), {"index": index})
        self.changed |= index != node.attributes["index"]
        if not flipped:
            return value
        self.builder.name_value(value, f"{node.result.name}_forwards")
        at = tuple((n - 1, -1, -1) if axis in flipped else (0, n, 1) for axis, n in enumerate(value.shape))
        return self.arrays.emit(OPS["place"], (value,), {"at": (at,), "shape": value.shape})

    def _viewable(self, x: Value, shape: Shape) -> Value:
        """x, or a copy of it where the reshape of x would be no view."""
        lies = layout(x)
        assert lies is not None
        return x if reshaped(lies, shape) is not None else self._row_by_row(x)

    def _row_by_row(self, x: Value) -> Value:
        """x in memory of its own, copied once however often it is asked for."""
        found = self.rows.get(x)
        if found is None:
            found = self.rows[x] = self.arrays.emit(OPS["copy"], (x,))
            self.builder.name_value(found, f"{x.name}_rows" if x.name else "rows")
            self.changed = True
        return found


def _declared(value: Value) -> bool:
    lies = layout(value)
    return lies is not None and nested(lies) is not None


def _in_rows(value: Value) -> bool:
    """Does it lie row by row?"""
    lies = layout(value)
    return lies is not None and lies.contiguous

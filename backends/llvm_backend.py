"""LLVM: a program as native code.

A program of scalars, or of small arrays, which are taken apart into their elements (passes/scalarise.py), is
straight-line code; a program of larger arrays is loops on an arena (llvm_tensor.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy

from ..ir.diagnostics import Fault
from ..ir.graph import Graph
from ..passes.arena import Placement, place
from ..passes.inlining import inlined
from ..passes.scalarise import MOST, fits, scalarise
from . import llvm_batch, llvm_call, llvm_engine, llvm_tensor
from .llvm_lowering import lowered
from .llvm_module import module
from .llvm_program import Columns, Ports, functions, latency_bound
from .llvm_target import TARGET
from .pieces import ROLL, Pieces
from .records import Field, head, layout_of, read_head

__all__ = ["TARGET", "Program", "emit", "emit_batch", "load", "lowered"]

ROLL_BATCH, PIECE_BATCH = 1_500, 1_000
"""What pieces.ROLL and pieces.PIECE are for a batch: it feels what straight code keeps in registers."""

_HAS = lowered() | {"slice", "place"}


def emit(graph: Graph, placement: Placement | None = None, *, source: str = "", contract: bool = False) -> str:
    """The module's text: `slpc.point` computes one point from its record of inputs to its record of outputs, the other
    functions are what it calls. With a placement it is `slpc.tensor` on an arena (llvm_tensor.py).

    Fault E0701 where there is no placement and the program cannot be taken apart into scalars.
    """
    if placement is not None:
        return llvm_tensor.emit(graph, placement, source=source, contract=contract)
    graph = scalars(graph)
    pieces = Pieces(graph, ROLL)
    layout = replace(layout_of(graph), workspace=8 * pieces.width)
    writers = functions(pieces, Ports(layout), "slpc.point", exported=True, contract=contract)
    return module(head(layout, source or graph.file), writers, [], False)


def emit_batch(graph: Graph, *, lanes: int = 0, contract: bool = False) -> str:
    """The module's text for many points: `slpc.block` computes as many as there are lanes, `slpc.rows` goes over a
    chunk of them. If 0 they are those of this machine's vector registers, or of two where chains are long. A program
    that cannot be taken apart into scalars is loops, for one point after the other."""
    if not fits(graph, MOST):
        return llvm_tensor.emit(graph, place(graph, TARGET, inlined(graph, TARGET)), contract=contract)
    graph = scalars(graph)
    lanes = lanes or llvm_engine.lanes() * (2 if latency_bound(graph) else 1)
    pieces = Pieces(graph, ROLL_BATCH, PIECE_BATCH)
    layout = replace(layout_of(graph), workspace=8 * lanes * pieces.width, lanes=lanes)
    writers = functions(pieces, Columns(layout, lanes), "slpc.block", "alwaysinline ", contract=contract)
    return module(head(layout, graph.file), writers, llvm_batch.rows(lanes), False)


def scalars(graph: Graph) -> Graph:
    """The graph taken apart into scalars; Fault E0701 where that is not possible, or an operation is missing."""
    graph = scalarise(graph)
    for node in graph.nodes:
        if node.op.name not in _HAS:
            raise Fault("E0701", f"{node.op.name} has no native code yet", "use the backend numpy or torch")
    return graph


class Program:
    """Machine code of one program, called with inputs by position; returns a tuple of the outputs."""

    def __init__(self, text: str) -> None:
        self.layout = read_head(text)
        self._library = llvm_engine.load(text, ["slpc.point"])
        self._address = self._library.addresses["slpc.point"]
        self._run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(self._address)

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """Arrays (or numbers) of the inputs' dtypes and shapes; each output is an array of its own, or a scalar."""
        inputs = self.layout.inputs
        given = numpy.empty(inputs.bytes, numpy.uint8)
        for field, argument in zip(inputs.fields, args, strict=True):
            view(given, field)[...] = argument
        found = numpy.empty(self.layout.outputs.bytes, numpy.uint8)
        work = self._workspace()
        self._at(given, found, work)
        return tuple(view(found, f).copy() if f.type.shape else view(found, f)[()] for f in self.layout.outputs.fields)

    def direct(self, flat: Callable[..., Any], call: Callable[..., Any],
               names: Sequence[str]) -> tuple[Any, Any] | None:
        """Functions that Python calls without a frame, for `flat` and `call`, to which they hand what is not simply
        floats; `names` are those of the gradients. None where the program is not one of a few f64 scalars."""
        if not llvm_call.direct(self.layout):
            return None
        work = self._workspace()
        made = [llvm_call.function(symbol, self._address, self.layout, slow, work, tuple(names), self._library)
                for symbol, slow in (("slpc.flat", flat), ("slpc.call", call))]
        return (made[0], made[1]) if names else (made[0], call)

    def bound(self, given: Any, found: Any) -> Callable[[], None]:
        """A function without arguments that reads the inputs from one array and writes the outputs to another."""
        work = self._workspace()
        if not llvm_call.POSSIBLE:
            return partial(self._at, given, found, work)
        return llvm_call.bound(self._address, given, found, work, self._library)  # type: ignore[no-any-return]

    def _at(self, given: Any, found: Any, work: Any) -> None:
        self._run(given.ctypes.data, found.ctypes.data, None if work is None else work.ctypes.data)

    def _workspace(self) -> Any:
        return numpy.empty(self.layout.workspace, numpy.uint8) if self.layout.workspace else None


def view(record: Any, field: Field) -> Any:
    """The part of a record's bytes that is a field, as an array."""
    part = record[field.offset:field.offset + field.type.bytes]
    return part.view(field.type.dtype.numpy).reshape(field.type.shape)


def load(text: str, name: str = "", *, batch: bool = False) -> Callable[..., tuple[Any, ...]]:
    """The text as machine code of this process: that of `emit`, or with `batch` that of `emit_batch`."""
    loops = read_head(text).arena is not None
    if batch:
        return llvm_tensor.Points(text) if loops else llvm_batch.Batch(text)
    return llvm_tensor.Tensors(text) if loops else Program(text)

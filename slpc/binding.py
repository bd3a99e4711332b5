"""Buffers bound to a program once, so that a call has nothing left to check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .ir.diagnostics import Diagnostic, SlpError
from .ir.graph import Graph, Value


def bind(graph: Graph, loaded: Callable[..., tuple[Any, ...]], given: Any, found: Any) -> Callable[[], None]:
    """See `Function.bind`."""
    for value in (*graph.inputs, *graph.outputs):
        if value.dtype.name != "f64":
            raise _fault(graph, f"only programs of f64 are bound to buffers, and {value!r} is {value.dtype}",
                         "call it with arguments")
    _check(graph, "the inputs", given, graph.inputs)
    _check(graph, "the outputs", found, graph.outputs)
    if not found.flags.writeable:
        raise _fault(graph, "the array for the outputs is read-only", "give a copy of it")
    if numpy.shares_memory(given, found):
        raise _fault(graph, "the arrays for inputs and outputs overlap", "give an array of its own for the outputs")
    native = getattr(loaded, "bound", None)
    if native is not None:
        return native(given, found)  # type: ignore[no-any-return]
    return _Bound(graph, loaded, given, found)


class _Bound:
    """The same for a backend that has no such call: views of the buffers, handed over each time."""

    def __init__(self, graph: Graph, loaded: Callable[..., tuple[Any, ...]], given: Any, found: Any) -> None:
        self._loaded = loaded
        self._given = _views(given, graph.inputs)
        self._found = _views(found, graph.outputs)

    def __call__(self) -> None:
        for view, result in zip(self._found, self._loaded(*(x if x.ndim else x[()] for x in self._given))):
            view[...] = result


def _views(buffer: Any, values: Sequence[Value]) -> list[Any]:
    views, start = [], 0
    for v in values:
        views.append(buffer[start:start + v.type.size].reshape(v.shape))
        start += v.type.size
    return views


def _check(graph: Graph, what: str, array: Any, values: Sequence[Value]) -> None:
    size = sum(v.type.size for v in values)
    if not isinstance(array, numpy.ndarray):
        raise _fault(graph, f"the buffer for {what} is {type(array).__name__}, not a numpy array",
                     "numpy.asarray makes one")
    if array.dtype != numpy.float64:
        raise _fault(graph, f"the array for {what} has dtype {array.dtype}, not float64", "convert it: x.astype(float)")
    if array.shape != (size,):
        names = ", ".join(map(repr, values))
        raise _fault(graph, f"the array for {what} has shape {array.shape}, not ({size},)",
                     f"end to end it holds {names}")
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise _fault(graph, f"the array for {what} is not contiguous", "give numpy.ascontiguousarray(x)")


def _fault(graph: Graph, message: str, hint: str) -> SlpError:
    return SlpError(Diagnostic("E0702", f"{graph.name}: {message}", hint, graph.file))

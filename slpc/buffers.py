"""Arrays of the caller's that a program writes its outputs into: made, and checked before anything is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .ir.diagnostics import Diagnostic, SlpError, near
from .ir.graph import Graph, Value
from .ir.types import matrix


def made(outputs: Sequence[Value]) -> dict[str, Any]:
    """A new array for each output, by name; of shape () for a scalar."""
    import numpy

    return {v.name: numpy.empty(v.shape, v.dtype.numpy) for v in outputs}


def check_donated(donated: Collection[Value], inputs: Mapping[Value, Any]) -> None:
    """SlpError E0413 unless each donated input is an array that can be written over: row by row, writeable, and in
    memory of its own. `inputs` are the arguments as they were given."""
    import numpy

    for value in donated:
        array = inputs[value]
        if not isinstance(array, numpy.ndarray):
            raise unfit(value, f"is a {type(array).__name__}, not an array")
        if not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
            raise unfit(value, "is not a writeable array that lies row by row")
        for other, given in inputs.items():
            if other is not value and isinstance(given, numpy.ndarray) and numpy.may_share_memory(array, given):
                raise unfit(value, f"shares memory with that for {other.name}")


def unfit(value: Value, message: str) -> SlpError:
    """E0413 for what was given for a donated input."""
    return SlpError(Diagnostic("E0413", f"the array for the input {value!r}, which is donated, {message}",
                               "what is written over it is an output: give a copy, x.copy()"))


def checked(graph: Graph, outputs: Sequence[Value], out: Any, inputs: Sequence[Any]) -> list[Any]:
    """The arrays of `out`, a mapping by output name or a sequence in the order of the outputs, which are those of the
    graph that lie in no donated input.

    SlpError E0413 unless there is one for each output: of its dtype and shape, row by row, writeable, and in memory of
    its own.
    """
    import numpy

    found: list[Any] = []
    for array, value in zip(listed(graph, outputs, out), outputs):
        _check(array, value)
        for other in (*inputs, *found):
            if isinstance(other, numpy.ndarray) and numpy.may_share_memory(array, other):
                raise _error(f"{value.name} shares memory with an input or another output", graph,
                             outputs)
        found.append(array)
    return found


def listed(graph: Graph, outputs: Sequence[Value], out: Any) -> Sequence[Any]:
    """What `out` has for each of these outputs of the graph, in their order; SlpError E0413 unless it has one for each.
    """
    if isinstance(out, Mapping):
        _check_names(graph, outputs, out)
        return [out[v.name] for v in outputs]
    if not isinstance(out, Sequence) or len(out) != len(outputs):
        raise _error("must be a dict by name or a list", graph, outputs)
    return out


def _check(array: Any, value: Value) -> None:
    import numpy

    if not isinstance(array, numpy.ndarray):
        raise fault(value, f"is a {type(array).__name__}, not an array")
    if array.dtype != value.dtype.numpy or array.shape != value.shape:
        raise fault(value, f"has dtype {array.dtype} and shape {matrix(array.shape)}")
    if not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
        raise fault(value, "is not a writeable array that lies row by row")


def _check_names(graph: Graph, outputs: Sequence[Value], out: Mapping[str, Any]) -> None:
    names = [v.name for v in outputs]
    for name in out:
        if name not in names:
            raise SlpError(Diagnostic("E0413", f"{graph.name} has no output '{name}'",
                                      near(str(name), names) or f"its outputs are {', '.join(names)}"))
    missing = [name for name in names if name not in out]
    if missing:
        raise SlpError(Diagnostic("E0413", f"out has no array for {', '.join(missing)}", "f.buffers() makes them all"))


def fault(value: Value, message: str) -> SlpError:
    """E0413 for what was given for an output."""
    return SlpError(Diagnostic("E0413", f"the array for the output {value!r} {message}", "f.buffers() makes them all"))


def _error(message: str, graph: Graph, outputs: Sequence[Value]) -> SlpError:
    return SlpError(Diagnostic("E0413", f"out: {message}", f"{graph.name} has {len(outputs)} outputs; "
                                                           "f.buffers() makes an array for each"))

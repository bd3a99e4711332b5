"""NumPy: a graph as straight Python source, one line an operation, and that source as a callable.

The module that is emitted needs NumPy (SciPy for a special function, ml_dtypes for bf16) and nothing of ours. It has
one function of the program's name, inputs by position, outputs as a tuple. A program of float64 scalars has two: the
first runs on Python floats and falls back, where they raise, on the second, `NAME_arrays`, which takes NumPy scalars
or arrays of points alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..ir.graph import Graph, Value
from ..ir.ops import OPS
from ..ir.show import dying
from ..ir.target import Target
from ..ir.types import bf16, f16, f32, f64
from ..passes.arena import Placement
from ..passes.blocks import blocks as blocks_of
from ..passes.regions import unfused
from . import numpy_arena, numpy_erf, numpy_into, numpy_scalar
from .numpy_lowering import SPECIAL, lower, lowered, needs_scipy
from .python_source import BLOCK, Names, blocks, listed, load_module, title

__all__ = ["TARGET", "emit", "load", "lowered"]

_FUNCTIONS = [op.name for op in OPS.values() if op.elementwise and not op.symbol and op.name not in ("where", "astype")]

TARGET = Target(
    "numpy", arena=True, regions=True, fewest_rows=64, accumulates_in={f16: f32, bf16: f32},
    adds_in={f16: f32, bf16: f32},
    computed_in={(name, bf16): f32 for name in _FUNCTIONS} | {(name, f16): f32 for name in (*SPECIAL, "sigmoid")}
    | {("polygamma", dtype): f64 for dtype in (bf16, f16, f32)},
    products_as_blas=True, row_by_row={"gather": (0,), "scatter_add": (0,)},
    in_place=numpy_into.IN_PLACE, workspace=numpy_into.workspace)

_TAKEN = {"np", "special", "bfloat16", "values", "points", "found", "map", "pow", "ENTRY", "ARRAYS", "ArithmeticError",
          "ValueError"} | numpy_arena.TAKEN


def emit(graph: Graph, placement: Placement | None = None, *, source: str = "", poison: bool = False) -> str:
    """The module's source for a graph that is legal for `TARGET`.

    With a placement, arrays lie in one arena, and the function takes `out=`, a sequence of arrays for the outputs;
    without one, NumPy allocates each value. `source` names the file that the program comes from, for the docstring.
    `poison` is for tests: bytes of the arena that are not alive hold NaN. Linear in the number of operations; the same
    text every time.
    """
    if placement is None:
        graph = unfused(graph)
    names = _names(graph)
    scalar = numpy_scalar.fits(graph)
    entry = names.text(graph.name)
    arena = placement is not None and not scalar
    lines = _head(graph, source or graph.file, scalar, arena, entry)
    if placement is not None and not scalar:
        return "\n".join([*lines, *numpy_arena.emit_arena(graph, placement, TARGET, names, entry, poison)]) + "\n"
    if any(map(numpy_erf.fits, graph.nodes)):
        lines += ["", "", *numpy_erf.HELPER.rstrip().split("\n")]
    if scalar:
        lines += _on_floats(graph, names, entry)
    lines += _on_arrays(graph, names, f"{entry}_arrays" if scalar else entry, scalar)
    return "\n".join(lines) + "\n"


def load(text: str, name: str = "", *, batch: bool = False) -> Callable[..., tuple[Any, ...]]:
    """The emitted module's function: inputs by position, a tuple of outputs back. With `batch`, the one that takes
    arrays of points. Tracebacks into it show its lines."""
    module = load_module(text, name)
    function = module.get("ARRAYS") if batch else None
    return function or module["ENTRY"]  # type: ignore[no-any-return]


def _names(graph: Graph) -> Names:
    names = Names({v.name for v in graph.values()}, _TAKEN)
    for function in numpy_scalar.math_names(graph):
        if function in names.used:  # only where an operation's name is a value's, which the language forbids
            names.text(function)
    return names


def _head(graph: Graph, source: str, scalar: bool, arena: bool, entry: str) -> list[str]:
    def types(values: tuple[Value, ...]) -> str:
        return "\n".join(f"    {v.name}: {v.type.dtype.numpy.name} {v.shape}" for v in values)

    lines = [f'"""{title(graph, source)}', "", f"{entry}(inputs by position) returns a tuple of the outputs.",
             "Inputs (dtype, shape):", *types(graph.inputs).split("\n"), "Outputs:",
             *types(graph.outputs).split("\n")]
    if scalar:
        lines.append(f"{entry}_arrays is the same on NumPy scalars, or on arrays of points.")
    if arena:
        lines += ["All arrays lie in one block of memory. From the second call on, or with out=, a sequence of arrays",
                  "for the outputs, it is kept for the thread's next call, and outputs are arrays of their own."]
    lines += ['"""', ""]
    if scalar and (used := numpy_scalar.math_names(graph)):
        lines += [f"from math import {', '.join(used)}", ""]
    if arena:
        lines += ["import threading", ""]
    lines.append("import numpy as np")
    programs = [graph, *(p.graph for n in graph.nodes if n.op.name == "region"
                         for p in blocks_of(n, TARGET).programs.values())]
    if any(v.dtype is bf16 for program in programs for v in program.values()):
        lines.append("from ml_dtypes import bfloat16")
    if any(map(needs_scipy, (node for program in programs for node in program.nodes))):
        lines.append("from scipy import special")
    return lines


def _on_floats(graph: Graph, names: Names, entry: str) -> list[str]:
    """The program on Python floats."""
    inputs = ", ".join(map(names, graph.inputs))
    if len(graph.nodes) <= 2 * BLOCK:
        body = [f"        {numpy_scalar.line(node, names)}" for node in graph.nodes]
        body.append(f"        return {_tuple(names, graph)}")
        parts: list[str] = []
    else:
        parts, calls = blocks(graph, names, lambda node: [numpy_scalar.line(node, names)], f"_block_{entry}")
        body = ["        " + line for line in calls]
    return [*parts, "", "", f"def {entry}({inputs}):", "    try:", *body,
            "    except (ArithmeticError, ValueError):  # 1 / 0, exp(1000), log(-1): IEEE results by NumPy",
            f"        found = {entry}_arrays({', '.join(f'np.float64({names(v)})' for v in graph.inputs)})",
            "        return tuple(x.item() for x in found)", "", f"ENTRY = {entry}"]


def _on_arrays(graph: Graph, names: Names, entry: str, scalar: bool) -> list[str]:
    """The program on NumPy arrays."""
    inputs = ", ".join(map(names, graph.inputs))
    arrays = any(v.shape for v in graph.values())
    if len(graph.nodes) <= 2 * BLOCK:
        dead = dying(graph) if arrays else {}
        body = []
        for at, node in enumerate(graph.nodes):
            body += lower(node, names)
            if at in dead:
                body.append("del " + ", ".join(map(names, dead[at])))
        parts: list[str] = []
    else:
        parts, body = blocks(graph, names, lambda node: lower(node, names), f"_block_{entry}")
        body.pop()
    if parts:
        body.append(f"{listed(names, graph.outputs)} = values[-{len(graph.outputs)}:]")
    if not arrays:
        body += _points(graph, names)
    body.append(f"return {_tuple(names, graph)}")
    lines = ["", "", *parts, "@np.errstate(all=\"ignore\")", f"def {entry}({inputs}):"]
    lines += [f"    {line}" for line in body]
    return [*lines, "", "", f"ARRAYS = {entry}", *([] if scalar else [f"ENTRY = {entry}"])]


def _points(graph: Graph, names: Names) -> list[str]:
    """For arrays of points: an output that depends on no input is repeated to the shape of the points."""
    if not graph.inputs:
        return []
    outputs = ", ".join(map(names, graph.outputs))
    inputs = ", ".join(map(names, graph.inputs))
    return [f"points = np.broadcast_shapes(*map(np.shape, ({inputs},)))",
            f"{listed(names, graph.outputs)} = "
            f"(x if np.shape(x) == points else np.full(points, x) for x in ({outputs},))"]


def _tuple(names: Names, graph: Graph) -> str:
    return f"({listed(names, graph.outputs)})"

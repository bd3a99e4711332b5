"""C99 text of a program, for any compiler: no header but the standard's, no library but libm (c_signature.py)."""

from __future__ import annotations

import re
from dataclasses import replace

from ..ir.diagnostics import Fault
from ..ir.graph import Constant, Graph, Value
from ..passes.scalarise import scalarise
from . import c_lowering
from .c_lowering import TYPES, literal, lower, lowered
from .c_signature import DONE, MISALIGNED, NO_WORKSPACE, c_name, output_names, prototype
from .pieces import Element, Pieces
from .records import Layout, layout_of

__all__ = ["emit", "lowered"]

_MEMBERS = {"f64": "d", "f32": "f", "i64": "l", "i32": "i", "bool": "b"}


def emit(graph: Graph, symbol: str, *, source: str = "") -> tuple[str, Layout]:
    """The text of a C file that defines the function `symbol`, and the layout with its workspace.

    Fault E0701 where the program cannot be taken apart into scalars, or has a dtype or an operation that C lacks.
    """
    graph = scalarise(graph)
    for value in graph.values():
        if value.dtype.name not in TYPES:
            raise Fault("E0701", f"{value.name} is {value.dtype}, which C99 does not have", "emit an object file")
    for node in graph.nodes:
        if node.op.name not in lowered() | {"slice", "place"}:
            raise Fault("E0701", f"{node.op.name} is not emitted as C", "use the backend numpy")
    pieces = Pieces(graph)
    found = replace(layout_of(graph), workspace=8 * pieces.width)
    text = _Text(graph, found, pieces, symbol)
    body = text.functions()
    return "\n".join([*_head(symbol, source, text), *body]) + "\n", found


def layout(graph: Graph) -> Layout:
    """How the inputs and outputs lie, and the workspace: the same in C text and in object files."""
    graph = scalarise(graph)
    return replace(layout_of(graph), workspace=8 * Pieces(graph).width)


def _head(symbol: str, source: str, text: _Text) -> list[str]:
    shown = source.replace("*/", "* /").replace("\n", " ").replace("\\", "/")
    lines = [f"/* {symbol}: emitted by slpc{' from ' + shown if shown else ''}.",
             "   Compile with -std=c99 -O2, link with -lm. */", "",
             "#include <math.h>", "#include <stdbool.h>", "#include <stddef.h>", "#include <stdint.h>", "",
             "#ifdef __clang__", "#pragma STDC FP_CONTRACT OFF", "#endif", ""]
    if text.pieces.width:
        lines += ["union slot {", *(f"    {kind} {_MEMBERS[name]};" for name, kind in TYPES.items()), "};", ""]
    for name in sorted(text.helpers):
        lines += [c_lowering.HELPERS[name]]
    return lines


class _Text:
    def __init__(self, graph: Graph, layout: Layout, pieces: Pieces, symbol: str) -> None:
        self.graph, self.layout, self.pieces, self.symbol = graph, layout, pieces, symbol
        self.helpers: set[str] = set()
        self.inputs = [c_name(v.name) for v in graph.inputs]
        self.outputs = output_names(layout)
        self.names: dict[Value, str] = {}
        self.taken = {*self.inputs, *self.outputs}

    def functions(self) -> list[str]:
        """The functions of all pieces, then the one that is called."""
        count = len(self.pieces.pieces)
        head = prototype(self.layout, self.symbol)
        check = self._check()
        if count == 1:
            return [head, "{", *check, *self._body(0), f"    return {DONE};", "}"]
        lines = []
        for number in range(count):
            body = self._body(number)
            used = set(re.findall(r"\w+", " ".join(body)))
            lines += [f"static void slpc_{self.symbol}_{number}({self._parameters()})", "{",
                      *(f"    (void){name};" for name in (*self.inputs, *self.outputs, "slot") if name not in used),
                      *body, "}", ""]
        calls = ", ".join([*self.inputs, *self.outputs, "slot"])
        return [*lines, head, "{", *check, "    union slot *const slot = workspace;",
                *(f"    slpc_{self.symbol}_{number}({calls});" for number in range(count)), f"    return {DONE};", "}"]

    def _parameters(self) -> str:
        inputs = [f"const {TYPES[v.dtype.name]} {'*' if v.shape else ''}{name}" for v, name in
                  zip(self.graph.inputs, self.inputs)]
        outputs = [f"{TYPES[v.dtype.name]} *{name}" for v, name in zip(self.graph.outputs, self.outputs)]
        return ", ".join([*inputs, *outputs, "union slot *slot"])

    def _check(self) -> list[str]:
        """The workspace is there and aligned; what a program does not read is said not to be read."""
        used = {self.pieces.inputs[v][0] for v in self._read()}
        lines = [f"    (void){name};" for i, name in enumerate(self.inputs) if i not in used]
        lines += [f"    (void){name};" for name, v in zip(self.outputs, self.graph.outputs) if not v.type.size]
        if not self.layout.workspace:
            return [*lines, "    (void)workspace;", "    (void)workspace_bytes;"]
        return [*lines, f"    if (workspace == NULL || workspace_bytes < {self.layout.workspace})",
                f"        return {NO_WORKSPACE};", "    if ((uintptr_t)workspace % 8 != 0)",
                f"        return {MISALIGNED};"]

    def _read(self) -> set[Value]:
        """The inputs' elements that an operation or an output reads."""
        found = {v for nodes in self.pieces.pieces for node in nodes for v in node.operands if v in self.pieces.inputs}
        return found | {v for v in self.pieces.sinks if v in self.pieces.inputs}

    def _body(self, number: int) -> list[str]:
        program = self.pieces
        lines: list[str] = []
        here: set[Value] = set()
        if number == 0:
            lines += [self._store(element, literal(constant)) for element, constant in program.fixed]
            for value in program.inputs:
                if value in program.sinks:
                    lines += [self._store(element, self._operand(value, here)) for element in program.sinks[value]]
        for node in program.pieces[number]:
            value = node.results[0]
            found = lower(node, [self._operand(v, here) for v in node.operands])
            lines.append(f"    const {TYPES[value.dtype.name]} {self._name(value)} = {found};")
            self.helpers.update(re.findall(r"slpc_\w+", found))
            here.add(value)
            if value in program.slots:
                lines.append(f"    {self._slot(value)} = {self._name(value)};")
            lines += [self._store(element, self._name(value)) for element in program.sinks.get(value, ())]
        return lines

    def _operand(self, value: Value, here: set[Value]) -> str:
        if isinstance(value, Constant):
            return literal(value)
        if value in here:
            return self._name(value)
        if value in self.pieces.inputs:
            position, place = self.pieces.inputs[value]
            return f"{self.inputs[position]}[{place}]" if self.graph.inputs[position].shape else self.inputs[position]
        return self._slot(value)

    def _slot(self, value: Value) -> str:
        return f"slot[{self.pieces.slots[value]}].{_MEMBERS[value.dtype.name]}"

    def _store(self, element: Element, shown: str) -> str:
        position, place = element
        output = self.outputs[position]
        place_text = f"{output}[{place}]" if self.graph.outputs[position].shape else f"*{output}"
        return f"    {place_text} = {shown};"

    def _name(self, value: Value) -> str:
        name = self.names.get(value)
        if name is None:
            name = c_name(value.name)
            while name in self.taken:
                name += "_"
            self.taken.add(name)
            self.names[value] = name
        return name


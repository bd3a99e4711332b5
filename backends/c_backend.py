"""C99 text of a program, for any compiler: no header but the standard's, no library but libm (c_signature.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..ir.diagnostics import Fault
from ..ir.graph import Constant, Graph, Node, Value
from ..passes.scalarise import scalarise
from . import c_lowering
from .c_lowering import TYPES, literal, lower, lowered
from .c_signature import DONE, MISALIGNED, NO_WORKSPACE, c_name, output_names, prototype
from .pieces import ROLL, Element, Pieces
from .records import Layout, layout_of
from .rolled import Computed, Loop, Same, Source, Walking

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
    pieces = Pieces(graph, ROLL)
    found = replace(layout_of(graph), workspace=8 * pieces.width)
    text = _Text(graph, found, pieces, symbol)
    body = text.functions()
    return "\n".join([*_head(symbol, source, text), *body]) + "\n", found


def layout(graph: Graph) -> Layout:
    """How the inputs and outputs lie, and the workspace: the same in C text and in object files."""
    graph = scalarise(graph)
    return replace(layout_of(graph), workspace=8 * Pieces(graph, ROLL).width)


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
        slot = ["    union slot *const slot = workspace;"] if self.pieces.width else []
        if count == 1:
            return [head, "{", *check, *slot, *self._body(0), f"    return {DONE};", "}"]
        lines = []
        for number in range(count):
            body = self._body(number)
            used = set(re.findall(r"\w+", " ".join(body)))
            lines += [f"static void slpc_{self.symbol}_{number}({self._parameters()})", "{",
                      *(f"    (void){name};" for name in (*self.inputs, *self.outputs, "slot") if name not in used),
                      *body, "}", ""]
        calls = ", ".join([*self.inputs, *self.outputs, "slot"])
        return [*lines, head, "{", *check, *slot,
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
        if number in program.loops:
            return lines + self._loop(program.loops[number], program.pieces[number])
        for node in program.pieces[number]:
            value = node.results[0]
            lines.append(self._line(node, [self._operand(v, here) for v in node.operands]))
            here.add(value)
            lines += self._keep(value, self._name(value))
            lines += [self._store(element, self._name(value)) for element in program.sinks.get(value, ())]
        return lines

    def _line(self, node: Node, operands: Sequence[str]) -> str:
        """An operation whose operands are expressions."""
        value, found = node.results[0], lower(node, operands)
        self.helpers.update(re.findall(r"slpc_\w+", found))
        return f"    const {TYPES[value.dtype.name]} {self._name(value)} = {found};"

    def _loop(self, loop: Loop, nodes: Sequence[Node]) -> list[str]:
        """The loop's blocks, one after the other; what is carried is moved on at the end of each."""
        index = self._fresh("number")
        carried = {(row, back): self._fresh(f"{c_name(nodes[row].results[0].name)}_{back}")
                   for row, values in loop.before.items() for back in range(1, len(values) + 1)}
        last = {row: self._fresh(f"{c_name(nodes[row].results[0].name)}_last") for row in loop.last}
        kinds = [TYPES[node.results[0].dtype.name] for node in nodes]

        def operand(source: Source) -> str:
            if isinstance(source, Same):
                return self._operand(source.value, set())
            if isinstance(source, Computed):
                return carried[source.row, source.back] if source.back else self._name(nodes[source.row].results[0])
            if isinstance(source, Walking):
                return self._element(source.value, source.step, index)
            return self._slot(source.value, source.first, source.step, index)

        lines = [f"    {kinds[row]} {name} = {self._operand(loop.before[row][back - 1], set())};"
                 for (row, back), name in carried.items()]
        lines += [f"    {kinds[row]} {name} = 0;" for row, name in last.items()]
        lines.append(f"    for (int {index} = 0; {index} < {loop.count}; {index}++) {{")
        body = []
        for row, node in enumerate(nodes):
            name = self._name(node.results[0])
            body.append(self._line(node, [operand(source) for source in loop.sources[row]]))
            if row in loop.kept:
                body.append(f"    {self._slot(node.results[0], loop.kept[row], 1, index)} = {name};")
            if row in loop.written:
                written = loop.written[row]
                body.append(self._store(written.element, name, written.step, index))
        for row, back in sorted(carried, key=lambda key: -key[1]):
            before = carried[row, back - 1] if back > 1 else self._name(nodes[row].results[0])
            body.append(f"    {carried[row, back]} = {before};")
        body += [f"    {name} = {self._name(nodes[row].results[0])};" for row, name in last.items()]
        lines += [*("    " + line for line in body), "    }"]
        for row, value in loop.last.items():
            lines += self._keep(value, last[row])
        return lines

    def _keep(self, value: Value, name: str) -> list[str]:
        return [f"    {self._slot(value, slot)} = {name};" for slot in self.pieces.homes.get(value, ())]

    def _operand(self, value: Value, here: set[Value]) -> str:
        if isinstance(value, Constant):
            return literal(value)
        if value in here:
            return self._name(value)
        if value in self.pieces.inputs:
            return self._element(value)
        return self._slot(value)

    def _element(self, value: Value, step: int = 0, index: str = "") -> str:
        """An element of an input, or one that is so many steps further."""
        position, place = self.pieces.inputs[value]
        shown = self.inputs[position]
        return f"{shown}[{_moved(place, step, index)}]" if self.graph.inputs[position].shape else shown

    def _slot(self, value: Value, slot: int = -1, step: int = 0, index: str = "") -> str:
        """The value's slot, or another; or one that is so many steps further."""
        number = _moved(self.pieces.slots[value] if slot < 0 else slot, step, index)
        return f"slot[{number}].{_MEMBERS[value.dtype.name]}"

    def _store(self, element: Element, shown: str, step: int = 0, index: str = "") -> str:
        position, place = element
        output = self.outputs[position]
        array = self.graph.outputs[position].shape
        return f"    {f'{output}[{_moved(place, step, index)}]' if array else f'*{output}'} = {shown};"

    def _fresh(self, stem: str) -> str:
        """A name that nothing has."""
        name = stem
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _name(self, value: Value) -> str:
        name = self.names.get(value)
        if name is None:
            name = self.names[value] = self._fresh(c_name(value.name))
        return name


def _moved(place: int, step: int, index: str) -> str:
    """place + index * step, as an index of C."""
    if not step:
        return str(place)
    moved = index if abs(step) == 1 else f"{index} * {abs(step)}"
    return f"{place} {'+' if step > 0 else '-'} {moved}" if place or step < 0 else moved


"""A program of scalars as LLVM functions: one, or for a long program one for each piece of it (pieces.py)."""

from __future__ import annotations

from ..ir.graph import Graph, Value
from ..ir.types import DType
from .llvm_lowering import from_memory, kind, lower, memory_kind, to_memory
from .llvm_math import FUNCTIONS
from .llvm_writer import Lane, Writer
from .pieces import Element, Pieces
from .records import Layout


class Ports:
    """How a function reaches its inputs, outputs and workspace: here, for one point, in records (records)."""

    lanes = 1
    parameters = "ptr noalias readonly %in, ptr noalias %out, ptr noalias %work"
    arguments = "ptr %in, ptr %out, ptr %work"

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def input(self, w: Writer, element: Element) -> Lane:
        """The address of an element of an input."""
        field = self.layout.inputs.fields[element[0]]
        return address(w, "%in", field.offset + element[1] * field.stored)

    def output(self, w: Writer, element: Element) -> Lane:
        """The address of an element of an output."""
        field = self.layout.outputs.fields[element[0]]
        return address(w, "%out", field.offset + element[1] * field.stored)


class Columns(Ports):
    """For a batch: a table of columns, one for each element of the inputs and outputs; a column is read from point
    `%at` on, as many points as there are lanes."""

    parameters = "ptr noalias readonly %in, ptr noalias readonly %out, ptr noalias %work, i64 %at"
    arguments = "ptr %in, ptr %out, ptr %work, i64 %at"

    def __init__(self, layout: Layout, lanes: int) -> None:
        super().__init__(layout)
        self.lanes = lanes

    def input(self, w: Writer, element: Element) -> Lane:
        field = self.layout.inputs.fields[element[0]]
        return self._column(w, "%in", field.first + element[1], field.stored)

    def output(self, w: Writer, element: Element) -> Lane:
        field = self.layout.outputs.fields[element[0]]
        return self._column(w, "%out", field.first + element[1], field.stored)

    def _column(self, w: Writer, table: str, number: int, stored: int) -> Lane:
        entry = address(w, table, 8 * number)
        column = w.line("ptr", f"load ptr, ptr {entry.name}, align 8, !invariant.load !1")
        return w.line("ptr", f"getelementptr i{8 * stored}, ptr {column.name}, i64 %at")


def address(w: Writer, base: str, offset: int) -> Lane:
    """base + offset bytes."""
    return w.line("ptr", f"getelementptr i8, ptr {base}, i64 {offset}") if offset else Lane(w, base, "ptr")


def functions(graph: Graph, ports: Ports, name: str, attributes: str = "", *,
              exported: bool = False, contract: bool = False) -> tuple[list[Writer], int]:
    """Function `@NAME` over the ports, in pieces where it is long, and the bytes of workspace that it needs. The graph
    is what `scalarise` returns. `attributes` are those of a function that is one piece."""
    linkage = "" if exported else "internal "
    pieces = Pieces(graph)
    body = _Body(pieces, ports, contract)
    if len(pieces.pieces) == 1:
        return [_wrapped(body.piece(0), name, ports, linkage, attributes)], 0
    numbers = range(len(pieces.pieces))
    made = [_wrapped(body.piece(i), f"{name}.{i}", ports, "internal ", "noinline ") for i in numbers]
    main = Writer()
    main.lines = [f"  call void @{name}.{i}({ports.arguments})" for i in numbers]
    return [*made, _wrapped(main, name, ports, linkage, "noinline ")], pieces.width * 8 * ports.lanes


def _wrapped(w: Writer, name: str, ports: Ports, linkage: str, attributes: str) -> Writer:
    w.lines = [f"define {linkage}void @{name}({ports.parameters}) {attributes}#0 {{", "entry:", *w.lines, "  ret void",
               "}"]
    return w


def weight(graph: Graph) -> int:
    """About how many instructions the program is, its functions put in place of their calls."""
    return sum(30 if node.op.name in FUNCTIONS else 1 for node in graph.nodes)


def latency_bound(graph: Graph) -> bool:
    """Does a processor wait for results, rather than for units to compute them, so that two vectors at once cost less
    than twice one? It is so where the longest chain of operations takes more than half the time of issuing all of them
    (Hennessy and Patterson, "Computer Architecture", chapter 3)."""
    issued, longest = 0, 0
    done: dict[Value, int] = {}
    for node in graph.nodes:
        if node.op.name in ("slice", "place"):
            continue
        slow = node.op.name in ("divide", "sqrt")
        issue, latency = (30, 60) if node.op.name in FUNCTIONS else (9, 15) if slow else (1, 4)
        issued += issue
        end = done[node.results[0]] = latency + max((done.get(v, 0) for v in node.operands), default=0)
        longest = max(longest, end)
    return 2 * longest > issued


class _Body:
    """Writes the functions' bodies: what they need is read when it is first used, outputs are written as they are
    computed."""

    def __init__(self, pieces: Pieces, ports: Ports, contract: bool) -> None:
        self.program = pieces
        self.contract = contract
        self.ports = ports

    def piece(self, number: int) -> Writer:
        w = Writer(self.ports.lanes, self.contract)
        program = self.program
        here: dict[Value, Lane] = {}

        def lane(value: Value) -> Lane:
            if value not in here:
                here[value] = self._slot(w, value) if value in program.slots else self._input(w, value)
            return here[value]

        if number == 0:
            for element, constant in program.fixed:
                stored = to_memory(w, w.constant(constant.number, kind(constant.dtype)), constant.dtype)
                self._store(w, element, stored, constant.dtype)
            for value in program.inputs:
                if value in program.sinks:
                    self._write(w, value, lane(value))
        for node in program.pieces[number]:
            value = node.results[0]
            here[value] = w.renamed(lower(w, node, lane), value.name)
            if value in program.slots:
                t = w.type(here[value].kind)
                at = address(w, "%work", program.slots[value] * 8 * w.lanes)
                w.lines.append(f"  store {t} {here[value].name}, ptr {at.name}, align 8")
            if value in program.sinks:
                self._write(w, value, here[value])
        return w

    def _input(self, w: Writer, value: Value) -> Lane:
        kind_there = memory_kind(value.dtype)
        at = self.ports.input(w, self.program.inputs[value])
        found = w.line(kind_there, f"load {w.type(kind_there)}, ptr {at.name}, align {value.dtype.bytes}, "
                                   "!invariant.load !1")
        return from_memory(w, found, value.dtype)

    def _slot(self, w: Writer, value: Value) -> Lane:
        at = address(w, "%work", self.program.slots[value] * 8 * w.lanes)
        k = kind(value.dtype)
        return w.line(k, f"load {w.type(k)}, ptr {at.name}, align 8")

    def _write(self, w: Writer, value: Value, lane: Lane) -> None:
        stored = to_memory(w, lane, value.dtype)
        for element in self.program.sinks[value]:
            self._store(w, element, stored, value.dtype)

    def _store(self, w: Writer, element: Element, stored: Lane, dtype: DType) -> None:
        at = self.ports.output(w, element)
        w.lines.append(f"  store {w.type(stored.kind)} {stored.name}, ptr {at.name}, align {dtype.bytes}")

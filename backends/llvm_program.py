"""A program of scalars as LLVM functions: one, or for a long program one for each piece of it.

LLVM takes more than linear time on a long function, so that a program is cut into pieces of some hundred operations;
what one piece computes and another reads lies in the workspace, in places that are used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.graph import Constant, Graph, Node, Value
from ..ir.types import DType
from .llvm_layout import Layout
from .llvm_lowering import from_memory, kind, lower, memory_kind, to_memory
from .llvm_math import FUNCTIONS
from .llvm_writer import Lane, Writer

PIECE = 800
"""Operations in one function."""

Element = tuple[int, int]
"""An input or output by its position, and an element of it, counted row by row."""


class Ports:
    """How a function reaches its inputs, outputs and workspace: here, for one point, in records (llvm_layout)."""

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


def functions(graph: Graph, ports: Ports, name: str) -> tuple[list[Writer], int]:
    """Function `@NAME` over the ports, in pieces where it is long, and the bytes of workspace that it needs. The graph
    is what `scalarise` returns."""
    program = _Program(graph, ports)
    nodes = program.operations
    if len(nodes) <= 2 * PIECE:
        return [_wrapped(program.piece(nodes, 0), name, ports, "alwaysinline " if ports.lanes > 1 else "noinline ")], 0
    count = -(-len(nodes) // PIECE)
    program.spread(count)
    pieces = [_wrapped(program.piece(nodes[i * PIECE:(i + 1) * PIECE], i), f"{name}.{i}", ports, "noinline ")
              for i in range(count)]
    main = Writer()
    main.lines = [f"  call void @{name}.{i}({ports.arguments})" for i in range(count)]
    return [*pieces, _wrapped(main, name, ports, "noinline ")], program.width * 8 * ports.lanes


def _wrapped(w: Writer, name: str, ports: Ports, attributes: str) -> Writer:
    linkage = "" if name == "slpc.point" else "internal "
    w.lines = [f"define {linkage}void @{name}({ports.parameters}) {attributes}#0 {{", "entry:", *w.lines, "  ret void",
               "}"]
    return w


def weight(graph: Graph) -> int:
    """About how many instructions the program is, its functions put in place of their calls."""
    return sum(30 if node.op.name in FUNCTIONS else 1 for node in graph.nodes)


class _Program:
    def __init__(self, graph: Graph, ports: Ports) -> None:
        self.ports = ports
        self.inputs: dict[Value, Element] = {v: (i, 0) for i, v in enumerate(graph.inputs)}
        self.sinks: dict[Value, list[Element]] = {}
        self.fixed: list[tuple[Element, Constant]] = []
        self.operations: list[Node] = []
        self.slots: dict[Value, int] = {}
        self.width = 0
        self.last: dict[Value, int] = {}
        for node in graph.nodes:
            value = node.results[0]
            if node.op.name == "slice":
                source = node.operands[0]
                self.inputs[value] = (self.inputs[source][0], _flat(node.attributes["index"], source.shape))
            elif not value.shape:
                self.operations.append(node)
        for position, value in enumerate(graph.outputs):
            for place, element in _elements(value):
                if isinstance(element, Constant):
                    self.fixed.append(((position, place), element))
                else:
                    self.sinks.setdefault(element, []).append((position, place))

    def spread(self, count: int) -> None:
        """Decide which values pass from piece to piece, and where in the workspace they lie."""
        piece_of = {node.results[0]: at // PIECE for at, node in enumerate(self.operations)}
        last: dict[Value, int] = {}
        for at, node in enumerate(self.operations):
            for v in node.operands:
                if piece_of.get(v, at // PIECE) != at // PIECE:
                    last[v] = at // PIECE
        ending: dict[int, list[int]] = {}
        free: list[int] = []
        for piece in range(count):
            free += ending.pop(piece, [])
            for node in self.operations[piece * PIECE:(piece + 1) * PIECE]:
                v = node.results[0]
                if v in last:
                    if free:
                        slot = free.pop()
                    else:
                        slot, self.width = self.width, self.width + 1
                    self.slots[v] = slot
                    ending.setdefault(last[v] + 1, []).append(slot)

    def piece(self, nodes: Sequence[Node], number: int) -> Writer:
        """The body of one function: it reads what it needs when it is first used, and writes outputs as they are
        computed."""
        w = Writer(self.ports.lanes)
        here: dict[Value, Lane] = {}

        def lane(value: Value) -> Lane:
            if value not in here:
                here[value] = self._slot(w, value) if value in self.slots else self._input(w, value)
            return here[value]

        if number == 0:
            self._write_fixed(w)
            for value in self.inputs:
                if value in self.sinks:
                    self._write(w, value, lane(value))
        for node in nodes:
            value = node.results[0]
            here[value] = lower(w, node, lane)
            if value in self.slots:
                t = w.type(here[value].kind)
                at = address(w, "%work", self.slots[value] * 8 * w.lanes)
                w.lines.append(f"  store {t} {here[value].name}, ptr {at.name}, align 8")
            if value in self.sinks:
                self._write(w, value, here[value])
        return w

    def _input(self, w: Writer, value: Value) -> Lane:
        kind_there = memory_kind(value.dtype)
        at = self.ports.input(w, self.inputs[value])
        found = w.line(kind_there, f"load {w.type(kind_there)}, ptr {at.name}, align {value.dtype.bytes}, "
                                   "!invariant.load !1")
        return from_memory(w, found, value.dtype)

    def _slot(self, w: Writer, value: Value) -> Lane:
        at = address(w, "%work", self.slots[value] * 8 * w.lanes)
        k = kind(value.dtype)
        return w.line(k, f"load {w.type(k)}, ptr {at.name}, align 8")

    def _write(self, w: Writer, value: Value, lane: Lane) -> None:
        stored = to_memory(w, lane, value.dtype)
        for element in self.sinks[value]:
            self._store(w, element, stored, value.dtype)

    def _write_fixed(self, w: Writer) -> None:
        for element, constant in self.fixed:
            lane = w.constant(constant.number, kind(constant.dtype))
            self._store(w, element, to_memory(w, lane, constant.dtype), constant.dtype)

    def _store(self, w: Writer, element: Element, stored: Lane, dtype: DType) -> None:
        at = self.ports.output(w, element)
        w.lines.append(f"  store {w.type(stored.kind)} {stored.name}, ptr {at.name}, align {dtype.bytes}")


def _flat(index: Sequence[int], shape: Sequence[int]) -> int:
    """The number of an element, counted row by row."""
    place = 0
    for i, n in zip(index, shape, strict=True):
        place = place * n + i
    return place


def _elements(value: Value) -> Iterator[tuple[int, Value]]:
    """Each element of an output: its number, and the scalar that it is."""
    node = value.node
    if not value.shape:
        yield 0, value
    elif node is not None and node.op.name == "place":
        given = {_flat(at, value.shape): v for v, at in zip(node.operands, node.attributes["at"], strict=True)}
        zero = Constant(0, value.dtype)
        for place in range(value.type.size):
            yield place, given.get(place, zero)
    elif value.type.size:
        assert node is not None and node.op.name == "copy", node
        yield from _elements(node.operands[0])

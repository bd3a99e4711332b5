"""A program of scalars as LLVM functions: one, or for a long program one for each piece of it (pieces.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..ir.graph import Constant, Graph, Node, Value
from ..ir.types import DType
from .llvm_lowering import constant, from_memory, instructions, kind, lower, memory_kind, to_memory
from .llvm_math import FUNCTIONS, formula
from .llvm_writer import Lane, Writer
from .pieces import Element, Pieces
from .records import Layout
from .rolled import Computed, Loop, Same, Source, Walking

WEIGHT_POINT, WEIGHT_BATCH = 2_000, 20_000
"""Programs up to this weight have the functions of mathematics in place of their calls."""

AGAIN, SETTLED = "again", 100
"""The block where a piece is done again, and after how many lines it is asked whether it must be."""


class Ports:
    """How a function reaches its inputs, outputs and workspace: here, for one point, in records (records)."""

    lanes = 1
    parameters = "ptr noalias readonly %in, ptr noalias %out, ptr noalias %work"
    arguments = "ptr %in, ptr %out, ptr %work"

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def input(self, w: Writer, element: Element, moved: str = "0") -> Lane:
        """The address of an element of an input, or of one that is so many further."""
        field = self.layout.inputs.fields[element[0]]
        return further(w, address(w, "%in", field.offset + element[1] * field.stored), moved, field.stored)

    def output(self, w: Writer, element: Element, moved: str = "0") -> Lane:
        """The address of an element of an output, or of one that is so many further."""
        field = self.layout.outputs.fields[element[0]]
        return further(w, address(w, "%out", field.offset + element[1] * field.stored), moved, field.stored)


class Columns(Ports):
    """For a batch: a table of columns, one for each element of the inputs and outputs; a column is read from point
    `%at` on, as many points as there are lanes."""

    parameters = "ptr noalias readonly %in, ptr noalias readonly %out, ptr noalias %work, i64 %at"
    arguments = "ptr %in, ptr %out, ptr %work, i64 %at"

    def __init__(self, layout: Layout, lanes: int) -> None:
        super().__init__(layout)
        self.lanes = lanes

    def input(self, w: Writer, element: Element, moved: str = "0") -> Lane:
        field = self.layout.inputs.fields[element[0]]
        return self._column(w, "%in", field.first + element[1], field.stored, moved)

    def output(self, w: Writer, element: Element, moved: str = "0") -> Lane:
        field = self.layout.outputs.fields[element[0]]
        return self._column(w, "%out", field.first + element[1], field.stored, moved)

    def _column(self, w: Writer, table: str, number: int, stored: int, moved: str) -> Lane:
        entry = further(w, address(w, table, 8 * number), moved, 8)
        column = w.line("ptr", f"load ptr, ptr {entry.name}, align 8, !invariant.load !1")
        return w.line("ptr", f"getelementptr i{8 * stored}, ptr {column.name}, i64 %at")


def address(w: Writer, base: str, offset: int) -> Lane:
    """base + offset bytes."""
    return w.line("ptr", f"getelementptr i8, ptr {base}, i64 {offset}") if offset else Lane(w, base, "ptr")


def further(w: Writer, base: Lane, moved: str, bytes: int) -> Lane:
    """So many elements of that many bytes further."""
    return base if moved == "0" else w.line("ptr", f"getelementptr [{bytes} x i8], ptr {base.name}, i64 {moved}")


def functions(pieces: Pieces, ports: Ports, name: str, attributes: str = "", *, exported: bool = False,
              contract: bool = False) -> list[Writer]:
    """Function `@NAME` over the ports, in pieces where it is long. `attributes` are those of a function that is one
    piece.

    Programs that are not too long have the functions of mathematics in place of their calls. A batch goes the usual way
    for all its arguments, without branches, and where one was in doubt the piece is done again by `@NAME.again`.
    """
    linkage = "" if exported else "internal "
    inline = weight(pieces) <= (WEIGHT_POINT if ports.lanes == 1 else WEIGHT_BATCH)
    body = _Body(pieces, ports, contract)
    found: list[Writer] = []

    def add(number: int, name: str, linkage: str, attributes: str) -> None:
        w = body.piece(number, inline, inline and ports.lanes > 1)
        if any(f"label %{AGAIN}" in line for line in w.lines):
            again = body.piece(number, False, False)
            found.append(_wrapped(again, f"{name}.again", ports, "internal ", "cold noinline "))
            w.lines += ["  ret void", f"{AGAIN}:", f"  call void @{name}.again({ports.arguments})"]
        found.append(_wrapped(w, name, ports, linkage, attributes))

    if len(pieces.pieces) == 1:
        add(0, name, linkage, attributes)
        return found
    numbers = range(len(pieces.pieces))
    for i in numbers:
        add(i, f"{name}.{i}", "internal ", "noinline ")
    main = Writer()
    main.lines = [f"  call void @{name}.{i}({ports.arguments})" for i in numbers]
    return [*found, _wrapped(main, name, ports, linkage, "noinline ")]


def _wrapped(w: Writer, name: str, ports: Ports, linkage: str, attributes: str) -> Writer:
    w.lines = [f"define {linkage}void @{name}({ports.parameters}) {attributes}#0 {{", "entry:", *w.lines, "  ret void",
               "}"]
    return w


def weight(pieces: Pieces) -> int:
    """About how many instructions the program is, its functions put in place of their calls."""
    return sum(30 if node.op.name in FUNCTIONS else 1 for nodes in pieces.pieces for node in nodes)


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
        self.settled = 0

    def piece(self, number: int, inline: bool, deferred: bool) -> Writer:
        """The body of a piece, its functions of mathematics `inline`, their doubts `deferred`."""
        w = Writer(self.ports.lanes, self.contract, formula if inline else None, deferred)
        self.settled = 0
        program = self.program
        here: dict[Value, Lane] = {}
        def lane(value: Value) -> Lane:
            if value not in here:
                here[value] = self._slot(w, value) if value in program.slots else self._input(w, value)
            return here[value]

        if number == 0:
            for element, fixed in program.fixed:
                stored = to_memory(w, constant(w, fixed), fixed.dtype)
                self._store(w, element, stored, fixed.dtype)
            for value in program.inputs:
                if value in program.sinks:
                    self._write(w, value, lane(value))
        if number in program.loops:
            self._loop(w, program.loops[number], program.pieces[number], lane)
            return w
        for node in program.pieces[number]:
            value = node.results[0]
            here[value] = w.renamed(lower(w, node, lane), value.name)
            self._keep(w, value, here[value])
            if value in program.sinks:
                self._write(w, value, here[value])
            self._settle(w)
        w.settle(AGAIN)
        return w

    def _settle(self, w: Writer) -> None:
        """Now and then, which keeps blocks short: LLVM's order of a long one needs too many registers."""
        if len(w.lines) - self.settled >= SETTLED:
            self.settled = len(w.lines)
            w.settle(AGAIN)

    def _loop(self, w: Writer, loop: Loop, nodes: Sequence[Node], lane: Callable[[Value], Lane]) -> None:
        """The loop's blocks, one after the other: what stays is read before, what is carried goes through registers."""
        same = {source.value: constant(w, source.value) if isinstance(source.value, Constant) else lane(source.value)
                for sources in loop.sources for source in sources if isinstance(source, Same)}
        first = {(row, back): lane(value)
                 for row, values in loop.before.items() for back, value in enumerate(values, 1)}
        head, after, index, following, more = (w.fresh(stem) for stem in ("block", "done", "number", "next", "more"))
        start = w.block
        w.lines.append(f"  br label %{head}")
        w.label(head)
        mark = len(w.lines)
        carried = {key: Lane(w, f"%{w.fresh('carried')}", before.kind) for key, before in first.items()}
        made: list[Lane] = []

        def operand(source: Source) -> Lane:
            if isinstance(source, Same):
                return same[source.value]
            if isinstance(source, Computed):
                return carried[source.row, source.back] if source.back else made[source.row]
            if isinstance(source, Walking):
                return self._input(w, source.value, _times(w, index, source.step))
            return self._slot(w, source.value, source.first, _times(w, index, source.step))

        for row, node in enumerate(nodes):
            found = instructions(w, node, [operand(source) for source in loop.sources[row]])
            made.append(w.renamed(found, node.results[0].name))
            if row in loop.kept:
                self._put(w, made[row], loop.kept[row], f"%{index}")
            if row in loop.written:
                written = loop.written[row]
                dtype = written.value.dtype
                self._store(w, written.element, to_memory(w, made[row], dtype), dtype, _times(w, index, written.step))
            self._settle(w)
        w.settle(AGAIN)
        w.lines += [f"  %{following} = add nuw nsw i64 %{index}, 1",
                    f"  %{more} = icmp ult i64 %{following}, {loop.count}",
                    f"  br i1 %{more}, label %{head}, label %{after}"]
        phis = [f"  %{index} = phi i64 [ 0, %{start} ], [ %{following}, %{w.block} ]"]
        for (row, back), phi in carried.items():
            again = carried[row, back - 1] if back > 1 else made[row]
            phis.append(f"  {phi.name} = phi {w.type(phi.kind)} [ {first[row, back].name}, %{start} ], "
                        f"[ {again.name}, %{w.block} ]")
        w.lines[mark:mark] = phis
        w.label(after)
        for row, value in loop.last.items():
            self._keep(w, value, made[row])

    def _input(self, w: Writer, value: Value, moved: str = "0") -> Lane:
        kind_there = memory_kind(value.dtype)
        at = self.ports.input(w, self.program.inputs[value], moved)
        found = w.line(kind_there, f"load {w.type(kind_there)}, ptr {at.name}, align {value.dtype.bytes}, "
                                   "!invariant.load !1")
        return from_memory(w, found, value.dtype)

    def _slot(self, w: Writer, value: Value, slot: int = -1, moved: str = "0") -> Lane:
        """What lies in the value's slot, or in one that is so many further than another."""
        at = self._place(w, self.program.slots[value] if slot < 0 else slot, moved)
        k = kind(value.dtype)
        return w.line(k, f"load {w.type(k)}, ptr {at.name}, align 8")

    def _place(self, w: Writer, slot: int, moved: str) -> Lane:
        return further(w, address(w, "%work", slot * 8 * w.lanes), moved, 8 * w.lanes)

    def _put(self, w: Writer, lane: Lane, slot: int, moved: str = "0") -> None:
        w.lines.append(f"  store {w.type(lane.kind)} {lane.name}, ptr {self._place(w, slot, moved).name}, align 8")

    def _keep(self, w: Writer, value: Value, lane: Lane) -> None:
        for slot in self.program.homes.get(value, ()):
            self._put(w, lane, slot)

    def _write(self, w: Writer, value: Value, lane: Lane) -> None:
        stored = to_memory(w, lane, value.dtype)
        for element in self.program.sinks[value]:
            self._store(w, element, stored, value.dtype)

    def _store(self, w: Writer, element: Element, stored: Lane, dtype: DType, moved: str = "0") -> None:
        at = self.ports.output(w, element, moved)
        w.lines.append(f"  store {w.type(stored.kind)} {stored.name}, ptr {at.name}, align {dtype.bytes}")


def _times(w: Writer, index: str, step: int) -> str:
    """index * step, as an operand of an address."""
    if step == 1:
        return f"%{index}"
    return w.line("i64", f"mul nsw i64 %{index}, {step}").name if step else "0"

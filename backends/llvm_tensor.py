"""A program of arrays as native code on one block of memory: a loop nest for each operation.

`slpc.tensor(environment)` is given a record of addresses: tables of the inputs and of the outputs, the arena, the
routines and threads (llvm_runtime.py), and three words for an index that is out of range, of which it says the number
in the head's list, the index, and the axis's length, and returns 1. A loop that threads share is a function of its own,
of some of the loop's blocks.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy

from ..ir.donation import donations
from ..ir.graph import Graph, Node, Value, buffer
from ..ir.target import Target
from ..passes.arena import Placement
from ..passes.blocks import Blocks, blocks
from ..passes.blocks import Program as Block
from . import llvm_engine, llvm_products, llvm_regions, llvm_runtime
from .llvm_loops import Loops
from .llvm_math import FUNCTIONS
from .llvm_module import module
from .llvm_nests import loops
from .llvm_program import address
from .llvm_regions import ENVIRONMENT
from .llvm_target import TARGET
from .llvm_writer import Lane
from .records import Arena, Layout, head, layout_of, read_head

NESTS = 40
"""Operations in one function: compilers take more than linear time on a long one."""
WEIGHT_INLINE = 20_000
"""Programs up to this weight have the functions of mathematics in place of their calls."""
__all__ = ["Tensors", "emit", "functions", "light", "llvm_products"]

ALIGNMENT = 64


def emit(graph: Graph, placement: Placement, *, source: str = "", contract: bool = False) -> str:
    """The module's text for a graph that is legal for the target. Values without an offset in the placement are
    computed by the loops that read them."""
    writers, layout = functions(graph, placement, TARGET, contract=contract)
    return module(head(layout, source or graph.file), writers, [], light(graph))


def functions(graph: Graph, placement: Placement, target: Target, *, lanes: int = 0,
              contract: bool = False) -> tuple[list[Loops], Layout]:
    """The functions, `slpc.tensor` last, and the layout with its arena; vectors hold that many doubles (those of this
    machine, if 0)."""
    program = _Program(graph, placement, _Module(target, lanes or llvm_engine.lanes(), contract), target.threads == 1)
    writers = [*program.functions("slpc.tensor"), *program.module.writers]
    over = {y: x for y, x in donations(graph).items() if buffer(y) in placement.lodged}
    offsets = [-1 - graph.inputs.index(over[v]) if v in over else placement.offsets[buffer(v)] for v in graph.outputs]
    ends = [at + v.type.bytes for at, v in zip(offsets, graph.outputs, strict=True) if at >= 0]
    arena = Arena(placement.size, max(ends, default=0), tuple(offsets),
                  tuple(program.module.indexed))
    return writers, replace(layout_of(graph), arena=arena)


def light(graph: Graph) -> bool:
    """Is the program so short that its functions of mathematics stand in place of their calls?"""
    return sum(100 if n.op.name in FUNCTIONS else 1 for n in graph.nodes) <= WEIGHT_INLINE


def _main(name: str, parts: int) -> Loops:
    w = Loops()
    for number in range(parts):
        w.lines += [f"  %r{number} = call i32 @{name}.{number}(ptr %environment)",
                    f"  %bad{number} = icmp ne i32 %r{number}, 0",
                    f"  br i1 %bad{number}, label %no, label %part{number + 1}", f"part{number + 1}:"]
    linkage = "" if name == "slpc.tensor" else "internal "
    w.lines = [f"define {linkage}i32 @{name}(ptr %environment) noinline #0 {{", "entry:", *w.lines, "  ret i32 0",
               *(["no:", "  ret i32 1"] if parts else []), "}"]
    return w


def _unpacked(*without: str) -> list[str]:
    """The environment's words by their names."""
    lines: list[str] = []
    for number, name in enumerate(ENVIRONMENT):
        if name not in without:
            lines += [f"  %{name}.at = getelementptr ptr, ptr %environment, i64 {number}",
                      f"  %{name} = load ptr, ptr %{name}.at, align 8, !invariant.load !1"]
    return lines


def _call(w: Loops, name: str, blocks: int, threads: int) -> None:
    """All blocks of a function, by so many threads."""
    parallel = w.line("ptr", "load ptr, ptr %runtime, align 8, !invariant.load !1")
    w.lines.append(f"  call void {parallel.name}(ptr %runtime, ptr @{name}, ptr %environment, i64 {blocks}, "
                   f"i64 {threads})")


def _blocks(w: Loops, name: str, entry: str) -> Loops:
    """The function of some blocks of a loop."""
    length, n = w.length
    w.lines = [f"define internal void @{name}(ptr %environment, i64 %from, i64 %to, i64 %thread) noinline #0 {{",
               f"{entry}:", *_unpacked("fault"), *w.allocated, f"  %start = mul i64 %from, {length}",
               f"  %end = mul i64 %to, {length}", f"  %inside = icmp slt i64 %end, {n}",
               f"  %stop = select i1 %inside, i64 %end, i64 {n}", *w.lines, "  ret void", "}"]
    return w


class _Module:
    """What the programs of a module have in common: its regions, and the names of values made by indices from data."""

    def __init__(self, target: Target, lanes: int, contract: bool) -> None:
        self.target, self.lanes, self.contract = target, lanes, contract
        self.indexed: dict[str, int] = {}
        self.writers: list[Loops] = []
        self.regions: list[tuple[Blocks, str]] = []

    def region(self, node: Node) -> str:
        """The name of a region's function, written when it is first asked for."""
        found = blocks(node, self.target)
        for other, name in self.regions:
            if other is found:
                return name
        name = f"slpc.region.{len(self.regions)}"
        self.regions.append((found, name))
        entries, faults = {}, False
        for number, block in enumerate(found.programs.values()):
            entries[id(block)] = entry = f"{name}.block.{number}"
            program = _Block(block, found.threads, self)
            self.writers += program.functions(entry)
            faults |= program.faults
        self.writers += llvm_regions.functions(name, node, found, entries, faults, self.contract)
        return name


class _Program:
    """Where everything lies: what `llvm_nests` asks for. `alone`: one thread runs it. `outside`: the outputs that
    lie at given addresses, each with its number, if not all do."""

    def __init__(self, graph: Graph, placement: Placement, module: _Module, alone: bool,
                 outside: Mapping[Value, tuple[int, Value]] | None = None) -> None:
        self.graph, self.placement, self.module, self.alone = graph, placement, module, alone
        self.lanes = module.lanes
        self.faults = False
        """Can it find an index out of range?"""
        self.inputs = {v: i for i, v in enumerate(graph.inputs)}
        self.outside = outside or {}
        self.outputs = dict(outside) if outside is not None else {
            buffer(v): (i, buffer(v)) for i, v in enumerate(graph.outputs)}
        for node in reversed(graph.nodes):  # what an output takes over lies in it already
            for v in node.results:
                heir = placement.heirs.get(v)
                if heir in self.outputs:
                    self.outputs[v] = self.outputs[heir]

    def functions(self, name: str) -> list[Loops]:
        """The program's functions, the one of that name last."""
        nodes = [n for n in self.graph.nodes if not n.op.view and any(map(self.in_memory, n.results))]
        parts = [nodes[i:i + NESTS] for i in range(0, len(nodes), NESTS)]
        writers = [w for number, part in enumerate(parts) for w in self.part(f"{name}.{number}", part)]
        return [*writers, _main(name, len(parts))]

    def part(self, function: str, nodes: Sequence[Node]) -> list[Loops]:
        """One function, of these operations, and those of the loops that threads share."""
        w = Loops(self.module.contract, self.alone)
        shared: list[Loops] = []
        for node in nodes:
            w.lines.append(f"  ; {node.results[0].name}".encode("ascii", "replace").decode())
            own = w.fork()
            self.node(own, node)
            if own.blocks:
                name = f"{function}.{len(shared)}"
                w.needs(own)
                _call(w, name, own.blocks, self.module.target.threads)
                shared.append(_blocks(own, name, w.block))
            else:
                w.absorb(own)
        w.lines = [f"define internal i32 @{function}(ptr %environment) noinline #0 {{", "entry:", *_unpacked(),
                   *w.allocated, *w.lines, "  ret i32 0", *(["no:", "  ret i32 1"] if w.leaves else []), "}"]
        return [w, *shared]

    def node(self, w: Loops, node: Node) -> None:
        """The lines of one operation."""
        loops(w, node, self)

    def adds(self, value: Value) -> bool:
        """Is the value, a product's, added to what is there?"""
        return False

    def workspace(self, w: Loops, node: Node) -> str:
        """The address of the workspace for an operation."""
        return address(w, "%work", self.placement.workspace.get(node, 0)).name

    def region(self, node: Node) -> str:
        """The name of a region's function."""
        self.faults = True  # as far as is known
        return self.module.region(node)

    def pointer(self, w: Loops, root: Value, offset: int = 0) -> str:
        """The address of an element of a value that owns memory, or of an input."""
        offset *= root.dtype.bytes
        lodging = self.placement.lodged.get(root)
        if lodging is not None:
            root, offset = lodging.input, offset + lodging.offset
        if root in self.inputs:
            return self._entry(w, "%in", self.inputs[root], offset)
        if root in self.outputs:
            number, whole = self.outputs[root]
            if root is not whole:
                at = self.placement.offsets
                offset += at[root] - at[whole]
            return self._entry(w, "%out", number, offset)
        return address(w, "%work", self.placement.offsets[root] + offset).name

    def _entry(self, w: Loops, table: str, number: int, offset: int) -> str:
        at = address(w, table, 8 * number)
        base = w.line("ptr", f"load ptr, ptr {at.name}, align 8, !invariant.load !1")
        return address(w, base.name, offset).name

    def in_memory(self, value: Value) -> bool:
        """Has the value, which is no view, memory?"""
        return value in self.placement.offsets or value in self.placement.lodged or value in self.outside

    def inherited(self, node: Node, position: int) -> bool:
        """Does the operand's memory lie already where it belongs in the result's?"""
        return self.placement.inherited(node, position)

    def fault(self, w: Loops, node: Node, index: Lane, length: int) -> None:
        """Return 1 where the index is not from -length to length - 1."""
        self.faults = True
        number = self.module.indexed.setdefault(node.result.name, len(self.module.indexed))
        above = index + length
        bad = w.line("i1", f"icmp uge i64 {above.name}, {2 * length}")
        leave, stay = w.fresh("leave"), w.fresh("stay")
        w.lines.append(f"  br i1 {bad.name}, label %{leave}, label %{stay}, !prof !0")
        w.label(leave)
        for place, word in enumerate((str(number), index.name, str(length))):
            w.lines.append(f"  store i64 {word}, ptr {address(w, '%fault', 8 * place).name}, align 8")
        w.lines.append("  ret i32 1")
        w.label(stay)


class _Block(_Program):
    """The program of a region's block: what it adds to the region's results waits for its turn, if threads share the
    blocks, and none of them its loops."""

    def __init__(self, block: Block, threads: int, module: _Module) -> None:
        outputs = [buffer(v) for v in block.graph.outputs]
        super().__init__(block.graph, block.placement, module, threads > 1 or module.target.threads == 1, {
            v: (number, v) for number, v in enumerate(outputs) if block.outside[number]})
        self.added = {v: number for number, v in enumerate(outputs) if block.added[number]}
        self.ordered = threads > 1

    def node(self, w: Loops, node: Node) -> None:
        number = self.added.get(node.results[0])
        if number is None or not self.ordered:
            super().node(w, node)
            return
        block = w.line("i64", "ptrtoint ptr %block to i64").name
        llvm_regions.awaited(w, "%turns", number, block)
        super().node(w, node)
        llvm_regions.passed(w, "%turns", number, block)

    def adds(self, value: Value) -> bool:
        return value in self.added


class Tensors:
    """Machine code of one program of arrays, called with inputs by position; returns a tuple of the outputs.

    A thread's first call has a block to itself, which shrinks to the outputs in it. From the second call on, or with
    `out`, a sequence of arrays for the outputs, the thread keeps its arena: a loop of calls faults no page in again.
    IndexError for an index that is out of range, whose second argument is the value's name.
    """

    def __init__(self, text: str) -> None:
        self.layout = read_head(text)
        assert self.layout.arena is not None
        self.arena = self.layout.arena
        self._library = llvm_engine.load(text, ["slpc.tensor"])
        self._run = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._library.addresses["slpc.tensor"])
        self._kept = threading.local()

    def __call__(self, *args: Any, out: Sequence[Any] | None = None) -> tuple[Any, ...]:
        """Arrays (or numbers) of the inputs' dtypes and shapes; outputs are arrays of the caller's own."""
        given = [numpy.asarray(a, f.type.dtype.numpy, order="C") for a, f in
                 zip(args, self.layout.inputs.fields, strict=True)]
        over = [given[-1 - at] if at < 0 else None for at in self.arena.offsets]
        if out is None and not hasattr(self._kept, "block"):
            self._kept.block = None
            return self._first(given, over)
        own = iter(out) if out is not None else (
            numpy.empty(f.type.shape, f.type.dtype.numpy) for f, at in
            zip(self.layout.outputs.fields, self.arena.offsets, strict=True) if at >= 0)
        found = [next(own) if array is None else array for array in over]
        block = getattr(self._kept, "block", None)
        if block is None:
            block = self._kept.block = self._block()
        self._at(given, [a.ctypes.data for a in found], block.ctypes.data + _start(block))
        return tuple(found if out is not None else (v if v.shape else v[()] for v in found))

    def _first(self, given: Sequence[Any], over: Sequence[Any]) -> tuple[Any, ...]:
        """A call on a block that becomes the outputs'."""
        block = self._block()
        start = _start(block)
        base = block.ctypes.data + start
        self._at(given, [base + offset for offset in self.arena.offsets], base)
        block.resize(start + self.arena.outputs, refcheck=False)
        views = [numpy.ndarray(f.type.shape, f.type.dtype.numpy, block, start + offset) if array is None else array
                 for f, offset, array in zip(self.layout.outputs.fields, self.arena.offsets, over, strict=True)]
        return tuple(v if v.shape else v[()] for v in views)

    def _block(self) -> Any:
        return numpy.empty(self.arena.size + ALIGNMENT, numpy.uint8)

    def _at(self, given: Sequence[Any], outputs: Sequence[int], work: int) -> None:
        words = len(ENVIRONMENT)
        table = numpy.array([*[0] * (words + 3), *(a.ctypes.data for a in given), *outputs], numpy.int64)
        at = table.ctypes.data
        arrays = at + 8 * (words + 3)
        table[:5] = (arrays, arrays + 8 * len(given), work, llvm_runtime.address(), at + 8 * words)
        if self._run(at):
            number, index, length = table[words:words + 3].tolist()
            raise IndexError(f"index {index} is out of range for an axis of length {length}",
                             self.arena.indexed[number])


class Points(Tensors):
    """The same over many points, one after the other; threads share the loops of each."""

    def __call__(self, *args: Any, out: Sequence[Any] | None = None) -> tuple[Any, ...]:
        """Inputs by position: each one value for all points, or an array of them along its first axis. Outputs have the
        points along their first axis."""
        given = [numpy.asarray(a, f.type.dtype.numpy, order="C") for a, f in
                 zip(args, self.layout.inputs.fields, strict=True)]
        many = [a.ndim > len(f.type.shape) for a, f in zip(given, self.layout.inputs.fields, strict=True)]
        points = next((len(a) for a, each in zip(given, many, strict=True) if each), 1)
        found = [numpy.empty((points, *f.type.shape), f.type.dtype.numpy) for f in self.layout.outputs.fields]
        block = self._block()
        for i in range(points):
            here = [a[i, ...] if each else a for a, each in zip(given, many, strict=True)]
            self._at(here, [a[i, ...].ctypes.data for a in found], block.ctypes.data + _start(block))
        return tuple(found)


def _start(block: Any) -> int:
    """Bytes to the first multiple of the alignment."""
    return -int(block.ctypes.data) % ALIGNMENT

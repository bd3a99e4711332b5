"""Regions as LLVM IR: a function for each block program, and one for the region, which loops over the blocks.

A block program is a program of arrays like any other (llvm_tensor.py). The loop gives it a record of addresses of its
own: blocks of the region's operands and results as they lie, where the block begins, and the region's workspace as its
arena, or where threads share the blocks its own of several. What a block has made is written in place, or copied there,
or added to what blocks before have made, in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..ir.graph import Constant, Node, Value, buffer
from ..ir.layout import layout, rowwise
from ..ir.types import Shape
from ..passes.blocks import Blocks, Program, Stretch
from .llvm_loops import Access, Accesses, Loops, collapsed
from .llvm_lowering import kind
from .llvm_nests import Scope, access, rule
from .llvm_pool import AWAIT
from .llvm_program import address
from .llvm_writer import Lane

ENVIRONMENT = ("in", "out", "work", "runtime", "fault", "turns", "block")
"""The words of the record that a program of arrays is given, as functions name them. The last two are for blocks that
threads share: a word for each result to which they add, which says whose turn it is, and the block's number."""
JOB = (*ENVIRONMENT, "operands")
"""Those of the record that a region's blocks are given; `turns` has two words more, for indices out of range: whose
turn it is to say so, and whether somebody has."""


@rule("region")
def _region(w: Loops, node: Node, scope: Scope) -> None:
    """Call the region's function with the addresses of its operands and results."""
    name = scope.region(node)
    values = [*node.operands, *node.results]
    table = f"%{w.fresh('operands')}"
    w.allocated.append(f"  {table} = alloca [{len(values)} x ptr], align 8")
    for number, value in enumerate(values):
        w.lines.append(f"  store ptr {_begin(w, value, scope)}, ptr {address(w, table, 8 * number).name}, align 8")
    bad = w.line("i32", f"call i32 @{name}(ptr %environment, ptr {table}, ptr {scope.workspace(w, node)})")
    w.leave_if(w.line("i1", f"icmp ne i32 {bad.name}, 0"))


def _begin(w: Loops, value: Value, scope: Scope) -> str:
    """The address of the value's first element; a constant is put into memory."""
    root = buffer(value)
    if not isinstance(root, Constant):
        return access(w, value, scope).at
    at = w.kept(kind(root.dtype), 1)
    w.put(w.constant(root.number, kind(root.dtype)), at)
    return at


def functions(name: str, node: Node, found: Blocks, entries: dict[int, str], faults: bool,
              contract: bool) -> list[Loops]:
    """The region's function, and that of some of its blocks; `entries` names those of its block programs, by identity,
    and `faults` says whether these can find an index out of range."""
    made = _Region(Loops(contract), node, found, entries, faults)
    made.blocks_function(f"{name}.blocks")
    return [_whole(name, node, found, contract), made.w]


def _whole(name: str, node: Node, found: Blocks, contract: bool) -> Loops:
    """Zeros, then all blocks."""
    w = Loops(contract)
    turns = len(node.results) + 2
    w.allocated += [f"  %job = alloca [{len(JOB)} x ptr], align 8", f"  %turns = alloca [{turns} x i64], align 8"]
    w.zeroed("%turns", 8 * turns)
    for number, word in enumerate(JOB):
        text = f"%{word}"
        if word in ("runtime", "fault"):
            text = w.line("ptr", f"load ptr, ptr {address(w, '%environment', 8 * number).name}, align 8", word).name
        if word not in ("in", "out", "block"):
            w.lines.append(f"  store ptr {text}, ptr {address(w, '%job', 8 * number).name}, align 8")
    for number, value in enumerate(node.results):  # those to which blocks add
        if found.summed[number] and any(p.added[number] or not p.outside[number] for p in found.programs.values()):
            at = address(w, "%operands", 8 * (len(node.operands) + number))
            w.zeroed(w.line("ptr", f"load ptr, ptr {at.name}, align 8").name, value.type.bytes)
    count = math.prod(sum(map(len, stretches)) for stretches in found.axes)
    if found.threads > 1:
        parallel = w.line("ptr", "load ptr, ptr %runtime, align 8")
        w.lines.append(f"  call void {parallel.name}(ptr %runtime, ptr @{name}.blocks, ptr %job, i64 {count}, "
                       f"i64 {found.threads})")
    else:
        w.lines.append(f"  call void @{name}.blocks(ptr %job, i64 0, i64 {count}, i64 0)")
    bad = w.line("i64", f"load i64, ptr {address(w, '%turns', 8 * (turns - 1)).name}, align 8")
    w.leave_if(bad.differs(0))
    w.lines = [f"define internal i32 @{name}(ptr %environment, ptr %operands, ptr %work) noinline #0 {{", "entry:",
               *w.allocated, *w.lines, "  ret i32 0", "no:", "  ret i32 1", "}"]
    return w


def awaited(w: Loops, turns: str, number: int, block: str) -> None:
    """Wait until that turn is the block's: those before it have passed it on."""
    routine = w.line("ptr", f"load ptr, ptr {address(w, '%runtime', 8 * AWAIT).name}, align 8")
    at = address(w, turns, 8 * number)
    w.lines.append(f"  call void {routine.name}(ptr %runtime, ptr {at.name}, i64 {block})")


def passed(w: Loops, turns: str, number: int, block: str) -> None:
    """Pass a turn on to the next block, if that was not done."""
    following = w.line("i64", f"add i64 {block}, 1")
    w.line("{ i64, i1 }", f"cmpxchg ptr {address(w, turns, 8 * number).name}, i64 {block}, i64 {following.name} "
                          "seq_cst seq_cst")


class _Region:
    """The lines of the function of some blocks."""

    def __init__(self, w: Loops, node: Node, found: Blocks, entries: dict[int, str], faults: bool) -> None:
        self.w, self.node, self.blocks, self.entries = w, node, found, entries
        self.ordered, self.faults = found.threads > 1, faults

    def blocks_function(self, name: str) -> None:
        """All of it."""
        w, node, found = self.w, self.node, self.blocks
        inputs = max((len(p.graph.inputs) for p in found.programs.values()), default=1)
        w.allocated += [f"  %inner = alloca [{len(ENVIRONMENT)} x ptr], align 8",
                        f"  %in = alloca [{max(1, inputs)} x ptr], align 8",
                        f"  %out = alloca [{len(node.results)} x ptr], align 8",
                        "  %own = alloca [3 x i64], align 8",
                        f"  %starts = alloca [{len(found.axes) + 1} x i64], align 8"]
        for number, word in enumerate(JOB):
            if word in ("runtime", "fault", "operands", "turns"):
                w.line("ptr", f"load ptr, ptr {address(w, '%job', 8 * number).name}, align 8", word)
            if word == "work":
                arenas = w.line("ptr", f"load ptr, ptr {address(w, '%job', 8 * number).name}, align 8")
                offset = w.line("i64", f"mul i64 %thread, {found.arena}")
                w.line("ptr", f"getelementptr i8, ptr {arenas.name}, i64 {offset.name}", word)
        for number, word in enumerate(ENVIRONMENT):
            text = "%own" if word == "fault" else f"%{word}"
            if word != "block":
                w.lines.append(f"  store ptr {text}, ptr {address(w, '%inner', 8 * number).name}, align 8")
        bases = [w.line("ptr", f"load ptr, ptr {address(w, '%operands', 8 * number).name}, align 8").name
                 for number in range(len(node.operands) + len(node.results))]
        self.operands, self.results = bases[:len(node.operands)], bases[len(node.operands):]
        first = 0
        for nest, program in found.nests():
            grid = tuple(map(len, nest))
            self._nest(nest, program, grid, first)
            first += math.prod(grid)
        w.lines = [f"define internal void @{name}(ptr %job, i64 %from, i64 %to, i64 %thread) noinline #0 {{",
                   "entry:", *w.allocated, *w.lines, "  ret void", "}"]

    def _nest(self, nest: Sequence[Stretch], program: Program, grid: Shape, first: int) -> None:
        """Those of the equal blocks, of which there are as many as the grid has, that are asked for."""
        w = self.w
        start = w.intrinsic("smax", "i64", Lane(w, "%from", "i64"), first)
        stop = w.intrinsic("smin", "i64", Lane(w, "%to", "i64"), first + math.prod(grid))

        def block(i: str) -> None:
            index = w.line("i64", f"sub i64 {i}, {first}").name
            begins = []
            for stretch, at in zip(nest, w.unravelled(index, grid), strict=True):
                begins.append(str(stretch.start) if at == "0" else (
                    Lane(w, at, "i64") * stretch.step + stretch.start).name)
            self._block(nest, program, begins, i)

        w.count(start.name, stop.name, 1, block)

    def _block(self, nest: Sequence[Stretch], program: Program, begins: list[str], block: str) -> None:
        w, found = self.w, self.blocks
        at_block = address(w, "%inner", 8 * ENVIRONMENT.index("block"))
        w.lines.append(f"  store i64 {block}, ptr {at_block.name}, align 8")
        begins = [*begins, self._column(nest[-1], begins[-1])]
        inputs = list(program.graph.inputs)
        at: dict[Value, str] = {}
        for memory, value, axes, base in zip(inputs, self.node.operands, found.operands, self.operands):
            lies = layout(value)
            assert lies is not None
            at[memory] = self._moved(base, value, axes, lies.strides, begins)
        for axis, start in program.starts.items():
            at[start] = address(w, "%starts", 8 * axis).name
            w.lines.append(f"  store i64 {begins[axis]}, ptr {at[start]}, align 8")
        for number, value in enumerate(inputs):
            w.lines.append(f"  store ptr {at[value]}, ptr {address(w, '%in', 8 * number).name}, align 8")
        targets = [self._moved(base, value, axes, rowwise(value.shape).strides, begins) for base, value, axes in
                   zip(self.results, self.node.results, found.results, strict=True)]
        for number, target in enumerate(targets):
            w.lines.append(f"  store ptr {target}, ptr {address(w, '%out', 8 * number).name}, align 8")
        bad = w.line("i32", f"call i32 @{self.entries[id(program)]}(ptr %inner)")
        for number, output in enumerate(program.graph.outputs):
            ordered = self.ordered and found.summed[number] and (program.added[number] or not program.outside[number])
            if ordered and not program.added[number]:
                awaited(w, "%turns", number, block)
            if not program.outside[number]:
                self._put(program, number, output, targets[number])
            if ordered and program.added[number] and self.faults:
                awaited(w, "%turns", number, block)
            if ordered and (self.faults or not program.added[number]):
                passed(w, "%turns", number, block)
        if self.faults:
            self._fault(bad, block)

    def _fault(self, bad: Lane, block: str) -> None:
        """What the first block that has found an index out of range says of it is kept."""
        w, number = self.w, len(self.node.results)
        if self.ordered:
            awaited(w, "%turns", number, block)
        flag = address(w, "%turns", 8 * (number + 1)).name
        none = w.line("i64", f"load i64, ptr {flag}, align 8").equals(0)
        told, after = w.fresh("told"), w.fresh("after")
        w.lines.append(f"  br i1 {(bad.differs(0) & none).name}, label %{told}, label %{after}, !prof !0")
        w.label(told)
        for word in range(3):
            value = w.line("i64", f"load i64, ptr {address(w, '%own', 8 * word).name}, align 8").name
            w.lines.append(f"  store i64 {value}, ptr {address(w, '%fault', 8 * word).name}, align 8")
        w.lines += [f"  store i64 1, ptr {flag}, align 8", f"  br label %{after}"]
        w.label(after)
        if self.ordered:
            passed(w, "%turns", number, block)

    def _column(self, rows: Stretch, begin: str) -> str:
        """The first column that a block sees."""
        if rows.columns is None:
            return "0"
        first, growth, _ = rows.columns
        if not growth:
            return str(first)
        w = self.w
        count = w.line("i64", f"sdiv i64 {w.line('i64', f'sub i64 {begin}, {rows.start}').name}, {rows.step}")
        return w.line("i64", f"add i64 {w.line('i64', f'mul i64 {count.name}, {growth}').name}, {first}").name

    def _moved(self, base: str, value: Value, axes: Sequence[int | None], strides: Sequence[int],
               begins: Sequence[str]) -> str:
        """The address of a block's first element."""
        w = self.w
        for axis, stride in zip(axes, strides, strict=True):
            if axis is not None and stride and begins[axis] != "0":
                step = w.line("i64", f"mul i64 {begins[axis]}, {stride * value.dtype.bytes}").name
                base = w.line("ptr", f"getelementptr i8, ptr {base}, i64 {step}").name
        return base

    def _put(self, program: Program, number: int, output: Value, target: str) -> None:
        """Copy or add what a block has made to the region's result."""
        w, result = self.w, self.node.results[number]
        root = buffer(output)
        lies = layout(output)
        assert lies is not None
        at = address(w, "%work", program.placement.offsets[root] + lies.offset * root.dtype.bytes)
        accesses: dict[object, Access] = {
            "part": Access(at.name, output.dtype, lies.strides),
            "whole": Access(target, output.dtype, rowwise(result.shape).strides)}
        shape, accesses = collapsed(output.shape, accesses)
        add = self.blocks.summed[number]

        def body(here: Accesses) -> None:
            x = w.load(here["part"])
            w.store(w.load(here["whole"]) + x if add else x, here["whole"])

        lanes = 64 // max(output.dtype.bytes, 4)
        if not shape:
            body(accesses)
            return
        widths = [k for k in (lanes,) if k <= shape[-1]] + [1]
        w.nest(shape[:-1], accesses, lambda row: w.sweep(shape[-1], row, widths, body))

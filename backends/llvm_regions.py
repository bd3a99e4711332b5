"""Regions as LLVM IR: a function for each block program, and one for the region, which loops over the blocks.

A block program is a program of arrays like any other (llvm_tensor.py). The loop gives it a record of addresses of its
own: blocks of the region's operands and results as they lie, where the block begins, and the region's workspace as its
arena. What a block has made is written in place, or copied there, or added to what blocks before have made, in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..ir.layout import layout, rowwise
from ..passes.blocks import Blocks, Program, Stretch
from .llvm_loops import Access, Accesses, Loops, collapsed
from .llvm_lowering import kind
from .llvm_nests import Scope, access, rule
from .llvm_program import address

ENVIRONMENT = ("in", "out", "work", "runtime", "fault", "scratch")
"""The words of the record that a program of arrays is given, as functions name them."""


@rule("region")
def _region(w: Loops, node: Node, scope: Scope) -> None:
    """Call the region's function with the addresses of its operands and results."""
    name, workspace = scope.region(node)
    values = [*node.operands, *node.results]
    table = f"%{w.fresh('operands')}"
    w.allocated.append(f"  {table} = alloca [{len(values)} x ptr], align 8")
    for number, value in enumerate(values):
        w.lines.append(f"  store ptr {_begin(w, value, scope)}, ptr {address(w, table, 8 * number).name}, align 8")
    bad = w.line("i32", f"call i32 @{name}(ptr %environment, ptr {table}, ptr {workspace(w)})")
    w.leave_if(w.line("i1", f"icmp ne i32 {bad.name}, 0"))


def _begin(w: Loops, value: Value, scope: Scope) -> str:
    """The address of the value's first element; a constant is put into memory."""
    root = buffer(value)
    if not isinstance(root, Constant):
        return access(w, value, scope).at
    at = w.kept(kind(root.dtype), 1)
    w.put(w.constant(root.number, kind(root.dtype)), at)
    return at


def function(name: str, node: Node, found: Blocks, entries: dict[int, str], contract: bool) -> Loops:
    """The region's function; `entries` names those of its block programs, by identity."""
    body: Graph = node.attributes["body"]
    w = Loops(contract)
    inputs = max((len(p.graph.inputs) for p in found.programs.values()), default=1)
    record = {word: f"%{word}" for word in ENVIRONMENT}
    w.allocated += [f"  %inner = alloca [{len(ENVIRONMENT)} x ptr], align 8",
                    f"  %in = alloca [{max(1, inputs)} x ptr], align 8",
                    f"  %out = alloca [{len(body.outputs)} x ptr], align 8",
                    f"  %starts = alloca [{len(found.axes) + 1} x i64], align 8"]
    for number, word in enumerate(ENVIRONMENT):
        if word in ("runtime", "fault", "scratch"):
            at = address(w, "%environment", 8 * number)
            w.lines.append(f"  {record[word]} = load ptr, ptr {at.name}, align 8")
        w.lines.append(f"  store ptr {record[word]}, ptr {address(w, '%inner', 8 * number).name}, align 8")
    bases = []
    for number in range(len(node.operands) + len(node.results)):
        bases.append(w.line("ptr", f"load ptr, ptr {address(w, '%operands', 8 * number).name}, align 8").name)
    made = _Region(w, node, found, bases, entries)
    made.zeros()
    for nest, program in found.nests():
        made.nest(nest, program)
    w.lines = [f"define internal i32 @{name}(ptr %environment, ptr %operands, ptr %work) noinline #0 {{", "entry:",
               *w.allocated, *w.lines, "  ret i32 0", "no:", "  ret i32 1", "}"]
    return w


class _Region:
    """The lines of one region's function."""

    def __init__(self, w: Loops, node: Node, found: Blocks, bases: Sequence[str], entries: dict[int, str]) -> None:
        self.w, self.node, self.blocks, self.entries = w, node, found, entries
        count = len(node.operands)
        self.operands, self.results = bases[:count], bases[count:]
        self.body: Graph = node.attributes["body"]

    def zeros(self) -> None:
        """Results to which blocks add begin at zero."""
        for number, value in enumerate(self.node.results):
            if self.blocks.summed[number] and not all(p.outside[number] for p in self.blocks.programs.values()):
                self.w.zeroed(self.results[number], value.type.bytes)

    def nest(self, nest: Sequence[Stretch], program: Program) -> None:
        """The loops over equal blocks."""

        def over(axis: int, begins: list[str]) -> None:
            if axis == len(nest):
                self._block(nest, program, begins)
                return
            stretch = nest[axis]
            self.w.count(stretch.start, stretch.stop, stretch.step, lambda i: over(axis + 1, [*begins, i]))

        over(0, [])

    def _block(self, nest: Sequence[Stretch], program: Program, begins: list[str]) -> None:
        w, found = self.w, self.blocks
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
        w.leave_if(w.line("i1", f"icmp ne i32 {bad.name}, 0"))
        for number, output in enumerate(program.graph.outputs):
            if not program.outside[number]:
                self._put(program, number, output, targets[number])

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

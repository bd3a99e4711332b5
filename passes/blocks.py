"""Blocks: how a region runs, as a loop over blocks of its rows that each run an ordinary program.

A block is a rectangle over the axes that are cut (heads outermost, rows last; the last block of an axis may be
shorter). For each distinct size there is one *block program*: the body with the cut axes shortened, its operands the
blocks of the region's operands as they lie, its results the blocks of the region's results. It is legalised and placed
in an arena like any program, in the order of the body, so a backend runs it with what it has; around it stands the
loop.

    attend(q: f32[1000, 64], k: f32[9, 64], ...)    by 64 rows: a program of 64 rows, 15 times, and one of 40 rows

A block's part of a result is written where it belongs if that lies without gaps; else it is copied there, or, of a sum
over rows, added there, block after block in order, after the result was filled with zeros. A product adds its part
itself, if the target's can. Where threads share the loop each has an arena of its own, and what is added waits for its
turn: results do not depend on how many threads there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

from ..ir.arrays import Arrays
from ..ir.graph import Builder, Constant, Graph, Node, Value, buffer
from ..ir.layout import Layout, layout, nested, rowwise
from ..ir.rows import Rows, counted, rows_of
from ..ir.shapes import Index
from ..ir.statements import RESERVED
from ..ir.target import Target, no_node
from ..ir.types import Shape, TensorType, i64
from .arena import Placement, place
from .inlining import inlined
from .intervals import Columns, columns_of
from .legalize import legalize

WIDTHS = 8
"""Blocks see so many different numbers of columns at most: each has a program of its own."""

BUSY = 0.8
"""The part of their time that threads which share blocks should have one."""
SUMS = 1 << 23
"""Bytes of sums over rows that stay in a cache while blocks add to them: where products do that themselves, half the
rows and a quarter of the bytes do."""
MOST, FEWEST = 1 << 22, 16
"""Bytes of the largest value of a block, before it has fewer rows than the target wants; and the fewest that it has."""

SHORT = 32
"""Where memory is short, a block has no fewer rows than that: below, loops and products of few rows cost more than the
bytes are worth."""


@dataclass(frozen=True)
class Stretch:
    """Equal blocks along one axis: they begin at start, start + step, ... below stop and are `step` long. `columns` are
    the first column of the first of them, by how much that grows from block to block, and how many columns there are;
    None where the blocks see all columns."""

    start: int
    stop: int
    step: int
    columns: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        return len(range(self.start, self.stop, self.step))


@dataclass(frozen=True, eq=False)
class Program:
    """What a block runs. The first inputs of `graph` are the memory that the operands lie in, one for each operand.

    `operands` are the values of the graph that stand for the region's operands: views of those inputs that lie as the
    operands do (None: not read). `starts` are the scalar inputs that say where a block begins along a cut axis, or at
    which column (`Blocks.column`), for those that the program asks for. `outside`: the output is written where it
    belongs in the region's result, and has no place in the arena; `added`: by adding to what is there.
    """

    graph: Graph
    operands: tuple[Value | None, ...]
    starts: Mapping[int, Value]
    outside: tuple[bool, ...]
    added: tuple[bool, ...]
    inlined: frozenset[Node]
    placement: Placement


@dataclass(frozen=True, eq=False)
class Blocks:
    """The loop over the blocks of a region. `axes` has the blocks along each cut axis, outermost first. `operands` and
    `results` say for each axis of them by which cut it is cut (`column`: by columns), or None; `summed`, of which
    results the blocks have parts that are added. `arena` is what any block needs, in bytes, and `threads` how many
    share the loop."""

    rows: Rows
    axes: tuple[tuple[Stretch, ...], ...]
    operands: tuple[tuple[int | None, ...], ...]
    results: tuple[tuple[int | None, ...], ...]
    summed: tuple[bool, ...]
    programs: Mapping[tuple[Any, ...], Program]
    arena: int
    threads: int = 1

    @property
    def workspace(self) -> int:
        """What the loop needs, in bytes: an arena for each thread, one after the other."""
        return self.arena * self.threads

    @property
    def column(self) -> int:
        """The number that stands for the columns, behind those of the cut axes."""
        return len(self.axes)

    @cached_property
    def flops(self) -> int:
        """Arithmetic operations of all blocks, what is added up between them left out."""
        return sum(math.prod(map(len, nest)) * sum(n.flops for n in program.graph.nodes)
                   for nest, program in self.nests())

    @property
    def masked(self) -> bool:
        """Do masks leave out columns of some blocks?"""
        return any(stretch.columns is not None for stretch in self.axes[-1])

    def nests(self) -> Iterator[tuple[tuple[Stretch, ...], Program]]:
        """The loop nests, one after the other: the blocks along each axis, and the program that they run."""
        for nest in product(*self.axes):
            yield nest, self.programs[_size(nest)]


def blocks(node: Node, target: Target) -> Blocks:
    """How a region runs on a target. The same for equal operands' layouts and the same body, and then computed once."""
    lies = tuple(_lies(v) for v in node.operands)
    return _blocks(_Same(node.attributes["body"]), lies, _Same(target))


class _Same:
    """Compared by identity."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def _lies(value: Value) -> Layout:
    found = layout(value)
    assert found is not None
    return Layout(found.shape, found.strides)


@lru_cache(maxsize=512)
def _blocks(body_: _Same, lies: tuple[Layout, ...], target_: _Same) -> Blocks:
    body: Graph = body_.thing
    rows = rows_of(body)
    sizes = rows.sizes(body.rows) if body.rows else _fitting(rows, target_.thing)
    columns = columns_of(rows)
    axes = [tuple(_stretches(n, size)) for n, size in zip(rows.lengths, sizes, strict=True)]
    if columns is not None:
        axes[-1] = tuple(_cut_columns(axes[-1], columns))
    if columns is not None and all(s.columns is None for s in axes[-1]):
        columns = None
    single = [sum(map(len, stretches)) == 1 for stretches in axes]
    at_zero = [*single, all(s.columns is None or s.columns[:2] == (0, 0) for s in axes[-1])]
    target: Target = target_.thing
    threads = _sharing(math.prod(sum(map(len, stretches)) for stretches in axes), target.threads)
    inner = target.alone if threads > 1 and target.alone is not None else target
    programs: dict[tuple[Any, ...], Program] = {}
    for nest in product(*axes):
        if _size(nest) not in programs:
            programs[_size(nest)] = _Shortened(rows, nest, lies, single, columns, at_zero).program(inner)
    arena = max((p.placement.size for p in programs.values()), default=0)
    return Blocks(rows, tuple(axes), tuple(_axes(rows, columns, v) for v in body.inputs),
                  tuple(_axes(rows, columns, v) for v in body.outputs), tuple(map(rows.summed, body.outputs)), programs,
                  arena if threads == 1 else -(-arena // target.alignment) * target.alignment, threads)


def _sharing(count: int, threads: int) -> int:
    """How many threads share a loop over so many blocks: one where too many would wait for the last ones, and these
    rather share each operation of a block."""
    threads = min(threads, count)
    return threads if threads > 1 and count >= BUSY * threads * -(-count // threads) else 1


def _axes(rows: Rows, columns: Columns | None, value: Value) -> tuple[int | None, ...]:
    """For each axis of a value the cut that it is cut by."""
    cut = (*rows.cut[value], *([columns.axes.get(value)] if columns is not None else []))
    return tuple(cut.index(axis) if axis in cut else None for axis in range(value.type.rank))


def _size(nest: Sequence[Stretch]) -> tuple[Any, ...]:
    """What the blocks of a nest have in common: their sizes, and how many columns they see."""
    return (*(s.step for s in nest), nest[-1].columns and nest[-1].columns[2])


def _stretches(length: int, size: int) -> Iterator[Stretch]:
    full = length - length % size
    if full:
        yield Stretch(0, full, size)
    if full < length:
        yield Stretch(full, length, length - full)


def _cut_columns(stretches: Sequence[Stretch], columns: Columns) -> Iterator[Stretch]:
    """The blocks along the rows with the columns that each needs, in a few widths; what grows evenly is one stretch."""
    spans: list[tuple[Stretch, int, int]] = []
    for stretch in stretches:
        for start in range(stretch.start, stretch.stop, stretch.step):
            lo, hi = columns.interval(start, start + stretch.step - 1)
            spans.append((Stretch(start, start + stretch.step, stretch.step), lo, hi - lo))
    widths = {width for _, _, width in spans}
    unit = 1 if len(widths) <= WIDTHS else -(-columns.length // WIDTHS)
    made: list[Stretch] = []
    for block, lo, width in spans:
        width = min(columns.length, -(-width // unit) * unit)
        lo = min(lo, columns.length - width)
        last = made[-1] if made else None
        if last is not None and last.columns is not None and (last.step, last.columns[2]) == (block.step, width):
            first, growth, _ = last.columns
            if len(last) == 1 or lo == first + len(last) * growth:
                growth = lo - first if len(last) == 1 else growth
                made[-1] = Stretch(last.start, block.stop, last.step, (first, growth, width))
                continue
        made.append(Stretch(block.start, block.stop, block.step, (lo, 0, width)))
    whole = all(s.columns is not None and s.columns[2] == columns.length for s in made)
    yield from stretches if whole else made


def _fitting(rows: Rows, target: Target) -> tuple[int, ...]:
    """Sizes at which the largest value takes the target's bytes: as many rows as fit, but no fewer than it wants unless
    these take more than `MOST`, and then as many of the axes before, if all rows do."""
    left, most = (max(1, size * math.prod(rows.lengths) // max(1, _largest(rows)))
                  for size in (target.block_bytes, MOST))
    sums = sum(v.type.bytes for v in rows.body.outputs if rows.summed(v))
    fewest = min(target.fewest_rows, max(most, FEWEST))
    if 0 < sums <= SUMS and target.accumulates is not no_node:
        fewest = min(target.fewest_rows // 2, max(most // 4, FEWEST))
    sizes = []
    for at, n in enumerate(reversed(rows.lengths)):
        size = min(n, max(left, 1 if at else fewest))
        sizes.append(_even(n, size))
        left = left // n if size == n else 1
    return tuple(reversed(sizes))


def _largest(rows: Rows) -> int:
    """Bytes of the largest value that is cut, all blocks together."""
    return max((v.type.bytes for v in rows.cut if rows.rowed(v) and not isinstance(v, Constant)), default=1)


def by_blocks(node: Node, target: Target) -> bool:
    """Is it a region that the target runs by blocks?"""
    return node.op.name == "region" and target.regions and not (
        target.serves is not None and target.serves(node.attributes["body"]))


def choices(body: Graph, target: Target) -> list[tuple[int, ...]]:
    """Sizes of blocks that a body may be run by: first the one that suits the target's caches, then each of half as
    much, which cuts the outer axes first, down to what is worth its loop. One alone where the body says its rows."""
    rows = rows_of(body)
    size = rows.sizes(body.rows) if body.rows else _fitting(rows, target)
    found = [size]
    least = max(1, target.block_bytes // target.shrinks * math.prod(rows.lengths) // max(1, _largest(rows)))
    while not body.rows:
        at = next((k for k, n in enumerate(size) if n > 1), len(size) - 1)
        half = _even(rows.lengths[at], -(-size[at] // 2))
        size = (*size[:at], half, *size[at + 1:])
        if size == found[-1] or math.prod(size) < least or (at == len(size) - 1 and half < SHORT):
            break
        found.append(size)
    return found


def _even(n: int, size: int) -> int:
    """A little less than `size`, if blocks then come out even."""
    if n <= 0:
        return 1
    rounded = -(-n // -(-n // size))
    return rounded if n % rounded == 0 else size


# The program of a block ----------------------------------------------------------------------------------------------

class _Shortened:
    """The body emitted again with its cut axes as long as a block's."""

    def __init__(self, rows: Rows, nest: Sequence[Stretch], lies: Sequence[Layout], single: Sequence[bool],
                 columns: Columns | None, at_zero: Sequence[bool]) -> None:
        self.at_zero = at_zero  # by cut: do all blocks begin at 0?
        self.rows, self.nest, self.lies, self.single, self.columns = rows, nest, lies, single, columns
        self.body = rows.body
        self.builder = Builder(self.body.name, self.body.file, RESERVED)
        self.builder.reserve(v.name for v in self.body.values())
        self.arrays = Arrays(self.builder)
        self.now: dict[Value, Value] = {}
        self.counts: dict[tuple[Value, bool], Value] = {}
        self.starts: dict[int, Value] = {}

    def program(self, target: Target) -> Program:
        """The block program for a target, with its arena."""
        body, builder = self.body, self.builder
        for value, lies in zip(body.inputs, self.lies, strict=True):
            self.now[value] = self._operand(value, lies.strides)
        for node in body.nodes:
            if counted(node.results[0]) is None:
                self._emit(node)
        outputs = [self._count(v, True) if counted(v) is not None else self.now[v] for v in body.outputs]
        starts = list(self.starts)
        for name, made in self.now.items():
            if not made.name:
                made.name = name.name
        for node in builder.nodes:
            if not node.results[0].name:
                builder.name_value(node.results[0], f"{body.name}_t")
        graph = legalize(builder.finish(outputs, [v.name for v in body.outputs]), target)
        added = tuple(self._added(graph, number, target) for number in range(len(body.outputs)))
        outside = tuple(adds or self._outside(v) for adds, v in zip(added, body.outputs, strict=True))
        within = inlined(graph, target) if target.inlines else frozenset()
        named = {v.name: v for v in graph.values()}
        placement = place(graph, target, within, [v for v, out in zip(graph.outputs, outside, strict=True) if out])
        return Program(graph, tuple(named.get(self.now[v].name) for v in body.inputs),
                       {k: named[self.starts[k].name] for k in starts}, outside, added, within, placement)

    def _shape(self, value: Value) -> Shape:
        """The value's shape in a block."""
        shape = list(value.shape)
        for stretch, axis in zip(self.nest, self.rows.cut[value], strict=True):
            if axis is not None and axis >= 0:
                shape[axis] = stretch.step
        if self.columns is not None and value in self.columns.axes and self.nest[-1].columns is not None:
            shape[self.columns.axes[value]] = self.nest[-1].columns[2]
        return tuple(shape)

    def _cut(self, value: Value) -> tuple[int | None, ...]:
        """The axes of the value that are cut, by columns last."""
        return (*self.rows.cut[value], self.columns.axes.get(value) if self.columns is not None else None)

    def _operand(self, value: Value, strides: Sequence[int]) -> Value:
        """An input, and views of it that lie as the block of an operand with these strides."""
        shape = self._shape(value)
        found = nested(Layout(shape, tuple(strides)))
        assert found is not None, "legalize copies what cannot be declared"
        whole, index, axes = found
        arrays = self.arrays
        dense = whole == shape and axes == tuple(range(len(shape)))
        made = self.builder.input(f"{value.name}_memory" if not dense else value.name,
                                  TensorType(value.dtype, whole), span=value.span)
        if dense:
            made.name = value.name
            return made
        made = arrays.slice(made, index)
        made = arrays.permute(made, tuple(sorted(range(len(axes)), key=axes.__getitem__)))
        made = arrays.reshape(made, tuple(shape[a] if a in axes else 1 for a in range(len(shape))))
        return arrays.broadcast_to(made, shape)

    def _outside(self, output: Value) -> bool:
        """Is the block's part of the result written where it belongs?"""
        cut = self.rows.cut[output]
        if any(c == -1 and not single for c, single in zip(cut, self.single, strict=True)):
            return False
        if self.columns is not None and output in self.columns.axes:
            return False
        return self._without_gaps(output)

    def _without_gaps(self, output: Value) -> bool:
        """Does the block's part of the result lie so?"""
        return bool(output.shape) and Layout(self._shape(output), rowwise(output.shape).strides).contiguous

    def _added(self, graph: Graph, number: int, target: Target) -> bool:
        """Can what makes the block's part of a sum add it to the result? Nothing else reads it."""
        output, made = self.body.outputs[number], graph.outputs[number]
        read = [*graph.outputs, *(buffer(v) for n in graph.nodes for v in n.operands)]
        return (self.rows.summed(output) and not self._outside(output) and self._without_gaps(output)
                and made.node is not None and target.accumulates(made.node) and read.count(made) == 1)

    def _emit(self, node: Node) -> None:
        result = node.result
        self.arrays.span = result.span
        operands = [self._read(node, p) for p in range(len(node.operands))]
        self.now[result] = self.arrays.emit(node.op, operands, self._attributes(node))

    def _attributes(self, node: Node) -> Mapping[str, Any]:
        found = dict(node.attributes)
        if "shape" in found:
            found["shape"] = self._shape(node.result)
        if node.op.name == "slice":
            found["index"] = self._index(node.operands[0], found["index"])
        elif node.op.name == "place":
            found["at"] = tuple(self._index(node.result, index) for index in found["at"])
        return found

    def _index(self, whole: Value, index: Index) -> Index:
        """The index with its cut axes, which it takes as they are, shortened."""
        cut = self._cut(whole)
        return tuple((0, n, 1) if axis in cut else entry
                     for axis, (entry, n) in enumerate(zip(index, self._shape(whole), strict=True)))

    def _read(self, node: Node, position: int) -> Value:
        """What stands for an operand."""
        value = node.operands[position]
        if isinstance(value, Constant):
            return value
        if counted(value) is None:
            return self.now[value]
        taken = None
        if node.op.name == "gather" and position:
            taken = self.rows.cut[node.operands[0]]
        elif node.op.name == "scatter_add" and position:
            taken = self.rows.cut[node.result]
        return self._count(value, taken is None or position - 1 not in taken)

    def _count(self, value: Value, shifted: bool) -> Value:
        """A value that counts along an axis. Along a cut axis it counts a block's own rows, from where the block begins
        if it is `shifted`."""
        if (value, shifted) in self.counts:
            return self.counts[value, shifted]
        found = counted(value)
        assert found is not None
        axis, start, step = found
        shape, arrays = self._shape(value), self.arrays
        n, dtype = shape[axis], value.dtype
        cut = self._cut(value)
        by = cut.index(axis) if shifted and axis in cut else None
        if by is not None and self.at_zero[by]:
            by = None
        count = arrays.arange(start, start + step * n, step, dtype if by is None else i64)
        if by is not None:
            if by not in self.starts:
                self.starts[by] = self.builder.input(f"start{by}", TensorType(i64))
            begin = self.starts[by]
            if step != 1:
                begin = arrays.elementwise("multiply", begin, step)
            count = arrays.astype(arrays.elementwise("add", count, begin), dtype)
        count = arrays.reshape(count, tuple(n if a == axis else 1 for a in range(len(shape))))
        made = arrays.broadcast_to(count, shape)
        self.counts[value, shifted] = made
        return made

"""A group of operations (passes/groups.py) as a Triton kernel that a person can read: one line an operation.

A kernel runs over blocks of rows and columns, with sizes and strides as numbers in its text. Of a group without
reductions whose arrays all lie row by row, the block is a run of elements. Block sizes are fixed by the shape: nothing
is tuned when the program runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

from ..ir.graph import Constant, Node, Value, buffer
from ..ir.layout import Layout, chain, rowwise, through
from ..passes.groups import Group, along_rows
from .triton_functions import HELPERS, computed, expression, literal

BLOCK = 2048
"""Elements in a block, where a row does not have more."""
EACH = 16
"""Elements of a block for each thread: two loads of 16 bytes from an array of 2-byte numbers."""
NARROW = 32
"""Runs of fewer elements that lie side by side are not worth a block of rows and columns."""
WIDE = 1024
"""Columns of a block at most, where rows are not reduced."""

Name = Callable[[Value], str]
Axes = tuple[tuple[int, int], ...]
"""Lengths and strides, the slowest axis first."""

_LEAST = {"i32": -(1 << 31), "i64": -(1 << 63)}


@dataclass(frozen=True)
class Kernel:
    """The text of a kernel, how many programs run and of how many warps, what it is given, the helpers it calls and
    whether it calls the device's library."""

    name: str
    text: str
    programs: int
    warps: int
    arguments: tuple[Value, ...]
    helpers: tuple[str, ...]
    library: bool


def kernel(group: Group, name: str, text: Name, lies: Callable[[Value], Layout] = lambda v: rowwise(v.shape)) -> Kernel:
    """The kernel of a group: its arguments are what it reads and its results, in that order.

    `text` gives names to values, `lies` says where the elements of what is read lie in the memory that is given (row
    by row unless said; results always do).
    """
    return _Writer(group, text, lies).kernel(name)


ATTENTION = ("LOG2E", "TensorDescriptor", "FORWARD", "BACKWARD", "described", "attend", "attention_backward",
             "forward_step", "keys_step", "queries_step", "attention_forward", "attention_backward_keys",
             "attention_backward_queries")
"""The names of triton_attention.py."""


def source(kernels: Iterable[Kernel], attention: bool = False) -> list[str]:
    """The lines of a module that holds the kernels: what they import, the functions that they call, and themselves.
    With `attention`, those of attention too."""
    made = list(kernels)
    lines = ["import triton", "import triton.language as tl"]
    if any(k.library for k in made):
        lines.append("from triton.language.extra import libdevice")
    if attention:
        text = Path(__file__).with_name("triton_attention.py").read_text("utf-8")
        lines += text[text.index("from triton.tools"):].rstrip().split("\n")
    called = [HELPERS[h] for h in HELPERS if any(h in k.helpers for k in made)]
    for text in (*called, *(k.text for k in made)):
        lines += ["", "", *text.split("\n")]
    return lines


def canonical(group: Group, lies: Callable[[Value], Layout] = lambda v: rowwise(v.shape)) -> str:
    """The same text for two groups that one kernel serves."""
    names: dict[Value, str] = {}
    return kernel(group, "kernel", lambda v: names.setdefault(v, f"v{len(names)}"), lies).text


def takes_over(group: Group) -> list[tuple[int, int]]:
    """The pairs (what is read, result), by position, of which the result may be written over what is read: each of its
    elements is read where the result's is computed, and nowhere else."""
    writer = _Writer(group, lambda v: v.name, lambda v: rowwise(v.shape))
    places: dict[Value, set[Place]] = {}
    for root, lies in writer.reads():
        places.setdefault(root, set()).add(writer.domain.place(lies))
    return [(p, q) for p, x in enumerate(group.reads) for q, z in enumerate(group.results)
            if x.type is z.type and places.get(x) == {writer.domain.place(rowwise(z.shape))}]


# Where things lie -------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Place:
    """The element that is read at a row and a column of the domain, by axes of rows and of columns (none: the same
    element for all of them). Where the axes cannot be told apart, `mixed` are those of both."""

    offset: int
    rows: Axes
    columns: Axes
    mixed: Axes = ()


def _merged(axes: Sequence[tuple[int, int]]) -> Axes:
    """As few axes as there can be; none if all strides are 0."""
    found: list[tuple[int, int]] = []
    for n, stride in axes:
        if n == 1:
            continue
        if found and found[-1][1] == n * stride:
            found[-1] = (found[-1][0] * n, stride)
        else:
            found.append((n, stride))
    return tuple(found) if any(stride for _, stride in found) else ()


def _split(lies: Layout, columns: int) -> tuple[Axes, Axes] | None:
    """The axes of rows and those of the columns; None where an axis belongs to both."""
    axes = [(n, s) for n, s in zip(lies.shape, lies.strides, strict=True) if n != 1]
    inner: list[tuple[int, int]] = []
    left = columns
    while left > 1:
        n, stride = axes.pop()
        if left % n == 0:
            inner.append((n, stride))
            left //= n
        elif n % left == 0:
            inner.append((left, stride))
            axes.append((n // left, stride * left))
            left = 1
        else:
            return None
    return _merged(axes), _merged(inner[::-1])


@dataclass(frozen=True)
class Domain:
    """What a kernel runs over, and its blocks. Without rows it is a run of elements, and `rows` is 1."""

    rows: int
    columns: int
    by_rows: bool
    block_rows: int
    block_columns: int

    @property
    def across(self) -> int:
        """Blocks side by side."""
        return -(-self.columns // self.block_columns)

    @property
    def programs(self) -> int:
        return -(-self.rows // self.block_rows) * self.across

    @property
    def warps(self) -> int:
        """Enough that a thread has `EACH` elements of a block, up to 16; a very wide row leaves it more."""
        return max(1, min(16, self.block_rows * self.block_columns // (32 * EACH)))

    @property
    def ragged_rows(self) -> bool:
        return self.rows % self.block_rows != 0

    @property
    def ragged_columns(self) -> bool:
        return self.columns % self.block_columns != 0

    def place(self, lies: Layout) -> Place:
        """Where an array is read that lies so: over all elements of the domain, or over its rows."""
        size = math.prod(lies.shape)
        if size != self.rows * self.columns:
            assert size in (1, self.rows), (size, self)
            return Place(lies.offset, _merged(list(zip(lies.shape, lies.strides, strict=True))), ())
        parts = _split(lies, self.columns)
        if parts is not None:
            return Place(lies.offset, *parts)
        return Place(lies.offset, (), (), _merged(list(zip(lies.shape, lies.strides, strict=True))))


def _power(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def _domain(group: Group, layouts: Sequence[Layout]) -> Domain:
    """The rows of the group, or the longest runs that all of its arrays have."""
    if group.rows is not None:
        block = _power(group.rows.columns)
        return Domain(group.rows.count, group.rows.columns, True, max(1, min(BLOCK // block, _power(group.rows.count))),
                      block)
    size = group.results[0].type.size
    axes = [_merged(list(zip(x.shape, x.strides, strict=True))) for x in layouts]
    run = reduce(math.gcd, (a[-1][0] for a in axes if len(a) > 1), 0)
    if run < NARROW or run == size:
        return Domain(1, size, False, 1, min(BLOCK, _power(size)))
    block = min(WIDE, _power(run))
    return Domain(size // run, run, True, max(1, min(BLOCK // block, _power(size // run))), block)


# The text ---------------------------------------------------------------------------------------------------------

@dataclass
class _Known:
    """A name in the kernel, and whether it has a value for each row and for each column."""

    text: str
    by_row: bool
    by_column: bool


@dataclass
class _Writer:
    group: Group
    name: Name
    lies: Callable[[Value], Layout]
    index: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    known: dict[tuple[Value, Place | None], _Known] = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: {"tl", "triton", "libdevice", "i", "row", "column", "inside"})

    def __post_init__(self) -> None:
        self.made = {v: n for n in self.group.nodes if not n.op.view for v in n.results}
        self.bound = self._bound()
        self.domain = _domain(self.group, [lies for _, lies in self.reads()])

    def _bound(self) -> set[Value]:
        """The values that depend on a reduction: each is computed in its own row alone."""
        found: set[Value] = set()
        for node in self.group.nodes:
            if not node.op.view and ((not node.op.elementwise and along_rows(node) is not None)
                                     or any(buffer(v) in found for v in node.operands)):
                found.add(node.result)
        return found

    def reads(self) -> Iterator[tuple[Value, Layout]]:
        """What is read from memory, through which views; once each."""
        stack: list[tuple[Value, tuple[Value, ...]]] = [(v, ()) for v in self.group.results]
        seen = set()
        while stack:
            root, views = stack.pop()
            views = self._plain(root, views)
            if (root, views) in seen or isinstance(root, Constant):
                continue
            seen.add((root, views))
            node = self.made.get(root)
            if node is None:
                yield root, self._through(self.lies(root), views)
            elif node.op.name == "arange":
                yield root, self._through(rowwise(root.shape), views)
            else:
                stack += [(r, (*v, *views)) for r, v in map(chain, node.operands)]

    def _plain(self, root: Value, views: tuple[Value, ...]) -> tuple[Value, ...]:
        """No views where they change neither the order nor the number of elements of what is computed."""
        if root not in self.made or not views:
            return views
        lies = through(rowwise(root.shape), views)
        if root in self.bound or (lies is not None and lies.contiguous and not lies.offset
                                  and math.prod(lies.shape) == root.type.size):
            return ()
        return views

    def _through(self, lies: Layout, views: tuple[Value, ...]) -> Layout:
        found = through(lies, views)
        assert found is not None
        return found

    def kernel(self, name: str) -> Kernel:
        """The whole of it."""
        group, domain = self.group, self.domain
        arguments = (*group.reads, *group.results)
        pointers = [self._fresh(self.name(v) + "_at") for v in arguments]
        self.pointers = dict(zip(arguments, pointers, strict=True))
        self._index()
        for v in group.results:
            found = self.value(v, ())
            at, mask, _ = self._address(domain.place(rowwise(v.shape)), self.pointers[v])
            if at == self.pointers[v]:  # one element, from a block of one
                at += " + row" if domain.by_rows else " + i"
            self.lines.append(f"tl.store({at}, {found.text}{mask})")
        results, reads = (", ".join(map(self.name, values)) for values in (group.results, group.reads))
        body = [f'"""{results} of {reads}."""' if reads else f'"""{results}."""', *self.index, *self.loads, *self.lines]
        text = "\n".join(["@triton.jit", f"def {name}({', '.join(pointers)}):", *(f"    {line}" for line in body)])
        helpers = tuple(h for h in HELPERS if f"{h}(" in text or f"{h}," in text)
        return Kernel(name, text, domain.programs, domain.warps, arguments, helpers, "libdevice." in text)

    def _index(self) -> None:
        domain = self.domain
        wide = ".to(tl.int64)" if domain.rows * domain.columns >= 1 << 31 else ""
        program = f"tl.program_id(0){wide}"
        if not domain.by_rows:
            self.index.append(f"i = {program} * {domain.block_columns} + tl.arange(0, {domain.block_columns})")
            return
        across = domain.across
        first, along = (program, "") if across == 1 else (f"{program} // {across}",
                                                          f"{program} % {across} * {domain.block_columns} + ")
        first += f" * {domain.block_rows}" if domain.block_rows > 1 else ""
        self.index += [f"row = ({first} + tl.arange(0, {domain.block_rows}))[:, None]",
                       f"column = ({along}tl.arange(0, {domain.block_columns}))[None, :]"]
        if domain.ragged_rows and domain.ragged_columns:
            self.index.append(f"inside = (row < {domain.rows}) & (column < {domain.columns})")

    def _fresh(self, stem: str) -> str:
        name, number = stem, 0
        while name in self.taken:
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name)
        return name

    # Places

    def _address(self, place: Place, pointer: str) -> tuple[str, str, _Known]:
        """Where to load or store, the argument that masks it, and what it depends on."""
        terms, by_row, by_column = self._terms(place)
        mask = self._mask(by_row, by_column)
        return (" + ".join([pointer, *terms]), f", mask={mask}" if mask else "", _Known("", by_row, by_column))

    def _terms(self, place: Place) -> tuple[list[str], bool, bool]:
        terms = [str(place.offset)] if place.offset else []
        if not self.domain.by_rows:
            axes = place.mixed or place.columns
            return terms + _indices("i", axes), False, bool(axes)
        if place.mixed:
            flat = f"(row * {self.domain.columns} + column)"
            return terms + _indices(flat, place.mixed), True, True
        terms += _indices("row", place.rows) + _indices("column", place.columns)
        return terms, bool(place.rows), bool(place.columns)

    def _mask(self, by_row: bool, by_column: bool) -> str:
        domain = self.domain
        if not domain.by_rows:
            return f"i < {domain.columns}" if by_column and domain.ragged_columns else ""
        rows, columns = by_row and domain.ragged_rows, by_column and domain.ragged_columns
        if rows and columns:
            return "inside"
        return f"row < {domain.rows}" if rows else f"column < {domain.columns}" if columns else ""

    # Values

    def value(self, root: Value, views: tuple[Value, ...]) -> _Known:
        """The name of a value that owns memory, seen through views. The depth is that of a group's operations, of which
        there are at most some hundred."""
        if isinstance(root, Constant):
            return _Known(literal(root), False, False)
        views = self._plain(root, views)
        node = self.made.get(root)
        lies = None if root in self.bound else self._through(
            self.lies(root) if node is None else rowwise(root.shape), views)
        place = None if lies is None else self.domain.place(lies)
        found = self.known.get((root, place))
        if found is None:
            found = self._computed(root, node, place, views)
            self.known[root, place] = found
        return found

    def _computed(self, root: Value, node: Node | None, place: Place | None, views: tuple[Value, ...]) -> _Known:
        if node is None:
            assert place is not None
            return self._loaded(root, place)
        if node.op.name == "arange":
            assert place is not None
            return self._counted(root, node, place)
        operands = [self.value(r, (*v, *views)) for r, v in map(chain, node.operands)]
        if node.op.name == "copy":
            return operands[0]
        if node.op.elementwise:
            return self._named(root, expression(node, [o.text for o in operands]), any(o.by_row for o in operands),
                               any(o.by_column for o in operands))
        return self._along(root, node, operands)

    def _named(self, value: Value, text: str, by_row: bool, by_column: bool) -> _Known:
        name = self._fresh(self.name(value))
        self.lines.append(f"{name} = {text}")
        return _Known(name, by_row, by_column)

    def _loaded(self, value: Value, place: Place) -> _Known:
        at, mask, depends = self._address(place, self.pointers[value])
        if mask:
            mask += ", other=0"
        cast = ".to(tl.float32)" if value.dtype.name in ("f16", "bf16") else ""
        name = self._fresh(self.name(value))
        self.loads.append(f"{name} = tl.load({at}{mask}){cast}")
        return _Known(name, depends.by_row, depends.by_column)

    def _counted(self, value: Value, node: Node, place: Place) -> _Known:
        terms, by_row, by_column = self._terms(place)
        start, step = node.attributes["start"], node.attributes["step"]
        text = " + ".join(terms) or "0"
        if step != 1:
            text = f"({text}) * {step}"
        if start:
            text = f"{text} + {start}"
        if not by_row and not by_column:
            return _Known(str(start + step * place.offset), False, False)
        return self._named(value, f"({text}).to({computed(value.dtype)})", by_row, by_column)

    def _along(self, value: Value, node: Node, operands: Sequence[_Known]) -> _Known:
        """A reduction of rows, an element of each row, or zeros but for one."""
        name = node.op.name
        if name == "scatter_add":
            update, index = operands[0], self._index_of(node, operands[-1])
            return self._named(value, f"tl.where(column == {index}, {update.text}, {_zero(value)})", True, True)
        x = operands[0].text
        if not (operands[0].by_row and operands[0].by_column):
            shape = f"({self.domain.block_rows}, {self.domain.block_columns})"
            x = f"({x} + tl.zeros({shape}, {computed(value.dtype)}))"
        if name == "gather":
            index = self._index_of(node, operands[-1])
            x = f"tl.where(column == {index}, {x}, {_zero(value)})"
            return self._named(value, f"tl.sum({x}, axis=1, keep_dims=True)", True, False)
        if self.domain.ragged_columns:
            x = f"tl.where(column < {self.domain.columns}, {x}, {_neutral(name, value)})"
        if name == "sum":
            return self._named(value, f"tl.sum({x}, axis=1, keep_dims=True)", True, False)
        helper = {"max": "larger", "min": "smaller"}[name]
        return self._named(value, f"tl.reduce({x}, 1, {helper}, keep_dims=True)", True, False)

    def _index_of(self, node: Node, index: _Known) -> str:
        """An index that may count from the end."""
        at = self._fresh("at")
        self.lines.append(f"{at} = tl.where({index.text} < 0, {index.text} + {self.domain.columns}, {index.text})")
        return at


def _zero(value: Value) -> str:
    return "0.0" if value.dtype.is_float else "0"


def _neutral(name: str, value: Value) -> str:
    """What changes nothing."""
    if name == "sum":
        return _zero(value)
    if value.dtype.is_float:
        return f'float("{"-" if name == "max" else ""}inf")'
    least = _LEAST[value.dtype.name]
    return str(least if name == "max" else -1 - least)


def _indices(index: str, axes: Axes) -> list[str]:
    """The terms of an address, one for each axis that has a stride."""
    terms = []
    behind = math.prod(n for n, _ in axes)
    for position, (n, stride) in enumerate(axes):
        behind //= n
        term = index if behind == 1 else f"{index} // {behind}"
        if position:
            term = f"{term} % {n}"
        if stride:
            terms.append(term if stride == 1 else f"{term} * {stride}")
    return terms

"""Loop nests as LLVM IR: operations on arrays whose elements lie at strides that are known beforehand.

A nest runs over the axes of its result and, in a reduction, over those that it reduces. Axes that lie end to end in
every array are one axis. Along one axis elements are taken as many at a time as a vector register holds, the rest of
them one by one by the same formula, so that an element's value does not depend on where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..ir.types import DType, Shape, i64
from .llvm_lowering import from_memory, kind, memory_kind, to_memory
from .llvm_writer import Lane, Writer


@dataclass(frozen=True)
class Access:
    """Where a nest reads or writes: element (i, j, ...) lies `i * strides[0] + ...` elements from `at`.

    `at` is a pointer; where the elements are the numbers start, start + step, ... themselves (an `arange`), it is the
    place among them, and `numbers` is (start, step).
    """

    at: str
    dtype: DType
    strides: tuple[int, ...]
    numbers: tuple[int, int] | None = None


BLOCK = 1_500
"""The ns of work that are worth a thread's while."""
MOST_BLOCKS = 32
"""Blocks of one loop, so that threads which others hold up are waited for only a little."""



def block_length(n: int, work: float, whole: int = 1) -> int:
    """How long the blocks are, in multiples of `whole`, into which a loop over n that takes `work` ns is cut."""
    parts = min(n // whole, int(work / BLOCK), MOST_BLOCKS)
    return n if parts < 2 else -(-n // (parts * whole)) * whole


Accesses = Mapping[object, Access]
Body = Callable[[Accesses], None]


class Loops(Writer):
    """A writer with counted loops, vectors of several widths, and memory for what a loop accumulates."""

    def __init__(self, contract: bool = False, alone: bool = False) -> None:
        super().__init__(1, contract)
        self.alone = alone
        """Is one thread to run all of it?"""
        self.allocated: list[str] = []
        self.leaves = False
        """Can it leave for the block `no`?"""
        self.blocks = 0
        """Blocks that threads can take, where the outermost loop runs from %start to %stop."""
        self.length = (0, 0)
        """Of a block, and of the whole loop."""

    def fork(self) -> Loops:
        """A writer of what follows, which may become a function of its own."""
        found = Loops(self.contract, self.alone)
        found._count, found.block = self._count, self.block
        return found

    def absorb(self, other: Loops) -> None:
        """What a fork has written, here."""
        self.lines += other.lines
        self.needs(other)
        self.block = other.block

    def needs(self, other: Loops) -> None:
        """What a fork declares and keeps at the function's head, and its names."""
        self.allocated += [] if other.blocks else other.allocated
        self.leaves |= other.leaves
        self.declared |= other.declared
        self.math |= other.math
        self._count = other._count

    def shared(self, n: int, work: float, whole: int = 1) -> tuple[int | str, int | str]:
        """The bounds of an outermost loop over n, whose iterations do not depend on each other: 0 and n, or where the
        work, in ns, is worth it those of a block, which is a multiple of `whole` long."""
        length = block_length(n, work, whole)
        if length >= n or self.blocks or self.alone:
            return 0, n
        self.blocks, self.length = -(-n // length), (length, n)
        return ("%start", "%stop") if self.blocks > 1 else (0, n)

    def leave_if(self, bad: Lane) -> None:
        """Return 1 from the function where that holds; the function has a block `no` that does."""
        stay = self.fresh("stay")
        self.lines.append(f"  br i1 {bad.name}, label %no, label %{stay}, !prof !0")
        self.label(stay)
        self.leaves = True

    @contextmanager
    def at_lanes(self, lanes: int) -> Iterator[None]:
        """Lines of that many lanes within."""
        before, self.lanes = self.lanes, lanes
        yield
        self.lanes = before

    def kept(self, kind: str, lanes: int) -> str:
        """The address of memory for one value, at the function's head; LLVM makes a register of it."""
        name = f"%{self.fresh('kept')}"
        self.allocated.append(f"  {name} = alloca {kind if lanes == 1 else f'<{lanes} x {kind}>'}, align 8")
        return name

    def put(self, value: Lane, at: str) -> None:
        """Store a value in such memory."""
        self.lines.append(f"  store {self.type(value.kind)} {value.name}, ptr {at}, align 8")

    def got(self, kind: str, at: str) -> Lane:
        """What stands in such memory."""
        return self.line(kind, f"load {self.type(kind)}, ptr {at}, align 8")

    def zeroed(self, at: str, size: int) -> None:
        """Set so many bytes to zero."""
        self.declared["llvm.memset.p0.i64"] = "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"
        self.lines.append(f"  call void @llvm.memset.p0.i64(ptr {at}, i8 0, i64 {size}, i1 false)")

    def count(self, start: int | str, stop: int | str, step: int, body: Callable[[str], None]) -> None:
        """`body(i)` for i from start to stop, by steps; where both are known it is a whole number of steps."""
        known = isinstance(start, int) and isinstance(stop, int)
        if isinstance(start, int) and isinstance(stop, int):
            if start >= stop:
                return
            if start + step == stop:
                body(str(start))
                return
        head, after = self.fresh("loop"), self.fresh("after")
        index, following, more = (f"%{self.fresh(stem)}" for stem in ("i", "next", "more"))
        if known:
            self.lines.append(f"  br label %{head}")
        else:
            some = self.line("i1", f"icmp slt i64 {start}, {stop}")
            self.lines.append(f"  br i1 {some.name}, label %{head}, label %{after}")
        before = self.block
        self.label(head)
        mark = len(self.lines)
        body(index)
        self.lines += [f"  {following} = add nuw nsw i64 {index}, {step}",
                       f"  {more} = icmp ult i64 {following}, {stop}",
                       f"  br i1 {more}, label %{head}, label %{after}"]
        self.lines.insert(mark, f"  {index} = phi i64 [ {start}, %{before} ], [ {following}, %{self.block} ]")
        self.label(after)

    def unravelled(self, index: str, grid: Shape) -> list[str]:
        """The index along each axis of a grid."""
        found: list[str] = []
        for size in reversed(grid):
            if size == 1:
                found.append("0")
            elif index.isdigit():
                found.append(str(int(index) % size))
                index = str(int(index) // size)
            else:
                found.append(self.line("i64", f"urem i64 {index}, {size}").name)
                index = self.line("i64", f"udiv i64 {index}, {size}").name
        return found[::-1]

    def advanced(self, access: Access, index: str, axis: int = 0) -> Access:
        """The access at that index of an axis, which it has no more."""
        stride = access.strides[axis]
        rest = access.strides[:axis] + access.strides[axis + 1:]
        if not stride or index == "0":
            return Access(access.at, access.dtype, rest, access.numbers)
        if stride != 1:
            if index.isdigit():
                index = str(int(index) * stride)
            else:
                index = self.line("i64", f"mul i64 {index}, {stride}").name
        if access.numbers is not None:
            at = self.line("i64", f"add i64 {access.at}, {index}").name
        else:
            at = self.line("ptr", f"getelementptr {memory_kind(access.dtype)}, ptr {access.at}, i64 {index}").name
        return Access(at, access.dtype, rest, access.numbers)

    def nest(self, shape: Shape, accesses: Accesses, body: Body, work: float = 0) -> None:
        """`body` for each index into the shape, with the accesses advanced over these axes. With `work`, the ns that it
        all takes, threads may share the first axis."""
        if not shape:
            body(accesses)
            return
        start, stop = self.shared(shape[0], work)
        self.count(start, stop, 1, lambda i: self.nest(
            shape[1:], {key: self.advanced(a, i) for key, a in accesses.items()}, body))

    # Elements -----------------------------------------------------------------------------------------------------

    def splat(self, value: Lane) -> Lane:
        """A value of one lane in all lanes of now."""
        if self.lanes == 1 or not value.name.startswith("%"):
            return value
        t = self.type(value.kind)
        first = self.line(value.kind, f"insertelement {t} poison, {value.kind} {value.name}, i64 0")
        every = f"<{self.lanes} x i32> zeroinitializer"
        return self.line(value.kind, f"shufflevector {t} {first.name}, {t} poison, {every}")

    def load(self, access: Access) -> Lane:
        """As many elements as there are lanes, along the one axis that is left (none: the same in all lanes)."""
        stride = access.strides[0] if access.strides else 0
        if access.numbers is not None:
            return self._numbers(access, stride)
        stored = memory_kind(access.dtype)
        lanes, align = self.lanes, access.dtype.bytes
        if lanes == 1 or stride == 1:
            found = self.line(stored, f"load {self.type(stored)}, ptr {access.at}, align {align}")
            return from_memory(self, found, access.dtype)
        if stride == 0:
            with self.at_lanes(1):
                found = self.line(stored, f"load {stored}, ptr {access.at}, align {align}")
                one = from_memory(self, found, access.dtype)
            return self.splat(one)
        whole = Lane(self, "poison", stored)
        for lane in range(lanes):
            at = self.line("ptr", f"getelementptr {stored}, ptr {access.at}, i64 {lane * stride}")
            one = self.line(stored, f"load {stored}, ptr {at.name}, align {align}")
            t = self.type(stored)
            whole = self.line(stored, f"insertelement {t} {whole.name}, {stored} {one.name}, i64 {lane}")
        return from_memory(self, whole, access.dtype)

    def _numbers(self, access: Access, stride: int) -> Lane:
        assert access.numbers is not None
        start, step = access.numbers
        place = self.splat(Lane(self, access.at, "i64"))
        if not access.at.startswith("%"):
            place = self.constant(int(access.at), "i64")
        if stride and self.lanes > 1:
            listed = ", ".join(f"i64 {lane * stride}" for lane in range(self.lanes))
            place = place + Lane(self, f"<{listed}>", "i64")
        number = place * step + start
        to = kind(access.dtype)
        if access.dtype.is_float:
            return self.cast(number, "sitofp", to)
        return number if access.dtype is i64 else self.cast(number, "trunc", to)

    def store(self, value: Lane, access: Access) -> None:
        """Elements to memory, along the one axis that is left."""
        stride = access.strides[0] if access.strides else 1
        stored = to_memory(self, value, access.dtype)
        align = access.dtype.bytes
        if self.lanes == 1 or stride == 1:
            self.lines.append(f"  store {self.type(stored.kind)} {stored.name}, ptr {access.at}, align {align}")
            return
        for lane in range(self.lanes):
            one = self.line(stored.kind, f"extractelement {self.type(stored.kind)} {stored.name}, i64 {lane}")
            at = self.line("ptr", f"getelementptr {stored.kind}, ptr {access.at}, i64 {lane * stride}")
            self.lines.append(f"  store {stored.kind} {one.name}, ptr {at.name}, align {align}")

    def sweep(self, n: int, accesses: Accesses, widths: Sequence[int], body: Body, work: float = 0) -> None:
        """Along the last axis that the accesses have: `body` at as many lanes as `widths` says, widest first. With
        `work`, the ns that it all takes, threads may share it."""
        start, end = self.shared(n, work, widths[0])
        for lanes in widths:
            stop = self._whole(start, end, lanes)

            def step(i: str, lanes: int = lanes) -> None:
                here = {key: _still(self.advanced(a, i, len(a.strides) - 1), a) for key, a in accesses.items()}
                with self.at_lanes(lanes):
                    body(here)

            self.count(start, stop, lanes, step)
            start = stop

    def _whole(self, start: int | str, end: int | str, lanes: int) -> int | str:
        """The last place that whole vectors from `start` reach."""
        if isinstance(start, int) and isinstance(end, int):
            return start + (end - start) // lanes * lanes
        if lanes == 1:
            return end
        left = self.line("i64", f"sub i64 {end}, {start}")
        reached = self.line("i64", f"add i64 {start}, {(left & -lanes).name}")
        return reached.name


def _still(moved: Access, before: Access) -> Access:
    """The access at another place of the axis, which it keeps."""
    return Access(moved.at, moved.dtype, before.strides, moved.numbers)


def collapsed(shape: Shape, accesses: Accesses) -> tuple[Shape, dict[object, Access]]:
    """The same nest with as few axes as it can have."""
    axes: list[tuple[int, list[int]]] = []
    for axis, n in enumerate(shape):
        strides = [a.strides[axis] for a in accesses.values()]
        if n == 1:
            continue
        if axes and all(outer == n * inner for outer, inner in zip(axes[-1][1], strides, strict=True)):
            axes[-1] = (axes[-1][0] * n, strides)
        else:
            axes.append((n, strides))
    return tuple(n for n, _ in axes), {
        key: Access(a.at, a.dtype, tuple(strides[i] for _, strides in axes), a.numbers)
        for i, (key, a) in enumerate(accesses.items())}

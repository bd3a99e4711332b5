"""Many points at once: a program at as many lanes as a vector register holds, over columns.

A column is one element of an input or output, for all points: an address and a stride. Points are taken in chunks of
512, the last few, which fill no register, by themselves. In a chunk a column that is not contiguous (an array of
structures, a number that all points share), and each of the last few, is first copied into scratch, so that the loop
over the chunk reads and writes whole vectors only. A lane depends on no other, so that results are the same to the bit
however the points are divided among threads.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy

from . import llvm_engine
from .records import read_head

CHUNK = 512
"""Points whose columns are in cache at once."""

THREAD = 16 * CHUNK
"""Points that are worth a thread."""


def rows(lanes: int) -> list[str]:
    """The loop over a chunk, as LLVM text."""
    return f"""\
define void @slpc.rows(ptr noalias %in, ptr noalias %out, ptr noalias %work, i64 %count) #0 {{
entry:
  br label %next
next:
  %at = phi i64 [ 0, %entry ], [ %after, %next ]
  call void @slpc.block(ptr %in, ptr %out, ptr %work, i64 %at)
  %after = add i64 %at, {lanes}
  %more = icmp slt i64 %after, %count
  br i1 %more, label %next, label %done
done:
  ret void
}}
""".splitlines()


_COPIES = "".join(f"""
; %count elements from a column to scratch, the last one again until %padded.
define internal void @pack.{size}(ptr noalias %from, i64 %stride, ptr noalias %to, i64 %count, i64 %padded) {{
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %j, %next ]
  %last = sub i64 %count, 1
  %inside = icmp slt i64 %i, %count
  %k = select i1 %inside, i64 %i, i64 %last
  %offset = mul i64 %k, %stride
  %at = getelementptr i8, ptr %from, i64 %offset
  %x = load i{8 * size}, ptr %at, align 1
  %place = getelementptr i{8 * size}, ptr %to, i64 %i
  store i{8 * size} %x, ptr %place
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %padded
  br i1 %more, label %next, label %done
done:
  ret void
}}

define internal void @unpack.{size}(ptr noalias %from, ptr noalias %to, i64 %stride, i64 %count) {{
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %j, %next ]
  %place = getelementptr i{8 * size}, ptr %from, i64 %i
  %x = load i{8 * size}, ptr %place
  %offset = mul i64 %i, %stride
  %at = getelementptr i8, ptr %to, i64 %offset
  store i{8 * size} %x, ptr %at, align 1
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %count
  br i1 %more, label %next, label %done
done:
  ret void
}}
""" for size in (1, 2, 4, 8))


def _by_size(name: str, arguments: str) -> str:
    """A call of the copy for the column's size."""
    others = " ".join(f"i64 {size}, label %{name}.{size}" for size in (1, 2, 4))
    text = f"  switch i64 %size, label %{name}.8 [ {others} ]\n"
    for size in (1, 2, 4, 8):
        text += f"{name}.{size}:\n  call void @{name}.{size}({arguments})\n  br label %{name}.done\n"
    return text + f"{name}.done:\n"


TEXT = _COPIES + f"""
; Points %from to %until of the columns in %table: (address, stride, size) of each input, then of each output. Scratch
; holds the addresses of this chunk's columns, then the columns that were copied.
define void @slpc.batch(ptr %rows, ptr %table, i64 %inputs, i64 %outputs, i64 %lanes, i64 %from, i64 %until,
                        ptr %scratch, ptr %work) {{
entry:
  %columns = add i64 %inputs, %outputs
  %out = getelementptr ptr, ptr %scratch, i64 %inputs
  %copies = getelementptr ptr, ptr %scratch, i64 %columns
  br label %chunk
chunk:
  %start = phi i64 [ %from, %entry ], [ %end, %chunk.done ]
  %left = sub i64 %until, %start
  %many = icmp sgt i64 %left, {CHUNK}
  %most = select i1 %many, i64 {CHUNK}, i64 %left
  %over = urem i64 %most, %lanes
  %whole = sub i64 %most, %over
  %ragged = icmp eq i64 %whole, 0
  %count = select i1 %ragged, i64 %most, i64 %whole
  %padded = select i1 %ragged, i64 %lanes, i64 %whole
  %end = add i64 %start, %count
  br label %in.next
in.next:
  %i = phi i64 [ 0, %chunk ], [ %i1, %in.done ]
  %in.more = icmp slt i64 %i, %columns
  br i1 %in.more, label %in.one, label %run
in.one:
  %entry.at = getelementptr [3 x i64], ptr %table, i64 %i
  %base = load ptr, ptr %entry.at
  %stride.at = getelementptr i64, ptr %entry.at, i64 1
  %stride = load i64, ptr %stride.at
  %size.at = getelementptr i64, ptr %entry.at, i64 2
  %size = load i64, ptr %size.at
  %skipped = mul i64 %start, %stride
  %here = getelementptr i8, ptr %base, i64 %skipped
  %contiguous = icmp eq i64 %stride, %size
  %unragged = xor i1 %ragged, true
  %direct = and i1 %contiguous, %unragged
  %copy.number = mul i64 %i, {CHUNK}
  %copy = getelementptr i64, ptr %copies, i64 %copy.number
  %column = select i1 %direct, ptr %here, ptr %copy
  %column.at = getelementptr ptr, ptr %scratch, i64 %i
  store ptr %column, ptr %column.at
  %is.output = icmp sge i64 %i, %inputs
  %no.pack = or i1 %direct, %is.output
  br i1 %no.pack, label %in.done, label %pack
pack:
{_by_size("pack", "ptr %here, i64 %stride, ptr %copy, i64 %count, i64 %padded")}  br label %in.done
in.done:
  %i1 = add i64 %i, 1
  br label %in.next
run:
  call void %rows(ptr %scratch, ptr %out, ptr %work, i64 %padded)
  br label %out.next
out.next:
  %o = phi i64 [ %inputs, %run ], [ %o1, %out.done ]
  %out.more = icmp slt i64 %o, %columns
  br i1 %out.more, label %out.one, label %chunk.done
out.one:
  %o.entry = getelementptr [3 x i64], ptr %table, i64 %o
  %o.base = load ptr, ptr %o.entry
  %o.stride.at = getelementptr i64, ptr %o.entry, i64 1
  %o.stride = load i64, ptr %o.stride.at
  %o.skipped = mul i64 %start, %o.stride
  %o.here = getelementptr i8, ptr %o.base, i64 %o.skipped
  %o.column.at = getelementptr ptr, ptr %scratch, i64 %o
  %o.column = load ptr, ptr %o.column.at
  %written = icmp eq ptr %o.column, %o.here
  br i1 %written, label %out.done, label %unpack
unpack:
  %o.size.at = getelementptr i64, ptr %o.entry, i64 2
  %o.size = load i64, ptr %o.size.at
{_by_size("unpack", "ptr %o.column, ptr %o.here, i64 %o.stride, i64 %count").replace("i64 %size", "i64 %o.size")}\
  br label %out.done
out.done:
  %o1 = add i64 %o, 1
  br label %out.next
chunk.done:
  %further = icmp slt i64 %end, %until
  br i1 %further, label %chunk, label %done
done:
  ret void
}}
"""
"""The walk over chunks, the same for all programs."""


@cache
def _library() -> llvm_engine.Library:
    return llvm_engine.load(TEXT, ["slpc.batch"])


@cache
def _walk() -> Any:
    """The walk as a ctypes function."""
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 5, *[ctypes.c_void_p] * 2)
    return kind(_library().addresses["slpc.batch"])


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores())


@cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Batch:
    """Machine code of one program over many points; returns a tuple of the outputs."""

    streams = True
    """Memory does not grow with the points, but for inputs and outputs."""

    def __init__(self, text: str) -> None:
        self.layout = read_head(text)
        self._library = llvm_engine.load(text, ["slpc.rows"])
        self._rows = self._library.addresses["slpc.rows"]
        self._columns = self.layout.inputs.elements, self.layout.outputs.elements
        self._memory = threading.local()

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        """Inputs by position: each one value for all points, or an array of them along its first axis, of any strides.
        Outputs have the points along their first axis."""
        fields = self.layout.inputs.fields
        given = [numpy.asarray(a, f.type.dtype.numpy) for a, f in zip(args, fields, strict=True)]
        points = next((len(a) for a, f in zip(given, fields) if a.ndim > len(f.type.shape)), 1)
        spread = [numpy.broadcast_to(a, (points, *f.type.shape)) for a, f in zip(given, fields)]
        found = [numpy.moveaxis(numpy.empty((*f.type.shape, points), f.type.dtype.numpy), -1, 0)
                 for f in self.layout.outputs.fields]
        if points:
            self._run(Table([*spread, *found]), points)
        return tuple(found)

    def _run(self, table: Table, points: int) -> None:
        """All points, by as many threads as there are cores and work."""
        parts = min(_cores(), max(1, points // THREAD))
        step = -(-points // (parts * CHUNK)) * CHUNK
        ranges = [(start, min(start + step, points)) for start in range(0, points, step)]
        if len(ranges) == 1:
            self.part(table, *ranges[0])
        else:
            list(_threads().map(lambda r: self.part(table, *r), ranges))

    def part(self, table: Table, start: int, end: int) -> None:
        """The points from start to end, by this thread, which keeps what it needs for it."""
        try:
            scratch, work = self._memory.here
        except AttributeError:
            scratch, work = self._memory.here = (
                _Words((self._columns[0] + self._columns[1]) * (CHUNK + 1)), _Words(self.layout.workspace // 8))
        _walk()(self._rows, table.address, *self._columns, self.layout.lanes, start, end, scratch.address, work.address)


class _Words:
    """Words of 8 bytes, at a multiple of 64, as vectors like it."""

    def __init__(self, count: int) -> None:
        self._array = numpy.empty(count + 8, numpy.int64)
        self.address = -(-self._array.ctypes.data // 64) * 64


class Table:
    """Address, stride and size of each column, element by element, of arrays with the points along their first axis;
    they are kept."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = arrays
        entries: list[tuple[int, int, int]] = []
        for array in arrays:
            base, stride, size = array.ctypes.data, array.strides[0], array.itemsize
            inner = numpy.array(array.strides[1:], numpy.int64)
            offsets = numpy.indices(array.shape[1:]).reshape(array.ndim - 1, array[:1].size).T @ inner
            entries += [(base + int(o), stride, size) for o in offsets]
        self._entries = numpy.array(entries, numpy.int64).reshape(-1, 3)
        self.address = self._entries.ctypes.data

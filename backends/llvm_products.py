"""The rule of products: blocks of a large one are given to the micro-kernels (llvm_gemm), small ones are loops."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..ir.graph import Node
from ..ir.layout import layout
from ..ir.types import f32, f64
from .llvm_gemm import scratch
from .llvm_loops import BLOCK, Access, Accesses, Loops, block_length, collapsed
from .llvm_nests import Reduction, Scope, access, reduced, rule, written
from .llvm_pool import GEMM_F32, GEMM_F64
from .llvm_writer import Lane

SMALL = 1000
"""Products of fewer multiplications are loops."""
FLOPS = {"f32": 100.0, "f64": 50.0}
"""About how many a micro-kernel does in a ns."""
MOST_CUTS = 16
"""Blocks of one product, which each pack their part of B."""
ROWS, COLUMNS = 12, 64
"""Of a block: multiples of these, which suit a tile."""
FEWEST_ROWS = 32
"""Of a block of a product that is cut by rows."""
PACKED, READ = 10, 1
"""Packing an element of B takes as long as so many multiplications, reading one of A as so many."""


def tiled(node: Node) -> bool:
    """Is the node a product that micro-kernels do, which can be added to what is there?"""
    if node.op.name != "matmul":
        return False
    a, b = node.operands
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    return a.dtype in (f32, f64) and min(m, k, n) > 1 and m * k * n >= SMALL


@rule("matmul")
def _matmul(w: Loops, node: Node, scope: Scope) -> None:
    if tiled(node):
        _tiles(w, node, scope)
    else:
        _sums(w, node, scope)


def _sums(w: Loops, node: Node, scope: Scope) -> None:
    """Each element as a sum of products, in the dtype of the result."""
    a, b = node.operands
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    left, right = access(w, a, scope), access(w, b, scope)
    accesses: dict[object, Access] = {
        "a": Access(left.at, a.dtype, (*left.strides[:-1], 0, left.strides[-1]), left.numbers),
        "b": Access(right.at, b.dtype, (*right.strides[:-2], 0, right.strides[-1], right.strides[-2]), right.numbers)}
    lanes = scope.lanes * 8 // a.dtype.bytes
    within = {f32: "float", f64: "double"}.get(a.dtype, "")
    work = 0.05 * node.result.type.size * k * a.dtype.bytes
    reduced(w, node, Reduction(w, "sum", a.dtype, within), (*a.shape[:-2], m, n, k), 1, accesses, False,
            lambda here: w.load(here["a"]) * w.load(here["b"]), lanes, scope, work)


@dataclass(frozen=True)
class Tiling:
    """A product as blocks of so many rows and columns, in each of a number of batches; it takes `work` ns."""

    batch: int
    rows: int
    columns: int
    work: float

    @staticmethod
    def of(node: Node, alone: bool) -> Tiling:
        """That of a node, which one thread computes `alone`."""
        a, b = node.operands
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        batch = math.prod(a.shape[:-2])
        work = 2.0 * batch * m * n * k / FLOPS[a.dtype.name]
        down, along = cuts(m, n, 0 if alone else min(MOST_CUTS, int(work / BLOCK)) / batch)
        return Tiling(batch, _length(m, down, ROWS), _length(n, along, COLUMNS), work)


def workspace(node: Node, threads: int) -> int:
    """Bytes that so many threads need for what they pack."""
    if not tiled(node):
        return 0
    tiling = Tiling.of(node, threads == 1)
    m, n = node.result.shape[-2:]
    count = tiling.batch * -(-m // tiling.rows) * -(-n // tiling.columns)
    return min(threads, -(-count // block_length(count, tiling.work))) * packed(node, tiling)


def packed(node: Node, tiling: Tiling) -> int:
    """Bytes of what one block packs."""
    a, b = node.operands
    left, right = layout(a), layout(b)
    assert left is not None and right is not None
    by_rows, by_columns = left.strides[-1] == 1, right.strides[-1] == 1
    return scratch(tiling.rows, tiling.columns, a.shape[-1], by_rows, by_columns, a.dtype.bytes)


def _tiles(w: Loops, node: Node, scope: Scope) -> None:
    """Blocks of rows and columns, batches of them, which threads share."""
    a, b = node.operands
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    accesses = {"a": access(w, a, scope), "b": access(w, b, scope), "c": written(w, node.result, scope)}
    inner = {key: x.strides[-2:] for key, x in accesses.items()}
    batch, outer = collapsed(a.shape[:-2], {
        key: Access(x.at, x.dtype, x.strides[:-2], x.numbers) for key, x in accesses.items()})
    tiling = Tiling.of(node, w.alone)
    rows, columns = tiling.rows, tiling.columns
    grid = (*batch, -(-m // rows), -(-n // columns))
    total = math.prod(grid)
    start, stop = w.shared(total, tiling.work)
    routine = w.line("ptr", f"getelementptr ptr, ptr %runtime, i64 {GEMM_F64 if a.dtype is f64 else GEMM_F32}")
    gemm = w.line("ptr", f"load ptr, ptr {routine.name}, align 8, !invariant.load !1")
    fresh = "false" if scope.adds(node.result) else "true"
    own = scope.workspace(w, node)
    if w.blocks:
        offset = w.line("i64", f"mul i64 %thread, {packed(node, tiling)}")
        own = w.line("ptr", f"getelementptr i8, ptr {own}, i64 {offset.name}").name

    def block(index: str) -> None:
        *place, i, j = w.unravelled(index, grid)
        here: Accesses = outer
        for at in place:
            here = {key: w.advanced(x, at) for key, x in here.items()}
        row, column = _times(w, i, rows), _times(w, j, columns)
        corner = {key: Access(x.at, x.dtype, inner[str(key)], x.numbers) for key, x in here.items()}
        at_a = w.advanced(corner["a"], row).at
        at_b = w.advanced(corner["b"], column, 1).at
        at_c = w.advanced(w.advanced(corner["c"], row), column).at
        w.lines.append(
            f"  call void {gemm.name}(i64 {_left(w, m, row, rows)}, i64 {_left(w, n, column, columns)}, i64 {k}, "
            f"ptr {at_a}, i64 {inner['a'][0]}, i64 {inner['a'][1]}, ptr {at_b}, i64 {inner['b'][0]}, "
            f"i64 {inner['b'][1]}, ptr {at_c}, i64 {inner['c'][0]}, i1 {fresh}, ptr {own})")

    w.count(start, stop, 1, block)


def cuts(m: int, n: int, parts: float) -> tuple[int, int]:
    """Into how many blocks of rows and of columns, no more than `parts` together unless one: B is packed for each block
    of rows, A read for each of columns, and threads that are done wait for the last block."""
    most = max(1, int(parts))
    choices = ((r, c) for r in range(1, max(1, min(most, m // FEWEST_ROWS)) + 1)
               for c in range(1, max(1, min(most // r, n // COLUMNS)) + 1))
    return min(choices, key=lambda rc: (1 + PACKED * rc[0] / m + READ * rc[1] / n) * (1 + 1 / (rc[0] * rc[1])))


def _length(size: int, parts: int, whole: int) -> int:
    """Of a block, a multiple of `whole` unless it is all."""
    return size if parts <= 1 else -(-size // (parts * whole)) * whole


def _times(w: Loops, index: str, length: int) -> str:
    return str(int(index) * length) if index.isdigit() else w.line("i64", f"mul i64 {index}, {length}").name


def _left(w: Loops, size: int, start: str, length: int) -> str:
    """How much a block that starts there has."""
    if size % length == 0:
        return str(length)
    if start.isdigit():
        return str(min(length, size - int(start)))
    left = Lane(w, str(size), "i64") - Lane(w, start, "i64")
    return w.select(left < length, left, length).name

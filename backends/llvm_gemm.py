"""Products of matrices as LLVM IR: C = A B, or C + A B, for any strides of A and B, C row by row.

A micro-kernel keeps a tile of C in registers: a few rows (ROWS) by a few vectors (VECTORS), while it goes along k, with
one element of A and one row of B at a time. B is packed into panels as wide as the tile, which stay in the second-level
cache; the rows of A are read as they lie or, where they lie column by column, packed too. Goto and van de Geijn,
"Anatomy of high-performance matrix multiplication" (2008); Van Zee and van de Geijn, "BLIS" (2015).

The order in which an element of C is summed depends on k alone, so that a product may be cut into blocks of rows and
columns, and these be given to any number of threads, and has the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

from .llvm_loops import Loops
from .llvm_writer import Lane

DEPTH = 256
"""How far along k a panel goes."""
PANELS = 8
"""Panels of B that are packed at once."""
NEAR, FEW = 4, 256
"""Where a row of B is no longer than so many panels are wide, up to so many rows of A read B as it lies."""
GROUP = 16
"""Tiles of rows of A that are packed at once."""
SLACK = 3
"""Elements that a packed row has more than its length."""
ROWS, WIDEST = 6, 64
"""Rows of a tile, and the most columns of one on any machine."""
BYTES = {"float": 4, "double": 8}


class Shape:
    """The tile of the micro-kernel for a kind of number and a machine."""

    def __init__(self, kind: str, lanes: int, vectors: int, rows: int = ROWS) -> None:
        self.kind, self.lanes, self.vectors, self.rows = kind, lanes, vectors, rows

    @property
    def width(self) -> int:
        """Columns of a tile."""
        return self.lanes * self.vectors


def scratch(m: int, n: int, k: int, by_rows: bool, by_columns: bool, size: int) -> int:
    """Bytes that a product of m rows, n columns, k along needs for what it packs, on any machine: rows of A, if it does
    not lie row by row, and panels of B, unless that does and meets few rows."""
    deep = min(k, DEPTH)
    rows = 0 if by_rows else ROWS * GROUP * (deep + SLACK)
    panels = 0 if by_columns and m <= ROWS else min(-(-n // WIDEST), PANELS) * WIDEST * deep
    return (rows + panels) * size


def shapes(lanes: int, registers: int) -> list[Shape]:
    """The tiles for f32 and f64 of a machine with so many registers of so many doubles."""
    vectors = 4 if registers >= 32 else 2
    return [Shape("float", 2 * lanes, vectors), Shape("double", lanes, vectors)]


class _Code(Loops):
    """A writer with what a product needs: whole numbers, minima, pointers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.kind = shape, shape.kind

    def whole(self, text: str) -> Lane:
        return Lane(self, text, "i64")

    def each(self, stop: Lane, step: int, body: Callable[[Lane], None]) -> None:
        """`body(i)` for i from 0 to stop, by steps."""
        self.count("0", stop.name, step, lambda i: body(self.whole(i)))

    def least(self, a: Lane, b: Lane | int) -> Lane:
        return self.select(a < b, a, b if isinstance(b, Lane) else self.constant(b, "i64"))

    def at(self, base: str, *offsets: Lane | int) -> str:
        """base + the sum of offsets, in elements."""
        for offset in offsets:
            if not (isinstance(offset, int) and offset == 0):
                text = offset.name if isinstance(offset, Lane) else offset
                base = self.line("ptr", f"getelementptr {self.kind}, ptr {base}, i64 {text}").name
        return base

    def read(self, at: str) -> Lane:
        t = self.type(self.kind)
        return self.line(self.kind, f"load {t}, ptr {at}, align {BYTES[self.kind]}")

    def write(self, value: Lane, at: str) -> None:
        self.lines.append(f"  store {self.type(self.kind)} {value.name}, ptr {at}, align {BYTES[self.kind]}")

    def first(self, count: Lane) -> Lane:
        """The mask of the first lanes."""
        numbers = ", ".join(f"i64 {i}" for i in range(self.lanes))
        return Lane(self, f"<{numbers}>", "i64") < self.splat(count)

    def masked_read(self, at: str, mask: Lane) -> Lane:
        """The lanes of the mask, zero elsewhere."""
        t, name = self.type(self.kind), self._masked("load")
        align = BYTES[self.kind]
        self.declared[name] = f"declare {t} @{name}(ptr, i32, {self.type('i1')}, {t})"
        return self.line(self.kind, f"call {t} @{name}(ptr {at}, i32 {align}, {self.type('i1')} {mask.name}, "
                                    f"{t} zeroinitializer)")

    def masked_write(self, value: Lane, at: str, mask: Lane) -> None:
        t, name = self.type(self.kind), self._masked("store")
        self.declared[name] = f"declare void @{name}({t}, ptr, i32, {self.type('i1')})"
        self.lines.append(f"  call void @{name}({t} {value.name}, ptr {at}, i32 {BYTES[self.kind]}, "
                          f"{self.type('i1')} {mask.name})")

    def _masked(self, what: str) -> str:
        short = {"float": "f32", "double": "f64"}[self.kind]
        return f"llvm.masked.{what}.v{self.lanes}{short}.p0"

    def either(self, condition: Lane, then: Callable[[], None], other: Callable[[], None]) -> None:
        """One or the other."""
        yes, no, after = self.fresh("yes"), self.fresh("no"), self.fresh("after")
        self.lines.append(f"  br i1 {condition.name}, label %{yes}, label %{no}")
        for name, body in ((yes, then), (no, other)):
            self.label(name)
            body()
            self.lines.append(f"  br label %{after}")
        self.label(after)

    def done(self, head: str) -> None:
        self.lines = [f"{head} #0 {{", "entry:", *self.allocated, *self.lines, "  ret void", "}"]


def kernel(shape: Shape, rows: int, vectors: int) -> Loops:
    """One tile: C (+)= A B over k; of the last vector's columns only the first `last` are there."""
    w = _Code(shape)
    kind = shape.kind
    with w.at_lanes(shape.lanes):
        mask = w.first(w.whole("%last"))
    k, b_row = w.whole("%k"), w.whole("%br")
    offsets = [w.whole("%ar") * i for i in range(rows)]
    t = f"<{shape.lanes} x {kind}>"
    before, head, after = w.block, w.fresh("along"), w.fresh("after")
    w.lines.append(f"  br label %{head}")
    w.label(head)
    mark = len(w.lines)
    a, b, left = "%a.now", "%b.now", w.whole("%left")
    sums = [[Lane(w, f"%sum.{i}.{j}", kind) for j in range(vectors)] for i in range(rows)]
    with w.at_lanes(shape.lanes):
        right = [w.read(w.at(b, j * shape.lanes)) for j in range(vectors - 1)]
        right.append(w.masked_read(w.at(b, (vectors - 1) * shape.lanes), mask))
    found = []
    for i in range(rows):
        with w.at_lanes(1):
            one = w.read(w.at(a, offsets[i]) if i else a)
        with w.at_lanes(shape.lanes):
            every = w.splat(one)
            found.append([w.intrinsic("fmuladd", kind, every, right[j], sums[i][j]) for j in range(vectors)])
    a_next, b_next, rest = w.at(a, w.whole("%ac")), w.at(b, b_row), left - 1
    more = rest > 0
    w.lines.append(f"  br i1 {more.name}, label %{head}, label %{after}")
    phis = [f"  {a} = phi ptr [ %a, %{before} ], [ {a_next}, %{w.block} ]",
            f"  {b} = phi ptr [ %b, %{before} ], [ {b_next}, %{w.block} ]",
            f"  {left.name} = phi i64 [ {k.name}, %{before} ], [ {rest.name}, %{w.block} ]"]
    phis += [f"  {sums[i][j].name} = phi {t} [ zeroinitializer, %{before} ], [ {found[i][j].name}, %{w.block} ]"
             for i in range(rows) for j in range(vectors)]
    w.lines[mark:mark] = phis
    w.label(after)
    places = [[w.at("%c", w.whole("%cr") * i, j * shape.lanes) for j in range(vectors)] for i in range(rows)]

    def store(add: bool) -> None:
        with w.at_lanes(shape.lanes):
            for i in range(rows):
                for j in range(vectors):
                    at, last = places[i][j], j == vectors - 1
                    value = found[i][j]
                    if add:
                        value = (w.masked_read(at, mask) if last else w.read(at)) + value
                    if last:
                        w.masked_write(value, at, mask)
                    else:
                        w.write(value, at)

    w.either(Lane(w, "%start", "i1"), lambda: store(False), lambda: store(True))
    w.done(f"define internal void @{_kernel_name(shape, rows, vectors)}(ptr %a, i64 %ar, i64 %ac, ptr %b, i64 %br, "
           "i64 %k, ptr %c, i64 %cr, i64 %last, i1 %start)")
    return w


def _kernel_name(shape: Shape, rows: int, vectors: int) -> str:
    return f"slpc.kernel.{shape.kind}.{rows}.{vectors}"


def transpose(w: Loops, rows: list[Lane]) -> list[Lane]:
    """A square of as many vectors as they have lanes, by interleaving halves: after log2 n rounds rows are columns."""
    n = len(rows)
    t = w.type(rows[0].kind)
    low = ", ".join(f"i32 {i // 2 + (i % 2) * n}" for i in range(n))
    high = ", ".join(f"i32 {n // 2 + i // 2 + (i % 2) * n}" for i in range(n))
    for _ in range(n.bit_length() - 1):
        paired = []
        for i in range(n // 2):
            for listed in (low, high):
                paired.append(w.line(rows[0].kind, f"shufflevector {t} {rows[i].name}, {t} {rows[i + n // 2].name}, "
                                                   f"<{n} x i32> <{listed}>"))
        rows = paired
    return rows


def pack(shape: Shape) -> Loops:
    """Panels of B, k by n: a row of a panel is as wide as a tile, and what is beyond n is left as it was."""
    w = _Code(shape)
    k, n, lanes, width = w.whole("%k"), w.whole("%n"), shape.lanes, shape.width
    row, column = w.whole("%br"), w.whole("%bc")

    def straight() -> None:
        def panel(start: str) -> None:
            j = w.whole(start)
            to, source = w.at("%to", j * k), w.at("%b", j)

            def full() -> None:
                def one(p: str) -> None:
                    here = w.whole(p)
                    a, z = w.at(source, here * row), w.at(to, here * width)
                    with w.at_lanes(lanes):
                        for v in range(shape.vectors):
                            w.write(w.read(w.at(a, v * lanes)), w.at(z, v * lanes))
                w.count("0", k.name, 1, one)

            def part() -> None:
                left = n - j

                def vector(v: str) -> None:
                    here = left - w.whole(v)
                    with w.at_lanes(lanes):
                        mask = w.first(here)

                    def one(p: str) -> None:
                        here = w.whole(p)
                        a, z = w.at(source, here * row, w.whole(v)), w.at(to, here * width, w.whole(v))
                        with w.at_lanes(lanes):
                            w.write(w.masked_read(a, mask), z)
                    w.count("0", k.name, 1, one)
                w.count("0", left.name, lanes, vector)

            w.either(n - j >= width, full, part)
        w.count("0", n.name, width, panel)

    def turned() -> None:
        def vector(start: str) -> None:
            j = w.whole(start)
            whole = w.line("i64", f"udiv i64 {j.name}, {width}") * width
            to = w.at("%to", whole * k, j - whole)
            columns = []
            for i in range(lanes):  # beyond the last one it again, which nobody reads
                columns.append(w.at("%b", w.least(j + i, n - 1) * column))
            blocks = w.line("i64", f"and i64 {k.name}, {-lanes}")

            def block(p: str) -> None:
                here = w.whole(p)
                with w.at_lanes(1):
                    from_ = [w.at(c, here * row) for c in columns]
                with w.at_lanes(lanes):
                    found = transpose(w, [w.read(c) for c in from_])
                for i, x in enumerate(found):
                    at = w.at(to, (here + i) * width)
                    with w.at_lanes(lanes):
                        w.write(x, at)

            def one(p: str) -> None:
                here = w.whole(p)
                at = w.at(to, here * width)
                for i, c in enumerate(columns):
                    w.write(w.read(w.at(c, here * row)), w.at(at, i))

            unit = row.equals(1)
            limit = w.select(unit, blocks, w.constant(0, "i64"))
            w.count("0", limit.name, lanes, block)
            w.count(limit.name, k.name, 1, one)
        w.count("0", n.name, lanes, vector)

    w.either(column.equals(1), straight, turned)
    w.done(f"define internal void @slpc.pack.{shape.kind}(ptr %b, i64 %br, i64 %bc, i64 %k, i64 %n, ptr %to)")
    return w


def gemm(shape: Shape) -> Loops:
    """C = A B, if it is not `fresh` C + A B: m rows, n columns, k along; strides in elements. `%scratch` has the bytes
    that `scratch` says."""
    w = _Code(shape)
    fresh = Lane(w, "%fresh", "i1")
    m, n, k = w.whole("%m"), w.whole("%n"), w.whole("%k")
    a_row, a_column, b_row, b_column = (w.whole(f"%{name}") for name in ("ar", "ac", "br", "bc"))
    along = a_column.equals(1)
    deep = w.least(k, DEPTH)
    own = "%scratch"  # rows of A, packed; behind them panels of B
    packed_panels = w.at(own, w.select(along, w.constant(0, "i64"), (deep + SLACK) * (shape.rows * GROUP)))
    few = w.select(b_row <= NEAR * shape.width, w.constant(FEW, "i64"), w.constant(shape.rows, "i64"))
    direct = b_column.equals(1) & (m <= few)  # B is read so seldom that it is not worth packing
    ar, ac = w.select(along, a_row, w.constant(1, "i64")), w.select(along, 1, w.constant(shape.rows, "i64"))

    def block(j0: Lane, nc: Lane, p0: Lane, kc: Lane) -> None:
        """A part of k, for as many columns as panels hold."""
        source = w.at("%b", p0 * b_row, j0 * b_column)
        w.either(direct, lambda: None, lambda: w.lines.append(
            f"  call void @slpc.pack.{shape.kind}(ptr {source}, i64 %br, i64 %bc, i64 {kc.name}, i64 {nc.name}, "
            f"ptr {packed_panels})"))
        panels = w.line("ptr", f"select i1 {direct.name}, ptr {source}, ptr {packed_panels}").name
        panel_step = w.select(direct, w.constant(1, "i64"), kc)
        panel_row = w.select(direct, b_row, w.constant(shape.width, "i64"))

        def tile(a: str, i: Lane, rows: Lane, j: Lane) -> None:
            width = w.least(nc - j, shape.width)
            vectors = w.line("i64", f"udiv i64 {(width - 1).name}, {shape.lanes}")
            number = (rows - 1) * shape.vectors + vectors
            entry = w.line("ptr", f"getelementptr ptr, ptr @slpc.kernels.{shape.kind}, i64 {number.name}")
            chosen = w.line("ptr", f"load ptr, ptr {entry.name}, align 8")
            w.lines.append(
                f"  call void {chosen.name}(ptr {a}, i64 {ar.name}, i64 {ac.name}, ptr {w.at(panels, j * panel_step)}, "
                f"i64 {panel_row.name}, i64 {kc.name}, ptr {w.at('%c', i * w.whole('%cr'), j0, j)}, i64 %cr, "
                f"i64 {(width - vectors * shape.lanes).name}, i1 {(fresh & p0.equals(0)).name})")

        def group(i0: Lane) -> None:
            """Some tiles down: where A lies column by column their rows are packed together, by whole cache lines."""
            rows = w.least(m - i0, shape.rows * GROUP)
            corner = w.at("%a", i0 * a_row, p0 * a_column)
            w.either(along, lambda: None, lambda: w.lines.append(
                f"  call void @slpc.pack.rows.{shape.kind}(ptr {corner}, i64 %ac, i64 {kc.name}, i64 {rows.name}, "
                f"ptr {own})"))

            def down(i: Lane) -> None:
                lies = w.at(corner, i * a_row)
                packed = w.at(own, i * (kc + SLACK))
                a = w.line("ptr", f"select i1 {along.name}, ptr {lies}, ptr {packed}").name
                here = w.least(rows - i, shape.rows)
                w.each(nc, shape.width, lambda j: tile(a, i0 + i, here, j))

            w.each(rows, shape.rows, down)

        w.each(m, shape.rows * GROUP, group)

    w.each(n, shape.width * PANELS, lambda j0: w.each(k, DEPTH, lambda p0: block(
        j0, w.least(n - j0, shape.width * PANELS), p0, w.least(k - p0, DEPTH))))
    w.done(f"define void @slpc.gemm.{shape.kind}(i64 %m, i64 %n, i64 %k, ptr %a, i64 %ar, i64 %ac, ptr %b, i64 %br, "
           "i64 %bc, ptr %c, i64 %cr, i1 %fresh, ptr %scratch)")
    return w


def pack_rows(shape: Shape) -> Loops:
    """Rows of A, which lies column by column, as panels one tile high."""
    w = _Code(shape)
    rows, column, k = w.whole("%rows"), w.whole("%ac"), w.whole("%k")

    def one(p: Lane) -> None:
        source, to = w.at("%a", p * column), w.at("%to", p * shape.rows)

        def tile(i: Lane) -> None:
            left, at, panel = w.least(rows - i, shape.rows), w.at(source, i), w.at(to, i * (k + SLACK))
            with w.at_lanes(8):  # what is written beyond the tile is written again, or slack
                w.write(w.masked_read(at, w.first(left)), panel)

        w.each(rows, shape.rows, tile)

    w.each(k, 1, one)
    w.done(f"define internal void @slpc.pack.rows.{shape.kind}(ptr %a, i64 %ac, i64 %k, i64 %rows, ptr %to)")
    return w


def functions(shape: Shape) -> tuple[list[Loops], str]:
    """All functions of a shape, and the table of its kernels."""
    made = [kernel(shape, r, v) for r in range(1, shape.rows + 1) for v in range(1, shape.vectors + 1)]
    names = ", ".join(f"ptr @{_kernel_name(shape, r, v)}" for r in range(1, shape.rows + 1)
                      for v in range(1, shape.vectors + 1))
    table = f"@slpc.kernels.{shape.kind} = internal constant [{shape.rows * shape.vectors} x ptr] [{names}]"
    return [*made, pack(shape), pack_rows(shape), gemm(shape)], table

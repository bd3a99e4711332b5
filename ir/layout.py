"""Where the elements of a value lie: the offset and strides of a view into the buffer beneath it.

Every operation that owns memory writes it row by row, so the layout of any value is known before the program runs, and
with it what is contiguous, what a product takes without a copy, and which reshape is a view at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .graph import Value
from .shapes import Index
from .types import Shape


@dataclass(frozen=True)
class Layout:
    """Element (i, j, ...) lies `offset + i * strides[0] + j * strides[1] + ...` elements into the buffer."""

    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def contiguous(self) -> bool:
        """Row by row, without gaps."""
        expected = 1
        for n, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n != 1 and stride != expected:
                return 0 in self.shape
            expected *= n
        return True

    @property
    def matrix(self) -> bool:
        """Can a BLAS take the last two axes as they lie? One has unit stride, the other steps over all of it."""
        (m, n), (down, along) = self.shape[-2:], self.strides[-2:]
        by_rows = (along == 1 or n == 1) and (down >= n or m == 1)
        by_columns = (down == 1 or m == 1) and (along >= m or n == 1)
        return by_rows or by_columns


def rowwise(shape: Shape) -> Layout:
    """The layout of a value that owns its memory."""
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return Layout(shape, tuple(reversed(strides)))


def layout(value: Value) -> Layout | None:
    """The layout of a value in its buffer; None beneath a reshape that is no view, before which `passes.legalize` puts
    a copy."""
    root, views = chain(value)
    return through(rowwise(root.shape), views)


def chain(value: Value) -> tuple[Value, tuple[Value, ...]]:
    """The value that owns the memory beneath a value, and the views that lead from it to the value, in order."""
    views = []
    while value.node is not None and value.node.op.view:
        views.append(value)
        value = value.node.operands[0]
    return value, tuple(reversed(views))


def through(lies: Layout | None, views: Sequence[Value]) -> Layout | None:
    """The layout of the last of a chain of views of what lies so; None where a reshape in it is no view."""
    for view in views:
        assert view.node is not None
        if lies is not None:
            lies = _VIEWS[view.node.op.name](lies, view.shape, view.node.attributes)
    return lies


def _broadcast(x: Layout, shape: Shape, attributes: Mapping[str, Any]) -> Layout:
    lead = len(shape) - len(x.shape)
    kept = (s if n == m else 0 for s, n, m in zip(x.strides, x.shape, shape[lead:], strict=True))
    return Layout(shape, (*[0] * lead, *kept), x.offset)


def _permute(x: Layout, shape: Shape, attributes: Mapping[str, Any]) -> Layout:
    return Layout(shape, tuple(x.strides[a] for a in attributes["axes"]), x.offset)


def sliced(x: Layout, shape: Shape, index: Index) -> Layout:
    """The layout of `x[index]`, whose shape is `shape`."""
    strides: list[int] = []
    offset = x.offset
    for entry, stride in zip(index, x.strides, strict=True):
        if isinstance(entry, int):
            offset += entry * stride
        else:
            start, _, step = entry
            offset += start * stride
            strides.append(step * stride)
    return Layout(shape, tuple(strides), offset)


def _slice(x: Layout, shape: Shape, attributes: Mapping[str, Any]) -> Layout:
    return sliced(x, shape, attributes["index"])


def _same(x: Layout, shape: Shape, attributes: Mapping[str, Any]) -> Layout:
    return x


def reshaped(x: Layout, shape: Shape) -> Layout | None:
    """The layout in another shape of as many elements; None where that takes a copy.

    Axes are matched group by group: a group of old axes can be split anew if it lies without gaps.
    """
    if 0 in shape:
        return Layout(shape, rowwise(shape).strides, x.offset)
    old = [(n, s) for n, s in zip(x.shape, x.strides, strict=True) if n != 1]
    strides: list[int] = []
    at = 0
    left = 1  # elements of the present group that the new axes have yet to cover
    step = 1
    for n in shape:
        if n == 1:
            strides.append(1)
            continue
        if left == 1:
            left, step = old[at]
            at += 1
        while left < n or left % n:
            if at == len(old):
                return None
            m, s = old[at]
            if step != m * s:
                return None
            left, step = left * m, s
            at += 1
        left //= n
        strides.append(step * left)
    return Layout(shape, tuple(strides), x.offset)


def nested(lies: Layout) -> tuple[Shape, Index, tuple[int, ...]] | None:
    """A dense shape, an index into it, and the order of axes, such that what the index takes lies like this: the axes
    of the layout are nested, each stride a multiple of the next. Axes of length 1 and repeated ones are left out. None
    where strides are not so."""
    axes = [a for a, (n, s) in enumerate(zip(lies.shape, lies.strides, strict=True)) if n != 1 and s != 0]
    axes.sort(key=lambda a: -lies.strides[a])
    if 0 in lies.shape:
        return lies.shape, tuple((0, n, 1) for n in lies.shape), tuple(range(len(lies.shape)))
    whole: list[int] = []
    index: list[int | tuple[int, int, int]] = []
    above = None
    for a in axes:
        n, stride = lies.shape[a], lies.strides[a]
        if stride < 0 or (above is not None and (above % stride or above // stride < n)):
            return None
        whole.append(n if above is None else above // stride)
        index.append((0, n, 1))
        above = stride
    if above is not None and above > 1:
        whole.append(above)
        index.append(0)
    if tuple(whole) == tuple(n for n in lies.shape if n != 1) and axes == sorted(axes) and len(axes) == sum(
            n != 1 for n in lies.shape):
        return lies.shape, tuple((0, n, 1) for n in lies.shape), tuple(range(len(lies.shape)))
    return tuple(whole), tuple(index), tuple(axes)


def _reshape(x: Layout, shape: Shape, attributes: Mapping[str, Any]) -> Layout | None:
    return reshaped(x, shape)


_VIEWS = {"broadcast_to": _broadcast, "permute_dims": _permute, "slice": _slice, "reshape": _reshape,
          "stop_gradient": _same}

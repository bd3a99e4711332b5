"""NumPy's subscripts: constants are slices, views that cost nothing; integer arrays are gathers."""

from __future__ import annotations

from typing import Any

from .arrays import Arrays
from .diagnostics import Fault
from .entities import describe
from .graph import Value
from .shapes import Index, IndexEntry, slice_length
from .types import Shape, matrix


def constant_index(index: Any) -> tuple[Any, ...]:
    """The entries of an index of constants."""
    return index if isinstance(index, tuple) else (index,)


def full_index(shape: Shape, index: Any) -> Index:
    """A constant index with an entry for every axis, bounds as `slice.indices` gives them; Fault E0305 outside."""
    entries = _spread(constant_index(index), shape)
    if any(e is None or isinstance(e, Value) for e in entries):
        raise Fault("E0203", "only integers and slices index a place")
    return tuple(_entry(e, n, axis) for axis, (e, n) in enumerate(zip(entries, shape, strict=True)))


def subscript(arrays: Arrays, x: Value, index: Any) -> Value:
    """`x[index]` as NumPy has it: integers, slices, `None`, `...`, and integer arrays."""
    entries = _spread(constant_index(index), x.shape)
    for entry in entries:
        if isinstance(entry, Value) and entry.dtype.kind != "int":
            what = "a mask" if entry.dtype.kind == "bool" else f"an index of dtype {entry.dtype}"
            raise Fault("E0302", f"{what} cannot select elements: the shape would depend on data",
                        "write where(mask, x, 0), or index with i32 or i64")
    if not any(isinstance(e, Value) for e in entries):
        return _constant(arrays, x, entries)
    return _gathered(arrays, x, entries)


def _spread(entries: tuple[Any, ...], shape: Shape) -> list[Any]:
    """`...` written out, and missing axes taken whole: an entry for each axis, and a None for each new one."""
    given = sum(1 for e in entries if e is not None and e is not Ellipsis)
    if sum(1 for e in entries if e is Ellipsis) > 1:
        raise Fault("E0203", "an index has at most one '...'")
    if given > len(shape):
        raise Fault("E0305", f"{given} indices for {len(shape)} axes, shape {matrix(shape)}")
    rest: list[Any] = [slice(None)] * (len(shape) - given)
    spread: list[Any] = []
    for e in entries:
        if e is Ellipsis:
            spread += rest
            rest = []
        elif e is None or isinstance(e, slice | Value) or (isinstance(e, int) and not isinstance(e, bool)):
            spread.append(e)
        else:
            raise Fault("E0203", f"an index is an integer, a slice, None, ... or an integer array, not {describe(e)}",
                        "stack([...]) makes an array of a list" if isinstance(e, list) else "")
    return spread + rest


def _entry(entry: Any, n: int, axis: int) -> IndexEntry:
    if isinstance(entry, slice):
        if entry.step == 0:
            raise Fault("E0203", "the step of a slice is 0")
        return entry.indices(n)
    if not -n <= entry < n:
        raise Fault("E0305", f"index {entry} is out of range for axis {axis} of length {n}")
    return int(entry) % n


def _constant(arrays: Arrays, x: Value, entries: list[Any]) -> Value:
    """A slice; a `None` is a reshape of what it took."""
    full: list[IndexEntry] = []
    shape: list[int] = []
    for entry in entries:
        if entry is None:
            shape.append(1)
            continue
        axis = len(full)
        full.append(_entry(entry, x.shape[axis], axis))
        if isinstance(entry, slice):
            taken = full[-1]
            assert isinstance(taken, tuple)
            shape.append(slice_length(taken))
    return arrays.reshape(arrays.slice(x, tuple(full)), tuple(shape))


def _gathered(arrays: Arrays, x: Value, entries: list[Any]) -> Value:
    """Advanced indexing: slices first, then the indexed axes to the front, a gather, and its axes to their place.

    Integers beside arrays count as arrays: where arrays and integers stand together their axes stay in place, where
    a slice parts them they come first (NumPy's rule).
    """
    advanced = [at for at, e in enumerate(entries) if isinstance(e, Value | int)]
    together = advanced == list(range(advanced[0], advanced[-1] + 1))
    before = sum(1 for e in entries[:advanced[0]]) if together else 0
    indices: list[Value] = []
    lead: list[int] = []
    rest: list[int] = []
    axis = 0
    basic: list[IndexEntry] = []
    shape: list[int] = []
    for entry in entries:
        if entry is None:
            rest.append(len(shape))
            shape.append(1)
            continue
        n = x.shape[axis]
        if isinstance(entry, Value):
            basic.append((0, n, 1))
            lead.append(len(shape))
            shape.append(n)
            indices.append(entry)
        else:
            found = _entry(entry, n, axis)
            basic.append(found)
            if isinstance(found, tuple):
                rest.append(len(shape))
                shape.append(slice_length(found))
        axis += 1
    x = arrays.reshape(arrays.slice(x, tuple(basic)), tuple(shape))
    x = arrays.permute(x, (*lead, *rest))
    taken = arrays.gather(x, indices)
    count = taken.type.rank - len(rest)
    order = (*range(count, count + before), *range(count), *range(count + before, taken.type.rank))
    return arrays.permute(taken, order)

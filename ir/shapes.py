"""Shape rules: the type of a result from the types of the operands and the attributes.

Each rule has the signature `(types, attributes) -> TensorType` and raises `Fault` for what does not fit. Operands
are never broadcast here: the reader inserts `broadcast_to`, so that no other rule ever undoes it. (A scalar constant
takes the shape of what it meets, as it takes its dtype; the builder sees to that.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from .diagnostics import Fault
from .types import Shape, TensorType, bool_, matrix

Types = Sequence[TensorType]
Attributes = Mapping[str, Any]

IndexEntry = int | tuple[int, int, int]
"""One axis of a constant index: an element, or (start, stop, step) as `slice.indices` gives them."""
Index = tuple[IndexEntry, ...]

def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """NumPy's broadcasting of several shapes; Fault E0301 where they do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for axis, n in enumerate(shape, rank - len(shape)):
            if n != 1:
                if result[axis] not in (1, n):
                    listed = " and ".join(matrix(s) for s in shapes)
                    raise Fault("E0301", f"shapes {listed} do not broadcast together",
                                "axes are matched from the right; each pair must be equal or 1")
                result[axis] = n
    return tuple(result)

def same(types: Types, attributes: Attributes) -> TensorType:
    """All operands have one type, and so has the result."""
    _equal(types)
    return types[0]

def compare(types: Types, attributes: Attributes) -> TensorType:
    """Two operands of one type; the result is bool."""
    _equal(types)
    return types[0].with_dtype(bool_)

def choose(types: Types, attributes: Attributes) -> TensorType:
    """`where(condition, x, y)`: a bool of the shape of x and y."""
    condition, x, y = types
    if condition.dtype is not bool_:
        raise Fault("E0302", f"the condition of where has dtype {condition}, not bool",
                    "write a comparison, for example x != 0", 0)
    _equal((x, y))
    if condition.shape != x.shape:
        raise Fault("E0301", f"where: the condition has shape {matrix(condition.shape)}, "
                             f"its branches {matrix(x.shape)}")
    return x

def cast(types: Types, attributes: Attributes) -> TensorType:
    """`astype(x, dtype)`."""
    return types[0].with_dtype(attributes["dtype"])

def broadcast(types: Types, attributes: Attributes) -> TensorType:
    """`broadcast_to(x, shape)`: axes of length 1 are repeated, leading axes added."""
    shape: Shape = attributes["shape"]
    old = types[0].shape
    fits = len(old) <= len(shape) and all(
        a in (1, b) for a, b in zip(reversed(old), reversed(shape), strict=False))
    if not fits:
        raise Fault("E0301", f"shape {matrix(old)} does not broadcast to {matrix(shape)}",
                    "axes are matched from the right; each must be equal or 1", 0)
    return types[0].with_shape(shape)

def reshape(types: Types, attributes: Attributes) -> TensorType:
    """`reshape(x, shape)`: the same elements in row-major order."""
    result = types[0].with_shape(attributes["shape"])
    if result.size != types[0].size:
        raise Fault("E0303", f"{matrix(types[0].shape)} has {types[0].size} elements, "
                             f"{matrix(result.shape)} has {result.size}", "", 0)
    return result

def permute(types: Types, attributes: Attributes) -> TensorType:
    """`permute_dims(x, axes)`: axis i of the result is axis axes[i] of x."""
    axes: Shape = attributes["axes"]
    if sorted(axes) != list(range(types[0].rank)):
        raise Fault("E0304", f"axes {axes} are not a permutation of the {types[0].rank} axes of "
                             f"{matrix(types[0].shape)}", "", 0)
    return types[0].with_shape(tuple(types[0].shape[a] for a in axes))

def slice_length(entry: tuple[int, int, int]) -> int:
    """How many elements (start, stop, step) takes."""
    return len(range(*entry))

def canonical(index: Index) -> Index:
    """The index with every slice that takes nothing written one way, since its bounds may not read back as they are."""
    return tuple(e if isinstance(e, int) or range(*e) else (0, 0, 1) for e in index)

def forwards(index: Index) -> tuple[Index, Shape]:
    """The index with steps forward alone, and the axes of the result that are reversed."""
    found: list[IndexEntry] = []
    flipped: list[int] = []
    axis = 0
    for entry in index:
        if not isinstance(entry, int):
            taken = range(*entry)
            if entry[2] < 0:
                entry = (taken[-1], taken[0] + 1, -entry[2]) if taken else (0, 0, 1)
                if len(taken) > 1:
                    flipped.append(axis)
            axis += 1
        found.append(entry)
    return tuple(found), tuple(flipped)

def indexed(shape: Shape, index: Index) -> Shape:
    """The shape of `x[index]` for a full constant index; Fault where it leaves the array."""
    if len(index) != len(shape):
        raise Fault("E0305", f"{len(index)} indices for shape {matrix(shape)}")
    result = []
    for axis, (entry, n) in enumerate(zip(index, shape, strict=True)):
        if isinstance(entry, int):
            if not 0 <= entry < n:
                raise Fault("E0305", f"index {entry} is out of range for axis {axis} of length {n}")
        else:
            taken = range(*entry)
            if taken and not (0 <= taken[0] < n and 0 <= taken[-1] < n):
                raise Fault("E0305", f"slice {entry} is out of range for axis {axis} of length {n}")
            result.append(len(taken))
    return tuple(result)

def disjoint(at: Sequence[Index]) -> bool:
    """Do the indices surely not overlap? They part along one axis, in unit steps, and agree on every other."""
    if len(at) <= 1:
        return True
    for axis in range(len(at[0])):
        spans = []
        for index in at:
            entry = index[axis]
            spans.append((entry, entry + 1) if isinstance(entry, int) else entry[:2] if entry[2] == 1 else (0, 1 << 62))
        spans.sort()
        if all(a[1] <= b[0] for a, b in pairwise(spans)):
            return True
    return False

def take_slice(types: Types, attributes: Attributes) -> TensorType:
    """`x[1:, ::2, 0]` with constant bounds."""
    return types[0].with_shape(indexed(types[0].shape, attributes["index"]))

def reduce(types: Types, attributes: Attributes) -> TensorType:
    """A reduction over the axes `axis`, which disappear."""
    axes: Shape = attributes["axis"]
    x = types[0]
    _check_axes(axes, x)
    return x.with_shape(tuple(n for i, n in enumerate(x.shape) if i not in axes))

def extremum(types: Types, attributes: Attributes) -> TensorType:
    """`max` and `min`: a reduction that has no value for no element."""
    result = reduce(types, attributes)
    if types[0].size == 0 and result.size != 0:
        raise Fault("E0306", f"max or min over an empty axis of {matrix(types[0].shape)} has no value", "", 0)
    return result

def scan(types: Types, attributes: Attributes) -> TensorType:
    """`cumsum(x, axis)`: the shape stays."""
    _check_axes((attributes["axis"],), types[0])
    return types[0]

def matmul(types: Types, attributes: Attributes) -> TensorType:
    """`A @ B` for operands of equal rank, at least 2, with equal leading axes."""
    a, b = types
    _equal_dtypes(types)
    if a.rank < 2 or a.rank != b.rank or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        raise Fault("E0307", f"cannot multiply {matrix(a.shape)} @ {matrix(b.shape)}",
                    "the last axis of the left operand and the last but one of the right must be equal")
    return a.with_shape((*a.shape[:-1], b.shape[-1]))

def place(types: Types, attributes: Attributes) -> TensorType:
    """Zeros of `shape` with operand i added at the constant index at[i]: the transpose of slices."""
    shape: Shape = attributes["shape"]
    _equal_dtypes(types)
    if len(types) != len(attributes["at"]):
        raise Fault("E0308", f"place: {len(types)} operands but {len(attributes['at'])} indices in at=")
    for operand, (piece, index) in enumerate(zip(types, attributes["at"], strict=True)):
        if indexed(shape, index) != piece.shape:
            raise Fault("E0301", f"place: an operand of shape {matrix(piece.shape)} does not fit "
                                 f"{matrix(indexed(shape, index))}", "", operand)
    return types[0].with_shape(shape)

def gather(types: Types, attributes: Attributes) -> TensorType:
    """`x[i, j, ...]` with integer arrays of one shape for the leading axes of x."""
    x, *indices = types
    return x.with_shape((*_index_shape(x.shape, indices), *x.shape[len(indices):]))

def scatter_add(types: Types, attributes: Attributes) -> TensorType:
    """Zeros of `shape` with updates added at `[i, j, ...]`: the transpose of `gather`."""
    updates, *indices = types
    shape: Shape = attributes["shape"]
    if updates.shape != (*_index_shape(shape, indices), *shape[len(indices):]):
        raise Fault("E0301", f"scatter_add: updates of shape {matrix(updates.shape)} do not fit", "", 0)
    return updates.with_shape(shape)

def arange(types: Types, attributes: Attributes) -> TensorType:
    """`arange(start, stop, step, dtype)` with constant integer bounds."""
    count = len(range(attributes["start"], attributes["stop"], attributes["step"]))
    return TensorType(attributes["dtype"], (count,))

def _index_shape(shape: Shape, indices: Sequence[TensorType]) -> Shape:
    if not 1 <= len(indices) <= len(shape):
        raise Fault("E0305", f"{len(indices)} index arrays for shape {matrix(shape)}")
    for operand, index in enumerate(indices, 1):
        if index.dtype.kind != "int":
            raise Fault("E0302", f"an index has dtype {index.dtype}, not i32 or i64", "", operand)
        if index.shape != indices[0].shape:
            raise Fault("E0301", f"index arrays of shapes {matrix(indices[0].shape)} and "
                                 f"{matrix(index.shape)}", "", operand)
    return indices[0].shape

def _check_axes(axes: Shape, x: TensorType) -> None:
    for axis in axes:
        if not 0 <= axis < x.rank:
            raise Fault("E0304", f"axis {axis} of an array of {x.rank} axes, shape {matrix(x.shape)}")
    if len(set(axes)) != len(axes):
        raise Fault("E0304", f"axis given twice in {axes}")

def _equal_dtypes(types: Types) -> None:
    for operand, t in enumerate(types):
        if t.dtype is not types[0].dtype:
            raise Fault("E0302", f"dtypes {types[0].dtype} and {t.dtype} meet",
                        f"convert one of them, for example astype(x, {types[0].dtype})", operand)

def _equal(types: Types) -> None:
    _equal_dtypes(types)
    for operand, t in enumerate(types):
        if t.shape != types[0].shape:
            raise Fault("E0301", f"shapes {matrix(types[0].shape)} and {matrix(t.shape)} differ",
                        "", operand)


def region(types: Types, attributes: Attributes) -> TensorType:
    """The type of the first result of a region's body; its operands have the types of the body's inputs."""
    body = attributes["body"]
    for position, (given, wanted) in enumerate(zip(types, body.inputs, strict=True)):
        if given is not wanted.type:
            raise Fault("E0301", f"{body.name} takes {wanted.name}: {wanted.type}, not {given}", "", position)
    found: TensorType = body.outputs[0].type
    return found

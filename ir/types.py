"""Element types and tensor types: what a value is, and how many bytes it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy

Kind = Literal["float", "int", "bool"]


@dataclass(frozen=True, eq=False)
class DType:
    """One element type. There is a single instance of each, so identity is equality."""

    name: str
    bytes: int
    kind: Kind
    numpy_name: str

    @cached_property
    def numpy(self) -> numpy.dtype[Any]:
        """The NumPy dtype that stores it (bf16 comes from ml_dtypes). NumPy is imported here, not before."""
        import numpy

        if self.name == "bf16":
            import ml_dtypes

            found: numpy.dtype[Any] = numpy.dtype(ml_dtypes.bfloat16)
            return found
        return numpy.dtype(self.numpy_name)

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    def __getitem__(self, shape: int | tuple[int, ...]) -> TensorType:
        """`f32[3, 4]`, as signatures in .py files have it."""
        return TensorType(self, shape if isinstance(shape, tuple) else (shape,))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (dtype_named, (self.name,))


f16 = DType("f16", 2, "float", "float16")
bf16 = DType("bf16", 2, "float", "bfloat16")
f32 = DType("f32", 4, "float", "float32")
f64 = DType("f64", 8, "float", "float64")
i32 = DType("i32", 4, "int", "int32")
i64 = DType("i64", 8, "int", "int64")
bool_ = DType("bool", 1, "bool", "bool")

DTYPES: dict[str, DType] = {d.name: d for d in (f16, bf16, f32, f64, i32, i64, bool_)}


def dtype_named(name: str) -> DType:
    """The element type called `name`; KeyError if there is none."""
    return DTYPES[name]


Shape = tuple[int, ...]


class TensorType:
    """An element type and a shape; `()` is a scalar. Interned: equal types are one object."""

    __slots__ = ("dtype", "shape", "size")
    _interned: dict[tuple[DType, Shape], TensorType] = {}

    dtype: DType
    shape: Shape
    size: int

    def __new__(cls, dtype: DType, shape: Shape = ()) -> TensorType:
        known = cls._interned.get((dtype, shape))
        if known is not None:
            return known
        made = super().__new__(cls)
        made.dtype = dtype
        made.shape = shape
        made.size = math.prod(shape)
        cls._interned[dtype, shape] = made
        return made

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of its elements, without padding."""
        return self.size * self.dtype.bytes

    def with_shape(self, shape: Shape) -> TensorType:
        """The same element type in another shape."""
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape of another element type."""
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        if not self.shape:
            return self.dtype.name
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"

    __repr__ = __str__

    def __reduce__(self) -> tuple[Any, tuple[DType, Shape]]:
        return (TensorType, (self.dtype, self.shape))


def matrix(shape: Shape) -> str:
    """A shape as a person reads it in a message: `(3, 4)`, `()`."""
    return str(tuple(shape))

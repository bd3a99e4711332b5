"""What a caller may hand in for an input: an array of exactly its type, or Python numbers and lists, converted."""

from __future__ import annotations

from functools import cache
from typing import Any

from .ir.diagnostics import Diagnostic, Fault, SlpError
from .ir.graph import Value
from .ir.literals import rounded
from .ir.types import DType, matrix

_ACCEPTS = {"float": (int, float), "int": (int,), "bool": (bool,)}
_KINDS = {"float": "fiu", "int": "iu", "bool": "b"}
_WORDS = {"float": "numbers", "int": "integers", "bool": "True or False"}


def scalar(given: Any, value: Value) -> float | int | bool:
    """A Python number for a scalar input of a 64-bit or bool dtype, from a Python or NumPy number or a 0-d array."""
    if type(given) in (float, int, bool):
        return number(given, value)
    return convert(given, value, ()).item()  # type: ignore[no-any-return]


def number(given: float | int | bool, value: Value) -> float | int | bool:
    """A Python number as the input's dtype holds it; SlpError E0405 where the kinds differ or it overflows."""
    accepted = _ACCEPTS[value.dtype.kind]
    if not isinstance(given, accepted) or (isinstance(given, bool) and value.dtype.kind != "bool"):
        raise _error("E0405", value, f"is {value.type} and was given {given!r}",
                     f"give {_WORDS[value.dtype.kind]}")
    try:
        return rounded(given, value.dtype)
    except Fault as fault:
        raise _error("E0405", value, f"is {value.type}: {fault.message}", fault.hint) from None


def convert(given: Any, value: Value, shape: tuple[int, ...]) -> Any:
    """`given` as an array of the input's dtype and of `shape` (a NumPy scalar for shape ()).

    Arrays (of NumPy, or of what converts to one) keep their dtype and must have the input's; Python numbers and lists
    take it. SlpError E0404 for a wrong shape, E0405 for a wrong dtype.
    """
    dtype = value.dtype
    if shape and type(given) is _array() and given.dtype == dtype.numpy and given.shape == shape:
        return given
    import numpy

    if type(given) in (float, int, bool) and not shape:
        return dtype.numpy.type(number(given, value))
    loose = isinstance(given, bool | int | float | list | tuple | numpy.generic)
    try:
        array = numpy.asarray(given)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise _error("E0404", value, f"is {value.type} and was given something that is no array: {error}") from None
    if array.dtype != dtype.numpy:
        array = _cast(array, value, loose)
    if array.shape != shape:
        hint = _shape_hint(array.shape, shape) if shape == value.shape else \
            f"this is a batch of {shape[0]} points: give one value for all of them, or one for each"
        raise _error("E0404", value, f"has shape {matrix(shape)} and was given {matrix(array.shape)}", hint)
    return array if shape else array[()]


@cache
def _array() -> Any:
    """The class of NumPy's arrays: an import that was made before takes a third of a microsecond again."""
    import numpy

    return numpy.ndarray


def _cast(array: Any, value: Value, loose: bool) -> Any:
    dtype = value.dtype
    if loose and array.size == 0:
        return array.astype(dtype.numpy)
    kinds = _KINDS[dtype.kind]
    same_kind = array.dtype.kind in kinds or (dtype.is_float and _is_bf16(array))
    if not (loose and same_kind):
        hint = f"convert it: {value.name}.astype({_spelled(dtype)})" if array.dtype.kind in "fiubV" else ""
        raise _error("E0405", value, f"is {value.type} and was given {'numbers' if loose else 'an array'} "
                                     f"of dtype {array.dtype}", hint)
    import numpy

    with numpy.errstate(over="ignore"):
        cast = array.astype(dtype.numpy)
    if dtype.kind == "int" and (cast != array).any():
        raise _error("E0405", value, f"is {value.type}: an entry overflows {dtype}")
    return cast


def _is_bf16(array: Any) -> bool:
    return bool(array.dtype.name == "bfloat16")


def _spelled(dtype: DType) -> str:
    return "ml_dtypes.bfloat16" if dtype.name == "bf16" else f"numpy.{dtype.numpy_name}"


def _shape_hint(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    if not wanted:
        return "give a number"
    if given != wanted and given[::-1] == wanted:
        return "it is the transpose: give it as x.T"
    if tuple(n for n in given if n != 1) == tuple(n for n in wanted if n != 1):
        return f"give it as x.reshape{matrix(wanted)}"
    return "inputs are not broadcast"


def _error(code: str, value: Value, message: str, hint: str = "") -> SlpError:
    return SlpError(Diagnostic(code, f"the input {value.name} {message}", hint))

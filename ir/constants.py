"""Arithmetic on constants while a program is read: Python's own, bounded, so that no input can make it run away."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from .diagnostics import Fault

_WIDEST = 4096  # bits of an integer constant
_LONGEST = 10_000_000  # elements of a list

BINARY: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("add", operator.add), ast.Sub: ("subtract", operator.sub), ast.Mult: ("multiply", operator.mul),
    ast.Div: ("divide", operator.truediv), ast.FloorDiv: ("floor_divide", operator.floordiv),
    ast.Mod: ("mod", operator.mod), ast.Pow: ("pow", operator.pow),
    ast.BitAnd: ("logical_and", operator.and_), ast.BitOr: ("logical_or", operator.or_),
}
COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Lt: ("less", operator.lt), ast.LtE: ("less_equal", operator.le), ast.Gt: ("greater", operator.gt),
    ast.GtE: ("greater_equal", operator.ge), ast.Eq: ("equal", operator.eq), ast.NotEq: ("not_equal", operator.ne),
}


def arithmetic(name: str, function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """`a op b` for two Python numbers, with IEEE results where Python raises; Fault E0309 where it would be vast."""
    if isinstance(a, int) and isinstance(b, int):
        if name == "pow" and (b > _WIDEST or a.bit_length() * max(b, 0) > _WIDEST):
            raise Fault("E0309", "this integer constant is too large")
        if name == "multiply" and a.bit_length() + b.bit_length() > _WIDEST:
            raise Fault("E0309", "this integer constant is too large")
    try:
        result = function(a, b)
    except ZeroDivisionError:
        if name == "divide" or isinstance(a, float) or isinstance(b, float) or name == "pow":
            return _divided(name, float(a), float(b))
        raise Fault("E0309", f"{name.replace('_', ' ')} of a constant by zero") from None
    except OverflowError:
        if isinstance(a, int) and isinstance(b, int):
            raise Fault("E0309", "this integer constant is too large") from None
        return math.inf if a > 0 or b % 2 == 0 else -math.inf
    except TypeError:
        raise Fault("E0203", f"{name} of {type(a).__name__} and {type(b).__name__}") from None
    if isinstance(result, complex):
        return math.nan
    return result


def _divided(name: str, a: float, b: float) -> float:
    """What IEEE 754 says of a division by zero."""
    if name == "pow":
        return math.inf
    if name != "divide" or a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


_SPELLED: dict[str, Callable[[Any], Any]] = {"abs": abs, "negative": operator.neg}
_INFIX = dict([*BINARY.values(), *COMPARE.values()])


def elementwise(name: str, operands: tuple[Any, ...]) -> Any:
    """An elementwise operation of Python numbers, by NumPy in float64; None where NumPy has no such function."""
    import numpy

    if name in _SPELLED:
        return _SPELLED[name](*operands)
    if name in _INFIX:
        return arithmetic(name, _INFIX[name], *operands)
    if any(isinstance(x, int) and x.bit_length() > 63 for x in operands):
        raise Fault("E0309", "this integer constant is too large")
    if name in ("erf", "erfc"):
        return float(getattr(math, name)(operands[0]))
    function = getattr(numpy, name, None)
    if function is None or name == "lgamma":
        return None
    with numpy.errstate(all="ignore"):
        return function(*operands).item()


def repeated(items: list[Any] | tuple[Any, ...], times: int) -> list[Any] | tuple[Any, ...]:
    """`items * times`, bounded."""
    _check_length(len(items) * max(times, 0))
    return items * times if items else items


def joined(left: Any, right: Any) -> Any:
    """`left + right` for two lists or two tuples, bounded."""
    _check_length(len(left) + len(right))
    return left + right


def _check_length(count: int) -> None:
    if count > _LONGEST:
        raise Fault("E0119", f"a list of {count} elements is too long")


def length(steps: range) -> int:
    """How many steps a range has; `len` is only for what an array could hold."""
    return max(0, -((steps.start - steps.stop) // steps.step))

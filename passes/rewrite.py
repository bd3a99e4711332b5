"""Exact local rewrites: one row each, with the reason why it changes no bit of any result.

What is not exact in floating point is no rule: 0 * x is not 0 (x may be inf), x - x is not 0, x + 0 is not x (x may
be -0.0), a sum is never reassociated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..ir import literals
from ..ir.arrays import Arrays
from ..ir.graph import EMPTY, Constant, Value
from ..ir.literals import Number
from ..ir.ops import OPS, Operation
from ..ir.shapes import Index, IndexEntry, canonical

Rewrite = Callable[[Arrays, tuple[Value, ...], Mapping[str, Any]], Value | None]


@dataclass(frozen=True)
class Rule:
    """One rewrite of an operation: `apply` gives the value that stands for it, or None."""

    op: str
    name: str
    reason: str
    apply: Rewrite


RULES: dict[str, list[Rule]] = {}


def _rule(op: str, name: str, reason: str) -> Callable[[Rewrite], Rewrite]:
    def add(function: Rewrite) -> Rewrite:
        for each in op.split():
            RULES.setdefault(each, []).append(Rule(each, name, reason, function))
        return function

    return add


class Folding(Arrays):
    """Arrays that apply the rules to each operation as it is emitted."""

    def emit(self, op: Operation, operands: Sequence[Value], attributes: Mapping[str, Any] = EMPTY) -> Value:
        given = tuple(operands)
        if op.elementwise:
            if all(isinstance(v, Constant) for v in given):
                folded = fold(self, op, given, attributes)
                if folded is not None:
                    return folded
            elif any(_repeated(v) is not None for v in given):
                return self._unrepeated(op, given, attributes)
        for rule in RULES.get(op.name, ()):
            found = rule.apply(self, given, attributes)
            if found is not None:
                return found
        return super().emit(op, given, attributes)

    def _unrepeated(self, op: Operation, operands: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value:
        """A constant repeated to a shape is that constant; of such alone, the result is repeated."""
        shape = next(v.shape for v in operands if not isinstance(v, Constant))
        plain = [_repeated(v) or v for v in operands]
        result = self.emit(op, plain, attributes)
        return self.broadcast_to(result, shape) if isinstance(result, Constant) or result.shape != shape else result


def _repeated(value: Value) -> Constant | None:
    """The constant that `value` repeats to a shape, if it does."""
    node = value.node
    if node is not None and node.op.name == "broadcast_to" and isinstance(node.operands[0], Constant):
        return node.operands[0]
    return None


def fold(arrays: Arrays, op: Operation, operands: Sequence[Value], attributes: Mapping[str, Any]) -> Constant | None:
    """An elementwise operation of constants, in the dtype's own arithmetic; None where NumPy has no such function."""
    import numpy

    numbers = [v.dtype.numpy.type(v.number) for v in operands if isinstance(v, Constant)]
    result = op.infer([v.type for v in operands], attributes)
    if op.name == "astype":
        cast = literals.cast(numbers[0].item(), result.dtype)
        return None if cast is None else arrays.constant(cast, result.dtype)
    if op.name == "where":
        return operands[1] if numbers[0] else operands[2]  # type: ignore[return-value]
    function = getattr(numpy, op.name, None)
    refused = result.dtype.kind == "int" and op.name in ("floor_divide", "mod", "pow") and numbers[1] <= 0
    if function is None or refused:
        return None
    with numpy.errstate(all="ignore"):
        found: Any = function(*numbers)
    number: Number = numpy.asarray(found).astype(result.dtype.numpy).item()
    return arrays.constant(number, result.dtype)


def _is(value: Value, number: float) -> bool:
    """Is it this very constant, to the bit?"""
    return isinstance(value, Constant) and literals.bits(float(value.number)) == literals.bits(float(number))


def _made_by(value: Value, op: str) -> tuple[Value, ...] | None:
    """The operands, if the value is made by that operation."""
    return value.node.operands if value.node is not None and value.node.op.name == op else None


# Arithmetic ------------------------------------------------------------------------------------------------------

@_rule("multiply", "x * 1 is x", "multiplication by one is exact, of NaN and infinities too")
def _times_one(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    return v[1] if _is(v[0], 1) else v[0] if _is(v[1], 1) else None


@_rule("multiply", "x * -1 is -x", "a product with minus one flips the sign alone")
def _times_minus_one(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    other = v[1] if _is(v[0], -1) else v[0] if _is(v[1], -1) else None
    return None if other is None else arrays.emit(OPS["negative"], (other,))


@_rule("divide pow", "x / 1 and x ** 1 are x", "both are exact")
def _over_one(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    return v[0] if _is(v[1], 1) else None


@_rule("pow", "x ** 2 is x * x", "the product is the correctly rounded square")
def _squared(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    return arrays.emit(OPS["multiply"], (v[0], v[0])) if _is(v[1], 2) else None


@_rule("pow", "x ** 0 is 1", "IEEE 754 and C have pow(x, 0) = 1 for every x, NaN too")
def _to_nothing(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    if not isinstance(v[1], Constant) or v[1].number != 0:
        return None
    one = arrays.constant(1, v[0].dtype)
    return arrays.broadcast_to(one, v[0].shape) if v[0].shape else one


@_rule("subtract", "x - 0 is x", "also for -0.0; but x + 0 is not")
def _less_nothing(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    return v[0] if _is(v[1], 0.0) else None


@_rule("add", "x + -0.0 is x", "minus zero is the identity of IEEE addition")
def _plus_minus_zero(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    if not v[0].dtype.is_float:
        return v[1] if _is(v[0], 0) else v[0] if _is(v[1], 0) else None
    return v[1] if _is(v[0], -0.0) else v[0] if _is(v[1], -0.0) else None


@_rule("add", "x + (-y) is x - y", "subtraction is defined so")
def _plus_negative(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    right, left = _made_by(v[1], "negative"), _made_by(v[0], "negative")
    if right is not None:
        return arrays.emit(OPS["subtract"], (v[0], right[0]))
    return arrays.emit(OPS["subtract"], (v[1], left[0])) if left is not None else None


@_rule("subtract", "x - (-y) is x + y", "subtraction is defined so")
def _less_negative(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    right = _made_by(v[1], "negative")
    return arrays.emit(OPS["add"], (v[0], right[0])) if right is not None else None


@_rule("negative logical_not", "an involution twice is nothing", "both flip one bit")
def _twice(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    name = "logical_not" if v[0].dtype.kind == "bool" else "negative"
    inner = _made_by(v[0], name)
    return inner[0] if inner is not None else None


# Logic -----------------------------------------------------------------------------------------------------------

@_rule("logical_and logical_or", "a & True, a | False, a & a are a", "Boolean algebra")
def _boolean(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    return v[0] if v[0] is v[1] else None


@_rule("where", "where(c, x, x) is x, a constant condition chooses", "either way the same elements")
def _same_branches(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    if isinstance(v[0], Constant):
        taken, other = (v[1], v[2]) if v[0].number else (v[2], v[1])
        return taken if not isinstance(taken, Constant) else (
            arrays.broadcast_to(taken, other.shape) if other.shape else taken)
    return v[1] if v[1] is v[2] and not isinstance(v[1], Constant) else None


@_rule("where", "where(~c, x, y) is where(c, y, x)", "the same elements are taken")
def _negated(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    inner = _made_by(v[0], "logical_not")
    return arrays.emit(OPS["where"], (inner[0], v[2], v[1])) if inner is not None else None


# Views -----------------------------------------------------------------------------------------------------------

@_rule("broadcast_to", "what has the shape already is not repeated", "elements are not touched")
def _repeated_already(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    if v[0].shape == attributes["shape"] and not isinstance(v[0], Constant):
        return v[0]
    inner = _made_by(v[0], "broadcast_to")
    return arrays.broadcast_to(inner[0], attributes["shape"]) if inner is not None else None


@_rule("reshape", "reshaped twice is reshaped once", "elements are not touched")
def _reshaped_twice(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    if v[0].shape == attributes["shape"] and not isinstance(v[0], Constant):
        return v[0]
    inner = _made_by(v[0], "reshape")
    if inner is not None:
        return arrays.reshape(inner[0], attributes["shape"])
    constant = _repeated(v[0])
    if constant is None:
        return None
    return arrays.broadcast_to(constant, attributes["shape"]) if attributes["shape"] else constant


@_rule("permute_dims", "axes permuted twice are permuted once", "elements are not touched")
def _permuted_twice(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    axes = attributes["axes"]
    if axes == tuple(range(len(axes))):
        return v[0]
    inner = _made_by(v[0], "permute_dims")
    if inner is None or v[0].node is None:
        return None
    first = v[0].node.attributes["axes"]
    return arrays.permute(inner[0], tuple(first[a] for a in axes))


@_rule("slice", "a slice of a slice is one slice", "elements are not touched")
def _sliced_twice(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    inner = _made_by(v[0], "slice")
    if inner is None or v[0].node is None:
        return None
    outer = iter(attributes["index"])
    index: list[IndexEntry] = []
    for entry in v[0].node.attributes["index"]:
        if isinstance(entry, int):
            index.append(entry)
            continue
        taken = range(*entry)
        wanted = next(outer)
        found = taken[wanted] if isinstance(wanted, int) else taken[
            slice(wanted[0], None if wanted[1] < 0 else wanted[1], wanted[2])]
        index.append(found if isinstance(found, int) else (found.start, found.stop, found.step))
    return arrays.slice(inner[0], _normal(tuple(index), inner[0].shape))


def _normal(index: Index, shape: tuple[int, ...]) -> Index:
    """Bounds as the reader writes them."""
    return tuple(e if isinstance(e, int) else slice(e[0], None if e[1] < 0 else e[1], e[2]).indices(n)
                 for e, n in zip(canonical(index), shape, strict=True))


@_rule("slice", "a slice of a repeated constant is the constant, repeated", "every element is the same")
def _slice_of_constant(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    constant = _repeated(v[0])
    if constant is None:
        return None
    shape = OPS["slice"].infer([v[0].type], attributes).shape
    return arrays.broadcast_to(constant, shape) if shape else constant


@_rule("astype", "a cast to the dtype it has is nothing", "no bit changes")
def _cast_to_same(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    return v[0] if v[0].dtype is attributes["dtype"] else None


@_rule("stop_gradient", "a constant has no gradient to stop", "nothing changes")
def _stopped_twice(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    return v[0] if isinstance(v[0], Constant) or _made_by(v[0], "stop_gradient") is not None else None


# Reductions, data movement ---------------------------------------------------------------------------------------

@_rule("sum max min", "a reduction over axes of length 1 is a reshape", "there is one element to reduce")
def _nothing_to_reduce(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    axes = attributes["axis"]
    if any(v[0].shape[a] != 1 for a in axes):
        return None
    return arrays.reshape(v[0], tuple(n for i, n in enumerate(v[0].shape) if i not in axes))


@_rule("place", "one operand that fills the whole is the operand", "no zero is left")
def _fills(arrays: Arrays, v: tuple[Value, ...], attributes: Mapping[str, Any]) -> Value | None:
    whole = tuple((0, n, 1) for n in attributes["shape"])
    return v[0] if len(v) == 1 and attributes["at"] == (whole,) else None

"""Derivatives that live under a condition, so that a branch not taken never poisons.

The cotangent of `x` in `where(c, log(x), 0)` is `g / x` where c holds and zero elsewhere, whatever `g / x` may be
there: 0 * inf is NaN, so multiplying by a zero cotangent is not enough, and testing `g == 0` is wrong to second
order. So the condition travels with the derivative. A `Masked` stands for `where(mask, value, 0)`; the selection is
emitted where it is first needed: where derivatives of different masks meet (their masks are joined by "or"), before
an operation that mixes elements, and at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..ir.arrays import Arrays
from ..ir.graph import Constant, Value
from ..ir.types import Shape, i32


@dataclass(frozen=True, eq=False)
class Mask:
    """A condition that is emitted when it is needed. Made by `Masks` alone, which has one object for equal masks."""

    emit: Callable[[], Value]
    condition: Value | None = None
    holds: bool = True
    """A mask of one condition says which, and whether it must hold or fail."""


class Masked(NamedTuple):
    """`where(mask, value, 0)`; no mask: `value`. `clean`: the value is zero outside the mask already."""

    value: Value
    mask: Mask | None = None
    clean: bool = False

    @property
    def whole(self) -> bool:
        """Is the value the derivative as it stands?"""
        return self.mask is None or self.clean


class Masks:
    """Masks and selections over one set of arrays, each made once."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self._masks: dict[tuple[object, ...], Mask] = {}
        self._values: dict[Mask, Value] = {}
        self._selected: dict[tuple[int, Mask], Value] = {}
        self._kept: list[Value] = []  # what the keys' identities belong to

    def _made(self, key: tuple[object, ...], emit: Callable[[], Value], condition: Value | None = None,
              holds: bool = True) -> Mask:
        found = self._masks.get(key)
        if found is None:
            found = self._masks[key] = Mask(emit, condition, holds)
        return found

    def where(self, condition: Value, holds: bool) -> Mask:
        """Where the condition holds, or fails."""
        self._kept.append(condition)
        return self._made(("is", id(condition), holds), lambda: condition if holds else
                          self.arrays.elementwise("logical_not", condition), condition, holds)

    def both(self, a: Mask | None, b: Mask | None) -> Mask | None:
        """Where both hold."""
        if a is None or b is None or a is b:
            return b if a is None else a
        return self._made(("and", id(a), id(b)), lambda: self.arrays.elementwise(
            "logical_and", self.value(a), self.value(b)))

    def either(self, a: Mask | None, b: Mask | None) -> Mask | None:
        """Where one holds; None, for everywhere, if one is everywhere or they are opposites."""
        if a is None or b is None or (a.condition is not None and a.condition is b.condition and a.holds != b.holds):
            return None
        if a is b:
            return a
        return self._made(("or", id(a), id(b)), lambda: self.arrays.elementwise(
            "logical_or", self.value(a), self.value(b)))

    def through(self, mask: Mask | None, key: tuple[object, ...], view: Callable[[Value], Value]) -> Mask | None:
        """The mask seen through a view of the value; `key` tells views apart."""
        return None if mask is None else self._made((id(mask), *key), lambda: view(self.value(mask)))

    def counted(self, masks: Sequence[tuple[Mask | None, Shape]], key: tuple[object, ...],
                join: Callable[[list[Value]], Value]) -> Mask | None:
        """Where something lives that is added up from parts, each with its mask and shape: where a count of the live
        elements, joined as the parts are, is not zero."""
        if all(mask is None for mask, _ in masks):
            return None

        def emit() -> Value:
            ones = [self.arrays.full(shape, 1, i32) if mask is None else self.arrays.astype(self.value(mask), i32)
                    for mask, shape in masks]
            return self.arrays.elementwise("greater", join(ones), 0)

        return self._made(("count", *(id(mask) for mask, _ in masks), *key), emit)

    def value(self, mask: Mask) -> Value:
        """The mask as a bool value, emitted once."""
        found = self._values.get(mask)
        if found is None:
            found = self._values[mask] = mask.emit()
        return found

    def select(self, masked: Masked) -> Value:
        """The derivative itself: zero outside its mask. Emitted once for the same value and mask."""
        if masked.mask is None or masked.clean:
            return masked.value
        key = (id(masked.value), masked.mask)
        found = self._selected.get(key)
        if found is None:
            mask = masked.mask
            if mask.condition is not None and not mask.holds:
                found = self.arrays.elementwise("where", mask.condition, 0.0, masked.value)
            else:
                found = self.arrays.elementwise("where", self.value(mask), masked.value, 0.0)
            self._kept.append(masked.value)
            self._selected[key] = found
        return found

    def add(self, a: Masked, b: Masked) -> Masked:
        """The sum of two derivatives of one value."""
        if a.mask is b.mask:
            return Masked(self._sum(a.value, b.value), a.mask, a.clean and b.clean)
        m, n = a.mask, b.mask
        if m is not None and n is not None and m.condition is not None and m.condition is n.condition:
            first, second = (a, b) if m.holds else (b, a)
            return Masked(self.arrays.elementwise("where", m.condition, first.value, second.value))
        return Masked(self._sum(self.select(a), self.select(b)), self.either(m, n), True)

    def _sum(self, a: Value, b: Value) -> Value:
        return self.arrays.elementwise("add", a, b)

    def narrowed(self, mask: Mask | None, condition: Value | None, holds: bool) -> tuple[Mask | None, bool]:
        """The mask within a condition, and whether anything is left of it (a constant condition may leave nothing)."""
        if condition is None:
            return mask, True
        if isinstance(condition, Constant):
            return mask, bool(condition.number) == holds
        return self.both(mask, self.where(condition, holds)), True

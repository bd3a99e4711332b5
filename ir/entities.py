"""What a name can stand for while a program is read: values of the graph, and things that are gone afterwards."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .graph import Value
from .literals import short
from .types import DType, TensorType

if TYPE_CHECKING:
    from .source import Compound, Source


@dataclass(eq=False)
class Helper:
    """A `def` that is inlined where it is called."""

    name: str
    definition: ast.FunctionDef
    compound: Compound
    source: Source
    base: int
    library: bool = False
    """From the prelude: faults inside are reported at the call."""


@dataclass(frozen=True)
class Function:
    """A function of the language. `build(reader, *arguments, **keywords)` returns what the call stands for."""

    name: str
    build: Callable[..., Any]


@dataclass(frozen=True)
class IndexMaker:
    """`s_`: a constant index as a thing of its own, `s_[1:, ::2]` (NumPy's `np.s_`)."""


@dataclass(frozen=True)
class Outside:
    """What a name of the Python module around a program stands for, where it is nothing of the language."""

    type: str


class Poison:
    """What a name stands for after its statement failed, so that one fault is reported once."""


POISON = Poison()


class Poisoned(Exception):
    """A failed name was used: the fault has been reported already."""


def describe(entity: object) -> str:
    """An entity as a message names it."""
    if isinstance(entity, Value):
        return f"a value of type {entity.type}"
    if isinstance(entity, Helper | Function):
        return f"the function {entity.name}"
    if isinstance(entity, DType):
        return f"the dtype {entity}"
    if isinstance(entity, TensorType):
        return f"the type {entity}"
    if entity is None or entity is Ellipsis:
        return "None" if entity is None else "..."
    if isinstance(entity, IndexMaker):
        return "s_"
    if isinstance(entity, Outside):
        return f"an object of Python's ({entity.type})"
    if isinstance(entity, bool | int | float):
        return f"the constant {short(entity)}"
    names = {str: "a string", tuple: "a tuple", list: "a list", range: "a range", slice: "a slice"}
    return names.get(type(entity), f"a {type(entity).__name__}")

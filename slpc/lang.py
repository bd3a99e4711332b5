"""The names of the language, for editors: `from slpc.lang import *`, in a .slp file and in a .py file alike.

Reading a program ignores the line. In a .py file it gives the names that signatures and decorators need when Python
runs them: `f32[3, 4]`, `normal(0, 1)`, `scheduled`. A body under `@slpc.program` is read, never executed, so its
functions need no meaning here; one that is called outside of a program says so. Names that Python has itself (sum, max,
range, bool, ...) are left to Python. What editors show about each name stands in lang.pyi.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any, TypeVar

from .ir.functions import FUNCTIONS
from .ir.graph import DISTRIBUTIONS, Distribution
from .ir.parse import prelude
from .ir.types import DTYPES

_Function = TypeVar("_Function", bound=Callable[..., Any])


def scheduled(function: _Function) -> _Function:
    """Its order and its repeats are deliberate: no pass changes them."""
    return function


def donated(**outputs: str) -> Callable[[_Function], _Function]:
    """These outputs are written over the memory of these inputs."""
    return lambda function: function


def tile(**sizes: int) -> Callable[[_Function], _Function]:
    """It runs by blocks of its rows."""
    return lambda function: function


class _Index:
    """`s_[1:, ::2]`: a constant index as a thing of its own."""

    def __getitem__(self, index: Any) -> Any:
        return index


def _word(name: str) -> Callable[..., Any]:
    """A function of the language, outside of a program."""
    def call(*args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{name} is a function of the slpc language: call it in a .slp file or under @slpc.program, "
                        "whose text is read and never executed")

    call.__name__ = call.__qualname__ = name
    return call


def _distribution(name: str) -> Callable[[Any, Any], Distribution]:
    def sample(first: Any, second: Any) -> Distribution:
        return Distribution(name, (first, second))

    sample.__name__ = sample.__qualname__ = name
    return sample


NAMES: dict[str, Any] = {
    **{name: _word(name) for name in (*FUNCTIONS, *prelude())}, **DTYPES,
    **{name: _distribution(name) for name in DISTRIBUTIONS},
    "pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan,
    "s_": _Index(), "scheduled": scheduled, "donated": donated, "tile": tile,
}
"""What the star import gives, but for what Python has itself."""

for _name in [name for name in NAMES if hasattr(builtins, name)]:
    del NAMES[_name]
globals().update(NAMES)
__all__ = sorted(NAMES)

"""Tables with a row for each operation: how a function enters one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .ops import OPS

Row = TypeVar("Row", bound=Callable[..., Any])


def rows(table: dict[str, Row]) -> Callable[[str], Callable[[Row], Row]]:
    """A decorator for the functions of a table: `@row("sin cos")` enters one for both operations, each of them once."""

    def row(names: str) -> Callable[[Row], Row]:
        def add(function: Row) -> Row:
            for name in names.split():
                assert name in OPS and name not in table, name
                table[name] = function
            return function

        return add

    return row

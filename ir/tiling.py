"""A call of a helper under `@tile`: its body is read as a graph of its own, and the call becomes a region."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .arrays import Arrays
from .diagnostics import Fault, near
from .entities import Helper, describe
from .graph import Builder, Constant, Value
from .types import TensorType

if TYPE_CHECKING:
    from .statements import Statements


def tile(helper: Helper) -> ast.expr | None:
    """The `@tile` above the helper's def; None where there is none."""
    for decorator, _ in helper.compound.decorators:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if isinstance(called, ast.Name) and called.id == "tile":
            return decorator
    return None


def region(reader: Statements, helper: Helper, arguments: Sequence[Any], keywords: dict[str, Any], node: ast.Call,
           decorator: ast.expr) -> Any:
    """What the call stands for: the results of the region. Values among the arguments are its operands; numbers, shapes
    and other constants are settled while the body is read. A region without rows, or inside another, is inlined."""
    rows = _rows(reader, helper, decorator)
    outer, arrays, stem = reader.builder, reader.arrays, reader.stem
    inner = reader.builder = Builder(helper.name, outer.file, reader.reserved)
    reader.arrays = Arrays(inner)
    operands: list[Value] = []
    made: dict[int, Value] = {}

    def parameter(name: str, given: Any) -> Any:
        if not isinstance(given, Value) or isinstance(given, Constant):
            return given
        if id(given) not in made:
            made[id(given)] = inner.input(name, given.type, span=given.span)
            operands.append(given)
        return made[id(given)]

    names = [p.arg for p in (*helper.definition.args.posonlyargs, *helper.definition.args.args)]
    try:
        inside = [parameter(name, given) for name, given in zip(names, arguments)]
        inside += arguments[len(names):]
        named = {name: parameter(name, given) for name, given in keywords.items()}
        reader.region, reader.stem = True, ""
        found = reader.inline(helper, inside, named, node)
    finally:
        reader.region, reader.stem = False, stem
        reader.builder, reader.arrays = outer, arrays
    several = isinstance(found, tuple | list)
    outputs: list[Any] = list(found) if several else [found]
    for each in outputs:
        if not isinstance(each, Value):
            raise Fault("E0203", f"a helper under @tile returns values, not {describe(each)}")
    for position, value in enumerate(outputs):
        if not value.name and not isinstance(value, Constant):
            inner.name_value(value, f"{helper.name}_{position}" if several else helper.name + "_out")
    body = inner.finish(outputs)
    results = outer.region(body.tiled(rows), operands, span=reader.arrays.span)
    return results if several else results[0]


def check_parameters(reader: Statements, helper: Helper, scope: dict[str, Any]) -> None:
    """Report an argument of a region that is not of the type that the def says."""
    spec = helper.definition.args
    for parameter in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs):
        given = scope.get(parameter.arg)
        if parameter.annotation is None or not isinstance(given, Value):
            continue
        declared = reader.type(parameter.annotation)
        if isinstance(declared, TensorType) and declared is not given.type and not isinstance(given, Constant):
            raise Fault("E0301", f"{helper.name} takes {parameter.arg}: {declared}, not {given.type}")


def _rows(reader: Statements, helper: Helper, decorator: ast.expr) -> tuple[int, ...]:
    """The rows of a block, as the decorator says: a number, or one for each of several axes."""
    if not isinstance(decorator, ast.Call):
        return ()
    found: Any = ()
    for keyword in decorator.keywords:
        if keyword.arg != "rows":
            raise Fault("E0202", f"tile has no argument '{keyword.arg}'",
                        near(keyword.arg or "", ("rows",)) or "write @tile(rows=64)")
        found = reader.constant(keyword.value)
    if decorator.args:
        raise Fault("E0202", "tile takes its argument by name", "write @tile(rows=64)")
    rows = tuple(found) if isinstance(found, tuple | list) else (found,)
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in rows):
        raise Fault("E0203", f"the rows of a block are positive integers, not {describe(found)}",
                    "write @tile(rows=64)")
    return rows

"""Text in, graph out. The text is parsed and elaborated; it is never executed."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

from .diagnostics import Diagnostic, SlpError, Span, near
from .entities import POISON, Helper
from .graph import Builder, Graph
from .source import Chunk, Compound, Item, Source
from .statements import RESERVED, Returned, Statements, TooManyErrors
from .types import DTYPES

ConstantValue = bool | int | float | str


def parse(text: str, file: str = "", program: str | None = None, first_line: int = 1,
          **constants: ConstantValue) -> Graph:
    """The program of a .slp text as a graph.

    `program` picks a `def` by name (the last one unless given); `constants` override module-level constants (a string
    names a dtype). `file` and `first_line` say where the text stands, for messages. Raises SlpError with one
    diagnostic for each independent fault.
    """
    source = Source(text, file, first_line)
    items, faults = source.blocks()
    errors: list[Diagnostic] = list(faults)
    reader = Statements(Builder("", file, RESERVED), source, prelude())
    reader.errors = errors
    try:
        _module(reader, items, constants)
        helpers = [h for h in reader.globals.values() if isinstance(h, Helper)]
        chosen = _chosen(source, helpers, program, errors)
        graph = _elaborate(reader, chosen) if chosen is not None else None
    except TooManyErrors:
        graph = None
    if errors:
        raise SlpError(sorted(errors, key=lambda e: (e.span or Span(0, 0, 0)) if e.file == file else Span(0, 0, 0)))
    assert graph is not None
    return graph


def _module(reader: Statements, items: list[Item], constants: dict[str, ConstantValue]) -> None:
    """Module-level statements: constants, with what overrides them, and the defs."""
    source = reader.source
    scope = reader.scope = reader.globals
    used: set[str] = set()
    reader.block = items
    for item in items:
        if isinstance(item, Compound) and item.keyword == "def":
            assert isinstance(item.header, ast.FunctionDef)
            name = item.header.name
            if name in RESERVED:
                reader.report(source.error("E0112", f"'{name}' is a name of the language and cannot be defined",
                                           Span(item.line + source.first_line, 0, len(source.lines[item.line]))))
            scope.pop(name, None)
            scope[name] = Helper(name, item.header, item, source, item.base)
            continue
        if isinstance(item, Compound):
            reader.run([item]) if item.keyword not in ("elif", "else") else None
            continue
        _constants(reader, item, constants, used)
    unknown = [name for name in constants if name not in used]
    for name in unknown:
        known = [k for k, v in scope.items() if not isinstance(v, Helper)]
        reader.errors.append(source.diagnostic(
            "E0206", f"the program has no constant '{name}' to set", None,
            near(name, known) or f"its constants are {', '.join(known) or 'none'}"))


def _constants(reader: Statements, chunk: Chunk, constants: dict[str, ConstantValue], used: set[str]) -> None:
    statements, faults = reader.source.parse_chunk(chunk)
    chunk.parsed = statements
    if faults:
        reader.report(SlpError(faults))
    for statement in statements:
        reader.base = chunk.base
        if isinstance(statement, ast.Return):
            reader.report(reader.source.error("E0101", "'return' outside a def",
                                              reader.source.characters(reader.span(statement))))
            continue
        reader._guarded(None, statement)
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in constants:
                reader.globals[node.id] = _given(constants[node.id])
                used.add(node.id)


def _given(value: ConstantValue) -> Any:
    """A constant from outside: a string names a dtype, or is a number."""
    if not isinstance(value, str):
        return value
    if value in DTYPES:
        return DTYPES[value]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    raise SlpError(Diagnostic("E0409", f"'{value}' is neither a number nor a dtype", near(value, DTYPES)))


def _chosen(source: Source, helpers: list[Helper], program: str | None, errors: list[Diagnostic]) -> Helper | None:
    if program is not None:
        for helper in helpers:
            if helper.name == program:
                return helper
        names = [h.name for h in helpers]
        errors.append(source.diagnostic("E0113", f"there is no def '{program}'", None,
                                        near(program, names) or f"the defs are {', '.join(names) or 'none'}"))
        return None
    if helpers:
        return helpers[-1]
    if not errors:
        errors.append(source.diagnostic("E0113", "there is no program: no def", None,
                                        "write def f(x: f64): and return a value"))
    return None


def _elaborate(reader: Statements, program: Helper) -> Graph | None:
    builder, source = reader.builder, reader.source
    builder.name = program.name
    reader.scope = {}
    reader.program = program
    reader.base = program.base
    span = source.characters(reader.span(program.definition))
    builder.scheduled = any(isinstance(d, ast.Name) and d.id == "scheduled" for d, _ in program.compound.decorators)
    reader.inputs(program)
    outputs, names, ended = None, [], False
    try:
        reader._body(program.compound, program.definition.body)
    except Returned as returned:
        ended = True
        try:
            outputs, names = reader.returned(returned.found, returned.names, returned.node)
        except SlpError as error:
            reader.report(error)
    except SlpError as error:
        reader.report(error)
    if not ended and not reader.errors:
        reader.report(source.error("E0113", f"'{program.name}' returns nothing", span,
                                   "end it with return and the names of its outputs"))
    if outputs is None or reader.errors or POISON in reader.scope.values():
        return None
    return builder.finish(outputs, names)


@cache
def prelude() -> dict[str, Helper]:
    """The functions that are .slp text themselves (prelude.slp)."""
    path = Path(__file__).with_name("prelude.slp")
    source = Source(path.read_text(encoding="utf-8"), "prelude.slp")
    items, faults = source.blocks()
    assert not faults, faults
    helpers = {}
    for item in items:
        if isinstance(item, Compound) and isinstance(item.header, ast.FunctionDef):
            name = item.header.name
            helpers[name] = Helper(name, item.header, item, source, item.base, library=True)
    return helpers

"""Text in, graph out. The text is parsed and elaborated; it is never executed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from itertools import takewhile
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeAlias

from . import donation
from .collectives import unawaited
from .diagnostics import Diagnostic, Fault, SlpError, Span, near
from .entities import POISON, Helper
from .graph import Builder, Graph, Value
from .interface import Interface
from .source import Chunk, Compound, Item, Source
from .statements import RESERVED, Returned, Statements, TooManyErrors
from .types import DTYPES, DType

ConstantValue: TypeAlias = bool | int | float | str | DType
DECORATORS = ("scheduled", "donated", "tile")


def parse(text: str, file: str = "", program: str | None = None, /, **constants: ConstantValue) -> Graph:
    """The program of a .slp text as a graph.

    `program` picks a `def` by name (the last one unless given); `constants` override module-level constants (a string
    names a dtype). `file` is the text's name in messages. Raises SlpError with one diagnostic for each independent
    fault.
    """
    source = Source(text, file)
    items, faults = source.blocks()
    reader = Interface(Builder("", file, RESERVED), source, prelude())
    reader.errors = faults
    reader.overrides = {name: constant(name, value) for name, value in constants.items()}

    def chosen() -> Helper | None:
        _module(reader, items)
        helpers = [h for h in reader.globals.values() if isinstance(h, Helper)]
        return _chosen(source, helpers, program, reader.errors)

    return _read(reader, chosen)


def elaborate(program: Helper, names: Mapping[str, Any]) -> Graph:
    """The program of a single `def` as a graph; `names` has the numbers, dtypes and helpers that it may use.

    Raises SlpError as `parse` does.
    """
    reader = Interface(Builder("", program.source.file, RESERVED), program.source, prelude())
    reader.globals.update(names)
    return _read(reader, lambda: program)


def _read(reader: Interface, choose: Callable[[], Helper | None]) -> Graph:
    """The graph of the def that `choose` finds; SlpError with all that was found wrong, in the order of the text."""
    graph = None
    with suppress(TooManyErrors):
        chosen = choose()
        graph = None if chosen is None else _elaborate(reader, chosen)
    if reader.errors:
        file = reader.source.file
        raise SlpError(sorted(reader.errors,
                              key=lambda e: (e.span or Span(0, 0, 0)) if e.file == file else Span(0, 0, 0)))
    assert graph is not None
    return graph


def _module(reader: Statements, items: list[Item]) -> None:
    """Module-level statements: constants, or what overrides them, and the defs."""
    source = reader.source
    scope = reader.scope = reader.globals
    reader.block = items
    for at, item in enumerate(items):
        if isinstance(item, Compound) and item.keyword == "def":
            assert isinstance(item.header, ast.FunctionDef)
            name = item.header.name
            if name in RESERVED:
                reader.report(source.error("E0112", f"'{name}' is a name of the language and cannot be defined",
                                           Span(item.line + source.first_line, 0, len(source.lines[item.line]))))
            _decorators(reader, item)
            scope.pop(name, None)
            scope[name] = Helper(name, item.header, item, source, item.base)
            continue
        if not isinstance(item, Compound):
            _constants(reader, item)
        elif not _continues(item):
            reader.run([item, *takewhile(_continues, items[at + 1:])])
    for name in (name for name in reader.overrides if name not in reader.overridden):
        known = [k for k, v in scope.items() if not isinstance(v, Helper)]
        reader.errors.append(source.diagnostic(
            "E0206", f"the program has no constant '{name}' to set", None,
            near(name, known) or (f"its constants are {', '.join(known)}" if known
                                                                    else "it has none")))


def _continues(item: Item) -> bool:
    """Does it belong to the `if` above it?"""
    return isinstance(item, Compound) and item.keyword in ("elif", "else")


def _decorators(reader: Statements, item: Compound) -> None:
    """Report a decorator that the language does not have."""
    for decorator, line in item.decorators:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if not isinstance(called, ast.Name) or called.id not in DECORATORS:
            text = reader.source.lines[line]
            place = Span(line + reader.source.first_line, len(text) - len(text.lstrip()), len(text.rstrip()))
            hint = near(getattr(called, "id", ""), DECORATORS) or f"there are {', '.join(DECORATORS)}"
            reader.report(reader.source.error("E0105", "a decorator that the language does not have", place, hint))


def _constants(reader: Statements, chunk: Chunk) -> None:
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


def constant(name: str, value: Any) -> Any:
    """The constant `name` given from outside, as the reader has it: Python's number for a number of any kind; a string
    names a dtype, or is a number or a bool. SlpError E0409 for anything else."""
    if isinstance(value, bool | DType):
        return value
    if isinstance(value, Real):
        return int(value) if isinstance(value, Integral) else float(value)
    value = str(value)
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value in DTYPES:
        return DTYPES[value]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    raise SlpError(Diagnostic("E0409", f"cannot read {name}={value}: it is neither a number nor a dtype",
                              near(value, DTYPES) or f"the dtypes are {', '.join(DTYPES)}"))


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


def _elaborate(reader: Interface, program: Helper) -> Graph | None:
    builder, source = reader.builder, reader.source
    builder.name = program.name
    reader.scope = {}
    reader.program = program
    reader.base = program.base
    span = source.characters(reader.span(program.definition))
    builder.scheduled = any(isinstance(d, ast.Name) and d.id == "scheduled" for d, _ in program.compound.decorators)
    reader.inputs(program)
    outputs: list[Value] | None = None
    names: list[str] = []
    ended = False
    try:
        reader._body(program.compound, program.definition.body)
    except Returned as returned:
        ended = True
        try:
            outputs, names = reader.returned(returned.found, returned.node)
            reader.check_returned(program, outputs[0] if len(outputs) == 1 else outputs)
        except Fault as fault:
            reader.report(source.error(fault.code, fault.message, source.characters(reader.span(returned.node)),
                                       fault.hint))
        except SlpError as error:
            reader.report(error)
    except Fault as fault:
        reader.report(source.error(fault.code, fault.message, span, fault.hint))
    except SlpError as error:
        reader.report(error)
    if not ended and not reader.errors:
        reader.report(source.error("E0113", f"'{program.name}' returns nothing", span,
                                   "end it with return and the names of its outputs"))
    if outputs is None or reader.errors or POISON in reader.scope.values():
        return None
    graph = builder.finish(outputs, names)
    begun = unawaited(graph)
    if begun is not None:
        reader.report(source.error("E0123", f"'{begun}' is read before it is there", span,
                                   "a sum over processes is there after wait(...)"))
    return _donating(reader, program, graph)


def _donating(reader: Interface, program: Helper, graph: Graph) -> Graph:
    """The graph with what its `@donated` says; what does not fit is reported."""
    for decorator, line in program.compound.decorators:
        called = getattr(decorator, "func", decorator)
        if not isinstance(called, ast.Name) or called.id != "donated":
            continue
        words = decorator.keywords if isinstance(decorator, ast.Call) and not decorator.args else []
        graph.donated = {w.arg: w.value.value for w in words if w.arg is not None
                         and isinstance(w.value, ast.Constant) and isinstance(w.value.value, str)}
        told = donation.fault(graph)
        if told is None and not (words and len(graph.donated) == len(words)):
            told = "'@donated' names an output for each input", 'write @donated(w="w_new")'
        if told is not None:
            text = program.source.lines[line]
            span = Span(line + program.source.first_line, len(text) - len(text.lstrip()), len(text.rstrip()))
            reader.report(program.source.error("E0122", told[0], span, told[1]))
    return graph


@cache
def prelude() -> dict[str, Helper]:
    """The functions that are .slp text themselves (prelude.slp)."""
    path = Path(__file__).with_name("prelude.slp")
    return helpers(Source(path.read_text(encoding="utf-8"), "prelude.slp"), library=True)


def helpers(source: Source, *, library: bool = False) -> dict[str, Helper]:
    """The defs of a text by name; SlpError where it cannot be read."""
    items, faults = source.blocks()
    if faults:
        raise SlpError(faults)
    return {item.header.name: Helper(item.header.name, item.header, item, source, item.base, library)
            for item in items if isinstance(item, Compound) and isinstance(item.header, ast.FunctionDef)}

"""`@slpc.program`: a Python function whose source text is a program. Its body is read, never executed."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from numbers import Real
from types import FunctionType
from typing import Any

from .function import Function
from .ir.diagnostics import Diagnostic, SlpError, near
from .ir.entities import Helper, Outside
from .ir.graph import Graph
from .ir.parse import constant, elaborate, helpers
from .ir.source import Source
from .ir.statements import RESERVED
from .ir.types import DType, TensorType


class Program:
    """A program in a .py file: what `@slpc.program` makes of a function.

    Numbers, dtypes and functions of the module (or of the enclosing function) that its text names are read along with
    it, when the graph is first asked for. `program(...)` computes its value, as `slpc.compile(program)(...)` does, and
    another program that calls it has it inlined.
    """

    def __init__(self, function: Callable[..., Any], enclosing: Mapping[str, Any] | None = None) -> None:
        if not isinstance(function, FunctionType):
            raise SlpError(Diagnostic("E0110", f"@slpc.program takes a def, not {type(function).__name__}"))
        functools.update_wrapper(self, function)
        self._function = function
        self._enclosing = dict(enclosing or {})

    @functools.cached_property
    def graph(self) -> Graph:
        """The program. SlpError with a diagnostic for each fault, at its place in the .py file."""
        return self.with_constants()

    def with_constants(self, **constants: Any) -> Graph:
        """The program with other values for the numbers and dtypes that it takes from around it; E0206 for an unknown
        one."""
        helper, names = self._read
        known = [name for name, found in names.items() if not isinstance(found, Helper | Outside)]
        for name in constants:
            if name not in known:
                raise SlpError(Diagnostic("E0206", f"the program has no constant '{name}' to set",
                                          near(name, known) or (f"its constants are {', '.join(known)}" if known
                                                                else "it has none"),
                                          helper.source.file))
        fresh = deepcopy({name: found for name, found in names.items() if isinstance(found, list)})
        return elaborate(helper, names | fresh | {name: constant(name, given) for name, given in constants.items()})

    @functools.cached_property
    def _read(self) -> tuple[Helper, dict[str, Any]]:
        """The def, and what the names stand for that it and the functions which it calls take from around them."""
        names: dict[str, Any] = {}
        pending = [(self._function, self._enclosing)]
        helper, _ = _definition(self._function)
        seen = {self._function}
        while pending:
            function, enclosing = pending.pop()
            for name in _free_names(function):
                found = _around(function, enclosing, name)
                if found is _NOTHING or (name in RESERVED and not isinstance(found, Program)):
                    continue
                called, outer = (found._function, found._enclosing) if isinstance(found, Program) else (found, {})
                if isinstance(called, FunctionType) and not _is_language(called):
                    meant: Any = _definition(called)[0]
                    if called not in seen:
                        seen.add(called)
                        pending.append((called, outer))
                elif _is_language(called):
                    continue
                else:
                    meant = _constant(name, called)
                if names.setdefault(name, meant) != meant:
                    raise SlpError(Diagnostic("E0120", f"'{name}' means one thing in {self.__name__} and another in "
                                              f"{function.__name__}, which it calls", "rename one of them",
                                              helper.source.file))
        return helper, names

    @functools.cached_property
    def _compiled(self) -> Function:
        from .api import compile

        return compile(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The value (a tuple where there are several outputs), computed by NumPy."""
        return self._compiled(*args, **kwargs)

    def __reduce__(self) -> str:
        """Pickled by name, as functions are."""
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<slpc.Program {self.__qualname__}>"

    __name__: str
    __qualname__: str


def program(function: Callable[..., Any]) -> Program:
    """A decorator: the function's source text is a program in the language of .slp files. See `Program`."""
    nested = "<locals>" in getattr(function, "__qualname__", "")
    return Program(function, sys._getframe(1).f_locals if nested else None)


_NOTHING = object()


def _around(function: FunctionType, enclosing: Mapping[str, Any], name: str) -> Any:
    """What the name means where the function stands: in the functions around it, then in its module."""
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        if variable == name:
            try:
                return cell.cell_contents
            except ValueError:
                return _NOTHING
    return enclosing.get(name, function.__globals__.get(name, _NOTHING))


def _is_language(found: object) -> bool:
    """Is it one of the names of `slpc.lang`, which mean what the language says?"""
    return getattr(found, "__module__", "") == f"{__package__}.lang"


def _constant(name: str, found: Any) -> Any:
    """A constant of the module as the reader takes it: numbers, dtypes, types, and lists and tuples of these."""
    if isinstance(found, Real | DType):
        return constant(name, found)
    if type(found) in (list, tuple):
        return type(found)(_constant(name, x) for x in found)
    return found if isinstance(found, str | TensorType) else Outside(type(found).__name__)


@functools.cache
def _definition(function: FunctionType) -> tuple[Helper, ast.FunctionDef]:
    """The function's def, read from its source file, and the whole of it as Python's parser gives it."""
    file = inspect.getsourcefile(function) or "<unknown>"
    try:
        lines, first_line = inspect.getsourcelines(function)
    except (OSError, TypeError):
        raise SlpError(Diagnostic("E0410", f"cannot read the source text of {function.__name__}",
                                  "write it in a file, or hand its text to slpc.parse", file)) from None
    text = "".join(lines)
    indent = text[:len(text) - len(text.lstrip(" \t"))]
    found = helpers(Source(text, file, max(first_line, 1), indent)).get(function.__name__)
    tree = ast.parse("if 1:\n" + text if indent else text).body[0]
    parsed = tree.body[0] if isinstance(tree, ast.If) else tree
    if found is None or not isinstance(parsed, ast.FunctionDef):
        raise SlpError(Diagnostic("E0110", f"{function.__name__} is not written as a def", "", file))
    return found, parsed


def _free_names(function: FunctionType) -> Iterator[str]:
    """The names that a def takes from around it, in the order of its text: what it reads and never assigns to."""
    _, parsed = _definition(function)
    parsed.decorator_list.clear()
    nodes = list(ast.walk(parsed))
    own = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    parameters = {n.arg for n in nodes if isinstance(n, ast.arg)}
    signature = {n.id for part in (parsed.args, parsed.returns) if part for n in ast.walk(part)
                 if isinstance(n, ast.Name)}
    read = [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return iter(dict.fromkeys(name for name in read if name in signature or name not in own | parameters))

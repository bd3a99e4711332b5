"""Statements: names are bound, loops unrolled, helpers inlined, until the program is a straight line of operations."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from .diagnostics import Diagnostic, Fault, SlpError, Span, near
from .entities import POISON, Helper, Poisoned, describe
from .expressions import MOST_STEPS, PYTHON_ONLY, Expressions
from .functions import FUNCTIONS
from .graph import Builder, Constant, Value
from .literals import short
from .ops import OPS
from .source import Chunk, Compound, Item, Source
from .tiling import check_parameters, region, tile
from .types import DTYPES, DType, TensorType

RESERVED = {*OPS.keys() - {"region"}, *FUNCTIONS, *DTYPES, *PYTHON_ONLY, "inf", "nan"}
"""Names that canonical text uses, so that no value can bear them."""

_MOST_ERRORS = 20
_DEEPEST_CALL = 100
_ASSIGNED = re.compile(r"\s*([^\W\d]\w*(?:\s*,\s*[^\W\d]\w*)*)\s*(?::[^=]*)?[-+*/%@|&]*=(?!=)")


class Returned(Exception):
    """A `return` was reached."""

    def __init__(self, found: Any, node: ast.Return) -> None:
        self.found, self.node = found, node


class TooManyErrors(Exception):
    """Enough has been reported."""


class Statements(Expressions):
    """Runs statements. One of these reads one program; errors are collected and reported together."""

    def __init__(self, builder: Builder, source: Source, prelude: dict[str, Helper]) -> None:
        super().__init__(builder, source)
        self.prelude = prelude
        self.errors: list[Diagnostic] = []
        self.calls: list[Helper] = []
        self.program: Helper | None = None
        self.region = False
        self.reserved = RESERVED
        self.loops = 0
        self.block: Sequence[Item] = ()
        self.stem = ""
        self.overrides: dict[str, Any] = {}
        self.overridden: set[str] = set()

    # Errors ----------------------------------------------------------------------------------------------------

    def report(self, error: SlpError) -> None:
        """Keep what was found, once a place; TooManyErrors where reading on would not help."""
        for found in error.diagnostics:
            if not any(e.code == found.code and e.span == found.span for e in self.errors):
                self.errors.append(found)
        if len(self.errors) >= _MOST_ERRORS or self.taken() > MOST_STEPS:
            raise TooManyErrors

    def library(self, name: str) -> Helper | None:
        return self.prelude.get(name)

    def library_names(self) -> set[str]:
        return set(self.prelude)

    def assigned_later(self, name: str) -> int | None:
        for item in self.block:
            if isinstance(item, Chunk):
                for statement in item.parsed or self.source.parse_chunk(item)[0]:
                    for node in ast.walk(statement):
                        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
                            return node.lineno + item.base
        return None

    # Blocks ----------------------------------------------------------------------------------------------------

    def run(self, items: Sequence[Item]) -> None:
        """The statements of a block, in order. A statement that fails poisons what it would have bound."""
        saved = self.block
        if not self.loops:
            self.block = items
        at = 0
        while at < len(items):
            item = items[at]
            if isinstance(item, Chunk):
                self._chunk(item)
            elif item.keyword == "if":
                at = self._if(items, at)
            elif item.keyword != "error":
                self._guarded(item, item.header)
            at += 1
        self.block = saved

    def _chunk(self, chunk: Chunk) -> None:
        statements = chunk.parsed
        if statements is None:
            statements, faults = self.source.parse_chunk(chunk)
            if faults:
                self.report(SlpError(faults))
                for lost in faults:
                    self._poison_names(_ASSIGNED.match(lost.source))
            if self.loops:
                chunk.parsed = statements  # it is run again; a straight line is read in constant memory
        for statement in statements:
            self.base = chunk.base
            self._guarded(None, statement)

    def _guarded(self, compound: Compound | None, statement: ast.stmt | None) -> None:
        assert statement is not None
        mark = len(self.builder.nodes)
        stem = self.stem
        returned: Any = None
        try:
            if self.loops:
                self.tick()
            if compound is not None:
                self.base = compound.base
                self._compound(compound, statement)
            else:
                self._simple(statement)
        except Fault as fault:
            if compound is not None:
                self.base = compound.base
            self.report(self._at_statement(fault, statement))
            self._poison(compound, statement)
        except SlpError as error:
            self.report(error)
            self._poison(compound, statement)
        except Poisoned:
            self._poison(compound, statement)
        except Returned as result:
            returned = result.found
            raise
        finally:
            self._name_temporaries(mark, returned)
            self.stem = stem

    def _at_statement(self, fault: Fault, statement: ast.stmt) -> SlpError:
        span = self.source.characters(self.span(statement))
        return self.source.error(fault.code, fault.message, span, fault.hint)

    def _poison(self, compound: Compound | None, statement: ast.stmt) -> None:
        """A statement failed: the names that it assigns to mean nothing, nor do those that only its block binds."""
        self.scope.update(dict.fromkeys(_stored(statement), POISON))
        for item in () if compound is None or compound.keyword == "def" else compound.body:
            if isinstance(item, Compound):
                inside = [] if item.header is None else [item.header]
                self._poison(item, ast.Pass())
            else:
                inside = item.parsed or self.source.parse_chunk(item)[0]
            for name in (name for stored in inside for name in _stored(stored)):
                self.scope.setdefault(name, POISON)

    def _poison_names(self, assigned: re.Match[str] | None) -> None:
        """The names that a line which is no syntax seems to assign: what reads them is no fault of its own."""
        for name in assigned[1].split(",") if assigned is not None else ():
            if name.strip() not in RESERVED:
                self.scope[name.strip()] = POISON

    def _name_temporaries(self, mark: int, returned: Any) -> None:
        """Name what a statement left unnamed, but for what it returns: the caller's statement names that."""
        nodes = self.builder.nodes
        kept = {id(v) for v in (returned if isinstance(returned, tuple | list) else (returned,))}
        for at in range(mark, len(nodes)):
            for value in nodes[at].results:
                if not value.name and id(value) not in kept:
                    self.builder.name_value(value, f"{self.stem or 'out'}_t")

    # Simple statements -----------------------------------------------------------------------------------------

    def _simple(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign):
            self.stem = _stem(statement.targets[0])
            found = self.evaluate(statement.value)
            for target in statement.targets:
                self.bind(target, found)
        elif isinstance(statement, ast.AnnAssign):
            self._annotated(statement)
        elif isinstance(statement, ast.AugAssign):
            self._augmented(statement)
        elif isinstance(statement, ast.Return):
            if not self.calls:
                self.stem = ""
            found = None if statement.value is None else self.evaluate(statement.value)
            raise Returned(found, statement)
        elif isinstance(statement, ast.Expr):
            if not (isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)):
                found = self.evaluate(statement.value)
                if found is not None and found is not Ellipsis:
                    raise Fault("E0105", "this value is not used", "assign it to a name")
        elif isinstance(statement, ast.Delete):
            self._delete(statement)
        elif isinstance(statement, ast.Assert):
            self._assert(statement)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            self._import(statement)
        elif not isinstance(statement, ast.Pass):
            raise _not_ours(statement)

    def _annotated(self, statement: ast.AnnAssign) -> None:
        if not isinstance(statement.target, ast.Name):
            raise Fault("E0105", "only a name takes a type")
        if statement.value is None:
            raise Fault("E0105", "a type without a value", f"write {statement.target.id}: type = expression")
        self.stem = statement.target.id
        declared = self.type(statement.annotation)
        if isinstance(statement.value, ast.Call | ast.BinOp):
            self.expected = declared.dtype
        try:
            found = self.evaluate(statement.value)
        finally:
            self.expected = None
        if isinstance(found, bool | int | float) and declared.shape == ():
            found = self.builder.constant(found, declared.dtype)
        if not isinstance(found, Value):
            hint = f"write full({declared.shape}, {short(found)})" if isinstance(found, bool | int | float) else ""
            raise self.located(Fault("E0203", f"a value is needed here, not {describe(found)}", hint), statement.value)
        if found.type is not declared:
            code = "E0302" if found.shape == declared.shape else "E0301"
            raise self.located(Fault(code, f"'{statement.target.id}' is declared {declared}, but this is {found.type}"),
                               statement.value)
        self.bind(statement.target, found)

    def type(self, node: ast.expr) -> TensorType:
        """A type annotation."""
        base = node.value if isinstance(node, ast.Subscript) else node
        if isinstance(base, ast.Name):
            try:
                self.lookup(base.id)
            except Fault:
                types = {*DTYPES, *(name for name, known in self.globals.items() if isinstance(known, DType))}
                hint = near(base.id, types) or f"the dtypes are {', '.join(DTYPES)}"
                raise self.located(Fault("E0114", f"unknown type '{base.id}'", hint), base) from None
        found = self.evaluate(node)
        if isinstance(found, DType):
            return TensorType(found)
        if not isinstance(found, TensorType):
            hint = {"int": "write i64", "float": "write f64"}.get(getattr(found, "name", ""), "")
            raise self.located(Fault("E0114", f"a type is needed here, such as f32[3, 4], not {describe(found)}", hint),
                               node)
        return found

    def _augmented(self, statement: ast.AugAssign) -> None:
        target = statement.target
        self.stem = _stem(target)
        if isinstance(target, ast.Subscript) and isinstance(self.evaluate(target.value), Value):
            raise self._element(target)
        read = ast.copy_location(ast.Name(target.id, ast.Load()), target) if isinstance(target, ast.Name) else \
            ast.copy_location(ast.Subscript(target.value, target.slice, ast.Load()), target) \
            if isinstance(target, ast.Subscript) else None
        if read is None:
            raise Fault("E0105", "only names and elements of lists are assigned to")
        joined = ast.copy_location(ast.BinOp(read, statement.op, statement.value), statement)
        self.bind(target, self.evaluate(joined))

    def bind(self, target: ast.expr, found: Any, *, comprehension: bool = False) -> None:
        if isinstance(target, ast.Name):
            self._bind_name(target, found, comprehension)
        elif isinstance(target, ast.Tuple | ast.List):
            starred = next((part for part in target.elts if isinstance(part, ast.Starred)), None)
            if starred is not None:
                raise self.located(Fault("E0105", "'*' in an assignment is not part of the language",
                                         "take slices of the list"), starred)
            if isinstance(found, Value):
                items = list(self.iterate(found))
            elif isinstance(found, list | tuple | range):
                items = list(found)
            else:
                raise self.located(Fault("E0205", f"{describe(found)} is not several values"), target)
            if len(items) != len(target.elts):
                raise self.located(Fault("E0205", f"{len(target.elts)} names for {len(items)} values"), target)
            for part, item in zip(target.elts, items, strict=True):
                self.bind(part, item, comprehension=comprehension)
        elif isinstance(target, ast.Subscript):
            self._bind_element(target, found)
        else:
            raise self.located(Fault("E0105", "only names and elements of lists are assigned to"), target)

    def _bind_name(self, target: ast.Name, found: Any, comprehension: bool) -> None:
        name = target.id
        if name in RESERVED:
            kind = "a dtype" if name in DTYPES else "a function or constant of the language"
            raise self.located(Fault("E0112", f"'{name}' is {kind} and cannot be assigned to",
                                     f"another name, for example {name}_ or {name}1"), target)
        if self.scope is self.globals and name in self.overrides and not comprehension:
            found = self.overrides[name]
            self.overridden.add(name)
        self.scope[name] = found
        if isinstance(found, Value) and not found.name and not isinstance(found, Constant):
            self.builder.name_value(found, name)

    def _bind_element(self, target: ast.Subscript, found: Any) -> None:
        holder = self.evaluate(target.value)
        if isinstance(holder, Value):
            raise self._element(target)
        index = self.evaluate(target.slice)
        if not isinstance(holder, list):
            raise self.located(Fault("E0203", f"{describe(holder)} has no elements to assign to"), target)
        if not isinstance(index, int):
            raise self.located(Fault("E0116", "an element of a list is assigned to at a constant integer"), target)
        try:
            holder[index] = found
        except IndexError:
            raise self.located(Fault("E0305", f"index {index} is out of range for {len(holder)} elements"),
                               target) from None
        if isinstance(found, Value) and not found.name and not isinstance(found, Constant):
            self.builder.name_value(found, self.stem)

    def _element(self, target: ast.Subscript) -> SlpError:
        return self.located(Fault("E0108", "an element of an array cannot be assigned to: values never change",
                                  "build a list and write stack([...]), or use where(mask, new, x)"), target)

    def _delete(self, statement: ast.Delete) -> None:
        for target in statement.targets:
            if not isinstance(target, ast.Name):
                raise Fault("E0105", "del takes names")
            if target.id not in self.scope:
                raise self.located(self._unknown(target.id), target)
            del self.scope[target.id]
            self.dead[target.id] = target.lineno + self.base

    def _assert(self, statement: ast.Assert) -> None:
        if not self.truth(self.evaluate(statement.test), statement.test):
            message = statement.msg
            told = f": {message.value!s}" if isinstance(message, ast.Constant) else ""
            raise Fault("E0117", f"the assertion does not hold{told}")

    def _import(self, statement: ast.Import | ast.ImportFrom) -> None:
        if isinstance(statement, ast.ImportFrom) and statement.module == "slpc.lang" and not self.calls:
            return
        raise Fault("E0105", "a program imports nothing",
                    "the one line 'from slpc.lang import *' is accepted, for editors")

    # Compound statements ---------------------------------------------------------------------------------------

    def _compound(self, compound: Compound, header: ast.stmt) -> None:
        if isinstance(header, ast.For):
            self._for(compound, header)
        elif isinstance(header, ast.FunctionDef):
            raise Fault("E0105", "a def inside a def", "define helpers at the top level")
        elif isinstance(header, ast.If):
            raise Fault("E0101", f"'{compound.keyword}' without an if")
        else:
            raise _not_ours(header)

    def _for(self, compound: Compound, header: ast.For) -> None:
        found = self.evaluate(header.iter)
        if isinstance(found, Value) and not found.type.rank:
            raise self.located(Fault("E0106", "a loop runs over a constant range, list or tuple"), header.iter)
        try:
            items = self.iterate(found)
        except Fault as fault:
            raise self.located(fault, header.iter) from None
        self.loops += 1
        try:
            for item in items:
                self.base = compound.base
                self.bind(header.target, item)
                self._body(compound, header.body)
        finally:
            self.loops -= 1

    def _body(self, compound: Compound, inline: list[ast.stmt]) -> None:
        """The block below a header, or the statements on its own line."""
        if compound.body:
            self.run(compound.body)
        elif len(inline) == 1 and isinstance(inline[0], ast.Pass):
            text = self.source.lines[compound.line]
            span = Span(compound.line + self.source.first_line, len(text) - len(text.lstrip()), len(text))
            raise self.source.error("E0101", "expected an indented block below this line", span)
        else:
            for statement in inline:
                self.base = compound.base
                self._guarded(None, statement)

    def _if(self, items: Sequence[Item], at: int) -> int:
        """An `if` with the `elif`s and `else` that follow it; where the last of them stands."""
        end = at
        while end + 1 < len(items):
            following = items[end + 1]
            if not isinstance(following, Compound) or following.keyword not in ("elif", "else"):
                break
            end += 1
        for branch in items[at:end + 1]:
            assert isinstance(branch, Compound)
            header = branch.header
            assert isinstance(header, ast.If)
            self.base = branch.base
            try:
                taken = branch.keyword == "else" or self.truth(self.evaluate(header.test), header.test)
                if taken:
                    self._body(branch, header.body)
                    break
            except Fault as fault:
                self.report(self._at_statement(fault, header))
            except SlpError as error:
                self.report(error)
            except Poisoned:
                pass
            else:
                continue
            for lost in items[at:end + 1]:
                assert isinstance(lost, Compound)
                self._poison(lost, ast.Pass())
            break
        return end

    # Helpers ---------------------------------------------------------------------------------------------------

    def inline(self, helper: Helper, arguments: list[Any], keywords: dict[str, Any], node: ast.Call) -> Any:
        if helper in self.calls or helper is self.program:
            raise Fault("E0107", f"'{helper.name}' calls itself", "write a for loop with constant bounds")
        if len(self.calls) > _DEEPEST_CALL:
            raise Fault("E0102", "helpers call one another too deep")
        decorator = tile(helper)
        if decorator is not None and not self.region:
            return region(self, helper, arguments, keywords, node, decorator)
        if helper.library:  # as in NumPy, an array may be given as a list
            arguments = [FUNCTIONS["stack"].build(self, a) if isinstance(a, list) else a for a in arguments]
        place, first = self.span(node), len(self.builder.nodes)
        scope = self._parameters(helper, arguments, keywords)
        if decorator is not None:
            check_parameters(self, helper, scope)
        saved = (self.scope, self.source, self.base, self.dead, self.stem, self.block, self.loops, self.depth)
        before = len(self.errors)
        self.scope, self.source, self.base, self.dead = scope, helper.source, helper.base, {}
        self.depth, self.stem = 0, self.stem or helper.name
        self.calls.append(helper)
        self.loops += 1
        try:
            self._body(helper.compound, helper.definition.body)
            found: Any = None
        except Returned as returned:
            found = returned.found
            self.check_returned(helper, found)
        finally:
            self.calls.pop()
            (self.scope, self.source, self.base, self.dead, self.stem, self.block, self.loops, self.depth) = saved
        self.arrays.span = place
        if helper.library:  # its lines are no lines of the program
            for value in (v for n in self.builder.nodes[first:] for v in n.results):
                value.span = place
        if len(self.errors) > before:
            if helper.library:
                told = self.errors[before]
                del self.errors[before:]
                raise Fault(told.code, f"{helper.name}: {told.message}", told.hint)
            raise Poisoned
        return found

    def check_returned(self, helper: Helper, found: Any) -> None:
        """Report what is returned under another type than the `->` of the def says."""
        annotation = helper.definition.returns
        if annotation is None:
            return
        parts, results = [annotation], [found]
        if isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "tuple":
            parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            results = list(found) if isinstance(found, tuple | list) else [found]
        self.base = helper.base
        if len(parts) != len(results):
            self.report(self.located(Fault("E0205", f"'{helper.name}' is declared to return {len(parts)} values, but "
                                                    f"returns {len(results)}"), annotation))
            return
        for part, result in zip(parts, results):
            declared = self.type(part)
            actual = result.type if isinstance(result, Value) else describe(result)
            weak = isinstance(result, bool | int | float) and declared.shape == ()
            if declared is not actual and not weak:
                self.report(self.located(Fault("E0301", f"'{helper.name}' is declared to return {declared}, but "
                                                        f"returns {actual}"), part))

    def _parameters(self, helper: Helper, arguments: list[Any], keywords: dict[str, Any]) -> dict[str, Any]:
        """The helper's scope: its parameters bound to what the call gives, or to their defaults."""
        spec = helper.definition.args
        if spec.vararg or spec.kwarg:
            raise Fault("E0105", f"'{helper.name}' takes *args or **kwargs, which is not part of the language")
        positional = [*spec.posonlyargs, *spec.args]
        if len(arguments) > len(positional):
            raise Fault("E0202", f"{helper.name} takes {len(positional)} arguments, not {len(arguments)}")
        scope = dict(zip((p.arg for p in positional), arguments, strict=False))
        names = [p.arg for p in (*positional, *spec.kwonlyargs)]
        for name, found in keywords.items():
            if name not in names:
                raise Fault("E0202", f"{helper.name} has no argument '{name}'",
                            near(name, names) or f"its arguments are {', '.join(names)}", name)
            if name in scope:
                raise Fault("E0202", f"{helper.name} is given '{name}' twice", "", name)
            scope[name] = found
        defaults = dict(zip((p.arg for p in positional[len(positional) - len(spec.defaults):]), spec.defaults,
                            strict=True))
        defaults |= {p.arg: d for p, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d is not None}
        for parameter in (*positional, *spec.kwonlyargs):
            if parameter.arg in RESERVED:
                raise Fault("E0112", f"'{parameter.arg}', a parameter of {helper.name}, is a name of the language")
            if parameter.arg not in scope:
                if parameter.arg not in defaults:
                    raise Fault("E0202", f"{helper.name} needs the argument '{parameter.arg}'")
                saved = (self.scope, self.source, self.base)
                self.scope, self.source, self.base = {}, helper.source, helper.base
                try:
                    scope[parameter.arg] = self.evaluate(defaults[parameter.arg])
                finally:
                    self.scope, self.source, self.base = saved
        return scope


def _stored(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement gives a meaning to."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.FunctionDef):
            yield node.name


def _stem(target: ast.expr) -> str:
    """The name that temporaries of an assignment are called after."""
    while not isinstance(target, ast.Name):
        if isinstance(target, ast.Tuple | ast.List) and target.elts:
            target = target.elts[0]
        elif isinstance(target, ast.Subscript | ast.Attribute | ast.Starred):
            target = target.value
        else:
            return ""
    return target.id


_HINTS: dict[type[ast.stmt], tuple[str, str]] = {
    ast.While: ("while", "write for i in range(N) with a constant N, and where(...) for what depends on data"),
    ast.With: ("with", ""), ast.ClassDef: ("class", ""), ast.Try: ("try", ""), ast.Raise: ("raise", ""),
    ast.Global: ("global", ""), ast.Nonlocal: ("nonlocal", ""), ast.Break: ("break", "use constant bounds"),
    ast.Continue: ("continue", "use an if on a constant"), ast.AsyncFunctionDef: ("async", ""),
    ast.AsyncFor: ("async", ""), ast.AsyncWith: ("async", ""), ast.Match: ("match", "use an if on a constant"),
}


def _not_ours(statement: ast.stmt) -> Fault:
    name, hint = _HINTS.get(type(statement), (type(statement).__name__.lower(), ""))
    return Fault("E0106" if name == "while" else "E0105", f"'{name}' is not part of the language", hint)



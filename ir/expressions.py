"""Expressions: an `ast` expression becomes a value of the graph, or a constant thing that is gone afterwards."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import signature
from typing import Any

from . import constants
from .arrays import Arrays
from .diagnostics import Fault, SlpError, Span, near
from .entities import POISON, Function, Helper, IndexMaker, Poisoned, describe
from .functions import FUNCTIONS
from .graph import Builder, Value
from .ops import OPS
from .source import Source
from .subscripts import constant_index, subscript
from .types import DTYPES, DType, TensorType, matrix

MOST_STEPS = 4_000_000
"""Operations made, and statements and elements read again and again: at a kilobyte or two and 15 us each, some GB and a
minute. A straight text, which is as long as it is, may be longer."""
_ALIKE = 1000
"""So many turns of a loop that all took equally long tell how long it will be."""
_DEEPEST = 200

NUMBERS: dict[str, float] = {"pi": math.pi, "e": math.e, "inf": math.inf, "nan": math.nan}
PYTHON_ONLY = {"len", "zip", "enumerate", "range", "int", "float", "bool", "reversed", "list", "tuple", "s_"}


class Expressions:
    """Evaluates expressions in the current scope, emitting operations into the builder."""

    def __init__(self, builder: Builder, source: Source) -> None:
        self.builder = builder
        self.arrays = Arrays(builder)
        self.source = source
        self.base = 0
        self.scope: dict[str, Any] = {}
        self.globals: dict[str, Any] = {}
        self.dead: dict[str, int] = {}
        self.expected: DType | None = None
        self.steps = 0
        self.depth = 0

    # Places ----------------------------------------------------------------------------------------------------

    def span(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword) -> Span:
        """The node's place, columns in bytes as ast has them; cut to its first line."""
        end = node.end_col_offset if node.end_lineno == node.lineno else 1_000_000
        return Span(node.lineno + self.base, node.col_offset, end or 0)

    def located(self, fault: Fault, node: ast.expr | ast.keyword, operands: Sequence[ast.expr] = ()) -> SlpError:
        """The fault with carets under the node, or under the operand that it names."""
        at = operands[fault.operand] if isinstance(fault.operand, int) and fault.operand < len(operands) else node
        notes: tuple[tuple[str, Span], ...] = ()
        if fault.code in ("E0301", "E0302", "E0307") and 2 <= len(operands) <= 3:
            at = node
            notes = tuple((found, self.source.characters(self.span(o)))
                          for o in operands if (found := self._operand_note(o)))
        return SlpError(self.source.diagnostic(fault.code, fault.message, self.source.characters(self.span(at)),
                                               fault.hint, notes))

    def _operand_note(self, operand: ast.expr) -> str:
        if isinstance(operand, ast.Name):
            found = self.scope.get(operand.id)
            return f"'{operand.id}' is {describe(found)}" if isinstance(found, Value) else ""
        found = self._seen.get(id(operand))
        return f"this is {describe(found)}" if isinstance(found, Value) else ""

    # Evaluation ------------------------------------------------------------------------------------------------

    _seen: dict[int, Any]

    def evaluate(self, node: ast.expr) -> Any:
        """What the expression stands for; SlpError with its place, or Poisoned."""
        method = _DISPATCH.get(type(node))
        if method is None:
            raise self.located(Fault("E0105", f"{_SYNTAX.get(type(node), type(node).__name__.lower())} is not part "
                                     "of the language"), node)
        self.depth += 1
        try:
            if self.depth > _DEEPEST:
                raise Fault("E0102", "this expression is nested too deep", "name a subexpression on its own line")
            return method(self, node)
        except Fault as fault:
            raise self.located(fault, node) from None
        finally:
            self.depth -= 1

    def value(self, node: ast.expr) -> Value | bool | int | float:
        """An expression that must be a value or a number."""
        found = self.evaluate(node)
        if isinstance(found, Value | bool | int | float):
            return found
        raise self.located(Fault("E0203", f"a value is needed here, not {describe(found)}"), node)

    def constant(self, node: ast.expr, what: str = "a constant") -> Any:
        """An expression that must not depend on data."""
        found = self.evaluate(node)
        if isinstance(found, Value):
            raise self.located(Fault("E0116", f"{what} is needed here, and this depends on the program's inputs"), node)
        return found

    def tick(self) -> None:
        """Count one step of reading; a program that unrolls without end is refused."""
        self.steps += 1
        if self.taken() > MOST_STEPS:
            raise self._too_long()

    def taken(self) -> int:
        """Steps of reading so far."""
        return self.steps + len(self.builder.nodes)

    def _too_long(self) -> Fault:
        return Fault("E0119", f"this unrolls to more than {MOST_STEPS:,} steps",
                     "say with whole arrays what a loop says")

    def _constant_node(self, node: ast.Constant) -> Any:
        if isinstance(node.value, complex | bytes):
            raise Fault("E0203", f"a {type(node.value).__name__} literal is not part of the language")
        if isinstance(node.value, float) and math.isinf(node.value):
            raise Fault("E0309", "this literal overflows f64", "write inf if that is meant")
        return node.value

    def _name(self, node: ast.Name) -> Any:
        return self.lookup(node.id)

    def lookup(self, name: str) -> Any:
        """What a name stands for: local, module-level, then the language's own."""
        for names in (self.scope, self.globals, NUMBERS, FUNCTIONS, DTYPES):
            if name in names:
                found = names[name]
                if found is POISON:
                    raise Poisoned
                return found
        if name == "s_":
            return IndexMaker()
        helper = self.library(name)
        if helper is not None:
            return helper
        raise self._unknown(name)

    def library(self, name: str) -> Helper | None:
        """A function of the prelude (the statement reader knows how to read it)."""
        raise NotImplementedError

    def library_names(self) -> set[str]:
        """The prelude's functions."""
        raise NotImplementedError

    def assigned_later(self, name: str) -> int | None:
        """The line of a later assignment to the name in this function, if there is one."""
        return None

    def _unknown(self, name: str) -> Fault:
        if name in self.dead:
            return Fault("E0118", f"'{name}' is used after del on line {self.dead[name]}")
        later = self.assigned_later(name)
        if later is not None:
            return Fault("E0111", f"'{name}' is used before it is defined on line {later}")
        known = {*self.scope, *self.globals, *NUMBERS, *FUNCTIONS, *DTYPES, *self.library_names()}
        return Fault("E0103", f"unknown name '{name}'", _FOREIGN.get(name) or near(name, known))

    def _binary(self, node: ast.BinOp) -> Any:
        # A long sum nests to the left as deep as it is long, so the left spine is walked in a loop.
        spine = [node]
        while isinstance(spine[-1].left, ast.BinOp):
            spine.append(spine[-1].left)
        expected, self.expected = self.expected, None
        left = self.evaluate(spine[-1].left)
        for at, part in enumerate(reversed(spine)):
            right = self.evaluate(part.right)
            self.arrays.span = self.span(part)
            try:
                left = self.binary(part.op, left, right, expected if at == len(spine) - 1 else None)
            except Fault as fault:
                self._seen = {id(part.left): left, id(part.right): right}
                raise self.located(fault, part, (part.left, part.right)) from None
        return left

    def binary(self, op: ast.operator, left: Any, right: Any, expected: DType | None = None) -> Any:
        """`left op right` for values, numbers, lists and tuples."""
        if isinstance(op, ast.MatMult):
            if isinstance(left, Value) and isinstance(right, Value):
                return self.arrays.matmul(left, right)
            raise Fault("E0203", f"@ multiplies arrays, not {describe(left)} and {describe(right)}")
        row = constants.BINARY.get(type(op))
        if row is None:
            raise Fault("E0105", f"the operator {_OPERATORS.get(type(op), '')} is not part of the language")
        name, function = row
        if isinstance(left, Value) or isinstance(right, Value):
            for side in (left, right):
                if not isinstance(side, Value | bool | int | float):
                    raise Fault("E0203", f"{OPS[name].symbol} needs values or numbers, not {describe(side)}")
            return self.arrays.elementwise(name, left, right, expected=expected)
        if isinstance(left, list | tuple) or isinstance(right, list | tuple):
            return self._sequences(name, left, right)
        for side in (left, right):
            if not isinstance(side, bool | int | float):
                raise Fault("E0203", f"{OPS[name].symbol} needs values or numbers, not {describe(side)}")
        return constants.arithmetic(name, function, left, right)

    def _sequences(self, name: str, left: Any, right: Any) -> Any:
        if name == "add" and type(left) is type(right):
            return constants.joined(left, right)
        if name == "multiply" and isinstance(left, list | tuple) and isinstance(right, int):
            return constants.repeated(left, right)
        if name == "multiply" and isinstance(right, list | tuple) and isinstance(left, int):
            return constants.repeated(right, left)
        raise Fault("E0203", f"{OPS[name].symbol} of {describe(left)} and {describe(right)}",
                    "stack([...]) makes an array of a list")

    def _unary(self, node: ast.UnaryOp) -> Any:
        found = self.evaluate(node.operand)
        self.arrays.span = self.span(node)
        if isinstance(node.op, ast.Not):
            return not self.truth(found, node.operand)
        if isinstance(found, Value):
            if isinstance(node.op, ast.UAdd):
                return found
            return self.arrays.elementwise("negative" if isinstance(node.op, ast.USub) else "logical_not", found)
        if not isinstance(found, bool | int | float):
            raise Fault("E0203", f"a number is needed here, not {describe(found)}")
        if isinstance(node.op, ast.Invert):
            if isinstance(found, float):
                raise Fault("E0302", "~ needs bool, not a float", "write a comparison, for example x != 0")
            return not found if isinstance(found, bool) else ~found
        return -found if isinstance(node.op, ast.USub) else +found

    def truth(self, found: Any, node: ast.expr) -> bool:
        """A constant condition; Fault E0106 for one that depends on data."""
        if isinstance(found, Value):
            raise self.located(Fault("E0106", "this condition depends on data, and the program is straight-line",
                                     "write where(condition, a, b), with & | ~ for and, or, not"), node)
        return bool(found)

    def _compare(self, node: ast.Compare) -> Any:
        left = self.evaluate(node.left)
        result: Any = True
        for at, (op, other) in enumerate(zip(node.ops, node.comparators, strict=True)):
            right = self.evaluate(other)
            self.arrays.span = self.span(node)
            try:
                found = self._compare_two(op, left, right)
            except Fault as fault:
                operands = (node.left if at == 0 else node.comparators[at - 1], other)
                self._seen = {id(operands[0]): left, id(operands[1]): right}
                raise self.located(fault, node, operands) from None
            if isinstance(result, Value) or isinstance(found, Value):
                result = found if result is True else self.arrays.elementwise("logical_and", result, found)
            else:
                result = result and found
            left = right
        return result

    def _compare_two(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        if isinstance(op, ast.Is | ast.IsNot):
            return (left is right) == isinstance(op, ast.Is)
        if isinstance(op, ast.In | ast.NotIn):
            if isinstance(left, Value) or not isinstance(right, list | tuple | range):
                raise Fault("E0203", "'in' asks whether a constant is in a constant list")
            return (left in right) == isinstance(op, ast.In)
        name, function = constants.COMPARE[type(op)]
        if isinstance(left, Value) or isinstance(right, Value):
            for side in (left, right):
                if not isinstance(side, Value | bool | int | float):
                    raise Fault("E0203", f"{OPS[name].symbol} needs values or numbers, not {describe(side)}")
            return self.arrays.elementwise(name, left, right)
        try:
            return bool(function(left, right))
        except TypeError:
            raise Fault("E0203", f"cannot compare {describe(left)} with {describe(right)}") from None

    def _boolean(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        found: Any = None
        for part in node.values:
            found = self.evaluate(part)
            if self.truth(found, part) == stop:
                return found
        return found

    def _conditional(self, node: ast.IfExp) -> Any:
        taken = self.truth(self.evaluate(node.test), node.test)
        return self.evaluate(node.body if taken else node.orelse)

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self._items(node.elts))

    def _list(self, node: ast.List) -> list[Any]:
        return self._items(node.elts)

    def _items(self, nodes: Sequence[ast.expr]) -> list[Any]:
        items: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                items.extend(self.iterate(self.evaluate(node.value)))
            else:
                items.append(self.evaluate(node))
        return items

    def iterate(self, found: Any) -> Iterator[Any]:
        """The elements of a constant sequence, counted; Fault for what is none, or has more than can be."""
        if isinstance(found, Value):
            if not found.type.rank:
                raise Fault("E0106", "a scalar cannot be iterated over")
            found = [subscript(self.arrays, found, i) for i in range(found.shape[0])]
        if not isinstance(found, list | tuple | range):
            raise Fault("E0116", f"a range, list or tuple is needed here, not {describe(found)}")
        if isinstance(found, range) and constants.length(found) > MOST_STEPS:
            raise self._too_long()
        return self._counted(found)

    def _counted(self, items: Sequence[Any]) -> Iterator[Any]:
        """The items; what would take too many steps is refused as soon as the turns that it is made of are seen."""
        before, length, alike = self.taken(), -1, len(items) > _ALIKE
        for turn, item in enumerate(items):
            self.tick()
            yield item
            if alike:
                after = self.taken()
                alike = turn < _ALIKE and length in (-1, after - before)
                before, length = after, after - before
                if alike and turn == _ALIKE - 1 and after + length * (len(items) - _ALIKE) > MOST_STEPS:
                    raise self._too_long()

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> list[Any]:
        saved = self.scope
        self.scope = dict(saved)
        items: list[Any] = []

        def run(level: int) -> None:
            if level == len(node.generators):
                items.append(self.evaluate(node.elt))
                return
            generator = node.generators[level]
            for item in self.iterate(self.evaluate(generator.iter)):
                self.bind(generator.target, item, comprehension=True)
                if all(self.truth(self.evaluate(test), test) for test in generator.ifs):
                    run(level + 1)

        try:
            run(0)
        finally:
            self.scope = saved
        return items

    def bind(self, target: ast.expr, found: Any, *, comprehension: bool = False) -> None:
        """Give a name, or each of a tuple of names, what it stands for."""
        raise NotImplementedError

    # Attributes, subscripts and calls --------------------------------------------------------------------------

    def _attribute(self, node: ast.Attribute) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id in _MODULES and node.value.id not in self.scope:
            raise Fault("E0109", f"'{node.value.id}.{node.attr}': the language's names stand alone",
                        f"write {node.attr}{'' if node.attr in NUMBERS else '(...)'}")
        found = self.evaluate(node.value)
        self.arrays.span = self.span(node)
        if isinstance(found, bool | int | float) and node.attr in ("shape", "ndim"):
            return () if node.attr == "shape" else 0
        if not isinstance(found, Value):
            if isinstance(found, list) and node.attr == "append":
                raise Fault("E0109", "append is called as a statement: xs.append(x)")
            raise Fault("E0109", f"{describe(found)} has no attribute '{node.attr}'")
        read = _ATTRIBUTES.get(node.attr)
        if read is None:
            hint = f"write {node.attr}(x, ...) instead" if node.attr in FUNCTIONS \
                or node.attr in self.library_names() else \
                near(node.attr, _ATTRIBUTES) or f"values have {', '.join('.' + name for name in _ATTRIBUTES)}"
            raise Fault("E0109", f"a value has no attribute '{node.attr}'", hint)
        return read(self, found)

    def _subscript(self, node: ast.Subscript) -> Any:
        found = self.evaluate(node.value)
        index = self.evaluate(node.slice)
        self.arrays.span = self.span(node)
        return self.subscript(found, index)

    def subscript(self, found: Any, index: Any) -> Any:
        """`found[index]` for values, types, lists, tuples and ranges."""
        if isinstance(found, Value):
            return subscript(self.arrays, found, index)
        if isinstance(found, DType):
            return tensor_type(found, index)
        if isinstance(found, IndexMaker):
            return constant_index(index)
        if isinstance(found, list | tuple | range):
            if isinstance(index, Value):
                raise Fault("E0116", "a list is indexed by constants; this depends on the program's inputs",
                            "stack([...]) makes an array that a value can index")
            if not isinstance(index, int | slice):
                raise Fault("E0203", f"a list is indexed by an integer or a slice, not {describe(index)}")
            try:
                return found[index]
            except IndexError:
                raise Fault("E0305", f"index {index} is out of range for {len(found)} elements") from None
            except (TypeError, ValueError):
                raise Fault("E0203", "the bounds of a slice are integers, and its step is not 0") from None
        raise Fault("E0203", f"{describe(found)} cannot be indexed")

    def _slice(self, node: ast.Slice) -> slice:
        parts = [None if p is None else self.constant(p, "a constant bound")
                 for p in (node.lower, node.upper, node.step)]
        for part in parts:
            if part is not None and (not isinstance(part, int) or isinstance(part, bool)):
                raise Fault("E0203", f"a bound is an integer, not {describe(part)}")
        return slice(*parts)

    def _call(self, node: ast.Call) -> Any:
        expected, self.expected = self.expected, None
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        if not isinstance(node.func, ast.Name):
            raise Fault("E0110", "only functions are called, by name",
                        "* multiplies; a function is a def at the top level")
        try:
            called = self.lookup(node.func.id)
        except Fault as fault:
            raise self.located(fault, node.func) from None
        arguments = self._items(node.args)
        keywords: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise Fault("E0110", "** in a call is not part of the language")
            keywords[keyword.arg] = self.evaluate(keyword.value)
        self.arrays.span = self.span(node)
        if isinstance(called, Helper):
            try:
                return self.inline(called, arguments, keywords, node)
            except Fault as fault:
                raise self.located(fault, self._argument(node, fault)) from None
        if isinstance(called, DType):
            called = Function(called.name, lambda reader, x, _to=called: FUNCTIONS["astype"].build(reader, x, _to))
        if not isinstance(called, Function):
            raise Fault("E0110", f"'{node.func.id}' is {describe(called)}, not a function")
        try:
            self.expected = expected
            return called.build(self, *arguments, **keywords)
        except Fault as fault:
            self._seen = dict(zip(map(id, node.args), arguments, strict=False))
            raise self.located(fault, self._argument(node, fault), node.args) from None
        except TypeError as error:
            misfit = _misfit(called, keywords, str(error))
            raise self.located(misfit, self._argument(node, misfit)) from None
        finally:
            self.expected = None

    @staticmethod
    def _argument(node: ast.Call, fault: Fault) -> ast.expr | ast.keyword:
        """The keyword of the call that is at fault, or the call."""
        return next((k for k in node.keywords if k.arg == fault.operand), node)

    def _method(self, node: ast.Call, function: ast.Attribute) -> Any:
        if isinstance(function.value, ast.Name) and function.value.id in _MODULES \
                and function.value.id not in self.scope:
            raise Fault("E0110", f"'{function.value.id}.{function.attr}' is not ours to call",
                        f"the language's names stand alone: write {function.attr}(...)")
        found = self.evaluate(function.value)
        if isinstance(found, list) and function.attr == "append":
            if len(node.args) != 1 or node.keywords:
                raise Fault("E0202", "append takes one element")
            found.append(self.evaluate(node.args[0]))
            return None
        known = function.attr in FUNCTIONS or function.attr in self.library_names()
        raise Fault("E0110", f"'{function.attr}' is not a method of {describe(found)}",
                    f"write {function.attr}(x, ...) instead" if known else "")

    def inline(self, helper: Helper, arguments: list[Any], keywords: dict[str, Any], node: ast.Call) -> Any:
        """The body of a helper in place of its call."""
        raise NotImplementedError


def tensor_type(dtype: DType, index: Any) -> TensorType:
    """`f32[T, d]`."""
    shape = index if isinstance(index, tuple) else (index,)
    for n in shape:
        if isinstance(n, Value) or not isinstance(n, int) or isinstance(n, bool):
            raise Fault("E0114", f"a length in a type is a constant integer, not {describe(n)}")
        if n < 0 or n >= 2**62:
            raise Fault("E0114", f"a length of {n} in a type")
    made = TensorType(dtype, tuple(shape))
    if made.size >= 2**62:
        raise Fault("E0114", f"{matrix(made.shape)} has more elements than any machine can address")
    return made


def _misfit(called: Function, keywords: Iterable[str], message: str) -> Fault:
    """Python's complaint about a call, in our words."""
    usage = _USAGE.get(called.name, "")
    known = list(signature(called.build).parameters)[1:]
    for keyword in keywords:
        if keyword not in known:
            return Fault("E0202", f"{called.name} has no argument '{keyword}'", near(keyword, known) or usage, keyword)
    if ")" in message:
        message = message.split(")", 1)[1].strip()
    return Fault("E0202", f"{called.name} {message}".replace("reader, ", ""), usage)


_ATTRIBUTES: dict[str, Callable[[Expressions, Value], Any]] = {
    "T": lambda reader, x: _reversed(reader, x),
    "mT": lambda reader, x: reader.arrays.transpose(x),
    "shape": lambda reader, x: x.shape,
    "ndim": lambda reader, x: x.type.rank,
    "size": lambda reader, x: x.type.size,
    "dtype": lambda reader, x: x.dtype,
}


def _reversed(reader: Expressions, x: Value) -> Value:
    if x.type.rank > 2:
        raise Fault("E0109", f".T of {x.type.rank} axes is ambiguous", "write x.mT, or permute_dims(x, axes)")
    return reader.arrays.permute(x, tuple(reversed(range(x.type.rank))))


_MODULES = {"np", "numpy", "torch", "jnp", "jax", "math", "xp", "scipy", "os", "sys"}
_FOREIGN = {
    "true": "write True", "false": "write False", "null": "write None", "float32": "write f32", "float64": "write f64",
    "float16": "write f16", "bfloat16": "write bf16", "int32": "write i32", "int64": "write i64",
    "arcsin": "write asin", "arccos": "write acos", "arctan": "write atan", "arctan2": "write atan2",
    "concatenate": "write concat", "transpose": "write x.T, x.mT or permute_dims", "power": "write x ** y",
    "ln": "write log", "gamma": "write exp(lgamma(x))", "digamma": "write polygamma(0, x)",
    "dot": "write x @ y", "print": "a program has no side effects; return the value",
    "eval": "a program is never executed", "open": "a program reads no files", "einsum": "write @ and permute_dims",
}
_USAGE = {
    "sum": "sum(x, axis=None, keepdims=False)", "max": "max(x, axis=None, keepdims=False); maximum(a, b) elementwise",
    "min": "min(x, axis=None, keepdims=False); minimum(a, b) elementwise", "where": "where(condition, a, b)",
    "astype": "astype(x, dtype)", "reshape": "reshape(x, shape)", "concat": "concat([a, b], axis=0)",
    "stack": "stack([a, b], axis=0)", "zeros": "zeros(shape, dtype=f64)", "full": "full(shape, number, dtype=f64)",
    "arange": "arange(start, stop, step, dtype=i64)", "permute_dims": "permute_dims(x, axes)",
    "take_along_axis": "take_along_axis(x, indices, axis=-1)", "broadcast_to": "broadcast_to(x, shape)",
}
_OPERATORS: dict[type[ast.operator], str] = {ast.LShift: "<<", ast.RShift: ">>", ast.BitXor: "^"}
_SYNTAX: dict[type[ast.expr], str] = {
    ast.Lambda: "lambda", ast.Dict: "a dictionary", ast.Set: "a set", ast.DictComp: "a dictionary comprehension",
    ast.SetComp: "a set comprehension", ast.Await: "await", ast.Yield: "yield", ast.YieldFrom: "yield",
    ast.JoinedStr: "an f-string", ast.NamedExpr: "':='", ast.Starred: "'*' here",
}
_DISPATCH: dict[type[ast.expr], Callable[[Any, Any], Any]] = {
    ast.Constant: Expressions._constant_node, ast.Name: Expressions._name, ast.BinOp: Expressions._binary,
    ast.UnaryOp: Expressions._unary, ast.Compare: Expressions._compare, ast.BoolOp: Expressions._boolean,
    ast.IfExp: Expressions._conditional, ast.Tuple: Expressions._tuple, ast.List: Expressions._list,
    ast.ListComp: Expressions._comprehension, ast.GeneratorExp: Expressions._comprehension,
    ast.Attribute: Expressions._attribute, ast.Subscript: Expressions._subscript, ast.Slice: Expressions._slice,
    ast.Call: Expressions._call,
}

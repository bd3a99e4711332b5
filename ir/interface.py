"""A program's interface: its parameters become the inputs of the graph, what it returns the outputs."""

from __future__ import annotations

import ast
from typing import Any

from .diagnostics import Fault, SlpError
from .entities import POISON, Helper, Poisoned, describe
from .graph import DISTRIBUTIONS, Constant, Default, Distribution, Value
from .literals import rounded
from .statements import RESERVED, Statements
from .types import DTYPES, TensorType


class Interface(Statements):
    """Reads a program: its inputs, its statements, its outputs."""

    def inputs(self, program: Helper) -> None:
        """The program's parameters as inputs of the graph."""
        spec = program.definition.args
        if spec.vararg or spec.kwarg:
            raise self.source.error("E0105", "*args and **kwargs are not part of the language",
                                    self.source.characters(self.span(program.definition)))
        positional = [*spec.posonlyargs, *spec.args]
        defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(spec.defaults)), *spec.defaults]
        for parameter, default in zip(positional, defaults, strict=True):
            self._input(parameter, default, False)
        for parameter, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            self._input(parameter, default, True)

    def _input(self, parameter: ast.arg, default: ast.expr | None, data: bool) -> None:
        span = self.source.characters(self.span(parameter))
        self.scope[parameter.arg] = POISON
        try:
            if parameter.arg in RESERVED:
                raise self.source.error("E0112", f"'{parameter.arg}' is a name of the language and cannot be an input",
                                        span)
            if parameter.annotation is None:
                raise self.source.error("E0114", f"the input '{parameter.arg}' needs a type", span,
                                        f"write {parameter.arg}: f64, or {parameter.arg}: f32[3, 4]")
            declared = self.type(parameter.annotation)
            sample = None if default is None else self._default(default, declared)
            self.scope[parameter.arg] = self.builder.input(parameter.arg, declared, sample, data=data, span=span)
        except SlpError as error:
            self.report(error)
        except Fault as fault:
            self.report(self.source.error(fault.code, fault.message, span, fault.hint))
        except Poisoned:
            pass

    def _default(self, node: ast.expr, declared: TensorType) -> Default:
        """A number, or a distribution."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in DISTRIBUTIONS:
            numbers = [self.constant(a) for a in node.args]
            if len(numbers) != 2 or node.keywords or any(not isinstance(n, int | float) for n in numbers):
                raise self.located(Fault("E0115", f"{node.func.id} takes two numbers"), node)
            if declared.dtype.kind != ("int" if node.func.id == "integers" else "float"):
                raise self.located(Fault("E0115", f"{node.func.id} is no sample of {declared.dtype}",
                                         "integers(low, high) is for i32 and i64, normal and uniform for floating "
                                         "point"), node)
            return Distribution(node.func.id, (numbers[0], numbers[1]))
        found = self.evaluate(node)
        if isinstance(found, Constant):
            found = found.number
        if not isinstance(found, bool | int | float):
            raise self.located(Fault("E0115", f"a default is a number, normal(m, s), uniform(a, b) or integers(a, b), "
                                              f"not {describe(found)}"), node)
        try:
            return rounded(found, declared.dtype)
        except Fault as fault:
            raise self.located(fault, node) from None

    def returned(self, found: Any, node: ast.Return) -> tuple[list[Value], list[str]]:
        """The program's outputs, and the names that its return statement gives to inputs and constants among them."""
        items = list(found) if isinstance(found, tuple | list) else [found]
        places = list(node.value.elts) if isinstance(node.value, ast.Tuple | ast.List) else [node.value]
        if len(places) != len(items):  # a list or a tuple by its name
            places = [node.value] * len(items)
        outputs: list[Value] = []
        called: list[str] = []
        for position, (item, place) in enumerate(zip(items, places)):
            if isinstance(item, bool | int | float):
                item = self.builder.constant(item, DTYPES["bool" if isinstance(item, bool) else
                                                          "i64" if isinstance(item, int) else "f64"])
            if not isinstance(item, Value):
                told = "there is no value to return" if item is None else \
                    f"a program returns values, not {describe(item)}"
                raise self.source.error("E0113", told, self.source.characters(self.span(place or node)))
            given = place.id if isinstance(place, ast.Name) and len(items) == len(set(map(id, places))) else ""
            given = "" if given in RESERVED else given
            if not item.name and not isinstance(item, Constant):
                self.builder.name_value(item, given or f"out{position}")
            outputs.append(item)
            called.append(given if item.node is None and given != item.name else "")
        if not outputs:
            raise self.source.error("E0113", "the program returns nothing",
                                    self.source.characters(self.span(node)))
        return outputs, called

"""The names of the language with one line about each: for `slpc ops`, and for editors.

`python -m slpc.language` writes lang.pyi, the stub from which editors know what `slpc.lang` has.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from pathlib import Path
from typing import NamedTuple

from .ir.entities import Helper
from .ir.functions import FUNCTIONS
from .ir.graph import DISTRIBUTIONS
from .ir.ops import OPS
from .ir.parse import prelude
from .ir.source import Chunk
from .ir.types import DTYPES


class Row(NamedTuple):
    """One function of the language."""

    name: str
    family: str
    usage: str
    """The call, as in `sum(x, axis=None, keepdims=False)`."""
    doc: str
    derivatives: dict[str, str]
    """Of an elementwise operation: .slp text for each operand, over the operands, the result z and the seed g."""


_FAMILIES = {
    "elementwise": "elementwise", "view": "shapes: views, which cost nothing", "reduction": "reductions",
    "product": "products", "movement": "data movement", "collective": "several processes",
}
_MORE = {
    "shapes: views, which cost nothing": {
        "expand_dims": "a new axis of length 1", "squeeze": "axes of length 1 taken out",
        "moveaxis": "one axis moved to another place", "flip": "the order of elements reversed along axes",
    },
    "making arrays": {
        "zeros": "an array of zeros", "ones": "an array of ones", "full": "an array of one number",
        "zeros_like": "zeros of x's shape and dtype", "ones_like": "ones of x's shape and dtype",
        "eye": "ones on the k-th diagonal, zeros elsewhere", "tril": "x on and below the k-th diagonal, zeros above",
        "triu": "x on and above the k-th diagonal, zeros below",
    },
    "data movement": {
        "concat": "arrays end to end along an axis", "stack": "arrays along a new axis",
        "take": "x at an array of indices along one axis",
        "take_along_axis": "x at one index for each place of an axis",
    },
    "constants, gone when the program is read": {
        "range": "loop indices", "len": "the length of the first axis, or of a list", "zip": "pairs of two lists",
        "enumerate": "pairs of index and element", "list": "a list of a tuple or range", "tuple": "a tuple of a list",
        "reversed": "a list from its end", "int": "an integer constant; of a value: astype i64",
        "float": "a float constant; of a value: astype f64",
    },
}
_UNSPEAKABLE = {"slice", "gather", "region"}
"""Operations that are written as subscripts, `x[1:, 0]` and `x[i]`, or as the call of a helper under `@tile`."""


def functions() -> list[Row]:
    """All functions that a program can call, by family, in the order of the tables."""
    rows = [Row(op.name, _FAMILIES[op.family], _usage(op.name), op.doc, _derivatives(op.name))
            for op in OPS.values() if op.name not in _UNSPEAKABLE]
    rows += [Row(name, family, _usage(name), doc, {}) for family, names in _MORE.items() for name, doc in names.items()]
    rows += [Row(name, "written in the language itself", _signature(helper), _docstring(helper), {})
             for name, helper in prelude().items()]
    families = list(dict.fromkeys(row.family for row in rows))
    return sorted(rows, key=lambda row: families.index(row.family))


def _derivatives(name: str) -> dict[str, str]:
    op = OPS[name]
    return {operand: text or "none" for operand, text in zip(op.operands, op.derivatives)}


def _usage(name: str) -> str:
    """The call's arguments, as the function that builds it has them."""
    if name in OPS and OPS[name].elementwise and name != "astype":
        return f"{name}({', '.join(OPS[name].operands)})"
    parameters = [p for p in inspect.signature(FUNCTIONS[name].build).parameters.values() if p.name != "reader"]
    shown = []
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            if name not in ("sum", "max", "min"):
                shown.append(f"*{p.name}")
            continue
        shown.append(p.name if p.default is p.empty else f"{p.name}={p.default}")
    return f"{name}({', '.join(shown)})"


def _signature(helper: Helper) -> str:
    return f"{helper.name}({ast.unparse(helper.definition.args)})"


def _docstring(helper: Helper) -> str:
    """The string that a def of the prelude begins with, or what it returns."""
    first = helper.compound.body[0]
    assert isinstance(first, Chunk)
    statement = helper.source.parse_chunk(first)[0][0]
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    assert isinstance(statement, ast.Return) and statement.value is not None, f"{helper.name} has no docstring"
    return ast.unparse(statement.value)


# For editors -----------------------------------------------------------------------------------------------------

_STUB = '''"""The names of the language, for editors. Written by `python -m slpc.language`; a test keeps it fresh."""

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

class Value:
    """A value of a program."""

    shape: tuple[int, ...]
    ndim: int
    size: int
    dtype: Any
    T: Any
    mT: Any
    def __class_getitem__(cls, shape: Any) -> Any: ...
    def __getitem__(self, index: Any) -> Any: ...
'''
_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or")
_REFLECTED = (*_OPERATORS, *(f"r{name}" for name in _OPERATORS), "lt", "le", "gt", "ge")


def stub() -> str:
    """The text of lang.pyi."""
    lines = [_STUB.rstrip("\n")]
    lines += [f"    def __{name}__(self, other: Any) -> Any: ..." for name in _REFLECTED]
    lines += [f"    def __{name}__(self) -> Any: ..." for name in ("neg", "pos", "invert")]
    lines.append("")
    lines += [f"class {name}(Value): ..." for name in DTYPES if not hasattr(builtins, name)]
    lines += ["", *(f"{name}: float" for name in ("pi", "e", "inf", "nan")), "s_: Any", ""]
    lines += [f"def {name}(first: Any, second: Any) -> Any: ..." for name in DISTRIBUTIONS]
    lines += ["def scheduled(function: _Function) -> _Function: ...",
              "def donated(**outputs: str) -> Callable[[_Function], _Function]: ...",
              "def tile(**sizes: int) -> Callable[[_Function], _Function]: ...", ""]
    for row in functions():
        if not hasattr(builtins, row.name):
            lines += [f"def {_typed(row.usage)} -> Any:", f'    """{row.doc}"""']
    return "\n".join(lines) + "\n"


def _typed(usage: str) -> str:
    """The call as a signature: a constant's default is itself, a dtype's is left open."""
    tree = ast.parse(f"def {usage}: ...").body[0]
    assert isinstance(tree, ast.FunctionDef)
    arguments = tree.args
    for argument in (*arguments.args, *arguments.kwonlyargs, *filter(None, (arguments.vararg,))):
        argument.annotation = ast.Name("Any")
    arguments.defaults = [ast.Constant(...) if isinstance(d, ast.Name) else d for d in arguments.defaults]
    return f"{tree.name}({ast.unparse(arguments)})"


if __name__ == "__main__":
    Path(__file__).with_name("lang.pyi").write_text(stub(), "utf-8")

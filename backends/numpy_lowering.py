"""One lowering for each operation: the NumPy expression, or the lines, that compute its result."""

from __future__ import annotations

from collections.abc import Callable

from ..ir.graph import Constant, Node, Value
from ..ir.literals import text as literal_text
from ..ir.ops import OPS
from ..ir.shapes import disjoint
from ..ir.show import show_index
from ..ir.tables import rows
from ..ir.types import DType
from . import numpy_erf

Name = Callable[[Value], str]
"""The Python name of a value."""

SPECIAL = {"erf": "erf", "erfc": "erfc", "lgamma": "gammaln", "polygamma": "polygamma"}
"""What SciPy has and NumPy has not: `special.NAME`."""

_LOWERINGS: dict[str, Callable[[Node, list[str]], str | list[str]]] = {}


def needs_scipy(node: Node) -> bool:
    """Is it lowered to a function of SciPy's?"""
    return node.op.name in SPECIAL and not numpy_erf.fits(node)


def lowered() -> set[str]:
    """The operations that have a lowering."""
    return set(_LOWERINGS)


def lower(node: Node, name: Name) -> list[str]:
    """The lines that define the node's result."""
    operands = [constant_text(node, v) if isinstance(v, Constant) else name(v) for v in node.operands]
    target = name(node.results[0])
    found = _LOWERINGS[node.op.name](node, operands)
    if isinstance(found, str):
        return [f"{target} = {found}"]
    return [line.replace("{}", target) for line in found]


def dtype_text(dtype: DType) -> str:
    """The dtype as the module spells it."""
    return "bfloat16" if dtype.name == "bf16" else f"np.{dtype.numpy.name}" if dtype.kind != "bool" else "np.bool_"


def constant_text(node: Node, value: Constant) -> str:
    """A literal: weak where an array of its dtype stands beside it, else of its dtype."""
    group = node.operands[1:] if node.op.name == "where" else node.operands
    beside = any(not isinstance(v, Constant) for v in group)
    if beside and node.op.elementwise and value.dtype.name in ("f16", "f32", "f64", "bool"):
        return python_literal(value)
    return f"{dtype_text(value.dtype)}({python_literal(value)})"


def python_literal(value: Constant) -> str:
    """A Python expression for the number."""
    shown = literal_text(value.number, value.dtype)
    return shown.replace("inf", "np.inf").replace("nan", "np.nan") if shown.lstrip("-") in ("inf", "nan") else shown


_row = rows(_LOWERINGS)


# Elementwise -----------------------------------------------------------------------------------------------------

def _infix(node: Node, v: list[str]) -> str:
    if len(v) == 1:
        return f"{node.op.symbol}{v[0]}"
    left = f"({v[0]})" if node.op.symbol == "**" and v[0].startswith("-") else v[0]
    return f"{left} {node.op.symbol} {v[1]}"


def _function(node: Node, v: list[str]) -> str:
    name = node.op.name
    return f"special.{SPECIAL[name]}({', '.join(v)})" if name in SPECIAL else f"np.{name}({', '.join(v)})"


@_row("sigmoid")
def _sigmoid(node: Node, v: list[str]) -> str:
    """exp may overflow: the quotient is 0 then."""
    return f"1.0 / (1.0 + np.exp(-{v[0]}))"


@_row("erf")
def _erf(node: Node, v: list[str]) -> str:
    if not numpy_erf.fits(node):
        return _function(node, v)
    return (f"erf({v[0]}, np.empty({node.result.shape}, np.float32), "
            f"np.empty({numpy_erf.work_shape(node)}, np.float32))")


@_row("pow")
def _power(node: Node, v: list[str]) -> str:
    """NumPy refuses a negative power of integers, which is 0 unless the base is 1 or -1."""
    x, y = node.operands
    if node.results[0].dtype.is_float or (isinstance(y, Constant) and y.number >= 0):
        return _infix(node, v)
    return f"np.where(({v[1]} >= 0) | (abs({v[0]}) == 1), {v[0]} ** abs({v[1]}), {dtype_text(x.dtype)}(0))"


@_row("where")
def _where(node: Node, v: list[str]) -> str:
    return f"np.where({', '.join(v)})"


@_row("astype")
def _astype(node: Node, v: list[str]) -> str:
    if isinstance(node.operands[0], Constant):
        return f"{dtype_text(node.results[0].dtype)}({v[0]})"
    return f"{v[0]}.astype({dtype_text(node.attributes['dtype'])})"


# Views -----------------------------------------------------------------------------------------------------------

@_row("broadcast_to")
def _broadcast(node: Node, v: list[str]) -> str:
    return f"np.broadcast_to({v[0]}, {node.attributes['shape']})"


@_row("reshape")
def _reshape(node: Node, v: list[str]) -> str:
    return f"np.reshape({v[0]}, {node.attributes['shape']})"


@_row("permute_dims")
def _permute(node: Node, v: list[str]) -> str:
    axes = node.attributes["axes"]
    return f"{v[0]}.T" if axes == tuple(reversed(range(len(axes)))) else f"np.transpose({v[0]}, {axes})"


@_row("slice")
def _slice(node: Node, v: list[str]) -> str:
    return f"{v[0]}[{show_index(node.attributes['index'], node.operands[0].shape)}]"


@_row("stop_gradient")
def _same(node: Node, v: list[str]) -> str:
    return v[0]


# Reductions and products -----------------------------------------------------------------------------------------

def _axes(axes: tuple[int, ...]) -> str:
    return str(axes[0]) if len(axes) == 1 else str(axes)


@_row("sum")
def _sum(node: Node, v: list[str]) -> str:
    kept = f", dtype={dtype_text(node.results[0].dtype)}" if node.results[0].dtype.kind == "int" else ""
    return f"np.sum({v[0]}, axis={_axes(node.attributes['axis'])}{kept})"


@_row("max min")
def _extremum(node: Node, v: list[str]) -> str:
    name = node.op.name
    if node.results[0].dtype.kind == "bool":
        name = {"max": "any", "min": "all"}[name]
    return f"np.{name}({v[0]}, axis={_axes(node.attributes['axis'])})"


@_row("cumsum")
def _cumsum(node: Node, v: list[str]) -> str:
    return f"np.cumsum({v[0]}, axis={node.attributes['axis']}, dtype={dtype_text(node.results[0].dtype)})"


@_row("matmul")
def _matmul(node: Node, v: list[str]) -> str:
    return f"{v[0]} @ {v[1]}"


# Data movement ---------------------------------------------------------------------------------------------------

@_row("copy")
def _copy(node: Node, v: list[str]) -> str:
    return f"np.array({v[0]}, order=\"C\")"


@_row("arange")
def _arange(node: Node, v: list[str]) -> str:
    a = node.attributes
    if a["dtype"].kind == "int":
        return f"np.arange({a['start']}, {a['stop']}, {a['step']}, dtype={dtype_text(a['dtype'])})"
    return f"np.arange({a['start']}, {a['stop']}, {a['step']}).astype({dtype_text(a['dtype'])})"


@_row("gather")
def _gather(node: Node, v: list[str]) -> str:
    """NumPy's indexing, which copies; but what scalars alone index is a view, and the result must be its own."""
    taken = f"{v[0]}[{', '.join(v[1:])}]"
    return taken if node.operands[1].shape or not node.results[0].shape else f"{taken}.copy()"


@_row("scatter_add")
def _scatter(node: Node, v: list[str]) -> list[str]:
    index = v[1] if len(v) == 2 else f"({', '.join(v[1:])})"
    return [f"{{}} = np.zeros({node.attributes['shape']}, {dtype_text(node.results[0].dtype)})",
            f"np.add.at({{}}, {index}, {v[0]})"]


@_row("place")
def _place(node: Node, v: list[str]) -> list[str]:
    shape, at = node.attributes["shape"], node.attributes["at"]
    dtype = dtype_text(node.results[0].dtype)
    apart = disjoint(at)
    covered = apart and sum(o.type.size for o in node.operands) == node.results[0].type.size
    lines = [f"{{}} = np.{'empty' if covered else 'zeros'}({shape}, {dtype})"]
    for piece, index in zip(v, at, strict=True):
        lines.append(f"{{}}[{show_index(index, shape)}] {'=' if apart else '+='} {piece}")
    return lines


for _op in OPS.values():
    if _op.elementwise:
        _LOWERINGS.setdefault(_op.name, _infix if _op.symbol else _function)

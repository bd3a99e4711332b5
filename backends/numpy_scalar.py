"""Programs of float64 scalars on Python's own floats, which is many times faster than NumPy's scalars.

The results are IEEE's: where Python raises (1 / 0, exp(1000), log(-1)) the caller runs the call again on NumPy.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ir.graph import Constant, Graph, Node, Value
from .numpy_lowering import python_literal

_MATH = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt", "sin", "cos", "tan", "asin", "acos",
    "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "hypot", "erf", "erfc", "lgamma",
}
_ROUNDING = {"floor", "ceil", "round", "sign"}
_LOGIC = {"logical_and": "and", "logical_or": "or"}


def fits(graph: Graph) -> bool:
    """Can the whole program run on Python floats? Every value a scalar of f64 or bool, every operation known here."""
    return any(True for _ in graph.nodes) and all(
        not v.shape and v.dtype.name in ("f64", "bool") for v in graph.values()) and all(
        _lowered(node, [""] * len(node.operands)) is not None for node in graph.nodes)


def math_names(graph: Graph) -> list[str]:
    """The functions of `math` that the program's lines use."""
    return sorted({"exp" if n.op.name == "sigmoid" else n.op.name for n in graph.nodes
                   if n.op.name in _MATH or n.op.name in ("pow", "sigmoid")})


def line(node: Node, name: Callable[[Value], str]) -> str:
    """The line that defines the node's result on Python floats."""
    operands = [python_literal(v) if isinstance(v, Constant) else name(v) for v in node.operands]
    return f"{name(node.results[0])} = {_lowered(node, operands)}"


def _lowered(node: Node, v: list[str]) -> str | None:
    op = node.op
    if op.name in _MATH:
        return f"{op.name}({', '.join(v)})"
    if op.name == "sigmoid":
        return f"1.0 / (1.0 + exp(-{v[0]}))"
    if op.name == "pow":
        return f"pow({v[0]}, {v[1]})"  # math.pow: x ** y would be complex for a negative x
    if op.name in _ROUNDING:
        return f"float(np.{op.name}({v[0]}))"  # signed zeros and infinities, which Python's own lose
    if op.name == "abs":
        return f"abs({v[0]})"
    if op.name in ("maximum", "minimum"):
        sign = ">=" if op.name == "maximum" else "<="
        return f"{v[0]} if {v[0]} {sign} {v[1]} or {v[0]} != {v[0]} else {v[1]}"
    if op.name == "where":
        return f"{v[1]} if {v[0]} else {v[2]}"
    if op.name in _LOGIC:
        return f"{v[0]} {_LOGIC[op.name]} {v[1]}"
    if op.name == "logical_not":
        return f"not {v[0]}"
    if op.name == "astype":
        return f"{v[0]} != 0.0" if node.results[0].dtype.kind == "bool" else f"float({v[0]})"
    if op.name in ("reshape", "broadcast_to", "stop_gradient", "copy"):
        return v[0]
    if op.symbol and op.name not in ("matmul", "floor_divide", "mod"):
        return f"{op.symbol}{v[0]}" if len(v) == 1 else f"{v[0]} {op.symbol} {v[1]}"
    return None

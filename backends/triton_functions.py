"""One row for each operation in a Triton kernel: the expression that computes it of f32, f64, integers or bools.

float16 and bfloat16 are stored so and computed in float32; only `astype` rounds to them in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..ir.graph import Constant, Node
from ..ir.ops import OPS
from ..ir.tables import rows
from ..ir.types import DType

_COMPUTED = {"f16": "tl.float32", "bf16": "tl.float32", "f32": "tl.float32", "f64": "tl.float64", "i32": "tl.int32",
             "i64": "tl.int64", "bool": "tl.int1"}
_STORED = {**_COMPUTED, "f16": "tl.float16", "bf16": "tl.bfloat16"}

LIBRARY = {"tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan", "atan2": "atan2", "hypot": "hypot",
           "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "asinh", "acosh": "acosh", "atanh": "atanh",
           "expm1": "expm1", "log1p": "log1p", "log10": "log10", "cbrt": "cbrt", "erfc": "erfc", "lgamma": "lgamma",
           "pow": "pow", "round": "rint"}
"""What the device's library of mathematics has and Triton has not: `libdevice.NAME`. Of floats alone."""

HELPERS = {
    "larger": """\
@triton.jit
def larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)""",
    "smaller": """\
@triton.jit
def smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)""",
    "short_erf": """\
@triton.jit
def short_erf(x):
    \"\"\"erf(x) to 3e-6, and to 4e-4 of itself: half the instructions of tl.erf, enough for results of 16 bits.\"\"\"
    a = tl.minimum(tl.abs(x), 8.0)
    q = 0.0012128802 * a - 0.0139243472
    q = q * a + 0.070395954
    q = q * a - 0.2129786760
    q = q * a + 0.4491916001
    q = q * a - 0.7352325916
    q = q * a + 0.9971163273
    q = q * a - 1.1281912327
    q = q * a + 0.9999979734
    far = 1.0 - tl.exp(-(x * x)) * q
    return tl.where(a < 0.03, 1.1283791671 * x, tl.where(x < 0, -far, far))""",
}
"""Functions that kernels call. In short_erf q(a) is the polynomial of degree 8 that comes nearest to exp(a^2) erfc(a)
from 0 to 5 in the weight exp(-a^2) (Lawson's iteration)."""

Lowering = Callable[[Node, Sequence[str]], str]
_LOWERINGS: dict[str, Lowering] = {}


def fusible(node: Node) -> bool:
    """Is there code for an operation inside a kernel?"""
    name = node.op.name
    if all(isinstance(v, Constant) for v in node.operands):
        return name == "arange"
    if name in ("max", "min"):
        return node.result.dtype.name != "bool"
    if name in LIBRARY or name in ("floor_divide", "mod"):
        return node.result.dtype.is_float and name in _LOWERINGS
    return name in _LOWERINGS or name in ("copy", "arange", "sum", "gather", "scatter_add")


def expression(node: Node, operands: Sequence[str]) -> str:
    """The expression of an elementwise operation, of names or literals."""
    return _LOWERINGS[node.op.name](node, operands)


def computed(dtype: DType) -> str:
    """The Triton type in which values of the dtype are computed."""
    return _COMPUTED[dtype.name]


def literal(value: Constant) -> str:
    """A Python number, which takes the type of what it meets."""
    number = value.number
    if isinstance(number, float) and not math.isfinite(number):
        return f'float("{number}")'
    return repr(number)


_row = rows(_LOWERINGS)


@_row("add subtract multiply less less_equal greater greater_equal equal not_equal")
def _infix(node: Node, v: Sequence[str]) -> str:
    return f"{v[0]} {node.op.symbol} {v[1]}"


@_row("divide")
def _divide(node: Node, v: Sequence[str]) -> str:
    """Rounded to nearest where the result is stored with all its digits."""
    if node.result.dtype.name != "f32":
        return f"{v[0]} / {v[1]}"
    a, b = (x if not isinstance(o, Constant) else f"tl.full((1, 1), {x}, tl.float32)"
            for o, x in zip(node.operands, v, strict=True))
    return f"tl.div_rn({a}, {b})"


@_row("negative")
def _negative(node: Node, v: Sequence[str]) -> str:
    return f"-{v[0]}"


@_row("erf")
def _erf(node: Node, v: Sequence[str]) -> str:
    return f"short_erf({v[0]})" if node.result.dtype.name in ("f16", "bf16") else f"tl.erf({v[0]})"


@_row("abs floor ceil exp exp2 log log2 sin cos sigmoid")
def _function(node: Node, v: Sequence[str]) -> str:
    return f"tl.{node.op.name}({v[0]})"


@_row("sqrt")
def _sqrt(node: Node, v: Sequence[str]) -> str:
    return f"tl.sqrt_rn({v[0]})" if node.result.dtype.name == "f32" else f"tl.sqrt({v[0]})"


@_row(" ".join(LIBRARY))
def _library(node: Node, v: Sequence[str]) -> str:
    dtype = computed(node.result.dtype)  # a number by itself would be one of 32 bits
    v = [f"tl.full((), {text}, {dtype})" if isinstance(o, Constant) else text
         for o, text in zip(node.operands, v, strict=True)]
    return f"libdevice.{LIBRARY[node.op.name]}({', '.join(v)})"


@_row("sign")
def _sign(node: Node, v: Sequence[str]) -> str:
    one, zero = ("1.0", "0.0") if node.result.dtype.is_float else ("1", "0")
    x = v[0]
    return f"tl.where({x} > {zero}, {one}, tl.where({x} < {zero}, -{one}, {x}))"


@_row("maximum minimum")
def _extremum(node: Node, v: Sequence[str]) -> str:
    more = ", propagate_nan=tl.PropagateNan.ALL" if node.result.dtype.is_float else ""
    return f"tl.{node.op.name}({v[0]}, {v[1]}{more})"


@_row("logical_and logical_or")
def _logic(node: Node, v: Sequence[str]) -> str:
    return f"{v[0]} {OPS[node.op.name].symbol} {v[1]}"


@_row("logical_not")
def _not(node: Node, v: Sequence[str]) -> str:
    return f"{v[0]} == 0"


@_row("where")
def _where(node: Node, v: Sequence[str]) -> str:
    return f"tl.where({', '.join(v)})"


@_row("astype")
def _astype(node: Node, v: Sequence[str]) -> str:
    before, after = node.operands[0].dtype, node.result.dtype
    if after.name == "bool":
        return f"{v[0]} != 0"
    if after.name in ("f16", "bf16") and before is not after:
        narrow = ".to(tl.float32)" if before.name == "f64" else ""
        return f"{v[0]}{narrow}.to({_STORED[after.name]}).to(tl.float32)"
    return v[0] if computed(before) == computed(after) else f"{v[0]}.to({computed(after)})"

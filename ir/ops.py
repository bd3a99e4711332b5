"""Every operation, one row each: this page is the whole of what a program can say.

A row has the operation's name (NumPy's), its operands, the dtypes it takes, its shape rule, what it costs, and, where
it is elementwise, its derivatives: one .slp expression for each operand, over the operands by name, the result `z`
and the seed `g`. The Jacobian of an elementwise operation is diagonal, so tangent and adjoint read the same text.
`None` says that the operation has no derivative in that operand, `"0"` that it is zero.

A derivative `where(c, t, 0)` or `where(c, 0, t)` also says where the derivative lives: the condition follows the
cotangent (passes/masks.py).

Weights are flops an element, such that value and gradient together cost at most 5 times the value (Baur and Strassen
1983, Theorem 1; Griewank and Walther 2008, section 4.6): a transcendental function weighs 10, a division 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from . import shapes
from .diagnostics import Fault
from .shapes import Attributes, Types
from .types import Kind, TensorType

Domain = Literal["any", "number", "float", "bool", "mixed"]
Family = Literal["elementwise", "view", "reduction", "product", "movement", "collective", "region"]

_ALL: tuple[Kind, ...] = ("float", "int", "bool")
_KINDS: dict[Domain, tuple[Kind, ...]] = {
    "any": _ALL, "mixed": _ALL, "number": ("float", "int"), "float": ("float",), "bool": ("bool",),
}
_NEEDS: dict[Domain, tuple[str, str]] = {
    "float": ("floating point", "convert it first, for example astype(x, f64)"),
    "number": ("numbers", "write where(x, 1.0, 0.0) or astype(x, f64)"),
    "bool": ("bool", "write a comparison, for example x != 0"),
}
"""What to say of an operand of another kind: what is needed, and what to write instead."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One row. There is a single instance of each, so identity is equality."""

    name: str
    operands: tuple[str, ...]
    family: Family
    rule: Callable[[Types, Attributes], TensorType]
    doc: str
    domain: Domain = "any"
    derivatives: tuple[str | None, ...] = ()
    weight: int = 1
    symbol: str = ""
    attributes: tuple[str, ...] = ()
    variadic: bool = False

    @cached_property
    def elementwise(self) -> bool:
        return self.family == "elementwise"

    @cached_property
    def view(self) -> bool:
        """A view owns no memory and costs nothing."""
        return self.family == "view"

    def infer(self, types: Types, attributes: Attributes) -> TensorType:
        """The result's type; Fault (E03xx) where the operands do not fit."""
        if len(types) != len(self.operands) and not (self.variadic and len(types) >= len(self.operands)):
            raise Fault("E0201", f"{self.name} takes {len(self.operands)} operands, not {len(types)}")
        kinds = _KINDS[self.domain]
        for operand, t in enumerate(types):
            if t.dtype.kind not in kinds:
                needed, hint = _NEEDS[self.domain]
                raise Fault("E0302", f"{self.name} needs {needed}, not {t.dtype}", hint, operand)
        return self.rule(types, attributes)

    def flops(self, types: Types, result: TensorType, attributes: Attributes) -> int:
        """Arithmetic operations: weight per element of the result, or of the operand for a reduction."""
        if self.family == "elementwise":
            return self.weight * result.size
        if self.family == "reduction":
            return self.weight * types[0].size
        if self.family == "product":
            return 2 * result.size * types[0].shape[-1]
        if self.name == "scatter_add":
            return types[0].size
        if self.name == "place":
            return max(0, sum(t.size for t in types) - result.size)
        return 0

    def moved(self, result: TensorType) -> int:
        """Elements copied without arithmetic: what data movement costs."""
        return result.size if self.family == "movement" else 0


OPS: dict[str, Operation] = {}

LN2 = math.log(2.0)
LN10 = math.log(10.0)
TWO_OVER_SQRT_PI = 2.0 / math.sqrt(math.pi)


def _row(operation: Operation) -> None:
    assert operation.name not in OPS, operation.name
    OPS[operation.name] = operation


def _unary(name: str, derivative: str, doc: str, weight: int = 10, domain: Domain = "float",
           symbol: str = "") -> None:
    _row(Operation(name, ("x",), "elementwise", shapes.same, doc, domain, (derivative,), weight, symbol))


def _binary(name: str, dx: str | None, dy: str | None, doc: str, weight: int = 1,
            domain: Domain = "number", symbol: str = "") -> None:
    _row(Operation(name, ("x", "y"), "elementwise", shapes.same, doc, domain, (dx, dy), weight, symbol))


def _compare(name: str, symbol: str, doc: str) -> None:
    _row(Operation(name, ("x", "y"), "elementwise", shapes.compare, doc, "any", ("0", "0"), 1, symbol))


# Arithmetic ----------------------------------------------------------------------------------------------------
_binary("add", "g", "g", "x + y", symbol="+")
_binary("subtract", "g", "-g", "x - y", symbol="-")
_binary("multiply", "g * y", "g * x", "x * y", symbol="*")
_binary("divide", "g / y", "-(g / y * z)", "x / y", 3, "float", "/")
_binary("floor_divide", "0", "0", "floor(x / y)", 3, symbol="//")
_binary("mod", "g", "-(g * (x // y))", "x - y * floor(x / y); the sign of y", 4, symbol="%")
_binary("pow", "where(y == 0, 0, g * (y * x ** (y - 1)))", "where((x == 0) & (y > 0), 0, g * (z * log(x)))",
        "x ** y; of integers to a negative power cut to an integer", 20, symbol="**")
_unary("negative", "-g", "-x", 1, "number", "-")
_unary("abs", "g * sign(x)", "absolute value", 1, "number")
_unary("sign", "0", "-1, 0 or 1", 1, "number")
_binary("maximum", "where(x >= y, where(x == y, 0.5 * g, g), 0)", "where(y >= x, where(x == y, 0.5 * g, g), 0)",
        "the larger, element by element; NaN where either is", 3)
_binary("minimum", "where(x <= y, where(x == y, 0.5 * g, g), 0)", "where(y <= x, where(x == y, 0.5 * g, g), 0)",
        "the smaller, element by element; NaN where either is", 3)
_unary("floor", "0", "the largest integer that is not above x", 1)
_unary("ceil", "0", "the smallest integer that is not below x", 1)
_unary("round", "0", "the nearest integer, ties to even", 1)

# Exponentials and logarithms -----------------------------------------------------------------------------------
_unary("exp", "g * z", "e ** x")
_unary("exp2", f"g * (z * {LN2!r})", "2 ** x")
_unary("expm1", "g * (z + 1)", "exp(x) - 1, accurate near 0")
_unary("log", "g / x", "natural logarithm")
_unary("log2", f"g / (x * {LN2!r})", "logarithm to base 2")
_unary("log10", f"g / (x * {LN10!r})", "logarithm to base 10")
_unary("log1p", "g / (1 + x)", "log(1 + x), accurate near 0")
_unary("sqrt", "g / (2 * z)", "square root", 3)
_unary("cbrt", "g / (3 * (z * z))", "cube root")

# Trigonometry --------------------------------------------------------------------------------------------------
_unary("sin", "g * cos(x)", "sine")
_unary("cos", "-(g * sin(x))", "cosine")
_unary("tan", "g * (1 + z * z)", "tangent")
_unary("asin", "g / sqrt((1 - x) * (1 + x))", "inverse sine")
_unary("acos", "-(g / sqrt((1 - x) * (1 + x)))", "inverse cosine")
_unary("atan", "g / (1 + x * x)", "inverse tangent")
_binary("atan2", "g * (y / (x * x + y * y))", "-(g * (x / (x * x + y * y)))", "angle of the point (y, x)",
        10, "float")
_binary("hypot", "where(z == 0, 0, g * (x / z))", "where(z == 0, 0, g * (y / z))", "sqrt(x**2 + y**2)", 10, "float")

# Hyperbolic functions ------------------------------------------------------------------------------------------
_unary("sinh", "g * cosh(x)", "hyperbolic sine")
_unary("cosh", "g * sinh(x)", "hyperbolic cosine")
_unary("tanh", "g * (1 - z * z)", "hyperbolic tangent")
_unary("asinh", "g / hypot(x, 1)", "inverse hyperbolic sine")
_unary("acosh", "g / sqrt((x - 1) * (x + 1))", "inverse hyperbolic cosine")
_unary("atanh", "g / ((1 - x) * (1 + x))", "inverse hyperbolic tangent")
_unary("sigmoid", "g * (z * (1 - z))", "1 / (1 + exp(-x)), the logistic function")

# Special functions ---------------------------------------------------------------------------------------------
_unary("erf", f"g * ({TWO_OVER_SQRT_PI!r} * exp(-(x * x)))", "error function")
_unary("erfc", f"-(g * ({TWO_OVER_SQRT_PI!r} * exp(-(x * x))))", "1 - erf(x), accurate for large x")
_unary("lgamma", "g * polygamma(0, x)", "log of the absolute value of the gamma function", 20)
_row(Operation("polygamma", ("n", "x"), "elementwise", shapes.same,
               "derivative n + 1 of lgamma at x; polygamma(0, x) is the digamma function", "float",
               (None, "g * polygamma(n + 1, x)"), 20))

# Comparisons and logic -----------------------------------------------------------------------------------------
_compare("less", "<", "x < y")
_compare("less_equal", "<=", "x <= y")
_compare("greater", ">", "x > y")
_compare("greater_equal", ">=", "x >= y")
_compare("equal", "==", "x == y")
_compare("not_equal", "!=", "x != y")
_binary("logical_and", "0", "0", "x and y", 1, "bool", "&")
_binary("logical_or", "0", "0", "x or y", 1, "bool", "|")
_unary("logical_not", "0", "not x", 1, "bool", "~")
_row(Operation("where", ("c", "x", "y"), "elementwise", shapes.choose, "x where c holds, y elsewhere", "mixed",
               ("0", "where(c, g, 0)", "where(c, 0, g)")))
_row(Operation("astype", ("x",), "elementwise", shapes.cast, "conversion to another dtype",
               derivatives=("g",), attributes=("dtype",)))

# Views: they own no memory -------------------------------------------------------------------------------------
_row(Operation("broadcast_to", ("x",), "view", shapes.broadcast, "x repeated to a larger shape", attributes=("shape",)))
_row(Operation("reshape", ("x",), "view", shapes.reshape, "the elements of x, row by row, in another shape",
               attributes=("shape",)))
_row(Operation("permute_dims", ("x",), "view", shapes.permute, "axes in another order; x.T, x.mT",
               attributes=("axes",)))
_row(Operation("slice", ("x",), "view", shapes.take_slice, "x[1:, ::2, 0] with constant bounds", attributes=("index",)))
_row(Operation("stop_gradient", ("x",), "view", shapes.same, "x, as a constant to differentiation"))

# Reductions ----------------------------------------------------------------------------------------------------
_row(Operation("sum", ("x",), "reduction", shapes.reduce, "sum over axes", "number", attributes=("axis",)))
_row(Operation("max", ("x",), "reduction", shapes.extremum, "largest over axes; of bool: any", attributes=("axis",),
               weight=2))
_row(Operation("min", ("x",), "reduction", shapes.extremum, "smallest over axes; of bool: all", attributes=("axis",),
               weight=2))
_row(Operation("cumsum", ("x",), "reduction", shapes.scan, "running sums along an axis", "number",
               attributes=("axis",)))

# Products ------------------------------------------------------------------------------------------------------
_row(Operation("matmul", ("x", "y"), "product", shapes.matmul, "matrix product, batched over leading axes", "number",
               symbol="@"))

# Data movement -------------------------------------------------------------------------------------------------
_row(Operation("copy", ("x",), "movement", shapes.same, "x in memory of its own, row by row"))
_row(Operation("place", ("x",), "movement", shapes.place,
               "zeros of a shape with each operand added at its constant index: concat, stack, pad; the transpose of "
               "slices", attributes=("at", "shape"), variadic=True))
_row(Operation("gather", ("x", "i"), "movement", shapes.gather, "x[i, j] with integer arrays for the leading axes",
               "mixed", variadic=True))
_row(Operation("scatter_add", ("x", "i"), "movement", shapes.scatter_add,
               "zeros of a shape with x added at [i, j]: the transpose of gather", "mixed", attributes=("shape",),
               variadic=True))
_row(Operation("arange", (), "movement", shapes.arange, "start, start + step, ... below stop", "mixed",
               attributes=("start", "stop", "step", "dtype")))

# Several processes ---------------------------------------------------------------------------------------------
_row(Operation("all_reduce", ("x",), "collective", shapes.same,
               "begins the sum of x over so many processes; only `wait` may read it", "float",
               attributes=("processes",)))
_row(Operation("wait", ("x",), "collective", shapes.same, "what an all_reduce sums, once it is there", "float"))

# Regions: a body of operations, by blocks of rows (ir/rows.py) ----------------------------------------------------
_row(Operation("region", (), "region", shapes.region, "a helper under @tile: its body, block by block of its rows",
               attributes=("body",), variadic=True))

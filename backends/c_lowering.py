"""One row for each operation on scalars: the C99 expression that computes its result.

The functions of mathematics are the C library's. Integers wrap around, by way of unsigned arithmetic, and a division
by 0 gives 0. What C has no expression for is a small static function, emitted where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..ir.graph import Constant, Node
from ..ir.tables import rows
from ..ir.types import DType

TYPES = {"f64": "double", "f32": "float", "i64": "int64_t", "i32": "int32_t", "bool": "bool"}
"""What C99 computes with; it has no narrower floating point."""

Lowering = Callable[[Node, Sequence[str]], str]
_LOWERINGS: dict[str, Lowering] = {}

HELPERS: dict[str, str] = {}
"""Static functions by name."""


def lowered() -> set[str]:
    """The operations that have a lowering."""
    return set(_LOWERINGS)


def lower(node: Node, operands: Sequence[str]) -> str:
    """The expression for the node's result."""
    return _LOWERINGS[node.op.name](node, operands)


def literal(constant: Constant) -> str:
    """A constant of its dtype, exact: floating point in hexadecimal."""
    number, name = constant.number, constant.dtype.name
    if name == "bool":
        return "true" if number else "false"
    if constant.dtype.kind == "int":
        if number == -(2**63 if name == "i64" else 2**31):
            return f"INT{8 * constant.dtype.bytes}_MIN"
        return f"INT64_C({number})" if name == "i64" else str(number)
    value = float(number)
    suffix = "f" if name == "f32" else ""
    if math.isnan(value):
        return f"({TYPES[name]})NAN"
    if math.isinf(value):
        return f"({'-' if value < 0 else ''}({TYPES[name]})INFINITY)"
    if value == int(value) and abs(value) < 1e15:
        shown = f"{value:.1f}{suffix}"
    else:
        shown = f"{value.hex()}{suffix}"
    return f"({shown})" if shown.startswith("-") else shown


_row = rows(_LOWERINGS)


def _helper(name: str, text: str) -> str:
    HELPERS[name] = text
    return name


def _dtype(node: Node) -> DType:
    return node.results[0].dtype


def _single(node: Node) -> str:
    """The suffix of the C library's functions of float."""
    return "f" if _dtype(node).name == "f32" else ""


# Arithmetic ------------------------------------------------------------------------------------------------------

_SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}


@_row("add subtract multiply divide")
def _infix(node: Node, v: Sequence[str]) -> str:
    symbol, dtype = _SYMBOLS[node.op.name], _dtype(node)
    if dtype.is_float:
        return f"{v[0]} {symbol} {v[1]}"
    kind = TYPES[dtype.name]
    return f"({kind})((u{kind}){v[0]} {symbol} (u{kind}){v[1]})"


@_row("negative")
def _negative(node: Node, v: Sequence[str]) -> str:
    kind = TYPES[_dtype(node).name]
    return f"-{v[0]}" if _dtype(node).is_float else f"({kind})(0u - (u{kind}){v[0]})"


@_row("abs")
def _abs(node: Node, v: Sequence[str]) -> str:
    if _dtype(node).is_float:
        return f"fabs{_single(node)}({v[0]})"
    return f"{v[0]} < 0 ? {_negative(node, v)} : {v[0]}"


@_row("sign")
def _sign(node: Node, v: Sequence[str]) -> str:
    kind = TYPES[_dtype(node).name]
    return f"{v[0]} > 0 ? ({kind})1 : {v[0]} < 0 ? ({kind})-1 : {v[0]} == 0 ? ({kind})0 : {v[0]}"


@_row("maximum minimum")
def _extremum(node: Node, v: Sequence[str]) -> str:
    name, dtype = node.op.name, _dtype(node)
    symbol = ">" if name == "maximum" else "<"
    if not dtype.is_float:
        return f"{v[0]} {symbol} {v[1]} ? {v[0]} : {v[1]}"
    kind = TYPES[dtype.name]
    zero = "signbit(a) ? b : a" if name == "maximum" else "signbit(a) ? a : b"
    helper = _helper(f"slpc_{name}_{dtype}", f"""\
static {kind} slpc_{name}_{dtype}({kind} a, {kind} b)
{{
    return a {symbol} b ? a : b {symbol} a ? b : a == b ? ({zero}) : a + b;
}}
""")
    return f"{helper}({v[0]}, {v[1]})"


@_row("floor ceil round")
def _rounding(node: Node, v: Sequence[str]) -> str:
    return f"{'rint' if node.op.name == 'round' else node.op.name}{_single(node)}({v[0]})"


@_row("mod floor_divide")
def _division(node: Node, v: Sequence[str]) -> str:
    dtype = _dtype(node)
    kind, single, name = TYPES[dtype.name], _single(node), f"slpc_{node.op.name}_{dtype}"
    if dtype.is_float and node.op.name == "mod":
        body = f"""\
    const {kind} r = fmod{single}(a, b);
    return b == 0 ? r : r == 0 ? copysign{single}(0, b) : (r < 0) != (b < 0) ? r + b : r;"""
    elif dtype.is_float:
        body = f"""\
    const {kind} r = fmod{single}(a, b);
    const {kind} q = (a - r) / b - (r != 0 && (r < 0) != (b < 0) ? 1 : 0);
    const {kind} low = floor{single}(q);
    return b == 0 ? a / b : q == 0 ? copysign{single}(0, a / b) : q - low > 0.5{single} ? low + 1 : low;"""
    elif node.op.name == "mod":
        body = """\
    if (b == 0 || b == -1)
        return 0;
    return a % b != 0 && (a % b < 0) != (b < 0) ? a % b + b : a % b;"""
    else:
        body = f"""\
    if (b == 0)
        return 0;
    if (b == -1)
        return ({kind})(0u - (u{kind})a);
    return a / b - (a % b != 0 && (a % b < 0) != (b < 0));"""
    helper = _helper(name, f"static {kind} {name}({kind} a, {kind} b)\n{{\n{body}\n}}\n")
    return f"{helper}({v[0]}, {v[1]})"


# Functions -------------------------------------------------------------------------------------------------------

_LIBRARY = frozenset("""
    exp exp2 expm1 log log2 log10 log1p cbrt sin cos tan asin acos atan atan2 hypot sinh cosh tanh asinh acosh atanh
    erf erfc lgamma
""".split())  # noqa: SIM905


def _function(node: Node, v: Sequence[str]) -> str:
    """float32 is computed in double and rounded once more."""
    call = f"{node.op.name}({', '.join(v)})"
    return f"(float){call}" if _dtype(node).name == "f32" else call


for _name in sorted(_LIBRARY):
    _row(_name)(_function)


@_row("sigmoid")
def _sigmoid(node: Node, v: Sequence[str]) -> str:
    """exp may overflow: the quotient is 0 then."""
    quotient = f"1.0 / (1.0 + exp(-{v[0]}))"
    return f"(float)({quotient})" if _dtype(node).name == "f32" else quotient


@_row("sqrt")
def _sqrt(node: Node, v: Sequence[str]) -> str:
    return f"sqrt{_single(node)}({v[0]})"


@_row("pow")
def _pow(node: Node, v: Sequence[str]) -> str:
    dtype = _dtype(node)
    if dtype.is_float:
        call = f"pow({v[0]}, {v[1]})"
        return f"(float){call}" if dtype.name == "f32" else call
    kind = TYPES[dtype.name]
    name = _helper(f"slpc_pow_{dtype}", f"""\
static {kind} slpc_pow_{dtype}({kind} x, {kind} n)
{{
    u{kind} result = 1, base = (u{kind})x;
    if (n < 0)
        return x == 1 ? 1 : x == -1 ? (n % 2 != 0 ? -1 : 1) : 0;
    for (; n > 0; n /= 2) {{
        if (n % 2 != 0)
            result *= base;
        base *= base;
    }}
    return ({kind})result;
}}
""")
    return f"{name}({v[0]}, {v[1]})"


@_row("polygamma")
def _polygamma(node: Node, v: Sequence[str]) -> str:
    """As backends/llvm_polygamma.py has it, in plain doubles."""
    call = f"{_helper('slpc_polygamma', _POLYGAMMA)}({', '.join(v)})"
    return f"(float){call}" if _dtype(node).name == "f32" else call


_POLYGAMMA = """\
/* Hurwitz's zeta function by Euler and Maclaurin's formula: DLMF 25.11.5. */
static double slpc_zeta(double s, double a)
{
    static const double bernoulli[12] = {1.0 / 6, -1.0 / 30, 1.0 / 42, -1.0 / 30, 5.0 / 66, -691.0 / 2730, 7.0 / 6,
        -3617.0 / 510, 43867.0 / 798, -174611.0 / 330, 854513.0 / 138, -236364091.0 / 2730};
    double total = 0, product, tail, factorial = 2;
    int i;
    if (a == 0)
        return INFINITY;
    for (; a < 12 + s; a += 1)
        total += pow(a, -s);
    product = s / (a * a);
    tail = 0.5 / a;
    for (i = 1; i <= 12; i++) {
        tail += product * (bernoulli[i - 1] / factorial);
        factorial *= (2 * i + 1) * (2 * i + 2);
        product *= (s + 2 * i - 1) / a * ((s + 2 * i) / a);
    }
    return total + pow(a, 1 - s) * (1 / (s - 1) + tail);
}

static double slpc_digamma(double x)
{
    static const double terms[7] = {1.0 / 12, -1.0 / 120, 1.0 / 252, -1.0 / 240, 1.0 / 132, -691.0 / 32760, 1.0 / 12};
    double a = x < 0 ? 1 - x : x, total = 0, series = 0;
    int i;
    if (fabs(x) < 1e-20)
        return -1 / x;
    if (x < 0 && x == floor(x))
        return NAN;
    for (; a < 12; a += 1)
        total += 1 / a;
    for (i = 6; i >= 0; i--)
        series = (series + terms[i]) / (a * a);
    total = isinf(a) ? a : log(a) - 0.5 / a - series - total;
    return x < 0 ? total - 3.141592653589793 / tan(3.141592653589793 * (x - rint(x))) : total;
}

static double slpc_polygamma(double n, double x)
{
    const double s = n < 200 ? n + 1 : 2;
    const int even = fmod(s, 2) == 0;
    double zeta, factorial = 1, k;
    if (!(n >= 0) || n != floor(n))
        return NAN;
    if (n == 0)
        return slpc_digamma(x);
    for (k = 2; k <= n && k < 200; k += 1)
        factorial *= k;
    if (!(x < 0))
        zeta = slpc_zeta(s, x);
    else if (x == floor(x))
        zeta = isinf(x) ? NAN : INFINITY;
    else {
        const double other = slpc_zeta(s, ceil(x) - x) - slpc_zeta(s, 1 - x);
        zeta = slpc_zeta(s, x - floor(x)) + (even ? other : -other);
    }
    return even ? factorial * zeta : -(factorial * zeta);
}
"""


# Comparisons, logic, conversions ---------------------------------------------------------------------------------

_COMPARISONS = {"less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==",
                "not_equal": "!="}


@_row("less less_equal greater greater_equal equal not_equal")
def _comparison(node: Node, v: Sequence[str]) -> str:
    return f"{v[0]} {_COMPARISONS[node.op.name]} {v[1]}"


@_row("logical_and logical_or")
def _logic(node: Node, v: Sequence[str]) -> str:
    return f"{v[0]} {'&&' if node.op.name == 'logical_and' else '||'} {v[1]}"


@_row("logical_not")
def _not(node: Node, v: Sequence[str]) -> str:
    return f"!{v[0]}"


@_row("where")
def _where(node: Node, v: Sequence[str]) -> str:
    return f"{v[0]} ? {v[1]} : {v[2]}"


@_row("astype")
def _astype(node: Node, v: Sequence[str]) -> str:
    """Floating point to an integer cuts off, and saturates where it does not fit; NaN becomes 0."""
    source, target = node.operands[0].dtype, _dtype(node)
    kind = TYPES[target.name]
    if target.kind == "bool":
        return f"{v[0]} != 0"
    if target.kind != "int" or not source.is_float:
        return f"({kind}){v[0]}"
    bits = 8 * target.bytes
    name = _helper(f"slpc_to_{target}", f"""\
static {kind} slpc_to_{target}(double x)
{{
    return x >= {float(2**(bits - 1)).hex()} ? INT{bits}_MAX : x < {float(-2**(bits - 1)).hex()} ? INT{bits}_MIN :
        isnan(x) ? 0 : ({kind})x;
}}
""")
    return f"{name}({v[0]})"


@_row("copy stop_gradient reshape broadcast_to")
def _same(node: Node, v: Sequence[str]) -> str:
    return v[0]

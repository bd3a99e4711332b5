"""One lowering for each operation: the lines over torch that define its result, in memory of the scope's choosing."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from ..ir.graph import Constant, Graph, Node, Value, buffer, stays_below
from ..ir.literals import text as literal_text
from ..ir.ops import OPS
from ..ir.shapes import broadcast_shapes, disjoint, forwards
from ..ir.show import show_index
from ..ir.tables import rows
from ..ir.types import DType, Shape, bf16, f16, i64

DTYPES = {"f16": "float16", "bf16": "bfloat16", "f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64",
          "bool": "bool"}
"""torch's names."""


class Scope(Protocol):
    """Where a line stands: how values are named there, and where results lie."""

    device: str
    deterministic: bool
    given: Collection[Value]
    """Values that are there whatever they look into: what the function of a block is given."""

    def name(self, value: Value) -> str:
        """The name of the result."""

    def array(self, value: Value) -> str:
        """An expression for the value, in its own shape."""

    def new(self, value: Value) -> str:
        """An expression for the memory of the result, which nothing has been written to yet."""

    def out(self, value: Value) -> str:
        """`, out=...` with that memory; nothing where torch is to allocate it."""

    def workspace(self, node: Node, dtype: DType, shape: Shape) -> str:
        """An expression for the node's workspace."""

    def inherited(self, node: Node, position: int) -> bool:
        """Does the operand's memory lie already where it belongs in the result's?"""

    def added(self, value: Value) -> bool:
        """Is the result added to what lies in its memory?"""

    def helper(self, name: str) -> str:
        """The name of a function of `HELPERS` that the module must have."""

    def noted(self, index: Value, length: int, reader: str) -> bool:
        """Is the range of an index of that reader noted where the function or the loop begins?"""


Lowering = Callable[[Node, Scope], list[str]]
LOWERINGS: dict[str, Lowering] = {}
_row = rows(LOWERINGS)


def dtype_text(dtype: DType) -> str:
    """`torch.float32`."""
    return f"torch.{DTYPES[dtype.name]}"


def number(value: Constant) -> str:
    """A Python number that is the constant exactly: torch takes it to be of the dtype of the tensor beside it."""
    exact = value.dtype.name in ("f16", "bf16")  # torch computes with the number in f32
    shown = repr(value.number) if exact else literal_text(value.number, value.dtype)
    return f"{shown[:-3]}torch.{shown[-3:]}" if shown[-3:] in ("inf", "nan") else shown


def _text_of(file: str, begin: str) -> str:
    """A file beside this one, from where it has that text."""
    text = Path(__file__).with_name(file).read_text("utf-8")
    return text[text.index(begin):]


HELPERS = {
    "started": '''\
works = {}


def started(name, x):
    """The sum of x over all processes has begun, in place."""
    works[name] = torch.distributed.all_reduce(x, async_op=True)


def done(name):
    """It is there: on the device, for what the device runs from here on."""
    works.pop(name).wait()
''',
    "cube_root": '''\
def cube_root(x, out):
    """A power, and one step of Newton's method for the digits that the rounding of 1/3 costs."""
    size = x.abs()
    torch.pow(size, 1 / 3, out=out)
    step = size.div_(out * out).sub_(out).div_(3.0)
    out.add_(step.nan_to_num_(0.0, 0.0, 0.0)).copysign_(x)
    return out
''',
    "signs": '''\
def signs(x, out):
    """-1, 0 or 1; NaN of NaN, which torch.sign takes for 0."""
    return torch.sign(x, out=out).masked_fill_(x != x, torch.nan)
''',
    "whole": '''\
def whole(function, x, y, out):
    """A division of integers: 0 where the divisor is 0, and the smallest integer by -1 is itself."""
    unsafe = (y == 0) | (y == -1)
    function(x, y.masked_fill(unsafe, 1), out=out)
    out.masked_fill_(y == 0 if function is torch.floor_divide else unsafe, 0)
    if function is torch.floor_divide:
        torch.where(y == -1, -out, out, out=out)
    return out
''',
    "derivative_of_lgamma": '''\
def derivative_of_lgamma(n, x, out):
    """polygamma(n, x) = (-1)^(n + 1) n! zeta(n + 1, x), and digamma for n = 0."""
    torch.special.zeta(n + 1.0, x, out=out)
    out.mul_(torch.exp(torch.lgamma(n + 1.0))).mul_(1.0 - 2.0 * torch.remainder(n + 1.0, 2.0))
    return torch.where(n == 0, torch.digamma(x), out, out=out)
''',
    "verify": '''\
def extremes(checks):
    """The least and the largest index of each check."""
    return torch.stack([x.long() for name, length, low, high in checks for x in (low, high)])


def verify(checks, found=None):
    """IndexError unless the least and the largest index of each check are within its axis. One transfer for all."""
    found = (extremes(checks) if found is None else found).tolist()
    for (name, length, _, _), low, high in zip(checks, found[::2], found[1::2]):
        if not -length <= low <= high < length:
            index = low if low < -length else high
            raise IndexError(f"index {index} is out of range for an axis of length {length}", name)
''',
    "product": _text_of("cublas_products.py", "CANDIDATES, ROUNDS"),
    "integer_product": '''\
def integer_product(x, y, out):
    """A matrix product of integers, which cuBLAS has not: a sum over products, column by column of x."""
    out.zero_()
    for k in range(x.shape[-1]):
        out.addcmul_(x[..., :, k:k + 1], y[..., k:k + 1, :])
    return out
''',
}
"""Functions that an emitted module has if it uses them."""


# Elementwise -----------------------------------------------------------------------------------------------------

_NAMED = {"mod": "remainder", "equal": "eq"}
"""Operations that torch calls by another name."""
_NUMBERS = {"add", "subtract", "multiply", "divide", "floor_divide", "mod", "pow", "less", "less_equal", "greater",
            "greater_equal", "equal", "not_equal"}
"""Functions of torch that take a number as their second operand."""
_FLIPPED = {"add": "add", "multiply": "multiply", "less": "greater", "less_equal": "greater_equal", "greater": "less",
            "greater_equal": "less_equal", "equal": "equal", "not_equal": "not_equal"}
"""What an operation is with its operands in the other order."""


def _operands(node: Node, scope: Scope, as_number: int = -1) -> list[str]:
    """Operands of an elementwise operation, as torch repeats them to the result's shape; one may be a number."""
    bases = [v if scope.inherited(node, i) else _unrepeated(v, scope) for i, v in enumerate(node.operands)]
    if broadcast_shapes([v.shape for v in bases]) != node.result.shape:
        first = next((i for i, v in enumerate(node.operands) if not isinstance(v, Constant)), 0)
        bases[first] = node.operands[first]
    return [number(v) if i == as_number and isinstance(v, Constant) else scope.array(v) for i, v in enumerate(bases)]


def _unrepeated(value: Value, scope: Scope) -> Value:
    """What torch itself repeats to the value: it without what only repeats it."""
    while value not in scope.given and (made := value.node) is not None and made.operands:
        old, new = made.operands[0].shape, value.shape
        leads = made.op.name == "reshape" and len(new) > len(old) and new == (1,) * (len(new) - len(old)) + old
        if not leads and made.op.name not in ("broadcast_to", "stop_gradient"):
            break
        value = made.operands[0]
    return value


def _defined(node: Node, scope: Scope, call: str, *arguments: str) -> list[str]:
    """`z = torch.f(x, y, out=...)`."""
    z = node.result
    return [f"{scope.name(z)} = torch.{call}({', '.join(arguments)}{scope.out(z)})"]


def _call(node: Node, scope: Scope) -> list[str]:
    name = node.op.name
    constants = [isinstance(v, Constant) for v in node.operands]
    if constants == [True, False] and name in _FLIPPED:
        return _defined(node, scope, _named(_FLIPPED[name]), *reversed(_operands(node, scope, as_number=0)))
    takes = constants == [False, True] and name in _NUMBERS and not _below_zero(node)
    return _defined(node, scope, _named(name), *_operands(node, scope, as_number=1 if takes else -1))


def _below_zero(node: Node) -> bool:
    """Is it an integer to the power of a negative number, which torch takes of tensors alone?"""
    y = node.operands[1]
    return node.op.name == "pow" and node.result.dtype.kind == "int" and isinstance(y, Constant) and y.number < 0


def _named(name: str) -> str:
    return _NAMED.get(name, name)


def _helped(node: Node, scope: Scope, helper: str, *arguments: str) -> list[str]:
    """The same by a function of the module."""
    z = node.result
    return [f"{scope.name(z)} = {scope.helper(helper)}({', '.join((*arguments, scope.new(z)))})"]


@_row("maximum minimum")
def _larger(node: Node, scope: Scope) -> list[str]:
    """torch has no `maximum` of a tensor and a number, but `clamp`, which lets NaN through as well."""
    for position, c in enumerate(node.operands):
        if isinstance(c, Constant) and c.number == c.number:
            side = "min" if node.op.name == "maximum" else "max"
            x = _operands(node, scope, as_number=position)[1 - position]
            return _defined(node, scope, "clamp", x, f"{side}={number(c)}")
    return _call(node, scope)


@_row("floor_divide mod")
def _divide(node: Node, scope: Scope) -> list[str]:
    y = node.operands[1]
    if node.result.dtype.is_float or (isinstance(y, Constant) and y.number not in (0, -1)):
        return _call(node, scope)
    return _helped(node, scope, "whole", f"torch.{_named(node.op.name)}", *_operands(node, scope))


@_row("sign")
def _sign(node: Node, scope: Scope) -> list[str]:
    if node.result.dtype.is_float:
        return _helped(node, scope, "signs", *_operands(node, scope))
    return _call(node, scope)


@_row("cbrt")
def _cbrt(node: Node, scope: Scope) -> list[str]:
    return _helped(node, scope, "cube_root", *_operands(node, scope))


@_row("polygamma")
def _polygamma(node: Node, scope: Scope) -> list[str]:
    order = node.operands[0]
    if not isinstance(order, Constant):
        return _helped(node, scope, "derivative_of_lgamma", *_operands(node, scope))
    x = _operands(node, scope, as_number=0)[1]
    if order.number == 0:
        return _defined(node, scope, "digamma", x)
    return _defined(node, scope, "polygamma", str(int(order.number)), x)


@_row("astype")
def _written(node: Node, scope: Scope) -> list[str]:
    z = node.result
    return [f"{scope.name(z)} = {scope.new(z)}.copy_({scope.array(_unrepeated(node.operands[0], scope))})"]


# Views -----------------------------------------------------------------------------------------------------------

def view(text: str, node: Node) -> str:
    """The view as a method of what it looks into."""
    return _VIEWS[node.op.name](text, node)


def shape_text(shape: Shape) -> str:
    """The lengths as arguments of a method."""
    return ", ".join(map(str, shape)) or "()"


def _permuted(text: str, node: Node) -> str:
    axes = node.attributes["axes"]
    last = len(axes) - 1
    turned = last > 0 and axes == (*range(last - 1), last, last - 1)
    return f"{text}.mT" if turned else f"{text}.permute({shape_text(axes)})"


_VIEWS: dict[str, Callable[[str, Node], str]] = {
    "broadcast_to": lambda text, node: f"{text}.expand({shape_text(node.result.shape)})",
    "reshape": lambda text, node: f"{text}.view({shape_text(node.result.shape)})",
    "permute_dims": _permuted,
    "slice": lambda text, node: f"{text}[{show_index(node.attributes['index'], node.operands[0].shape)}]",
    "stop_gradient": lambda text, node: text,
}


@_row("broadcast_to reshape permute_dims slice stop_gradient")
def _view(node: Node, scope: Scope) -> list[str]:
    return [f"{scope.name(node.result)} = {view(scope.array(node.operands[0]), node)}"]


# Reductions and products -----------------------------------------------------------------------------------------

@_row("sum max min")
def _reduce(node: Node, scope: Scope) -> list[str]:
    name, dtype, axes = node.op.name, node.result.dtype, node.attributes["axis"]
    if not axes:
        return _written(node, scope)
    if name != "sum":
        name = {"max": "any", "min": "all"}[name] if dtype.kind == "bool" else f"a{name}"
    kept = [f"dtype={dtype_text(dtype)}"] if dtype.kind == "int" and name == "sum" else []
    return _defined(node, scope, name, scope.array(node.operands[0]), f"dim={axes}", *kept)


@_row("cumsum")
def _cumsum(node: Node, scope: Scope) -> list[str]:
    kept = [f"dtype={dtype_text(node.result.dtype)}"] if node.result.dtype.kind == "int" else []
    return _defined(node, scope, "cumsum", scope.array(node.operands[0]), f"dim={node.attributes['axis']}", *kept)


@_row("matmul")
def _matmul(node: Node, scope: Scope) -> list[str]:
    x, y = map(scope.array, node.operands)
    z = node.result
    if scope.added(z):
        return added_product(node, z, (scope.new(z), x, y), scope, f", out={scope.new(z)}")
    if z.dtype.kind == "int" and scope.device != "cpu":
        return _helped(node, scope, "integer_product", x, y)
    if scope.device != "cpu" and by_cublaslt(node):
        return [f"{scope.name(z)} = {scope.helper('product')}({x}, {y}{_out(z, scope)})"]
    if z.type.rank <= 3:
        return _defined(node, scope, "mm" if z.type.rank == 2 else "bmm", x, y)
    batches = math.prod(z.shape[:-2])
    x, y, into = (f"{text}.view({shape_text((batches, *v.shape[-2:]))})"
                  for text, v in zip((x, y, scope.name(z)), (*node.operands, z), strict=True))
    return [f"{scope.name(z)} = {scope.new(z)}", f"torch.bmm({x}, {y}, out={into})"]


def by_cublaslt(node: Node) -> bool:
    """Is it a product for which CUDA takes the library's fastest algorithm (cublas_products.py)?"""
    return (node.op.name == "matmul" and node.result.type.rank == 2 and node.result.dtype in (f16, bf16)
            and all(v.type.size for v in node.operands))


def accumulates(node: Node) -> bool:
    """Can the operation's result be added to what is there?"""
    return node.op.name == "matmul" and node.result.dtype.is_float and 2 <= node.result.type.rank <= 3


def added_product(node: Node, result: Value, operands: tuple[str, str, str], scope: Scope, out: str) -> list[str]:
    """Z + X Y by one call of the library, where `node` is the product."""
    z, x, y = operands
    if scope.device != "cpu" and by_cublaslt(node):
        return [f"{scope.name(result)} = {scope.helper('product')}({x}, {y}, {z}{_out(result, scope, out)})"]
    call = "addmm" if result.type.rank == 2 else "baddbmm"
    return [f"{scope.name(result)} = torch.{call}({z}, {x}, {y}{out})"]


def _out(value: Value, scope: Scope, out: str = "") -> str:
    """`, out=...`, new memory where there is no arena; and whether the same bits are asked for."""
    found = out or scope.out(value) or f", out={scope.new(value)}"
    return found + (", tuned=False" if scope.deterministic else "")


# Data movement ---------------------------------------------------------------------------------------------------

@_row("copy")
def _copy(node: Node, scope: Scope) -> list[str]:
    if scope.inherited(node, 0):
        return [f"{scope.name(node.result)} = {scope.array(node.operands[0])}"]
    return _written(node, scope)


@_row("all_reduce")
def _all_reduce(node: Node, scope: Scope) -> list[str]:
    name = scope.name(node.result)
    lines = _copy(node, scope)
    if node.attributes["processes"] > 1:
        lines.append(f'{scope.helper("started")}("{node.result.name}", {name})')
    return lines


@_row("wait")
def _wait(node: Node, scope: Scope) -> list[str]:
    made = node.operands[0].node
    assert made is not None
    lines = _copy(node, scope)
    if made.attributes["processes"] > 1:
        scope.helper("started")
        lines.insert(0, f'done("{made.result.name}")')
    return lines


@_row("arange")
def _arange(node: Node, scope: Scope) -> list[str]:
    a, z = node.attributes, node.result
    return [f"{scope.name(z)} = torch.arange({a['start']}, {a['stop']}, {a['step']}, out={scope.new(z)})"]


def _positions(node: Node, scope: Scope, lengths: Shape) -> tuple[list[str], str]:
    """Lines that note the indices' range, and the positions in the leading axes, taken as one.

    What leaves its axis is wrapped into it, so that no memory is read astray; `verify` says it at the end.
    """
    lines, indices = [], node.operands[1:]
    for value, length in zip(indices, lengths, strict=False):
        if not stays_below(value, length) and value.type.size and not scope.noted(value, length, node.result.name):
            scope.helper("verify")
            lines.append(f'checks.append(("{node.result.name}", {length}, *torch.aminmax({scope.array(value)})))')
    if not positions_workspace(node, lengths):
        return lines, scope.array(indices[0])
    at = f"{scope.name(node.result)}_at"
    lines.append(f"{at} = {scope.workspace(node, i64, (min(len(indices), 2), *indices[0].shape))}")
    for i, (value, length) in enumerate(zip(indices, lengths, strict=False)):
        lines.append(f"torch.remainder({scope.array(value)}, {max(length, 1)}, out={at}[{min(i, 1)}])")
        if i:
            lines.append(f"{at}[0].mul_({length}).add_({at}[1])")
    return lines, f"{at}[0]"


def noted_ranges(node: Node, scope: Scope) -> list[str]:
    """Lines that note the ranges of a region's operands that it takes as indices."""
    body: Graph = node.attributes["body"]
    outside = dict(zip(body.inputs, node.operands, strict=True))
    lines = []
    for inner in body.nodes:
        if inner.op.name in ("gather", "scatter_add"):
            lengths = inner.operands[0].shape if inner.op.name == "gather" else inner.result.shape
            for value, length in zip(inner.operands[1:], lengths, strict=False):
                given = outside.get(buffer(value))
                if given is not None and given.type.size and not stays_below(given, length) \
                        and not scope.noted(given, length, node.results[0].name):
                    scope.helper("verify")
                    found = f"*torch.aminmax({scope.array(given)})"
                    lines.append(f'checks.append(("{node.results[0].name}", {length}, {found}))')
    return lines


def positions_workspace(node: Node, lengths: Shape) -> int:
    """Bytes for the positions of a gather or scatter_add: none where its one index is an arange within its axis."""
    first = node.operands[1]
    if len(node.operands) == 2 and stays_below(first, lengths[0]):
        return 0
    return 8 * min(len(node.operands) - 1, 2) * first.type.size


def _joined(text: str, shape: Shape, count: int) -> str:
    """The tensor with its leading axes taken as one."""
    return text if count == 1 else f"{text}.view({shape_text((math.prod(shape[:count]), *shape[count:]))})"


@_row("gather")
def _gather(node: Node, scope: Scope) -> list[str]:
    x, z, count = node.operands[0], node.result, len(node.operands) - 1
    lines, at = _positions(node, scope, x.shape)
    lines.append(f"{scope.name(z)} = {scope.new(z)}")
    if not z.type.size or not x.type.size:
        return lines
    index = node.operands[1].type
    into = scope.name(z)
    if index.rank != 1:
        at, into = f"{at}.view({index.size})", f"{into}.view({shape_text((index.size, *x.shape[count:]))})"
    return [*lines, f"torch.index_select({_joined(scope.array(x), x.shape, count)}, 0, {at}, out={into})"]


@_row("scatter_add")
def _scatter(node: Node, scope: Scope) -> list[str]:
    x, z, count = node.operands[0], node.result, len(node.operands) - 1
    lines, at = _positions(node, scope, z.shape)
    lines.append(f"{scope.name(z)} = {scope.new(z)}.zero_()")
    if not z.type.size or not x.type.size:
        return lines
    index = node.operands[1].type
    added = scope.array(x)
    if index.rank != 1:
        at, added = f"{at}.view({index.size})", f"{added}.view({shape_text((index.size, *z.shape[count:]))})"
    into = _joined(scope.name(z), z.shape, count)
    if scope.deterministic and scope.device != "cpu":
        return [*lines, f"{into}.index_put_(({at},), {added}, accumulate=True)"]
    return [*lines, f"{into}.index_add_(0, {at}, {added})"]


@_row("place")
def _place(node: Node, scope: Scope) -> list[str]:
    z, at = node.result, node.attributes["at"]
    name = scope.name(z)
    apart = disjoint(at)
    covered = apart and sum(v.type.size for v in node.operands) == z.type.size
    memory = scope.new(z) if covered else f"{scope.new(z)}.zero_()"
    lines = [f"{name} = {memory}"] if memory != name else []
    for position, (piece, index) in enumerate(zip(node.operands, at, strict=True)):
        if scope.inherited(node, position):
            continue
        index, flipped = forwards(index)
        if isinstance(piece, Constant):
            text = number(piece)
        elif flipped:
            text = f"{scope.array(piece)}.flip({shape_text(flipped)})"
        else:
            text = scope.array(_unrepeated(piece, scope))
        into = f"{name}[{show_index(index, z.shape)}]"
        lines.append(f"{into} = {text}" if apart else f"{into}.add_({text})")
    return lines


# What they need --------------------------------------------------------------------------------------------------

def node_workspace(node: Node) -> int:
    """Bytes of the arena that one run of an operation needs beside operands and results."""
    name = node.op.name
    if name not in ("gather", "scatter_add"):
        return 0
    return positions_workspace(node, node.operands[0].shape if name == "gather" else node.result.shape)


def allocated(node: Node) -> int:
    """Bytes that torch allocates while an operation runs: those of the helpers here, and of reversed copies."""
    name, z = node.op.name, node.result
    if name == "place":
        return max((v.type.bytes for v, index in zip(node.operands, node.attributes["at"], strict=True)
                    if forwards(index)[1]), default=0)
    if name == "cbrt":
        return 3 * z.type.bytes
    if name == "sign" and z.dtype.is_float:
        return z.type.size
    if name in ("floor_divide", "mod") and not z.dtype.is_float:
        return 2 * z.type.bytes + z.type.size
    if name == "polygamma" and not isinstance(node.operands[0], Constant):
        return 3 * z.type.bytes
    return 0


for _op in OPS.values():
    if _op.elementwise:
        LOWERINGS.setdefault(_op.name, _call)

IN_PLACE: dict[str, tuple[int, ...]] = {
    op.name: tuple(range(len(op.operands))) for op in OPS.values() if op.elementwise
} | {"where": (1, 2), "astype": (), "copy": (0,), "all_reduce": (0,), "wait": (0,), "polygamma": (), "sign": (),
     "cbrt": (), "floor_divide": (0,), "mod": (0,)}
"""The operands that the lowerings here may write over."""

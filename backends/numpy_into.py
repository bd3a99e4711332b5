"""One lowering for each operation that writes its result into a given view, and needs no memory but what is planned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from ..ir.graph import Constant, Node, Value, stays_below
from ..ir.layout import layout
from ..ir.literals import bits
from ..ir.ops import OPS
from ..ir.shapes import disjoint
from ..ir.show import show_index
from ..ir.tables import rows
from . import numpy_erf
from .numpy_lowering import SPECIAL, constant_text, dtype_text, lower

FEW = 1024
"""Up to so many elements are chosen between by masked copies, whose branches cost less than two calls more."""


LONG_ROW = 32
"""From so many elements on a row is added by a call of its own, which `np.add.at` takes longer for."""


class Scope(Protocol):
    """Where a line stands: what names the views that it reads and writes."""

    def array(self, value: Value) -> str:
        """A Python expression for the value, in its own shape."""

    def repeated(self, value: Value) -> str:
        """The same, or what NumPy itself repeats to that shape."""

    def workspace(self, node: Node, dtype: str, shape: tuple[int, ...]) -> str:
        """The node's workspace as an array."""

    def inherited(self, node: Node, position: int) -> bool:
        """Does the operand's memory lie already where it belongs in the result's?"""

    def helper(self, name: str) -> str:
        """The name of a function of `HELPERS` that the module must have."""


Into = Callable[[Node, str, Scope], list[str]]
_INTO: dict[str, Into] = {}


def lowered_into() -> set[str]:
    """The operations that have such a lowering."""
    return set(_INTO)


def lower_into(node: Node, target: str, scope: Scope) -> list[str]:
    """The lines that write the node's result into the array of the name `target`."""
    return _INTO[node.op.name](node, target, scope)


HELPERS = {
    "select": '''\
def select(c, x, y, out):
    """x where c holds, else y: on integers of the same bits (x - y) * c + y is exact, and has no branches."""
    bits = f"i{out.itemsize}"
    x, y, z = np.asarray(x, out.dtype).view(bits), np.asarray(y, out.dtype).view(bits), out.view(bits)
    np.subtract(x, y, out=z)
    np.multiply(z, c, out=z)
    np.add(z, y, out=z)
''',
    "masked": '''\
def masked(c, x, out):
    """x where c holds, else 0: the bits of x times 1 or 0."""
    bits = f"i{out.itemsize}"
    np.multiply(x.view(bits), c, out=out.view(bits))
''',
    "check": '''\
def check(index, length):
    """IndexError unless all are from -length to length - 1."""
    for found in np.maximum.reduce(index, axis=None, initial=-1), np.minimum.reduce(index, axis=None, initial=0):
        if not -length <= found < length and index.size:
            raise IndexError(f"index {found} is out of range for an axis of length {length}")
''',
    "positions": '''\
def positions(indices, lengths, out):
    """Where [i, j, ...] lies, counted row by row, for arrays of indices into axes of these lengths."""
    out.fill(0)
    for index, length in zip(indices, lengths):
        np.multiply(out, length, out=out)
        np.add(out, index, out=out)
        if np.minimum.reduce(index, axis=None, initial=0) < 0:
            np.add(out, length, out=out, where=index < 0)
''',
    "add_rows": '''\
def add_rows(out, index, rows):
    """out[index[i]] += rows[i] for each i in turn."""
    for i, row in zip(index, rows):
        np.add(out[i], row, out=out[i])
''',
    "erf": numpy_erf.HELPER,
}
"""Functions that an emitted module has if it uses them."""


_row = rows(_INTO)


# Elementwise -----------------------------------------------------------------------------------------------------

def _operands(node: Node, scope: Scope) -> list[str]:
    """Operands of an elementwise operation: NumPy repeats them to the result's shape."""
    return [constant_text(node, v) if isinstance(v, Constant) else scope.repeated(v) for v in node.operands]


def _call(node: Node, target: str, scope: Scope) -> list[str]:
    name = node.op.name
    called = f"special.{SPECIAL[name]}" if name in SPECIAL else f"np.{name}"
    return [f"{called}({', '.join(_operands(node, scope))}, out={target})"]


@_row("sigmoid")
def _sigmoid(node: Node, target: str, scope: Scope) -> list[str]:
    x = _operands(node, scope)[0]
    return [f"np.negative({x}, out={target})", f"np.exp({target}, out={target})",
            f"np.add(1.0, {target}, out={target})", f"np.divide(1.0, {target}, out={target})"]


@_row("erf")
def _erf(node: Node, target: str, scope: Scope) -> list[str]:
    """What does not lie row by row is copied first: the function may write over its operand."""
    if not numpy_erf.fits(node):
        return _call(node, target, scope)
    x = node.operands[0]
    lies = layout(x)
    work = scope.workspace(node, "np.float32", numpy_erf.work_shape(node))
    if lies is not None and lies.contiguous:
        return [f"{scope.helper('erf')}({scope.array(x)}, {target}, {work})"]
    return [f"np.copyto({target}, {scope.repeated(x)})", f"{scope.helper('erf')}({target}, {target}, {work})"]


@_row("polygamma")
def _polygamma(node: Node, target: str, scope: Scope) -> list[str]:
    order = node.operands[0]
    if not isinstance(order, Constant):
        return _assigned(node, target, scope)
    x = _operands(node, scope)[1]
    if order.number == 0:
        return [f"special.psi({x}, out={target})"]
    return [f"special.zeta({float(order.number) + 1!r}, {x}, out={target})",
            f"np.multiply((-1.0) ** {float(order.number) + 1!r} * special.gamma({float(order.number) + 1!r}), "
            f"{target}, out={target})"]


@_row("pow")
def _power(node: Node, target: str, scope: Scope) -> list[str]:
    return _assigned(node, target, scope) if node.result.dtype.kind == "int" else _call(node, target, scope)


def _assigned(node: Node, target: str, scope: Scope) -> list[str]:
    """What has no `out=`: the expression, whose memory is counted as workspace."""
    (line,) = lower(node, lambda v: target if v is node.result else scope.array(v))
    return [line.replace(f"{target} = ", f"{target}[...] = ", 1)]


@_row("where")
def _where(node: Node, target: str, scope: Scope) -> list[str]:
    c, x, y = _operands(node, scope)
    over = scope.inherited(node, 1)
    kind = node.result.dtype.kind
    if node.result.type.size <= FEW or kind == "bool":
        if over:
            return [f"np.copyto({target}, {y}, where=~{c})"]
        return [f"np.copyto({target}, {y})", f"np.copyto({target}, {x}, where={c})"]
    if _zero(node.operands[2]) and not isinstance(node.operands[1], Constant):
        return [f"{scope.helper('masked')}({c}, {x}, {target})"]
    return [f"{scope.helper('select')}({c}, {x}, {y}, {target})"]


def _zero(value: Value) -> bool:
    """Is it 0, and not -0?"""
    return isinstance(value, Constant) and value.bits in (0, bits(0.0))


@_row("astype copy")
def _copied(node: Node, target: str, scope: Scope) -> list[str]:
    if node.op.name == "copy" and scope.inherited(node, 0):
        return []
    unsafe = ', casting="unsafe"' if node.op.name == "astype" else ""
    return [f"np.copyto({target}, {_operands(node, scope)[0]}{unsafe})"]


# Reductions and products -----------------------------------------------------------------------------------------

_REDUCING = {"sum": "add", "max": "maximum", "min": "minimum"}
_REDUCING_BOOLS = {"max": "logical_or", "min": "logical_and"}


@_row("sum max min")
def _reduce(node: Node, target: str, scope: Scope) -> list[str]:
    names = _REDUCING_BOOLS if node.result.dtype.kind == "bool" else _REDUCING
    kept = f", dtype={dtype_text(node.result.dtype)}" if node.result.dtype.kind == "int" else ""
    axes = node.attributes["axis"]
    axis = axes[0] if len(axes) == 1 else axes
    return [f"np.{names[node.op.name]}.reduce({scope.array(node.operands[0])}, axis={axis}{kept}, out={target})"]


@_row("cumsum")
def _cumsum(node: Node, target: str, scope: Scope) -> list[str]:
    kept = f", dtype={dtype_text(node.result.dtype)}" if node.result.dtype.kind == "int" else ""
    return [f"np.add.accumulate({scope.array(node.operands[0])}, axis={node.attributes['axis']}{kept}, out={target})"]


@_row("matmul")
def _matmul(node: Node, target: str, scope: Scope) -> list[str]:
    """`np.dot` asks the same of BLAS half a microsecond sooner. With an axis of length 1 it does not."""
    both = all(v.type.rank == 2 and min(v.shape) > 1 for v in node.operands) and node.result.dtype.bytes >= 4
    called = "dot" if both and node.result.dtype.is_float else "matmul"
    return [f"np.{called}({', '.join(map(scope.array, node.operands))}, out={target})"]


# Data movement ---------------------------------------------------------------------------------------------------

@_row("arange")
def _arange(node: Node, target: str, scope: Scope) -> list[str]:
    start, step = node.attributes["start"], node.attributes["step"]
    lines = [f"{target}.fill({step})"]
    if node.result.type.size:
        lines += [f"{target}[0] = {start}", f"np.add.accumulate({target}, out={target})"]
    return lines


def indices_workspace(node: Node) -> int:
    """Bytes for the positions of a gather or scatter_add, unless its one index is such an array as it lies."""
    first = node.operands[1]
    lies = layout(first)
    if len(node.operands) == 2 and first.dtype.bytes == 8 and lies is not None and lies.contiguous:
        return 0
    return 8 * first.type.size


def _positions(node: Node, scope: Scope, lengths: tuple[int, ...]) -> tuple[list[str], str]:
    """Lines that check the indices, and the expression of the positions in the leading axes, taken as one."""
    lines = []
    indices = list(map(scope.array, node.operands[1:]))
    for value, index, length in zip(node.operands[1:], indices, lengths, strict=False):
        if not stays_below(value, length):
            lines.append(f"{scope.helper('check')}({index}, {length})  # for {node.result.name}")
    if not indices_workspace(node):
        return lines, indices[0]
    held = scope.workspace(node, "np.int64", node.operands[1].shape)
    count = len(indices)
    lines.append(f"{scope.helper('positions')}(({', '.join(indices)},), {lengths[:count]}, {held})")
    return lines, held


def _joined(text: str, shape: tuple[int, ...], count: int) -> str:
    """The array with its leading axes taken as one."""
    return text if count == 1 else f"{text}.reshape({', '.join(map(str, (-1, *shape[count:])))})"


@_row("gather")
def _gather(node: Node, target: str, scope: Scope) -> list[str]:
    x = node.operands[0]
    lines, at = _positions(node, scope, x.shape)
    source = _joined(scope.array(x), x.shape, len(node.operands) - 1)
    if not x.type.size:
        return lines
    return [*lines, f'np.take({source}, {at}, axis=0, out={target}, mode="wrap")']


@_row("scatter_add")
def _scatter(node: Node, target: str, scope: Scope) -> list[str]:
    shape, count = node.result.shape, len(node.operands) - 1
    lines, at = _positions(node, scope, shape)
    rows = scope.array(node.operands[0])
    into = _joined(target, shape, count)
    lines.insert(0, f"{target}.fill(0)")
    if node.operands[1].type.rank == 1 and math.prod(shape[count:]) >= LONG_ROW:
        return [*lines, f"{scope.helper('add_rows')}({into}, {at}, {rows})"]
    return [*lines, f"np.add.at({into}, {at}, {rows})"]


@_row("place")
def _place(node: Node, target: str, scope: Scope) -> list[str]:
    shape, at = node.result.shape, node.attributes["at"]
    apart = disjoint(at)
    lines = []
    if not apart or sum(v.type.size for v in node.operands) != node.result.type.size:
        lines.append(f"{target}.fill(0)")
    for position, (piece, index) in enumerate(zip(node.operands, at, strict=True)):
        if scope.inherited(node, position):
            continue
        text = constant_text(node, piece) if isinstance(piece, Constant) else scope.repeated(piece)
        lines.append(f"{target}[{show_index(index, shape)}] {'=' if apart else '+='} {text}")
    return lines


def workspace(node: Node) -> int:
    """Bytes that one run of an operation needs beside operands and results."""
    if node.op.name in ("gather", "scatter_add"):
        return indices_workspace(node)
    if numpy_erf.fits(node):
        return 4 * math.prod(numpy_erf.work_shape(node))
    if node.op.name == "polygamma" and not isinstance(node.operands[0], Constant):
        return 6 * node.result.type.bytes
    if node.op.name == "pow" and node.result.dtype.kind == "int":
        return 6 * node.result.type.bytes
    return 0


for _op in OPS.values():
    if _op.elementwise:
        _INTO.setdefault(_op.name, _call)

IN_PLACE: dict[str, tuple[int, ...]] = {
    op.name: tuple(range(len(op.operands))) for op in OPS.values() if op.elementwise
} | {"where": (1,), "astype": (), "copy": (0,), "polygamma": (1,)}
"""The operands that the lowerings here may write over."""


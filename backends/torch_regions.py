"""Regions: products added to what is there, groups of operations as Triton kernels, attention, and loops over blocks.

`SERVED` is open at its end: a function takes a region's node and a scope, and returns its lines, or None where it has
nothing for such a body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..ir.graph import Graph, Node, Value
from ..ir.layout import Layout, layout
from ..ir.types import TensorType, bf16, f16
from ..passes.attention import as_attention
from ..passes.groups import Group, as_group
from ..passes.kernels import as_product_sum
from . import triton_kernels
from .torch_blocks import lower_blocks
from .torch_lowering import Scope, added_product, noted_ranges
from .triton_functions import fusible
from .triton_kernels import Kernel


class HasKernels:
    """What a scope derives from whose module can have Triton kernels."""

    def kernel(self, body: Graph, group: Group, lies: Callable[[Value], Layout]) -> Kernel:
        """The kernel of a group, which the module will have."""
        raise NotImplementedError

    def attention(self) -> None:
        """The module will have the kernels of attention."""
        raise NotImplementedError


def as_kernel(body: Graph) -> Group | None:
    """The body as a group that one kernel does in one pass."""
    return as_group(body, fusible)


def lower_region(node: Node, scope: Scope) -> list[str]:
    """The lines that compute a region's results."""
    for served in SERVED:
        lines = served(node, scope)
        if lines is not None:
            return lines
    raise AssertionError(f"nothing runs the region {node.attributes['body'].name}")


def _product_sum(node: Node, scope: Scope) -> list[str] | None:
    """z + x @ y by one call of the library."""
    body: Graph = node.attributes["body"]
    found = as_product_sum(body)
    if found is None:
        return None
    outside = dict(zip(body.inputs, node.operands, strict=True))
    z, x, y = (scope.array(outside[v]) for v in found)
    result = node.results[0]
    return added_product(body.nodes[0], result, (z, x, y), scope, scope.out(result))


def _group(node: Node, scope: Scope) -> list[str] | None:
    """One launch of a Triton kernel."""
    body: Graph = node.attributes["body"]
    group = as_kernel(body)
    if group is None or not isinstance(scope, HasKernels):
        return None
    outside = dict(zip(body.inputs, node.operands, strict=True))

    def lies(value: Value) -> Layout:
        found = layout(outside[value])
        assert found is not None
        return replace(found, offset=0)  # the tensor that is given begins there

    kernel = scope.kernel(body, group, lies)
    lines = [*noted_ranges(node, scope), *(f"{scope.name(v)} = {scope.new(v)}" for v in node.results)]
    results = dict(zip(body.outputs, node.results, strict=True))
    given = [scope.name(results[v]) if v in results else scope.array(outside[v]) for v in kernel.arguments]
    if kernel.programs:
        lines.append(f"{kernel.name}[({kernel.programs},)]({', '.join(given)}, num_warps={kernel.warps})")
    return [line for line in lines if line.partition(" = ")[0] != line.partition(" = ")[2]]


WIDTHS = (64, 128)
"""Widths of heads that the kernels of attention are for."""


def attends(heads: TensorType, softmax: bool) -> bool:
    """Are there kernels for such heads? float16 overflows where nothing is subtracted."""
    return heads.shape[-1] in WIDTHS and (heads.dtype is bf16 or (heads.dtype is f16 and softmax))


def is_attention(node: Node) -> bool:
    """Is it a region that the kernels of attention serve?"""
    return node.op.name == "region" and as_attention(node.attributes["body"]) is not None


def _attention(node: Node, scope: Scope) -> list[str] | None:
    """The kernels of attention, forward or backward (triton_attention.py)."""
    kind = as_attention(node.attributes["body"])
    if kind is None or not isinstance(scope, HasKernels):
        return None
    scope.attention()
    results = [scope.name(v) for v in node.results]
    lines = [f"{name} = {scope.new(v)}" for name, v in zip(results, node.results, strict=True)]
    q, k, v, *more = map(scope.array, node.operands)
    heads = [f"{name}.transpose(1, 2)" for name in results[:3 if kind.backward else 1]]
    options = f"scale={kind.scale!r}, causal={kind.causal}"
    if kind.backward:
        given = [q, k, v, more[0], *heads, *more[1:]]
        return [*lines, f"attention_backward({', '.join(given)}, {options})"]
    return [*lines, f"attend({', '.join([q, k, v, *heads, *results[1:]])}, {options})"]


SERVED: list[Callable[[Node, Scope], list[str] | None]] = [_product_sum, _attention, _group, lower_blocks]


def product_sums(body: Graph) -> bool:
    """Is the body a product and the sum that takes it?"""
    return as_product_sum(body) is not None


def kernels_too(body: Graph) -> bool:
    """Is it that, or what Triton kernels do?"""
    return product_sums(body) or as_attention(body) is not None or as_kernel(body) is not None


def takes_over(node: Node) -> Sequence[tuple[int, int]]:
    """The pairs (operand, result) of a region of which the result may be written over the operand."""
    body: Graph = node.attributes["body"]
    found = as_product_sum(body)
    if found is not None:
        return [(body.inputs.index(found[0]), 0)]
    group = as_kernel(body)
    return triton_kernels.takes_over(group) if group is not None else ()

"""Which values a derivative passes through: those that depend on `wrt` and that the output depends on."""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.diagnostics import Fault, near
from ..ir.graph import Constant, Graph, Node, Value
from .derivatives import derivatives


def differentiable_operands(node: Node) -> list[int]:
    """The positions of operands through which a derivative can pass: floating point, and not zero by the table."""
    op = node.op
    if op.name == "region":
        return [p for p, v in enumerate(node.operands) if v.dtype.is_float]
    if op.name == "stop_gradient" or not node.results[0].dtype.is_float:
        return []
    rows = derivatives(op) if op.elementwise else None
    found = []
    for position, operand in enumerate(node.operands):
        if isinstance(operand, Constant) or not operand.dtype.is_float:
            continue
        if rows is None or rows[position] is not None or op.derivatives[position] is None:
            found.append(position)
    return found


def dependent(graph: Graph, roots: Sequence[Value]) -> set[Value]:
    """The values that depend differentiably on the roots, and the roots."""
    active = set(roots)
    for node in graph.nodes:
        if node.op.name == "region":
            body = node.attributes["body"]
            inside = dependent(body, [x for x, v in zip(body.inputs, node.operands, strict=True) if v in active])
            active.update(v for v, y in zip(node.results, body.outputs, strict=True) if y in inside)
            continue
        if any(node.operands[p] in active for p in differentiable_operands(node)):
            active.update(node.results)
    return active


def chosen_inputs(graph: Graph, wrt: Sequence[str] | None) -> list[Value]:
    """The inputs to differentiate in: the floating-point parameters, or those named. SlpError E0403, E0412."""
    if wrt is None:
        return [v for v in graph.parameters if v.dtype.is_float]
    found = []
    for name in wrt:
        try:
            value = graph.input(name)
        except Fault as fault:
            raise fault.error(graph.file) from None
        if not value.dtype.is_float:
            raise Fault("E0412", f"'{name}' has dtype {value.dtype}: nothing is differentiable in it").error(graph.file)
        if value not in found:
            found.append(value)
    return found


def chosen_output(graph: Graph, of: str | None) -> Value:
    """The output to differentiate: the first, or the one named. SlpError E0403, E0412."""
    output = graph.outputs[0]
    if of is not None:
        names = {v.name: v for v in graph.outputs}
        if of not in names:
            raise Fault("E0403", f"{graph.name} has no output '{of}'",
                        near(of, names) or f"its outputs are {', '.join(names)}").error(graph.file)
        output = names[of]
    if not output.dtype.is_float:
        raise Fault("E0412", f"the output '{output.name}' has dtype {output.dtype} and no derivative",
                    "choose another with of (--of)").error(graph.file)
    return output


def not_differentiable(graph: Graph, node: Node, position: int) -> Exception:
    """The table has no derivative in this operand."""
    operand = node.op.operands[position]
    return Fault("E0412", f"{node.op.name} has no derivative in its operand {operand} "
                          f"('{node.operands[position].name}')",
                 f"stop_gradient({node.operands[position].name}) makes it a constant").error(graph.file)

"""The graph as canonical .slp text: flat, typed, one operation a line, in schedule order. It parses to an equal
graph."""

from __future__ import annotations

from collections.abc import Sequence

from . import literals
from .graph import Constant, Default, Distribution, Graph, Node, Value, buffer
from .shapes import Index
from .types import DType, Shape, i64


def show(graph: Graph, *, deletions: bool = False) -> str:
    """The program's text, the bodies of its regions first. With `deletions`, `del x` marks where the last reader of a
    buffer has run."""
    texts = [_definition(body, False) for body in graph.regions()]
    return "\n\n".join([*texts, _definition(graph, deletions)])


def _definition(graph: Graph, deletions: bool) -> str:
    """One def."""
    lines = ["@scheduled"] if graph.scheduled else []
    if graph.donated:
        pairs = (f'{old}="{new}"' for old, new in graph.donated.items())
        lines.append(f"@donated({', '.join(pairs)})")
    arrow = ""
    if graph.rows is not None:
        shown = f"rows={_short_axis(graph.rows)}" if graph.rows else ""
        lines.append(f"@tile({shown})")
        types = ", ".join(str(v.type) for v in graph.outputs)
        arrow = f" -> {types}" if len(graph.outputs) == 1 else f" -> tuple[{types}]"
    lines.append(f"def {graph.name}({_signature(graph)}){arrow}:")
    dead = dying(graph) if deletions else {}
    for at, node in enumerate(graph.nodes):
        lines.append("    " + show_node(node))
        if at in dead:
            lines.append("    del " + ", ".join(v.name for v in dead[at]))
    lines.append("    return " + ", ".join(v.name for v in graph.outputs))
    return "\n".join(lines) + "\n"


def dying(graph: Graph) -> dict[int, list[Value]]:
    """For each place in the schedule the values that end there, views with the buffer that they look into."""
    last: dict[int, int] = {}
    roots: dict[int, int] = {}
    for at, node in enumerate(graph.nodes):
        for value in (*node.operands, *node.results):
            root = id(buffer(value))
            roots[id(value)] = root
            last[root] = at
    kept = {id(buffer(v)) for v in (*graph.inputs, *graph.outputs)}
    dead: dict[int, list[Value]] = {}
    for node in graph.nodes:
        for value in node.results:
            root = roots[id(value)]
            if root not in kept:
                dead.setdefault(last[root], []).append(value)
    return dead


def _signature(graph: Graph) -> str:
    parts = []
    for position, value in enumerate(graph.inputs):
        if position == graph.first_data:
            parts.append("*")
        default = graph.defaults.get(value.name)
        parts.append(f"{value.name}: {value.type}"
                     + ("" if default is None else f" = {show_default(default, value.dtype)}"))
    return ", ".join(parts)


def show_default(default: Default, dtype: DType) -> str:
    """A default as it stands in a signature."""
    if isinstance(default, Distribution):
        return str(default)
    return literals.text(default, dtype)


def show_node(node: Node) -> str:
    """One line: `z3: f64 = exp(z2)`; of several results `a, b = g(x)`, whose types the def of g says."""
    if len(node.results) > 1:
        return f"{', '.join(v.name for v in node.results)} = {show_operation(node)}"
    return f"{node.result.name}: {node.result.type} = {show_operation(node)}"


def show_operation(node: Node) -> str:
    """The right-hand side."""
    op, name = node.op, node.op.name
    operands = [_operand(node, v) for v in node.operands]
    if op.symbol:
        return _symbolic(op.symbol, operands)
    attributes = node.attributes
    if name == "region":
        return f"{attributes['body'].name}({', '.join(operands)})"
    if name == "slice":
        return f"{operands[0]}[{show_index(attributes['index'], node.operands[0].shape)}]"
    if name == "gather":
        return f"{operands[0]}[{', '.join(operands[1:])}]"
    if name == "permute_dims" and attributes["axes"] == (1, 0):
        return f"{operands[0]}.T"
    if name == "arange":
        return _arange(attributes["start"], attributes["stop"], attributes["step"], attributes["dtype"])
    if name in ("broadcast_to", "reshape", "permute_dims"):
        return f"{name}({operands[0]}, {attributes[op.attributes[0]]})"
    if name == "astype":
        return f"astype({operands[0]}, {attributes['dtype']})"
    if name == "place":
        at = [f"s_[{show_index(index, attributes['shape'])}]" for index in attributes["at"]]
        inner = ", ".join(at) + ("," if len(at) == 1 else "")
        return f"place({', '.join(operands)}, at=({inner}), shape={attributes['shape']})"
    extra = [f"{key}={_short_axis(attributes[key])}" for key in op.attributes]
    return f"{name}({', '.join(operands + extra)})"


def _short_axis(value: object) -> object:
    """`axis=0` rather than `axis=(0,)`."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def _symbolic(symbol: str, operands: list[str]) -> str:
    if len(operands) == 1:
        return f"{symbol}{operands[0]}"
    left = operands[0]
    if symbol == "**" and left.startswith("-"):
        left = f"({left})"
    return f"{left} {symbol} {operands[1]}"


def _arange(start: int, stop: int, step: int, dtype: DType) -> str:
    bounds = [stop] if (start, step) == (0, 1) else [start, stop] if step == 1 else [start, stop, step]
    shown = [str(b) for b in bounds] + ([] if dtype is i64 else [f"dtype={dtype}"])
    return f"arange({', '.join(shown)})"


def show_index(index: Index, shape: Shape) -> str:
    """A constant index as it stands in brackets; trailing whole axes are left out."""
    parts = []
    for entry, n in zip(index, shape, strict=True):
        parts.append(str(entry) if isinstance(entry, int) else _show_slice(entry, n))
    while len(parts) > 1 and parts[-1] == ":":
        parts.pop()
    return ", ".join(parts) if parts else "()"


def _show_slice(entry: tuple[int, int, int], n: int) -> str:
    start, stop, step = entry
    if step > 0:
        first = "" if start == 0 else str(start)
        last = "" if stop == n else str(stop)
    else:
        first = "" if start == n - 1 else str(start)
        last = "" if stop == -1 else str(stop)
    return f"{first}:{last}" + ("" if step == 1 else f":{step}")


def _operand(node: Node, value: Value) -> str:
    if not isinstance(value, Constant):
        return value.name
    number = literals.text(value.number, value.dtype)
    return number if _typed_by_context(node, value) else f"{value.dtype}({number})"


def _typed_by_context(node: Node, value: Constant) -> bool:
    """Does the line say the literal's dtype: by another operand that it meets, or by the result's annotation?"""
    if value.dtype.kind == "bool":
        return True
    group: Sequence[Value] = node.operands[1:] if node.op.name == "where" else node.operands
    if node.op.elementwise and any(not isinstance(v, Constant) for v in group):
        return True
    if node.op.name == "where":
        return not isinstance(node.operands[0], Constant)
    return node.op.name in ("broadcast_to", "copy")

"""The text of a function that runs on an arena: the views, made once, and the lines that write into them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..ir.layout import layout
from ..ir.show import show_index
from ..passes.arena import Placement
from .numpy_into import lower_into
from .numpy_lowering import dtype_text, lower, python_literal
from .python_source import last_reads, lodged

WIDTH = 110

Name = Callable[[Value], str]


class RegionNames(Protocol):
    """What names the functions of regions."""

    def function(self, node: Node) -> str:
        """The function that runs a region on its part of the block, which the module will have."""


class Module:
    """What the functions of a module share. `given` are the values that lie in an array of the caller's, and what each
    of these is a part of; `arrays` are the outputs that are such arrays."""

    def __init__(self, graph: Graph, placement: Placement, name: Name, poison: bool, given: Mapping[Value, Value],
                 arrays: Sequence[Value], helpers: dict[str, None], regions: RegionNames | None = None) -> None:
        self.graph, self.placement, self.name, self.poison = graph, placement, name, poison
        self.given, self.arrays, self.helpers, self.regions = given, list(arrays), helpers, regions
        self.scalars = [v for v in graph.outputs if not v.shape]
        self.arguments = [*graph.inputs, *self.arrays]
        self.slots: dict[Value, int] = {}
        self.dying = last_reads(graph)


def _assignment(names: Sequence[str], expression: str) -> list[str]:
    """All the names for one object; in several lines where one would be long."""
    lines = []
    line = first = names[0]
    for name in names[1:]:
        if len(line) + len(name) + len(expression) + 10 > WIDTH:
            lines.append(f"{line} = {expression}")
            line, expression = name, first
        else:
            line += f" = {name}"
    return [*lines, f"{line} = {expression}"]


def view(value: Value, offset: int) -> str:
    """The expression of a value's array in the block."""
    return f"np.ndarray({value.shape}, {dtype_text(value.dtype)}, block, {offset})"


def filled(text: str, indent: str) -> list[str]:
    """The text in lines, broken at spaces."""
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)


class Function:
    """One function under construction: the views that are made beforehand, and the lines that run on them."""

    def __init__(self, module: Module, known: Sequence[Value]) -> None:
        self.module, self.name = module, module.name
        self.given = frozenset(known)
        self.known = set(known)
        self.beforehand: set[Value] = set()
        self.views: dict[tuple[object, ...], tuple[list[str], str]] = {}
        self.read: dict[str, None] = {}  # names of views that the lines read
        self.lines: list[str] = []

    def text(self, suffix: str, arguments: str) -> list[str]:
        """`views` and `run`, with this suffix."""
        made = []
        for names, expression in self.views.values():
            made += _assignment(names, expression)
        read = ", ".join(self.read) + ("," if len(self.read) == 1 else "")
        parameters = ", ".join(filter(None, ["arena", arguments]))
        return ["", "", f"def views{suffix}(block):", *(f"    {line}" for line in made),
                "    return (", *filled(read, "        "), "    )", "", "", f"def run{suffix}({parameters}):",
                *(["    (", *filled(read, "        "), "    ) = arena"] if read else []),
                *(f"    {line}" for line in self.lines or ["pass"])]

    def run(self, steps: range) -> Function:
        """With the lines of these operations."""
        module = self.module
        for at in steps:
            node = module.graph.nodes[at]
            if not node.op.view:
                self._node(node)
            self._free(module.dying.get(at, ()))
        if steps.stop == len(module.graph.nodes):
            scalars = [f"{self.array(v)}" if not buffer(v).shape else f"{self.array(v)}[()]" for v in module.scalars]
            self.lines.append(f"return {', '.join(scalars)}{',' if len(scalars) == 1 else ''}")
        return self

    def _free(self, dead: Sequence[Value]) -> None:
        """Scalars are deleted. The memory of arrays is left as it is, or poisoned."""
        module = self.module
        scalars = [v for v in dead if not v.shape and v in self.known]
        if scalars:
            self.lines.append(f"del {', '.join(map(self.name, scalars))}")
        self.lines += [f"values[{module.slots[v]}] = None" for v in scalars if v in module.slots]
        for v in dead:
            known = module.placement
            if module.poison and v in known.offsets and v.shape and v not in module.given and v not in known.heirs:
                start = module.placement.offsets[v]
                self.read["block"] = None
                self.lines.append(f"block[{start}:{start + v.type.bytes}] = 255  # {self.name(v)}")

    def _region(self, node: Node) -> None:
        """Call the region's function, with its part of the block."""
        module = self.module
        assert module.regions is not None
        function = module.regions.function(node)
        arrays = [v for v in node.results if v.shape]
        scalars = [v for v in node.results if not v.shape]
        arguments = [self.array(v) for v in (*node.operands, *arrays)]
        if node in module.placement.workspace:
            at = module.placement.workspace[node]
            arena = f"{self.name(node.results[0])}_arena"
            self.views[node, "arena"] = [arena], f"block[{at}:]"
            self.read[arena] = None
        else:
            arena = "None"
        found = ", ".join(map(self.name, scalars)) + (", = " if len(scalars) == 1 else " = " if scalars else "")
        self.lines += filled(f"{found}{function}({', '.join([arena, *arguments])})", "")
        for v in scalars:
            self._scalar(v)

    def _node(self, node: Node) -> None:
        if node.op.name == "region":
            self._region(node)
            return
        result = node.result
        if result.shape:
            self.lines += lower_into(node, self.array(result), self)
            return
        lines = lower(node, lambda v: self.name(v) if v is result else self.array(v))
        self.lines += lines
        self._scalar(result)

    def _scalar(self, result: Value) -> None:
        """A scalar is there now."""
        self.known.add(result)
        # An array of one element that an output makes of a scalar is an argument: it is filled at once.
        self.lines += [f"np.copyto({self.name(v)}, {self.name(result)})" for v in self.module.arrays
                       if buffer(v) is result]
        if result in self.module.slots:
            self.lines.append(f"values[{self.module.slots[result]}] = {self.name(result)}")

    # What a lowering asks for -----------------------------------------------------------------------------------

    def array(self, value: Value) -> str:
        """The value in its own shape."""
        if isinstance(value, Constant):
            return self._constant(value)
        name = self._ensured(value)
        if value in self.beforehand:
            self.read[name] = None
        return name

    def _constant(self, value: Constant) -> str:
        return f"{dtype_text(value.dtype)}({python_literal(value)})"

    def _ensured(self, value: Value) -> str:
        if value not in self.known:
            self._define(value)
        return self.name(value)

    def repeated(self, value: Value) -> str:
        """The value, or what NumPy itself repeats to its shape."""
        while value not in self.given and (node := value.node) is not None and (
                node.op.name in ("broadcast_to", "stop_gradient") or (node.op.name == "reshape" and _only_leads(node))):
            value = node.operands[0]
        return self.array(value)

    def workspace(self, node: Node, dtype: str, shape: tuple[int, ...]) -> str:
        """The node's workspace as an array, made beforehand."""
        offset = self.module.placement.workspace[node]
        name = f"{self.name(node.result)}_work"
        self.views[node, "workspace"] = [name], f"np.ndarray({shape}, {dtype}, block, {offset})"
        self.read[name] = None
        return name

    def inherited(self, node: Node, position: int) -> bool:
        """Does the operand's memory lie where it belongs in the result's?"""
        return bool(buffer(node.operands[position]).shape) and self.module.placement.inherited(node, position)

    def helper(self, name: str) -> str:
        """The name of a helper function, which the module will have."""
        self.module.helpers[name] = None
        return name

    # Names ------------------------------------------------------------------------------------------------------

    def _define(self, value: Value) -> None:
        """Make the value's name stand for it: a view made beforehand where it lies in the block, else a line."""
        chain: list[Node] = []
        base = value
        while base not in self.known and base.node is not None and base.node.op.view:
            chain.append(base.node)
            base = base.node.operands[0]
        if base not in self.known and not isinstance(base, Constant):
            self._define_root(base)
        if not chain:
            return
        expression = self._constant(base) if isinstance(base, Constant) else self._ensured(base)
        for node in reversed(chain):
            expression = _VIEWS[node.op.name](expression, node)
        root = buffer(value)
        self.known.add(value)
        if value.shape and root.shape and root in self.module.placement.offsets and root not in self.module.given:
            lies = layout(value)
            assert lies is not None
            offset = self.module.placement.offsets[root] + lies.offset * value.dtype.bytes
            self._view((offset, value.type, lies.strides), value, expression)
        else:
            if base in self.beforehand:
                self.read[self.name(base)] = None
            self.lines.append(f"{self.name(value)} = {expression}")

    def _view(self, key: tuple[object, ...], value: Value, expression: str) -> None:
        """A view made beforehand; equal ones are one object with several names."""
        self.beforehand.add(value)
        self.views.setdefault(key, ([], expression))[0].append(self.name(value))

    def _define_root(self, root: Value) -> None:
        given, lodging = self.module.given, self.module.placement.lodged.get(root)
        if lodging is not None:
            self.known.add(root)
            self.lines.append(f"{self.name(root)} = {lodged(self._ensured(lodging.input), lodging, root)}")
        elif root in self.module.slots:
            self.known.add(root)
            self.lines.append(f"{self.name(root)} = values[{self.module.slots[root]}]")
        elif root in given:
            chain = [root]
            while (whole := given[chain[-1]]) not in self.known and whole not in self.module.slots:
                chain.append(whole)
            if whole not in self.known:
                self._define_root(whole)
            for v in reversed(chain):
                self.known.add(v)
                expression = self._part(v, given[v])
                self.lines.append(f"{self.name(v)} = {expression}")
        else:
            self.known.add(root)
            offset = self.module.placement.offsets[root]
            self._view((offset, root.type, None), root, view(root, offset))

    def _part(self, value: Value, whole: Value) -> str:
        """Where a value lies in an output, or in the value that takes over its memory."""
        text, shape = self.name(whole), whole.shape
        if whole.node is not None and whole.node.op.name == "place":
            node = whole.node
            at = next(i for i, v in enumerate(node.operands) if buffer(v) is value)
            text = f"{text}[{show_index(node.attributes['at'][at], shape)}]"
            shape = node.operands[at].shape
        return text if shape == value.shape else f"{text}.reshape({', '.join(map(str, value.shape))})"


def _only_leads(node: Node) -> bool:
    """Does the reshape but put axes of length 1 in front?"""
    old, new = node.operands[0].shape, node.result.shape
    lead = len(new) - len(old)
    return lead > 0 and new == (1,) * lead + old


def _reshaped(text: str, node: Node) -> str:
    return f"{text}.reshape({', '.join(map(str, node.result.shape)) or '()'})"


def _permuted(text: str, node: Node) -> str:
    axes = node.attributes["axes"]
    if axes == tuple(reversed(range(len(axes)))):
        return f"{text}.T"
    last = len(axes) - 1
    return f"{text}.mT" if axes == (*range(last - 1), last, last - 1) else f"{text}.transpose{axes}"


_VIEWS: dict[str, Callable[[str, Node], str]] = {
    "broadcast_to": lambda text, node: f"np.broadcast_to({text}, {node.result.shape})",
    "reshape": _reshaped,
    "permute_dims": _permuted,
    "slice": lambda text, node: f"{text}[{show_index(node.attributes['index'], node.operands[0].shape)}]",
    "stop_gradient": lambda text, node: text,
}

"""A program on one block of memory: every array is a view of it, made once, and every operation writes into its view.

Scalars are no part of the block: they are NumPy's scalars, as in a program that has no arena. A thread's first call has
a block to itself, which shrinks to the outputs in it. From the second call on, or with `out=`, the thread keeps its
arena with all the views of it, and outputs are arrays of their own: a loop of calls faults no page in again.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from ..ir.donation import donations
from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..ir.layout import layout
from ..ir.show import show_index
from ..passes.arena import Placement, within_outputs
from .numpy_into import HELPERS, lower_into
from .numpy_lowering import dtype_text, lower, python_literal
from .python_source import last_reads, listed, lodged

TAKEN = {"SIZE", "OUTPUTS", "PARTS", "arena", "block", "views", "run", "first", "kept", "out", "outputs", "part", "_",
         "threading", "getattr", "hasattr", "tuple", "zip", *HELPERS}
PART = 400
"""Operations in one function of a program that has more than twice as many: its views are made when it is reached."""
WIDTH = 110
BUFFER = 1024
"""Elements that NumPy converts or repeats at a time: fewer than its own 8192 are as fast, and take little memory."""

Name = Callable[[Value], str]


def emit_arena(graph: Graph, placement: Placement, name: Name, entry: str, poison: bool) -> list[str]:
    """The lines of the module below its imports. With `poison`, what is not alive holds NaN (bytes of 255)."""
    module = _Module(graph, placement, name, poison)
    functions = module.functions(entry, PART)
    helpers = [line for helper in module.helpers for line in ["", "", *HELPERS[helper].rstrip().split("\n")]]
    return [*module.sizes(), *helpers, *functions, *module.entry(entry)]


class _Module:
    """What the functions of a module share."""

    def __init__(self, graph: Graph, placement: Placement, name: Name, poison: bool) -> None:
        self.graph, self.placement, self.name, self.poison = graph, placement, name, poison
        self.over = {y: x for y, x in donations(graph).items() if buffer(y) in placement.lodged}
        self.arrays = [v for v in graph.outputs if v.shape and v not in self.over]
        self.scalars = [v for v in graph.outputs if not v.shape]
        self.arguments = [*graph.inputs, *self.arrays]
        self.given = within_outputs(graph, placement)
        self.helpers: dict[str, None] = {}
        self.slots: dict[Value, int] = {}
        self.dying = last_reads(graph)
        self.block = f"np.{'full(SIZE, 255' if poison else 'empty(SIZE'}, np.uint8)"

    def sizes(self) -> list[str]:
        """The constants of the module."""
        ends = [self.placement.offsets[buffer(v)] + v.type.bytes for v in self.arrays]
        return ["", f"SIZE = {self.placement.size}  # bytes of the arena",
                f"OUTPUTS = {max(ends, default=0)}  # bytes of it that the outputs reach"]

    def functions(self, entry: str, length: int) -> list[str]:
        """`views(block)`, which makes the views, and `run(arena, ...)`, which runs on what that returns."""
        nodes = self.graph.nodes
        arguments = ", ".join(map(self.name, self.arguments))
        if len(nodes) <= 2 * length:
            return _Function(self, self.arguments).run(range(len(nodes))).text("", arguments)
        self.slots = self._slots(length)
        text: list[str] = []
        parts = []
        for start in range(0, len(nodes), length):
            part = f"_block_{entry}_{start // length}"
            parts.append(f"(views{part}, run{part}),")
            text += _Function(self, ()).run(range(start, min(start + length, len(nodes)))).text(part, "values")
        rest = len(self.slots) - len(self.arguments)
        return [*text, "", "", "PARTS = (", *_filled(" ".join(parts), "    "), ")", "", "", "def views(block):",
                "    return ((part[0](block), part[1]) for part in PARTS)", "", "",
                f"def run({', '.join(filter(None, ['arena', arguments]))}):",
                f"    values = [{arguments}] + [None] * {rest}", "    for part in arena:",
                "        found = part[1](part[0], values)", "    return found"]

    def _slots(self, length: int) -> dict[Value, int]:
        """Places in the list `values` of what several functions read: arguments and scalars."""
        slots = {v: i for i, v in enumerate(self.arguments)}
        part = {v: at // length for at, node in enumerate(self.graph.nodes) for v in node.results}
        last = (len(self.graph.nodes) - 1) // length
        for at, node in enumerate(self.graph.nodes):
            for root in map(buffer, node.operands):
                if not root.shape and part.get(root, at // length) != at // length:
                    slots.setdefault(root, len(slots))
        for root in map(buffer, self.graph.outputs):
            if not root.shape and part.get(root, last) != last:
                slots.setdefault(root, len(slots))
        return slots

    def entry(self, entry: str) -> list[str]:
        """The function that is called, and the one that makes a thread's first call. An arena is taken away from the
        thread while it is in use, so that what interrupts a call, and calls as well, has one of its own."""
        inputs, arrays = listed(self.name, self.graph.inputs), listed(self.name, self.arrays)
        found = f"{listed(self.name, self.scalars)} = " if self.scalars else ""
        own = [v for v in self.graph.outputs if v not in self.over]
        answer = f"return {listed(self.name, [self.over.get(v, v) for v in self.graph.outputs])}"

        def ran(arena: str) -> str:
            return f"{found}run({', '.join([arena, *map(self.name, self.arguments)])})"

        offset = self.placement.offsets
        outputs = ["", "", "def outputs(block):",
                   *(f"    {self.name(v)} = {_view(v, offset.get(buffer(v), 0))}" for v in self.arrays),
                   f"    return {arrays}"]
        inside = [f"    {arrays} = outputs(block)"]
        shrunk = ["    block.resize(OUTPUTS, refcheck=False)", *inside]
        given = ", ".join(self.name(v) if v.shape else "_" for v in own)
        fresh = [f"{self.name(v)} = np.empty({v.shape}, {dtype_text(v.dtype)})" for v in self.arrays]
        places = ["    if out is None:", *(f"        {line}" for line in fresh), "    else:",
                  f"        {given}{',' if len(own) == 1 else ''} = out"]
        written = [f"    out[{i}][()] = {self.name(v)}" for i, v in enumerate(own) if not v.shape]
        written += self._returned(own)
        return [*(outputs if self.arrays else []), "", "", "kept = threading.local()",
                "", "", f"def first({', '.join(map(self.name, self.graph.inputs))}):", f"    block = {self.block}",
                *(inside if self.arrays else []), f"    {ran('views(block)')}",
                *(shrunk if self.arrays else []), f"    {answer}",
                "", "", '@np.errstate(all="ignore")',
                f"def {entry}({', '.join([*map(self.name, self.graph.inputs), 'out=None'])}):",
                f"    np.setbufsize({BUFFER})", '    if out is None and not hasattr(kept, "arena"):',
                "        kept.arena = None", f"        return first({inputs.rstrip(',')})",
                *(places if self.arrays else []),
                f'    arena = getattr(kept, "arena", None) or tuple(views({self.block}))',
                "    kept.arena = None", f"    {ran('arena')}", "    kept.arena = arena",
                "    if out is None:", f"        {answer}", *written,
                "", "", f"ENTRY = {entry}"]

    def _returned(self, own: Sequence[Value]) -> list[str]:
        """The outputs, of which `out` has those that lie in no input."""
        if not self.over:
            return ["    return tuple(out)"]
        told = (self.name(self.over[v]) if v in self.over else f"out[{own.index(v)}]" for v in self.graph.outputs)
        return ["    return (", *_filled(", ".join(told) + ",", "        "), "    )"]


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


def _view(value: Value, offset: int) -> str:
    return f"np.ndarray({value.shape}, {dtype_text(value.dtype)}, block, {offset})"


def _filled(text: str, indent: str) -> list[str]:
    """The text in lines, broken at spaces."""
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)


class _Function:
    """One function under construction: the views that are made beforehand, and the lines that run on them."""

    def __init__(self, module: _Module, known: Sequence[Value]) -> None:
        self.module, self.name = module, module.name
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
                "    return (", *_filled(read, "        "), "    )", "", "", f"def run{suffix}({parameters}):",
                *(["    (", *_filled(read, "        "), "    ) = arena"] if read else []),
                *(f"    {line}" for line in self.lines or ["pass"])]

    def run(self, steps: range) -> _Function:
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

    def _node(self, node: Node) -> None:
        result = node.result
        if result.shape:
            self.lines += lower_into(node, self.array(result), self)
            return
        lines = lower(node, lambda v: self.name(v) if v is result else self.array(v))
        self.lines += lines
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
        while (node := value.node) is not None and (
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
            self._view((offset, root.type, None), root, _view(root, offset))

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

"""A program on one block of memory: every array is a view of it, made once, and every operation writes into its view.

Scalars are no part of the block: they are NumPy's scalars, as in a program that has no arena. A thread's first call has
a block to itself, which shrinks to the outputs in it. From the second call on, or with `out=`, the thread keeps its
arena with all the views of it, and outputs are arrays of their own: a loop of calls faults no page in again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.donation import donations
from ..ir.graph import Graph, Value, buffer
from ..ir.target import Target
from ..passes.arena import Placement, within_outputs
from .numpy_function import Function, Module, filled, view
from .numpy_into import HELPERS
from .numpy_lowering import dtype_text
from .numpy_regions import Regions
from .python_source import Names, listed

TAKEN = {"SIZE", "OUTPUTS", "PARTS", "arena", "block", "views", "run", "first", "kept", "out", "outputs", "part", "_",
         "threading", "getattr", "hasattr", "tuple", "zip", *HELPERS}
PART = 400
"""Operations in one function of a program that has more than twice as many: its views are made when it is reached."""
BUFFER = 1024
"""Elements that NumPy converts or repeats at a time: fewer than its own 8192 are as fast, and take little memory."""


def emit_arena(graph: Graph, placement: Placement, target: Target, name: Names, entry: str, poison: bool) -> list[str]:
    """The lines of the module below its imports. With `poison`, what is not alive holds NaN (bytes of 255)."""
    module = _Module(graph, placement, target, name, poison)
    functions = module.functions(entry, PART)
    helpers = [line for helper in module.helpers for line in ["", "", *HELPERS[helper].rstrip().split("\n")]]
    return [*module.sizes(), *helpers, *module.bodies.text, *functions, *module.entry(entry)]


class _Module(Module):
    """A whole program's."""

    def __init__(self, graph: Graph, placement: Placement, target: Target, name: Names, poison: bool) -> None:
        self.over = {y: x for y, x in donations(graph).items() if buffer(y) in placement.lodged}
        arrays = [v for v in graph.outputs if v.shape and v not in self.over]
        helpers: dict[str, None] = {}
        self.bodies = Regions(target, name, poison, helpers)
        super().__init__(graph, placement, name, poison, within_outputs(graph, placement), arrays, helpers, self.bodies)
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
            return Function(self, self.arguments).run(range(len(nodes))).text("", arguments)
        self.slots = self._slots(length)
        text: list[str] = []
        parts = []
        for start in range(0, len(nodes), length):
            part = f"_block_{entry}_{start // length}"
            parts.append(f"(views{part}, run{part}),")
            text += Function(self, ()).run(range(start, min(start + length, len(nodes)))).text(part, "values")
        rest = len(self.slots) - len(self.arguments)
        return [*text, "", "", "PARTS = (", *filled(" ".join(parts), "    "), ")", "", "", "def views(block):",
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
                   *(f"    {self.name(v)} = {view(v, offset.get(buffer(v), 0))}" for v in self.arrays),
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
        return ["    return (", *filled(", ".join(told) + ",", "        "), "    )"]

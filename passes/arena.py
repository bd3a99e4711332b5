"""One arena: an offset for each value, such that no two that are alive together overlap."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..ir.graph import Graph, Node, Value, buffer
from ..ir.layout import layout
from ..ir.target import Target
from . import packing
from .donation import Lodging, lodgings
from .first_fit import Part
from .in_place import piece_offsets
from .liveness import Lives, lives
from .tasks import Tasks, tasks


@dataclass(frozen=True, eq=False)
class Placement:
    """Offsets in bytes into one arena of `size` bytes, of each value that owns memory and of each node's workspace.

    `heirs`: the value that takes over a value's memory as it dies; it is written over it. `live_peak` is the most bytes
    alive at once, which `size` can't go below. `lodged`: the values that lie in donated inputs, and in no arena.
    """

    size: int
    live_peak: int
    offsets: Mapping[Value, int]
    workspace: Mapping[Node, int]
    heirs: Mapping[Value, Value]
    lodged: Mapping[Value, Lodging]

    def inherited(self, node: Node, position: int) -> bool:
        """Does the operand's memory lie already where it belongs in the result's?"""
        operand = node.operands[position]
        root = buffer(operand)
        if self.heirs.get(root) is node.result:
            return True
        home = self.lodged.get(node.result)
        lies = layout(operand)
        if home is None or lies is None or not lies.contiguous:
            return False
        own = self.lodged.get(root)
        if (own.input if own is not None else root) is not home.input:
            return False
        at = piece_offsets(node)[position] if node.op.name == "place" else 0
        begins = lies.offset * root.dtype.bytes + (own.offset if own is not None else 0)
        return at is not None and begins == home.offset + at


def place(graph: Graph, target: Target, inlined: Collection[Node] = (), outside: Collection[Value] = ()) -> Placement:
    """The arena of a program as it is scheduled, in which nodes that are `inlined` and values that lie `outside` have
    no place. The same for the same program, whatever the hash seed."""
    seen = tasks(graph, target, inlined, outside)
    alive = lives(seen, seen.order)
    units, home, workspaces = _units(seen, alive)
    kept = {unit for copy, (unit, _) in enumerate(home) if seen.output[alive.buffer[copy]]}
    offsets = packing.pack(units, target.alignment, alive.peak, kept)
    value = [seen.values[b] for b in alive.buffer]
    lodged = lodgings(graph, target, inlined)
    return Placement(
        packing.size(units, offsets), alive.peak,
        {value[copy]: offsets[unit] + at for copy, (unit, at) in enumerate(home) if value[copy] not in lodged},
        {seen.nodes[task]: offsets[unit] for task, unit in workspaces.items()},
        {value[copy]: value[heir] for copy, heir in enumerate(alive.heir) if heir >= 0}, lodged)


def within_outputs(graph: Graph, placement: Placement, scalars: bool = False) -> dict[Value, Value]:
    """What lies in an array of the caller's if there is one, and what each of these is a part of: an output, the value
    that it is a view of, and those whose memory that takes over. `scalars`: do they lie in the arena too?"""
    given = {buffer(v): v for v in graph.outputs
             if buffer(v) not in placement.lodged and (scalars or (v.shape and buffer(v).shape))}
    for node in reversed(graph.nodes):
        for v in node.results:
            heir = placement.heirs.get(v)
            if (v.shape or scalars) and heir in given:
                given[v] = heir
    return given


def likely_size(seen: Tasks, order: Sequence[int]) -> int:
    """Bytes of an arena for an order of tasks as first fit has it; `place` may find a smaller one."""
    alive = lives(seen, order)
    units, _, _ = _units(seen, alive)
    return packing.size(units, packing.pack(units, seen.target.alignment, alive.peak, quick=True))


def _units(seen: Tasks, alive: Lives) -> tuple[list[list[Part]], list[tuple[int, int]], dict[int, int]]:
    """The units, the unit and the offset in it of each copy, and the unit of each task's workspace."""
    home: list[tuple[int, int]] = [(0, 0)] * len(alive.buffer)
    units: list[list[Part]] = []
    for copy in range(len(alive.buffer) - 1, -1, -1):  # an heir comes after those whose memory it takes
        start, end, size = alive.start[copy], alive.end[copy], seen.bytes[alive.buffer[copy]]
        heir = alive.heir[copy]
        if heir < 0:
            home[copy] = (len(units), 0)
            units.append([Part(start, end, size)])
            continue
        unit, at = home[heir]
        at += alive.offset[copy]
        home[copy] = (unit, at)
        for i, part in enumerate(units[unit]):
            if (part.offset, part.bytes, part.start) == (at, size, end):
                units[unit][i] = Part(start, part.end, size, at)
                break
        else:
            units[unit].append(Part(start, end - 1, min(size, units[unit][0].bytes - at), at))
    workspaces = {}
    for step, task in enumerate(alive.order):
        if seen.workspace[task]:
            workspaces[task] = len(units)
            units.append([Part(step, step, seen.target.padded(seen.workspace[task]))])
    return units, home, workspaces

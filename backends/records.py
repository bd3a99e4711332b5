"""How inputs and outputs lie in memory: end to end in two records, each at a multiple of its size, as in C's structs.

The emitted text says it in comments at its head, so that the text alone is enough to load it:

    ; f: emitted by slpc from lecture.slp
    ; input w1: f64
    ; output z6: f64
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.types import DTYPES, TensorType


@dataclass(frozen=True)
class Field:
    """An input or output: its place in the record, in bytes, and the number of its first element among all."""

    name: str
    type: TensorType
    offset: int
    first: int

    @property
    def stored(self) -> int:
        """Bytes of one element in memory."""
        return self.type.dtype.bytes


@dataclass(frozen=True)
class Record:
    """Fields in order, the bytes and the number of elements of all together."""

    fields: tuple[Field, ...]
    bytes: int
    elements: int


def record(types: Iterable[tuple[str, TensorType]]) -> Record:
    """The record of values by name and type."""
    fields, offset, first = [], 0, 0
    for name, type in types:
        size = type.dtype.bytes
        offset = -(-offset // size) * size
        fields.append(Field(name, type, offset, first))
        offset += type.bytes
        first += type.size
    return Record(tuple(fields), -(-offset // 8) * 8, first)


@dataclass(frozen=True)
class Arena:
    """The block of memory of a program of arrays: its bytes, how many of them the outputs reach, where each output
    begins (-1 - i: it lies in the i-th input, which is donated), and the names of the values that are made by indices
    from data."""

    size: int
    outputs: int
    offsets: tuple[int, ...]
    indexed: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A program's records, the workspace that a call needs, in bytes, and the points that it computes at once."""

    name: str
    inputs: Record
    outputs: Record
    workspace: int = 0
    lanes: int = 1
    arena: Arena | None = None

    @property
    def plain(self) -> bool:
        """Are all inputs and outputs f64 scalars?"""
        return all(not f.type.shape and f.type.dtype.name == "f64" for f in self.inputs.fields + self.outputs.fields)


def layout_of(graph: Graph) -> Layout:
    """The layout of a graph's inputs and outputs, without a workspace yet."""
    return Layout(graph.name, record((v.name, v.type) for v in graph.inputs),
                  record((v.name, v.type) for v in graph.outputs))


def head(layout: Layout, source: str) -> list[str]:
    """The comments that say it."""
    shown = "".join(c if c.isprintable() else "_" for c in source)
    lines = [f"; {layout.name}: emitted by slpc{' from ' + shown if shown else ''}"]
    lines += [f"; input {f.name}: {f.type}" for f in layout.inputs.fields]
    lines += [f"; output {f.name}: {f.type}" for f in layout.outputs.fields]
    if (a := layout.arena) is not None:
        return [*lines, f"; arena {a.size} {a.outputs}", f"; offsets {' '.join(map(str, a.offsets))}",
                f"; indexed {' '.join(a.indexed)}", ""]
    return [*lines, f"; workspace {layout.workspace}", f"; lanes {layout.lanes}", ""]


def read_head(text: str) -> Layout:
    """The layout that a text's head says."""
    inputs: list[tuple[str, TensorType]] = []
    outputs: list[tuple[str, TensorType]] = []
    name, numbers = "", {"workspace": 0, "lanes": 1}
    words: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.startswith("; "):
            break
        word, _, rest = line[2:].partition(" ")
        if word in ("input", "output"):
            label, _, type = rest.partition(": ")
            (inputs if word == "input" else outputs).append((label, _read_type(type)))
        elif word in numbers:
            numbers[word] = int(rest)
        elif word in ("arena", "offsets", "indexed"):
            words[word] = rest.split()
        else:
            name = word.rstrip(":")
    arena = None
    if words:
        size, reached = map(int, words["arena"])
        arena = Arena(size, reached, tuple(map(int, words["offsets"])), tuple(words["indexed"]))
    return Layout(name, record(inputs), record(outputs), **numbers, arena=arena)


def _read_type(text: str) -> TensorType:
    dtype, _, shape = text.partition("[")
    return TensorType(DTYPES[dtype], tuple(int(n) for n in shape.rstrip("]").split(",")) if shape else ())

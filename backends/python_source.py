"""What the backends that emit Python share: names, the text of a long program in functions, and loading a module."""

from __future__ import annotations

import itertools
import linecache
import re
from collections.abc import Callable, Collection, Sequence
from types import CodeType
from typing import Any

from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..passes.donation import Lodging

BLOCK = 1000
"""Operations in one emitted function: CPython's compiler takes more than linear time on a very long one."""

_counter = itertools.count()


def load_module(text: str, name: str = "") -> dict[str, Any]:
    """The names that an emitted module defines. Tracebacks into it show its lines."""
    file = f"<slpc {name or 'program'} {next(_counter)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    module: dict[str, Any] = {"__name__": file}
    line = 0
    for part in text.split("\n\n\n"):  # one call on a long text would hold the syntax tree of all of it
        exec(_moved(compile(part, file, "exec"), line), module)
        line += part.count("\n") + 3
    return module


def _moved(code: CodeType, lines: int) -> CodeType:
    """The same code, its lines counted from further down."""
    constants = tuple(_moved(c, lines) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_firstlineno=code.co_firstlineno + lines, co_consts=constants)


def title(graph: Graph, source: str) -> str:
    """The first line of a module's docstring."""
    return re.sub(r"[\\\"\n\r]", "_", f"{graph.name}: emitted by slpc{' from ' + source if source else ''}.")


class Names:
    """Python names for values: their own, but for what the module's text uses itself."""

    def __init__(self, used: set[str], taken: Collection[str]) -> None:
        self.used, self.taken = used, taken
        self.renamed: dict[str, str] = {}

    def text(self, name: str) -> str:
        """The name, or one like it where the module's text has that name."""
        if name not in self.taken and not name.startswith("_block_") and not name.endswith("_arrays"):
            return name
        if name not in self.renamed:
            fresh = name + "_"
            while fresh in self.used:
                fresh += "_"
            self.used.add(fresh)
            self.renamed[name] = fresh
        return self.renamed[name]

    def __call__(self, value: Value) -> str:
        return self.text(value.name)


def listed(names: Callable[[Value], str], values: Sequence[Value]) -> str:
    """Names with commas between; one has a comma behind it, so that it is a tuple of one."""
    text = ", ".join(map(names, values))
    return text + "," if len(values) == 1 else text


def last_reads(graph: Graph) -> dict[int, list[Value]]:
    """The values that own memory and are read for the last time, by the operation that does so; no outputs."""
    last: dict[Value, int] = {}
    for at, node in enumerate(graph.nodes):
        for v in (*node.results, *node.operands):
            last[buffer(v)] = at
    kept = set(map(buffer, graph.outputs)) | set(graph.inputs)
    found: dict[int, list[Value]] = {}
    for v, at in last.items():
        if v not in kept and not isinstance(v, Constant):
            found.setdefault(at, []).append(v)
    return found


def blocks(graph: Graph, names: Names, lines: Callable[[Node], list[str]], stem: str) -> tuple[list[str], list[str]]:
    """A long program as functions of `BLOCK` operations, and the lines that call them.

    Values that more than one block reads live in one list. A place in it is given back after the last block that
    reads it, so that time and memory stay linear.
    """
    block_of = {v: at // BLOCK for at, node in enumerate(graph.nodes) for v in node.results}
    last: dict[Value, int] = {}
    for at, node in enumerate(graph.nodes):
        for v in node.operands:
            if not isinstance(v, Constant):
                last[v] = at // BLOCK
    count = (len(graph.nodes) + BLOCK - 1) // BLOCK
    outputs = set(graph.outputs)
    free: list[int] = []
    slots: dict[Value, int] = {v: i for i, v in enumerate(graph.inputs)}
    width = len(graph.inputs)
    ending: dict[int, list[Value]] = {}
    for v in graph.inputs:
        ending.setdefault(last.get(v, 0), []).append(v)
    text: list[str] = []
    for block in range(count):
        nodes = graph.nodes[block * BLOCK:(block + 1) * BLOCK]
        body: list[str] = []
        here = set()
        for node in nodes:
            for v in node.operands:
                if not isinstance(v, Constant) and v not in here and block_of.get(v, -1) != block:
                    here.add(v)
                    body.append(f"{names(v)} = values[{slots[v]}]")
        for node in nodes:
            body += lines(node)
            for v in node.results:
                if last.get(v, block) > block or v in outputs:
                    if v not in outputs:
                        ending.setdefault(last[v], []).append(v)
                    if free:
                        slots[v] = free.pop()
                    else:
                        slots[v], width = width, width + 1
                    body.append(f"values[{slots[v]}] = {names(v)}")
        for v in ending.pop(block, []):
            if v not in outputs:
                body.append(f"values[{slots[v]}] = None")
                free.append(slots[v])
        text += [f"def {stem}_{block}(values):", *(f"    {line}" for line in body or ["pass"]), "", ""]
    calls = [f"values = [{', '.join(map(names, graph.inputs))}] + [None] * {width - len(graph.inputs)}"]
    calls += [f"{stem}_{block}(values)" for block in range(count)]
    calls.append(f"values += [{', '.join(f'values[{slots[v]}]' for v in graph.outputs)}]")
    calls.append(f"return tuple(values[-{len(graph.outputs)}:])")
    return text, calls


def lodged(text: str, lodging: Lodging, value: Value) -> str:
    """Where a value lies in a donated input of that name, which lies row by row."""
    shape, whole = value.shape, lodging.input.shape
    if shape == whole:
        return text
    if shape == whole[1:] and value.type.bytes:
        return f"{text}[{lodging.offset // value.type.bytes}]"
    first = lodging.offset // value.dtype.bytes
    return f"{text}.reshape(-1)[{first}:{first + value.type.size}].reshape({shape})"

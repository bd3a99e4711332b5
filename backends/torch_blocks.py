"""A region as a loop over blocks of its rows: each block is run by a function of the module, in a part of the arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..ir.graph import Graph, Node, Value
from ..ir.target import Target
from ..passes.blocks import Blocks, Program, Stretch, blocks
from .torch_lowering import Scope, noted_ranges


@dataclass(frozen=True)
class Block:
    """A function that runs a block program: its name, and whether it notes the ranges of indices."""

    name: str
    checks: bool


class HasBlocks:
    """What a scope derives from whose module can have functions that run blocks, legal for `target`."""

    target: Target

    def block_function(self, body: Graph, program: Program) -> Block:
        """The function of a program, which the module will have. It takes a block of memory, the operands that the
        program reads, where the block begins, and the outputs that lie outside; it returns the others."""
        raise NotImplementedError

    def counting(self, first: int, step: int, count: int) -> str:
        """The name of a tensor of the module: first, first + step, ..."""
        raise NotImplementedError

    def memory(self, node: Node, size: int) -> str:
        """An expression for the node's workspace as bytes."""
        raise NotImplementedError


def lower_blocks(node: Node, scope: Scope) -> list[str] | None:
    """The loop nests, one after the other."""
    if not isinstance(scope, HasBlocks):
        return None
    loop = blocks(node, scope.target)
    lines = noted_ranges(node, scope)
    for value, summed in zip(node.results, loop.summed, strict=True):
        number = node.results.index(value)
        alone = all(p.outside[number] and not p.added[number] for p in loop.programs.values())
        memory = scope.new(value) + (".zero_()" if summed and not alone else "")
        if memory != scope.name(value):
            lines.append(f"{scope.name(value)} = {memory}")
    work = f"{scope.name(node.results[0])}_work"
    if loop.workspace:
        lines.append(f"{work} = {scope.memory(node, loop.workspace)}")
    for nest, program in loop.nests():
        lines += _nest(node, scope, scope, loop, nest, program, work if loop.workspace else "None")
    return lines


def _nest(node: Node, scope: Scope, module: HasBlocks, loop: Blocks, nest: Sequence[Stretch], program: Program,
          work: str) -> list[str]:
    lines: list[str] = []
    indent = ""
    spans: dict[int, str] = {}
    begins: dict[int, str] = {}
    name = scope.name(node.results[0])
    for cut, stretch in enumerate(nest):
        first = f"{name}_{cut}"
        columns = stretch.columns if cut == len(nest) - 1 else None
        if len(stretch) == 1:
            spans[cut] = f"{stretch.start}:{stretch.start + stretch.step}"
            at = "[0]"
        else:
            lines.append(f"{indent}for {first} in range({stretch.start}, {stretch.stop}, {stretch.step}):")
            indent += "    "
            spans[cut] = f"{first}:{first} + {stretch.step}"
            at = f"[({first} - {stretch.start}) // {stretch.step}]"
        if cut in program.starts:
            begins[cut] = module.counting(stretch.start, stretch.step, len(stretch)) + at
        if columns is not None:
            start, growth, count = columns
            from_ = str(start) if len(stretch) == 1 or not growth else \
                f"{start} + ({first} - {stretch.start}) // {stretch.step} * {growth}"
            spans[loop.column] = f"{from_}:{from_} + {count}"
            if loop.column in program.starts:
                begins[loop.column] = module.counting(start, growth, len(stretch)) + at
    given = [work]
    given += [_part(scope.array(v), axes, spans) for v, axes, read in
              zip(node.operands, loop.operands, program.operands, strict=True) if read is not None]
    given += [begins[cut] for cut in program.starts]
    results = [_part(scope.name(v), axes, spans) for v, axes in zip(node.results, loop.results, strict=True)]
    given += [text for text, outside in zip(results, program.outside, strict=True) if outside]
    function = module.block_function(node.attributes["body"], program)
    if function.checks:
        given.append("checks")
    call = f"{function.name}({', '.join(given)})"
    inside = [place for place, outside in enumerate(program.outside) if not outside]
    if not inside:
        return [*lines, f"{indent}{call}"]
    found = [f"{name}_part{place}" for place in inside]
    lines.append(f"{indent}{', '.join(found)}, = {call}")
    for place, part in zip(inside, found, strict=True):
        lines.append(f"{indent}{results[place]}.{'add_' if loop.summed[place] else 'copy_'}({part})")
    return lines


def _part(text: str, axes: Sequence[int | None], spans: dict[int, str]) -> str:
    """A block of a tensor: the cut axes by what they span."""
    if all(cut is None for cut in axes):
        return text
    shown = [":" if cut is None else spans[cut] for cut in axes]
    while shown[-1] == ":":
        shown.pop()
    return f"{text}[{', '.join(shown)}]"


def known_values(program: Program) -> list[Value]:
    """What the function of a block program is given: operands as they lie, and where the block begins."""
    return [*(v for v in program.operands if v is not None), *program.starts.values()]

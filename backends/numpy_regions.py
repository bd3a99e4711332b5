"""Regions in NumPy: a function for each block program, and one for the region, which loops over the blocks.

    def attend(block, q, k, v, attend_out):
        arena = views_block_attend_0(block)
        for row in range(0, 960, 64):
            run_block_attend_0(arena, q[row:row + 64], k, v, attend_out[row:row + 64])
        arena = views_block_attend_1(block)
        run_block_attend_1(arena, q[960:1000], k, v, attend_out[960:1000])

A block's function writes its part of a result in place, or copies it there, or adds it to what blocks before have made.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.graph import Graph, Node, Value, buffer
from ..ir.target import Target
from ..passes.blocks import Blocks, Program, Stretch, blocks
from .numpy_function import Function, Module, filled
from .numpy_lowering import dtype_text
from .python_source import Names


class Regions:
    """The functions of a module's regions. `text` are their lines; `helpers`, the helper functions that they need."""

    def __init__(self, target: Target, names: Names, poison: bool, helpers: dict[str, None]) -> None:
        self.target, self.names, self.poison, self.helpers = target, names, poison, helpers
        self.text: list[str] = []
        self.known: list[tuple[Blocks, str]] = []

    def function(self, node: Node) -> str:
        """The name of the function that runs a region, emitted when it is first asked for."""
        found = blocks(node, self.target)
        for other, name in self.known:
            if other is found:
                return name
        taken = {name for _, name in self.known}
        name = stem = self.names.text(node.attributes["body"].name)
        count = 0
        while name in taken:
            count += 1
            name = f"{stem}_as_{count}"
        self.known.append((found, name))
        self.text += _Region(self, found, name).lines()
        return name


class _Region:
    """The text of one region."""

    def __init__(self, regions: Regions, found: Blocks, name: str) -> None:
        self.regions, self.blocks, self.name = regions, found, name
        self.body: Graph = found.rows.body
        self.arrays = [v for v in self.body.outputs if v.shape]
        self.scalars = [v for v in self.body.outputs if not v.shape]
        used = {v.name for v in self.body.values()}
        last = len(found.axes) - 1
        self.begins = [_fresh("row" if k == last else f"outer{k}" if last > 1 else "head", used)
                       for k in range(len(found.axes))]
        self.column = _fresh("column", used)
        self.parts = [_fresh(f"{v.name}_part", used) for v in self.scalars]
        self.numbers = {id(p): i for i, p in enumerate(found.programs.values())}

    def lines(self) -> list[str]:
        """The block programs and the loops."""
        text: list[str] = []
        for i, program in enumerate(self.blocks.programs.values()):
            text += self._program(program, f"_block_{self.name}_{i}")
        names = self.regions.names
        arguments = ", ".join(map(names, (*self.body.inputs, *self.arrays)))
        loops = [f"    {line}" for line in self._loops()]
        return [*text, "", "", *filled(f"def {self.name}(block, {arguments}):", ""), *loops]

    def _program(self, program: Program, suffix: str) -> list[str]:
        """The function of a block program. What an output is added or copied to is an argument."""
        regions = self.regions
        outputs = dict(zip(self.body.outputs, program.graph.outputs, strict=True))
        outside = dict(zip(self.body.outputs, program.outside, strict=True))
        own = [outputs[v] for v in self.arrays if outside[v]]
        module = Module(program.graph, program.placement, regions.names, regions.poison,
                        {buffer(v): v for v in own}, own, regions.helpers)
        operands = [v for v in program.operands if v is not None]
        function = Function(module, [*operands, *program.starts.values(), *own])
        function.run(range(len(program.graph.nodes)))
        result = function.lines.pop()
        wholes = []
        used = {v.name for v in program.graph.values()}
        for v in self.arrays:
            if outside[v]:
                wholes.append(regions.names(outputs[v]))
                continue
            whole = _fresh(f"{v.name}_sum" if self._summed(v) else f"{v.name}_rows", used)
            part = function.array(outputs[v])
            wholes.append(whole)
            function.lines.append(f"np.add({whole}, {part}, out={whole})" if self._summed(v)
                                  else f"np.copyto({whole}, {part})")
        if self.scalars:
            function.lines.append(result)
        arguments = [*map(regions.names, operands), *map(regions.names, program.starts.values()), *wholes]
        return function.text(suffix, ", ".join(arguments))

    def _summed(self, output: Value) -> bool:
        return self.blocks.summed[self.body.outputs.index(output)]

    def _loops(self) -> list[str]:
        """Zeros, the loops over the blocks, and the scalars that they add up to."""
        names, found = self.regions.names, self.blocks
        lines = [f"{names(v)}.fill(0)" for v in self.arrays
                 if self._summed(v) and not self._written(v)]
        lines += [f"{names(v)} = {dtype_text(v.dtype)}(0)" for v in self.scalars]
        for nest, program in found.nests():
            lines += self._nest(nest, program)
        if self.scalars:
            lines.append(f"return {', '.join(map(names, self.scalars))}{',' if len(self.scalars) == 1 else ''}")
        return lines

    def _written(self, output: Value) -> bool:
        """Do the blocks write the result where it belongs?"""
        at = self.body.outputs.index(output)
        return all(p.outside[at] for p in self.blocks.programs.values())

    def _nest(self, nest: Sequence[Stretch], program: Program) -> list[str]:
        """The loops over equal blocks; what is one block is no loop."""
        names, found = self.regions.names, self.blocks
        number = self.numbers[id(program)]
        lines = [f"arena = views_block_{self.name}_{number}(block)"]
        indent = ""
        begins: list[str | int] = []
        for begin, stretch in zip(self.begins, nest, strict=True):
            if len(stretch) == 1:
                begins.append(stretch.start)
                continue
            lines.append(f"{indent}for {begin} in range({stretch.start}, {stretch.stop}, {stretch.step}):")
            indent += "    "
            begins.append(begin)
        sizes = [s.step for s in nest]
        if nest[-1].columns is not None:
            first, growth, width = nest[-1].columns
            sizes.append(width)
            if isinstance(begins[-1], int) or not growth:
                begins.append(first)
            else:
                moved = f"({begins[-1]} - {nest[-1].start}) // {nest[-1].step} * {growth}"
                lines.append(f"{indent}{self.column} = {first} + {moved}")
                begins.append(self.column)
        arguments = [self._block(v, axes, begins, sizes)
                     for v, axes, p in zip(self.body.inputs, found.operands, program.operands, strict=True)
                     if p is not None]
        arguments += [str(begins[k]) for k in program.starts]
        arguments += [self._block(v, axes, begins, sizes)
                      for v, axes in zip(self.body.outputs, found.results, strict=True) if v.shape]
        call = f"run_block_{self.name}_{number}({', '.join(['arena', *arguments])})"
        if self.scalars:
            call = f"{', '.join(self.parts)}{',' if len(self.parts) == 1 else ''} = {call}"
        lines += filled(call, indent)
        lines += [f"{indent}{names(v)} = {names(v)} + {part}" for v, part in zip(self.scalars, self.parts, strict=True)]
        return lines

    def _block(self, value: Value, axes: Sequence[int | None], begins: Sequence[str | int],
               sizes: Sequence[int]) -> str:
        """A block of an operand or result."""
        index = []
        for k, n in zip(axes, value.shape, strict=True):
            if k is None or sizes[k] == n:
                index.append(":")
            elif isinstance(begin := begins[k], int):
                index.append(f"{begin}:{begin + sizes[k]}")
            else:
                index.append(f"{begin}:{begin} + {sizes[k]}")
        while index and index[-1] == ":":
            index.pop()
        name = self.regions.names(value)
        return f"{name}[{', '.join(index)}]" if index else name


def _fresh(stem: str, used: set[str]) -> str:
    name = stem
    while name in used:
        name += "_"
    used.add(name)
    return name

"""torch: a graph as straight Python over torch, one line an operation, for the CPU or for CUDA.

The module that is emitted needs torch and nothing of ours. It has one function of the program's name, inputs by
position, outputs as a tuple. In an arena, every tensor is a view of one block of memory, and every operation writes
into its view; the line that computes a value says where it lies.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from ..ir.donation import donations
from ..ir.graph import Constant, Graph, Node, Value, buffer
from ..ir.layout import Layout, rowwise
from ..ir.show import dying, show_index
from ..ir.target import Target
from ..ir.types import DTYPES, DType, Shape, TensorType, bf16, f16, f32, f64
from ..passes.arena import Placement, within_outputs
from ..passes.blocks import Program
from ..passes.groups import Group
from . import torch_lowering, torch_regions, triton_functions, triton_kernels
from .python_source import BLOCK, Names, blocks, listed, load_module, lodged, title
from .torch_blocks import Block, HasBlocks, known_values
from .torch_lowering import HELPERS, LOWERINGS, allocated, dtype_text, number, view
from .torch_regions import HasKernels
from .triton_functions import fusible
from .triton_kernels import Kernel

CUBLAS = 32 << 20
"""Bytes that torch allocates for cuBLAS at its first product and keeps, on Hopper; cublas_products.py needs none."""


WIDTH = 110
KEPT = 1 << 12
"""Outputs of so few bytes, or of less than 1% of the arena's, are copied rather than keep the arena alive."""


def _outside(graph: Graph) -> int:
    """The most that one operation allocates beside the arena."""
    return max(map(allocated, graph.nodes), default=0)


def _outside_on_cuda(graph: Graph) -> int:
    own = any(n.op.name == "matmul" and not torch_lowering.by_cublaslt(n) for node in graph.nodes
              if not torch_regions.is_attention(node) for n in _within(node))
    return _outside(graph) + (CUBLAS if own else 0)


def _multiplies(node: Node) -> bool:
    return any(n.op.name == "matmul" for n in _within(node))


def _within(node: Node) -> Sequence[Node]:
    """The operation, or those of a region."""
    body: Graph | None = node.attributes["body"] if node.op.name == "region" else None
    return (node,) if body is None else body.nodes


def _ridge(graph: Graph) -> int:
    """Flops in the time of a byte on an H200: 720 TFLOP/s in products of 16 bits, 55 in f32, and 4.0 TB/s were measured
    within programs."""
    halves = any(n.op.name == "matmul" and n.result.dtype in (f16, bf16) for node in graph.nodes for n in _within(node))
    return 180 if halves else 14


_WIDE = ({(name, dtype): f32 for name in ("cumsum", "scatter_add", "place") for dtype in (f16, bf16)}
         | {("polygamma", dtype): f64 for dtype in (f16, bf16, f32)})
_ROWS = {"gather": (0,), "scatter_add": (0,), "all_reduce": (0,), "wait": (0,)}

_CPU = Target(
    "torch", arena=True, collectives=True, computed_in=_WIDE, adds_in={f16: f32, bf16: f32},
    products_as_blas=True, joined_batches=True, row_by_row=_ROWS, steps_forward=True,
    in_place=torch_lowering.IN_PLACE, adds_products=True, regions=True,
    block_bytes=1 << 20, fewest_rows=64,  # an operation of a block costs torch some microseconds, however small
    accumulates=torch_lowering.accumulates,
    serves=torch_regions.product_sums,
    takes_over=torch_regions.takes_over, workspace=torch_lowering.node_workspace, outside=_outside)
TARGETS = {"cpu": _CPU, "cuda": replace(_CPU, adds_in={}, fusible=fusible, attends=torch_regions.attends,
                                        serves=torch_regions.kernels_too, block_bytes=256 << 20, fewest_rows=16,
                                        shrinks=2, outside=_outside_on_cuda, ridge=_ridge)}
"""The facts, by the kind of device."""
TARGET = TARGETS["cpu"]

_TAKEN = {"torch", "threading", "SIZE", "DEVICE", "block", "run", "kept", "out", "outputs", "checks", "values",
          "tuple", "zip", "map", "hasattr", "ENTRY", "ranges", "extremes", "ctypes", "inputs", "noted", "settings",
          "works", "done", "contextlib", "bool_", "CANDIDATES", "ROUNDS", "RUNS", "BETTER", "NOTHING", "Algorithm",
          "Product", "triton", "tl", "libdevice", "alignments", *HELPERS, *triton_functions.HELPERS,
          *triton_kernels.ATTENTION}


def lowered() -> set[str]:
    """The operations that have a lowering."""
    return {*LOWERINGS, "region"}


def _lowered(node: Node, scope: torch_lowering.Scope) -> list[str]:
    return torch_regions.lower_region(node, scope) if node.op.name == "region" else LOWERINGS[node.op.name](node, scope)


def emit(graph: Graph, placement: Placement | None = None, *, source: str = "", device: str = "cpu",
         tf32: bool = False, deterministic: bool = False, kind: str = "") -> str:
    """The module's source for a graph that is legal for the device's target.

    With a placement, tensors lie in one arena, and the function takes `out=`, a sequence of tensors for the outputs;
    without one, torch allocates each value, and it is deleted after its last use. `device` is torch's name of one.
    `tf32` lets products of f32 round their operands to TF32; `deterministic` takes the way of equal bits where torch
    has two; `kind` is the target that the graph is legal for, if it is not the device's (for tests). Linear in the
    number of operations; the same text every time.
    """
    names = Names({v.name for v in graph.values()}, _TAKEN | set(DTYPES))
    module = _Module(graph, placement, names, device, deterministic, kind or device.partition(":")[0])
    body = module.arena() if placement is not None else module.plain()
    return "\n".join([*_head(module, source or graph.file, tf32), *module.constants(), *body]) + "\n"


def load(text: str, name: str = "", *, batch: bool = False) -> Callable[..., tuple[Any, ...]]:
    """The emitted module's function: inputs by position, a tuple of outputs back. Without an arena it takes tensors of
    points for scalars. Where the program reads by indices from data, `function(..., checks=[])` leaves it to the caller
    to call `function.verify(checks)`; those of `function.ranges(inputs)` stand first. Tracebacks show its lines."""
    module = load_module(text, name)
    entry: Callable[..., tuple[Any, ...]] = module["ENTRY"]
    for known in ("ranges", "extremes", "verify"):
        if known in module:
            setattr(entry, known, module[known])
    return entry


def _head(module: _Module, source: str, tf32: bool) -> list[str]:
    graph, entry = module.graph, module.entry

    def types(values: Sequence[Value]) -> list[str]:
        return [f"    {v.name}: {torch_lowering.DTYPES[v.dtype.name]} {v.shape}" for v in values]

    lines = [f'"""{title(graph, source)}', "", f"{entry}(inputs by position) returns a tuple of the outputs.",
             "Inputs (dtype, shape), row by row:", *types(graph.inputs), "Outputs:", *types(graph.outputs)]
    if module.placement is not None:
        lines += ["All tensors lie in one block of memory: f32.as_strided((2, 3), (3, 1), 16) is the 2 x 3 matrix that",
                  "begins 16 elements into it. Outputs keep the block; with out=, a sequence of tensors for the",
                  "outputs, these are written instead."]
    lines += ['"""', ""]
    settings = module.settings
    used = [*(["contextlib"] if settings else []), *(["ctypes"] if "product" in module.helpers else []),
            *(["threading"] if module.keeps else [])]
    lines += [*(f"import {name}" for name in used), *([""] if used else []), "import torch"]
    if settings:
        lines += ["", "", *_SETTINGS.format(
            backend="cuda" if module.device != "cpu" else "mkldnn", f32="tf32" if tf32 else "ieee",
            device=", torch.cuda.device(DEVICE)" if module.device != "cpu" else "").split("\n"), ""]
    return [*lines, *module.triton(), "", f'DEVICE = "{module.device}"']


_SETTINGS = '''\
@contextlib.contextmanager
def settings():
    """Products of f32 in {f32}, sums of 16-bit products in f32, whatever the session has chosen; no autograd."""
    of, cuda = torch.backends.{backend}.matmul, torch.backends.cuda.matmul
    kept = of.fp32_precision, cuda.allow_bf16_reduced_precision_reduction, cuda.allow_fp16_reduced_precision_reduction
    of.fp32_precision = "{f32}"
    cuda.allow_bf16_reduced_precision_reduction = cuda.allow_fp16_reduced_precision_reduction = False
    try:
        with torch.no_grad(){device}:
            yield
    finally:
        of.fp32_precision = kept[0]
        cuda.allow_bf16_reduced_precision_reduction, cuda.allow_fp16_reduced_precision_reduction = kept[1:]'''


class _Module:
    """What the functions of a module share."""

    def __init__(self, graph: Graph, placement: Placement | None, names: Names, device: str,
                 deterministic: bool, kind: str) -> None:
        self.graph, self.placement, self.name, self.device = graph, placement, names, device
        self.deterministic = deterministic
        self.entry = names.text(graph.name)
        self.numbers: dict[tuple[Any, DType], tuple[str, str]] = {}
        self.helpers: dict[str, None] = {}
        self.kernels: dict[str, Kernel] = {}
        self.counts: dict[tuple[int, int, int], str] = {}
        self.blocks: dict[Program, Block] = {}
        self.functions: list[str] = []
        self.kind = kind
        self.attends: dict[str, None] = {}
        self.given = within_outputs(graph, placement, scalars=True) if placement is not None else {}
        over = donations(graph) if placement is not None else {}
        self.own = [v for v in graph.outputs if v not in over]
        self.results = listed(names, [over.get(v, v) for v in graph.outputs])
        self.keeps = placement is not None and device == "cpu"
        self.settings = device != "cpu" or any(_multiplies(n) for n in graph.nodes)
        self.decorator = "@settings()" if self.settings else "@torch.no_grad()"
        self.relative = False
        self.added: set[Value] = set()
        self.ranges: dict[tuple[Value, int], str] = {}

    def noted(self, index: Value, length: int, reader: str) -> bool:
        """Of an input that is an index as a whole the range is noted where the function begins, once for each axis; of
        an operand of a region where its loop does."""
        root = buffer(index)
        if self.placement is None or root not in self.graph.inputs or root.type.size != index.type.size:
            return False
        if not self.relative:
            self.ranges.setdefault((root, length), reader)
            self.helpers["verify"] = None
        return True

    def constant(self, value: Constant) -> str:
        """The name of a tensor of the module that holds the constant."""
        key = (value.bits, value.dtype)
        if key not in self.numbers:
            name = f"constant_{len(self.numbers) + 1}"
            while name in self.name.used:
                name += "_"
            made = f"torch.tensor({number(value)}, dtype={dtype_text(value.dtype)}, device=DEVICE)"
            self.numbers[key] = name, made
        return self.numbers[key][0]

    def kernel(self, body: Graph, group: Group, lies: Callable[[Value], Layout]) -> Kernel:
        """The kernel of a group; one for all groups of the same text."""
        text = triton_kernels.canonical(group, lies)
        if text not in self.kernels:
            name, taken = body.name, {k.name for k in self.kernels.values()}
            while name in taken or name in self.name.used:
                name += "_"
            self.kernels[text] = triton_kernels.kernel(group, name, lambda v: v.name, lies)
        return triton_kernels.kernel(group, self.kernels[text].name, lambda v: v.name, lies)

    def counting(self, first: int, step: int, count: int) -> str:
        """The name of a tensor of the module: first, first + step, ..."""
        return self.counts.setdefault((first, step, count), f"counts_{len(self.counts) + 1}")

    def block_function(self, body: Graph, program: Program) -> Block:
        """The function that runs a block program."""
        if program not in self.blocks:
            name, taken = f"{body.name}_block", {b.name for b in self.blocks.values()}
            while name in taken or name in self.name.used:
                name += "_"
            self.blocks[program] = self._block(name, program)
        return self.blocks[program]

    def _block(self, name: str, program: Program) -> Block:
        graph = program.graph
        names = Names({v.name for v in graph.values()} | self.name.used, self.name.taken)
        inner = _Module(graph, program.placement, names, self.device, self.deterministic, self.kind)
        inner.numbers, inner.helpers, inner.kernels = self.numbers, self.helpers, self.kernels
        inner.attends = self.attends
        inner.counts, inner.blocks, inner.functions, inner.relative = self.counts, self.blocks, self.functions, True
        outside = [v for v, out in zip(graph.outputs, program.outside, strict=True) if out]
        inside = [v for v, out in zip(graph.outputs, program.outside, strict=True) if not out]
        inner.given = within_outputs(Graph(graph.name, graph.inputs, graph.nodes, outside, {}, len(graph.inputs)),
                                     program.placement, scalars=True)
        inner.added = {v for v, adds in zip(graph.outputs, program.added, strict=True) if adds}
        part = _Part(inner, range(len(graph.nodes)), known_values(program), inside)
        checks = any("checks" in line for line in part.lines)
        arguments = ["block", *map(names, known_values(program)), *map(names, outside), *(["checks"] if checks else [])]
        self.functions += ["", "", *_call(f"def {name}", ", ".join(arguments), ":"), *(f"    {x}" for x in part.lines)]
        if inside:
            self.functions.append(f"    return ({listed(names, inside)})")
        return Block(name, checks)

    def triton(self) -> list[str]:
        """The kernels, and what they import."""
        if not self.kernels and not self.attends:
            return []
        return ["", *triton_kernels.source(self.kernels.values(), attention=bool(self.attends)), "", ""]

    def attention(self) -> None:
        """The module will have the kernels of attention."""
        self.attends["attention"] = None

    def constants(self) -> list[str]:
        """The lines of the constants and helpers that the functions have asked for."""
        lines = [f"{name} = {made}" for name, made in self.numbers.values()]
        for (first, step, count), name in self.counts.items():
            counted = f"torch.arange({first}, {first + step * count}, {step}, device=DEVICE)" if step else \
                f"torch.full(({count},), {first}, device=DEVICE)"
            lines.append(f"{name} = {counted}")
        for helper in self.helpers:
            lines += ["", "", *HELPERS[helper].rstrip().split("\n")]
        return lines

    def plain(self) -> list[str]:
        """The function without an arena."""
        graph, names = self.graph, self.name
        scope = _Plain(self)
        if len(graph.nodes) <= 2 * BLOCK:
            dead = dying(graph)
            body: list[str] = []
            parts: list[str] = []
            for at, node in enumerate(graph.nodes):
                body += _lowered(node, scope)
                if at in dead:
                    body.append("del " + ", ".join(map(names, dead[at])))
            body = self._checked(body)
        else:
            parts, body = blocks(graph, names, lambda node: self._checked(_lowered(node, scope)),
                                 f"_block_{self.entry}")
            body[-1] = f"{listed(names, graph.outputs)} = values[-{len(graph.outputs)}:]"
        body.append(f"return ({listed(names, graph.outputs)})")
        return [*self.functions, "", "", *parts, self.decorator,
                f"def {self.entry}({', '.join(map(names, graph.inputs))}):",
                *(f"    {line}" for line in body), "", "", f"ENTRY = {self.entry}"]

    def _checked(self, lines: list[str]) -> list[str]:
        """The lines, and what says that an index of theirs was out of range."""
        noted = any("checks" in line for line in lines)
        return ["checks = []", *lines, "verify(checks)"] if noted else lines

    def _ranges(self) -> list[str]:
        """The function that notes the ranges of inputs."""
        if not self.ranges:
            return []
        return ["", "", *_call("def ranges", ", ".join(map(self.name, self.graph.inputs)), ":"),
                '    """The least and the largest of the inputs that are indices."""', "    return [",
                *(f'        ("{reader}", {length}, *torch.aminmax({self.name(v)})),'
                  for (v, length), reader in self.ranges.items()), "    ]"]

    def arena(self) -> list[str]:
        """The functions that run in an arena."""
        graph, names = self.graph, self.name
        assert self.placement is not None
        length = len(graph.nodes) if len(graph.nodes) <= 2 * BLOCK else BLOCK
        outputs = [names(v) for v in self.own]
        arguments = ", ".join(["block", *map(names, graph.inputs), *outputs])
        parts = [_Part(self, range(start, min(start + length, len(graph.nodes))))
                 for start in range(0, max(len(graph.nodes), 1), max(length, 1))]
        checked = any("checks" in line for part in parts for line in part.lines)
        passed = f"{arguments}, checks" if checked else arguments
        text: list[str] = []
        calls = []
        for at, part in enumerate(parts):
            name = "run" if len(parts) == 1 else f"_block_{self.entry}_{at}"
            text += ["", "", *_call(f"def {name}", passed, ":"), *(f"    {line}" for line in part.lines)]
            calls += _call(name, passed.replace(", checks", ", noted") if checked else passed)
        if "verify" in self.helpers:
            if self.ranges:
                calls = [f"noted += ranges({', '.join(map(names, graph.inputs))})", *calls]
            calls = ["noted = [] if checks is None else checks", *calls, "if checks is None:", "    verify(noted)"]
        size = -(-self.placement.size // 64) * 64
        return [*(["", ""] if self.helpers else []), f"SIZE = {size}  # bytes of the arena", *self.functions, *text,
                *self._ranges(), *self._outputs(),
                *self._entry(calls)]

    def _outputs(self) -> list[str]:
        made = [f"{self.name(v)} = {self.lies(buffer(v), v)}" for v in self.own]
        return ["", "", "def outputs(block):", *(f"    {line}" for line in [*self.bases(self.own), *made]),
                f"    return ({listed(self.name, self.own)})"]

    def _entry(self, calls: list[str]) -> list[str]:
        graph, names = self.graph, self.name
        found = listed(names, self.own)
        lines = ["", ""]
        made = "torch.empty(SIZE, dtype=torch.uint8, device=DEVICE)"
        if self.keeps:
            lines += ["kept = threading.local()", "", ""]
            reused = ["if not hasattr(kept, \"block\"):", f"    kept.block = {made}", "block = kept.block"]
        else:
            reused = [f"block = {made}"]
        new, given = ([f"    {found} = outputs(block)"], [f"    {found} = out"]) if self.own else ([], [])
        body = ["if out is None:", f"    block = {made}", *new, "else:", *(f"    {line}" for line in reused), *given,
                *calls, *self._returned()]
        arguments = [*map(names, graph.inputs), "out=None", *(["checks=None"] if "verify" in self.helpers else [])]
        return [*lines, self.decorator, *_call(f"def {self.entry}", ", ".join(arguments), ":"),
                *(f"    {line}" for line in body), "", "", f"ENTRY = {self.entry}"]

    def _returned(self) -> list[str]:
        """Few bytes are copied, so that they do not keep the block."""
        assert self.placement is not None
        found = listed(self.name, self.own)
        if sum(v.type.bytes for v in self.own) > max(KEPT, self.placement.size // 128):
            return [f"return ({self.results})"]
        if len(self.own) < len(self.graph.outputs):
            return [*(["if out is None:", f"    {found} = map(torch.clone, ({found}))"] if self.own else []),
                    f"return ({self.results})"]
        return [f"return ({found}) if out is not None else tuple(map(torch.clone, ({found})))"]

    def bases(self, values: Sequence[Value]) -> list[str]:
        """Lines that give the block's elements a dtype."""
        dtypes = {v.dtype.name: v.dtype for v in values}
        return [f"{_base(dtype)} = block.view({dtype_text(dtype)})" for name, dtype in sorted(dtypes.items())]

    def lies(self, root: Value, value: Value) -> str:
        """The value, which has all elements of the root's memory, as a view of the block."""
        assert self.placement is not None
        offset = self.placement.offsets.get(root, 0) // value.dtype.bytes
        if self.relative:
            return f"{_base(value.dtype)}[{offset}:{offset + value.type.size}].view({value.shape})"
        return f"{_base(value.dtype)}.as_strided({value.shape}, {rowwise(value.shape).strides}, {offset})"


def _call(name: str, arguments: str, end: str = "") -> list[str]:
    """`name(arguments)`, in several lines where it is long."""
    return textwrap.wrap(f"{name}({arguments}){end}", WIDTH, subsequent_indent="        ", break_long_words=False,
                         break_on_hyphens=False)


def _base(dtype: DType) -> str:
    return "bool_" if dtype.kind == "bool" else dtype.name


class _Lines(HasKernels, HasBlocks):
    """What lines have of their module."""

    def __init__(self, module: _Module) -> None:
        self.module, self.name = module, module.name
        self.device, self.deterministic = module.device, module.deterministic
        self.constant = module.constant
        self.noted = module.noted
        self.added = module.added.__contains__
        self.kernel, self.attention = module.kernel, module.attention  # type: ignore[method-assign]
        self.counting, self.block_function = module.counting, module.block_function  # type: ignore[method-assign]
        self.target = TARGETS[module.kind]
        self.given: Collection[Value] = ()

    def helper(self, name: str) -> str:
        """The name of a helper function, which the module will have."""
        self.module.helpers[name] = None
        return name



class _Plain(_Lines):
    """Lines of a program without an arena."""

    def array(self, value: Value) -> str:
        return self.constant(value) if isinstance(value, Constant) else self.name(value)

    def new(self, value: Value) -> str:
        return f"torch.empty({value.shape}, dtype={dtype_text(value.dtype)}, device=DEVICE)"

    def out(self, value: Value) -> str:
        return ""

    def workspace(self, node: Node, dtype: DType, shape: Shape) -> str:
        return f"torch.empty({shape}, dtype={dtype_text(dtype)}, device=DEVICE)"

    def memory(self, node: Node, size: int) -> str:
        return f"torch.empty({-(-size // 64) * 64}, dtype=torch.uint8, device=DEVICE)"

    def inherited(self, node: Node, position: int) -> bool:
        return False


class _Part(_Lines):
    """The lines of some operations in a row that run in an arena. Views are made where they are first read."""

    def __init__(self, module: _Module, steps: range, known: Sequence[Value] = (),
                 returned: Sequence[Value] = ()) -> None:
        super().__init__(module)
        graph = module.graph
        self.given = frozenset(known)
        self.known = {*graph.inputs, *known}
        self.dtypes: dict[str, Value] = {}
        self.lines: list[str] = []
        for at in steps:
            node = graph.nodes[at]
            if not node.op.view:
                found = _lowered(node, self)
                self.lines += found
                self.known.update(node.results)
        for value in returned:
            self.array(value)
        self.lines = [*module.bases(list(self.dtypes.values())), *self.lines] or ["pass"]

    # What a lowering asks for -----------------------------------------------------------------------------------

    def array(self, value: Value) -> str:
        """The value in its own shape."""
        chain: list[Node] = []
        base = value
        while base not in self.known and base.node is not None and base.node.op.view:
            chain.append(base.node)
            base = base.node.operands[0]
        if isinstance(base, Constant):
            text = self.constant(base)
        else:
            text = self.name(base)
            if base not in self.known:
                self.known.add(base)
                self.lines.append(f"{text} = {self._memory(base)}")
        for node in reversed(chain):
            made = view(text, node)
            if made != text:
                text = self.name(node.result)
                self.lines.append(f"{text} = {made}")
                self.known.add(node.result)
        return text

    def new(self, value: Value) -> str:
        """Where the result lies."""
        return self._memory(value)

    def out(self, value: Value) -> str:
        """The operand that it is written over, or where it lies."""
        node = value.node
        assert node is not None and self.module.placement is not None
        for v in node.operands:
            if self.module.placement.heirs.get(buffer(v)) is value and v.type is value.type:
                return f", out={self.array(v)}"
        return f", out={self._memory(value)}"

    def workspace(self, node: Node, dtype: DType, shape: Shape) -> str:
        """A part of the block."""
        assert self.module.placement is not None
        self.dtypes[dtype.name] = Value("", TensorType(dtype))
        offset = self.module.placement.workspace[node] // dtype.bytes
        if self.module.relative:
            return f"{_base(dtype)}[{offset}:{offset + math.prod(shape)}].view({shape})"
        return f"{_base(dtype)}.as_strided({shape}, {rowwise(shape).strides}, {offset})"

    def memory(self, node: Node, size: int) -> str:
        """The node's workspace as bytes of the block."""
        assert self.module.placement is not None
        offset = self.module.placement.workspace[node]
        return f"block[{offset}:{offset + -(-size // 64) * 64}]"

    def inherited(self, node: Node, position: int) -> bool:
        """Does the operand's memory lie where it belongs in the result's?"""
        assert self.module.placement is not None
        return self.module.placement.inherited(node, position)

    # Memory -----------------------------------------------------------------------------------------------------

    def _memory(self, root: Value) -> str:
        """An expression for the memory of a value that owns it: in a donated input, in an output, or in the block."""
        given = self.module.given
        assert self.module.placement is not None
        lodging = self.module.placement.lodged.get(root)
        if lodging is not None:
            return lodged(self.name(lodging.input), lodging, root)
        if root not in given:
            self.dtypes[root.dtype.name] = root
            return self.module.lies(root, root)
        chain = [root]
        while buffer(whole := given[chain[-1]]) is not chain[-1]:
            chain.append(whole)
        text = self.name(whole)
        for v in reversed(chain):
            text = _part(text, v, whole)
            whole = v
        return text


def _part(text: str, value: Value, whole: Value) -> str:
    """Where a value lies in an output, or in the value that takes over its memory."""
    shape = whole.shape
    if whole.node is not None and whole.node.op.name == "place":
        node = whole.node
        at = next((i for i, v in enumerate(node.operands) if buffer(v) is value), None)
        if at is not None:
            text = f"{text}[{show_index(node.attributes['at'][at], shape)}]"
            shape = node.operands[at].shape
    return text if shape == value.shape else f"{text}.view({', '.join(map(str, value.shape)) or '()'})"

"""Ahead of time: a program as a function for C (c_signature.py), in LLVM IR, assembly or an object file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from ..ir.diagnostics import Fault, near
from ..ir.graph import Graph
from ..passes.arena import place
from ..passes.inlining import inlined
from ..passes.scalarise import MOST, fits
from . import c_signature, llvm_engine, llvm_gemm, llvm_tensor
from .llvm_backend import scalars
from .llvm_lowering import memory_kind
from .llvm_module import module
from .llvm_program import Ports, address, functions, further
from .llvm_regions import ENVIRONMENT
from .llvm_target import ALONE
from .llvm_writer import Lane, Writer
from .pieces import ROLL, Element, Pieces
from .records import Field, Layout, head, layout_of


class Pointers(Ports):
    """Two tables with the address of each input and of each output."""

    def input(self, w: Writer, element: Element, moved: str = "0") -> Lane:
        return self._element(w, "%in", self.layout.inputs.fields[element[0]], element, moved)

    def output(self, w: Writer, element: Element, moved: str = "0") -> Lane:
        return self._element(w, "%out", self.layout.outputs.fields[element[0]], element, moved)

    def _element(self, w: Writer, table: str, field: Field, element: Element, moved: str) -> Lane:
        entry = address(w, table, 8 * element[0])
        base = w.line("ptr", f"load ptr, ptr {entry.name}, align 8, !invariant.load !1")
        return further(w, address(w, base.name, element[1] * field.stored), moved, field.stored)


def emit(graph: Graph, symbol: str, *, source: str = "", lanes: int = 0) -> tuple[str, Layout]:
    """The module's text, in which `@SYMBOL` is the function for C, and the layout with its workspace. The graph is
    legal for the target; vectors hold that many doubles (those of this machine, if 0)."""
    if not fits(graph, MOST):
        return _tensors(graph, symbol, source, lanes)
    graph = scalars(graph)
    pieces = Pieces(graph, ROLL)
    layout = replace(layout_of(graph), workspace=8 * pieces.width)
    writers = functions(pieces, Pointers(layout), "slpc.point", "noinline ")
    run = ["  call void @slpc.point(ptr %in, ptr %out, ptr %work)", f"  ret i32 {c_signature.DONE}"]
    text = module(head(layout, source), writers, _entry(layout, symbol, run), False)
    return text, layout


def _tensors(graph: Graph, symbol: str, source: str, lanes: int) -> tuple[str, Layout]:
    """Loops on an arena, by one thread; the workspace is the arena."""
    loops, layout = llvm_tensor.functions(graph, place(graph, ALONE, inlined(graph, ALONE)), ALONE, lanes=lanes)
    assert layout.arena is not None
    kinds = {memory_kind(n.result.dtype) for n in graph.nodes if n.op.name == "matmul"}
    if any(n.op.name == "region" for n in graph.nodes):
        kinds |= {"float", "double"}
    shapes = [s for s in llvm_gemm.shapes(lanes or llvm_engine.lanes(), 16 if lanes else llvm_engine.registers())
              if s.kind in kinds]
    more = [llvm_gemm.functions(s) for s in shapes]
    layout = replace(layout, workspace=layout.arena.size + llvm_tensor.ALIGNMENT)
    text = module(head(layout, source), [*loops, *(w for writers, _ in more for w in writers)],
                  [*(table for _, table in more), *_routines(kinds),
                   *_entry(layout, symbol, _run())], llvm_tensor.light(graph))
    return text.replace("define i32 @slpc.tensor", "define internal i32 @slpc.tensor").replace(
        "define void @slpc.gemm", "define internal void @slpc.gemm"), layout


def _routines(kinds: Collection[str]) -> list[str]:
    """The words of a pool that emitted code reads (llvm_pool), with products of these kinds."""
    words = ["ptr null", *(f"ptr @slpc.gemm.{k}" if k in kinds else "ptr null" for k in ("float", "double"))]
    return [f"@slpc.routines = internal constant [3 x ptr] [{', '.join(words)}]"]


def _run() -> list[str]:
    """`slpc.tensor` on an aligned arena."""
    last = llvm_tensor.ALIGNMENT - 1
    lines = ["  %base = ptrtoint ptr %work to i64", f"  %above = add i64 %base, {last}",
             f"  %aligned = and i64 %above, {~last}", "  %arena = inttoptr i64 %aligned to ptr",
             f"  %environment = alloca [{len(ENVIRONMENT)} x ptr], align 8",
             "  %fault = alloca [3 x i64], align 8"]
    for number, name in enumerate(("%in", "%out", "%arena", "@slpc.routines", "%fault")):
        lines += [f"  %word{number} = getelementptr ptr, ptr %environment, i64 {number}",
                  f"  store ptr {name}, ptr %word{number}"]
    return [*lines, "  %bad = call i32 @slpc.tensor(ptr %environment)", "  %failed = icmp ne i32 %bad, 0",
            f"  %code = select i1 %failed, i32 {c_signature.OUT_OF_RANGE}, i32 {c_signature.DONE}", "  ret i32 %code"]


def _entry(layout: Layout, symbol: str, run: Sequence[str]) -> list[str]:
    """The function for C: its arguments as tables, the workspace checked, then the lines that compute and return."""
    inputs, outputs = layout.inputs.fields, layout.outputs.fields
    given = [f"{'ptr' if f.type.shape else _by_value(f)} %x{i}" for i, f in enumerate(inputs)]
    given += [f"ptr %y{i}" for i in range(len(outputs))]
    lines = [f"define i32 @{symbol}({', '.join([*given, 'ptr %work', 'i64 %bytes'])}) #0 {{", "entry:",
             f"  %in = alloca [{max(1, len(inputs))} x ptr], align 8",
             f"  %out = alloca [{len(outputs)} x ptr], align 8"]
    for i, field in enumerate(inputs):
        value = f"%x{i}"
        if not field.type.shape:
            kind = memory_kind(field.type.dtype)
            lines += [f"  %a{i} = alloca {kind}, align 8", f"  store {kind} {value}, ptr %a{i}"]
            value = f"%a{i}"
        lines += [f"  %p{i} = getelementptr ptr, ptr %in, i64 {i}", f"  store ptr {value}, ptr %p{i}"]
    for i in range(len(outputs)):
        lines += [f"  %q{i} = getelementptr ptr, ptr %out, i64 {i}", f"  store ptr %y{i}, ptr %q{i}"]
    if layout.workspace:
        lines += [f"  %small = icmp ult i64 %bytes, {layout.workspace}", "  %none = icmp eq ptr %work, null",
                  "  %missing = or i1 %small, %none", "  br i1 %missing, label %no, label %there", "no:",
                  f"  ret i32 {c_signature.NO_WORKSPACE}", "there:", "  %address = ptrtoint ptr %work to i64",
                  "  %low = and i64 %address, 7", "  %odd = icmp ne i64 %low, 0",
                  "  br i1 %odd, label %misaligned, label %run", "misaligned:",
                  f"  ret i32 {c_signature.MISALIGNED}", "run:"]
    return [*lines, *run, "}", ""]


def _by_value(field: Field) -> str:
    kind = memory_kind(field.type.dtype)
    return f"{kind} zeroext" if kind in ("i8", "i16") else kind


def target_machine(triple: str = "", cpu: str = "") -> Any:
    """The target machine for a triple (this one's, if empty) and a CPU: this very one, if both are empty, else the
    triple's most general. Fault E0704 for one that LLVM does not know."""
    llvm_engine.targets()
    here = not triple
    triple = triple or llvm.get_default_triple()
    features = ""
    if here and not cpu:
        cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError:
        raise Fault("E0704", f"LLVM knows no target '{triple}'",
                    near(triple, _TRIPLES) or f"for example {', '.join(_TRIPLES)}") from None
    if cpu and not (here and cpu == llvm.get_host_cpu_name()):
        known = processors(triple)
        if known and cpu not in known:
            raise Fault("E0704", f"LLVM knows no processor '{cpu}' for {triple}",
                        near(cpu, known) or f"for example {', '.join(known[:4])}")
    return target.create_target_machine(cpu=cpu, features=features, opt=2, reloc="pic", codemodel="default")


_TRIPLES = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "riscv64-unknown-linux-gnu", "arm64-apple-darwin",
            "x86_64-pc-windows-msvc")


_LIST = """import sys, llvmlite.binding as llvm
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
llvm.Target.from_triple(sys.argv[1]).create_target_machine(cpu="help")"""


@cache
def processors(triple: str) -> tuple[str, ...]:
    """The names of the processors of a target, none where they cannot be found out. LLVM prints them to the error
    output, and takes an unknown one for the most general with no more than a warning: so another process is asked."""
    try:
        listed = subprocess.run([sys.executable, "-c", _LIST, triple], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ()
    _, _, rest = listed.stderr.partition("Available CPUs for this target:")
    names = rest.partition("Available features")[0].splitlines()
    return tuple(sorted(line.split()[0] for line in names if " - " in line))


def object_file(text: str, machine: Any) -> bytes:
    """The module as an object file: the same bytes every time."""
    return llvm_engine.object_code(text, machine)


def assembly(text: str, machine: Any) -> str:
    """The module in the target's assembly language."""
    return llvm_engine.assembly(text, machine)

"""Programs ahead of time: C text, LLVM IR, assembly, object files and shared libraries, with a header for C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from . import api, files
from .function import backend_named
from .ir.diagnostics import Diagnostic, SlpError, near
from .ir.graph import Graph

if TYPE_CHECKING:
    from .backends.records import Layout

KINDS = {"ll": "LLVM IR", "asm": "assembly", "obj": "an object file", "so": "a shared library", "c": "C99 text",
         "h": "a C header"}
"""What a program can be written as."""

BINARY = ("obj", "so")
NARROW = 2
"""Doubles in a vector of tensor code for another machine: what every 64-bit processor has."""


def export(graph: Graph, path: str | os.PathLike[str], kind: str, *, header: str | os.PathLike[str] | None = None,
           target: str = "", cpu: str = "", symbol: str = "") -> None:
    """Write a graph as code for C.

    `kind` is one of `KINDS`. The function is called `symbol`, or as the program. `target` is a triple such as
    "aarch64-unknown-linux-gnu" and `cpu` a processor such as "x86-64" or "znver4": this machine's, if both are empty.
    The same program gives the same bytes. SlpError E0410 where a file cannot be written, E0701 for what the backend
    lacks, E0703 without a linker, E0704 for an unknown target, E0705 for an unknown kind.
    """
    for file in (path, header):
        if file is not None:
            files.check_writable(file)
    content, declared = render(graph, kind, target=target, cpu=cpu, symbol=symbol)
    if header is not None:
        files.write_text(header, declared)
    files.write_whole(path, lambda stream: stream.write(content))


def render(graph: Graph, kind: str, *, target: str = "", cpu: str = "", symbol: str = "") -> tuple[bytes, str]:
    """The content of the file that `export` writes, and the header's text."""
    if kind not in KINDS:
        raise SlpError(Diagnostic("E0705", f"a program cannot be written as '{kind}'",
                                  near(kind, KINDS) or f"it can be {', '.join(KINDS)}"))
    from .backends.c_signature import c_name, header

    symbol = symbol or c_name(graph.name)
    if not (symbol.isascii() and symbol.isidentifier() and symbol == c_name(symbol)):
        raise SlpError(Diagnostic("E0705", f"a function of C cannot be called '{symbol}'",
                                  "letters, digits and _, none of C's own names"))
    source = Path(graph.file).name if graph.file else ""
    with api.placed(graph.file):
        text, layout = _text(graph, kind, symbol, source, NARROW if target or cpu else 0)
        declared = header(layout, symbol, source)
        return _content(text, declared, kind, target, cpu), declared


def _text(graph: Graph, kind: str, symbol: str, source: str, lanes: int) -> tuple[str, Layout]:
    from .backends import c_backend
    from .passes.legalize import legalize
    from .passes.scalarise import MOST, fits

    if kind == "h" and fits(graph, MOST):
        return "", c_backend.layout(graph)
    if kind == "c":
        return c_backend.emit(graph, symbol, source=source)
    graph = legalize(graph.undonated(), backend_named("llvm").TARGET)
    from .backends import llvm_object

    return llvm_object.emit(graph, symbol, source=source, lanes=lanes)


def _content(text: str, declared: str, kind: str, target: str, cpu: str) -> bytes:
    if kind in ("c", "ll"):
        return text.encode()
    if kind == "h":
        return declared.encode()
    from .backends import llvm_object

    machine = llvm_object.target_machine(target, cpu)
    if kind == "asm":
        return llvm_object.assembly(text, machine).encode()
    code = llvm_object.object_file(text, machine)
    return code if kind == "obj" else _linked(code, target)


def linkers() -> list[list[str]]:
    """The commands that can link a shared library on this machine, best first."""
    found = [[path] for name in ("cc", "clang", "gcc", "ld.lld", "ld") if (path := shutil.which(name))]
    if util.find_spec("ziglang") is not None:
        found.append([sys.executable, "-m", "ziglang", "cc"])
    return found


def _linked(code: bytes, target: str) -> bytes:
    """The object file as a shared library."""
    commands = linkers()
    if not commands:
        raise SlpError(Diagnostic("E0703", "there is no linker: none of cc, clang, gcc, ld.lld, ld or zig is found",
                                  "install a C compiler, or pip install ziglang; --emit obj needs none"))
    complaints = []
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "program.o"), Path(folder, "program.so")
        given.write_bytes(code)
        for command in commands:
            cross = ["-target", target] if target and "ziglang" in command else []
            done = _run([*command, *cross, "-shared", "-o", str(made), str(given), "-lm"])
            if done.returncode == 0 and made.exists():
                return made.read_bytes()
            complaints.append(f"{Path(command[0]).name} says: {(done.stderr.strip().splitlines() or ['nothing'])[0]}")
    raise SlpError(Diagnostic("E0703", "no linker makes a shared library of the object file; " + complaints[0],
                              "--emit obj, and link it where it is to run" if target else "is its libm installed?"))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})

"""Programs for C: text under strict compilers and sanitizers, object files, shared libraries, other machines."""

from __future__ import annotations

import ctypes
import math
import platform
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_llvm import FLOATS, INTEGERS, SCALAR, long_program, same
from test_programs import PROGRAMS, double, sample

import slpc
from slpc import export
from slpc.backends.c_lowering import lowered as lowered_in_c
from slpc.backends.c_signature import TYPES, c_name, output_names
from slpc.backends.llvm_backend import lowered
from slpc.backends.records import layout_of
from slpc.ir.graph import Graph
from slpc.ir.ops import OPS
from slpc.ir.types import DTYPES

ROOT = Path(__file__).parent.parent
STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
COMPILERS = [c for c in ("gcc", "clang") if shutil.which(c)]

needs_compiler = pytest.mark.skipif(not COMPILERS, reason="no C compiler")


def main_of(graph: Graph, points: int) -> str:
    """A C program that reads points from its standard input, as bytes, and writes the outputs' bytes."""
    symbol = c_name(graph.name)
    names = output_names(layout_of(graph))
    lines = ["#include <stdio.h>", "#include <stdlib.h>", f'#include "{symbol}.h"', "", "int main(void)", "{",
             f"    void *work = malloc({symbol.upper()}_WORKSPACE + 8);"]
    for v in graph.inputs:
        lines.append(f"    static {TYPES[v.dtype.name]} {c_name(v.name)}[{max(1, v.type.size)}];")
    for v, name in zip(graph.outputs, names, strict=True):
        lines.append(f"    static {TYPES[v.dtype.name]} {name}[{max(1, v.type.size)}];")
    lines.append(f"    for (int point = 0; point < {points}; point++) {{")
    for v in graph.inputs:
        name = c_name(v.name)
        lines.append(f"        if (fread({name}, sizeof *{name}, {v.type.size}, stdin) != {v.type.size}) return 9;")
    arguments = [c_name(v.name) if v.shape else f"*{c_name(v.name)}" for v in graph.inputs]
    call = ", ".join([*arguments, *names, "work", f"{symbol.upper()}_WORKSPACE"])
    lines.append(f"        int code = {symbol}({call});")
    lines.append("        if (code != 0) return code;")
    for v, name in zip(graph.outputs, names, strict=True):
        lines.append(f"        fwrite({name}, sizeof *{name}, {v.type.size}, stdout);")
    return "\n".join([*lines, "    }", "    free(work);", "    return 0;", "}"]) + "\n"


def run_in_c(graph: Graph, kind: str, folder: Path, compiler: str, flags: Sequence[str],
             points: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The outputs at each point, computed by a compiled C program."""
    symbol = c_name(graph.name)
    code = folder / ("code.c" if kind == "c" else "code.o")
    export.export(graph, code, kind, header=folder / f"{symbol}.h")
    (folder / "main.c").write_text(main_of(graph, len(points)))
    subprocess.run([compiler, *STRICT, *flags, "-o", "main", "main.c", code.name, "-lm"], cwd=folder, check=True)
    given = b"".join(np.asarray(p[v.name], v.dtype.numpy).tobytes() for p in points for v in graph.inputs)
    found = subprocess.run([folder / "main"], input=given, capture_output=True, check=True).stdout
    results, at = [], 0
    for _ in points:
        outputs = []
        for v in graph.outputs:
            outputs.append(np.frombuffer(found[at:at + v.type.bytes], v.dtype.numpy).reshape(v.shape))
            at += v.type.bytes
        results.append(tuple(outputs))
    assert at == len(found)
    return results


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", [n for n in SCALAR if n != "kepler"])
def test_c_text_of_programs(name: str, compiler: str, tmp_path: Path) -> None:
    """No warning, nothing that the sanitizers find, and NumPy's values."""
    graph = slpc.adjoint(double(name) if name != "gmm" else slpc.load(PROGRAMS / "gmm.slp", K=2, n=3))
    drawn = [sample(graph, seed) for seed in range(3)]
    reference = slpc.compile(graph)
    for got, point in zip(run_in_c(graph, "c", tmp_path, compiler, SANITIZED, drawn), drawn, strict=True):
        for a, b in zip(got, reference.flat(**point), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.max(np.abs(b), initial=0.0))


@needs_compiler
@pytest.mark.parametrize("name", ["lecture", "gmm"])
def test_object_files_have_the_bits_of_the_function(name: str, tmp_path: Path) -> None:
    graph = slpc.adjoint(double(name))
    drawn = [sample(graph, seed) for seed in range(3)]
    native = slpc.compile(graph, backend="llvm")
    for got, point in zip(run_in_c(graph, "obj", tmp_path, COMPILERS[0], [], drawn), drawn, strict=True):
        for a, b in zip(got, native.flat(**point), strict=True):
            np.testing.assert_array_equal(a, b)


@needs_compiler
@pytest.mark.parametrize("name", ["transformer", "mlp", "softmax_attention"])
def test_object_files_of_tensors_have_the_bits_of_the_function(name: str, tmp_path: Path) -> None:
    """One thread in place of several, and the sanitizers watch the memory that the function is given."""
    graph = slpc.adjoint(slpc.load(PROGRAMS / f"{name}.slp"))
    drawn = [sample(graph, seed) for seed in range(2)]
    native = slpc.compile(graph, backend="llvm")
    for got, point in zip(run_in_c(graph, "obj", tmp_path, COMPILERS[0], SANITIZED, drawn), drawn, strict=True):
        for a, b in zip(got, native.flat(**point), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="calls a shared library")
def test_a_library_of_tensors(tmp_path: Path) -> None:
    """For any x86-64, the same bytes every time; a workspace too small, and an index that is out of range."""
    graph = slpc.parse("def f(x: f32[300, 70], y: f32[70, 200], i: i64[5]):\n    return (x @ y)[i]\n")
    export.export(graph, tmp_path / "f.so", "so", cpu="x86-64", header=tmp_path / "f.h")
    export.export(graph, tmp_path / "again.so", "so", cpu="x86-64")
    assert (tmp_path / "f.so").read_bytes() == (tmp_path / "again.so").read_bytes()
    header = (tmp_path / "f.h").read_text()
    assert "3 where an index is out of range" in header
    found = re.search(r"F_WORKSPACE (\d+)", header)
    assert found
    size = int(found[1])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 70)).astype(np.float32), rng.normal(size=(70, 200)).astype(np.float32)
    i, out, work = np.array([0, 299, -1, -300, 7]), np.zeros((5, 200), np.float32), np.zeros(size + 8, np.uint8)
    f = ctypes.CDLL(str(tmp_path / "f.so")).f
    f.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_size_t]
    given = [a.ctypes.data for a in (x, y, i, out, work)]
    assert f(*given, size) == 0
    np.testing.assert_allclose(out, (x.astype(float) @ y)[i], rtol=1e-5, atol=1e-4)
    assert not work[size:].any()
    assert f(*given, size - 1) == 1
    assert f(*given[:4], given[4] + 1, size) == 2
    i[3] = 300
    assert f(*given, size) == 3


def test_tensors_for_another_machine(tmp_path: Path) -> None:
    graph = slpc.adjoint(slpc.load(PROGRAMS / "transformer.slp"))
    export.export(graph, tmp_path / "f.o", "obj", target="aarch64-unknown-linux-gnu")
    content = (tmp_path / "f.o").read_bytes()
    assert content[:4] == b"\x7fELF" and struct.unpack_from("<H", content, 18)[0] == 183


LIBRARY = {"exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "cbrt", "sin", "cos", "tan", "asin", "acos", "atan",
           "atan2", "hypot", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "lgamma", "pow",
           "sigmoid"}


def test_c_has_the_same_operations() -> None:
    assert lowered_in_c() == lowered()


@needs_compiler
@pytest.mark.parametrize("dtype", ["f64", "f32", "i64", "i32", "bool"])
def test_every_operation_in_c(dtype: str, tmp_path: Path) -> None:
    """All rows in one program, over special values, against native code: exact ones to the bit, others to 4 ulp."""
    kind = DTYPES[dtype].kind
    domains = {"float": ("any", "number", "float"), "int": ("any", "number"), "bool": ("any", "bool")}[kind]
    names = [n for n in sorted(lowered()) if OPS[n].elementwise and OPS[n].domain in domains and n != "astype"]
    lines, results = [], []
    for n in names:
        operands = ["x", "y"][:len(OPS[n].operands)]
        lines.append(f"    z_{n} = {n}({', '.join(operands)})")
        results.append(f"z_{n}")
    for other in ("f64", "f32", "i64", "i32", "bool"):
        if other != dtype:
            lines.append(f"    to_{other} = astype(x, {other})")
            results.append(f"to_{other}")
    lines.append("    chosen = where(x < y, x, y)")
    graph = slpc.parse(f"def every(x: {dtype}, y: {dtype}):\n" + "\n".join(lines)
                       + f"\n    return {', '.join([*results, 'chosen'])}\n")
    values = {"float": [*FLOATS, 0.3, 7.25, -0.7], "int": INTEGERS, "bool": [False, True]}[kind]
    convert = DTYPES[dtype].numpy.type
    with np.errstate(over="ignore"):
        points = [{"x": convert(a), "y": convert(b)} for a in values for b in values]
    native = slpc.compile(graph, backend="llvm")
    flags = SANITIZED if kind != "float" else [*SANITIZED, "-fno-sanitize=float-divide-by-zero"]
    for point, got in zip(points, run_in_c(graph, "c", tmp_path, COMPILERS[0], flags, points), strict=True):
        for name, a, b in zip([*names, *results[len(names):], "chosen"], got, native.flat(**point), strict=True):
            b = np.asarray(b)
            if name == "polygamma" and np.isfinite(b).all():  # in C without the second words
                assert float(a) == pytest.approx(float(b), rel=1e-5 if dtype == "f32" else 1e-12), point
            elif name in LIBRARY and np.isfinite(b).all():
                assert abs(float(a) - float(b)) <= 4 * max(float(np.spacing(np.abs(b))), 5e-324), (name, point)
            elif kind == "float" and b.dtype.kind == "f":
                assert same(float(a), float(b)), (name, point, a, b)
            else:
                assert a == b, (name, point, a, b)


def test_shared_library(tmp_path: Path) -> None:
    if not export.linkers():
        pytest.skip("no linker")
    graph = slpc.adjoint(PROGRAMS / "lecture.slp")
    wanted = slpc.compile(graph, backend="llvm").flat(1.5, 0.5)
    for cpu in ("", "x86-64") if sys.platform == "linux" and platform.machine() == "x86_64" else ("",):
        path = tmp_path / f"f{cpu}.so"
        export.export(graph, path, "so", cpu=cpu)
        again = tmp_path / "again.so"
        export.export(graph, again, "so", cpu=cpu)
        assert path.read_bytes() == again.read_bytes()
        f = ctypes.CDLL(str(path)).f
        out = [ctypes.c_double() for _ in range(3)]
        assert f(ctypes.c_double(1.5), ctypes.c_double(0.5), *map(ctypes.byref, out), None, ctypes.c_size_t(0)) == 0
        assert tuple(o.value for o in out) == wanted


def test_the_workspace_is_checked(tmp_path: Path) -> None:
    if not export.linkers():
        pytest.skip("no linker")
    graph = long_program(1500)
    path, header = tmp_path / "f.so", tmp_path / "f.h"
    export.export(graph, path, "so", header=header, symbol="long_one")
    size = int(re.search(r"#define LONG_ONE_WORKSPACE (\d+)", header.read_text())[1])
    assert size > 0
    f, out = ctypes.CDLL(str(path)).long_one, [ctypes.c_double(), ctypes.c_double()]
    work = ctypes.create_string_buffer(size + 16)
    start = -(-ctypes.addressof(work) // 8) * 8

    def call(address: int | None, given: int) -> int:
        return f(ctypes.c_double(0.3), ctypes.c_double(0.7), *map(ctypes.byref, out), ctypes.c_void_p(address),
                 ctypes.c_size_t(given))

    assert [call(None, size), call(start, size - 1), call(start + 4, size), call(start, size)] == [1, 1, 2, 0]
    assert tuple(o.value for o in out) == slpc.compile(graph, backend="llvm").flat(0.3, 0.7)


def test_other_machines(tmp_path: Path) -> None:
    graph = slpc.adjoint(PROGRAMS / "lecture.slp")
    for triple, machine in (("aarch64-unknown-linux-gnu", 183), ("x86_64-unknown-linux-gnu", 62)):
        export.export(graph, tmp_path / "f.o", "obj", target=triple)
        head = (tmp_path / "f.o").read_bytes()[:20]
        assert head[:4] == b"\x7fELF" and struct.unpack("<H", head[18:20])[0] == machine
    text, _ = export.render(graph, "asm", target="aarch64-unknown-linux-gnu")
    assert b"fmul" in text and b"zmm" not in text


@pytest.mark.parametrize(("options", "code"), [
    ({"kind": "dll"}, "E0705"), ({"kind": "obj", "target": "z80"}, "E0704"), ({"kind": "c", "symbol": "main"}, "E0705"),
    ({"kind": "c", "symbol": "a b"}, "E0705")])
def test_faults(options: dict[str, str], code: str) -> None:
    with pytest.raises(slpc.SlpError) as caught:
        export.render(slpc.load(PROGRAMS / "lecture.slp"), **options)
    assert caught.value.code == code


def test_an_unknown_processor() -> None:
    graph = slpc.load(PROGRAMS / "lecture.slp")
    with pytest.raises(slpc.SlpError, match="skylake-avx521") as caught:
        export.render(graph, "asm", cpu="skylake-avx521", target="x86_64-unknown-linux-gnu")
    assert caught.value.code == "E0704" and "skylake-avx512" in str(caught.value)
    assert export.render(graph, "asm", cpu="haswell", target="x86_64-unknown-linux-gnu")[0]


def test_without_a_linker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "linkers", list)
    with pytest.raises(slpc.SlpError) as caught:
        export.export(slpc.load(PROGRAMS / "lecture.slp"), tmp_path / "f.so", "so")
    assert caught.value.code == "E0703" and not list(tmp_path.iterdir())


def test_where_it_cannot_be_written() -> None:
    with pytest.raises(slpc.SlpError) as caught:
        export.export(slpc.load(PROGRAMS / "lecture.slp"), "/no/such/folder/f.c", "c")
    assert caught.value.code == "E0410"


def test_what_c_lacks() -> None:
    with pytest.raises(slpc.SlpError, match="bf16"):
        export.render(slpc.parse("def f(x: bf16):\n    return x * x"), "c")
    assert b"bfloat" not in export.render(slpc.parse("def f(x: bf16):\n    return x * x"), "ll")[0]


@needs_compiler
def test_names_that_are_c_s_own(tmp_path: Path) -> None:
    graph = slpc.parse("def double(short: f64, α: f64, workspace: f64[2]):\n    long = short * α\n    return long, "
                       "workspace + long, workspace")
    point = {"short": 2.0, "α": 3.0, "workspace": np.array([1.0, math.pi])}
    for kind in ("c", "obj"):
        folder = tmp_path / kind
        folder.mkdir()
        (found,) = run_in_c(graph, kind, folder, COMPILERS[0], [], [point])
        for a, b in zip(found, slpc.compile(graph).flat(**point), strict=True):
            np.testing.assert_array_equal(a, b)


@needs_compiler
@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize("emit", ["obj", "c"])
def test_the_example_of_the_documentation(emit: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "native.md").read_text("utf-8")
    for name, fence in (("descend.c", "c"), ("Makefile", "make")):
        (tmp_path / name).write_text(re.search(rf"```{fence}\n(.*?)```", text, re.DOTALL)[1])
    subprocess.run(["make", f"SLPC={sys.executable} -m slpc", f"PROGRAM={PROGRAMS / 'rosenbrock.slp'}", f"EMIT={emit}",
                    "CFLAGS=-std=c99 -O2 -Wall -Wextra -pedantic -Werror"], cwd=tmp_path, check=True,
                   capture_output=True)
    shown = subprocess.run([tmp_path / "descend"], capture_output=True, text=True, check=True).stdout
    assert shown == "1.0000 1.0000\n"

"""How a program looks from C: its prototype, and the header that declares it.

    int f(double w1, double w2, double *z6, double *w1_bar, double *w2_bar, void *workspace, size_t workspace_bytes);

Scalars go in by value, arrays as pointers to their elements, row by row; each output is written through a pointer.
float16 and bfloat16 are their bits in a uint16_t. The function allocates nothing, has no state, and may be called by
any number of threads, each with a workspace of its own.
"""

from __future__ import annotations

from .records import Field, Layout

DONE, NO_WORKSPACE, MISALIGNED, OUT_OF_RANGE = 0, 1, 2, 3
"""What the function returns: all is well; the workspace is missing or too small; its address is no multiple of 8; an
index from the data is out of range."""

TYPES = {"f64": "double", "f32": "float", "f16": "uint16_t", "bf16": "uint16_t", "i64": "int64_t", "i32": "int32_t",
         "bool": "bool"}

_TAKEN = frozenset("""
    auto bool break case char const continue default do double else enum extern false float for goto if inline int long
    main register restrict return short signed sizeof static struct switch true typedef union unsigned void volatile
    while asm class new this workspace workspace_bytes slot INFINITY NAN I NULL
    isinf fabs fabsf floor floorf ceil ceilf rint rintf fmod fmodf copysign copysignf isnan signbit sqrtf
""".split())  # noqa: SIM905


def c_name(name: str) -> str:
    """A name of the program as C may have it: ASCII, and none of C's own."""
    ascii_name = "".join(c if c.isascii() else f"u{ord(c):04x}" for c in name)
    return ascii_name + "_" if ascii_name in _TAKEN or ascii_name.startswith("slpc_") else ascii_name


def prototype(layout: Layout, symbol: str) -> str:
    """The function's declaration, without the semicolon."""
    parameters = [_parameter(f) for f in layout.inputs.fields]
    parameters += [f"{TYPES[f.type.dtype.name]} *{name}" for f, name in zip(layout.outputs.fields, output_names(layout),
                                                                           strict=True)]
    parameters += ["void *workspace", "size_t workspace_bytes"]
    lines = [f"int {symbol}("]
    for i, parameter in enumerate(parameters):
        ending = ");" if i + 1 == len(parameters) else ","
        lines.append(f"    {parameter}{ending}")
    return "\n".join(lines).removesuffix(";")


def output_names(layout: Layout) -> list[str]:
    """The outputs' names in C, which are none of the inputs'."""
    names = {c_name(f.name) for f in layout.inputs.fields}
    found = []
    for field in layout.outputs.fields:
        name = c_name(field.name)
        while name in names:
            name += "_"
        names.add(name)
        found.append(name)
    return found


def _parameter(field: Field) -> str:
    kind = TYPES[field.type.dtype.name]
    return f"const {kind} *{c_name(field.name)}" if field.type.shape else f"{kind} {c_name(field.name)}"


def header(layout: Layout, symbol: str, source: str = "") -> str:
    """The header file: what the function computes, of what, and what it needs."""
    guard = f"SLPC_{symbol.upper()}_H"
    shown = source.replace("*/", "* /").replace("\n", " ").replace("\\", "/")
    lines = [f"/* {symbol}: emitted by slpc{' from ' + shown if shown else ''}.", "", "   Inputs:"]
    lines += [f"     {c_name(f.name)}: {f.type}" for f in layout.inputs.fields]
    lines.append("   Outputs:")
    lines += [f"     {name}: {f.type}" for f, name in zip(layout.outputs.fields, output_names(layout), strict=True)]
    lines += ["", "   Arrays are stored row by row. Inputs and outputs do not overlap. Nothing is allocated, and",
              "   nothing is kept between calls. The workspace starts at an address that is a multiple of 8.",
              f"   Returns {DONE}, or {NO_WORKSPACE} where the workspace is missing or too small, "
              f"{MISALIGNED} where it is misaligned" + (f",\n   {OUT_OF_RANGE} where an index is out of range. */"
                                                         if layout.arena and layout.arena.indexed else ". */"), "",
              f"#ifndef {guard}", f"#define {guard}", "", "#include <stdbool.h>", "#include <stddef.h>",
              "#include <stdint.h>", "", f"#define {symbol.upper()}_WORKSPACE {layout.workspace} /* bytes */", "",
              "#ifdef __cplusplus", 'extern "C" {', "#endif", "", prototype(layout, symbol) + ";", "",
              "#ifdef __cplusplus", "}", "#endif", "", "#endif"]
    return "\n".join(lines) + "\n"

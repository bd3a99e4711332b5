"""The functions of mathematics as LLVM IR, at any number of lanes.

Each function is a formula over `Lane`s: there are no tables and hardly any branches, so that a batch computes as many
points at once as a register holds, and every CPU gives the same bits. Of float32 some have formulas of their own
(llvm_single), the others are computed in float64 and rounded. tests/test_llvm_math.py measures all against mpmath.
"""

from __future__ import annotations

from . import llvm_angles, llvm_exponentials, llvm_polygamma, llvm_special
from .llvm_pieces import FUNCTIONS, SELDOM
from .llvm_single import SINGLE
from .llvm_writer import Formula, Lane, Writer, math_name

__all__ = ["FUNCTIONS", "SELDOM", "SINGLE", "define", "formula", "llvm_angles", "llvm_exponentials", "llvm_polygamma",
           "llvm_special"]


def formula(name: str, kind: str) -> Formula | None:
    """The formula of a function that is written in place of its calls."""
    return None if name in SELDOM else (SINGLE if kind == "float" else FUNCTIONS)[name]


def define(name: str, kind: str, lanes: int, inline: bool) -> Writer:
    """A writer that holds the function's whole definition, and what it needs. With `inline` LLVM puts it
    in place of its calls."""
    w = Writer(lanes)
    found = (SINGLE if kind == "float" else FUNCTIONS)[name]
    parameters = [Lane(w, f"%x{i}", kind) for i in range(found.__code__.co_argcount - 1)]
    result = found(w, *parameters)
    t = w.type(kind)
    attributes = "cold noinline #0" if name in SELDOM else "alwaysinline #0" if inline else "#0"
    given = ", ".join(f"{t} {p.name}" for p in parameters)
    w.lines = [f"define internal {t} @{math_name(name, kind, lanes)}({given}) {attributes} {{", "entry:", *w.lines,
               f"  ret {t} {result.name}", "}"]
    return w

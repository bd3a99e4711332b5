"""The text of an LLVM module: functions, the functions of mathematics that they call, declarations, attributes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .llvm_math import SELDOM, define
from .llvm_writer import Writer

_HALF = """\
define internal half @__truncdfhf2(double %x) noinline #0 {
  %single = fptrunc double %x to float
  %half = fptrunc float %single to half
  ret half %half
}""".splitlines()
"""What LLVM calls on x86 where a double that it knows to be a float's is rounded to half: no library surely has it."""


def module(head: Sequence[str], writers: Iterable[Writer], more: Sequence[str], inline: bool) -> str:
    """The module's text. `more` are functions that stand as they are, with their declarations among them."""
    bodies: list[Writer] = []
    known: set[tuple[str, str, int]] = set()
    todo = list(writers)
    while todo:
        w = todo.pop(0)
        bodies.append(w)
        for name, kind, lanes in sorted(w.math - known):
            known.add((name, kind, lanes))
            todo.append(define(name, kind, lanes, inline and name not in SELDOM))
    declared: dict[str, str] = {}
    for w in bodies:
        declared.update(w.declared)
    lines = [*head, *(declared[name] for name in sorted(declared)), ""]
    for w in bodies:
        lines += [*w.lines, ""]
    if any(" half" in line for w in bodies for line in w.lines):
        lines += [*_HALF, ""]
    wide = ' "stackrealign"' if any(w.lanes > 1 for w in bodies) else ""  # spilled vectors, each in one line of cache
    lines += [*more, f'attributes #0 = {{ nounwind "prefer-vector-width"="512"{wide} }}',
              '!0 = !{!"branch_weights", i32 1, i32 10000}', "!1 = !{}",
              '!2 = !{!"branch_weights", i32 10000, i32 1}']
    return "\n".join(lines) + "\n"

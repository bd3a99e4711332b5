"""The one error a user can cause: a code, the place, the line, carets, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Span(NamedTuple):
    """A stretch of one source line: line from 1, columns from 0 in characters, `end` exclusive."""

    line: int
    column: int
    end: int


@dataclass(frozen=True)
class Diagnostic:
    """One fault: its code (a key of `codes.CODES`), message, place, and what to write instead."""

    code: str
    message: str
    hint: str = ""
    file: str = ""
    span: Span | None = None
    source: str = ""
    notes: tuple[tuple[str, Span, str], ...] = field(default=())
    """Further places: (what is there, where, the source line)."""

    def render(self) -> str:
        """Plain text of several lines, as the command line prints it without colour."""
        place = self.file or "<text>"
        told = f"error[{self.code}]: {_clipped(self.message)}"
        if self.span is None:
            lines = [f"{place}: {told}" if self.file else told]
        else:
            lines = [f"{place}:{self.span.line}:{self.span.column + 1}: {told}"]
            lines += _excerpt(self.source, self.span) if self.source else []
        for message, span, source in self.notes:
            lines.append(f"  note: {message}")
            lines += _excerpt(source, span)
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The stable fields of `--json`: code, message, hint, file, line, column (from 1), end_column."""
        span = self.span
        return {
            "code": self.code, "message": self.message, "hint": self.hint, "file": self.file,
            "line": span.line if span else None,
            "column": span.column + 1 if span else None,
            "end_column": span.end + 1 if span else None,
        }


_WIDEST = 100
_LONGEST = 1000


def _clipped(message: str) -> str:
    """A message without the middle of what a hostile text made endless."""
    half = _LONGEST // 2
    return message if len(message) <= _LONGEST else f"{message[:half]} ... {message[-half:]}"


def _excerpt(source: str, span: Span) -> list[str]:
    """The source line with carets under the span; a very long line is cut around it."""
    text = "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in source)
    offset = max(0, min(span.column - _WIDEST // 3, len(text) - _WIDEST))
    shown = text[offset:offset + _WIDEST]
    start = span.column - offset
    end = min(max(span.end, span.column + 1) - offset, len(shown))
    more = " ..." if offset + _WIDEST < len(text) else ""
    number = str(span.line)
    return [f"  {number} | {shown}{more}",
            f"  {' ' * len(number)} | {' ' * start}{'^' * max(end - start, 1)}"]


class SlpError(Exception):
    """Everything that a user can cause. `diagnostics` has one entry per independent fault; never empty."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        items = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        assert items, "an SlpError without a diagnostic"
        self.diagnostics: tuple[Diagnostic, ...] = items
        super().__init__("\n".join(d.render() for d in items))

    @property
    def code(self) -> str:
        """The code of the first fault."""
        return self.diagnostics[0].code

    def __reduce__(self) -> tuple[Any, tuple[tuple[Diagnostic, ...]]]:
        return (SlpError, (self.diagnostics,))


class Fault(Exception):
    """A fault whose place is not known yet: whoever reads the source adds it and raises SlpError.

    `operand` says which operand of the operation is at fault, by its place or its keyword, so that the carets can stand
    under it.
    """

    def __init__(self, code: str, message: str, hint: str = "", operand: int | str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.operand = code, message, hint, operand

    def error(self, file: str = "") -> SlpError:
        """The same fault as an SlpError without a place."""
        return SlpError(Diagnostic(self.code, self.message, self.hint, file))


def near(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the nearest of the known names, or an empty string."""
    found = difflib.get_close_matches(name, sorted(set(known)), n=5, cutoff=0.6)
    if not found:
        return ""
    swapped = [other for other in found if sorted(other) == sorted(name)]  # sihn is sinh rather than sin
    return f"did you mean '{(swapped or found)[0]}'?"

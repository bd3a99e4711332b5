"""What the command line prints: errors, results, and progress, with colour where a person looks at it."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from .ir.diagnostics import Diagnostic, SlpError

_FIRST_ENTRIES = 4
_PATIENCE = 0.5
"""Seconds before progress is shown."""


def coloured(stream: TextIO | None) -> bool:
    """Does a person look at this stream, who has not asked for no colour (https://no-color.org)?"""
    return (stream is not None and stream.isatty() and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb")


def result(text: str) -> None:
    """A line of the result, on stdout."""
    click.echo(text, color=coloured(sys.stdout))


def note(text: str) -> None:
    """A line of anything else, on stderr."""
    click.echo(text, err=True, color=coloured(sys.stderr))


def name(text: str) -> str:
    """A name, as tables show it."""
    return click.style(text, fg="cyan")


def faint(text: str) -> str:
    """What is said beside the result."""
    return click.style(text, dim=True)


def verdict(ok: bool) -> str:
    """`ok` in green or `FAILED` in red."""
    return click.style("ok", fg="green") if ok else click.style("FAILED", fg="red", bold=True)


# Errors --------------------------------------------------------------------------------------------------------

def show_error(error: SlpError, *, as_json: bool = False) -> None:
    """Every diagnostic of an error, on stderr; with `as_json` as `{"errors": [...]}` of their stable fields."""
    if as_json:
        note(json.dumps({"errors": [d.as_json() for d in error.diagnostics]}))
        return
    for diagnostic in error.diagnostics:
        note(_painted(diagnostic))
    count = len(error.diagnostics)
    codes = sorted({d.code for d in error.diagnostics})
    told = f"{count} errors. " if count > 1 else ""
    note(faint(f"{told}More about it: slpc explain {' '.join(codes[:3])}"))


def _painted(diagnostic: Diagnostic) -> str:
    """The rendered text with its error word, carets and hints in colour."""
    lines = diagnostic.render().split("\n")
    head, mark, message = lines[0].partition(f"error[{diagnostic.code}]:")
    lines[0] = click.style(head, bold=True) + click.style(mark, fg="red", bold=True) + click.style(message, bold=True)
    for at, line in enumerate(lines[1:], 1):
        gutter, bar, rest = line.partition(" | ")
        if bar and rest.strip(" ") and not rest.strip(" ^"):
            lines[at] = gutter + bar + click.style(rest, fg="red", bold=True)
        elif line.startswith("  hint: "):
            lines[at] = "  " + click.style("hint:", fg="green") + line.removeprefix("  hint:")
        elif line.startswith("  note: "):
            lines[at] = "  " + click.style("note:", fg="cyan") + line.removeprefix("  note:")
    return "\n".join(lines)


# Results -------------------------------------------------------------------------------------------------------

def table(rows: Iterable[Sequence[str]]) -> None:
    """Rows of cells as aligned columns on stdout; a cell may have colour."""
    listed = [list(row) for row in rows]
    widths: dict[int, int] = {}
    for row in listed:
        for at, cell in enumerate(row[:-1]):
            widths[at] = max(widths.get(at, 0), len(click.unstyle(cell)))
    for row in listed:
        cells = [cell + " " * (widths.get(at, 0) - len(click.unstyle(cell))) for at, cell in enumerate(row[:-1])]
        result("  ".join([*cells, *row[-1:]]).rstrip())


def summary(array: Any, dtype: str) -> str:
    """A scalar in full; of an array its norm and its first entries, which a person can compare."""
    import numpy

    if numpy.ndim(array) == 0:
        return entry(array)
    wide = numpy.asarray(array)
    flat = wide.reshape(-1)
    first = ", ".join(entry(x) for x in flat[:_FIRST_ENTRIES]) + (", ..." if flat.size > _FIRST_ENTRIES else "")
    if dtype == "bool":
        return f"{int(flat.sum())} true: [{first}]"
    norm = numpy.linalg.norm(flat.astype(numpy.float64))
    return f"norm {norm:.6g}: [{first}]"


def entry(number: Any) -> str:
    """The shortest text that reads back to the same number of its dtype."""
    value = number.item() if hasattr(number, "item") else number
    if isinstance(value, float) and hasattr(number, "dtype") and number.dtype.itemsize < 8 and math.isfinite(value):
        return repr(float(str(number)))
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def as_json(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Arrays as nested lists. What is no finite number, which JSON does not know, is "NaN", "Infinity", "-Infinity"."""
    return json.dumps({kind: {key: _jsonable(value) for key, value in found.items()}
                       for kind, found in results.items()})


def _jsonable(value: Any) -> Any:
    import numpy

    array = numpy.asarray(value)
    if array.dtype.kind not in "biuf":  # bf16
        array = array.astype(numpy.float64)
    listed = array.tolist()
    return listed if array.dtype.kind != "f" or numpy.isfinite(array).all() else _spelled(listed)


def _spelled(listed: Any) -> Any:
    if isinstance(listed, list):
        return [_spelled(x) for x in listed]
    if math.isfinite(listed):
        return listed
    return "NaN" if math.isnan(listed) else "Infinity" if listed > 0 else "-Infinity"


# Progress ------------------------------------------------------------------------------------------------------

@contextmanager
def progress(doing: str) -> Iterator[None]:
    """On a terminal, say on stderr what is going on once it lasts over half a second."""
    if not (sys.stderr is not None and sys.stderr.isatty()):
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        if ended.wait(_PATIENCE):
            return
        from rich.console import Console

        with Console(stderr=True).status(doing + " ..."):
            ended.wait()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()

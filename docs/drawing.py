"""The picture of a scalar program as a graph: each line, its value, and the derivative of the result in it.

The derivative in an intermediate value is computed by its definition: the value becomes an input, and its line goes.
"""

from __future__ import annotations

import ast
import html
from pathlib import Path
from typing import NamedTuple

import slpc

WIDTH, HEIGHT = 190, 74  # of a box
ACROSS, DOWN = 226, 104  # from box to box
BLACK, BLUE, RED, GREY = "#24292f", "#0550ae", "#b3261e", "#8c959f"


class Line(NamedTuple):
    """One assignment, or an input: its text, what it reads, how deep it stands, its value, and the derivative in it."""

    text: str
    reads: tuple[str, ...]
    level: int
    value: float
    derivative: float


def lines_of(program: Path) -> dict[str, Line]:
    """The lines of a program of scalars whose inputs have defaults and whose statements are assignments."""
    source = program.read_text("utf-8")
    definition = ast.parse(source).body[-1]
    assert isinstance(definition, ast.FunctionDef)
    *assignments, _ = definition.body
    lines: dict[str, Line] = {}
    inputs = definition.args.args
    gradient = slpc.compile(slpc.parse(source), grad=True)()[1]
    for argument, default in zip(inputs, definition.args.defaults, strict=True):
        value = float(ast.literal_eval(default))
        lines[argument.arg] = Line(argument.arg, (), 0, value, gradient[argument.arg])
    for statement in assignments:
        assert isinstance(statement, ast.Assign)
        name = ast.unparse(statement.targets[0])
        names = [n.id for n in ast.walk(statement.value) if isinstance(n, ast.Name) and n.id in lines]
        reads = tuple(dict.fromkeys(names))
        value = slpc.compile(slpc.parse(_until(definition, name)))()
        opened = slpc.compile(slpc.parse(_opened(definition, name)), wrt=[name])
        lines[name] = Line(ast.unparse(statement), reads, 1 + max(lines[r].level for r in reads), value,
                           opened(**{name: value})[1][name])
    return lines


def _until(definition: ast.FunctionDef, name: str) -> str:
    """The program that returns the value called `name`."""
    body = "\n".join(f"    {ast.unparse(s)}" for s in definition.body[:-1])
    return f"def f({ast.unparse(definition.args)}):\n{body}\n    return {name}\n"


def _opened(definition: ast.FunctionDef, name: str) -> str:
    """The program in which the value called `name` is an input."""
    body = "\n".join(f"    {ast.unparse(s)}" for s in definition.body if not ast.unparse(s).startswith(f"{name} ="))
    return f"def f({ast.unparse(definition.args)}, {name}: f64 = 0.0):\n{body}\n"


def draw(program: Path) -> str:
    """The picture as SVG text."""
    lines = lines_of(program)
    result = next(reversed(lines))
    columns: dict[int, list[str]] = {}
    for name, line in lines.items():
        columns.setdefault(line.level, []).append(name)
    tallest = max(map(len, columns.values()))
    places = {name: (10 + level * ACROSS, 10 + DOWN * (row + (tallest - len(names)) / 2))
              for level, names in columns.items() for row, name in enumerate(names)}
    width, height = (len(columns) - 1) * ACROSS + WIDTH + 20, (tallest - 1) * DOWN + HEIGHT + 20
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
             f'height="{height}" font-family="ui-monospace, monospace" font-size="13">',
             f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
             f'<path d="M0 0 L8 4 L0 8 z" fill="{GREY}"/></marker>']
    for name, line in lines.items():
        parts += [_arrow(places[read], places[name]) for read in line.reads]
    for name, line in lines.items():
        parts.append(_box(places[name], line, "" if name == result else f"d{result}/d{name} = "))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """From the right side of a box to the left side of another, level until the last gap between columns."""
    (x, y), (x2, y2) = (start[0] + WIDTH, start[1] + HEIGHT / 2), (end[0], end[1] + HEIGHT / 2)
    turn = x2 - (ACROSS - WIDTH)
    return (f'<path d="M{x:g} {y:g} L{turn:g} {y:g} C{turn + 18:g} {y:g} {x2 - 22:g} {y2:g} {x2:g} {y2:g}" '
            f'fill="none" stroke="{GREY}" stroke-width="1.3" marker-end="url(#arrow)"/>')


def _box(place: tuple[float, float], line: Line, derivative: str) -> str:
    x, y = place
    middle = x + WIDTH / 2
    rows = [(BLACK, line.text), (BLUE, _decimal(line.value))]
    if derivative:
        rows.append((RED, derivative + _decimal(line.derivative)))
    step = HEIGHT / (len(rows) + 1)
    texts = "".join(f'<text x="{middle:g}" y="{y + step * (i + 1) + 4:.4g}" text-anchor="middle" fill="{colour}">'
                    f"{html.escape(text)}</text>" for i, (colour, text) in enumerate(rows))
    return (f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#f6f8fa" '
            f'stroke="{GREY}"/>{texts}')


def _decimal(number: float) -> str:
    return f"{number:.4f}".replace("-0.0000", "0.0000")

"""Writes the pages that are made from tables: `python docs/generate.py`. A test says when they are stale."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from drawing import draw

from slpc.ir.codes import CODES
from slpc.ir.ops import OPS, Operation
from slpc.language import functions

DOCS = Path(__file__).parent

FAMILIES = {
    "elementwise": ("Elementwise", "Each element of the result is made of the elements at its place. The derivatives "
                    "are `.slp` text over the operands, the result `z` and the seed `g`: the tangent of an operand in "
                    "forward mode, the cotangent of the result in reverse mode. Weight is flops an element."),
    "view": ("Views", "A view looks into the memory of its operand: it owns none and costs nothing."),
    "reduction": ("Reductions", "Weight is flops an element of the operand."),
    "product": ("Products", "An `m x k` by `k x n` product counts `2 m n k` flops."),
    "movement": ("Data movement", "Copies: elements moved are counted, arithmetic is none but for the sums of "
                 "`scatter_add` and of a `place` whose operands overlap."),
    "collective": ("Several processes", "Sums over processes that run the same program, each on data of its own: begun "
                   "by one operation and waited for by another, so that other operations run meanwhile."),
}


def operations() -> str:
    """The table of operations as a page."""
    parts = ["# Operations\n",
             "Every operation, from the table in `ir/ops.py`, then every other function of the language, which is made "
             "of operations. By `docs/generate.py`; `slpc ops` prints the same. Names and meaning are NumPy's where it "
             "has the function.\n"]
    for family, (title, text) in FAMILIES.items():
        rows = [row for row in OPS.values() if row.family == family]
        derivatives = family == "elementwise"
        weights = any(row.weight != 1 for row in rows)
        heading = ["operation", "is", "attributes" if not derivatives else "takes"]
        heading += ["derivatives"] * derivatives + ["weight"] * weights
        parts += [f"## {title}\n", text + "\n", _line(heading), _line(["---"] * len(heading))]
        parts += [_line(_cells(row, derivatives, weights)) for row in rows]
        parts.append("")
    made = [row for row in functions() if row.name not in OPS]
    for family in dict.fromkeys(row.family for row in made):
        parts += [f"## {family[0].upper()}{family[1:]}\n", _line(["function", "is"]), _line(["---"] * 2)]
        parts += [_line([f"`{row.usage}`", _prose(row.doc)]) for row in made if row.family == family]
        parts.append("")
    return "\n".join(parts)


def _cells(row: Operation, derivatives: bool, weights: bool) -> list[str]:
    name = f"`{row.name}({', '.join(row.operands)}{', ...' if row.variadic else ''})`"
    if row.symbol:
        name += f" `{row.symbol}`"
    third = row.domain if derivatives else ", ".join(f"`{a}`" for a in row.attributes)
    cells = [name, _prose(row.doc), third]
    if derivatives:
        cells.append(", ".join("none" if d is None else f"`{d}`" for d in row.derivatives))
    return cells + [str(row.weight)] * weights


def _prose(text: str) -> str:
    """Text whose asterisks are products and powers."""
    return text.replace("*", "\\*")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def errors() -> str:
    """The catalogue of errors as a page."""
    parts = ["# Errors\n",
             "Every error that a program or a call can cause, from the table in `ir/codes.py`, by `docs/generate.py`; "
             "`slpc explain CODE` prints one. A code is never given another meaning.\n"]
    for code, entry in CODES.items():
        parts += [f"## {code}: {entry.title}\n", entry.reason + "\n"]
        for heading, example in (("Wrong:", entry.wrong), ("Right:", entry.right)):
            parts += [heading + "\n", "```python", _shortened(example.rstrip()), "```\n"]
    return "\n".join(parts)


def _shortened(example: str) -> str:
    """Lines of a page's width."""
    shown = (line if len(line) <= 120 else f"{line[:50]} ... {line[-50:]}" for line in example.split("\n"))
    return "\n".join(shown).replace("\0", "\\0")


def lecture() -> str:
    """The lecture's function as a picture."""
    return draw(DOCS.parent / "programs" / "lecture.slp")


PAGES: dict[str, Callable[[], str]] = {"operations.md": operations, "errors.md": errors, "lecture.svg": lecture}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")
        print(f"docs/{name}")

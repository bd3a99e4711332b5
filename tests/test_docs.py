"""The documentation keeps what it says: pages made from tables are fresh, and runnable examples run.

A fenced block marked `slp` is read as a program (or, where it has no `def`, as the body of one is shown beside it).
Two fences in a row, `slp` and `slp becomes`, are a text and its canonical form. A `python run` block is executed, and
lines `>>> expression` in it are checked against the line below, as doctest does.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))
PAGES: dict[str, Callable[[], str]] = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_fresh(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "run python docs/generate.py"

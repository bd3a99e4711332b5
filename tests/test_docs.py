"""The documentation keeps what it says: pages made from tables are fresh, and every marked example runs.

A fence says what its text is:

    python program            a program; it is read, differentiated where it can be, and its texts round-trip
    python canonical          the canonical text of the program in the fence before it
    python gradient           the same after the passes adjoint and simplify
    python tangent            the same after the passes tangent and simplify
    python error E0302        a program that is refused with this code
    python run                Python that runs in the root of the repository

Lines of `>>>` anywhere are doctests.
"""

from __future__ import annotations

import doctest
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy
import pytest

from slpc.ir.diagnostics import SlpError
from slpc.ir.parse import parse
from slpc.ir.verify import verify
from slpc.passes.adjoint import adjoint
from slpc.passes.simplify import simplify
from slpc.passes.tangent import tangent

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
PAGES: dict[str, Callable[[], str]] = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]
WRITTEN = [p for p in (*sorted(DOCS.glob("*.md")), ROOT / "README.md") if p.name not in PAGES]


class Fence(NamedTuple):
    """One marked example: where it stands, what it is, and its text."""

    place: str
    kind: str
    text: str
    before: str


def _fences() -> Iterator[Fence]:
    for page in WRITTEN:
        text, before = page.read_text("utf-8"), ""
        for found in re.finditer(r"^```python (.+)\n((?s:.*?))^```$", text, re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            yield Fence(f"{page.name}:{line}", found[1], found[2], before)
            if found[1] == "program":
                before = found[2]


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_fresh(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == PAGES[name](), "run python docs/generate.py"


@pytest.mark.parametrize("fence", list(_fences()), ids=lambda fence: fence.place)
def test_example(fence: Fence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if fence.kind == "program":
        graph = verify(parse(fence.text))
        assert parse(str(graph)) == graph
        assert str(parse(str(graph))) == str(graph)
    elif fence.kind == "canonical":
        assert str(parse(fence.before)) == fence.text
    elif fence.kind == "gradient":
        assert str(simplify(adjoint(parse(fence.before)))) == fence.text
    elif fence.kind == "tangent":
        assert str(simplify(tangent(parse(fence.before)))) == fence.text
    elif fence.kind.startswith("error "):
        with pytest.raises(SlpError) as caught:
            parse(fence.text)
        assert caught.value.code == fence.kind.removeprefix("error ")
    else:
        assert fence.kind == "run"
        script = tmp_path / "example.py"
        script.write_text(fence.text, "utf-8")
        monkeypatch.chdir(ROOT)
        runpy.run_path(str(script))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_sessions(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    outcome = doctest.testfile(str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not outcome.failed


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_readme_names_every_page() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [p.name for p in DOCS.glob("*.md") if f"(docs/{p.name})" not in readme] == []


def test_readme_in_a_shell(tmp_path: Path) -> None:
    """Each command of the README's shell session runs on its first program."""
    text = (ROOT / "README.md").read_text("utf-8")
    (tmp_path / "wave.slp").write_text(next(f for f in _fences() if f.text.startswith("# wave.slp")).text, "utf-8")
    numpy.save(tmp_path / "x.npy", numpy.linspace(0, 1, 100))
    session = re.search(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert session is not None
    for line in session[1].splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "slpc"
        done = subprocess.run([sys.executable, "-m", "slpc", *arguments], cwd=tmp_path, capture_output=True, text=True,
                              env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"

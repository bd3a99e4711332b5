"""Golden files: the first line names what is done, the rest is the input and, below dashes, what must come out.

    # opt -p adjoint,simplify            # opt -p adjoint,simplify ../../programs/mlp.slp -D L=2
    def f(x: f64):                       # ----
        return x * x                     def loss(...)
    # ----
    def f(x: f64):
        ...

`# error` reads a program that has errors. `# slpc run FILE w=1` runs the command line on the program as FILE, in an
empty folder, on a machine of 16 GiB: out come what it prints on stdout and stderr, and its exit code.

`pytest tests/test_golden.py --update-golden` accepts what comes out now: read the difference before you commit it.
"""

from __future__ import annotations

import difflib
import shlex
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from slpc.backends import numpy_backend
from slpc.cli import main
from slpc.ir.diagnostics import SlpError
from slpc.ir.parse import parse
from slpc.ir.verify import verify
from slpc.passes import pipeline

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.slp"))
DASHES = "# ----"


def output(command: list[str], given: str) -> str:
    """What the command of a golden file's first line makes of its input."""
    verb, *rest = command
    if verb == "slpc":
        return run(rest, given)
    constants: dict[str, str] = {}
    passes: list[str] = []
    wrt = None
    file = "input.slp"
    while rest:
        word = rest.pop(0)
        if word == "-p":
            passes = rest.pop(0).split(",")
        elif word == "-D":
            name, value = rest.pop(0).split("=")
            constants[name] = value
        elif word == "--wrt":
            wrt = rest.pop(0).split(",")
        else:
            given = (FOLDER / word).read_text("utf-8")
            file = Path(word).name
    if verb == "error":
        with pytest.raises(SlpError) as caught:
            parse(given, file, **constants)
        return str(caught.value) + "\n"
    graph = parse(given, file, **constants)
    graph = pipeline.run(graph, passes, {"wrt": wrt}, lambda _, g: verify(g) and None)
    if verb == "emit":
        return numpy_backend.emit(graph)
    assert verb == "opt"
    text = str(graph)
    assert parse(text) == graph
    assert str(parse(text)) == text
    return text


def run(arguments: list[str], given: str) -> str:
    """What the command line prints, and how it exits."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("slpc.memory.machine_bytes", lambda: 16 << 30)
        Path("FILE").write_text(given, "utf-8")
        result = CliRunner().invoke(main, arguments)
        return f"{result.output}exit {result.exit_code}\n"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_golden(path: Path, update_golden: bool) -> None:
    text = path.read_text("utf-8")
    first, _, rest = text.partition("\n")
    given, dashes, expected = rest.partition(DASHES + "\n")
    assert dashes, f"{path.name} has no line {DASHES}"
    found = output(shlex.split(first.removeprefix("#")), given)
    if update_golden:
        path.write_text(f"{first}\n{given}{DASHES}\n{found}", "utf-8")
        return
    difference = "".join(difflib.unified_diff(expected.splitlines(True), found.splitlines(True), "expected", "found"))
    assert not difference, (f"{difference}\nIf this is right: python -m pytest tests/test_golden.py -k {path.stem} "
                            "--update-golden")


def test_every_program_has_a_golden_adjoint() -> None:
    programs = {p.stem for p in (FOLDER.parent.parent / "programs").glob("*.slp")}
    assert programs == {p.stem.removeprefix("adjoint_") for p in FILES if p.stem.startswith("adjoint_")}

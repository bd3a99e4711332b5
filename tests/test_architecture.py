"""The shape of the house: imports point one way, no table has a hole, files stay short, importing costs nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slpc.backends import numpy_backend
from slpc.ir.codes import CODES
from slpc.ir.ops import OPS
from slpc.ir.parse import prelude
from slpc.passes import adjoint, sparsity, tangent
from slpc.passes.derivatives import derivatives
from slpc.passes.rewrite import RULES

ROOT = Path(__file__).parent.parent
ROOMS = ("ir", "passes", "backends", "slpc")
"""Each may import the ones before it."""

FILES = [p for folder in ROOMS for p in sorted((ROOT / folder).glob("*.py"))]
LONGEST = 600
GENERATED = {"docs/errors.md", "docs/operations.md"}


def imported(path: Path) -> list[str]:
    """The rooms of ours that a file imports from, as folder names, wherever in the file the import stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 2:
            found.append((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == 1 and path.parent.name == "slpc":
            room = (node.module or "").split(".")[0]
            found.append(room if room in ROOMS else "slpc")
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [r for r in ROOMS if (node.module or "").split(".")[0] == r]
        elif isinstance(node, ast.Import):
            found += [r for r in ROOMS for a in node.names if a.name.split(".")[0] == r]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_imports_point_one_way(path: Path) -> None:
    """To rooms further in, relatively; never back, never by an absolute name, which would make a second copy."""
    room = path.parent.name
    allowed = set(ROOMS[:ROOMS.index(room)]) | ({"slpc"} if room == "slpc" else set())
    assert set(imported(path)) <= allowed


def test_no_backend_imports_another() -> None:
    """What two backends share stands in a module that is none."""
    for path in (p for p in FILES if p.parent.name == "backends"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names = [node.module] if node.module else [a.name for a in node.names]
                for name in names:
                    own = name.split("_")[0] == path.stem.split("_")[0]
                    assert own or not name.endswith("_backend"), f"{path.name} imports {name}"


def test_there_are_no_import_cycles_within_a_room() -> None:
    """At the top level of the modules; an import inside a function says that it would be one."""
    for room in ROOMS:
        after: dict[str, set[str]] = {}
        for path in (ROOT / room).glob("*.py"):
            after[path.stem] = {
                name.split(".")[0] for node in ast.parse(path.read_text("utf-8")).body
                if isinstance(node, ast.ImportFrom) and node.level == 1
                for name in ([node.module] if node.module else [a.name for a in node.names])}
        while after:
            free = {m for m, needs in after.items() if not needs & (after.keys() - {m})}
            assert free, f"a cycle among {sorted(after)} of {room}"
            after = {m: needs for m, needs in after.items() if m not in free}


def test_every_operation_has_every_rule() -> None:
    for name, op in OPS.items():
        if op.elementwise:
            assert len(op.derivatives) == len(op.operands), name
            assert len(derivatives(op)) == len(op.operands)
        elif name != "region":  # several results: passes/regions.py
            assert name in adjoint.RULES, f"{name} has no adjoint"
            assert name in tangent.RULES, f"{name} has no tangent"
            assert name in sparsity.RULES, f"{name} has no pattern"
        assert op.doc
    assert set(adjoint.RULES) == set(tangent.RULES) == \
        {n for n, op in OPS.items() if not op.elementwise} - {"region"}
    collectives = {n for n, op in OPS.items() if op.family == "collective"}  # copies, where there is one process
    assert numpy_backend.lowered() >= set(OPS) - {"region"} - collectives
    assert set(RULES) <= set(OPS)


def test_every_code_is_explained() -> None:
    text = "".join(p.read_text("utf-8") for p in FILES if p.name != "codes.py")
    used = set(re.findall(r"\"(E0\d{3})\"", text))
    assert used == set(CODES), "a code without an error, or an error without its code"
    for code, entry in CODES.items():
        assert all(entry), code


def test_names_of_the_language_are_given_once() -> None:
    """A prelude function is no operation, and a rewrite says what it does and why."""
    assert not prelude().keys() & OPS.keys()
    for rules in RULES.values():
        assert all(rule.name and rule.reason for rule in rules)


def ours() -> list[Path]:
    """The files that git knows, or would."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout.splitlines()
    return [ROOT / name for name in listed if Path(name).suffix in (".py", ".slp", ".md") and (ROOT / name).is_file()]


def test_no_file_is_long() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    lengths = {p.relative_to(ROOT).as_posix(): p.read_text("utf-8").count("\n") for p in ours()}
    assert lengths.keys() >= GENERATED
    assert {name: n for name, n in lengths.items() if n > LONGEST and name not in GENERATED} == {}


@pytest.mark.parametrize(("statement", "heavy"), [
    ("import slpc", ("numpy", "click", "rich", "networkx", "ml_dtypes", "scipy", "llvmlite", "torch", "slpc.ir.ops")),
    ("import slpc; slpc.parse('def f(x: f64[3]):\\n    return sum(x)\\n')",
     ("click", "rich", "networkx", "scipy", "llvmlite", "torch", "ml_dtypes", "slpc.passes.adjoint")),
    ("import slpc; slpc.compile(slpc.parse('def f(x: f64):\\n    return x * x\\n'), grad=True)(2.0)",
     ("click", "rich", "networkx", "scipy", "llvmlite", "torch", "ml_dtypes")),
])
def test_what_is_not_needed_is_not_imported(statement: str, heavy: tuple[str, ...]) -> None:
    script = f"import sys\n{statement}\nprint([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"

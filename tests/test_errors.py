"""Errors: each code is provoked, its example is true, and its text is golden (tests/golden/error_*.slp)."""

from __future__ import annotations

import importlib.util
import itertools
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import slpc
from slpc.ir.codes import CODES, explain
from slpc.ir.diagnostics import Diagnostic, Fault, SlpError, Span, near

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
ELSEWHERE = {"E0104", "E0120", "E0413", "E0414", "E0415", "E0417"}
"""Provoked below, bytes that are no text and programs in several modules; in test_arena.py, arrays for outputs; in
test_torch.py, tensors and modules; in test_processes.py, a process that is gone."""

PROGRAMS = [code for code in CODES if code < "E04" and code not in {"E0206", "E0120"}]


@pytest.mark.parametrize("code", PROGRAMS)
def test_examples_of_the_catalogue_are_true(code: str) -> None:
    with pytest.raises(SlpError) as caught:
        slpc.parse(CODES[code].wrong)
    assert {d.code for d in caught.value.diagnostics} == {code}
    slpc.parse(CODES[code].right)


@pytest.mark.parametrize("code", [code for code in CODES if code < "E05" and code not in ELSEWHERE])
def test_every_code_has_its_text_in_a_golden_file(code: str) -> None:
    text = (GOLDEN / f"error_{code}.slp").read_text("utf-8")
    assert f"error[{code}]" in text.partition("# ----\n")[2]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("error_*.slp")), ids=lambda p: p.stem)
def test_carets_stand_under_an_expression(path: Path) -> None:
    """Under each excerpt, the stretch of carets covers text that neither begins nor ends within a word."""
    lines = path.read_text("utf-8").partition("# ----\n")[2].splitlines()
    for source, carets in itertools.pairwise(lines):
        mark = carets.partition(" | ")[2]
        if not mark.strip() or mark.strip(" ^"):
            continue
        text = source.partition(" | ")[2]
        start, end = len(mark) - len(mark.lstrip()), len(mark)
        word = text[start:end]
        assert word.strip() == word and word, source
        if not text.endswith(" ..."):
            assert not (text[start - 1:start] + word[0]).isidentifier() or start == 0, source
            assert not (word[-1] + text[end:end + 1]).isidentifier() or end == len(text), source


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "latin.slp"
    file.write_bytes("def f(x: f64):\n    größe = x\n    return größe\n".encode("latin-1"))
    with pytest.raises(SlpError) as caught:
        slpc.load(file)
    assert str(caught.value) == (
        f"{file}:2:7: error[E0104]: byte 0xf6 is not UTF-8\n"
        "  2 |     gr\ufffd\ufffde = x\n"
        "    |       ^\n"
        "  hint: save the file as UTF-8")
    file.write_text("def f(x: f64):\n    größe = sihn(x)\n    return größe\n", "utf-8")
    with pytest.raises(SlpError) as caught:
        slpc.load(file)
    assert caught.value.diagnostics[0].span == Span(2, 12, 16)  # in characters, not bytes


def test_a_name_that_means_two_things(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("c = 2\ndef scaled(x): return c * x\n")
    (tmp_path / "model.py").write_text(
        "from __future__ import annotations\nimport slpc\nfrom tools import scaled\nc = 3\n"
        "@slpc.program\ndef f(x: f64): return c + scaled(x)\n")
    with pytest.raises(SlpError) as caught:
        imported("model", tmp_path).f(1.0)
    assert caught.value.code == "E0120" and "'c'" in str(caught.value)
    (tmp_path / "model.py").write_text((tmp_path / "model.py").read_text().replace("c =", "k =").replace("c +", "k +"))
    assert imported("model", tmp_path).f(2.0) == 7.0


def imported(name: str, folder: Path) -> ModuleType:
    """A module of a folder, which can import its neighbours."""
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(folder))


def test_a_backend_that_is_not_installed() -> None:
    code = ("import sys; sys.modules['llvmlite'] = None; from slpc.cli import main; "
            "main(['run', 'programs/lecture.slp', '--backend', 'llvm'])")
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (4, "")
    assert ran.stderr.startswith("error[E0501]: ") and "pip install 'slpc[llvm]'" in ran.stderr


def test_independent_errors_are_reported_together_and_dependent_ones_are_not() -> None:
    text = "def f(x: f64):\n    a = sihn(x)\n    b = a + 1\n    c = x + [1]\n    d = 2 3\n    return b * c\n"
    with pytest.raises(SlpError) as caught:
        slpc.parse(text)
    assert [(d.code, d.span and d.span.line) for d in caught.value.diagnostics] == [
        ("E0103", 2), ("E0203", 4), ("E0101", 5)]


@pytest.mark.parametrize("name", ["nan", "inf"])
def test_a_constant_that_is_returned_lends_no_name_to_its_output(name: str) -> None:
    graph = slpc.parse(f"def f(x: f64):\n    return x, {name}, -{name}\n")
    assert [v.name for v in graph.outputs] == ["out0", "out1", "out2"]
    assert slpc.parse(str(graph)) == graph


def test_one_parameter_twice() -> None:
    for text in ("def f(x: f64, x: f64):\n    return x\n",
                 "def g(a, *, a): return a\ndef f(x: f64):\n    return g(x)\n"):
        with pytest.raises(SlpError) as caught:
            slpc.parse(text)
        assert caught.value.code == "E0101" and "twice" in str(caught.value)


def test_many_errors_end() -> None:
    text = "def f(x: f64):\n" + "".join(f"    a{i} = foo{i}(x)\n" for i in range(1000)) + "    return x\n"
    with pytest.raises(SlpError) as caught:
        slpc.parse(text)
    assert len(caught.value.diagnostics) == 20


def test_an_error_in_a_helper_points_into_the_helper() -> None:
    text = "def g(x):\n    return x + ones(3)\n\n\ndef f(x: f64[2]):\n    return g(x)\n"
    with pytest.raises(SlpError) as caught:
        slpc.parse(text)
    assert [d.span and d.span.line for d in caught.value.diagnostics] == [2]


def test_an_error_in_a_function_of_the_language_points_at_its_call() -> None:
    with pytest.raises(SlpError) as caught:
        slpc.parse("def f(x: f64[2]):\n    return softmax(x, axis=3)\n")
    (found,) = caught.value.diagnostics
    assert found.span == Span(2, 11, 29) and "axis 3" in found.message


@pytest.mark.parametrize(("name", "known", "told"), [
    ("sihn", ["sin", "sinh", "sign"], "did you mean 'sinh'?"), ("soft_max", ["softmax"], "did you mean 'softmax'?"),
    ("zzz", ["sin"], ""), ("", ["sin"], ""), ("w", [], ""),
])
def test_near_misses(name: str, known: list[str], told: str) -> None:
    assert near(name, known) == told


def test_rendering() -> None:
    long = "x = " + " + ".join(f"a{i}" for i in range(100))
    shown = Diagnostic("E0103", "m", "", "f.slp", Span(7, 300, 303), long).render().splitlines()
    assert shown[0] == "f.slp:7:301: error[E0103]: m"
    assert shown[1][shown[2].index("^"):shown[2].rindex("^") + 1] == long[300:303]
    assert max(map(len, shown)) < 120
    hostile = Diagnostic("E0103", "m", "", "f.slp", Span(1, 1, 2), "a\x1b[31m\tb\x07").render()
    assert "\x1b" not in hostile and "\x07" not in hostile
    assert Diagnostic("E0410", "m").render() == "error[E0410]: m"


def test_errors_are_pickled_with_all_they_say() -> None:
    with pytest.raises(SlpError) as caught:
        slpc.parse("def f(x: f64):\n    return foo + bar\n")
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.diagnostics == caught.value.diagnostics and str(again) == str(caught.value)


def test_explanations() -> None:
    assert all(explain(code).count("Wrong:") == 1 for code in CODES)
    with pytest.raises(Fault):
        explain("E01")

"""The command line: what a user types, what comes out, and how it ends."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner, Result

import slpc
from slpc.cli import COMMANDS, main
from slpc.ir.ops import OPS
from slpc.passes import derivatives

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "programs"
LECTURE, MLP = str(PROGRAMS / "lecture.slp"), str(PROGRAMS / "mlp.slp")
COMMAND = [sys.executable, "-m", "slpc"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

# The lecture's function at (1.5, 0.5), by hand: z1 = 3, sin(6 pi) = 0, z4 = 9 - e.
INNER = 9 - math.e
VALUE = INNER * INNER
GRAD = {"w1": INNER * (4 * math.pi + 12), "w2": -INNER * (12 * math.pi + 36 + 4 * math.e)}


def slpc_run(*arguments: str, given: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments], input=given)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output or code == 70
    return result


def rows(text: str) -> dict[str, str]:
    """The last column of `run`'s table by its first."""
    return {line.split()[0]: line.split("  ")[-1].strip() for line in text.splitlines()}


def close(got: float | str, want: float) -> None:
    assert float(got) == pytest.approx(want, rel=1e-12)


# run -----------------------------------------------------------------------------------------------------------

def test_value_and_gradient_of_the_lecture() -> None:
    found = rows(slpc_run("run", LECTURE, "w1=1.5", "w2=0.5", "--grad").stdout)
    assert list(found) == ["value.z6", "grad.w1", "grad.w2"]
    close(found["value.z6"], VALUE)
    close(found["grad.w1"], GRAD["w1"])
    close(found["grad.w2"], GRAD["w2"])


def test_numeric_defaults_fill_what_is_left_out() -> None:
    close(rows(slpc_run("run", LECTURE).stdout)["value.z6"], VALUE)
    close(rows(slpc_run("run", LECTURE, "w1=0").stdout)["value.z6"], math.e ** 2)


def test_json_has_value_and_gradient() -> None:
    found = json.loads(slpc_run("run", LECTURE, "--grad", "--json").stdout)
    assert found.keys() == {"value", "grad"}
    close(found["value"]["z6"], VALUE)
    assert found["grad"] == pytest.approx(GRAD, rel=1e-12)
    assert json.loads(slpc_run("run", LECTURE, "--json").stdout).keys() == {"value"}


def test_json_spells_what_it_has_no_number_for() -> None:
    text = slpc_run("run", "-", "x=[-1,0,1]", "--json", given="def f(x: f64[3]):\n    return x / 0.0, log(x)\n").stdout
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert strict["value"] == {"out0": ["-Infinity", "NaN", "Infinity"], "out1": ["NaN", "-Infinity", 0.0]}


def test_wrt_and_of_choose() -> None:
    program = "def f(a: f64, b: f64, *, c: f64):\n    s = a * b * c\n    t = a + c\n    return s, t\n"
    given = ["a=2", "b=3", "c=5"]
    found = json.loads(slpc_run("run", "-", *given, "--wrt", "c,a", "--json", given=program).stdout)
    assert found == {"value": {"s": 30.0, "t": 7.0}, "grad": {"c": 6.0, "a": 15.0}}
    found = json.loads(slpc_run("run", "-", *given, "--of", "t", "--json", given=program).stdout)
    assert found["grad"] == {"a": 1.0, "b": 0.0}


def test_the_gradient_program_runs_through_a_pipe() -> None:
    text = slpc_run("opt", LECTURE, "-p", "adjoint,simplify").stdout
    assert slpc.parse(text) == slpc.adjoint(slpc.load(LECTURE))
    found = rows(slpc_run("run", "-", "w1=1.5", "w2=0.5", given=text).stdout)
    close(found["value.w1_bar"], GRAD["w1"])
    close(found["value.w2_bar"], GRAD["w2"])


def test_arrays_come_from_files_and_go_to_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    W, w = rng.normal(size=(4, 64, 64)).astype(np.float32), rng.normal(size=64).astype(np.float32)
    X, Y = rng.normal(size=(64, 64)).astype(np.float32), rng.normal(size=64).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "weights.npz", W=W, w=w, Y=np.zeros_like(Y))
    np.savez(tmp_path / "y.npz", anything=Y)
    out = tmp_path / "grads.npz"
    slpc_run("run", MLP, f"X=@{tmp_path}/x.npy", f"Y=@{tmp_path}/y.npz", f"@{tmp_path}/weights.npz", "--grad",
             "--out", str(out))
    with np.load(out) as saved:
        assert set(saved) == {"value.out0", "grad.W", "grad.w"}
        value, grads = slpc.compile(MLP, grad=True)(W, w, X, Y)
        np.testing.assert_array_equal(saved["value.out0"], value)
        np.testing.assert_array_equal(saved["grad.W"], grads["W"])
        assert saved["grad.w"].dtype == np.float32
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_bfloat16_is_kept_in_files(tmp_path: Path) -> None:
    program = "def f(x: bf16[3]):\n    y = x * 2\n    return y\n"
    out = tmp_path / "y.npz"
    slpc_run("run", "-", "x=[1,0.3,inf]", "--out", str(out), given=program)
    found = slpc.files.read_arrays(out)["value.y"]
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, np.array([2, 0.6015625, np.inf], ml_dtypes.bfloat16))
    os.rename(out, tmp_path / "z.npz")
    with np.load(tmp_path / "z.npz") as saved:  # NumPy alone can read the bytes
        assert saved["value.y"].dtype == np.uint16 and str(saved["value.y.dtype"]) == "bf16"
    again = slpc_run("run", "-", f"x=@{_renamed(tmp_path / 'z.npz', 'value.y', 'x')}", given=program).stdout
    assert rows(again)["value.y"].endswith("[4.0, 1.20312, inf]")


def _renamed(path: Path, old: str, new: str) -> Path:
    arrays = slpc.files.read_arrays(path)
    slpc.files.write_arrays(path.with_name("renamed.npz"), {new: arrays[old]})
    return path.with_name("renamed.npz")


def test_random_inputs_are_reproducible_and_independent_of_what_is_given() -> None:
    first = slpc_run("run", MLP, "-D", "L=2", "-D", "d=3", "-D", "m=2", "--random", "0", "--grad").stdout
    assert first == slpc_run("run", MLP, "-D", "L=2", "-D", "d=3", "-D", "m=2", "--random", "0", "--grad").stdout
    assert first != slpc_run("run", MLP, "-D", "L=2", "-D", "d=3", "-D", "m=2", "--random", "1", "--grad").stdout
    program = "def f(a: f64, b: f64):\n    return copy(a), copy(b)\n"
    drawn = rows(slpc_run("run", "-", "--random", "7", given=program).stdout)
    given = rows(slpc_run("run", "-", "--random", "7", "a=1", given=program).stdout)
    assert given["value.out0"] == "1.0" and given["value.out1"] == drawn["value.out1"]


def test_the_seed_of_a_gradient_is_an_input() -> None:
    program = "def f(x: f64[3]):\n    y = x * x\n    return y\n"
    found = slpc_run("run", "-", "x=[1,2,3]", "y_bar=[1,0,10]", "--grad", "--json", given=program).stdout
    assert json.loads(found)["grad"] == {"x": [2.0, 0.0, 60.0]}
    slpc_run("run", "-", "x=[1,2,3]", "--grad", "--random", "0", given=program)


@pytest.mark.parametrize(("text", "want"), [
    ("1", 1.0), ("-1.5e3", -1500.0), (".5", 0.5), ("+2", 2.0), ("1_000", 1000.0), ("inf", math.inf),
    ("-inf", -math.inf), ("nan", math.nan), ("NaN", math.nan), ("1e400", math.inf),
])
def test_numbers(text: str, want: float) -> None:
    found = rows(slpc_run("run", "-", f"x={text}", given="def f(x: f64):\n    return copy(x)\n").stdout)["value.out0"]
    assert float(found) == want or (math.isnan(float(found)) and math.isnan(want))


@pytest.mark.parametrize("text", ["", "one", "1+1", "[1,[2]", "{}", "f(1)", "'a'", "0x", "__import__('os')", "[" * 300,
                                  "-[1]", "1j", "9" * 5000])
def test_what_is_no_number_is_refused(text: str) -> None:
    found = slpc_run("run", "-", f"x={text}", given="def f(x: f64):\n    return x\n", code=2)
    assert "error[E040" in found.stderr and len(found.stderr) < 500


def test_one_of_several_programs_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "two.slp"
    file.write_text("def g(x: f64):\n    return 2 * x\n\n\ndef f(x: f64):\n    return 3 * g(x)\n")
    assert rows(slpc_run("run", f"{file}:g", "x=1").stdout) == {"value.out0": "2.0"}
    assert rows(slpc_run("run", str(file), "x=1").stdout) == {"value.out0": "6.0"}
    assert "did you mean 'g'" not in slpc_run("run", f"{file}:h", "x=1", code=2).stderr


# opt, compile, check, gradcheck --------------------------------------------------------------------------------

def test_opt_prints_after_each_pass_and_what_it_prints_is_a_program() -> None:
    text = slpc_run("opt", LECTURE, "-p", "adjoint,simplify", "--print-after-each").stdout
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# after adjoint", "# after simplify"]
    assert slpc.parse(text) == slpc.adjoint(slpc.load(LECTURE))  # the last def is the program


def test_opt_without_passes_prints_canonical_text(tmp_path: Path) -> None:
    slpc_run("opt", MLP, "-D", "L=2", "-o", str(tmp_path / "mlp.slp"))
    assert slpc.load(tmp_path / "mlp.slp") == slpc.load(MLP, L=2)


def test_compiled_code_needs_numpy_and_nothing_of_ours(tmp_path: Path) -> None:
    module = tmp_path / "lecture_grad.py"
    slpc_run("compile", LECTURE, "--grad", "--backend", "numpy", "-o", str(module))
    (tmp_path / "slpc.py").write_text("raise ImportError('slpc is not to be imported')\n")
    code = "import lecture_grad; print(*lecture_grad.f(1.5, 0.5))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
                         capture_output=True, text=True, check=True)
    for got, want in zip(ran.stdout.split(), (VALUE, GRAD["w1"], GRAD["w2"]), strict=True):
        close(got, want)


def test_check_prints_the_ratio_and_fails_above_five(monkeypatch: pytest.MonkeyPatch) -> None:
    text = slpc_run("check", LECTURE, MLP).stdout
    assert text.count("times the value (at most 5)") == 2
    facts = json.loads(slpc_run("check", LECTURE, "--json").stdout)[0]
    # Counted by hand from docs/operations.md: 2 divisions... by weight: / 3, * 1 (4 of them), sin 10, exp 10, - 1, + 1
    assert facts["flops"] == 3 + 4 * 1 + 10 + 10 + 1 + 1
    assert 1 < facts["ratio"] <= 5
    monkeypatch.setattr("slpc.passes.cost.ratio", lambda *_, **__: 5.01)
    assert "FAILED" in slpc_run("check", LECTURE, code=1).stdout


def test_check_reports_every_file() -> None:
    found = slpc_run("check", LECTURE, "missing.slp", MLP, code=2)
    assert "lecture.slp" in found.stdout and "mlp.slp" in found.stdout and "E0410" in found.stderr


def test_gradcheck_finds_a_wrong_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "FAILED" not in slpc_run("gradcheck", LECTURE).stdout
    right = OPS["sin"].derivatives
    try:
        for wrong in ("g * sin(x)", "-(g * cos(x))", "g * cos(x) * 1.00001"):
            object.__setattr__(OPS["sin"], "derivatives", (wrong,))
            derivatives.derivatives.cache_clear()
            assert "against differences" in slpc_run("gradcheck", "-", "x=1", code=1,
                                                     given="def f(x: f64):\n    return sin(x)\n").stdout
    finally:
        object.__setattr__(OPS["sin"], "derivatives", right)
        derivatives.derivatives.cache_clear()


def test_gradcheck_as_json() -> None:
    found = json.loads(slpc_run("gradcheck", MLP, "-D", "L=2", "-D", "d=4", "-D", "m=3", "--json").stdout)
    assert found["ok"] and len(found["checks"]) == 8
    assert all(c["ok"] and c["error"] <= c["tolerance"] for c in found["checks"])


# ops, explain, doctor, completion ------------------------------------------------------------------------------

def test_ops_lists_every_function() -> None:
    text = slpc_run("ops").stdout
    for name in (*(set(OPS) - {"slice", "gather", "region"}), "softmax", "zeros", "range"):
        assert f"  {name}(" in text, name
    assert "in y: g * x" in slpc_run("ops", "multiply").stdout
    assert "did you mean 'softmax'?" in slpc_run("ops", "sofmax", code=2).stderr
    names = [row["name"] for row in json.loads(slpc_run("ops", "--json").stdout)]
    assert len(names) == len(set(names))


def test_explain() -> None:
    assert slpc_run("explain", "e0103").stdout.startswith("E0103: a name is not known\n")
    assert "E0603" in slpc_run("explain").stdout
    assert "E0411" in slpc_run("explain", "E9999", code=2).stderr


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {line["what"]: line for line in json.loads(slpc_run("doctor", "--json").stdout)}
    assert found["backend numpy"]["found"] == "computes"
    monkeypatch.setattr("slpc.installation._EXTRAS", {"no_such_package": "special"})
    assert "pip install 'slpc[special]'" in slpc_run("doctor").stdout
    monkeypatch.setattr("slpc.installation._REQUIRED", ("no_such_package",))
    slpc_run("doctor", code=1)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    assert "_SLPC_COMPLETE" in slpc_run("completion", shell).stdout


@pytest.mark.parametrize(("words", "want"), [
    (["gra"], {"gradcheck"}), (["run", LECTURE, "w"], {"w1=", "w2="}),
    (["opt", LECTURE, "-p", ""], {"adjoint", "tangent"}),
    (["run", MLP, "-D", "L=2", "X"], {"X="}), (["run", "missing.slp", ""], set()),
])
def test_completion(words: list[str], want: set[str]) -> None:
    environment = {"_SLPC_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["slpc", *words]),
                   "COMP_CWORD": str(len(words))}
    found = CliRunner(env=environment).invoke(main, []).stdout
    assert want <= {line.partition(",")[2] for line in found.splitlines()}


# How it ends ---------------------------------------------------------------------------------------------------

def test_a_bug_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr("slpc.api.load", fails)
    found = slpc_run("run", LECTURE, code=70)
    assert "ZeroDivisionError: inside" in found.stderr and "bug in slpc" in found.stderr and not found.stdout


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (MemoryError, 2)])
def test_interruption_and_memory(monkeypatch: pytest.MonkeyPatch, error: type[BaseException], code: int) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("slpc.api.load", fails)
    assert "Traceback" not in slpc_run("run", LECTURE, code=code).stderr


def test_interrupted_from_outside(tmp_path: Path) -> None:
    fifo = tmp_path / "program.slp"
    os.mkfifo(fifo)
    with subprocess.Popen([*COMMAND, "run", str(fifo)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as child:
        with fifo.open("w"):  # opened once the child reads
            time.sleep(0.1)
            child.send_signal(signal.SIGINT)
            assert child.communicate(timeout=30)[1].strip() == "slpc: interrupted"
        assert child.returncode == 130


@pytest.mark.parametrize("command", ["opt programs/kepler.slp", "explain", "run programs/lecture.slp --json", "--help"])
def test_a_reader_that_goes_away_is_no_error(command: str) -> None:
    line = f"{sys.executable} -m slpc {command} | true; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", line], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert (ran.stderr, ran.stdout) == ("", "") and ran.returncode in (0, 1)


@pytest.mark.parametrize(("redirection", "code"), [(">&-", 0), ("2>&-", 0), ("< /dev/null", 0), ("> /dev/full", 2)])
def test_streams_that_are_closed_or_full(redirection: str, code: int) -> None:
    line = f"{sys.executable} -m slpc run programs/lecture.slp {redirection}"
    ran = subprocess.run(["bash", "-c", line], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert ran.returncode == code and "Traceback" not in ran.stderr


@pytest.mark.parametrize("where", ["missing/x.npz", ".", "/proc/x.npz", "/dev/full", "x\0.npz"])
def test_what_cannot_be_written_is_said_and_nothing_is_left(where: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "error[E0410]" in slpc_run("run", LECTURE, "--out", where, code=2).stderr
    assert "error[E0410]" in slpc_run("opt", LECTURE, "-o", where, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_replaced_is_whole_before_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "grads.npz"
    target.write_text("old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.lib.format.write_array", full)
    slpc_run("run", LECTURE, "--out", str(target), code=2)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("arguments", "told"), [
    (["rnu", LECTURE], "did you mean 'run'?"), (["run"], "missing argument"), (["run", LECTURE, "--gard"], "'--grad'"),
    (["run", LECTURE, "--random", "x"], "the seed is an integer"), (["run", LECTURE, "--random", "-1"], "the seed is"),
    (["run", LECTURE, "--backend", "nmpy"], "did you mean 'numpy'?"), (["run", LECTURE, "w1"], "NAME=VALUE"),
    (["run", LECTURE, "w1=1", "w1=2"], "given twice"), (["run", MLP, "-D", "L"], "-D L=4"),
    (["run", MLP, "-D", "L=x"], "L=x"), (["run", MLP, "-D", "9=1"], "-D 9=1"), (["run", ""], "name is empty"),
    (["run", str(ROOT)], "is a directory"), (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
    (["run", LECTURE, "-D", "file=3"], "no constant 'file'"), (["run", LECTURE, "-D", "text=3"], "no constant 'text'"),
])
def test_mistakes_of_typing(arguments: list[str], told: str) -> None:
    found = slpc_run(*arguments, code=2)
    assert told in found.stderr and found.stderr.count("error[") == 1 and not found.stdout


def test_errors_as_json_on_stderr() -> None:
    found = slpc_run("run", "-", "--json", given="def f(x: f64):\n    y = sihn(x)\n    return foo(y) + bar\n", code=2)
    errors = json.loads(found.stderr)["errors"]
    assert [(e["code"], e["line"], e["column"], e["end_column"]) for e in errors] == [("E0103", 2, 9, 13),
                                                                                     ("E0103", 3, 12, 15)]
    assert errors[0]["hint"] == "did you mean 'sinh'?" and errors[0]["file"] == "<stdin>" and not found.stdout


def test_a_backend_that_is_not_there_exits_with_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    found = slpc_run("run", "-", "x=1", given="def f(x: f64):\n    return polygamma(0, x)\n", code=4)
    assert "E0502" in found.stderr and "pip install" in found.stderr


# How it looks --------------------------------------------------------------------------------------------------

def on_terminal(code: str, **environment: str) -> str:
    """What Python code prints where stdout and stderr are a terminal."""
    parent, child = pty.openpty()
    settings = {k: v for k, v in ENVIRONMENT.items() if k not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=child, stderr=child, cwd=ROOT,
                               env=settings | {"TERM": "xterm"} | environment)
    os.close(child)
    text = b""
    try:
        while chunk := os.read(parent, 4096):
            text += chunk
    except OSError:  # Linux says so at the end of a terminal
        pass
    process.wait()
    os.close(parent)
    return text.decode()


RUN = "from slpc.cli import main; main(['run', 'programs/lecture.slp'])"
WRONG = "from slpc.cli import main; main(['run', 'programs/lecture.slp', '--wrt', 'w3'])"


def test_colour_on_a_terminal_and_nowhere_else() -> None:
    """Colours alone: where reading takes long, progress moves the cursor on a terminal."""
    def coloured(text: str) -> bool:
        return re.search(r"\x1b\[[0-9;]+m", text) is not None

    assert coloured(on_terminal(RUN)) and "\x1b[31m" in on_terminal(WRONG)
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert not coloured(on_terminal(RUN, **plain)) and not coloured(on_terminal(WRONG, **plain))
    assert "\x1b[" not in slpc_run("run", LECTURE).output


def test_progress_for_what_lasts() -> None:
    slow = "import time; from slpc import report\nwith report.progress('waiting for it'): time.sleep({})\nprint('done')"
    assert "waiting for it" in on_terminal(slow.format(1.2))
    assert "waiting for it" not in on_terminal(slow.format(0.05))
    piped = subprocess.run([sys.executable, "-c", slow.format(0.8)], env=ENVIRONMENT, capture_output=True, text=True)
    assert (piped.stdout, piped.stderr) == ("done\n", "")


# Help ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str) -> None:
    text = slpc_run(command, "--help").stdout
    assert "Usage: slpc " + command in text
    assert "Examples:" in text or command == "doctor"


def test_help_imports_nothing_heavy_and_is_immediate(tmp_path: Path) -> None:
    heavy = ("numpy", "networkx", "rich", "ml_dtypes", "torch", "llvmlite", "scipy")
    code = f"""
import sys
sys.argv = ['slpc', '--help']
from slpc.cli import main
try: main()
except SystemExit: pass
found = set({heavy}) & set(sys.modules)
assert not found, found
"""
    environment = ENVIRONMENT | {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
    taken = []
    for _ in range(5):
        before = os.times()
        subprocess.run([*COMMAND, "--help"], env=environment, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(taken) < 0.15  # of processor time, which a busy machine does not stretch

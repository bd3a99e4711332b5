"""The Python API: programs from files, text and Python functions; what they compute; what wrong arguments are told."""

from __future__ import annotations

import importlib.util
import math
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import slpc
from slpc import checking, files, lang, language, samples
from slpc.ir.diagnostics import SlpError
from slpc.ir.types import f64
from slpc.passes.convert import in_dtype

ROOT = Path(__file__).parent.parent
LECTURE, MLP = ROOT / "programs" / "lecture.slp", ROOT / "programs" / "mlp.slp"
SMALL = dict(L=2, d=3, m=2)

# The lecture's function at (1.5, 0.5), by hand: z1 = 3, sin(6 pi) = 0, z4 = 9 - e.
INNER = 9 - math.e
VALUE = INNER * INNER
GRAD = {"w1": INNER * (4 * math.pi + 12), "w2": -INNER * (12 * math.pi + 36 + 4 * math.e)}


def code_of(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(SlpError) as caught:
        call(*args, **kwargs)
    return caught.value.code


# Calls ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("call", [
    lambda f: f(w1=1.5, w2=0.5), lambda f: f(1.5, 0.5), lambda f: f(1.5, w2=0.5), lambda f: f(), lambda f: f(1.5),
    lambda f: f(np.float32(1.5), np.array(0.5)), lambda f: f(w2=0.5),
])
def test_ways_to_call(call: Any) -> None:
    value, grads = call(slpc.compile(LECTURE, grad=True))
    assert value == pytest.approx(VALUE, rel=1e-12) and grads == pytest.approx(GRAD, rel=1e-12)
    assert type(value) is float and list(grads) == ["w1", "w2"]


@pytest.mark.parametrize(("args", "kwargs", "code"), [
    ((1, 2, 3), {}, "E0402"), ((), {"w": 1}, "E0402"), ((1,), {"w1": 2}, "E0402"), (("1",), {}, "E0405"),
    ((None,), {}, "E0405"), (([1.5],), {}, "E0404"), ((True,), {}, "E0405"), ((1j,), {}, "E0405"),
    ((10 ** 400,), {}, "E0405"), ((np.zeros(2),), {}, "E0404"), (({},), {}, "E0405"),
])
def test_wrong_arguments_of_a_scalar_program(args: tuple[Any, ...], kwargs: dict[str, Any], code: str) -> None:
    assert code_of(slpc.compile(LECTURE), *args, **kwargs) == code


def test_every_fault_of_a_call_is_reported() -> None:
    with pytest.raises(SlpError) as caught:
        slpc.compile(MLP)(np.zeros(3), Q=1, R=2)
    assert [d.code for d in caught.value.diagnostics] == ["E0402", "E0402", "E0401"]


def test_arrays_keep_their_dtype_and_have_the_programs() -> None:
    graph = slpc.load(MLP, **SMALL)
    f, point = slpc.compile(graph, grad=True), samples.draw(graph)
    value, grads = f(**point)
    assert value.dtype == np.float32 and {g.dtype.name for g in grads.values()} == {"float32"}
    assert [g.shape for g in grads.values()] == [(2, 3, 3), (3,)]
    assert f(**point | {"X": np.asfortranarray(point["X"])})[0] == value
    assert f(**point | {"w": point["w"].tolist()})[0] == value
    for wrong, code in [(point["X"].astype(float), "E0405"), (point["X"].T, "E0404"), (0.5, "E0404"),
                        (np.array([["a", "b"]] * 3), "E0405"), ([[1], [2, 3]], "E0404"), (object(), "E0405")]:
        assert code_of(f, **point | {"X": wrong}) == code


def test_outputs_belong_to_the_caller() -> None:
    f = slpc.compile(slpc.parse("def f(x: f64[3]):\n    y = 2 * x\n    return x, y, y, x[::-1]\n"))
    x = np.arange(3.0)
    first, second = f(x), f(x)
    for output in first:
        output += 100
    for got, want in zip(second, ([0, 1, 2], [0, 2, 4], [0, 2, 4], [2, 1, 0]), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(x, [0, 1, 2])


def test_several_outputs_and_dtypes() -> None:
    f = slpc.compile(slpc.parse("def f(n: i32, x: f32, b: bool):\n    return n + 1, x * 2, ~b, 3\n"))
    found = f(1, 0.5, True)
    assert found == (2, 1.0, False, 3)
    assert [v.dtype.name for v in found] == ["int32", "float32", "bool", "int64"]
    assert f.outputs == {"out0": "i32", "out1": "f32", "out2": "bool", "out3": "i64"}
    assert code_of(f, 2 ** 31, 0.5, True) == "E0405" and code_of(f, 1.0, 0.5, True) == "E0405"


def test_batches_of_points() -> None:
    f = slpc.compile(LECTURE, grad=True, batch=True)
    single = slpc.compile(LECTURE, grad=True)
    w1 = np.array([1.5, 1.0, -2.0])
    value, grads = f(w1, 0.5)
    for i, point in enumerate(w1):
        want, want_grads = single(point, 0.5)
        assert value[i] == pytest.approx(want, rel=1e-13)
        assert grads["w2"][i] == pytest.approx(want_grads["w2"], rel=1e-13)
    assert f([], 0.5)[0].shape == (0,)
    assert code_of(f, np.ones(2), np.ones(3)) == "E0404" and code_of(f, np.ones((2, 2)), 0.5) == "E0404"
    assert code_of(slpc.compile, MLP, batch=True) == "E0404"
    with pytest.raises(slpc.SlpError, match="a batch of 3 points"):
        f(np.ones(3), np.ones(4))


def test_what_a_function_tells() -> None:
    f = slpc.compile(LECTURE, grad=True)
    assert f.inputs == {"w1": "f64", "w2": "f64"} and list(f.outputs) == ["z6", "w1_bar", "w2_bar"]
    assert "z3 = exp(" in f.text and f.graph == slpc.adjoint(LECTURE) and "lecture" not in repr(f)
    again = pickle.loads(pickle.dumps(f))
    assert again(1.5, 0.5) == f(1.5, 0.5) and again.text == f.text


def test_tracebacks_show_emitted_lines() -> None:
    f = slpc.compile(slpc.parse("def f(x: f64[2, 2]):\n    square_ = x @ x\n    return square_\n"))
    try:
        f._entry(np.zeros((2, 3)))
    except ValueError:
        assert "np.dot(x, x, out=square_)" in traceback.format_exc()
    else:
        pytest.fail("shapes that do not fit")


# Derivatives as programs ---------------------------------------------------------------------------------------

def test_derivatives_compose_to_any_order() -> None:
    graph = slpc.parse("def f(x: f64):\n    y = x ** 5\n    return y\n")
    for order, want in enumerate((5 * 2 ** 4, 20 * 2 ** 3, 60 * 2 ** 2, 120 * 2, 120, 0), 1):
        graph = slpc.adjoint(graph, wrt="x", of=graph.outputs[-1].name)
        assert slpc.compile(graph)(2.0)[-1] == want, order
    mixed = slpc.adjoint(slpc.tangent(slpc.parse("def f(x: f64):\n    y = x ** 3\n    return y\n")), of="y_dot")
    assert slpc.compile(mixed)(x=2.0, x_dot=1.0)[-1] == 12


def test_hessian_of_a_quadratic_form() -> None:
    rng = np.random.default_rng(0)
    A, x = rng.normal(size=(4, 4)), rng.normal(size=4)
    graph = slpc.parse("def f(x: f64[4], *, A: f64[4, 4]):\n    return 0.5 * sum(x * (A @ x))\n")
    found = slpc.hessian(graph)(x, A)
    np.testing.assert_allclose(found["x"]["x"], (A + A.T) / 2, rtol=1e-13)
    product = slpc.compile(slpc.hvp(graph))
    results = dict(zip(product.outputs, product(x=x, A=A, x_dot=x), strict=True))
    np.testing.assert_allclose(results["x_bar_dot"], (A + A.T) / 2 @ x, rtol=1e-13)


def test_whole_derivatives_of_a_program_with_names_of_derivatives() -> None:
    """Inputs called x_dot, y_bar and x_bar are no seeds and no results."""
    text = ("def f(x: f64, x_dot: f64, *, x_bar: f64, y_bar: f64[2]):\n"
            "    y = x * x * x_dot * x_bar * y_bar\n    return ")
    at = {"x": 2.0, "x_dot": 3.0, "x_bar": 5.0, "y_bar": np.array([7.0, 11.0])}
    for wrt in (["x", "x_dot"], ["x", "x_dot", "y_bar"]):  # two inputs to two outputs, and four: columns, rows
        blocks = slpc.jacobian(slpc.parse(text + "y\n"), wrt=wrt)(**at)["y"]
        np.testing.assert_array_equal(blocks["x"], 60 * at["y_bar"])
        np.testing.assert_array_equal(blocks["x_dot"], 20 * at["y_bar"])
    assert slpc.hessian(slpc.parse(text + "sum(y)\n"))(**at) == {
        "x": {"x": 2 * 3 * 5 * 18, "x_dot": 2 * 2 * 5 * 18}, "x_dot": {"x": 2 * 2 * 5 * 18, "x_dot": 0}}


def test_a_constant_is_set_wherever_the_module_assigns_it() -> None:
    text = "k = 2\nif k > 2:\n    n = 3\nelse:\n    n = 4\nm = 2 * n\nns = [n for n in range(3)]\n" \
           "def f(x: f64[m]):\n    n = 7\n    return n * sum(x)\n"
    for constants, length in (({}, 8), ({"k": 3}, 6), ({"n": 5}, 10), ({"n": 5, "m": 1}, 1)):
        graph = slpc.parse(text, **constants)
        assert graph.inputs[0].shape == (length,)
        assert slpc.compile(graph)(np.ones(length)) == 7 * length


@pytest.mark.parametrize(("n", "mode"), [(2, "tangent"), (5, "adjoint")])
def test_jacobian_in_the_cheaper_mode(n: int, mode: str) -> None:
    graph = slpc.parse(f"def f(x: f64[{n}], *, A: f64[3, {n}]):\n    return sin(A @ x), sum(x)\n")
    A, x = np.random.default_rng(0).normal(size=(3, n)), np.linspace(0, 1, n)
    jacobian = slpc.jacobian(graph)
    assert jacobian.mode == mode
    found = jacobian(x, A)
    np.testing.assert_allclose(found["out0"]["x"], np.cos(A @ x)[:, None] * A, rtol=1e-13)
    np.testing.assert_array_equal(found["out1"]["x"], np.ones(n))


@pytest.mark.parametrize(("call", "code"), [
    (lambda: slpc.adjoint(LECTURE, wrt=["w3"]), "E0403"), (lambda: slpc.adjoint(LECTURE, of="z9"), "E0403"),
    (lambda: slpc.tangent(LECTURE, wrt="w3"), "E0403"), (lambda: slpc.compile(LECTURE, wrt=[]), "E0412"),
    (lambda: slpc.hessian(LECTURE, of="z9"), "E0403"), (lambda: slpc.jacobian(LECTURE, wrt=["q"]), "E0403"),
    (lambda: slpc.hessian(slpc.parse("def f(x: f64[2]):\n    return 2 * x\n")), "E0412"),
    (lambda: slpc.adjoint(slpc.parse("def f(n: i64):\n    return 2 * n\n")), "E0412"),
    (lambda: slpc.adjoint(slpc.parse("def f(x: f64, n: i64):\n    return 2 * n, x\n")), "E0412"),
    (lambda: slpc.adjoint(slpc.parse("def f(n: f64, x: f64):\n    return polygamma(n, x)\n")), "E0412"),
    (lambda: slpc.compile(LECTURE, backend="nympy"), "E0411"), (lambda: slpc.load("missing.slp"), "E0410"),
    (lambda: slpc.load(LECTURE, L=3), "E0206"), (lambda: slpc.compile(slpc.load(LECTURE), L=3), "E0206"),
    (lambda: slpc.load(MLP, L="four"), "E0409"), (lambda: slpc.load(f"{LECTURE}:g"), "E0113"),
])
def test_wrong_questions(call: Any, code: str) -> None:
    assert code_of(call) == code


@pytest.mark.parametrize("call", [lambda: slpc.compile(3), lambda: slpc.compile(math.sin), lambda: slpc.parse(b"")])
def test_what_is_no_program_is_a_type_error(call: Any) -> None:
    with pytest.raises(TypeError, match=r"a program is a path|the text of a program"):
        call()


def test_constants_are_numbers_of_any_kind_and_dtypes() -> None:
    text = "n, dtype, flag = 3, f32, False\ndef f(x: dtype[n]):\n    if flag:\n        x = 2 * x\n    return sum(x)\n"
    for constants, want in [({}, "f32[3]"), ({"n": 2}, "f32[2]"), ({"n": np.int64(4)}, "f32[4]"),
                            ({"n": "5"}, "f32[5]"),
                            ({"dtype": "bf16"}, "bf16[3]"), ({"dtype": f64}, "f64[3]"), ({"n": 0}, "f32[0]")]:
        assert str(slpc.parse(text, **constants).inputs[0].type) == want
    assert slpc.compile(slpc.parse(text, flag=True))([1, 2, 3]) == 12
    assert slpc.compile(slpc.parse(text, flag="true"))([1, 2, 3]) == 12


def test_graph_as_networkx() -> None:
    found = slpc.load(LECTURE).to_networkx()
    assert set(found.predecessors("z4")) == {"z4_t", "z3"} and found.nodes["z3"]["op"] == "exp"


# @slpc.program -------------------------------------------------------------------------------------------------

def module(folder: Path, text: str, name: str = "model") -> ModuleType:
    """A Python module made of the text."""
    (folder / f"{name}.py").write_text(text, "utf-8")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


HEAD = "from slpc.lang import *\nimport slpc\n"


def test_a_program_in_a_python_file(tmp_path: Path) -> None:
    found = module(tmp_path, HEAD + "@slpc.program\ndef rosenbrock(x: f64, y: f64): "
                                    "return (1 - x) ** 2 + 100 * (y - x ** 2) ** 2\n").rosenbrock
    assert isinstance(found, slpc.Program) and found(1.0, 2.0) == 100.0 and found(x=0.0, y=0.0) == 1.0
    assert slpc.compile(found, grad=True)(0.0, 1.0) == (101.0, {"x": -2.0, "y": 200.0})
    assert found.__name__ == "rosenbrock" and pickle.loads(pickle.dumps(found)) is found


def test_the_mlp_in_a_python_file_is_the_mlp(tmp_path: Path) -> None:
    text = MLP.read_text("utf-8").replace("def loss(", "@slpc.program\ndef loss(")
    loss, small = module(tmp_path, HEAD + text).loss, {**SMALL, "dtype": "f64"}
    assert loss.graph == slpc.load(MLP) and loss.with_constants(**small) == slpc.load(MLP, **small)


def test_bodies_are_read_and_never_executed(tmp_path: Path) -> None:
    made = module(tmp_path, HEAD + "ran = []\ndef helper(x):\n    ran.append(1)\n    return x\n"
                                   "@slpc.program\ndef f(x: f64):\n    return helper(x)\n")
    assert made.f(1.0) == 1.0 and made.f.with_constants() == made.f.graph
    assert made.ran == []


def test_helpers_constants_and_enclosing_names(tmp_path: Path) -> None:
    made = module(tmp_path, HEAD + """
scale, sizes, kind = 3, (2, 3), f32
def outer_help(z): return later(z) * scale
def make(n, k=2):
    dtype = f64
    def inner_help(z):
        return k * z
    @slpc.program
    def f(
        x: dtype[n],  # n and dtype are the enclosing function's
    ):
        y = inner_help(x)
        return sum(outer_help(y))
    return f
def later(z): return z + sizes[1]
@slpc.program
def square(x: f64): return x * x
@slpc.program
def both(x: f64): return square(x) + later(x)
""")
    f = made.make(4)
    assert f([1, 1, 1, 1]) == 4 * 3 * (2 * 1 + 3)
    assert slpc.compile(f, scale=5)([1, 1, 1, 1]) == 4 * 5 * 5
    assert made.make(1, k=10)([1]) == 39
    assert made.both(2.0) == 4 + 5
    assert code_of(f.with_constants, nothing=1) == "E0206"


def test_errors_point_into_the_python_file(tmp_path: Path) -> None:
    made = module(tmp_path, HEAD + """
W = [{}]
import numpy as np
def make():
    @slpc.program
    def f(x: f64):
        y = x + 1
        z = sihn(y)  # é
        return z + W, np.exp(y), missing
    return f
def helper(x):
    return x @ x
@slpc.program
def g(x: f64):
    return helper(x)
""")
    with pytest.raises(SlpError) as caught:
        made.make()(1.0)
    places = [(d.code, d.span and (d.span.line, d.span.column)) for d in caught.value.diagnostics]
    assert places[0] == ("E0103", (10, 12)) and str(caught.value).startswith(f"{tmp_path}/model.py:10:13: ")
    with pytest.raises(SlpError) as caught:
        made.g(1.0)
    assert caught.value.diagnostics[0].span == (14, 11, 16)


@pytest.mark.parametrize("source", ["x = slpc.program(lambda x: x)", "x = slpc.program(3)", "x = slpc.program(len)",
                                    "exec('def f(x): return x'); x = slpc.program(f)"])
def test_what_cannot_be_a_program(tmp_path: Path, source: str) -> None:
    with pytest.raises(SlpError):
        module(tmp_path, HEAD + source + "\nx.graph\n")


def test_names_for_editors_are_current() -> None:
    assert (ROOT / "slpc" / "lang.pyi").read_text("utf-8") == language.stub(), "run python -m slpc.language"
    written = {line.split("(")[0].split()[-1].rstrip(":") for line in language.stub().splitlines()
               if line.startswith(("def ", "class "))} | {"pi", "e", "inf", "nan", "s_"}
    assert written - {"Value"} == set(lang.__all__) - {"slice", "gather"}
    with pytest.raises(TypeError, match=r"exp is a function of the slpc language"):
        lang.exp(1.0)  # type: ignore[attr-defined]


def test_the_star_import_hides_nothing_of_pythons() -> None:
    import builtins

    assert not [name for name in lang.__all__ if hasattr(builtins, name)]


# gradcheck -----------------------------------------------------------------------------------------------------

def test_gradcheck_says_yes_and_shows_why() -> None:
    report = slpc.gradcheck(MLP, **SMALL, seed=3)
    assert report and report.ok and len(report.checks) == 8
    assert all(c.error < 1e-9 * max(1, abs(c.expected)) for c in report.checks)
    assert str(report).startswith("loss: ok\n")


@pytest.mark.parametrize(("text", "inputs"), [
    ("def f(x: f64):\n    return sqrt(x)\n", {"x": 0.0}),                 # an infinite derivative
    ("def f(x: f64):\n    return log(x)\n", {"x": -1.0}),                 # outside the domain
    ("def f(x: f64):\n    return abs(x)\n", {"x": 0.0}),                  # a kink: no derivative but a subgradient
    ("def f(x: f64):\n    return x * stop_gradient(x)\n", {"x": 1.0}),    # wrong on purpose
])
def test_gradcheck_never_passes_what_it_could_not_check(text: str, inputs: dict[str, float]) -> None:
    report = slpc.gradcheck(slpc.parse(text), inputs=inputs)
    assert not report and "WRONG" in str(report)


def test_gradcheck_of_low_precision_programs_checks_the_calculus() -> None:
    text = "def f(x: {0}[3]):\n    y = tanh(x) * exp(x)\n    return astype(y, {0}), y\n"
    for dtype in ("f16", "bf16", "f32"):
        graph = slpc.parse(text.format(dtype))
        assert slpc.gradcheck(graph, of="out1" if len(graph.outputs) > 1 and graph.outputs[1].name == "out1" else None)
        assert {v.dtype.name for v in in_dtype(graph, f64).values()} == {"f64"}


@pytest.mark.parametrize(("function", "want"), [
    (math.exp, 1.0), (lambda h: math.sin(3 + h), math.cos(3)), (lambda h: (2 + h) ** 7, 7 * 2.0 ** 6),
    (lambda h: math.sqrt(1e-2 + h) if h > -1e-2 else math.nan, 5.0), (lambda h: abs(h - 0.01), -1.0),
    (lambda h: 4.0, 0.0),
])
def test_ridders(function: Any, want: float) -> None:
    got, doubt = checking.ridders(function)
    assert abs(got - want) <= max(10 * doubt, 1e-12) and abs(got - want) < 1e-7 * max(1, abs(want))


# Files ---------------------------------------------------------------------------------------------------------

def test_arrays_survive_files(tmp_path: Path) -> None:
    import ml_dtypes

    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.array([np.nan, -0.0]), "c": np.float16(2),
              "d": np.array([1.5, -0.0], ml_dtypes.bfloat16), "e.dtype": np.zeros(2), "f": np.zeros((0, 3), bool),
              "file": np.ones(1), "value.x": np.ones(1)}
    files.write_arrays(tmp_path / "all", arrays)
    again = files.read_arrays(tmp_path / "all")
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        assert again[name].dtype == np.asarray(array).dtype and again[name].shape == np.shape(array)
        assert again[name].tobytes() == np.asarray(array).tobytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"\x80\x04N.", b"\x93NUMPY\x01\x00v\x00{",
                                     b"x" * 99])
def test_broken_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.npz").write_bytes(content)
    assert code_of(files.read_arrays, tmp_path / "broken.npz") == "E0410"


def test_importing_slpc_imports_nothing_heavy() -> None:
    code = "import sys, slpc; assert not {'numpy', 'click', 'rich', 'networkx'} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert set(slpc.__all__) <= set(dir(slpc))
    assert all(getattr(slpc, name) is not None for name in slpc.__all__)

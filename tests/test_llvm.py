"""The LLVM backend: every operation on scalars, programs of arrays taken apart, calls, threads, pickles, faults."""

from __future__ import annotations

import gc
import math
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_programs import double, sample

import slpc
from slpc import export
from slpc.backends import llvm_backend, llvm_call
from slpc.ir.graph import Graph
from slpc.ir.ops import OPS
from slpc.ir.verify import verify
from slpc.passes.scalarise import scalarise

LATER = {"gather", "scatter_add"}
"""Operations that have loops alone: in C text E0701."""
BY_LEGALIZE = {"all_reduce", "wait"}  # one process sums nothing
BY_SCALARISE = {"region", "permute_dims", "slice", "sum", "max", "min", "cumsum", "matmul", "place", "arange"}

INTEGERS = [0, 1, -1, 2, -2, 3, -7, 100, 2**31 - 1, -(2**31)]
FLOATS = [0.0, -0.0, 1.0, -1.5, 2.5, 0.5, -0.5, 3.0, math.inf, -math.inf, math.nan, 5e-324, 1e308, -2.5, 3.5]


def native(text: str, **options: Any) -> slpc.Function:
    return slpc.compile(slpc.parse(text), backend="llvm", **options)


def test_no_hole() -> None:
    assert llvm_backend.lowered() | BY_SCALARISE | BY_LEGALIZE | LATER == set(OPS)
    assert not llvm_backend.lowered() & LATER


EXACT = ["add", "subtract", "multiply", "divide", "maximum", "minimum", "mod", "floor_divide", "negative", "abs",
         "sign", "floor", "ceil", "round", "sqrt", "less", "less_equal", "greater", "greater_equal", "equal",
         "not_equal"]


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16", "i64", "i32"])
@pytest.mark.parametrize("name", EXACT)
def test_exact_operations(name: str, dtype: str) -> None:
    """What IEEE 754 or integer arithmetic fixes to the bit, against NumPy in the dtype."""
    op, floating = OPS[name], "f" in dtype
    if op.domain == "float" and not floating:
        pytest.skip("floating point only")
    inputs = ", ".join(f"{o}: {dtype}" for o in op.operands)
    graph = slpc.parse(f"def f({inputs}):\n    z = {name}({', '.join(op.operands)})\n    return z")
    f = slpc.compile(graph, backend="llvm")
    reference = getattr(np, name)
    kind = graph.inputs[0].dtype.numpy.type
    with np.errstate(all="ignore"):
        values = [kind(x) for x in (FLOATS if floating else INTEGERS)]
        points = [(a, b) for a in values for b in values] if len(op.operands) == 2 else [(a,) for a in values]
        for point in points:
            got, want = np.asarray(f(*point)), np.asarray(reference(*point))
            if name in ("maximum", "minimum") and point[0] == point[1]:
                assert got == want, point  # of two zeros IEEE 754-2019 takes the positive as the larger
            elif name == "sign" and point[0] == 0:
                assert got == 0  # NumPy says 0, ml_dtypes -0
            elif floating and want.dtype.kind in "fV":
                assert same(float(got), float(want)), (point, got, want)
            else:
                assert got == want, (point, got, want)


def same(a: float, b: float) -> bool:
    return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("base", INTEGERS)
@pytest.mark.parametrize("dtype", ["i64", "i32"])
def test_integer_powers(dtype: str, base: int) -> None:
    f = native(f"def f(x: {dtype}, y: {dtype}):\n    return x ** y")
    bits = int(dtype[1:])
    for exponent in (0, 1, 2, 3, 10, 31):
        wrapped = (base**exponent + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        assert f(base, exponent) == wrapped, exponent


CASTS = ["f16", "bf16", "f32", "f64", "i32", "i64", "bool"]


@pytest.mark.parametrize("source", CASTS)
@pytest.mark.parametrize("target", CASTS)
def test_casts(source: str, target: str) -> None:
    graph = slpc.parse(f"def f(x: {source}):\n    return astype(x, {target})")
    f = slpc.compile(graph, backend="llvm")
    kind, wanted = graph.inputs[0].dtype.numpy.type, graph.outputs[0].dtype.numpy
    values = [0, 1] if source == "bool" else [0, 1, -1, 2, -3, 100, 255, 257, 1001]
    if source not in ("i32", "i64", "bool"):
        values = [*values, 0.5, -0.5, 2.5, 1e-3, 3.14159, 65000.0]
    for x in values:
        given = kind(x)
        assert f(given) == np.asarray(given).astype(wanted), x


def test_casts_saturate() -> None:
    f = native("def f(x: f64):\n    return astype(x, i32)")
    assert [int(f(x)) for x in (1e10, -1e10, math.inf, math.nan)] == [2**31 - 1, -(2**31), 2**31 - 1, 0]


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "less", "less_equal", "greater", "equal", "not_equal"])
def test_logic(name: str) -> None:
    f = native(f"def f(x: bool, y: bool):\n    return {name}(x, y)")
    for x in (False, True):
        for y in (False, True):
            assert f(x, y) == getattr(np, name)(x, y)
    assert [bool(native("def f(x: bool):\n    return ~x")(x)) for x in (False, True)] == [True, False]


# Programs --------------------------------------------------------------------------------------------------------

SCALAR = ["black_scholes", "bundle_adjustment", "gmm", "kalman", "kepler", "lecture", "rosenbrock"]
SMALLER = {"mlp": dict(L=2, d=5, m=4), "attention": dict(T=6, d=3), "softmax_attention": dict(T=6, d=3),
           "lstm": dict(T=2, B=2, d=2, n=3), "product": {}}


def close(got: Any, want: Any, tolerance: float) -> None:
    scale = np.max(np.abs(want), initial=0.0)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("name", SCALAR)
def test_programs_against_numpy(name: str) -> None:
    graph = double(name)
    f, g = (slpc.compile(graph, grad=True, backend=b) for b in ("llvm", "numpy"))
    for seed in range(3):
        point = sample(graph, seed)
        for got, want in zip(f.flat(**point), g.flat(**point), strict=True):
            close(got, want, 1e-12)


@pytest.mark.parametrize("name", sorted(SMALLER))
def test_small_tensor_programs_against_numpy(name: str) -> None:
    constants = SMALLER[name]
    path = Path(__file__).parent.parent / "programs" / f"{name}.slp"
    graph = slpc.load(path, **constants)
    f, g = (slpc.compile(graph, grad=True, backend=b) for b in ("llvm", "numpy"))
    point = sample(graph)
    for got, want in zip(f.flat(**point), g.flat(**point), strict=True):
        assert got.dtype == want.dtype
        close(got, want, 1e-4 if want.dtype == np.float32 else 1e-12)


def test_a_batch_of_tensors_is_its_points() -> None:
    """One after the other, to the bit; inputs that all points share, indices that are wrong, and no points at all."""
    graph = double("transformer")
    f, many = (slpc.compile(graph, grad=True, backend="llvm", batch=b) for b in (False, True))
    points = [sample(f.graph, seed) for seed in range(3)]
    given = {name: np.stack([p[name] for p in points]) if name in ("Wq", "tok") else x for name, x in points[0].items()}
    values, grads = many(**given)
    for i in range(3):
        value, single = f(**{name: x[i] if name in ("Wq", "tok") else x for name, x in given.items()})
        assert values[i] == value
        for name, g in single.items():
            np.testing.assert_array_equal(grads[name][i], g)
    given["tok"][2, 0, 0] = 10**6
    with pytest.raises(slpc.SlpError, match="index 1000000 is out of range"):
        many(**given)
    g = slpc.compile(slpc.parse("def f(x: f64, i: i64[2]):\n    return scatter_add(x * ones((2,)), i, shape=(4,)), x"),
                     backend="llvm", batch=True)
    rows, xs = g(np.array([1.0, 2.0]), np.array([0, 0]))
    assert rows.tolist() == [[2, 0, 0, 0], [4, 0, 0, 0]] and xs.tolist() == [1, 2]
    assert g(np.empty(0), np.array([0, 0]))[0].shape == (0, 4)


@pytest.mark.parametrize("text", ["def f(x: f64[1000, 1000]):\n    return x @ x",
                                  "def f(x: f64[4], i: i64[2]):\n    return x[i]"])
def test_c_text_of_tensors_says_what_to_use(text: str, tmp_path: Path) -> None:
    with pytest.raises(slpc.SlpError, match="object file") as caught:
        export.export(slpc.parse(text), tmp_path / "f.c", "c")
    assert caught.value.code == "E0701"


@pytest.mark.parametrize("text", [
    "def f(x: f64[3]):\n    return x, x",
    "def f(x: f64[3]):\n    return x[::-1], sum(x, axis=0)",
    "def f(x: f64):\n    return ones((2, 2)) * 3.0, x",
    "def f(x: f64[0]):\n    return sum(x, axis=0), x",
    "def f(x: bool[3]):\n    return max(x, axis=0), min(x, axis=0)",
    "def f(x: f64[2, 3], y: f64[3, 2]):\n    return x @ y, cumsum(x, axis=1), (x.T + y)[1:, 0]",
    "def f(x: i32[4]):\n    return sum(x, axis=0) * 2, x // 3, concat([x, arange(3, dtype=i32)], axis=0)",
    "def f(x: f64[2, 2]):\n    return max(x, axis=(0, 1)), broadcast_to(x[0, 0], (3,))",
])
def test_scalarised_is_the_same_program(text: str) -> None:
    graph = slpc.parse(text)
    apart = verify(scalarise(graph))
    assert slpc.parse(str(apart)) == apart
    point = {v.name: np.random.default_rng(0).integers(0, 2, v.shape).astype(v.dtype.numpy) + v.dtype.numpy.type(0)
             if v.dtype.name == "bool" else np.random.default_rng(0).uniform(1, 9, v.shape).astype(v.dtype.numpy)[()]
             for v in graph.inputs}
    for backend in ("numpy", "llvm"):
        got = slpc.compile(apart if backend == "numpy" else graph, backend=backend).flat(**point)
        for a, b in zip(got, slpc.compile(graph).flat(**point), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)
            assert np.asarray(a).dtype == np.asarray(b).dtype


UNARY = ["sin", "cos", "exp", "tanh", "sqrt", "log1p", "atan", "abs", "cbrt", "sigmoid"]


@st.composite
def programs(draw: st.DrawFn) -> str:
    """A random program of scalars without NaN: arguments of partial functions are made positive first."""
    lines, names = [], ["x", "y", "z"]
    for i in range(draw(st.integers(1, 25))):
        a, b = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        kind = draw(st.integers(0, 6))
        if kind <= 1:
            right = f"{a} {draw(st.sampled_from('+-*'))} {b}"
        elif kind == 2:
            right = f"{draw(st.sampled_from(UNARY))}({a} * {a} + 0.25)"
        elif kind == 3:
            right = f"tanh({a}) / (1 + {b} * {b})"
        elif kind == 4:
            right = f"where({a} < {b}, sin({a}), {b})"
        elif kind == 5:
            right = f"{draw(st.sampled_from(['maximum', 'minimum', 'hypot', 'atan2']))}({a}, {b} + 0.125)"
        else:
            right = f"(tanh({a}) + 2) ** tanh({b})"
        names.append(f"v{i}")
        lines.append(f"    v{i} = {right}")
    lines.append(f"    return {names[-1]} + {names[len(names) // 2]}")
    return "def f(x: f64, y: f64, z: f64):\n" + "\n".join(lines) + "\n"


@settings(max_examples=25, deadline=None)
@given(programs(), st.tuples(*[st.floats(-2, 2).map(lambda x: round(x, 3) + 0.0005)] * 3))
def test_random_programs(text: str, point: tuple[float, float, float]) -> None:
    """Values and gradients as NumPy's, as far as the conditioning of a random program lets them agree."""
    graph = slpc.parse(text)
    f, g = (slpc.compile(graph, grad=True, backend=b) for b in ("llvm", "numpy"))
    got, want = np.array(f.flat(*point)), np.array(g.flat(*point))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * max(1.0, float(np.nanmax(np.abs(want)))))


def long_program(length: int) -> Graph:
    lines = ["def f(x: f64, y: f64):", "    a0 = x", "    b0 = y"]
    for i in range(1, length):
        lines.append(f"    a{i} = a{i - 1} * 0.75 + b{max(0, i - 37)} * 0.25")
        lines.append(f"    b{i} = sin(a{i}) + b{i - 1} * 0.5")
    return slpc.parse("\n".join(lines) + f"\n    return a{length - 1} + b{length // 2} + b3, b{length - 1}")


def test_a_long_program_runs_in_pieces() -> None:
    graph = long_program(1500)
    f, g = (slpc.compile(graph, grad=True, backend=b) for b in ("llvm", "numpy"))
    assert f.text.count("@slpc.point.") > 4
    np.testing.assert_allclose(f.flat(0.3, 0.7), g.flat(0.3, 0.7), rtol=1e-12)
    out = np.empty(4)
    f.bind(np.array([0.3, 0.7]), out=out)()
    assert tuple(out) == f.flat(0.3, 0.7)


# Calls -----------------------------------------------------------------------------------------------------------

LECTURE = Path(__file__).parent.parent / "programs" / "lecture.slp"


@pytest.fixture(scope="module")
def lecture() -> slpc.Function:
    return slpc.compile(LECTURE, grad=True, backend="llvm")


def test_floats_in_floats_out(lecture: slpc.Function) -> None:
    value, grads = lecture(1.5, 0.5)
    assert type(value) is float and list(grads) == ["w1", "w2"]
    assert lecture(w2=0.5, w1=1.5) == lecture(1.5) == lecture() == lecture(np.float64(1.5), 0.5) == (value, grads)
    assert lecture.flat(1.5, 0.5) == (value, *grads.values())
    assert lecture(2, 1)[0] == lecture(2.0, 1.0)[0]


def test_several_values_come_as_a_tuple() -> None:
    f = native("def f(x: f64):\n    return 2 * x, 3 * x", grad=True)
    assert f(1.0) == ((2.0, 3.0), {"x": 2.0})
    assert native("def f(x: f64):\n    return 2 * x")(1.0) == 2.0
    assert native("def f():\n    return 2 * ones(())")() == 2.0


@pytest.mark.parametrize(("args", "kwargs", "code"), [
    ((1.0, 2.0, 3.0), {}, "E0402"), ((1.0,), {"w3": 1.0}, "E0402"), (("a", 1.0), {}, "E0404"),
    ((True, 1.0), {}, "E0405"), ((None, 1.0), {}, "E0404"), ((np.zeros(2), 1.0), {}, "E0405")])
def test_wrong_arguments(lecture: slpc.Function, args: tuple[Any, ...], kwargs: dict[str, Any], code: str) -> None:
    with pytest.raises(slpc.SlpError) as native_fault:
        lecture(*args, **kwargs)
    with pytest.raises(slpc.SlpError) as numpy_fault:
        slpc.compile(LECTURE, grad=True)(*args, **kwargs)
    assert native_fault.value.code == numpy_fault.value.code
    assert code[:3] == native_fault.value.code[:3]


def test_pickled_as_text(lecture: slpc.Function) -> None:
    again = pickle.loads(pickle.dumps(lecture))
    assert again.backend == "llvm" and again(1.5, 0.5) == lecture(1.5, 0.5)


def test_ten_threads(lecture: slpc.Function) -> None:
    points = [(0.1 * i + 0.5, 0.3 + 0.01 * i) for i in range(10)]
    wanted = [lecture.flat(*p) for p in points]
    wrong = []

    def work(i: int) -> None:
        for _ in range(5000):
            if lecture.flat(*points[i]) != wanted[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_calls_leak_nothing(lecture: slpc.Function) -> None:
    def blocks() -> int:
        for _ in range(2000):
            lecture(1.5, 0.5)
            lecture.flat(1.5, 0.5)
            with pytest.raises(slpc.SlpError):
                lecture(None)
        gc.collect()
        return sys.getallocatedblocks()

    blocks()
    assert blocks() - blocks() < 50


def test_a_bound_function_outlives_the_program() -> None:
    f = slpc.compile(LECTURE, grad=True, backend="llvm")
    x, out = np.array([1.5, 0.5]), np.zeros(3)
    run, flat, wanted = f.bind(x, out=out), f.flat, f.flat(1.5, 0.5)
    del f
    gc.collect()
    assert run() is None and tuple(out) == wanted and flat(1.5, 0.5) == wanted
    x[:] = 2.0, 1.0
    run()
    assert tuple(out) == flat(2.0, 1.0)


@pytest.mark.parametrize("backend", ["llvm", "numpy"])
def test_bound_arrays_hold_everything_end_to_end(backend: str) -> None:
    graph = double("gmm")
    f = slpc.compile(graph, grad=True, backend=backend)
    point = sample(graph)
    given = np.concatenate([np.ravel(point[v.name]) for v in f.graph.inputs])
    out = np.empty(sum(v.type.size for v in f.graph.outputs))
    f.bind(given, out=out)()
    close(out, np.concatenate([np.ravel(r) for r in f.flat(**point)]), 1e-14)


@pytest.mark.parametrize(("given", "out", "says"), [
    ([1.0, 2.0], np.zeros(3), "list"), (np.zeros(3), np.zeros(3), "shape"), (np.zeros(2), None, "NoneType"),
    (np.zeros(2, np.float32), np.zeros(3), "dtype"), (np.zeros(4)[::2], np.zeros(3), "contiguous"),
    (np.zeros(2), np.zeros(2), "shape"),
    (np.zeros(2), np.broadcast_to(0.0, 3), "contiguous")])
def test_what_cannot_be_bound(lecture: slpc.Function, given: Any, out: Any, says: str) -> None:
    with pytest.raises(slpc.SlpError, match=says) as caught:
        lecture.bind(given, out=out)
    assert caught.value.code == "E0702"


def test_bound_arrays_do_not_overlap(lecture: slpc.Function) -> None:
    whole = np.zeros(5)
    with pytest.raises(slpc.SlpError, match="overlap"):
        lecture.bind(whole[:2], out=whole[1:4])
    fixed = np.zeros(3)
    fixed.flags.writeable = False
    with pytest.raises(slpc.SlpError, match="read-only"):
        lecture.bind(np.zeros(2), out=fixed)
    with pytest.raises(slpc.SlpError, match="f32"):
        native("def f(x: f32):\n    return x * x").bind(np.zeros(1), np.zeros(1))


def test_without_llvmlite() -> None:
    code = ("import sys; sys.modules['llvmlite'] = None\nimport slpc\n"
            "try:\n    slpc.compile(slpc.parse('def f(x: f64):\\n    return x * x'), backend='llvm')\n"
            "except slpc.SlpError as error:\n    print(error)")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).parent.parent).stdout
    assert "E0501" in shown and "pip install 'slpc[llvm]'" in shown



def test_contraction_is_an_option() -> None:
    """x * x - r, with r the rounded square, is 0, or with one rounding the square's error."""
    graph = slpc.parse("def f(x: f64, r: f64):\n    return x * x - r")
    x = 1 + 2.0**-30
    plain, contracted = slpc.compile(graph, backend="llvm"), slpc.compile(graph, backend="llvm", contract=True)
    assert plain(x, x * x) == 0.0
    assert contracted(x, x * x) == pickle.loads(pickle.dumps(contracted))(x, x * x) == 2.0**-60
    assert contracted.batch(np.full(9, x), x * x).tolist() == [2.0**-60] * 9
    with pytest.raises(slpc.SlpError) as caught:
        slpc.compile(graph, contract=True)
    assert caught.value.code == "E0706"


def test_a_python_whose_objects_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without functions of CPython's C API the same calls go through ctypes."""
    monkeypatch.setattr(llvm_call, "POSSIBLE", False)
    f = slpc.compile(LECTURE, grad=True, backend="llvm")
    value, grads = f(1.5, 0.5)
    assert type(value) is float and f.flat(1.5) == (value, *grads.values())
    out = np.zeros(3)
    f.bind(np.array([1.5, 0.5]), out=out)()
    assert tuple(out) == f.flat(1.5, 0.5)

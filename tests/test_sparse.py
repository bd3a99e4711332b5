"""Sparse derivatives: patterns against dense matrices, colourings against their definitions, values against dense ones
and against differences."""

from __future__ import annotations

import sys
import time
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from random_programs import Program, programs
from scipy import sparse
from scipy.optimize import approx_fprime, least_squares, minimize
from scipy.sparse.linalg import spsolve
from test_programs import PROGRAMS, double, sample
from test_properties import examples

import slpc
from slpc.ir.graph import Graph
from slpc.passes.colouring import NONE, distance_2, neighbours, split, star
from slpc.passes.sparsity import STRIP, Pattern, pattern

BACKENDS = ["numpy", "llvm"]

BANDED = """
def banded(x: f64[n]):
    left, right = x[:-2], x[2:]
    return x[1:-1] * (right - left) + sin(x[1:-1])
"""
ARROW = """
def arrow(x: f64[n]):
    rest = x[1:] * x[0] + exp(x[1:])
    return concat([reshape(sum(x * x), (1,)), rest])
"""
CHAIN = """
def chain(x: f64[n]):
    return sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
"""
HUB = """
def hub(x: f64[n]):
    return sum(exp(x[0] * x[1:]) + x[1:] ** 3)
"""
SCALARS = """
def scalars(a: f64, b: f64, c: f64, d: f64):
    s = a * b
    return s + sin(c), c * d, exp(d), s * s
"""


def program(text: str, n: int) -> Graph:
    return slpc.parse(f"n = {n}\n{text}")


def joined(blocks: dict[str, dict[str, Any]], rows: dict[str, slice], columns: dict[str, slice]) -> Any:
    """Dense blocks as one matrix."""
    return np.block([[np.reshape(blocks[y][x], (rows[y].stop - rows[y].start, columns[x].stop - columns[x].start))
                      for x in columns] for y in rows])


def dense_jacobian(graph: Graph, J: Any, *args: Any, **kwargs: Any) -> Any:
    return joined(slpc.jacobian(graph, wrt=list(J.columns))(*args, **kwargs), J.rows, J.columns)


def dense_hessian(graph: Graph, H: Any, *args: Any, **kwargs: Any) -> Any:
    return joined(slpc.hessian(graph, wrt=list(H.columns))(*args, **kwargs), H.rows, H.columns)


# Patterns --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("body", [
    "x[1:] * x[:-1]", "x[::-1]", "x[::2]", "x[3] * x", "reshape(x, (2, 3)).T", "sum(reshape(x, (2, 3)), axis=0)",
    "max(reshape(x, (2, 3)), axis=1)", "cumsum(x)", "cumsum(reshape(x, (2, 3)), axis=0)",
    "concat([x[4:], x[:2], x[4:]])",
    "stack([x[:3], x[3:]], axis=1)", "reshape(x, (2, 3)) @ reshape(x, (3, 2))", "x[:3] @ x[3:]",
    "reshape(x, (2, 3)) @ x[:3]", "where(x > 0, x, 2 * x[0])", "floor(x) * x[1] + sign(x[2])",
    "stop_gradient(x) * x[0]", "maximum(x, x[2])", "softmax(reshape(x, (3, 2)), axis=1)", "x[2:4] % x[4:]",
    "astype(astype(x, i32), f64) * x[5]", "astype(astype(x, f32), f64)", "broadcast_to(x[1], (3,)) + x[:3]",
    "x[0:0]", "sum(x[0:0]) + x", "permute_dims(reshape(x, (1, 2, 3)), (2, 0, 1))", "x @ reshape(x, (6, 1))",
])
def test_a_pattern_is_where_the_dense_matrix_is_not_zero(body: str) -> None:
    graph = slpc.parse(f"def f(x: f64[6]):\n    return {body}\n")
    J = slpc.jacobian(graph, sparse=True)
    x = np.random.default_rng(0).normal(size=6) + 3
    wanted = dense_jacobian(graph, J, x)
    full = sum((dense_jacobian(graph, J, point) != 0 for point in (x, x[::-1], -x)), np.zeros(J.shape, int)) > 0
    np.testing.assert_array_equal(J.pattern.toarray(), full)
    np.testing.assert_allclose(J(x).toarray(), wanted, rtol=1e-13)


def test_an_index_may_be_any() -> None:
    graph = slpc.parse("def f(x: f64[4, 2], *, i: i64[3]):\n    return x[i]\n")
    J = slpc.jacobian(graph, sparse=True)
    assert J.pattern.toarray().tolist() == [[r % 2 == c % 2 for c in range(8)] for r in range(6)]
    x, i = np.arange(8.0).reshape(4, 2), np.array([3, 0, -4])
    np.testing.assert_array_equal(J(x, i).toarray(), dense_jacobian(graph, J, x, i))


SPRINGS = """
def energy(x: f64[9, 2], *, ends: i64[12, 2], stiffness: f64 = 2.0):
    d = x[ends[:, 0]] - x[ends[:, 1]]
    return stiffness * sum((sqrt(sum(d * d, axis=1)) - 1) ** 2)
"""


def test_indices_that_are_given_as_data() -> None:
    """Nine points in a square, a spring along each side: only points with a spring between them interact."""
    graph = slpc.parse(SPRINGS)
    grid = np.arange(9).reshape(3, 3)
    ends = np.concatenate([np.stack([grid[1:], grid[:-1]], -1).reshape(-1, 2),
                           np.stack([grid[:, 1:], grid[:, :-1]], -1).reshape(-1, 2)])
    H = slpc.hessian(graph, sparse=True, data={"ends": ends})
    joined_points = np.eye(9, dtype=bool)
    joined_points[ends[:, 0], ends[:, 1]] = joined_points[ends[:, 1], ends[:, 0]] = True
    np.testing.assert_array_equal(H.pattern.toarray(), np.kron(joined_points, np.ones((2, 2), bool)))
    x = np.random.default_rng(0).normal(size=(9, 2))
    assert H.colours < 18
    for stiffness in (2.0, 3.0):
        wanted = dense_hessian(graph, H, x=x, ends=ends, stiffness=stiffness)
        assert_close(H(x, stiffness=stiffness).toarray(), wanted)
    whole = slpc.hessian(graph, sparse=True)
    assert whole.pattern.nnz == 18 * 18
    assert_close(whole(x, ends).toarray(), dense_hessian(graph, H, x=x, ends=ends))
    fixed = slpc.hessian(graph, data={"ends": ends})
    np.testing.assert_array_equal(fixed(x)["x"]["x"], slpc.hessian(graph)(x, ends)["x"]["x"])


def test_a_scatter_of_known_indices() -> None:
    graph = slpc.parse("def f(x: f64[4], s: f64, *, i: i64[4], w: f64[3]):\n"
                       "    return sum(w * x[1:] * x[:-1]) + s * x[i[2]]\n")
    gradient = slpc.adjoint(graph, wrt=["x", "s"])
    J = slpc.jacobian(gradient, wrt=["x", "s"], sparse=True, data={"i": np.array([0, 0, -4, 0])})
    band = np.eye(4, k=1) + np.eye(4, k=-1)
    first = [True, False, False, False]
    full = J.pattern.toarray()
    np.testing.assert_array_equal(full[J.rows["x_bar"], J.columns["x"]], band > 0)
    np.testing.assert_array_equal(full[J.rows["s_bar"], J.columns["x"]], [first])
    np.testing.assert_array_equal(full[J.rows["x_bar"], J.columns["s"]].ravel(), first)


def test_masks_of_the_program_are_known() -> None:
    """A causal mask: the rows of a triangle."""
    graph = slpc.parse("def f(x: f64[4, 4]):\n    i = arange(4)\n"
                       "    return sum(where(i[:, None] >= i[None, :], x, 0.0), axis=1)\n")
    J = slpc.jacobian(graph, sparse=True)
    wanted = [[r == c // 4 and c % 4 <= r for c in range(16)] for r in range(4)]
    assert J.pattern.toarray().tolist() == wanted
    np.testing.assert_array_equal(J(np.ones((4, 4))).toarray(), wanted)


def test_strips_join() -> None:
    """More inputs than one strip has: a band across the joint, and a row that reads all."""
    n = 2 * STRIP + 3
    graph = slpc.parse(f"def f(x: f64[{n}]):\n    return x[1:] * x[:-1], sum(x)\n")
    found = pattern(graph, graph.inputs, graph.outputs)
    rows = np.concatenate([np.repeat(np.arange(n - 1), 2), np.full(n, n - 1)])
    columns = np.concatenate([np.stack([np.arange(n - 1), np.arange(1, n)], 1).ravel(), np.arange(n)])
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.columns, columns)
    assert found.shape == (n, n)


@examples(30)
@given(programs(dtype="f64", most=25))
def test_random_programs(program: Program) -> None:
    """Values are the dense ones, entries that are left out are zero, whether indices are known or not."""
    graph = slpc.parse(program.text)
    scalar = next((v.name for v in graph.outputs if not v.shape), None)
    for data in ({}, {k: program.inputs[k] for k in ("i", "k")}):
        others = {k: x for k, x in program.inputs.items() if k not in data}
        J = slpc.jacobian(graph, sparse=True, data=data)
        assert_close(J(**others).toarray(), dense_jacobian(graph, J, **program.inputs))
        if scalar is not None:
            H = slpc.hessian(graph, sparse=True, of=scalar, data=data)
            wanted = joined(slpc.hessian(graph, of=scalar)(**program.inputs), H.rows, H.columns)
            assert_close(H(**others).toarray(), wanted)


def assert_close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11 * np.max(np.abs(wanted), initial=1.0))


# Colourings ------------------------------------------------------------------------------------------------------

def random_pattern(rows: int, columns: int, density: float, seed: int, symmetric: bool = False) -> Pattern:
    full = np.random.default_rng(seed).random((rows, columns)) < density
    if symmetric:
        full |= full.T
    return Pattern(*np.nonzero(full), full.shape)


@pytest.mark.parametrize("seed", range(20))
def test_columns_of_a_colour_meet_in_no_row(seed: int) -> None:
    found = random_pattern(12, 15, 0.03 * (seed % 7), seed)
    near = neighbours(found.columns, found.rows, 15)
    colours = distance_2(near)
    for v, w in combinations(range(15), 2):
        assert colours[v] != colours[w] or not set(near[v]) & set(near[w])
    assert [c == NONE for c in colours] == [not rows for rows in near]


@pytest.mark.parametrize("seed", range(40))
def test_star_colourings(seed: int) -> None:
    """The definition: neighbours differ, and no path of four vertices has two colours."""
    n = 12
    found = random_pattern(n, n, 0.02 * (seed % 12), seed, symmetric=True)
    near = [[w for w in each if w != v] for v, each in enumerate(neighbours(found.rows, found.columns, n))]
    colours = star(found)
    for b in range(n):
        for c in near[b]:
            assert colours[b] != colours[c]
            for a in near[b]:
                for d in near[c]:
                    if len({a, b, c, d}) == 4:
                        assert len({colours[a], colours[b], colours[c], colours[d]}) > 2


@pytest.mark.parametrize("seed", range(20))
def test_a_split_computes_every_entry_once(seed: int) -> None:
    found = random_pattern(14, 11, 0.15, seed)
    full = np.zeros(found.shape, bool)
    full[found.rows, found.columns] = True
    full[seed % 14] = True
    found = Pattern(*np.nonzero(full), full.shape)
    blocks = [5, 0, 9]
    made = split(found, blocks)
    assert made.sweeps <= 11
    rows, columns = np.array(made.rows), np.array(made.columns)
    output = np.repeat(range(3), blocks)
    for r, c in zip(found.rows, found.columns):
        if rows[r] == NONE:
            assert columns[c] != NONE and (full[r] & (columns == columns[c])).sum() == 1
        else:
            assert (full[:, c] & (rows == rows[r])).sum() == 1
            assert set(output[rows == rows[r]]) == {output[r]}


@pytest.mark.parametrize(("text", "forward", "reverse"), [(BANDED, 3, 0), (ARROW, 2, 1)])
def test_fewest_sweeps_of_jacobians(text: str, forward: int, reverse: int) -> None:
    J = slpc.jacobian(program(text, 40), sparse=True)
    assert (J.forward, J.reverse, J.colours) == (forward, reverse, forward + reverse)


@pytest.mark.parametrize(("text", "colours"), [(CHAIN, 3), (HUB, 2), ("def f(x: f64[n]):\n    return sum(exp(x))\n", 1),
                                                ("def f(x: f64[n]):\n    return sum(x)\n", 0)])
def test_fewest_products_of_hessians(text: str, colours: int) -> None:
    H = slpc.hessian(program(text, 40), sparse=True)
    assert H.colours == colours
    assert H(np.ones(40)).shape == (40, 40)


# Values ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", [BANDED, ARROW])
def test_jacobians_against_dense_ones_and_differences(text: str, backend: str) -> None:
    graph = program(text, 12)
    x = np.linspace(-1, 1.5, 12)
    J = slpc.jacobian(graph, sparse=True, backend=backend)
    found = J(x)
    assert isinstance(found, sparse.csr_array) and found.dtype == float and found.has_sorted_indices
    np.testing.assert_allclose(found.toarray(), dense_jacobian(graph, J, x), rtol=1e-12)
    np.testing.assert_allclose(found.toarray(), approx_fprime(x, slpc.compile(graph)), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", [CHAIN, HUB])
def test_hessians_against_dense_ones_and_differences(text: str, backend: str) -> None:
    graph = program(text, 12)
    x = np.linspace(-1, 1.5, 12)
    H = slpc.hessian(graph, sparse=True, backend=backend)
    found = H(x).toarray()
    np.testing.assert_allclose(found, dense_hessian(graph, H, x), rtol=1e-12, atol=1e-12)
    gradient = slpc.compile(graph, grad=True)
    np.testing.assert_allclose(found, approx_fprime(x, lambda x: gradient(x)[1]["x"]), atol=2e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scalars(backend: str) -> None:
    graph = slpc.parse(SCALARS)
    J = slpc.jacobian(graph, sparse=True, backend=backend)
    assert J.pattern.toarray().astype(int).tolist() == [[1, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0]]
    point = (0.5, -1.0, 2.0, 0.25)
    np.testing.assert_allclose(J(*point).toarray(), dense_jacobian(graph, J, *point), rtol=1e-14)
    H = slpc.hessian(graph, sparse=True, backend=backend)
    assert H.pattern.nnz == 3 and H.colours == 2
    np.testing.assert_allclose(H(*point).toarray(), dense_hessian(graph, H, *point), rtol=1e-14)


def test_many_colours_of_scalars_at_once() -> None:
    names = [f"x{i}" for i in range(24)]
    text = f"def f({', '.join(f'{x}: f64' for x in names)}):\n    return sin({' * '.join(names)})\n"
    graph, point = slpc.parse(text), np.linspace(0.8, 1.2, 24)
    H = slpc.hessian(graph, sparse=True)
    assert H.colours == 24
    np.testing.assert_allclose(H(*point).toarray(), dense_hessian(graph, H, *point), rtol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["kalman", "black_scholes", "bundle_adjustment", "lecture"])
def test_programs(name: str, backend: str) -> None:
    graph = double(name)
    point = sample(graph)
    J = slpc.jacobian(graph, sparse=True, backend=backend)
    assert_close(J(**point).toarray(), dense_jacobian(graph, J, **point))


def test_inputs_that_are_asked_for() -> None:
    graph = slpc.load(PROGRAMS / "rosenbrock.slp")
    H = slpc.hessian(graph, wrt=["y"], sparse=True)
    assert H(x=0.5, y=2.0).toarray().tolist() == [[200.0]]
    J = slpc.jacobian(graph, wrt="x", sparse=True)
    assert J.columns == {"x": slice(0, 1)} and J(0.0).toarray().tolist() == [[-2.0]]  # y by its default


def test_outputs_of_several_dtypes() -> None:
    graph = slpc.parse("def f(x: f32[3]):\n    return x * x, astype(x > 1, i32), astype(x, f64) ** 3, x[0]\n")
    J = slpc.jacobian(graph, sparse=True)
    found = J(np.float32([1, 2, 3]))
    assert found.dtype == np.float64 and list(J.rows) == ["out0", "out2", "out3"]
    wanted = np.vstack([np.diag([2.0, 4, 6]), np.diag([3.0, 12, 27]), [[1, 0, 0]]])
    np.testing.assert_array_equal(found.toarray(), wanted)
    np.testing.assert_array_equal(found[J.rows["out2"], J.columns["x"]].toarray(), wanted[3:6])


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_small_dtypes(dtype: str) -> None:
    graph = slpc.parse(f"def f(x: {dtype}[3]):\n    return x * x\n")
    found = slpc.jacobian(graph, sparse=True)([1, 2, 3])
    assert found.dtype == np.float32 and found.toarray().tolist() == [[2, 0, 0], [0, 4, 0], [0, 0, 6]]


@pytest.mark.parametrize("kind", [{}, {"sparse": True}])
def test_names_of_the_users_own(kind: dict[str, Any]) -> None:
    """A value that is called as a tangent or a cotangent would be."""
    graph = slpc.parse("def f(x: f64[2], x_dot: f64[2]):\n    y_dot = x * x_dot\n    y = y_dot * x[0]\n"
                       "    return y_dot, y\n")
    x, d = np.array([2.0, 3.0]), np.array([5.0, 7.0])
    wanted = np.array([[5, 0, 2, 0], [0, 7, 0, 3], [20, 0, 4, 0], [21, 14, 0, 6]])
    J = slpc.jacobian(graph, **kind)
    found = J(x, d).toarray() if kind else joined(J(x, d), *[{"y_dot": slice(0, 2), "y": slice(2, 4)},
                                                             {"x": slice(0, 2), "x_dot": slice(2, 4)}])
    np.testing.assert_array_equal(found, wanted)
    graph = slpc.parse("def f(x: f64, x_bar: f64, *, x_bar_dot: f64):\n    return x ** 2 * x_bar * x_bar_dot\n")
    H = slpc.hessian(graph, **kind)
    found = H(3.0, 5.0, 7.0)
    found = found.toarray() if kind else joined(found, *[{"x": slice(0, 1), "x_bar": slice(1, 2)}] * 2)
    np.testing.assert_array_equal(found, [[70, 42], [42, 0]])


def test_a_column_does_not_poison_another() -> None:
    """The derivative of sqrt at 0 is infinite; where it is not read, it is not seen."""
    graph = slpc.parse("def f(x: f64[3]):\n    return sqrt(x)\n")
    with np.errstate(divide="ignore"):
        found = slpc.jacobian(graph, sparse=True)(np.array([0.0, 1.0, 4.0])).toarray()
    np.testing.assert_array_equal(found, np.diag([np.inf, 0.5, 0.25]))


def test_entries_are_the_same_at_every_point() -> None:
    H = slpc.hessian(program(HUB, 6), sparse=True)
    zero, other = H(np.zeros(6)), H(np.arange(6.0))
    np.testing.assert_array_equal(zero.indices, other.indices)
    other.indices[:] = 0
    np.testing.assert_array_equal(H.pattern.indices, zero.indices)


# What they are for -----------------------------------------------------------------------------------------------

def test_newton() -> None:
    """Newton's method finds the valley's floor in 200 dimensions, a sparse solve each step."""
    graph = program(CHAIN, 200)
    gradient, H = slpc.compile(graph, grad=True), slpc.hessian(graph, sparse=True)
    x = np.full(200, 1.1)
    for _ in range(30):
        x = x - spsolve(H(x).tocsc(), gradient(x)[1]["x"])
    np.testing.assert_allclose(x, 1, rtol=1e-12)


def test_optimisers_take_them() -> None:
    graph = program(CHAIN, 30)
    f, H = slpc.compile(graph), slpc.hessian(graph, sparse=True)
    found = minimize(**f.scipy() | {"hess": H}, x0=np.full(30, 1.2), method="trust-constr")
    np.testing.assert_allclose(found.x, 1, atol=1e-3)
    residual = program(BANDED, 30)
    J, r = slpc.jacobian(residual, sparse=True), slpc.compile(residual)
    x = np.linspace(-1, 1, 30)
    np.testing.assert_allclose(f.scipy()["hess"](x), H(x).toarray(), rtol=1e-12, atol=1e-12)
    assert least_squares(r, np.full(30, 0.5), jac=J, x_scale="jac").cost < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("text", "derivative"), [(BANDED, slpc.jacobian), (ARROW, slpc.jacobian),
                                                  (CHAIN, slpc.hessian), (HUB, slpc.hessian)])
def test_ten_thousand_variables_within_a_second(text: str, derivative: Any, backend: str) -> None:
    n = 10_000
    made = derivative(program(text, n), sparse=True, backend=backend)
    assert made.colours <= 4
    x = np.linspace(0.1, 1, n)
    made(x)
    start = time.perf_counter()
    found = made(x)
    assert time.perf_counter() - start < 1
    direction = np.cos(np.arange(n))
    if derivative is slpc.jacobian:
        wanted = slpc.compile(slpc.tangent(program(text, n))).flat(x, direction)[-1]
    else:
        wanted = slpc.compile(slpc.hvp(program(text, n))).flat(x, direction)[-1]
    np.testing.assert_allclose(found @ direction, wanted, rtol=1e-9, atol=1e-9)


# Faults ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "code"), [
    (lambda g: slpc.jacobian(g, wrt=["q"], sparse=True), "E0403"), (lambda g: slpc.hessian(g, sparse=True), "E0412"),
    (lambda g: slpc.hessian(g, of="q", sparse=True), "E0403"), (lambda g: slpc.jacobian(g, sparse=True)(), "E0401"),
    (lambda g: slpc.jacobian(g, sparse=True)(np.ones(3)), "E0404"),
    (lambda g: slpc.jacobian(g)(np.ones(2), np.ones(2)), "E0402"),
    (lambda g: slpc.jacobian(g, sparse=True, backend="lvm"), "E0411"),
    (lambda g: slpc.jacobian(g, sparse=True, data={"x": np.ones(2)}), "E0402"),
    (lambda g: slpc.hessian(slpc.parse(SPRINGS), sparse=True, data={"ens": 1}), "E0402"),
    (lambda g: slpc.hessian(slpc.parse(SPRINGS), sparse=True, data={"ends": np.zeros((3, 2), int)}), "E0404"),
    (lambda g: slpc.hessian(slpc.parse(SPRINGS), sparse=True, data={"ends": np.full((12, 2), 9)}), "E0406"),
    (lambda g: slpc.hessian(slpc.parse(SPRINGS), sparse=True, data={"ends": np.ones((12, 2), int)})(
        np.ones((9, 2)), ends=np.ones((12, 2), int)), "E0402"),
    (lambda g: slpc.jacobian(slpc.parse("def f(n: i64):\n    return n\n"), sparse=True), "E0412"),
    (lambda g: slpc.jacobian(slpc.parse("def f(x: f64):\n    return x > 0\n"), sparse=True), "E0412")])
def test_faults(call: Any, code: str) -> None:
    with pytest.raises(slpc.SlpError) as caught:
        call(slpc.parse("def f(x: f64[2]):\n    return 2 * x\n"))
    assert caught.value.code == code


def test_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m == "scipy" or m.startswith("scipy.sparse")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(slpc.SlpError) as caught:
        slpc.hessian(program(CHAIN, 4), sparse=True)
    assert caught.value.code == "E0502" and "slpc[special]" in str(caught.value)

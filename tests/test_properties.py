"""What holds of every program, on random ones: texts read back, passes verify, simplify keeps every bit, derivatives
agree with differences and each other, the gradient costs at most five times the value.

SLPC_EXAMPLES=2000 looks longer, at other programs each time, and makes what it finds small.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from differences import Arrays, close, difference, directions, inner, run, runner
from hypothesis import HealthCheck, Phase, given, settings
from random_programs import Program, programs

from slpc.backends import numpy_backend
from slpc.ir.graph import Graph
from slpc.ir.parse import parse
from slpc.ir.verify import verify
from slpc.passes import cost
from slpc.passes.adjoint import adjoint
from slpc.passes.legalize import legalize
from slpc.passes.simplify import simplify
from slpc.passes.tangent import tangent

LONGER = os.environ.get("SLPC_EXAMPLES", "")
ROOT = Path(__file__).parent.parent


def examples(count: int) -> Any:
    """So many programs, the same ones each time; more, and others, where SLPC_EXAMPLES asks for them."""
    return settings(max_examples=int(LONGER or count), derandomize=not LONGER, deadline=None, database=None,
                    suppress_health_check=list(HealthCheck),
                    phases=tuple(Phase) if LONGER else (Phase.explicit, Phase.generate))


def seeded(graph: Graph, point: Arrays, rng: np.random.Generator) -> Arrays:
    """The point with a random array for each input that a pass added."""
    return point | directions(rng, graph, [v.name for v in graph.inputs if v.name not in point])


def equal_bits(got: Any, want: Any) -> bool:
    """Equal, NaN to NaN, and zeros of one sign."""
    a, b = np.asarray(got), np.asarray(want)
    if a.dtype.kind not in "biu":
        a, b = a.astype(np.float64), b.astype(np.float64)
        if not np.array_equal(np.signbit(a) | np.isnan(a), np.signbit(b) | np.isnan(b)):
            return False
    return np.asarray(got).dtype == np.asarray(want).dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def reads_back(graph: Graph) -> Graph:
    """The graph, verified, if its text is read as an equal graph of the same text."""
    verify(graph)
    text = str(graph)
    again = verify(parse(text))
    assert again == graph
    assert str(again) == text
    return graph


@examples(60)
@given(programs())
def test_text_reads_back_after_every_pass(program: Program) -> None:
    graph = reads_back(parse(program.text))
    reverse = reads_back(adjoint(graph))
    forward = reads_back(tangent(graph))
    for each in (graph, reverse, forward):
        small = reads_back(simplify(each))
        assert str(simplify(small)) == str(small)
        assert [v.name for v in small.outputs] == [v.name for v in each.outputs]
        reads_back(legalize(small, numpy_backend.TARGET))
    reads_back(simplify(tangent(simplify(reverse))))


@examples(60)
@given(programs())
def test_simplify_keeps_every_bit(program: Program) -> None:
    graph = parse(program.text)
    for each in (graph, adjoint(graph), tangent(graph)):
        point = seeded(each, program.inputs, np.random.default_rng(0))
        plain = run(each, point, simplified=False, arrays=True)
        small = run(each, point, simplified=True, arrays=True)
        for value in each.outputs:
            assert equal_bits(small[value.name], plain[value.name]), value


@examples(60)
@given(programs(smooth=True))
def test_derivatives_by_differences(program: Program) -> None:
    """The tangent against differences at two steps, within ten times what the steps differ by: a long program may bend
    too fast for any step."""
    graph = parse(program.text)
    rng = np.random.default_rng(0)
    along = directions(rng, graph, [v.name for v in graph.parameters])
    f = runner(graph)
    coarse, fine = (difference(f, program.inputs, along, h) for h in (1e-3, 2.5e-4))
    found = run(verify(tangent(graph)), program.inputs | {f"{k}_dot": d for k, d in along.items()})
    for value in graph.outputs:
        got, want = found[f"{value.name}_dot"], fine[value.name]
        unsure = 10 * np.max(np.abs(coarse[value.name] - want), initial=0.0)
        scale = 1.0 + np.max(np.abs(want), initial=0.0)
        assert np.max(np.abs(got - want), initial=0.0) <= 1e-6 * scale + unsure, value


@examples(60)
@given(programs(dtype="f64", casts=False))
def test_adjoint_agrees_with_tangent(program: Program) -> None:
    """Along random directions and cotangents, to second order: the tangent of the adjoint is the adjoint of the
    tangent. At kinks as elsewhere."""
    graph = parse(program.text)
    rng = np.random.default_rng(0)
    names = [v.name for v in graph.parameters]
    forward, reverse = verify(tangent(graph)), verify(adjoint(graph))
    point = seeded(forward, seeded(reverse, program.inputs, rng), rng)
    first = graph.outputs[0]
    bar = point.get(f"{first.name}_bar", 1.0)
    dots = run(forward, {k: x for k, x in point.items() if k != f"{first.name}_bar"})
    bars = run(reverse, point)
    parts = [bars[f"{n}_bar"] * point[f"{n}_dot"] for n in names]
    total, bound = sum(map(np.sum, parts)), sum(np.sum(np.abs(p)) for p in parts)
    assert abs(total - inner(bar, dots[f"{first.name}_dot"])) <= 1e-10 * (1 + bound)
    twice = run(verify(tangent(reverse, wrt=names)), point)
    mixed = verify(adjoint(forward, of=f"{first.name}_dot", wrt=names))
    seeds = {v.name: bar for v in mixed.inputs if v.name not in point}
    other = run(mixed, point | seeds)
    for name, output in zip(names, mixed.outputs[-len(names):], strict=True):
        close(other[output.name], twice[f"{name}_bar_dot"], 1e-9, name)


@examples(60)
@given(programs())
def test_gradient_costs_at_most_five_values(program: Program) -> None:
    graph = parse(program.text)
    for value in graph.outputs:
        assert cost.ratio(graph, of=value.name) <= 5


@examples(60)
@given(programs(scalars=True, dtype="f64"))
def test_scalars_points_and_batches_agree(program: Program) -> None:
    """On Python floats, on NumPy's scalars, and on an array of points."""
    graph = adjoint(parse(program.text))
    names = list(program.inputs)
    offsets = np.linspace(-0.01, 0.01, 5)
    points = {n: program.inputs[n] + offsets for n in names}
    batch = run(graph, points, arrays=True)
    for at in range(len(offsets)):
        point = {n: float(points[n][at]) for n in names}
        floats = run(graph, point)
        scalars = run(graph, {n: np.float64(x) for n, x in point.items()}, arrays=True)
        for name, value in floats.items():
            close(value, scalars[name], 1e-9, name)
            close(batch[name][at], scalars[name], 1e-9, name)
            assert np.shape(batch[name]) == (5,)
            batch[name][at] = 0.0  # the caller's own


@examples(40)
@given(programs())
def test_results_have_the_dtypes_that_the_program_says(program: Program) -> None:
    graph = parse(program.text)
    for each in (graph, adjoint(graph)):
        found = run(each, seeded(each, program.inputs, np.random.default_rng(0)))
        for value in each.outputs:
            got = np.asarray(found[value.name])
            assert (got.dtype, got.shape) == (value.dtype.numpy, value.shape)
            assert np.isfinite(got.astype(np.float64)).all()


TEXT_OF = """
import sys
sys.path.insert(0, {tests!r})
from hypothesis import given, settings
from random_programs import programs
from slpc.backends import numpy_backend
from slpc.ir.parse import parse
from slpc.passes.adjoint import adjoint
from slpc.passes.simplify import simplify
from slpc.passes.tangent import tangent

for path in {paths!r}:
    graph = parse(open(path).read())
    both = simplify(tangent(simplify(adjoint(graph)), wrt=[v.name for v in graph.parameters]))
    print(graph, both, numpy_backend.emit(both))
"""


def test_text_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    texts: list[str] = []

    @settings(max_examples=5, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(programs(dtype="f64"))
    def collect(program: Program) -> None:
        texts.append(program.text)

    collect()
    paths = [str(ROOT / "programs" / f"{name}.slp") for name in ("mlp", "lstm", "bundle_adjustment")]
    for at, text in enumerate(texts):
        paths.append(str(tmp_path / f"{at}.slp"))
        Path(paths[-1]).write_text(text, "utf-8")
    script = TEXT_OF.format(tests=str(ROOT / "tests"), paths=paths)
    found = [subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT,
                            env=os.environ | {"PYTHONHASHSEED": seed}).stdout for seed in ("1", "4242")]
    assert found[0] == found[1]
    assert len(found[0]) > 10_000


@pytest.mark.parametrize("path", sorted((ROOT / "programs").glob("*.slp")), ids=lambda p: p.stem)
def test_gradient_of_programs_costs_at_most_five_values(path: Path) -> None:
    graph = parse(path.read_text("utf-8"))
    for value in graph.outputs:
        if value.dtype.is_float:
            assert cost.ratio(graph, of=value.name) <= 5, value

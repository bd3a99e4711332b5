"""Block sizes chosen with the plan: for the caches where memory is free, smaller where a region is at the peak."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy
import pytest
from layers import LAYERS

import slpc
from slpc import function, measuring, plan_report, planning, reasons, samples
from slpc.backends.numpy_backend import TARGET
from slpc.ir.graph import Graph
from slpc.ir.parse import parse
from slpc.passes.block_sizes import BlockSizes
from slpc.passes.blocks import choices
from slpc.passes.checkpoint import Plan
from slpc.passes.legalize import legalize

PROGRAMS = Path(__file__).parent.parent / "programs"


def gradient(rows: str = "", T: int = 384) -> Graph:
    return slpc.adjoint(parse(LAYERS.format(rows=rows), T=T))


def test_smaller_where_a_region_is_at_the_peak() -> None:
    plan = planning.plan(gradient(), recompute_budget=0.0, effort="quick")
    _, backward = plan.blocks
    assert backward.smaller and backward.workspace < backward.suited_workspace
    step = plan.lives.peak_step
    assert plan.tasks.nodes[plan.order[step]].op.name == "region"
    larger = planning.plan(gradient("rows=384"), recompute_budget=0.0, effort="quick")
    assert plan.peak_bytes <= larger.peak_bytes - 0.5 * (backward.suited_workspace - backward.workspace)
    assert "would suit the caches" in plan_report.blocking(backward)
    assert f"by {backward.size[-1]} rows" in reasons.reason(plan, backward.region).blocks


def test_for_the_caches_where_memory_is_free() -> None:
    plan = planning.plan(gradient(), memory="1GiB", effort="quick")
    assert plan.blocks and not any(b.smaller for b in plan.blocks)
    assert plan.recompute_flops == 0
    assert "suits the caches" in plan_report.blocking(plan.blocks[0])


def test_a_limit_between_takes_blocks_between() -> None:
    """As large as the limit lets them be, and what is computed again does not grow for it."""
    graph = gradient(T=256)
    tight = planning.plan(graph, recompute_budget=0.0, effort="quick")
    free = planning.plan(graph, memory="1GiB", effort="quick")
    limit = (tight.peak_bytes + free.peak_bytes) // 2
    between = planning.plan(graph, memory=limit, effort="quick")
    assert tight.peak_bytes < between.peak_bytes <= limit < free.peak_bytes
    assert between.recompute_flops == 0
    sizes = [max(b.workspace for b in plan.blocks) for plan in (tight, between, free)]
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("budget", [0.0, 0.2, 1.0])
def test_predicted_is_measured(budget: float) -> None:
    plan = planning.plan(gradient(), recompute_budget=budget, effort="quick")
    measured = measuring.peak_bytes(plan)
    assert abs(measured - plan.peak_bytes) <= max(0.01 * plan.peak_bytes, 65536)
    assert plan.lower_bound_bytes <= plan.lives.peak <= plan.peak_bytes
    assert plan.recompute_fraction <= budget


def values(graph: Graph) -> list[bytes]:
    run = function.build(graph, values=len(graph.outputs))
    return [numpy.asarray(x).tobytes() for x in run.flat(**samples.draw(graph, 1))]


def test_a_plan_has_the_bits_of_the_program_with_the_same_blocks() -> None:
    """Whatever is computed again, and in whatever order."""
    graph = legalize(gradient(), TARGET)
    plan = planning.plan(graph, recompute_budget=1.0, effort="quick")
    assert plan.recompute_flops and any(b.smaller for b in plan.blocks)
    assert values(plan.graph) == values(plan.tasks.graph)
    assert values(parse(str(plan.graph))) == values(plan.graph)


def test_what_a_person_wrote_is_left() -> None:
    plan = planning.plan(gradient("rows=100"), recompute_budget=0.0, effort="quick")
    assert plan.blocks == ()
    assert {body.rows for body in plan.graph.regions()} == {(100,)}


def test_choices_go_down_by_halves() -> None:
    graph = legalize(gradient(T=2000), TARGET)
    for body in graph.regions():
        sizes = choices(body, TARGET)
        assert len(sizes) > 1
        assert all(small[0] < large[0] for large, small in pairwise(sizes))
        assert sizes[-1][0] >= 32
    own = BlockSizes(graph, replace(TARGET, regions=False))
    assert own.run_by == {}


def test_more_budget_has_no_more_memory() -> None:
    plans: list[Plan] = planning.curve(gradient(), (0, 0.1, 0.3, 1), effort="quick")
    peaks = [plan.lives.peak for plan in plans]
    assert peaks == sorted(peaks, reverse=True)


def plans(**limits: object) -> Plan:
    """Of the transformer, two layers of 64: small, but its scores and hidden layer are worth a region."""
    graph = slpc.load(PROGRAMS / "transformer.slp", T=256, d=64, L=2, H=2, B=1, V=512)
    return planning.fused_plan(lambda fused: slpc.adjoint(graph, fused=fused), True, effort="quick", backend="numpy",
                               device="cpu", **limits)


def test_regions_that_cost_time_are_taken_where_memory_decides() -> None:
    """The hidden layer of the MLP as well, in less memory than the plan without; where memory is free, it is stored."""
    tight, free = plans(recompute_budget=0.0), plans(memory="1GiB")
    assert "more than pay in time" in tight.regions and free.regions == ""
    assert len(list(tight.graph.regions())) > len(list(free.graph.regions()))
    assert tight.peak_bytes < 0.8 * free.peak_bytes
    assert abs(measuring.peak_bytes(tight) - tight.peak_bytes) <= max(0.01 * tight.peak_bytes, 65536)
    between = plans(memory=tight.peak_bytes + 65536)
    assert between.peak_bytes <= tight.peak_bytes + 65536


def test_a_network_takes_its_samples_in_blocks_where_memory_decides() -> None:
    """Nothing is computed again, and what is alive is one block's activations and the gradients."""
    graph = slpc.parse("""
def loss(W: f32[4, 64, 64] = normal(0, 0.1), w: f32[64] = normal(0, 0.1), *, X: f32[2048, 64] = normal(0, 1),
         Y: f32[2048] = normal(0, 1)):
    for l in range(4):
        X = sigmoid(X @ W[l])
    return sum((X @ w - Y) ** 2)
""")
    plan = planning.fused_plan(lambda fused: slpc.adjoint(graph, fused=fused), True, recompute_budget=0.0,
                               effort="quick", backend="numpy", device="cpu")
    assert plan.regions and plan.recompute_flops == plan.region_flops == 0
    hidden = 2048 * 64 * 4
    assert plan.peak_bytes < 2 * hidden
    f = slpc.compile(graph, grad=True, recompute_budget=0)
    g = slpc.compile(graph, grad=True, fuse=False)
    inputs = samples.draw(graph, 0)
    for x, y in zip(f.flat(**inputs), g.flat(**inputs), strict=True):
        numpy.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-4)

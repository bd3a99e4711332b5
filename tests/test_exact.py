"""Exact plans: what a search over all states finds, and contraction keeps the optimum."""

from __future__ import annotations

import pytest
from planning_instances import instance, names
from planning_oracle import least_peak, random_tasks

from slpc.passes.contract import contract
from slpc.passes.exact import exact
from slpc.passes.liveness import lives
from slpc.passes.tasks import Tasks


def repeated(tasks: Tasks, order: tuple[int, ...]) -> int:
    return sum(tasks.flops[t] for t in order) - sum(tasks.flops)


@pytest.mark.parametrize("seed", range(12))
def test_the_least_peak_of_small_graphs(seed: int) -> None:
    tasks = random_tasks(seed, 7)
    for budget in (0, 0.3, 1):
        plan = exact(tasks, budget, effort="proof")
        assert plan.peak == least_peak(tasks, budget) == lives(tasks, plan.order).peak
        assert plan.bound <= plan.peak and repeated(tasks, plan.order) <= budget * tasks.forward_flops


@pytest.mark.parametrize("seed", [36, 542, 715, *range(1000, 1040)])
def test_contraction_keeps_the_least_peak(seed: int) -> None:
    tasks = random_tasks(seed, 7)
    contracted = contract(tasks)
    for budget in (0, 0.3, 1):
        assert least_peak(contracted.tasks, budget) == least_peak(tasks, budget)
    order = contracted.tasks.order
    assert lives(tasks, contracted.expand(order)).peak == lives(contracted.tasks, order).peak


@pytest.mark.parametrize("name", names())
def test_an_instance_is_small_and_its_contraction_is_smaller(name: str) -> None:
    tasks = instance(name)
    contracted = contract(tasks)
    assert len(contracted.tasks.nodes) <= len(tasks.nodes) <= 100
    order = contracted.expand(contracted.tasks.order)
    assert sorted(order) == list(tasks.order)
    assert contracted.contract(order) == contracted.tasks.order


def test_a_hint_is_never_made_worse_and_the_same_plan_comes_twice() -> None:
    tasks = instance("forward")
    first = exact(tasks, 0, effort="quick", hint=tasks.order)
    assert first.peak <= lives(tasks, tasks.order).peak
    assert first == exact(tasks, 0, effort="quick", hint=tasks.order)

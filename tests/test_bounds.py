"""Lower bounds: never above a schedule that a search over all states finds, and equal to it where it should be."""

from __future__ import annotations

import pytest
from planning_oracle import least_peak, made, random_tasks

from slpc.passes.bounds import largest_working_set, last_output, lower_bound, lower_bounds
from slpc.passes.liveness import lives

BUDGETS = (0, 0.1, 0.3, 1)


@pytest.mark.parametrize("seed", range(24))
def test_no_schedule_is_below_the_bound(seed: int) -> None:
    tasks = random_tasks(seed, 7)
    least = [least_peak(tasks, budget) for budget in BUDGETS]
    bounds = lower_bounds(tasks, BUDGETS, "proof")
    assert all(bound.bytes <= peak for bound, peak in zip(bounds, least, strict=True))


def test_most_small_graphs_are_proven() -> None:
    cases = [(random_tasks(seed, 6), budget) for seed in range(12) for budget in (0, 0.5)]
    met = sum(lower_bound(tasks, budget, "proof").bytes == least_peak(tasks, budget) for tasks, budget in cases)
    assert met >= 0.8 * len(cases)


def test_the_working_set_counts_memory_that_is_taken_over_once() -> None:
    tasks = made([[], [0], [1]], [[0], [1], [2]], [8, 8, 8], [1, 1, 1], {2}, [[], [(0, 1, 0)], []], [0, 0, 5])
    assert largest_working_set(tasks).bytes == 8 + 8 + 5
    assert largest_working_set(tasks).tasks == (2,)
    assert lives(tasks, (0, 1, 2)).peak == 21


def test_the_last_output_stands_beside_the_others() -> None:
    # Four outputs of 10 bytes, each made from a value of its own of 3 to 6 bytes: the last costs at least 3.
    tasks = made([[], [0], [], [2], [], [4], [], [6]], [[0], [1], [2], [3], [4], [5], [6], [7]],
                 [3, 10, 4, 10, 5, 10, 6, 10], [1] * 8, {1, 3, 5, 7})
    assert last_output(tasks).bytes == 40 + 3 == lives(tasks, (6, 7, 4, 5, 2, 3, 0, 1)).peak


def test_a_chain_of_values_that_are_all_needed_again() -> None:
    # x0 -> x1 -> x2 -> x3 -> y3 -> y2 -> y1, y_k reads x_k and y_(k+1): at budget 0 all of x stand beside y3.
    reads = [[], [0], [1], [2], [3, 2], [4, 1], [5, 0]]
    tasks = made(reads, [[i] for i in range(7)], [1] * 7, [1] * 7, {6}, forward=[True] * 4 + [False] * 3)
    assert lower_bound(tasks, 0).bytes == least_peak(tasks, 0) == 5
    assert lower_bound(tasks, 1, "proof").bytes == least_peak(tasks, 1)


def test_more_budget_never_has_the_larger_bound() -> None:
    for seed in range(6):
        bounds = [bound.bytes for bound in lower_bounds(random_tasks(seed, 12), BUDGETS, "quick")]
        assert bounds == sorted(bounds, reverse=True)


def test_the_same_bound_twice_and_enough_ends_the_search() -> None:
    tasks = random_tasks(3, 12)
    assert lower_bound(tasks, 0.25) == lower_bound(tasks, 0.25)
    assert lower_bound(tasks, 0.25, enough=1).bytes >= 1


def test_without_scipy_the_bound_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import slpc.passes.bounds as bounds

    monkeypatch.setattr(bounds, "find_spec", lambda name: None)
    bound = lower_bound(random_tasks(0), 0)
    assert "pip install 'slpc[plan]'" in bound.hint and bound.bytes > 0


def test_no_operation_needs_nothing() -> None:
    assert lower_bound(made([], [], [], [], set()), 0).bytes == 0


def test_a_long_scalar_program_is_bounded_in_linear_time() -> None:
    count = 100_000
    tasks = made([[t - 1] if t else [] for t in range(count)], [[t] for t in range(count)], [8] * count, [1] * count,
                 {count - 1})
    assert lower_bound(tasks, 0).bytes == 16

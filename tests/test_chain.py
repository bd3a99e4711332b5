"""The programme over a chain against the solver: on chains both find the least peak, at every budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning_solver import exact

from slpc.backends.numpy_backend import TARGET
from slpc.ir.parse import parse
from slpc.passes.adjoint import adjoint
from slpc.passes.bounds import allowed_flops
from slpc.passes.chain import Programme
from slpc.passes.legalize import legalize
from slpc.passes.liveness import lives
from slpc.passes.segments import chains
from slpc.passes.simplify import simplify
from slpc.passes.tasks import Tasks, tasks

FOLDER = Path(__file__).parent / "planning" / "chains"
LOSS = 8
"""Bytes of the loss itself, which the programme makes where the forward pass ends, and others perhaps at the end."""


def chain(name: str, **constants: int) -> Tasks:
    """Value and gradient of a chain."""
    path = FOLDER / f"{name}.slp"
    graph = simplify(adjoint(parse(path.read_text(), str(path), None, **constants)))
    return tasks(legalize(graph, TARGET), TARGET)


CASES = {
    "six equal layers": ("equal", dict(L=6), (0, 0.1, 0.2, 0.25, 0.35, 0.5, 1, 2)),
    "eight equal layers": ("equal", dict(L=8), (0, 0.1, 0.25, 2)),
    "ten equal layers": ("equal", dict(L=10), (0, 0.1, 1)),
    "six different layers": ("widths", {}, (0, 0.1, 0.25, 0.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_programme_and_the_solver_agree_on_chains(case: str) -> None:
    name, constants, budgets = CASES[case]
    seen = chain(name, **constants)
    keep_all = lives(seen, seen.order).peak
    programmes = [Programme(made, 2 * keep_all) for made in chains(seen)]
    for budget in budgets:
        allowed = allowed_flops(seen, budget)
        orders = [p.cheapest(p.forward_flops + allowed) for p in programmes]
        found = [order for order in orders if order is not None]
        assert found, budget
        assert all(sum(seen.flops[t] for t in order) - sum(seen.flops) <= allowed for order in found)
        peak = min(lives(seen, order).peak for order in found)
        solved = exact(seen, budget, hint=min(found, key=lambda order: lives(seen, order).peak))
        assert solved.proven, budget
        assert solved.peak <= peak <= solved.peak + LOSS, budget

"""Memory plans from Python: which values to keep, which to compute again and when, in what order to run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import api, units
from .function import target_of
from .ir.diagnostics import Diagnostic, Fault, SlpError, near
from .passes import checkpoint
from .passes.checkpoint import Plan
from .passes.legalize import legalize
from .passes.liveness import lives
from .passes.tasks import tasks


def plan(program: api.Source, /, *, recompute_budget: float | str | None = None, memory: int | str | None = None,
         keep: str | None = None, policy: str | None = None, effort: str = "default",
         backend: str = "numpy", device: str = "cpu") -> Plan:
    """The plan of least peak memory for a program, as it stands: give it `slpc.adjoint(...)` to plan a gradient.

    At most one of: `recompute_budget`, flops that may be spent again as a fraction of the forward program's (0 unless
    said); `memory`, bytes or a text such as "64MB", into which the plan of least recomputation must fit; `keep`, a
    pattern of names of forward values to keep, all others being computed again; `policy`, a textbook choice. `effort`
    is "quick", "default" or "proof", and counts work, not seconds.

    A Plan has `peak_bytes`, `lower_bound_bytes`, `gap`, `recompute_fraction`, `kept`, `timeline`, `graph` (the program
    that runs) and more. SlpError E0602 to E0606 for what cannot be met or read.
    """
    graph = api.graph_of(program)
    given = [name for name, option in (("recompute_budget", recompute_budget), ("memory", memory), ("keep", keep),
                                       ("policy", policy)) if option is not None]
    if len(given) > 1:
        raise SlpError(Diagnostic("E0602", f"{' and '.join(given)} are given; a plan has one aim", "give one of them"))
    with api.placed(graph.file):
        limit = units.size(memory) if isinstance(memory, str) else memory
        return checkpoint.plan(graph, target_of(backend, device), recompute_budget=number(recompute_budget),
                               memory_limit=limit, keep=keep, policy=policy, effort=effort)


def curve(program: api.Source, /, budgets: Sequence[float] = (0, 0.05, 0.1, 0.25, 0.5, 1), *, effort: str = "default",
          backend: str = "numpy", device: str = "cpu") -> list[Plan]:
    """A plan for each budget, from the least to the largest. More budget never has more memory."""
    graph = api.graph_of(program)
    with api.placed(graph.file):
        return checkpoint.curve(graph, target_of(backend, device), [float(b) for b in budgets], effort=effort)


def schedule(program: api.Source, order: Sequence[str], /, *, backend: str = "numpy", device: str = "cpu") -> Plan:
    """The plan that runs the operations in this order: names of values, each as often as it is to be computed.

    Views need not be named. The names are those of `to_networkx(program)`. SlpError E0601 where an operation reads what
    is not there or an output is missing, E0608 for a name that is none.
    """
    graph = api.graph_of(program)
    target = target_of(backend, device)
    with api.placed(graph.file):
        seen = tasks(legalize(graph, target), target)
        numbers = {v.name: seen.writer[b] for b, v in enumerate(seen.values)}
        views = {v.name for v in seen.graph.values()}
        chosen = []
        for name in order:
            if name in numbers:
                chosen.append(numbers[name])
            elif name not in views:
                raise Fault("E0608", f"{graph.name} has no operation '{name}'", near(name, numbers))
        for b, output in enumerate(seen.output):
            if output and seen.writer[b] not in chosen:
                raise Fault("E0601", f"the output '{seen.values[b].name}' is not in the order",
                            "every output is computed")
            if output and chosen.count(seen.writer[b]) > 1:
                raise Fault("E0601", f"the output '{seen.values[b].name}' is in the order twice",
                            "an output stays once it is computed")
        lives(seen, chosen)
    return Plan(seen, tuple(chosen), None, None, "given", "default", "given", 0.0)


def to_networkx(program: api.Source, /, *, backend: str = "numpy", device: str = "cpu") -> Any:
    """The program as a `networkx.DiGraph` for other planners: `Graph.to_networkx` of what the backend runs, with bytes
    as padded in its arena and the attributes `workspace`, `in_place` and `forward` (`Tasks.to_networkx`).

    An order of its names is run and counted by `schedule`.
    """
    graph = api.graph_of(program)
    target = target_of(backend, device)
    with api.placed(graph.file):
        return tasks(legalize(graph, target), target).to_networkx()


def number(budget: float | str | None) -> float | None:
    """A budget as a number; SlpError E0602 for what is none."""
    if budget is None:
        return None
    try:
        found = float(budget)
    except (TypeError, ValueError):
        found = math.nan
    if not found >= 0:
        raise SlpError(Diagnostic("E0602", f"a budget of {budget!r} is none",
                                  "it is a fraction of the forward flops: 0, 0.33, 1, inf"))
    return found

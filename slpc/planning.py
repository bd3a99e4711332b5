"""Memory plans from Python: which values to keep, which to compute again and when, in what order to run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from . import api, units
from .function import target_of
from .ir.diagnostics import Diagnostic, Fault, SlpError, near
from .ir.graph import Graph
from .memory import human
from .passes import checkpoint
from .passes.checkpoint import Plan
from .passes.legalize import legalize
from .passes.liveness import lives
from .passes.pipeline import FRUGAL, Fusion
from .passes.tasks import tasks

WORTH = 0.9
"""Regions that cost time are taken where memory is less than this share of what it is without them."""


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


def fused_curve(made: Callable[[Fusion], Graph], fuse: Fusion, budgets: Sequence[float], *, effort: str = "default",
                backend: str = "numpy", device: str = "cpu") -> list[Plan]:
    """`curve` of the program that `made` makes with regions as `fuse` says. If that is true, each budget takes the
    regions of least memory (`passes.pipeline.FRUGAL`); those that cost time only where they spare more than a little.
    """
    curves = [curve(graph, budgets, effort=effort, backend=backend, device=device)
              for graph in _candidates(made, fuse, backend, device)]
    return [_least(plans) for plans in zip(*curves, strict=True)]


def fused_plan(made: Callable[[Fusion], Graph], fuse: Fusion, **limits: Any) -> Plan:
    """`plan` of the program that `made` makes with regions as `fuse` says. If that is true, of least memory within a
    budget, or, with `memory`, of the fewest operations, whatever regions that takes. A policy is of those that pay."""
    graphs = _candidates(made, fuse, limits["backend"], limits["device"])
    if limits.get("policy") is not None or limits.get("keep") is not None:
        return plan(graphs[0], **limits)
    if limits.get("memory") is None:
        return _least([plan(graph, **limits) for graph in graphs])
    found: list[Plan] = []
    reason = "those alone compute more again"
    for graph in graphs:
        try:
            found.append(plan(graph, **limits))
        except SlpError as error:
            if error.code != "E0603" or (graph is graphs[-1] and not found):
                raise
            reason = "those alone do not fit"
    limit = found[0].memory_limit or 0
    best = min(found, key=lambda p: (max(0, p.peak_bytes - limit), sum(p.tasks.flops) + p.recompute_flops))
    first = best is found[0] and not reason.endswith("fit")
    return best if first else replace(best, regions=f"more than pay in time: {reason}")


def _candidates(made: Callable[[Fusion], Graph], fuse: Fusion, backend: str, device: str) -> list[Graph]:
    """The different programs to choose among, what takes the least time first. Where kernels run attention whole, no
    other regions are looked for."""
    fuse = api.fusion(fuse, backend, device)
    ways = FRUGAL if fuse is True else (fuse,)
    graphs = [made(ways[0])]
    for way in ways[1:] if len(graphs[0].nodes) <= checkpoint.LARGE and not graphs[0].scheduled else ():
        graph = made(way)
        if graph not in graphs:
            graphs.append(graph)
    return graphs


def _least(plans: Sequence[Plan]) -> Plan:
    """The plan of least memory, an earlier one unless it takes `WORTH` as much."""
    best = plans[0]
    for other in plans[1:]:
        if other.lives.peak + other.outside_bytes < WORTH * (best.lives.peak + best.outside_bytes):
            best = other
    first = plans[0]
    if best is first:
        return best
    peak = first.lives.peak + first.outside_bytes
    return replace(best, regions=f"more than pay in time: with those alone {human(peak)} would be alive at once")


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

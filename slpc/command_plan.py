"""`slpc plan` and `slpc why`: the least memory for a program and its gradient, and the reasons."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from . import arguments, report
from .ir.diagnostics import Diagnostic, SlpError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .ir.graph import Graph
    from .passes.checkpoint import Plan
    from .passes.pipeline import Fusion

CURVE = (0.0, 0.02, 0.05, 0.1, 0.15, 0.25, 0.33, 0.5, 0.75, 1.0)
"""Budgets of `--curve`."""
OUTLOOK = (0.0, 0.1, 0.33, 1.0)
"""Budgets that are looked at where nothing is said."""


class _Limits(NamedTuple):
    """The options of `_limits`, the backend and its device."""

    budget: str | None
    memory: str | None
    policy: str | None
    keep: str | None
    effort: str
    backend: str
    device: str

    @property
    def one(self) -> bool:
        """Is one plan asked for?"""
        return any(said is not None for said in self[:4])


def _limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a plan may spend, and of which program it is."""
    for option in reversed((
            arguments.limits,
            click.option("--policy", metavar="NAME",
                         help="A choice of the textbook: keep-all, blocks, sqrt, no-square, min-cut."),
            click.option("--keep", metavar="PATTERN", help="Keep the forward values of these names, as 'X*'."),
            arguments.fusion,
            click.option("--forward", is_flag=True, help="Plan the value alone, without its gradient."),
            click.option("--effort", metavar="NAME", default="default", show_default=True,
                         help="How long to look: quick, default or proof."))):
        command = option(command)
    return command


@click.command(epilog="""\b
Examples:
  slpc plan programs/transformer.slp
  slpc plan programs/transformer.slp --budget 0.33 --timeline live.svg
  slpc plan programs/transformer.slp --memory 1MB
  slpc plan programs/mlp.slp --curve --plot curve.svg
  slpc plan programs/mlp.slp --budget 0.2 -o planned.slp && slpc run planned.slp --random 0

Memory is what is alive at once beyond the inputs. A budget is a fraction of the forward pass's flops. The bound holds
for every order of execution that keeps the budget, however it recomputes.
""")
@arguments.program
@_limits
@arguments.derivative
@click.option("--curve", is_flag=True, help="Plans for budgets from 0 to 1.")
@click.option("--plot", metavar="FILE", type=click.Path(), help="Draw the curve, as .svg or .png; implies --curve.")
@click.option("--timeline", metavar="FILE", type=click.Path(), help="Draw the bytes alive at each step.")
@click.option("--measure", is_flag=True, help="Run the plan and say what it took.")
@arguments.backend
@arguments.device
@arguments.output("the plan, as a program,")
@arguments.as_json
def plan(file: str, constants: dict[str, str], budget: str | None, memory: str | None, policy: str | None,
         keep: str | None, fuse: Fusion, forward: bool, effort: str, wrt: list[str] | None, of: str | None,
         curve: bool, plot: str | None, timeline: str | None, measure: bool, backend: str,
         device: str | None, output: str | None, as_json: bool) -> None:
    """Say what memory value and gradient need, where, and what they could need."""
    from . import files, pictures, plan_report
    from .ir.show import show

    given = _Limits(budget, memory, policy, keep, effort, backend, device or "cpu")
    curve = curve or plot is not None
    if curve and given.one:
        raise SlpError(Diagnostic("E0409", "--curve is for all budgets, and one plan is asked for too",
                                  "give one of them"))
    for picture in (plot, timeline):
        if picture is not None:
            pictures.check_format(picture)
    if output is not None:
        files.check_writable(output)
    budgets = CURVE if curve else () if given.one else OUTLOOK
    plans = _plans(_made(file, constants, forward, wrt, of), fuse, given, budgets)
    found = plans[0]
    if output is not None:
        files.write_text(output, show(found.graph, deletions=True))
    if timeline is not None:
        pictures.timeline(found, timeline)
    if plot is not None:
        pictures.curve(plans, plot)
    measured = _measured(found, given) if measure else None
    if as_json:
        rows = [plan_report.as_json(p) for p in plans]
        report.result(json.dumps({"curve": rows} if curve else plan_report.as_json(found, measured)))
        return
    report.result(f"{file}: {report.name(found.tasks.graph.name)} on {backend}{' ' + device if device else ''}")
    if curve:
        plan_report.show_curve(plans)
    else:
        plan_report.show(found, measured)
        if any(p.peak_bytes < found.peak_bytes for p in plans):
            report.result("\n" + report.faint("for so much of the forward pass again, it could be"))
            plan_report.show_outlook(plans)
    if not forward:
        plan_report.show_marks(found)


def _made(file: str, constants: dict[str, str], forward: bool, wrt: list[str] | None,
          of: str | None) -> Callable[[Fusion], Graph]:
    """What makes the program to plan with the regions that it is given: value and gradient, or as it stands with
    `forward` or if it is a saved plan."""
    from . import api

    with report.progress(f"reading {file}"):
        graph = api.load(file, **constants)
        saved = graph.scheduled and wrt is None and of is None
        if forward or saved:
            return lambda fused: api.simplified(graph, fused=fused)
        return lambda fused: api.adjoint(graph, wrt, of, fused=fused)


def _plans(made: Callable[[Fusion], Graph], fuse: Fusion, given: _Limits, budgets: Sequence[float]) -> list[Plan]:
    """A plan for each of the budgets, or else the one that is asked for."""
    from . import planning

    with report.progress("planning; Ctrl-C takes the best so far"):
        if budgets:
            return planning.fused_curve(made, fuse, budgets, effort=given.effort, backend=given.backend,
                                        device=given.device)
        return [planning.fused_plan(made, fuse, recompute_budget=given.budget, memory=given.memory,
                                    policy=given.policy, keep=given.keep, effort=given.effort, backend=given.backend,
                                    device=given.device)]


def _measured(found: Plan, given: _Limits) -> int:
    from . import measuring

    with report.progress("running"):
        return measuring.peak_bytes(found, given.backend, given.device)


@click.command(epilog="""\b
Examples:
  slpc why programs/transformer.slp X_1
  slpc why programs/mlp.slp X_2 --budget 0.2

Without a limit, the plan is the one that computes nothing again. slpc opt FILE -p adjoint,simplify names all values.
""")
@arguments.program
@click.argument("name", metavar="VALUE")
@_limits
@arguments.derivative
@arguments.backend
@arguments.device
@arguments.as_json
def why(file: str, constants: dict[str, str], name: str, budget: str | None, memory: str | None,
        policy: str | None, keep: str | None, fuse: Fusion, forward: bool, effort: str, wrt: list[str] | None,
        of: str | None, backend: str, device: str | None, as_json: bool) -> None:
    """Say of one value whether it is kept or computed again, from where to where, and what else was possible."""
    from . import api, reasons
    from .passes.fuse import refusals

    found, = _plans(_made(file, constants, forward, wrt, of), fuse,
                    _Limits(budget, memory, policy, keep, effort, backend, device or "cpu"), ())
    with api.placed(found.tasks.graph.file):
        stopped = {r.node.result.name: r.reason for r in refusals(api.simplified(api.load(file, **constants)))}
        reason = reasons.reason(found, name, stopped if fuse else {})
    if as_json:
        report.result(json.dumps(reason.as_json()))
    else:
        reason.show()

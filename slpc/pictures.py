"""Pictures of memory plans, drawn by matplotlib: bytes alive over time, and peak against recomputation.

The same plan gives the same file, byte for byte. Colours are those of Okabe and Ito (2008), which people of every
colour vision tell apart.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy

from . import files
from .ir.diagnostics import Diagnostic, SlpError
from .memory import human
from .passes.checkpoint import Plan
from .plan_report import LARGEST, alive_at
from .units import decimal

FORMATS = (".svg", ".png")
COLUMNS = 1500
"""More steps than that are drawn as so many columns, each the fullest of its steps."""
BANDS = 150
"""So many values have a band of their own; the others of their kind share one."""
THIN = 0.01
"""Of the peak: a band below that has no outline."""

KINDS = {"kept": ("#0072b2", "value of the forward pass"), "again": ("#e69f00", "computed again"),
         "backward": ("#56b4e9", "of the backward pass"), "output": ("#009e73", "output: value, gradient"),
         "workspace": ("#999999", "workspace of an operation")}
"""What a band is, from the bottom up: its colour, and its name in the legend."""
PEAK, BOUND, SHADE = "#d55e00", "#000000", "#f3e6c4"
_MARKERS = ("s", "^", "D", "v", "P", "X")


def check_format(path: str) -> None:
    """E0409 for a picture that is neither SVG nor PNG, E0503 where matplotlib is not installed, E0410 where the file
    cannot be written: asked before the plan is made."""
    if Path(path).suffix.lower() not in FORMATS:
        raise SlpError(Diagnostic("E0409", f"{path!r} is no name of a picture", f"it ends in {' or '.join(FORMATS)}"))
    _matplotlib()
    files.check_writable(path)


def timeline(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Bytes alive at each step, stacked by value, the peak marked, and steps shaded that compute something again."""
    figure = _figure()
    from matplotlib.collections import PolyCollection

    axes = figure.add_axes((0.08, 0.12, 0.62, 0.74))
    unit, scale = _unit(plan.lives.peak)
    steps = _columns(plan)
    edges = numpy.array([*steps, len(plan.order)])
    _shade(axes, plan, steps, edges)
    base = numpy.zeros(len(steps))
    bands = _bands(plan, steps)
    for kind, heights in bands:
        line = 0.3 if heights.max() > THIN * plan.lives.peak else 0.0
        axes.add_collection(PolyCollection(_outlines(edges, base / scale, (base + heights) / scale),
                                           facecolor=KINDS[kind][0], edgecolor="white", linewidth=line))
        base += heights
    peak, at = plan.lives.peak, plan.lives.peak_step
    axes.axhline(peak / scale, color=PEAK, linewidth=1, linestyle="--")
    side = "left" if at < 0.1 * len(plan.order) else "right" if at > 0.9 * len(plan.order) else "center"
    axes.annotate("peak", (at + 0.5, peak / scale), xytext=(0, 16), textcoords="offset points", ha=side, va="bottom",
                  color=PEAK, fontsize=11, weight="bold", annotation_clip=False,
                  arrowprops={"arrowstyle": "-|>", "color": PEAK, "linewidth": 2, "shrinkA": 0, "shrinkB": 0})
    if plan.lower_bound_bytes < plan.peak_bytes:
        axes.axhline(plan.lower_bound_bytes / scale, color=BOUND, linewidth=1, linestyle=":")
    axes.set_xlim(0, len(plan.order))
    axes.set_ylim(0, 1.04 * peak / scale)
    axes.set_xlabel("step")
    axes.set_ylabel(f"{unit} alive beyond the inputs")
    _title(figure, plan)
    _legend(figure, plan, {kind for kind, _ in bands})
    _save(figure, path)


def curve(plans: Sequence[Plan], path: str | os.PathLike[str]) -> None:
    """Peak against recomputation: the plans, the lower bound, and the textbook's choices as marks."""
    figure = _figure()
    axes = figure.add_axes((0.08, 0.12, 0.62, 0.74))
    marks = plans[0].marks
    unit, scale = _unit(max([plan.peak_bytes for plan in plans] + [mark.peak_bytes for mark in marks]))
    last = plans[-1].budget or 0.0
    right = max([last] + [1.05 * mark.recompute_fraction for mark in marks])
    bounds = numpy.array([plan.lower_bound_bytes / scale for plan in plans])
    budgets = numpy.array([plan.budget or 0.0 for plan in plans]) * 100
    axes.fill_between(budgets, 0, bounds, step="pre", color="#eeeeee", linewidth=0)
    axes.step(budgets, bounds, where="pre", color=BOUND, linewidth=1, linestyle=":",
              label="lower bound: no order is below")
    spent = numpy.array([plan.recompute_fraction for plan in plans]) * 100
    peaks = numpy.array([plan.peak_bytes / scale for plan in plans])
    axes.step([*spent, 100 * right], _closed(peaks), where="post", color=KINDS["kept"][0], linewidth=2)
    axes.plot(spent, peaks, "o-", color=KINDS["kept"][0], markersize=5, linewidth=0, label="plans of slpc")
    colours = [KINDS["again"][0], KINDS["output"][0], PEAK, "#cc79a7", "#56b4e9", "#999999"]
    for at, mark in enumerate(marks):
        axes.plot([100 * mark.recompute_fraction], [mark.peak_bytes / scale], _MARKERS[at % len(_MARKERS)],
                  color=colours[at % len(colours)], markersize=9, markeredgecolor="black", markeredgewidth=0.6,
                  linestyle="none", label=f"{mark.name}: {human(mark.peak_bytes)}", clip_on=False, zorder=4)
    axes.set_xlim(0, 100 * right or 1)
    axes.set_ylim(0, 1.06 * max([*peaks, *(mark.peak_bytes / scale for mark in marks)]))
    axes.set_xlabel(f"computed again, % of the forward pass's {decimal(plans[0].forward_flops, 'flop')}")
    axes.set_ylabel(f"peak, {unit} beyond the inputs")
    graph = plans[0].tasks.graph
    figure.text(0.08, 0.94, f"{graph.name}: peak memory against recomputation", fontsize=12, weight="bold")
    figure.legend(loc="upper left", bbox_to_anchor=(0.715, 0.88), frameon=False, fontsize=9)
    _save(figure, path)


# Parts of the timeline -----------------------------------------------------------------------------------------

def _columns(plan: Plan) -> list[int]:
    """The steps that are drawn, in order: all of them, or the fullest of each column."""
    count = len(plan.order)
    if count <= COLUMNS:
        return list(range(count))
    alive = plan.timeline
    cuts = [c * count // COLUMNS for c in range(COLUMNS + 1)]
    return [max(range(a, b), key=lambda s: alive[s]) for a, b in pairwise(cuts)]


def _bands(plan: Plan, steps: Sequence[int]) -> list[tuple[str, Any]]:
    """The height of each band at each of the steps, from the bottom up, oldest values first within a kind."""
    tasks, lives = plan.tasks, plan.lives
    seen: set[int] = set()
    kinds = []
    for b in lives.buffer:
        kinds.append("output" if tasks.output[b] else "again" if b in seen
                     else "kept" if tasks.forward[tasks.writer[b]] else "backward")
        seen.add(b)
    sizes = [tasks.bytes[b] * (lives.end[c] - lives.start[c] + 1) for c, b in enumerate(lives.buffer)]
    own = set(sorted(range(len(sizes)), key=lambda c: (-sizes[c], c))[:BANDS])
    at = numpy.array(steps)
    bands = []
    for kind in KINDS:
        rest = numpy.zeros(len(steps))
        for copy, b in enumerate(lives.buffer):
            if kinds[copy] != kind:
                continue
            last = lives.end[copy] - (lives.heir[copy] >= 0)
            height = numpy.where((at >= lives.start[copy]) & (at <= last), tasks.bytes[b], 0)
            if copy in own:
                bands.append((kind, height))
            else:
                rest += height
        bands.append((kind, rest))
    bands[-1] = ("workspace", numpy.array([tasks.workspace[plan.order[s]] for s in steps]))
    return [band for band in bands if band[1].any()]


def _outlines(edges: Any, low: Any, high: Any) -> list[list[tuple[float, float]]]:
    """The polygons between two step functions, where the upper one is above; corners alone, for small files."""
    change = numpy.flatnonzero(numpy.diff(low) != 0) + 1
    change = numpy.union1d(change, numpy.flatnonzero(numpy.diff(high) != 0) + 1)
    cuts = [0, *change.tolist(), len(low)]
    polygons = []
    upper: list[tuple[float, float]] = []
    lower: list[tuple[float, float]] = []
    for a, b in pairwise(cuts):
        if high[a] > low[a]:
            x, right = float(edges[a]), float(edges[b])
            upper += [(x, float(high[a])), (right, float(high[a]))]
            lower += [(x, float(low[a])), (right, float(low[a]))]
        if upper and (high[a] == low[a] or b == len(low)):
            polygons.append(upper + lower[::-1])
            upper, lower = [], []
    return polygons


def _shade(axes: Any, plan: Plan, steps: Sequence[int], edges: Any) -> None:
    """A ground of another colour where a step computes again what has been there before."""
    seen: set[int] = set()
    again = []
    for task in plan.order:
        again.append(task in seen)
        seen.add(task)
    shaded = numpy.array([again[s] for s in steps] + [again[steps[-1]]], dtype=bool)
    axes.fill_between(edges, 0, 1, where=shaded, step="post", transform=axes.get_xaxis_transform(), color=SHADE,
                      linewidth=0)


def _closed(heights: Any) -> Any:
    """With the last value once more, where the last step ends."""
    return numpy.append(heights, heights[-1])


def _title(figure: Any, plan: Plan) -> None:
    names = [plan.policy] if plan.policy else []
    if plan.budget is not None:
        names.append(f"budget {plan.budget:g}")
    if plan.memory_limit is not None:
        names.append(f"limit {human(plan.memory_limit)}")
    said = f"peak {human(plan.peak_bytes)}" + (", proven least" if plan.proven else "")
    figure.text(0.08, 0.94, f"{plan.tasks.graph.name} ({', '.join(names)}): {said}", fontsize=12, weight="bold")


def _legend(figure: Any, plan: Plan, shown: Collection[str]) -> None:
    """Beside the axes: what the colours are, and the largest values alive at the peak."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    step = f"step {plan.lives.peak_step + 1} of {len(plan.order)}"
    handles: list[Any] = [Line2D([], [], color=PEAK, linestyle="--",
                                 label=f"peak, {human(plan.lives.peak)} alive,\n{step}")]
    if plan.lower_bound_bytes < plan.peak_bytes:
        handles.append(Line2D([], [], color=BOUND, linestyle=":", label=f"lower bound {human(plan.lower_bound_bytes)}"))
    handles += [Patch(color=colour, label=label) for kind, (colour, label) in reversed(KINDS.items()) if kind in shown]
    if plan.recompute_flops:
        share = f"{plan.recompute_fraction:.1%} of forward"
        handles.append(Patch(color=SHADE, label=f"steps that compute again\n({share})"))
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.715, 0.88), frameon=False, fontsize=9)
    sizes, names = [], []
    for a in alive_at(plan, plan.lives.peak_step)[:LARGEST]:
        where = f", line {a.value.span.line}" if a.value.span is not None else ""
        sizes.append(human(a.bytes))
        names.append(f"{_shortened(a.name)}{where}")
    style = {"fontsize": 9, "va": "baseline", "linespacing": 1.4}
    figure.text(0.785, 0.12, "\n".join(sizes), ha="right", **style)
    figure.text(0.795, 0.12, "\n".join(["largest at the peak", *names]), **style)


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:15]}..."


# Matplotlib ----------------------------------------------------------------------------------------------------

def _unit(most: int) -> tuple[str, int]:
    """The binary unit in which the largest number has one to four digits, and its bytes."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if most >= scale:
            return unit, scale
    return "bytes", 1


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SlpError(Diagnostic("E0503", "pictures need matplotlib, which is not installed",
                                  "pip install 'slpc[plot]'")) from None
    return matplotlib


def _figure() -> Any:
    _matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(10, 5), dpi=120)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    """The picture as its name ends; no date, no version, no random names in it."""
    kind = Path(path).suffix.lower().lstrip(".")
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with _matplotlib().rc_context({"svg.hashsalt": "slpc"}):
        files.write_whole(path, lambda stream: figure.savefig(
            stream, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None}))

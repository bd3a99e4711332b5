"""`slpc plan` and `slpc why` as a user runs them: fields, errors, pictures, and reasons that are counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import slpc
from slpc import plan_report, reasons
from slpc.backends.numpy_backend import TARGET
from slpc.cli import main
from slpc.ir.diagnostics import Fault
from slpc.passes import checkpoint
from slpc.passes.alternatives import computed_again, held, needed
from slpc.passes.liveness import lives
from slpc.passes.tasks import Tasks, tasks

PROGRAMS = Path(__file__).parent.parent / "programs"
MLP = [str(PROGRAMS / "mlp.slp"), "-D", "d=24", "-D", "m=40"]
FIELDS = {"peak_bytes", "lower_bound_bytes", "gap", "proven", "keep_all_bytes", "recompute_flops", "forward_flops",
          "recompute_fraction", "budget", "kept", "region_flops", "blocks", "seconds", "measured_bytes"}


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def found(*words: str) -> Any:
    result = invoke(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# plan ----------------------------------------------------------------------------------------------------------

def test_fields_hang_together() -> None:
    plan = found("plan", *MLP, "--budget", "0.2", "--effort", "quick")
    assert plan.keys() >= FIELDS
    assert plan["lower_bound_bytes"] <= plan["peak_bytes"] <= plan["keep_all_bytes"]
    assert plan["gap"] == pytest.approx(plan["peak_bytes"] / plan["lower_bound_bytes"] - 1)
    assert plan["recompute_flops"] <= 0.2 * plan["forward_flops"]
    assert plan["recompute_fraction"] == pytest.approx(plan["recompute_flops"] / plan["forward_flops"])
    assert plan["budget"] == 0.2 and plan["measured_bytes"] is None
    assert max(plan["timeline"]) <= plan["peak_bytes"]
    assert plan["timeline"][plan["peak_step"] - 1] == max(plan["timeline"])
    assert sum(a["bytes"] for a in plan["alive_at_peak"]) <= max(plan["timeline"])
    assert {mark["name"] for mark in plan["marks"]} >= {"keep-all", "blocks", "sqrt", "no-square"}


def test_without_workspace_what_is_alive_at_each_step_adds_up() -> None:
    graph = slpc.adjoint(slpc.load(PROGRAMS / "transformer.slp"))
    plan = checkpoint.plan(graph, TARGET, policy="blocks")
    for step, total in enumerate(plan.timeline):
        alive = plan_report.alive_at(plan, step)
        assert sum(a.bytes for a in alive) + plan.tasks.workspace[plan.order[step]] == pytest.approx(total, abs=64)


def test_a_saved_plan_is_a_program_of_the_same_peak(tmp_path: Path) -> None:
    saved = tmp_path / "planned.slp"
    plan = found("plan", *MLP, "--budget", "0.2", "--effort", "quick", "-o", str(saved))
    graph = slpc.load(saved)
    assert graph.scheduled
    assert "    del X_2" in saved.read_text()
    seen = tasks(graph, TARGET)
    assert lives(seen, seen.order).peak == max(plan["timeline"])
    assert invoke("run", str(saved), "--random", "0").exit_code == 0


def test_a_saved_plan_is_planned_as_it_stands(tmp_path: Path) -> None:
    saved = tmp_path / "planned.slp"
    plan = found("plan", *MLP, "--budget", "0.2", "--effort", "quick", "-o", str(saved))
    again = found("plan", str(saved))
    assert again["peak_bytes"] == plan["peak_bytes"] and again["timeline"] == plan["timeline"]
    assert again["forward_flops"] == plan["forward_flops"]


def test_a_saved_plan_that_reads_a_dead_value(tmp_path: Path) -> None:
    """A line moved below the `del` of what it reads."""
    saved = tmp_path / "planned.slp"
    assert invoke("plan", *MLP, "--effort", "quick", "-o", str(saved)).exit_code == 0
    lines = saved.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("    del "))
    lines[at - 1], lines[at] = lines[at], lines[at - 1]
    saved.write_text("\n".join(lines))
    for command in ("plan", "run", "check"):
        result = invoke(command, str(saved))
        assert "error[E0118]" in result.stderr, result.stderr
        assert result.exit_code == 2


def test_measured_is_near_the_plan() -> None:
    plan = found("plan", *MLP, "--policy", "keep-all", "--measure")
    assert plan["measured_bytes"] == pytest.approx(plan["peak_bytes"], abs=max(0.01 * plan["peak_bytes"], 65536))


def test_a_curve_falls() -> None:
    curve = found("plan", *MLP, "--curve", "--effort", "quick")["curve"]
    peaks = [max(plan["timeline"]) for plan in curve]
    assert peaks == sorted(peaks, reverse=True) and len(peaks) == 10


def test_text_says_peak_bound_and_the_largest_values() -> None:
    text = invoke("plan", *MLP, "--budget", "0.2", "--effort", "quick").stdout
    for word in ("peak", "bound", "again", "alive at step", "line 15", "keep-all", "sqrt"):
        assert word in text
    outlook = invoke("plan", *MLP, "--effort", "quick").stdout
    assert "it could be" in outlook
    assert "keep-all  " not in invoke("plan", *MLP, "--forward", "--effort", "quick").stdout


@pytest.mark.parametrize("timeline", [[5], [1, 2, 3], [0, 0], list(range(500)), [9] + [1] * 300])
def test_the_bar_points_at_the_peak(timeline: list[int]) -> None:
    step = timeline.index(max(timeline))
    blocks, pointer = plan_report.bar(timeline, step)
    assert len(blocks) == min(plan_report.WIDTH, len(timeline))
    at = next(i for i, c in enumerate(pointer) if c in "▲^")
    assert at * len(timeline) // len(blocks) <= step < (at + 1) * len(timeline) // len(blocks) + 1
    assert blocks[at] == max(blocks, key=lambda c: (plan_report._BLOCKS + plan_report._LETTERS).index(c))


@pytest.mark.parametrize(("words", "code", "exit_code"), [
    (["--budget", "-1"], "E0602", 2), (["--budget", "nan"], "E0602", 2), (["--budget", "lots"], "E0602", 2),
    (["--memory", "1kB"], "E0603", 3), (["--memory", "lots"], "E0606", 2), (["--memory", "-1MB"], "E0606", 2),
    (["--policy", "sqr"], "E0604", 2), (["--effort", "fast"], "E0604", 2), (["--keep", "Q*"], "E0605", 2),
    (["--budget", "1", "--memory", "1MB"], "E0602", 2), (["--curve", "--budget", "1"], "E0409", 2),
    (["--timeline", "live.jpeg"], "E0409", 2), (["--timeline", "no_such_folder/live.svg"], "E0410", 2),
])
def test_errors(words: list[str], code: str, exit_code: int) -> None:
    result = invoke("plan", *MLP, *words)
    assert f"error[{code}]" in result.stderr, result.stderr
    assert result.exit_code == exit_code


def test_a_limit_that_cannot_be_met_says_the_least() -> None:
    told = invoke("plan", *MLP, "--memory", "1kB").stderr
    least = found("plan", *MLP, "--budget", "inf")
    assert f"{least['lower_bound_bytes']:,}" in told or f"{least['peak_bytes']:,}" in told
    names = {node.result.name for node in slpc.adjoint(slpc.load(MLP[0])).nodes}
    assert any(f"'{name}'" in told for name in names)


# Pictures ------------------------------------------------------------------------------------------------------

def test_pictures_are_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["plan", *MLP, "--effort", "quick"]
    for again in "ab":
        assert invoke(*words, "--plot", str(tmp_path / f"curve_{again}.svg")).exit_code == 0
        assert invoke(*words, "--budget", "0.2", "--timeline", str(tmp_path / f"live_{again}.svg")).exit_code == 0
        assert invoke(*words, "--budget", "0.2", "--timeline", str(tmp_path / f"live_{again}.png")).exit_code == 0
    for kind in ("curve_{}.svg", "live_{}.svg", "live_{}.png"):
        first, second = ((tmp_path / kind.format(again)).read_bytes() for again in "ab")
        assert first == second
    assert (tmp_path / "live_a.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "curve_a.svg").read_bytes()


def test_a_plan_longer_than_the_picture_is_wide_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from slpc import pictures

    graph = slpc.adjoint(slpc.load(PROGRAMS / "mlp.slp", L=250, d=2, m=2))
    plan = checkpoint.plan(graph, TARGET, policy="keep-all")
    assert len(plan.order) > pictures.COLUMNS
    pictures.timeline(plan, tmp_path / "long.png")
    drawn = pictures._bands(plan, pictures._columns(plan))
    assert sum(heights for _, heights in drawn).max() == plan.lives.peak


def test_the_bands_add_up_to_the_bytes_alive() -> None:
    pytest.importorskip("matplotlib")
    from slpc import pictures

    graph = slpc.adjoint(slpc.load(PROGRAMS / "transformer.slp"))
    plan = checkpoint.plan(graph, TARGET, policy="blocks")
    heights = sum(h for _, h in pictures._bands(plan, range(len(plan.order))))
    assert list(heights) == pytest.approx(list(plan.timeline), abs=64)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke("plan", *MLP, "--timeline", str(tmp_path / "live.svg"))
    assert result.exit_code == 4 and "error[E0503]" in result.stderr
    assert "pip install 'slpc[plot]'" in result.stderr


# Ctrl-C --------------------------------------------------------------------------------------------------------

def test_ctrl_c_takes_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second search is interrupted; what the first and the textbook found stays."""
    search, calls = checkpoint.Planner._search, []

    def interrupted(planner: Any, budget: float) -> None:
        calls.append(budget)
        if len(calls) > 1:
            raise KeyboardInterrupt
        search(planner, budget)

    monkeypatch.setattr(checkpoint.Planner, "_search", interrupted)
    plan = found("plan", *MLP, "--budget", "0.5", "--effort", "quick")
    assert len(calls) == 2 and plan["found_by"].endswith("interrupted")
    known = [mark["peak_bytes"] for mark in plan["marks"] if mark["recompute_fraction"] <= 0.5]
    assert max(plan["timeline"]) <= min(known)


# why -----------------------------------------------------------------------------------------------------------

CHAIN = """
n = 100

def f(w: f64[n]):
    a = exp(w)
    b = sin(a)
    c = sin(b)
    d = sin(c)
    return sum(d)
"""


def reads(seen: Tasks, task: int, name: str) -> bool:
    return any(seen.values[b].name == name for b in seen.reads[task])


def test_why_of_a_value_that_is_kept(tmp_path: Path) -> None:
    """a is read by sin forward and by cos on the way back: alive from its step to that, whatever else happens."""
    file = tmp_path / "chain.slp"
    file.write_text(CHAIN, "utf-8")
    reason = found("why", str(file), "a", "--policy", "keep-all")  # the order of the text
    assert reason["fate"] == "kept for the backward pass" and reason["line"] == 5 and reason["bytes"] == 800
    life, = reason["lives"]
    assert life["first"] == 1 and life["reads"] >= 2 and life["at_peak"]
    assert reason["operands"] == ["w"] and reason["flops"] == 1000
    other = reason["alternative"]
    assert other["extra_flops"] == 1000
    assert not found("why", str(file), "a", "--budget", "0")["alternative"]["allowed"]
    seen = tasks(slpc.adjoint(slpc.load(file)), TARGET)
    last = max(step for step in seen.order if reads(seen, step, "a") and not seen.forward[step])
    before = next(step for step in seen.order if reads(seen, step, "a") and not seen.forward[step])
    assert before < last and life["last"] == last + 1
    assert other["peak_bytes"] == lives(seen, [*range(before), 0, *range(before, len(seen.order))]).peak
    assert "kept for the backward pass" in invoke("why", str(file), "a", "--policy", "keep-all").stdout


def test_why_of_a_value_that_is_computed_again(tmp_path: Path) -> None:
    file = tmp_path / "chain.slp"
    file.write_text(CHAIN, "utf-8")
    plan = found("plan", str(file), "--budget", "10")
    graph = slpc.adjoint(slpc.load(file))
    name = next(v.name for v in graph.values() if f"{v.name}_r1" in str(
        checkpoint.plan(graph, TARGET, recompute_budget=10.0).graph))
    reason = found("why", str(file), f"{name}_r1", "--budget", "10")
    assert reason["value"] == name and reason["fate"].startswith("computed again")
    assert [life["name"] for life in reason["lives"]][:2] == [name, f"{name}_r1"]
    assert reason["alternative"]["extra_flops"] < 0
    assert reason["alternative"]["peak_bytes"] >= plan["lower_bound_bytes"]


def test_why_of_what_owns_no_memory() -> None:
    graph = slpc.adjoint(slpc.load(PROGRAMS / "transformer.slp"))
    plan = checkpoint.plan(graph, TARGET, policy="keep-all")
    assert "an input" in reasons.reason(plan, "Wq").fate
    assert "an output" in reasons.reason(plan, "Wq_bar").fate
    view = next(node.result for node in plan.tasks.graph.nodes if node.op.view)
    assert reasons.reason(plan, view.name).fate.startswith("a view of")
    with pytest.raises(Fault) as caught:
        reasons.reason(plan, "Wq_baz")
    assert caught.value.code == "E0608" and "Wq_bar" in caught.value.hint


@pytest.mark.parametrize("policy", ["keep-all", "blocks", "sqrt"])
def test_alternatives_are_orders_that_run(policy: str) -> None:
    """Whatever is changed, `lives` finds all that is read, and the numbers of runs are those that were asked for."""
    graph = slpc.adjoint(slpc.load(PROGRAMS / "mlp.slp"))
    plan = checkpoint.plan(graph, TARGET, policy=policy)
    assert needed(plan.tasks, plan.order) == list(plan.order)
    for copy, b in enumerate(plan.lives.buffer):
        task = plan.tasks.writer[b]
        once = held(plan.tasks, plan.order, task)
        assert once.count(task) == 1 and len(once) <= len(plan.order)
        lives(plan.tasks, once)
        for order in computed_again(plan.tasks, plan.lives, copy):
            assert order.count(task) == plan.order.count(task) + 1
            lives(plan.tasks, order)


@pytest.mark.parametrize(("words", "regions"), [([], True), (["--no-fuse"], False), (["--by-samples"], True)])
def test_regions_are_there_unless_refused(words: list[str], regions: bool) -> None:
    """Whatever the version of click makes of flags that share a parameter."""
    found = invoke("compile", str(PROGRAMS / "attention.slp"), "-D", "T=1024", "--grad", *words)
    assert found.exit_code == 0
    assert ("def run_block" in found.output) == regions

"""Several processes: the gradient of the whole batch, equal on all of them, and what happens when one is gone."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slpc
from slpc import processes
from slpc.ir.collectives import wire_bytes
from slpc.ir.diagnostics import SlpError
from slpc.ir.graph import buffer
from slpc.ir.verify import VerificationError, verify
from slpc.passes import checkpoint
from slpc.passes.parallel import data_parallel
from slpc.passes.update import training_step

ROOT = Path(__file__).parent.parent
TRANSFORMER = str(ROOT / "programs" / "transformer.slp")
SIZES: dict[str, Any] = dict(L=2, d=16, H=2, T=16, V=32, dtype="f64")

WORKER = """
import os, sys, time
import numpy as np
import slpc
rank, mode = int(os.environ["RANK"]), sys.argv[1]
graph = slpc.load({program!r}, B=2, **{sizes!r})
rng = np.random.default_rng(0)
step = slpc.train_step(graph, "adamw", rate=0.01, backend="torch", seed=rank, timeout=8, clip=0.5, device="{device}",
                       deterministic=True)
for at in range(4):
    tokens = rng.integers(0, 32, (4, 17))
    mine = tokens[2 * rank:2 * rank + 2]
    if rank == 1 and at == 2 and mode == "dies":
        os._exit(7)
    if rank == 1 and at == 2 and mode == "hangs":
        time.sleep(60)
    try:
        print(float(step(tok=mine[:, :-1].copy(), target=mine[:, 1:].copy())).hex(), flush=True)
    except slpc.SlpError as error:
        print(error, flush=True)
        os._exit(3)
step.save(f"rank{{rank}}.npz")
"""


def port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


DEVICES = ["cpu", pytest.param("cuda", marks=[
    pytest.mark.cuda, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees no two CUDA devices")])]


def started(folder: Path, mode: str, device: str) -> list[subprocess.Popen[str]]:
    """Two processes, as torchrun starts them."""
    common = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port(), "OMP_NUM_THREADS": "1"}
    text = WORKER.format(program=TRANSFORMER, sizes=SIZES, device=device)
    return [subprocess.Popen([sys.executable, "-c", text, mode], cwd=folder, text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(2)]


@pytest.mark.parametrize("device", DEVICES)
def test_two_processes_are_one_batch(tmp_path: Path, device: str) -> None:
    """The losses and parameters of the doubled batch to rounding, and the same bits on both."""
    said = []
    for process in started(tmp_path, "runs", device):
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        said.append(out.split())
    assert said[0] == said[1] and len(said[0]) == 4
    saved = [dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in range(2)]
    whole = slpc.train_step(slpc.load(TRANSFORMER, B=4, **SIZES), "adamw", rate=0.01, clip=0.5)
    rng = np.random.default_rng(0)
    for line in said[0]:
        tokens = rng.integers(0, 32, (4, 17))
        assert whole(tok=tokens[:, :-1], target=tokens[:, 1:]) == pytest.approx(float.fromhex(line), rel=1e-12)
    for name, array in whole.state_dict().items():
        np.testing.assert_array_equal(saved[0][name], saved[1][name])
        np.testing.assert_allclose(saved[0][name], array, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["dies", "hangs"])
def test_a_process_that_is_gone_ends_the_other(tmp_path: Path, mode: str, device: str) -> None:
    began = time.monotonic()
    first, second = started(tmp_path, mode, device)
    out, err = first.communicate(timeout=90)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    assert first.returncode == 3, err
    assert "E0417" in out and "gone" in out and len(out.split("error")[0].split()) == 2
    assert time.monotonic() - began < 80


def test_the_plan_knows_the_sums() -> None:
    """Their memory is taken until they are waited for, and that is after the next one has begun."""
    gradient = slpc.adjoint(slpc.load(TRANSFORMER, B=2, **SIZES))
    step = verify(training_step(gradient, "sgd", processes=2).graph)
    assert slpc.parse(str(step)) == step
    place = {n.result: at for at, n in enumerate(step.nodes)}
    begun = [n.result for n in step.nodes if n.op.name == "all_reduce"]
    waits = {n.operands[0]: place[n.result] for n in step.nodes if n.op.name == "wait"}
    later = sum(waits[a] > place[b] for a, b in pairwise(begun))
    assert later >= len(begun) - 2
    parameters = sum(v.type.bytes for v in gradient.parameters)
    assert wire_bytes(step) == parameters + 8 == slpc.plan(step, effort="quick", backend="torch").wire_bytes
    four = training_step(gradient, "sgd", processes=4).graph
    assert wire_bytes(four) == (parameters + 8) * 3 // 2


@pytest.mark.parametrize("budget", [0.0, 0.1, 0.6])
def test_a_plan_computes_while_sums_are_on_the_wire(budget: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is begun right behind its gradient, and most are waited for behind the beginning of the next, in no more
    memory alive than before."""
    gradient = slpc.adjoint(slpc.load(TRANSFORMER, B=4, **(SIZES | {"L": 4, "T": 32})))
    step = training_step(gradient, "adamw", processes=2).graph
    made = slpc.plan(step, recompute_budget=budget, effort="quick", backend="torch")
    monkeypatch.setattr(checkpoint, "overlapped", lambda tasks, order, peak: order)
    plain = slpc.plan(step, recompute_budget=budget, effort="quick", backend="torch")
    assert made.lives.peak == plain.lives.peak and made.peak_bytes <= 1.02 * plain.peak_bytes
    overlaps = []
    for plan in (plain, made):
        nodes = [n for n in verify(plan.graph).nodes if not n.op.view]
        place = {v: at for at, n in enumerate(nodes) for v in n.results}
        begun = [n.result for n in nodes if n.op.name == "all_reduce"]
        waits = {n.operands[0]: place[n.result] for n in nodes if n.op.name == "wait"}
        arrays = [v for v in begun if v.shape]
        overlaps.append(sum(waits[a] > place[b] for a, b in pairwise(arrays)))
    assert all(place[v] - place[buffer(v.node.operands[0])] == 1 for v in begun)
    assert overlaps[1] >= overlaps[0] and overlaps[1] >= 0.75 * (len(arrays) - 1), overlaps


def test_gradients_without_an_update() -> None:
    gradient = slpc.adjoint(slpc.load(TRANSFORMER, B=2, **SIZES))
    made = verify(data_parallel(gradient, 2))
    assert len([n for n in made.nodes if n.op.name == "all_reduce"]) == 1 + 2 + 6 * SIZES["L"]
    assert data_parallel(gradient, 1) == gradient


def test_one_process_has_nothing_to_sum() -> None:
    """Of one process the sum is the operand, on every backend, and so are its derivatives."""
    graph = slpc.parse("def f(x: f64[2000]):\n    s = wait(all_reduce(x * x, processes=1))\n    return sum(s)\n")
    x = np.arange(2000.0)
    for backend in ("numpy", "llvm", "torch"):
        value, grads = slpc.compile(graph, grad=True, backend=backend)(x)
        assert float(value) == pytest.approx(float(x @ x))
        np.testing.assert_allclose(np.asarray(grads["x"]), 2 * x)
    many = verify(slpc.adjoint(slpc.parse(str(graph).replace("processes=1", "processes=3"))))
    assert [n.op.name for n in many.nodes].count("all_reduce") == 2


def test_what_waits_for_a_gpu_does_so_before_anything_is_read() -> None:
    f = slpc.compile(slpc.parse("def f(w: f64[3], *, i: i64[2]):\n    return sum(w[i])\n"), backend="torch")
    seen = []
    f.settle = lambda: seen.append(1)
    assert float(f(torch.ones(3, dtype=torch.float64), torch.tensor([0, 2]))) == 2.0 and seen == [1]
    with pytest.raises(SlpError) as caught:
        f(torch.ones(3, dtype=torch.float64), torch.tensor([0, 3]))
    assert caught.value.code == "E0406" and seen == [1, 1]


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert processes.own_device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [processes.own_device(d) for d in ("cuda", "cuda:1", "cpu")] == ["cuda:3", "cuda:1", "cpu"]


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    two = slpc.parse("def f(x: f64[3]):\n    return wait(all_reduce(x, processes=2))\n")
    for backend in ("numpy", "llvm"):
        with pytest.raises(SlpError) as caught:
            slpc.compile(two, backend=backend)
        assert caught.value.code == "E0416" and "torch" in str(caught.value)
    for wrong in ("return all_reduce(x, processes=2)", "return wait(x)", "return 2 * all_reduce(x, processes=2)"):
        with pytest.raises(SlpError) as caught:
            slpc.parse(f"def f(x: f64[3]):\n    {wrong}\n")
        assert caught.value.code == "E0123"
    graph = slpc.parse("def f(x: f64[3]):\n    return sum(x * x)\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SlpError) as caught:
        slpc.train_step(graph)
    assert caught.value.code == "E0416" and "torchrun has started 2" in str(caught.value)
    broken = slpc.parse("def f(x: f64[3]):\n    return wait(all_reduce(x, processes=2))\n")
    broken.nodes = broken.nodes[:1]
    broken.outputs = broken.nodes[0].results
    with pytest.raises(VerificationError):
        verify(broken)

"""Training steps: against torch.optim, in as much memory as was predicted, and without the memory of the gradients."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slpc
from slpc import function, samples
from slpc.ir.diagnostics import SlpError
from slpc.ir.verify import verify
from slpc.passes.arena import place
from slpc.passes.attention import as_attention
from slpc.passes.legalize import legalize
from slpc.passes.update import OPTIMIZERS, buffers_of, training_step

PROGRAMS = Path(__file__).parent.parent / "programs"
TRANSFORMER, MLP = str(PROGRAMS / "transformer.slp"), str(PROGRAMS / "mlp.slp")
SIZES: dict[str, Any] = dict(L=2, d=16, H=2, B=2, T=16, V=32)
PEERS: dict[str, Any] = {
    "sgd": (torch.optim.SGD, {}, {}),
    "sgd, decay": (torch.optim.SGD, {"decay": 0.1}, {"weight_decay": 0.1}),
    "momentum": (torch.optim.SGD, {}, {"momentum": 0.9}),
    "momentum, nesterov": (torch.optim.SGD, {"mu": 0.8, "nesterov": True}, {"momentum": 0.8, "nesterov": True}),
    "adam": (torch.optim.Adam, {}, {}),
    "adam, decay": (torch.optim.Adam, {"decay": 0.1, "beta1": 0.8}, {"weight_decay": 0.1, "betas": (0.8, 0.999)}),
    "adamw": (torch.optim.AdamW, {}, {}),
    "adamw, eps": (torch.optim.AdamW, {"eps": 1e-3, "decay": 0.0}, {"eps": 1e-3, "weight_decay": 0.0}),
}


def tokens(seed: int, batch: int = 2) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, SIZES["V"], (batch, SIZES["T"])) for name in ("tok", "target")}


def peer(optimizer: str, step: slpc.TrainStep, **options: Any) -> tuple[dict[str, torch.Tensor], Any]:
    kind, _, given = PEERS[optimizer]
    held = {k: torch.tensor(step.state_dict()[k], requires_grad=True) for k in step.parameters}
    return held, kind(held.values(), lr=step.rate, **given, **options)


@pytest.mark.parametrize(("optimizer", "backend"), [
    *((name, "numpy") for name in PEERS),
    *((name, backend) for name in ("adamw", "momentum, nesterov") for backend in ("llvm", "torch"))])
def test_twenty_steps_as_torch_takes_them(optimizer: str, backend: str) -> None:
    graph = slpc.load(TRANSFORMER, dtype="f64", **SIZES)
    name, _, _ = optimizer.partition(",")
    step = slpc.train_step(graph, name, rate=0.01, backend=backend, **PEERS[optimizer][1])
    gradient = slpc.compile(graph, grad=True)
    held, torches = peer(optimizer, step)
    for at in range(20):
        data = tokens(at)
        loss = step(**data)
        value, grads = gradient(**{k: p.detach().numpy() for k, p in held.items()}, **data)
        assert float(loss) == pytest.approx(value, rel=1e-12)
        for k, p in held.items():
            p.grad = torch.tensor(grads[k])
        torches.step()
    for k, p in held.items():
        np.testing.assert_allclose(step.state_dict()[k], p.detach().numpy(), rtol=1e-9, atol=1e-11)
    assert step.updates == 20


def test_the_learning_rate_is_an_input() -> None:
    step = slpc.train_step(slpc.load(TRANSFORMER, **SIZES), "sgd", rate=0.0)
    before = {k: v.copy() for k, v in step.parameters.items()}
    step(**tokens(0))
    assert all((step.parameters[k] == v).all() for k, v in before.items())
    step.rate = 0.1
    step(**tokens(0))
    assert not (step.parameters["U"] == before["U"]).all()


def test_parameters_are_updated_where_they_lie() -> None:
    step = slpc.train_step(slpc.load(TRANSFORMER, **SIZES), "adamw")
    held = {k: id(v) for k, v in (step.parameters | step.state).items()}
    step(**tokens(0))
    step(*tokens(1).values())
    assert {k: id(v) for k, v in (step.parameters | step.state).items()} == held
    assert set(step.state) == {f"{p}_{k}" for p in step.parameters for k in ("mean", "square")}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_gradient_lives_until_its_update(optimizer: str) -> None:
    """Of 12 layers never more than a few gradients are there at once, where the activations are small."""
    graph = slpc.load(MLP, L=12, d=48, m=2)
    layer = 4 * 48 * 48
    gradient = slpc.adjoint(graph)
    everything = slpc.plan(gradient, effort="quick")
    assert everything.peak_bytes > 12 * layer
    plan = slpc.plan(training_step(gradient, optimizer).graph, effort="quick")
    activations = 12 * 2 * 4 * 48 * 2
    assert plan.peak_bytes < 4 * layer + activations
    clipped = slpc.plan(training_step(gradient, optimizer, clip=1.0).graph, effort="quick")
    assert clipped.peak_bytes > 12 * layer  # the norm needs all of them


@pytest.mark.parametrize(("optimizer", "budget"), [("sgd", None), ("adamw", 0.1)])
def test_predicted_is_measured(optimizer: str, budget: float | None) -> None:
    graph = slpc.load(TRANSFORMER, L=2, d=64, T=128, V=256, H=4, B=1)
    step, before = (slpc.train_step(graph, optimizer, recompute_budget=budget, effort="quick") for _ in range(2))
    data = {k: np.array(v) for k, v in samples.draw(graph, 1).items() if k in ("tok", "target")}
    before(**data)
    tracemalloc.start()
    began = tracemalloc.get_traced_memory()[0]
    step(**data)
    measured = tracemalloc.get_traced_memory()[1] - began
    tracemalloc.stop()
    assert abs(measured - step.plan.peak_bytes) <= max(0.01 * step.plan.peak_bytes, 64 << 10)


def test_micro_batches_are_one_batch() -> None:
    """Three thirds of a batch: the same loss and update as the whole, to rounding."""
    whole = slpc.load(TRANSFORMER, dtype="f64", **(SIZES | {"B": 6}))
    third = slpc.load(TRANSFORMER, dtype="f64", **SIZES)
    one, three = slpc.train_step(whole, "adamw", rate=0.01), slpc.train_step(third, "adamw", rate=0.01, micro_batches=3)
    for at in range(4):
        data = tokens(at, 6)
        losses = [three(**{k: v[i:i + 2] for k, v in data.items()}) for i in (0, 2, 4)]
        assert np.mean(losses) == pytest.approx(one(**data), rel=1e-12)
    assert one.updates == three.updates == 4
    for k, v in one.parameters.items():
        np.testing.assert_allclose(three.parameters[k], v, rtol=1e-9, atol=1e-12)
    assert set(three.sums) == {f"{p}_sum" for p in three.parameters}


@pytest.mark.parametrize("limit", [0.05, 1e3])
def test_clipping_as_torch_does_it(limit: float) -> None:
    graph = slpc.load(TRANSFORMER, dtype="f64", **SIZES)
    step = slpc.train_step(graph, "sgd", rate=0.1, clip=limit)
    held, torches = peer("sgd", step)
    gradient = slpc.compile(graph, grad=True)
    for at in range(5):
        data = tokens(at)
        grads = gradient(**{k: p.detach().numpy() for k, p in held.items()}, **data)[1]
        for k, p in held.items():
            p.grad = torch.tensor(grads[k])
        torch.nn.utils.clip_grad_norm_(held.values(), limit)
        torches.step()
        step(**data)
    for k, p in held.items():
        np.testing.assert_allclose(step.parameters[k], p.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("micro_batches", "backend"), [(1, "numpy"), (2, "numpy"), (1, "torch"), (2, "torch")])
def test_resumed_from_a_file(tmp_path: Path, micro_batches: int, backend: str) -> None:
    """Saved at any call, also between two micro-batches: the same losses, bit for bit."""
    graph = slpc.load(TRANSFORMER, **SIZES)
    step = slpc.train_step(graph, "adamw", rate=0.01, micro_batches=micro_batches, backend=backend)
    for at in range(3):
        step(**tokens(at))
    step.save(tmp_path / "state.npz")
    again = slpc.train_step(graph, "adamw", rate=0.5, seed=9, micro_batches=micro_batches, backend=backend)
    again.load(tmp_path / "state.npz")
    assert again.updates == step.updates and again.rate == 0.01
    for at in range(3, 8):
        assert again(**tokens(at)) == step(**tokens(at))


def test_numbers_of_16_bits() -> None:
    """The update is done in f32 and rounded once: within half a unit of the last place of what f32 makes of it."""
    graph = slpc.load(TRANSFORMER, dtype="bf16", **SIZES)
    step = slpc.train_step(graph, "sgd", rate=0.5)
    before = {k: v.copy() for k, v in step.parameters.items()}
    grads = slpc.compile(graph, grad=True)(**before, **tokens(0))[1]
    step(**tokens(0))
    for k, w in before.items():
        exact = w.astype(np.float64) - 0.5 * grads[k].astype(np.float64)
        error = np.abs(step.parameters[k].astype(np.float64) - exact)
        assert (error <= 2.0 ** -8 * np.abs(exact) + 1e-12).all()
        assert not (step.parameters[k] == w).all()


DEVICES = ["cpu", pytest.param("cuda", marks=[
    pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_begun_with_tensors(device: str, dtype: str) -> None:
    """Of any device, of a model that autograd follows, not row by row: copied, and the same numbers as arrays."""
    graph = slpc.load(TRANSFORMER, dtype=dtype, **SIZES)
    drawn = slpc.train_step(graph, "adamw", rate=0.01, backend="torch", device=device)
    held = {k: torch.nn.Parameter(x.clone()) for k, x in drawn.parameters.items()}
    held["U"] = torch.nn.Parameter(held["U"].detach().T.contiguous().T)
    held["E"] = torch.nn.Parameter(held["E"].detach().cpu())
    before = {k: x.detach().clone() for k, x in held.items()}
    step = slpc.train_step(graph, "adamw", rate=0.01, parameters=held, backend="torch", device=device)
    for at in range(3):
        assert step(**tokens(at)) == drawn(**tokens(at))
    assert all((before[k] == x).all() for k, x in held.items())
    assert all(x.device.type == device and x.is_contiguous() for x in step.parameters.values())


@pytest.mark.parametrize(("wrong", "code"), [
    (torch.zeros(2, 2), "E0404"), (torch.zeros(16, 32, dtype=torch.float64), "E0405"), (np.zeros((16, 32)), "E0405"),
    ("a", "E0404")])
def test_tensors_that_do_not_fit(wrong: Any, code: str) -> None:
    with pytest.raises(SlpError) as caught:
        slpc.train_step(slpc.load(TRANSFORMER, **SIZES), "sgd", parameters={"U": wrong}, backend="torch")
    assert caught.value.code == code and "U" in str(caught.value)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_recorded_step(micro_batches: int) -> None:
    """A CUDA graph: the same losses and parameters, the call that records it counted like any other."""
    sizes = SIZES | {"d": 128, "T": 128, "V": 512}
    graph = slpc.load(TRANSFORMER, dtype="bf16", **sizes)
    plain, recorded = (slpc.train_step(graph, "adamw", rate=0.01, micro_batches=micro_batches, backend="torch",
                                       device="cuda", deterministic=True, graph=record, recompute_budget=0.1)
                       for record in (False, True))
    rng = np.random.default_rng(0)
    for _ in range(4):
        data = {k: rng.integers(0, 512, (2, 128)) for k in ("tok", "target")}
        assert plain(**data) == recorded(**data)
    assert all(torch.equal(plain.parameters[k], x) for k, x in recorded.parameters.items())


def test_an_update_on_a_gpu_is_one_kernel() -> None:
    """Of each parameter or layer of one: it reads gradient, parameter and state, and writes over the latter two; also
    beside the kernels of attention."""
    graph = slpc.load(TRANSFORMER, dtype="bf16", L=3, d=128, H=2, B=1, T=512, V=64)
    target = function.target_of("torch", "cuda")
    legal = verify(legalize(training_step(slpc.adjoint(graph, fused=True), "adamw").graph, target))
    bodies = [n.attributes["body"] for n in legal.nodes if n.op.name == "region"]
    assert sum(as_attention(body) is not None for body in bodies) == 6
    lodged = place(legal, target).lodged
    updates = [n for n in legal.nodes if n.op.name == "region" and any(v in lodged for v in n.results)]
    assert len(updates) == 2 + 6 * 3
    for node in updates:
        assert len(node.results) == 3 and all(v in lodged for v in node.results)


def test_scalars_and_what_is_not_trained() -> None:
    text = ("def f(a: f64 = 2.0, b: f64 = 1.0, w: f64[3] = normal(0, 1), *, x: f64[3]):\n"
            "    y = a * w + b - x\n    return sum(y * y), y\n")
    for backend in ("numpy", "llvm", "torch"):
        step = slpc.train_step(slpc.parse(text), "sgd", rate=0.1, wrt=["a", "w"], backend=backend)
        w, x = step.state_dict()["w"], np.array([1.0, 2.0, 3.0])
        loss, y = map(np.asarray, step(x))
        r = 2.0 * w + 1.0 - x
        assert loss == pytest.approx(float(r @ r)) and y == pytest.approx(r)
        assert float(step.parameters["a"]) == pytest.approx(2.0 - 0.1 * 2 * float(r @ w))
        assert step.parameters["b"] == 1.0
        np.testing.assert_allclose(step.state_dict()["w"], w - 0.1 * 4 * r)


def test_steps_are_text() -> None:
    """Printed, read again and equal; what the plan runs, too."""
    gradient = slpc.adjoint(slpc.load(TRANSFORMER, **SIZES))
    for optimizer in OPTIMIZERS:
        for phase, count in (("whole", 1), ("first", 3), ("more", 3), ("last", 3)):
            step = training_step(gradient, optimizer, phase=phase, micro_batches=count, clip=1.0)
            assert slpc.parse(str(verify(step.graph))) == step.graph
            assert len(step.graph.donated) == 8 * (1 if phase in ("first", "more") else 1 + len(buffers_of(optimizer)))


def test_errors() -> None:
    graph = slpc.load(TRANSFORMER, **SIZES)
    step = slpc.train_step(graph, "sgd")
    for wrong, code, told in (
            (lambda: slpc.train_step(graph, "adm"), "E0609", "'adam'"),
            (lambda: slpc.train_step(graph, "adamw", beta3=0.9), "E0202", "beta"),
            (lambda: slpc.train_step(graph, micro_batches=0), "E0411", "micro_batches"),
            (lambda: slpc.train_step(graph, parameters={"Ww": 1}), "E0402", "Wq"),
            (lambda: slpc.train_step(graph, parameters={"U": np.zeros((2, 2), np.float32)}), "E0404", "U"),
            (lambda: slpc.train_step(slpc.parse("def f(x: f64[3]):\n    return x * x\n")), "E0407", "scalar"),
            (lambda: step(tokens(0)["tok"]), "E0401", "target"),
            (lambda: step(**tokens(0), tokk=1), "E0402", "'tok'"),
            (lambda: step(1, 2, 3), "E0402", "tok, target"),
            (lambda: step.load_state_dict({"U": 1}), "E0409", "another step")):
        with pytest.raises(SlpError) as caught:
            wrong()
        assert caught.value.code == code and told in str(caught.value), (code, str(caught.value))


def train(folder: Path, *arguments: str) -> list[float]:
    """The losses that examples/train.py writes."""
    text = folder / "text.txt"
    text.write_text((PROGRAMS.parent / "README.md").read_text("utf-8"), "utf-8")
    log = folder / f"losses{len(list(folder.iterdir()))}.jsonl"
    example = str(PROGRAMS.parent / "examples" / "train.py")
    words = [sys.executable, example, "--text", str(text), "--losses", str(log), "--steps", "50", "-D", "L=1",
             "-D", "d=32", "-D", "T=32", *arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["loss"] for line in log.read_text("utf-8").splitlines()]


def test_the_example_learns_and_is_resumed(tmp_path: Path) -> None:
    """Fifty steps on a small text; stopped after twenty and resumed, the losses are the same bit for bit."""
    whole = train(tmp_path)
    assert len(whole) == 50 and whole[-1] < 0.7 * whole[0]
    begun = train(tmp_path, "--stop", "20", "--save", "half.npz")
    rest = train(tmp_path, "--resume", "half.npz")
    assert [*begun, *rest] == whole

"""Programs as modules of torch: parameters, gradients by autograd, and all that is put around a module."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import slpc
from slpc import samples
from slpc.ir.diagnostics import SlpError

ROOT = Path(__file__).parent.parent
LAYER = slpc.parse("""
n, d, m = 4, 3, 5

def layer(W: f64[d, m] = normal(0, 0.5), b: f64[m] = 0.1, *, x: f64[n, d]):
    z = x @ W + b
    return tanh(z)
""")
SEVERAL = slpc.parse("""
def f(w: f64[3] = normal(0, 1), k: f64 = 2.0, *, x: f64[3], i: i64[2]):
    y = w * x ** 2
    return y, sum(y) * k, i + 1, w[i]
""")


def mlp(**options: Any) -> Any:
    return slpc.module(str(ROOT / "programs" / "mlp.slp"), L=2, d=6, m=7, **options)


def by_torch(module: Any, X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    for W in module.W:
        X = torch.sigmoid(W @ X)
    return ((Y - X.T @ module.w) ** 2).sum() / 7


def data(module: Any) -> dict[str, torch.Tensor]:
    drawn = samples.draw(module.program, 1)
    return {v.name: torch.as_tensor(drawn[v.name]) for v in module.program.data}


def test_parameters_are_drawn_as_the_file_says() -> None:
    module = mlp(seed=3)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {"W": (2, 6, 6), "w": (6,)}
    drawn = samples.draw(module.program, 3)
    assert torch.equal(module.W, torch.as_tensor(drawn["W"]))
    assert module.W.dtype is torch.float32 and module.W.requires_grad


@pytest.mark.parametrize("budget", [None, 0.5])
def test_loss_and_backward(budget: float | None) -> None:
    module = mlp(recompute_budget=budget)
    given = data(module)
    loss = module(**given)
    (3 * loss).backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    want = by_torch(module, **given)
    (3 * want).backward()
    torch.testing.assert_close(loss, want)
    for name, p in module.named_parameters():
        torch.testing.assert_close(found[name], p.grad)


def test_gradients_add_up_over_calls() -> None:
    module = mlp()
    given = data(module)
    module(**given).backward()
    once = module.W.grad.clone()
    module(**given).backward()
    torch.testing.assert_close(module.W.grad, 2 * once)


def test_gradcheck() -> None:
    """torch's own check, in parameters and data, of a layer and of several outputs."""
    layer = slpc.module(LAYER)

    def call(x: Any, W: Any, b: Any) -> Any:
        return torch.func.functional_call(layer, {"W": W, "b": b}, (x,))

    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(call, (x, layer.W, layer.b))
    several = slpc.module(SEVERAL)
    i = torch.tensor([2, 0])

    def outputs(w: Any, k: Any, x: Any) -> Any:
        y, total, _, taken = torch.func.functional_call(several, {"w": w, "k": k}, (x, i))
        return y, total, taken

    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(outputs, (several.w, several.k, x))
    loss = slpc.module(slpc.parse("def f(w: f64[3] = normal(0, 1), *, x: f64[3]):\n    return sum(exp(w) * x)\n"))
    assert torch.autograd.gradcheck(lambda w, x: torch.func.functional_call(loss, {"w": w}, (x,)), (loss.w, x))


def test_within_a_sequence() -> None:
    torch.manual_seed(0)
    layer = slpc.module(LAYER)
    net = nn.Sequential(nn.Linear(2, 3, dtype=torch.float64), layer, nn.Linear(5, 1, dtype=torch.float64))
    x = torch.randn(4, 2, dtype=torch.float64)
    net(x).sum().backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    hidden = torch.tanh(net[0](x) @ layer.W + layer.b)
    net[2](hidden).sum().backward()
    for got, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(got, p.grad)


def test_an_optimizer_makes_the_loss_fall() -> None:
    module = mlp()
    given = data(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = module(**given)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_state_and_copies() -> None:
    one, two = mlp(seed=0), mlp(seed=1)
    given = data(one)
    assert not torch.equal(one(**given), two(**given))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(**given), two(**given))
    again = copy.deepcopy(one)
    assert torch.equal(again(**given), one(**given)) and again.W is not one.W


def test_without_a_gradient_the_value_alone_is_computed() -> None:
    module = mlp()
    given = data(module)
    with torch.no_grad():
        value = module(**given)
    assert not value.requires_grad
    assert [wrt for _, wrt in module._compiled] == [()]
    for p in module.parameters():
        p.requires_grad_(False)
    assert not module(**given).requires_grad
    module.w.requires_grad_()
    module(**given).backward()
    assert module.W.grad is None and module.w.grad is not None


def test_under_torch_compile() -> None:
    layer = slpc.module(LAYER)
    x = torch.randn(4, 3, dtype=torch.float64)

    def call(x: torch.Tensor) -> torch.Tensor:
        return (2 * layer(x + 1)).sum()

    want = call(x)
    want.backward()
    grad = layer.W.grad.clone()
    layer.zero_grad()
    found = torch.compile(call, backend="eager")(x)
    found.backward()
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(layer.W.grad, grad)


def test_a_second_derivative_is_refused() -> None:
    for program in (LAYER, slpc.parse("def f(w: f64[3] = normal(0, 1), *, x: f64[3]):\n    return sum(exp(w) * x)\n")):
        module = slpc.module(program)
        x = torch.randn(program.inputs[-1].shape, dtype=torch.float64, requires_grad=True)
        first, = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        assert first.shape == x.shape
        with pytest.raises(SlpError) as caught:
            first.sum().backward()
        assert caught.value.code == "E0415" and "slpc.hvp" in str(caught.value)


def test_data_that_does_not_fit() -> None:
    module = slpc.module(LAYER)
    for given, code in (((), "E0401"), ((torch.zeros(4, 3), ), "E0405"), ((torch.zeros(1), 2), "E0402"),
                        ((torch.zeros(3, 4, dtype=torch.float64),), "E0404")):
        with pytest.raises(SlpError) as caught:
            module(*given)
        assert caught.value.code == code
    module(torch.zeros(3, 4, dtype=torch.float64).T)  # a module copies what does not lie row by row


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_moved_to_a_gpu() -> None:
    module = mlp()
    given = data(module)
    want = module(**given)
    module.cuda()
    loss = module(**{k: x.cuda() for k, x in given.items()})
    loss.backward()
    torch.testing.assert_close(loss.cpu(), want)
    assert module.W.grad.is_cuda

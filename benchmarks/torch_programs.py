"""The programs of benchmarks/memory.py as a torch user writes them, and the bytes that torch's allocator has alive.

Each program is a list of steps, so that `torch.utils.checkpoint` can be put around each of them; the arithmetic is that
of the .slp file: attention stores its T x T matrices here as there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

State = tuple[Tensor, ...]
Step = Callable[..., State]
Inputs = dict[str, Tensor]
BUDGETS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.0)
"""What `activation_memory_budget` is set to: a fraction of the bytes that are saved, not of flops."""


class Program:
    """The first state from the inputs, steps from state to state, and the loss of the last state."""

    def __init__(self, first: Callable[[Inputs], State], steps: Callable[[Inputs], Sequence[tuple[Step, State]]],
                 loss: Callable[[Inputs, State], Tensor]) -> None:
        self.first, self.steps, self.loss = first, steps, loss

    def __call__(self, inputs: Inputs, *, checkpointed: bool = False) -> Tensor:
        """The loss; with `checkpointed` only the states between steps are stored."""
        state = self.first(inputs)
        for step, weights in self.steps(inputs):
            state = checkpoint(step, *state, *weights, use_reentrant=False) if checkpointed else step(*state, *weights)
        return self.loss(inputs, state)


def mlp(**sizes: int) -> Program:
    def layer(x: Tensor, w: Tensor) -> State:
        return (torch.sigmoid(w @ x),)

    return Program(lambda p: (p["X"],), lambda p: [(layer, (p[f"W.{i}"],)) for i in range(sizes["L"])],
                   lambda p, s: torch.square(p["Y"] - s[0].T @ p["w"]).sum() / sizes["m"])


def transformer(**sizes: int) -> Program:
    B, T, H = (sizes[name] for name in "BTH")

    def attended(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
        q, k, v = (torch.mm(x, w).view(B, T, H, -1).transpose(1, 2) for w in (wq, wk, wv))
        hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(hidden, -math.inf)
        return (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(B * T, -1)

    def layer(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, w1: Tensor, w2: Tensor, wp: Tensor) -> State:
        x = x + attended(x, wq, wk, wv)
        return (x + functional.gelu(functional.gelu(x @ w1) @ w2) @ wp,)

    names = ("Wq", "Wk", "Wv", "W1", "W2", "Wp")
    return Program(lambda p: (functional.embedding(p["tok"].flatten(), p["E"]),),
                   lambda p: [(layer, tuple(p[f"{name}.{i}"] for name in names)) for i in range(sizes["L"])],
                   lambda p, s: functional.cross_entropy(s[0] @ p["U"], p["target"].flatten()))


def lstm(**sizes: int) -> Program:
    def cell(h: Tensor, c: Tensor, x: Tensor, w: Tensor, b: Tensor) -> State:
        i, f, g, o = (torch.cat([x, h], 1) @ w + b).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    class Unrolled(Program):
        def __call__(self, inputs: Inputs, *, checkpointed: bool = False) -> Tensor:
            h = c = inputs["X"].new_zeros((sizes["B"], sizes["n"]))
            seen = []
            for x in inputs["X"].unbind():
                state = (h, c, x, inputs["W"], inputs["b"])
                h, c = checkpoint(cell, *state, use_reentrant=False) if checkpointed else cell(*state)
                seen.append(h @ inputs["w"])
            return torch.square(inputs["Y"] - torch.stack(seen)).mean()

    return Unrolled(lambda p: (), lambda p: [], lambda p, s: p["w"])


PROGRAMS: dict[str, Callable[..., Program]] = {"mlp": mlp, "transformer": transformer, "lstm": lstm}


def peak(run: Callable[[], Any]) -> int:
    """Most bytes that torch's CPU allocator has alive at once during `run`, beyond what is alive before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


@contextlib.contextmanager
def memory_budget(budget: float) -> Iterator[None]:
    """torch.compile with this `activation_memory_budget` and no code left of another."""
    from torch._functorch import config

    before, config.activation_memory_budget = config.activation_memory_budget, budget
    torch._dynamo.reset()
    try:
        yield
    finally:
        config.activation_memory_budget = before


def _split(inputs: Inputs, stacked: Sequence[str]) -> Inputs:
    """The inputs with a tensor of its own for each layer of these."""
    for name in stacked:
        inputs |= {f"{name}.{i}": layer.clone() for i, layer in enumerate(inputs.pop(name).unbind())}
    return inputs


def _leaves(inputs: Inputs, parameters: Sequence[str]) -> list[Tensor]:
    """The parameters with a gradient. Where one is stacked by layers, each layer's is a tensor of its own, as torch
    users have them (a stacked one would have its gradient put together in the end, at twice the memory)."""
    _split(inputs, [name for name in parameters if inputs[name].dim() == 3])
    owned = [key for key in inputs if key.split(".")[0] in parameters]
    return [inputs[key].requires_grad_() for key in owned]


def loss(name: str, inputs: Inputs, sizes: dict[str, int]) -> Tensor:
    """The loss, of inputs as the .slp program has them."""
    stacked = [key for key, x in inputs.items() if x.dim() == 3 and key.startswith("W")]
    with torch.no_grad():
        return PROGRAMS[name](**sizes)(_split(dict(inputs), stacked))


def peaks(name: str, inputs: Inputs, parameters: Sequence[str], sizes: dict[str, int],
          compiled: bool) -> dict[str, int | None]:
    """Peak of loss and gradients, gradients included, by how torch is told to store; None for what fails."""
    program = PROGRAMS[name](**sizes)
    leaves = _leaves(inputs, parameters)

    def measured(function: Callable[..., Tensor], **options: Any) -> int | None:
        def step() -> None:
            function(inputs, **options).backward()

        try:
            step()  # compiles
            for leaf in leaves:
                leaf.grad = None
            found = peak(step)
            assert all(leaf.grad is not None for leaf in leaves)
            for leaf in leaves:
                leaf.grad = None
            return found
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            return None

    found = {"torch eager": measured(program), "torch checkpoint": measured(program, checkpointed=True)}
    for budget in BUDGETS if compiled else ():
        with memory_budget(budget):
            found[f"torch.compile {budget:g}"] = measured(torch.compile(program.__call__))
    return found

"""Attention on one GPU beside torch's, in TFLOP/s forward, and forward and backward.

    python benchmarks/gpu.py --budgets "" --peers "" --attention

Two products forward and five backward are counted, of half of the square where a mask is causal. Attention without
normalisation is torch's softmax attention times the sums of its rows, which FlexAttention gives as logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

import slpc

TEXT = """
B, H, T, d = {B}, {H}, {T}, {d}

def attention(q: bf16[B, H, T, d], k: bf16[B, H, T, d], v: bf16[B, H, T, d]):
    i, j = arange(T)[:, None], arange(T)[None, :]
    s = {scores}
    return {weights} @ v
"""


class Case(NamedTuple):
    """Sizes, and which attention."""

    B: int
    H: int
    T: int
    d: int
    softmax: bool
    causal: bool

    @property
    def text(self) -> str:
        """The program."""
        scores = f"q @ k.mT * {self.d ** -0.5!r}"
        return TEXT.format(**self._asdict(), scores=f"where(j <= i, {scores}, -inf)" if self.causal else scores,
                           weights="softmax(s, axis=-1)" if self.softmax else "exp(s)")

    @property
    def flops(self) -> float:
        """Of the forward pass."""
        return 4.0 * self.B * self.H * self.T * self.T * self.d / (2 if self.causal else 1)

    @property
    def name(self) -> str:
        """A row's title."""
        kind = "softmax" if self.softmax else "exp"
        return f"{kind}, {'causal' if self.causal else 'full'}, B{self.B} H{self.H} T{self.T} D{self.d}"


CASES = [Case(8, 16, 2048, 64, True, True), Case(4, 16, 4096, 128, True, True), Case(4, 16, 4096, 128, True, False),
         Case(1, 16, 16384, 128, True, True), Case(4, 16, 4096, 64, False, False), Case(4, 16, 4096, 64, False, True),
         Case(4, 16, 4096, 128, False, False), Case(4, 16, 4096, 128, False, True)]
Timed = Callable[[Callable[[], Any]], tuple[float, float]]


def ours(case: Case, given: list[Tensor], timed: Timed) -> tuple[float, float]:
    """Milliseconds forward, and forward and backward, each a CUDA graph."""
    program = slpc.parse(case.text)
    forward = slpc.compile(program, backend="torch", device="cuda", graph=True)
    both = slpc.compile(program, grad=True, backend="torch", device="cuda", graph=True)
    return timed(lambda: forward.flat(*given[:3]))[0], timed(lambda: both.flat(*given))[0]


def theirs(attend: Callable[..., Tensor], given: list[Tensor], timed: Timed) -> tuple[float, float]:
    """The same by autograd."""
    *operands, seed = given
    leaves = [x.detach().requires_grad_() for x in operands]
    with torch.no_grad():
        forward = timed(lambda: attend(*operands))[0]
    return forward, timed(lambda: torch.autograd.grad(attend(*leaves), leaves, seed))[0]


def peers(case: Case) -> dict[str, Callable[..., Tensor]]:
    """torch's ways to the same."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    flex = torch.compile(flex_attention)
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, case.T, case.T) if case.causal else None
    if not case.softmax:
        def unnormalised(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            found, sums = flex(q, k, v, block_mask=mask, return_lse=True)
            return (found * torch.exp(sums)[..., None]).to(q.dtype)

        return {"Flex": unnormalised}

    def by(kernel: SDPBackend) -> Callable[..., Tensor]:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(kernel):
                return functional.scaled_dot_product_attention(q, k, v, is_causal=case.causal)
        return attend

    return {"default": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=case.causal),
            "cuDNN": by(SDPBackend.CUDNN_ATTENTION), "FlashAttention 2": by(SDPBackend.FLASH_ATTENTION),
            "Flex": lambda q, k, v: flex(q, k, v, block_mask=mask)}


def table(timed: Timed) -> None:
    """Print it, row by row."""
    titles = ["default", "cuDNN", "FlashAttention 2", "Flex"]
    print(f"\n| TFLOP/s, forward / both | slpc | {' | '.join(titles)} |\n|{'---|' * (2 + len(titles))}")
    for case in CASES:
        shape = (case.B, case.H, case.T, case.d)
        given = [torch.randn(shape, device="cuda").bfloat16() * scale for scale in (0.3, 0.3, 1.0, 1.0)]
        found = {"slpc": _rates(case, lambda case=case, given=given: ours(case, given, timed))}
        torch._dynamo.reset()
        for name, attend in peers(case).items():
            found[name] = _rates(case, lambda attend=attend, given=given: theirs(attend, given, timed))
        print(f"| {case.name} | {' | '.join(found.get(name, '') for name in ['slpc', *titles])} |", flush=True)


def _rates(case: Case, run: Callable[[], tuple[float, float]]) -> str:
    try:
        forward, both = run()
    except Exception as error:
        print(f"    {type(error).__name__}: {str(error)[:300]}", flush=True)
        forward = both = math.nan
    return f"{case.flops / forward / 1e9:.0f} / {3.5 * case.flops / both / 1e9:.0f}"

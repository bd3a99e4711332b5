"""Attention, value and gradient, by blocks of rows: time and memory beside torch and NumPy by hand.

    python benchmarks/attention.py                       # times at T = 2048, in turns, medians
    python benchmarks/attention.py --T 8192 --rounds 3
    python benchmarks/attention.py --memory docs/attention-memory.svg   # peaks from T = 1024 to 65536, as a picture

One head of width 64 in float32. By hand means blocks of rows in NumPy with everything that can be kept in place. Memory
is what `tracemalloc` sees a first call allocate, outputs included; torch's is what its allocator has alive at most.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tensor_cpu import medians  # noqa: E402

BACKENDS = ("llvm", "numpy")


def by_hand(Q: Any, K: Any, V: Any, Y: Any, softmax: bool, rows: int = 128) -> tuple[Any, ...]:
    """sum(Y * R) and its gradients, by blocks of rows; the softmax is causal, as in programs/softmax_attention.slp."""
    import numpy as np

    T, d = Q.shape
    scale = np.float32(d ** -0.5)
    Q_bar, K_bar, V_bar = np.empty_like(Q), np.zeros_like(K), np.zeros_like(V)
    total = 0.0
    for at in range(0, T, rows):
        seen = at + rows if softmax else T
        q, y, k, v = Q[at:at + rows], Y[at:at + rows], K[:seen], V[:seen]
        P = q @ k.T
        if softmax:
            P *= scale
            P[np.arange(at, at + len(q))[:, None] < np.arange(seen)] = -np.inf
            P -= P.max(axis=1, keepdims=True)
        np.exp(P, out=P)
        if softmax:
            P /= P.sum(axis=1, keepdims=True)
        total += float(np.sum(y * (P @ v)))
        V_bar[:seen] += P.T @ y
        S_bar = y @ v.T
        if softmax:
            S_bar -= np.sum(S_bar * P, axis=1, keepdims=True)
        S_bar *= P
        if softmax:
            S_bar *= scale
        Q_bar[at:at + rows] = S_bar @ k
        K_bar[:seen] += S_bar.T @ q
    return total, Q_bar, K_bar, V_bar


def by_torch(inputs: dict[str, Any], softmax: bool) -> Callable[[], Any]:
    """SDPA with its backward pass; exp attention, for which torch has no kernel, as it is written."""
    import torch

    Q, K, V = (torch.tensor(inputs[n])[None, None].requires_grad_() for n in "QKV")
    Y = torch.tensor(inputs["Y"])

    def run() -> Any:
        if softmax:
            R = torch.nn.functional.scaled_dot_product_attention(Q, K, V, is_causal=True)
        else:
            R = torch.exp(Q @ K.mT) @ V
        return torch.autograd.grad((R[0, 0] * Y).sum(), (Q, K, V))

    return run


def times(T: int, rounds: int) -> None:
    """A row for each kind of attention."""
    import slpc
    from slpc import samples

    for name in ("softmax_attention", "attention"):
        graph = slpc.load(str(ROOT / "programs" / f"{name}.slp"), T=T)
        inputs = samples.draw(graph, 0)
        calls: dict[str, Callable[[], Any]] = {}
        for backend in BACKENDS:
            f = slpc.compile(graph, grad=True, backend=backend)
            calls[backend] = partial(f, **inputs, out=f.buffers())
        softmax = name == "softmax_attention"
        calls["by hand"] = partial(by_hand, *(inputs[n] for n in ("Q", "K", "V", "Y")), softmax)
        calls["torch"] = by_torch(inputs, softmax)
        found = medians(calls, rounds)
        own = found.pop("llvm")
        cells = [f"{own:.3g}", *(f"{other:.3g} ({other / own:.2f}x)" for other in found.values())]
        print(f"| {name} T={T} | {' | '.join(cells)} |", flush=True)


def peak(T: int, fuse: bool, backend: str) -> int:
    """Bytes that a first call allocates at most."""
    import tracemalloc

    import slpc
    from slpc import samples

    graph = slpc.load(str(ROOT / "programs" / "softmax_attention.slp"), T=T)
    f = slpc.compile(graph, grad=True, backend=backend, fuse=fuse)
    inputs = samples.draw(f.graph, 0)
    tracemalloc.start()
    f(**inputs)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def memory(file: str, backend: str) -> None:
    """The picture: bytes beyond the inputs against T."""
    from matplotlib.figure import Figure

    lengths = [1024 * 2 ** i for i in range(7)]
    fused = [peak(T, True, backend) for T in lengths]
    whole = [peak(T, False, backend) for T in lengths if T <= 16384]
    for T, a, b in zip(lengths, fused, [*whole, *[0] * 9]):
        print(f"| {T} | {a / 1e6:.1f} MB | {f'{b / 1e6:.0f} MB' if b else ''} |", flush=True)
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.loglog(lengths[:len(whole)], [b / 2 ** 20 for b in whole], "o-", color="#d55e00", label="T x T stored")
    axes.loglog(lengths, [a / 2 ** 20 for a in fused], "s-", color="#0072b2", label="by blocks of rows")
    axes.set_xticks(lengths, [f"{T // 1024}k" for T in lengths])
    axes.minorticks_off()
    axes.set_xlabel("T, with width 64, float32")
    axes.set_ylabel("MiB beyond the inputs")
    axes.set_title("Causal softmax attention, value and gradient: measured peak")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None} if file.endswith(".svg") else None)


def main() -> None:
    """Times, or the picture of memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--T", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", metavar="FILE")
    parser.add_argument("--backend", default="llvm")
    options = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if options.memory:
        memory(options.memory, options.backend)
        return
    print(f"| ms, {options.threads} threads | llvm | numpy | NumPy by hand | torch |\n|---|---|---|---|---|")
    for T in options.T or [2048]:
        times(T, options.rounds)


if __name__ == "__main__":
    main()

"""The emitted NumPy code beside NumPy written by hand: value and all gradients, in one run, in turns.

    python benchmarks/numpy_speed.py                # the small programs
    python benchmarks/numpy_speed.py --large        # the large ones as well: some minutes
    OPENBLAS_NUM_THREADS=1 python benchmarks/numpy_speed.py --processor     # where others use the machine as well

By hand means what somebody writes who knows back-propagation: what the backward pass needs is kept, the causal mask is
made once, and arrays are allocated as they come. `call` is an ordinary call, not the first, `out=` a call that writes
into arrays that are there. Medians; peaks are tracemalloc's of a first call.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from scipy.special import erf

import slpc
from slpc import samples

PROGRAMS = Path(__file__).parent.parent / "programs"
SMALL = [("mlp", dict(L=32, d=64, m=64)), ("transformer", dict(B=1, T=256, d=128, L=4, H=4, V=1024))]
LARGE = [("mlp", dict(L=8, d=512, m=4096)), ("transformer", dict(B=1, T=1024, d=512, L=8, H=8, V=8192))]


def mlp(W: Any, w: Any, X: Any, Y: Any) -> tuple[Any, ...]:
    """The lecture's MLP: loss, and gradients in W and w."""
    kept = [X]
    for weight in W:
        kept.append(1 / (1 + np.exp(-(weight @ kept[-1]))))
    error = Y - kept[-1].T @ w
    loss = np.sum(error * error) / len(Y)
    g = -2 / np.float32(len(Y)) * error
    w_bar = kept[-1] @ g
    W_bar = np.empty_like(W)
    X_bar = np.outer(w, g)
    for layer in range(len(W) - 1, -1, -1):
        s = kept[layer + 1]
        z_bar = X_bar * s * (1 - s)
        W_bar[layer] = z_bar @ kept[layer].T
        if layer:
            X_bar = W[layer].T @ z_bar
    return loss, W_bar, w_bar


def gelu(x: Any) -> tuple[Any, Any]:
    """The value, and the distribution function that the derivative needs."""
    phi = np.float32(0.5) * (1 + erf(x * np.float32(0.7071067811865476)))
    return x * phi, phi


def gelu_bar(g: Any, x: Any, phi: Any) -> Any:
    """The cotangent of gelu's operand."""
    return g * (phi + x * (np.float32(0.3989422804014327) * np.exp(np.float32(-0.5) * x * x)))


def transformer(E: Any, Wq: Any, Wk: Any, Wv: Any, W1: Any, W2: Any, Wp: Any, U: Any, tok: Any, target: Any,
                H: int) -> tuple[Any, ...]:
    """The lecture's transformer: loss, and gradients in the eight parameters."""
    B, T = tok.shape
    L, d, _ = Wq.shape
    scale = np.float32((d // H) ** -0.5)
    mask = np.tri(T, dtype=bool)
    i = tok.reshape(-1)
    split = lambda X: X.reshape(B, T, H, d // H).transpose(0, 2, 1, 3)  # noqa: E731
    merge = lambda X: X.transpose(0, 2, 1, 3).reshape(B * T, d)  # noqa: E731
    X = E[i]
    kept = []
    for layer in range(L):
        q, k, v = split(X @ Wq[layer]), split(X @ Wk[layer]), split(X @ Wv[layer])
        S = np.where(mask, q @ k.mT * scale, np.float32(-np.inf))
        P = np.exp(S - S.max(-1, keepdims=True))
        P /= P.sum(-1, keepdims=True)
        X1 = X + merge(P @ v)
        h1 = X1 @ W1[layer]
        a1, p1 = gelu(h1)
        h2 = a1 @ W2[layer]
        a2, p2 = gelu(h2)
        kept.append((X, q, k, v, P, X1, h1, a1, p1, h2, a2, p2))
        X = X1 + a2 @ Wp[layer]
    logits = X @ U
    rows = np.arange(B * T)
    goal = target.reshape(-1)
    peak = logits.max(-1, keepdims=True)
    e = np.exp(logits - peak)
    total = e.sum(-1, keepdims=True)
    loss = np.mean(np.log(total[:, 0]) + peak[:, 0] - logits[rows, goal])
    g = e / total
    g[rows, goal] -= 1
    g /= np.float32(B * T)
    U_bar = X.T @ g
    X_bar = g @ U.T
    Wq_bar, Wk_bar, Wv_bar, W1_bar, W2_bar, Wp_bar = map(np.empty_like, (Wq, Wk, Wv, W1, W2, Wp))
    for layer in range(L - 1, -1, -1):
        X, q, k, v, P, X1, h1, a1, p1, h2, a2, p2 = kept.pop()
        Wp_bar[layer] = a2.T @ X_bar
        h2_bar = gelu_bar(X_bar @ Wp[layer].T, h2, p2)
        W2_bar[layer] = a1.T @ h2_bar
        h1_bar = gelu_bar(h2_bar @ W2[layer].T, h1, p1)
        W1_bar[layer] = X1.T @ h1_bar
        X_bar = X_bar + h1_bar @ W1[layer].T
        o_bar = split(X_bar)
        P_bar = o_bar @ v.mT
        S_bar = P * (P_bar - np.sum(P_bar * P, -1, keepdims=True)) * scale
        v_bar, q_bar, k_bar = merge(P.mT @ o_bar), merge(S_bar @ k), merge(S_bar.mT @ q)
        Wv_bar[layer], Wq_bar[layer], Wk_bar[layer] = X.T @ v_bar, X.T @ q_bar, X.T @ k_bar
        X_bar = X_bar + v_bar @ Wv[layer].T + q_bar @ Wq[layer].T + k_bar @ Wk[layer].T
    E_bar = np.zeros_like(E)
    np.add.at(E_bar, i, X_bar)
    return loss, E_bar, Wq_bar, Wk_bar, Wv_bar, W1_bar, W2_bar, Wp_bar, U_bar


def by_hand(name: str, constants: dict[str, int]) -> Callable[..., tuple[Any, ...]]:
    """The function for a program."""
    return mlp if name == "mlp" else lambda *inputs: transformer(*inputs, constants["H"])


def peak(call: Callable[[], Any]) -> int:
    """Bytes that the call has allocated at most at once."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    result = call()
    found = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    del result
    return found


def in_turns(calls: dict[str, Callable[[], Any]], seconds: float, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each call, by the clock; every round makes each of them once."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(times))]) < 5:
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def row(name: str, constants: dict[str, int], seconds: float, clock: Callable[[], float]) -> str:
    """One line of the table."""
    path = str(PROGRAMS / f"{name}.slp")
    graph = slpc.load(path, **constants)
    inputs = list(samples.draw(graph).values())
    hand = by_hand(name, constants)
    f, first = (slpc.compile(graph, grad=True) for _ in range(2))
    given = f.buffers()
    found, expected = f.flat(*inputs), hand(*inputs)
    for a, b in zip(found, expected, strict=True):
        assert np.max(np.abs(a - b)) <= 1e-3 * np.max(np.abs(b)), "the two differ"
    peaks = {"hand": peak(lambda: hand(*inputs)), "call": peak(lambda: first.flat(*inputs))}
    del found, expected
    times = in_turns({"hand": lambda: hand(*inputs), "call": lambda: f.flat(*inputs),
                      "out=": lambda: f.flat(*inputs, out=given)}, seconds, clock)
    sizes = " ".join(f"{k}{v}" for k, v in constants.items())
    shown = " ".join(f"{k} {1e3 * t:9.3f} ms" for k, t in times.items())
    return (f"{name:12} {sizes:28} {shown}   hand/call {times['hand'] / times['call']:.2f} "
            f"hand/out= {times['hand'] / times['out=']:.2f}   peak MB hand {peaks['hand'] / 1e6:.2f} "
            f"ours {peaks['call'] / 1e6:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--large", action="store_true", help="the large programs as well")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each program is measured")
    parser.add_argument("--processor", action="store_true", help="processor time in the place of elapsed time")
    options = parser.parse_args()
    clock = time.process_time if options.processor else time.perf_counter
    for name, constants in SMALL + (LARGE if options.large else []):
        print(row(name, constants, options.seconds, clock), flush=True)


if __name__ == "__main__":
    main()

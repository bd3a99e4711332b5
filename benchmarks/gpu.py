"""The transformer of programs/transformer.slp on one GPU, beside torch: time, MFU and peak memory of a training step.

    python benchmarks/gpu.py                    # the model of docs/torch.md: B 8, T 2048, d 1024, L 12, V 32768, bf16
    python benchmarks/gpu.py --budgets 0,0.1,1 --peers eager,compile --picture docs/gpu-curve.svg
    python benchmarks/gpu.py --budgets "" --peers "" --attention          # attention alone (gpu_attention.py)

A step is the loss and all gradients. Peak is beyond parameters and inputs, gradients included, as torch's allocator
counts it; ours is also predicted. Times are medians of replays or calls, in one run; each call is checked for a finite
loss, since arithmetic on NaN is faster. MFU is of 990 TFLOP/s, the dense bf16 rate of the data sheet, and of what a
large product reaches.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import slpc

MODEL = Path(__file__).parent.parent / "programs" / "transformer.slp"
SHEET = 990e12
Loss = Callable[[dict[str, Tensor]], Tensor]


def inputs(sizes: dict[str, int]) -> dict[str, Tensor]:
    """Parameters and tokens on the GPU, drawn as the program says."""
    L, d, B, T, V = (sizes[n] for n in ("L", "d", "B", "T", "V"))
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(deviation: float, *shape: int) -> Tensor:
        return (torch.randn(*shape, device="cuda", generator=generator) * deviation).bfloat16()

    drawn = {"E": normal(1, V, d), "Wq": normal(d ** -0.5, L, d, d), "Wk": normal(d ** -0.5, L, d, d),
             "Wv": normal((2 * L * d) ** -0.5, L, d, d), "W1": normal(d ** -0.5, L, d, 4 * d),
             "W2": normal((4 * d) ** -0.5, L, 4 * d, d), "Wp": normal((2 * L * d) ** -0.5, L, d, d),
             "U": normal(d ** -0.5, d, V)}
    tokens = {n: torch.randint(0, V, (B, T), device="cuda", generator=generator) for n in ("tok", "target")}
    return drawn | tokens


def flops(sizes: dict[str, int]) -> float:
    """Of a step: three times the forward products, attention over half of the square."""
    L, d, B, T, V = (sizes[n] for n in ("L", "d", "B", "T", "V"))
    forward = 2 * B * T * (L * 12 * d * d + d * V) + L * 4 * B * T * T * d / 2
    return 3.0 * forward


def model(sizes: dict[str, int], checkpointed: bool = False) -> Loss:
    """The program as a torch user writes it, attention by `scaled_dot_product_attention`."""
    B, T, H = (sizes[n] for n in "BTH")

    def layer(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, w1: Tensor, w2: Tensor, wp: Tensor) -> Tensor:
        q, k, v = ((x @ w).view(B, T, H, -1).transpose(1, 2) for w in (wq, wk, wv))
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + seen.transpose(1, 2).reshape(B * T, -1)
        return x + functional.gelu(functional.gelu(x @ w1) @ w2) @ wp

    def loss(p: dict[str, Tensor]) -> Tensor:
        x = functional.embedding(p["tok"].view(-1), p["E"])
        for layer_number in range(sizes["L"]):
            weights = [p[n][layer_number] for n in ("Wq", "Wk", "Wv", "W1", "W2", "Wp")]
            x = checkpoint(layer, x, *weights, use_reentrant=False) if checkpointed else layer(x, *weights)
        return functional.cross_entropy(x @ p["U"], p["target"].view(-1))

    return loss


def timed(step: Callable[[], Any], runs: int = 12) -> tuple[float, float]:
    """Milliseconds of a step, and of the first call, compilation included."""
    begin = time.perf_counter()
    step()
    torch.cuda.synchronize()
    first = 1e3 * (time.perf_counter() - begin)
    for _ in range(3):
        step()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(marks)), first


def ours(sizes: dict[str, int], given: dict[str, Tensor], budget: float) -> tuple[float, float, float, float]:
    """Milliseconds, first call in seconds (planning left out), MiB measured and MiB predicted."""
    begin = time.perf_counter()
    f = slpc.compile(str(MODEL), grad=True, backend="torch", device="cuda", recompute_budget=budget, graph=True,
                     dtype="bf16", **sizes)
    assert f.plan is not None
    print(f"    planned and emitted in {time.perf_counter() - begin:.1f} s", flush=True)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found: list[Any] = []
    step = lambda: found.append(f.flat(**given)) or found[:-1].clear()  # noqa: E731
    ms, first = timed(step)
    peak = torch.cuda.max_memory_allocated() - before
    assert math.isfinite(float(found[-1][0])), "the loss is not finite"
    return ms, first / 1e3, peak / 2**20, f.plan.peak_bytes / 2**20


def theirs(loss: Loss, given: dict[str, Tensor]) -> tuple[float, float, float]:
    """Milliseconds, first call in seconds, MiB: forward and backward, gradients new each time."""
    parameters = [v for v in given.values() if v.is_floating_point()]
    for p in parameters:
        p.requires_grad_(True)
        p.grad = None
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        for p in parameters:
            p.grad = None
        loss(given).backward()

    ms, first = timed(step)
    peak = torch.cuda.max_memory_allocated() - before
    for p in parameters:
        p.requires_grad_(False)
        p.grad = None
    return ms, first / 1e3, peak / 2**20


def peer(name: str, sizes: dict[str, int]) -> Loss:
    """eager, checkpoint, compile, compile:BUDGET."""
    kind, _, budget = name.partition(":")
    loss = model(sizes, checkpointed=kind == "checkpoint")
    if kind != "compile":
        return loss
    import torch._functorch.config as functorch

    torch._dynamo.reset()
    functorch.activation_memory_budget = float(budget or 1)
    return torch.compile(loss)


def ceiling() -> float:
    """What a product of 8192 x 8192 reaches."""
    x, y = (torch.randn(8192, 8192, device="cuda").bfloat16() for _ in range(2))
    ms, _ = timed(lambda: x @ y)
    return 2 * 8192**3 / ms * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", default="0,0.05,0.1,0.2,0.32,0.4,0.55,0.75,1")
    parser.add_argument("--peers", default="eager,compile,compile:0.9,compile:0.7,compile:0.5,compile:0.3,compile:0.1,"
                                           "checkpoint")
    parser.add_argument("--sizes", default="L=12,d=1024,H=16,B=8,T=2048,V=32768")
    parser.add_argument("--attention", action="store_true", help="a table of attention alone")
    parser.add_argument("--picture", metavar="FILE", help="time against peak")
    parser.add_argument("--profile", action="store_true", help="where the time of the first budget goes")
    options = parser.parse_args()
    sizes = {name: int(n) for name, n in (pair.split("=") for pair in options.sizes.split(","))}
    given = inputs(sizes)
    most = ceiling()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}: {most / 1e12:.0f} TFLOP/s in a large product")
    print(f"A step is {flops(sizes) / 1e12:.1f} TFLOP.\n", flush=True)
    rows = ["| who | ms | MFU | of a large product | peak MiB | predicted | first call s |",
            "|---|---|---|---|---|---|---|"]

    points: list[tuple[str, float, float]] = []

    def row(who: str, ms: float, first: float, peak: float, predicted: float | None = None) -> None:
        points.append((who, ms, peak))
        rate = flops(sizes) / ms * 1e3
        rows.append(f"| {who} | {ms:.1f} | {rate / SHEET:.1%} | {rate / most:.1%} | {peak:.0f} | "
                    f"{'' if predicted is None else f'{predicted:.0f}'} | {first:.1f} |")
        print(rows[-1], flush=True)

    for budget in filter(None, options.budgets.split(",")):
        row(f"slpc, budget {budget}", *_caught(lambda budget=budget: ours(sizes, given, float(budget))))
    for name in filter(None, options.peers.split(",")):
        row(f"torch {name}", *_caught(lambda name=name: theirs(peer(name, sizes), given)))
    if options.profile:
        _profile(sizes, given, float(options.budgets.split(",")[0]))
    print("\n" + "\n".join(rows))
    if options.attention:
        import gpu_attention

        gpu_attention.table(timed)
    if options.picture:
        picture(points, options.picture)


def picture(points: list[tuple[str, float, float]], file: str) -> None:
    """Milliseconds against MiB of each plan of ours and each way of torch's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.8, 4.0), layout="constrained")
    axes = figure.subplots()
    groups = {"slpc, by budget": ("slpc", "o-", "#0072b2"),
              "torch.compile, by memory budget": ("torch compile", "s", "#d55e00"),
              "torch eager and checkpoint": ("torch", "^", "#999999")}
    left = [p for p in points if not any(map(math.isnan, p[1:]))]
    for title, (begin, style, colour) in groups.items():
        mine = [p for p in left if p[0].startswith(begin)]
        left = [p for p in left if p not in mine]
        axes.plot([peak for _, _, peak in mine], [ms for _, ms, _ in mine], style, color=colour, label=title)
        for who, ms, peak in mine:
            axes.annotate(who.removeprefix("slpc, budget ").removeprefix("torch "), (peak, ms), fontsize=7,
                          xytext=(4, 3), textcoords="offset points")
    axes.set_xscale("log", base=2)
    axes.set_xticks([n << 9 for n in (1, 2, 4, 8, 16, 32)], ["0.5", "1", "2", "4", "8", "16"])
    axes.set_xlabel("peak beyond parameters and inputs, GiB")
    axes.set_ylabel("ms a step")
    axes.set_title("Loss and all gradients of the transformer, one H200, bf16")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, metadata={"Date": None} if file.endswith(".svg") else None)


def _caught(run: Callable[[], tuple[float, ...]]) -> tuple[Any, ...]:
    try:
        return run()
    except Exception as error:
        print(f"    {type(error).__name__}: {str(error)[:2000]}", flush=True)
        return math.nan, math.nan, math.nan


def _profile(sizes: dict[str, int], given: dict[str, Tensor], budget: float) -> None:
    from torch.profiler import ProfilerActivity, profile

    f = slpc.compile(str(MODEL), grad=True, backend="torch", device="cuda", recompute_budget=budget, dtype="bf16",
                     **sizes)
    f.flat(**given)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        f.flat(**given)
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="cuda_time_total", row_limit=24, max_name_column_width=60))


if __name__ == "__main__":
    main()

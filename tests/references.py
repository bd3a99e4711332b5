"""What each program of programs/ computes, in torch, written from the mathematics and not from the .slp text.

Wherever torch has another way to the same number it is taken: a likelihood from the joint Gaussian instead of a filter,
a rotation from a matrix exponential instead of Rodrigues' formula. A reference takes the inputs by name and the
constants of the program as keywords, and returns all outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.nn import functional

Inputs = dict[str, Tensor]
Outputs = tuple[Tensor, ...]


def lecture(p: Inputs) -> Outputs:
    ratio, decay = 3 * p["w1"] / p["w2"], torch.exp(2 * p["w2"])
    return ((torch.sin(2 * math.pi * p["w1"] / p["w2"]) + ratio - decay) * (ratio - decay),)


def product(p: Inputs, **sizes: Any) -> Outputs:
    return (torch.prod(p["x"]),)


def rosenbrock(p: Inputs) -> Outputs:
    x, y = p["x"], p["y"]
    return (torch.square(1 - x) + 100 * torch.square(y - torch.square(x)),)


def kepler(p: Inputs, *, mu: float = 1.0, steps: int = 50, h: float = 0.05) -> Outputs:
    def slope(s: Tensor) -> Tensor:
        return torch.cat([s[2:], -mu * s[:2] / torch.linalg.norm(s[:2]) ** 3])

    s = torch.stack([p["x"], p["y"], p["vx"], p["vy"]])
    for _ in range(steps):
        k1 = slope(s)
        k2 = slope(s + h / 2 * k1)
        k3 = slope(s + h / 2 * k2)
        k4 = slope(s + h * k3)
        s = s + h * (k1 / 6 + k2 / 3 + k3 / 3 + k4 / 6)
    distance = torch.linalg.norm(s[:2])
    return distance, torch.dot(s[2:], s[2:]) / 2 - mu / distance


def black_scholes(p: Inputs) -> Outputs:
    total = p["sigma"] * torch.sqrt(p["T"])
    forward = p["S"] * torch.exp(p["r"] * p["T"])
    moneyness = torch.log(forward / p["K"]) / total
    paid = p["K"] * torch.special.ndtr(moneyness - total / 2)
    return (torch.exp(-p["r"] * p["T"]) * (forward * torch.special.ndtr(moneyness + total / 2) - paid),)


def mlp(p: Inputs, **sizes: Any) -> Outputs:
    x = p["X"].mT
    for w in p["W"]:
        x = functional.sigmoid(functional.linear(x, w))
    return (functional.mse_loss(torch.mv(x, p["w"]), p["Y"]),)


def attention(p: Inputs, **sizes: Any) -> Outputs:
    weights = torch.einsum("id,jd->ij", p["Q"], p["K"]).exp()
    return (torch.einsum("ij,jd,id->", weights, p["V"], p["Y"]),)


def softmax_attention(p: Inputs, **sizes: Any) -> Outputs:
    q, k, v = (p[name][None, None] for name in "QKV")
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return (torch.tensordot(out[0, 0], p["Y"], dims=2),)


def transformer(p: Inputs, *, H: int = 4, **sizes: Any) -> Outputs:
    x = functional.embedding(p["tok"], p["E"])
    for wq, wk, wv, w1, w2, wp in zip(*(p[name] for name in ("Wq", "Wk", "Wv", "W1", "W2", "Wp")), strict=True):
        heads = [(x @ w).unflatten(-1, (H, -1)).transpose(1, 2) for w in (wq, wk, wv)]
        mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + mixed.transpose(1, 2).flatten(2)
        x = x + functional.gelu(functional.gelu(x @ w1) @ w2) @ wp
    return (functional.cross_entropy((x @ p["U"]).flatten(0, 1), p["target"].flatten()),)


def lstm(p: Inputs, **sizes: Any) -> Outputs:
    steps, batch, d = p["X"].shape
    n = p["w"].shape[0]
    h = c = p["X"].new_zeros((batch, n))
    predictions = []
    for t in range(steps):
        h, c = torch.lstm_cell(p["X"][t], (h, c), p["W"][:d].mT, p["W"][d:].mT, p["b"], torch.zeros_like(p["b"]))
        predictions.append(torch.mv(h, p["w"]))
    return (functional.mse_loss(torch.stack(predictions), p["Y"]),)


def kalman(p: Inputs, *, N: int = 20, h: float = 0.5) -> Outputs:
    """No filter: all positions are jointly Gaussian, x(t) = x + v t + an integrated Brownian motion."""
    t = h * torch.arange(1, N + 1, dtype=p["q"].dtype)
    early, late = torch.minimum(t[:, None], t), torch.maximum(t[:, None], t)
    covariance = p["a"] + p["c"] * torch.outer(t, t) + p["q"] * early**2 * (3 * late - early) / 6
    covariance = covariance + p["r"] * torch.eye(N, dtype=t.dtype)
    return (-MultivariateNormal(p["x"] + p["v"] * t, covariance).log_prob(p["y"]),)


def bundle_adjustment(p: Inputs) -> Outputs:
    """The rotation is the exponential of the matrix of the cross product with r."""
    r1, r2, r3 = (p[name] for name in ("r1", "r2", "r3"))
    zero = torch.zeros_like(r1)
    generator = torch.stack([zero, -r3, r2, r3, zero, -r1, -r2, r1, zero]).reshape(3, 3)
    seen = torch.stack([p[f"X{i}"] - p[f"C{i}"] for i in (1, 2, 3)])
    x, y, z = torch.linalg.matrix_exp(generator) @ seen
    rho = (x / z) ** 2 + (y / z) ** 2
    scale = p["f"] * (1 + rho * (p["k1"] + rho * p["k2"])) / z
    return p["w"] * (scale * x + p["u0"] - p["u_seen"]), p["w"] * (scale * y + p["v0"] - p["v_seen"])


def gmm(p: Inputs, **sizes: Any) -> Outputs:
    components, d = p["mu"].shape
    rows, columns = torch.tril_indices(d, d, -1)
    root = torch.diag_embed(p["q"].exp())
    root = root.index_put((torch.arange(components)[:, None], rows, columns), p["l"])
    gaussians = MultivariateNormal(p["mu"], precision_matrix=root.mT @ root)
    return (MixtureSameFamily(Categorical(logits=p["alpha"]), gaussians).log_prob(p["x"]).sum(),)


REFERENCES: dict[str, Callable[..., Outputs]] = {
    reference.__name__: reference
    for reference in (lecture, product, rosenbrock, kepler, black_scholes, mlp, attention, softmax_attention,
                      transformer, lstm, kalman, bundle_adjustment, gmm)
}

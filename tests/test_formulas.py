"""The lecture's memory formulas against what the compiler counts, symbol by symbol: see docs/formulas.md.

Each expectation is derived by hand in the comment beside it. A formula holds if it holds at sizes drawn at random,
of which there are more than it has terms.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import slpc
from slpc.ir.graph import Graph
from slpc.ir.ops import OPS
from slpc.ir.target import Target
from slpc.passes.checkpoint import Plan, plan
from slpc.passes.liveness import lives
from slpc.passes.simplify import simplify
from slpc.passes.tasks import tasks

PROGRAMS = Path(__file__).parent.parent / "programs"
PLAIN = Target("plain", alignment=1)
IN_PLACE = Target("in place", alignment=1, in_place={name: tuple(range(len(op.operands)))
                                                     for name, op in OPS.items() if op.elementwise})
DRAWS = 8
F32 = 4
Sizes = dict[str, int]


def one_operation(program: str) -> str:
    """The program with a nonlinearity that is one operation, as the lecture draws it."""
    text = (PROGRAMS / program).read_text("utf-8")
    changed = text.replace("return sigmoid(z)", "return tanh(z)").replace("return gelu(X)", "return tanh(X)")
    assert changed != text
    return changed


def drawn(**ranges: tuple[int, int]) -> Iterator[Sizes]:
    source = random.Random(0)
    for _ in range(DRAWS):
        yield {name: source.randint(*ends) for name, ends in ranges.items()}


def perceptrons() -> Iterator[Sizes]:
    return drawn(L=(2, 6), d=(2, 9), m=(20, 40))


def transformers() -> Iterator[Sizes]:
    for sizes in drawn(L=(2, 4), d=(2, 6), H=(2, 4), T=(5, 16), V=(7, 30)):
        yield {**sizes, "d": sizes["d"] * sizes["H"], "B": 1}


def stored(graph: Graph) -> int:
    """Bytes of the forward pass's values that the backward pass reads: what reverse mode stores."""
    seen = tasks(slpc.adjoint(graph), PLAIN)
    return sum(seen.bytes[b] for b, writer in enumerate(seen.writer)
               if seen.forward[writer] and not all(seen.forward[r] for r in seen.readers[b]))


def peak(graph: Graph, target: Target = PLAIN) -> int:
    seen = tasks(graph, target)
    return lives(seen, seen.order).peak


# The MLP: X <- sigma(W X), L times; X is d x m ------------------------------------------------------------------

def test_mlp_parameters() -> None:
    for s in perceptrons():
        L, d = s["L"], s["d"]
        assert sum(v.type.size for v in slpc.load(PROGRAMS / "mlp.slp", **s).parameters) == L * d * d + d


def test_mlp_graph_is_l_d_m() -> None:
    """tanh's derivative needs its result alone, so each layer stores its X; the loss stores what it squares."""
    for s in perceptrons():
        L, d, m = s["L"], s["d"], s["m"]
        assert stored(slpc.parse(one_operation("mlp.slp"), **s)) == F32 * (L * d * m + m)


def test_mlp_graph_with_the_logistic_function() -> None:
    """The program as it is: sigmoid's derivative needs its result alone, too."""
    for s in perceptrons():
        L, d, m = s["L"], s["d"], s["m"]
        assert stored(slpc.load(PROGRAMS / "mlp.slp", **s)) == F32 * (L * d * m + m)


@pytest.mark.parametrize("target", [PLAIN, IN_PLACE], ids=lambda t: t.name)
def test_mlp_forward_is_two_buffers(target: Target) -> None:
    """A product cannot be written over its operand, and then sigma's result takes the place of one of the two."""
    for s in perceptrons():
        assert peak(slpc.parse(one_operation("mlp.slp"), **s), target) == 2 * F32 * s["d"] * s["m"]


def test_mlp_gradient_is_the_graph_and_two_buffers() -> None:
    """At the turn, all L values, the cotangent of the last and what tanh's derivative makes of it, in place where that
    is possible; the loss and the cotangent of w, which are outputs, are there already. Then values are given back
    faster than gradients of weights are made, for there are more samples than d^2."""
    for s in drawn(L=(2, 6), d=(2, 5), m=(30, 60)):
        L, d, m = s["L"], s["d"], s["m"]
        gradient = slpc.adjoint(slpc.parse(one_operation("mlp.slp"), **s))
        assert peak(gradient) == F32 * (L * d * m + 2 * d * m + d + 1)
        assert peak(gradient, IN_PLACE) == F32 * (L * d * m + d * m + m + d + 1)


# The transformer: T tokens of d columns, H heads, V words, L layers ----------------------------------------------

def test_transformer_parameters() -> None:
    """Q, K, V: 3 d^2; the MLP: 4 d^2 + 4 d^2 + d^2; embedding and read-out."""
    for s in transformers():
        L, d, V = s["L"], s["d"], s["V"]
        graph = slpc.load(PROGRAMS / "transformer.slp", **s)
        assert sum(v.type.size for v in graph.parameters) == 12 * d * d * L + 2 * d * V


def _besides(s: Sizes) -> int:
    """What the lecture's formula leaves out: the mask in bytes, the last X and the rows' indices as i64, and the sums
    of the softmax over each row of scores, H T a layer, and of logits, T."""
    L, d, H, T = s["L"], s["d"], s["H"], s["T"]
    return T * T + F32 * d * T + 8 * T + F32 * (L * H * T + T)


def test_transformer_graph() -> None:
    """A layer stores X, Q, K, V (4 d T), what its MLP reads (d T), sigma twice (5 d T); exp(scores) and the quotient
    (2 H T^2); the loss exp(logits)."""
    for s in transformers():
        L, d, H, T, V = (s[name] for name in "LdHTV")
        expected = F32 * (10 * L * d * T + 2 * L * H * T * T + V * T) + _besides(s)
        assert stored(slpc.parse(one_operation("transformer.slp"), **s)) == expected


def test_transformer_graph_with_gelu() -> None:
    """gelu(x) is x (1 + erf(x / sqrt(2))) / 2: x / 2, x / sqrt(2), 1 + erf and the result are stored, not one value."""
    for s in transformers():
        L, d, H, T, V = (s[name] for name in "LdHTV")
        expected = F32 * ((10 + 3 * 5) * L * d * T + 2 * L * H * T * T + V * T) + _besides(s)
        assert stored(slpc.load(PROGRAMS / "transformer.slp", **s)) == expected


def test_transformer_forward() -> None:
    """One layer at a time, whatever L: where T x T is largest, X, V, the mask and the scores of all heads."""
    for s in transformers():
        d, H, T = s["d"], s["H"], 64 + s["T"]
        graph = simplify(slpc.parse(one_operation("transformer.slp"), **{**s, "T": T}))
        assert peak(graph) == F32 * (2 * H * T * T + 2 * d * T + H * T) + T * T + 8 * T
        assert peak(graph, IN_PLACE) == F32 * (H * T * T + 4 * d * T) + T * T + 8 * T


# What is given up -----------------------------------------------------------------------------------------------

def planned(program: str, policy: str, target: Target = PLAIN, **sizes: int) -> Plan:
    return plan(slpc.adjoint(slpc.parse(one_operation(program), **sizes)), target, policy=policy)


def kept(found: Plan) -> int:
    sizes = dict(zip((v.name for v in found.tasks.values), found.tasks.bytes, strict=True))
    return sum(sizes[name] for name in found.kept)


@pytest.mark.parametrize("root", [3, 4, 5, 6])
def test_mlp_every_square_root_of_l(root: int) -> None:
    """sqrt(L) values between stretches, those of one stretch of sqrt(L), and the cotangent."""
    d, m = 4, 64
    found = planned("mlp.slp", "sqrt", L=root**2, d=d, m=m)
    assert found.lives.peak == F32 * ((2 * root + 1) * d * m + d + 1)
    assert found.recompute_fraction < 1


def long_sequences() -> Iterator[Sizes]:
    """T x T is largest: T is far above d."""
    for s in drawn(L=(3, 5), d=(2, 4), H=(2, 3), T=(200, 300), V=(3, 7)):
        yield {**s, "d": s["d"] * s["H"], "B": 1}


def _turn(s: Sizes, squares: int) -> int:
    """What is there in the top layer's attention besides what is kept: so many H T^2, the mask's bytes, and the
    gradients that are made by then, of the read-out and of the layer's MLP, with the loss."""
    d, H, T, V = (s[name] for name in "dHTV")
    return F32 * (squares * H * T * T + d * V + 9 * d * d + 1) + T * T


@pytest.mark.parametrize(("target", "squares"), [(PLAIN, 4), (IN_PLACE, 3)], ids=["plain", "in place"])
def test_transformer_option_1(target: Target, squares: int) -> None:
    """Block inputs are kept, L d T and the last X. At the peak the layer's Q, K, V and a cotangent stand beside them
    (4 d T, of which the formula has one in the last X), with the sums of softmax; the MLP's part is gone by then."""
    for s in long_sequences():
        L, d, H, T = (s[name] for name in "LdHT")
        found = planned("transformer.slp", "blocks", target, **s)
        assert kept(found) == F32 * (L * d * T + d * T)
        assert found.lives.peak == F32 * (L * d * T + 4 * d * T + H * T) + _turn(s, squares)
        assert 0.8 < found.recompute_fraction < 1


@pytest.mark.parametrize(("target", "squares"), [(PLAIN, 4), (IN_PLACE, 3)], ids=["plain", "in place"])
def test_transformer_option_2(target: Target, squares: int) -> None:
    """All but the T x T: at the peak, the top layer's MLP has given back what it stored (6 d T)."""
    for s in long_sequences():
        L, d, H, T, V = (s[name] for name in "LdHTV")
        found = planned("transformer.slp", "no-square", target, **s)
        assert kept(found) == F32 * (10 * L * d * T + V * T) + _besides(s)
        assert found.lives.peak == F32 * (10 * L * d * T - 5 * d * T + 2 * L * H * T - H * T) + _turn(s, squares)
        again = list(found.order)
        for task in found.tasks.order:
            again.remove(task)
        products = sum(found.tasks.flops[t] for t in again if found.tasks.nodes[t].op.name == "matmul")
        assert products == L * 2 * T * T * d

"""Fusion: every spelling of attention is found by its structure, nothing T x T is left outside a region, and the value,
gradient and second derivative are those of the unfused program."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from slpc import samples
from slpc.backends import numpy_backend
from slpc.ir.diagnostics import SlpError
from slpc.ir.graph import Graph
from slpc.ir.parse import parse
from slpc.ir.verify import verify
from slpc.passes.adjoint import adjoint
from slpc.passes.batch import by_batch
from slpc.passes.cost import flops
from slpc.passes.fuse import fuse, refusals
from slpc.passes.legalize import legalize
from slpc.passes.merge import merge
from slpc.passes.regions import computed_again_inside, unfused
from slpc.passes.simplify import simplify
from slpc.passes.tangent import tangent

T, S, D, E = 24, 20, 3, 5
"""Queries, keys, width of both, width of the values: all different, so that a T x S value is known by its size."""

SINGLE = {
    "exp": "exp(Q @ K.T) @ V",
    "softmax": "softmax(Q @ K.T / D ** 0.5) @ V",
    "written out": "normalised(exp(Q @ K.T - max(Q @ K.T, axis=1, keepdims=True))) @ V",
    "by logsumexp": "exp(Q @ K.T - logsumexp(Q @ K.T, axis=-1, keepdims=True)) @ V",
    "normalised after": "(exp(Q @ K.T) @ V) / sum(exp(Q @ K.T), axis=1, keepdims=True)",
    "sigmoid": "sigmoid(Q @ K.T) @ V",
    "squared relu": "square(relu(Q @ K.T)) @ V",
    "scale before": "softmax((Q / 3) @ K.T) @ V",
    "scale after": "softmax((Q @ K.T) * 0.3) @ V",
    "causal": "softmax(where(j <= i, Q @ K.T, -inf)) @ V",
    "window": "softmax(where((j <= i + 2) & (j > i - 9), Q @ K.T, -1e9)) @ V",
    "padding": "softmax(where((pad > 0)[None, :], Q @ K.T, -1e9)) @ V",
    "additive bias": "softmax(Q @ K.T + bias) @ V",
    "alibi": "softmax(Q @ K.T - 0.1 * abs(astype(i - j, f64))) @ V",
    "soft cap": "softmax(5 * tanh(Q @ K.T / 5)) @ V",
    "keys in rows": "(V.T @ softmax(K @ Q.T, axis=0)).T",
    "distances": "exp(-sum(square(Q[:, None, :] - K[None, :, :]), axis=-1)) @ V",
    "layernorm around": "layernorm(softmax(layernorm(Q) @ K.T) @ V)",
    "cast inside": "astype(astype(softmax(Q @ K.T), f32), f64) @ V",
}

PROGRAM = """
T, S, D, E = 24, 20, 3, 5

def normalised(x):
    return x / sum(x, axis=1, keepdims=True)

def f(Q: f64[T, D], K: f64[S, D], V: f64[S, E], bias: f64[T, S], *, pad: f64[S], Y: f64[T, E]):
    i, j = arange(T)[:, None], arange(S)[None, :]
    return sum(Y * ({}))
"""

HEADS = {
    "heads": "softmax(Q @ K.mT) @ V",
    "heads, causal": "softmax(where(j <= i, Q @ K.mT, -inf)) @ V",
    "heads, alibi": "softmax(Q @ K.mT + slope[:, None, None] * astype(j - i, f64)) @ V",
    "grouped": "reshape(softmax(reshape(Q, (B, H, 2, T, D)) @ K[:, :, None].mT) @ V[:, :, None], (B, 2 * H, T, E))",
}

OF_HEADS = """
B, H, T, S, D, E = 2, 3, 24, 20, 3, 5

def f(Q: f64[B, {q}, T, D], K: f64[B, H, S, D], V: f64[B, H, S, E], *, slope: f64[H], Y: f64[B, {q}, T, E]):
    i, j = arange(T)[:, None], arange(S)[None, :]
    return sum(Y * ({body}))
"""


def _programs() -> dict[str, Graph]:
    single = {name: PROGRAM.format(body) for name, body in SINGLE.items()}
    heads = {name: OF_HEADS.format(body=body, q="2 * H" if name == "grouped" else "H") for name, body in HEADS.items()}
    return {name: simplify(parse(text)) for name, text in {**single, **heads}.items()}


PROGRAMS = _programs()


def run(graph: Graph, inputs: dict[str, object]) -> list[numpy.ndarray]:
    """The program without regions, on NumPy."""
    legal = legalize(verify(unfused(graph)), numpy_backend.TARGET)
    return [numpy.asarray(x) for x in numpy_backend.load(numpy_backend.emit(legal))(*[inputs[v.name] for v in
                                                                                   legal.inputs])]


def agree(fused: Graph, plain: Graph, most: float) -> None:
    """Equal results on a sample, to `most` units in the last place of the largest element."""
    inputs = samples.draw(plain, 1)
    assert {v.name: v.type for v in fused.inputs} == {v.name: v.type for v in plain.inputs}
    for x, y in zip(run(fused, inputs), run(plain, inputs), strict=True):
        scale = numpy.max(numpy.abs(y), initial=1e-300)
        assert numpy.max(numpy.abs(x - y), initial=0.0) <= most * numpy.finfo(y.dtype).eps * scale


def square_values(graph: Graph) -> list[str]:
    """Values outside regions as large as one matrix of scores; inputs and views, which own nothing, aside."""
    return [v.name for n in graph.nodes if not n.op.view for v in n.results
            if v.shape[-2:] in ((T, S), (S, T)) and not v.name.startswith("bias_bar")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_attention_is_found(name: str) -> None:
    """However it is written: value, gradient, and the tangent of the gradient."""
    plain = PROGRAMS[name]
    fused = verify(fuse(plain))
    assert [n for n in fused.nodes if n.op.name == "region"], refusals(plain)
    assert not square_values(fused)
    agree(fused, plain, 0)
    gradient = verify(simplify(adjoint(fused)))
    assert not square_values(gradient)
    assert str(parse(str(gradient))) == str(gradient)
    agree(gradient, simplify(adjoint(plain)), 8)
    second = verify(simplify(tangent(gradient)))
    assert not square_values(second)
    agree(second, simplify(tangent(simplify(adjoint(plain)))), 64)


def test_equal_layers_share_a_body() -> None:
    text = """
def f(X: f32[64, 8], W: f32[4, 8, 8]):
    for l in range(4):
        X = X + softmax((X @ W[l]) @ X.T) @ X
    return sum(X)
"""
    fused = fuse(simplify(parse(text)))
    assert len(list(fused.regions())) == 1
    assert sum(n.op.name == "region" for n in fused.nodes) == 4


def test_statistics_are_kept_for_the_derivative() -> None:
    """The maximum and the sum of each row are results, so that the derivative does not reduce again for them."""
    gradient = simplify(adjoint(fuse(PROGRAMS["softmax"])))
    forward, backward = gradient.regions()
    assert [v.shape for v in forward.outputs] == [(T, E), (T,), (T,)]
    assert not [n for n in backward.nodes if n.op.name == "max"]


@pytest.mark.parametrize(("body", "reason"), [
    ("softmax(softmax(Q @ K.T, axis=0), axis=1) @ V", "mixes the rows"),
    ("softmax(Q @ K.T - sum(Q @ K.T, axis=0)) @ V", "a sum over the rows"),
    ("softmax(cumsum(Q @ K.T, axis=0)) @ V", "mixes the rows"),
])
def test_what_mixes_rows_is_left_alone(body: str, reason: str) -> None:
    plain = simplify(parse(PROGRAM.format(body)))
    assert fuse(plain) is plain
    assert any(reason in refused.reason for refused in refusals(plain))


@pytest.mark.parametrize("line", ["x[i] + x", "scatter_add(x, i, shape=(8, 3)) + x"])
def test_rows_looked_up_by_data_are_other_rows(line: str) -> None:
    with pytest.raises(SlpError, match="E0121"):
        parse(f"@tile(rows=2)\ndef g(x, i):\n    return {line}\n\n"
              "def f(x: f64[8, 3], i: i64[8]):\n    return sum(g(x, i))")


def test_columns_can_be_the_rows() -> None:
    """A softmax over the queries works key by key: the part runs by blocks of keys, and the result accumulates."""
    fused = fuse(simplify(parse(PROGRAM.format("softmax(Q @ K.T, axis=0) @ V"))))
    (body,) = fused.regions()
    assert body.inputs[0].name == "K"
    assert not square_values(fused)


def test_scores_that_are_returned_are_stored() -> None:
    plain = simplify(parse("def f(Q: f64[24, 3], K: f64[20, 3]):\n    S = exp(Q @ K.T)\n    return S, sum(S)"))
    assert fuse(plain) is plain
    assert "is an output" in refusals(plain)[0].reason


def test_what_gives_sums_as_large_as_it_spares_is_left_alone() -> None:
    """Hidden units as rows: each block would add to all of the layer behind, which is as large as the hidden one."""
    plain = simplify(parse("def f(W: f64[3, 4], U: f64[9, 3], *, X: f64[4, 50]):\n    return exp(U @ exp(W @ X))"))
    assert fuse(plain, least=2.0) is plain
    small = simplify(parse("def f(W: f64[9, 4], U: f64[2, 9], *, X: f64[4, 50]):\n    return exp(U @ exp(W @ X))"))
    assert fuse(small, least=2.0) is not small


def test_scheduled_programs_are_left_alone() -> None:
    plain = parse("@scheduled\n" + str(PROGRAMS["exp"]).lstrip())
    assert fuse(plain) is plain


LOSS = """
T, V, d = 40, 30, 4

def loss(X: f64[T, d], U: f64[d, V], *, target: i64[T] = integers(0, 30)):
    logits = X @ U
    return mean({})
"""


@pytest.mark.parametrize("body", ["logsumexp(logits, axis=-1) - logits[arange(T), target]",
                                  "-take_along_axis(log_softmax(logits), target[:, None], axis=-1)[:, 0]",
                                  "-log(softmax(logits))[arange(T), target]"])
def test_a_loss_and_its_adjoint_become_one(body: str) -> None:
    """Three products with the logits, one for each of logits, X_bar and U_bar: nothing is computed twice."""
    plain = simplify(parse(LOSS.format(body)))
    separate = simplify(adjoint(fuse(plain)))
    merged = simplify(verify(merge(separate)))
    assert len(list(separate.regions())) == 2
    (region,) = merged.regions()
    assert sum(n.op.name == "matmul" for n in region.nodes) == 3
    assert flops(merged) < flops(separate)
    assert not [v for n in merged.nodes for v in n.results if v.shape == (40, 30)]
    agree(merged, simplify(adjoint(plain)), 8)
    assert merge(merged) is merged


def test_layers_apart_are_not_merged() -> None:
    """Between attention and its adjoint lies what needs all rows."""
    plain = simplify(parse("""
def f(Q: f64[24, 3], K: f64[20, 3], V: f64[20, 5]):
    R = softmax(Q @ K.T) @ V
    return sum(max(R, axis=0))
"""))
    gradient = simplify(adjoint(fuse(plain)))
    assert merge(gradient) is gradient


MLP = """
L, d, m = 3, 4, 50

def loss(W: f64[L, d, d], b: f64[L, d], w: f64[d], *, X: f64[m, d], Y: f64[m]):
    for l in range(L):
        X = sigmoid({} + b[l])
    return mean((Y - X @ w) ** 2)
"""


def test_a_network_by_batch() -> None:
    """Value and gradient by blocks of samples: no activation of all samples is left outside, none is computed twice."""
    plain = simplify(adjoint(simplify(parse(MLP.format("X @ W[l]")))))
    whole = simplify(verify(by_batch(plain, least=1.0)))
    assert len(list(whole.regions())) == 1
    assert not [v for n in whole.nodes for v in n.results if v.shape == (50, 4)]
    assert flops(whole) == flops(plain)
    agree(whole, plain, 8)


def test_samples_in_columns() -> None:
    """As the lecture has them: the columns of X are the samples."""
    plain = simplify(adjoint(simplify(parse("""
def loss(W: f64[3, 4, 4], *, X: f64[4, 50], Y: f64[50]):
    for l in range(3):
        X = tanh(W[l] @ X)
    return sum((Y - sum(X, axis=0)) ** 2)
"""))))
    whole = simplify(verify(by_batch(plain, least=1.0)))
    assert len(list(whole.regions())) == 1
    agree(whole, plain, 8)


def test_samples_that_meet_are_left_alone() -> None:
    """A normalisation over the batch."""
    plain = simplify(adjoint(simplify(parse(MLP.format("(X - mean(X, axis=0)) @ W[l]")))))
    assert by_batch(plain, least=1.0) is plain


def test_the_page_shows_what_comes_out() -> None:
    tests = Path(__file__).parent
    golden = (tests / "golden" / "fuse_attention.slp").read_text("utf-8").split("# ----\n")[1]
    assert f"```text\n{golden}```" in (tests.parent / "docs" / "attention.md").read_text("utf-8")


def test_what_regions_compute_again_is_told() -> None:
    """The scores of each layer once more, a product and what follows, less the maximum and the sum, which are kept."""
    text = """
def f(Q: f64[40, 3], K: f64[30, 3], V: f64[30, 5]):
    R = softmax(Q @ K.T) @ V
    return sum(max(R, axis=0))
"""
    gradient = simplify(adjoint(fuse(simplify(parse(text)))))
    product, shift, exponential, quotient = 2 * 40 * 30 * 3, 40 * 30, 10 * 40 * 30, 3 * 40 * 30
    assert computed_again_inside(gradient) == product + shift + exponential + quotient
    assert computed_again_inside(simplify(adjoint(simplify(parse(text))))) == 0

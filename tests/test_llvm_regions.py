"""Regions on the backend llvm: by blocks of any size, results are those of the unfused program."""

from __future__ import annotations

import numpy
import pytest

import slpc
from slpc import samples
from slpc.passes.regions import unfused

PROGRAM = """
T, S, d, e = {T}, 50, 8, 6
dtype = {dtype}

@tile(rows={rows})
def attend(q, k, v):
    s = q @ k.T / d ** 0.5
    i, j = arange(T)[:, None], arange(S)[None, :]
    s = where(j <= i, s, -inf)
    return softmax(s) @ v, sum(q, axis=0)

def f(Q: dtype[T, d], W: dtype[d, S], V: dtype[S, e], *, Y: dtype[T, e]):
    R, total = attend(Q, W.T, V)
    return sum(Y * R) + sum(total * total)
"""


def agree(text: str) -> None:
    gradient = slpc.adjoint(slpc.parse(text))
    assert any(n.op.name == "region" for n in gradient.nodes)
    inputs = samples.draw(gradient, 0)
    fused = slpc.compile(gradient, backend="llvm", fuse=False).flat(**inputs)
    plain = slpc.compile(unfused(gradient), backend="llvm", fuse=False).flat(**inputs)
    for x, y in zip(fused, plain, strict=True):
        x, y = numpy.asarray(x, numpy.float64), numpy.asarray(y, numpy.float64)
        eps = float(numpy.finfo(numpy.float32 if "f32" in text else numpy.float64).eps)
        eps = 2.0 ** -8 if "bf16" in text else eps
        assert numpy.max(numpy.abs(x - y)) <= 64 * eps * numpy.max(numpy.abs(y))


@pytest.mark.parametrize("rows", [1, 7, 64, 100, 1000])
@pytest.mark.parametrize("dtype", ["f64", "f32", "bf16"])
def test_by_rows(rows: int, dtype: str) -> None:
    agree(PROGRAM.format(rows=rows, dtype=dtype, T=100))


def test_one_row() -> None:
    agree(PROGRAM.format(rows=4, dtype="f64", T=1).replace("d, e = 1, 50, 8, 6", "d, e = 1, 900, 8, 6"))


def test_heads_of_one_product() -> None:
    """Operands that are strided views: heads side by side in a row."""
    agree("""
B, T, H, d = 2, 40, 4, 8

@tile(rows=(2, 16))
def attend(q, k, v):
    return softmax(q @ k.mT) @ v

def f(X: f64[B * T, 3 * H * d], *, Y: f64[B, H, T, d]):
    q, k, v = [permute_dims(reshape(X[:, i * H * d:(i + 1) * H * d], (B, T, H, d)), (0, 2, 1, 3)) for i in range(3)]
    return sum(Y * attend(q, k, v))
""")


def test_an_index_out_of_range_is_found() -> None:
    f = slpc.compile(slpc.parse("""
@tile(rows=16)
def taken(x, i):
    return exp(x)[arange(100), i]

def f(x: f32[100, 70], i: i64[100]):
    return sum(taken(x, i))
"""), backend="llvm")
    x, i = numpy.ones((100, 70), numpy.float32), numpy.zeros(100, numpy.int64)
    assert float(f(x, i)) == pytest.approx(100 * numpy.e)
    i[77] = 70
    with pytest.raises(slpc.SlpError, match="70"):
        f(x, i)


def test_a_network_by_batch() -> None:
    text = """
def loss(W: f64[3, 32, 32], b: f64[3, 32], w: f64[32], *, X: f64[4000, 32], Y: f64[4000]):
    for l in range(3):
        X = sigmoid(X @ W[l] + b[l])
    return mean((Y - X @ w) ** 2)
"""
    graph = slpc.parse(text)
    inputs = samples.draw(graph, 0)
    fused = slpc.compile(graph, grad=True, backend="llvm", fuse="batch")
    assert any(n.op.name == "region" for n in fused.graph.nodes)
    for x, y in zip(fused.flat(**inputs), slpc.compile(graph, grad=True, fuse=False).flat(**inputs), strict=True):
        numpy.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-13)

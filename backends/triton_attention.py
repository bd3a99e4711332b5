"""Attention without normalisation, exp(s Q K') V, as Triton kernels: this file's text goes into emitted modules.

A block of queries is met with one block of keys after the other, so that no T x T matrix is stored (Rabe and Staats
2021; Dao and others 2022). Without a maximum to subtract there is nothing to rescale. Blocks are read through tensor
descriptors, which give zeros beyond the ends: a key of zeros has the weight 1, but its value is zero, so ragged ends
need no mask. The backward pass is two kernels, one for the keys and one for the queries: seven products, which take
less time than five and sums in global memory.
"""

import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

LOG2E = 1.4426950408889634


@triton.jit
def exp_forward(q_in, k_in, v_in, r_out, scale, length, heads, QUERIES: tl.constexpr, KEYS: tl.constexpr,
                WIDTH: tl.constexpr, CAUSAL: tl.constexpr):
    """A block of R = exp(s Q K') V."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    first = tl.program_id(0) * QUERIES
    q = q_in.load([batch, head, first, 0]).reshape(QUERIES, WIDTH)
    r = tl.zeros((QUERIES, WIDTH), tl.float32)
    whole = first // KEYS * KEYS if CAUSAL else length
    for j in tl.range(0, whole, KEYS):
        k = k_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
        weight = tl.exp2(tl.dot(q, k.T) * scale)
        v = v_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
        r = tl.dot(weight.to(v.dtype), v, r)
    if CAUSAL:
        query = first + tl.arange(0, QUERIES)[:, None]
        for j in tl.range(whole, min(first + QUERIES, length), KEYS):
            k = k_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
            weight = tl.exp2(tl.dot(q, k.T) * scale)
            weight = tl.where(j + tl.arange(0, KEYS)[None, :] <= query, weight, 0.0)
            v = v_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
            r = tl.dot(weight.to(v.dtype), v, r)
    r_out.store([batch, head, first, 0], r.to(q.dtype).reshape(1, 1, QUERIES, WIDTH))


@triton.jit
def keys_step(q_in, g_in, k, v, dk, dv, scale, batch, head, i, key, QUERIES: tl.constexpr, WIDTH: tl.constexpr,
              MASKED: tl.constexpr):
    """What one block of queries adds to the gradients of a block of keys and values."""
    q = q_in.load([batch, head, i, 0]).reshape(QUERIES, WIDTH)
    weight = tl.exp2(tl.dot(k, q.T) * scale)
    if MASKED:
        weight = tl.where(key <= i + tl.arange(0, QUERIES)[None, :], weight, 0.0)
    g = g_in.load([batch, head, i, 0]).reshape(QUERIES, WIDTH)
    dv = tl.dot(weight.to(g.dtype), g, dv)
    ds = weight * tl.dot(v, g.T)
    dk = tl.dot(ds.to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def exp_backward_keys(q_in, k_in, v_in, g_in, dk_out, dv_out, scale, factor, length, heads, QUERIES: tl.constexpr,
                      KEYS: tl.constexpr, WIDTH: tl.constexpr, CAUSAL: tl.constexpr):
    """Blocks of dV = P' G and dK = s (P * G V')' Q, P = exp(s Q K')."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    first = tl.program_id(0) * KEYS
    k = k_in.load([batch, head, first, 0]).reshape(KEYS, WIDTH)
    v = v_in.load([batch, head, first, 0]).reshape(KEYS, WIDTH)
    dk = tl.zeros((KEYS, WIDTH), tl.float32)
    dv = tl.zeros((KEYS, WIDTH), tl.float32)
    key = first + tl.arange(0, KEYS)[:, None]
    start = 0
    if CAUSAL:
        start = tl.cdiv(first + KEYS, QUERIES) * QUERIES
        for i in tl.range(first // QUERIES * QUERIES, min(start, length), QUERIES):
            dk, dv = keys_step(q_in, g_in, k, v, dk, dv, scale, batch, head, i, key, QUERIES, WIDTH, True)
    for i in tl.range(start, length, QUERIES):
        dk, dv = keys_step(q_in, g_in, k, v, dk, dv, scale, batch, head, i, key, QUERIES, WIDTH, False)
    dk_out.store([batch, head, first, 0], (dk * factor).to(k.dtype).reshape(1, 1, KEYS, WIDTH))
    dv_out.store([batch, head, first, 0], dv.to(k.dtype).reshape(1, 1, KEYS, WIDTH))


@triton.jit
def queries_step(k_in, v_in, q, g, dq, scale, batch, head, j, query, KEYS: tl.constexpr, WIDTH: tl.constexpr,
                 MASKED: tl.constexpr):
    """What one block of keys adds to the gradient of a block of queries."""
    k = k_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
    weight = tl.exp2(tl.dot(q, k.T) * scale)
    if MASKED:
        weight = tl.where(j + tl.arange(0, KEYS)[None, :] <= query, weight, 0.0)
    v = v_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
    ds = weight * tl.dot(g, v.T)
    return tl.dot(ds.to(k.dtype), k, dq)


@triton.jit
def exp_backward_queries(q_in, k_in, v_in, g_in, dq_out, scale, factor, length, heads, QUERIES: tl.constexpr,
                         KEYS: tl.constexpr, WIDTH: tl.constexpr, CAUSAL: tl.constexpr):
    """A block of dQ = s (P * G V') K, P = exp(s Q K')."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    first = tl.program_id(0) * QUERIES
    q = q_in.load([batch, head, first, 0]).reshape(QUERIES, WIDTH)
    g = g_in.load([batch, head, first, 0]).reshape(QUERIES, WIDTH)
    dq = tl.zeros((QUERIES, WIDTH), tl.float32)
    query = first + tl.arange(0, QUERIES)[:, None]
    whole = first // KEYS * KEYS if CAUSAL else length
    for j in tl.range(0, whole, KEYS):
        dq = queries_step(k_in, v_in, q, g, dq, scale, batch, head, j, query, KEYS, WIDTH, False)
    if CAUSAL:
        for j in tl.range(whole, min(first + QUERIES, length), KEYS):
            dq = queries_step(k_in, v_in, q, g, dq, scale, batch, head, j, query, KEYS, WIDTH, True)
    dq_out.store([batch, head, first, 0], (dq * factor).to(q.dtype).reshape(1, 1, QUERIES, WIDTH))


FORWARD = {(64, False): (128, 64, 4, 3), (64, True): (64, 64, 4, 3), (128, False): (64, 64, 4, 3),
           (128, True): (64, 64, 4, 3)}
BACKWARD = {64: (64, 64, 4, 3), 128: (64, 64, 4, 2)}
"""By the heads' width, and whether a mask is causal: queries and keys in a block, warps, and blocks that are under way.
What was fastest of seven on an H200."""


def described(x, rows):
    """A tensor [batch, heads, length, width], whatever its strides, to be read or written by that many rows."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[3]])


def exp_attention(q, k, v, out, scale=1.0, causal=False):
    """Write exp(scale Q K') V to `out`; with `causal` a query sees the keys up to its own place.

    All are [batch, heads, length, width] of bfloat16 (float16 overflows), widths side by side in memory.
    """
    batch, heads, length, width = q.shape
    queries, keys, warps, stages = FORWARD[width, causal]
    exp_forward[triton.cdiv(length, queries), batch * heads](
        described(q, queries), described(k, keys), described(v, keys), described(out, queries), scale * LOG2E,
        k.shape[2], heads, queries, keys, width, causal, num_warps=warps, num_stages=stages)


def exp_attention_backward(q, k, v, g, dq, dk, dv, scale=1.0, causal=False):
    """Write the gradients of sum(G * exp(scale Q K') V) in Q, K and V to `dq`, `dk` and `dv`."""
    batch, heads, length, width = q.shape
    queries, keys, warps, stages = BACKWARD[width]
    exp_backward_keys[triton.cdiv(k.shape[2], keys), batch * heads](
        described(q, queries), described(k, keys), described(v, keys), described(g, queries), described(dk, keys),
        described(dv, keys), scale * LOG2E, scale, length, heads, queries, keys, width, causal, num_warps=warps,
        num_stages=stages)
    exp_backward_queries[triton.cdiv(length, queries), batch * heads](
        described(q, queries), described(k, keys), described(v, keys), described(g, queries), described(dq, queries),
        scale * LOG2E, scale, k.shape[2], heads, queries, keys, width, causal, num_warps=warps, num_stages=stages)

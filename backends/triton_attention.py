"""Attention as Triton kernels, softmax(s Q K') V and exp(s Q K') V: this file's text goes into emitted modules.

A block of queries is met with one block of keys after the other, so that no T x T matrix is stored (Rabe and Staats
2021; Dao and others 2022). A softmax goes online (Milakov and Gimelshein 2018) and gives the logarithm L of its sums
too, from which the backward pass has the weights again. Without normalisation there is no maximum and nothing to
rescale. Blocks are read through tensor descriptors, which give zeros beyond the ends. The backward pass is two kernels,
one for the keys and one for the queries: seven products, which take less time than five and sums in global memory.
"""

import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

LOG2E = 1.4426950408889634


@triton.jit
def forward_step(k_in, v_in, q, r, top, total, scale, batch, head, j, query, length, KEYS: tl.constexpr,
                 WIDTH: tl.constexpr, SOFTMAX: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr):
    """What one block of keys adds to a block of R, and to the sums and maxima of its rows."""
    k = k_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
    score = tl.dot(q, k.T) * scale
    if MASKED:
        key = j + tl.arange(0, KEYS)[None, :]
        score = tl.where(key <= query if CAUSAL else key < length, score, float("-inf"))
    if SOFTMAX:
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        fade = tl.exp2(top - higher)
        total = total * fade + tl.sum(weight, 1)
        r = r * fade[:, None]
        top = higher
    else:
        weight = tl.exp2(score)
    v = v_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
    r = tl.dot(weight.to(v.dtype), v, r)
    return r, top, total


@triton.jit
def attention_forward(q_in, k_in, v_in, r_out, l_at, scale, queries, length, heads, QUERIES: tl.constexpr,
                      KEYS: tl.constexpr, WIDTH: tl.constexpr, SOFTMAX: tl.constexpr, CAUSAL: tl.constexpr,
                      RAGGED: tl.constexpr):
    """A block of R, and of L where it is a softmax."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    first = tl.program_id(0) * QUERIES
    if CAUSAL:  # the longest rows first
        first = (tl.num_programs(0) - 1 - tl.program_id(0)) * QUERIES
    q = q_in.load([batch, head, first, 0]).reshape(QUERIES, WIDTH)
    r = tl.zeros((QUERIES, WIDTH), tl.float32)
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    query = first + tl.arange(0, QUERIES)
    whole = first // KEYS * KEYS if CAUSAL else length // KEYS * KEYS
    for j in tl.range(0, whole, KEYS):
        r, top, total = forward_step(k_in, v_in, q, r, top, total, scale, batch, head, j, query[:, None], length, KEYS,
                                     WIDTH, SOFTMAX, CAUSAL, False)
    if CAUSAL or RAGGED:
        last = min(first + QUERIES, length) if CAUSAL else length
        for j in tl.range(whole, last, KEYS):
            r, top, total = forward_step(k_in, v_in, q, r, top, total, scale, batch, head, j, query[:, None], length,
                                         KEYS, WIDTH, SOFTMAX, CAUSAL, True)
    if SOFTMAX:
        r = r / total[:, None]
        tl.store(l_at + tl.program_id(1) * queries + query, (top + tl.log2(total)) * 0.6931471805599453,
                 mask=query < queries)
    r_out.store([batch, head, first, 0], r.to(q.dtype).reshape(1, 1, QUERIES, WIDTH))


@triton.jit
def keys_step(q_in, g_in, l_at, d_at, k, v, dk, dv, scale, batch, head, row, i, key, queries, QUERIES: tl.constexpr,
              WIDTH: tl.constexpr, SOFTMAX: tl.constexpr, MASKED: tl.constexpr):
    """What one block of queries adds to the gradients of a block of keys and values."""
    query = i + tl.arange(0, QUERIES)
    q = q_in.load([batch, head, i, 0]).reshape(QUERIES, WIDTH)
    score = tl.dot(k, q.T) * scale
    if SOFTMAX:
        score -= tl.load(l_at + row + query, mask=query < queries, other=0.0)[None, :] * 1.4426950408889634
    weight = tl.exp2(score)
    if MASKED:
        weight = tl.where(key <= query[None, :], weight, 0.0)
    g = g_in.load([batch, head, i, 0]).reshape(QUERIES, WIDTH)
    dv = tl.dot(weight.to(g.dtype), g, dv)
    ds = tl.dot(v, g.T)
    if SOFTMAX:
        ds -= tl.load(d_at + row + query, mask=query < queries, other=0.0)[None, :]
    dk = tl.dot((weight * ds).to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def attention_backward_keys(q_in, k_in, v_in, g_in, l_at, d_at, dk_out, dv_out, scale, factor, queries, heads,
                            QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, SOFTMAX: tl.constexpr,
                            CAUSAL: tl.constexpr):
    """Blocks of dV = P' G and dK = s (P * (G V' - D))' Q, where D are the sums of the rows of G * R."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    row = tl.program_id(1) * queries
    first = tl.program_id(0) * KEYS
    k = k_in.load([batch, head, first, 0]).reshape(KEYS, WIDTH)
    v = v_in.load([batch, head, first, 0]).reshape(KEYS, WIDTH)
    dk = tl.zeros((KEYS, WIDTH), tl.float32)
    dv = tl.zeros((KEYS, WIDTH), tl.float32)
    key = first + tl.arange(0, KEYS)[:, None]
    start = 0
    if CAUSAL:
        start = tl.cdiv(first + KEYS, QUERIES) * QUERIES
        for i in tl.range(first // QUERIES * QUERIES, min(start, queries), QUERIES):
            dk, dv = keys_step(q_in, g_in, l_at, d_at, k, v, dk, dv, scale, batch, head, row, i, key, queries, QUERIES,
                               WIDTH, SOFTMAX, True)
    for i in tl.range(start, queries, QUERIES):
        dk, dv = keys_step(q_in, g_in, l_at, d_at, k, v, dk, dv, scale, batch, head, row, i, key, queries, QUERIES,
                           WIDTH, SOFTMAX, False)
    dk_out.store([batch, head, first, 0], (dk * factor).to(k.dtype).reshape(1, 1, KEYS, WIDTH))
    dv_out.store([batch, head, first, 0], dv.to(k.dtype).reshape(1, 1, KEYS, WIDTH))


@triton.jit
def queries_step(k_in, v_in, q, g, logarithm, sums, dq, scale, batch, head, j, query, KEYS: tl.constexpr,
                 WIDTH: tl.constexpr, SOFTMAX: tl.constexpr, MASKED: tl.constexpr):
    """What one block of keys adds to the gradient of a block of queries."""
    k = k_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
    score = tl.dot(q, k.T) * scale
    if SOFTMAX:
        score -= logarithm[:, None]
    weight = tl.exp2(score)
    if MASKED:
        weight = tl.where(j + tl.arange(0, KEYS)[None, :] <= query, weight, 0.0)
    v = v_in.load([batch, head, j, 0]).reshape(KEYS, WIDTH)
    ds = tl.dot(g, v.T)
    if SOFTMAX:
        ds -= sums[:, None]
    return tl.dot((weight * ds).to(k.dtype), k, dq)


@triton.jit
def attention_backward_queries(q_in, k_in, v_in, g_in, l_at, d_at, dq_out, scale, factor, queries, length, heads,
                               QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, SOFTMAX: tl.constexpr,
                               CAUSAL: tl.constexpr):
    """A block of dQ = s (P * (G V' - D)) K."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    first = tl.program_id(0) * QUERIES
    if CAUSAL:
        first = (tl.num_programs(0) - 1 - tl.program_id(0)) * QUERIES
    q = q_in.load([batch, head, first, 0]).reshape(QUERIES, WIDTH)
    g = g_in.load([batch, head, first, 0]).reshape(QUERIES, WIDTH)
    dq = tl.zeros((QUERIES, WIDTH), tl.float32)
    query = first + tl.arange(0, QUERIES)
    logarithm, sums = dq, dq
    if SOFTMAX:
        at = tl.program_id(1) * queries + query
        logarithm = tl.load(l_at + at, mask=query < queries, other=0.0) * 1.4426950408889634
        sums = tl.load(d_at + at, mask=query < queries, other=0.0)
    whole = first // KEYS * KEYS if CAUSAL else length
    for j in tl.range(0, whole, KEYS):
        dq = queries_step(k_in, v_in, q, g, logarithm, sums, dq, scale, batch, head, j, query[:, None], KEYS, WIDTH,
                          SOFTMAX, False)
    if CAUSAL:
        for j in tl.range(whole, min(first + QUERIES, length), KEYS):
            dq = queries_step(k_in, v_in, q, g, logarithm, sums, dq, scale, batch, head, j, query[:, None], KEYS,
                              WIDTH, SOFTMAX, True)
    dq_out.store([batch, head, first, 0], (dq * factor).to(q.dtype).reshape(1, 1, QUERIES, WIDTH))


FORWARD = {(64, False): (128, 64, 4, 4), (64, True): (64, 128, 4, 2), (128, False): (128, 64, 4, 2),
           (128, True): (128, 64, 4, 2)}
BACKWARD = {64: (64, 64, 4, 3), 128: (64, 64, 4, 2)}
"""By the heads' width, and whether a mask is causal: queries and keys in a block, warps, and blocks that are under way.
What was fastest of twelve on an H200."""


def described(x, rows):
    """A tensor [batch, heads, length, width], whatever its strides, to be read or written by that many rows."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [1, 1, rows, x.shape[3]])


def attend(q, k, v, r, logarithm=None, *, scale=1.0, causal=False):
    """Write exp(scale Q K') V to `r`; where `logarithm` is given softmax(scale Q K') V, and to it that of its sums.

    With `causal` a query sees the keys up to its own place. The others are [batch, heads, length, width] of bfloat16
    (float16 overflows without a softmax), widths side by side; `logarithm` is float32 [batch, heads, length].
    """
    batch, heads, length, width = q.shape
    softmax = logarithm is not None
    queries, keys, warps, stages = FORWARD[width, causal]
    attention_forward[triton.cdiv(length, queries), batch * heads](
        described(q, queries), described(k, keys), described(v, keys), described(r, queries), logarithm,
        scale * LOG2E, length, k.shape[2], heads, queries, keys, width, softmax, causal, k.shape[2] % keys != 0,
        num_warps=warps, num_stages=stages)


def attention_backward(q, k, v, g, dq, dk, dv, logarithm=None, sums=None, *, scale=1.0, causal=False):
    """Write the gradients of sum(G * R) in Q, K and V; for a softmax `sums` has those of the rows of G * R."""
    batch, heads, length, width = q.shape
    softmax = logarithm is not None
    queries, keys, warps, stages = BACKWARD[width]
    read = (described(q, queries), described(k, keys), described(v, keys), described(g, queries), logarithm, sums)
    attention_backward_keys[triton.cdiv(k.shape[2], keys), batch * heads](
        *read, described(dk, keys), described(dv, keys), scale * LOG2E, scale, length, heads, queries, keys, width,
        softmax, causal, num_warps=warps, num_stages=stages)
    attention_backward_queries[triton.cdiv(length, queries), batch * heads](
        *read, described(dq, queries), scale * LOG2E, scale, length, k.shape[2], heads, queries, keys, width, softmax,
        causal, num_warps=warps, num_stages=stages)

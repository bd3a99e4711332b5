"""Regions by blocks: the values of the program without regions, whatever the blocks, in the memory that is planned."""

import numpy
import pytest
from layers import LAYERS

from slpc import function, measuring, planning, samples
from slpc.backends import numpy_backend
from slpc.backends.numpy_backend import TARGET
from slpc.ir.graph import Graph
from slpc.ir.parse import parse
from slpc.passes.adjoint import adjoint
from slpc.passes.arena import place
from slpc.passes.blocks import blocks
from slpc.passes.legalize import legalize
from slpc.passes.regions import unfused
from slpc.passes.simplify import simplify

ATTENTION = """
T, S, d, e = {T}, {S}, 4, 5

@tile({rows})
def attend(q, k, v{more}):
    i, j = arange(T)[:, None], arange(S)[None, :]
    {body}

def f(Q: {dtype}[T, d] = normal(0, 1), K: {dtype}[S, d] = normal(0, 1), V: {dtype}[S, e] = normal(0, 1){inputs}, *,
      Y: {dtype}[T, e] = normal(0, 1)):
    return sum(Y * attend(Q, K, V{given}))
"""

VARIANTS = {
    "exp": "return exp(q @ k.T / 2) @ v",
    "softmax": "return softmax(q @ k.T / 2) @ v",
    "causal": "return softmax(where(j <= i, q @ k.T, -inf)) @ v",
    "causal exp": "return where(j <= i, exp(q @ k.T / 2), 0) @ v",
    "later": "return softmax(where(j > i + 1, -inf, q @ k.T)) @ v",
    "window": "return softmax(where((j <= i) & (j > i - 5), q @ k.T, -inf)) @ v",
    "both sides": "return softmax(where((i - j < 4) & (j - i < 3), q @ k.T, -inf)) @ v",
    "offset": "return softmax(where(j <= i + 3, q @ k.T, -inf)) @ v",
    "bias": "return softmax(q @ k.T + b) @ v",
    "padding": "return softmax(where(broadcast_to(m[None, :] > 0.5, (T, S)), q @ k.T, -1e30)) @ v",
    "alibi": "return softmax(q @ k.T - 0.1 * astype(abs(i - j), q.dtype)) @ v",
    "soft cap": "return softmax(5 * tanh(q @ k.T / 5)) @ v",
    "sigmoid": "return sigmoid(q @ k.T) @ v",
    "squared relu": "s = relu(q @ k.T)\n    return (s * s) @ v",
    "twice": "s = q @ k.T\n    p = softmax(s)\n    return p @ v + sum(p * s, axis=1, keepdims=True)",
    "large": "return softmax(1e4 * (q @ k.T)) @ v",
}
MORE = {"bias": ("b", "B: f64[T, S] = normal(0, 1)"), "padding": ("m", "M: f64[S] = uniform(0.4, 1)")}


def attention(variant: str, rows: str = "rows=3", T: int = 13, S: int = 11, dtype: str = "f64") -> Graph:
    name, declared = MORE.get(variant, ("", ""))
    return parse(ATTENTION.format(
        T=T, S=S, rows=rows, body=VARIANTS[variant], dtype=dtype, more=f", {name}" if name else "",
        inputs=f", {declared}" if name else "", given=f", {name.upper()}" if name else ""))


def differences(graph: Graph, seed: int = 0, given: list[numpy.ndarray] | None = None) -> list[float]:
    """The largest difference of each output, relative to the largest entry, between blocks and whole arrays."""
    whole = unfused(graph)
    inputs = given or list(samples.draw(graph, seed).values())
    by_blocks = function.build(graph, values=len(graph.outputs))
    at_once = function.build(whole, values=len(whole.outputs))
    assert "def run_block" in by_blocks.text
    found = []
    for _ in range(2):  # the first call and the later ones have memory of their own
        for x, y in zip(by_blocks.flat(*inputs), at_once.flat(*inputs), strict=True):
            x, y = numpy.asarray(x, numpy.float64), numpy.asarray(y, numpy.float64)
            assert (numpy.isnan(x) == numpy.isnan(y)).all()
            scale = max(1.0, float(numpy.max(numpy.abs(y), initial=0, where=numpy.isfinite(y))))
            found.append(float(numpy.nanmax(numpy.where(x == y, 0, numpy.abs(x - y)), initial=0)) / scale)
    return found


def gradient(graph: Graph) -> Graph:
    return simplify(adjoint(simplify(graph)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("rows", ["rows=1", "rows=3", "rows=13", "rows=100", ""])
def test_attention_by_blocks(variant: str, rows: str) -> None:
    graph = attention(variant, rows)
    assert max(differences(simplify(graph))) < 1e-13
    assert max(differences(gradient(graph))) < 1e-12


@pytest.mark.parametrize("variant", ["exp", "causal", "window", "twice", "sigmoid"])
def test_second_order(variant: str) -> None:
    first = gradient(attention(variant))
    second = simplify(adjoint(first, of="Q_bar"))
    assert max(differences(second)) < 1e-11


@pytest.mark.parametrize("variant", ["exp", "causal", "window"])
@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 6), (2, 1), (6, 1), (30, 4), (4, 30)])
def test_small_and_uneven(variant: str, T: int, S: int) -> None:
    """Also rows that see no key at all: NaN then, fused or not."""
    graph = attention(variant, "rows=3", T, S)
    if not list(simplify(graph).regions()):
        pytest.skip("no rows to cut")
    assert max(differences(gradient(graph))) < 1e-12


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_narrow_dtypes(dtype: str) -> None:
    """Sums over rows are added in float32: fused and unfused differ by some roundings of the dtype."""
    rounding = {"f32": 2.0**-24, "bf16": 2.0**-8, "f16": 2.0**-11}[dtype]
    graph = gradient(attention("causal", "rows=5", 40, 40, dtype))
    assert max(differences(graph)) < 8 * rounding


def test_nan_stays_in_its_row() -> None:
    graph = simplify(attention("softmax"))
    given = list(samples.draw(graph, 0).values())
    given[0][5, 0] = numpy.nan
    assert max(differences(graph, given=given)) < 1e-13


HEADS = """
B, H, G, T, d = 2, 4, 2, 9, 3

@tile({rows})
def attend(q, k, v):
    return softmax(q @ k.mT / d ** 0.5) @ v

def f(Q: f64[B, H, T, d] = normal(0, 1), K: f64[B, G, T, d] = normal(0, 1), V: f64[B, G, T, d] = normal(0, 1), *,
      Y: f64[B, H, T, d] = normal(0, 1)):
    k = reshape(broadcast_to(K[:, :, None], (B, G, H // G, T, d)), (B, H, T, d))
    v = reshape(broadcast_to(V[:, :, None], (B, G, H // G, T, d)), (B, H, T, d))
    return sum(Y * attend(Q, k, v))
"""

PROJECTED = """
T, H, d = 10, 2, 3

@tile({rows})
def attend(q, k, v):
    return softmax(q @ k.mT) @ v

def f(X: f64[T, 6] = normal(0, 1), W: f64[6, 3 * H * d] = normal(0, 1), *, Y: f64[T, H * d] = normal(0, 1)):
    qkv = permute_dims(reshape(X @ W, (T, 3, H, d)), (1, 2, 0, 3))
    R = attend(qkv[0], qkv[1], qkv[2])
    return sum(Y * reshape(permute_dims(R, (1, 0, 2)), (T, H * d)))
"""


@pytest.mark.parametrize("text", [HEADS, PROJECTED])
@pytest.mark.parametrize("rows", ["rows=4", "rows=(2, 9)", "rows=(2, 4)", "rows=1", ""])
def test_heads(text: str, rows: str) -> None:
    graph = parse(text.format(rows=rows))
    assert max(differences(gradient(graph))) < 1e-12


def test_strided_operands_are_not_copied() -> None:
    """The heads of one product are read where they lie."""
    graph = legalize(simplify(parse(PROJECTED.format(rows="rows=4"))), TARGET)
    region = next(n for n in graph.nodes if n.op.name == "region")
    for program in blocks(region, TARGET).programs.values():
        assert "copy(" not in str(program.graph)


OTHERS = {
    "vocabulary loss": """
T, V, d = 13, 31, 4

@tile({rows})
def loss(x, U, y):
    s = x @ U
    i = arange(T)
    return sum(logsumexp(s, axis=1) - s[i, y])

def f(X: f64[T, d] = normal(0, 1), U: f64[d, V] = normal(0, 1), *, Y: i64[T] = integers(0, V)):
    return loss(X, U, Y) / T
""",
    "mlp": """
N, d, h = 14, 5, 20

@tile({rows})
def layer(x, W1, W2):
    return sigmoid(relu(x @ W1) @ W2)

def f(X: f64[N, d] = normal(0, 1), W1: f64[d, h] = normal(0, 1), W2: f64[h, d] = normal(0, 1), *,
      Y: f64[N, d] = normal(0, 1)):
    return sum((layer(X, W1, W2) - Y) ** 2)
""",
    "by element": """
N = 17

@tile({rows})
def rows(x, y):
    return x * y + arange(N, dtype=f64), sum(x * y)

def f(X: f64[N] = normal(0, 1), Y: f64[N] = normal(0, 1)):
    z, total = rows(X, Y)
    return sum(z * z) + total
""",
    "every second": """
T, d = 12, 3

@tile({rows})
def weighed(x):
    i = arange(1, 2 * T, 2)
    w = astype(i, f64)[:, None] * x
    return w, sum(w * x, axis=0)

def f(X: f64[2 * T, d] = normal(0, 1)):
    y, z = weighed(X[::2])
    return sum(y * y) + sum(z)
""",
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("rows", ["rows=1", "rows=4", "rows=99", ""])
def test_other_regions(name: str, rows: str) -> None:
    graph = parse(OTHERS[name].format(rows=rows))
    assert max(differences(simplify(graph))) < 1e-13
    assert max(differences(gradient(graph))) < 1e-12


@pytest.mark.parametrize("rows", ["rows=7", "rows=32", ""])
@pytest.mark.parametrize("budget", [0.0, 0.1, 1.0])
def test_predicted_is_measured(rows: str, budget: float) -> None:
    graph = gradient(parse(LAYERS.format(rows=rows)))
    plan = planning.plan(graph, recompute_budget=budget, effort="quick")
    measured = measuring.peak_bytes(plan)
    assert abs(measured - plan.peak_bytes) <= max(0.01 * plan.peak_bytes, 65536)
    assert plan.peak_bytes < 4 * 192 * 192 * 3 + 2**20


def test_deterministic() -> None:
    """Equal text and, to the bit, equal values."""
    graph = gradient(parse(LAYERS.format(rows="rows=50")))
    again = gradient(parse(LAYERS.format(rows="rows=50")))
    one, two = function.build(graph, values=1), function.build(again, values=1)
    assert one.text == two.text
    given = list(samples.draw(graph, 3).values())
    for x, y in zip(one.flat(*given), two.flat(*given), strict=True):
        assert numpy.asarray(x).tobytes() == numpy.asarray(y).tobytes()


@pytest.mark.parametrize("name", ["mlp", "vocabulary loss"])
def test_what_is_dead_is_not_read(name: str) -> None:
    """With NaN in all memory that is not alive, the values stay."""
    graph = legalize(gradient(parse(OTHERS[name].format(rows="rows=4"))), TARGET)
    inputs = list(samples.draw(graph, 0).values())
    placement = place(graph, TARGET)
    plain, poisoned = (numpy_backend.load(numpy_backend.emit(graph, placement, poison=p))(*inputs)
                       for p in (False, True))
    for x, y in zip(plain, poisoned, strict=True):
        assert numpy.array_equal(x, y)


@pytest.mark.parametrize(("variant", "share"), [("softmax", 1.0), ("causal", 0.5), ("window", 5 / 256)])
def test_masks_cut_work(variant: str, share: float) -> None:
    """A causal mask halves the work of forward and adjoint, a window makes it linear in the rows."""
    graph = legalize(gradient(attention(variant, "rows=8", 256, 256)), TARGET)
    found = [(blocks(n, TARGET).flops, n.flops) for n in graph.nodes if n.op.name == "region"]
    assert len(found) == 2
    for done, whole in found:
        assert share <= done / whole <= share + 0.1

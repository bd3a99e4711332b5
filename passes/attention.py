"""Attention: regions that are attention, however they are spelt, as the two that a backend has kernels for.

Forward is softmax(s Q K') V, with or without a causal mask, or exp(s Q K') V. What the backward pass has of a softmax
are the logarithms L of the sums of its rows, which bring the weights back in one step, and D, the sums of the rows of
G * R (Dao, Fu, Ermon, Rudra and Ré 2022, section B.4):

    P = exp(s Q K' - L)      dV = P' G      dS = P * (G V' - D)      dQ = s dS K      dK = s dS' Q

A region is the adjoint of attention if it is what `adjoint` makes of it. Heads lie in memory as the products on both
sides have them, side by side in the row of a token, so that nothing is packed or copied. Scores are f32 here, whatever
the program says: kernels sum in f32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..ir.arrays import Arrays
from ..ir.graph import Builder, Constant, Graph, Node, Value
from ..ir.layout import layout
from ..ir.ops import OPS
from ..ir.parse import parse
from ..ir.rows import counted
from ..ir.target import Target
from ..ir.types import DType, TensorType, f32
from .fuse import structure
from .rebuild import extended
from .regions import adjoint_region
from .simplify import simplify


@dataclass(frozen=True)
class Attention:
    """The kernel of a region. Q is [batch, heads, length, width], and K and V are of as many keys."""

    batch: int
    heads: int
    length: int
    keys: int
    width: int
    dtype: DType
    scale: float
    softmax: bool
    causal: bool
    backward: bool


_HEAD = """
B, H, T, S, d = {batch}, {heads}, {length}, {keys}, {width}
dtype = {dtype}
scale = {scale!r}

@tile()
def {name}({parameters}):
    i, j = arange(T)[:, None], arange(S)[None, :]
    s = astype(q @ k.mT, f32) * scale
"""
_MASK = "    s = where(j <= i, s, -inf)\n"
_FORWARD = """
    peak = max(s, axis=-1, keepdims=True)
    p = exp(s - peak)
    total = sum(p, axis=-1, keepdims=True)
    r = astype(p / total, dtype) @ v
    l = (peak + log(total))[:, :, :, 0]
    return copy(permute_dims(r, (0, 2, 1, 3))), l
"""
_EXP_FORWARD = """
    r = astype(exp(s), dtype) @ v
    return copy(permute_dims(r, (0, 2, 1, 3)))
"""
_BACKWARD = """
    p = exp(s - l[:, :, :, None])
    ds = astype(p * (astype(g @ v.mT, f32) - e[:, :, :, None]), dtype)
"""
_EXP_BACKWARD = """
    p = exp(s)
    ds = astype(p * astype(g @ v.mT, f32), dtype)
"""
_RETURN = """
    dq, dk, dv = scale * (ds @ k), scale * (ds.mT @ q), astype(p, dtype).mT @ g
    tokens = (0, 2, 1, 3)
    return copy(permute_dims(dq, tokens)), copy(permute_dims(dk, tokens)), copy(permute_dims(dv, tokens))
"""


@lru_cache(maxsize=64)
def body(kind: Attention) -> Graph:
    """The region's body. Forward gives R as [batch, length, heads, width], and L of a softmax; backward takes G, L and
    D too and gives dQ, dK and dV likewise."""
    inputs = {"q": "dtype[B, H, T, d]", "k": "dtype[B, H, S, d]", "v": "dtype[B, H, S, d]"}
    if kind.backward:
        inputs["g"] = "dtype[B, H, T, d]"
        inputs |= {"l": "f32[B, H, T]", "e": "f32[B, H, T]"} if kind.softmax else {}
    text = _HEAD.format(**vars(kind), name="attention_bar" if kind.backward else "attention",
                        parameters=", ".join(inputs))
    text += _MASK if kind.causal else ""
    if kind.backward:
        text += (_BACKWARD if kind.softmax else _EXP_BACKWARD) + _RETURN
    else:
        text += _FORWARD if kind.softmax else _EXP_FORWARD
    parameters = ", ".join(f"{name}: {type}" for name, type in inputs.items())
    called = "attention_bar" if kind.backward else "attention"
    text += f"\n\ndef whole({parameters}):\n    return {called}({', '.join(inputs)})\n"
    made = next(parse(text).regions())
    return simplify(Graph(made.name, made.inputs, made.nodes, made.outputs, {}, made.first_data)).tiled(())


def as_attention(made: Graph) -> Attention | None:
    """Which attention the body of a region is, if it is one of `body`'s."""
    names = [v.name for v in made.inputs]
    backward = names[3:4] == ["g"]
    if names[:3] != ["q", "k", "v"] or any(v.type.rank != 4 for v in made.inputs[:3]):
        return None
    q, k = made.inputs[:2]
    operations = {n.op.name for n in made.nodes}
    scale = next((float(v.number) for n in made.nodes if n.op.name == "multiply" for v in n.operands
                  if isinstance(v, Constant)), 1.0)
    softmax = len(names) == 6 if backward else "max" in operations
    causal = "less_equal" in operations
    batch, heads, length, width = q.shape
    kind = Attention(batch, heads, length, k.shape[2], width, q.dtype, scale, softmax, causal, backward)
    return kind if structure(body(kind)) == structure(made) else None


# What a program's regions are ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Found:
    """Attention in a region's body: its inputs, whether K is given transposed, and the results by their roles."""

    q: Value
    k: Value
    v: Value
    turned: bool
    scale: float
    softmax: bool
    causal: bool
    result: Value
    statistics: tuple[Value, ...]


def _uncast(value: Value) -> Value:
    while value.node is not None and value.node.op.name in ("astype", "stop_gradient"):
        value = value.node.operands[0]
    return value


def _made_by(value: Value, *names: str) -> Node | None:
    node = _uncast(value).node
    return node if node is not None and node.op.name in names else None


def _spread(value: Value, name: str) -> Node | None:
    """The reduction of the last axis that a value repeats along it."""
    while (node := _uncast(value).node) is not None and node.op.name in ("broadcast_to", "reshape"):
        value = node.operands[0]
    node = _made_by(value, name)
    if node is None or node.attributes["axis"] != (node.operands[0].type.rank - 1,):
        return None
    return node


def _scaled(value: Value) -> tuple[Value, float]:
    """What is multiplied by a constant, and by which."""
    scale = 1.0
    while (node := _made_by(value, "multiply", "divide")) is not None:
        x, y = node.operands
        if isinstance(y, Constant):
            scale = scale / float(y.number) if node.op.name == "divide" else scale * float(y.number)
            value = x
        elif isinstance(x, Constant) and node.op.name == "multiply":
            scale, value = scale * float(x.number), y
        else:
            break
    return _uncast(value), scale


def _turned(value: Value) -> Value | None:
    """What it is the transpose of."""
    node = _made_by(value, "permute_dims")
    if node is None:
        return None
    last = value.type.rank - 1
    return node.operands[0] if node.attributes["axes"] == (*range(last - 1), last, last - 1) else None


def _unmasked(value: Value, otherwise: float) -> tuple[Value, bool] | None:
    """What stands where a key is not after the query, and whether there is such a mask; None for another mask."""
    node = _made_by(value, "where")
    if node is None:
        return value, False
    condition, x, y = node.operands
    if not isinstance(y, Constant):
        x, y, after = y, x, True
    else:
        after = False
    while condition.node is not None and condition.node.op.name == "broadcast_to":
        condition = condition.node.operands[0]
    compared = condition.node
    if compared is None or not isinstance(y, Constant) or float(y.number) != otherwise:
        return None
    names = ("greater", "less") if after else ("less_equal", "greater_equal")
    if compared.op.name not in names:
        return None
    key, query = compared.operands if compared.op.name == names[0] else compared.operands[::-1]
    at, rank = (counted(key), counted(query)), condition.type.rank
    if at != ((rank - 1, 0, 1), (rank - 2, 0, 1)) or condition.shape[-1] != condition.shape[-2]:
        return None
    return x, True


def _forward(made: Graph) -> _Found | None:
    """The attention that a body is."""
    result = made.outputs[0]
    product = _made_by(result, "matmul")
    if product is None:
        return None
    weight, v = product.operands
    statistics: list[Value] = []
    quotient = _made_by(weight, "divide")
    if quotient is not None:
        total = _spread(quotient.operands[1], "sum")
        if total is None or _uncast(total.operands[0]) is not _uncast(quotient.operands[0]):
            return None
        statistics.append(total.result)
        weight = quotient.operands[0]
    free = _unmasked(weight, 0.0) if quotient is None else (weight, False)
    power = _made_by(free[0], "exp") if free else None
    if free is None or power is None:
        return None
    score = power.operands[0]
    if quotient is not None:
        less = _made_by(score, "subtract")
        peak = _spread(less.operands[1], "max") if less is not None else None
        if less is None or peak is None or _uncast(peak.operands[0]) is not _uncast(less.operands[0]):
            return None
        statistics.append(peak.result)
        score = less.operands[0]
    bare = _unmasked(score, -math.inf)
    if bare is None or (bare[1] and free[1]):
        return None
    scored, scale = _scaled(bare[0])
    product = scored.node
    if product is None or product.op.name != "matmul":
        return None
    (q, before), (k, also) = map(_scaled, product.operands)
    turned = _turned(k)
    found = _Found(q, turned if turned is not None else k, _uncast(v), turned is None, scale * before * also,
                   quotient is not None, bare[1] or free[1], result, tuple(statistics))
    inputs = (found.q, found.k, found.v)
    if len(set(inputs)) < 3 or set(inputs) != set(made.inputs) or not set(made.outputs[1:]) <= set(statistics):
        return None
    return found


def is_attention(made: Graph, attends: Callable[[TensorType, bool], bool]) -> bool:
    """Is a region's body attention over heads that there are kernels for?"""
    found = _forward(made)
    return found is not None and 2 <= found.q.type.rank <= 4 and attends(found.q.type, found.softmax)


def with_attention(graph: Graph, target: Target) -> Graph:
    """The program with its attentions, and their adjoints, as the regions that the target has kernels for."""
    if graph.scheduled or target.attends is None:
        return graph
    forward = {}
    for node in graph.nodes:
        if node.op.name == "region":
            found = _forward(node.attributes["body"])
            if found is not None and 2 <= found.q.type.rank <= 4 and target.attends(found.q.type, found.softmax):
                forward[node] = found
    return _Rewriting(graph, forward).run() if forward else graph


class _Rewriting:
    """The program under construction."""

    def __init__(self, graph: Graph, forward: dict[Node, _Found]) -> None:
        self.graph = graph
        self.readers: dict[Value, list[Node]] = {}
        for node in graph.nodes:
            for v in dict.fromkeys(node.operands):
                self.readers.setdefault(v, []).append(node)
        self.forward = forward
        self.backward: dict[Node, Node] = {}
        for node, found in list(forward.items()):
            for reader in dict.fromkeys(r for v in node.operands for r in self.readers[v]):
                if reader is not node and reader.op.name == "region" and self._adjoint(node, found, reader):
                    self.backward[reader] = node
            inside = dict(zip(node.attributes["body"].outputs, node.results, strict=True))
            used = [r for v in found.statistics if v in inside for r in self.readers.get(inside[v], ())]
            if any(self.backward.get(r) is not node for r in used):
                del forward[node]
                self.backward = {r: n for r, n in self.backward.items() if n is not node}
        self.builder = extended(graph, nodes=False)
        self.builder.donated = dict(graph.donated)
        self.builder.adopt(graph.nodes)
        self.arrays = Arrays(self.builder)
        self.now: dict[Value, Value] = {}
        self.kept: dict[Node, tuple[Sequence[Value], Value, Value | None]] = {}

    def _adjoint(self, node: Node, found: _Found, reader: Node) -> bool:
        """Is the region of `reader` what the adjoint makes of that of `node`, in all three operands?"""
        if len(reader.results) != 3:
            return False
        others = [v for v in reader.operands if v not in node.operands and v not in node.results]
        if len(others) != 1 or others[0].type is not node.results[0].type:
            return False
        return _derived(node, others[0]) == (structure(reader.attributes["body"]), reader.operands)

    def run(self) -> Graph:
        now = self.now
        for node in self.graph.nodes:
            self.arrays.span = node.results[0].span
            operands = [now.get(v, v) for v in node.operands]
            if node in self.forward:
                self._write_forward(node, operands)
            elif node in self.backward:
                self._write_backward(node, operands)
            else:
                now.update(zip(node.results, self.builder.again(node, operands), strict=True))
        return self.builder.finish([now.get(v, v) for v in self.graph.outputs], [v.name for v in self.graph.outputs])

    def _named(self, value: Value, stem: str) -> Value:
        if not value.name and not isinstance(value, Constant):
            self.builder.name_value(value, stem)
        return value

    def _view(self, name: str, value: Value, stem: str, **attributes: object) -> Value:
        return self._named(self.arrays.emit(OPS[name], (value,), attributes), stem)

    def _as_heads(self, value: Value, stem: str) -> Value:
        """The value as [batch, heads, length, width], the widths side by side in memory."""
        if value.type.rank < 4:
            value = self._view("reshape", value, f"{stem}_heads", shape=(1,) * (4 - value.type.rank) + value.shape)
        lies = layout(value)
        if lies is None or lies.strides[-1] != 1 or any(s % 8 for s in (*lies.strides[:-1], lies.offset)):
            value = self._named(self.arrays.emit(OPS["copy"], (value,)), f"{stem}_rows")
        return value

    def _plain(self, heads: Value, old: Value, stem: str, turned: bool = False) -> Value:
        """A result [batch, length, heads, width] in the shape that the program has for it."""
        axes = (0, 2, 3, 1) if turned else (0, 2, 1, 3)
        value = self._view("permute_dims", heads, "" if old.type.rank == 4 else f"{stem}_heads", axes=axes) \
            if old.type.rank < 4 else self.arrays.emit(OPS["permute_dims"], (heads,), {"axes": axes})
        if old.type.rank < 4:
            value = self.arrays.emit(OPS["reshape"], (value,), {"shape": old.shape})
        value.name = old.name
        self.now[old] = value
        return value

    def _write_forward(self, node: Node, operands: Sequence[Value]) -> None:
        found = self.forward[node]
        given = dict(zip(node.attributes["body"].inputs, operands, strict=True))
        q, v, k = given[found.q], given[found.v], given[found.k]
        stem = node.results[0].name
        if found.turned:
            last = k.type.rank - 1
            k = self._view("permute_dims", k, f"{stem}_k", axes=(*range(last - 1), last, last - 1))
        heads = [self._as_heads(x, f"{stem}_{name}") for x, name in ((q, "q"), (k, "k"), (v, "v"))]
        kind = self._kind(found, heads, False)
        results = self.builder.region(body(kind), heads, span=self.arrays.span)
        for value, name in zip(results, (f"{stem}_heads", f"{stem}_log"), strict=False):
            self._named(value, name)
        self.kept[node] = heads, results[0], results[1] if found.softmax else None
        self._plain(results[0], node.results[0], stem)

    def _kind(self, found: _Found, heads: Sequence[Value], backward: bool) -> Attention:
        batch, count, length, width = heads[0].shape
        return Attention(batch, count, length, heads[1].shape[2], width, heads[0].dtype, found.scale, found.softmax,
                         found.causal, backward)

    def _write_backward(self, node: Node, operands: Sequence[Value]) -> None:
        first = self.backward[node]
        found = self.forward[first]
        heads, r, logarithm = self.kept[first]
        stem = first.results[0].name
        seed = next(self.now.get(v, v) for v in node.operands if v not in first.operands and v not in first.results)
        g = self._as_heads(seed, f"{stem}_bar")
        given = [*heads, g]
        if logarithm is not None:
            seen = self._view("permute_dims", r, f"{stem}_seen", axes=(0, 2, 1, 3))
            wide = [self._named(self.arrays.astype(x, f32), f"{stem}_wide") for x in (g, seen)]
            product = self._named(self.arrays.elementwise("multiply", *wide), f"{stem}_product")
            given += [logarithm, self._view("sum", product, f"{stem}_sums", axis=(3,))]
        results = self.builder.region(body(self._kind(found, heads, True)), given, span=self.arrays.span)
        inputs = (found.q, found.k, found.v)
        outer = dict(zip(first.attributes["body"].inputs, first.operands, strict=True))
        order = _order(first, node)
        for x, value in zip(inputs, results, strict=True):
            old = node.results[order[outer[x]]]
            self._named(value, f"{old.name}_heads")
            self._plain(value, old, old.name, turned=x is found.k and found.turned)


def _order(first: Node, node: Node) -> dict[Value, int]:
    """Which result of the adjoint is the cotangent of which operand of attention: they come in the inputs' order."""
    return {v: at for at, v in enumerate(first.operands)}


def _derived(node: Node, seed: Value) -> tuple[object, tuple[Value, ...]]:
    """The structure of the adjoint of an attention's region, and its operands."""
    builder = Builder("adjoint")
    made: Graph = node.attributes["body"]
    builder.reserve([made.name])
    adjoint_region(builder, node, {node.results[0]: seed}, made.inputs)
    region = builder.nodes[-1]
    return structure(region.attributes["body"]), region.operands

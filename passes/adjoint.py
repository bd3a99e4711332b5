"""Reverse mode: the graph of a program's value and gradient.

The cotangent of z_t is dz_T/dz_t, the sum over the children of t of their cotangent times the local derivative
(Linnainmaa 1970; Griewank and Walther 2008, chapter 3). The nodes are visited backwards in a loop. Only what lies
between `wrt` and the output gets a cotangent; no zero is materialised; the slices of one stacked parameter are put
together once, in one `place`, and its gathers in one `scatter_add`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..ir.graph import Constant, Graph, Node, Value
from ..ir.ops import OPS
from ..ir.shapes import Index
from ..ir.tables import rows
from .activity import chosen_inputs, chosen_output, dependent, differentiable_operands, not_differentiable
from .derivatives import derivatives, emit
from .masks import Masked, Masks
from .rebuild import extended
from .regions import adjoint_region
from .rewrite import Folding


def adjoint(graph: Graph, *, of: str | None = None, wrt: Sequence[str] | None = None) -> Graph:
    """The program of value and gradient: the outputs of `graph`, then `x_bar` for each x of `wrt`, in that order.

    `of` names the output that is differentiated (the first); `wrt` the inputs (all floating-point parameters). A
    scalar output is seeded with 1; another gets a data input `y_bar` of its own type. Raises SlpError E0403 for
    unknown names, E0412 for what has no derivative.

        def f(x: f64):              def f(x: f64):
            y: f64 = sin(x)             y: f64 = sin(x)
            return y                    x_bar: f64 = cos(x)
                                        return y, x_bar
    """
    sweep = _Reverse(graph, chosen_inputs(graph, wrt))
    output = chosen_output(graph, of)
    sweep.seed(output, None if output.shape else sweep.builder.constant(1.0, output.dtype))
    bars = sweep.run()
    names = [v.name for v in graph.outputs] + [f"{v.name}_bar" for v in sweep.wrt]
    return sweep.builder.finish([*graph.outputs, *map(sweep.gradient, bars, sweep.wrt)], names, graph)


def of_body(body: Graph, seeds: Mapping[Value, Constant | None], wrt: Sequence[Value]) -> tuple[
        Graph, dict[Value, Value], list[Value]]:
    """The cotangents of a region's body: the graph of those that are not zero, the input that stands for each seed, and
    the inputs of the body whose cotangents the outputs are. A seed that is a constant, repeated to the output's shape,
    becomes part of the graph."""
    sweep = _Reverse(body, list(wrt))
    seeded = {}
    for output, constant in seeds.items():
        if (seed := sweep.seed(output, constant)) is not None:
            seeded[output] = seed
    bars = [(v, bar) for v, bar in zip(wrt, sweep.run(), strict=True) if bar is not None]
    made = sweep.builder.finish([bar for _, bar in bars], [f"{v.name}_bar" for v, _ in bars], body)
    return made, seeded, [v for v, _ in bars]


class _Reverse:
    """The state of one reverse sweep."""

    def __init__(self, graph: Graph, wrt: list[Value]) -> None:
        self.graph, self.wrt = graph, wrt
        self.builder = extended(graph)
        self.arrays = Folding(self.builder)
        self.masks = Masks(self.arrays)
        self.cotangents: dict[Value, Masked] = {}
        self.pieces: dict[Value, list[tuple[Index, Masked]]] = {}
        self.updates: dict[Value, list[tuple[tuple[Value, ...], Masked]]] = {}
        self.stems: list[str] = [""] * len(graph.nodes)
        self.active = dependent(graph, wrt)

    def seed(self, output: Value, constant: Constant | None) -> Value | None:
        """Begin with the cotangent of an output: a constant, repeated to its shape, or else a new data input, which is
        returned."""
        value: Value = self.arrays.full(output.shape, constant.number, output.dtype) if constant is not None else \
            self.builder.input(f"{output.name}_bar", output.type, data=True)
        if output in self.active:
            self.contribute(output, Masked(value))
        return None if constant is not None else value

    def run(self) -> list[Value | None]:
        """The sweep; the cotangent of each of `wrt`, None where it is zero."""
        nodes = self.builder.nodes
        first_new = len(nodes)
        for node in reversed(self.graph.nodes):
            found = [self.total(v) for v in node.results]
            if any(found):
                self.arrays.span = node.results[0].span
                if node.op.name == "region":
                    self._region(node, found)
                elif found[0] is not None:
                    self._node(node, found[0])
        bars = []
        for value in self.wrt:
            cotangent = self.total(value)
            bars.append(None if cotangent is None else self.masks.select(cotangent))
            if bars[-1] is not None:
                self._name(bars[-1], value)
        self._note_stems("bar")
        for at in range(first_new, len(nodes)):
            for made in nodes[at].results:
                if not made.name:
                    self.builder.name_value(made, f"{self.stems[at]}_t")
        return bars

    def gradient(self, bar: Value | None, value: Value) -> Value:
        """The cotangent of an input; zeros where there is none."""
        if bar is None:
            bar = self.arrays.full(value.shape, 0.0, value.dtype)
            if not isinstance(bar, Constant):
                self.builder.name_value(bar, "bar_t")
        return bar

    def _region(self, node: Node, found: Sequence[Masked | None]) -> None:
        """The region of the adjoint of its body."""
        body: Graph = node.attributes["body"]
        wrt = [x for x, v in zip(body.inputs, node.operands, strict=True) if v in self.active and v.dtype.is_float]
        seeds = {v: self.masks.select(g) for v, g in zip(node.results, found, strict=True) if g is not None}
        bars = adjoint_region(self.builder, node, seeds, wrt)
        for x, v in zip(body.inputs, node.operands, strict=True):
            if x in bars:
                self.contribute(v, Masked(bars[x]))

    def total(self, value: Value) -> Masked | None:
        """The sum of all that has been contributed to a value's cotangent; None if nothing was."""
        found = self.cotangents.pop(value, None)
        pieces = self.pieces.pop(value, [])
        if pieces:
            at = [index for index, _ in pieces]
            made = self.joined([p for _, p in pieces], ("place", *at, value.shape),
                                lambda parts: self.arrays.place(parts, at, value.shape))
            found = made if found is None else self.masks.add(found, made)
        updates = self.updates.pop(value, [])
        if updates:
            indices = [i for i, _ in updates]
            made = self.joined([u for _, u in updates], ("scatter", *map(id, sum(indices, ())), value.shape),
                                lambda parts: self._scattered(value, indices, parts))
            found = made if found is None else self.masks.add(found, made)
        if found is not None:
            self._note_stems(f"{value.name}_bar")
            if value in self.active and found.whole:
                self._name(found.value, value)
        return found

    def joined(self, parts: list[Masked], key: tuple[object, ...], join: Callable[[list[Value]], Value]) -> Masked:
        """Cotangents added into one larger array, and where it lives."""
        made = join([self.masks.select(part) for part in parts])
        return Masked(made, self.masks.counted([(p.mask, p.value.shape) for p in parts], key, join), True)

    def _scattered(self, value: Value, indices: list[tuple[Value, ...]], updates: list[Value]) -> Value:
        """One scatter of all updates: several are laid end to end first, so that the whole is written once."""
        if len(set(map(len, indices))) == 1 and len(updates) > 1:
            arrays, count = self.arrays, len(indices[0])
            rest = value.shape[count:]
            flat = [tuple(self._flat(i, ()) for i in each) for each in indices]
            joined = [arrays.concat([each[k] for each in flat], 0) for k in range(count)]
            return arrays.scatter_add(arrays.concat([self._flat(u, rest) for u in updates], 0), joined, value.shape)
        total: Value | None = None
        for each, update in zip(indices, updates, strict=True):
            made = self.arrays.scatter_add(update, each, value.shape)
            total = made if total is None else self.arrays.elementwise("add", total, made)
        assert total is not None
        return total

    def _flat(self, value: Value, rest: tuple[int, ...]) -> Value:
        n = value.type.size
        for length in rest:
            n //= max(length, 1)
        return self.arrays.reshape(value, (n, *rest))

    def _name(self, value: Value, of: Value) -> None:
        if not value.name and not isinstance(value, Constant):
            self.builder.name_value(value, f"{of.name}_bar")

    def _note_stems(self, stem: str) -> None:
        self.stems.extend([stem] * (len(self.builder.nodes) - len(self.stems)))

    def contribute(self, value: Value, part: Masked) -> None:
        """Add to a value's cotangent."""
        if value not in self.active or isinstance(value, Constant):
            return
        known = self.cotangents.get(value)
        self.cotangents[value] = part if known is None else self.masks.add(known, part)
        self._note_stems(f"{value.name}_bar")

    def seen(self, z: Masked, key: tuple[object, ...], view: Callable[[Value], Value]) -> Masked:
        """A cotangent whose elements are moved and not mixed, and its mask with it; `key` tells views apart."""
        return Masked(view(z.value), self.masks.through(z.mask, key, view), z.clean)

    def _node(self, node: Node, cotangent: Masked) -> None:
        if node.op.elementwise:
            self._elementwise(node, cotangent)
        elif any(node.operands[p] in self.active for p in differentiable_operands(node)):
            RULES[node.op.name](self, node, cotangent)

    def _elementwise(self, node: Node, cotangent: Masked) -> None:
        """Each operand's derivative is the text of the table, of the seed `g`."""
        if node.op.name == "astype":
            x = node.operands[0]
            if x in self.active:
                value = self.arrays.astype(cotangent.value, x.dtype)
                self.contribute(x, Masked(value, cotangent.mask, cotangent.clean))
            return
        names = dict(zip(node.op.operands, node.operands, strict=True)) | {"z": node.results[0], "g": cotangent.value}
        for position, derivative in enumerate(derivatives(node.op)):
            operand = node.operands[position]
            if operand not in self.active:
                continue
            if derivative is None:
                if node.op.derivatives[position] is None:
                    raise not_differentiable(self.graph, node, position)
                continue
            condition = None if derivative.condition is None else emit(self.arrays, derivative.condition, names)
            mask, lives = self.masks.narrowed(cotangent.mask, condition, derivative.holds)
            if lives:
                clean = cotangent.clean and derivative.linear and mask is cotangent.mask
                self.contribute(operand, Masked(emit(self.arrays, derivative.term, names), mask, clean))


# One rule for each operation that is not elementwise: contributions to its operands -------------------------------

_Rule = Callable[[_Reverse, Node, Masked], None]
RULES: dict[str, _Rule] = {}


_rule = rows(RULES)


@_rule("reshape")
def _reshape(sweep: _Reverse, node: Node, z: Masked) -> None:
    x = node.operands[0]
    sweep.contribute(x, sweep.seen(z, ("reshape", x.shape), lambda v: sweep.arrays.reshape(v, x.shape)))


@_rule("permute_dims")
def _permute(sweep: _Reverse, node: Node, z: Masked) -> None:
    axes = node.attributes["axes"]
    back = tuple(axes.index(i) for i in range(len(axes)))
    sweep.contribute(node.operands[0], sweep.seen(z, ("permute", back), lambda v: sweep.arrays.permute(v, back)))


@_rule("copy wait")
def _copy(sweep: _Reverse, node: Node, z: Masked) -> None:
    sweep.contribute(node.operands[0], z)


@_rule("all_reduce")
def _all_reduce(sweep: _Reverse, node: Node, z: Masked) -> None:
    """Each process has a part in the sum of all: their cotangents are summed."""
    def summed(v: list[Value]) -> Value:
        return sweep.arrays.emit(OPS["wait"], (sweep.arrays.emit(OPS["all_reduce"], v, node.attributes),))

    sweep.contribute(node.operands[0], sweep.joined([z], ("all_reduce", *node.attributes.values()), summed))


@_rule("stop_gradient arange")
def _nothing(sweep: _Reverse, node: Node, z: Masked) -> None:
    """No derivative passes."""


@_rule("broadcast_to")
def _broadcast(sweep: _Reverse, node: Node, z: Masked) -> None:
    """What was repeated is summed; a sign is turned after that, where there are fewer of them."""
    x, arrays = node.operands[0], sweep.arrays
    lead = node.results[0].type.rank - x.type.rank
    repeated = (lead + i for i, n in enumerate(x.shape) if n == 1 != node.results[0].shape[lead + i])
    axes = (*range(lead), *repeated)
    mask = sweep.masks.through(z.mask, ("any", axes, x.shape), lambda m: arrays.reshape(arrays.any(m, axes), x.shape))
    each, negative = sweep.masks.select(z), False
    if each.node is not None and each.node.op.name == "negative":
        each, negative = each.node.operands[0], True
    total = arrays.reshape(arrays.reduce("sum", each, axes), x.shape)
    sweep.contribute(x, Masked(arrays.elementwise("negative", total) if negative else total, mask, True))


@_rule("sum")
def _sum(sweep: _Reverse, node: Node, z: Masked) -> None:
    """Every element that was summed has the cotangent of the sum."""
    x, arrays = node.operands[0], sweep.arrays
    axes = node.attributes["axis"]
    sweep.contribute(x, sweep.seen(z, ("spread", axes, x.shape), lambda v: spread_over(arrays, v, axes, x.shape)))


def spread_over(arrays: Folding, v: Value, axes: tuple[int, ...], shape: tuple[int, ...]) -> Value:
    """A reduction's result, repeated over the axes that it was reduced over."""
    if isinstance(v, Constant):
        return arrays.broadcast_to(v, shape)
    return arrays.broadcast_to(arrays.unsqueeze(v, axes), shape)


@_rule("max min")
def _extremum(sweep: _Reverse, node: Node, z: Masked) -> None:
    """The elements that are extreme share equally."""
    x, arrays = node.operands[0], sweep.arrays
    axes = node.attributes["axis"]
    chosen, count = extreme(arrays, node)
    share = arrays.elementwise("divide", sweep.masks.select(z), count)
    spread = sweep.masks.through(z.mask, ("spread", axes, x.shape), lambda m: spread_over(arrays, m, axes, x.shape))
    mask = sweep.masks.both(sweep.masks.where(chosen, True), spread)
    sweep.contribute(x, Masked(spread_over(arrays, share, axes, x.shape), mask))


def extreme(arrays: Folding, node: Node) -> tuple[Value, Value]:
    """Which elements are the maximum (minimum), and how many for each result."""
    x, axes = node.operands[0], node.attributes["axis"]
    chosen = arrays.elementwise("equal", x, spread_over(arrays, node.results[0], axes, x.shape))
    return chosen, arrays.reduce("sum", arrays.astype(chosen, x.dtype), axes)


@_rule("cumsum")
def _cumsum(sweep: _Reverse, node: Node, z: Masked) -> None:
    """The running sum from the other end."""
    x, axis, arrays = node.operands[0], node.attributes["axis"], sweep.arrays
    flipped = tuple((n - 1, -1, -1) if i == axis else (0, n, 1) for i, n in enumerate(x.shape))
    if x.shape[axis] == 0:
        sweep.contribute(x, z)
        return

    def summed(v: list[Value]) -> Value:
        return arrays.slice(arrays.cumsum(arrays.slice(v[0], flipped), axis), flipped)

    sweep.contribute(x, sweep.joined([z], ("cumsum", axis), summed))


@_rule("matmul")
def _matmul(sweep: _Reverse, node: Node, z: Masked) -> None:
    """Z = A B: A_bar = Z_bar B', B_bar = A' Z_bar. A row of A lives where one of Z's does, a column of B likewise."""
    (a, b), arrays = node.operands, sweep.arrays
    g = sweep.masks.select(z)

    def contribute(x: Value, product: tuple[Value, Value], axis: int) -> None:
        mask = sweep.masks.through(z.mask, ("any", axis, x.shape), lambda m: arrays.broadcast_to(
            arrays.unsqueeze(arrays.any(m, (axis,)), (axis,)), x.shape))
        sweep.contribute(x, Masked(arrays.emit(OPS["matmul"], product), mask, True))

    rank = a.type.rank
    if a in sweep.active:
        contribute(a, (g, arrays.transpose(b)), rank - 1)
    if b in sweep.active:
        contribute(b, (arrays.transpose(a), g), rank - 2)


@_rule("slice")
def _slice(sweep: _Reverse, node: Node, z: Masked) -> None:
    """A piece of the operand's cotangent; all pieces are placed at once."""
    sweep.pieces.setdefault(node.operands[0], []).append((node.attributes["index"], z))


@_rule("gather")
def _gather(sweep: _Reverse, node: Node, z: Masked) -> None:
    """What was gathered is added back; all gathers of one operand at once."""
    sweep.updates.setdefault(node.operands[0], []).append((node.operands[1:], z))


@_rule("place")
def _place(sweep: _Reverse, node: Node, z: Masked) -> None:
    for operand, index in zip(node.operands, node.attributes["at"], strict=True):
        if operand in sweep.active:
            taken = partial(sweep.arrays.slice, index=index)
            sweep.contribute(operand, sweep.seen(z, ("slice", index), taken))


@_rule("scatter_add")
def _scatter(sweep: _Reverse, node: Node, z: Masked) -> None:
    updates, *indices = node.operands
    key = ("gather", *map(id, indices))
    sweep.contribute(updates, sweep.seen(z, key, lambda v: sweep.arrays.gather(v, indices)))

"""The graph: values, nodes in schedule order, and the builder that is the only way to make one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import literals
from .diagnostics import Fault, Span
from .literals import Number
from .ops import OPS, Operation
from .shapes import Attributes
from .types import DType, TensorType

EMPTY: Attributes = {}


class Value:
    """What an operation defines, or an input. Compared by identity: a line of text is an identity."""

    __slots__ = ("name", "node", "span", "type")

    def __init__(self, name: str, type: TensorType, node: Node | None = None, span: Span | None = None) -> None:
        self.name = name
        self.type = type
        self.node = node
        self.span = span

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __repr__(self) -> str:
        return f"{self.name}: {self.type}"


class Constant(Value):
    """A scalar that stands in the text where it is used. It is no operation and takes no memory."""

    __slots__ = ("number",)

    def __init__(self, number: Number, dtype: DType) -> None:
        super().__init__("", TensorType(dtype))
        self.number = literals.rounded(number, dtype)

    @property
    def bits(self) -> Any:
        """Equal for equal bits: NaN equals itself, 0.0 and -0.0 differ."""
        return literals.bits(self.number)

    def __repr__(self) -> str:
        return f"{literals.text(self.number, self.dtype)}: {self.dtype}"


class Node:
    """One operation of the schedule: what it does, of what, and the values that it defines."""

    __slots__ = ("attributes", "op", "operands", "results")

    def __init__(self, op: Operation, operands: tuple[Value, ...], attributes: Attributes) -> None:
        self.op = op
        self.operands = operands
        self.attributes = attributes
        self.results: tuple[Value, ...] = ()

    @property
    def result(self) -> Value:
        """The only result of an operation that has one."""
        return self.results[0]

    @property
    def flops(self) -> int:
        """Arithmetic operations of one run."""
        if self.op.name == "region":
            return sum(node.flops for node in self.attributes["body"].nodes)
        return self.op.flops(operand_types(self.op, self.operands), self.results[0].type, self.attributes)

    @property
    def moved(self) -> int:
        """Elements copied by one run without arithmetic."""
        if self.op.name == "region":
            return sum(node.moved for node in self.attributes["body"].nodes)
        return self.op.moved(self.results[0].type)

    def __repr__(self) -> str:
        names = ", ".join(v.name or repr(v) for v in self.operands)
        return f"{', '.join(v.name for v in self.results)} = {self.op.name}({names})"


@dataclass(frozen=True)
class Distribution:
    """What a sample input is drawn from: `normal(mean, deviation)`, `uniform(low, high)`, `integers(low, high)`."""

    name: str
    arguments: tuple[Number, Number]

    def __str__(self) -> str:
        return f"{self.name}({self.arguments[0]!r}, {self.arguments[1]!r})"


DISTRIBUTIONS = ("normal", "uniform", "integers")
Default = Number | Distribution


class Graph:
    """A straight-line program: inputs, nodes in schedule order, outputs.

    The inputs from `first_data` on are data: no gradient unless asked. `defaults` says of inputs, by name, what a
    sample is. `scheduled`: order and repeats are deliberate, so no pass reorders or merges them. `rows`: of the
    body of a region, the rows of a block (of several axes the last ones; empty: as the backend finds best); else None.
    `donated` names for an input the output that is written over its memory (`ir.donation`).
    """

    __slots__ = ("defaults", "donated", "file", "first_data", "inputs", "name", "nodes", "outputs", "rows", "scheduled")

    def __init__(self, name: str, inputs: Sequence[Value], nodes: Sequence[Node], outputs: Sequence[Value],
                 defaults: Mapping[str, Default], first_data: int, scheduled: bool = False,
                 file: str = "", rows: Sequence[int] | None = None,
                 donated: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.rows = None if rows is None else tuple(rows)
        self.inputs = tuple(inputs)
        self.nodes = tuple(nodes)
        self.outputs = tuple(outputs)
        self.defaults = dict(defaults)
        self.first_data = first_data
        self.scheduled = scheduled
        self.file = file
        self.donated = dict(donated or {})

    @property
    def parameters(self) -> tuple[Value, ...]:
        """The inputs before the bare `*`: what a gradient is taken in, unless asked otherwise."""
        return self.inputs[:self.first_data]

    @property
    def data(self) -> tuple[Value, ...]:
        """The inputs after the bare `*`."""
        return self.inputs[self.first_data:]

    def values(self) -> Iterator[Value]:
        """Inputs, then the results of all nodes, in order."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.results

    def input(self, name: str) -> Value:
        """The input of that name; Fault E0403 if there is none."""
        from .diagnostics import near

        for value in self.inputs:
            if value.name == name:
                return value
        known = [v.name for v in self.inputs]
        raise Fault("E0403", f"{self.name} has no input '{name}'",
                    near(name, known) or f"its inputs are {', '.join(known) or 'none'}")

    def __eq__(self, other: object) -> bool:
        """Equal programs: the same names, types, operations and constants (by their bits), in the same order."""
        if not isinstance(other, Graph):
            return NotImplemented
        return self is other or self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def _key(self) -> tuple[Any, ...]:
        return (self.name, *self._content())

    def same_body(self, other: Graph) -> bool:
        """Equal but for the name?"""
        return self is other or self._content() == other._content()

    def renamed(self, name: str) -> Graph:
        """The same program under another name."""
        return Graph(name, self.inputs, self.nodes, self.outputs, self.defaults, self.first_data, self.scheduled,
                     self.file, self.rows, self.donated)

    def tiled(self, rows: Sequence[int] | None) -> Graph:
        """The same body, by blocks of so many rows."""
        return Graph(self.name, self.inputs, self.nodes, self.outputs, self.defaults, self.first_data, self.scheduled,
                     self.file, rows)

    def undonated(self) -> Graph:
        """The same program, its outputs beside its inputs."""
        return Graph(self.name, self.inputs, self.nodes, self.outputs, self.defaults, self.first_data, self.scheduled,
                     self.file, self.rows) if self.donated else self

    def regions(self) -> Iterator[Graph]:
        """The bodies of its regions, each once, in the order in which they are first run."""
        seen: set[str] = set()
        for node in self.nodes:
            if node.op.name == "region" and node.attributes["body"].name not in seen:
                seen.add(node.attributes["body"].name)
                yield node.attributes["body"]

    def _content(self) -> tuple[Any, ...]:
        def operand(v: Value) -> Any:
            return (v.bits, v.dtype) if isinstance(v, Constant) else v.name

        def default(d: Default) -> Any:
            return (d.name, *map(literals.bits, d.arguments)) if isinstance(d, Distribution) else literals.bits(d)

        return (self.first_data, self.scheduled, self.rows, self.donated,
                [(v.name, v.type) for v in self.inputs],
                {k: default(d) for k, d in self.defaults.items()},
                [([(v.name, v.type) for v in n.results], n.op.name, [operand(v) for v in n.operands],
                  dict(n.attributes)) for n in self.nodes],
                [operand(v) for v in self.outputs])

    def __str__(self) -> str:
        from .show import show

        return show(self)

    def __repr__(self) -> str:
        return f"<slpc.Graph {self.name}: {len(self.inputs)} inputs, {len(self.nodes)} operations>"

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        """Pickled as its text."""
        from .parse import parse

        return (parse, (str(self), self.file))

    def to_networkx(self) -> Any:
        """A `networkx.DiGraph` over value names: one node per input and per operation's result.

        Node attributes: `op` ("input" for inputs), `bytes` (0 for a view), `flops`, `view_of` (the name of the value
        whose buffer it looks into; None for an owner and for a view of a constant), `output` (bool), `dtype`, `shape`,
        `order` (place in the schedule, -1 for inputs). Edges run from operand to result and carry `operands`, the
        positions at which it is used. What a backend adds, workspace and in-place forms, is in
        `slpc.to_networkx(graph)`.
        """
        import networkx

        made = networkx.DiGraph(name=self.name)
        outputs = set(self.outputs)
        for value in self.inputs:
            made.add_node(value.name, op="input", bytes=value.type.bytes, flops=0, view_of=None, order=-1,
                          output=value in outputs, dtype=value.dtype.name, shape=value.shape)
        for order, node in enumerate(self.nodes):
            for value in node.results:
                root = buffer(value)
                made.add_node(value.name, op=node.op.name, bytes=0 if node.op.view else value.type.bytes,
                              flops=node.flops, view_of=None if root is value else root.name or None, order=order,
                              output=value in outputs, dtype=value.dtype.name, shape=value.shape)
                for position, operand in enumerate(node.operands):
                    if isinstance(operand, Constant):
                        continue
                    if made.has_edge(operand.name, value.name):
                        made.edges[operand.name, value.name]["operands"] += (position,)
                    else:
                        made.add_edge(operand.name, value.name, operands=(position,))
        return made


def buffer(value: Value) -> Value:
    """The value that owns the memory `value` looks into: itself, unless it is a view."""
    while value.node is not None and value.node.op.view:
        value = value.node.operands[0]
    return value


def stays_below(value: Value, length: int) -> bool:
    """Is it an arange that stays below the length, in whatever shape?"""
    made = buffer(value).node
    if made is None or made.op.name != "arange":
        return False
    a = made.attributes
    taken = range(a["start"], a["stop"], a["step"])
    return not taken or (min(taken[0], taken[-1]) >= 0 and max(taken[0], taken[-1]) < length)


def operand_types(op: Operation, operands: Sequence[Value]) -> list[TensorType]:
    """The operands' types as the shape rule sees them: a constant of an elementwise operation has the others' shape."""
    types = [v.type for v in operands]
    if op.elementwise and types.count(types[0]) < len(types):
        shape = next((v.type.shape for v in operands if not isinstance(v, Constant)), ())
        if shape:
            types = [TensorType(v.type.dtype, shape) if isinstance(v, Constant) else v.type for v in operands]
    return types


class Builder:
    """Makes a graph: names are unique, types inferred, and what does not fit is a Fault."""

    def __init__(self, name: str, file: str = "", reserved: Iterable[str] = ()) -> None:
        self.name = name
        self.file = file
        self.scheduled = False
        self.inputs: list[Value] = []
        self.defaults: dict[str, Default] = {}
        self.donated: dict[str, str] = {}
        self.first_data: int | None = None
        self.nodes: list[Node] = []
        self._names: set[str] = set(reserved)
        self._counters: dict[str, int] = {}
        self._constants: dict[tuple[DType, Any], Constant] = {}
        self._bodies: dict[str, list[Graph]] = {}

    def fresh(self, stem: str) -> str:
        """A name that is not taken: the stem itself, or the stem with the next number. Constant time, amortised."""
        name = stem
        while name in self._names:
            number = self._counters.get(stem, 0) + 1
            self._counters[stem] = number
            name = f"{stem}_{number}"
        self._names.add(name)
        return name

    def reserve(self, names: Iterable[str]) -> None:
        """Names that `fresh` must not give."""
        self._names.update(names)

    def input(self, name: str, type: TensorType, default: Default | None = None, *, data: bool = False,
              span: Span | None = None) -> Value:
        """A new input; those after the first `data=True` are all data."""
        if data and self.first_data is None:
            self.first_data = len(self.inputs)
        value = Value(self.fresh(name), type, None, span)
        self.inputs.append(value)
        if default is not None:
            self.defaults[value.name] = default
        return value

    def constant(self, number: Number, dtype: DType) -> Constant:
        """The scalar constant, rounded to `dtype`; Fault E0309 where it overflows."""
        key = (dtype, literals.bits(number))
        known = self._constants.get(key)
        if known is None:
            known = self._constants[key] = Constant(number, dtype)
        return known

    def emit(self, op: Operation | str, operands: Sequence[Value], attributes: Attributes = EMPTY, *,
             name: str = "", span: Span | None = None) -> Value:
        """Append one operation and return its result; an empty name is to be given later (`name_value`)."""
        row = OPS[op] if isinstance(op, str) else op
        node = Node(row, tuple(operands), attributes)
        type = row.infer(operand_types(row, operands), attributes)
        result = Value(self.fresh(name) if name else "", type, node, span)
        node.results = (result,)
        self.nodes.append(node)
        return result

    def region(self, body: Graph, operands: Sequence[Value], *, span: Span | None = None) -> tuple[Value, ...]:
        """Append a region, whose body runs by blocks of rows, and return its results, which are to be named.

        The body takes another name where its own is taken; equal bodies are one. Fault E0121 where its rows are not
        independent, E0301 where the operands do not fit.
        """
        from .rows import rows_of

        body = self._known(body)
        rows_of(body)
        row = OPS["region"]
        attributes = {"body": body}
        row.infer([v.type for v in operands], attributes)
        node = Node(row, tuple(operands), attributes)
        node.results = tuple(Value("", v.type, node, span) for v in body.outputs)
        self.nodes.append(node)
        return node.results

    def again(self, node: Node, operands: Sequence[Value]) -> tuple[Value, ...]:
        """The operation again, of other operands: its results, under the names of those that it had."""
        span = node.results[0].span
        made = self.region(node.attributes["body"], operands, span=span) if node.op.name == "region" else (
            self.emit(node.op, operands, node.attributes, span=span),)
        for old, new in zip(node.results, made, strict=True):
            new.name = old.name
        return made

    def _known(self, body: Graph) -> Graph:
        """The body itself, or the equal one that the builder has already, under a name of its own."""
        for known in self._bodies.get(body.name, ()):
            if known is body or known.same_body(body):
                return known
        taken = self._bodies.setdefault(body.name, [])
        if not taken and body.name not in self._names:
            self._names.add(body.name)
            taken.append(body)
            return body
        renamed = body.renamed(self.fresh(body.name))
        taken.append(renamed)
        self._bodies[renamed.name] = [renamed]
        return renamed

    def adopt(self, nodes: Iterable[Node]) -> None:
        """Nodes of another graph that are to be here as they are: the bodies of regions among them are known."""
        for node in nodes:
            if node.op.name == "region":
                body = node.attributes["body"]
                self._names.add(body.name)
                if not any(known is body for known in self._bodies.setdefault(body.name, [])):
                    self._bodies[body.name].append(body)

    def name_value(self, value: Value, stem: str) -> None:
        """Name a value that was emitted without a name."""
        assert not value.name
        value.name = self.fresh(stem)

    def finish(self, outputs: Sequence[Value], names: Sequence[str] = (), original: Graph | None = None) -> Graph:
        """The graph. Each output owns its memory: what is an input, a view of one, a constant, or shares a buffer with
        another output, is copied.

        Output i is called `names[i]`, or by a name made of it if another value is called so. A value that was made here
        is renamed; one of the graph `original` is copied. Where names[i] is missing or empty, a value keeps its name,
        and what has none of its own is `out0`, `out1`, ...
        """
        owned: list[Value] = []
        owners: set[int] = set()
        held: set[str] = set()
        fixed = frozenset(original.values()) if original is not None else frozenset()
        for position, value in enumerate(outputs):
            wanted = names[position] if position < len(names) else ""
            if not wanted:
                wanted = value.name if value.node is not None and value not in owned else f"out{position}"
            shared = not _owns(value) or id(buffer(value)) in owners
            if shared or (value.name != wanted and value in fixed):
                if value.name == wanted and value not in fixed:
                    value.name = self.fresh(f"{wanted}_t")
                    held.discard(wanted)
                value = self.emit("copy", (value,), span=value.span)
            if value.name != wanted:
                held = held or {v.name for v in self.values()}
                held.discard(value.name)
                value.name = self.fresh(wanted) if wanted in held else wanted
                self._names.add(wanted)
                held.add(wanted)
            owners.add(id(buffer(value)))
            owned.append(value)
            for old, new in self.donated.items():
                if new == wanted:
                    self.donated[old] = value.name
        first_data = len(self.inputs) if self.first_data is None else self.first_data
        return Graph(self.name, self.inputs, self.nodes, owned, self.defaults, first_data, self.scheduled, self.file,
                     donated=self.donated)

    def values(self) -> Iterator[Value]:
        """Inputs, then the results of all nodes so far."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.results


def _owns(value: Value) -> bool:
    """Is it made by an operation, in memory that has all of its elements?"""
    root = buffer(value)
    return root.node is not None and (root is value or root.type.size >= value.type.size)

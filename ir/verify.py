"""What every graph keeps to. Run after each pass under test; a failure is our bug, never the user's."""

from __future__ import annotations

from . import donation
from .collectives import unawaited
from .graph import Constant, Graph, Value, buffer, operand_types
from .rows import rows_of


class VerificationError(AssertionError):
    """A pass made a graph that is none. A bug of ours."""


def verify(graph: Graph) -> Graph:
    """The graph itself, if it is in SSA form and well typed; else VerificationError with the lines around the fault.

    Each name is defined once, before its uses; each type is what the operation's shape rule says; each output owns
    its buffer alone; attributes are those that the operation's row lists; nothing reads a donated input after it has
    been written over.
    """
    defined: set[int] = set()
    names: set[str] = set()

    def define(value: Value, where: int) -> None:
        if not value.name.isidentifier() or value.name in names:
            _fail(graph, where, f"bad or repeated name {value.name!r}")
        names.add(value.name)
        defined.add(id(value))

    for value in graph.inputs:
        define(value, 0)
    for at, node in enumerate(graph.nodes):
        for operand in node.operands:
            if not isinstance(operand, Constant) and id(operand) not in defined:
                _fail(graph, at, f"{operand!r} is used before it is defined")
        if set(node.attributes) != set(node.op.attributes):
            _fail(graph, at, f"{node.op.name} has attributes {sorted(node.attributes)}")
        inferred = [node.op.infer(operand_types(node.op, node.operands), node.attributes)]
        if node.op.name == "region":
            inferred = [v.type for v in verify(node.attributes["body"]).outputs]
            rows_of(node.attributes["body"])
        for result, type in zip(node.results, inferred, strict=True):
            if result.node is not node or result.type is not type:
                _fail(graph, at, f"{result!r} should be {type}")
            define(result, at)
    owners: set[int] = set()
    for value in graph.outputs:
        root = buffer(value)
        if isinstance(root, Constant) or root.node is None or id(root) in owners or id(value) not in defined:
            _fail(graph, len(graph.nodes), f"output {value!r} does not own its buffer")
        owners.add(id(root))
    told = donation.fault(graph)
    if told is not None:
        _fail(graph, len(graph.nodes), told[0])
    begun = unawaited(graph)
    if begun is not None:
        _fail(graph, len(graph.nodes), f"{begun!r} is read before it is there")
    if not set(graph.defaults) <= {v.name for v in graph.inputs}:
        _fail(graph, 0, "a default for no input")
    return graph


def _fail(graph: Graph, at: int, message: str) -> None:
    around = "\n".join(f"  {'>' if i == at else ' '} {graph.nodes[i]!r}"
                       for i in range(max(0, at - 5), min(len(graph.nodes), at + 5)))
    raise VerificationError(f"{graph.name}: {message}\n{around}")

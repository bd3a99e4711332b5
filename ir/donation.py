"""Donation: an output that is written over the memory of an input.

`@donated(w="w_new")` stands above a program that makes a new value of what it was given: a parameter after an update.
The caller gives up w, and finds w_new in its memory. Without the decorator the program computes the same and takes as
much memory more. A scalar owns no memory worth the name, and its donation says nothing.
"""

from __future__ import annotations

from .graph import Constant, Graph, Value, buffer


def donations(graph: Graph) -> dict[Value, Value]:
    """The donated input for each output that is written over one: arrays alone."""
    if not graph.donated:
        return {}
    inputs = {v.name: v for v in graph.inputs}
    outputs = {v.name: v for v in graph.outputs}
    return {outputs[new]: inputs[old] for old, new in graph.donated.items() if inputs[old].shape}


def fault(graph: Graph) -> tuple[str, str] | None:
    """What is wrong with the donations, and what to do about it; None where they hold."""
    inputs, outputs = {v.name: v for v in graph.inputs}, {v.name: v for v in graph.outputs}
    for old, new in graph.donated.items():
        for what, name, known in (("input", old, inputs), ("output", new, outputs)):
            if name not in known:
                return f"{graph.name} has no {what} '{name}'", f"it has {', '.join(known)}"
        if inputs[old].type is not outputs[new].type:
            return f"{outputs[new]!r} is not of the type of {inputs[old]!r}", "both have one dtype and one shape"
    if len(set(graph.donated.values())) < len(graph.donated):
        return "an output is written over two inputs", "each input is donated to an output of its own"
    written: dict[Value, Value] = {}
    given = donations(graph)
    making = {buffer(y): y for y in given}
    for node in graph.nodes:
        if not node.op.view:
            for operand in node.operands:
                root = buffer(operand)
                if not isinstance(root, Constant) and root in written:
                    return (f"'{node.result.name}' reads '{root.name}' after '{written[root].name}' has been written "
                            "over it", "let it stand before")
        for value in node.results:
            if value in making:
                written[given[making[value]]] = making[value]
    return None

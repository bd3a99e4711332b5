"""How a pass begins its graph: with the inputs and the names of another."""

from __future__ import annotations

from ..ir.graph import Builder, Graph
from ..ir.statements import RESERVED


def extended(graph: Graph, *, nodes: bool = True) -> Builder:
    """A builder that begins with a graph's inputs and, with `nodes`, its nodes (shared, never changed). The graph's
    names are reserved either way, so that a pass may give a value's name to what stands for it."""
    builder = Builder(graph.name, graph.file, RESERVED)
    builder.inputs = list(graph.inputs)
    builder.first_data = graph.first_data if graph.first_data < len(graph.inputs) else None
    builder.defaults = dict(graph.defaults)
    builder.scheduled = graph.scheduled
    builder.reserve(v.name for v in graph.values())
    if nodes:
        builder.adopt(graph.nodes)
        builder.nodes = list(graph.nodes)
    return builder

"""The passes by name, and how a list of them is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..ir.diagnostics import Fault, near
from ..ir.graph import Graph
from ..ir.types import TensorType
from .adjoint import adjoint
from .attention import is_attention
from .batch import by_batch
from .fuse import PAYS, SMALLEST, fuse
from .merge import merge
from .simplify import simplify
from .tangent import tangent
from .update import OPTIMIZERS, training_step

Options = Mapping[str, Any]
@dataclass(frozen=True)
class Kernels:
    """Regions that pay; one that is attention is merged with no other where there are kernels for its heads."""

    attends: Callable[[TensorType, bool], bool]


Fusion: TypeAlias = bool | Literal["batch", "all"] | Kernels
"""No regions, those that pay, one over the samples as well, or all that spare memory, though they cost time."""
FRUGAL: tuple[Fusion, ...] = (True, "all", "batch")
"""What there is to choose among where memory decides, what takes the least time first."""

PASSES: dict[str, Callable[[Graph, Options], Graph]] = {
    "adjoint": lambda graph, options: adjoint(graph, of=options.get("of"), wrt=options.get("wrt")),
    "tangent": lambda graph, options: tangent(graph, wrt=options.get("wrt")),
    "fuse": lambda graph, options: merge(fuse(graph)),
    "batch": lambda graph, options: by_batch(graph),
    "simplify": lambda graph, options: simplify(graph),
    **{name: lambda graph, options, name=name: training_step(graph, name).graph for name in OPTIMIZERS},  # type: ignore[misc]
}


def run(graph: Graph, names: Sequence[str], options: Options | None = None,
        after: Callable[[str, Graph], None] | None = None) -> Graph:
    """The graph after the passes of these names, in order. `options` holds `of` and `wrt`; `after` is called with each
    pass's name and result. Raises SlpError E0411 for an unknown pass."""
    for name in names:
        if name not in PASSES:
            raise Fault("E0411", f"there is no pass '{name}'",
                        near(name, PASSES) or f"the passes are {', '.join(PASSES)}").error(graph.file)
    for name in names:
        graph = PASSES[name](graph, options or {})
        if after is not None:
            after(name, graph)
    return graph


def prepared(graph: Graph, *, fused: Fusion, derive: Callable[[Graph], Graph] | None = None) -> Graph:
    """The program as it is planned and run: simplified, or its derivative by `derive`, and with `fused` with regions
    where these pay; forward and backward passes that meet are merged. With "batch" a program that is a sum over samples
    runs forward and backward by blocks of these; with "all" there are regions wherever their widest value is wider than
    what they read and give."""
    graph = simplify(graph)
    if fused:
        graph = fuse(graph, least=1.0 if fused == "all" else PAYS, smallest=SMALLEST)
    if derive is None:
        return graph
    graph = simplify(derive(graph))
    if not fused:
        return graph
    whole = by_batch(graph, least=PAYS, smallest=SMALLEST) if fused == "batch" else graph
    if whole is not graph:
        return simplify(whole)
    kernels = fused if isinstance(fused, Kernels) else None
    return simplify(merge(graph, lambda body: kernels is not None and is_attention(body, kernels.attends)))

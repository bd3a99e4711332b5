"""The programs of tests/planning as tasks: small graphs of every shape that planners are tested on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slpc.backends.numpy_backend import TARGET
from slpc.ir.parse import parse
from slpc.ir.target import Target
from slpc.passes.adjoint import adjoint
from slpc.passes.legalize import legalize
from slpc.passes.simplify import simplify
from slpc.passes.tangent import tangent
from slpc.passes.tasks import Tasks, tasks

FOLDER = Path(__file__).parent / "planning"
FORWARD = {"forward"}
SECOND = {"second"}


def names() -> list[str]:
    """The instances, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.slp"))


def instance(name: str, target: Target = TARGET, **constants: Any) -> Tasks:
    """Value and gradient of an instance; of `forward` the value, of `second` a Hessian-vector product as well."""
    path = FOLDER / f"{name}.slp"
    graph = parse(path.read_text(), str(path), None, **constants)
    if name not in FORWARD:
        graph = simplify(adjoint(graph))
    if name in SECOND:
        graph = tangent(graph, wrt=[v.name for v in graph.parameters])
    return tasks(legalize(simplify(graph), target), target)


def instances(target: Target = TARGET) -> Iterator[tuple[str, Tasks]]:
    """All of them by name."""
    for name in names():
        yield name, instance(name, target)

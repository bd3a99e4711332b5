"""What a pass must know of a backend: data that each backend fills and the front door hands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .graph import Node
from .types import DType


def no_workspace(node: Node) -> int:
    """A backend whose operations need no memory of their own."""
    return 0


@dataclass(frozen=True)
class Target:
    """A backend's facts.

    `accumulates_in` names, for a dtype that is stored but not computed in, the dtype in which sums and products of it
    are done. `products` says whether a product takes its operands only as a BLAS does (`ir.layout.Layout.matrix`).
    `in_place` lists, for an operation, the operands over which the result may be written when they are read for the
    last time. `workspace` is the bytes that one run of an operation needs beside operands and results. `alignment` is
    that of a value of at least that many bytes in an arena; a smaller one is aligned to its elements.
    """

    name: str
    alignment: int = 64
    accumulates_in: Mapping[DType, DType] = field(default_factory=dict)
    products_as_blas: bool = False
    in_place: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    workspace: Callable[[Node], int] = no_workspace

    def padded(self, size: int) -> int:
        """The bytes that a value of `size` bytes takes in an arena: as they are, or rounded up to the alignment."""
        return size if size < self.alignment else -(-size // self.alignment) * self.alignment

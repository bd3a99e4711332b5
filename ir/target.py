"""What a pass must know of a backend: data that each backend fills and the front door hands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .graph import Graph, Node
from .types import DType, TensorType


def no_workspace(node: Node) -> int:
    """A backend whose operations need no memory of their own."""
    return 0


def nothing(node: Node) -> Sequence[tuple[int, int]]:
    """A backend whose regions write beside what they read."""
    return ()


def never(graph: Graph) -> bool:
    """A backend that takes every program as it is."""
    return False


def no_node(node: Node) -> bool:
    """A backend that has none of that kind."""
    return False


def none_outside(graph: Graph) -> int:
    """A backend whose libraries allocate nothing beside the arena."""
    return 0


@dataclass(frozen=True)
class Target:
    """A backend's facts.

    `accumulates_in` names, for a dtype that is stored but not computed in, the dtype in which sums and products of
    it are done, `adds_in` the one in which the parts are added that the blocks of a region have of a sum;
    `computed_in` does so for single operations. `products_as_blas` says whether a product takes its
    operands only as a BLAS does (`ir.layout.Layout.matrix`), `joined_batches` whether their leading axes must lie
    as one axis, `row_by_row` which operands an operation takes only row by row, `steps_forward` that no slice runs
    backwards. `in_place` lists, for an operation, the operands over which the result may be written when they are
    read for the last time, and `takes_over` says the pairs (operand, result) of which that is true of a region.
    `fusible` says of an operation whether a kernel of several can do it, `adds_products` that a product can be
    added to what is there (passes/kernels.py), `attends` of the heads' type, and of whether they are normalised,
    that it has kernels of attention for them (passes/attention.py). `accumulates` says of an operation of a block that
    it can add its result to what is there. `threads` is how many run blocks at once, each on memory of its own, and
    `alone` the target of a block's program then, which one thread runs.
    `contracts` says that it can round a product
    and the sum that takes it once together. `collectives` says that it runs in several processes; the others have
    copies of what one process sums. `workspace` is the bytes that one run of an operation needs beside operands and
    results, `outside` the most that the libraries allocate at once beside the arena while a program runs. `ridge` is
    the flops of a program's products that the device does in the time of a byte of its memory, so that a plan weighs an
    operation that moves bytes by its time (0: by its arithmetic alone). `arena`
    says whether the backend emits programs that run in an arena, `regions` whether it runs a region by blocks (the
    others are given its body in its place, unless the body is one that it `serves` whole, by a kernel),
    `block_bytes` what the largest value of a block takes where nothing says its rows: what is read again soon is to
    be in a cache, or a processor to be filled, `shrinks` by what that may be divided where memory is short,
    `fewest_rows` how many it has all the same: a product needs some to
    be worth packing its operands, `by_elements` which programs it takes apart into scalars instead.
    `alignment` is that of a value of at least that many bytes in it; a smaller one is aligned to its elements.
    """

    name: str
    arena: bool = False
    regions: bool = False
    serves: Callable[[Graph], bool] | None = None
    block_bytes: int = 1 << 19
    shrinks: int = 16
    fewest_rows: int = 16
    by_elements: Callable[[Graph], bool] = never
    alignment: int = 64
    accumulates_in: Mapping[DType, DType] = field(default_factory=dict)
    adds_in: Mapping[DType, DType] = field(default_factory=dict)
    computed_in: Mapping[tuple[str, DType], DType] = field(default_factory=dict)
    products_as_blas: bool = False
    joined_batches: bool = False
    steps_forward: bool = False
    contracts: bool = False
    inlines: bool = False
    row_by_row: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    in_place: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    takes_over: Callable[[Node], Sequence[tuple[int, int]]] = nothing
    collectives: bool = False
    fusible: Callable[[Node], bool] | None = None
    adds_products: bool = False
    accumulates: Callable[[Node], bool] = no_node
    threads: int = 1
    alone: Target | None = None
    attends: Callable[[TensorType, bool], bool] | None = None
    workspace: Callable[[Node], int] = no_workspace
    outside: Callable[[Graph], int] = none_outside
    ridge: Callable[[Graph], int] = none_outside

    def padded(self, size: int) -> int:
        """The bytes that a value of `size` bytes takes in an arena: as they are, or rounded up to the alignment."""
        return size if size < self.alignment else -(-size // self.alignment) * self.alignment

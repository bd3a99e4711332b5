"""What passes must know of the backend llvm."""

from __future__ import annotations

from dataclasses import replace

from ..ir.ops import OPS
from ..ir.target import Target
from ..ir.types import bf16, f16, f32
from ..passes.scalarise import fits
from .llvm_pool import threads
from .llvm_products import tiled

ELEMENTS = 5_000
"""Programs of arrays that are at most so many operations on scalars are straight-line code."""

TARGET = Target(
    "llvm", arena=True, by_elements=lambda graph: fits(graph, ELEMENTS), accumulates_in={f16: f32, bf16: f32},
    products_as_blas=True, contracts=True, inlines=True, regions=True, fewest_rows=128,
    accumulates=tiled, threads=threads(),
    in_place={op.name: tuple(range(len(op.operands))) for op in OPS.values() if op.elementwise or op.name == "copy"})
ALONE = replace(TARGET, threads=1)
"""The same for one thread: what C calls starts none."""

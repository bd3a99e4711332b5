"""What passes must know of the backend llvm."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..ir.ops import OPS
from ..ir.target import Target
from ..ir.types import bf16, f16, f32
from ..passes.scalarise import fits
from .llvm_pool import threads
from .llvm_products import tiled, workspace

ELEMENTS = 5_000
"""Programs of arrays that are at most so many operations on scalars are straight-line code."""

ALONE = Target(
    "llvm", arena=True, by_elements=lambda graph: fits(graph, ELEMENTS), accumulates_in={f16: f32, bf16: f32},
    adds_in={f16: f32, bf16: f32},
    products_as_blas=True, contracts=True, inlines=True, regions=True, fewest_rows=128,
    accumulates=tiled, workspace=partial(workspace, threads=1),
    in_place={op.name: tuple(range(len(op.operands))) for op in OPS.values() if op.elementwise or op.name == "copy"})
"""For one thread: what C calls starts none."""
TARGET = replace(ALONE, threads=threads(), alone=ALONE, workspace=partial(workspace, threads=threads()))
"""For the threads of this process."""

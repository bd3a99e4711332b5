"""Sample inputs, drawn as the defaults say: one generator, in the order of the inputs, the same on every backend."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy

from . import memory
from .ir.diagnostics import Diagnostic, SlpError
from .ir.graph import Default, Distribution, Graph
from .ir.types import TensorType


def draw(graph: Graph, seed: int = 0, given: Container[str] = ()) -> dict[str, Any]:
    """A sample of each input, by name: arrays of the input's dtype and shape, NumPy scalars for shape ().

    A number as default fills the array; without a default, floating point is standard normal, integers and bools are
    zero. Inputs in `given` are left out, but drawn, so that the others do not depend on what is given. SlpError E0408
    where the program would take more memory than the machine has, E0115 for a distribution that has no sample.
    """
    memory.check(graph)
    generator = numpy.random.default_rng(seed)
    drawn = {}
    for value in graph.inputs:
        try:
            sample = _sample(graph.defaults.get(value.name), value.type, generator)
        except ValueError as error:
            told = f"{value.name} cannot be drawn from {graph.defaults[value.name]}: {error}"
            raise SlpError(Diagnostic("E0115", told, "", graph.file, value.span)) from None
        if value.name not in given:
            drawn[value.name] = sample
    return drawn


def _sample(default: Default | None, type: TensorType, generator: numpy.random.Generator) -> Any:
    shape, dtype = type.shape, type.dtype.numpy
    if default is None:
        if not type.dtype.is_float:
            return numpy.zeros(shape, dtype)[()]
        default = Distribution("normal", (0.0, 1.0))
    if not isinstance(default, Distribution):
        return numpy.full(shape, default, dtype)[()]
    first, second = default.arguments
    if default.name == "integers":
        return numpy.asarray(generator.integers(int(first), int(second), shape)).astype(dtype)[()]
    sample = generator.normal if default.name == "normal" else generator.uniform
    return numpy.asarray(sample(first, second, shape)).astype(dtype)[()]

"""What training a program takes in memory: parameters, gradients, the optimizer's state, and activations."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.diagnostics import Fault, near
from ..ir.graph import Graph
from ..ir.types import DType

OPTIMIZERS = {"sgd": 0, "momentum": 1, "adam": 2}
"""Moments that an optimizer keeps of each parameter: none; the running mean of the gradient (Polyak 1964); that and the
running mean of its square (Kingma and Ba 2015, algorithm 1)."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes, term by term. `activations` is the peak of value and gradient beyond the gradients themselves."""

    parameters: int
    gradients: int
    state: int
    activations: int
    data: int

    @property
    def total(self) -> int:
        """All of it, alive at once at the step's peak."""
        return self.parameters + self.gradients + self.state + self.activations + self.data


def training_memory(gradient: Graph, peak_bytes: int, optimizer: str, state: DType | None = None) -> TrainingMemory:
    """The terms for a program of value and gradient whose peak beyond its inputs is `peak_bytes`.

    Moments are stored in `state`, by default in the dtype of their parameter. Fault E0609 for an unknown optimizer.
    """
    if optimizer not in OPTIMIZERS:
        raise Fault("E0609", f"there is no optimizer '{optimizer}'",
                    near(optimizer, OPTIMIZERS) or f"the optimizers are {', '.join(OPTIMIZERS)}")
    parameters = gradient.parameters
    names = {f"{v.name}_bar" for v in parameters}
    gradients = sum(v.type.bytes for v in gradient.outputs if v.name in names)
    moments = sum(v.type.size * (state or v.dtype).bytes for v in parameters) * OPTIMIZERS[optimizer]
    return TrainingMemory(sum(v.type.bytes for v in parameters), gradients, moments, peak_bytes - gradients,
                          sum(v.type.bytes for v in gradient.data))

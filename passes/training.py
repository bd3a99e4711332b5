"""What training a program takes in memory: parameters, gradients, the optimizer's state, and activations."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.graph import Graph
from ..ir.types import DType
from .update import buffers_of


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes, term by term. `activations` is the peak of value and gradient beyond the gradients themselves. `step` is
    the peak of loss, gradient and update as one program (`passes.update`), beyond parameters, state and data: there a
    gradient lives until its update, and no longer."""

    parameters: int
    gradients: int
    state: int
    activations: int
    data: int
    step: int

    @property
    def total(self) -> int:
        """The terms together, alive at once at the peak, where all gradients are kept for an update that follows."""
        return self.parameters + self.gradients + self.state + self.activations + self.data

    @property
    def in_step(self) -> int:
        """The same where the update is part of the step."""
        return self.parameters + self.state + self.step + self.data


def training_memory(gradient: Graph, peak_bytes: int, step_bytes: int, optimizer: str,
                    state: DType | None = None) -> TrainingMemory:
    """The terms for a program of value and gradient whose peak beyond its inputs is `peak_bytes`, and `step_bytes` with
    the update in it.

    What the optimizer keeps is stored in `state`, by default in the dtype of its parameter. Fault E0609 for an unknown
    optimizer.
    """
    kept = len(buffers_of(optimizer))
    parameters = gradient.parameters
    names = {f"{v.name}_bar" for v in parameters}
    gradients = sum(v.type.bytes for v in gradient.outputs if v.name in names)
    return TrainingMemory(
        sum(v.type.bytes for v in parameters), gradients,
        sum(v.type.size * (state or v.dtype).bytes for v in parameters) * kept, peak_bytes - gradients,
        sum(v.type.bytes for v in gradient.data), step_bytes)

"""The roofline: how long a program takes on a device that computes and moves bytes at its full rates at once.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures" (2009).
An operation takes the longer of the times of its arithmetic and of its bytes; operations run one after the other, and
nothing stays in a cache between them. So no program that stores what this one stores is faster.
"""

from __future__ import annotations

from collections.abc import Sequence

from .cost import Cost
from .devices import Device


def arithmetic_seconds(cost: Cost, device: Device) -> float:
    """Seconds of an operation's flops at the device's rate for its operands' dtype."""
    operand = cost.node.operands[0] if cost.node.operands else cost.node.result
    return cost.flops / device.rate(operand.dtype, product=cost.node.op.family == "product")


def transfer_seconds(cost: Cost, device: Device) -> float:
    """Seconds of an operation's bytes at the device's bandwidth."""
    return cost.bytes / device.bandwidth


def seconds(cost: Cost, device: Device) -> float:
    """The roofline time of an operation: the longer of arithmetic and transfer."""
    return max(arithmetic_seconds(cost, device), transfer_seconds(cost, device))


def utilisation(costs: Sequence[Cost], device: Device, elapsed: float) -> float:
    """Model flops utilisation, MFU: what the products need at the device's peak, over the time that all took.

    Chowdhery and others, "PaLM" (2022), appendix B: only products count, and each as often as the mathematics needs it,
    so what is computed again counts as time and not as work. 0 where no time passed.
    """
    needed = sum(arithmetic_seconds(c, device) for c in costs if c.node.op.family == "product")
    return needed / elapsed if elapsed else 0.0

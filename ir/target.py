"""What a pass must know of a backend: data that each backend fills and the front door hands in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .types import DType


@dataclass(frozen=True)
class Target:
    """A backend's facts.

    `accumulates_in` names, for a dtype that is stored but not computed in, the dtype in which sums and products of it
    are done. `alignment` is that of a large value in an arena, in bytes.
    """

    name: str
    alignment: int = 64
    accumulates_in: Mapping[DType, DType] = field(default_factory=dict)

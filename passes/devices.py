"""Devices by name, with the figures that their makers publish.

Rates are dense (the makers' headline figures for sparse matrices are twice these), in flop/s; bandwidth is that of the
device's memory in bytes/s. A product of f32 counts at the rate of IEEE single precision: TF32, which keeps 10 bits of
the mantissa, would run at 156 (A100) or 494 TFLOP/s (H100, H200). Lectures and papers often round the H100's 989
TFLOP/s of bf16 to 10^15.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.diagnostics import Fault, near
from ..ir.types import DType, bf16, f16, f32, f64

TERA = 10**12
GIGA = 10**9


@dataclass(frozen=True)
class Device:
    """A machine as the roofline sees it.

    `products`: flop/s of matrix products by the dtype of their operands. `vector`: flop/s of everything else.
    `bandwidth`: bytes/s. `memory`: bytes, None where unknown. `source`: where the figures stand.
    """

    name: str
    title: str
    products: Mapping[DType, float]
    vector: Mapping[DType, float]
    bandwidth: float
    memory: int | None
    source: str

    def rate(self, dtype: DType, *, product: bool) -> float:
        """Flop/s for results of that dtype. Integers and bools count as f32."""
        known = self.products if product else self.vector
        return known.get(dtype, known[f32])


_HOPPER_PRODUCTS = {f64: 66.9 * TERA, f32: 66.9 * TERA, f16: 989.4 * TERA, bf16: 989.4 * TERA}
_HOPPER_VECTOR = {f64: 33.5 * TERA, f32: 66.9 * TERA, f16: 133.8 * TERA, bf16: 133.8 * TERA}

DEVICES: dict[str, Device] = {device.name: device for device in (
    Device("a100", "NVIDIA A100 SXM 80 GB",
           {f64: 19.5 * TERA, f32: 19.5 * TERA, f16: 312 * TERA, bf16: 312 * TERA},
           {f64: 9.7 * TERA, f32: 19.5 * TERA, f16: 78 * TERA, bf16: 39 * TERA}, 2039 * GIGA, 80 * GIGA,
           "NVIDIA A100 Tensor Core GPU Architecture (2020), table 1; A100 80GB data sheet (2021)"),
    Device("h100", "NVIDIA H100 SXM5 80 GB", _HOPPER_PRODUCTS, _HOPPER_VECTOR, 3350 * GIGA, 80 * GIGA,
           "NVIDIA H100 Tensor Core GPU Architecture (2022), table 2; H100 data sheet (2023)"),
    Device("h200", "NVIDIA H200 SXM 141 GB", _HOPPER_PRODUCTS, _HOPPER_VECTOR, 4800 * GIGA, 141 * GIGA,
           "NVIDIA H200 Tensor Core GPU data sheet (2023)"),
)}


def device_named(name: str) -> Device:
    """The device of that name, upper or lower case; Fault E0607 if its figures are not known."""
    found = DEVICES.get(name.lower())
    if found is None:
        raise Fault("E0607", f"there is no device '{name}'",
                    near(name.lower(), [*DEVICES, "cpu"]) or f"the devices are {', '.join(DEVICES)} and cpu")
    return found

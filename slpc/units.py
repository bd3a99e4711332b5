"""Quantities as people read and write them: bytes in binary units, flops and seconds in decimal ones."""

from __future__ import annotations

import math
import re

from .ir.diagnostics import Diagnostic, SlpError

_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kKMGTP]?)(i?)B?\s*", re.ASCII)
_POWERS = "kMGTP"


def size(text: str) -> int:
    """Bytes from `64MB` (10^6), `64MiB` (2^20) or a plain number; SlpError E0606 for anything else."""
    found = _SIZE.fullmatch(text)
    if found is None or (found[3] and not found[2]):
        raise SlpError(Diagnostic("E0606", f"cannot read the size {text!r}", "write it as 64MB, 64MiB or 65536"))
    number, unit, binary = found.groups()
    power = 1 + _POWERS.index(unit.replace("K", "k")) if unit else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def decimal(quantity: float, unit: str) -> str:
    """Three digits with the unit's decimal prefix: `decimal(2.1e10, "flop")` is `21.0 Gflop`."""
    if not quantity or not math.isfinite(quantity):
        return f"{quantity:g} {unit}"
    power = max(-3, min(6, math.floor(math.log10(abs(quantity)) / 3)))
    scaled = quantity / 1000.0 ** power
    if f"{scaled:.3g}" in ("1e+03", "-1e+03"):
        power, scaled = power + 1, scaled / 1000
    prefix = {-3: "n", -2: "u", -1: "m", 0: ""}.get(power) if power <= 0 else "kMGTPE"[power - 1]
    places = max(0, 2 - math.floor(math.log10(abs(scaled)))) if prefix else 0
    return f"{scaled:.{min(places, 2)}f} {prefix}{unit}" if prefix else f"{scaled:.3g} {unit}"

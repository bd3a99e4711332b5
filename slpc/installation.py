"""What `slpc doctor` finds: versions, what is missing, and whether each backend computes a small gradient right."""

from __future__ import annotations

import math
import os
import platform
from importlib import metadata
from typing import NamedTuple

from . import __version__, api, memory
from .function import BACKENDS
from .ir.diagnostics import SlpError


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    found: str
    ok: bool
    required: bool
    advice: str = ""


_REQUIRED = ("numpy", "ml_dtypes", "networkx", "click", "rich")
_EXTRAS = {"scipy": "special", "llvmlite": "llvm", "ortools": "plan", "torch": "torch", "matplotlib": "plot"}
_SAMPLE = """
def f(w1: f64, w2: f64):
    z1 = w1 / w2
    z4 = 3 * z1 - exp(2 * w2)
    return z4 * (sin(2 * pi * z1) + z4)
"""


def examine() -> list[Finding]:
    """Everything that this machine has and lacks."""
    found = [Finding("slpc", f"{__version__} in {os.path.dirname(os.path.abspath(__file__))}", True, True),
             Finding("Python", platform.python_version(), True, True)]
    found += [_package(name, "", True) for name in _REQUIRED]
    found += [_package(name, extra, False) for name, extra in _EXTRAS.items()]
    found += [_backend(name) for name in BACKENDS]
    room = memory.machine_bytes()
    found.append(Finding("memory", "unknown" if room is None else memory.human(room), True, False))
    found.append(Finding("processors", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                                           else os.cpu_count()), True, False))
    return found


def rates() -> list[Finding]:
    """What this machine does in a second under NumPy: the device `cpu` of `slpc cost`."""
    from . import machine
    from .units import decimal

    device = machine.measure()
    found = [Finding(f"products of {dtype}", decimal(rate, "flop/s"), True, False)
             for dtype, rate in device.products.items()]
    found += [Finding(f"arithmetic of {dtype}", decimal(rate, "flop/s"), True, False)
              for dtype, rate in device.vector.items()]
    return [*found, Finding("copies", decimal(device.bandwidth, "B/s"), True, False)]


def _package(name: str, extra: str, required: bool) -> Finding:
    try:
        return Finding(name, metadata.version(name), True, required)
    except metadata.PackageNotFoundError:
        return Finding(name, "", False, required, f"pip install 'slpc[{extra}]'" if extra else f"pip install {name}")


def _backend(name: str) -> Finding:
    """Value and gradient of a small function whose gradient is known in closed form."""
    try:
        value, grads = api.compile(api.parse(_SAMPLE), grad=True, backend=name)(1.5, 0.5)
    except SlpError as error:
        first = error.diagnostics[0]
        return Finding(f"backend {name}", f"not there: {first.message}", False, name == "numpy", first.hint)
    inner = 9 - math.e
    right = (math.isclose(value, inner * inner, rel_tol=1e-12)
             and math.isclose(grads["w1"], inner * (4 * math.pi + 12), rel_tol=1e-12))
    return Finding(f"backend {name}", "computes" if right else f"computes wrong: {value}, {grads}", right,
                   name == "numpy")

"""slpc: a compiler for straight-line numeric programs.

    import slpc

    f = slpc.compile("programs/lecture.slp", grad=True)
    value, grads = f(w1=1.5, w2=0.5)

Names are loaded when they are first used, so that importing slpc costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout ir/, passes/ and backends/ lie beside this folder; an installed copy has them inside it.
if (Path(__file__).parent.parent / "ir" / "ops.py").is_file():
    __path__.append(str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from .api import adjoint, compile, hvp, load, module, parse, tangent
    from .checking import gradcheck
    from .decorator import Program, program
    from .function import Function
    from .ir.diagnostics import SlpError
    from .ir.graph import Graph
    from .matrices import hessian, jacobian
    from .passes.checkpoint import Plan
    from .planning import curve, plan, schedule, to_networkx
    from .training import TrainStep, train_step

__version__ = "0.1.0"

__all__ = [
    "Function",
    "Graph",
    "Plan",
    "Program",
    "SlpError",
    "TrainStep",
    "__version__",
    "adjoint",
    "compile",
    "curve",
    "gradcheck",
    "hessian",
    "hvp",
    "jacobian",
    "load",
    "module",
    "parse",
    "plan",
    "program",
    "schedule",
    "tangent",
    "to_networkx",
    "train_step",
]

_HOMES = {
    "Function": "function", "Graph": "ir.graph", "Plan": "passes.checkpoint", "Program": "decorator",
    "SlpError": "ir.diagnostics",
    "adjoint": "api", "compile": "api", "gradcheck": "checking", "hessian": "matrices", "hvp": "api",
    "jacobian": "matrices", "load": "api", "parse": "api", "program": "decorator", "tangent": "api",
    "curve": "planning", "plan": "planning", "schedule": "planning",
    "to_networkx": "planning", "module": "api", "TrainStep": "training", "train_step": "training",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'slpc' has no attribute '{name}'")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

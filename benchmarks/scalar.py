"""Programs of scalars: value and whole gradient, native code beside what one would use instead.

    python benchmarks/scalar.py                      # every program, every peer that is installed
    python benchmarks/scalar.py lecture pendulum     # some

It prints the tables of docs/native.md: nanoseconds, float64, one thread on one core. `bound` is a call whose buffers
are bound, `flat` one with floats in and a tuple out; a peer's call is its fastest from Python with arrays. `batch` is
nanoseconds a point over 4000 points, `contracted` the same with products and sums rounded once together, as heyoka has
it. Figures are the least of many runs, the peers of a program by turns in one process; compare within a row alone.

Peers differentiate by themselves (CasADi, heyoka), or are given our gradient: C is our C99 text through `cc -O3
-march=native`, called in a loop inside C for the batch and through ctypes for the call; numba compiles our Python text.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("SLPC_CACHE", "off")

import slpc
from slpc import export
from slpc.backends import llvm_batch, numpy_backend
from slpc.ir.graph import Constant, Graph
from slpc.passes.scalarise import scalarise

ROOT = Path(__file__).parent.parent
POINTS = 4000

ROSENBROCK = """
n = 10

def rosenbrock(x: f64[n] = normal(0, 1)):
    return sum([100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(n - 1)])
"""

RK4 = """
def moved(state, k, t):
    return [s + t * ds for s, ds in zip(state, k)]


def rk4(state, h):
    k1 = slope(state)
    k2 = slope(moved(state, k1, h / 2))
    k3 = slope(moved(state, k2, h / 2))
    k4 = slope(moved(state, k3, h))
    return moved(state, [a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4)], h / 6)
"""

PENDULUM = """
steps, h = 10, 0.01


def slope(state):
    angle, speed = state
    return speed, -9.81 * sin(angle) - 0.1 * speed

""" + RK4 + """

def pendulum(angle: f64 = 1.0, speed: f64 = 0.0):
    state = [angle, speed]
    for step in range(steps):
        state = rk4(state, h)
    return state[0] ** 2 + state[1] ** 2
"""

LORENZ = """
steps, h = 10, 0.01


def slope(state):
    x, y, z = state
    return 10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z

""" + RK4 + """

def lorenz(x: f64 = 1.0, y: f64 = 1.0, z: f64 = 1.0):
    state = [x, y, z]
    for step in range(steps):
        state = rk4(state, h)
    return state[0] ** 2 + state[1] ** 2 + state[2] ** 2
"""


def random_program(length: int) -> str:
    """Operations on values chosen at random among the last fifty or so."""
    rng = np.random.default_rng(0)
    names = [f"x{i}" for i in range(10)]
    lines = [f"def random_{length}({', '.join(f'{n}: f64 = 0.5' for n in names)}):"]
    for i in range(length):
        a, b = (names[-1 - min(int(rng.exponential(50)), len(names) - 1)] for _ in range(2))
        kind = rng.uniform()
        text = (f"{a} + {b}" if kind < 0.3 else f"{a} - {b}" if kind < 0.45 else f"{a} * {b}" if kind < 0.75
                else f"sin({a})" if kind < 0.85 else f"tanh({a})" if kind < 0.9 else f"exp(-{a} * {a})" if kind < 0.95
                else f"{a} / (1 + {b} * {b})")
        lines.append(f"    v{i} = {text}")
        names.append(f"v{i}")
    return "\n".join([*lines, f"    return {' + '.join(names[-5:])}"]) + "\n"


PROGRAMS: dict[str, Callable[[], Graph]] = {
    "lecture": lambda: slpc.load(ROOT / "programs" / "lecture.slp"),
    "bundle_adjustment": lambda: slpc.load(ROOT / "programs" / "bundle_adjustment.slp"),
    "gmm": lambda: slpc.load(ROOT / "programs" / "gmm.slp"),
    "rosenbrock": lambda: slpc.parse(ROSENBROCK),
    "pendulum": lambda: slpc.parse(PENDULUM),
    "lorenz": lambda: slpc.parse(LORENZ),
    "random_1000": lambda: slpc.parse(random_program(1000)),
}


def columns(graph: Graph, count: int) -> np.ndarray:
    """Points around the defaults: a row for each element of the inputs."""
    rng = np.random.default_rng(1)
    rows = []
    for v in graph.inputs:
        default = graph.defaults.get(v.name)
        base = float(default) if isinstance(default, int | float) else 0.0
        rows += [base + (abs(base) or 1.0) * rng.uniform(-0.2, 0.2, count) for _ in range(v.type.size)]
    return np.array(rows)


def least(run: Callable[[], Any], seconds: float = 0.15) -> float:
    """Seconds of the fastest of many runs."""
    run()
    start = time.perf_counter()
    run()
    number = max(1, int(0.002 / max(time.perf_counter() - start, 1e-9)))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(number):
            run()
        best = min(best, (time.perf_counter() - start) / number)
    return best


# Who -----------------------------------------------------------------------------------------------------------

Timed = dict[str, Callable[[], Any]]
"""What is measured: `call` and `batch`, and ours `bound` and `flat`, each a function to run."""


def ours(value: Graph, gradient: Graph, points: np.ndarray) -> Timed:
    f = slpc.compile(gradient, backend="llvm")
    x, out = points[:, 0].copy(), np.empty(sum(v.type.size for v in gradient.outputs))
    made: Timed = {"bound": f.bind(x, out=out)}
    if f._plain:
        floats = x.tolist()
        made["flat"] = lambda: f.flat(*floats)
    made["batch"] = _batch(gradient, points)
    made["contracted"] = _batch(gradient, points, contract=True)
    made["value"] = _batch(value, points)
    return made


def _batch(graph: Graph, points: np.ndarray, contract: bool = False) -> Callable[[], Any]:
    from slpc.backends import llvm_backend
    from slpc.passes.simplify import simplify

    batch = llvm_backend.load(llvm_backend.emit_batch(simplify(graph), contract=contract), batch=True)
    rows = iter(points)
    given = [np.moveaxis(np.array([next(rows) for _ in range(v.type.size)]).reshape(*v.shape, -1), -1, 0)
             for v in graph.inputs]
    found = [np.moveaxis(np.empty((*v.shape, points.shape[1])), -1, 0) for v in graph.outputs]
    table = llvm_batch.Table([*given, *found])

    return lambda: batch.part(table, 0, points.shape[1])


def by_c(value: Graph, gradient: Graph, points: np.ndarray) -> Timed:
    """Our C99 text through the C compiler."""
    folder = Path(tempfile.mkdtemp())
    flat = scalarise(gradient)
    export.export(flat, folder / "f.c", "c", header=folder / "f.h", symbol="gradient")
    inputs, outputs, given, found = [], [], 0, 0
    for v in flat.inputs:
        inputs.append(f"in + {given}" if v.shape else f"in[{given}]")
        given += v.type.size
    for v in flat.outputs:
        outputs.append(f"out + {found}")
        found += v.type.size
    call = f"gradient({', '.join([*inputs, *outputs])}, work, sizeof work)"
    (folder / "loop.c").write_text(f"""
#include "f.h"
static double work[GRADIENT_WORKSPACE / 8 + 1];
void one(const double *in, double *out) {{ {call}; }}
void many(const double *in, double *out, long n) {{
    for (long i = 0; i < n; i++) {{ {call}; in += {given}; out += {found}; }}
}}
""")
    subprocess.run(["cc", "-std=c99", "-O3", "-march=native", "-shared", "-fPIC", "-o", "f.so", "f.c", "loop.c", "-lm"],
                   cwd=folder, check=True, timeout=60)
    library = ctypes.CDLL(str(folder / "f.so"))
    pointer = ctypes.c_void_p
    x, out = np.ascontiguousarray(points.T), np.empty((points.shape[1], found))
    library.one.argtypes, library.many.argtypes = [pointer] * 2, [pointer, pointer, ctypes.c_long]
    a, b = x.ctypes.data, out.ctypes.data
    return {"call": lambda: library.one(a, b), "batch": lambda x=x, out=out: library.many(a, b, len(out))}


def by_numba(value: Graph, gradient: Graph, points: np.ndarray) -> Timed:
    """Our text on Python floats, compiled by numba."""
    import numba

    if any(v.shape for v in gradient.inputs) or len(gradient.nodes) > 1000:
        raise LookupError("scalars only")
    text = numpy_backend.emit(gradient)
    body = text[text.index("    try:\n") + 9:text.index("    except")].replace("\n        ", "\n    ")
    scope: dict[str, Any] = {}
    names = ", ".join(v.name for v in gradient.inputs)
    exec(f"from math import *\ndef f({names}):\n    {body.strip()}\n", scope)
    f = numba.njit(scope["f"])
    outputs = len(gradient.outputs)
    unpacked = ", ".join(f"x[{i}, k]" for i in range(len(points)))
    scope["f"] = f
    exec(f"def many(x, out):\n    for k in range(x.shape[1]):\n        r = f({unpacked})\n"
         + "".join(f"        out[{i}, k] = r[{i}]\n" for i in range(outputs)), scope)
    many, out = numba.njit(scope["many"]), np.empty((outputs, points.shape[1]))
    floats = points[:, 0].tolist()
    return {"call": lambda: f(*floats), "batch": lambda: many(points, out)}


def translated(graph: Graph, variables: Sequence[Any], table: dict[str, Callable[..., Any]]) -> list[Any]:
    """The graph, taken apart into scalars, in a peer's expressions."""
    graph = scalarise(graph)
    elements = iter(variables)
    arrays = {v: np.array([next(elements) for _ in range(v.type.size)], object).reshape(v.shape) for v in graph.inputs}
    now: dict[Any, Any] = {v: a[()] for v, a in arrays.items() if not v.shape}
    for node in graph.nodes:
        value = node.results[0]
        if node.op.name == "slice":
            now[value] = arrays[node.operands[0]][node.attributes["index"]]
        else:
            now[value] = table[node.op.name](*(float(v.number) if isinstance(v, Constant) else now[v]
                                               for v in node.operands))
    return [now[v] for v in graph.outputs]


ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b, "negative": lambda a: -a, "pow": lambda a, b: a ** b, "copy": lambda a: a,
    "stop_gradient": lambda a: a, "less": lambda a, b: a < b, "greater": lambda a, b: a > b,
}


def by_casadi(value: Graph, gradient: Graph, points: np.ndarray) -> Timed:
    """CasADi's virtual machine on its own gradient (Jacobian where there are several outputs)."""
    import casadi

    table = ARITHMETIC | {n: getattr(casadi, n) for n in ("sin", "cos", "exp", "log", "sqrt", "tanh")}
    table |= {"maximum": casadi.fmax, "where": casadi.if_else}
    x = casadi.SX.sym("x", len(points))
    parameters = sum(v.type.size for v in value.parameters)
    results = casadi.vertcat(*translated(value, [x[i] for i in range(len(points))], table))
    first = results[0]
    f = casadi.Function("f", [x], [results, casadi.gradient(first, x)[:parameters]])
    one, out = casadi.DM(points[:, 0]), np.empty(0)
    many = f.map(points.shape[1])
    given = casadi.DM(points)
    del out
    return {"call": lambda: f(one), "batch": lambda: many(given)}


def by_heyoka(value: Graph, gradient: Graph, points: np.ndarray) -> Timed:
    """heyoka's compiled function over batches, of its own derivatives."""
    import heyoka

    table = ARITHMETIC | {n: getattr(heyoka, n) for n in ("sin", "cos", "exp", "log", "sqrt", "tanh")}
    table |= {"maximum": lambda a, b: heyoka.select(heyoka.gt(a, b), a, b), "where": heyoka.select,
              "less": heyoka.lt, "greater": heyoka.gt}
    names = [heyoka.expression(f"x{i}") for i in range(len(points))]
    parameters = sum(v.type.size for v in value.parameters)
    results = translated(value, names, table)
    tensors = heyoka.diff_tensors(results[:1], diff_args=names[:parameters], diff_order=1)
    f = heyoka.cfunc([*results, *tensors.gradient], vars=names)
    one, out = points[:, 0].copy(), np.empty(len(results) + parameters)
    outs = np.empty((len(results) + parameters, points.shape[1]))
    given = np.ascontiguousarray(points)
    return {"call": lambda: f(one, outputs=out), "batch": lambda: f(given, outputs=outs)}


PEERS: dict[str, Callable[[Graph, Graph, np.ndarray], Timed]] = {
    "slpc": ours, "C": by_c, "numba": by_numba, "CasADi": by_casadi, "heyoka": by_heyoka}


def measure(name: str) -> dict[str, dict[str, float]]:
    """Nanoseconds by peer and kind; a peer that is absent, or cannot do the program, has none."""
    value = PROGRAMS[name]()
    gradient = slpc.adjoint(value)
    points = columns(value, POINTS)
    timed: dict[str, Timed] = {}
    for peer, make in PEERS.items():
        try:
            timed[peer] = make(value, gradient, points)
        except (ImportError, LookupError, AttributeError, TypeError, OSError, subprocess.SubprocessError) as error:
            print(f"{name}: {peer} left out: {type(error).__name__}: {error}", file=sys.stderr)
    found: dict[str, dict[str, float]] = {peer: {} for peer in timed}
    for _ in range(3):
        for peer, kinds in timed.items():
            for kind, run in kinds.items():
                each = POINTS if kind in ("batch", "contracted", "value") else 1
                seconds = 1e9 * least(run, 0.1) / each
                found[peer][kind] = min(found[peer].get(kind, float("inf")), seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", default=list(PROGRAMS))
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    peers = [p for p in PEERS if p != "slpc"]
    measured = {name: measure(name) for name in options.programs}
    print(table(["call, ns", "bound", "flat", *peers], measured, "bound", ("bound", "flat"), "call"))
    print()
    print(table(["batch, ns a point", "batch", "contracted", "gradient / value", *peers], measured, "batch",
                ("batch", "contracted"), "batch"))


def table(head: list[str], measured: dict[str, dict[str, dict[str, float]]], unit: str, kinds: Sequence[str],
          theirs: str) -> str:
    """One table: our kinds, then each peer and how many times as long it takes as our `unit`."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, found in measured.items():
        own = found["slpc"]
        cells = [name, *(f"{own[k]:.3g}" if k in own else "" for k in kinds)]
        if unit == "batch":
            cells.append(f"{own['batch'] / own['value']:.2f}")
        cells += [_cell(found.get(p, {}).get(theirs), own[unit]) for p in PEERS if p != "slpc"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(nanoseconds: float | None, own: float) -> str:
    return "" if nanoseconds is None else f"{nanoseconds:.3g} ({nanoseconds / own:.1f}x)"


if __name__ == "__main__":
    main()

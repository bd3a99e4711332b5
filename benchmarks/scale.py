"""Long programs: microseconds and bytes an operation from text to gradient code, beside CasADi's SX.

    python benchmarks/scale.py                      # 10^3, 10^4, 10^5 operations
    python benchmarks/scale.py --sizes 1000000      # a few minutes and some GB
    python benchmarks/scale.py --markdown           # the table as it stands in docs/scale.md

Two programs of scalars, each a chain as deep as it is long. `straight` is a text of one assignment a line; `loop` does
the same four operations over and over in a `for` that is unrolled. CasADi builds the same expressions by calls from
Python. Each figure is from a process of its own; time is processor time, divided by the operations of the program that
was written, bytes the growth of resident memory at its peak. `load` makes the emitted text a callable.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

STAGES = ("parse", "adjoint", "simplify", "show", "emit", "load")
HEADER = "def f(x: f64 = 0.5, y: f64 = 0.25):"


def straight(n: int) -> str:
    """A text of n assignments of one operation each."""
    lines = [HEADER, "    z0 = x * y"]
    for i in range(1, n, 4):
        a, b = f"z{i - 1}", f"z{max(i - 3, 0)}"
        lines += [f"    z{i} = sin({a})", f"    z{i + 1} = z{i} * y", f"    z{i + 2} = z{i + 1} + {b}",
                  f"    z{i + 3} = z{i + 2} - x"]
    last = lines[-1].split()[0]
    return "\n".join([*lines, f"    return {last}"]) + "\n"


def loop(n: int) -> str:
    """Four operations in a loop of n / 4 rounds."""
    return f"""{HEADER}
    z = b = x * y
    for i in range({n // 4}):
        s = sin(z)
        p = s * y
        q = p + b
        b, z = p, q - x
    return z
"""


def measured(stage: Callable[[], Any], n: int) -> tuple[Any, dict[str, float]]:
    """The stage's result; its microseconds and its bytes an operation."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what is resident now
    before = _peak()
    start = time.process_time()
    result = stage()
    seconds = time.process_time() - start
    return result, {"microseconds": seconds / n * 1e6, "bytes": (_peak() - before) / n}


def _peak() -> int:
    """Bytes of resident memory at their highest (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def ours(text: str, n: int) -> dict[str, dict[str, float]]:
    """All stages of slpc."""
    from slpc.backends import numpy_backend
    from slpc.ir.parse import parse, prelude
    from slpc.ir.show import show
    from slpc.passes.adjoint import adjoint
    from slpc.passes.simplify import simplify

    prelude()
    simplify(adjoint(parse(loop(40))))
    found = {}
    graph, found["parse"] = measured(lambda: parse(text), n)
    derived, found["adjoint"] = measured(lambda: adjoint(graph), n)
    simple, found["simplify"] = measured(lambda: simplify(derived), n)
    _, found["show"] = measured(lambda: show(simple), n)
    text, found["emit"] = measured(lambda: numpy_backend.emit(simple), n)
    _, found["load"] = measured(lambda: numpy_backend.load(text), n)
    return found


def casadi(n: int) -> dict[str, dict[str, float]]:
    """What CasADi has: calls build, `gradient` differentiates, `cse` shares, C is generated, a Function is made."""
    import casadi as ca

    def build() -> tuple[Any, Any, Any]:
        x, y = ca.SX.sym("x"), ca.SX.sym("y")
        z = b = x * y
        for _ in range(n // 4):
            p = ca.sin(z) * y
            b, z = p, p + b - x
        return x, y, z

    found = {}
    (x, y, z), found["parse"] = measured(build, n)
    xy = ca.vertcat(x, y)
    gradient, found["adjoint"] = measured(lambda: ca.gradient(z, xy), n)
    shared, found["simplify"] = measured(lambda: ca.cse([z, gradient]), n)
    function, found["load"] = measured(lambda: ca.Function("f", [x, y], shared), n)

    def generate() -> str:
        generator = ca.CodeGenerator("f.c")
        generator.add(function)
        return str(generator.dump())

    _, found["emit"] = measured(generate, n)
    return found


def child(program: str, n: int) -> dict[str, dict[str, float]]:
    """The stages of one program, in this process."""
    if program == "casadi":
        return casadi(n)
    return ours(straight(n) if program == "straight" else loop(n), n)


def row(program: str, n: int) -> dict[str, dict[str, float]]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--child", program, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def _cell(found: dict[str, float] | None) -> str:
    return f"{found['microseconds']:.1f} us {found['bytes']:,.0f}" if found else "-"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options.add_argument("--programs", nargs="+", default=["straight", "loop", "casadi"])
    options.add_argument("--markdown", action="store_true")
    options.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(child(given.child[0], int(given.child[1]))))
        return
    bar = "|" if given.markdown else ""
    print(bar, f"{'program':9}", bar, f"{'operations':>10}", *(f"{bar} {s:>14}" for s in STAGES), bar)
    if given.markdown:
        print("|---|---:|" + "---:|" * len(STAGES))
    for program in given.programs:
        for n in given.sizes:
            found = row(program, n)
            cells = [f"{bar} {_cell(found.get(s)):>14}" for s in STAGES]
            print(bar, f"{program:9}", bar, f"{n:10,}", *cells, bar, flush=True)


if __name__ == "__main__":
    main()

"""The commands that read a program and say something about it: opt, compile, check, gradcheck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from . import arguments, report

if TYPE_CHECKING:
    from .ir.diagnostics import Diagnostic
    from .ir.graph import Graph
    from .passes.pipeline import Fusion

_MOST_OF_VALUE = 5.0
"""Value and gradient cost at most five times the value (Baur and Strassen 1983, Theorem 1)."""


@click.command(epilog="""\b
Examples:
  slpc opt programs/lecture.slp -p adjoint,simplify
  slpc opt programs/mlp.slp -D L=2 -p adjoint,simplify --wrt W --print-after-each
  slpc opt programs/lecture.slp -p adjoint,simplify | slpc run - w1=1.5 w2=0.5

Without -p the program itself is printed, in canonical form.
""")
@arguments.program
@click.option("-p", "--passes", metavar="PASS,...", default="", shell_complete=lambda *_: _pass_names(),
              help="The passes to run, in this order: simplify, fuse, adjoint, tangent, batch.")
@arguments.derivative
@click.option("--print-after-each", is_flag=True, help="Print the program after every pass, not the last alone.")
@arguments.output("the program")
def opt(file: str, constants: dict[str, str], passes: str, wrt: list[str] | None, of: str | None,
        print_after_each: bool, output: str | None) -> None:
    """Run passes on a program and print it as .slp text."""
    from . import api, files
    from .passes import pipeline

    with report.progress(f"reading {file}"):
        graph = api.load(file, **constants)
    names = [name.strip() for name in passes.split(",") if name.strip()]
    stages: list[str] = []

    def after(name: str, found: Graph) -> None:
        if print_after_each:
            stages.append(f"# after {name}\n{found}")

    with report.progress(f"running {', '.join(names)}"), api.placed(graph.file):
        graph = pipeline.run(graph, names, {"wrt": wrt, "of": of}, after)
    text = "\n".join(stages) if stages else str(graph)
    if output is not None:
        files.write_text(output, text)
    else:
        report.result(text.removesuffix("\n"))


@click.command("compile", epilog="""\b
Examples:
  slpc compile programs/mlp.slp --grad -o mlp_grad.py
  slpc compile programs/black_scholes.slp --grad --wrt S,sigma
  slpc compile programs/transformer.slp --grad --budget 0.33 -o step.py
  slpc compile programs/transformer.slp --grad --backend torch --device cuda -o step.py
  slpc compile programs/black_scholes.slp --grad --emit so -o greeks.so --header greeks.h
  slpc compile programs/lecture.slp --grad --emit c -o lecture.c --header lecture.h

The module has one function of the program's name, inputs by position; it returns a tuple of the values, then of
the gradients. It needs NumPy (SciPy for a special function), or torch, and nothing of slpc.

With --emit it is a function for C: ll (LLVM IR), asm, obj, so, c (C99 for any compiler) or h (the header alone).
""")
@arguments.program
@click.option("--grad", is_flag=True, help="Compute the gradient too. --wrt and --of imply it.")
@arguments.derivative
@arguments.limits
@arguments.fusion
@arguments.backend
@arguments.device
@arguments.output("the code")
@click.option("--emit", "kind", metavar="KIND", help="Write a function for C: ll, asm, obj, so, c or h.")
@click.option("--header", metavar="FILE", help="With --emit: write the C header too.")
@click.option("--target", metavar="TRIPLE", default="", help="With --emit: the machine, aarch64-unknown-linux-gnu.")
@click.option("--target-cpu", "cpu", metavar="CPU", default="", help="With --emit: the processor, for example x86-64.")
@click.option("--symbol", metavar="NAME", default="", help="With --emit: the function's name.")
def compile_(file: str, constants: dict[str, str], grad: bool, wrt: list[str] | None, of: str | None,
             budget: str | None, memory: str | None, fuse: Fusion, backend: str, device: str | None,
             output: str | None, kind: str | None, header: str | None, target: str, cpu: str, symbol: str) -> None:
    """Emit code for a program, and with --grad for its gradient."""
    from . import api, files

    if kind is not None:
        from .passes.simplify import simplify

        with report.progress(f"compiling {file}"):
            graph = api.load(file, **constants)
            graph = api.adjoint(graph, wrt=wrt, of=of) if grad or wrt or of else simplify(graph)
            _export(graph, kind, output, header, target, cpu, symbol)
        return
    with report.progress(f"compiling {file}"):
        function = api.compile(api.load(file, **constants), grad=grad, wrt=wrt, of=of, backend=backend,
                               recompute_budget=budget, memory=memory, fuse=fuse, device=device)
    if output is not None:
        files.write_text(output, function.text)
    else:
        report.result(function.text.removesuffix("\n"))


def _export(graph: Graph, kind: str, output: str | None, header: str | None, target: str, cpu: str,
            symbol: str) -> None:
    from . import export, files
    from .ir.diagnostics import Diagnostic, SlpError

    if output is not None:
        export.export(graph, output, kind, header=header, target=target, cpu=cpu, symbol=symbol)
        return
    if kind in export.BINARY:
        raise SlpError(Diagnostic("E0705", f"{export.KINDS[kind]} is no text", "name a file with -o"))
    content, declared = export.render(graph, kind, target=target, cpu=cpu, symbol=symbol)
    if header is not None:
        files.write_text(header, declared)
    report.result(content.decode().removesuffix("\n"))


@click.command(epilog="""\b
Examples:
  slpc check programs/mlp.slp
  slpc check programs/*.slp

Exits with 1 where a gradient costs more than five times its value, 2 where a program has errors.
""")
@click.argument("files", metavar="FILE[:NAME]...", nargs=-1, required=True)
@arguments.constants
@arguments.derivative
@arguments.as_json
@click.pass_context
def check(ctx: click.Context, files: Sequence[str], constants: dict[str, str], wrt: list[str] | None, of: str | None,
          as_json: bool) -> None:
    """Read programs and say what they are, without running them.

    The ratio is the counted cost of value and gradient over that of the value: at most 5 (Baur and Strassen, 1983).
    """
    from .ir.diagnostics import SlpError

    found: list[dict[str, Any]] = []
    faults: list[Diagnostic] = []
    for file in files:
        try:
            with report.progress(f"reading {file}"):
                found.append(_facts(file, constants, wrt, of))
        except SlpError as error:
            faults += error.diagnostics
    if as_json:
        import json

        report.result(json.dumps(found))
    else:
        for facts in found:
            _show_facts(facts)
    if faults:
        raise SlpError(faults)
    if not all(facts["ok"] for facts in found):
        ctx.exit(1)


def _facts(file: str, constants: dict[str, str], wrt: list[str] | None, of: str | None) -> dict[str, Any]:
    """What `check` says of one program: sizes, operations, flops, and the ratio (None without a derivative)."""
    from . import api, memory
    from .ir.verify import verify
    from .passes import cost

    graph = verify(api.load(file, **constants))
    ratio = None
    if wrt is not None or of is not None or (graph.outputs[0].dtype.is_float
                                             and any(v.dtype.is_float for v in graph.parameters)):
        with api.placed(graph.file):
            ratio = cost.ratio(graph, of=of, wrt=wrt)
    return {
        "file": graph.file, "program": graph.name,
        "parameters": {v.name: str(v.type) for v in graph.parameters},
        "data": {v.name: str(v.type) for v in graph.data},
        "outputs": {v.name: str(v.type) for v in graph.outputs},
        "operations": len(graph.nodes), "flops": cost.flops(graph),
        "input_bytes": sum(v.type.bytes for v in graph.inputs), "peak_bytes": memory.peak_bytes(graph),
        "ratio": ratio, "ok": ratio is None or ratio <= _MOST_OF_VALUE,
    }


def _show_facts(facts: dict[str, Any]) -> None:
    from .memory import human

    def listed(types: dict[str, str]) -> str:
        return ", ".join(f"{report.name(name)}: {type}" for name, type in types.items()) or "none"

    report.result(f"{facts['file']}: {facts['program']} {report.verdict(facts['ok'])}")
    rows = [["parameters", listed(facts["parameters"])], ["data", listed(facts["data"])],
            ["outputs", listed(facts["outputs"])], ["operations", f"{facts['operations']:,}"],
            ["flops", f"{facts['flops']:,}"],
            ["memory", f"{human(facts['peak_bytes'])} at most, {human(facts['input_bytes'])} of it inputs"]]
    if facts["ratio"] is not None:
        rows.append(["gradient", f"value and gradient cost {facts['ratio']:.2f} times the value (at most 5)"])
    report.table([report.faint("  " + row[0]), row[1]] for row in rows if row[1] != "none")


@click.command(epilog="""\b
Examples:
  slpc gradcheck programs/lecture.slp
  slpc gradcheck programs/mlp.slp -D L=2 -D d=5 -D m=3 --random 7

Exits with 1 where a derivative is wrong.
""")
@arguments.program
@arguments.inputs
@arguments.derivative
@arguments.seed(required=True)
@arguments.as_json
@click.pass_context
def gradcheck(ctx: click.Context, file: str, constants: dict[str, str], given: Sequence[str], wrt: list[str] | None,
              of: str | None, seed: int, as_json: bool) -> None:
    """Check a program's derivatives against differences.

    Everything is computed in float64. Along random directions: adjoint against tangent, both against differences, and
    the same for second derivatives.
    """
    from . import api, checking

    with report.progress(f"checking {file}"):
        graph = api.load(file, **constants)
        inputs = arguments.read_inputs(given, [v.name for v in graph.inputs])
        found = checking.gradcheck(graph, wrt=wrt, of=of, seed=seed, inputs=inputs)
    if as_json:
        import json

        report.result(json.dumps(found.as_json()))
    else:
        report.table([row.name, report.faint(f"{row.found:.12g}"), report.faint(f"{row.expected:.12g}"),
                      f"off by {row.error:.1e} of {row.tolerance:.1e}", report.verdict(row.ok)] for row in found.checks)
        report.result(f"{graph.file}: {graph.name} {report.verdict(found.ok)}")
    if not found.ok:
        report.note("A derivative is wrong, or the point is a kink or outside of the domain: try another with "
                    "NAME=VALUE or --random SEED.")
        ctx.exit(1)


def _pass_names() -> list[Any]:
    from click.shell_completion import CompletionItem

    from .passes.pipeline import PASSES

    return [CompletionItem(name) for name in PASSES]

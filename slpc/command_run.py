"""`slpc run`: the value of a program, and its gradient, on inputs from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from . import arguments, report

if TYPE_CHECKING:
    from .function import Function
    from .passes.pipeline import Fusion


@click.command(epilog="""\b
Examples:
  slpc run programs/lecture.slp w1=1.5 w2=0.5 --grad
  slpc run programs/mlp.slp -D L=4 --random 0 --grad
  slpc run programs/mlp.slp X=@x.npy @weights.npz --grad --out grads.npz
  slpc run programs/transformer.slp --random 0 --grad --budget 0.33
  slpc run programs/transformer.slp -D dtype=bf16 --random 0 --grad --backend torch --device cuda
  slpc opt programs/lecture.slp -p adjoint,simplify | slpc run - w1=1.5 w2=0.5

An input that is left out takes its default, if that is a number. --json prints {"value": {NAME: ...},
"grad": {NAME: ...}} with lists for arrays and "NaN", "Infinity", "-Infinity" for what JSON has no number.
""")
@arguments.program
@arguments.inputs
@click.option("--grad", is_flag=True, help="Compute the gradient too. --wrt and --of imply it.")
@arguments.derivative
@arguments.seed(required=False)
@arguments.limits
@arguments.fusion
@arguments.backend
@arguments.device
@click.option("--out", metavar="FILE.npz", shell_complete=arguments.complete_files,
              help="Save the results under value.NAME and grad.NAME, each in its dtype.")
@arguments.as_json
def run(file: str, constants: dict[str, str], given: Sequence[str], grad: bool, wrt: list[str] | None, of: str | None,
        seed: int | None, budget: str | None, memory: str | None, fuse: Fusion, backend: str, device: str | None,
        out: str | None, as_json: bool) -> None:
    """Run a program: its value, and with --grad its gradient.

    FILE is a .slp file, FILE:NAME one of several programs in it, and - the standard input.
    """
    from . import api, files

    if out is not None:
        files.check_writable(out)
    with report.progress(f"reading {file}"):
        graph = api.load(file, **constants)
        function = api.compile(graph, grad=grad, wrt=wrt, of=of, backend=backend, recompute_budget=budget,
                               memory=memory, fuse=fuse, device=device)
    inputs = _inputs(function, given, seed)
    with report.progress(f"running {graph.name}"):
        found = function.to_numpy(function.flat(**function.from_numpy(inputs)))
    names = list(function.outputs)
    count = len(names) - len(function.wrt)
    results = {"value": dict(zip(names, found[:count])), "grad": dict(zip(function.wrt, found[count:]))}
    if not function.wrt:
        del results["grad"]
    if out is not None:
        files.write_arrays(out, {f"{kind}.{name}": x for kind, part in results.items() for name, x in part.items()})
    if as_json:
        report.result(report.as_json(results))
    else:
        types = list(function.outputs.values())
        labels = [report.faint(f"{kind}.") + report.name(name) for kind, part in results.items() for name in part]
        report.table([label, report.faint(type), report.summary(value, type)]
                     for label, type, value in zip(labels, types, found))


def _inputs(function: Function, given: Sequence[str], seed: int | None) -> dict[str, Any]:
    """What the command line gives and, with a seed, draws."""
    inputs = arguments.read_inputs(given, list(function.inputs))
    if seed is not None:
        from . import samples

        with report.progress("drawing inputs"):
            inputs |= samples.draw(function.graph, seed, inputs)
    return inputs

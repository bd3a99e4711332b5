"""The commands that tell about slpc itself: ops, explain, doctor, completion."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import click

from . import arguments, report


@click.command(epilog="""\b
Examples:
  slpc ops
  slpc ops atan2 softmax
""")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@arguments.as_json
def ops(names: Sequence[str], as_json: bool) -> None:
    """List the functions of the language and their derivatives.

    Derivatives are shown of the elementwise functions that are named: .slp text over the operands, the result z and
    the seed g.
    """
    from . import language
    from .ir.diagnostics import Diagnostic, SlpError, near

    rows = language.functions()
    known = {row.name: row for row in rows}
    for name in names:
        if name not in known:
            raise SlpError(Diagnostic("E0103", f"there is no function '{name}'", near(name, known) or "slpc ops"))
    rows = [known[name] for name in names] or rows
    if as_json:
        report.result(json.dumps([row._asdict() for row in rows]))
        return
    for number, (family, members) in enumerate(groupby(rows, key=lambda row: row.family)):
        report.result(("\n" if number else "") + click.style(family, bold=True))
        for row in members:
            report.result(f"  {report.name(row.usage.ljust(38))}  {row.doc}")
            for operand, derivative in row.derivatives.items() if names else ():
                report.result(f"    in {operand}: {derivative}")


@click.command(epilog="""\b
Examples:
  slpc explain E0103
  slpc explain
""")
@click.argument("codes", metavar="[CODE]...", nargs=-1)
def explain(codes: Sequence[str]) -> None:
    """Explain an error code with an example, or list all codes."""
    from .ir.codes import CODES
    from .ir.codes import explain as explanation
    from .ir.diagnostics import Fault

    if not codes:
        report.table([report.name(code), entry.title] for code, entry in CODES.items())
        return
    try:
        report.result("\n".join(map(explanation, codes)).removesuffix("\n"))
    except Fault as fault:
        raise fault.error() from None


@click.command()
@click.option("--measure", is_flag=True, help="Measure the rates of products, arithmetic and copies: about a second.")
@arguments.as_json
@click.pass_context
def doctor(ctx: click.Context, measure: bool, as_json: bool) -> None:
    """Say what is installed, what runs, and how to get the rest. Exits with 1 where the core does not run."""
    from . import installation

    with report.progress("looking"):
        found = installation.examine()
        if measure:
            found += installation.rates()
    if as_json:
        report.result(json.dumps([finding._asdict() for finding in found]))
    else:
        report.table([report.name(f.what), f.found or report.faint("not installed"), report.faint(f.advice)]
                     for f in found)
    if any(f.required and not f.ok for f in found):
        ctx.exit(1)


@click.command(epilog="""\b
Examples:
  eval "$(slpc completion bash)"                               # in ~/.bashrc
  eval "$(slpc completion zsh)"                                # in ~/.zshrc
  slpc completion fish > ~/.config/fish/completions/slpc.fish
""")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion script.

    Commands, options, passes, files and the names of a program's inputs are completed.
    """
    from click.shell_completion import get_completion_class

    completer: Any = get_completion_class(shell)
    assert completer is not None
    sys.stdout.write(completer(ctx.find_root().command, {}, "slpc", "_SLPC_COMPLETE").source())

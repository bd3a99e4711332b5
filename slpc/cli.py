"""The command line: the table of commands, and how each of them ends.

A command is a function with click's decorators in a module of this folder, and a row in `COMMANDS`. It prints its
result on stdout and everything else on stderr, and raises SlpError. Modules of commands import what takes long (NumPy,
a backend) inside the function, so that `--help` is immediate.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from . import __version__
from .ir.diagnostics import Diagnostic, SlpError, near

COMMANDS = {
    "run": "command_run:run",
    "opt": "commands:opt",
    "compile": "commands:compile_",
    "check": "commands:check",
    "gradcheck": "commands:gradcheck",
    "plan": "command_plan:plan",
    "why": "command_plan:why",
    "cost": "command_cost:cost",
    "ops": "command_help:ops",
    "explain": "command_help:explain",
    "doctor": "command_help:doctor",
    "completion": "command_help:completion",
}
"""Each command's module and function."""

OK, FAILED, USER, INFEASIBLE, MISSING, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130
"""Exit codes: 0 all well, 1 a check failed, 2 the user's program or arguments, 3 infeasible, 4 a backend is missing,
70 a bug of ours, 130 interrupted."""

_EXIT_OF_CODES = {"E0501": MISSING, "E0502": MISSING, "E0503": MISSING, "E0504": MISSING, "E0603": INFEASIBLE}
_BUG_REPORT = "This is a bug in slpc, not in your program. Please report it, with what stands above and the program."

_EPILOG = """\b
Examples:
  slpc run programs/lecture.slp w1=1.5 w2=0.5 --grad
  slpc run programs/mlp.slp -D L=4 --random 0 --grad
  slpc opt programs/lecture.slp -p adjoint,simplify
  slpc compile programs/mlp.slp --grad -o mlp_grad.py

Exit codes: 0 all well, 1 a check failed, 2 an error in the program or the arguments, 3 infeasible, 4 a backend is not
installed, 70 a bug of slpc, 130 interrupted.
"""


class Commands(click.Group):
    """The group of all commands: each is imported when it is asked for, and every error ends here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name].split(":")
        command = getattr(import_module(f".{module}", __package__), function)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context,
                        args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """As click has it, with a near miss for a name that is none."""
        if not args[0].startswith("-") and args[0] not in COMMANDS:
            raise SlpError(Diagnostic("E0409", f"there is no command '{args[0]}'",
                                      near(args[0], COMMANDS) or f"the commands are {', '.join(COMMANDS)}"))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A reader of our output that has gone away is no error."""
        try:
            code = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except BrokenPipeError:
            _forget_output()
            return OK
        except OSError as error:  # the commands' own files are SlpErrors, so this is stdout
            _forget_output()
            raise SlpError(Diagnostic("E0410", f"cannot write the output: {error.strerror}")) from None

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None,  # type: ignore[override]
             **extra: Any) -> NoReturn:
        """Run the command line and exit with one of the codes."""
        arguments = list(sys.argv[1:] if args is None else args)
        gc.set_threshold(100_000, 20, 20)  # a graph lives to the end, and walks over it took a quarter of the time
        sys.exit(self._run(arguments, **extra))

    def _run(self, arguments: list[str], **extra: Any) -> int:
        try:
            code = super().main(arguments, "slpc", standalone_mode=False, **extra)
            return code if isinstance(code, int) else OK
        except SlpError as error:
            return _refused(error, arguments)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            return USER
        except click.UsageError as error:
            return _refused(_as_slp_error(error), arguments)
        except (KeyboardInterrupt, click.Abort):
            click.echo("slpc: interrupted", err=True)
            return INTERRUPTED
        except MemoryError:
            return _refused(SlpError(Diagnostic("E0408", "the machine has no memory left for this",
                                                "make the sizes smaller, for example with -D")), arguments)
        except Exception:
            return _bug()


@click.command(cls=Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="slpc %(version)s")
def main() -> None:
    """Compile straight-line numeric programs: .slp files, their gradients, and code that computes them."""


def _refused(error: SlpError, arguments: Sequence[str]) -> int:
    """Print what is wrong, as text or (with --json among the arguments) as JSON, and say how to exit."""
    from . import report

    report.show_error(error, as_json="--json" in arguments)
    return _EXIT_OF_CODES.get(error.code, USER)


def _as_slp_error(error: click.UsageError) -> SlpError:
    """Click's complaint about the command line in our form."""
    message = error.format_message()
    command = error.ctx.command_path if error.ctx is not None else "slpc"
    return SlpError(Diagnostic("E0409", message[:1].lower() + message[1:].rstrip("."), f"{command} --help"))


def _bug() -> int:
    import platform
    import traceback

    traceback.print_exc()
    click.echo(f"\nslpc {__version__}, Python {platform.python_version()}, {platform.platform()}\n{_BUG_REPORT}",
               err=True)
    return BUG


def _forget_output() -> None:
    """Let Python's own flush at exit go nowhere."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

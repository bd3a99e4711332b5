"""What commands have in common: the program, -D, --wrt, --of, and inputs given as NAME=VALUE, NAME=@FILE, @FILE."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from .ir.diagnostics import Diagnostic, SlpError, near

_Command = TypeVar("_Command", bound=Callable[..., Any])
_WORDS = {"true": True, "false": False, "inf": float("inf"), "nan": float("nan")}


# Options -------------------------------------------------------------------------------------------------------

def program(command: _Command) -> _Command:
    """The argument FILE and the option -D of a command, as `file` and `constants`."""
    return click.argument("file", metavar="FILE[:NAME]", shell_complete=complete_files)(constants(command))


def constants(command: _Command) -> _Command:
    """The option -D of a command."""
    return click.option("-D", "constants", metavar="NAME=VALUE", multiple=True, callback=_constants,
                        help="Set a constant of the program: a number, true, false or a dtype.")(command)


def derivative(command: _Command) -> _Command:
    """The options --wrt and --of of a command."""
    command = click.option("--of", metavar="OUTPUT", help="The output to differentiate: the first unless said.",
                           )(command)
    return click.option("--wrt", metavar="NAME,...", multiple=True, callback=_names,
                        help="The inputs to differentiate in: all parameters unless said.")(command)


def seed(required: bool) -> Callable[[_Command], _Command]:
    """The option --random."""
    return click.option("--random", "seed", metavar="SEED", default="0" if required else None, callback=_seed,
                        help="Draw the inputs that are not given, as their defaults say.")


def as_json(command: _Command) -> _Command:
    """The flag --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def backend(command: _Command) -> _Command:
    """The option --backend, and --no-cache."""
    command = click.option("--no-cache", is_flag=True, expose_value=False, callback=_no_cache,
                           help="Generate machine code again, and keep none.")(command)
    return click.option("--backend", metavar="NAME", default="numpy", show_default=True,
                        shell_complete=lambda *_: _backends(), help="What the program runs on.")(command)


def fusion(command: _Command) -> _Command:
    """The options --no-fuse and --by-samples, as `fuse`."""
    @wraps(command)
    def fusing(*args: Any, no_fuse: bool, by_samples: bool, **named: Any) -> Any:
        return command(*args, fuse="batch" if by_samples else not no_fuse, **named)

    made = click.option(
        "--by-samples", is_flag=True,
        help="Run a program that is a sum over samples forward and backward by blocks of these.")(fusing)
    return cast(_Command, click.option(
        "--no-fuse", is_flag=True,
        help="Store attention's scores and the like whole, instead of working by blocks of rows.")(made))


def device(command: _Command) -> _Command:
    """The option --device."""
    return click.option("--device", metavar="NAME", help="For the backend torch: cpu (unless said), cuda or cuda:1.",
                        )(command)


def limits(command: _Command) -> _Command:
    """The options --budget and --memory."""
    command = click.option("--memory", metavar="SIZE",
                           help="Least recomputation within so much memory: 64MB, 2GiB. Exits with 3 if none fits.",
                           )(command)
    return click.option("--budget", metavar="B",
                        help="Least memory with at most B times the forward flops again.")(command)


def output(what: str) -> Callable[[_Command], _Command]:
    """The option -o."""
    return click.option("-o", "--output", metavar="FILE", shell_complete=complete_files,
                        help=f"Write {what} to a file.")


def inputs(command: _Command) -> _Command:
    """The arguments NAME=VALUE, NAME=@FILE and @FILE of a command, as `given`."""
    return click.argument("given", metavar="[NAME=VALUE | NAME=@x.npy | @arrays.npz]...", nargs=-1,
                          shell_complete=_complete_inputs)(command)


def _constants(ctx: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise SlpError(Diagnostic("E0409", f"cannot read -D {word}", "write -D NAME=VALUE, for example -D L=4"))
        found[name] = value
    return found


def _no_cache(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        os.environ["SLPC_CACHE"] = "off"


def _seed(ctx: click.Context, parameter: click.Parameter, given: str | None) -> int | None:
    if given is None or (given.isascii() and given.isdigit() and len(given) < 100):
        return None if given is None else int(given)
    raise SlpError(Diagnostic("E0409", f"cannot read --random {given}", "the seed is an integer, not negative"))


def _names(ctx: click.Context, parameter: click.Parameter, given: Sequence[str]) -> list[str] | None:
    """`--wrt a,b --wrt c` as a list; None where nothing is said."""
    return [name.strip() for word in given for name in word.split(",")] or None


# Values --------------------------------------------------------------------------------------------------------

def read_inputs(given: Iterable[str], known: Sequence[str]) -> dict[str, Any]:
    """The inputs that the words of a command line give, by name; `known` are the program's.

    NAME=VALUE has a number, true, false, inf, nan, or a list in brackets; NAME=@FILE an .npy, or in an .npz the array
    of that name or the only one; @FILE all arrays of an .npz, of which words further on may replace some. SlpError
    E0402 for a name that is unknown or given twice, E0409 for what cannot be read, E0410 for files.
    """
    from . import files

    found: dict[str, Any] = {}
    said: set[str] = set()
    for word in given:
        name, equals, value = word.partition("=")
        if word.startswith("@"):
            arrays = files.read_arrays(word[1:])
            if "" in arrays:
                raise _unreadable(word, f"an .npy has no names: write NAME={word}")
            for key in arrays:
                _check_known(key, known, f" (it is in {word[1:]})")
            found |= {key: array for key, array in arrays.items() if key not in said}
            continue
        if not equals:
            raise _unreadable(word, "write NAME=VALUE, NAME=@FILE or @FILE")
        _check_known(name, known)
        if name in said:
            raise SlpError(Diagnostic("E0402", f"{name} is given twice"))
        said.add(name)
        found[name] = _array(name, value[1:]) if value.startswith("@") else _value(word, value)
    return found


def _array(name: str, file: str) -> Any:
    """The array for one input out of a file."""
    from . import files

    arrays = files.read_arrays(file)
    if name in arrays:
        return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise SlpError(Diagnostic("E0409", f"{file!r} has no array '{name}'",
                              near(name, arrays) or f"it has {', '.join(arrays) or 'none'}"))


def _value(word: str, text: str) -> Any:
    """A number or a list of numbers."""
    try:
        return _number(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _unreadable(word, "a value is a number, true, false, inf, nan, or a list such as [1, 2, 3]; "
                                "an array of a file is @FILE") from None


def _number(node: ast.expr) -> Any:
    match node:
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_number(item) for item in items]
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=word) if word.lower() in _WORDS:
            return _WORDS[word.lower()]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _number(operand)
            if isinstance(number, int | float):
                return -number if isinstance(sign, ast.USub) else number
    raise ValueError


def _check_known(name: str, known: Sequence[str], where: str = "") -> None:
    if name not in known:
        raise SlpError(Diagnostic("E0402", f"the program has no input '{name}'{where}",
                                  near(name, known) or f"its inputs are {', '.join(known) or 'none'}"))


def _unreadable(word: str, hint: str) -> SlpError:
    shown = word if len(word) < 60 else word[:57] + "..."
    return SlpError(Diagnostic("E0409", f"cannot read {shown!r}", hint))


# Shell completion ----------------------------------------------------------------------------------------------

def complete_files(ctx: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """The shell completes files."""
    return [CompletionItem(start, type="file")]


def _complete_inputs(ctx: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """The names of the program's inputs; files after an @."""
    head, at, rest = start.partition("@")
    if at:
        return [CompletionItem(rest, type="file")]
    from . import api

    try:
        graph = api.load(ctx.params["file"], **ctx.params.get("constants", {}))
    except (SlpError, KeyError):
        return []
    return [CompletionItem(f"{v.name}=", help=str(v.type)) for v in graph.inputs if v.name.startswith(head)]


def _backends() -> list[CompletionItem]:
    from .function import BACKENDS

    return [CompletionItem(name) for name in BACKENDS]

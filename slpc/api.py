"""The Python API: programs from files, text or Python functions; their derivatives as programs; compiled functions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from . import files
from .decorator import Program
from .function import Function, build, no_torch, target_of
from .ir.diagnostics import Diagnostic, Fault, SlpError
from .ir.graph import Graph
from .ir.parse import parse as _parse

if TYPE_CHECKING:
    from .passes.pipeline import Fusion
    from .torch_function import Running
    from .torch_module import ProgramModule

Source: TypeAlias = str | os.PathLike[str] | Graph | Program
"""What the functions here take: a path, a Graph, or what `@slpc.program` made."""


@contextmanager
def placed(file: str = "") -> Iterator[None]:
    """A Fault raised inside becomes an SlpError that names the file."""
    try:
        yield
    except Fault as fault:
        raise fault.error(file) from None


def parse(text: str, /, **constants: Any) -> Graph:
    """The program in `text` as a Graph; keywords override its constants (`L=4`, `dtype="bf16"`).

    SlpError with a diagnostic for each fault of the text.
    """
    if not isinstance(text, str):
        raise TypeError(f"the text of a program is a str, not {type(text).__name__}")
    return _parse(text, "", None, **constants)


def load(path: str | os.PathLike[str], /, **constants: Any) -> Graph:
    """The program in a file, or `FILE:NAME` for one of several in it; keywords override its constants.

    SlpError E0410 where the file cannot be read, and with a diagnostic for each fault of the text.
    """
    file, name = files.split_name(os.fspath(path))
    shown = "<stdin>" if file == "-" else file
    return _parse(files.read_text(file), shown, name, **constants)


def graph_of(source: Source, /, **constants: Any) -> Graph:
    """The Graph of a path, a Graph or a `@slpc.program`."""
    if isinstance(source, Program):
        return source.with_constants(**constants) if constants else source.graph
    if isinstance(source, Graph):
        if constants:
            raise SlpError(Diagnostic("E0206", f"the constants of {source.name} are settled: it is a Graph already",
                                      "give them to slpc.load or slpc.parse", source.file))
        return source
    if not isinstance(source, str | os.PathLike):
        hint = ": put @slpc.program above it" if callable(source) else ""
        raise TypeError(f"a program is a path, a Graph or a @slpc.program, not {type(source).__name__}{hint}")
    return load(source, **constants)


def adjoint(program: Source, wrt: Sequence[str] | None = None, of: str | None = None, *,
            fused: Fusion = False) -> Graph:
    """The program that also computes the gradient of one output (`of`, the first unless said) in `wrt`.

    Outputs: those of the program, then `{input}_bar` for each of `wrt` (its parameters unless said). An output that is
    no scalar adds the data input `{output}_bar`, its seed. With `fused`, what works row by row on wide values is in
    regions where that pays, as `compile` has it.
    """
    from .passes.adjoint import adjoint as reverse
    from .passes.pipeline import prepared

    graph = graph_of(program)
    chosen = differentiated(graph, wrt)
    with placed(graph.file):
        return prepared(graph, fused=fused, derive=lambda g: reverse(g, of=of, wrt=chosen))


def simplified(program: Source, *, fused: Fusion = False) -> Graph:
    """The program with everything folded that `passes.simplify` folds, and with `fused` with regions where these pay:
    what `compile` starts from."""
    from .passes.pipeline import prepared

    graph = graph_of(program)
    with placed(graph.file):
        return prepared(graph, fused=fused)


def tangent(program: Source, wrt: Sequence[str] | None = None) -> Graph:
    """The program that also computes directional derivatives: data inputs `{x}_dot`, further outputs `{y}_dot`."""
    from .passes.simplify import simplify
    from .passes.tangent import tangent as forward

    graph = graph_of(program)
    with placed(graph.file):
        return simplify(forward(graph, wrt=differentiated(graph, wrt)))


def hvp(program: Source, wrt: Sequence[str] | None = None, of: str | None = None) -> Graph:
    """Hessian-vector products: the tangent of the adjoint.

    Inputs gain `{x}_dot`; outputs are the values, `{x}_bar`, then the dots of all of them: `{x}_bar_dot` is the
    Hessian times the direction.
    """
    graph = graph_of(program)
    chosen = differentiated(graph, wrt)
    return tangent(adjoint(graph, wrt=chosen, of=of), wrt=chosen)


def compile(program: Source, /, *, grad: bool = False, wrt: Sequence[str] | None = None, of: str | None = None,
            batch: bool = False, backend: str = "numpy", contract: bool = False,
            recompute_budget: float | str | None = None, memory: int | str | None = None, fuse: Fusion = True,
            device: str | None = None, tf32: bool = False, graph: bool = False, deterministic: bool = False,
            **constants: Any) -> Function:
    """A program that runs: the value, or with `grad` (or `wrt`, or `of`) value and gradients.

    `program` is a path, a Graph or a `@slpc.program`. With `batch` a program of scalars runs over arrays of points.
    With `contract` a product and the sum that takes it may be rounded once together (the backend llvm alone).
    With `recompute_budget` (a fraction of the forward flops) or `memory` (bytes, or "64MB") what runs is the plan that
    `slpc.plan` makes of it, and the function has it as `.plan`. Unless `fuse` is false, attention, losses over a
    vocabulary and the like run by blocks of rows where that pays and the backend can; a plan also takes such regions as
    pay in memory alone, where they are what it needs ("all", "batch": regions of that kind in any case).

    For the backend torch: the `device` ("cpu" unless said, "cuda", "cuda:1"); `tf32` lets products of f32 round to
    TF32; with `graph` each call replays a CUDA graph; with `deterministic` equal inputs give equal bits.
    """
    source = graph_of(program, **constants)
    values = len(source.outputs)
    chosen: Sequence[str] = differentiated(source, wrt) if grad or wrt is not None or of is not None else ()

    def derived(fused: Fusion) -> Graph:
        return adjoint(source, wrt=chosen, of=of, fused=fused) if chosen else simplified(source, fused=fused)

    plan = None
    if recompute_budget is not None or memory is not None:
        from .planning import fused_plan

        plan = fused_plan(derived, fuse, recompute_budget=recompute_budget, memory=memory, backend=backend,
                          device=device or "cpu")
    made = plan.graph if plan else derived(fusion(fuse, backend, device))
    known = {v.name for v in source.inputs}
    seeds = [v.name for v in made.inputs if v.name not in known]
    with placed(source.file):
        function = build(made, values=values, wrt=chosen, seeds=seeds, batch=batch, backend=backend, contract=contract,
                         running=running(device, tf32, graph, deterministic))
    function.plan = plan
    return function


def running(device: str | None, tf32: bool, graph: bool, deterministic: bool) -> Running | None:
    """How torch is to run a program; None where nothing is said."""
    if device is None and not (tf32 or graph or deterministic):
        return None
    from .torch_function import Running

    return Running(device or "cpu", tf32, graph, deterministic)


def module(program: Source, /, *, seed: int = 0, recompute_budget: float | str | None = None,
           memory: int | str | None = None, fuse: Fusion = True, **constants: Any) -> ProgramModule:
    """A `torch.nn.Module` that runs a program.

    Its parameters are those of the program that are of floating point, drawn as their defaults say (`seed`), under
    their own names; `forward` takes the data, by position or by name, and returns the outputs. Gradients flow into
    parameters and data alike. `recompute_budget`, `memory` and `fuse` are those of `slpc.compile`, for the gradient.
    SlpError E0501 without torch.
    """
    try:
        from .torch_module import ProgramModule
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise no_torch() from None
    return ProgramModule(graph_of(program, **constants), seed, recompute_budget, memory, fuse)


def fusion(fuse: Fusion, backend: str, device: str | None = None) -> Fusion:
    """`fuse` where the backend runs regions on the device, by blocks of rows or, those of attention, by kernels; else
    False."""
    from .passes.pipeline import Kernels

    target = target_of(backend, device or "cpu")
    if fuse is True and target.attends is not None:
        return Kernels(target.attends)
    return fuse if target.regions or target.attends is not None else False


def differentiated(graph: Graph, wrt: Sequence[str] | None) -> Sequence[str]:
    """The names of the inputs to differentiate in: all floating-point parameters unless said; E0412 if there is none.

    `wrt="w"` means `wrt=["w"]`, not its letters.
    """
    if isinstance(wrt, str):
        return (wrt,)
    names = [v.name for v in graph.parameters if v.dtype.is_float] if wrt is None else list(dict.fromkeys(wrt))
    if not names:
        raise SlpError(Diagnostic("E0412", f"{graph.name} has no floating-point parameter to differentiate in",
                                  "name inputs with wrt (--wrt)", graph.file))
    return names

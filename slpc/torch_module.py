"""A program as a module of torch: parameters that an optimizer moves, gradients by the program's own adjoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import api, samples, tensors
from .function import Function
from .ir.arrays import Arrays
from .ir.diagnostics import Diagnostic, SlpError
from .ir.graph import Graph
from .ir.ops import OPS
from .passes.pipeline import Fusion
from .passes.rebuild import extended


class ProgramModule(nn.Module):
    """See `slpc.module`. It runs on the device that its parameters are on, and on that of its data where it has none.

    Of a program whose one output is a scalar, a loss, value and gradient are computed together in the forward pass. Of
    another the backward pass runs the program of the gradient, which computes the value again. A second derivative
    through it is SlpError E0415 (`slpc.hvp` is the program of one); under `torch.compile` it is a call as it stands.
    """

    def __init__(self, graph: Graph, seed: int, recompute_budget: float | str | None, memory: int | str | None,
                 fuse: Fusion) -> None:
        super().__init__()
        self.program = graph
        self._limits: dict[str, Any] = {"recompute_budget": recompute_budget, "memory": memory, "fuse": fuse}
        self._compiled: dict[tuple[str, tuple[str, ...]], Function] = {}
        drawn = samples.draw(graph, seed)
        for value in graph.parameters:
            made = tensors.from_numpy(drawn[value.name])
            if value.dtype.is_float:
                self.register_parameter(value.name, nn.Parameter(made))
            else:
                self.register_buffer(value.name, made)
        self._loss = len(graph.outputs) == 1 and not graph.outputs[0].shape

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Any, **data: Any) -> Any:
        """The outputs for this data; a tuple where the program has several. SlpError E0401 to E0414 for data that does
        not fit."""
        names = [v.name for v in self.program.data]
        if len(args) > len(names):
            told = f"{self.program.name} takes {len(names)} inputs of data, not {len(args)}"
            raise SlpError(Diagnostic("E0402", told, f"they are {', '.join(names) or 'none'}"))
        given = {v.name: getattr(self, v.name) for v in self.program.parameters} | dict(zip(names, args)) | data
        given = {k: x.contiguous() if isinstance(x, Tensor) else x for k, x in given.items()}
        device = self._device(given)
        wrt = tuple(v.name for v in self.program.inputs if v.dtype.is_float and _requires(given.get(v.name)))
        if not wrt or not torch.is_grad_enabled():
            return self._function(device, ())(**given)
        ready = self._function(device, ())._arranged((), given)
        held = [x if isinstance(x, Tensor) else None for x in ready]
        fixed = {v.name: x for v, x in zip(self.program.inputs, ready) if not isinstance(x, Tensor)}
        found = _Call.apply(self, device, wrt, fixed, *held)  # type: ignore[no-untyped-call]
        return found if len(self.program.outputs) > 1 else found[0]

    def _device(self, given: dict[str, Any]) -> str:
        return next((str(x.device) for x in given.values() if isinstance(x, Tensor)), "cpu")

    def _function(self, device: str, wrt: tuple[str, ...]) -> Function:
        """The compiled value, or gradient in `wrt`: with the value where that is a loss, else of the seeds of all
        outputs."""
        key = device, wrt
        if key not in self._compiled:
            where: dict[str, Any] = {"backend": "torch", "device": device}
            if not wrt:
                made = api.compile(self.program, fuse=self._limits["fuse"], **where)
            elif self._loss:
                made = api.compile(self.program, wrt=wrt, **where, **self._limits)
            else:
                made = api.compile(_gradients_alone(self.program, wrt), **where, **self._limits)
            self._compiled[key] = made
        return self._compiled[key]

    def extra_repr(self) -> str:
        """The program's signature."""
        return ", ".join(map(repr, self.program.inputs))


def _requires(given: Any) -> bool:
    return isinstance(given, Tensor) and given.requires_grad


def _gradients_alone(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The program of the gradients, in `wrt`, of the sum of all outputs of floating point, each times its seed
    `{output}_seed`, a further data input."""
    builder = extended(graph)
    builder.first_data = graph.first_data
    arrays = Arrays(builder)
    outputs = [v for v in graph.outputs if v.dtype.is_float]
    total = None
    for value in outputs:
        seed = builder.input(f"{value.name}_seed", value.type, data=True)
        term = arrays.emit(OPS["multiply"], (value, seed))
        if value.shape:
            term = arrays.emit(OPS["sum"], (term,), {"axis": tuple(range(value.type.rank))})
        total = term if total is None else arrays.emit(OPS["add"], (total, term))
    assert total is not None
    derived = api.adjoint(builder.finish([total], ["total"]), wrt=wrt)
    gradients = derived.outputs[1:]
    alone = Graph(graph.name, derived.inputs, derived.nodes, gradients, derived.defaults, derived.first_data, False,
                  graph.file)
    return api.simplified(alone)


class _Call(torch.autograd.Function):
    """One call of the module, and its place in torch's own graph of derivatives."""

    @staticmethod
    def forward(ctx: Any, of: ProgramModule, device: str, wrt: tuple[str, ...], fixed: dict[str, Any],
                *held: Tensor | None) -> tuple[Any, ...]:
        names = [v.name for v in of.program.inputs]
        given = fixed | {name: x for name, x in zip(names, held) if x is not None}
        ctx.of, ctx.device, ctx.wrt, ctx.fixed = of, device, wrt, fixed
        ctx.save_for_backward(*held)
        if not of._loss:
            found = of._function(device, ()).flat(**given)
            ctx.mark_non_differentiable(*(x for x in found if not x.is_floating_point()))
            return found
        function = of._function(device, wrt)
        value, *gradients = function.flat(**given, out=function.buffers())
        ctx.gradients = gradients
        return (value,)

    @staticmethod
    def backward(ctx: Any, *seeds: Tensor) -> tuple[Any, ...]:
        of, wrt, held = ctx.of, ctx.wrt, ctx.saved_tensors
        names = [v.name for v in of.program.inputs]
        if of._loss:
            found = [seeds[0] * g for g in ctx.gradients]
        else:
            given = ctx.fixed | {name: x for name, x in zip(names, held) if x is not None}
            given |= {f"{v.name}_seed": seed.contiguous() for v, seed in zip(of.program.outputs, seeds)
                      if v.dtype.is_float}
            with torch.no_grad():
                found = list(of._function(ctx.device, wrt).flat(**given))
        if torch.is_grad_enabled():
            once = _Once.apply(of.program.name, len(found), *found, *seeds, *held)  # type: ignore[no-untyped-call]
            found = list(once)
        gradients = dict(zip(wrt, found))
        return (None, None, None, None, *(gradients.get(name) for name in names))


class _Once(torch.autograd.Function):
    """Gradients as constants that nothing is differentiated through."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *found: Any) -> tuple[Any, ...]:
        ctx.name = name
        return tuple(x.view_as(x) for x in found[:count])

    @staticmethod
    def backward(ctx: Any, *seeds: Any) -> Any:
        raise SlpError(Diagnostic("E0415", f"a second derivative goes through the module of {ctx.name}",
                                  "slpc.hvp(program) is the program of Hessian-vector products"))

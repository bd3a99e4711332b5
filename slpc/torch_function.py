"""A compiled program of the torch backend: tensors in, checked; tensors out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import inputs, memory, tensors
from .backends import torch_backend
from .function import Function, many, no_torch
from .ir.diagnostics import Diagnostic, SlpError
from .ir.donation import donations
from .ir.graph import Graph, Value
from .ir.target import Target
from .passes.arena import Placement

BUDGETS = (0.0, 0.1, 0.33, 1.0)
"""What is tried where the device has too little memory."""


@dataclass(frozen=True)
class Running:
    """How torch runs a program: on which device, whether products of f32 may round to TF32, whether each call is a
    replay of a CUDA graph, and whether the same inputs give the same bits."""

    device: str = "cpu"
    tf32: bool = False
    graph: bool = False
    deterministic: bool = False


class TensorFunction(Function):
    """A compiled program on tensors of one device.

    Inputs have exactly the dtype and shape of the program and lie row by row on its device; outputs are new tensors,
    or those of `out=`. Gradients of one call may share a block of memory, which lives as long as one of them. With
    `running.graph` outputs are the same tensors at every call, which the next one overwrites. Where there is a
    `settle`, it is called when all has been launched and before anything is read from the device.
    """

    __slots__ = ("_planned", "running", "settle")

    def __init__(self, graph: Graph, text: str, entry: Callable[..., tuple[Any, ...]], running: Running, planned: int,
                 **rest: Any) -> None:
        if running.graph:
            from .captured import Captured

            over = {graph.inputs.index(x) for x in donations(graph).values()}
            entry = Captured(entry, [i for i in range(len(graph.inputs)) if i < graph.first_data or i in over], over)
        super().__init__(graph, text, entry, **rest)
        self.running = running
        self._planned = planned
        self.settle: Callable[[], None] | None = None
        self._plain = False

    def buffers(self) -> dict[str, Any]:
        """New tensors for the outputs, by name: what `out=` takes. What is written over a donated input has none."""
        import torch

        return {v.name: torch.empty(v.shape, dtype=tensors.dtype_of(v.dtype), device=self.running.device)
                for v in self._own}

    def from_numpy(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays of NumPy as tensors on the device, by name."""
        types = {v.name: v for v in self.graph.inputs}
        return {name: x if type(x) in (float, int, bool) or name not in types else
                tensors.from_numpy(inputs.convert(x, types[name], types[name].shape), self.running.device)
                for name, x in given.items()}

    def own(self, given: Any, value: Value) -> Any:
        """A copy, on the device, of what is given for an input: an array, or a tensor of any device. SlpError E0404 or
        E0405 where it does not fit."""
        import numpy
        import torch

        if isinstance(given, numpy.ndarray):
            given = tensors.from_numpy(inputs.convert(given, value, value.shape), self.running.device)
        elif isinstance(given, torch.Tensor):
            given = given.detach().to(self.running.device).contiguous()
        return tensors.convert(given, value, value.shape, self.running.device).clone()

    def filled(self, number: float, value: Value) -> Any:
        """What an input is that has this number everywhere."""
        import torch

        return torch.full(value.shape, number, dtype=tensors.dtype_of(value.dtype), device=self.running.device)

    def to_numpy(self, results: Iterable[Any]) -> tuple[Any, ...]:
        """Results as arrays of NumPy."""
        return tuple(map(tensors.to_numpy, results))

    def bind(self, given: Any, out: Any) -> Callable[[], None]:
        """Refused: SlpError E0702."""
        raise SlpError(Diagnostic("E0702", "bind takes arrays of NumPy, and the program runs on torch",
                                  "f(..., out=f.buffers()), or backend=\"llvm\""))

    def scipy(self, **data: Any) -> dict[str, Any]:
        """Refused: SlpError E0702."""
        raise SlpError(Diagnostic("E0702", "SciPy optimizes vectors of NumPy, and the program runs on torch",
                                  "compile with backend=\"numpy\" or \"llvm\""))

    def _general(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        points = self._points(args) if self.batched else None
        if points is None:
            return self._run(self._ready(args))
        import torch

        ready = [tensors.convert(given, v, (points, *v.shape) if many(given, v) else v.shape, self.running.device)
                 for given, v in zip(args, self.graph.inputs)]
        return tuple(r if r.ndim else torch.broadcast_to(r, (points,)).clone() for r in self._run(ready))

    def _into(self, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if self.batched:
            raise SlpError(Diagnostic("E0413", "out= is for single calls, and this was compiled with batch=True"))
        ready = self._ready(self._arranged(args, kwargs))
        given = tensors.checked_out(self.graph, self._own, out, ready, self.running.device)
        if self._arena and not self.running.graph:
            return self._run(ready, out=given)
        found = dict(zip(self.graph.outputs, self._run(ready)))
        for tensor, value in zip(given, self._own):
            found[value] = tensor.copy_(found[value])
        return tuple(found.values())

    def _ready(self, args: Sequence[Any]) -> list[Any]:
        ready = [tensors.convert(given, v, v.shape, self.running.device) for given, v in zip(args, self.graph.inputs)]
        if self._donated:
            tensors.check_donated(self._donated, dict(zip(self.graph.inputs, zip(args, ready))))
        return ready

    def _run(self, ready: Sequence[Any], **out: Any) -> tuple[Any, ...]:
        if not self._roomy:
            self._check_room()
            self._roomy = True
        try:
            if self.settle is None:
                return self._entry(*ready, **out)
            verify = getattr(self._entry, "verify", None)
            noted: list[Any] = []
            found = self._entry(*ready, **out, **({"checks": noted} if verify else {}))
            self.settle()
            if verify:
                verify(noted)
            return found
        except IndexError as error:
            raise self._out_of_range(error) from None

    def _check_room(self) -> None:
        """SlpError E0408 if the device has less memory than the program takes."""
        if not self.running.device.startswith("cuda"):
            memory.check(self.graph)
            return
        import torch

        device = torch.device(self.running.device)
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if self._planned > free:
            raise SlpError(Diagnostic(
                "E0408", f"{self.graph.name} needs {memory.human(self._planned)} on {device} beyond its inputs, and "
                         f"{memory.human(free)} are free", self._what_fits(free), self.graph.file))

    def _what_fits(self, free: int) -> str:
        """The least budget whose plan fits, as a hint."""
        from . import planning

        graph = self.plan.tasks.graph if self.plan is not None else self.graph
        if graph.scheduled:
            return "make its sizes smaller, for example with -D"
        plans = planning.curve(graph, BUDGETS, effort="quick", backend="torch", device=self.running.device)
        for plan in plans:
            if plan.peak_bytes <= free:
                return f"with recompute_budget={plan.budget} (--budget) it takes {memory.human(plan.peak_bytes)}"
        return f"the least that was found for it is {memory.human(plans[-1].peak_bytes)}: make its sizes smaller"

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (_restored, (str(self.graph), self.graph.file, self._values, self.wrt, self.seeds, self.batched,
                            self.running))


def build(graph: Graph, placement: Placement | None, target: Target, running: Running, *, batch: bool,
          **rest: Any) -> TensorFunction:
    """Emit a graph that is legal for the target and load it. SlpError E0501 without torch, E0504 without the device."""
    try:
        import torch
    except ModuleNotFoundError:
        raise no_torch() from None
    if running.device.startswith("cuda") and not torch.cuda.is_available():
        raise SlpError(Diagnostic("E0504", f"torch {torch.__version__} has no CUDA device here",
                                  "device=\"cpu\" (--device cpu), or a build of torch for CUDA and a driver"))
    if running.graph and not running.device.startswith("cuda"):
        raise SlpError(Diagnostic("E0706", "graph=True records a CUDA graph, and the program runs on the CPU",
                                  "device=\"cuda\""))
    text = torch_backend.emit(graph, placement, device=running.device, tf32=running.tf32,
                              deterministic=running.deterministic)
    planned = target.outside(graph) + (placement.size if placement is not None else 0)
    return TensorFunction(graph, text, torch_backend.load(text, graph.name), running, planned, batch=batch, **rest)


def _restored(text: str, file: str, values: int, wrt: tuple[str, ...], seeds: tuple[str, ...], batched: bool,
              running: Running) -> Function:
    from . import function
    from .ir.parse import parse

    return function.build(parse(text, file), values=values, wrt=wrt, seeds=seeds, batch=batched, backend="torch",
                 running=running)

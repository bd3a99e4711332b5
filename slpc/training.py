"""Training: a program's loss, gradient and update as one compiled step, with the parameters that it updates."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import api, files, planning, samples
from . import processes as several
from .function import Function, build
from .ir.diagnostics import Diagnostic, SlpError, near
from .ir.graph import Graph
from .passes.update import Step, training_step
from .torch_function import TensorFunction

if TYPE_CHECKING:
    from .passes.checkpoint import Plan
    from .passes.pipeline import Fusion


def train_step(program: api.Source, /, optimizer: str = "adamw", *, rate: float = 1e-3,
               wrt: Sequence[str] | None = None, parameters: Mapping[str, Any] | None = None, seed: int = 0,
               clip: float | None = None, micro_batches: int = 1, backend: str = "numpy",
               recompute_budget: float | str | None = None, memory: int | str | None = None, effort: str = "default",
               fuse: Fusion = True, device: str | None = None, tf32: bool = False, graph: bool = False,
               deterministic: bool = False, processes: int | None = None, timeout: float = 300.0,
               **options: Any) -> TrainStep:
    """A training step: `step(tok=..., target=...)` returns the loss (a tuple where the program has several outputs, of
    which the first is the loss) and updates the parameters of the program in place.

    `optimizer` is "sgd", "momentum", "adam" or "adamw", and `options` are constants of its text, such as `beta1=0.95`
    or `decay=0.1`; `rate` is the learning rate, which can be changed between calls. Of the program's parameters those
    in `wrt` are trained (all of floating point unless said). They begin as copies of what `parameters` has (arrays, or
    for the backend torch tensors of any device), or as their defaults are drawn with `seed`. `clip` bounds the norm of
    the whole gradient. With `micro_batches=k` each call is given one k-th of a batch, and every k-th call updates by
    the mean of their gradients.

    Loss, gradient and update are one program. With a `recompute_budget` or `memory` it is planned as `slpc.plan` does,
    with that `effort`; else it keeps everything and runs in the order of its text. Its peak counts neither parameters
    nor optimizer state, which are updated where they lie. `fuse`, `device`, `tf32`, `graph` and `deterministic` are
    those of `slpc.compile`; on the backend torch parameters are tensors, and so is the loss.

    Under torchrun each of the `processes` (as many as it has started, unless said) is given its part of the batch; loss
    and update are those of the whole, and the parameters begin as those of the first process. SlpError E0407 for a loss
    that is no scalar, E0609 for an unknown optimizer, E0202 for an unknown option, E0411 for micro_batches below 1.
    """
    source = api.graph_of(program)
    if source.outputs[0].shape:
        raise SlpError(Diagnostic("E0407", f"the loss {source.outputs[0]!r} is no scalar",
                                  "the first output of the program is its loss; take a sum or a mean", source.file))
    if not (isinstance(micro_batches, int) and micro_batches >= 1):
        raise SlpError(Diagnostic("E0411", f"micro_batches={micro_batches!r} is none", "a batch has 1 or more parts"))
    device = several.own_device(device) if device is not None else None
    joined = several.count(backend, device or "cpu", timeout) if processes is None else processes
    gradient = api.adjoint(source, wrt, fused=api.fusion(fuse, backend, device))
    phases = ["whole"] if micro_batches == 1 else ["first", *["more"] * (micro_batches - 2), "last"]
    running = api.running(device, tf32, graph, deterministic)
    policy = "keep-all" if recompute_budget is memory is None else None
    made: dict[str, tuple[Step, Function]] = {}
    with api.placed(source.file):
        for phase in dict.fromkeys(phases):
            step = training_step(gradient, optimizer, options, clip=clip, micro_batches=micro_batches, phase=phase,
                                 processes=joined)
            plan = planning.plan(step.graph, recompute_budget=recompute_budget, memory=memory, backend=backend,
                                 effort=effort, policy=policy, device=device or "cpu")
            function = build(plan.graph, values=len(step.values), backend=backend, running=running)
            function.plan = plan
            if joined > 1 and isinstance(function, TensorFunction) and function.running.device != "cpu":
                function.settle = several.settling(function.running.device, timeout)
            made[phase] = step, function
    return TrainStep(source, optimizer, [made[phase] for phase in phases], _begun(source, parameters or {}, seed), rate,
                     joined)


def _begun(graph: Graph, given: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The parameters to begin with: what is given, or drawn."""
    names = [v.name for v in graph.parameters]
    for name in given:
        if name not in names:
            raise SlpError(Diagnostic("E0402", f"{graph.name} has no parameter '{name}'",
                                      near(name, names) or f"its parameters are {', '.join(names)}"))
    missing = set(names) - set(given)
    drawn = samples.draw(graph, seed, given) if missing else {}
    return {name: given[name] if name in given else drawn[name] for name in names}


class TrainStep:
    """What `slpc.train_step` makes. `step(...)` takes one batch, by the names of the program's data or in their order.

    `parameters` and `state` (what the optimizer keeps) are the arrays themselves, by name, and are updated in place;
    `rate` is the learning rate of the next call, `updates` counts the updates so far. `plan` is the memory plan of the
    step that updates; `function` and `functions` are what runs, one for each micro-batch.
    """

    def __init__(self, graph: Graph, optimizer: str, made: Sequence[tuple[Step, Function]], parameters: dict[str, Any],
                 rate: float, processes: int = 1) -> None:
        self.graph, self.optimizer = graph, optimizer
        self.rate = rate
        self.updates = 0
        self.functions = tuple(function for _, function in made)
        self._steps = tuple(step for step, _ in made)
        self.processes = processes
        self._done = 0
        self._values = len(graph.outputs)
        last = self._steps[-1]
        self._data = tuple(v.name for v in graph.data) + tuple(
            name for name in last.data if name not in {v.name for v in graph.inputs})
        types = {v.name: v for v in last.graph.inputs}
        buffers = [name for names in last.state.values() for name in names]
        self.parameters = {name: self.function.own(x, types[name]) for name, x in parameters.items()}
        self.state = {name: self.function.filled(0.0, types[name]) for name in buffers}
        self.sums = {name: self.function.filled(0.0, types[name]) for name in last.sums.values()}
        if processes > 1:
            several.agree(list(self.parameters.values()))

    @property
    def function(self) -> Function:
        """The compiled step that updates."""
        return self.functions[-1]

    @property
    def plan(self) -> Plan:
        """The memory plan of the step that updates."""
        assert self.function.plan is not None
        return self.function.plan

    def __call__(self, *args: Any, **data: Any) -> Any:
        """The loss of one batch, or of one micro-batch, before the update. SlpError E0401 to E0406 as in any call."""
        import numpy

        step, function = self._steps[self._done], self.functions[self._done]
        if len(args) > len(self._data):
            raise SlpError(Diagnostic("E0402", f"the step takes {len(self._data)} arrays of data, not {len(args)}",
                                      f"they are {', '.join(self._data)}"))
        for name in data:
            if name not in self._data:
                raise SlpError(Diagnostic("E0402", f"{self.graph.name} has no data '{name}'",
                                          near(name, self._data) or f"it has {', '.join(self._data) or 'none'}"))
        batch = {**dict(zip(self._data, args)), **data}
        batch |= self.function.from_numpy({name: x for name, x in batch.items() if isinstance(x, numpy.ndarray)})
        known = {**self.parameters, **self.state, **self.sums, step.rate: float(self.rate),
                 step.step: float(self.updates + 1), **batch}
        given = {v.name: known[v.name] for v in function.graph.inputs if v.name in known}
        try:
            results = function.flat(**given, out=function.buffers())
        except RuntimeError as error:
            raise several.gone(error) if self.processes > 1 else error from None
        for (old, _), new in zip(function.graph.donated.items(), results[self._values:]):
            for kept in (self.parameters, self.state, self.sums):
                if old in kept:
                    kept[old] = new
        self._done = (self._done + 1) % len(self.functions)
        self.updates += self._done == 0
        return results[0] if self._values == 1 else results[:self._values]

    # Saved and restored ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Copies of all that a later call depends on, by name: parameters, state, sums of micro-batches, and the
        numbers `.rate`, `.updates` and `.micro_batch`."""
        import numpy

        held = {**self.parameters, **self.state, **self.sums}
        arrays = dict(zip(held, self.function.to_numpy(held.values())))
        numbers = {".rate": self.rate, ".updates": self.updates, ".micro_batch": self._done}
        return {**{name: numpy.array(array) for name, array in arrays.items()}, **numbers}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned. SlpError E0409 where it is of another step."""
        known = self.state_dict()
        if set(saved) != set(known):
            odd = sorted(set(saved) ^ set(known))
            raise SlpError(Diagnostic("E0409", f"the saved state is of another step: {', '.join(odd)}",
                                      "program, optimizer and micro_batches are to be the same"))
        types = {v.name: v for step in self._steps for v in step.graph.inputs}
        for kept in (self.parameters, self.state, self.sums):
            kept.update({name: self.function.own(saved[name], types[name]) for name in kept})
        self.rate, self.updates = float(saved[".rate"]), int(saved[".updates"])
        self._done = int(saved[".micro_batch"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `state_dict` as an .npz, whole or not at all; E0410 on failure."""
        files.write_arrays(path, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file that `save` has written; E0410 where it cannot be read."""
        self.load_state_dict(files.read_arrays(path))

    def __repr__(self) -> str:
        return f"<slpc.TrainStep {self.graph.name}, {self.optimizer}, {self.updates} updates>"

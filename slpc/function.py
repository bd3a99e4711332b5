"""A compiled program that Python calls: arguments in, checked; values and gradients out."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import buffers, inputs, memory
from .ir.diagnostics import Diagnostic, SlpError, near
from .ir.donation import donations
from .ir.graph import Distribution, Graph, Value

if TYPE_CHECKING:
    from .ir.target import Target
    from .passes.checkpoint import Plan
    from .torch_function import Running

BACKENDS = {"numpy": "backends.numpy_backend", "llvm": "backends.llvm_backend",
            "torch": "backends.torch_backend"}
"""Backends by name: the module that has `TARGET`, `emit(graph)` and `load(text)`.

What `load` returns takes the inputs by position and returns a tuple of the outputs. It may also have
`direct(flat, call, names)`, functions that Python calls in place of `Function`'s own, and `bound(given, found)`, which
is for `Function.bind`. A module that emits other text for many points has `emit_batch(graph)`, one that runs on several
kinds of device a target for each in `TARGETS`.
"""


def backend_named(name: str) -> Any:
    """The backend's module; SlpError E0411 for an unknown name, E0501 where what it needs is not installed."""
    if name not in BACKENDS:
        raise SlpError(Diagnostic("E0411", f"there is no backend '{name}'",
                                  near(name, BACKENDS) or f"the backends are {', '.join(BACKENDS)}"))
    try:
        return import_module(f".{BACKENDS[name]}", __package__)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("slpc"):
            raise
        raise SlpError(Diagnostic("E0501", f"the backend {name} needs {error.name}, which is not installed",
                                  f"pip install 'slpc[{name}]'")) from None


def target_of(name: str, device: str = "cpu") -> Target:
    """The facts of a backend on a device; SlpError E0411 for one that it does not run on."""
    module = backend_named(name)
    targets: Mapping[str, Target] = getattr(module, "TARGETS", {"cpu": module.TARGET})
    kind = device.partition(":")[0]
    if kind not in targets:
        raise SlpError(Diagnostic("E0411", f"the backend {name} does not run on '{device}'",
                                  near(kind, targets) or f"it runs on {', '.join(targets)}"))
    return targets[kind]


def no_torch() -> SlpError:
    """What is said where torch is not installed."""
    return SlpError(Diagnostic("E0501", "the backend torch needs torch, which is not installed",
                               "pip install 'slpc[torch]'"))


class Function:
    """A compiled program.

    `f(1.5, 0.5)` or `f(w1=1.5, w2=0.5)`; numeric defaults fill what is left out. Returns the value (a tuple where the
    program has several outputs), and with gradients `(value, {input: gradient})`. Arrays in have exactly the dtype and
    shape of the program; Python numbers and lists are converted. A program of f64 scalars takes and returns plain
    floats. If it is `batched`, inputs are arrays of points, or values that all points share.

    `f.flat(1.5, 0.5)` is the same call, its results as one tuple: the values, then the gradients in the order of `wrt`.
    Both raise SlpError E0401 to E0408 for arguments that do not fit. They are slots rather than methods: native code
    puts functions of its own there, which Python calls without a frame in between.

    `f(..., out=f.buffers())` writes the outputs into these arrays, by name or in order. A loop of such calls of a
    program of arrays allocates no array: its arena is kept for the thread.

    An output that a program's `@donated` puts over an input is that input's array, which the call writes over.

    `text` is the emitted code that runs, `graph` the program that it was emitted from, `inputs` and `outputs` the types
    by name, `plan` the memory plan where one was asked for. Pickled as the program's text.
    """

    __slots__ = (
        "__call__",
        "_arena",
        "_count",
        "_donated",
        "_entry",
        "_loaded",
        "_many",
        "_names",
        "_own",
        "_plain",
        "_roomy",
        "_values",
        "backend",
        "batched",
        "contract",
        "flat",
        "graph",
        "plan",
        "seeds",
        "text",
        "wrt",
    )

    __call__: Callable[..., Any]
    flat: Callable[..., tuple[Any, ...]]

    def __init__(self, graph: Graph, text: str, entry: Callable[..., tuple[Any, ...]], *, values: int,
                 wrt: Sequence[str], seeds: Sequence[str], batch: bool, backend: str, arena: bool = False,
                 contract: bool = False) -> None:
        self.graph = graph
        self.text = text
        self.wrt = tuple(wrt)
        self.seeds = tuple(seeds)
        self.batched = batch
        self._many: Function | None = self if batch else None
        self.backend = backend
        self.contract = contract
        self.plan: Plan | None = None
        self._entry = self._loaded = entry
        self._arena = arena
        over = donations(graph) if arena else {}
        self._donated = tuple(over.values())
        self._own = tuple(v for v in graph.outputs if v not in over)
        self._values = values
        self._names = tuple(v.name for v in graph.inputs)
        self._count = len(graph.inputs)
        self._plain = not batch and _plain(graph)
        self._roomy = getattr(entry, "streams", False)
        self.flat, self.__call__ = self._flat, self._call
        direct = getattr(entry, "direct", None) if self._plain else None
        if direct is not None:
            made = direct(self._flat, self._call, self.wrt)
            if made is not None:
                self.flat, self.__call__ = made
                self._entry = self.flat

    @property
    def inputs(self) -> dict[str, str]:
        """The type of each input by name: `{"X": "f32[64, 10]"}`."""
        return {v.name: str(v.type) for v in self.graph.inputs}

    @property
    def outputs(self) -> dict[str, str]:
        """The type of each output by name, gradients last."""
        return {v.name: str(v.type) for v in self.graph.outputs}

    def batch(self, *args: Any, **kwargs: Any) -> Any:
        """The program at many points: each input is an array of points along its first axis, of any strides, or one
        value that all points share. Returns what a call returns, the points along the first axis of each result.

        A program of several inputs also takes one matrix, a point in each row, the inputs side by side. SlpError E0401
        to E0408 for arguments that do not fit; E0404 too where the backend has no batches of arrays.
        """
        if self._many is None:
            self._many = build(self.graph, values=self._values, wrt=self.wrt, seeds=self.seeds, batch=True,
                               backend=self.backend, contract=self.contract)
        width = sum(v.type.size for v in self.graph.inputs)
        if len(args) == 1 and not kwargs and self._count > 1 and getattr(args[0], "shape", ())[1:] == (width,):
            args = tuple(self._side_by_side(args[0]))
        return self._many(*args, **kwargs)

    def _side_by_side(self, rows: Any) -> Iterator[Any]:
        """The inputs that stand in the columns of a matrix."""
        start = 0
        for v in self.graph.inputs:
            yield rows[:, start:start + v.type.size].reshape(len(rows), *v.shape)
            start += v.type.size

    def scipy(self, **data: Any) -> dict[str, Any]:
        """What `scipy.optimize.minimize` takes: `minimize(**f.scipy(), x0=..., method="trust-constr")`.

        A dict of `fun`, `jac` and `hess`, functions of one vector: the inputs that are differentiated in (`wrt`, else
        all parameters), end to end. `fun` is the first output. Other inputs are given by name, or have their numeric
        defaults. SlpError E0401 or E0402 for data that is missing or none, E0702 for a program that is not of f64.
        """
        from .objective import Objective

        wrt = self.wrt or [v.name for v in self.graph.parameters if v.dtype.is_float]
        made = Objective(self._value_graph(), wrt, data, self.backend)
        return {"fun": made.value, "jac": made.gradient, "hess": made.hessian}

    def _value_graph(self) -> Graph:
        """The program without its gradients."""
        from .passes.simplify import simplify

        g = self.graph
        values = g.outputs[:self._values]
        return simplify(Graph(g.name, g.inputs, g.nodes, values, g.defaults, g.first_data, False, g.file))

    def bind(self, given: Any, out: Any) -> Callable[[], None]:
        """A function without arguments that reads all inputs from one array and writes all outputs to another, each end
        to end in its order: the fastest call.

        Both are contiguous arrays of float64 that do not overlap, and are kept alive. SlpError E0702 where they do not
        fit, or where the program has inputs or outputs of another dtype.
        """
        from .binding import bind

        return bind(self.graph, self._loaded, given, out)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        results = self.flat(*args, **kwargs)
        value = results[0] if self._values == 1 else results[:self._values]
        if self.wrt:
            return value, dict(zip(self.wrt, results[self._values:]))
        return value

    def from_numpy(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arrays of NumPy, by name, as the backend takes them."""
        return dict(given)

    def to_numpy(self, results: Iterable[Any]) -> tuple[Any, ...]:
        """Results as arrays of NumPy."""
        return tuple(results)

    def own(self, given: Any, value: Value) -> Any:
        """A copy, in memory of its own, of what is given for an input; SlpError E0404 or E0405 where that does not fit.
        """
        import numpy

        return numpy.array(inputs.convert(given, value, value.shape), order="C")[() if not value.shape else ...]

    def filled(self, number: float, value: Value) -> Any:
        """What an input is that has this number everywhere."""
        import numpy

        return numpy.full(value.shape, number, value.dtype.numpy)[() if not value.shape else ...]

    def buffers(self) -> dict[str, Any]:
        """New arrays for the outputs, by name: what `out=` takes. What is written over a donated input has none."""
        return buffers.made(self._own)

    def _flat(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        if kwargs or len(args) != self._count:
            if "out" in kwargs and "out" not in self._names:
                return self._into(kwargs.pop("out"), args, kwargs)
            args = self._arranged(args, kwargs)
        if not self._plain:
            return self._general(args)
        for given in args:
            if type(given) is not float:
                args = tuple(map(inputs.scalar, args, self.graph.inputs))
                break
        try:
            results = self._entry(*args)
        except IndexError as error:
            raise self._out_of_range(error) from None
        for result in results:
            if type(result) is not float:
                return tuple(map(float, results))
        return results

    def _general(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arrays, or scalars of several dtypes."""
        points = self._points(args) if self.batched else None
        if self._donated:
            buffers.check_donated(self._donated, dict(zip(self.graph.inputs, args)))
        if not self._roomy:
            memory.check(self.graph, points or 1)
            self._roomy = points is None
        try:
            if points is None:
                ready = [inputs.convert(given, value, value.shape) for given, value in zip(args, self.graph.inputs)]
                results = self._entry(*ready)
            else:
                results = self._entry(*(
                    inputs.convert(given, value, (points, *value.shape) if many(given, value) else value.shape)
                    for given, value in zip(args, self.graph.inputs)))
        except IndexError as error:
            raise self._out_of_range(error) from None
        return tuple(r[()] if getattr(r, "ndim", 1) == 0 else r for r in results)

    def _into(self, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The same call with arrays for the outputs."""
        if self.batched:
            raise SlpError(Diagnostic("E0413", "out= is for single calls, and this was compiled with batch=True"))
        args = self._arranged(args, kwargs)
        if self._donated:
            buffers.check_donated(self._donated, dict(zip(self.graph.inputs, args)))
        ready = [inputs.convert(given, value, value.shape) for given, value in zip(args, self.graph.inputs)]
        given = buffers.checked(self.graph, self._own, out, ready)
        if self._arena:
            if not self._roomy:
                memory.check(self.graph)
                self._roomy = True
            try:
                results = self._entry(*ready, out=given)
            except IndexError as error:
                raise self._out_of_range(error) from None
            return tuple(r[()] if r.ndim == 0 else r for r in results)
        results = self.flat(*args)
        for array, result in zip(given, results):
            array[...] = result
        return tuple(r if a.ndim == 0 else a for a, r in zip(given, results))

    def _points(self, args: Sequence[Any]) -> int:
        """How many points a batch has: the length of the first argument that is an array."""
        return next((len(given) for given, value in zip(args, self.graph.inputs) if many(given, value)), 1)

    def _arranged(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """One argument for each input, in order; every fault of the call in one SlpError."""
        names = self._names
        if not args and len(kwargs) == self._count:
            try:
                return tuple([kwargs[name] for name in names])
            except KeyError:
                pass
        given = dict(zip(names, args))
        faults = []
        if len(args) > self._count:
            faults.append(Diagnostic("E0402", f"{self.graph.name} takes {self._count} inputs, not {len(args)}",
                                     self._listed()))
        for name, argument in kwargs.items():
            if name not in names:
                faults.append(Diagnostic("E0402", f"{self.graph.name} has no input '{name}'",
                                         near(name, names) or self._listed()))
            elif name in given:
                faults.append(Diagnostic("E0402", f"{name} is given twice, by position and by name"))
            else:
                given[name] = argument
        missing = []
        for value in self.graph.inputs:
            if value.name not in given:
                default = self.graph.defaults.get(value.name)
                if default is None or isinstance(default, Distribution):
                    missing.append(value)
                else:
                    given[value.name] = self.filled(default, value) if value.shape else default
        faults += self._missing(missing)
        if faults:
            raise SlpError(faults)
        return tuple([given[name] for name in names])

    def _missing(self, values: Sequence[Value]) -> list[Diagnostic]:
        """What is missing: inputs, and the seeds of gradients."""
        seeds = [v for v in values if v.name in self.seeds]
        plain = [v for v in values if v.name not in self.seeds]
        found = [Diagnostic("E0407", "the gradient of an output that is no scalar needs its seed, "
                                     f"the input {v!r}", "give it, or differentiate a scalar output")
                 for v in seeds]
        if plain:
            listed = ", ".join(map(repr, plain))
            told = f"the input {listed} is missing" if len(plain) == 1 else f"inputs are missing: {listed}"
            found.append(Diagnostic("E0401", told, "inputs are given by name, or drawn: --random SEED, in Python "
                                                   "slpc.samples.draw(graph, seed)"))
        return found

    def _listed(self) -> str:
        return f"its inputs are {', '.join(self._names) or 'none'}"

    def _out_of_range(self, error: IndexError) -> SlpError:
        """E0406 at the user's line: the emitted line that failed defines a value of the program's."""
        lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)]
        defined = {line.partition(" = ")[0] for line in lines} | {line.rpartition("# for ")[2] for line in lines}
        defined |= set(error.args[1:])  # native code says which
        value = next((v for v in self.graph.values() if v.name in defined), None)
        span, line = (value.span, memory.source_line(self.graph, value)) if value is not None else (None, "")
        hint = "an axis of length n is indexed by 0 to n - 1, or by -n to -1 from its end"
        return SlpError(Diagnostic("E0406", str(error.args[0]), hint, self.graph.file, span, line))

    def __repr__(self) -> str:
        return f"<slpc.Function {self.graph.name}({', '.join(map(repr, self.graph.inputs))}), {self.backend}>"

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (_restored, (str(self.graph), self.graph.file, self._values, self.wrt, self.seeds, self.batched,
                            self.backend, self.contract))


def build(graph: Graph, *, values: int, wrt: Sequence[str] = (), seeds: Sequence[str] = (), batch: bool = False,
          backend: str = "numpy", contract: bool = False, running: Running | None = None) -> Function:
    """Emit `graph` by a backend and load what it emitted. The first `values` outputs are values, the others are the
    gradients of `wrt`. SlpError E0706 where the backend cannot `contract`, or has no use for `running`."""
    module = backend_named(backend)
    if running is not None and backend != "torch":
        raise SlpError(Diagnostic("E0706", f"the backend {backend} has no devices to choose from",
                                  "device, tf32, graph and deterministic are for the backend torch"))
    target = target_of(backend, running.device if running is not None else "cpu")
    emit = module.emit
    if batch and hasattr(module, "emit_batch"):
        emit = module.emit_batch
    elif batch and any(v.shape for v in graph.values()):
        array = next(v for v in graph.values() if v.shape)
        raise SlpError(Diagnostic("E0404", f"batch=True is for programs of scalars, and {array!r} is an array", "",
                                  graph.file, array.span))
    if contract and not target.contracts:
        raise SlpError(Diagnostic("E0706", f"the backend {backend} rounds every operation by itself",
                                  "contract=True is for the backend llvm"))
    if contract:
        emit = partial(emit, contract=True)
    from .passes.legalize import legalize

    legal = legalize(graph.undonated() if batch else graph, target)
    arena = (not batch and target.arena and any(v.shape for v in legal.values()) and not target.by_elements(legal))
    placement = None
    if arena:
        from .passes.arena import place
        from .passes.inlining import inlined

        placement = place(legal, target, inlined(legal, target) if target.inlines else ())
    if backend == "torch":
        from . import torch_function

        return torch_function.build(legal, placement, target, running or torch_function.Running(), values=values,
                                    wrt=wrt, seeds=seeds, batch=batch, backend=backend, arena=arena)
    text = emit(legal) if placement is None else emit(legal, placement)
    try:
        entry = module.load(text, batch=True) if batch else module.load(text)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "scipy":
            raise
        raise SlpError(Diagnostic("E0502", f"the code emitted for {graph.name} needs SciPy, which is not installed",
                                  "pip install 'slpc[special]'", graph.file)) from None
    return Function(legal, text, entry, values=values, wrt=wrt, seeds=seeds, batch=batch, backend=backend, arena=arena,
                    contract=contract)


def _restored(text: str, file: str, values: int, wrt: tuple[str, ...], seeds: tuple[str, ...], batch: bool,
              backend: str, contract: bool) -> Function:
    from .ir.parse import parse

    return build(parse(text, file), values=values, wrt=wrt, seeds=seeds, batch=batch, backend=backend,
                 contract=contract)


def _plain(graph: Graph) -> bool:
    """Are all inputs and outputs f64 scalars?"""
    return all(not v.shape and v.dtype.name == "f64" for v in (*graph.inputs, *graph.outputs))


def many(given: Any, value: Value) -> bool:
    """Has an argument of a batch the points as its first axis?"""
    rank = getattr(given, "ndim", None)
    if not isinstance(rank, int):
        import numpy

        rank = numpy.ndim(given) if isinstance(given, list | tuple) else 0
    return rank > len(value.shape)

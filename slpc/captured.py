"""A program as a CUDA graph: recorded at the first call, replayed by one launch at every further one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any


class Captured:
    """What stands for an emitted function of the torch backend.

    The inputs `held`, parameters and what is donated, are read where they lie at the first call: a call with other
    tensors records anew. Data is copied into tensors of the graph's. Outputs are tensors of the graph's too, which the
    next call overwrites, but for those that are written over the `donated` inputs.
    """

    def __init__(self, entry: Callable[..., tuple[Any, ...]], held: Sequence[int], donated: Collection[int]) -> None:
        self.entry, self.held, self.donated = entry, held, donated
        self.verify: Any = getattr(entry, "verify", None)
        self.key: tuple[int, ...] | None = None
        self.graph: Any = None
        self.given: list[Any] = []
        self.found: tuple[Any, ...] = ()
        self.checks: list[Any] = []

    def __call__(self, *inputs: Any, checks: list[Any] | None = None) -> tuple[Any, ...]:
        """Replay; IndexError where an index from data is out of range. Of inputs that is known before the replay has
        run, which is not waited for; of indices that are computed it is read after it. With `checks` all of it is left
        to the caller, as with the emitted function."""
        key = tuple(inputs[i].data_ptr() for i in self.held)
        if key != self.key:
            self.key = None
            noted = self._record(inputs)
            self.key = key
            if self.donated:
                return self._checked(noted, checks)
        ranges = _Ranges(self.entry, inputs) if checks is None and hasattr(self.entry, "ranges") else None
        for i, given in enumerate(inputs):
            if i not in self.held:
                self.given[i].copy_(given)
        self.graph.replay()
        if ranges is None:
            return self._checked(self.checks, checks)
        ranges.verify()
        return self._checked(self.checks[len(ranges.checks):], checks)

    def _checked(self, noted: list[Any], checks: list[Any] | None) -> tuple[Any, ...]:
        if checks is not None:
            checks += noted
        elif noted:
            self.verify(noted)
        return self.found

    def _record(self, inputs: tuple[Any, ...]) -> list[Any]:
        """Run once, so that libraries are loaded and kernels compiled, and then record. Where inputs are donated that
        run is the call itself: what has been written over them is not there for another. Returns what it noted of
        indices."""
        import torch

        self.graph, self.found, self.checks = None, (), []
        self.given = [x if i in self.held else x.clone() for i, x in enumerate(inputs)]
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        noted: list[Any] = []
        with torch.cuda.stream(side):
            ran = self._ran(noted)
            first = [x.clone() for x in self._new(ran)] if self.donated else []
            del ran
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side,  # the stream whose workspaces are there
                              capture_error_mode="thread_local"):  # NCCL has a thread that asks the device meanwhile
            self.found = self._ran(self.checks)
        self.graph = graph
        if self.donated:
            for result, x in zip(self._new(self.found), first, strict=True):
                result.copy_(x)
        return noted

    def _ran(self, noted: list[Any]) -> tuple[Any, ...]:
        return self.entry(*self.given, checks=noted) if self.verify is not None else self.entry(*self.given)

    def _new(self, results: Sequence[Any]) -> list[Any]:
        """Those results that lie in no donated input."""
        over = {id(self.given[i]) for i in self.donated}
        return [x for x in results if id(x) not in over]


class _Ranges:
    """The ranges of the inputs that are indices, on their way to the host."""

    def __init__(self, entry: Any, inputs: Sequence[Any]) -> None:
        import torch

        self.entry, self.checks = entry, entry.ranges(*inputs)
        found = entry.extremes(self.checks)
        self.found = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        self.found.copy_(found, non_blocking=True)
        self.there: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.there.record()

    def verify(self) -> None:
        """Wait for them; IndexError where one is out of range."""
        self.there.synchronize()
        self.entry.verify(self.checks, self.found)

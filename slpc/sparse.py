"""Sparse Jacobians and Hessians: the pattern is found once, from the graph; then a few sweeps give all values.

Columns that meet in no row share a forward sweep, rows of one output that meet in no column a reverse one, and of a
Hessian each entry is read from itself or from its mirror image (passes/colouring.py). Every entry is one element of
some sweep's result: no system is solved, no entry is the difference of others (Griewank and Walther 2008, chapter 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .function import build
from .ir.diagnostics import Diagnostic, SlpError
from .ir.graph import Graph, Value
from .passes.colouring import NONE, Split, split, star
from .passes.sparsity import Pattern, decided, pattern
from .sweeps import Derivatives, Sweeps, slices


class _Sparse:
    """What both have: the pattern, and where in the results of the sweeps each entry stands."""

    def __init__(self, of: Derivatives, found: Pattern, rows: Sequence[Value], columns: Sequence[Value]) -> None:
        import numpy

        self.graph = of.graph
        self.shape = found.shape
        self.rows, self.columns = slices(rows), slices(columns)
        counts = numpy.bincount(found.rows, minlength=found.shape[0])
        self._indptr = numpy.concatenate([[0], numpy.cumsum(counts)])
        self._indices = found.columns
        self._dtype = numpy.float64 if any(v.dtype.name == "f64" for v in rows) else numpy.float32
        self._runs: list[tuple[Sweeps, Any, Any, Any]] = []

    @property
    def pattern(self) -> Any:
        """The entries that may differ from zero: a `scipy.sparse.csr_array` of bool."""
        import numpy

        return self._matrix(numpy.ones(len(self._indices), bool))

    @property
    def colours(self) -> int:
        """How many sweeps a call takes."""
        return sum(len(directions) for _, directions, _, _ in self._runs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The matrix at one point, a `scipy.sparse.csr_array`; arguments as `slpc.compile` takes them. Entries of the
        pattern are stored even where they are zero, so that the structure is the same at every point."""
        import numpy

        data = numpy.zeros(len(self._indices), self._dtype)
        for run, directions, entries, places in self._runs:
            data[entries] = run(args, kwargs, directions).ravel()[places]
        return self._matrix(data)

    def _matrix(self, data: Any) -> Any:
        made = _library(self.graph).csr_array((data, self._indices.copy(), self._indptr.copy()), shape=self.shape)
        made.has_sorted_indices = made.has_canonical_format = True
        return made

    def __repr__(self) -> str:
        return (f"<slpc.{type(self).__name__} of {self.graph.name}: {self.shape[0]} x {self.shape[1]}, "
                f"{len(self._indices)} entries in {self.colours} sweeps>")


class SparseJacobian(_Sparse):
    """A callable that takes the program's inputs and returns one sparse matrix: a row for each element of the
    floating-point outputs, a column for each of `wrt`, both laid end to end, arrays row by row.

    `J.rows["y"]` and `J.columns["x"]` are slices: `J(...)[J.rows["y"], J.columns["x"]]` is one block. `J.pattern`,
    `J.shape`; `J.colours` is the number of sweeps, of which `J.forward` go forward and `J.reverse` in reverse. Values
    are f64 if an output is, else f32 (SciPy has no smaller ones).
    """

    def __init__(self, of: Derivatives) -> None:
        _library(of.graph)
        found = _pattern(of, of.graph, of.outputs)
        super().__init__(of, found, of.outputs, of.inputs)
        shared = split(found, [y.type.size for y in of.outputs])
        self.forward, self.reverse = shared.forward, shared.reverse
        self._add_forward(of, found, shared)
        for y, at in zip(of.outputs, self.rows.values()):
            self._add_reverse(of, found, y, at, shared.rows[at])

    def _add_forward(self, of: Derivatives, found: Pattern, shared: Split) -> None:
        """The rows that forward sweeps compute."""
        import numpy

        if self.forward:
            colour = numpy.array(shared.columns)
            entries = numpy.flatnonzero(numpy.array(shared.rows)[found.rows] == NONE)
            places = colour[found.columns[entries]] * self.shape[0] + found.rows[entries]
            self._runs.append((of.forward(self.forward), _directions(colour), entries, places))

    def _add_reverse(self, of: Derivatives, found: Pattern, y: Value, at: slice, colours: list[int]) -> None:
        """The rows of one output that reverse sweeps compute; it has its colours to itself."""
        import numpy

        given = numpy.array(colours, int)
        mine = given != NONE
        if mine.any():
            colour = numpy.where(mine, given - given[mine].min(), NONE)
            entries = numpy.arange(self._indptr[at.start], self._indptr[at.stop])
            entries = entries[mine[found.rows[entries] - at.start]]
            places = colour[found.rows[entries] - at.start] * self.shape[1] + found.columns[entries]
            directions = _directions(colour)
            self._runs.append((of.reverse(y, len(directions)), directions, entries, places))


class SparseHessian(_Sparse):
    """A callable that takes the program's inputs and returns the second derivatives of one scalar output as one sparse
    symmetric matrix over the elements of `wrt`, laid end to end, arrays row by row.

    `H.rows` (and `H.columns`, the same) are slices by name, as those of a `SparseJacobian`; `H.pattern`, `H.shape`;
    `H.colours` is the number of Hessian-vector products that a call takes.
    """

    def __init__(self, of: Derivatives, output: str | None = None) -> None:
        _library(of.graph)
        gradient = of.gradient(of.scalar_output(output))
        found, directions, places = products(of, gradient)
        super().__init__(of, found, of.inputs, of.inputs)
        if len(directions):
            self._runs = [(of.second(gradient, len(directions)), directions, slice(None), places)]


class Products(NamedTuple):
    """A Hessian's pattern, the directions that it is multiplied by, and where in these products, a row for each
    direction, each entry stands."""

    pattern: Pattern
    directions: Any
    places: Any


def products(of: Derivatives, gradient: Graph) -> Products:
    """The fewest products that give the Hessian of the program whose gradient this is."""
    import numpy

    found = _symmetric(_pattern(of, gradient, gradient.outputs))
    colour = numpy.array(star(found), int)
    return Products(found, _directions(colour), _direct(found, colour))


def _pattern(of: Derivatives, graph: Graph, outputs: Sequence[Value]) -> Pattern:
    """The pattern of some outputs in the inputs, given what the data say of indices and conditions."""
    settled = decided(graph, list(of.data))
    known: dict[Value, Any] = {}
    if settled is not None:
        program, values = settled
        known = dict(zip(values, build(program, values=len(values)).flat(**of.data)))
    try:
        return pattern(graph, of.inputs, outputs, known)
    except IndexError as error:
        raise SlpError(Diagnostic("E0406", str(error), "", graph.file)) from None


def _direct(found: Pattern, colour: Any) -> Any:
    """Where each entry (i, j) stands among the products, a row for each colour: in element i of the product of j's
    colour if j alone has it in row i, else in element j of that of i's."""
    import numpy

    n = found.shape[0]
    place = colour[found.columns] * n + found.rows
    _, inverse, counts = numpy.unique(place, return_inverse=True, return_counts=True)
    mirrored = colour[found.rows] * n + found.columns
    return numpy.where(counts[inverse] == 1, place, mirrored)


def _symmetric(found: Pattern) -> Pattern:
    """The entries whose mirror image is one too: a Hessian is symmetric, so the others are zero."""
    import numpy

    n = found.shape[0]
    kept = numpy.isin(found.rows * n + found.columns, found.columns * n + found.rows)
    return Pattern(found.rows[kept], found.columns[kept], found.shape)


def _directions(colour: Any) -> Any:
    """A row for each colour: one where an element has it, else zero."""
    import numpy

    return (numpy.arange(colour.max(initial=NONE) + 1)[:, None] == colour).astype(float)


def _library(graph: Graph) -> Any:
    try:
        from scipy import sparse
    except ImportError:
        raise SlpError(Diagnostic("E0502", f"the sparse derivatives of {graph.name} are matrices of SciPy, which is "
                                           "not installed", "pip install 'slpc[special]'", graph.file)) from None
    return sparse

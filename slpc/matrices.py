"""Jacobians and Hessians of programs, dense or sparse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from . import api
from .dense import Hessian, Jacobian
from .sweeps import Derivatives

if TYPE_CHECKING:
    from .sparse import SparseHessian, SparseJacobian


@overload
def jacobian(program: api.Source, wrt: Sequence[str] | None = None, *, sparse: Literal[False] = False,
             backend: str = "numpy", data: Mapping[str, Any] | None = None) -> Jacobian: ...


@overload
def jacobian(program: api.Source, wrt: Sequence[str] | None = None, *, sparse: Literal[True],
             backend: str = "numpy", data: Mapping[str, Any] | None = None) -> SparseJacobian: ...


def jacobian(program: api.Source, wrt: Sequence[str] | None = None, *, sparse: bool = False,
             backend: str = "numpy", data: Mapping[str, Any] | None = None) -> Jacobian | SparseJacobian:
    """A callable that computes all first derivatives of all outputs in `wrt` (the parameters unless said).

    Dense: a dict of arrays by output and input. With `sparse`: one `scipy.sparse.csr_array`, outputs and inputs laid
    end to end; its pattern is found here, once. `data` are inputs that have these values at every call, so that the
    pattern knows what is taken by indices among them. SlpError E0402 to E0405 and E0412 for names, data and dtypes
    that do not fit, E0406 for an index out of range, E0502 for `sparse` without SciPy.
    """
    graph = api.graph_of(program)
    if sparse:
        from .sparse import SparseJacobian

        return SparseJacobian(Derivatives(api.simplified(graph), wrt, backend, data))
    return Jacobian(Derivatives(graph, wrt, backend, data))


@overload
def hessian(program: api.Source, wrt: Sequence[str] | None = None, of: str | None = None, *,
            sparse: Literal[False] = False, backend: str = "numpy",
            data: Mapping[str, Any] | None = None) -> Hessian: ...


@overload
def hessian(program: api.Source, wrt: Sequence[str] | None = None, of: str | None = None, *,
            sparse: Literal[True], backend: str = "numpy",
            data: Mapping[str, Any] | None = None) -> SparseHessian: ...


def hessian(program: api.Source, wrt: Sequence[str] | None = None, of: str | None = None, *, sparse: bool = False,
            backend: str = "numpy", data: Mapping[str, Any] | None = None) -> Hessian | SparseHessian:
    """A callable that computes all second derivatives of one scalar output in `wrt` (the parameters unless said).

    Dense: a dict of arrays by input and input. With `sparse`: one `scipy.sparse.csr_array`, inputs laid end to end.
    `data` and SlpError as `jacobian`.
    """
    graph = api.graph_of(program)
    if sparse:
        from .sparse import SparseHessian

        return SparseHessian(Derivatives(api.simplified(graph), wrt, backend, data), of)
    return Hessian(Derivatives(graph, wrt, backend, data), of)

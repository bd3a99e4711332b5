"""Jacobians and Hessians of programs, dense or sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from . import api
from .dense import Hessian, Jacobian

if TYPE_CHECKING:
    from .sparse import SparseHessian, SparseJacobian


@overload
def jacobian(program: api.Source, wrt: Sequence[str] | None = None, *, sparse: Literal[False] = False,
             backend: str = "numpy") -> Jacobian: ...


@overload
def jacobian(program: api.Source, wrt: Sequence[str] | None = None, *, sparse: Literal[True],
             backend: str = "numpy") -> SparseJacobian: ...


def jacobian(program: api.Source, wrt: Sequence[str] | None = None, *, sparse: bool = False,
             backend: str = "numpy") -> Jacobian | SparseJacobian:
    """A callable that computes all first derivatives of all outputs in `wrt` (the parameters unless said).

    Dense: a dict of arrays by output and input. With `sparse`: one `scipy.sparse.csr_array`, outputs and inputs laid
    end to end; its pattern is found here, once. SlpError E0403 and E0412 for names and dtypes that do not fit, E0502
    for `sparse` without SciPy.
    """
    if sparse:
        from .sparse import SparseJacobian

        return SparseJacobian(api.graph_of(program), wrt, backend)
    return Jacobian(api.graph_of(program), wrt, backend)


@overload
def hessian(program: api.Source, wrt: Sequence[str] | None = None, of: str | None = None, *,
            sparse: Literal[False] = False, backend: str = "numpy") -> Hessian: ...


@overload
def hessian(program: api.Source, wrt: Sequence[str] | None = None, of: str | None = None, *,
            sparse: Literal[True], backend: str = "numpy") -> SparseHessian: ...


def hessian(program: api.Source, wrt: Sequence[str] | None = None, of: str | None = None, *, sparse: bool = False,
            backend: str = "numpy") -> Hessian | SparseHessian:
    """A callable that computes all second derivatives of one scalar output in `wrt` (the parameters unless said).

    Dense: a dict of arrays by input and input. With `sparse`: one `scipy.sparse.csr_array`, inputs laid end to end.
    SlpError as `jacobian`.
    """
    if sparse:
        from .sparse import SparseHessian

        return SparseHessian(api.graph_of(program), wrt, of, backend)
    return Hessian(api.graph_of(program), wrt, of, backend)

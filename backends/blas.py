"""The BLAS that native code calls: SciPy's, by the addresses that its Cython interface exports."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy

ROUTINES = ("sgemm", "dgemm", "sgemv", "dgemv")
"""In the order of the table that emitted code is given."""


@cache
def table() -> Any:
    """The addresses of the routines, as an array. ModuleNotFoundError where SciPy is not installed."""
    from scipy.linalg import cython_blas

    name_of, pointer_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsules = [cython_blas.__pyx_capi__[routine] for routine in ROUTINES]
    return numpy.array([pointer_of(capsule, name_of(capsule)) for capsule in capsules], numpy.uint64)


def described() -> str:
    """Which library it is, as SciPy was built with it."""
    from scipy import __config__

    blas = __config__.CONFIG["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']} of SciPy"

"""What emitted loops call: threads (llvm_pool) and products of matrices (llvm_gemm), once for a process.

Emitted code is given the address of a pool, whose first words are the routines' addresses, so that it is tied to no
library and to no Python. A process that was forked has a pool of its own.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from functools import cache
from typing import Any

import numpy

from . import llvm_engine, llvm_pool
from .llvm_gemm import functions, shapes
from .llvm_module import module

_lock = threading.Lock()
_pool: _Pool | None = None


def address() -> int:
    """The pool of this process, started when it is first asked for, of as many threads as `llvm_pool` says."""
    global _pool
    if _pool is None:
        with _lock:
            if _pool is None:
                _pool = _Pool(llvm_pool.threads())
    return _pool.address


def text() -> str:
    """The module of all routines."""
    found = shapes(llvm_engine.lanes(), llvm_engine.registers())
    made = [functions(shape) for shape in found]
    writers = [w for writers, _ in made for w in writers]
    more = [table for _, table in made]
    return module(["; runtime"], writers, [*more, *llvm_pool.text(llvm_engine.pause()).splitlines()], True)


def _pages(size: int) -> Any:
    """Zeroed memory, of which pages are taken when they are first written."""
    return numpy.frombuffer(mmap.mmap(-1, size), numpy.uint8)


@cache
def _library() -> llvm_engine.Library:
    return llvm_engine.load(text(), [
        "slpc.parallel", "slpc.worker", "slpc.await", "slpc.gemm.float", "slpc.gemm.double"])


class _Pool:
    """Threads, and the record that they share with those who call them; neither is ever given back."""

    def __init__(self, threads: int) -> None:
        library = _library()
        others = threads - 1 if hasattr(ctypes.pythonapi, "PyThread_start_new_thread") else 0
        self._words = _pages(8 * (llvm_pool.FIRST + llvm_pool.RECORD * max(1, others))).view(numpy.uint64)
        self.address = int(self._words.ctypes.data)
        words = self._words
        words[llvm_pool.PARALLEL] = library.addresses["slpc.parallel"]
        words[llvm_pool.GEMM_F32] = library.addresses["slpc.gemm.float"]
        words[llvm_pool.GEMM_F64] = library.addresses["slpc.gemm.double"]
        words[llvm_pool.AWAIT] = library.addresses["slpc.await"]
        words[llvm_pool.DONE], words[llvm_pool.SHUT] = _closed_lock(), _closed_lock()
        for number in range(others):
            at = llvm_pool.FIRST + llvm_pool.RECORD * number
            words[at + llvm_pool.POOL] = self.address
            words[at + llvm_pool.LOCK] = _closed_lock()
            words[at + llvm_pool.NUMBER] = number + 1
            start = _thread_function("PyThread_start_new_thread", ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p)
            if start(library.addresses["slpc.worker"], self.address + 8 * at) == ctypes.c_ulong(-1).value:
                break  # no more threads are to be had
            words[llvm_pool.WORKERS] = number + 1


def _closed_lock() -> int:
    """A lock that the next one who takes it waits for."""
    lock = _thread_function("PyThread_allocate_lock", ctypes.c_void_p)()
    if not lock:
        raise MemoryError("no lock is to be had")
    _thread_function("PyThread_acquire_lock", ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(lock, 1)
    return int(lock)


def _thread_function(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


def _after_fork() -> None:
    """A child has none of its parent's threads, and a lock may have been held."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

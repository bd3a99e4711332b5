"""Products of 16-bit numbers by cuBLASLt, each by the algorithm that is fastest for it: this file's text goes into
emitted modules.

The library's first choice is up to a fifth slower than its best for some shapes. So a product's first call times those
that it proposes, on its own operands, and takes the fastest. None is asked for that needs workspace. What lies
transposed is read as it lies, and what is added may lie elsewhere than the result.
"""

import ctypes

import torch

CANDIDATES, ROUNDS, RUNS = 8, 6, 3
"""Algorithms that are timed, one after the other in each round, and how often in a row."""
BETTER = 0.98
"""A later proposal is taken where it needs so much of the time of those before it."""
NOTHING = 1e-37
"""A factor that leaves what a product is added to as it is, but for zeros that become numbers as small."""


class Algorithm(ctypes.Structure):
    """One of the library's proposals (cublasLtMatmulHeuristicResult_t of cublasLt.h)."""

    _fields_ = [("data", ctypes.c_uint64 * 8), ("workspace", ctypes.c_size_t), ("status", ctypes.c_int),
                ("waves", ctypes.c_float), ("reserved", ctypes.c_int * 4)]


class Product:
    """A product of one shape, and its algorithm. The library has columns side by side: it computes Z' = Y' X'."""

    libraries = {}
    known = {}

    def __init__(self, x, y, z, out, tuned):
        self.library, self.handle = self.opened()
        self.kind = {torch.float16: 2, torch.bfloat16: 14}[x.dtype]
        turned = [int(y.stride(1) != 1), int(x.stride(1) != 1)]
        self.description = self.made("MatmulDescCreate", ctypes.c_int(68), ctypes.c_int(0))  # sums and factors in f32
        for attribute, value in zip((3, 4), turned):  # are the operands transposed?
            self.call("MatmulDescSetAttribute", self.description, attribute, ctypes.byref(ctypes.c_int(value)),
                      ctypes.c_size_t(4))
        self.layouts = [self.layout(m) for m in (y, x, out if z is None else z, out)]
        options = self.made("MatmulPreferenceCreate")
        self.call("MatmulPreferenceSetAttribute", options, 1, ctypes.byref(ctypes.c_uint64(0)), ctypes.c_size_t(8))
        for attribute, bytes in zip((5, 6, 7, 8), alignments(y, x, out if z is None else z, out)):
            self.call("MatmulPreferenceSetAttribute", options, attribute, ctypes.byref(ctypes.c_uint32(bytes)),
                      ctypes.c_size_t(4))
        proposed, count = (Algorithm * CANDIDATES)(), ctypes.c_int()
        self.call("MatmulAlgoGetHeuristic", self.handle, self.description, *self.layouts, options, CANDIDATES, proposed,
                  ctypes.byref(count))
        self.call("MatmulPreferenceDestroy", options)
        self.algorithms = [a for a in proposed[:count.value] if a.status == 0]
        if not self.algorithms:
            raise RuntimeError(f"cuBLASLt has no product of {tuple(x.shape)} and {tuple(y.shape)}")
        self.best = self.fastest(x, y, z, out) if tuned and len(self.algorithms) > 1 else self.algorithms[0]

    @classmethod
    def opened(cls):
        """The library and a handle of the current device."""
        device = torch.cuda.current_device()
        if device not in cls.libraries:
            library = ctypes.CDLL(f"libcublasLt.so.{torch.version.cuda.partition('.')[0]}")
            handle = ctypes.c_void_p()
            if library.cublasLtCreate(ctypes.byref(handle)):
                raise RuntimeError("cuBLASLt could not be started")
            cls.libraries[device] = library, handle
        return cls.libraries[device]

    def call(self, name, *arguments):
        """RuntimeError where the library reports one."""
        status = getattr(self.library, f"cublasLt{name}")(*arguments)
        if status:
            raise RuntimeError(f"cublasLt{name} failed with status {status}")

    def made(self, name, *arguments):
        """A new object of the library's."""
        found = ctypes.c_void_p()
        self.call(name, ctypes.byref(found), *arguments)
        return found

    def layout(self, x):
        """How a matrix lies, seen with its columns side by side."""
        rows, columns, step = (*x.shape, x.stride(1)) if x.stride(1) != 1 else (*x.shape[::-1], x.stride(0))
        return self.made("MatrixLayoutCreate", self.kind, ctypes.c_uint64(rows), ctypes.c_uint64(columns),
                         ctypes.c_int64(max(step, rows)))

    def run(self, algorithm, x, y, z, out, factor=1.0):
        """Z = factor X Y, and what is there."""
        c = out if z is None else z
        operands = [p for m, layout in zip((y, x), self.layouts) for p in (ctypes.c_void_p(m.data_ptr()), layout)]
        results = [p for m, layout in zip((c, out), self.layouts[2:]) for p in (ctypes.c_void_p(m.data_ptr()), layout)]
        self.call("Matmul", self.handle, self.description, ctypes.byref(ctypes.c_float(factor)), *operands,
                  ctypes.byref(ctypes.c_float(z is not None)), *results, ctypes.byref(algorithm), None,
                  ctypes.c_size_t(0), ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))

    def fastest(self, x, y, z, out):
        """The algorithm that takes least, by the best of its rounds: clocks change meanwhile."""
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(len(self.algorithms) + 1)] for _ in range(ROUNDS)]
        for begun in marks:
            for algorithm, mark in zip(self.algorithms, begun):
                mark.record()
                for _ in range(RUNS):
                    self.run(algorithm, x, y, z, out, NOTHING if z is out else 1.0)
            begun[-1].record()
        torch.cuda.current_stream().synchronize()
        best, least = self.algorithms[0], None
        for number, algorithm in enumerate(self.algorithms):
            took = min(begun[number].elapsed_time(begun[number + 1]) for begun in marks[1:])
            if least is None or took < BETTER * least:
                best, least = algorithm, took
        return best


def alignments(*tensors):
    """The powers of two that their addresses are multiples of, up to 256."""
    return tuple(min(x.data_ptr() & -x.data_ptr(), 256) for x in tensors)


def product(x, y, z=None, *, out, tuned=True):
    """Write X Y, or Z + X Y, to `out`, which may be Z. Sums are in float32. `tuned=False` takes the library's first
    choice, so that the same inputs give the same bits in every process; so does a first call that is being recorded."""
    tuned = tuned and not torch.cuda.is_current_stream_capturing()
    key = (x.shape, x.stride(), y.shape, y.stride(), out.stride(), z is None, z is out, x.dtype, x.device,
           alignments(x, y, out if z is None else z, out))
    if key not in Product.known:
        Product.known[key] = Product(x, y, z, out, tuned)
    made = Product.known[key]
    made.run(made.best, x, y, z, out)
    return out

"""The catalogue of errors: for each code a title, the reason, a program that provokes it, and what to write instead.

Codes are stable: a code is never given another meaning. E01xx reading and syntax, E02xx calls, E03xx types and
shapes, E04xx run time and arguments, E05xx what is not installed, E06xx memory plans, E07xx native code. The
examples of E01xx to E03xx are programs, and a test reads them; the others are what a user types.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from .diagnostics import Fault, near


class Entry(NamedTuple):
    """What `slpc explain CODE` prints."""

    title: str
    reason: str
    wrong: str
    right: str


def explain(code: str) -> str:
    """The long explanation of a code, as plain text; Fault E0411 for a code that does not exist."""
    entry = CODES.get(code.upper())
    if entry is None:
        raise Fault("E0411", f"there is no error code '{code}'", near(code.upper(), CODES) or "slpc explain lists them")
    parts = [f"{code.upper()}: {entry.title}", textwrap.fill(entry.reason, 88)]
    for heading, example in (("Wrong:", entry.wrong), ("Right:", entry.right)):
        indented = "\n".join("    " + line if line else "" for line in example.rstrip().split("\n"))
        parts.append(f"{heading}\n{indented}")
    return "\n\n".join(parts) + "\n"


CODES: dict[str, Entry] = {}


def _code(code: str, title: str, reason: str, wrong: str, right: str) -> None:
    assert code not in CODES, code
    CODES[code] = Entry(title, " ".join(reason.split()), wrong, right)


_SIMPLE = "def f(x: f64):\n    return {}"


def _expression(code: str, title: str, reason: str, wrong: str, right: str) -> None:
    """An error that a single expression of one scalar shows."""
    _code(code, title, reason, _SIMPLE.format(wrong), _SIMPLE.format(right))


# E01xx: reading and syntax -------------------------------------------------------------------------------------
_expression("E0101", "this is not Python's syntax",
            """A program is written in a subset of Python's syntax and is read by Python's own parser; the message is
            Python's.""", "2 x", "2 * x")
_code("E0102", "an expression is nested too deeply",
      """Python's parser stops at some hundred levels of parentheses or operators. Name a part of the expression: a
      program may have any number of lines.""",
      "def f(x: f64):\n    return " + "(" * 250 + "x" + ")" * 250, "def f(x: f64):\n    y = sin(x)\n    return sin(y)")
_expression("E0103", "a name is not known",
            """The name is neither assigned above, nor an input, a constant, a helper, an operation or a dtype. Names
            of functions are NumPy's; `slpc ops` lists them.""", "sihn(x)", "sinh(x)")
_code("E0104", "the file is not text in UTF-8",
      """Programs are read as UTF-8 without null bytes. A file in another encoding is to be converted, for example
      with iconv.""", "def f(x: f64):\n    return x\0", "def f(x: f64):\n    return x + 1")
_code("E0105", "a statement outside the language",
      """A program is straight-line: assignments, `for` over constant ranges, `if` and `assert` on constants, helper
      functions, `return`. There is no class, import, lambda, try, with, global, yield, match or async, and no decorator
      but `@scheduled`, `@donated` and `@tile`.""",
      "def f(x: f64):\n    g = lambda t: t * t\n    return g(x)",
      "def g(t):\n    return t * t\n\ndef f(x: f64):\n    return g(x)")
_code("E0106", "the program's course depends on data",
      """`if`, `for` and `assert` are settled when the program is read, so their conditions and bounds are constants:
      sizes, shapes, loop indices. There is no `while`. A choice by a value is an operation:
      `where(condition, a, b)`.""",
      "def f(x: f64):\n    if x > 0:\n        x = log(x)\n    return x",
      "def f(x: f64):\n    return where(x > 0, log(x), 0.0)")
_code("E0107", "a function calls itself",
      """Helpers are put in place of their calls, so none may lead back to itself. Write a loop with constant
      bounds.""",
      "def f(x: f64):\n    return 1 + f(x / 2)",
      "def f(x: f64):\n    for i in range(10):\n        x = 1 + x / 2\n    return x")
_code("E0108", "an element of an array is assigned to",
      """Values never change. Choose with `where`, or build the array anew with `concat` or `stack`. (A Python list of
      values may be assigned to, at constant indices.)""",
      "def f(x: f64[3]):\n    x[0] = 1.0\n    return sum(x)",
      "def f(x: f64[3]):\n    y = where(arange(3) == 0, 1.0, x)\n    return sum(y)")
_code("E0109", "an attribute that values do not have",
      """Values have `.shape`, `.ndim`, `.size`, `.dtype`, `.T` and `.mT`. Functions are called by name, not as
      methods, and without a module in front: `sum(x)`, `exp(x)`.""",
      "def f(x: f64[3]):\n    return x.flat", "def f(x: f64[3]):\n    return reshape(x, (3, 1)).T")
_code("E0110", "a call of something that is not a function of the language",
      """What stands before the parentheses must be the name of an operation, of a dtype, or of a helper. The program
      is never executed, so nothing of Python's own can be called.""",
      "def f(x: f64):\n    return (x + 1)(2)", "def f(x: f64):\n    return (x + 1) * 2")
_code("E0111", "a name is used before it is defined",
      """Lines run from top to bottom; the name gets its value only below this line.""",
      "def f(x: f64):\n    y = z + 1\n    z = 2 * x\n    return y",
      "def f(x: f64):\n    z = 2 * x\n    y = z + 1\n    return y")
_code("E0112", "a reserved name is given a value",
      """Names of operations, functions, dtypes and of inf and nan always mean the same, so that every line can be read
      by itself. Choose another name.""",
      "def f(x: f64):\n    exp = x * x\n    return exp", "def f(x: f64):\n    y = x * x\n    return y")
_code("E0113", "there is no program, or it returns nothing",
      """A file has at least one `def`, and the last one (or FILE:NAME) is the program. It ends with `return` and at
      least one value.""",
      "def f(x: f64):\n    y = 2 * x", "def f(x: f64):\n    y = 2 * x\n    return y")
_code("E0114", "a type that cannot be read",
      """An input's type is a dtype, or a dtype and the lengths of its axes in brackets: `f64`, `f32[T, d]`. dtypes are
      f16, bf16, f32, f64, i32, i64 and bool; lengths are constants, not negative.""",
      "def f(x: float64):\n    return x * 2", "def f(x: f64[2, 3]):\n    return x * 2")
_code("E0115", "a default that is no sample",
      """A default says what a sample of the input is: a constant number, `normal(mean, deviation)`,
      `uniform(low, high)` or `integers(low, high)`. integers is for i32 and i64, the other two for floating point.""",
      "def f(x: f64 = integers(0, 3)):\n    return x * 2", "def f(x: f64 = uniform(0, 3)):\n    return x * 2")
_code("E0116", "a constant is needed",
      """Bounds of loops and slices, shapes, axes and indices into lists are known while the program is read: numbers,
      constants of the file, loop indices, `x.shape[0]`, and arithmetic on these.""",
      "def f(x: f64[4], n: i64):\n    return sum(x[:n])", "n = 2\n\ndef f(x: f64[4]):\n    return sum(x[:n])")
_code("E0117", "an assertion does not hold",
      """`assert` on constants states what the program needs of its sizes; with these sizes it is false.""",
      "d = 3\n\ndef f(x: f64[d]):\n    assert d % 2 == 0, \"d must be even\"\n    return sum(x)",
      "d = 4\n\ndef f(x: f64[d]):\n    assert d % 2 == 0, \"d must be even\"\n    return sum(x)")
_code("E0118", "a value is used after `del`",
      """`del x` marks where the memory of x is given back; from there on the name means nothing.""",
      "def f(x: f64):\n    y = x * x\n    z = y + 1\n    del y\n    return y + z",
      "def f(x: f64):\n    y = x * x\n    z = y + 1\n    w = y + z\n    del y\n    return w")
_code("E0119", "the program is too large",
      """Loops are unrolled, and this would give more operations than are allowed. Make the bounds smaller, or say with
      whole arrays what the loop says element by element.""",
      "def f(x: f64):\n    for i in range(10 ** 12):\n        x = sin(x)\n    return x",
      "def f(x: f64):\n    for i in range(100):\n        x = sin(x)\n    return x")
_code("E0120", "a name means two things",
      """A program in a .py file is read together with the functions that it calls. They may stand in several modules,
      but a name that they take from around them must mean the same in all.""",
      "# tools.py\nc = 2\ndef scaled(x): return c * x\n\n# model.py\nc = 3\n@slpc.program\n"
      "def f(x: f64): return c + scaled(x)",
      "# model.py\nk = 3\n@slpc.program\ndef f(x: f64): return k + scaled(x)")

_code("E0121", "a region whose rows are not independent",
      """A helper under `@tile` runs by blocks of the rows of its first operand (its last axis but one). Each row must
      be computed from the same row of the other operands, or from operands as a whole; what is summed over the rows is
      a result. The message says which line mixes the rows.""",
      "@tile(rows=2)\ndef g(x: f64[8, 3]):\n    return x - max(x, axis=0)\n\n"
      "def f(x: f64[8, 3]):\n    return sum(g(x))",
      "@tile(rows=2)\ndef g(x: f64[8, 3], m: f64[3]):\n    return x - m\n\n"
      "def f(x: f64[8, 3]):\n    return sum(g(x, max(x, axis=0)))")
_code("E0122", "an input is donated to an output that cannot lie in its memory",
      """`@donated(w="w_new")` says that the output w_new is written over the memory of the input w. It must have
      the type of w, and no operation may read w after the one that makes w_new.""",
      '@donated(w="w_new")\ndef f(w: f64[3], g: f64[3]):\n    w_new = w - g\n    return sum(w), w_new',
      '@donated(w="w_new")\ndef f(w: f64[3], g: f64[3]):\n    s = sum(w)\n    w_new = w - g\n    return s, w_new')

_code("E0123", "a sum over processes that is not waited for",
      """`all_reduce` begins a sum over processes, and its result is there after `wait`: no other operation may read it,
      nor may the program return it.""",
      "def f(g: f64[3]):\n    s = all_reduce(g, processes=2)\n    return 2 * s",
      "def f(g: f64[3]):\n    s = wait(all_reduce(g, processes=2))\n    return 2 * s")

# E02xx: calls --------------------------------------------------------------------------------------------------
_expression("E0201", "a wrong number of operands",
            "The operation takes another number of operands; `slpc ops` lists them.", "atan2(x)", "atan2(x, 1.0)")
_expression("E0202", "an argument is missing, unknown, or given twice",
            "The call does not fit the function's parameters.", "round(x, digits=3)", "round(x)")
_code("E0203", "an argument of the wrong kind",
      """Some arguments are constants (an axis, a shape, a dtype), others are values; a list or tuple of values is
      neither.""",
      "def f(x: f64[2, 3]):\n    return sum(x, axis=0.5)", "def f(x: f64[2, 3]):\n    return sum(x, axis=0)")
_code("E0204", "a reduction called like Python's max",
      """`max(x)`, `min(x)` and `sum(x)` reduce an array, as in NumPy; a second number would be an axis. Element by
      element it is `maximum(a, b)` and `minimum(a, b)`; over an axis `max(x, axis=0)`.""",
      "def f(x: f64[3]):\n    return max(x, 0)", "def f(x: f64[3]):\n    return maximum(x, 0)")
_code("E0205", "a tuple of another length",
      "The left side of an assignment has more or fewer names than the right side has values.",
      "def f(x: f64):\n    a, b = (x, x, x)\n    return a + b",
      "def f(x: f64):\n    a, b = (x, 2 * x)\n    return a + b")
_code("E0206", "a constant that the program does not have",
      """-D NAME=VALUE (or a keyword of slpc.load) sets a constant that the file assigns at its top level, and this file
      has none of that name.""", "slpc run programs/mlp.slp -D layers=4", "slpc run programs/mlp.slp -D L=4")

# E03xx: types and shapes ---------------------------------------------------------------------------------------
_code("E0301", "shapes do not fit",
      """Shapes meet by NumPy's broadcasting: axes are matched from the right, and each pair is equal or one of them is
      1. Add an axis with None, or transpose.""",
      "def f(a: f64[3, 4], b: f64[3]):\n    return a + b", "def f(a: f64[3, 4], b: f64[3]):\n    return a + b[:, None]")
_code("E0302", "dtypes do not fit",
      """Values of different dtypes do not meet by themselves, and each operation says which kinds it takes. Convert
      with `astype(x, f64)`. A literal takes the dtype of what it meets.""",
      "def f(a: f32, b: f64):\n    return a + b", "def f(a: f32, b: f64):\n    return astype(a, f64) + b")
_code("E0303", "reshape to another number of elements", "A reshape keeps every element.",
      "def f(x: f64[6]):\n    return reshape(x, (2, 4))", "def f(x: f64[6]):\n    return reshape(x, (2, -1))")
_code("E0304", "an axis that the array does not have",
      "An array of n axes has axes 0 to n - 1; negative ones count from the end; none may be given twice.",
      "def f(x: f64[2, 3]):\n    return sum(x, axis=2)", "def f(x: f64[2, 3]):\n    return sum(x, axis=-1)")
_code("E0305", "a constant index is out of range",
      "An axis of length n has indices 0 to n - 1, or -n to -1; an array has no more indices than axes.",
      "def f(x: f64[3]):\n    return x[3]", "def f(x: f64[3]):\n    return x[2]")
_code("E0306", "the largest of nothing",
      "max and min of no elements have no value (sum is 0).",
      "def f(x: f64[0]):\n    return max(x)", "def f(x: f64[0]):\n    return sum(x)")
_code("E0307", "matrices that cannot be multiplied",
      """In `A @ B` the last axis of A and the last but one of B are equal; leading axes broadcast.""",
      "def f(a: f64[2, 3], b: f64[2, 3]):\n    return a @ b", "def f(a: f64[2, 3], b: f64[2, 3]):\n    return a @ b.T")
_code("E0308", "place with a wrong number of indices",
      "`place(a, b, at=(s_[...], s_[...]), shape=...)` has one index in `at` for each operand.",
      "def f(a: f64[2], b: f64[2]):\n    return place(a, b, at=(s_[0:2],), shape=(4,))",
      "def f(a: f64[2], b: f64[2]):\n    return place(a, b, at=(s_[0:2], s_[2:4]), shape=(4,))")
_code("E0309", "a constant does not fit its dtype",
      "The number is too large for the dtype, or an integer dtype is given a fraction. Write `inf` where that is "
      "meant.",
      "def f(x: f16):\n    return x * 1e6", "def f(x: f32):\n    return x * 1e6")

# E04xx: run time and arguments ---------------------------------------------------------------------------------
_code("E0401", "an input is missing",
      """Each input without a numeric default must be given: by position, by name, NAME=VALUE or NAME=@file.npy on the
      command line; `--random SEED` draws the others as their defaults say.""",
      "slpc run programs/mlp.slp", "slpc run programs/mlp.slp --random 0")
_code("E0402", "an input that the program does not have",
      "The name is none of the program's inputs, or there are more arguments than inputs.",
      "slpc run programs/lecture.slp w3=1", "slpc run programs/lecture.slp w1=1")
_code("E0403", "wrt or of names nothing",
      "`wrt` lists names of inputs, `of` is the name of an output (or `out0`, `out1`, ... for one without a name).",
      "slpc run programs/lecture.slp --grad --wrt w3", "slpc run programs/lecture.slp --grad --wrt w1")
_code("E0404", "an input of the wrong shape", "Inputs are not broadcast: the shape is exactly the one in the program.",
      "slpc run programs/lecture.slp w1=[1,2]", "slpc run programs/lecture.slp w1=1")
_code("E0405", "an input of the wrong dtype",
      """An array has exactly the dtype in the program, so nothing is rounded or copied unseen. Python numbers and lists
      are converted: floats and ints for floating point, ints for integers, bools for bool.""",
      "f(numpy.ones(3))                        # where the program says f32[3]",
      "f(numpy.ones(3, dtype=numpy.float32))   # or f([1, 1, 1])")
_code("E0406", "an index from data is out of range",
      """An index given at run time is outside the axis that it indexes: one of length n has 0 to n - 1, and -n to -1,
      which count from the end.""",
      "E[tok] with tok = [0, 9] and E: f64[9, 4]", "E[tok] with tok = [0, 8] and E: f64[9, 4]")
_code("E0407", "the seed of a gradient is missing",
      """The gradient of an output that is no scalar needs a weight for each of its elements, given as the input
      `NAME_bar`. Give it, let `--random SEED` draw it, or differentiate a scalar such as sum(y).""",
      "slpc run FILE --grad", "slpc run FILE --grad y_bar=[1,0,0]")
_code("E0408", "more memory than the machine has",
      """The inputs and the values that are alive at once take more bytes than this machine has. Said before anything is
      allocated. Make the sizes smaller (-D), or use a smaller dtype.""",
      "slpc run programs/mlp.slp -D m=1000000000 --random 0", "slpc run programs/mlp.slp -D m=1000 --random 0")
_code("E0409", "an argument that cannot be read",
      """Arguments are NAME=VALUE, NAME=@file.npy or @file.npz; a value is a number, true, false, inf, nan, or a list in
      brackets. -D takes NAME=VALUE with a number, a bool or the name of a dtype.""",
      "slpc run FILE w1:1.5", "slpc run FILE w1=1.5")
_code("E0410", "a file cannot be read or written",
      "The message is the operating system's. Files are written whole or not at all.",
      "slpc run no_such_file.slp", "slpc run programs/lecture.slp")
_code("E0411", "an unknown pass, backend or code", "The name is in none of our tables; the nearest one is suggested.",
      "slpc opt FILE -p simplfy", "slpc opt FILE -p simplify")
_code("E0412", "there is nothing to differentiate",
      """Only floating-point outputs have derivatives, and only in floating-point inputs; at least one input must be
      asked for.""", "slpc run FILE --grad --of count    # an i64 output", "slpc run FILE --grad --of loss")
_code("E0413", "an array for an output does not fit",
      """`out=` takes one array for each output: of its dtype and shape, row by row, writeable, and in memory that no
      input and no other output has a part in. f.buffers() makes them all.""",
      "f(x, out={'y': numpy.empty(3)})     # y is f64[4]", "f(x, out=f.buffers())")
_code("E0414", "a tensor that the program cannot take as it lies",
      """Tensors are neither moved to the program's device nor copied unseen: they lie on it, row by row.""",
      "f(x.T)", "f(x.T.contiguous())")
_code("E0415", "a second derivative through a module",
      """`slpc.module` gives torch first derivatives. The program of second ones is made by slpc.hvp, and is called like
      any other.""", "torch.autograd.grad(grad.sum(), x)    # grad made with create_graph=True", "slpc.hvp(program)")

_code("E0416", "more processes than the backend runs in",
      """A sum over processes (`all_reduce`) is done by torch.distributed, so a program that has one runs on the backend
      torch, in as many processes as it says, which torchrun starts.""",
      "torchrun --nproc-per-node 2 examples/train.py --text FILE",
      "torchrun --nproc-per-node 2 examples/train.py --text FILE --backend torch")
_code("E0417", "a process of several is gone",
      """The processes of a step wait for one another. Where one has ended, or has not answered in time, the step of the
      others ends with this error; their parameters may be updated in part.""",
      "torchrun --nproc-per-node 2 examples/train.py ...     # one of the two was killed",
      "torchrun --nproc-per-node 2 examples/train.py ... --resume train.npz")

# E05xx: what is not installed ----------------------------------------------------------------------------------
_code("E0501", "a backend is not installed",
      "The backend needs a package that is an extra of slpc. `slpc doctor` says what is there.",
      "slpc run FILE --backend llvm", "pip install 'slpc[llvm]'")
_code("E0502", "SciPy is not installed",
      """lgamma, polygamma, erf and erfc of arrays are computed by SciPy on the NumPy backend, and sparse derivatives
      are its matrices.""",
      "slpc run FILE     # a program with lgamma", "pip install 'slpc[special]'")

_code("E0503", "matplotlib is not installed",
      "Pictures are drawn by matplotlib; without it, `slpc plan` prints the timeline as a bar of text.",
      "slpc plan FILE --plot curve.svg", "pip install 'slpc[plot]'")
_code("E0504", "there is no CUDA device",
      "`--device cuda` runs on a GPU that torch sees; `slpc doctor` says what is there.",
      "slpc run FILE --backend torch --device cuda", "slpc run FILE --backend torch --device cpu")

# E06xx: memory plans -------------------------------------------------------------------------------------------
_code("E0601", "an order of operations that reads what is not there",
      """In a plan, each operation comes after what it reads, and a value is computed again before it is read after its
      memory was given back. `slpc.schedule(graph, order)` takes names of operations, each as often as it is to run.""",
      "slpc.schedule(graph, ['z2', 'z1'])    # where z2 reads z1", "slpc.schedule(graph, ['z1', 'z2'])")
_code("E0602", "a budget that is none",
      """The budget is the flops that may be spent again, as a fraction of the forward program's: a number from 0 up,
      or `inf`.""", "slpc plan FILE --budget -1", "slpc plan FILE --budget 0.33")
_code("E0603", "a memory limit that cannot be met",
      """No plan that we know of fits into so little memory, whatever is computed again. The message says the least that
      was reached, the least that is possible at all, and the operation whose operands and results set it.""",
      "slpc plan programs/mlp.slp --memory 1kB", "slpc plan programs/mlp.slp --memory 1MB")
_code("E0604", "an unknown policy",
      "The textbook's choices of what to keep are keep-all, blocks, sqrt, no-square and min-cut.",
      "slpc plan FILE --policy keepall", "slpc plan FILE --policy keep-all")
_code("E0605", "a pattern that names no value", "`--keep` takes names of values, with * and ? as in a shell.",
      "slpc plan programs/mlp.slp --keep 'Z*'", "slpc plan programs/mlp.slp --keep 'X*'")
_code("E0606", "a size of memory that cannot be read",
      "A size is a number with a unit: B, kB, MB, GB, or KiB, MiB, GiB.",
      "slpc plan FILE --memory lots", "slpc plan FILE --memory 64MB")
_code("E0607", "an unknown device",
      "`slpc cost --device` takes the name of a device whose figures are known; `slpc cost --help` lists them.",
      "slpc cost FILE --device h1000", "slpc cost FILE --device h100")
_code("E0608", "an unknown value",
      "The program's gradient has no value of that name; `slpc opt FILE -p adjoint,simplify` shows all.",
      "slpc why programs/lecture.slp z9", "slpc why programs/lecture.slp z4")
_code("E0609", "an unknown optimizer",
      "The optimizers are sgd, momentum, adam and adamw; passes/optimizers.slp has their text.",
      "slpc cost FILE --optimizer adm", "slpc cost FILE --optimizer adam")

# E07xx: native code --------------------------------------------------------------------------------------------
_code("E0701", "the llvm backend does not have it yet",
      """C text (`--emit c`) is straight-line code: of scalars, or of arrays that are small enough to be taken apart
      into scalars. Object files and libraries have loops over arrays, as calls from Python do.""",
      "slpc compile programs/transformer.slp --emit c -o f.c",
      "slpc compile programs/transformer.slp --emit obj -o f.o")
_code("E0702", "an array that cannot be bound",
      """`f.bind(x, out=g)` takes one contiguous array of float64 for all inputs and one for all outputs, end to end in
      their order, which do not overlap.""",
      "f.bind(numpy.zeros((2, 1)), out=numpy.zeros(3))", "f.bind(numpy.zeros(2), out=numpy.zeros(3))")
_code("E0703", "there is no linker",
      """A shared library is linked by cc, clang, gcc, ld.lld, ld or zig (pip install ziglang), whichever is found
      first. An object file needs none of them.""",
      "slpc compile FILE --emit so -o f.so    # on a machine without a C compiler",
      "slpc compile FILE --emit obj -o f.o")
_code("E0704", "an unknown target",
      "The target is a triple that LLVM knows: architecture, vendor, system.",
      "slpc compile FILE --emit obj --target arm -o f.o",
      "slpc compile FILE --emit obj --target aarch64-unknown-linux-gnu -o f.o")
_code("E0705", "a form that code cannot be written in",
      """`--emit` takes ll (LLVM IR), asm, obj, so, c (C99) or h (the header). Files that are no text need -o. The
      function's name is one that C allows.""",
      "slpc compile FILE --emit dll -o f.dll", "slpc compile FILE --emit so -o f.so")
_code("E0706", "an option that the backend lacks",
      """Contraction (a product and the sum that takes it, rounded once together) is for the backend llvm; device, tf32,
      graph and deterministic are for the backend torch, and graph for its CUDA devices.""",
      "slpc.compile(program, contract=True)", "slpc.compile(program, contract=True, backend=\"llvm\")")

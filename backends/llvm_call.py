"""Calls from Python without a frame in between: emitted functions of CPython's C API, the same for all programs.

`slpc.flat` and `slpc.call` take Python floats, run a program, and return a tuple, or a value and a dict of gradients.
Anything else (keywords, other numbers, a wrong count) they hand to a Python function. `slpc.bound` takes nothing, its
buffers being bound beforehand. Their `self` is a tuple, which begins with that Python function, and bytes that hold
numbers: the addresses of the program, of its workspace, of the buffers; the number of inputs, outputs and values.

Where objects keep their fields is asked of this Python (`object.__basicsize__` and its like), since it differs
between versions.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from . import llvm_engine
from .llvm_engine import Library
from .records import Layout

MOST_DIRECT = 1000
"""Inputs and outputs of a program that Python calls directly, their floats on the stack."""

_TYPE = object.__basicsize__ - ctypes.sizeof(ctypes.c_void_p)
_FLOAT = object.__basicsize__
_ITEMS = tuple.__basicsize__
_BYTES = bytes.__basicsize__ - 1

_FASTCALL_KEYWORDS, _NOARGS = 0x0080 | 0x0002, 0x0004

POSSIBLE = sys.implementation.name == "cpython" and ctypes.sizeof(ctypes.c_void_p) == 8
"""Is this a Python whose objects the emitted functions know?"""


def direct(layout: Layout) -> bool:
    """Can Python call the program directly? A workspace that calls share needs the lock that lets one run at a time."""
    alone = getattr(sys, "_is_gil_enabled", lambda: True)()
    fits = POSSIBLE and layout.plain and (alone or not layout.workspace)
    return fits and 0 < layout.inputs.elements + layout.outputs.elements <= MOST_DIRECT


_TEXT = """
@PyFloat_Type = external global i8
@_Py_NoneStruct = external global i8
declare ptr @PyFloat_FromDouble(double)
declare ptr @PyTuple_New(i64)
declare ptr @PyDict_New()
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyObject_Vectorcall(ptr, ptr, i64, ptr)

; Number `which` of those that self holds.
define internal i64 @number(ptr %self, i64 %which) alwaysinline {
  %item = getelementptr i8, ptr %self, i64 ITEM1
  %bytes = load ptr, ptr %item
  %numbers = getelementptr i8, ptr %bytes, i64 BYTES
  %at = getelementptr i64, ptr %numbers, i64 %which
  %number = load i64, ptr %at, align 1
  ret i64 %number
}

define internal void @run(ptr %self, ptr %in, ptr %out) alwaysinline {
  %n0 = call i64 @number(ptr %self, i64 0)
  %program = inttoptr i64 %n0 to ptr
  %n1 = call i64 @number(ptr %self, i64 1)
  %work = inttoptr i64 %n1 to ptr
  call void %program(ptr %in, ptr %out, ptr %work)
  ret void
}

define ptr @slpc.bound(ptr %self, ptr %nothing) {
  %n2 = call i64 @number(ptr %self, i64 2)
  %in = inttoptr i64 %n2 to ptr
  %n3 = call i64 @number(ptr %self, i64 3)
  %out = inttoptr i64 %n3 to ptr
  call void @run(ptr %self, ptr %in, ptr %out)
  call void @Py_IncRef(ptr @_Py_NoneStruct)
  ret ptr @_Py_NoneStruct
}

; The Python floats %args[0:%count] at %in; false where they are not simply that.
define internal i1 @doubles(ptr %self, ptr %args, i64 %count, ptr %names, ptr %in) alwaysinline {
entry:
  %inputs = call i64 @number(ptr %self, i64 2)
  %plain = icmp eq ptr %names, null
  %right = icmp eq i64 %count, %inputs
  %try = and i1 %plain, %right
  br i1 %try, label %next, label %other, !prof !2
next:
  %i = phi i64 [ 0, %entry ], [ %j, %float ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %one, label %done
one:
  %place = getelementptr ptr, ptr %args, i64 %i
  %object = load ptr, ptr %place
  %type.at = getelementptr i8, ptr %object, i64 TYPE
  %type = load ptr, ptr %type.at
  %is.float = icmp eq ptr %type, @PyFloat_Type
  br i1 %is.float, label %float, label %other, !prof !2
float:
  %x.at = getelementptr i8, ptr %object, i64 FLOAT
  %x = load double, ptr %x.at
  %to = getelementptr double, ptr %in, i64 %i
  store double %x, ptr %to
  %j = add i64 %i, 1
  br label %next
done:
  ret i1 true
other:
  ret i1 false
}

; A new tuple of doubles as Python floats; null, as everywhere in CPython's API, where memory has run out.
define internal ptr @floats(ptr %from, i64 %count) {
entry:
  %tuple = call ptr @PyTuple_New(i64 %count)
  %lost = icmp eq ptr %tuple, null
  br i1 %lost, label %failed, label %next, !prof !0
next:
  %i = phi i64 [ 0, %entry ], [ %j, %one ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %one, label %done
one:
  %at = getelementptr double, ptr %from, i64 %i
  %x = load double, ptr %at
  %object = call ptr @PyFloat_FromDouble(double %x)
  %items = getelementptr i8, ptr %tuple, i64 ITEM0
  %item = getelementptr ptr, ptr %items, i64 %i
  store ptr %object, ptr %item
  %j = add i64 %i, 1
  %none = icmp eq ptr %object, null
  br i1 %none, label %undone, label %next, !prof !0
undone:
  call void @Py_DecRef(ptr %tuple)
  br label %failed
failed:
  ret ptr null
done:
  ret ptr %tuple
}

; What is not simply floats goes to the Python function.
define internal ptr @slow(ptr %self, ptr %args, i64 %count, ptr %names) cold noinline {
  %item = getelementptr i8, ptr %self, i64 ITEM0
  %function = load ptr, ptr %item
  %answer = call ptr @PyObject_Vectorcall(ptr %function, ptr %args, i64 %count, ptr %names)
  ret ptr %answer
}

define ptr @slpc.flat(ptr %self, ptr %args, i64 %count, ptr %names) {
  %inputs = call i64 @number(ptr %self, i64 2)
  %outputs = call i64 @number(ptr %self, i64 3)
  %in = alloca double, i64 %inputs, align 16
  %out = alloca double, i64 %outputs, align 16
  %fit = call i1 @doubles(ptr %self, ptr %args, i64 %count, ptr %names, ptr %in)
  br i1 %fit, label %fast, label %other, !prof !2
fast:
  call void @run(ptr %self, ptr %in, ptr %out)
  %tuple = call ptr @floats(ptr %out, i64 %outputs)
  ret ptr %tuple
other:
  %answer = call ptr @slow(ptr %self, ptr %args, i64 %count, ptr %names)
  ret ptr %answer
}

; (value or tuple of values, dict of gradients by name)
define ptr @slpc.call(ptr %self, ptr %args, i64 %count, ptr %names) {
  %inputs = call i64 @number(ptr %self, i64 2)
  %outputs = call i64 @number(ptr %self, i64 3)
  %in = alloca double, i64 %inputs, align 16
  %out = alloca double, i64 %outputs, align 16
  %fit = call i1 @doubles(ptr %self, ptr %args, i64 %count, ptr %names, ptr %in)
  br i1 %fit, label %fast, label %other, !prof !2
fast:
  call void @run(ptr %self, ptr %in, ptr %out)
  %values = call i64 @number(ptr %self, i64 4)
  %single = icmp eq i64 %values, 1
  br i1 %single, label %number, label %several
number:
  %y = load double, ptr %out
  %value0 = call ptr @PyFloat_FromDouble(double %y)
  br label %valued
several:
  %value1 = call ptr @floats(ptr %out, i64 %values)
  br label %valued
valued:
  %value = phi ptr [ %value0, %number ], [ %value1, %several ]
  %dict = call ptr @PyDict_New()
  %both = call ptr @PyTuple_New(i64 2)
  %a = icmp eq ptr %value, null
  %b = icmp eq ptr %dict, null
  %c = icmp eq ptr %both, null
  %ab = or i1 %a, %b
  %abc = or i1 %ab, %c
  br i1 %abc, label %failed, label %gradient, !prof !0
gradient:
  %k = phi i64 [ %values, %valued ], [ %k1, %set ]
  %rest = icmp slt i64 %k, %outputs
  br i1 %rest, label %make, label %done
make:
  %g.at = getelementptr double, ptr %out, i64 %k
  %g = load double, ptr %g.at
  %g.object = call ptr @PyFloat_FromDouble(double %g)
  %g.none = icmp eq ptr %g.object, null
  br i1 %g.none, label %failed, label %set, !prof !0
set:
  %number.of = sub i64 %k, %values
  %keys = getelementptr i8, ptr %self, i64 ITEM2
  %key.at = getelementptr ptr, ptr %keys, i64 %number.of
  %key = load ptr, ptr %key.at
  %code = call i32 @PyDict_SetItem(ptr %dict, ptr %key, ptr %g.object)
  call void @Py_DecRef(ptr %g.object)
  %k1 = add i64 %k, 1
  %bad = icmp slt i32 %code, 0
  br i1 %bad, label %failed, label %gradient, !prof !0
failed:
  call void @Py_DecRef(ptr %value)
  call void @Py_DecRef(ptr %dict)
  call void @Py_DecRef(ptr %both)
  ret ptr null
done:
  %first = getelementptr i8, ptr %both, i64 ITEM0
  store ptr %value, ptr %first
  %second = getelementptr i8, ptr %both, i64 ITEM1
  store ptr %dict, ptr %second
  ret ptr %both
other:
  %answer = call ptr @slow(ptr %self, ptr %args, i64 %count, ptr %names)
  ret ptr %answer
}

!0 = !{!"branch_weights", i32 1, i32 10000}
!2 = !{!"branch_weights", i32 10000, i32 1}
"""


@cache
def _glue() -> Library:
    """The functions for Python, made when the first program is loaded."""
    text = _TEXT
    for name, offset in (("ITEM0", _ITEMS), ("ITEM1", _ITEMS + 8), ("ITEM2", _ITEMS + 16), ("BYTES", _BYTES),
                         ("TYPE", _TYPE), ("FLOAT", _FLOAT)):
        text = text.replace(f"i64 {name}\n", f"i64 {offset}\n")
    return llvm_engine.load(text, ["slpc.flat", "slpc.call", "slpc.bound"])


class _MethodDef(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]


@cache
def _new() -> Any:
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.argtypes = [ctypes.POINTER(_MethodDef), ctypes.py_object, ctypes.c_void_p]
    make.restype = ctypes.py_object
    return make


def function(symbol: str, program: int, layout: Layout, slow: Callable[..., Any], workspace: Any,
             names: tuple[str, ...], kept: Any) -> Any:
    """A Python function over `slpc.flat` or `slpc.call` for the program at an address. `names` are those of the
    gradients; `workspace`, an array, and `kept` live as long as the function."""
    values = layout.outputs.elements - len(names)
    numbers = (program, _address(workspace), layout.inputs.elements, layout.outputs.elements, values)
    return _made(symbol, _FASTCALL_KEYWORDS, (slow, _bytes(numbers), *names), (workspace, kept))


def bound(program: int, given: Any, found: Any, workspace: Any, kept: Any) -> Any:
    """A Python function without arguments over `slpc.bound`; the input, output and workspace are arrays."""
    numbers = (program, _address(workspace), _address(given), _address(found))
    return _made("slpc.bound", _NOARGS, (None, _bytes(numbers)), (given, found, workspace, kept))


def _address(array: Any) -> int:
    return array.ctypes.data if array is not None else 0


def _bytes(numbers: tuple[int, ...]) -> bytes:
    return b"".join(n.to_bytes(8, "little") for n in numbers)


def _made(symbol: str, flags: int, items: tuple[Any, ...], kept: Any) -> Any:
    definition = _MethodDef(symbol.partition(".")[2].encode(), _glue().addresses[symbol], flags, None)
    return _new()(ctypes.byref(definition), (*items, definition, kept), None)

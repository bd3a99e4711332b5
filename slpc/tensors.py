"""Tensors of torch in and out: what a caller may hand in for an input or output, and NumPy's arrays as tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from . import buffers, inputs
from .backends.torch_lowering import DTYPES
from .ir.diagnostics import Diagnostic, SlpError
from .ir.graph import Graph, Value
from .ir.types import DType, bf16, matrix


def dtype_of(dtype: DType) -> Any:
    """torch's dtype."""
    import torch

    return getattr(torch, DTYPES[dtype.name])


def from_numpy(array: Any, device: str = "cpu") -> Any:
    """An array of NumPy, or a scalar, as a tensor on the device: its own memory where that is possible."""
    import numpy
    import torch

    array = numpy.asarray(array)
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = array.copy()
    if array.dtype == bf16.numpy:
        return torch.from_numpy(array.view(numpy.int16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(array).to(device)


def to_numpy(tensor: Any) -> Any:
    """A tensor as an array of NumPy, and one of shape () as a scalar."""
    import numpy
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        found = tensor.view(torch.int16).numpy().view(bf16.numpy)
    else:
        found = tensor.numpy()
    return found if isinstance(found, numpy.ndarray) and found.ndim else found[()]


def convert(given: Any, value: Value, shape: tuple[int, ...], device: str) -> Any:
    """`given` as a tensor of the input's dtype, of `shape`, on the device, row by row.

    Tensors, and what torch takes by DLPack, are taken without a copy and must be all of that; Python numbers and lists
    are converted, and so are arrays of NumPy where the device is the CPU. SlpError E0404 for another shape, E0405 for
    another dtype, E0414 for another device or a tensor that does not lie row by row.
    """
    import numpy
    import torch

    if type(given) in (float, int, bool) and not shape:
        return torch.full((), inputs.number(given, value), dtype=dtype_of(value.dtype), device=device)
    if isinstance(given, bool | int | float | list | tuple | numpy.generic):
        return from_numpy(inputs.convert(given, value, shape), device)
    if isinstance(given, numpy.ndarray):
        if torch.device(device).type != "cpu":
            raise _fault("E0414", value, f"is an array of NumPy, and the program runs on {device}",
                         f"torch.as_tensor({value.name}, device=\"{device}\")")
        return from_numpy(inputs.convert(given, value, shape))
    if not isinstance(given, torch.Tensor):
        if not hasattr(given, "__dlpack__"):
            raise _fault("E0404", value, f"is {value.type} and was given a {type(given).__name__}, which is no tensor")
        given = torch.utils.dlpack.from_dlpack(given)
    _check(given, value, shape, device)
    return given.detach()


def _check(given: Any, value: Value, shape: tuple[int, ...], device: str) -> None:
    """Does a tensor fit the input?"""
    wanted = dtype_of(value.dtype)
    if given.dtype is not wanted:
        raise _fault("E0405", value, f"is {value.type} and was given a tensor of {given.dtype}",
                     f"convert it: {value.name}.to({wanted})")
    if tuple(given.shape) != shape:
        raise _fault("E0404", value, f"has shape {matrix(shape)} and was given {matrix(tuple(given.shape))}",
                     "inputs are not broadcast")
    if not same_device(given.device, device):
        raise _fault("E0414", value, f"is on {given.device}, and the program runs on {device}",
                     f"move it: {value.name}.to(\"{device}\"), or compile with device=\"{given.device}\"")
    if not given.is_contiguous():
        raise _fault("E0414", value, "does not lie row by row", f"copy it: {value.name}.contiguous()")


def same_device(found: Any, device: str) -> bool:
    """Is a torch.device the one of that name? "cuda" is the current one."""
    import torch

    wanted = torch.device(device)
    if wanted.type == "cuda" and wanted.index is None:
        wanted = torch.device("cuda", torch.cuda.current_device())
    return bool(found == wanted)


def check_donated(donated: Collection[Value], inputs: Mapping[Value, tuple[Any, Any]]) -> None:
    """SlpError E0413 unless each donated input is a tensor that can be written over, in memory of its own. `inputs` are
    the arguments, as they were given and as they are read."""
    import torch

    for value in donated:
        given, tensor = inputs[value]
        if not isinstance(given, torch.Tensor) or given.data_ptr() != tensor.data_ptr():
            raise buffers.unfit(value, f"is a {type(given).__name__}, not a tensor that can be written over")
        for other, (_, read) in inputs.items():
            if other is not value and _overlap(tensor, read):
                raise buffers.unfit(value, f"shares memory with that for {other.name}")


def checked_out(graph: Graph, outputs: Sequence[Value], out: Any, given: Sequence[Any], device: str) -> list[Any]:
    """The tensors of `out`, a mapping by output name or a sequence in the order of the outputs, which are those of the
    graph that lie in no donated input.

    SlpError E0413 unless there is one for each output: of its dtype and shape, on the device, row by row, and in memory
    of its own.
    """
    import torch

    found: list[Any] = []
    for tensor, value in zip(buffers.listed(graph, outputs, out), outputs):
        if not isinstance(tensor, torch.Tensor):
            raise buffers.fault(value, f"is a {type(tensor).__name__}, not a tensor")
        if tensor.dtype is not dtype_of(value.dtype) or tuple(tensor.shape) != value.shape:
            raise buffers.fault(value, f"has dtype {tensor.dtype} and shape {matrix(tuple(tensor.shape))}")
        if not same_device(tensor.device, device):
            raise buffers.fault(value, f"is on {tensor.device}, and the program runs on {device}")
        if not tensor.is_contiguous():
            raise buffers.fault(value, "does not lie row by row")
        if any(_overlap(tensor, other) for other in (*given, *found)):
            raise buffers.fault(value, "shares memory with an input or another output")
        found.append(tensor)
    return found


def _overlap(a: Any, b: Any) -> bool:
    first, second = ((x.data_ptr(), x.data_ptr() + x.nbytes) for x in (a, b))
    return bool(first[0] < second[1] and second[0] < first[1])


def _fault(code: str, value: Value, message: str, hint: str = "") -> SlpError:
    return SlpError(Diagnostic(code, f"the input {value.name} {message}", hint))

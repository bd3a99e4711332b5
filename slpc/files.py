"""Reading and writing files: whole or not at all, and every failure an SlpError that names the file.

A dtype that NumPy's formats do not know (bf16) is saved as its bytes in unsigned integers, with the dtype's name beside
them under the key `NAME.dtype`.
"""

from __future__ import annotations

import os
import secrets
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .ir.diagnostics import Diagnostic, SlpError, Span
from .ir.types import DTYPES

if TYPE_CHECKING:
    import numpy

_DTYPE = ".dtype"
_LARGEST_PROGRAM = 1 << 31


def failure(path: str | os.PathLike[str], doing: str, error: BaseException | str, hint: str = "") -> SlpError:
    """E0410 in the operating system's words."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return SlpError(Diagnostic("E0410", f"cannot {doing} {os.fspath(path)!r}: {reason[:1].lower()}{reason[1:]}", hint))


def split_name(path: str) -> tuple[str, str | None]:
    """`FILE:NAME` as (file, name of the def); a path that exists as it stands is a path."""
    head, colon, tail = path.rpartition(":")
    if colon and head and tail.isidentifier() and not os.path.exists(path):
        return head, tail
    return path, None


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a program; E0410 where it cannot be read, E0104 where it is not UTF-8. `-` is standard input."""
    try:
        if os.fspath(path) == "-":
            raw = b"" if sys.stdin is None else sys.stdin.buffer.read()
        elif not os.fspath(path):
            raise failure(path, "read", "its name is empty")
        elif not Path(path).is_dir() and Path(path).exists() and Path(path).stat().st_size > _LARGEST_PROGRAM:
            raise failure(path, "read", "it is larger than 2 GiB")
        else:
            raw = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise failure(path, "read", error) from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[:error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1)
        shown = raw.split(b"\n")[line - 1].decode("utf-8", "replace")
        raise SlpError(Diagnostic("E0104", f"byte 0x{raw[error.start]:02x} is not UTF-8",
                                  "save the file as UTF-8", os.fspath(path),
                                  Span(line, column, column + 1), shown)) from None


def write_whole(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` with a temporary file beside `path` and move it there once it is complete; E0410 on failure."""
    target = Path(path)
    temporary = ""
    try:
        if target.exists() and not target.is_file():  # a pipe, /dev/null, /dev/stdout: nothing to replace
            with target.open("wb") as stream:
                write(stream)
            return
        target = target.resolve()
        beside = str(target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}"))
        with open(beside, "xb") as stream:
            temporary = beside
            write(stream)
        os.replace(temporary, target)
        temporary = ""
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise failure(path, "write", error) from None
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)


def check_writable(path: str | os.PathLike[str]) -> None:
    """E0410 where a file of that name cannot be written: asked before the work whose result it is to hold."""
    target = Path(path)
    try:
        folder = target.resolve().parent
    except (OSError, ValueError, RuntimeError) as error:
        raise failure(path, "write", error) from None
    if target.is_dir():
        raise failure(path, "write", "it is a folder")
    if target.exists() and not target.is_file():
        return
    if not folder.is_dir():
        raise failure(path, "write", "there is no such folder")
    if not os.access(folder, os.W_OK):
        raise failure(path, "write", "the folder is read-only")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text file in UTF-8, whole or not at all."""
    write_whole(path, lambda stream: stream.write(text.encode("utf-8")))


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """An .npz of arrays; bf16 is kept as its bytes with its name beside them."""
    import numpy

    stored: dict[str, Any] = {}
    for name, value in arrays.items():
        array = numpy.asarray(value)
        if array.dtype == DTYPES["bf16"].numpy:
            stored[name + _DTYPE] = numpy.asarray("bf16")
            array = array.view(numpy.uint16)
        stored[name] = array
    write_whole(path, lambda stream: _write_npz(stream, stored))


def _write_npz(stream: IO[bytes], arrays: Mapping[str, Any]) -> None:
    """As numpy.savez does, which takes no array called `file`."""
    from numpy.lib import format

    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                format.write_array(member, array, allow_pickle=False)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, numpy.ndarray[Any, Any]]:
    """The arrays of an .npz by name, or of an .npy under the name ""; never executes what a file contains (E0410)."""
    import numpy

    try:
        with Path(path).open("rb") as stream:
            loaded = numpy.load(stream, allow_pickle=False)
            if not isinstance(loaded, numpy.lib.npyio.NpzFile):
                return {"": loaded}
            raw = {name: loaded[name] for name in loaded.files}
    except MemoryError:
        raise SlpError(Diagnostic("E0408", f"the arrays of {os.fspath(path)!r} do not fit into memory")) from None
    except (OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, zipfile.BadZipFile) as error:
        hint = "files are read without pickle" if "Object arrays" in str(error) else ""
        reason: BaseException | str = error if isinstance(error, OSError) else "it is no .npy or .npz file of numbers"
        raise failure(path, "read", reason, hint) from None
    arrays = {}
    for name, array in raw.items():
        if name.endswith(_DTYPE) and name.removesuffix(_DTYPE) in raw:
            continue
        beside = raw.get(name + _DTYPE)
        if beside is not None and str(beside) == "bf16" and array.dtype == numpy.uint16:
            array = array.view(DTYPES["bf16"].numpy)
        arrays[name] = array
    return arrays


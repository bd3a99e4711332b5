"""Object files kept on disk, so that a second process does not generate the same code again.

An entry is named by a hash of all that decides its bytes: the text, the processor and its features, the effort, and the
versions of LLVM and llvmlite. It begins with a digest of its content; what does not match it is built again. Entries
are written whole beside their place and then moved there, so that any number of processes may build the same thing.

The folder is `$SLPC_CACHE`, else `slpc` in `$XDG_CACHE_HOME` or `~/.cache`; `SLPC_CACHE=off` keeps nothing. It is code
that will run: an entry, or a folder, of another user is not read.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 1 << 28
"""The folder is cut back to half of this when it grows beyond it, oldest entries first."""


def folder() -> Path | None:
    """Where entries are kept; None where none are."""
    chosen = os.environ.get("SLPC_CACHE")
    if chosen is not None:
        return None if chosen in ("", "off") else Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):
        return Path(base) / "slpc" if base else Path.home() / ".cache" / "slpc"
    return None


def cached(parts: Sequence[str], build: Callable[[], bytes]) -> bytes:
    """What `build` returns, from disk where it was built before from the same parts."""
    place = folder()
    if place is None:
        return build()
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    path = place / f"{name}.o"
    found = _read(path)
    if found is None:
        found = build()
        with suppress(OSError):
            _write(path, found)
    return found


def _read(path: Path) -> bytes | None:
    with suppress(OSError):
        if hasattr(os, "getuid") and not path.stat().st_uid == path.parent.stat().st_uid == os.getuid():
            return None
        stored = path.read_bytes()
        digest, content = stored[:32], stored[32:]
        if hashlib.sha256(content).digest() == digest:
            os.utime(path)
            return content
    return None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(hashlib.sha256(content).digest() + content)
        os.replace(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink()
    _cut_back(path.parent)


def _cut_back(place: Path) -> None:
    entries = []
    for entry in os.scandir(place):
        with suppress(OSError):
            state = entry.stat()
            entries.append((state.st_mtime, state.st_size, entry.path))
    total = sum(size for _, size, _ in entries)
    if total <= MOST_BYTES:
        return
    for _, size, path in sorted(entries):
        with suppress(OSError):
            os.unlink(path)
            total -= size
        if total <= MOST_BYTES // 2:
            break

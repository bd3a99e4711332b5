"""The cache of machine code: found again, built again where it is damaged, shared by processes, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import slpc
from slpc.backends import llvm_cache, llvm_engine

TEXT = "def f(x: f64):\n    return exp(x) * 2.5"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLPC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def value() -> float:
    return slpc.compile(slpc.parse(TEXT), backend="llvm")(0.0)


def refuse(*_: object) -> bytes:
    raise AssertionError("code was generated")


def test_what_was_built_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value() == 2.5
    entries = sorted(folder.iterdir())
    assert entries and not any(e.name.startswith(".") for e in entries)
    assert folder.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(llvm_engine, "object_code", refuse)
    assert value() == 2.5


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:100], lambda b: b[:-1] + bytes([b[-1] ^ 1]),
                                    lambda b: b"x" * len(b)])
def test_a_damaged_entry_is_built_again(folder: Path, damage: object) -> None:
    value()
    for entry in folder.iterdir():
        entry.write_bytes(damage(entry.read_bytes()))  # type: ignore[operator]
    before = {e.name: e.read_bytes() for e in folder.iterdir()}
    assert value() == 2.5
    assert any(e.read_bytes() != before[e.name] for e in folder.iterdir())


def test_a_program_has_an_entry_of_its_own(folder: Path) -> None:
    value()
    count = len(list(folder.iterdir()))
    slpc.compile(slpc.parse(TEXT.replace("2.5", "2.25")), backend="llvm")
    assert len(list(folder.iterdir())) == count + 1


def test_nothing_is_kept_when_it_is_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLPC_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert value() == 2.5 and not list(tmp_path.iterdir())
    monkeypatch.delenv("SLPC_CACHE")
    assert value() == 2.5 and (tmp_path / "slpc").is_dir()


def test_the_command_line_can_do_without(folder: Path) -> None:
    program = str(Path(__file__).parent.parent / "programs" / "lecture.slp")
    for option, kept in (["--no-cache"], 0), ([], 1):
        done = subprocess.run([sys.executable, "-m", "slpc", "run", program, "--backend", "llvm", *option],
                              capture_output=True, text=True, check=True)
        assert "39.459983186667834" in done.stdout
        assert len(list(folder.glob("*"))) >= kept and (kept or not folder.exists())


def test_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SLPC_CACHE", str(tmp_path / "file" / "cache"))
    assert value() == 2.5


def test_another_user_s_entries_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value()
    monkeypatch.setattr(os, "getuid", lambda: 12345, raising=False)
    monkeypatch.setattr(llvm_engine, "object_code", refuse)
    with pytest.raises(AssertionError):
        value()


def test_it_is_cut_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm_cache, "MOST_BYTES", 1000)
    for i in range(10):
        llvm_cache.cached([str(i)], lambda: b"x" * 200)
    assert sum(e.stat().st_size for e in folder.iterdir()) <= 1000


def test_many_writers_of_one_entry(folder: Path) -> None:
    found = []

    def work() -> None:
        for _ in range(50):
            found.append(llvm_cache.cached(["one"], lambda: b"y" * 5000))
            for entry in folder.glob("*.o"):
                entry.unlink(missing_ok=True)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [b"y" * 5000] * 300
    assert not list(folder.glob(".*"))


def test_two_processes_at_once(folder: Path) -> None:
    code = f"import slpc; print(slpc.compile(slpc.parse({TEXT!r}), backend='llvm')(0.0))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate()[0] for p in running] == ["2.5\n"] * 2
    assert all(llvm_cache._read(e) is not None for e in folder.iterdir())

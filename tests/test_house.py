"""What the house promises of itself: extras that hints name exist, and what is not installed is said, not thrown."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

import slpc

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_extras_that_hints_name_exist() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    files = [p for folder in ("ir", "passes", "backends", "slpc") for p in (ROOT / folder).glob("*.py")]
    named = {extra for p in files for extra in re.findall(r"slpc\[([a-z]+)\]", p.read_text("utf-8"))}
    assert named
    assert named <= set(extras)


def test_every_folder_of_the_library_is_installed() -> None:
    installed = PROJECT["tool"]["setuptools"]["package-dir"]
    assert {ROOT / folder for folder in installed.values()} == {p.parent for p in ROOT.glob("*/__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == set(installed)


def test_missing_scipy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(slpc.SlpError) as caught:
        slpc.compile(slpc.parse("def f(x: f64[3]):\n    return sum(erf(x))"))
    assert caught.value.code == "E0502"
    assert "pip install 'slpc[special]'" in str(caught.value)

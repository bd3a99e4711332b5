"""Broken text gives SlpError or success: never another exception, never a hang. Finds are kept below, one line each.

`SLPC_EXAMPLES=20000 python -m pytest tests/test_fuzz.py` looks longer, at other texts each time.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from slpc.backends import numpy_backend
from slpc.ir.diagnostics import SlpError
from slpc.ir.ops import OPS
from slpc.ir.parse import parse
from slpc.ir.statements import RESERVED
from slpc.ir.verify import verify
from slpc.passes.adjoint import adjoint
from slpc.passes.simplify import simplify

LONGER = os.environ.get("SLPC_EXAMPLES", "")
COUNT = int(LONGER or 1200)
SECONDS = 60
ROOT = Path(__file__).parent.parent
PROGRAMS = [path.read_text("utf-8") for path in sorted((ROOT / "programs").glob("*.slp"))]
SOURCES = PROGRAMS + [path.read_text("utf-8") for path in sorted((ROOT / "tests" / "golden").glob("*.slp"))
                      if path.stat().st_size < 8000]
WORDS = sorted({
    *RESERVED, *OPS, "for", "in", "range", "if", "else", "elif", "return", "def", "lambda", "while", "del",
    "assert", "import", "None", "...", "*", "**", "@", "//", "%", "~", "&", "|", "==", "<", ":", ",", "(",
    ")", "[", "]", "{", "}", "\n", "\n    ", "    ", "\t", "#", '"""', "'", "\\", "=", "0", "-1", "1e999",
    "1j", "99999999999999999999", "10 ** 9", "0.5", "x", "f64", "f32[3, 4]", "axis=", "shape=", ".T",
    ".shape", "s_", "\0", "\r", "\x0c", "\ufeff", "é", "x: f64", "@scheduled", "@tile(rows=8)", "True",
    "not", "and", "or", "is", "global x", "yield", "await", "async", "f''", "b''", "append", "inf", "nan",
    "pi", "-", "+", ";",
})


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """TimeoutError after so many seconds."""
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def survives(text: str) -> bool:
    """Is the text read? If so, its texts round-trip and its gradient is made; what is refused has places and words."""
    with limited(SECONDS):
        try:
            graph = verify(parse(text))
        except SlpError as error:
            if not all(d.message and d.code in str(error) for d in error.diagnostics):
                raise
            return False
        if len(graph.nodes) > 2000 or any(v.type.size > 1 << 40 for v in graph.values()):
            return True
        shown = str(graph)
        assert str(parse(shown)) == shown
        numpy_backend.emit(simplify(graph))
        try:
            verify(simplify(verify(adjoint(graph))))
        except SlpError as error:
            if error.code != "E0412":
                raise
        return True


def mutated(rng: random.Random) -> str:
    """A text of ours with some tokens deleted, doubled, exchanged or put in, cut short, or spliced with another."""
    text = rng.choice(SOURCES)
    if rng.random() < 0.2:
        text = text[:rng.randrange(len(text) + 1)]
    if rng.random() < 0.1:
        other = rng.choice(SOURCES)
        text = text[:rng.randrange(len(text) + 1)] + other[rng.randrange(len(other)):]
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((0, 1, 1, 2, 5, 20)))
        kind = rng.random()
        if kind < 0.25:
            text = text[:at] + text[end:]
        elif kind < 0.6:
            text = text[:at] + rng.choice(WORDS) + text[end:]
        elif kind < 0.8:
            other = rng.choice(SOURCES)
            start = rng.randrange(len(other))
            text = text[:at] + other[start:start + rng.choice((1, 5, 20))] + text[end:]
        elif kind < 0.9:
            text = text[:at] + text[at:end] * rng.choice((2, 3, 50)) + text[end:]
        else:
            lines = text.split("\n")
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            text = "\n".join(lines)
    return text


PROGRAM = "def f(x: f64[2, 3], y: f64, *, i: i64[2], b: bool[2, 3]):\n    z = {}\n    return z, x\n"
LEAVES = (
    "x", "y", "i", "b", "1", "0", "-1", "2.5", "None", "True", "...", "()", "[]", "f32", "s_", "inf", "nan",
    "1:2", "10 ** 30", "'a'", "x.shape", "x.T", "[x, y]", "range(3)", "sin", "x.dtype",
)
KEYWORDS = (
    "", "", "", ", axis=0", ", axis=(0, 1)", ", keepdims=True", ", shape=(2, 3)", ", dtype=f32",
    ", at=(s_[0],)", ", axis=None", ", k=-1",
)
OPERATORS = ("+", "*", "/", "**", "//", "%", "@", "<", "==", "&", "and", "-")


def expression(rng: random.Random, depth: int) -> str:
    """A random expression of the language's words, most of them wrong."""
    if depth == 0 or rng.random() < 0.2:
        return rng.choice(LEAVES)
    inner = [expression(rng, depth - 1) for _ in range(rng.choice((0, 1, 1, 2, 2, 3)))]
    kind = rng.random()
    if kind < 0.5:
        return f"{rng.choice(sorted(RESERVED))}({', '.join(inner)}{rng.choice(KEYWORDS)})"
    if kind < 0.7 and len(inner) > 1:
        return f"({inner[0]} {rng.choice(OPERATORS)} {inner[1]})"
    if kind < 0.8 and inner:
        return f"{inner[0]}[{', '.join(inner[1:]) or '0'}]"
    if kind < 0.85 and inner:
        return f"{rng.choice(('-', '~', 'not ', '+'))}{inner[0]}"
    if kind < 0.9:
        return f"[{', '.join(inner)}]"
    return f"({', '.join(inner)},)" if inner else "x"


def generator(name: str) -> random.Random:
    """The same numbers each time, or others where SLPC_EXAMPLES asks for them."""
    return random.Random(os.urandom(8) if LONGER else name)


def test_unbroken_text_is_read() -> None:
    assert all(map(survives, PROGRAMS))


@pytest.mark.parametrize("part", range(4))
def test_mutated_text(part: int) -> None:
    rng = generator(f"mutated {part}")
    read = 0
    for _ in range(COUNT // 4):
        text = mutated(rng)
        try:
            read += survives(text)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}\n{text!r}")
    assert read > 0


@pytest.mark.parametrize("part", range(4))
def test_random_expressions(part: int) -> None:
    rng = generator(f"expression {part}")
    read = 0
    for _ in range(COUNT // 2):
        text = PROGRAM.format(expression(rng, 3))
        try:
            read += survives(text)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}\n{text!r}")
    assert read > 0


FOUND = [
    "10 ** 30", "(10 ** 30,)[0]", "~inf", "~nan", "eye(10 ** 30)", "arange(10 ** 30)", "sign(10 ** 30)",
    "floor(10 ** 30)", "mod(10 ** 30, 7)", "floor_divide(0, 10 ** 30)", "pow(2, -1)", "10 ** 30 * []",
    "i32(nan)", "full(2, nan, dtype=i32)", "full(1, 'a')", "sum(True)", "astype(f64(nan), i32)",
    "astype(f64(1e300), i32)", "i32(1e300)", "i32(i64(2 ** 40))", "x[-20::-1]", "x[::-1][7:7]",
    "y ** 0 + f64(2) ** 2", "lgamma(2.0) * erf(1.0)", "i ** -1", "2 ** i",
]
"""Expressions that once raised something else, or did not read back."""


@pytest.mark.parametrize("text", FOUND)
def test_found_before(text: str) -> None:
    survives(PROGRAM.format(text))


def test_a_header_without_a_block() -> None:
    assert not survives("def f(x: f64):\nreturn x\n")


def test_advice_of_pythons_parser_is_not_printed(recwarn: pytest.WarningsRecorder) -> None:
    survives('def f(x: f64):\n    """\\d"""\n    return 1if True else x\n')
    assert not recwarn


@pytest.mark.parametrize("text", [
    "", "\n", "\ufeff", "#", '"""', "\\", "def", "def f", "def f(", "def f():", "@", "@f",
    "def f(x: f64): return x" + "\\",
    "(" * 10_000,
    "[" * 10_000 + "]" * 10_000, "-" * 10_000 + "x", "x = 1" + " + 1" * 100_000, "x" * 1_000_000,
    "def f(x: f64):\n    return " + "x + " * 20_000 + "x", "def f(x: f64):\n    return " + "x ** " * 3000 + "x",
    "def f(x: f64):\n    return " + "not " * 5000 + "True", "def f(x: f64):\n    return x" + ".T" * 5000,
    "def f(x: f64):\n    return x" + "[None]" * 3000, "x = " + "9" * 5000, "x = 9 ** 9 ** 9 ** 9", "x = [0] * 10 ** 9",
    "x = [[0] * 10 ** 6] * 10 ** 6", "x = 'a' * 10 ** 12", "x = list(range(10 ** 12))", "x = len(range(10 ** 40))",
    "x = [i for i in range(10 ** 4) for j in range(10 ** 9)]", "def f(x: f64[10 ** 30]):\n    return x",
    "def f(x: f64[2 ** 61, 0]):\n    return x", "def f(x: f64):\n    return zeros((2 ** 40, 2 ** 40))",
    "".join(" " * i + "if True:\n" for i in range(200)) + " " * 200 + "x = 1", "x = 1 << 10 ** 10", "x = 1e308 * 10",
    "def f(x: f64):\n    xs = [x]\n    for i in range(40):\n        xs = xs + xs\n    return sum(xs)",
    "def f(x: f64):\n    xs = [x]\n    xs.append(xs)\n    return sum(xs)",
    "def f(x: f64):\n    xs = [x]\n    xs.append(xs)\n    return stack(xs)",
    "def f(x: f64):\n    xs = [x]\n    for i in range(40):\n        xs = [xs, xs]\n    return sum(xs)",
], ids=lambda text: repr(text[:20]))
def test_texts_made_to_hurt(text: str) -> None:
    survives(text)


def test_calls_that_double_without_end_come_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slpc.ir.expressions.MOST_STEPS", 50_000)
    text = "def g0(x):\n    return x\n"
    text += "".join(f"def g{i}(x):\n    return g{i - 1}(x) + g{i - 1}(x)\n" for i in range(1, 60))
    with limited(SECONDS), pytest.raises(SlpError) as caught:
        parse(text + "def f(x: f64):\n    return g59(x)\n")
    assert [d.code for d in caught.value.diagnostics] == ["E0119"]

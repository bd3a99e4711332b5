"""Random programs for property tests: a hypothesis strategy of .slp text with inputs, free of NaN by construction.

Each value carries an interval that holds all its elements (interval arithmetic, Moore 1966). An operation is applied
where the interval lies in its domain; else its operand is squashed into the domain first, `a + b * tanh(x)`. A value
that would grow past LARGEST is squashed too. So nothing overflows in any dtype, and no derivative has a pole.

    @given(programs())                          any program: masks, kinks, casts, several dtypes
    @given(programs(smooth=True))               differentiable everywhere, in float64: may be held against differences
    @given(programs(scalars=True))              scalars alone, for batches of points and Python floats

A rule is a row of UNARY or BINARY, or a method of `_Writer` that is listed in `_RULES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from slpc.ir.types import DTYPES

Shape = tuple[int, ...]
Interval = tuple[float, float]
Image = Callable[..., Interval]

LARGEST = 40.0
MOST_ELEMENTS = 48
ROWS, COLUMNS = 3, 2
INF = math.inf


@dataclass(frozen=True)
class Program:
    """A program's text, a point to run it at, and whether differences of it make sense."""

    text: str
    inputs: dict[str, Any] = field(hash=False)
    smooth: bool = False

    def __repr__(self) -> str:
        return f"Program(inputs={self.inputs!r}, text='''\n{self.text}''')"


@dataclass(frozen=True)
class _Known:
    """A variable of the text: its shape, and the interval that its elements lie in."""

    name: str
    shape: Shape
    low: float
    high: float

    @property
    def size(self) -> int:
        return math.prod(self.shape)


# Rules for single elements -----------------------------------------------------------------------------------------

def _rising(f: Callable[[float], float]) -> Image:
    return lambda low, high: (f(low), f(high))


def _falling(f: Callable[[float], float]) -> Image:
    return lambda low, high: (f(high), f(low))


def _within(low: float, high: float) -> Image:
    return lambda *_: (low, high)


def _even(f: Callable[[float], float]) -> Image:
    """The image of a function that falls to the left of 0 and rises to the right."""
    def image(low: float, high: float) -> Interval:
        least = f(0.0) if low <= 0 <= high else min(f(low), f(high))
        return least, max(f(low), f(high))
    return image


def _corners(f: Callable[[float, float], float]) -> Image:
    """The image of a function that is monotone in each operand."""
    def image(a: float, b: float, c: float, d: float) -> Interval:
        found = [f(x, y) for x in (a, b) for y in (c, d)]
        return min(found), max(found)
    return image


@dataclass(frozen=True)
class _Rule:
    """An expression over `{x}` (and `{y}`), the intervals that its operands must lie in, and its image."""

    text: str
    domains: tuple[Interval, ...]
    image: Image
    smooth: bool = True


ANY = (-INF, INF)


def _unary(text: str, low: float, high: float, image: Image, smooth: bool = True) -> _Rule:
    return _Rule(text, ((low, high),), image, smooth)


UNARY = [
    _unary("sin({x})", *ANY, _within(-1, 1)),
    _unary("cos({x})", *ANY, _within(-1, 1)),
    _unary("tanh({x})", *ANY, _rising(math.tanh)),
    _unary("atan({x})", *ANY, _rising(math.atan)),
    _unary("asinh({x})", *ANY, _rising(math.asinh)),
    _unary("erf({x})", *ANY, _rising(math.erf)),
    _unary("erfc({x})", -4, 2, _falling(math.erfc)),
    _unary("exp({x})", -5, 3, _rising(math.exp)),
    _unary("exp2({x})", -5, 4, _rising(math.exp2)),
    _unary("expm1({x})", -5, 3, _rising(math.expm1)),
    _unary("log({x})", 0.2, INF, _rising(math.log)),
    _unary("log2({x})", 0.2, INF, _rising(math.log2)),
    _unary("log10({x})", 0.2, INF, _rising(math.log10)),
    _unary("log1p({x})", -0.7, INF, _rising(math.log1p)),
    _unary("sqrt({x})", 0.2, INF, _rising(math.sqrt)),
    _unary("cbrt({x})", 0.2, INF, _rising(math.cbrt)),
    _unary("tan({x})", -1.1, 1.1, _rising(math.tan)),
    _unary("asin({x})", -0.9, 0.9, _rising(math.asin)),
    _unary("acos({x})", -0.9, 0.9, _falling(math.acos)),
    _unary("sinh({x})", -3, 3, _rising(math.sinh)),
    _unary("cosh({x})", -3, 3, _even(math.cosh)),
    _unary("acosh({x})", 1.3, INF, _rising(math.acosh)),
    _unary("atanh({x})", -0.9, 0.9, _rising(math.atanh)),
    _unary("lgamma({x})", 0.4, 6, _within(-0.13, 5)),
    _unary("1 / {x}", 0.2, INF, _falling(lambda x: 1 / x)),
    _unary("-{x}", *ANY, _falling(lambda x: -x)),
    _unary("{x} * 0.75", *ANY, _rising(lambda x: 0.75 * x)),
    _unary("{x} - 1.25", *ANY, _rising(lambda x: x - 1.25)),
    _unary("0.5 + {x}", *ANY, _rising(lambda x: 0.5 + x)),
    _unary("{x} ** 2", *ANY, _even(lambda x: x * x)),
    _unary("{x} ** 3", -4, 4, _rising(lambda x: x**3)),
    _unary("{x} ** -1.5", 0.2, INF, _falling(lambda x: x**-1.5)),
    _unary("2 ** {x}", -4, 4, _rising(lambda x: 2**x)),
    _unary("{x} * {x} - {x}", -6, 6, _within(-0.25, 42)),
    _unary("sigmoid({x})", *ANY, _within(0, 1)),
    _unary("softplus({x})", *ANY, lambda a, b: (0, math.log1p(math.exp(b)))),
    _unary("silu({x})", *ANY, lambda a, b: (-0.3, max(b, 0))),
    _unary("gelu({x})", *ANY, lambda a, b: (-0.2, max(b, 0))),
    _unary("square({x}) / 4", *ANY, _even(lambda x: x * x / 4)),
    _unary("sum([sin({x} + k) for k in range(3)])", *ANY, _within(-3, 3)),
    _unary("abs({x})", *ANY, _even(abs), False),
    _unary("relu({x})", *ANY, lambda a, b: (0, max(b, 0)), False),
    _unary("floor({x})", *ANY, _rising(math.floor), False),
    _unary("ceil({x})", *ANY, _rising(math.ceil), False),
    _unary("round({x})", *ANY, _rising(round), False),
    _unary("sign({x})", *ANY, _within(-1, 1), False),
    _unary("clip({x}, -1, 1.5)", *ANY, _within(-1, 1.5), False),
    _unary("where({x} > 0.1, log({x}), 0.5)", *ANY,
            lambda a, b: (-2.4, max(math.log(max(b, 0.1)), 0.5)), False),
    _unary("where({x} <= 0.1, {x}, sqrt({x}))", *ANY,
            lambda a, b: (min(a, 0), max(math.sqrt(max(b, 0)), 0.4)), False),
    _unary("where(({x} > -1) & ({x} < 1), asin({x}), 0)", *ANY, _within(-1.6, 1.6), False),
    _unary("where({x} == 0, 1, sin({x}) / {x})", *ANY, _within(-0.3, 1), False),
    _unary("stop_gradient({x})", *ANY, lambda a, b: (a, b), False),
]
BINARY = [
    _Rule("{x} + {y}", (ANY, ANY), _corners(lambda x, y: x + y)),
    _Rule("{x} - {y}", (ANY, ANY), _corners(lambda x, y: x - y)),
    _Rule("{x} * {y}", (ANY, ANY), _corners(lambda x, y: x * y)),
    _Rule("{x} / {y}", (ANY, (0.3, INF)), _corners(lambda x, y: x / y)),
    _Rule("{x} ** {y}", ((0.2, 4), (-2, 2)), _corners(lambda x, y: x**y)),
    _Rule("hypot({x}, {y})", (ANY, (0.3, INF)), lambda a, b, c, d: (0.3, math.hypot(max(-a, b), d))),
    _Rule("atan2({x}, {y})", (ANY, (0.3, INF)), _within(-1.6, 1.6)),
    _Rule("{x} * {y} + {x}", (ANY, (-1, 1)), lambda a, b, c, d: (-2 * max(-a, b), 2 * max(-a, b))),
    _Rule("maximum({x}, {y})", (ANY, ANY), _corners(max), False),
    _Rule("minimum({x}, {y})", (ANY, ANY), _corners(min), False),
    _Rule("{x} % {y}", (ANY, (0.5, 4)), lambda a, b, c, d: (-0.1, d + 0.1), False),
    _Rule("{x} // {y}", (ANY, (0.5, 4)), lambda a, b, c, d: (min(2 * a - 1, 0), max(2 * b, 0)), False),
    _Rule("where({x} > {y}, {x}, 0.5 * {y})", (ANY, ANY), lambda a, b, c, d: (min(a, c, 0), max(b, d, 0)), False),
    _Rule("where(~({x} != {y}) | ({x} >= 0.25), {y}, sin({x}))", (ANY, ANY),
          lambda a, b, c, d: (min(c, -1), max(d, 1)), False),
]

HELPERS = '''
def mixed(a, b, share=0.25):
    return share * a + (1 - share) * b, a - b


def polished(x, steps=2):
    for step in range(steps):
        x = x - 0.5 * sin(x) / (step + 2)
    return x


def chain(x):
    parts = [x]
    for k in range(1, 3):
        parts.append(tanh(parts[k - 1] + 1 / k))
    first, second, third = parts
    return third * second + 0.5 * first
'''


# Writing ---------------------------------------------------------------------------------------------------------

class _Writer:
    """A program being written: its lines, its variables, and how to draw."""

    def __init__(self, draw: Any, dtype: str, *, smooth: bool, scalars: bool) -> None:
        self.draw, self.dtype, self.smooth, self.scalars = draw, dtype, smooth, scalars
        self.lines: list[str] = []
        self.known: list[_Known] = []
        self.bools: list[_Known] = []

    def choose(self, items: Any) -> Any:
        return self.draw(st.sampled_from(list(items)))

    def number(self, most: int) -> int:
        return int(self.draw(st.integers(0, most)))

    def value(self, low: float = -INF, high: float = INF) -> tuple[str, _Known]:
        """A variable as an expression that lies in [low, high]; late ones are drawn as often as all early ones."""
        recent = self.known[-4:]
        known = self.choose(recent if self.number(2) else self.known)
        return self.fitted(known, low, high)

    def fitted(self, known: _Known, low: float, high: float) -> tuple[str, _Known]:
        if low <= known.low and known.high <= high:
            return known.name, known
        high = min(high, low + 3) if low > -INF else high
        low = max(low, high - 3)
        middle, half = (low + high) / 2, 0.96 * (high - low) / 2
        return (f"({middle:.4g} + {half:.4g} * tanh({known.name}))",
                _Known(known.name, known.shape, middle - half, middle + half))

    def partner(self, x: _Known, fits: Callable[[Shape, Shape], Any]) -> _Known:
        """A late variable whose shape fits x's; x itself where there is none."""
        fitting = [k for k in self.known[-12:] if fits(x.shape, k.shape) not in (None, False)]
        return self.choose(fitting or [k for k in self.known if k.name == x.name])

    def define(self, text: str, shape: Shape, low: float, high: float) -> _Known:
        """One line; what is too large is squashed."""
        if max(-low, high) > LARGEST:
            text, low, high = f"4 * tanh(0.1 * ({text}))", -4.0, 4.0
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        made = _Known(name, shape, low, high)
        self.known.append(made)
        return made

    # Rules -------------------------------------------------------------------------------------------------------

    def unary(self) -> None:
        rule = self.choose([r for r in UNARY if r.smooth or not self.smooth])
        text, x = self.value(*rule.domains[0])
        self.define(rule.text.format(x=text), x.shape, *rule.image(x.low, x.high))

    def binary(self) -> None:
        rule = self.choose([r for r in BINARY if r.smooth or not self.smooth])
        left, x = self.value(*rule.domains[0])
        right, y = self.fitted(self.partner(x, _broadcast), *rule.domains[1])
        shape = _broadcast(x.shape, y.shape)
        assert shape is not None
        self.define(rule.text.format(x=left, y=right), shape, *rule.image(x.low, x.high, y.low, y.high))

    def condition(self) -> None:
        """A bool of its own line, and a choice by it."""
        _, x = self.value()
        name = f"c{len(self.lines)}"
        compared = self.choose(["{} > 0.25", "{} <= -0.5", "~({} < 0)", "({} > 0) & ({} < 1)", "({} < 0) | ({} >= 1)"])
        self.lines.append(f"{name} = {compared.replace('{}', x.name)}")
        self.bools.append(_Known(name, x.shape, 0, 1))
        fitting = [k for k in self.bools if _broadcast(x.shape, k.shape) is not None]
        other = self.choose(fitting)
        shape = _broadcast(x.shape, other.shape)
        assert shape is not None
        self.define(f"where({other.name} & {name}, {x.name}, 0.125)", shape, min(x.low, 0.125), max(x.high, 0.125))

    def view(self) -> None:
        text, x = self.value()
        rank = len(x.shape)
        kind = self.number(5)
        if rank == 0:
            self.define(f"broadcast_to({text}, (2,))", (2,), x.low, x.high)
        elif kind == 0:
            self.define(f"reshape({text}, (-1,))", (x.size,), x.low, x.high)
        elif kind == 1:
            order = self.draw(st.permutations(range(rank)))
            self.define(f"permute_dims({text}, {(*order,)})", tuple(x.shape[i] for i in order), x.low, x.high)
        elif kind == 2 and rank < 3:
            at = self.number(rank)
            index = ", ".join(["..."] if at == rank else [":"] * at) + (", " if at else "") + "None"
            index = index if at < rank else "..., None"
            self.define(f"{text}[{index}]", (*x.shape[:at], 1, *x.shape[at:]), x.low, x.high)
        elif kind == 3 and rank < 3 and 2 * x.size <= MOST_ELEMENTS:
            self.define(f"broadcast_to({text}, {(2, *x.shape)})", (2, *x.shape), x.low, x.high)
        else:
            self.slices(text, x)

    def slices(self, text: str, x: _Known) -> None:
        entries, shape = [], []
        for n in x.shape:
            step = self.choose([1, 1, 2, -1, -2])
            if self.number(3) == 0:
                entries.append(str(self.number(2 * n - 1) - n))
                continue
            start = self.number(n - 1)
            entries.append(f"{start}:{'' if step > 0 else ':'}{step if step != 1 else ''}" if step < 0
                           else f"{start}:" + (f":{step}" if step != 1 else ""))
            shape.append(len(range(n)[start::step]))
        self.define(f"{text}[{', '.join(entries)}]", tuple(shape), x.low, x.high)

    def reduction(self) -> None:
        text, x = self.value()
        names = ["sum", "mean", "cumsum", "softmax", "logsumexp"] + ([] if self.smooth else ["max", "min"])
        name = self.choose(names)
        if not x.shape:
            return self.unary()
        axis = self.number(len(x.shape) - 1)
        n = x.shape[axis]
        low, high = {"sum": (n * x.low, n * x.high), "cumsum": (n * min(x.low, 0), n * max(x.high, 0)),
                     "softmax": (0.0, 1.0), "logsumexp": (x.low, x.high + math.log(n))}.get(name, (x.low, x.high))
        if name in ("cumsum", "softmax"):
            self.define(f"{name}({text}, axis={axis})", x.shape, low, high)
        elif self.number(1):
            kept = tuple(1 if i == axis else m for i, m in enumerate(x.shape))
            self.define(f"{name}({text}, axis={axis - len(x.shape)}, keepdims=True)", kept, low, high)
        else:
            self.define(f"{name}({text}, axis={axis})", x.shape[:axis] + x.shape[axis + 1:], low, high)
        return None

    def product(self) -> None:
        text, x = self.value()
        fitting = [k for k in self.known[-12:] if _product(x.shape, k.shape) is not None]
        if not fitting:
            other, y = (f"{text}.mT", x) if len(x.shape) > 1 else (text, x)
            shape: Shape | None = (*x.shape[:-1], x.shape[-2]) if len(x.shape) > 1 else ()
            if not x.shape:
                return self.binary()
        else:
            y = self.choose(fitting)
            other, shape = y.name, _product(x.shape, y.shape)
        bound = x.shape[-1] * max(-x.low, x.high) * max(-y.low, y.high)
        assert shape is not None
        self.define(f"{text} @ {other}", shape, -bound, bound)
        return None

    def joined(self) -> None:
        text, x = self.value()
        y = self.partner(x, lambda a, b: a == b)
        low, high = min(x.low, y.low), max(x.high, y.high)
        if 2 * x.size > MOST_ELEMENTS or len(x.shape) > 2:
            self.unary()
        elif x.shape and self.number(1):
            axis = self.number(len(x.shape) - 1)
            shape = tuple(2 * n if i == axis else n for i, n in enumerate(x.shape))
            self.define(f"concat([{text}, {y.name}], axis={axis})", shape, low, high)
        else:
            axis = self.number(len(x.shape))
            self.define(f"stack([{text}, {y.name}], axis={axis})", (*x.shape[:axis], 2, *x.shape[axis:]), low, high)

    def gathered(self) -> None:
        """Rows by an index from data; indices lie in [-1, 1), so that any axis of one element or more has them."""
        text, x = self.value()
        if not x.shape or 4 * x.size // x.shape[0] > MOST_ELEMENTS:
            return self.unary()
        index, shape = self.choose([("i", (4,)), ("k", ())])
        self.define(f"{text}[{index}]", (*shape, *x.shape[1:]), x.low, x.high)
        return None

    def called(self) -> None:
        """A helper: with a tuple, with a loop, or with a list."""
        kind = self.number(2)
        text, x = self.value()
        bound = max(-x.low, x.high)
        if kind == 0:
            y = self.partner(x, _broadcast)
            shape = _broadcast(x.shape, y.shape)
            assert shape is not None
            share = self.choose(["", ", 0.5", ", share=0.125"])
            first, second = f"p{len(self.lines)}", f"q{len(self.lines)}"
            self.lines.append(f"{first}, {second} = mixed({text}, {y.name}{share})")
            bound = max(bound, -y.low, y.high)
            self.known += [_Known(first, shape, -bound, bound), _Known(second, shape, -2 * bound, 2 * bound)]
        elif kind == 1:
            self.define(f"polished({text}{self.choose(['', ', 3'])})", x.shape, -bound - 1, bound + 1)
        else:
            self.define(f"chain({text})", x.shape, -0.5 * bound - 1, 0.5 * bound + 1)

    def loop(self) -> None:
        """A name that a loop assigns again and again."""
        text, x = self.value()
        name = f"w{len(self.lines)}"
        end = self.number(2) + 1
        self.lines += [f"{name} = {text}", f"for step in range({end}):", f"    {name} = sin({name}) + 0.25 * step"]
        self.known.append(_Known(name, x.shape, -2.0, 2.0))

    def cast(self) -> None:
        """Through another dtype and back."""
        text, x = self.value()
        other = self.choose(["f32", "bf16", "i32", "f16"])
        slack = 1 + 0.02 * max(-x.low, x.high)
        self.define(f"astype(astype({text}, {other}), {self.dtype})", x.shape, x.low - slack, x.high + slack)


_RULES: dict[str, int] = {"unary": 5, "binary": 6, "condition": 1, "view": 3, "reduction": 3, "product": 2, "joined": 2,
                          "gathered": 1, "called": 2, "loop": 1, "cast": 1}
"""The rules, and how often each is taken."""

_SCALAR = {"unary", "binary", "condition", "called", "loop"}
_KINKED = {"condition", "cast"}


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    """NumPy's, or None where the shapes do not fit or the result is too large."""
    try:
        shape = np.broadcast_shapes(a, b)
    except ValueError:
        return None
    return shape if math.prod(shape) <= MOST_ELEMENTS and len(shape) <= 3 else None


def _product(a: Shape, b: Shape) -> Shape | None:
    """The shape of `a @ b`, or None."""
    if not a or not b or a[-1] != b[-2 if len(b) > 1 else -1]:
        return None
    lead = _broadcast(a[:-2], b[:-2])
    if lead is None:
        return None
    shape = (*lead, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))
    return shape if math.prod(shape) <= MOST_ELEMENTS and len(shape) <= 3 else None


_SHAPES: list[tuple[str, Shape]] = [("", ()), ("[rows]", (ROWS,)), ("[rows, columns]", (ROWS, COLUMNS)),
                                    ("[columns, rows]", (COLUMNS, ROWS)), ("[1, columns]", (1, COLUMNS)),
                                    ("[2, rows, columns]", (2, ROWS, COLUMNS))]


@st.composite
def programs(draw: Any, *, smooth: bool = False, scalars: bool = False, casts: bool = True,
             dtype: str | None = None, most: int = 60) -> Program:
    """Programs of 1 to `most` steps (some steps are several operations), with inputs to run them at.

    `smooth` ones are float64 unless `dtype` says otherwise; others draw a dtype, and without `casts` keep to it. Each
    input has a distribution as its default, which says where the program is free of NaN; `inputs` are drawn from it.
    """
    chosen = dtype or ("f64" if smooth else draw(st.sampled_from(["f64", "f64", "f32", "f16", "bf16"])))
    writer = _Writer(draw, chosen, smooth=smooth, scalars=scalars)
    signature = []
    for at in range(draw(st.integers(1, 3))):
        suffix, shape = ("", ()) if scalars else draw(st.sampled_from(_SHAPES))
        low, high = draw(st.sampled_from([(-2.0, 2.0), (0.5, 3.0), (-1.0, 0.0)]))
        signature.append(f"x{at}: {chosen}{suffix} = uniform({low}, {high})")
        writer.known.append(_Known(f"x{at}", shape, low, high))
    data = [] if scalars else ["i: i64[4] = integers(-1, 1)", "k: i32 = integers(-1, 1)"]
    allowed = [name for name, weight in _RULES.items() for _ in range(weight)
               if (name in _SCALAR or not scalars) and not (smooth and name in _KINKED) and (casts or name != "cast")]
    for _ in range(draw(st.integers(1, most))):
        getattr(writer, draw(st.sampled_from(allowed)))()
    outputs = [k.name for k in writer.known[-draw(st.integers(1, min(3, len(writer.known)))):]]
    outputs.reverse()
    body = "\n    ".join([*writer.lines, f"return {', '.join(outputs)}"])
    sizes = "" if scalars else f"rows, columns = {ROWS}, {COLUMNS}\n"
    star = ", *, " + ", ".join(data) if data else ""
    text = f"{sizes}{HELPERS}\n\ndef random({', '.join(signature)}{star}):\n    {body}\n"
    return Program(text, _point(writer, signature, bool(data), draw(st.integers(0, 2**32 - 1))), smooth)


def _point(writer: _Writer, signature: list[str], data: bool, seed: int) -> dict[str, Any]:
    """Inputs from the distributions of the signature."""
    rng = np.random.default_rng(seed)
    kind = DTYPES[writer.dtype].numpy
    point: dict[str, Any] = {}
    for known in writer.known[:len(signature)]:
        point[known.name] = np.asarray(rng.uniform(known.low, known.high, known.shape)).astype(kind)[()]
    if data:
        point |= {"i": rng.integers(-1, 1, 4), "k": np.int32(rng.integers(-1, 1))}
    return point

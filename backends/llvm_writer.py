"""Lines of LLVM IR for one function: values with operators, at any number of lanes.

A `Lane` is the result of one instruction. It has Python's operators, so that a formula is written as a formula; a
Python number beside it is a constant of its type. With more than one lane every value is a vector, and the same
formula serves single points and batches.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

_TAKEN = {"in", "out", "work", "at", "entry", "again"}
"""What functions call their parameters and some of their blocks."""

_FLOATS = {"half": "f16", "bfloat": "bf16", "float": "f32", "double": "f64"}


def float_text(number: float, kind: str = "double") -> str:
    """A floating-point literal, rounded to its type: LLVM writes float as the double of the same value, narrower ones
    by bits."""
    if kind == "float":
        number = struct.unpack(">f", struct.pack(">f", number))[0]
    if kind == "half":
        return "0xH" + struct.pack(">e", number).hex().upper()
    if kind == "bfloat":
        return "0xR" + struct.pack(">f", number).hex().upper()[:4]
    return "0x" + struct.pack(">d", number).hex().upper()


class Lane:
    """The result of an instruction: its name, and the type of one lane."""

    __slots__ = ("kind", "name", "writer")

    def __init__(self, writer: Writer, name: str, kind: str) -> None:
        self.writer, self.name, self.kind = writer, name, kind

    def _two(self, other: Lane | float | int, floating: str, whole: str, swapped: bool = False) -> Lane:
        w = self.writer
        op = whole
        if self.kind in _FLOATS:
            op = f"{floating} contract" if w.contract and floating != "fdiv" else floating
        a, b = self.name, w.text(other, self.kind)
        if swapped:
            a, b = b, a
        return w.line(self.kind, f"{op} {w.type(self.kind)} {a}, {b}")

    def __add__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "fadd", "add")

    __radd__ = __add__

    def __sub__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "fsub", "sub")

    def __rsub__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "fsub", "sub", swapped=True)

    def __mul__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "fmul", "mul")

    __rmul__ = __mul__

    def __truediv__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "fdiv", "sdiv")

    def __rtruediv__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "fdiv", "sdiv", swapped=True)

    def __neg__(self) -> Lane:
        w = self.writer
        return w.line(self.kind, f"fneg {w.type(self.kind)} {self.name}") if self.kind in _FLOATS else 0 - self

    def __and__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "", "and")

    def __or__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "", "or")

    def __xor__(self, other: Lane | float | int) -> Lane:
        return self._two(other, "", "xor")

    def __lshift__(self, other: int) -> Lane:
        return self._two(other, "", "shl")

    def __rshift__(self, other: int) -> Lane:
        """Arithmetic, the sign is kept."""
        return self._two(other, "", "ashr")

    def logical_shift(self, other: int) -> Lane:
        """To the right, zeros come in."""
        return self._two(other, "", "lshr")

    def _compared(self, other: Lane | float | int, floating: str, whole: str) -> Lane:
        w = self.writer
        test = f"fcmp {floating}" if self.kind in _FLOATS else f"icmp {whole}"
        return w.line("i1", f"{test} {w.type(self.kind)} {self.name}, {w.text(other, self.kind)}")

    def __lt__(self, other: Lane | float | int) -> Lane:
        return self._compared(other, "olt", "slt")

    def __le__(self, other: Lane | float | int) -> Lane:
        return self._compared(other, "ole", "sle")

    def __gt__(self, other: Lane | float | int) -> Lane:
        return self._compared(other, "ogt", "sgt")

    def __ge__(self, other: Lane | float | int) -> Lane:
        return self._compared(other, "oge", "sge")

    def equals(self, other: Lane | float | int) -> Lane:
        """Ordered: NaN equals nothing."""
        return self._compared(other, "oeq", "eq")

    def differs(self, other: Lane | float | int) -> Lane:
        """True where either is NaN."""
        return self._compared(other, "une", "ne")

    @property
    def is_nan(self) -> Lane:
        return self._compared(self, "uno", "ne")


Formula = Callable[..., Lane]
"""A function of mathematics: lanes of its arguments, after the writer, to the lane of its value."""


class Writer:
    """Instructions of one function body, and what it needs: declarations by name, and functions of `llvm_math` by name,
    kind and lanes. With `contract` LLVM may round a product and the sum that takes it once together.

    With `formula` the functions that it knows, by name and kind, are written in place of their calls, and what was
    computed before is not computed again. With `deferred` the arguments that need another way are told by `doubt`, an
    i64 that is negative for them, and get some value; else a branch takes that way.
    """

    def __init__(self, lanes: int = 1, contract: bool = False,
                 formula: Callable[[str, str], Formula | None] | None = None, deferred: bool = False) -> None:
        self.lanes = lanes
        self.contract = contract
        self.formula = formula
        self.deferred = deferred
        self.doubt: Lane | None = None
        self._known: dict[str, Lane] = {}
        self.lines: list[str] = []
        self.declared: dict[str, str] = {}
        self.math: set[tuple[str, str, int]] = set()
        self.block = "entry"
        self._count = 0

    def type(self, kind: str) -> str:
        """The type of a value whose lanes are of that kind."""
        return kind if self.lanes == 1 else f"<{self.lanes} x {kind}>"

    def fresh(self, stem: str = "t") -> str:
        """A name that is not taken, without its percent sign."""
        self._count += 1
        return f"{stem}.{self._count}"

    def text(self, operand: Lane | float | int, kind: str) -> str:
        """An operand as an instruction spells it."""
        if isinstance(operand, Lane):
            assert operand.kind == kind, (operand.kind, kind)
            return operand.name
        if kind in _FLOATS:
            one = float_text(float(operand), kind)
        else:
            one = str(int(operand)) if kind != "i1" else ("true" if operand else "false")
        return one if self.lanes == 1 else f"splat ({kind} {one})"

    def constant(self, number: float | int, kind: str) -> Lane:
        """A constant as a value."""
        return Lane(self, self.text(number, kind), kind)

    def line(self, kind: str, instruction: str, name: str = "") -> Lane:
        """One instruction that has a result; what is known where it stands is not computed again."""
        if self.formula is not None and instruction in self._known:
            return self._known[instruction]
        result = "%" + (name or self.fresh())
        self.lines.append(f"  {result} = {instruction}")
        found = Lane(self, result, kind)
        if self.formula is not None and not instruction.startswith(("load", "phi")):
            self._known[instruction] = found
        return found

    def renamed(self, value: Lane, name: str) -> Lane:
        """The value under a name of the program's, where its instruction is the last one written."""
        start = f"  {value.name} = "
        if not (self.lines and self.lines[-1].startswith(start) and name.isascii()) or name in _TAKEN:
            return value
        self.lines[-1] = f"  %{name} = {self.lines[-1][len(start):]}"
        value.name = f"%{name}"  # for all who hold it: a copy is the value itself
        return value

    def label(self, name: str) -> None:
        """A basic block begins."""
        self.lines.append(f"{name}:")
        self.block = name

    def call(self, function: str, kind: str, *operands: Lane | float | int, kinds: Sequence[str] = ()) -> Lane:
        """A call of a declared function on whole values."""
        types = [self.type(k) for k in kinds or [kind] * len(operands)]
        self.declared[function] = f"declare {self.type(kind)} @{function}({', '.join(types)})"
        given = ", ".join(f"{t} {self.text(o, k)}" for t, o, k in zip(types, operands, kinds or [kind] * len(operands)))
        return self.line(kind, f"call {self.type(kind)} @{function}({given})")

    def intrinsic(self, name: str, kind: str, *operands: Lane | float | int) -> Lane:
        """`llvm.NAME` overloaded on the type of the value."""
        suffix = {"double": "f64", "float": "f32", "half": "f16", "bfloat": "bf16"}.get(kind, kind)
        vector = suffix if self.lanes == 1 else f"v{self.lanes}{suffix}"
        return self.call(f"llvm.{name}.{vector}", kind, *operands)

    def function(self, name: str, *operands: Lane) -> Lane:
        """One of our own functions, of f64 or of f32 as the operands are (llvm_math): its formula, or a call."""
        kind = operands[0].kind
        formula = self.formula(name, kind) if self.formula is not None else None
        if formula is not None:
            contract, self.contract = self.contract, False
            found = formula(self, *operands)
            self.contract = contract
            return found
        self.math.add((name, kind, self.lanes))
        given = ", ".join(f"{self.type(kind)} {o.name}" for o in operands)
        return self.line(kind, f"call {self.type(kind)} @{math_name(name, kind, self.lanes)}({given})")

    def library(self, name: str, *operands: Lane) -> Lane:
        """A function of the C library on f64, lane by lane."""
        self.declared[name] = f"declare double @{name}({', '.join(['double'] * len(operands))})"
        if self.lanes == 1:
            return self.line("double", f"call double @{name}({', '.join('double ' + o.name for o in operands)})")
        t = self.type("double")
        whole = Lane(self, "poison", "double")
        for lane in range(self.lanes):
            ones = [self.line("double", f"extractelement {t} {o.name}, i64 {lane}") for o in operands]
            one = self.line("double", f"call double @{name}({', '.join('double ' + o.name for o in ones)})")
            whole = self.line("double", f"insertelement {t} {whole.name}, double {one.name}, i64 {lane}")
        return whole

    def cast(self, value: Lane, op: str, kind: str) -> Lane:
        """A conversion instruction (`fpext`, `bitcast`, `zext`, ...)."""
        return self.line(kind, f"{op} {self.type(value.kind)} {value.name} to {self.type(kind)}")

    def select(self, condition: Lane, then: Lane | float | int, other: Lane | float | int) -> Lane:
        """`then` where the condition holds, `other` elsewhere, lane by lane."""
        kind = then.kind if isinstance(then, Lane) else other.kind if isinstance(other, Lane) else "double"
        c = f"{self.type('i1')} {condition.name}"
        t = self.type(kind)
        return self.line(kind, f"select {c}, {t} {self.text(then, kind)}, {t} {self.text(other, kind)}")

    def lane_range(self, value: Lane, start: int, count: int) -> str:
        """So many lanes of a value, as an operand."""
        if count == self.lanes:
            return value.name
        listed = ", ".join(f"i32 {i}" for i in range(start, start + count))
        t = self.type(value.kind)
        return self.line(value.kind, f"shufflevector {t} {value.name}, {t} poison, <{count} x i32> <{listed}>").name

    def joined(self, low: Lane, high: Lane, count: int) -> Lane:
        """Values of so many lanes each, one behind the other."""
        t, listed = f"<{count} x {low.kind}>", ", ".join(f"i32 {i}" for i in range(2 * count))
        return self.line(low.kind, f"shufflevector {t} {low.name}, {t} {high.name}, <{2 * count} x i32> <{listed}>")

    def fma(self, a: Lane | float, b: Lane | float, c: Lane | float) -> Lane:
        """a * b + c, rounded once."""
        kind = next(o.kind for o in (a, b, c) if isinstance(o, Lane))
        return self.intrinsic("fma", kind, a, b, c)

    def saturated(self, x: Lane, kind: str) -> Lane:
        """A floating-point number cut off to an integer, at the limits where it does not fit, 0 for NaN."""
        short = {"float": "f32", "double": "f64"}[x.kind]
        vector = f"{kind}.{short}" if self.lanes == 1 else f"v{self.lanes}{kind}.v{self.lanes}{short}"
        name = f"llvm.fptosi.sat.{vector}"
        self.declared[name] = f"declare {self.type(kind)} @{name}({self.type(x.kind)})"
        return self.line(kind, f"call {self.type(kind)} @{name}({self.type(x.kind)} {x.name})")

    def integer_power(self, x: Lane, n: Lane) -> Lane:
        """x^n of integers by repeated squaring, 64 or 32 steps; of a negative n the power, cut off to an integer."""
        steps = int(x.kind[1:])
        result, base, rest = self.constant(1, x.kind), x, n
        one, zero = result, self.constant(0, x.kind)
        for _ in range(steps - 1):
            result = self.select((rest & 1).differs(0), result * base, result)
            base, rest = base * base, rest.logical_shift(1)
        unit = self.select(x.equals(-1) & (n & 1).differs(0), x, one)
        inverse = self.select(x.equals(1) | x.equals(-1), unit, zero)
        return self.select(n < 0, inverse, result)

    def any(self, condition: Lane) -> Lane:
        """One bit: does the condition hold in any lane?"""
        if self.lanes == 1:
            return condition
        name = f"llvm.vector.reduce.or.v{self.lanes}i1"
        self.declared[name] = f"declare i1 @{name}(<{self.lanes} x i1>)"
        return self.line("i1", f"call i1 @{name}(<{self.lanes} x i1> {condition.name})")

    def loop(self, state: list[Lane], test: Callable[[list[Lane]], Lane],
             step: Callable[[list[Lane]], list[Lane]]) -> list[Lane]:
        """The state after as many steps as it takes until the test holds in no lane."""
        before, head, body, after = self.block, self.fresh("next"), self.fresh("step"), self.fresh("done")
        known = dict(self._known)
        self.lines.append(f"  br label %{head}")
        self.label(head)
        mark = len(self.lines)
        now = [Lane(self, f"%{self.fresh('state')}", lane.kind) for lane in state]
        self.lines.append(f"  br i1 {self.any(test(now)).name}, label %{body}, label %{after}")
        self.label(body)
        found = step(now)
        self.lines.append(f"  br label %{head}")
        self.lines[mark:mark] = [
            f"  {phi.name} = phi {self.type(phi.kind)} [ {first.name}, %{before} ], [ {again.name}, %{self.block} ]"
            for phi, first, again in zip(now, state, found, strict=True)]
        self._known = known
        self.label(after)
        return now

    def rarely(self, doubt: Lane, usual: Lane, rare: Callable[[], Lane]) -> Lane:
        """`usual`, but where `doubt`, an i64, is negative what `rare` computes, in a block of its own that is seldom
        entered, or later."""
        if self.deferred:
            self.doubt = doubt if self.doubt is None else self.doubt | doubt
            return usual
        condition = doubt < 0
        before, slow, after = self.block, self.fresh("rare"), self.fresh("usual")
        self.lines.append(f"  br i1 {self.any(condition).name}, label %{slow}, label %{after}, !prof !0")
        known = dict(self._known)
        self.label(slow)
        found = self.select(condition, rare(), usual)
        self.lines.append(f"  br label %{after}")
        self._known = known
        end = self.block
        self.label(after)
        t = self.type(usual.kind)
        return self.line(usual.kind, f"phi {t} [ {usual.name}, %{before} ], [ {found.name}, %{end} ]")

    def choice(self, condition: Lane, then: Callable[[], Lane], other: Callable[[], Lane]) -> Lane:
        """What `then` computes where the condition holds, else what `other` does: one of them by a branch, or for
        several lanes both. Both give the same bits alone as among others."""
        if self.lanes > 1:
            return self.select(condition, then(), other())
        first, second, after = self.fresh("then"), self.fresh("other"), self.fresh("either")
        self.lines.append(f"  br i1 {condition.name}, label %{first}, label %{second}")
        known, ends = dict(self._known), []
        for name, compute in ((first, then), (second, other)):
            self._known = dict(known)
            self.label(name)
            found = compute()
            ends.append((found, self.block))
            self.lines.append(f"  br label %{after}")
        self._known = known
        self.label(after)
        incoming = ", ".join(f"[ {value.name}, %{block} ]" for value, block in ends)
        return self.line(ends[0][0].kind, f"phi {self.type(ends[0][0].kind)} {incoming}")

    def settle(self, elsewhere: str) -> None:
        """Where an argument was in doubt, to another block."""
        if self.doubt is None:
            return
        doubt, self.doubt = self.doubt, None
        kept, lanes = self.lanes, self.lanes
        while self.lanes > 8:
            lanes //= 2
            halves = [Lane(self, self.lane_range(doubt, start, lanes), "i64") for start in (0, lanes)]
            self.lanes = lanes
            doubt = halves[0] | halves[1]
        sure = self.fresh("sure")
        self.lines.append(f"  br i1 {self.any(doubt < 0).name}, label %{elsewhere}, label %{sure}, !prof !0")
        self.lanes = kept
        self.label(sure)


def math_name(name: str, kind: str, lanes: int) -> str:
    """The symbol of one of our functions at a number of lanes; those of f32 end in f, as C's do."""
    return f"slpc.{name}{'f' * (kind == 'float')}.{lanes}"

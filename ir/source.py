"""Source text as logical lines and blocks, handed to Python's own parser piece by piece.

A program may be a million lines long. Parsing it as one module would take gigabytes, so the text is first cut into
logical lines (a scan for brackets, quotes and continuations) and nested by indentation; then runs of simple
statements go to `ast.parse` a few hundred at a time, and compound statements header by header.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from .diagnostics import Diagnostic, SlpError, Span

_CHUNK = 256
_DEEPEST = 40
_COMPOUND = re.compile(r"(for|if|elif|else|def|while|class|with|try|except|finally|async)\b|@")
_PLAIN = re.compile(r"[^\"'#\\()\[\]{}]*")
_TOKEN = re.compile(r"""\"\"\"|'''|["'#()\[\]{}]|\\$""")


@dataclass
class Chunk:
    """A run of simple statements, parsed when it is reached. A node's line in messages is its lineno plus `base`."""

    start: int
    stop: int
    base: int = 0
    parsed: list[ast.stmt] | None = None


@dataclass
class Compound:
    """A `for`, `if` or `def`: its header as a statement of `ast` with an empty body, and the block below it."""

    line: int
    stop: int
    keyword: str
    base: int = 0
    body: list[Chunk | Compound] = field(default_factory=list)
    header: ast.stmt | None = None
    decorators: list[tuple[ast.expr, int]] = field(default_factory=list)


Item = Chunk | Compound


class Source:
    """One text with its name. Lines are counted from 1 in messages, from 0 inside; `first_line` shifts messages.

    `indent` is the indentation of the outermost statements: that of a def which was cut out of another def.
    """

    def __init__(self, text: str, file: str = "", first_line: int = 1, indent: str = "") -> None:
        self.file = file
        self.first_line = first_line
        self.indent = indent
        if text.startswith("\ufeff"):
            text = text[1:]
        self.lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", " ").split("\n")
        for number, line in enumerate(self.lines):
            if "\0" in line:
                at = line.index("\0")
                raise self.error("E0104", "the text has a null byte", Span(number + first_line, at, at + 1))

    # Diagnostics -----------------------------------------------------------------------------------------------

    def line_text(self, line: int) -> str:
        """The text of a line by its number in messages."""
        index = line - self.first_line
        return self.lines[index] if 0 <= index < len(self.lines) else ""

    def characters(self, span: Span) -> Span:
        """A span in UTF-8 bytes, as `ast` counts, in characters, as people do."""
        text = self.line_text(span.line)
        if text.isascii():
            return Span(span.line, span.column, min(span.end, max(len(text), span.column + 1)))
        raw = text.encode("utf-8", "surrogatepass")
        column = len(raw[:span.column].decode("utf-8", "replace"))
        return Span(span.line, column, max(column + 1, len(raw[:span.end].decode("utf-8", "replace"))))

    def diagnostic(self, code: str, message: str, span: Span | None, hint: str = "",
                   notes: tuple[tuple[str, Span], ...] = ()) -> Diagnostic:
        """A diagnostic whose spans are in characters already."""
        text = self.line_text(span.line) if span else ""
        return Diagnostic(code, message, hint, self.file, span, text,
                          tuple((m, s, self.line_text(s.line)) for m, s in notes))

    def error(self, code: str, message: str, span: Span | None = None, hint: str = "") -> SlpError:
        """The same as an exception."""
        return SlpError(self.diagnostic(code, message, span, hint))

    # Lines and blocks ------------------------------------------------------------------------------------------

    def _logical(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of each logical line that is not blank or a comment, as indices into `lines`."""
        lines, at = self.lines, 0
        while at < len(lines):
            line = lines[at]
            stripped = line.lstrip()
            if not stripped or stripped[0] == "#":
                at += 1
                continue
            start = at
            at += 1
            if _PLAIN.fullmatch(line):
                yield start, at
                continue
            depth, quote, continued = self._scan(line, 0, "")
            while (depth > 0 or quote or continued) and at < len(lines):
                depth, quote, continued = self._scan(lines[at], depth, quote)
                at += 1
            yield start, at

    @staticmethod
    def _scan(line: str, depth: int, quote: str) -> tuple[int, str, bool]:
        """Bracket depth, open quote and continuation after one more physical line."""
        at = 0
        while True:
            if quote:
                while True:
                    end = line.find(quote, at)
                    if end < 0:
                        return depth, quote if len(quote) == 3 else "", False
                    slashes = len(line[at:end]) - len(line[at:end].rstrip("\\"))
                    at = end + (len(quote) if slashes % 2 == 0 else 1)
                    if slashes % 2 == 0:
                        break
                quote = ""
            found = _TOKEN.search(line, at)
            if found is None:
                return depth, "", False
            token = found.group()
            at = found.end()
            if token == "#":
                return depth, "", False
            if token == "\\":
                return depth, "", True
            if token[0] in "\"'":
                quote = token
            else:
                depth += 1 if token in "([{" else -1

    def blocks(self) -> tuple[list[Item], list[Diagnostic]]:
        """The whole text as a tree of chunks and compound statements, and what is wrong with its shape."""
        faults: list[Diagnostic] = []
        root: list[Item] = []
        stack: list[tuple[str, list[Item]]] = [(self.indent, root)]
        opened: Compound | None = None
        decorators: list[tuple[ast.expr, int]] = []
        for start, stop in self._logical():
            line = self.lines[start]
            body = line.lstrip(" \t")
            indent = line[:len(line) - len(body)]
            here = Span(start + self.first_line, len(indent), len(line))
            if opened is not None and len(indent) > len(stack[-1][0]) and indent.startswith(stack[-1][0]):
                if len(stack) > _DEEPEST:
                    raise self.error("E0102", "blocks are nested too deep", here)
                stack.append((indent, opened.body))
            else:
                while len(stack) > 1 and len(indent) < len(stack[-1][0]):
                    stack.pop()
                if indent != stack[-1][0]:
                    faults.append(self.diagnostic("E0101", "unexpected indent", here))
                    continue
            opened = None
            items = stack[-1][1]
            keyword = _COMPOUND.match(body)
            if decorators and (keyword is None or keyword.group() not in ("def", "@")):
                faults.append(self.diagnostic("E0101", "a decorator stands above a def", here))
                decorators = []
            if keyword is None:
                if items and isinstance(items[-1], Chunk) and start - items[-1].start < _CHUNK:
                    items[-1].stop = stop
                else:
                    items.append(Chunk(start, stop))
                continue
            try:
                if keyword.group() == "@":
                    decorators.append((self._decorator(start, stop), start))
                    continue
                made = Compound(start, stop, keyword.group(), decorators=decorators)
                made.header = self._header(made)
            except SlpError as error:
                faults.extend(error.diagnostics)
                made = Compound(start, stop, "error")
            decorators = []
            items.append(made)
            opened = made
        return root, faults

    # Parsing ---------------------------------------------------------------------------------------------------

    def parse_chunk(self, chunk: Chunk) -> tuple[list[ast.stmt], list[Diagnostic]]:
        """Its statements. Where the run does not parse, the statements that do, and a diagnostic for each other."""
        try:
            statements, chunk.base = self._ast(chunk.start, chunk.stop)
            return statements, []
        except SlpError:
            statements = []
        faults: list[Diagnostic] = []
        part = Source("\n".join(self.lines[chunk.start:chunk.stop]))
        for start, stop in part._logical():
            try:
                found, base = self._ast(chunk.start + start, chunk.start + stop)
                chunk.base = base - start
                statements += [ast.increment_lineno(statement, start) for statement in found]
            except SlpError as error:
                faults.extend(error.diagnostics)
        return statements, faults

    def _ast(self, start: int, stop: int, text: str = "") -> tuple[list[ast.stmt], int]:
        """Statements of some lines (or of `text` in their stead), and what to add to their line numbers."""
        text = text or "\n".join(self.lines[start:stop])
        shift = 0
        if text[:1] in " \t":
            text, shift = "if 1:\n" + text, 1
        try:
            with warnings.catch_warnings():  # Python's advice, about escapes and such, has no place
                warnings.simplefilter("ignore")
                tree = ast.parse(text, self.file or "<slp>")
        except SyntaxError as error:
            line = (error.lineno or 1) - shift
            column = max((error.offset or 1) - 1, 0)
            end = (error.end_offset or 0) - 1
            span = Span(start + max(line, 1) - 1 + self.first_line, column, max(end, column + 1))
            message = error.msg or "invalid syntax"
            if "too many nested" in message or "too complex" in message:
                raise self._too_deep(start) from None
            raise self.error("E0101", message, span) from None
        except (RecursionError, MemoryError):
            raise self._too_deep(start) from None
        except (ValueError, OverflowError) as failure:
            raise self.error("E0101", str(failure), Span(start + self.first_line, 0, 1)) from None
        body = tree.body
        if shift:
            head = body[0]
            assert isinstance(head, ast.If)
            if len(body) > 1 or head.orelse:
                raise self.error("E0101", "unexpected dedent", Span(start + self.first_line, 0, 1))
            body = head.body
        return body, start + self.first_line - 1 - shift

    def _too_deep(self, start: int) -> SlpError:
        text = self.lines[start]
        return self.error("E0102", "this expression is nested too deep for Python's parser",
                          Span(start + self.first_line, len(text) - len(text.lstrip()), len(text)),
                          "name a subexpression on a line of its own")

    def _decorator(self, start: int, stop: int) -> ast.expr:
        text = "\n".join(self.lines[start:stop]).replace("@", " ", 1).strip()
        statement, _ = self._ast(start, stop, text)
        if len(statement) == 1 and isinstance(statement[0], ast.Expr):
            return statement[0].value
        raise self.error("E0101", "a decorator is a name or a call", Span(start + self.first_line, 0, len(text)))

    def _header(self, made: Compound) -> ast.stmt | None:
        """The header alone, given a body of `pass`; None for `else`. A one-line body stays in it."""
        text = "\n".join(self.lines[made.line:made.stop])
        body = text.lstrip(" \t")
        prefix = text[:len(text) - len(body)]
        if made.keyword in ("elif", "else"):
            # The same columns, as a statement that stands alone.
            body = ("  if" + body[4:]) if made.keyword == "elif" else ("if 1" + body[4:])
            prefix += "  " if made.keyword == "elif" else ""
            body = body.lstrip()
        elif made.keyword in ("except", "finally", "try"):
            span = Span(made.line + self.first_line, len(prefix), len(prefix) + len(made.keyword))
            raise self.error("E0105", f"'{made.keyword}' is not part of the language", span)
        code = _without_comment(prefix + body)
        try:
            statements, made.base = self._ast(made.line, made.stop, code + (" pass" if code.endswith(":") else ""))
            header = statements[0]
        except IndexError:
            raise self.error("E0101", "invalid syntax", Span(made.line + self.first_line, 0, len(text))) from None
        if isinstance(header, ast.FunctionDef):
            spec, seen = header.args, set()
            for parameter in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs):
                if parameter.arg in seen:  # Python's parser lets it pass; its compiler does not
                    span = Span(parameter.lineno + made.base, parameter.col_offset, parameter.end_col_offset or 0)
                    raise self.error("E0101", f"the parameter '{parameter.arg}' is given twice", self.characters(span))
                seen.add(parameter.arg)
        return header


def _without_comment(text: str) -> str:
    """The text without a trailing comment, so that a header can be seen to end in a colon."""
    last = text.rsplit("\n", 1)[-1]
    if "#" in last:
        quote = ""
        for at, character in enumerate(last):
            if quote:
                quote = "" if character == quote else quote
            elif character in "\"'":
                quote = character
            elif character == "#":
                return text[:len(text) - len(last) + at].rstrip()
    return text.rstrip()

"""The LALR parser: one top-level form, or one example, into a syntax node."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from lark import Lark, TextSlice
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from egc.rules import syntax as s
from egc.rules.builder import Pending, SyntaxProblem, TreeBuilder
from egc.rules.commands import USAGE, unknown_command
from egc.rules.diagnostics import Diagnostic, RuleFileError

__all__ = ["SyntaxProblem", "parse_form", "read_example"]

GRAMMAR = Path(__file__).with_name("egglog.lark")


def parse_form(span: s.Span) -> s.Command:
    """The command that stands at `span`. Raises SyntaxProblem."""
    try:
        pending: Pending = _parser().read(span)
        command: s.Command = pending(span)
    except UnexpectedInput as error:
        raise SyntaxProblem(_syntax_error(span, error)) from error
    return command


def read_example(span: s.Span, text: str) -> tuple[tuple[s.Action, ...], tuple[s.Fact, ...]]:
    """The two sides of an example `ACTION… => FACT…` that stands in comments.

    `text` is the source with everything but the example blanked out, so that places stay what they are.
    Raises RuleFileError.
    """
    arrow = _arrow(text, span)
    if arrow is None:
        raise RuleFileError([Diagnostic("an example reads `TERM… => TERM…`", span)])
    sides = (s.Span(span.source, span.start, arrow), s.Span(span.source, arrow + 2, span.end))
    try:
        given = _parser().read(sides[0], "given", text)
        return given, _parser().read(sides[1], "expected", text)
    except UnexpectedInput as error:
        start = min(error.pos_in_stream or span.start, span.end - 1)
        at = s.Span(span.source, start, start + 1)
        raise RuleFileError([Diagnostic("this example cannot be read from here on", at)]) from error
    except SyntaxProblem as problem:
        raise RuleFileError([problem.diagnostic]) from problem


def _arrow(text: str, span: s.Span) -> int | None:
    """The offset of the `=>` outside all brackets."""
    depth = 0
    for match in re.compile(r'"(?:\\.|[^"\\])*"|[()]|(?<=\s)=>(?=\s)').finditer(text, span.start, span.end):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if match[0] == "=>" and depth == 0:
            return match.start()
    return None


class _Parser:
    """The LALR parser with its tree builder; building the tables takes tens of milliseconds, so there is
    one.
    """

    def __init__(self) -> None:
        self._builder = TreeBuilder()
        self._lock = Lock()
        self._lark = Lark(
            GRAMMAR.read_text(encoding="utf-8"),
            parser="lalr",
            lexer="contextual",
            start=["form", "given", "expected"],
            transformer=self._builder,
            maybe_placeholders=False,
        )

    def read(self, span: s.Span, start: str = "form", text: str | None = None) -> Any:
        """What `start` derives at `span`, from the source's text or from `text`, which has the same offsets.

        Raises lark's UnexpectedInput, or SyntaxProblem.
        """
        with self._lock:
            self._builder.source = span.source
            piece: Any = TextSlice(text or span.source.text, span.start, span.end)
            return self._lark.parse(piece, start=start)


@lru_cache(maxsize=1)
def _parser() -> _Parser:
    return _Parser()


def _head(form: s.Span) -> tuple[str | None, s.Span]:
    """The word that a form starts with, None where there is none, and its place."""
    head = re.match(r"\(\s*([^\s();\"]+)", form.text)
    if head is None:
        return None, s.Span(form.source, form.start, form.start + 1)
    return head[1], s.Span(form.source, form.start + head.start(1), form.start + head.end(1))


def _syntax_error(form: s.Span, error: UnexpectedInput) -> Diagnostic:
    """What the parser met and what the form should look like."""
    name, at = _head(form)
    if name and name not in USAGE:
        return unknown_command(name, at)
    start = error.pos_in_stream or form.start
    end, met = start + 1, "this"
    if isinstance(error, UnexpectedToken):
        if error.token.type == "$END":
            start, end, met = form.end - 1, form.end, "the end of the form"
        else:
            end, met = start + len(error.token), f"`{_short(str(error.token))}`"
    elif isinstance(error, UnexpectedCharacters):
        end = start + len(re.match(r"[^\s()]*", form.source.text[start : form.end])[0] or " ")  # type: ignore[index]
        met = f"`{_short(form.source.text[start:end])}`"
    return Diagnostic(
        f"{met} is not expected here",
        s.Span(form.source, start, end),
        f"usage: {USAGE[name]}" if name else "a form starts with a command's name",
    )


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:21] + "…"

"""Text → syntax tree. A file is first cut into its top-level forms, so that one mistake does not hide the
next: every form that cannot be read is reported, and reading goes on behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Any

from lark import Lark, TextSlice
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from egc.errors import BadInput
from egc.rules import syntax as s
from egc.rules.builder import Pending, SyntaxProblem, TreeBuilder
from egc.rules.diagnostics import Diagnostic, RuleFileError, nearest

GRAMMAR = Path(__file__).with_name("egglog.lark")

USAGE = {
    "sort": "(sort NAME) or (sort NAME (Vec SORT))",
    "datatype": "(datatype NAME (CONSTRUCTOR SORT…)…)",
    "datatype*": "(datatype* (NAME (CONSTRUCTOR SORT…)…) (sort NAME (Vec SORT))…)",
    "constructor": "(constructor NAME (SORT…) SORT [:cost N] [:unextractable])",
    "function": "(function NAME (SORT…) SORT :no-merge) or (function NAME (SORT…) SORT :merge EXPR)",
    "relation": "(relation NAME (SORT…))",
    "ruleset": "(ruleset NAME)",
    "unstable-combined-ruleset": "(unstable-combined-ruleset NAME RULESET…)",
    "rewrite": '(rewrite LEFT RIGHT [:when (FACT…)] [:subsume] :ruleset NAME :name "NAME")',
    "birewrite": '(birewrite LEFT RIGHT [:when (FACT…)] :ruleset NAME :name "NAME")',
    "rule": '(rule (FACT…) (ACTION…) :ruleset NAME :name "NAME")',
    "let": "(let $NAME EXPR)",
    "set": "(set (FUNCTION EXPR…) EXPR)",
    "union": "(union EXPR EXPR)",
    "delete": "(delete (FUNCTION EXPR…))",
    "subsume": "(subsume (CONSTRUCTOR EXPR…))",
    "panic": '(panic "MESSAGE")',
}

# Commands of egglog that drive an e-graph. A rule file says what is equal; when the rules run is egc's
# business.
DRIVING = frozenset(
    {"run", "run-schedule", "check", "extract", "prove", "push", "pop", "fail", "include", "input", "output"}
    | {"print-function", "print-size", "print-stats", "query-extract", "simplify", "calc"}
)

_LEXEME = re.compile(r';[^\n]*|"(?:\\.|[^"\\])*"|[()"]', re.DOTALL)


@dataclass(frozen=True)
class _Chunk:
    """A top-level form's place, and whether its brackets close."""

    start: int
    end: int
    closed: bool


def read(source: s.Source) -> tuple[s.RuleFile, list[Diagnostic]]:
    """The forms of a text that can be read, and what is wrong with the others."""
    if not source.text.endswith("\n"):
        source = s.Source(source.name, source.text + "\n")
    errors: list[Diagnostic] = []
    forms: list[s.Form] = []
    prose: list[tuple[int, tuple[s.Comment, ...]]] = []
    at = 0
    for chunk in _chunks(source, errors):
        loose, attached = _comments(s.Span(source, at, chunk.start))
        prose.extend((len(forms), block) for block in loose)
        at = chunk.end
        span = s.Span(source, chunk.start, chunk.end)
        command = _read_form(span, chunk.closed, errors)
        if command is not None:
            forms.append(s.Form(command, attached, span))
    loose, attached = _comments(s.Span(source, at, len(source.text)))
    prose.extend((len(forms), block) for block in (*loose, attached) if block)
    return s.RuleFile(source, tuple(forms), tuple(prose)), errors


def read_file(path: Path, shown: str | None = None) -> tuple[s.RuleFile, list[Diagnostic]]:
    """Read a file, called `shown` in messages. Raises BadInput where there is no such text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not UTF-8 text: {error}"
        raise BadInput("cannot read a rule file", where=str(path), why=why) from error
    return read(s.Source(shown or str(path), text))


def parse(text: str, name: str = "<text>") -> s.RuleFile:
    """The forms of a text. Raises RuleFileError holding everything that cannot be read."""
    file, errors = read(s.Source(name, text))
    if errors:
        raise RuleFileError(errors)
    return file


def _chunks(source: s.Source, errors: list[Diagnostic]) -> Iterator[_Chunk]:
    """Cut a text into top-level forms. A form left open ends before the next bracket in the first column."""
    depth = start = 0
    text = source.text
    for match in _LEXEME.finditer(text):
        token, at = match[0], match.start()
        if token == "(":
            if depth and (at == 0 or text[at - 1] == "\n"):
                yield _Chunk(start, _before_comments(text, at), closed=False)
                depth = 0
            if depth == 0:
                start = at
            depth += 1
        elif token == ")":
            depth -= 1
            if depth == 0:
                yield _Chunk(start, match.end(), closed=True)
            elif depth < 0:
                depth = 0
                errors.append(Diagnostic("this bracket closes nothing", s.Span(source, at, at + 1)))
        elif token == '"':
            errors.append(Diagnostic("this string is never closed", s.Span(source, at, at + 1)))
    if depth:
        yield _Chunk(start, len(text.rstrip()), closed=False)


def _before_comments(text: str, at: int) -> int:
    """The end of the last line before `at` that is neither blank nor a comment."""
    while (line := text.rfind("\n", 0, at - 1) + 1) < at and text[line:at].lstrip()[:1] in ("", ";"):
        at = line
    return len(text[:at].rstrip())


def _comments(gap: s.Span) -> tuple[list[tuple[s.Comment, ...]], tuple[s.Comment, ...]]:
    """The comment blocks between two forms: those that stand alone, and the one directly above the second
    form.
    """
    above: list[s.Comment] = []
    at = gap.start
    for line in gap.text.split("\n")[:-1]:
        text = line.strip()
        start = at + line.find(text)
        above.append(s.Comment(text, s.Span(gap.source, start, start + len(text))))
        at += len(line) + 1
    blocks = [tuple(lines) for filled, lines in groupby(above, lambda c: c.text != "") if filled]
    attached = blocks.pop() if above and above[-1].text else ()
    return blocks, attached


def _read_form(span: s.Span, closed: bool, errors: list[Diagnostic]) -> s.Command | None:
    """One command; None, with an error noted, where it cannot be read."""
    if not closed:
        first = s.Span(span.source, span.start, span.start + 1)
        errors.append(
            Diagnostic(
                "this bracket is never closed", first, "every form starts in the first column of a line"
            )
        )
        return None
    try:
        pending: Pending = _parser().read(span)
        return pending(span)
    except UnexpectedInput as error:
        errors.append(_syntax_error(span, error))
    except SyntaxProblem as problem:
        errors.append(problem.diagnostic)
    return None


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


_TOKENS = {
    "LPAR": "(",
    "RPAR": ")",
    "NAME": "a name",
    "STRING": "a string",
    "INT": "an integer",
    "FLOAT": "a number",
    "BOOL": "true or false",
}


def _head(form: s.Span) -> tuple[str | None, s.Span]:
    """The word that a form starts with, None where there is none, and its place."""
    head = re.match(r"\(\s*([^\s();\"]+)", form.text)
    if head is None:
        return None, s.Span(form.source, form.start, form.start + 1)
    return head[1], s.Span(form.source, form.start + head.start(1), form.start + head.end(1))


def unknown_command(name: str, at: s.Span, known: Iterable[str] = ()) -> Diagnostic:
    """The error for a form that starts with no command's name; `known` holds what else may stand there."""
    if name in DRIVING:
        hint = "a file says what is equal; egc decides when the rules run"
        return Diagnostic(f"`{name}` is no part of a rule file", at, hint)
    hint = nearest(name, {*USAGE, *known}) or f"one of: {', '.join(USAGE)}"
    return Diagnostic(f"unknown command `{name}`", at, hint)


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

"""Text → syntax tree. A file is first cut into its top-level forms, so that one mistake does not hide the
next: every form that cannot be read is reported, and reading goes on behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from msgspec import Struct

from egc import files
from egc.errors import BadInput
from egc.rules import syntax as s
from egc.rules.cache import cached
from egc.rules.diagnostics import Diagnostic, RuleFileError

MAX_DEPTH = 100  # brackets within brackets: far more than any rule needs, far less than Python's stack

_LEXEME = re.compile(r';[^\n]*|"(?:\\.|[^"\\])*"|[()"]', re.DOTALL)


class _Chunk(Struct, frozen=True):
    """A top-level form's place, whether its brackets close, and how many of them are open at once."""

    start: int
    end: int
    closed: bool
    depth: int


def read(source: s.Source) -> tuple[s.RuleFile, list[Diagnostic]]:
    """The forms of a text that can be read, and what is wrong with the others."""
    if not source.text.endswith("\n"):
        source = s.Source(source.name, source.text + "\n")
    errors: list[Diagnostic] = []
    forms: list[s.Form] = []
    prose: list[tuple[int, tuple[s.Comment, ...]]] = []
    at = 0
    for chunk in _chunks(source, errors):
        gap = s.Span(source, at, chunk.start)
        errors.extend(_stray_text(gap))
        loose, attached = _comments(gap)
        prose.extend((len(forms), block) for block in loose)
        at = chunk.end
        span = s.Span(source, chunk.start, chunk.end)
        command = _read_form(span, chunk, errors)
        if command is not None:
            forms.append(s.Form(command, attached, span))
    gap = s.Span(source, at, len(source.text))
    errors.extend(_stray_text(gap))
    loose, attached = _comments(gap)
    prose.extend((len(forms), block) for block in (*loose, attached) if block)
    return s.RuleFile(source, tuple(forms), tuple(prose)), errors


def read_file(
    path: Path, shown: str | None = None, remember: bool = False
) -> tuple[s.RuleFile, list[Diagnostic]]:
    """Read a file, called `shown` in messages; with `remember`, its tree is kept for the next run.

    Raises BadInput where there is no such text, or none that says anything.
    """
    try:
        text = files.text(path, "utf-8-sig")  # some editors mark UTF-8 in front
    except OSError as error:
        raise BadInput(
            "cannot read a rule file", where=str(path), why=error.strerror, hint="check the path"
        ) from error
    except UnicodeDecodeError as error:
        why = f"it is not text: byte {error.start + 1} is not UTF-8"
        raise BadInput("cannot read a rule file", where=str(path), why=why) from error
    source = s.Source(shown or str(path), text)
    file, errors = cached(source, read) if remember else read(source)
    if not file.forms and not errors:
        raise BadInput(
            "a rule file says nothing",
            where=str(path),
            why="it holds no rule and no declaration" if text.strip() else "it is empty",
            hint="`egc rules new NAME` writes one to start from",
        )
    return file, errors


def parse(text: str, name: str = "<text>") -> s.RuleFile:
    """The forms of a text. Raises RuleFileError holding everything that cannot be read."""
    file, errors = read(s.Source(name, text))
    if errors:
        raise RuleFileError(errors)
    return file


def _chunks(source: s.Source, errors: list[Diagnostic]) -> Iterator[_Chunk]:
    """Cut a text into top-level forms. A form left open ends before the next bracket in the first column."""
    depth = start = deepest = 0
    text = source.text
    for match in _LEXEME.finditer(text):
        token, at = match[0], match.start()
        if token == "(":
            if depth and (at == 0 or text[at - 1] == "\n"):
                yield _Chunk(start, _before_comments(text, at), False, deepest)
                depth = 0
            if depth == 0:
                start, deepest = at, 0
            depth += 1
            deepest = max(deepest, depth)
        elif token == ")":
            depth -= 1
            if depth == 0:
                yield _Chunk(start, match.end(), True, deepest)
            elif depth < 0:
                depth = 0
                errors.append(Diagnostic("this bracket closes nothing", s.Span(source, at, at + 1)))
        elif token == '"':
            errors.append(Diagnostic("this string is never closed", s.Span(source, at, at + 1)))
    if depth:
        yield _Chunk(start, len(text.rstrip()), False, deepest)


def _before_comments(text: str, at: int) -> int:
    """The end of the last line before `at` that is neither blank nor a comment."""
    while (line := text.rfind("\n", 0, at - 1) + 1) < at and text[line:at].lstrip()[:1] in ("", ";"):
        at = line
    return len(text[:at].rstrip())


def _comments(gap: s.Span) -> tuple[list[tuple[s.Comment, ...]], tuple[s.Comment, ...]]:
    """The comment blocks between two forms: those that stand alone, and the one directly above the second
    form.
    """
    lines: list[s.Comment] = []
    at = gap.start
    for line in gap.text.split("\n")[:-1]:
        text = line.strip()
        start = at + line.find(text)
        lines.append(s.Comment(text, s.Span(gap.source, start, start + len(text))))
        at += len(line) + 1
    # What stands behind a form belongs to that form's line and not to the next form.
    behind = [(lines.pop(0),)] if gap.start and lines and lines[0].text else []
    blocks = [tuple(block) for filled, block in groupby(lines, lambda c: c.text != "") if filled]
    attached = blocks.pop() if lines and lines[-1].text else ()
    return behind + blocks, attached


def _stray_text(gap: s.Span) -> Iterator[Diagnostic]:
    """The first thing between two forms that is no comment; `_chunks` reports brackets and quotes."""
    words = re.compile(r';[^\n]*|[)"]|[^\s;)"]+')
    for match in words.finditer(gap.source.text, gap.start, gap.end):
        if match[0][0] not in ';)"':
            at = s.Span(gap.source, match.start(), match.end())
            yield Diagnostic("this stands in no form", at, "a form starts with `(`, a comment with `;`")
            return


def _read_form(span: s.Span, chunk: _Chunk, errors: list[Diagnostic]) -> s.Command | None:
    """One command; None, with an error noted, where it cannot be read."""
    first = s.Span(span.source, span.start, span.start + 1)
    if not chunk.closed:
        hint = "every form, and nothing else, starts in the first column of a line"
        errors.append(Diagnostic("this bracket is never closed", first, hint))
        return None
    if chunk.depth > MAX_DEPTH:
        errors.append(Diagnostic(f"this form nests {chunk.depth} brackets", first, f"{MAX_DEPTH} are read"))
        return None
    # The parser is imported where it is needed: files that were read before come from the cache without it.
    from egc.rules.parser import SyntaxProblem, parse_form

    try:
        return parse_form(span)
    except SyntaxProblem as problem:
        errors.append(problem.diagnostic)
        return None

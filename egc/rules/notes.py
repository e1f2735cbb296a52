"""The structured comment above a rule: what egglog has no word for.

    ;; class: exact
    ;; math: silu(x) = x·σ(x)
    ;; example: (Map2 (Mul) x (Map1 (Sigmoid) x)) => (Map1 (Silu) x)

A line indented by three spaces or more behind its semicolons continues the line above. Lines without a key
are prose; they are the rule's description where it has no `doc:`. A rule that says nothing of what it does
and follows another without a blank line shares that rule's description.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic, nearest


class RuleClass(Enum):
    """What a rule does to the numbers."""

    EXACT = "exact"
    REASSOCIATING = "reassociating"
    APPROXIMATE = "approximate"


# Which classes may fire at each --accuracy: each admits more than the one before.
ACCURACIES: dict[str, frozenset[RuleClass]] = {
    "exact": frozenset({RuleClass.EXACT}),
    "default": frozenset({RuleClass.EXACT, RuleClass.REASSOCIATING}),
    "fast": frozenset(RuleClass),
}

KEYS = ("class", "math", "doc", "source", "example", "error")

_KEYED = re.compile(r";;? ?([A-Za-z][A-Za-z-]*):(?:\s+|$)(.*)")
_CONTINUED = re.compile(r";;? {3,}(.*)")


class Note(Struct, frozen=True):
    """A key's text, its lines joined by spaces, and the pieces of the source that hold it."""

    text: str
    spans: tuple[s.Span, ...]

    @property
    def span(self) -> s.Span:
        """From the first piece to the end of the last one."""
        return s.Span(self.spans[0].source, self.spans[0].start, self.spans[-1].end)


class Notes(Struct, frozen=True):
    """What the comment above a rule says; None and () where it is silent."""

    rule_class: RuleClass | None = None
    math: str | None = None
    doc: str | None = None
    source: str | None = None
    examples: tuple[Note, ...] = ()
    error: float | None = None  # greatest error of an approximate rule, relative to the numbers on the way


def read_notes(comments: Sequence[s.Comment], errors: list[Diagnostic]) -> Notes:
    """Read the comment above a rule; a wrong class, an empty or repeated key and a misspelt one go to
    `errors`.
    """
    found, prose = _entries(comments)
    values: dict[str, str] = {}
    examples: list[Note] = []
    rule_class: RuleClass | None = None
    bound: float | None = None
    for key, note in found:
        if not note.text:
            errors.append(Diagnostic(f"`{key}:` says nothing", note.span))
        elif key == "example":
            examples.append(note)
        elif key not in KEYS:
            hint = nearest(key, KEYS)
            if hint:
                errors.append(Diagnostic(f"unknown key `{key}:`", note.span, hint, warning=True))
        elif key in values:
            errors.append(Diagnostic(f"`{key}:` is given twice", note.span))
        else:
            values[key] = note.text
            if key == "class":
                rule_class = _class(note, errors)
            elif key == "error":
                bound = _bound(note, errors)
    return Notes(
        rule_class,
        values.get("math"),
        values.get("doc") or " ".join(prose) or None,
        values.get("source"),
        tuple(examples),
        bound,
    )


def _entries(comments: Sequence[s.Comment]) -> tuple[list[tuple[str, Note]], list[str]]:
    """The keyed texts in order, and the lines without a key."""
    entries: list[tuple[str, list[str], list[s.Span]]] = []
    prose: list[str] = []
    for comment in comments:
        keyed, continued = _KEYED.match(comment.text), _CONTINUED.match(comment.text)
        span = comment.span
        if keyed:
            piece = s.Span(span.source, span.start + keyed.start(2 if keyed[2] else 1), span.end)
            entries.append((keyed[1].lower(), [keyed[2]], [piece]))
        elif continued and entries:
            entries[-1][1].append(continued[1])
            entries[-1][2].append(s.Span(span.source, span.start + continued.start(1), span.end))
        else:
            prose.append(comment.text.lstrip("; "))
    return [
        (key, Note(" ".join(t for t in texts if t), tuple(spans))) for key, texts, spans in entries
    ], prose


def _bound(note: Note, errors: list[Diagnostic]) -> float | None:
    try:
        value = float(note.text)
    except ValueError:
        value = -1.0
    if 0.0 < value < 1.0:
        return value
    errors.append(Diagnostic("`error:` gives no bound", note.span, "write a number such as 1e-4"))
    return None


def _class(note: Note, errors: list[Diagnostic]) -> RuleClass | None:
    names = [c.value for c in RuleClass]
    if note.text in names:
        return RuleClass(note.text)
    errors.append(
        Diagnostic(
            f"unknown class `{note.text}`",
            note.span,
            nearest(note.text, names) or f"one of: {', '.join(names)}",
        )
    )
    return None

"""What is wrong with a rule file: the place, the line with carets under it, and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from msgspec import Struct

from egc.errors import BadInput, Problem
from egc.rules.syntax import Span


class Diagnostic(Struct, frozen=True, eq=False):
    """One finding. A warning does not stop a file from being used."""

    message: str
    span: Span
    hint: str | None = None
    warning: bool = False
    details: tuple[str, ...] = ()  # lines that are printed below the place: a counterexample

    def __str__(self) -> str:
        """`file:line:column: error: message`, the line, carets under the span's first line, the details and
        the hint."""
        line, column = self.span.line, self.span.column
        text = self.span.source.line(line)
        width = max(1, min(self.span.end - self.span.start, len(text) - column + 1))
        # Tabs stay in the line above the carets, so they must stay in what carries the carets there.
        indent = "".join("\t" if c == "\t" else " " for c in text[: column - 1])
        gutter = f"{line:>5} | "
        lines = [
            f"{self.span}: {'warning' if self.warning else 'error'}: {self.message}",
            f"{gutter}{text}",
            f"{' ' * (len(gutter) - 2)}| {indent}{'^' * width}",
        ]
        lines.extend(f"  {line}" for line in self.details)
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class RuleFileError(BadInput):
    """Rule files that cannot be used; `diagnostics` holds every error found in all of them, in file order."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        count = len(self.diagnostics)
        super().__init__(
            f"{count} error{'s' if count != 1 else ''} in rule files",
            problems=tuple(Problem(d.message, str(d.span), None, d.hint) for d in self.diagnostics),
        )

    def __str__(self) -> str:
        return "\n".join([self.what, *(str(d) for d in self.diagnostics)])


def nearest(name: str, known: Iterable[str]) -> str | None:
    """`did you mean …?` for the known names that look most like `name`; None where none does."""
    lower = {k.lower(): k for k in sorted(known, reverse=True)}
    close = difflib.get_close_matches(name.lower(), lower, n=2, cutoff=0.65)
    return f"did you mean {' or '.join(f'`{lower[c]}`' for c in close)}?" if close else None


def once(errors: Iterable[Diagnostic]) -> list[Diagnostic]:
    """In order of place, each error once: what is looked at twice complains twice."""
    seen: dict[tuple[str, str, int], Diagnostic] = {}
    for error in errors:
        seen.setdefault((error.message, error.span.source.name, error.span.start), error)
    return sorted(seen.values(), key=lambda e: e.span.start)

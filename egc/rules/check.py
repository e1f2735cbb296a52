"""`egc rules check`: everything that can be said of rule files without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from egc.files import real
from egc.resources import shipped_rules
from egc.rules.book import Loaded, read_rules, shown_name
from egc.rules.diagnostics import Diagnostic
from egc.rules.examples import check_examples
from egc.rules.lint import lint
from egc.rules.rule import Rule


class Report(Struct, frozen=True):
    """What was checked and what was found, in file order."""

    rules: int
    examples: int
    findings: tuple[Diagnostic, ...]

    @property
    def errors(self) -> int:
        """How many findings stop a file from being used."""
        return sum(not d.warning for d in self.findings)


# A check of these rules, which stand among all that is loaded.
Check = Callable[[Sequence[Rule], Loaded], list[Diagnostic]]


def check(
    paths: Sequence[Path] = (), base: Sequence[Path] | None = None, further: Sequence[Check] = ()
) -> Report:
    """Check files together with those they stand on, `base` (the shipped rules where None); without `paths`,
    check `base` itself. `further` checks come from the layers above.

    Lint and examples need files that can be read, so they wait until syntax and sorts are right. Imports
    egglog where there are examples to run. Raises BadInput for a file that is not there.
    """
    base = [real(path) for path in (shipped_rules() if base is None else base)]
    extra = [path for path in paths if real(path) not in base]
    loaded = read_rules([*base, *extra])
    wanted = {shown_name(path) for path in paths or base}
    rules = [r for r in loaded.rules if r.span.source.name in wanted]
    findings = [d for d in loaded.diagnostics if d.span.source.name in wanted]
    if loaded.errors and all(d.warning for d in findings):
        findings += loaded.errors  # that other files cannot be used any more is these files' doing
    if not loaded.errors:
        findings += lint(rules, loaded.rules, loaded.environment)
        findings += check_examples(rules, loaded)
        for run in further:
            findings += run(rules, loaded)
    examples = {(n.span.source.name, n.span.start) for r in rules for n in r.notes.examples}
    findings.sort(key=lambda d: (d.span.source.name, d.span.start))
    return Report(len(rules), len(examples), tuple(findings))

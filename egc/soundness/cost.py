"""What a rule costs: its matches, and the time that finding them takes, on a small and a large graph.

A rule is measured on a saturated e-graph, where everything is that it may ever match: a copy of it, in a
ruleset of its own, is searched once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from egc.egraph.engine import FACTS, PHASES, Budget, saturated
from egc.rules.book import Loaded, RuleBook
from egc.rules.diagnostics import Diagnostic
from egc.rules.emit import Emitter
from egc.rules.lint import keyword_span
from egc.rules.rule import Rule
from egc.soundness.workload import workload

SIZES = (1, 8)  # blocks of the small and of the large graph
REPEATS = 3  # the least time counts
BUDGET = Budget(seconds=3.0, rows=100_000)
MUCH = 0.02  # seconds that a rule without a match must not cost on the large graph


class Measured(Struct, frozen=True):
    """One rule on one graph of ``rows`` rows: its matches and the seconds of one search."""

    rows: int
    matches: int
    seconds: float


def measure(rules: Sequence[Rule], loaded: Loaded) -> dict[str, tuple[Measured, ...]]:
    """The rules of the graph's e-graph among ``rules``, each on the small and the large graph.

    Raises CompileError where saturation fails: a rule is unsound.
    """
    rulesets = {FACTS, *(name for _, names in PHASES for name in names)}
    wanted = [rule for rule in rules if rule.ruleset in rulesets]
    book = RuleBook(tuple(loaded.declarations), tuple(loaded.rules), {}, loaded.environment)
    found: dict[str, list[Measured]] = {rule.name: [] for rule in wanted}
    for blocks in SIZES if wanted else ():
        egraph = saturated(workload(blocks), book, BUDGET)
        rows = sum(len(table.rows) for table in egraph.freeze().functions.values())
        for number, rule in enumerate(wanted):
            runs = [_search(egraph, rule, f"egc-cost-{number}-{i}") for i in range(REPEATS)]
            found[rule.name].append(Measured(rows, runs[0][0], min(seconds for _, seconds in runs)))
    return {name: tuple(runs) for name, runs in found.items()}


def _search(egraph: Any, rule: Rule, ruleset: str) -> tuple[int, float]:
    """The matches of a copy of a rule that is new to the e-graph, and the seconds of its first search."""
    emitter = Emitter()
    copy = replace(rule, name=ruleset, ruleset=ruleset)
    egraph.run_program(emitter.command(f"(ruleset {ruleset})"), *emitter.rule(copy, provenance=False))
    run = emitter.command(f"(run {ruleset} 1)")
    started = time.perf_counter()
    [output] = egraph.run_program(run)
    seconds = time.perf_counter() - started
    return output.report.num_matches_per_rule.get(ruleset, 0), seconds


def idle(rules: Sequence[Rule], measured: dict[str, tuple[Measured, ...]]) -> list[Diagnostic]:
    """A warning for each rule that matches nothing on the large graph and takes long to find that out."""
    found = []
    for rule in rules:
        runs = measured.get(rule.name, ())
        if runs and runs[-1].matches == 0 and runs[-1].seconds > MUCH:
            message = (
                f"`{rule.name}` matches nothing, and takes {runs[-1].seconds * 1e3:.0f} ms to find that out"
            )
            size = f"in a graph of {runs[-1].rows} rows"
            hint = f"{size}; let its premises share variables, or mark one part first"
            found.append(Diagnostic(message, keyword_span(rule), hint, warning=True))
    return found

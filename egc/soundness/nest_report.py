"""What `egc rules check` says of loop rules: counterexamples as nests before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from egc.ir.kernel import print_kernel
from egc.rules import syntax as s
from egc.rules.book import Loaded
from egc.rules.diagnostics import Diagnostic
from egc.rules.lint import keyword_span
from egc.rules.rule import Rule
from egc.schedule.cells import RULESET, Do
from egc.soundness.nest_cases import Case
from egc.soundness.nest_run import loop_text
from egc.soundness.nest_terms import Both, Loop, Term
from egc.soundness.nests import NestFailure, NestSearch, close, unions
from egc.soundness.premises import Definition, find_definitions
from egc.soundness.show import show

NESTS = ("Do", "DoPacked", "DoAhead", "For", "Then")


def check_nests(rules: Sequence[Rule], loaded: Loaded) -> list[Diagnostic]:
    """Look for a counterexample of every loop rule of ``rules``."""
    own = [rule for rule in rules if rule.ruleset == RULESET]
    if not own:
        return []
    definitions = find_definitions(loaded.environment, loaded.rules, NESTS, ("Nest",))
    search = NestSearch(loaded, own, definitions)
    found: list[Diagnostic] = []
    for name, result in search.run().items():
        rule = next(rule for rule in own if rule.name == name)
        if result.failure is not None:
            found.append(finding(rule, result.failure))
        elif not result.tried and unions(rule):
            why = _unmatched(rule, loaded, definitions)
            if search.out_of_time:
                why = "the time for trying out loop rules was up"
            message = f"`{name}` could not be checked numerically"
            found.append(Diagnostic(message, keyword_span(rule), why, warning=True))
    return found


def _unmatched(rule: Rule, loaded: Loaded, definitions: Mapping[str, Definition]) -> str:
    """Why there was nothing to compare: something has no meaning, or the premises hold nowhere."""
    for union in unions(rule):
        for part in (*s.walk(union.left), *s.walk(union.right)):
            if isinstance(part, s.Call) and part.head not in (*NESTS, *definitions):
                operator = loaded.environment.operators.get(part.head)
                if operator is not None and operator.output == "Nest":
                    return f"nothing says what `{part.head}` does: (rewrite ({part.head} x…) TERM …) would"
    stated = {a.head for r in loaded.rules for a in r.actions if isinstance(a, s.Call) and r is not rule}
    stated |= {c.head for c in loaded.declarations if isinstance(c, s.Call)}
    own = rule.span.source.name
    for premise in rule.premises:
        if isinstance(premise, s.Call) and premise.head not in stated:
            operator = loaded.environment.operators.get(premise.head)
            if operator is not None and operator.span.source.name == own:
                return f"no rule or fact states `{premise.head}`"
    return "its premises hold in none of the nests that it was tried on"


def finding(rule: Rule, failure: NestFailure) -> Diagnostic:
    """A counterexample as an error at the action that made it."""
    why = failure.why
    if failure.by is not None:
        why = f"by what it states, `{failure.by.name}` makes a wrong nest: {why}"
    hint = "give it a premise that keeps this case out"
    if failure.by is not None:
        hint = f"state only what holds: {failure.by.location} relies on it"
    elif failure.rounding:
        hint = "it adds up in another order: its class is `reassociating`"
    details = tuple(counterexample(failure.by or rule, failure))
    return Diagnostic(f"`{rule.name}` is unsound: {why}", failure.culprit.span, hint, details=details)


def counterexample(rule: Rule, failure: NestFailure) -> Iterator[str]:
    """The lines of a counterexample: the kernel, the facts that the rule asks for, both nests and results."""
    case = failure.case
    yield "counterexample:"
    for line in print_kernel(case.kernel):
        yield f"  {line}"
    for dim, extent in case.dims.items():
        yield f"  {dim} = {extent}"
    facts = list(_facts(rule, case))
    if facts:
        yield f"  facts: {' '.join(facts)}"
    yield "  before:"
    yield from (f"    {line}" for line in nest_lines(failure.before, case))
    yield "  after:"
    yield from (f"    {line}" for line in nest_lines(failure.after, case))
    if failure.right is not None and not close(failure.left.outputs, failure.right.outputs, 0.0):
        for name, value in failure.left.outputs.items():
            yield f"  {name} before: {show(value)}"
            yield f"  {name} after:  {show(failure.right.outputs[name])}"


def _facts(rule: Rule, case: Case) -> Iterator[str]:
    asked = {p.head for p in rule.premises if isinstance(p, s.Call)}
    for relation, rows in case.facts.rows.items():
        if relation in asked:
            yield from (f"({' '.join([relation, *map(_literal, row)])})" for row in rows)


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def nest_lines(
    term: Term, case: Case, depth: int = 0, around: Mapping[str, int] | None = None
) -> Iterator[str]:
    """A nest's text, a line a loop."""
    around = around or {}
    indent = "  " * depth
    match term:
        case Loop(axis=axis, step=step, body=body):
            yield indent + loop_text(term, case, axis not in around)
            yield from nest_lines(body, case, depth + 1, {**around, axis: step})
        case Both(first=first, second=second):
            yield from nest_lines(first, case, depth, around)
            yield from nest_lines(second, case, depth, around)
        case Do(stage=number, pack=pack):
            known = number < len(case.kernel.stages)
            line = f"do {case.kernel.stages[number].name if known else number}"
            if pack is not None:
                line += f", {pack[0]} in panels of {pack[2]} along dim {pack[1]}"
            yield indent + line

"""What `egc rules check` says of loop rules: counterexamples as nests before and after."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from msgspec.structs import replace

from egc.ir.kernel import print_kernel
from egc.rules import syntax as s
from egc.rules.book import Loaded
from egc.rules.diagnostics import Diagnostic
from egc.rules.environment import Environment
from egc.rules.lint import keyword_span
from egc.rules.rule import Rule
from egc.schedule.cells import RULESET, Do
from egc.soundness.inlined import as_rule
from egc.soundness.nest_cases import Case
from egc.soundness.nest_run import loop_text
from egc.soundness.nest_terms import Both, Loop, Term
from egc.soundness.nests import NestFailure, NestSearch, close, unions
from egc.soundness.premises import Definition, Knowledge, find_definitions
from egc.soundness.show import show

NESTS = ("Do", "DoPacked", "DoAhead", "For", "Then")
_NAMES = re.compile(r"(s\d+\.)?[ik]\d+|\d+|[a-z]")  # of axes, stages and the buffers of the kernels


def check_nests(
    rules: Sequence[Rule], files: AbstractSet[str], knowledge: Knowledge, loaded: Loaded
) -> list[Diagnostic]:
    """Look for counterexamples of the loop rules among ``rules``, and of what stands alone in ``files``."""
    env = loaded.environment
    others = [rule for rule in knowledge.rules if rule.ruleset == RULESET and rule not in rules]
    asked = frozenset[str]().union(*(rule.needs for rule in others))
    alone = [
        command
        for command in loaded.declarations
        if isinstance(command, s.Call | s.Union)
        and command.span.source.name in files
        and _speaks_of_loops(command, asked, env)
    ]
    own = [rule for rule in rules if rule.ruleset == RULESET]
    own += [replace(as_rule(command, RULESET), name=str(command.span)) for command in alone]
    united = {rule.name: list(_kinds_united(rule, env)) for rule in own}
    found = [diagnostic for some in united.values() for diagnostic in some]
    own = [rule for rule in own if not united[rule.name]]
    if not own:
        return found
    definitions = find_definitions(env, loaded.rules, NESTS, ("Nest",))
    declared = [c for c in loaded.declarations if c not in alone]
    search = NestSearch(replace(loaded, declarations=declared), own, definitions)
    for rule, result in zip(own, search.run().values(), strict=True):
        if result.failure is not None:
            found.append(finding(rule, result.failure))
        elif not result.tried and unions(rule):
            why = _unmatched(rule, loaded, definitions)
            if search.out_of_time:
                why = "the time for trying out loop rules was up"
            message = f"`{rule.name}` could not be checked numerically"
            found.append(Diagnostic(message, keyword_span(rule), why, warning=True))
    return found


def _speaks_of_loops(command: s.Call | s.Union, asked: AbstractSet[str], env: Environment) -> bool:
    """Whether a command is a row that other loop rules ask for, or unites nests or kinds of loops."""
    if isinstance(command, s.Call):
        return command.head in asked
    return isinstance(command.left, s.Call) and env.operators[command.left.head].output in (
        "Nest",
        "LoopKind",
    )


def _kinds_united(rule: Rule, env: Environment) -> Iterator[Diagnostic]:
    """Errors for making two kinds of loops one: every rule then takes each for the other."""
    sorts = dict(rule.variables) | {name: operator.output for name, operator in env.operators.items()}
    for union in unions(rule):
        names = [
            side.name if isinstance(side, s.Var) else getattr(side, "head", "")
            for side in (union.left, union.right)
        ]
        if any(sorts.get(name) == "LoopKind" for name in names):
            hint = "rewrite the loops of that kind: (For a s n (Seq) r) to another (For …)"
            message = f"`{rule.name}` is unsound: it makes different kinds of loops the same kind"
            yield Diagnostic(message, union.span, hint)


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
    rows = [c for c in loaded.declarations if isinstance(c, s.Call) and c.head in rule.needs]
    exprs = [*rows, *(e for fact in rule.premises for e in s.fact_exprs(fact))]
    for part in (part for expr in exprs for part in s.walk(expr)):
        if isinstance(part, s.Lit) and isinstance(part.value, str) and not _NAMES.fullmatch(part.value):
            return (
                f"nothing is called {part.span.text}: axes are i0, i1, …, and k0, k1, … where they are summed"
            )
    return "its premises hold in none of the nests that it was tried on"


def finding(rule: Rule, failure: NestFailure) -> Diagnostic:
    """A counterexample as an error at the action that made it."""
    why, name = failure.why, f"`{rule.name}`"
    if isinstance(rule.form, s.RuleForm) and not rule.premises and isinstance(failure.culprit, s.Call):
        name = f"this row of `{failure.culprit.head}`"
    if failure.by is not None:
        why = f"by what it states, `{failure.by.name}` makes a wrong nest: {why}"
    hint = "give it a premise that keeps this case out"
    if failure.by is not None:
        hint = f"state only what holds: {failure.by.location} relies on it"
    elif failure.rounding:
        hint = "it adds up in another order: its class is `reassociating`"
    details = tuple(counterexample(failure.by or rule, failure))
    return Diagnostic(f"{name} is unsound: {why}", failure.culprit.span, hint, details=details)


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
    if failure.stated is not None and None not in failure.stated:
        yield f"  stated: {_fact(failure.stated)}"
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
            yield from (_fact((relation, *row)) for row in rows)


def _fact(row: Sequence[Any]) -> str:
    head, *args = row
    return f"({' '.join([head, *map(_literal, args)])})"


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

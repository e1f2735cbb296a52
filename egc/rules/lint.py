"""What a sound rule may still do wrong: cost too much, grow without end, say too little of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic
from egc.rules.environment import Environment
from egc.rules.primitives import SIGNATURES
from egc.rules.rule import Rule

MAX_ATOMS = 6


def lint(rules: Sequence[Rule], among: Sequence[Rule], environment: Environment) -> list[Diagnostic]:
    """The findings on `rules`, which stand `among` all rules that are loaded."""
    found: list[Diagnostic] = []
    previous: Rule | None = None
    for rule in rules:
        found.extend(_shape(rule))
        if previous is None or previous.form is not rule.form:  # both ways of a birewrite share the rest
            found.extend(_words(rule))
            found.extend(_deeds(rule))
            found.extend(_atoms(rule, environment))
        found.extend(_subsumed(rule, among))
        previous = rule
    return sorted(found, key=lambda d: (d.span.source.name, d.span.start))


def keyword_span(rule: Rule) -> s.Span:
    """The place of a rule's name, where findings on the whole rule point."""
    name = rule.form.options.name
    assert name is not None
    return name.span


def atoms(rule: Rule, environment: Environment) -> int:
    """How many tables the premises join. A term that stands twice is found once, and one without variables is
    one row, which joins nothing.
    """
    calls = {
        part
        for fact in rule.premises
        for expr in s.fact_exprs(fact)
        for part in s.walk(expr)
        if isinstance(part, s.Call) and part.head not in SIGNATURES
    }
    return sum(1 for call in calls if environment.operators[call.head].inputs and not _is_closed(call))


def _words(rule: Rule) -> Iterator[Diagnostic]:
    """What people need to judge the rule."""
    at = keyword_span(rule)
    if rule.notes.math is None and rule.notes.doc is None:
        yield Diagnostic(
            f"`{rule.file_name}` does not say what it does",
            at,
            "write its mathematics in a line above it: `;; math: left = right`",
            warning=True,
        )
    if not rule.notes.examples:
        yield Diagnostic(
            f"`{rule.file_name}` has no example",
            at,
            "write in a line above it: `;; example: TERM => TERM`",
            warning=True,
        )


def _deeds(rule: Rule) -> Iterator[Diagnostic]:
    """Actions that no rule should take."""
    if not rule.actions:
        yield Diagnostic(f"`{rule.file_name}` does nothing", keyword_span(rule), warning=True)
    for action in rule.actions:
        if isinstance(action, s.Delete):
            hint = "rules fire in any order; one that takes away makes the result depend on it"
            yield Diagnostic("a rule takes nothing away", action.span, hint)
        elif isinstance(action, s.Panic):
            hint = "say by a premise where the rule does not hold"
            yield Diagnostic("a model on which this rule fires could not be compiled", action.span, hint)


def _atoms(rule: Rule, environment: Environment) -> Iterator[Diagnostic]:
    count = atoms(rule, environment)
    if count > MAX_ATOMS:
        yield Diagnostic(
            f"`{rule.file_name}` joins {count} tables",
            keyword_span(rule),
            f"more than {MAX_ATOMS} match slowly; let another rule mark part of the pattern by a relation",
            warning=True,
        )


def _shape(rule: Rule) -> Iterator[Diagnostic]:
    """Rewrites that never come to rest, or do nothing."""
    left, right = rule.left, rule.right
    if left is None or right is None:
        return
    if left == right:
        yield Diagnostic(f"both sides of `{rule.name}` are the same", right.span)
        return
    if any(part == left for part in s.walk(right)):
        yield Diagnostic(
            f"the right side of `{rule.name}` contains its left side",
            right.span,
            "a term would equal a wrapper of itself, without end",
        )
    if len(rule.premises) > 1:
        return  # a condition can keep the rest within bounds
    renaming = _renaming(left, right)
    if renaming is not None:
        yield Diagnostic(
            f"`{rule.name}` only exchanges variables (commutativity)",
            right.span,
            "n terms have n! orders; add a `:when` that admits one, or match both orders where they matter",
        )
    elif _reassociates(left, right):
        yield Diagnostic(
            f"`{rule.name}` only moves brackets (associativity)",
            right.span,
            "n terms have exponentially many bracketings; add a `:when`, or match constants, not variables",
        )


def _renaming(left: s.Expr, right: s.Expr) -> dict[str, str] | None:
    """The exchange of variables that makes `left` into `right`; None where there is none."""
    names: dict[str, str] = {}
    if not _match(left, right, names, variables_only=True):
        return None
    return names if set(names) == set(names.values()) and len(set(names.values())) == len(names) else None


def _match(
    pattern: s.Expr, expr: s.Expr, found: dict[str, s.Expr] | dict[str, str], variables_only: bool = False
) -> bool:
    """Whether `expr` is an instance of `pattern`; `found` is filled with what the variables stand for."""
    if isinstance(pattern, s.Var) and not pattern.name.startswith("$"):
        if variables_only and not isinstance(expr, s.Var):
            return False
        value = expr.name if variables_only and isinstance(expr, s.Var) else expr
        return found.setdefault(pattern.name, value) == value  # type: ignore[arg-type]
    if isinstance(pattern, s.Call):
        return (
            isinstance(expr, s.Call)
            and (pattern.head, len(pattern.args)) == (expr.head, len(expr.args))
            and all(_match(p, e, found, variables_only) for p, e in zip(pattern.args, expr.args, strict=True))
        )
    return pattern == expr


def _reassociates(left: s.Expr, right: s.Expr) -> bool:
    """Whether both sides apply one operator to the same variables, bracketed differently."""
    if not isinstance(left, s.Call) or not isinstance(right, s.Call) or _kind(left) != _kind(right):
        return False
    a, b = _leaves(left, _kind(left)), _leaves(right, _kind(left))
    return len(a) > 2 and all(isinstance(leaf, s.Var) for leaf in a) and Counter(a) == Counter(b)


def _kind(call: s.Call) -> tuple[object, ...]:
    """An operator together with the arguments that hold no variable, such as `(Add)` in `(Map2 (Add) x
    y)`.
    """
    return call.head, *((i, a) for i, a in enumerate(call.args) if _is_closed(a))


def _is_closed(expr: s.Expr) -> bool:
    return not any(isinstance(part, s.Var) for part in s.walk(expr))


def _leaves(expr: s.Expr, kind: tuple[object, ...]) -> list[s.Expr]:
    if not isinstance(expr, s.Call) or _kind(expr) != kind:
        return [expr]
    return [leaf for arg in expr.args if not _is_closed(arg) for leaf in _leaves(arg, kind)]


def _subsumed(rule: Rule, among: Sequence[Rule]) -> Iterator[Diagnostic]:
    """Another rewrite that always does what this one does."""
    if rule.left is None or rule.right is None:
        return
    for other in among:
        if other.form is rule.form or other.left is None or other.right is None:
            continue
        if other.ruleset != rule.ruleset or len(other.premises) > 1:
            continue  # another phase, or a condition that this rule need not meet
        found: dict[str, s.Expr] = {}
        if not _match(other.left, rule.left, found) or s.substitute(other.right, found) != rule.right:
            continue
        if _match(rule.left, other.left, {}) and _before(rule, other, among):
            continue  # two equal rules: the later one is at fault
        yield Diagnostic(
            f"`{rule.name}` adds nothing to `{other.name}`",
            keyword_span(rule),
            f"`{other.name}` is at {other.location}",
            warning=True,
        )
        return


def _before(rule: Rule, other: Rule, among: Sequence[Rule]) -> bool:
    return any(a is rule and b is other for a, b in pairwise(r for r in among if r is rule or r is other))

"""A rule as the compiler keeps it: a rewrite lowered to premises and actions, with the sort of every
variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import count

from msgspec import Struct

from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic, once
from egc.rules.environment import Environment
from egc.rules.notes import Notes, RuleClass
from egc.rules.primitives import SIGNATURES
from egc.rules.sorts import Inference

ROOT = "egc-root"  # the e-class that a rewrite's left side matched
BACK = "/back"  # ends the name of a birewrite's rule from right to left


class Rule(Struct, frozen=True, dict=True):
    """One direction of a rewrite, or a rule.

    `premises` and `actions` are what egglog gets: a rewrite's root is bound to `egc-root`, every wildcard has
    a name, and what the actions compute by primitives is bound by `let` first. `variables` pairs each bound
    variable with its sort, premises before lets, in order of appearance. A match is known by their values.
    """

    name: str
    ruleset: str
    notes: Notes
    form: s.RewriteForm | s.RuleForm
    left: s.Expr | None
    right: s.Expr | None
    premises: tuple[s.Fact, ...]
    actions: tuple[s.Action, ...]
    variables: tuple[tuple[str, str], ...]
    span: s.Span

    @property
    def rule_class(self) -> RuleClass:
        """What the rule does to the numbers."""
        assert self.notes.rule_class is not None, "a rule without a class is never built"
        return self.notes.rule_class

    @property
    def file_name(self) -> str:
        """The name written in the file: without the mark of a birewrite's way back."""
        return self.name.removesuffix(BACK)

    @property
    def location(self) -> str:
        """`file:line` of the rule."""
        return f"{self.span.source.name}:{self.span.line}"

    @cached_property
    def needs(self) -> frozenset[str]:
        """The tables that the premises search: the rule cannot fire while one of them is empty."""
        return tables_of(e for fact in self.premises for e in s.fact_exprs(fact))

    @cached_property
    def makes(self) -> frozenset[str]:
        """The tables that the actions may add rows to."""
        return tables_of(e for action in self.actions for e in s.action_exprs(action))


def tables_of(exprs: Iterable[s.Expr]) -> frozenset[str]:
    """The tables that the expressions name: constructors, functions and relations."""
    heads = {e.head for expr in exprs for e in s.walk(expr) if isinstance(e, s.Call)}
    return frozenset(heads.difference(SIGNATURES))


def build_rules(form: s.Form, notes: Notes, environment: Environment) -> tuple[list[Rule], list[Diagnostic]]:
    """The rules of a rewrite, birewrite or rule: one, or two for a birewrite; none where something is
    wrong.
    """
    command = form.command
    assert isinstance(command, s.RewriteForm | s.RuleForm)
    errors = list(_reserved_names(command))
    at = _keyword(form.span)
    options = command.options
    if options.name is None:
        errors.append(Diagnostic("this rule has no name", at, 'add `:name "what-it-does"`'))
    elif not is_rule_name(str(options.name.value)):
        errors.append(
            Diagnostic(
                "this is no name for a rule", options.name.span, "letters, digits, `-`, `_`, `.` and `+`"
            )
        )
    if options.ruleset is None:
        known = ", ".join(environment.rulesets) or "none is declared"
        errors.append(
            Diagnostic("this rule is in no ruleset", at, f"add `:ruleset NAME`; the rulesets: {known}")
        )
    if notes.rule_class is None:
        errors.append(
            Diagnostic("this rule does not state its class", at, "write `;; class: exact` in a line above it")
        )
    rules: list[Rule] = []
    for left, right, suffix in _directions(command):
        premises, actions = _lower(command, left, right)
        inference = Inference(environment)
        if isinstance(left, s.Var | s.Lit):
            errors.append(Diagnostic("a rewrite's left side is a pattern, not a lone variable", left.span))
            continue
        inference.facts(premises)
        inference.actions(actions)
        sorts = inference.finish()
        errors.extend(inference.errors)
        if not errors and options.name and options.ruleset:
            name = f"{options.name.value}{suffix}"
            variables = tuple(sorts.items())
            ruleset = options.ruleset.text
            rules.append(
                Rule(name, ruleset, notes, command, left, right, premises, actions, variables, form.span)
            )
    return (rules if not errors else []), once(errors)


def _directions(command: s.RewriteForm | s.RuleForm) -> Iterator[tuple[s.Expr | None, s.Expr | None, str]]:
    if isinstance(command, s.RuleForm):
        yield None, None, ""
        return
    yield command.left, command.right, ""
    if command.both:
        yield command.right, command.left, BACK


def _lower(
    command: s.RewriteForm | s.RuleForm, left: s.Expr | None, right: s.Expr | None
) -> tuple[tuple[s.Fact, ...], tuple[s.Action, ...]]:
    """The premises and actions that say what a form says, wildcards named and computed values bound."""
    fresh = count(1)
    if isinstance(command, s.RuleForm):
        premises = tuple(_named_fact(f, fresh) for f in command.premises)
        return premises, _lifted(command.actions)
    assert left is not None and right is not None
    pattern = _named(left, fresh)
    root = s.Var(ROOT, left.span)
    premises = (
        s.Eq(root, pattern, left.span),
        *(_named_fact(f, fresh) for f in command.options.when),
    )
    actions: tuple[s.Action, ...] = (s.Union(root, right, right.span),)
    if command.options.subsume and isinstance(pattern, s.Call):
        actions += (s.Subsume(pattern, left.span),)
    return premises, _lifted(actions)


def _named(expr: s.Expr, fresh: count[int]) -> s.Expr:
    """The pattern with a name for every wildcard, so that a match says what each of them stood for."""
    if isinstance(expr, s.Var):
        return s.Var(f"egc-any-{next(fresh)}", expr.span) if expr.name == "_" else expr
    if isinstance(expr, s.Call) and expr.args:
        return s.Call(expr.head, tuple(_named(a, fresh) for a in expr.args), expr.span, expr.head_span)
    return expr


def _named_fact(fact: s.Fact, fresh: count[int]) -> s.Fact:
    if isinstance(fact, s.Eq):
        return s.Eq(_named(fact.left, fresh), _named(fact.right, fresh), fact.span)
    return _named(fact, fresh)


def _lifted(actions: tuple[s.Action, ...]) -> tuple[s.Action, ...]:
    """The actions with what primitives compute inside terms bound by `let` before: a match then tells these
    values, and nobody who reads it has to compute as egglog does.
    """
    fresh = count(1)
    result: list[s.Action] = []
    for action in actions:
        if isinstance(action, s.Union):
            left, right = (_lift(e, result, fresh) for e in (action.left, action.right))
            result.append(s.Union(left, right, action.span))
        elif isinstance(action, s.Call) and action.head not in SIGNATURES:
            result.append(_lift(action, result, fresh))
        else:
            result.append(action)
    return tuple(result)


def _lift(expr: s.Expr, lets: list[s.Action], fresh: count[int]) -> s.Expr:
    if not isinstance(expr, s.Call):
        return expr
    if expr.head in SIGNATURES:
        name = f"egc-value-{next(fresh)}"
        lets.append(s.Let(name, expr, expr.span, expr.span))
        return s.Var(name, expr.span)
    return s.Call(expr.head, tuple(_lift(a, lets, fresh) for a in expr.args), expr.span, expr.head_span)


def _reserved_names(command: s.RewriteForm | s.RuleForm) -> Iterator[Diagnostic]:
    if isinstance(command, s.RewriteForm):
        facts: tuple[s.Fact, ...] = (command.left, *command.options.when)
        actions: tuple[s.Action, ...] = (command.right,)
    else:
        facts, actions = command.premises, command.actions
    exprs = [e for f in facts for e in s.fact_exprs(f)] + [e for a in actions for e in s.action_exprs(a)]
    names = [(p.name, p.span) for e in exprs for p in s.walk(e) if isinstance(p, s.Var)]
    names += [(a.name, a.name_span) for a in actions if isinstance(a, s.Let)]
    for name, span in names:
        if name.startswith(("egc-", "@")):
            yield Diagnostic(f"`{name}` is reserved", span, "names in `egc-` and `@` belong to the compiler")


def is_rule_name(text: str) -> bool:
    """Whether a rule may be called so: names are typed on command lines and become names of tables."""
    return bool(text) and all(c.isalnum() or c in "-_.+" for c in text)


def _keyword(form: s.Span) -> s.Span:
    """The place of a form's first bracket and keyword."""
    return s.Span(form.source, form.start, form.start + len(form.text.split(None, 1)[0]))

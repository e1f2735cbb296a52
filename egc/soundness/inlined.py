"""What a file says outside its rules, told as rules: the values of globals, and its unions and facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from egc.rules import syntax as s
from egc.rules.book import Loaded
from egc.rules.notes import Notes, RuleClass
from egc.rules.rule import Rule
from egc.rules.substitution import in_action, in_fact


def globals_of(loaded: Loaded) -> dict[str, s.Expr]:
    """The globals and what they stand for, globals within them replaced."""
    found: dict[str, s.Expr] = {}
    for command in loaded.declarations:
        if isinstance(command, s.Let):
            found[command.name] = s.substitute(command.value, found)
    return found


def inlined(rule: Rule, env: Mapping[str, s.Expr]) -> Rule:
    """The rule with globals replaced; the same rule where there are none."""
    if not env:
        return rule
    return replace(
        rule,
        left=None if rule.left is None else s.substitute(rule.left, env),
        right=None if rule.right is None else s.substitute(rule.right, env),
        premises=tuple(in_fact(fact, env) for fact in rule.premises),
        actions=tuple(in_action(action, env) for action in rule.actions),
        variables=tuple((name, sort) for name, sort in rule.variables if name not in env),
    )


def unconditional(loaded: Loaded, checked: AbstractSet[str], env: Mapping[str, s.Expr]) -> Sequence[Rule]:
    """The unions, and the facts of functions, that stand by themselves in the files ``checked``: as rules
    without premises, called by their line.
    """
    return [
        Rule(
            name=f"line {command.span.line}",
            ruleset="",
            notes=Notes(RuleClass.EXACT),
            form=s.RuleForm((), (command,), s.Options(s.Lit("", command.span)), command.span),
            left=None,
            right=None,
            premises=(),
            actions=(in_action(command, env),),
            variables=(),
            span=command.span,
        )
        for command in loaded.declarations
        if isinstance(command, s.Union | s.Set) and command.span.source.name in checked
    ]

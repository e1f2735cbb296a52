"""What a file says outside its rules, told as rules: its unions and facts."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from egc.rules import syntax as s
from egc.rules.book import Loaded
from egc.rules.notes import Notes, RuleClass
from egc.rules.rule import Rule


def unconditional(loaded: Loaded, checked: AbstractSet[str]) -> Sequence[Rule]:
    """The unions, and the facts of functions, that stand by themselves in the files ``checked``: as rules
    without premises, called by their line.
    """
    return [
        as_rule(command, "")
        for command in loaded.declarations
        if isinstance(command, s.Union | s.Set) and command.span.source.name in checked
    ]


def as_rule(action: s.Action, ruleset: str) -> Rule:
    """An action that stands by itself as a rule without premises, called by its line."""
    return Rule(
        name=f"line {action.span.line}",
        ruleset=ruleset,
        notes=Notes(RuleClass.EXACT),
        form=s.RuleForm((), (action,), s.Options(s.Lit("", action.span)), action.span),
        left=None,
        right=None,
        premises=(),
        actions=(action,),
        variables=(),
        span=action.span,
    )

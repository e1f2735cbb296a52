"""What a rule did, written down by the rule itself.

Every rule that builds something or makes something equal gets a table `egc-prov.NAME` with one column per
variable, and inserts the values of its variables into it when it fires: the row *is* the match. Together with
the rule's text it says what was matched and what was built, node for node, and rebuilding keeps it up to
date.

A row of (rule, root, built) e-classes would not do: a union makes root and built one e-class, so after
rebuilding such rows only say that the rule fired somewhere in that e-class.
"""

from __future__ import annotations

from egc.rules import syntax as s
from egc.rules.rule import Rule

PREFIX = "egc-prov."


def table(rule: Rule) -> str:
    """The name of the table that holds the rule's matches."""
    return PREFIX + rule.name


def is_recorded(rule: Rule) -> bool:
    """Whether the rule's matches are written down: it unites or inserts. A rule that only sets functions
    states facts that can be read off the functions themselves.
    """
    return any(isinstance(action, s.Union | s.Call) for action in rule.actions)


def columns(rule: Rule) -> tuple[tuple[str, str], ...]:
    """The table's columns: pairs of variable and sort."""
    return rule.variables


def recording(rule: Rule) -> tuple[s.RelationDecl | None, tuple[s.Action, ...]]:
    """The table's declaration, None for a rule that is not recorded, and the rule's actions with the one that
    writes the row behind them.
    """
    if not is_recorded(rule):
        return None, rule.actions
    span = rule.span
    sorts = tuple(s.Name(sort, span) for _, sort in columns(rule))
    row = s.Call(table(rule), tuple(s.Var(name, span) for name, _ in columns(rule)), span, span)
    return s.RelationDecl(s.Name(table(rule), span), sorts, span), (*rule.actions, row)

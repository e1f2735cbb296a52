"""Variables of facts, actions and rules replaced; of expressions see :func:`syntax.substitute`."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from egc.rules import syntax as s
from egc.rules.rule import Rule


def in_rule(rule: Rule, env: Mapping[str, s.Expr]) -> Rule:
    """``rule`` with the variables of ``env`` replaced; the same rule where there are none."""
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


def in_fact(fact: s.Fact, env: Mapping[str, s.Expr]) -> s.Fact:
    """``fact`` with the variables of ``env`` replaced."""
    if isinstance(fact, s.Eq):
        return s.Eq(s.substitute(fact.left, env), s.substitute(fact.right, env), fact.span)
    return s.substitute(fact, env)


def in_action(action: s.Action, env: Mapping[str, s.Expr]) -> s.Action:
    """``action`` with the variables of ``env`` replaced."""
    match action:
        case s.Let(name=name, value=value):
            return s.Let(name, s.substitute(value, env), action.span, action.name_span)
        case s.Set(target=target, value=value):
            return s.Set(_in_call(target, env), s.substitute(value, env), action.span)
        case s.Union(left=left, right=right):
            return s.Union(s.substitute(left, env), s.substitute(right, env), action.span)
        case s.Delete(target=target):
            return s.Delete(_in_call(target, env), action.span)
        case s.Subsume(target=target):
            return s.Subsume(_in_call(target, env), action.span)
        case s.Panic():
            return action
        case _:
            return s.substitute(action, env)


def _in_call(call: s.Call, env: Mapping[str, s.Expr]) -> s.Call:
    return s.Call(call.head, tuple(s.substitute(a, env) for a in call.args), call.span, call.head_span)

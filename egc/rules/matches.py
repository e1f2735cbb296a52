"""Reading provenance back: which e-nodes each match of a rule found, and which it built.

A recorded row gives every variable its value. The rule's own patterns say the rest: with the variables known,
a pattern names one row of its constructor's table, from the inside out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from msgspec import Struct

from egc.rules import syntax as s
from egc.rules.emit import Emitter
from egc.rules.primitives import SIGNATURES
from egc.rules.provenance import columns, table
from egc.rules.rule import Rule

Value = Any  # egglog's: an e-class or a primitive value; equal values are equal


class Node(Struct, frozen=True):
    """One row of a table: an e-node and its e-class, or a fact and its value."""

    head: str
    args: tuple[Value, ...]
    value: Value


class Match(Struct, frozen=True, dict=True):
    """One firing of a rule: what its variables stood for."""

    rule: Rule
    bindings: Mapping[str, Value]
    _state: State

    @cached_property
    def matched(self) -> tuple[Node, ...]:
        """The rows that the premises found, inner ones first."""
        exprs = [e for fact in self.rule.premises for e in s.fact_exprs(fact)]
        return self._rows(exprs)

    @cached_property
    def built(self) -> tuple[Node, ...]:
        """The rows that the actions made or found made already, inner ones first."""
        return self._rows([e for action in self.rule.actions for e in s.action_exprs(action)])

    def _rows(self, exprs: list[s.Expr]) -> tuple[Node, ...]:
        nodes: dict[Node, None] = {}
        for expr in exprs:
            self._state.value(expr, self.bindings, nodes)
        return tuple(nodes)


class State:
    """One frozen state of an e-graph whose rules recorded their matches."""

    def __init__(self, egraph: Any) -> None:
        self._egraph = egraph
        self._emitter = Emitter()
        self._functions = egraph.freeze().functions
        self._tables: dict[str, dict[tuple[Value, ...], Value]] = {}
        self._literals: dict[s.Lit, Value] = {}

    def matches(self, rule: Rule) -> Iterator[Match]:
        """The rule's matches, in no order that means anything; none for a rule that is not recorded."""
        function = self._functions.get(table(rule))
        names = [name for name, _ in columns(rule)]
        for row in function.rows if function else ():
            yield Match(rule, dict(zip(names, row.inputs, strict=True)), self)

    def value(self, expr: s.Expr, bindings: Mapping[str, Value], nodes: dict[Node, None]) -> Value | None:
        """What an expression stands for under `bindings`; every row on the way goes into `nodes`.

        None where that is not known: for what a premise computes by primitives, and for a row that was
        deleted.
        """
        match expr:
            case s.Var(name=name):
                return bindings[name] if name in bindings else self._global(name)
            case s.Lit():
                if expr not in self._literals:
                    self._literals[expr] = self._egraph.eval_expr(self._emitter.expr(expr))[1]
                return self._literals[expr]
            case s.Call(head=head, args=exprs):
                args = tuple(self.value(a, bindings, nodes) for a in exprs)
                if head in SIGNATURES or any(a is None for a in args):
                    return None
                value = self._table(head).get(args)
                if value is not None:
                    nodes[Node(head, args, value)] = None
                return value

    def _global(self, name: str) -> Value | None:
        return self._table(name).get(())

    def _table(self, head: str) -> dict[tuple[Value, ...], Value]:
        if head not in self._tables:
            function = self._functions.get(head)
            rows = function.rows if function else ()
            self._tables[head] = {tuple(row.inputs): row.output for row in rows}
        return self._tables[head]

"""Rules as plans over egglog's tables: given the values of a rule's variables, which rows it matched and
which it built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, TypeAlias

from msgspec import Struct

from egc.rules import Rule, RuleBook
from egc.rules import syntax as s
from egc.rules.environment import Kind
from egc.rules.primitives import SIGNATURES

# A row: the table's name and the raw values of its arguments.
Item: TypeAlias = "tuple[str, tuple[Any, ...]]"

_TENSORS = ("T", "Multi")


class Tables:
    """The frozen tables of an e-graph, as maps from arguments to results."""

    def __init__(self, egraph: Any, functions: Mapping[str, Any], book: RuleBook) -> None:
        self.egraph = egraph
        self.functions = functions
        self.operators = book.environment.operators
        self._maps: dict[str, dict[tuple[Any, ...], Any]] = {}
        self._known: dict[s.Expr, Any] = {}

    def of(self, name: str) -> dict[tuple[Any, ...], Any]:
        """A table by its arguments."""
        if name not in self._maps:
            table = self.functions.get(name)
            rows = () if table is None else table.rows
            self._maps[name] = {tuple(row.inputs): row.output for row in rows}
        return self._maps[name]

    def is_tensor(self, name: str) -> bool:
        """Whether the rows of a table are tensor terms."""
        operator = self.operators[name]
        return operator.kind is Kind.CONSTRUCTOR and operator.output in _TENSORS

    def is_relation(self, name: str) -> bool:
        """Whether a table is a relation."""
        return name in self.operators and self.operators[name].kind is Kind.RELATION

    def constant(self, expr: s.Expr) -> Any:
        """The raw value of a literal, a global, or a primitive of such."""
        if expr not in self._known:
            self._known[expr] = self.egraph.eval_expr(self._emitter.expr(expr))[1]
        return self._known[expr]

    @cached_property
    def _emitter(self) -> Any:
        from egc.rules.emit import Emitter

        return Emitter()


class PatternNode(Struct, frozen=True):
    """One term of a rule. ``refs`` are its arguments: position i of the match's values (literals behind the
    variables), or ~j for node j of the plan; None where a primitive's value is not recorded."""

    head: str
    refs: tuple[int | None, ...]
    kind: str  # "term", "fact", or "" for attributes and functions, which are not accounted for


class Plan(Struct, frozen=True):
    """A rule's terms in evaluation order. ``matched`` and ``built`` are the outermost nodes of its sides."""

    rule: Rule
    nodes: tuple[PatternNode, ...]
    literals: tuple[Any, ...]
    matched: tuple[int, ...]
    built: tuple[int, ...]
    left: int  # how many of the nodes belong to the premises


class Match(Struct):
    """One firing of a rule: the raw values of its plan's literals and variables, and the rows of its
    nodes."""

    plan: Plan
    values: tuple[Any, ...]
    rows: list[Item | None]

    def items(self, left: bool) -> Iterable[Item]:
        """The terms and facts of the premises, or of the actions."""
        nodes = self.plan.nodes
        positions = range(self.plan.left) if left else range(self.plan.left, len(nodes))
        return [row for i in positions if nodes[i].kind and (row := self.rows[i]) is not None]


def make_plan(rule: Rule, tables: Tables) -> Plan:
    """The plan of a rule whose matches are recorded."""
    return _Planner(rule, tables).plan()


class _Planner:
    def __init__(self, rule: Rule, tables: Tables) -> None:
        self.rule = rule
        self.tables = tables
        self.place = {name: i for i, (name, _) in enumerate(rule.variables)}
        self.literals: list[Any] = []
        self.nodes: list[PatternNode] = []
        self.seen: dict[s.Expr, int] = {}

    def plan(self) -> Plan:
        matched = [self.top(expr) for fact in self.rule.premises for expr in s.fact_exprs(fact)]
        left = len(self.nodes)
        built: list[int | None] = []
        for action in self.rule.actions:
            if isinstance(action, s.Union | s.Let) or (
                isinstance(action, s.Call) and action.head not in SIGNATURES
            ):
                built += [self.top(expr) for expr in s.action_exprs(action)]
        return Plan(
            self.rule,
            tuple(self.nodes),
            tuple(self.literals),
            tuple(dict.fromkeys(i for i in matched if i is not None)),
            tuple(dict.fromkeys(i for i in built if i is not None and i >= left)),
            left,
        )

    def top(self, expr: s.Expr) -> int | None:
        """The node of an outermost expression, None where it is no row."""
        if isinstance(expr, s.Call) and expr.head in SIGNATURES:
            return None
        ref = self.ref(expr)
        return ~ref if ref is not None and ref < 0 and self.nodes[~ref].kind else None

    def ref(self, expr: s.Expr) -> int | None:
        """Where an expression's value is found; nodes are added for its terms."""
        if isinstance(expr, s.Var) and expr.name in self.place:
            return self.place[expr.name]
        if not isinstance(expr, s.Call) or (expr.head in SIGNATURES and not self.has_variables(expr)):
            self.literals.append(self.tables.constant(expr))
            return len(self.place) + len(self.literals) - 1
        if expr.head in SIGNATURES:
            return None
        if expr in self.seen:
            return self.seen[expr]
        refs = tuple(map(self.ref, expr.args))
        if self.tables.is_relation(expr.head):
            kind = "fact"
        else:
            kind = "term" if self.tables.is_tensor(expr.head) else ""
        self.nodes.append(PatternNode(expr.head, refs, kind))
        self.seen[expr] = ~(len(self.nodes) - 1)
        return self.seen[expr]

    def has_variables(self, expr: s.Expr) -> bool:
        return any(isinstance(part, s.Var) and part.name in self.place for part in s.walk(expr))


def matches_of(plan: Plan, rows: Iterable[Any], tables: Tables) -> list[Match]:
    """The matches that a rule's rows record; one whose rows have been deleted since has None for them."""
    lookups = [(node, tables.of(node.head)) for node in plan.nodes]
    found: list[Match] = []
    for row in rows:
        values = (*row.inputs, *plan.literals)
        results: list[Any] = []
        items: list[Item | None] = []
        for node, table in lookups:
            key = tuple(
                None if ref is None else values[ref] if ref >= 0 else results[~ref] for ref in node.refs
            )
            if None in key:
                key = _completed(key, table)
            result = table.get(key)
            results.append(result)
            items.append((node.head, key) if result is not None else None)
        found.append(Match(plan, values, items))
    return found


def _completed(key: tuple[Any, ...], table: dict[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    """The first row that agrees with a key in which values are missing; the key itself where there is
    none."""
    for candidate in table:
        if all(a is None or a == b for a, b in zip(key, candidate, strict=True)):
            return candidate
    return key

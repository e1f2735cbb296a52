"""A rule's premises → equations between terms, with relations replaced by what derives them.

A premise such as ``(mean-of m x axes)`` holds of what the rules that state it match, so it is resolved: a
rule (or a fact of the file) that states it is chosen, renamed apart, unified with the premise, and its
premises are resolved in turn. What remains are terms, equations of attributes, and tests.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from egc.rules import syntax as s
from egc.rules.environment import Environment, Kind
from egc.rules.primitives import SIGNATURES
from egc.rules.rule import Rule

MAX_DEPTH = 6  # of derivations within derivations

# Facts that egc itself states, with a meaning in terms of the tensor: computed here, not derived.
TYPE_FACTS = ("shape", "dtype")
CONSTANT, VARIES, ROW_VECTOR, VALUE = "is-const", "varies", "row-vector", "value"


class Unsolvable(Exception):
    """Premises that nothing satisfies, or none that can be built here; the text says which."""


@dataclass(frozen=True)
class Definition:
    """What a constructor that a rule file declares stands for: ``(name params…)`` is ``body``."""

    name: str
    params: tuple[str, ...]
    body: s.Expr


@dataclass(frozen=True)
class Knowledge:
    """What rules are resolved with: everything that is loaded."""

    environment: Environment
    rules: Sequence[Rule]
    facts: Sequence[s.Call]  # stated at the top of a file
    definitions: Mapping[str, Definition]

    def is_constructor(self, head: str) -> bool:
        """Whether a term begins with ``head``."""
        operator = self.environment.operators.get(head)
        return operator is not None and operator.kind is Kind.CONSTRUCTOR

    def is_tensor(self, head: str) -> bool:
        """Whether ``head`` makes tensors."""
        return _makes(self.environment, head, ("T", "Multi"))

    def expanded(self, expr: s.Expr) -> s.Expr:
        """``expr`` with the constructors that have a definition replaced by it."""
        if not isinstance(expr, s.Call):
            return expr
        args = tuple(map(self.expanded, expr.args))
        definition = self.definitions.get(expr.head)
        if definition is not None:
            body = s.substitute(definition.body, dict(zip(definition.params, args, strict=True)))
            return self.expanded(body)
        return s.Call(expr.head, args, expr.span, expr.head_span)


@dataclass
class Resolved:
    """Premises as equations. ``bindings`` maps variables to what they are;
    ``equations`` must hold of computed values.
    """

    bindings: dict[str, s.Expr] = field(default_factory=dict)
    equations: list[tuple[s.Expr, s.Expr]] = field(default_factory=list)
    tests: list[s.Expr] = field(default_factory=list)
    terms: list[s.Expr] = field(default_factory=list)  # tensor terms that must exist
    constants: list[s.Expr] = field(default_factory=list)  # tensors known when compiling
    rows: list[s.Expr] = field(default_factory=list)  # row vectors
    varying: list[s.Expr] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)  # which derivations were taken

    def walk(self, expr: s.Expr) -> s.Expr:
        """What a variable stands for at its outermost."""
        while isinstance(expr, s.Var) and expr.name in self.bindings:
            expr = self.bindings[expr.name]
        return expr

    def deep(self, expr: s.Expr) -> s.Expr:
        """``expr`` with every variable replaced by what it stands for."""
        expr = self.walk(expr)
        if isinstance(expr, s.Call) and expr.args:
            return s.Call(expr.head, tuple(map(self.deep, expr.args)), expr.span, expr.head_span)
        return expr


class Resolver:
    """Resolves the premises of one rule, choosing among derivations at random."""

    def __init__(self, knowledge: Knowledge, rng: random.Random) -> None:
        self.knowledge = knowledge
        self.rng = rng
        self.out = Resolved()
        self.fresh = 0
        self.tensors: set[str] = set()  # the variables that stand for e-classes

    def resolve(self, rule: Rule) -> Resolved:
        """The equations of a rule's premises. Raises Unsolvable."""
        self.tensors |= {name for name, sort in rule.variables if sort in ("T", "Multi")}
        self.facts(rule.premises, 0)
        return self.out

    def facts(self, facts: Iterable[s.Fact], depth: int) -> None:
        """Add premises."""
        for fact in facts:
            if isinstance(fact, s.Eq):
                self.unify(self.flat(fact.left, depth), self.flat(fact.right, depth))
            else:
                self.fact(fact, depth)

    def fact(self, fact: s.Expr, depth: int) -> None:
        """A premise that is no equation: a relation's row, a test, or a term that exists."""
        if not isinstance(fact, s.Call):
            return
        if fact.head == "!=" and any(
            isinstance(arg, s.Var) and arg.name in self.tensors for arg in fact.args
        ):
            return  # whether two terms share an e-class yet is nothing that their values tell
        if fact.head in SIGNATURES:
            self.out.tests.append(self.flat(fact, depth))
            return
        args = tuple(self.flat(arg, depth) for arg in fact.args)
        call = s.Call(fact.head, args, fact.span, fact.head_span)
        known = {CONSTANT: self.out.constants, VARIES: self.out.varying, ROW_VECTOR: self.out.rows}
        if self.knowledge.is_constructor(fact.head):
            self.out.terms.append(self.knowledge.expanded(call))
        elif fact.head in known:
            known[fact.head].append(args[0])
        elif fact.head == VALUE:
            self.unify(args[0], args[1])
            for table, arg in zip(TYPE_FACTS, args[2:4], strict=True):
                self.unify(arg, s.Call(table, (args[1],), fact.span, fact.span))
        elif fact.head not in TYPE_FACTS:
            self.derive(fact.head, args, depth)

    def flat(self, expr: s.Expr, depth: int) -> s.Expr:
        """``expr`` without lookups in tables that rules fill: each becomes a variable and a derivation."""
        if not isinstance(expr, s.Call):
            return expr
        args = tuple(self.flat(arg, depth) for arg in expr.args)
        call = s.Call(expr.head, args, expr.span, expr.head_span)
        if expr.head in SIGNATURES or expr.head in TYPE_FACTS:
            return call
        if self.knowledge.is_constructor(expr.head):
            return self.knowledge.expanded(call)
        self.fresh += 1
        value = s.Var(f"egc-found-{self.fresh}", expr.span)
        self.derive(expr.head, (*args, value), depth)
        return value

    def derive(self, head: str, args: tuple[s.Expr, ...], depth: int) -> None:
        """Make a table's row hold: by a fact of a file, or by a rule that states it."""
        ways: list[tuple[Rule | None, Sequence[s.Expr]]] = [
            (None, call.args) for call in self.knowledge.facts if call.head == head
        ]
        ways += [(rule, stated) for rule in self.knowledge.rules for stated in stated_rows(rule, head)]
        if not ways:
            raise Unsolvable(f"no rule or fact states `{head}`")
        if depth >= MAX_DEPTH:
            raise Unsolvable(f"`{head}` rests on itself")
        choice = self.rng.randrange(len(ways))
        self.out.choices.append(choice)
        rule, stated = ways[choice]
        if rule is None:
            self.unify_all(args, stated)
            return
        self.fresh += 1
        mark = f"'{self.fresh}"
        names: dict[str, s.Expr] = {name: s.Var(name + mark, rule.span) for name, _ in rule.variables}
        self.tensors |= {name + mark for name, sort in rule.variables if sort in ("T", "Multi")}
        self.unify_all(args, [s.substitute(arg, names) for arg in stated])
        for action in rule.actions:
            if isinstance(action, s.Let):
                self.unify(names[action.name], self.flat(s.substitute(action.value, names), depth + 1))
        self.facts([_renamed(fact, names) for fact in rule.premises], depth + 1)

    def unify_all(self, left: Sequence[s.Expr], right: Sequence[s.Expr]) -> None:
        """Make two lists of expressions equal, one by one."""
        for a, b in zip(left, right, strict=True):
            self.unify(a, self.knowledge.expanded(b))

    def unify(self, a: s.Expr, b: s.Expr) -> None:
        """Make two expressions equal; what is only known when computed becomes an equation.
        Raises Unsolvable.
        """
        a, b = self.out.walk(a), self.out.walk(b)
        if a == b:
            return
        for var, other in ((a, b), (b, a)):
            if isinstance(var, s.Var):
                if self.occurs(var.name, other):
                    self.out.equations.append((var, other))
                else:
                    self.out.bindings[var.name] = other
                return
        if isinstance(a, s.Lit) and isinstance(b, s.Lit):
            raise Unsolvable(f"{a.value} and {b.value} differ")
        if isinstance(a, s.Call) and isinstance(b, s.Call) and self.opens(a.head) and self.opens(b.head):
            if a.head != b.head or len(a.args) != len(b.args):
                raise Unsolvable(f"`{a.head}` and `{b.head}` differ")
            for x, y in zip(a.args, b.args, strict=True):
                self.unify(x, y)
            return
        if any(isinstance(e, s.Call) and self.knowledge.is_tensor(e.head) for e in (a, b)):
            raise Unsolvable("a tensor is asked for where a value is computed")
        self.out.equations.append((a, b))

    def opens(self, head: str) -> bool:
        """Whether equal results mean equal arguments."""
        return head == "vec-of" or self.knowledge.is_constructor(head)

    def occurs(self, name: str, expr: s.Expr) -> bool:
        """Whether a variable stands within an expression."""
        expr = self.out.walk(expr)
        if isinstance(expr, s.Var):
            return expr.name == name
        return isinstance(expr, s.Call) and any(self.occurs(name, arg) for arg in expr.args)


def stated_rows(rule: Rule, head: str) -> list[tuple[s.Expr, ...]]:
    """The rows that a rule states in a table: arguments, and the value where it is a function's."""
    rows: list[tuple[s.Expr, ...]] = []
    for action in rule.actions:
        if isinstance(action, s.Call) and action.head == head:
            rows.append(action.args)
        elif isinstance(action, s.Set) and action.target.head == head:
            rows.append((*action.target.args, action.value))
    return rows


def _renamed(fact: s.Fact, names: Mapping[str, s.Expr]) -> s.Fact:
    env = dict(names)
    if isinstance(fact, s.Eq):
        return s.Eq(s.substitute(fact.left, env), s.substitute(fact.right, env), fact.span)
    return s.substitute(fact, env)


def _makes(environment: Environment, head: str, sorts: Sequence[str]) -> bool:
    operator = environment.operators.get(head)
    return operator is not None and operator.kind is Kind.CONSTRUCTOR and operator.output in sorts


def find_definitions(
    environment: Environment,
    rules: Sequence[Rule],
    known: Iterable[str],
    sorts: Sequence[str] = ("T", "Multi"),
) -> dict[str, Definition]:
    """The definitions of constructors of ``sorts`` that are not ``known``: the first rule that equates
    ``(name x…)``, its arguments distinct variables,
    with a term over no other variables and of constructors that are known by then.
    """
    known = set(known)
    found: dict[str, Definition] = {}
    for rule in rules:
        if rule.left is None or rule.right is None or len(rule.premises) > 1:
            continue
        for side, body in ((rule.left, rule.right), (rule.right, rule.left)):
            if not isinstance(side, s.Call) or side.head in known or side.head in found:
                continue
            if not _makes(environment, side.head, sorts):
                continue
            params = [arg.name for arg in side.args if isinstance(arg, s.Var)]
            names = {part.name for part in s.walk(body) if isinstance(part, s.Var)}
            heads = {part.head for part in s.walk(body) if isinstance(part, s.Call)}
            unknown = {h for h in heads if _makes(environment, h, sorts)} - known - set(found)
            if len(set(params)) == len(side.args) and names <= set(params) and not unknown:
                found[side.head] = Definition(side.head, tuple(params), body)
    return found

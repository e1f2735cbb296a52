"""A rule's premises → equations between terms, with relations replaced by what derives them.

A premise such as ``(mean-of m x axes)`` holds of what the rules that state it match, so it is resolved: a
rule (or a fact of the file) that states it is chosen, renamed apart, unified with the premise, and its
premises are resolved in turn. What remains are terms, equations of attributes, and tests.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from msgspec import Struct, field
from msgspec.structs import asdict

from egc.egraph.vocabulary import NAME
from egc.ir.scalar import BY_CONSTRUCTOR
from egc.rules import syntax as s
from egc.rules.environment import Environment, Kind
from egc.rules.primitives import SIGNATURES
from egc.rules.rule import Rule
from egc.rules.substitution import in_fact

MAX_DEPTH = 8  # of derivations within derivations
MAX_STEPS = 500  # derivations that are tried for the premises of one rule

# Facts that egc itself states, with a meaning in terms of the tensor: computed here, not derived.
TYPE_FACTS = ("shape", "dtype")
CONSTANT, VARIES, ROW_VECTOR, VALUE = "is-const", "varies", "row-vector", "value"
COMPUTED = {*TYPE_FACTS, CONSTANT, VARIES, ROW_VECTOR, VALUE}
FUSION = "may-fuse"


class Unsolvable(Exception):
    """Premises that nothing satisfies, or none that can be built here; the text says which."""


class Definition(Struct, frozen=True):
    """What a constructor that a rule file declares stands for: ``(name params…)`` is ``body``."""

    name: str
    params: tuple[str, ...]
    body: s.Expr


class Knowledge(Struct, frozen=True, dict=True):
    """What rules are resolved with: everything that is loaded."""

    environment: Environment
    rules: Sequence[Rule]
    facts: Sequence[s.Call]  # stated at the top of a file
    definitions: Mapping[str, Definition]

    @cached_property
    def depths(self) -> Mapping[str, int]:
        """How many derivations within one another a row of each table takes at least; none for one that
        nothing states.
        """
        found = {fact.head: 1 for fact in self.facts}
        growing = True
        while growing:
            growing = False
            for rule in self.rules:
                depth = self.depth_of(rule, found)
                if depth is None:
                    continue
                for head in rule.makes:
                    if depth < found.get(head, depth + 1):
                        found[head], growing = depth, True
        return found

    def depth_of(self, way: Rule | s.Call, depths: Mapping[str, int]) -> int | None:
        """How many derivations within one another it takes to state a row by a rule or a fact; None where a
        table that it asks for has no rows.
        """
        if isinstance(way, s.Call):
            return 1
        asked = [head for head in way.needs if not self.is_constructor(head) and head not in COMPUTED]
        if any(head not in depths for head in asked):
            return None
        return 1 + max((depths[head] for head in asked), default=0)

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
        function = applied(expr)
        definition = self.definitions.get(function or expr.head)
        given = args[1:] if function else args
        if definition is not None and len(definition.params) == len(given):
            body = s.substitute(definition.body, dict(zip(definition.params, given, strict=True)))
            return self.expanded(body)
        return s.Call(expr.head, args, expr.span, expr.head_span)


class Resolved(Struct):
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
    integers: set[str] = field(default_factory=set)  # the variables that stand for one
    choices: list[int] = field(default_factory=list)  # which derivations were taken, by number …
    used: list[Rule | s.Call] = field(default_factory=list)  # … and what states them

    def copy(self) -> Resolved:
        """A copy that can be changed by itself."""
        return Resolved(**{name: value.copy() for name, value in asdict(self).items()})

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
    """Resolves the premises of one rule, choosing among derivations at random, most often among those that
    are ``preferred``.
    """

    def __init__(
        self, knowledge: Knowledge, rng: random.Random, preferred: Sequence[Rule | s.Call] = ()
    ) -> None:
        self.knowledge = knowledge
        self.rng = rng
        self.preferred = {*map(id, preferred)}
        self.steps = 0
        self.out = Resolved()
        self.fresh = 0
        self.tensors: set[str] = set()  # the variables that stand for e-classes

    def resolve(self, rule: Rule) -> Resolved:
        """The equations of a rule's premises. Raises Unsolvable."""
        self.tensors |= {name for name, sort in rule.variables if sort in ("T", "Multi")}
        self.out.integers |= {name for name, sort in rule.variables if sort == "i64"}
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
            if isinstance(args[4], s.Lit):
                (self.out.constants if args[4].value else self.out.varying).append(args[1])
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
        if self.knowledge.environment.operators[expr.head].output == "i64":
            self.out.integers.add(value.name)
        self.derive(expr.head, (*args, value), depth)
        return value

    def derive(self, head: str, args: tuple[s.Expr, ...], depth: int) -> None:
        """Make a table's row hold: by a fact of a file, or by a rule that states it."""
        ways: list[tuple[Rule | s.Call, Sequence[s.Expr]]] = [
            (call, call.args) for call in self.knowledge.facts if call.head == head
        ]
        ways += [(rule, stated) for rule in self.knowledge.rules for stated in stated_rows(rule, head)]
        if not ways:
            raise Unsolvable(f"no rule or fact states `{head}`")
        least = [self.knowledge.depth_of(way, self.knowledge.depths) for way, _ in ways]
        fits = [i for i, deep in enumerate(least) if deep is not None and depth + deep <= MAX_DEPTH]
        if not fits:
            raise Unsolvable(f"`{head}` rests on itself")
        order = self.rng.sample(fits, len(fits))
        if self.rng.random() < 0.7:
            order.sort(key=lambda i: id(ways[i][0]) not in self.preferred)
        failed: Unsolvable | None = None
        for choice in order:
            before = self.out.copy()
            try:
                self.take(choice, *ways[choice], args, depth)
                return
            except Unsolvable as error:
                self.out, failed = before, error
        assert failed is not None
        raise failed

    def take(
        self,
        choice: int,
        rule: Rule | s.Call,
        stated: Sequence[s.Expr],
        args: tuple[s.Expr, ...],
        depth: int,
    ) -> None:
        """Derive a row in one way. Raises Unsolvable."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Unsolvable("no derivation was found")
        self.out.choices.append(choice)
        self.out.used.append(rule)
        if isinstance(rule, s.Call):
            self.unify_all(args, stated)
            return
        self.fresh += 1
        mark = f"'{self.fresh}"
        names: dict[str, s.Expr] = {name: s.Var(name + mark, rule.span) for name, _ in rule.variables}
        self.tensors |= {name + mark for name, sort in rule.variables if sort in ("T", "Multi")}
        self.out.integers |= {name + mark for name, sort in rule.variables if sort == "i64"}
        self.unify_all(args, [s.substitute(arg, names) for arg in stated])
        for action in rule.actions:
            if isinstance(action, s.Let):
                self.unify(names[action.name], self.flat(s.substitute(action.value, names), depth + 1))
        self.facts([in_fact(fact, names) for fact in rule.premises], depth + 1)

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
            if NAME in (a.head, b.head) and a.head != b.head:
                return  # any tensor may be a value of the model
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


def _makes(environment: Environment, head: str, sorts: Sequence[str]) -> bool:
    operator = environment.operators.get(head)
    return operator is not None and operator.kind is Kind.CONSTRUCTOR and operator.output in sorts


def find_definitions(
    environment: Environment,
    rules: Sequence[Rule],
    known: Iterable[str],
    sorts: Sequence[str] = ("T", "Multi"),
) -> dict[str, Definition]:
    """The definitions of constructors of ``sorts`` that are not ``known``, and of scalar functions: the first
    rule that equates ``(name x…)`` or ``(Map1 (Name) x)``, its arguments distinct variables, with a term over
    no other variables but such as premises compute from these, and of constructors that are known by then;
    one without a condition goes first.
    """
    known = set(known)
    found: dict[str, Definition] = {}
    ways = [(rule, pair) for rule in rules for pair in _equated(rule)]
    for conditional in (False, True):
        for rule, (side, body) in ways:
            name, args = _defined(environment, side, sorts)
            if name is None or name in known or name in found or conditional != (len(rule.premises) > 1):
                continue
            params = [arg.name for arg in args if isinstance(arg, s.Var)]
            body = _spelled_out(body, {k: v for k, v in _computed(rule).items() if k not in params})
            parts = [*s.walk(body)]
            names = {part.name for part in parts if isinstance(part, s.Var)}
            unknown = {
                part.head
                for part in parts
                if isinstance(part, s.Call) and _makes(environment, part.head, sorts)
            } - {*known, *found}
            circular = any(isinstance(part, s.Call) and part.head == name for part in parts)
            if len(set(params)) == len(args) and names <= set(params) and not unknown and not circular:
                found[name] = Definition(name, tuple(params), body)
    return found


def _equated(rule: Rule) -> list[tuple[s.Expr, s.Expr]]:
    """The terms that a rule unites, each in both orders, with what premises say of their variables."""
    terms = {action.name: action.value for action in rule.actions if isinstance(action, s.Let)}
    for fact in rule.premises:
        if isinstance(fact, s.Eq):
            for a, b in ((fact.left, fact.right), (fact.right, fact.left)):
                if (
                    isinstance(a, s.Var)
                    and isinstance(b, s.Call)
                    and b.head not in (*SIGNATURES, *TYPE_FACTS)
                ):
                    terms.setdefault(a.name, b)
    found = []
    for action in rule.actions:
        if isinstance(action, s.Union):
            left, right = (_spelled_out(side, terms) for side in (action.left, action.right))
            found += [(left, right), (right, left)]
    return found


def _computed(rule: Rule) -> dict[str, s.Expr]:
    """The variables that premises compute, and from what: ``n`` of ``(= (I n) (vec-get (shape x) 0))``."""
    found: dict[str, s.Expr] = {}
    for fact in rule.premises:
        if isinstance(fact, s.Eq):
            for a, b in ((fact.left, fact.right), (fact.right, fact.left)):
                if isinstance(a, s.Call) and a.head == "I":
                    a = a.args[0]
                if isinstance(a, s.Var) and isinstance(b, s.Call) and b.head in (*SIGNATURES, *TYPE_FACTS):
                    found.setdefault(a.name, b)
    return found


def _spelled_out(expr: s.Expr, terms: Mapping[str, s.Expr], depth: int = MAX_DEPTH) -> s.Expr:
    if isinstance(expr, s.Var) and expr.name in terms and depth:
        return _spelled_out(terms[expr.name], terms, depth - 1)
    if isinstance(expr, s.Call):
        args = tuple(_spelled_out(arg, terms, depth) for arg in expr.args)
        return s.Call(expr.head, args, expr.span, expr.head_span)
    return expr


def _defined(
    environment: Environment, side: s.Expr, sorts: Sequence[str]
) -> tuple[str | None, tuple[s.Expr, ...]]:
    """What ``side`` may define: a constructor, or the scalar function that it applies; and to what."""
    if isinstance(side, s.Call) and _makes(environment, side.head, sorts):
        function = applied(side)
        if function is not None:
            return function, side.args[1:]
        return side.head, side.args
    return None, ()


def applied(call: s.Call) -> str | None:
    """The scalar function of which a rule file says more than that it exists, where a term applies one."""
    if call.head not in ("Map1", "Map2", "Map3") or not isinstance(call.args[0], s.Call):
        return None
    return call.args[0].head if call.args[0].head not in BY_CONSTRUCTOR else None

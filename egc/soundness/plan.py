"""Resolved premises as a small program: tensor terms in an order in which they can be typed,
attributes as code.

Code is a nested tuple, evaluated by :func:`evaluate` under an environment of attribute values and node types:

    ("value", v)    ("var", name)    ("prim", head, code…)    ("dim", code)    ("sym", code)
    ("perm", code, code)    ("shape", node)    ("dtype", node)

A symbolic dim is the extent that stands for it at an instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import lru_cache
from itertools import chain
from typing import Any

from msgspec import Struct

from egc.egraph.vocabulary import CONSTRUCTORS, NAME
from egc.ir.scalar import BY_CONSTRUCTOR
from egc.ir.types import DTYPES, TensorType
from egc.rules import syntax as s
from egc.rules.primitives import SIGNATURES
from egc.soundness.premises import (
    CONSTANT,
    FUSION,
    ROW_VECTOR,
    TYPE_FACTS,
    VARIES,
    Knowledge,
    Resolved,
    Unsolvable,
)
from egc.soundness.values import Perm, Undefined, apply, same

Code = tuple[Any, ...]

LEAVES = ("Input", "Const", NAME)


class Unbound(Exception):
    """A value that is not known yet."""


class Node(Struct, frozen=True):
    """A tensor term. ``op`` is an operator, "splat", "output",
    or "leaf" for a tensor that stands for itself.
    """

    op: str
    children: tuple[int, ...]
    attrs: tuple[tuple[str, Code], ...]
    label: str  # the variable's name of a leaf, the term's text elsewhere


class Claim(Struct, frozen=True):
    """Something that a rule says of its match: a union of two tensors ("union") or attributes ("equal"), the
    fact of that name, or that a term which it builds has a type ("built").
    """

    kind: str
    about: tuple[Any, ...]
    action: s.Action


class Plan:
    """What a rule's premises ask for; what its actions claim is compiled into the same nodes,
    behind the ``left`` ones.

    ``tensors`` are the variables of the premises that stand for tensors.
    """

    def __init__(self, knowledge: Knowledge, resolved: Resolved, tensors: Iterable[str] = ()) -> None:
        self.knowledge = knowledge
        self.resolved = resolved
        self.nodes: list[Node] = []
        self._ids: dict[s.Expr, int] = {}
        for term in resolved.terms:
            self.node(term)
        for expr in list(resolved.bindings.values()):
            if isinstance(expr, s.Call) and knowledge.is_tensor(expr.head):
                self.node(expr)
        self.equations = [(self.code(a), self.code(b)) for a, b in resolved.equations]
        self.tests = [self.code(test) for test in resolved.tests]
        self.constants = [self.node(expr) for expr in resolved.constants]
        self.rows = [self.node(expr) for expr in resolved.rows]
        self.integers = resolved.integers
        self.varying = [self.node(expr) for expr in resolved.varying]
        for name in tensors:
            self.node(s.Var(name, s.Span(s.Source("", ""), 0, 0)))
        self.left = len(self.nodes)
        self.claims: list[Claim] = []
        asked = (*self.tests, *chain(*self.equations))
        # What a premise compares a constant with, and numbers on either side of it.
        written = {number for code in asked for number in literals(code, float)}
        self.numbers = tuple(sorted({n * f for n in written for f in (0.5, 1.0, 2.0)}))
        # Likewise what it may compare an extent with, where that is more than extents commonly are here, and
        # what such an extent may be a multiple of.
        attrs = [code for node in self.nodes for _, code in node.attrs]
        counts = {number for code in (*asked, *attrs) for number in literals(code, int) if 4 < number <= 4096}
        parts = {number for code in asked for number in literals(code, int) if 1 < number <= 64}
        self.extents = tuple(
            sorted({n + d for n in counts for d in (-1, 0, 1)} | {n * k for n in parts for k in (2, 3)})
        )
        self.dtypes = tuple(
            dtype for dtype in DTYPES if any(dtype in literals(code, str) for code in (*asked, *attrs))
        )

    def claim(self, actions: Sequence[s.Action], sorts: Mapping[str, str]) -> None:
        """Compile what a rule's actions claim of its match. Raises Unsolvable."""
        for action in actions:
            match action:
                case s.Let(name=name, value=value):
                    self.resolved.bindings[name] = self.knowledge.expanded(value)
                case s.Union(left=left, right=right):
                    pair = (self.knowledge.expanded(left), self.knowledge.expanded(right))
                    if all(self.is_tensor(side, sorts) for side in pair):
                        self.claims.append(Claim("union", (self.node(pair[0]), self.node(pair[1])), action))
                    else:
                        self.claims.append(Claim("equal", (self.code(pair[0]), self.code(pair[1])), action))
                case s.Set(target=s.Call(head=head, args=args), value=value) if head in TYPE_FACTS:
                    what = (self.node(self.knowledge.expanded(args[0])), self.code(value))
                    self.claims.append(Claim(head, what, action))
                case s.Call(head=head, args=args) if head in (CONSTANT, ROW_VECTOR, VARIES, FUSION):
                    about = tuple(self.node(self.knowledge.expanded(arg)) for arg in args)
                    self.claims.append(Claim(head, about, action))
        for action in actions:
            for term in built(action, self.knowledge):
                try:
                    number = self.node(self.knowledge.expanded(term))
                except Unsolvable:
                    continue  # what it means is not known, so there is nothing to say of it
                if number >= self.left:
                    self.claims.append(Claim("built", (number,), action))

    def is_tensor(self, expr: s.Expr, sorts: Mapping[str, str]) -> bool:
        """Whether an expression of an action is a tensor."""
        expr = self.resolved.walk(expr)
        if isinstance(expr, s.Var):
            return sorts.get(expr.name.partition("'")[0]) in ("T", "Multi")
        return isinstance(expr, s.Call) and self.knowledge.is_tensor(expr.head)

    def node(self, expr: s.Expr) -> int:
        """The number of a tensor term."""
        expr = self.resolved.deep(expr)
        if expr not in self._ids:
            made = self._made(expr)
            self._ids[expr] = len(self.nodes)
            self.nodes.append(made)
        return self._ids[expr]

    def _made(self, expr: s.Expr) -> Node:
        if isinstance(expr, s.Var):
            return Node("leaf", (), (), expr.name)
        if not isinstance(expr, s.Call) or not self.knowledge.is_tensor(expr.head):
            raise Unsolvable("a tensor is computed by a primitive")
        text = expr.head
        match expr.head:
            case "Splat":
                attrs = (("dtype", self.code(expr.args[0])), ("value", self.code(expr.args[1])))
                return Node("splat", (), attrs, text)
            case "Output":
                return Node("output", (self.node(expr.args[0]),), (("index", self.code(expr.args[1])),), text)
            case head if head in LEAVES:
                return Node("leaf", (), (), f"({head} …)")
        constructor = CONSTRUCTORS.get(expr.head)
        if constructor is None or constructor.op == "host":
            raise Unsolvable(f"`{expr.head}` has no meaning in numpy: define it by a rewrite from primitives")
        children, attrs_ = [], []
        for (name, _), arg in zip(constructor.args, expr.args, strict=True):
            if name == "operand":
                children.append(self.node(arg))
            else:
                attrs_.append((name, self.code(arg)))
        return Node(constructor.op, tuple(children), tuple(attrs_), text)

    def code(self, expr: s.Expr) -> Code:
        """The code of an attribute."""
        expr = self.resolved.walk(expr)
        match expr:
            case s.Lit(value=value):
                return ("value", value)
            case s.Var(name=name):
                return ("var", name)
            case s.Call(head=head, args=args):
                if head in TYPE_FACTS:
                    return (head, self.node(args[0]))
                if head in SIGNATURES:
                    return ("prim", head, *map(self.code, args))
                if head in BY_CONSTRUCTOR and not args:
                    return ("value", BY_CONSTRUCTOR[head].name)
                if head == "I":
                    return ("dim", self.code(args[0]))
                if head == "Sym":
                    return ("sym", self.code(args[0]))
                if head == "P":
                    return ("perm", self.code(args[0]), self.code(args[1]))
                if self.knowledge.is_tensor(head):
                    return ("node", self.node(expr))
                raise Unsolvable(f"`{head}` is not instantiated")
        raise AssertionError(expr)


class State:
    """Attribute values and node types found so far."""

    def __init__(self, nodes: int) -> None:
        self.values: dict[str, Any] = {}
        self.symbols: dict[str, int] = {}
        self.types: list[Any] = [None] * nodes  # TensorType, or a tuple of them for several results
        self.compiling: State | None = None  # the match as the compiler sees it, with symbolic extents
        self.unknown: dict[str, int] = {}  # what these are here

    def copy(self) -> State:
        """A state that can be filled by itself."""
        found = State(0)
        found.__dict__.update({name: copy(value) for name, value in self.__dict__.items()})
        return found

    def type(self, node: int) -> TensorType:
        """The type of a node. Raises Unbound."""
        if self.types[node] is None:
            raise Unbound
        return self.types[node]


def evaluate(code: Code, state: State) -> Any:
    """The value of an attribute. Raises Unbound and Undefined."""
    match code[0]:
        case "value":
            return code[1]
        case "var":
            if code[1] not in state.values:
                raise Unbound
            return state.values[code[1]]
        case "dim":
            return evaluate(code[1], state)
        case "sym":
            name = evaluate(code[1], state)
            if name not in state.symbols:
                raise Unbound
            return state.symbols[name]
        case "perm":
            return Perm(evaluate(code[1], state), evaluate(code[2], state))
        case "shape":
            return state.type(code[1]).shape
        case "dtype":
            return state.type(code[1]).dtype
        case "prim":
            return apply(code[1], [evaluate(arg, state) for arg in code[2:]])
    raise Undefined(f"{code[0]} has no value")


def bind(code: Code, value: Any, state: State) -> bool:
    """Make an attribute equal to ``value``, giving values to variables; whether it can be. Raises Unbound."""
    match code[0]:
        case "var" if code[1] not in state.values:
            state.values[code[1]] = value
            return True
        case "dim":
            return isinstance(value, int) and bind(code[1], value, state)
        case "sym":
            if code[1][0] == "var" and code[1][1] not in state.values:
                state.values[code[1][1]] = f"extent {value}"
            return state.symbols.setdefault(evaluate(code[1], state), value) == value
        case "perm":
            return (
                isinstance(value, Perm)
                and bind(code[1], value.axes, state)
                and bind(code[2], value.inverse, state)
            )
        case "prim" if code[1] == "vec-of":
            if not isinstance(value, tuple) or len(value) != len(code) - 2:
                return False
            return all(bind(part, item, state) for part, item in zip(code[2:], value, strict=True))
    return same(evaluate(code, state), value)


@lru_cache(maxsize=100_000)  # asked for at every step of every attempt
def variables(code: Code) -> frozenset[str]:
    """The variables of an attribute's code."""
    if code[0] == "var":
        return frozenset({code[1]})
    return frozenset(
        name
        for part in code[1:]
        if isinstance(part, tuple) and part and isinstance(part[0], str)
        for name in variables(part)
    )


def built(action: s.Action, knowledge: Knowledge) -> list[s.Expr]:
    """The outermost tensor terms that an action inserts, those of a union aside."""
    match action:
        case s.Let(value=value):
            terms: Sequence[s.Expr] = (value,)
        case s.Set(target=target, value=value):
            terms = (*target.args, value)
        case s.Call(head=head, args=args):
            terms = (action,) if knowledge.is_tensor(head) else args
        case _:
            terms = ()
    return [term for term in terms if isinstance(term, s.Call) and knowledge.is_tensor(term.head)]


def literals(code: Code, kind: type) -> set[Any]:
    """The literals of one type in an attribute's code."""
    if code[0] == "value":
        return {code[1]} if type(code[1]) is kind else set()
    return {number for part in code[1:] if isinstance(part, tuple) for number in literals(part, kind)}


def attribute_values(node: Node, state: State) -> Mapping[str, Any]:
    """The attributes of a node as the operators take them. Raises Unbound and Undefined."""
    found: dict[str, Any] = {}
    for name, code in node.attrs:
        value = evaluate(code, state)
        if isinstance(value, Perm):
            if not value.is_valid:
                raise Undefined(
                    f"(P {list(value.axes)} {list(value.inverse)}): the second does not undo the first"
                )
            value = value.axes
        found[name] = value
    return found

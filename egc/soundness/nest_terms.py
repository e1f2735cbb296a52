"""Loop nests as terms of the loop e-graph: built from a rule's matches, in a context, and printed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from egc.rules import syntax as s
from egc.rules.rule import Rule
from egc.schedule.cells import Cell, Do, For, LoopGraph, Then
from egc.soundness.premises import Definition
from egc.soundness.values import Rejected

_DEPTH = 40  # of a term; patterns that contain themselves would have none


class Loop(Struct, frozen=True):
    """(For axis step span kind body)."""

    axis: str
    step: int
    span: int
    kind: str
    body: Term


class Both(Struct, frozen=True):
    """(Then first second)."""

    first: Term
    second: Term


Term: TypeAlias = "Do | Loop | Both"


class Meaningless(Exception):
    """A term that is no loop nest; the text says why."""


def stages(term: Term) -> Iterator[Do]:
    """The bodies of a term, in order."""
    match term:
        case Loop(body=body):
            yield from stages(body)
        case Both(first=first, second=second):
            yield from stages(first)
            yield from stages(second)
        case _:
            yield term


def size(term: Term) -> int:
    """The number of loops and bodies."""
    match term:
        case Loop(body=body):
            return 1 + size(body)
        case Both(first=first, second=second):
            return size(first) + size(second)
    return 1


class Terms:
    """Random terms of the e-classes of a loop e-graph, and random ways from its root to an e-class."""

    def __init__(self, graph: LoopGraph, rng: random.Random) -> None:
        self.graph, self.rng = graph, rng
        self.eclass_of: dict[Cell, int] = {}
        self.depth: dict[int, int] = {}
        self.above: dict[int, list[tuple[int, Cell]]] = {}
        for eclass, cells in graph.cells.items():
            for cell in cells:
                self.eclass_of[cell] = eclass
                for child in _children(cell):
                    self.above.setdefault(child, []).append((eclass, cell))
        self._measure()
        self.distance = self._distances()

    def _measure(self) -> None:
        """The depth of each e-class's smallest term."""
        changed = True
        while changed:
            changed = False
            for eclass, cells in self.graph.cells.items():
                depth = min(map(self._depth, cells))
                if depth < self.depth.get(eclass, _DEPTH):
                    self.depth[eclass], changed = depth, True

    def _depth(self, cell: Cell) -> int:
        return 1 + max((self.depth.get(child, _DEPTH) for child in _children(cell)), default=0)

    def _distances(self) -> dict[int, int]:
        """How many cells there are from the root to each e-class that it reaches."""
        found = {self.graph.root: 0}
        layer = [self.graph.root]
        while layer:
            below: list[int] = []
            for eclass in layer:
                for cell in self.graph.cells[eclass]:
                    for child in _children(cell):
                        if child not in found:
                            found[child] = found[eclass] + 1
                            below.append(child)
            layer = below
        return found

    def term(self, eclass: int, spare: int) -> Term:
        """A term of an e-class, at most `spare` deeper than its smallest one."""
        most = self.depth[eclass] + spare
        cells = [cell for cell in self.graph.cells[eclass] if self._depth(cell) <= most]
        cell = self.rng.choice(cells)
        left = most - self._depth(cell)
        match cell:
            case For(axis=axis, step=step, span=span, kind=kind, child=child):
                return Loop(axis, step, span, kind, self.term(child, left))
            case Then(first=first, second=second):
                return Both(self.term(first, left), self.term(second, left))
        return cell

    def context(self, eclass: int, spare: int) -> list[tuple[Cell, bool, Term | None]]:
        """The cells from an e-class up to the root, each with whether the e-class below is its first part,
        and the other part of a `Then`. Raises Rejected where the root does not reach it.
        """
        found: list[tuple[Cell, bool, Term | None]] = []
        if eclass not in self.distance:
            raise Rejected("it is no part of the nest")
        while (distance := self.distance[eclass]) > 0:
            ways = [way for way in self.above[eclass] if self.distance.get(way[0], distance) < distance]
            above, cell = self.rng.choice(ways)
            other = None
            first = True
            if isinstance(cell, Then):
                first = cell.first == eclass
                other = self.term(cell.second if first else cell.first, spare)
            found.append((cell, first, other))
            eclass = above
        return found


def placed(term: Term, context: Sequence[tuple[Cell, bool, Term | None]]) -> Term:
    """A term inside its context."""
    for cell, first, other in context:
        if isinstance(cell, For):
            term = Loop(cell.axis, cell.step, cell.span, cell.kind, term)
        elif other is not None:
            term = Both(term, other) if first else Both(other, term)
    return term


def _children(cell: Cell) -> tuple[int, ...]:
    match cell:
        case For(child=child):
            return (child,)
        case Then(first=first, second=second):
            return (first, second)
    return ()


class Instance:
    """One match of a rule as terms: `values` are the values of its variables (an e-class's number for one of
    sort Nest), for each of which one term is taken, up to `spare` deeper than the smallest.
    """

    def __init__(
        self,
        rule: Rule,
        values: Mapping[str, Any],
        terms: Terms,
        definitions: Mapping[str, Definition],
        spare: int,
    ) -> None:
        self.values, self.terms, self.definitions, self.spare = values, terms, definitions, spare
        self.sorts = dict(rule.variables)
        self.patterns: dict[str, s.Call] = {}
        for fact in rule.premises:
            if isinstance(fact, s.Eq):
                self._bind(fact.left, fact.right)
                self._bind(fact.right, fact.left)
        self.made: set[str] = set()
        for action in rule.actions:
            if isinstance(action, s.Let):
                self.made.add(action.name)
                self._bind(s.Var(action.name, action.span), action.value)
        self.chosen: dict[str, Term] = {}

    def _bind(self, name: s.Expr, pattern: s.Expr) -> None:
        if isinstance(name, s.Var) and self.sorts.get(name.name) == "Nest" and isinstance(pattern, s.Call):
            self.patterns.setdefault(name.name, pattern)

    def pair(self, union: s.Union) -> tuple[Term, Term, list[tuple[Cell, bool, Term | None]]]:
        """The two sides of a union, the one that was there before first, and where it stands.

        Raises Meaningless for a new side that is no nest, Rejected where there is none to begin with.
        """
        old, new = union.left, union.right
        if not self._is_matched(old) and self._is_matched(new):
            old, new = new, old
        context = self.terms.context(self.eclass(old), self.spare)
        try:
            before = self.nest(old)
        except Meaningless as error:
            raise Rejected(str(error)) from None
        return before, self.nest(new), context

    def _is_matched(self, expr: s.Expr) -> bool:
        """Whether an expression names an e-class that the premises found."""
        return isinstance(expr, s.Var) and expr.name not in self.made

    def eclass(self, expr: s.Expr) -> int:
        """The e-class of an expression. Raises Rejected where it is new."""
        if isinstance(expr, s.Var):
            return int(self.values[expr.name])
        match self._cell(expr):
            case None:
                raise Rejected("neither side was there before")
            case cell:
                return self.terms.eclass_of[cell]

    def _cell(self, expr: s.Expr) -> Cell | None:
        if not isinstance(expr, s.Call):
            return None
        cell: Cell
        match expr.head:
            case "For":
                axis, step, span, kind = (self.value(arg) for arg in expr.args[:4])
                cell = For(axis, step, span, kind, self.eclass(expr.args[4]))
            case "Then":
                cell = Then(self.eclass(expr.args[0]), self.eclass(expr.args[1]))
            case _:
                term = self.nest(expr)
                if not isinstance(term, Do):
                    return None
                cell = term
        return cell if cell in self.terms.eclass_of else None

    def value(self, expr: s.Expr) -> Any:
        """The value of an argument that is no nest."""
        match expr:
            case s.Lit(value=value):
                return value
            case s.Var(name=name):
                return self.values[name]
            case s.Call(head=head, args=()):
                return head.lower()
        raise Meaningless(f"`{expr.span.text}` is no argument of a loop")

    def nest(self, expr: s.Expr, depth: int = 0) -> Term:
        """The nest that an expression means. Raises Meaningless, and Rejected for one without end."""
        if depth > _DEPTH:
            raise Rejected("it contains itself")
        if isinstance(expr, s.Var):
            if expr.name not in self.chosen:
                pattern = self.patterns.get(expr.name)
                self.chosen[expr.name] = (
                    self.terms.term(self.values[expr.name], self.spare)
                    if pattern is None
                    else self.nest(pattern, depth + 1)
                )
            return self.chosen[expr.name]
        assert isinstance(expr, s.Call), "a literal is no nest"
        args = expr.args
        match expr.head:
            case "For":
                axis, step, span, kind = (self.value(arg) for arg in args[:4])
                return Loop(axis, step, span, kind, self.nest(args[4], depth + 1))
            case "Then":
                return Both(self.nest(args[0], depth + 1), self.nest(args[1], depth + 1))
            case "Do":
                return Do(_stage(self.value(args[0])))
            case "DoPacked" | "DoAhead":
                stage, buffer, dim, width = map(self.value, args)
                return Do(_stage(stage), (buffer, dim, width), expr.head == "DoAhead")
            case head if head in self.definitions:
                definition = self.definitions[head]
                body = s.substitute(definition.body, dict(zip(definition.params, args, strict=True)))
                return self.nest(body, depth + 1)
        raise Meaningless(f"nothing says what `{expr.head}` does: define it by a rewrite")


def _stage(name: str) -> int:
    if not name.isdecimal():
        raise Meaningless(f"there is no stage {name!r}")
    return int(name)

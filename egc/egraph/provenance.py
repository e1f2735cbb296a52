"""What the rules did, read from the tables that they wrote while they fired (egc/rules/provenance.py).

A row of such a table is a match: the values of the rule's variables. With the rule's text it says which terms
were matched and which were built. A *derivation* orders matches so that each one matches only terms of the
model, and terms that earlier ones built. Rows do not tell when a rule fired, so the order is found again: a
match is ready when all that it matched is derived, and a term's derivation is the first match to build it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from msgspec import Struct

from egc.egraph.encode import encode
from egc.egraph.matches import Item, Match, PatternNode, Tables, make_plan, matches_of
from egc.egraph.plain import PlainTerms
from egc.egraph.reading import ATTRIBUTES, DECODED, KNOWN, Reader
from egc.egraph.snapshot import ENode
from egc.egraph.vocabulary import NAME
from egc.ir.graph import Graph
from egc.rules import RuleBook
from egc.rules import syntax as s
from egc.rules.provenance import columns, is_recorded, table

_GIVEN = -1  # in place of a match: a term of the model, or a fact that type inference states


class Term(Struct, frozen=True):
    """A term as a rule spells it: ``args`` has for each operand of ``enode`` the term that the rule names
    there, None for a variable."""

    eclass: int
    enode: ENode
    args: tuple[Term | None, ...]


class Fact(Struct, frozen=True):
    """A row of a relation: ``args`` are pairs of sort and value; a value of sort T is an e-class, or the term
    that the rule names there."""

    name: str
    args: tuple[tuple[str, Any], ...]


class Step(Struct, frozen=True):
    """One firing of ``rule``. ``needs`` are the matches, by number, that built what this one matched;
    ``variables`` has pairs of sort and value."""

    number: int
    rule: str
    matched: tuple[Term | Fact, ...]
    built: tuple[Term | Fact, ...]
    variables: Mapping[str, tuple[str, Any]]
    needs: tuple[int, ...]


class Provenance:
    """The matches of a saturated e-graph. Nothing is read before it is asked for."""

    def __init__(
        self, reader: Reader, book: RuleBook, graph: Graph, roots: Mapping[str, int], given: str
    ) -> None:
        """``given`` is the ruleset whose facts are not accounted for: types and constness."""
        self.reader = reader
        self.book = book
        self.graph = graph
        self.roots = roots
        self.given = given
        self.tables = Tables(reader.egraph, reader.functions, book)
        self.rules = [rule for rule in book.rules if is_recorded(rule) and rule.ruleset != given]

    @cached_property
    def matches(self) -> list[Match]:
        """Every match of every rule, in file order."""
        found: list[Match] = []
        for rule in self.rules:
            rows = self.reader.rows(table(rule))
            if rows:
                found += matches_of(make_plan(rule, self.tables), rows, self.tables)
        return found

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How often each rule matched."""
        return {rule.name: len(rows) for rule in self.book.rules if (rows := self.reader.rows(table(rule)))}

    @cached_property
    def original(self) -> Mapping[ENode, tuple[str, ...]]:
        """The e-nodes of the model's own terms, and the values that they compute (none for parts of a
        term)."""
        terms = PlainTerms(self.roots, {enode: eclass for _, _, eclass, enode in self.reader.entries})
        encoded = encode(self.graph, terms)  # type: ignore[arg-type]
        names = {number: name for name, number in encoded.ids.items()}
        found: dict[ENode, tuple[str, ...]] = dict.fromkeys(terms.enodes, ())
        for number, enode in terms.values:
            found[enode] = (*found.get(enode, ()), names[number])
        return found

    @cached_property
    def item_of(self) -> Mapping[ENode, Item]:
        """The row of every e-node."""
        return {enode: (name, tuple(row.inputs)) for name, row, _, enode in self.reader.entries}

    @cached_property
    def builder(self) -> Mapping[Item, int]:
        """The match that first built each derived row; a negative number for what is given."""
        known: dict[Item, int] = {self.item_of[enode]: _GIVEN for enode in self.original}
        known |= {(NAME, tuple(row.inputs)): _GIVEN for row in self.reader.rows(NAME)}
        accounted = self._accounted_relations()
        known |= dict.fromkeys(self._stated(accounted), _GIVEN)
        waiting: dict[Item, list[int]] = {}
        missing: list[int] = []
        ready: deque[int] = deque()
        for number, match in enumerate(self.matches):
            needs = {i for i in match.items(left=True) if i not in known and self._is_accounted(i, accounted)}
            missing.append(len(needs))
            for item in needs:
                waiting.setdefault(item, []).append(number)
            if not needs:
                ready.append(number)
        while ready:
            number = ready.popleft()
            for item in self.matches[number].items(left=False):
                if item in known:
                    continue
                known[item] = number
                for waiter in waiting.get(item, ()):
                    missing[waiter] -= 1
                    if missing[waiter] == 0:
                        ready.append(waiter)
        return known

    def _accounted_relations(self) -> frozenset[str]:
        """The relations that rules state, but none of the given ruleset."""
        stated: dict[bool, set[str]] = {True: set(), False: set()}
        for rule in self.book.rules:
            heads = {action.head for action in rule.actions if isinstance(action, s.Call)}
            stated[rule.ruleset == self.given] |= heads
        return frozenset(stated[False] - stated[True])

    def _is_accounted(self, item: Item, relations: frozenset[str]) -> bool:
        return item[0] in relations or not self.tables.is_relation(item[0])

    def _stated(self, relations: frozenset[str]) -> list[Item]:
        """The facts that rule files state outright."""
        return [
            (command.head, tuple(map(self.tables.constant, command.args)))
            for command in self.book.declarations
            if isinstance(command, s.Call) and command.head in relations
        ]

    def derivation(self, enodes: Iterable[ENode], within: Callable[[int], bool] | None = None) -> list[int]:
        """The matches that lead from the model's terms to ``enodes``, in an order in which they can be
        replayed.

        With ``within``, only terms of e-classes that it holds for are traced back; others are taken as they
        are.
        """
        order: list[int] = []
        state: dict[int, bool] = {}  # False: begun, True: done
        stack = [number for enode in enodes if (number := self.builder.get(self.item_of[enode], _GIVEN)) >= 0]
        stack.reverse()
        while stack:
            number = stack[-1]
            if number in state:
                stack.pop()
                if not state[number]:
                    state[number] = True
                    order.append(number)
                continue
            state[number] = False
            stack += [need for need in self.needs(number, within) if need not in state]
        return order

    def needs(self, number: int, within: Callable[[int], bool] | None = None) -> list[int]:
        """The matches that built what match ``number`` matched."""
        found: dict[int, None] = {}
        for item in self.matches[number].items(left=True):
            builder = self.builder.get(item, _GIVEN)
            if builder < 0:
                continue
            if within is not None and not self.tables.is_relation(item[0]):
                eclass = self.reader.number(self.tables.of(item[0])[item[1]])
                if not within(eclass):
                    continue
            found[builder] = None
        return list(found)

    def step(self, number: int) -> Step:
        """A match in plain values."""
        match = self.matches[number]
        decoder = _Decoder(self, match)
        sorts = match.plan.rule.variables
        variables = {
            name: (sort, self.reader.decode(sort, value))
            for (name, sort), value in zip(sorts, match.values, strict=False)
            if sort in DECODED
        }
        return Step(
            number,
            match.plan.rule.name,
            tuple(term for i in match.plan.matched if (term := decoder.node(i)) is not None),
            tuple(term for i in match.plan.built if (term := decoder.node(i)) is not None),
            variables,
            tuple(self.needs(number)),
        )

    @cached_property
    def consumers(self) -> Mapping[Item, list[int]]:
        """The matches that matched each row."""
        found: dict[Item, list[int]] = {}
        for number, match in enumerate(self.matches):
            for item in match.items(left=True):
                found.setdefault(item, []).append(number)
        return found

    @cached_property
    def built_by(self) -> Mapping[Item, list[int]]:
        """All matches that built each row."""
        found: dict[Item, list[int]] = {}
        for number, match in enumerate(self.matches):
            for item in match.items(left=False):
                found.setdefault(item, []).append(number)
        return found

    def rule_of(self, number: int) -> str:
        """The rule of a match."""
        return self.matches[number].plan.rule.name


class _Decoder:
    """The terms of one match."""

    def __init__(self, provenance: Provenance, match: Match) -> None:
        self.reader = provenance.reader
        self.tables = provenance.tables
        self.match = match

    def node(self, index: int) -> Term | Fact | None:
        """A node of the plan; None where its row is gone, and where it only names a value of the model."""
        row = self.match.rows[index]
        if row is None or row[0] == NAME:
            return None
        name, inputs = row
        pattern = self.match.plan.nodes[index]
        if pattern.kind == "fact":
            sorts = self.tables.operators[name].inputs
            args = tuple((sort, self.reader.decode(sort, v)) for sort, v in zip(sorts, inputs, strict=True))
            terms = iter(self.args(pattern))
            named = (next(terms) if sort in ("T", "Multi") else None for sort in sorts)
            return Fact(
                name,
                tuple(
                    (s, v) if term is None else (s, term) for (s, v), term in zip(args, named, strict=True)
                ),
            )
        eclass = self.reader.number(self.tables.of(name)[inputs])
        return Term(eclass, self.enode(name, inputs), self.args(pattern))

    def enode(self, name: str, inputs: tuple[Any, ...]) -> ENode:
        """The e-node of a row; a constructor that a rule file declared is called as it is there."""
        if name in KNOWN:
            return self.reader.node(name, list(inputs))
        sorts = self.tables.operators[name].inputs
        pairs = list(zip(sorts, inputs, strict=True))
        children = tuple(self.reader.number(value) for sort, value in pairs if sort in ("T", "Multi"))
        attrs = [
            (f"{sort}{i}", self.reader.decode(sort, v))
            for i, (sort, v) in enumerate(pairs)
            if sort in ATTRIBUTES
        ]
        return ENode(name, children, tuple(attrs))

    def args(self, pattern: PatternNode) -> tuple[Term | None, ...]:
        """The terms at the operands of a pattern."""
        found: list[Term | None] = []
        for sort, ref in zip(self.tables.operators[pattern.head].inputs, pattern.refs, strict=True):
            if sort in ("T", "Multi"):
                term = self.node(~ref) if ref is not None and ref < 0 else None
                found.append(term if isinstance(term, Term) else None)
        return tuple(found)


def fusions(reader: Reader, book: RuleBook) -> dict[tuple[int, int], str]:
    """The facts ``(may-fuse producer consumer)``, each with the first rule in file order that stated it."""
    found = {
        (reader.number(row.inputs[0]), reader.number(row.inputs[1])): "a fact of a rule file"
        for row in reader.rows("may-fuse")
    }
    for rule in reversed(book.rules):
        stated = [a for a in rule.actions if isinstance(a, s.Call) and a.head == "may-fuse"]
        if not stated or not is_recorded(rule):
            continue
        place = {name: i for i, (name, _) in enumerate(columns(rule))}
        for fact in stated:
            producer, consumer = (place[arg.name] for arg in fact.args if isinstance(arg, s.Var))
            for row in reader.rows(table(rule)):
                found[reader.number(row.inputs[producer]), reader.number(row.inputs[consumer])] = rule.name
    return found

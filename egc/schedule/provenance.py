"""Which rules led to which cells: the matches that the rules recorded, applied again.

Every rule's matches are rows of its own table (egc.rules.provenance): the values of its variables. A match
took the terms of the rule's left side and made those of its right side. Starting from the undecided loops,
the matches whose left sides are there make one derivation for every term of the e-graph; the rules of a
nest are those on the way to its loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from egc.rules import Rule
from egc.rules import syntax as s
from egc.rules.provenance import columns, is_recorded, table

Term: TypeAlias = "tuple[str, tuple[Any, ...]]"  # constructor, egglog's values of its arguments
Reading: TypeAlias = "Callable[[Sequence[Any], list[int]], Any]"  # a term's value, given the row of a match

_NESTS = ("Do", "For", "DoPacked", "DoAhead", "Then")
_KINDS = ("Whole", "Seq", "Par", "Unroll", "Vec", "Block", "Thread")


class Match(Struct, frozen=True):
    """One match of a rule: the terms that it found and those that it made, by number."""

    rule: str
    found: tuple[int, ...]
    made: tuple[int, ...]


class Derivation:
    """How the terms of a loop e-graph came about. `tables` are egglog's frozen tables, `literals` its
    values of the integers that occur in them. Terms are numbered in the order of the tables, so that all is
    the same in every run.
    """

    def __init__(self, tables: Mapping[str, Any], literals: Mapping[int, Any], rules: Sequence[Rule]) -> None:
        self.tables, self.literals = tables, literals
        self.outputs: dict[Term, Any] = {}
        self.numbers: dict[Term, int] = {}
        for name in (*_NESTS, *_KINDS):
            for row in tables[name].rows if name in tables else ():
                term = (name, tuple(row.inputs))
                self.outputs[term] = row.output
                self.numbers[term] = len(self.numbers)
        self.matches = [match for rule in rules if is_recorded(rule) for match in self._matches(rule)]
        self.cause = self._derive()

    def rules_of(self, terms: Iterable[Term]) -> set[str]:
        """The names of the rules on the way to `terms`."""
        names: set[str] = set()
        waiting = [self.numbers[term] for term in terms]
        seen = set(waiting)
        while waiting:
            match = self.cause.get(waiting.pop())
            if match is None:
                continue
            names.add(match.rule)
            new = [term for term in match.found if term not in seen]
            seen.update(new)
            waiting += new
        return names

    def through(self, rule: str) -> set[int]:
        """The numbers of the terms on whose way a rule is."""
        found: dict[int, bool] = {}
        for start in self.cause:
            waiting = [start]
            while waiting:
                term = waiting[-1]
                match = self.cause.get(term)
                below = () if match is None or match.rule == rule else match.found
                missing = [other for other in below if other not in found]
                waiting += missing
                if not missing:
                    waiting.pop()
                    made = match is not None and match.rule == rule
                    found[term] = made or any(found[other] for other in below)
        return {term for term, is_through in found.items() if is_through}

    def _matches(self, rule: Rule) -> Iterator[Match]:
        places = {name: place for place, (name, _) in enumerate(columns(rule))}
        left = [self._reading(side, places) for fact in rule.premises for side in _sides(fact)]
        right = [
            self._reading(action.right, places) for action in rule.actions if isinstance(action, s.Union)
        ]
        for row in self.tables[table(rule)].rows:
            found: list[int] = []
            made: list[int] = []
            for read in left:
                read(row.inputs, found)
            for read in right:
                read(row.inputs, made)
            yield Match(rule.name, tuple(found), tuple(made))

    def _reading(self, expr: s.Expr, places: Mapping[str, int]) -> Reading:
        """How to evaluate an expression under a match; it appends the numbers of the nests that the
        expression names.
        """
        match expr:
            case s.Var(name=name) if name in places:
                place = places[name]
                return lambda row, _: row[place]
            case s.Lit(value=int(number)):
                literal = self.literals.get(number)
                return lambda row, _: literal
            case s.Call(head=head, args=()):
                kind = self.outputs.get((head, ()))
                return lambda row, _: kind
            case s.Call(head=head, args=args):
                parts = [self._reading(arg, places) for arg in args]
                numbers, outputs = self.numbers, self.outputs

                def read(row: Sequence[Any], terms: list[int]) -> Any:
                    term = (head, tuple([part(row, terms) for part in parts]))
                    number = numbers.get(term)
                    if number is not None:
                        terms.append(number)
                    return outputs.get(term)

                return read
        return lambda row, _: None

    def _derive(self) -> dict[int, Match]:
        """For every term but the given ones, the first match that makes it of terms that are there."""
        readers: dict[int, list[int]] = {}
        missing: list[int] = []
        for number, match in enumerate(self.matches):
            needed = set(match.found)
            missing.append(len(needed))
            for term in needed:
                readers.setdefault(term, []).append(number)
        new = self._given()
        known = set(new)
        ready = [number for number, count in enumerate(missing) if not count]
        cause: dict[int, Match] = {}
        while new or ready:
            for term in new:
                for number in readers.get(term, ()):
                    missing[number] -= 1
                    if not missing[number]:
                        ready.append(number)
            new = []
            for number in ready:
                for term in self.matches[number].made:
                    if term not in known:
                        known.add(term)
                        cause[term] = self.matches[number]
                        new.append(term)
            ready = []
        return cause

    def _given(self) -> list[int]:
        """The terms that the e-graph began with: bodies, whole axes, stages one after the other."""
        extents = {tuple(row.inputs) for row in self.tables["extent"].rows}
        whole = self.outputs.get(("Whole", ()))
        made = {term for match in self.matches for term in match.made}
        return [
            number
            for (head, args), number in self.numbers.items()
            if head == "Do"
            or (head == "Then" and number not in made)
            or (head == "For" and args[3] == whole and (args[0], args[2]) in extents)
        ]


def _sides(fact: s.Fact) -> Iterator[s.Expr]:
    if isinstance(fact, s.Eq):
        yield from (fact.left, fact.right)
    elif isinstance(fact, s.Call) and fact.head in _NESTS:
        yield fact

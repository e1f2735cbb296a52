"""Which premise of a rule fails first, asked of the saturated e-graph itself.

A rule's premises are flattened into atoms, one operator each, and ever longer prefixes of them are run as
queries. The first prefix without a match ends in the atom that fails; a match of the prefix before it is the
nearest candidate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from egc.egraph import Snapshot
from egc.egraph.reading import DECODED
from egc.explain.again import Again
from egc.explain.terms import TermPrinter
from egc.rules import Rule
from egc.rules import syntax as s
from egc.rules.emit import Emitter
from egc.rules.environment import Operator
from egc.rules.primitives import SIGNATURES
from egc.rules.printer import show

TENSORS = ("T", "Multi")
_serial = count()  # every query has a ruleset and a relation of its own


class Failure(Struct, frozen=True):
    """How far a rule gets: ``held`` of ``total`` atoms match together, ``atom`` is the next one (None where
    all hold).

    ``candidates`` is the number of matches of the atoms that hold, ``candidate`` what the variables of one of
    them are.
    """

    held: int
    total: int
    atom: str | None
    candidates: int
    candidate: dict[str, str]


def failure(known: Again, rule: str, titles: Collection[str] = ()) -> Failure:
    """Where a rule fails in a record's model, at the ONNX nodes of these titles or anywhere."""
    book = known.book()
    nodes = known.imported.graph.nodes
    values = [name for node in nodes if not set(titles).isdisjoint(node.sources) for name in node.outputs]
    return first_failure(known.snapshot(book), book.rule(rule), values)


def first_failure(snapshot: Snapshot, rule: Rule, values: Sequence[str] = ()) -> Failure:
    """Where ``rule`` fails, at the values of the model named in ``values`` or anywhere; the furthest it
    gets."""
    assert snapshot.provenance is not None, "a saturated e-graph knows its provenance"
    reader, printer = snapshot.provenance.reader, TermPrinter(snapshot)

    def shown(sort: str, value: Any) -> str | None:
        return printer.described(sort, reader.decode(sort, value)) if sort in DECODED else None

    prober = Prober(reader.egraph, snapshot.provenance.tables.operators, rule, shown, TENSORS)
    starts: list[int | None] = [i for i, name in enumerate(snapshot.roots) if name in values]
    return furthest(prober.probe(start) for start in starts or [None])


def furthest(failures: Iterable[Failure]) -> Failure:
    """The failure that comes last in its rule's premises, the first of several."""
    return max(failures, key=lambda failure: failure.held)


class Prober:
    """Tries the premises of one rule on an egglog e-graph. ``terms`` are the sorts whose nested terms become
    premises of their own; ``shown`` is the text of a value of some sort, None for one that says nothing.
    """

    def __init__(
        self,
        egraph: Any,
        operators: Mapping[str, Operator],
        rule: Rule,
        shown: Callable[[str, Any], str | None],
        terms: Collection[str],
    ) -> None:
        self.egraph = egraph
        self.operators = operators
        self.rule = rule
        self.shown = shown
        self.terms = terms
        self.sorts = dict(rule.variables)
        self.spelled: dict[str, str] = {"egc-root": "the result"}
        self.atoms = list(self.ordered(list(self.flattened())))

    def flattened(self) -> Iterator[s.Fact]:
        """The premises, one tensor operator in each; what is nested gets a variable of its own."""
        fresh = count(1)
        queue = deque(self.rule.premises)
        while queue:
            fact = queue.popleft()
            inner: list[s.Fact] = []
            if isinstance(fact, s.Eq):
                yield s.Eq(self.flat(fact.left, inner, fresh), self.flat(fact.right, inner, fresh), fact.span)
            else:
                yield self.flat(fact, inner, fresh)
            queue.extendleft(reversed(inner))

    def flat(self, expr: s.Expr, inner: list[s.Fact], fresh: Iterator[int]) -> s.Expr:
        if not isinstance(expr, s.Call) or expr.head in SIGNATURES:
            return expr
        args: list[s.Expr] = []
        for arg, sort in zip(expr.args, self.operators[expr.head].inputs, strict=True):
            if sort in self.terms and isinstance(arg, s.Call):
                name = s.Var(f"egc-term{next(fresh)}", arg.span)
                self.sorts[name.name] = sort
                self.spelled[name.name] = show(arg)
                inner.append(s.Eq(name, arg, arg.span))
                arg = name
            args.append(arg)
        return s.Call(expr.head, tuple(args), expr.span, expr.head_span)

    def ordered(self, atoms: list[s.Fact]) -> Iterator[s.Fact]:
        """The atoms, those that only compute behind those that bind their variables."""
        bound: set[str] = set()
        while atoms:
            ready = next(
                (a for a in atoms if not self.computes(a) or self.names(a, inputs=True) <= bound), atoms[0]
            )
            atoms.remove(ready)
            bound |= self.names(ready)
            yield ready

    def computes(self, fact: s.Fact) -> bool:
        """Whether an atom has primitives only and finds nothing by itself."""
        return not any(
            isinstance(part, s.Call) and part.head in self.operators
            for e in s.fact_exprs(fact)
            for part in s.walk(e)
        )

    def names(self, fact: s.Fact, inputs: bool = False) -> set[str]:
        """The variables of an atom; with ``inputs``, without one that the atom itself gives a value."""
        exprs = s.fact_exprs(fact)
        if inputs and len(exprs) == 2 and any(isinstance(e, s.Call) for e in exprs):
            exprs = tuple(e for e in exprs if not isinstance(e, s.Var))
        return {
            part.name
            for e in exprs
            for part in s.walk(e)
            if isinstance(part, s.Var) and part.name in self.sorts
        }

    def probe(self, start: int | None) -> Failure:
        """How far the atoms match; the root is value number ``start``, where one is given."""
        pins = self.pins(start)
        last: list[Any] = []
        names: list[str] = []
        for held in range(len(self.atoms)):
            rows, found = self.query([*pins, *self.atoms[: held + 1]])
            if not rows:
                candidate = self.named(names, last[0]) if last else {}
                return Failure(held, len(self.atoms), self.text(self.atoms[held]), len(last), candidate)
            last, names = rows, found
        return Failure(len(self.atoms), len(self.atoms), None, len(last), self.named(names, last[0]))

    def pins(self, start: int | None) -> list[s.Fact]:
        """The premise that the rule's root is a certain value."""
        first = self.atoms[0]
        if start is None or not isinstance(first, s.Eq):
            return []
        root = next((e for e in s.fact_exprs(first) if isinstance(e, s.Var)), None)
        if root is None or self.sorts.get(root.name) not in self.terms:
            return []
        span = first.span
        return [s.Eq(root, s.Call("Id", (s.Lit(start, span),), span, span), span)]

    def query(self, facts: list[s.Fact]) -> tuple[list[Any], list[str]]:
        """The matches of ``facts`` together: rows of the values of the variables that are named."""
        names = sorted(set().union(*map(self.names, facts)))
        span = self.rule.span
        name, ruleset_name = (
            f"egc-{kind}-{serial}" for serial in (next(_serial),) for kind in ("probe", "probing")
        )
        relation = s.RelationDecl(s.Name(name, span), tuple(s.Name(self.sorts[n], span) for n in names), span)
        row = s.Call(name, tuple(s.Var(n, span) for n in names), span, span)
        rule = replace(
            self.rule, name=ruleset_name, ruleset=ruleset_name, premises=tuple(facts), actions=(row,)
        )
        emitter = Emitter()
        ruleset = s.RulesetDecl(s.Name(ruleset_name, span), None, span)
        commands = [emitter.declaration(relation), emitter.declaration(ruleset), *emitter.rule(rule, False)]
        self.egraph.run_program(*commands)
        self.egraph.run_program(*self.egraph.parse_program(f"(run {ruleset_name} 1)"))
        return self.egraph.freeze().functions[name].rows, names

    def named(self, names: Sequence[str], row: Any) -> dict[str, str]:
        """The variables of a match as text; a term within a term goes by its pattern."""
        found = {}
        for name, value in zip(names, row.inputs, strict=True):
            if (text := self.shown(self.sorts[name], value)) is not None:
                found[self.spelled.get(name, name)] = text
        return found

    def text(self, atom: s.Fact) -> str:
        """An atom as the rule's author would write it: `_` stands for the terms within."""
        if isinstance(atom, s.Eq):
            for side, other in ((atom.left, atom.right), (atom.right, atom.left)):
                if isinstance(side, s.Var) and side.name in self.spelled:
                    return self.text(other)
            return f"(= {self.text(atom.left)} {self.text(atom.right)})"
        if isinstance(atom, s.Var):
            return "_" if atom.name in self.spelled else atom.name
        if isinstance(atom, s.Call):
            return f"({' '.join([atom.head, *map(self.text, atom.args)])})"
        return show(atom)

"""Loop rules tried out: a rule's left side is looked for in the nests of small kernels, and the nest that has
the right side in its place must compute every point once, in an order that is allowed, and give the same.

A rule is tried by a copy of it that writes its matches down and changes nothing, in the e-graph of the rules
that were found sound before it. So what is compared with is right, whatever the rule does.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import cycle, islice
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from egc.rules import syntax as s
from egc.rules.book import Loaded, RuleBook
from egc.rules.notes import RuleClass
from egc.rules.provenance import table
from egc.rules.rule import Rule
from egc.schedule.cells import RULESET, LoopGraph, Reader, Saturator
from egc.soundness.nest_cases import ROUNDS, Case, cases, simpler_cases
from egc.soundness.nest_run import Broken, Ran, misfit, race, run
from egc.soundness.nest_terms import Instance, Meaningless, Term, Terms, placed, size
from egc.soundness.premises import Definition
from egc.soundness.values import Rejected

WATCH = "egc-watch"  # the ruleset of the copies, and what their names begin with
MATCHES = 3  # of a rule in a case that are tried, each several times where there are fewer
SPARES = (0, 2, 6)  # how much deeper than the smallest the terms round and inside a match are
ROWS, SECONDS = 1500, 2.0  # of one e-graph
TRIED = 90  # pairs of nests after which a rule serves others, and as many in the e-graph that these make
LARGEST = 256  # size of a rule's own that a case is made for
BUDGET = 90.0  # seconds of this process for all rules of a check
_FLOATS = 1e-4  # what sums in another order may differ by, relative to the greatest result

Row: TypeAlias = "tuple[str | int | None, ...]"


class NestFailure(Struct, frozen=True):
    """A nest that a rule makes wrong. `culprit` is the action that did it; `by` the rule that acted on a fact
    that the culprit `stated`, where it was one.
    """

    case: Case
    why: str
    before: Term
    after: Term
    left: Ran
    right: Ran | None
    culprit: s.Action
    by: Rule | None = None
    stated: Row | None = None
    rounding: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """What makes one counterexample smaller than another: points, then loops."""
        return sum(v.size for v in self.left.visits), size(self.before) + size(self.after)


class NestResult(Struct):
    """What is known of one rule: how many pairs of nests were compared, and a failure."""

    tried: int = 0
    failure: NestFailure | None = None


class NestSearch(Struct, dict=True):
    """The search for counterexamples of some loop rules of what is `loaded`. The same rules give the same
    results; `out_of_time` says that the budget was hit. `rounds` are those of cases.
    """

    loaded: Loaded
    rules: Sequence[Rule]
    definitions: Mapping[str, Definition]
    budget: float = BUDGET
    rounds: Sequence[int] = ROUNDS
    results: dict[str, NestResult] = field(default_factory=dict)
    out_of_time: bool = False
    started: float = 0.0

    def run(self) -> dict[str, NestResult]:
        """The result for every rule, by name."""
        self.started = time.process_time()
        self.results = {rule.name: NestResult() for rule in self.rules}
        names = set(self.results)
        sound = [r for r in self.loaded.rules if r.ruleset == RULESET and r.name not in names]
        waiting = list(self.rules)
        while waiting:
            self.watch(sound, waiting, self.rounds)
            fit = [r for r in waiting if self.holds(r) and (self.results[r.name].tried or not unions(r))]
            for rule in fit:
                self.state([*sound, *(r for r in fit if self.holds(r) and r is not rule)], rule)
            waiting = [r for r in waiting if self.holds(r) and r not in fit]
            new = [r for r in fit if self.holds(r)]
            sound += new
            if not new:
                break
        self.watch(sound, [r for r in sound if r.name in names and unions(r)], self.rounds[1:3])
        return self.results

    def holds(self, rule: Rule) -> bool:
        """Whether nothing was found wrong with a rule."""
        return self.results[rule.name].failure is None

    def watch(self, sound: Sequence[Rule], rules: Sequence[Rule], rounds: Iterable[int]) -> None:
        """Compare pairs of nests for `rules`, in the e-graph of the `sound` ones, in some rounds of cases."""
        goal = {rule.name: self.results[rule.name].tried + TRIED for rule in rules}
        watcher = Watcher(self.loaded, sound, rules)
        for case in self.cases(rules, rounds):
            left = [r for r in rules if self.holds(r) and self.results[r.name].tried < goal[r.name]]
            if not left:
                return
            for rule, failure in self.failing(watcher, left, case):
                simpler = (f for one in simpler_cases(case) for _, f in self.failing(watcher, [rule], one))
                self.results[rule.name].failure = next(simpler, failure)

    def failing(
        self, watcher: Watcher, rules: Sequence[Rule], case: Case
    ) -> Iterator[tuple[Rule, NestFailure]]:
        """Those of some rules that a case has a counterexample of, with the smallest one."""
        for rule, instances in watcher.matches(case, self.possible(rules, case)):
            tries = self.failures(rule, instances, case, self.results[rule.name], tolerance(rule))
            found = [failure for _, failure in tries if failure is not None]
            if found:
                yield rule, min(found, key=lambda f: f.size)

    def state(self, sound: Sequence[Rule], rule: Rule) -> None:
        """Look at what other rules make of the facts that `rule` states."""
        facts = [a for a in rule.actions if isinstance(a, s.Call) and self.is_relation(a.head)]
        if not facts:
            return
        asked = [
            other
            for other in (*sound, rule)
            if any(isinstance(p, s.Call) and p.head in {f.head for f in facts} for p in other.premises)
        ]
        watcher = Watcher(self.loaded, [*sound, rule], asked)
        heads = {fact.head for fact in facts}
        enough = self.results[rule.name].tried + 2 * TRIED
        for case in self.cases([rule, *asked], self.rounds):
            if self.results[rule.name].tried > enough:
                return
            if not self.possible([rule], case):
                continue
            for other, instances in watcher.matches(case, self.possible(asked, case), heads):
                allowed = max(tolerance(other), tolerance(rule))
                result = self.results[rule.name]
                for values, failure in self.failures(other, instances, case, result, allowed):
                    if failure is not None:
                        row = next(new_rows(other, values, case, heads))
                        culprit = next(fact for fact in facts if fact.head == row[0])
                        result.failure = replace(failure, culprit=culprit, by=other, stated=row)
                        return

    def possible(self, rules: Sequence[Rule], case: Case) -> list[Rule]:
        """Those of some rules whose tables have rows in a case, or may get some from a rule."""
        filled = {head for head, rows in case.facts.rows.items() if rows} | self.made
        return [rule for rule in rules if rule.needs <= filled]

    @cached_property
    def made(self) -> set[str]:
        """The tables that get rows from a rule or a declaration, or that the nest is made of."""
        found = {"Do", "For", "Then", "outermost"}
        found |= {c.head for c in self.loaded.declarations if isinstance(c, s.Call)}
        return found.union(*(rule.makes for rule in (*self.loaded.rules, *self.rules)))

    def is_relation(self, head: str) -> bool:
        """Whether facts of that name are rows without a value."""
        operator = self.loaded.environment.operators.get(head)
        return operator is not None and operator.output == "Unit"

    def cases(self, rules: Sequence[Rule], rounds: Iterable[int]) -> Iterator[Case]:
        """The cases of some rounds for some rules, until the time is up."""
        for case in cases(sizes(rules, self.loaded), rounds):
            if time.process_time() - self.started > self.budget:
                self.out_of_time = True
                return
            yield case

    def failures(
        self,
        rule: Rule,
        instances: Sequence[tuple[Mapping[str, Any], Terms]],
        case: Case,
        result: NestResult,
        allowed: float,
    ) -> Iterator[tuple[Mapping[str, Any], NestFailure | None]]:
        """Try matches of a rule, in larger and larger contexts: the values of its variables, with None for a
        pair of nests that agrees up to the tolerance `allowed`.
        """
        for number, (values, terms) in enumerate(instances):
            instance = Instance(rule, values, terms, self.definitions, SPARES[number % len(SPARES)])
            for union in unions(rule):
                try:
                    failure = try_union(union, instance, case, allowed)
                    result.tried += 1
                except Rejected:
                    continue
                yield values, failure


def sizes(rules: Sequence[Rule], loaded: Loaded) -> list[int]:
    """The numbers that rules speak of as sizes, and rows of relations that they ask for."""
    heads = {p.head for rule in rules for p in rule.premises if isinstance(p, s.Call)}
    exprs: list[s.Expr] = [c for c in loaded.declarations if isinstance(c, s.Call) and c.head in heads]
    for rule in rules:
        exprs += [e for fact in rule.premises for e in s.fact_exprs(fact)]
        exprs += [e for action in rule.actions for e in s.action_exprs(action)]
    literals = [part.value for expr in exprs for part in s.walk(expr) if isinstance(part, s.Lit)]
    return sorted({size for size in literals if type(size) is int and 2 <= size <= LARGEST})


def new_rows(rule: Rule, values: Mapping[str, Any], case: Case, heads: Collection[str]) -> Iterator[Row]:
    """The rows of tables `heads` that a match of a rule rests on and that are none of the case's own facts:
    name and arguments, None for one that is no plain value.
    """
    sorts = dict(rule.variables)
    for premise in rule.premises:
        if isinstance(premise, s.Call) and premise.head in heads:
            row: list[str | int | None] = []
            for arg in premise.args:
                match arg:
                    case s.Lit(value=str() | int() as value):
                        row.append(value)
                    case s.Var(name=name) if sorts.get(name) in ("String", "i64"):
                        row.append(values[name])
                    case _:
                        row.append(None)
            if tuple(row) not in case.facts.rows.get(premise.head, ()):
                yield (premise.head, *row)


def unions(rule: Rule) -> list[s.Union]:
    """What a rule makes equal."""
    return [action for action in rule.actions if isinstance(action, s.Union)]


def try_union(union: s.Union, instance: Instance, case: Case, allowed: float) -> NestFailure | None:
    """Compare the nests before and after a union, whose results may differ by the tolerance `allowed`. Raises
    Rejected where the one before is not right.
    """
    why, after, right = None, None, None
    try:
        before, after, context = instance.pair(union)
        after = placed(after, context)
    except Meaningless as error:
        raise Rejected(str(error)) from None
    before = placed(before, context)
    if race(before, case) or misfit(before, case):
        raise Rejected("the nest before is none")
    try:
        left = run(before, case)
    except Broken as error:
        raise Rejected(str(error)) from None
    if miscounted(left, case) or not close(left.outputs, case.expected, _FLOATS):
        raise Rejected("the nest before is not right")
    rounding = False
    try:
        right = run(after, case)
        why = miscounted(right, case) or race(after, case) or misfit(after, case)
        if why is None and not close(left.outputs, right.outputs, allowed):
            rounding = close(left.outputs, right.outputs, _FLOATS)
            why = "the two nests round differently" if rounding else "the two nests give different results"
    except Broken as error:
        why = str(error)
    if why is None:
        return None
    return NestFailure(case, why, before, after, left, right, union, rounding=rounding)


def miscounted(ran: Ran, case: Case) -> str | None:
    """The first point that is not computed once; None where there is none."""
    for stage, visits in zip(case.kernel.stages, ran.visits, strict=True):
        wrong = np.argwhere(visits != 1)
        if len(wrong):
            place = tuple(int(i) for i in wrong[0])
            count = int(visits[place])
            at = ", ".join(f"{a.name} = {i}" for a, i in zip(stage.all_axes, place, strict=True))
            often = "never computed" if count == 0 else f"computed {count} times"
            return f"the point {at or '()'} of stage {stage.name} is {often}"
    return None


def close(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], tolerance: float) -> bool:
    """Whether outputs are the same up to a tolerance relative to the greatest of them."""
    for name, one in a.items():
        x, y = one.astype(np.float64), b[name].astype(np.float64)
        most = max(1.0, float(np.abs(x[np.isfinite(x)]).max(initial=0.0)))
        with np.errstate(invalid="ignore"):
            same = (x == y) | (np.isnan(x) & np.isnan(y)) | (np.abs(x - y) <= tolerance * most)
        if not same.all():
            return False
    return True


def tolerance(rule: Rule) -> float:
    """What the results before and after a rule may differ by."""
    match rule.rule_class:
        case RuleClass.EXACT:
            return 0.0
        case RuleClass.REASSOCIATING:
            return _FLOATS
    return rule.notes.error or 1e-2


class Watcher:
    """A loop e-graph that grows by sound rules, in which copies of others write their matches down."""

    def __init__(self, loaded: Loaded, sound: Sequence[Rule], watched: Sequence[Rule]) -> None:
        declarations = tuple(loaded.declarations)
        self.saturator = Saturator(RuleBook(declarations, tuple(sound), {}, loaded.environment))
        nowhere = s.Span(s.Source("<watch>", "\n"), 0, 0)
        mark = s.Call(f"{WATCH}-mark", (), nowhere, nowhere)
        self.copies = {
            rule.name: replace(
                rule,
                name=f"{WATCH}.{rule.name}",
                ruleset=WATCH,
                actions=(*(a for a in rule.actions if isinstance(a, s.Let)), mark),
            )
            for rule in watched
        }
        tables = (
            s.RulesetDecl(s.Name(WATCH, nowhere), None, nowhere),
            s.RelationDecl(s.Name(mark.head, nowhere), (), nowhere),
        )
        book = RuleBook(tables, tuple(self.copies.values()), {}, loaded.environment)
        self.saturator.run_commands(*book.commands())
        self.seen: Counter[tuple[str, Any]] = Counter()
        self.rng = random.Random(0)
        self.look = self.saturator.egraph.parse_program(f"(run {WATCH} 1)")

    def matches(
        self, case: Case, rules: Sequence[Rule], heads: Collection[str] = ()
    ) -> list[tuple[Rule, list[tuple[Mapping[str, Any], Terms]]]]:
        """Some matches of `rules` in the nests of a case: the values of a rule's variables, and the terms.
        Where there are `heads`, those that rest on a row of these tables that is no fact of the case.
        """
        if not rules:
            return []
        with self.saturator.grown(case.facts, SECONDS, ROWS) as stopped:
            self.saturator.run_commands(*self.look)
            reader = Reader(self.saturator.egraph)
            cells = reader.cells()
            graph = LoopGraph(cells, reader.root, stopped, 0.0, lambda _: ())
            terms = Terms(graph, self.rng)
            found: list[tuple[Rule, list[tuple[Mapping[str, Any], Terms]]]] = []
            for rule in rules:
                rows = reader.tables[table(self.copies[rule.name])].rows
                values = [_values(rule, row.inputs, reader) for row in rows]
                if heads:
                    values = [v for v in values if any(new_rows(rule, v, case, heads))]
                chosen = self.chosen(rule, values, case)
                found.append((rule, [(v, terms) for v in islice(cycle(chosen), MATCHES)]))
        return found

    def chosen(self, rule: Rule, matches: Sequence[Mapping[str, Any]], case: Case) -> list[Mapping[str, Any]]:
        """Some matches of a rule, of kinds that were seen least so far: a kind is what a match says of
        numbers, kinds of loops and roles of axes.
        """
        nests = {name for name, sort in rule.variables if sort == "Nest"}
        roles = {row[0]: head for head in ("reduction", "parallel") for row in case.facts.rows.get(head, ())}
        order = []
        for match in matches:
            kind = tuple(roles.get(value, value) for name, value in match.items() if name not in nests)
            order.append((self.seen[rule.name, kind], self.rng.random(), kind, match))
        order.sort(key=lambda entry: entry[:2])
        for _, _, kind, _ in order[:MATCHES]:
            self.seen[rule.name, kind] += 1
        return [match for *_, match in order[:MATCHES]]


def _values(rule: Rule, row: Sequence[Any], reader: Reader) -> dict[str, Any]:
    """The values of a rule's variables in a match; those of other sorts than loops have are left out."""
    read = {
        "String": reader.string,
        "i64": reader.integer,
        "Nest": reader.number,
        "LoopKind": lambda value: reader.kinds.get(value, "?"),
    }
    pairs = zip(rule.variables, row, strict=True)
    return {name: read[sort](value) for (name, sort), value in pairs if sort in read}

"""Loop rules tried out: a rule's left side is looked for in the nests of small kernels, and the nest that has
the right side in its place must compute every point once, in an order that is allowed, and give the same.

A rule is tried by a copy of it that writes its matches down and changes nothing, in the e-graph of the rules
that were found sound before it. So what is compared with is right, whatever the rule does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from egc.rules import syntax as s
from egc.rules.book import Loaded, RuleBook
from egc.rules.notes import RuleClass
from egc.rules.provenance import table
from egc.rules.rule import Rule
from egc.schedule.cells import RULESET, LoopGraph, Reader, Saturator
from egc.soundness.nest_cases import Case, cases
from egc.soundness.nest_run import Broken, Ran, misfit, race, run
from egc.soundness.nest_terms import Instance, Meaningless, Term, Terms, placed, size
from egc.soundness.premises import Definition
from egc.soundness.values import Rejected

WATCH = "egc-watch"  # the ruleset of the copies, and what their names begin with
MATCHES = 6  # of a rule in a case that are tried, each several times where there are fewer
SPARES = (0, 2, 6)  # how much deeper than the smallest the terms round and inside a match are
ROWS, SECONDS = 1500, 2.0  # of one e-graph
TRIED, MANY = 16, 200  # pairs of nests after which a rule serves others, and after which it is enough
BUDGET = 90.0  # seconds of this process for all rules of a check
_FLOATS = 1e-4  # what sums in another order may differ by, relative to the greatest result


@dataclass(frozen=True)
class NestFailure:
    """A nest that a rule makes wrong. `culprit` is the action that did it; `by` the rule that acted on a fact
    that the culprit stated, where it was one.
    """

    case: Case
    why: str
    before: Term
    after: Term
    left: Ran
    right: Ran | None
    culprit: s.Action
    by: Rule | None = None
    rounding: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """What makes one counterexample smaller than another: points, then loops."""
        return sum(v.size for v in self.left.visits), size(self.before) + size(self.after)


@dataclass
class NestResult:
    """What is known of one rule: how many pairs of nests were compared, and a failure."""

    tried: int = 0
    failure: NestFailure | None = None


@dataclass
class NestSearch:
    """The search for counterexamples of some loop rules of what is `loaded`. The same rules give the same
    results; `out_of_time` says that the budget was hit.
    """

    loaded: Loaded
    rules: Sequence[Rule]
    definitions: Mapping[str, Definition]
    budget: float = BUDGET
    results: dict[str, NestResult] = field(default_factory=dict)
    out_of_time: bool = False

    def run(self) -> dict[str, NestResult]:
        """The result for every rule, by name."""
        self.started = time.process_time()
        self.results = {rule.name: NestResult() for rule in self.rules}
        names = set(self.results)
        sound = [r for r in self.loaded.rules if r.ruleset == RULESET and r.name not in names]
        waiting = list(self.rules)
        while waiting:
            self.watch(sound, waiting, TRIED)
            fit = [r for r in waiting if self.holds(r) and (self.results[r.name].tried or not unions(r))]
            for rule in fit:
                self.state(sound, rule)
            waiting = [r for r in waiting if self.holds(r) and r not in fit]
            new = [r for r in fit if self.holds(r)]
            sound += new
            if not new:
                break
        self.watch(sound, [r for r in sound if r.name in names], MANY)
        return self.results

    def holds(self, rule: Rule) -> bool:
        """Whether nothing was found wrong with a rule."""
        return self.results[rule.name].failure is None

    def watch(self, sound: Sequence[Rule], rules: Sequence[Rule], enough: int) -> None:
        """Compare pairs of nests for `rules`, in the e-graph of the `sound` ones."""
        goal = {rule.name: self.results[rule.name].tried + enough for rule in rules}
        watcher = Watcher(self.loaded, sound, rules)
        for case in self.cases():
            left = [r for r in rules if self.holds(r) and self.results[r.name].tried < goal[r.name]]
            if not left:
                return
            rng = random.Random(f"{case.kernel.name} {len(left)}")
            for rule, instances in watcher.matches(case, left, rng):
                result = self.results[rule.name]
                tries = self.failures(rule, instances, case, result, tolerance(rule))
                found = [f for f in tries if f is not None]
                result.failure = min(found, key=lambda f: f.size, default=None)

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
        for case in self.cases():
            if self.results[rule.name].tried > MANY:
                return
            rng = random.Random(case.kernel.name)
            for other, instances in watcher.matches(case, asked, rng):
                allowed = max(tolerance(other), tolerance(rule))
                for failure in self.failures(other, instances, case, self.results[rule.name], allowed):
                    if failure is not None:
                        head = {p.head for p in other.premises if isinstance(p, s.Call)}
                        culprit = next(f for f in facts if f.head in head)
                        self.results[rule.name].failure = replace(failure, culprit=culprit, by=other)
                        return

    def is_relation(self, head: str) -> bool:
        """Whether facts of that name are rows without a value."""
        operator = self.loaded.environment.operators.get(head)
        return operator is not None and operator.output == "Unit"

    def cases(self) -> Iterator[Case]:
        """All cases, until the time is up."""
        for case in cases():
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
    ) -> Iterator[NestFailure | None]:
        """Try matches of a rule, in larger and larger contexts; None for a pair of nests that agrees up to
        the tolerance `allowed`.
        """
        for number, (values, terms) in enumerate(instances):
            instance = Instance(rule, values, terms, self.definitions, SPARES[number % len(SPARES)])
            for union in unions(rule):
                try:
                    yield try_union(union, instance, case, allowed)
                    result.tried += 1
                except Rejected:
                    continue


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
        self.look = self.saturator.egraph.parse_program(f"(run {WATCH} 1)")

    def matches(
        self, case: Case, rules: Sequence[Rule], rng: random.Random
    ) -> list[tuple[Rule, list[tuple[Mapping[str, Any], Terms]]]]:
        """Some matches of `rules` in the nests of a case: the values of a rule's variables, and the terms."""
        with self.saturator.grown(case.facts, SECONDS, ROWS) as stopped:
            self.saturator.run_commands(*self.look)
            reader = Reader(self.saturator.egraph)
            cells = reader.cells()
            graph = LoopGraph(cells, reader.root, stopped, 0.0, lambda _: ())
            terms = Terms(graph, rng)
            found: list[tuple[Rule, list[tuple[Mapping[str, Any], Terms]]]] = []
            for rule in rules:
                rows = reader.tables[table(self.copies[rule.name])].rows
                chosen = rng.sample(range(len(rows)), min(MATCHES, len(rows)))
                chosen = [chosen[i % len(chosen)] for i in range(MATCHES)] if chosen else []
                found.append((rule, [(_values(rule, rows[i].inputs, reader), terms) for i in chosen]))
        return found


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

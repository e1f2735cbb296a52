"""The examples above rules, run: egglog must find what an example says, and its rule must fire on the way.

    ;; example: (Map2 (Mul) x (Map1 (Sigmoid) x)) => (Map1 (Silu) x)
    ;; example: (Transpose x (P (vec-of 1 0) (vec-of 1 0))) (set (rank x) 2) => (= (rank (Transpose …)) 2)

On the left stand terms and actions, on the right terms and facts: a term on the right must equal the left's
last term. Names without a declaration are free: any e-class will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from egc.rules import syntax as s
from egc.rules.bindings import egglog_bindings
from egc.rules.book import Loaded
from egc.rules.diagnostics import Diagnostic, RuleFileError, once
from egc.rules.emit import Emitter
from egc.rules.environment import Environment, Kind
from egc.rules.notes import Note
from egc.rules.parser import read_example
from egc.rules.rule import Rule
from egc.rules.sorts import Inference
from egc.rules.substitution import in_action, in_fact

ROUNDS = 4  # within which an example comes out
REST_ROUNDS = 30  # within which the e-graph of an example comes to rest
REST_ROWS = 3000  # which it may have on the way; a round may square their number, so the limit is low
_FREE = "egc-free-"


class Example(Struct, frozen=True):
    """An example ready to run: free names are terms by now, and all that is expected are facts."""

    given: tuple[s.Action, ...]
    expected: tuple[s.Fact, ...]
    span: s.Span


def check_examples(rules: Sequence[Rule], loaded: Loaded) -> list[Diagnostic]:
    """Run every example of `rules` under all rules that are loaded. Imports egglog."""
    found: list[Diagnostic] = []
    runner = _Runner(loaded)
    done: set[int] = set()
    for rule in rules:
        if id(rule.form) in done:
            continue
        done.add(id(rule.form))
        names = {r.name for r in loaded.rules if r.form is rule.form}
        for note in rule.notes.examples:
            try:
                example = read(note, loaded.environment)
            except RuleFileError as error:
                found.extend(error.diagnostics)
                continue
            problem = runner.run(example, names)
            if problem:
                found.append(Diagnostic(problem[0], example.span, problem[1]))
    return found


def read(note: Note, environment: Environment) -> Example:
    """An example with sorts checked. Raises RuleFileError."""
    source = note.span.source
    blank = [" "] * len(source.text)
    for span in note.spans:
        blank[span.start : span.end] = source.text[span.start : span.end]
    given, expected = read_example(note.span, "".join(blank))
    inference = Inference(environment, free=True)
    inference.actions(a for a in given if not isinstance(a, s.Var))
    facts = tuple(_fact(f, given, environment) for f in expected)
    inference.facts(facts)
    sorts = inference.finish()
    names = {n: sort for n, sort in sorts.items() if n not in {a.name for a in given if isinstance(a, s.Let)}}
    for name, sort in names.items():
        if not environment.is_eq_sort(sort):
            message = f"`{name}` is of sort {sort}: an example gives its value"
            inference.errors.append(Diagnostic(message, note.span))
    if inference.errors:
        raise RuleFileError(once(inference.errors))
    free: dict[str, s.Expr] = {
        name: s.Call(_FREE + sort, (s.Lit(name, note.span),), note.span, note.span)
        for name, sort in names.items()
    }
    env = {**environment.values, **free}
    return Example(
        tuple(in_action(a, env) for a in given if not isinstance(a, s.Var)),
        tuple(in_fact(f, env) for f in facts),
        note.span,
    )


def _fact(fact: s.Fact, given: Iterable[s.Action], environment: Environment) -> s.Fact:
    """A term on the right is expected to equal the last term on the left."""
    terms = [action for action in given if _is_term(action, environment)]
    if not terms or not _is_term(fact, environment):
        return fact
    last = terms[-1]
    assert isinstance(last, s.Var | s.Call) and isinstance(fact, s.Var | s.Call)
    return s.Eq(last, fact, fact.span)


def _is_term(node: s.Action | s.Fact, environment: Environment) -> bool:
    if not isinstance(node, s.Call):
        return isinstance(node, s.Var)
    operator = environment.operators.get(node.head)
    return operator is not None and operator.kind is Kind.CONSTRUCTOR


class _Runner:
    """Runs examples, each in an e-graph of its own."""

    def __init__(self, loaded: Loaded) -> None:
        self._eg = egglog_bindings()
        self._emitter = Emitter()
        self._rulesets = list(loaded.environment.rulesets)
        self._program = self._emitter.program(loaded.declarations, loaded.rules, provenance=False)
        for sort in loaded.environment.sorts:
            if loaded.environment.is_eq_sort(sort):
                self._program.append(self._emitter.declaration(_free_constructor(sort)))

    def run(self, example: Example, names: set[str]) -> tuple[str, str] | None:
        """What went wrong and a hint; None where all is well. One of the rules `names` must fire."""
        try:
            return self._run(example, names)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic inside egglog arrives as a BaseException
            return "egglog stopped on this example", str(error).strip().replace("\n", " ")

    def _run(self, example: Example, names: set[str]) -> tuple[str, str] | None:
        egraph = self._eg.EGraph()
        egraph.run_program(*self._program)
        for action in example.given:
            egraph.run_program(self._emitter.declaration(action))
        fired = False
        for _ in range(ROUNDS):
            fired |= self._round(egraph, names)[0]
        if not fired:
            return "the rule does not fire on this example", "state the facts that its premises ask for"
        for fact in example.expected:
            if not self._holds(egraph, fact):
                return "this example does not come out", f"not found after {ROUNDS} rounds: {fact.span.text}"
        return self._comes_to_rest(egraph, names)

    def _comes_to_rest(self, egraph: Any, names: set[str]) -> tuple[str, str] | None:
        """Run on until nothing changes. Where that never happens and the rules `names` still fire, they are
        at fault.
        """
        for count in range(REST_ROUNDS):
            fired, changed = self._round(egraph, names)
            if not changed:
                return None
            rows = sum(len(f.rows) for f in egraph.freeze().functions.values())
            if fired and (count == REST_ROUNDS - 1 or rows > REST_ROWS):
                message = f"the rule still fires after {ROUNDS + count + 1} rounds, in {rows} rows"
                return "this example never comes to rest", f"{message}; give it a condition"
        return None

    def _round(self, egraph: Any, names: set[str]) -> tuple[bool, bool]:
        """Run every ruleset once; whether one of the rules `names` fired, and whether anything changed."""
        eg = self._eg
        fired = changed = False
        for ruleset in self._rulesets:
            run = self._emitter.command(f"(run {ruleset} 1)")
            for output in egraph.run_program(run):
                assert isinstance(output, eg.RunScheduleOutput)
                fired |= any(output.report.num_matches_per_rule.get(name, 0) for name in names)
                changed |= output.report.updated
        return fired, changed

    def _holds(self, egraph: Any, fact: s.Fact) -> bool:
        try:
            egraph.run_program(self._emitter.check(fact))
        except self._eg.EggSmolError:
            return False
        return True


def _free_constructor(sort: str) -> s.ConstructorDecl:
    nowhere = s.Span(s.Source("<free>", "\n"), 0, 0)
    name, text, output = (s.Name(n, nowhere) for n in (_FREE + sort, "String", sort))
    return s.ConstructorDecl(name, (text,), output, None, False, nowhere)

"""Equality saturation in phases, under budgets.

A phase is a list of rulesets that run together, one iteration at a time, with the ruleset ``facts`` brought
to rest before each; it ends when nothing changes or a budget is hit. One egglog iteration cannot be
interrupted, so the budgets are checked between iterations, with an eye on how the e-graph grows,
and rules are written to grow slowly (``rules/README.md``). Once the seconds are spent, facts get one
iteration a phase and rules none, but for the first round of all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from msgspec import Struct

from egc.egraph.encode import encode
from egc.egraph.provenance import Provenance, fusions
from egc.egraph.reading import Reader
from egc.egraph.snapshot import ENode, Growth, Snapshot
from egc.egraph.terms import Terms
from egc.egraph.vocabulary import CONSTRUCTORS, NAME, constructor_of
from egc.errors import CompileError
from egc.ir.graph import Graph
from egc.ir.infer import InferError, infer
from egc.ir.types import TensorType
from egc.rules import RuleBook
from egc.rules.bindings import egglog_bindings, run_commands
from egc.rules.emit import Emitter

PHASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("canonical", ("canonical",)),
    ("recognise", ("canonical", "recognise")),
    ("layout", ("canonical", "layout")),
    ("merge", ("canonical", "merge")),
)
FACTS = "facts"
FUSION = "fuse"  # runs after extraction, on the chosen graph
_UNSPELLED = ("const", "input", "output", "host", "topk")  # their e-classes have an Id, or no type to state
_STATED = ("shape", "dtype")  # the facts that type inference states between phases


class Budget(Struct, frozen=True):
    """Limits of saturation: seconds of this thread in all, rows of all tables, rounds a phase.

    Time that others have the processor for does not count: a busy machine compiles to the same program.
    """

    seconds: float = 10.0
    rows: int = 400_000
    rounds: int = 40


def saturate(graph: Graph, book: RuleBook, budget: Budget | None = None) -> Snapshot:
    """The e-graph of ``graph`` under the rules of ``book``.

    Raises CompileError where a rule equates tensors of different type: such a rule is unsound.
    """
    return _Run(graph, book, budget or Budget(), PHASES).saturate()


def saturated(graph: Graph, book: RuleBook, budget: Budget) -> Any:
    """egglog's own e-graph after the phases of :func:`saturate`, for measurements. Raises CompileError."""
    run = _Run(graph, book, budget, PHASES)
    run.run_phases()
    return run.egraph


def legal_fusions(graph: Graph, book: RuleBook, budget: Budget | None = None) -> dict[tuple[str, str], str]:
    """Which (producer, consumer) values of ``graph`` may share a kernel,
    and by which rule of the ruleset ``fuse``.

    This runs in an e-graph of its own, in which every e-class has the one e-node that extraction chose, so
    that a rule speaks of what is computed and not of what could have been. A graph in which no node reads
    another one needs none: it is 0.02 s to tell egglog the rules.
    """
    computed = {name for node in graph.nodes for name in node.outputs}
    if not any(name in computed for node in graph.nodes for name in node.inputs):
        return {}
    reader, name_of = fusion_facts(graph, book, budget)
    return {
        (name_of[producer], name_of[consumer]): rule
        for (producer, consumer), rule in fusions(reader, book).items()
        if producer in name_of and consumer in name_of
    }


def fusion_facts(graph: Graph, book: RuleBook, budget: Budget | None = None) -> tuple[Reader, dict[int, str]]:
    """The e-graph of :func:`legal_fusions`, and the value of ``graph`` that each of its e-classes is."""
    run = _Run(graph, book, budget or Budget(), ((FUSION, (FUSION,)),))
    run.run_phases()
    reader = run.read()
    return reader, {eclass: name.partition("#")[0] for name, eclass in run.roots(reader).items()}


class _Run:
    """One e-graph over its life."""

    def __init__(
        self, graph: Graph, book: RuleBook, budget: Budget, phases: tuple[tuple[str, tuple[str, ...]], ...]
    ) -> None:
        self.graph = graph
        self.phases = phases
        self.book = book.only({FACTS, *(name for _, names in phases for name in names)})
        self.budget = budget
        self.bindings = bindings = egglog_bindings()
        self.egraph = bindings.EGraph()
        self.terms = Terms(bindings)
        self.started = time.thread_time()
        self.growth: list[Growth] = []
        self.overgrown: set[str] = set()  # rulesets that spent the budget of rows: they run no more
        self._reader: Reader | None = None  # of the e-graph as it is

    def run_phases(self) -> None:
        """Tell egglog the rules that can fire and the graph, then run every phase."""
        self.encoded = encode(self.graph, self.terms)
        live = self.book.live({*self.terms.heads, *_STATED})
        self.command(*Emitter().program(live.declarations, live.rules))
        self.command(*self.encoded.commands)
        for phase, rulesets in self.phases:
            self.phase(phase, rulesets)
            if phase != self.phases[-1][0]:
                self.complete_types()

    def saturate(self) -> Snapshot:
        self.run_phases()
        reader = self.read()
        classes = {eclass: tuple(enodes) for eclass, enodes in reader.classes.items()}
        roots = self.roots(reader)
        return Snapshot(
            classes,
            infer_types(classes, _types(reader)),
            frozenset(reader.number(row.inputs[0]) for row in reader.rows("is-const")),
            roots,
            tuple(self.growth),
            Provenance(reader, self.book, self.graph, roots, FACTS),
        )

    def roots(self, reader: Reader) -> dict[str, int]:
        """The e-class of every value of the graph."""
        by_id = {reader.decode("i64", row.inputs[0]): reader.number(row.output) for row in reader.rows(NAME)}
        return {name: by_id[i] for name, i in self.encoded.ids.items()}

    def read(self) -> Reader:
        """The e-graph as it is; reading one of 1,000 nodes takes 0.1 s."""
        if self._reader is None:
            self._reader = Reader(self.egraph)
        return self._reader

    def command(self, *commands: Any) -> list[Any]:
        """Run egglog commands; a panic or an error becomes a CompileError that says what egglog said."""
        return run_commands(
            self.egraph,
            commands,
            "equality saturation failed",
            "rule files",
            "a rule equates tensors that differ in shape or dtype; `egc rules check FILE` finds it",
        )

    def iterate(self, ruleset: str) -> bool:
        """One iteration of a ruleset; whether it changed anything."""
        outputs = self.command(*self.egraph.parse_program(f"(run {ruleset} 1)"))
        changed = any(
            getattr(output, "report", None) is not None and output.report.updated for output in outputs
        )
        if changed:
            self._reader = None
        return changed

    def facts(self) -> None:
        for _ in range(self.budget.rounds):
            if not self.iterate(FACTS) or self.is_late():
                return

    def is_late(self) -> bool:
        """Whether the budget of seconds is spent."""
        return time.thread_time() - self.started > self.budget.seconds

    def phase(self, name: str, rulesets: tuple[str, ...]) -> None:
        started = time.perf_counter()
        stopped, rounds, sizes = "saturated", 0, [self.rows()]
        while True:
            self.facts()
            changed = False
            for ruleset in rulesets:
                # An iteration may take long: but for the first of all, none begins late.
                late = bool(rounds or self.growth) and self.is_late()
                changed |= ruleset not in self.overgrown and (late or self.iterate(ruleset))
            rounds += 1
            if not changed:
                break
            sizes.append(self.rows())
            if reason := self.exhausted(rounds, sizes):
                stopped = reason
                if reason.endswith("rows"):
                    self.overgrown.update(rulesets)
                break
        classes = self.read().classes
        self.growth.append(
            Growth(
                name,
                sum(map(len, classes.values())),
                len(classes),
                time.perf_counter() - started,
                rounds,
                stopped,
            )
        )

    def rows(self) -> int:
        """The rows of all tables."""
        (sizes,) = self.command(*self.egraph.parse_program("(print-size)"))
        return sum(size for _, size in sizes.sizes)

    def exhausted(self, rounds: int, sizes: Sequence[int]) -> str:
        """Which budget is spent, or would be by the next round: egglog cannot be interrupted in it. "" where
        none is. ``sizes`` are the rows before the phase and after each round.
        """
        if rounds >= self.budget.rounds:
            return f"{self.budget.rounds} rounds"
        if self.is_late():
            return f"{self.budget.seconds:g} s"
        # Growth that goes on as it did multiplies by the same factor again; growth that ends shrinks.
        steps = [after - before for before, after in pairwise(sizes)][-2:]
        ahead = steps[1] ** 2 // steps[0] if len(steps) == 2 and steps[1] > steps[0] > 0 else 0
        return f"{self.budget.rows} rows" if sizes[-1] + ahead > self.budget.rows else ""

    def complete_types(self) -> None:
        """State shape and dtype of the e-classes that no rule of ``facts.egg`` reached, by type inference."""
        reader = self.read()
        known = _types(reader)
        classes = reader.classes
        inferred = {c: type_ for c, type_ in infer_types(classes, known).items() if c not in known}
        if not inferred:
            return
        names = _Namer(reader, classes, self.terms)
        commands: list[Any] = []
        for eclass, type_ in inferred.items():
            if (term := names.term(eclass)) is not None:
                commands.append(self.terms.set("shape", [term], self.terms.dims(type_.shape)))
                commands.append(self.terms.set("dtype", [term], self.terms.literal(type_.dtype)))
        if commands:
            self.command(*commands)
            self._reader = None


def _types(reader: Reader) -> dict[int, TensorType]:
    """The types that the tables ``shape`` and ``dtype`` state."""
    dtypes = {
        reader.number(row.inputs[0]): reader.decode("String", row.output) for row in reader.rows("dtype")
    }
    types: dict[int, TensorType] = {}
    for row in reader.rows("shape"):
        eclass = reader.number(row.inputs[0])
        if eclass in dtypes:
            types[eclass] = TensorType(dtypes[eclass], reader.decode("DVec", row.output))
    return types


def infer_types(classes: dict[int, Any], known: dict[int, TensorType]) -> dict[int, TensorType]:
    """``known`` completed for every e-class that has an e-node over typed e-classes."""
    types = dict(known)
    waiting = [eclass for eclass in classes if eclass not in types]
    while waiting:
        left = []
        for eclass in waiting:
            for enode in classes[eclass]:
                if (type_ := _infer_enode(enode, types)) is not None:
                    types[eclass] = type_
                    break
            else:
                left.append(eclass)
        if len(left) == len(waiting):
            break
        waiting = left
    return types


def _infer_enode(enode: ENode, types: dict[int, TensorType]) -> TensorType | None:
    if enode.op == "splat":
        return TensorType(enode.attr("dtype"), ())
    if enode.op in ("input", "const", "output", "host", "topk"):
        return None
    if any(child not in types for child in enode.children):
        return None
    try:
        return infer(enode.op, tuple(types[child] for child in enode.children), dict(enode.attrs))[0]
    except InferError as error:
        raise CompileError(
            "a rule built a term that has no type",
            where=str(enode),
            why=str(error),
            hint="the rule lacks a condition on shapes; `egc rules check FILE` finds it",
        ) from None


class _Namer:
    """Terms for e-classes: their ``Id`` where they have one, else an e-node over terms of its children. None
    is deeper than it has to be: egglog compiles every term anew.
    """

    def __init__(self, reader: Reader, classes: Mapping[int, Sequence[ENode]], terms: Terms) -> None:
        self.terms = terms
        self.ids = {
            reader.number(row.output): reader.decode("i64", row.inputs[0]) for row in reader.rows(NAME)
        }
        self.chosen = _shallowest(classes, self.ids)
        self.found: dict[int, Any] = {}

    def term(self, eclass: int) -> Any | None:
        """The term; None where there is none."""
        if eclass not in self.found:
            self.found[eclass] = self._term(eclass)
        return self.found[eclass]

    def _term(self, eclass: int) -> Any | None:
        terms = self.terms
        if eclass in self.ids:
            return terms.call(NAME, terms.literal(self.ids[eclass]))
        if eclass not in self.chosen:
            return None
        enode = self.chosen[eclass]
        attrs = dict(enode.attrs)
        if enode.op == "splat":
            return terms.call("Splat", terms.literal(attrs["dtype"]), terms.literal(attrs["value"]))
        constructor = constructor_of(enode.op, len(enode.children))
        children = map(self.term, enode.children)
        args = [
            next(children) if name == "operand" else terms.attr(sort, attrs[name])
            for name, sort in CONSTRUCTORS[constructor.name].args
        ]
        return terms.call(constructor.name, *args)


def _shallowest(classes: Mapping[int, Sequence[ENode]], named: Iterable[int]) -> dict[int, ENode]:
    """For every e-class that can be spelled over ``named`` ones, the e-node that nests least."""
    done = set(named)
    chosen: dict[int, ENode] = {}
    left = [eclass for eclass in classes if eclass not in done]
    while True:
        level = {
            eclass: enode
            for eclass in left
            for enode in reversed(classes[eclass])
            if enode.op not in _UNSPELLED and done.issuperset(enode.children)
        }
        if not level:
            return chosen
        chosen.update(level)
        done.update(level)
        left = [eclass for eclass in left if eclass not in level]

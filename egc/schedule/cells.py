"""The loop e-graph as plain values, and its growth under budgets.

Axes have names of their own in here: a shared axis keeps its name, another one of stage ``s`` is called
``s.axis``, since two stages may call different axes the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeAlias

from msgspec import Struct

from egc.resources import loop_rules
from egc.rules import RuleBook, load_rules
from egc.rules import syntax as s
from egc.rules.bindings import egglog_bindings, run_commands
from egc.rules.provenance import table
from egc.schedule.provenance import Derivation

RULESET = "loops"
_FETCHED = "fetched"
_ROOT = "egc-nest"  # the relation that holds the nest of all loops


class Do(Struct, frozen=True):
    """The body of stage number `stage`, reading from panels what `pack` says: (buffer, dim, width). `ahead`:
    the next panel is fetched meanwhile.
    """

    stage: int
    pack: tuple[str, int, int] | None = None
    ahead: bool = False


class For(Struct, frozen=True):
    """A loop over the e-class `child`."""

    axis: str
    step: int
    span: int
    kind: str
    child: int


class Then(Struct, frozen=True):
    """The e-class `first`, then the e-class `second`."""

    first: int
    second: int


Cell: TypeAlias = "Do | For | Then"
Row: TypeAlias = "tuple[str | int, ...]"


class Facts(Struct, frozen=True):
    """What the e-graph is told: the loops of every stage outermost first, as (axis, span), and rows by
    relation.
    """

    stages: tuple[tuple[tuple[str, int], ...], ...]
    rows: Mapping[str, tuple[Row, ...]]


class LoopGraph(Struct, frozen=True):
    """The saturated e-graph: cells by e-class and the root; `stopped` says what ended the search, after
    `seconds`; `fetched` has the pairs of stage and operand of which tiles fetch ahead.
    """

    cells: Mapping[int, tuple[Cell, ...]]
    root: int
    stopped: str
    seconds: float
    rules_of: Callable[[Sequence[Cell]], tuple[str, ...]]
    fetched: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """The number of cells."""
        return sum(map(len, self.cells.values()))


@lru_cache(maxsize=1)
def shipped_loop_rules() -> RuleBook:
    """The rules of rules/loops.egg."""
    return load_rules(loop_rules())


_KINDS = {
    "Whole": "whole",
    "Seq": "seq",
    "Par": "par",
    "Unroll": "unroll",
    "Vec": "vec",
    "Block": "block",
    "Thread": "thread",
}


class Saturator:
    """An e-graph that holds the rules of one book; each kernel's terms come and go with `push` and `pop`."""

    def __init__(self, book: RuleBook) -> None:
        self.eg = bindings = egglog_bindings()
        self.egraph = bindings.EGraph()
        self.span = bindings.RustSpan("loops", 0, 0)
        self.book = book.only({RULESET})
        self.recorded = {rule.name: rule for rule in self.book.rules}
        self.run_commands(*self.book.commands(), *self.egraph.parse_program(f"(relation {_ROOT} (Nest))"))
        self.push, self.pop, self.step = (
            self.egraph.parse_program(text)[0] for text in ("(push)", "(pop)", f"(run {RULESET} 1)")
        )

    def run_commands(self, *commands: Any) -> list[Any]:
        """Run egglog commands; a panic or an error becomes a CompileError that says what egglog said."""
        return run_commands(
            self.egraph,
            commands,
            "the loop e-graph failed",
            "rules of the ruleset `loops`",
            "`egc rules check FILE` finds what is wrong with a rule",
        )

    def saturate(self, facts: Facts, seconds: float, rows: int) -> LoopGraph:
        """The e-graph of all nests that the rules find for `facts`; it stops early when a budget is spent."""
        started = time.perf_counter()
        with self.grown(facts, seconds, rows) as stopped:
            return self._read(stopped, started)

    @contextmanager
    def grown(self, facts: Facts, seconds: float, rows: int) -> Iterator[str]:
        """Inside, the e-graph holds all nests that the rules find for `facts`; what ended the search."""
        started = time.thread_time()
        self.run_commands(self.push)
        try:
            self.run_commands(*self._commands(facts))
            stopped = "saturated"
            while self._iterate():
                if time.thread_time() - started > seconds:
                    stopped = f"{seconds:g} s"
                    break
                if self._size() > rows:
                    stopped = f"{rows} rows"
                    break
            yield stopped
        finally:
            self.run_commands(self.pop)

    def _iterate(self) -> bool:
        outputs = self.run_commands(self.step)
        return any(getattr(out, "report", None) is not None and out.report.updated for out in outputs)

    def _size(self) -> int:
        return len(self.egraph.freeze().functions["For"].rows)

    # Terms.

    def _commands(self, facts: Facts) -> list[Any]:
        eg, span = self.eg, self.span
        term = None
        for number, loops in reversed(list(enumerate(facts.stages))):
            body = self._call("Do", str(number))
            for axis, extent in reversed(loops):
                body = self._call("For", axis, 1, extent, self._call("Whole"), body)
            term = body if term is None else self._call("Then", body, term)
        commands = [eg.ActionCommand(eg.Expr_(span, self._call(name, term))) for name in (_ROOT, "outermost")]
        for relation, rows in facts.rows.items():
            commands += [eg.ActionCommand(eg.Expr_(span, self._call(relation, *row))) for row in rows]
        return commands

    def _call(self, head: str, *args: Any) -> Any:
        eg, span = self.eg, self.span
        terms = []
        for arg in args:
            if isinstance(arg, int):
                arg = eg.Lit(span, eg.Int(arg))
            elif isinstance(arg, str):
                arg = eg.Lit(span, eg.String(arg))
            terms.append(arg)
        return eg.Call(span, head, terms)

    # Reading.

    def _read(self, stopped: str, started: float) -> LoopGraph:
        reader = Reader(self.egraph)
        cells = reader.cells()
        rules = self.book.rules
        return LoopGraph(
            cells,
            reader.root,
            stopped,
            time.perf_counter() - started,
            lambda chosen: reader.rules_of(chosen, rules),
            reader.fetched(),
        )


class Reader:
    """One frozen state of the e-graph as plain values: e-classes by number, strings, integers, kinds."""

    def __init__(self, egraph: Any) -> None:
        self.egraph = egraph
        self.tables = egraph.freeze().functions
        self.numbers: dict[Any, int] = {}
        self.strings: dict[Any, str] = {}
        self.integers: dict[Any, int] = {}
        self.kinds = {
            self.tables[name].rows[0].output: kind for name, kind in _KINDS.items() if self.tables[name].rows
        }
        self.terms: dict[Cell, tuple[str, tuple[Any, ...]]] = {}
        self.root = -1

    def number(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))

    def string(self, value: Any) -> str:
        if value not in self.strings:
            self.strings[value] = self.egraph.value_to_string(value)
        return self.strings[value]

    def integer(self, value: Any) -> int:
        if value not in self.integers:
            self.integers[value] = self.egraph.value_to_i64(value)
        return self.integers[value]

    def cells(self) -> dict[int, tuple[Cell, ...]]:
        """The cells of every e-class, in a fixed order."""
        found: dict[int, list[Cell]] = {}
        for head in ("Do", "DoPacked", "DoAhead", "For", "Then"):
            for row in self.tables[head].rows:
                cell = self.cell(head, row.inputs)
                self.terms[cell] = (head, tuple(row.inputs))
                found.setdefault(self.number(row.output), []).append(cell)
        self.root = self.number(self.tables[_ROOT].rows[0].inputs[0])
        return {eclass: tuple(cells) for eclass, cells in found.items()}

    def cell(self, head: str, inputs: Sequence[Any]) -> Cell:
        """The cell of one row of a constructor's table."""
        match head:
            case "Do":
                return Do(int(self.string(inputs[0])))
            case "DoPacked" | "DoAhead":
                stage, buffer, dim, width = inputs
                pack = (self.string(buffer), self.integer(dim), self.integer(width))
                return Do(int(self.string(stage)), pack, head == "DoAhead")
            case "For":
                axis, step, span, kind, child = inputs
                return For(
                    self.string(axis),
                    self.integer(step),
                    self.integer(span),
                    self.kinds[kind],
                    self.number(child),
                )
        return Then(self.number(inputs[0]), self.number(inputs[1]))

    def fetched(self) -> tuple[tuple[str, str], ...]:
        """The pairs of stage and operand that are fetched a tile ahead, sorted."""
        rows = (map(self.string, row.inputs) for row in self.tables[_FETCHED].rows)
        return tuple(sorted((stage, buffer) for stage, buffer in rows))

    def rules_of(self, chosen: Sequence[Cell], rules: Sequence[Any]) -> tuple[str, ...]:
        """The names of the rules on the way to the chosen cells, in file order."""
        names = self.derivation(rules).rules_of([self.terms[cell] for cell in chosen])
        names |= {
            rule.name
            for rule in rules
            if any(isinstance(action, s.Call) and action.head == _FETCHED for action in rule.actions)
            and self.tables[table(rule)].rows
        }
        return tuple(rule.name for rule in rules if rule.name in names)

    def derivation(self, rules: Sequence[Any]) -> Derivation:
        """How the terms came about; `cells` has been read before."""
        return Derivation(self.tables, {number: value for value, number in self.integers.items()}, rules)

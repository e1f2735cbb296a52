"""The cheapest nest that a rule has a part in: what the loop e-graph holds beside the nest that was chosen.

The cells whose derivation has a match of the rule are marked, and every e-class is taken twice: as it is, and
with those of its nests only that hold a marked cell. Such a root is scheduled as any loop e-graph is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from egc.ir.kernel import Kernel
from egc.ir.nest import Nest, check_nest
from egc.machine import Machine
from egc.rules import Rule, RuleBook
from egc.rules.provenance import table
from egc.schedule.cells import Cell, Do, For, LoopGraph, Reader, Then
from egc.schedule.choose import Cost
from egc.schedule.scheduler import ROWS, Problem, cheapest, nest_of, problems, saturator
from egc.schedule.states import State


class Part(Struct, frozen=True):
    """Stages that are scheduled together, with their e-graph grown: `egraph` is egglog's, of use until the
    next part is asked for. The rule has `matches` there, and `marked` are the cells that came from them.
    """

    problem: Problem
    graph: LoopGraph
    egraph: Any
    reader: Reader
    marked: frozenset[Cell]
    matches: int


class Through(Struct, frozen=True):
    """A nest that a rule had a part in, with the chosen one beside it, and what they cost."""

    nest: Nest
    cost: Cost
    chosen: Nest
    chosen_cost: Cost


def parts(
    kernel: Kernel, machine: Machine, rule: Rule, *, threads: int, book: RuleBook, budget_s: float = 1.0
) -> Iterator[Part]:
    """The loop e-graphs of a kernel, one after the other."""
    loops = saturator(book)
    for _, problem in problems(kernel, machine, threads, book, budget_s):
        with loops.grown(problem.facts, budget_s, ROWS) as stopped:
            reader = Reader(loops.egraph)
            cells = reader.cells()
            graph = LoopGraph(cells, reader.root, stopped, 0.0, lambda _: ())
            derivation = reader.derivation(loops.book.rules)
            terms = derivation.through(rule.name)
            marked = frozenset(c for c, term in reader.terms.items() if derivation.numbers[term] in terms)
            matches = len(reader.tables[table(rule)].rows)
            yield Part(problem, graph, loops.egraph, reader, marked, matches)


def through(kernel: Kernel, found: Sequence[Part]) -> Through | None:
    """The cheapest nest of a kernel that holds a marked cell, of all its parts; None where no nest that can
    be compiled does.
    """
    best = [_best(part.graph, part.problem) for part in found]
    if not all(best):
        return None
    others: list[tuple[float, int, tuple[State, Cost]]] = []
    for i, part in enumerate(found):
        marked = with_marked(part.graph, part.marked)
        if marked is not None and (nest := _best(marked, part.problem)):
            others.append((nest[0][1].seconds - best[i][0][1].seconds, i, nest[0]))
    if not others:
        return None
    _, place, other = min(others, key=lambda item: item[:2])
    chosen = [part[0] for part in best]
    changed = [*chosen[:place], other, *chosen[place + 1 :]]
    return Through(*_whole(kernel, changed), *_whole(kernel, chosen))


def _best(graph: LoopGraph, problem: Problem) -> list[tuple[State, Cost]]:
    return cheapest(graph, problem)[:1]


def _whole(kernel: Kernel, found: Sequence[tuple[State, Cost]]) -> tuple[Nest, Cost]:
    nest = nest_of(kernel, [state for state, _ in found])
    check_nest(nest)
    cost = found[0][1]
    for _, more in found[1:]:
        cost = cost + more
    return nest, cost


def with_marked(graph: LoopGraph, marked: frozenset[Cell]) -> LoopGraph | None:
    """The loop e-graph of those nests that hold one of the marked cells; None where there is none."""
    cells: dict[int, tuple[Cell, ...]] = dict(graph.cells)
    twins: dict[int, int | None] = {}
    first = max(cells) + 1

    def twin(eclass: int) -> int | None:
        if eclass not in twins:
            found = tuple(kept for cell in graph.cells[eclass] for kept in kept_of(cell))
            twins[eclass] = first + eclass if found else None
            if found:
                cells[first + eclass] = found
        return twins[eclass]

    def kept_of(cell: Cell) -> Iterator[Cell]:
        if cell in marked:
            yield cell
            return
        match cell:
            case For(child=child):
                if (inner := twin(child)) is not None:
                    yield replace(cell, child=inner)
            case Then(first=a, second=b):
                if (inner := twin(a)) is not None:
                    yield Then(inner, b)
                if (inner := twin(b)) is not None:
                    yield Then(a, inner)
            case Do():
                pass

    root = twin(graph.root)
    return None if root is None else replace(graph, cells=cells, root=root)

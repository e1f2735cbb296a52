"""Kernel → loop e-graph → the cheapest nest, with its cost, its runners-up and the rules that built it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from egc.errors import CompileError
from egc.ir.kernel import Kernel
from egc.ir.nest import Loop, Nest, Pack, check_nest
from egc.machine import Machine
from egc.rules import RuleBook
from egc.schedule.access import StageModel, model_stage
from egc.schedule.cells import Cell, Do, For, LoopGraph, Saturator, shipped_loop_rules
from egc.schedule.choose import Chooser, Cost, axis_of, renamed
from egc.schedule.facts import FactWriter, axis_name
from egc.schedule.states import State

_FRONT = 3  # states kept for an e-class
_ROWS = 20_000


@dataclass(frozen=True)
class Scheduled:
    """A kernel's nest: the cheapest one, its predicted cost, the runners-up, and what the loop e-graph was.

    `rules` are the rules of loops.egg that built the chosen loops; `cells` the size of the e-graph; `stopped` says which
    budget ended the search, or "saturated".
    """

    nest: Nest
    cost: Cost
    alternatives: tuple[tuple[Nest, Cost], ...]
    rules: tuple[str, ...]
    cells: int = 0
    stopped: str = "saturated"


@dataclass(frozen=True)
class _Part:
    """Stages that are scheduled in one e-graph, and the nests found for them, cheapest first."""

    graph: LoopGraph
    found: tuple[tuple[State, Cost], ...]


def schedule(
    kernel: Kernel,
    machine: Machine,
    *,
    threads: int | None = None,
    book: RuleBook | None = None,
    budget_s: float = 1.0,
    alternatives: int = 3,
) -> Scheduled:
    """The cheapest nest of `kernel` on `machine` with `threads` threads (all cores where None), by the rules of `book`
    (rules/loops.egg where None), and up to `alternatives` others. Deterministic unless the budget of `budget_s` seconds for one e-graph is hit.

    Raises CompileError where the rules leave no nest at all.
    """
    threads = threads or machine.cores
    models = [model_stage(kernel, stage, machine) for stage in kernel.stages]
    positions = range(len(kernel.stages))
    groups = [tuple(positions)] if kernel.shared else [(position,) for position in positions]
    parts = [
        _part(kernel, models, group, machine, threads, book, budget_s, alternatives + 1) for group in groups
    ]
    nests: list[tuple[Nest, Cost]] = []
    for rank in range(max(len(part.found) for part in parts)):
        chosen = [part.found[min(rank, len(part.found) - 1)] for part in parts]
        nest = _nest(kernel, [state for state, _ in chosen])
        check_nest(nest)
        nests.append((nest, _sum([cost for _, cost in chosen])))
    rules = dict.fromkeys(rule for part in parts for rule in part.graph.rules_of(_cells(part.found[0][0])))
    return Scheduled(
        nests[0][0],
        nests[0][1],
        tuple(nests[1:]),
        tuple(rules),
        sum(part.graph.size for part in parts),
        next((part.graph.stopped for part in parts if part.graph.stopped != "saturated"), "saturated"),
    )


def _part(
    kernel: Kernel,
    models: Sequence[StageModel],
    group: tuple[int, ...],
    machine: Machine,
    threads: int,
    book: RuleBook | None,
    budget_s: float,
    count: int,
) -> _Part:
    writer = FactWriter(kernel, machine)
    for position in group:
        writer.stage(position, models[position], whole=len(group) == 1)
    graph = _saturator(book or shipped_loop_rules()).saturate(writer.facts(), budget_s, _ROWS)
    named = [
        renamed(models[position], {a: axis_name(kernel, position, a) for a in models[position].extents})
        for position in group
    ]
    found = Chooser(graph, named, machine, threads, max(_FRONT, count)).best(count)
    if not found:
        names = ", ".join(kernel.stages[position].name for position in group)
        raise CompileError(
            f"no loop nest was found for the kernel {kernel.name}",
            where=f"stages {names}",
            why="the rules of the ruleset `loops` leave none that the code generator takes",
            hint="one of them is disabled that it needs, such as `loop-sequential`",
        )
    return _Part(graph, tuple(found))


@lru_cache(maxsize=4)
def _cached_saturator(key: int) -> Saturator:
    return Saturator(_BOOKS[key])


_BOOKS: dict[int, RuleBook] = {}


def _saturator(book: RuleBook) -> Saturator:
    _BOOKS[id(book)] = book
    return _cached_saturator(id(book))


def _nest(kernel: Kernel, states: Sequence[State]) -> Nest:
    packs = [Pack(*pack) for state in states for pack in state.packs]
    if kernel.shared and len(kernel.stages) > 1:
        (state,) = states
        return Nest(kernel, tuple(map(_loops, state.stages)), _loops(state.loops), tuple(packs))
    return Nest(kernel, tuple(_loops(state.loops) for state in states), (), tuple(packs))


def _loops(loops: Sequence[For]) -> tuple[Loop, ...]:
    return tuple(Loop(axis_of(loop.axis), loop.step, loop.kind) for loop in loops)


def _cells(state: State) -> list[Cell]:
    cells: list[Cell] = [loop for part in (state.loops, *state.stages) for loop in part]
    return cells + [Do(0, pack) for pack in state.packs]


def _sum(costs: Sequence[Cost]) -> Cost:
    total = costs[0]
    for cost in costs[1:]:
        total = total + cost
    return total

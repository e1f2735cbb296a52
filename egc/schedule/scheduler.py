"""Kernel → loop e-graph → the cheapest nest, with its cost, its runners-up and the rules that built it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from egc.errors import CompileError
from egc.ir.dims import SymDim
from egc.ir.expr import Expr, Load, transform
from egc.ir.kernel import Kernel
from egc.ir.nest import Loop, Nest, Pack, check_nest
from egc.machine import Machine
from egc.rules import RuleBook
from egc.schedule.access import StageModel, model_stage
from egc.schedule.cells import Cell, Do, Facts, For, LoopGraph, Saturator, Then, shipped_loop_rules
from egc.schedule.choose import Chooser, Cost, axis_of, renamed
from egc.schedule.facts import FactWriter, axis_name
from egc.schedule.states import State

_FRONT = 3  # states kept for an e-class
ROWS = 20_000  # of loops, where the search ends


class Scheduled(Struct, frozen=True):
    """A kernel's nest: the cheapest one, its predicted cost, the runners-up, and what the loop e-graph was.

    `rules` are the rules of loops.egg that built the chosen loops; `cells` the size of the e-graph;
    `stopped` says which budget ended the search, or "saturated".
    """

    nest: Nest
    cost: Cost
    alternatives: tuple[tuple[Nest, Cost], ...]
    rules: tuple[str, ...]
    cells: int = 0
    stopped: str = "saturated"


def schedule(
    kernel: Kernel,
    machine: Machine,
    *,
    threads: int | None = None,
    book: RuleBook | None = None,
    budget_s: float = 1.0,
    alternatives: int = 3,
) -> Scheduled:
    """The cheapest nest of `kernel` on `machine` with `threads` threads (all cores where None), by the
    rules of `book` (rules/loops.egg where None), and up to `alternatives` others. Deterministic unless the
    budget of `budget_s` seconds for one e-graph is hit.

    Raises CompileError where the rules leave no nest at all.
    """
    threads = threads or machine.cores
    book = book or shipped_loop_rules()
    solutions: list[_Solution] = []
    for group, problem in problems(kernel, machine, threads, book, budget_s, alternatives + 1):
        solution = _solve(problem)
        if not solution.found:
            raise _nothing(kernel, group)
        solutions.append(solution)
    fetched = tuple(dict.fromkeys(buffer for solution in solutions for buffer in solution.fetched))
    nests: list[tuple[Nest, Cost]] = []
    for rank in range(max(len(solution.found) for solution in solutions)):
        chosen = [solution.found[min(rank, len(solution.found) - 1)] for solution in solutions]
        nest = nest_of(kernel, [state for state, _ in chosen], fetched)
        check_nest(nest)
        nests.append((nest, _sum([cost for _, cost in chosen])))
    return Scheduled(
        nests[0][0],
        nests[0][1],
        tuple(nests[1:]),
        tuple(dict.fromkeys(rule for solution in solutions for rule in solution.rules)),
        sum(solution.size for solution in solutions),
        next((s.stopped for s in solutions if s.stopped != "saturated"), "saturated"),
    )


def problems(
    kernel: Kernel, machine: Machine, threads: int, book: RuleBook, budget_s: float = 1.0, count: int = 1
) -> Iterator[tuple[tuple[int, ...], Problem]]:
    """What is scheduled by itself: the positions of stages that share loops, and the facts about them."""
    for group in _groups(kernel):
        part, positions = _part(kernel, group)
        models = {position: model_stage(part, part.stages[position], machine) for position in positions}
        writer = FactWriter(part, machine)
        for position in positions:
            writer.stage(position, models[position], whole=len(group) == 1)
        named = _named(part, models, positions)
        yield group, Problem(writer.facts(), named, machine, threads, book, budget_s, count)


def _part(kernel: Kernel, group: Sequence[int]) -> tuple[Kernel, Sequence[int]]:
    """A stage that sums nothing as a kernel of its own, its buffers numbered; else the kernel as it is.
    And the group's positions in it.

    What is found for such a stage names none of its buffers, so the many stages of a wide concatenation
    that differ in what they read alone are one problem.
    """
    if len(kernel.stages) == 1 or len(group) > 1 or kernel.stages[group[0]].reduce:
        return kernel, group
    stage = kernel.stages[group[0]]
    loads = [load.buffer for load in stage.loads()]
    names = {name: f"b{i}" for i, name in enumerate(dict.fromkeys((*loads, stage.out)))}

    def rewrite(node: Expr) -> Expr:
        return replace(node, buffer=names[node.buffer]) if isinstance(node, Load) else node

    value = transform(stage.value, rewrite)
    result = value if stage.result is stage.value else transform(stage.result, rewrite)
    index = tuple(i if isinstance(i, int | SymDim) else transform(i, rewrite) for i in stage.index)
    own = replace(stage, out=names[stage.out], index=index, value=value, result=result)
    buffers = tuple(replace(kernel.buffer[old], name=new) for old, new in names.items())
    return Kernel(kernel.name, buffers, (own,)), (0,)


def predict(nest: Nest, machine: Machine, *, threads: int | None = None) -> Cost:
    """The cost that the model predicts for a given nest, whoever wrote it, with `threads` threads (all
    cores where None).

    Raises CompileError for a nest whose register tile does not fit the machine.
    """
    threads = threads or machine.cores
    kernel = nest.kernel
    models = [model_stage(kernel, stage, machine) for stage in kernel.stages]
    total: Cost | None = None
    for group in _groups(kernel):
        graph = _chain(nest, models, group)
        found = Chooser(graph, _named(kernel, models, group), machine, threads).best(1)
        if not found:
            raise _nothing(kernel, group)
        total = found[0][1] if total is None else total + found[0][1]
    assert total is not None, "a kernel has stages"
    return total


def _chain(nest: Nest, models: Sequence[StageModel], group: Sequence[int]) -> LoopGraph:
    """The loop e-graph that holds one nest only."""
    cells: dict[int, tuple[Cell, ...]] = {}
    packs = {pack.buffer: pack for pack in nest.packs}

    def add(cell: Cell) -> int:
        cells[len(cells)] = (cell,)
        return len(cells) - 1

    def wrap(body: int, position: int, loops: Sequence[Loop], outside: Sequence[Loop]) -> int:
        for i in range(len(loops) - 1, -1, -1):
            loop = loops[i]
            around = [other.step for other in (*outside, *loops[:i]) if other.axis == loop.axis]
            span = min([models[position].extents[loop.axis], *around])
            name = axis_name(nest.kernel, position, loop.axis)
            if span > 1 or loop.kind == "par":
                body = add(For(name, min(loop.step, span), span, loop.kind, body))
        return body

    whole: int | None = None
    for index in range(len(group) - 1, -1, -1):
        position = group[index]
        read = {load.buffer for load in nest.kernel.stages[position].loads()}
        own = [pack for buffer, pack in packs.items() if buffer in read]
        body = add(Do(index, (own[0].buffer, own[0].dim, own[0].block), own[0].ahead) if own else Do(index))
        body = wrap(body, position, nest.stages[position], nest.shared)
        whole = body if whole is None else add(Then(body, whole))
    assert whole is not None, "a group has stages"
    whole = wrap(whole, group[0], nest.shared, ())
    return LoopGraph(cells, whole, "given", 0.0, lambda _: ())


class Problem:
    """Stages to schedule in one e-graph. Problems that differ in names only are one problem, which is
    solved once.
    """

    def __init__(
        self,
        facts: Facts,
        models: tuple[StageModel, ...],
        machine: Machine,
        threads: int,
        book: RuleBook,
        budget_s: float,
        count: int,
    ) -> None:
        self.facts, self.models, self.machine, self.threads = facts, models, machine, threads
        self.book, self.budget_s, self.count = book, budget_s, count
        nameless = [replace(model, name="") for model in models]
        self.key = (repr(facts), repr(nameless), repr(machine), threads, id(book), budget_s, count)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and self.key == other.key


class _Solution(Struct, frozen=True):
    """The nests found, cheapest first, the rules that built the cheapest, and the e-graph's size and end."""

    found: tuple[tuple[State, Cost], ...]
    rules: tuple[str, ...]
    size: int
    stopped: str
    fetched: tuple[str, ...]


@lru_cache(maxsize=512)
def _solve(problem: Problem) -> _Solution:
    graph = saturator(problem.book).saturate(problem.facts, problem.budget_s, ROWS)
    found = cheapest(graph, problem)
    rules = graph.rules_of(_cells(found[0][0])) if found else ()
    fetched = tuple(dict.fromkeys(buffer for _, buffer in graph.fetched))
    return _Solution(tuple(found), rules, graph.size, graph.stopped, fetched)


def cheapest(graph: LoopGraph, problem: Problem) -> list[tuple[State, Cost]]:
    """The cheapest nests of a loop e-graph, as many as the problem asks for."""
    front = max(_FRONT, problem.count)
    chooser = Chooser(graph, problem.models, problem.machine, problem.threads, front)
    return chooser.best(problem.count)


class _Book:
    """A RuleBook as a key: itself only."""

    def __init__(self, book: RuleBook) -> None:
        self.book = book

    def __hash__(self) -> int:
        return id(self.book)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Book) and self.book is other.book


def prepare() -> None:
    """Make the loop e-graph that all kernels share, which the first of them would otherwise wait for."""
    saturator(shipped_loop_rules())


def saturator(book: RuleBook) -> Saturator:
    """The e-graph that holds the loop rules of a book, told to it once."""
    return _saturator(_Book(book))


@lru_cache(maxsize=4)
def _saturator(key: _Book) -> Saturator:
    return Saturator(key.book)


def _named(
    kernel: Kernel, models: Sequence[StageModel] | Mapping[int, StageModel], group: Sequence[int]
) -> tuple[StageModel, ...]:
    """The stages of a group under the axes' names in the e-graph."""
    return tuple(
        renamed(models[position], {a: axis_name(kernel, position, a) for a in models[position].extents})
        for position in group
    )


def _groups(kernel: Kernel) -> list[tuple[int, ...]]:
    """Which stages are scheduled together: those that share loops."""
    positions = range(len(kernel.stages))
    return [tuple(positions)] if kernel.shared else [(position,) for position in positions]


def _nothing(kernel: Kernel, group: Sequence[int]) -> CompileError:
    return CompileError(
        f"no loop nest was found for the kernel {kernel.name}",
        where=f"stages {', '.join(kernel.stages[position].name for position in group)}",
        why="the rules of the ruleset `loops` leave none that the code generator takes",
        hint="one of them is disabled that it needs, such as `loop-sequential`",
    )


def nest_of(kernel: Kernel, states: Sequence[State], fetched: tuple[str, ...] = ()) -> Nest:
    """The nest of the states chosen for a kernel's problems."""
    packs = [Pack(*pack) for state in states for pack in state.packs]
    if kernel.shared and len(kernel.stages) > 1:
        (state,) = states
        return Nest(kernel, tuple(map(_loops, state.stages)), _loops(state.loops), tuple(packs), fetched)
    return Nest(kernel, tuple(_loops(state.loops) for state in states), (), tuple(packs), fetched)


def _loops(loops: Sequence[For]) -> tuple[Loop, ...]:
    return tuple(Loop(axis_of(loop.axis), loop.step, loop.kind) for loop in loops)


def _cells(state: State) -> list[Cell]:
    cells: list[Cell] = [loop for part in (state.loops, *state.stages) for loop in part]
    return cells + [Do(0, pack[:3], pack[3]) for pack in state.packs]


def _sum(costs: Sequence[Cost]) -> Cost:
    total = costs[0]
    for cost in costs[1:]:
        total = total + cost
    return total

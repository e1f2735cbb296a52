"""Kernel → loop e-graph → the cheapest nest in blocks and threads of a GPU.

The e-graph and its rules are those of the CPU with rules/gpu.egg beside them. Every nest in it that has the
form of a GPU's (blocks outside, then what a block does one after another, threads, the reduction, and copies
in registers) is priced by egc.schedule.gpu_cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from egc.errors import CompileError
from egc.ir.kernel import Kernel
from egc.ir.nest import Loop, Nest, check_nest
from egc.resources import loop_rules
from egc.rules import RuleBook, load_rules
from egc.schedule.access import StageModel, model_stage
from egc.schedule.cells import Do, Facts, For, LoopGraph, Row, Saturator, Then
from egc.schedule.choose import axis_of, renamed
from egc.schedule.facts import axis_name
from egc.schedule.gpu_cost import GpuCost, GpuCoster, mapping, trips
from egc.schedule.gpu_machine import GpuMachine
from egc.schedule.scheduler import Scheduled

_ALTERNATIVES = 5
_ROWS = 20_000
_ASSOCIATIVE = frozenset({"max", "min", "and", "or"})
Path = tuple[For, ...]


def schedule_device(
    kernel: Kernel, machine: GpuMachine, *, saturator: Saturator | None = None, budget_s: float = 2.0
) -> Scheduled:
    """The cheapest nest of `kernel` in blocks and threads. CompileError where the rules leave none.

    `saturator` holds the rules (the shipped ones where None); whoever schedules many kernels keeps it.
    """
    models = [model_stage(kernel, stage, machine) for stage in kernel.stages]  # type: ignore[arg-type]
    named = [
        renamed(model, {axis: axis_name(kernel, position, axis) for axis in model.extents})
        for position, model in enumerate(models)
    ]
    search = _Search(kernel, named, machine, saturator or _shipped(), budget_s)
    return search.fused() if kernel.shared and len(kernel.stages) > 1 else search.separate()


def gpu_rules(accuracy: str = "default") -> RuleBook:
    """The rules of rules/loops.egg and rules/gpu.egg that `accuracy` admits."""
    return load_rules(loop_rules(gpu=True), accuracy=accuracy)


@lru_cache(maxsize=1)
def _shipped() -> Saturator:
    return Saturator(gpu_rules())


class _Search:
    """The search for one kernel's nest; `models` have the e-graph's names of axes."""

    def __init__(
        self,
        kernel: Kernel,
        models: Sequence[StageModel],
        machine: GpuMachine,
        saturator: Saturator,
        budget_s: float,
    ) -> None:
        self.kernel, self.models, self.machine = kernel, models, machine
        self.saturator, self.budget_s = saturator, budget_s
        self.shared = {axis.name for axis in kernel.stages[0].axes[: kernel.shared]}

    def saturate(self, positions: Sequence[int]) -> LoopGraph:
        facts = device_facts(
            [self.models[p] for p in positions],
            [self.kernel.stages[p].combine for p in positions],
            self.machine,
            self.shared if len(positions) > 1 else set(),
        )
        return self.saturator.saturate(facts, self.budget_s, _ROWS)

    # Stages with blocks of their own.

    def separate(self) -> Scheduled:
        """Every stage by itself."""
        nests: list[list[tuple[Path, GpuCost]]] = []
        graphs: list[LoopGraph] = []
        for position, model in enumerate(self.models):
            graph = self.saturate([position])
            paths = Paths(graph, model, self.machine).complete()
            low, high = self.machine.tiles.block_threads
            ranked = self.ranked(position, paths, low if not model.ordered else 1, high)
            graphs.append(graph)
            nests.append(ranked)
        found = []
        for rank in range(min(_ALTERNATIVES, max(map(len, nests)))):
            chosen = [ranked[min(rank, len(ranked) - 1)] for ranked in nests]
            nest = Nest(self.kernel, tuple(_loops(path) for path, _ in chosen))
            found.append((nest, _total([cost for _, cost in chosen], self.machine)))
        rules = [
            rule for graph, ranked in zip(graphs, nests, strict=True) for rule in graph.rules_of(ranked[0][0])
        ]
        return self.scheduled(found, rules, graphs)

    def ranked(self, position: int, paths: Sequence[Path], low: int, high: int) -> list[tuple[Path, GpuCost]]:
        """The cheapest paths, those with fewer than `low` threads last."""
        coster = GpuCoster(self.models[position], self.machine)
        found = [
            (path, cost)
            for path in paths
            if mapping(path, coster.reductions).threads <= high and (cost := coster.cost(path)) is not None
        ]
        if not found:
            raise self.nothing(position)
        found.sort(key=lambda item: (item[1].threads < low, item[1].seconds, len(item[0]), str(item[0])))
        return found[:_ALTERNATIVES]

    # Stages that share blocks.

    def fused(self) -> Scheduled:
        """All stages in the same blocks; the number of threads is the same for all."""
        positions = range(len(self.models))
        graph = self.saturate(list(positions))
        prefix, parts = self.fused_parts(graph)
        paths = [
            Paths(graph, model, self.machine).suffixes(part)
            for model, part in zip(self.models, parts, strict=True)
        ]
        low, high = self.machine.tiles.block_threads
        found: list[tuple[Nest, GpuCost, list[Path]]] = []
        for threads in (t for t in self.machine.tiles.threads if low <= t <= high):
            chosen = [self.best(p, prefix, paths[p], threads) for p in positions]
            nest = Nest(self.kernel, tuple(_loops(path) for path, _ in chosen), _loops(prefix))
            total = _total([cost for _, cost in chosen], self.machine)
            found.append((nest, total, [prefix, *(path for path, _ in chosen)]))
        found.sort(key=lambda item: (item[1].seconds, item[1].threads))
        rules = graph.rules_of([cell for path in found[0][2] for cell in path])
        return self.scheduled([(nest, cost) for nest, cost, _ in found], rules, [graph])

    def fused_parts(self, graph: LoopGraph) -> tuple[Path, list[int]]:
        """The block loops that all stages share, and the e-class of each stage inside them."""
        at = graph.root
        prefix: list[For] = []
        while blocks := [c for c in graph.cells[at] if isinstance(c, For) and c.kind == "block"]:
            prefix.append(blocks[0])
            at = blocks[0].child
        parts = []
        for _ in self.models[1:]:
            then = next((cell for cell in graph.cells[at] if isinstance(cell, Then)), None)
            if then is None:
                raise self.nothing(0)
            parts.append(then.first)
            at = then.second
        return tuple(prefix), [*parts, at]

    def best(self, position: int, prefix: Path, paths: Sequence[Path], threads: int) -> tuple[Path, GpuCost]:
        coster = GpuCoster(self.models[position], self.machine)
        found = [
            (path, cost)
            for path in paths
            if mapping(path, coster.reductions).threads <= threads
            and (cost := coster.cost((*prefix, *path), threads)) is not None
        ]
        if not found:
            raise self.nothing(position)
        return min(found, key=lambda item: (item[1].seconds, len(item[0]), str(item[0])))

    # The answer.

    def scheduled(
        self, found: Sequence[tuple[Nest, GpuCost]], rules: Sequence[str], graphs: Sequence[LoopGraph]
    ) -> Scheduled:
        """The first nest of `found` with the others as its runners-up."""
        for nest, _ in found:
            check_nest(nest)
        stopped = next((graph.stopped for graph in graphs if graph.stopped != "saturated"), "saturated")
        size = sum(graph.size for graph in graphs)
        nest, cost = found[0]
        return Scheduled(nest, cost, tuple(found[1:]), tuple(dict.fromkeys(rules)), size, stopped)  # type: ignore[arg-type]

    def nothing(self, position: int) -> CompileError:
        """The error for a stage that no nest was found for."""
        return CompileError(
            f"no loop nest was found for the kernel {self.kernel.name}",
            where=f"stage {self.kernel.stages[position].name}",
            why="the rules of the ruleset `loops` leave none that maps to blocks and threads",
            hint="one of them is disabled that it needs, such as `loop-sequential` or `gpu-block`",
        )


class Paths:
    """The nests of a stage in a loop e-graph that have the form of a GPU's, each in one order of loops."""

    def __init__(self, graph: LoopGraph, model: StageModel, machine: GpuMachine) -> None:
        self.graph, self.model, self.machine = graph, model, machine
        self.reductions = frozenset(model.reduction)
        self._found: dict[tuple[int, int], list[Path]] = {}

    def complete(self) -> list[Path]:
        """Nests of a stage by itself: all loops over positions are blocks or threads, or it is ordered."""
        first = _SERIAL if self.model.ordered else _BLOCK
        return [path for path in self.suffixes(self.graph.root, first) if self._allowed(path)]

    def _allowed(self, path: Path) -> bool:
        return self.model.ordered or not any(self.rank(loop) == _SERIAL for loop in path)

    def suffixes(self, eclass: int, least: int = 1) -> list[Path]:
        """The paths below an e-class whose loops stand in the order of their ranks, the first being `least`
        or more."""
        key = (eclass, least)
        if key not in self._found:
            self._found[key] = []
            self._found[key] = list(self._suffixes(eclass, least))
        return self._found[key]

    def _suffixes(self, eclass: int, least: int) -> Iterator[Path]:
        budget = self.machine.tiles.candidates
        for cell in self.graph.cells[eclass]:
            if isinstance(cell, Do) and cell.pack is None:
                yield ()
            elif isinstance(cell, For) and (rank := self.rank(cell)) >= least:
                for rest in self.suffixes(cell.child, rank):
                    if self._fits(cell, rank, rest):
                        yield (cell, *rest)
                        budget -= 1
                        if not budget:
                            return

    def _fits(self, cell: For, rank: int, rest: Path) -> bool:
        """Whether a loop may stand outside `rest`."""
        if cell.kind in ("thread", "unroll") and cell.span == self.model.extents[cell.axis]:
            # Threads and copies are counted when compiling: a whole axis must have a known extent.
            return cell.axis in self.model.static and self._sums_alone(rank, rest)
        return self._sums_alone(rank, rest)

    def _sums_alone(self, rank: int, rest: Path) -> bool:
        ranks = {self.rank(loop) for loop in rest}
        if rank == _THREAD_SUM:
            return not ranks
        return not (_THREAD_SUM in ranks and rank in (_THREAD, _COPIES))

    def rank(self, loop: For) -> int:
        """Where a loop stands, from the outside in; -1 for one that has no place."""
        reduced = loop.axis in self.reductions
        match loop.kind:
            case "block":
                return _BLOCK
            case "seq":
                return _SUM if reduced else _SERIAL
            case "thread":
                return _THREAD_SUM if reduced else _THREAD
            case "unroll":
                return _SUM_COPIES if reduced else _COPIES
        return -1


_BLOCK, _SERIAL, _THREAD, _SUM, _SUM_COPIES, _THREAD_SUM, _COPIES = range(7)


def _loops(path: Path) -> tuple[Loop, ...]:
    # A loop with one iteration that does not narrow its axis says nothing.
    kept: list[Loop] = []
    steps: dict[str, int] = {}
    for loop in path:
        if trips(loop) == 1 and steps.get(loop.axis) == loop.step:
            continue
        steps[loop.axis] = loop.step
        kept.append(Loop(axis_of(loop.axis), loop.step, loop.kind))
    return tuple(kept)


def _total(costs: Sequence[GpuCost], machine: GpuMachine) -> GpuCost:
    launch = GpuCost(0.0, 0.0, 0.0, 0.0, 0.0, machine.launch, machine.launch)
    for cost in costs:
        launch = launch + cost
    return launch


# Facts.


def device_facts(
    models: Sequence[StageModel], combines: Sequence[str | None], machine: GpuMachine, shared: set[str]
) -> Facts:
    """The facts of stages that become one e-graph. `models` have the e-graph's names of axes; `combines` is
    how each stage reduces; `shared` are the axes whose loops the stages share."""
    rows: dict[str, dict[Row, None]] = {}

    def add(relation: str, *row: str | int) -> None:
        rows.setdefault(relation, {})[row] = None

    stages = []
    for model, combine in zip(models, combines, strict=True):
        order = (*model.parallel, *model.reduction)
        stages.append(tuple((axis, model.extents[axis]) for axis in order))
        for axis in order:
            add("extent", axis, model.extents[axis])
            if axis in model.reduction:
                add("reduction", axis)
            elif not model.ordered:
                add("parallel", axis)
        for axis in model.parallel:
            if axis in shared:
                add("shared", axis)
        if model.ordered:
            continue
        for axis in model.parallel:
            add("grid", axis)
        own = [axis for axis in model.parallel if axis not in shared]
        for axis in own[-2:]:
            for count, copies in _thread_candidates(model, axis, machine):
                add("threads", axis, count, copies)
        if model.reduction:
            if combine in _ASSOCIATIVE:
                add("associative", model.reduction[-1])
            for count in machine.tiles.sums:
                add("thread-sum", model.reduction[-1], count)
            for count in _reduction_copies(model, machine):
                add("tile", model.reduction[-1], count)
    return Facts(tuple(stages), {name: tuple(found) for name, found in rows.items()})


def _thread_candidates(model: StageModel, axis: str, machine: GpuMachine) -> Iterator[tuple[int, int]]:
    """(threads, elements a thread) along an axis; more than twice what there is would idle."""
    extent = model.extents[axis]
    for copies in machine.tiles.copies if model.reduction else (1,):
        for count in machine.tiles.threads:
            if 1 < count * copies < max(2, 2 * extent):
                yield count, copies


def _reduction_copies(model: StageModel, machine: GpuMachine) -> Iterator[int]:
    axis = model.reduction[-1]
    for count in machine.tiles.reduction:
        if count < model.extents[axis] or (count == model.extents[axis] and axis in model.static):
            yield count

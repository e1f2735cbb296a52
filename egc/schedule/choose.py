"""The cheapest nests of a loop e-graph: a small Pareto front of states for every e-class, bottom-up.

Two suffixes of one e-class do the same work, so one that is better in arithmetic, ports and every memory
boundary is better wherever it stands; only what differs in panels or in parallel loops is kept apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from egc.machine import Machine
from egc.schedule.access import Access, StageModel
from egc.schedule.cells import Cell, Do, For, LoopGraph, Then
from egc.schedule.states import JOINED, STRAIGHT, Bundle, Extender, Footprints, State


class Cost(Struct, frozen=True):
    """Predicted seconds by term; `seconds` is the whole, in which terms overlap. `threads` is what it is
    predicted for.
    """

    compute: float
    l1: float
    l2: float
    l3: float
    dram: float
    launch: float
    seconds: float
    threads: int = 1

    @property
    def terms(self) -> dict[str, float]:
        """The terms by name."""
        return {name: getattr(self, name) for name in ("compute", "l1", "l2", "l3", "dram", "launch")}

    def __add__(self, other: Cost) -> Cost:
        names = (*self.terms, "seconds")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})


class Chooser:
    """Walks a loop e-graph. `models` are the stages that the numbers of its bodies mean; `front` is how
    many states are kept for an e-class and each choice of panels.
    """

    def __init__(
        self, graph: LoopGraph, models: Sequence[StageModel], machine: Machine, threads: int, front: int = 4
    ) -> None:
        self.graph, self.models, self.machine, self.threads = graph, models, machine, threads
        self.width = front
        self.extender = Extender(machine)
        self.fronts: dict[int, list[State]] = {}
        self.spans: dict[int, dict[str, int]] = {}
        self.bundles: dict[object, Bundle] = {}
        self.footprints = Footprints(machine)

    def best(self, count: int) -> list[tuple[State, Cost]]:
        """The `count` cheapest nests of the root, cheapest first; ties go to the one with fewer loops."""
        found: list[tuple[State, Cost]] = []
        for state in self.front(self.graph.root):
            done = self.extender.finished(state, self.graph.root)
            if done is not None:
                found.append((done, self.cost(done)))
        found.sort(key=lambda item: (item[1].seconds, len(item[0].loops), str(item[0].loops), item[0].packs))
        return found[:count]

    def front(self, eclass: int) -> list[State]:
        """The states of an e-class worth keeping."""
        if eclass not in self.fronts:
            # Loops of one iteration may stand round what they are equal to: the way back leads nowhere.
            self.fronts[eclass] = []
            states: list[State] = []
            for cell in self.graph.cells[eclass]:
                states += self.states(eclass, cell)
            self.fronts[eclass] = self.prune(states)
        return self.fronts[eclass]

    def states(self, eclass: int, cell: Cell) -> list[State]:
        """The states that one cell gives."""
        match cell:
            case Do():
                return [self.body(cell)]
            case For(kind=kind, child=child):
                if kind == "whole" or (kind == "par" and self.threads == 1):
                    return []
                extended = (self.extender.extend(state, cell, eclass) for state in self.front(child))
                return [state for state in extended if state is not None]
            case Then(first=first, second=second):
                return [self.join(one, two) for one in self.parts(first) for two in self.parts(second)]

    def parts(self, eclass: int) -> list[State]:
        """The states of an e-class that may stand beside others: without threads of their own, and without
        loops round some stages only, for which a Nest has no place.
        """
        finished = (self.extender.finished(state, eclass) for state in self.front(eclass))
        return [s for s in finished if s is not None and s.parallel == 1 and not (s.stages and s.loops)]

    def body(self, cell: Do) -> State:
        """The state of a stage's body without loops."""
        model = self.models[cell.stage]
        if cell.pack is None:
            return State(STRAIGHT, (), (model,), self.bundle(cell, model.accesses))
        buffer, dim, width = cell.pack
        accesses = tuple(
            replace(a.packed(dim, width), ahead=cell.ahead) if a.buffer == buffer else a
            for a in model.accesses
        )
        packs = ((*cell.pack, cell.ahead),)
        return State(STRAIGHT, (), (model,), self.bundle(cell, accesses), packs=packs)

    def join(self, a: State, b: State) -> State:
        """Two finished parts one after the other."""
        bundle = self.bundle((id(a.bundle), id(b.bundle)), (*a.bundle.accesses, *b.bundle.accesses))
        return State(
            JOINED,
            (),
            (*a.model, *b.model),
            bundle,
            a.compute + b.compute,
            a.l1 + b.l1,
            tuple((*x, *y) for x, y in zip(a.traffic, b.traffic, strict=True)),
            packs=(*a.packs, *b.packs),
            comes=max(a.comes, b.comes),
            stages=(*(a.stages or (a.loops,)), *(b.stages or (b.loops,))),
        )

    def bundle(self, key: object, accesses: tuple[Access, ...]) -> Bundle:
        """The one Bundle of a key."""
        if key not in self.bundles:
            self.bundles[key] = Bundle(accesses, self.footprints, self.spans_of)
        return self.bundles[key]

    def spans_of(self, eclass: int) -> dict[str, int]:
        """The positions of every axis inside an e-class; equal for all its cells."""
        if eclass not in self.spans:
            cell = self.graph.cells[eclass][0]
            match cell:
                case For(axis=axis, span=span, child=child):
                    self.spans[eclass] = {**self.spans_of(child), axis: span}
                case Then(first=first, second=second):
                    self.spans[eclass] = {**self.spans_of(first), **self.spans_of(second)}
                case _:
                    self.spans[eclass] = {}
        return self.spans[eclass]

    def prune(self, states: list[State]) -> list[State]:
        """The best few of each kind, none dominated by another of its kind."""
        groups: dict[object, list[tuple[tuple[float, ...], State]]] = {}
        for state in states:
            straight = state.phase == STRAIGHT
            key = (
                state.packs,
                state.parallel > 1,
                state.surely > 1,
                (state.vector, self.extender.columns_inside(state)) if straight else None,
            )
            groups.setdefault(key, []).append((self.measure(state), state))
        kept: list[State] = []
        for group in groups.values():
            group.sort(key=lambda item: item[0])
            chosen: list[tuple[tuple[float, ...], State]] = []
            for measure, state in group:
                if len(chosen) == self.width:
                    break
                if not any(all(x <= y for x, y in zip(other, measure, strict=True)) for other, _ in chosen):
                    chosen.append((measure, state))
            kept += [state for _, state in chosen]
        return kept

    def measure(self, state: State) -> tuple[float, ...]:
        """Seconds on one core: the whole, then its terms."""
        if state.phase == STRAIGHT:
            return (float(len(state.loops)),)
        terms = self.terms(state, 1.0)
        return (self.whole(terms) + self.waiting(state, terms, 1.0), *terms)

    def terms(self, state: State, share: float) -> list[float]:
        """Seconds of arithmetic, first cache and every boundary; `share` is the busiest thread's part of
        the work.
        """
        hertz = self.machine.core.hertz
        found = [state.compute * share / hertz, state.l1 * share / hertz]
        for level, moved in zip(self.machine.levels, state.traffic, strict=True):
            total = sum(moved)
            found.append(max(total * share / level.bandwidth, total / level.shared_bandwidth))
        return found

    def whole(self, terms: Sequence[float]) -> float:
        """Terms that overlap, as one figure."""
        longest = max(terms)
        if not longest:
            return 0.0
        power = self.machine.overlap
        return float(longest * sum((term / longest) ** power for term in terms) ** (1 / power))

    def cost(self, state: State) -> Cost:
        """The predicted cost of a finished nest, with data at home in the nearest memory that holds all of
        it; but constants, of which a model has more than a core's own caches hold, beyond these.
        """
        threads = self.threads if state.parallel > 1 else 1
        # A symbolic extent may be 1 at run time, as batches often are: count the known iterations for half.
        share = (busiest(state.parallel, threads) + busiest(state.surely, threads)) / 2
        shape = state.bundle.shape(self.graph.root)
        cold = tuple(
            touched if access.constant else 0.0
            for access, touched in zip(state.bundle.accesses, shape.bytes, strict=True)
        )
        # All boundaries but the one to memory: a constant crosses them on its way from the last cache.
        own = len(self.machine.levels) - 1
        home = [cold] * own + [tuple(0.0 for _ in cold)]
        warm = state.copy()
        warm.traffic = tuple(
            home[level] if shape.fits[level] else moved for level, moved in enumerate(state.traffic)
        )
        terms = self.terms(warm, share)
        launch = self.machine.launch + (self.machine.fork if state.parallel > 1 else 0.0)
        named = dict(zip((level.name for level in self.machine.levels), terms[2:], strict=True))
        return Cost(
            terms[0],
            terms[1],
            named.get("l2", 0.0),
            named.get("l3", 0.0),
            named["dram"],
            launch,
            self.whole(terms) + self.waiting(warm, terms, share) + self.foreign(state, threads) + launch,
            threads,
        )

    def foreign(self, state: State, threads: int) -> float:
        """Seconds in which a thread waits for what others have computed: their part of each operand that all
        threads read. Where the parallel loops divide it, a thread mostly reads what it has written itself.
        """
        if threads == 1:
            return 0.0
        parallel = [loop.axis for loop in state.loops if loop.kind == "par"]
        shape = state.bundle.shape(self.graph.root)
        read = sum(
            touched
            for access, touched in zip(state.bundle.accesses, shape.bytes, strict=True)
            if not (access.constant or access.store or any(map(access.depends, parallel)))
        )
        levels = self.machine.levels
        return read * (1 - 1 / threads) / levels[min(1, len(levels) - 1)].bandwidth

    def waiting(self, state: State, terms: Sequence[float], share: float) -> float:
        """Seconds in which multiply-adds wait for constants from beyond the core's own caches, because the
        latency of their first use is longer than what may run ahead of it: not where they are fetched ahead
        and still there when they are used, nor where that memory takes twice as long as they do, and all
        wait for it.
        """
        bundle, far, part = state.bundle, 0.0, self.late(state)
        if not (bundle.ahead or bundle.unfetched):
            return 0.0
        for level, moved in zip(self.machine.levels[1:], state.traffic[1:], strict=True):
            late = sum([moved[i] for i in bundle.unfetched]) + part * sum([moved[i] for i in bundle.ahead])
            far = max(far, late * share / level.bandwidth, late / level.shared_bandwidth)
        return self.machine.exposed * max(0.0, min(far, 2 * terms[0] - far))

    def late(self, state: State) -> float:
        """The part of constants fetched ahead that is not in the core's own cache when it is used: what comes
        at once waits for as long as that many bytes are used, and others drive it out meanwhile.
        """
        return min(1.0, self.machine.late * state.comes / self.machine.levels[0].bytes)


def busiest(iterations: float, threads: int) -> float:
    """The part of the work that the busiest of some threads does."""
    return -(-iterations // threads) / iterations


def axis_of(name: str) -> str:
    """The axis that a name in the loop e-graph means."""
    return name.rpartition(".")[2]


def renamed(model: StageModel, names: Mapping[str, str]) -> StageModel:
    """A stage's numbers under the axes' names in the e-graph."""

    def name(axis: str) -> str:
        return names.get(axis, axis)

    accesses = tuple(
        replace(
            access,
            dims=tuple(replace(d, steps=tuple((name(a), n) for a, n in d.steps)) for d in access.dims),
            stride={name(a): n for a, n in access.stride.items()},
        )
        for access in model.accesses
    )
    return replace(
        model,
        extents={name(a): n for a, n in model.extents.items()},
        static=frozenset(map(name, model.static)),
        parallel=tuple(map(name, model.parallel)),
        reduction=tuple(map(name, model.reduction)),
        accesses=accesses,
        reducing=tuple(replace(w, axes=frozenset(map(name, w.axes))) for w in model.reducing),
        finishing=tuple(replace(w, axes=frozenset(map(name, w.axes))) for w in model.finishing),
    )

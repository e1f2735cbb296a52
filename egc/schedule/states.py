"""Costs of partial nests, bottom-up: a state says all about a suffix of loops that the loops outside need
to know.

A suffix is described by what one execution of it costs: cycles of arithmetic and of the first cache's
ports, and for every access the bytes that cross each boundary of the memory hierarchy. The footprint of a
tile decides what stays in a cache: a loop whose body fits it fetches only what its next iteration does not
share with the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import TypeAlias

from msgspec import Struct

from egc.machine import Machine
from egc.schedule.access import Access, StageModel
from egc.schedule.cells import For
from egc.schedule.tile import TileModel

Spans: TypeAlias = "Mapping[str, int]"
Bytes: TypeAlias = "tuple[float, ...]"  # by access
STRAIGHT, REDUCING, WAITING, DONE, JOINED = range(5)


class Footprints:
    """The bytes that accesses touch, each computed once for the spans of the axes that it depends on."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._known: dict[int, tuple[Access, tuple[str, ...], dict[tuple[int, ...], float]]] = {}

    def bytes(self, access: Access, spans: Spans) -> float:
        """The bytes of whole lines that `access` touches within `spans`."""
        known = self._known.get(id(access))
        if known is None:
            known = self._known[id(access)] = (access, tuple(access.stride), {})
        _, axes, found = known
        key = tuple([spans.get(axis, 1) for axis in axes])
        if key not in found:
            found[key] = access.bytes(spans, self.machine.line_bytes)
        return found[key]


class Bundle:
    """The accesses of some stages, with what is asked of them again and again: footprints by e-class, and
    which of them an axis moves. `spans_of` gives the positions of every axis inside an e-class. `ahead` has
    the positions of the constants that sums read fetched ahead, `unfetched` those of the others.
    """

    def __init__(
        self, accesses: tuple[Access, ...], footprints: Footprints, spans_of: Callable[[int], Spans]
    ) -> None:
        self.accesses, self.footprints, self.spans_of = accesses, footprints, spans_of
        constants = [i for i, access in enumerate(accesses) if access.constant and access.reduced]
        self.ahead = tuple(i for i in constants if accesses[i].ahead)
        self.unfetched = tuple(i for i in constants if not accesses[i].ahead)
        self._shapes: dict[int, Shape] = {}
        self._moved: dict[str, tuple[bool, ...]] = {}

    def shape(self, eclass: int) -> Shape:
        """The footprint of an e-class."""
        found = self._shapes.get(eclass)
        if found is None:
            found = self._shapes[eclass] = Shape(self.spans_of(eclass), self.accesses, self.footprints)
        return found

    def moved(self, axis: str) -> tuple[bool, ...]:
        """For every access, whether it depends on an axis."""
        found = self._moved.get(axis)
        if found is None:
            found = self._moved[axis] = tuple(access.depends(axis) for access in self.accesses)
        return found


class Shape:
    """The tile of the iteration space that an e-class covers: spans, the bytes of every access that it
    touches, and for the first cache and all further ones whether they hold all of it.
    """

    __slots__ = ("bytes", "fits", "spans")

    def __init__(self, spans: Spans, accesses: tuple[Access, ...], footprints: Footprints) -> None:
        self.spans = spans
        self.bytes = tuple([footprints.bytes(access, spans) for access in accesses])
        whole: dict[str, float] = {}
        for access, touched in zip(accesses, self.bytes, strict=True):
            whole[access.buffer] = max(whole.get(access.buffer, 0.0), touched)
        total = sum(whole.values())
        self.fits = tuple([total <= capacity for capacity in footprints.machine.capacities])


class State(Struct):
    """A suffix of one stage (or of all, once JOINED): its loops outermost first, and what one execution
    costs. `packs` holds (buffer, dim, width, whether the next panel is fetched ahead).

    `compute` and `l1` are cycles; `traffic` is, for each boundary between memories, the bytes of each
    access. `tiles` holds the span of every axis in the register tile. `parallel` counts the iterations
    shared among threads, `surely` those that are there whatever the symbolic extents are. `finish` is what
    follows complete sums; where a state is WAITING, of all its tiles, whose sums wait in memory for the rest.
    `comes` is the bytes of constants that are fetched ahead at once, while as many are used: so far, and for
    good once it is `settled`. A state is never changed once it is kept.
    """

    phase: int
    loops: tuple[For, ...]
    model: tuple[StageModel, ...]
    bundle: Bundle
    compute: float = 0.0
    l1: float = 0.0
    traffic: tuple[Bytes, ...] = ()
    finish: tuple[float, float] = (0.0, 0.0)
    partials: float = 0.0
    slack: float = 0.0
    tiles: tuple[tuple[str, int], ...] = ()
    vector: str | None = None
    lanes: int = 1
    packs: tuple[tuple[str, int, int, bool], ...] = ()
    parallel: float = 1.0
    surely: float = 1.0
    comes: float = 0.0
    settled: bool = False
    stages: tuple[tuple[For, ...], ...] = ()

    def copy(self) -> State:
        """A state to change before it is kept."""
        return copy(self)


class Extender:
    """Puts loops round states."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def extend(self, state: State, loop: For, eclass: int) -> State | None:
        """`state` inside one more loop, as a cell of `eclass`; None where that makes no nest, or one that
        nobody wants.
        """
        if loop.kind in ("unroll", "vec"):
            return self._straight(state, loop)
        if loop.kind == "seq" and state.parallel > 1:
            return None
        if loop.kind == "par" and any(done.kind == "par" and done.axis == loop.axis for done in state.loops):
            return None  # it shares no more than one of them does, and less where the last tile is cut off
        if state.packs and self._splits(state, loop) and not self._panels_fit(state, loop):
            return None
        reducing = state.phase != JOINED and loop.axis in state.model[0].reduction
        ready: State | None = state
        if reducing:
            if state.phase == STRAIGHT:
                ready = self._tile(state, loop.child)
            elif state.phase not in (REDUCING, WAITING) or loop.kind != "seq":
                return None
        elif state.phase in (STRAIGHT, REDUCING, WAITING):
            ready = self.finished(state, loop.child) or self._waiting(state, loop)
        if ready is None:
            return None
        phase = ready.phase if reducing or ready.phase == WAITING else max(ready.phase, DONE)
        around = self._loop(ready, loop, eclass, phase)
        return self.finished(around, eclass) or around if phase == WAITING else around

    def finished(self, state: State, eclass: int) -> State | None:
        """The state of a whole stage, its reduction done and stored; None where part of the reduction is
        outside.
        """
        if state.phase in (DONE, JOINED):
            return state
        ready = self._tile(state, eclass) if state.phase == STRAIGHT else state.copy()
        if ready is None:
            return None
        model, spans = ready.model[0], ready.bundle.shape(eclass).spans
        if any(spans.get(axis, 1) < model.extents[axis] for axis in model.reduction):
            return None
        ready.phase = DONE
        ready.compute += ready.finish[0]
        ready.l1 += ready.finish[1]
        return ready

    def _waiting(self, state: State, loop: For) -> State | None:
        """The state of a tile whose sums are written to memory when they are complete in part, and read again
        for the next part; None where they cannot be.
        """
        if loop.kind != "seq" or state.vector in state.model[0].reduction:
            return None
        if state.phase == WAITING:
            return state
        ready = self._tile(state, loop.child) if state.phase == STRAIGHT else state.copy()
        if ready is None:
            return None
        ready.phase = WAITING
        ready.compute += self.machine.core.turn
        return ready

    def _panels_fit(self, state: State, loop: For) -> bool:
        """Whether the iterations of `loop`, which own panels, are as wide as these; and where the next one is
        fetched ahead, whether there are several tiles in an iteration, in the time of which it comes.
        """
        reduction = state.model[0].reduction
        tiles = any(done.kind == "seq" and done.axis not in reduction for done in state.loops)
        tiles |= any(done.kind == "par" for done in state.loops)
        return all(pack[2] == loop.step and (tiles or not pack[3]) for pack in state.packs)

    def _splits(self, state: State, loop: For) -> bool:
        """Whether `loop` is the one whose iterations own a panel: the first sequential loop along the
        lanes' axis.
        """
        return loop.axis == state.vector and not any(
            done.axis == loop.axis and done.kind in ("seq", "par") for done in state.loops
        )

    def _straight(self, state: State, loop: For) -> State | None:
        if state.phase != STRAIGHT or (loop.kind == "vec" and state.loops):
            return None
        if loop.axis == state.vector and any(pack[2] != loop.span for pack in state.packs):
            return None  # columns of a tile that are no panel
        new = state.copy()
        new.loops = (loop, *state.loops)
        new.tiles = (*((a, n) for a, n in state.tiles if a != loop.axis), (loop.axis, loop.span))
        if loop.kind == "vec":
            new.vector, new.lanes = loop.axis, loop.span
        return new

    def _tile(self, state: State, eclass: int) -> State | None:
        """The register tile as one piece of straight-line code."""
        model, bundle = state.model[0], state.bundle
        lanes = max(state.lanes, self.machine.lanes(model.itemsize)) if state.vector else 1
        tile = TileModel(
            model,
            bundle.accesses,
            dict(state.tiles),
            state.vector,
            lanes,
            self.columns_inside(state),
            self.machine,
        )
        cost = tile.cost()
        if cost is None:
            return None
        new = state.copy()
        new.phase = REDUCING
        new.compute, new.l1 = cost.compute, cost.l1
        new.finish = (cost.finish_compute, cost.finish_l1)
        new.partials, new.slack = cost.partials, cost.slack
        new.traffic = (bundle.shape(eclass).bytes,) * len(self.machine.levels)
        return new

    def columns_inside(self, state: State) -> bool:
        """Whether the copies next to the body are the vectors side by side, if there are such."""
        parallel = state.model[0].parallel
        copied = [loop.axis for loop in state.loops if loop.kind == "unroll" and loop.axis in parallel]
        return state.vector not in copied or copied[-1] == state.vector

    def _loop(self, state: State, loop: For, eclass: int, phase: int) -> State:
        trips = self._trips(state, loop)
        core, bundle = self.machine.core, state.bundle
        inner, outer, moves = bundle.shape(loop.child), bundle.shape(eclass), bundle.moved(loop.axis)
        traffic: list[Bytes] = []
        for level, before in enumerate(state.traffic):
            if outer.fits[level]:
                traffic.append(outer.bytes)
            elif inner.fits[level]:
                fresh = tuple(
                    min(moved * trips, max(moved, whole)) if moves_it else moved
                    for moved, whole, moves_it in zip(before, outer.bytes, moves, strict=True)
                )
                traffic.append(self._broken(fresh, bundle, inner.spans, outer.spans) if level else fresh)
            else:
                traffic.append(tuple(moved * trips for moved in before))
        new = state.copy()
        new.phase = phase
        new.loops = (loop, *state.loops)
        hidden = min(core.loop * core.loop_hidden, max(0.0, state.slack))
        new.compute = (state.compute + core.loop - hidden) * trips
        new.slack = 0.0
        new.l1 = state.l1 * trips
        new.traffic = tuple(traffic)
        chunk = phase == WAITING and loop.axis in state.model[0].reduction
        if phase == WAITING and not chunk:
            new.finish = (state.finish[0] * trips, state.finish[1] * trips)
        new.settled = state.settled or chunk or self._splits(state, loop)
        if not new.settled:
            new.comes = sum([outer.bytes[i] for i in bundle.ahead])
        if loop.kind == "par":
            count = -(-loop.span // loop.step)
            new.parallel = state.parallel * count
            if any(loop.axis in model.static for model in state.model):
                new.surely = state.surely * count
        return new

    def _broken(self, fresh: Bytes, bundle: Bundle, inner: Spans, outer: Spans) -> Bytes:
        """What comes from beyond the core's own caches, iteration by iteration of tiles of `inner` spans that
        make up `outer` ones: short runs cost more than their bytes, for a prefetcher must see the beginning
        of each. A tile that is one run may be continued by the next one.
        """
        stream = self.machine.stream_bytes
        return tuple(
            moved * (1.0 + stream / (self._run(access, inner, outer) * access.size))
            for moved, access in zip(fresh, bundle.accesses, strict=True)
        )

    def _run(self, access: Access, inner: Spans, outer: Spans) -> float:
        run = access.run(inner)
        return access.run(outer) if access.elements(inner) <= run else run

    def _trips(self, state: State, loop: For) -> float:
        """Iterations, the last one in part where the step does not divide: a smaller tile costs less, but
        not in proportion when too few partial results are left to hide the latency of one.
        """
        whole, rest = divmod(loop.span, loop.step)
        if not rest:
            return whole
        part = rest / loop.step
        tile = dict(state.tiles).get(loop.axis, 1) if state.phase != JOINED else 1
        if tile == loop.step > 1:
            if loop.axis == state.vector:
                part = -(-rest // state.lanes) / -(-tile // state.lanes)
            core = self.machine.core
            if state.phase == REDUCING or state.partials:
                part = max(part, min(1.0, core.latency * core.fma / max(state.partials, 1.0)))
        return whole + part + self.machine.core.remainder

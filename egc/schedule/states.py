"""Costs of partial nests, bottom-up: a state says all about a suffix of loops that the loops outside need to know.

A suffix is described by what one execution of it costs: cycles of arithmetic and of the first cache's ports, and for every
access the bytes that cross each boundary of the memory hierarchy. The footprint of a tile decides what stays in a cache: a
loop whose body fits it fetches only what its next iteration does not share with the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from egc.machine import Machine
from egc.schedule.access import Access, StageModel
from egc.schedule.cells import Do, For
from egc.schedule.tile import TileModel

Spans: TypeAlias = "Mapping[str, int]"
Bytes: TypeAlias = "tuple[float, ...]"  # by access
STRAIGHT, REDUCING, DONE, JOINED = range(4)


@dataclass(frozen=True, slots=True)
class State:
    """A suffix of one stage (or of all, once JOINED): its loops outermost first, and what one execution costs.

    `compute` and `l1` are cycles; `traffic` is, for each boundary between memories, the bytes of each access. `tiles` holds
    the span of every axis in the register tile.
    """

    phase: int
    loops: tuple[For, ...]
    model: tuple[StageModel, ...]
    accesses: tuple[Access, ...]
    compute: float = 0.0
    l1: float = 0.0
    traffic: tuple[Bytes, ...] = ()
    finish: tuple[float, float] = (0.0, 0.0)
    partials: float = 0.0
    tiles: tuple[tuple[str, int], ...] = ()
    vector: str | None = None
    lanes: int = 1
    packs: tuple[tuple[str, int, int], ...] = ()
    parallel: float = 1.0
    stages: tuple[tuple[For, ...], ...] = ()


class Shape:
    """The tile of the iteration space that an e-class covers: spans, and the bytes of every access that it touches."""

    __slots__ = ("_bytes", "fits", "spans")

    def __init__(self, spans: Spans, accesses: tuple[Access, ...], machine: Machine) -> None:
        self.spans = spans
        self._bytes: dict[int, float] = {}
        whole: dict[str, float] = {}
        for access in accesses:
            whole[access.buffer] = max(whole.get(access.buffer, 0.0), self.bytes(access, machine))
        total = sum(whole.values())
        capacities = (machine.l1_bytes, *(level.bytes for level in machine.levels[:-1]))
        self.fits = tuple(total <= capacity for capacity in capacities)

    def bytes(self, access: Access, machine: Machine) -> float:
        """The bytes of an access within the tile; a store's lines are read and written back."""
        found = self._bytes.get(id(access))
        if found is None:
            found = access.bytes(self.spans, machine.line_bytes) * (2.0 if access.store else 1.0)
            self._bytes[id(access)] = found
        return found


class Extender:
    """Puts loops round states."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def body(self, cell: Do, model: StageModel) -> State:
        """The state of a stage's body without loops."""
        accesses = model.accesses
        if cell.pack is None:
            return State(STRAIGHT, (), (model,), accesses)
        buffer, dim, width = cell.pack
        accesses = tuple(a.packed(dim, width) if a.buffer == buffer else a for a in accesses)
        return State(STRAIGHT, (), (model,), accesses, packs=(cell.pack,))

    def extend(self, state: State, loop: For, inner: Shape, outer: Shape) -> State | None:
        """`state` inside one more loop; None where that makes no nest, or one that nobody wants."""
        if loop.kind in ("unroll", "vec"):
            return self._straight(state, loop)
        reducing = state.phase != JOINED and loop.axis in state.model[0].reduction
        if loop.kind == "seq" and state.parallel > 1:
            return None
        ready: State | None = state
        if reducing:
            if state.phase == STRAIGHT:
                ready = self._tile(state, inner)
            elif state.phase != REDUCING:
                return None
        elif state.phase in (STRAIGHT, REDUCING):
            ready = self._finished(state, inner)
        if ready is None or any(dim[2] != loop.step for dim in ready.packs if self._splits(ready, dim, loop)):
            return None
        return self._loop(ready, loop, inner, outer, REDUCING if reducing else max(ready.phase, DONE))

    def finished(self, state: State, shape: Shape) -> State | None:
        """The state of a whole stage, its reduction done and stored."""
        return self._finished(state, shape) if state.phase in (STRAIGHT, REDUCING) else state

    def _splits(self, state: State, pack: tuple[str, int, int], loop: For) -> bool:
        """Whether `loop` is the one whose iterations own a panel: the first sequential loop along the lanes' axis."""
        return loop.axis == state.vector and not any(
            done.axis == loop.axis and done.kind in ("seq", "par") for done in state.loops
        )

    def _straight(self, state: State, loop: For) -> State | None:
        if state.phase != STRAIGHT or (loop.kind == "vec" and state.loops):
            return None
        tiles = (*((a, n) for a, n in state.tiles if a != loop.axis), (loop.axis, loop.span))
        vector, lanes = (loop.axis, loop.span) if loop.kind == "vec" else (state.vector, state.lanes)
        return replace(state, loops=(loop, *state.loops), tiles=tiles, vector=vector, lanes=lanes)

    def _tile(self, state: State, shape: Shape) -> State | None:
        """The register tile as one piece of straight-line code."""
        model = state.model[0]
        # A panel that is not split along its axis is no panel.
        lanes = max(state.lanes, self.machine.lanes(model.itemsize)) if state.vector else 1
        cost = TileModel(model, state.accesses, dict(state.tiles), state.vector, lanes, self.machine).cost()
        if cost is None:
            return None
        touched = tuple(shape.bytes(access, self.machine) for access in state.accesses)
        return replace(
            state,
            phase=REDUCING,
            compute=cost.compute,
            l1=cost.l1,
            finish=(cost.finish_compute, cost.finish_l1),
            partials=cost.partials,
            traffic=(touched,) * len(self.machine.levels),
        )

    def _finished(self, state: State, shape: Shape) -> State | None:
        ready = self._tile(state, shape) if state.phase == STRAIGHT else state
        if ready is None:
            return None
        model = ready.model[0]
        if any(shape.spans.get(axis, 1) < model.extents[axis] for axis in model.reduction):
            return None
        return replace(
            ready,
            phase=DONE,
            compute=ready.compute + ready.finish[0],
            l1=ready.l1 + ready.finish[1],
            finish=(0.0, 0.0),
        )

    def _loop(self, state: State, loop: For, inner: Shape, outer: Shape, phase: int) -> State:
        trips = self._trips(state, loop)
        core = self.machine.core
        traffic: list[Bytes] = []
        for level, before in enumerate(state.traffic):
            if outer.fits[level]:
                traffic.append(tuple(outer.bytes(access, self.machine) for access in state.accesses))
                continue
            fits = inner.fits[level]
            after: list[float] = []
            for access, moved in zip(state.accesses, before, strict=True):
                if not fits:
                    after.append(moved * trips)
                elif not access.depends(loop.axis):
                    after.append(moved)
                else:
                    after.append(min(moved * trips, max(moved, outer.bytes(access, self.machine))))
            traffic.append(tuple(after))
        return replace(
            state,
            phase=phase,
            loops=(loop, *state.loops),
            compute=(state.compute + core.loop / core.fma) * trips,
            l1=state.l1 * trips,
            traffic=tuple(traffic),
            parallel=state.parallel * -(-loop.span // loop.step) if loop.kind == "par" else state.parallel,
        )

    def _trips(self, state: State, loop: For) -> float:
        """Iterations, the last one in part where the step does not divide: a smaller tile costs less, but not in proportion
        when too few partial results are left to hide the latency of one."""
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
        return whole + part

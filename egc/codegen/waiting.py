"""Sums that wait in memory: where whole tiles take turns inside a loop over a reduction (Nest.chunks), each
adds a part of its sums in its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from egc.codegen.builder import Value
from egc.codegen.memory import LANE, Access, Position
from egc.codegen.storage import Sums, sums_dtype, sums_name
from egc.codegen.walk import Walk
from egc.ir.dims import Dim
from egc.ir.kernel import Stage
from egc.ir.nest import Loop
from egc.ir.types import itemsize

Positions = Mapping[str, Position]


class Waiting:
    """The sums of one stage's tiles between the iterations of its `chunks`. `origin` is where the axes stood
    outside them.
    """

    def __init__(
        self, stage: Stage, sums: Sums, chunks: Sequence[Loop], origin: Mapping[str, Dim], walk: Walk
    ) -> None:
        self.stage, self.sums, self.origin, self.walk = stage, sums, origin, walk
        self.b, self.memory = walk.b, walk.memory
        self.dtype = sums_dtype(stage.value.dtype)
        steps = {loop.axis: loop.step for loop in chunks}
        begun: Dim = 0
        left: Dim = 0
        for axis, step in steps.items():
            begun = begun + walk.position(axis)
            left = left + walk.axes[axis].extent - walk.position(axis) - step
        self.begun, self.left = (self.memory.settle(dim, {}) for dim in (begun, left))

    def begin(self, points: Sequence[Positions], identity: Sequence[Value]) -> list[Value]:
        """The sums at the points of a tile so far."""

        def load() -> list[Value]:
            return [self._load(point, first) for point, first in zip(points, identity, strict=True)]

        first = self.b.compare("icmp eq", self.memory.value(self.begun), self.b.i64(0))
        return self.b.branch(first, lambda: list(identity), load)

    def finish_or_store(
        self, points: Sequence[Positions], sums: Sequence[Value], finish: Callable[[], None]
    ) -> None:
        """What is done with the sums of a tile: `finish` where they are complete, else they wait."""

        def complete() -> list[Value]:
            finish()
            return []

        def store() -> list[Value]:
            for point, value in zip(points, sums, strict=True):
                raw = self.memory.scalars.to_memory(value, self.dtype)
                self.b.line(f"store {raw}, {self._pointer(point)}, align {self._align}")
            return []

        last = self.b.compare("icmp eq", self.memory.value(self.left), self.b.i64(0))
        self.b.branch(last, complete, store)

    def _load(self, point: Positions, like: Value) -> Value:
        raw = self.memory.scalars.to_memory(like, self.dtype)
        found = self.b.inst(
            f"load {raw.type}, {self._pointer(point)}, align {self._align}", raw.elem, raw.lanes
        )
        return self.memory.scalars.from_memory(found, self.dtype)

    def _pointer(self, point: Positions) -> Value:
        first = {LANE: Position(0)}
        flat: Dim = 0
        for axis, extent in self.sums.extents.items():
            flat = flat * extent + self.memory.settle(point[axis].dim, first) - self.origin[axis]
        access = Access(sums_name(self.stage), self.dtype, flat, ())
        return self.memory.address(access, self.memory.settle(flat, {}))

    @property
    def _align(self) -> int:
        return itemsize(self.dtype)

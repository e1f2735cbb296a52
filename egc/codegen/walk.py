"""The loops of a nest as control flow: the state of every axis, and the loops outside the register tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from egc.codegen.builder import Value
from egc.codegen.memory import Memory
from egc.ir.dims import Dim, ceildiv, dim_min, mod
from egc.ir.kernel import Axis
from egc.ir.nest import Loop


class AxisState(Struct, frozen=True):
    """Where an axis stands inside some loops: it begins at `start`, and the loops inside are to cover
    `span` positions, cut off at `extent` unless `exact`.
    """

    extent: Dim
    start: Dim
    span: Dim
    exact: bool

    def enter(self, step: int, counter: Dim) -> AxisState:
        """The state inside a loop of `step`, in its iteration `counter`. All enclosing steps are multiples
        of `step`, so only the extent decides whether the last iteration is cut off.
        """
        return AxisState(
            self.extent,
            self.start + counter * step,
            dim_min(step, self.span) if isinstance(self.span, int) else step,
            mod(self.extent, step) == 0,
        )

    def trips(self, step: int) -> Dim:
        """How many iterations of `step` cover what is left here."""
        if self.exact:
            return ceildiv(self.span, step)
        return dim_min(ceildiv(self.span, step), ceildiv(self.extent - self.start, step))


class Walk:
    """Opens loops, keeping the state of the axes in `axes`, and the loops outermost first in `loops`."""

    def __init__(self, memory: Memory, axes: Sequence[Axis]) -> None:
        self.memory = memory
        self.b = memory.b
        self.axes = {a.name: AxisState(a.extent, 0, a.extent, True) for a in axes}
        self.loops: tuple[Loop, ...] = ()

    @contextmanager
    def state(self, axis: str, state: AxisState) -> Iterator[None]:
        """`axis` stands at `state` inside."""
        outside = self.axes[axis]
        self.axes[axis] = state
        yield
        self.axes[axis] = outside

    def sequential(self, loop: Loop, body: Callable[[], None]) -> None:
        """A loop without carried values."""
        outside, self.loops = self.loops, (*self.loops, loop)
        self._sequential(loop, body)
        self.loops = outside

    def _sequential(self, loop: Loop, body: Callable[[], None]) -> None:
        state = self.axes[loop.axis]
        trips = self.memory.settle(state.trips(loop.step), {})
        if isinstance(trips, int) and trips <= 1:
            if trips == 1:
                with self.state(loop.axis, state.enter(loop.step, 0)):
                    body()
            return

        def inside(counter: Value, _: list[Value]) -> list[Value]:
            with self.state(loop.axis, state.enter(loop.step, self.counter(counter, trips))):
                body()
            return []

        end = self.memory.value(trips)
        self.b.loop(self.b.i64(0), end, [], inside, at_least_once=isinstance(trips, int))

    def counter(self, value: Value, trips: Dim) -> Dim:
        """A symbol for a loop counter."""
        return self.memory.bind("i", value, trips)

    def parallel(
        self, loops: Sequence[Loop], thread: Value, threads: Value, body: Callable[[], None]
    ) -> None:
        """Leading `par` loops as one index space, of which each thread takes one contiguous share.

        Where two of them split one axis, the inner one has as many iterations in the tile that the extent
        cuts off as in any other, so that the space has one shape; those beyond the extent do nothing.
        """
        b = self.b
        trips: list[Dim] = []
        steps: dict[str, int] = {}
        cut: dict[str, None] = {}
        for loop in loops:
            around, state = steps.get(loop.axis), self.axes[loop.axis]
            trips.append(state.trips(loop.step) if around is None else ceildiv(around, loop.step))
            if around is not None and mod(state.extent, around) != 0:
                cut[loop.axis] = None
            steps[loop.axis] = loop.step
        total: Dim = 1
        for one in trips:
            total = total * one
        if total == 0:
            return
        count = self.memory.value(total)

        def bound(of: Value) -> Value:
            return b.binary("udiv", b.mul(count, of), threads)

        def inside(counter: Value, _: list[Value]) -> list[Value]:
            saved = dict(self.axes)
            rest = counter
            for position in range(len(loops) - 1, -1, -1):
                own = rest
                if position:
                    extent = self.memory.value(trips[position])
                    own, rest = b.binary("urem", rest, extent), b.binary("udiv", rest, extent)
                loop = loops[position]
                number = 0 if trips[position] == 1 else self.counter(own, trips[position])
                self.axes[loop.axis] = self.axes[loop.axis].enter(loop.step, number)
            self.loops = tuple(loops)
            self._within(list(cut), body)
            self.axes, self.loops = saved, ()
            return []

        b.loop(bound(thread), bound(b.add(thread, b.i64(1))), [], inside)

    def _within(self, axes: Sequence[str], body: Callable[[], None]) -> None:
        """The body where all of some axes stand before their extents."""
        if not axes:
            body()
            return
        start, extent = (self.memory.value(d) for d in (self.axes[axes[0]].start, self.axes[axes[0]].extent))

        def arm() -> list[Value]:
            self._within(axes[1:], body)
            return []

        self.b.branch(self.b.compare("icmp slt", start, extent), arm)

    def tiled(self, axis: str) -> Dim:
        """The number of positions of `axis` in a cut-off tile: its extent modulo the span."""
        state = self.axes[axis]
        return 0 if state.exact else mod(state.extent, state.span)

    def position(self, axis: str) -> Dim:
        """Where `axis` stands."""
        return self.axes[axis].start


def leading_parallel(loops: Sequence[Loop]) -> int:
    """How many of the outermost loops are parallel."""
    count = 0
    while count < len(loops) and loops[count].kind == "par":
        count += 1
    return count

"""The reduction over a register tile: one accumulator for each point of the tile, in registers throughout.

A reduction axis whose extent is not a multiple of what one iteration of its innermost sequential loop
covers is peeled: the loops run over the part that divides, a second copy of the code inside over the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from egc.codegen.builder import Value, mangle
from egc.codegen.evaluate import Evaluator, Point
from egc.codegen.fetch import Fetch
from egc.codegen.indices import sym
from egc.codegen.memory import LANE, Position
from egc.codegen.scalars import is_floating, register_type
from egc.codegen.waiting import Waiting
from egc.codegen.walk import AxisState, Walk
from egc.errors import CompileError
from egc.ir.dims import Dim, floordiv, mod
from egc.ir.expr import Call, Expr
from egc.ir.kernel import Stage
from egc.ir.nest import Loop
from egc.ir.scalar import combiner_identity
from egc.ir.types import SIGNED

Positions = Mapping[str, Position]


def step_of(loops: Sequence[Loop], axis: str) -> int:
    """How many positions of `axis` one iteration of its innermost loop covers that is no copy."""
    steps = (loop.step for loop in loops if loop.axis == axis and loop.kind not in ("unroll", "vec"))
    return min(steps, default=1)


class Reduction:
    """Writes the reduction loops of one variant of a stage's tile."""

    def __init__(
        self,
        stage: Stage,
        value: Expr,
        loops: Sequence[Loop],
        walk: Walk,
        evaluator: Evaluator,
        ahead: Sequence[Fetch] = (),
        waiting: Waiting | None = None,
    ) -> None:
        assert stage.combine is not None
        self.combine = stage.combine
        self.stage = stage
        self.value = value
        self.loops = list(loops)
        self.walk = walk
        self.b = walk.b
        self.memory = walk.memory
        self.evaluator = evaluator
        self.ahead = ahead
        self.waiting = waiting
        self.lane_axis = next((loop.axis for loop in loops if loop.kind == "vec"), None)
        self.points: Sequence[Positions] = []

    def write(self, points: Sequence[Positions]) -> list[Value]:
        """The reduction at every point of the tile: finished, or as far as this turn takes it."""
        self.points = points
        dtype = self.value.dtype
        elem = register_type(dtype)
        identity = self.evaluator.scalars.const(combiner_identity(self.combine, dtype), dtype)
        lanes = [self._lanes(point) for point in points]
        accs = [self.b.splat(Value(identity.ref, elem), count) for count in lanes]
        if self.waiting:
            accs = self.waiting.begin(points, accs)
        if all(axis.extent != 0 for axis in self.stage.reduce):
            accs = self._loops(self.loops, {}, accs)
        if self.lane_axis is None:
            return accs
        return [self._across(acc) for acc in accs]

    def _lanes(self, point: Positions) -> int:
        own = max((p.lanes for p in point.values()), default=1)
        if self.lane_axis is None:
            return own
        assert own == 1, "one stage has one vectorised axis"
        steps = [loop.step for loop in self.loops if loop.axis == self.lane_axis]
        span = steps[-2] if len(steps) > 1 else self.walk.axes[self.lane_axis].extent
        if not isinstance(span, int):
            raise CompileError(
                f"stage {self.stage.name}: axis {self.lane_axis} of extent {span} is vectorised whole",
                hint="split it by a step first",
            )
        return span

    # Loops.

    def _loops(self, loops: list[Loop], at: dict[str, Position], accs: list[Value]) -> list[Value]:
        if not loops:
            return self._leaf(at, accs)
        loop, rest = loops[0], loops[1:]
        if loop.kind in ("unroll", "vec"):
            others = [other for other in rest if other.axis != loop.axis]
            for position in self._copies(loop.axis, [loop, *rest]):
                accs = self._loops(others, {**at, loop.axis: position}, accs)
            return accs
        state = self.walk.axes[loop.axis]
        unit = self._unit(loop.axis)
        outermost = isinstance(state.start, int)
        left = mod(state.extent, unit) if outermost else 0
        if left != 0:
            covered = floordiv(state.extent, unit) * unit
            whole = AxisState(covered, 0, covered, True)
            with self.walk.state(loop.axis, whole):
                accs = self._sequential(loop, rest, at, accs)
            return self._rest(loop.axis, left, rest, at, accs)
        return self._sequential(loop, rest, at, accs)

    def _sequential(
        self, loop: Loop, rest: list[Loop], at: dict[str, Position], accs: list[Value]
    ) -> list[Value]:
        state = self.walk.axes[loop.axis]
        trips = self.memory.settle(state.trips(loop.step), {})
        if trips == 0:
            return accs

        def inside(counter: Dim, carried: list[Value]) -> list[Value]:
            with self.walk.state(loop.axis, state.enter(loop.step, counter)):
                return self._loops(rest, at, carried)

        if trips == 1:
            return inside(0, accs)
        static = isinstance(trips, int)
        return self.b.loop(
            self.b.i64(0),
            self.memory.value(trips),
            accs,
            lambda counter, carried: inside(self.walk.counter(counter, trips), carried),
            at_least_once=static,
        )

    def _rest(
        self, axis: str, left: Dim, loops: list[Loop], at: dict[str, Position], accs: list[Value]
    ) -> list[Value]:
        """The last `left` positions of an axis: copies where their number is known or they are lanes,
        else one by one.
        """
        state = self.walk.axes[axis]
        start = state.extent - left
        kept = [loop for loop in loops if loop.axis != axis or loop.kind in ("unroll", "vec")]
        if isinstance(left, int) or axis == self.lane_axis:
            span = left if isinstance(left, int) else self._unit(axis)
            with self.walk.state(axis, AxisState(state.extent, start, span, isinstance(left, int))):
                if any(loop.axis == axis for loop in kept):
                    return self._loops(kept, at, accs)
                return self._single(axis, span, kept, at, accs)
        others = [loop for loop in kept if loop.axis != axis]

        def inside(counter: Value, carried: list[Value]) -> list[Value]:
            position = Position(self.memory.settle(start + self.walk.counter(counter, left), {}))
            return self._loops(others, {**at, axis: position}, carried)

        return self.b.loop(self.b.i64(0), self.memory.value(left), accs, inside)

    def _single(
        self, axis: str, span: int, loops: list[Loop], at: dict[str, Position], accs: list[Value]
    ) -> list[Value]:
        start = self.walk.position(axis)
        for offset in range(span):
            accs = self._loops(loops, {**at, axis: Position(start + offset)}, accs)
        return accs

    def _unit(self, axis: str) -> int:
        """How many positions of `axis` one iteration of its innermost sequential loop covers."""
        return step_of(self.loops, axis)

    def _copies(self, axis: str, loops: list[Loop]) -> list[Position]:
        """The unrolled positions of a reduction axis."""
        own = [loop for loop in loops if loop.axis == axis]
        state = self.walk.axes[axis]
        span = state.span
        if not isinstance(span, int):
            raise CompileError(
                f"stage {self.stage.name}: axis {axis} of extent {state.extent} is unrolled whole",
                why="its extent is not known when compiling",
                hint="split it by a step first",
            )
        if own[-1].kind != "vec":
            return [Position(state.start + offset) for offset in range(span)]
        lanes = self._lanes({})
        found: list[Position] = []
        for offset in range(0, span, lanes):
            mask: Value | None = None
            if not state.exact:
                room = self.memory.value(self.memory.settle(state.extent - state.start - offset, {}))
                mask = self.b.compare("icmp slt", self.b.lane_numbers(lanes), room)
            elif span - offset < lanes:
                text = ", ".join(f"i1 {'true' if i < span - offset else 'false'}" for i in range(lanes))
                mask = Value(f"<{text}>", "i1", lanes)
            found.append(Position(state.start + offset + sym(LANE), lanes, mask))
        return found

    # One step.

    def _leaf(self, at: dict[str, Position], accs: list[Value]) -> list[Value]:
        for axis in self.stage.reduce:
            if axis.name not in at:
                at = {**at, axis.name: Position(self.walk.position(axis.name))}
        for fetch in self.ahead:
            fetch.write(at)
        mask = at[self.lane_axis].mask if self.lane_axis is not None else None
        return [
            self._step(acc, Point({**point, **at}), mask)
            for point, acc in zip(self.points, accs, strict=True)
        ]

    def _step(self, acc: Value, point: Point, mask: Value | None) -> Value:
        value, evaluator = self.value, self.evaluator
        fused = (
            self.combine == "add"
            and isinstance(value, Call)
            and value.fn == "mul"
            and is_floating(value.dtype)
        )
        if fused:
            assert isinstance(value, Call)
            factors = [self.b.splat(evaluator.value(arg, point), acc.lanes) for arg in value.args]
            new = self.b.call("fma", *factors, acc)
        else:
            operand = self.b.splat(evaluator.value(value, point), acc.lanes)
            new = evaluator.scalars.combine(self.combine, acc, operand, value.dtype)
        return new if mask is None else self.b.select(mask, new, acc)

    def _across(self, acc: Value) -> Value:
        """The lanes of a partial result combined."""
        b, dtype, fn = self.b, self.value.dtype, self.combine
        if is_floating(dtype) and fn in ("add", "mul"):
            first = b.const(-0.0 if fn == "add" else 1.0, acc.elem)
            return self._reduce_lanes(f"f{fn}", acc, first)
        if is_floating(dtype):
            return self._reduce_lanes(f"f{fn}imum", acc)
        if dtype == "bool":
            return self._reduce_lanes("or" if fn in ("add", "max", "or") else "and", acc)
        if fn in ("max", "min"):
            return self._reduce_lanes(("s" if dtype in SIGNED else "u") + fn, acc)
        return self._reduce_lanes(fn, acc)

    def _reduce_lanes(self, fn: str, acc: Value, first: Value | None = None) -> Value:
        """llvm.vector.reduce; sums and products of floats have a first operand, and leave to be reordered."""
        name = f"llvm.vector.reduce.{fn}.{mangle(acc.elem, acc.lanes)}"
        operands = [acc] if first is None else [first, acc]
        self.b.declare(name, acc.elem, *[operand.type for operand in operands])
        flags = "" if first is None else "reassoc "
        text = f"call {flags}{acc.elem} @{name}({', '.join(map(str, operands))})"
        return self.b.pure(text, acc.elem, 1, acc)

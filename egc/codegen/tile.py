"""One stage: the loops round its register tile, the tile in its variants, and the reduction over it.

The tile is what the innermost `unroll` and `vec` loops over parallel axes span. Where the extent of a tiled
axis is not a multiple of the tile there are two variants, chosen by a branch at the tile: the whole tile,
and the rest. The rest of a known extent is a smaller tile; of one known only at run time it is the whole
tile with positions held inside the extent and stores switched off outside it, which costs no more than one
whole tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from egc.codegen.builder import Value
from egc.codegen.evaluate import Evaluator, Point
from egc.codegen.fetch import fetches, result_fetches
from egc.codegen.indices import sym
from egc.codegen.memory import LANE, Position
from egc.codegen.reduction import Reduction, step_of
from egc.codegen.storage import Sums
from egc.codegen.waiting import Waiting
from egc.codegen.walk import Walk
from egc.errors import CompileError
from egc.ir.dims import Dim, mod
from egc.ir.expr import expand_definitions
from egc.ir.kernel import Stage
from egc.ir.nest import Loop


class StageWriter:
    """Writes one stage inside the loops that are open in `walk`."""

    def __init__(
        self,
        stage: Stage,
        loops: Sequence[Loop],
        walk: Walk,
        evaluator: Evaluator,
        sums: Sums | None = None,
    ) -> None:
        self.stage = stage
        self.sums = sums
        self.walk = walk
        self.b = walk.b
        self.memory = walk.memory
        self.evaluator = evaluator
        self.result = expand_definitions(stage.result)
        self.value = expand_definitions(stage.value)
        reductions = {axis.name for axis in stage.reduce}
        root = len(loops)
        while root and (loops[root - 1].axis in reductions or loops[root - 1].kind in ("unroll", "vec")):
            root -= 1
        self.outer = list(loops[:root])
        self.tile = [loop for loop in loops[root:] if loop.axis not in reductions]
        self.inner = [loop for loop in loops[root:] if loop.axis in reductions]
        self.chunks = [loop for loop in self.outer if loop.axis in reductions]
        self.origin: dict[str, Dim] = {}  # where the axes stand outside the chunks

    def write(self) -> None:
        """The whole stage, in a region of its own."""
        self.b.scope(self._write)

    def _write(self) -> None:
        saved, self.memory.load_level = self.memory.load_level, self.b.level
        self._open(self.outer)
        self.memory.load_level = saved

    def _open(self, loops: Sequence[Loop]) -> None:
        if loops:
            if self.chunks and loops[0] is self.chunks[0]:
                self.origin = {axis.name: self.walk.position(axis.name) for axis in self.stage.axes}
            self.walk.sequential(loops[0], lambda: self._open(loops[1:]))
        elif all(axis.extent != 0 for axis in self.stage.axes):
            self._variants(list(dict.fromkeys(loop.axis for loop in self.tile)), {})

    # Variants of the tile.

    def _variants(self, axes: list[str], chosen: dict[str, list[Position]]) -> None:
        if not axes:
            self._body(chosen)
            return
        axis, rest = axes[0], axes[1:]
        state = self.walk.axes[axis]
        if not isinstance(state.span, int):
            raise CompileError(
                f"stage {self.stage.name}: axis {axis}, {state.extent}, is unrolled or vectorised whole",
                why="its extent is not known when compiling",
                hint="split it by a step first",
            )
        span = state.span

        def go(positions: list[Position]) -> None:
            self._variants(rest, {**chosen, axis: positions})

        if state.exact:
            go(self._whole(axis, span))
            return

        def arm(make: Callable[[], list[Position]]) -> Callable[[], list[Value]]:
            def run() -> list[Value]:
                go(make())
                return []

            return run

        def remainder() -> list[Position]:
            left = mod(state.extent, span)
            return self._whole(axis, left) if isinstance(left, int) else self._held(axis, span)

        if isinstance(state.extent, int) and state.extent < span:
            go(remainder())
            return
        end = self.memory.value(self.memory.settle(state.start + span, {}))
        fits = self.b.compare("icmp sle", end, self.memory.value(state.extent))
        self.b.branch(fits, arm(lambda: self._whole(axis, span)), arm(remainder))

    def _steps(self, axis: str) -> tuple[int, bool]:
        """How far apart the copies of a tiled axis are, and whether each is a vector."""
        loops = [loop for loop in self.tile if loop.axis == axis]
        if loops[-1].kind != "vec":
            return 1, False
        state = self.walk.axes[axis]
        return (loops[-2].step if len(loops) > 1 else int(state.span)), True  # type: ignore[arg-type]

    def _whole(self, axis: str, span: int) -> list[Position]:
        """Positions that cover `span` elements, all inside the extent."""
        start = self.walk.position(axis)
        step, vector = self._steps(axis)
        if not vector:
            return [Position(start + offset) for offset in range(span)]
        found: list[Position] = []
        for offset in range(0, span, step):
            valid = min(step, span - offset)
            lanes = 1 << (valid - 1).bit_length()
            dim = start + offset + (sym(LANE) if lanes > 1 else 0)
            found.append(Position(dim, lanes, self._first_lanes(lanes, valid)))
        return found

    def _first_lanes(self, lanes: int, valid: int) -> Value | None:
        if valid == lanes:
            return None
        text = ", ".join(f"i1 {'true' if i < valid else 'false'}" for i in range(lanes))
        return Value(f"<{text}>", "i1", lanes)

    def _held(self, axis: str, span: int) -> list[Position]:
        """Positions that span a whole tile, held inside an extent known at run time."""
        b = self.b
        state = self.walk.axes[axis]
        step, vector = self._steps(axis)
        left = self.memory.value(self.memory.settle(state.extent - state.start, {}))
        found: list[Position] = []
        for offset in range(0, span, step):
            room = b.binary("sub", left, b.i64(offset))
            if vector:
                mask = b.compare("icmp slt", b.lane_numbers(step), room)
                found.append(Position(state.start + offset + sym(LANE), step, mask))
                continue
            last = self.memory.value(self.memory.settle(state.extent - 1, {}))
            at = self.memory.value(self.memory.settle(state.start + offset, {}))
            held = self.memory.bind("held", b.call("smin", at, last))
            found.append(Position(held, 1, None, b.compare("icmp sgt", room, b.i64(0))))
        return found

    # The tile itself.

    def _body(self, chosen: dict[str, list[Position]]) -> None:
        fixed = {
            axis.name: Position(self.walk.position(axis.name))
            for axis in self.stage.axes
            if axis.name not in chosen
        }
        points = [
            {**fixed, **dict(zip(chosen, combination, strict=True))}
            for combination in product(*chosen.values())
        ]
        if not self.stage.combine:
            for point in points:
                self._finish(Point(point))
            return
        ahead = list(fetches(self.stage, self.tile, self.walk))
        unit = step_of(self.inner, self.stage.reduce[-1].name)
        ahead += result_fetches(self.stage, self.result, chosen, unit, self.walk)
        waiting = Waiting(self.stage, self.sums, self.chunks, self.origin, self.walk) if self.sums else None
        reduction = Reduction(self.stage, self.value, self.inner, self.walk, self.evaluator, ahead, waiting)
        accs = reduction.write(points)

        def finish() -> None:
            for point, acc in zip(points, accs, strict=True):
                self._finish(Point(point, acc))

        if waiting:
            waiting.finish_or_store(points, accs, finish)
        else:
            finish()

    def _finish(self, point: Point) -> None:
        stage = self.stage
        value = self.evaluator.value(self.result, point)
        self.evaluator.store(stage.out, stage.index, value, point, stage.mode)

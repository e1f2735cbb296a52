"""One stage in the threads of a block: loops shared among threads, and reductions that threads combine.

A `thread` loop gives every thread one iteration; threads past its end, or past the end of its axis, skip the
body. A `thread` loop over a reduction axis gives every thread a partial result; these meet in shared memory
and are combined pairwise, half of them at a time, as the lanes of a vector are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

from egc.codegen.builder import Builder, Value
from egc.codegen.evaluate import Evaluator, Point
from egc.codegen.memory import Memory, Position
from egc.codegen.reduction import Positions, Reduction
from egc.codegen.tile import StageWriter
from egc.codegen.walk import AxisState, Walk
from egc.errors import CompileError
from egc.ir.dims import Dim, ceildiv
from egc.ir.expr import Expr
from egc.ir.kernel import Stage
from egc.ir.nest import Loop, Nest

BARRIER = "llvm.nvvm.barrier.cta.sync.aligned.all"


class Block:
    """The threads of one block: `thread` is the number of this one, of `threads`. `allocate(stem, count, LLVM
    type, bytes)` gives the address of a new array in shared memory."""

    def __init__(
        self,
        b: Builder,
        memory: Memory,
        thread: Value,
        threads: int,
        allocate: Callable[[str, int, str, int], Value],
    ) -> None:
        self.b, self.memory = b, memory
        self.thread, self.threads = thread, threads
        self._allocate = allocate
        self._partials: dict[str, Value] = {}

    def barrier(self) -> None:
        """All threads of the block meet; what they wrote is seen by all."""
        self.b.declare(BARRIER, "void", "i32")
        self.b.line(f"call void @{BARRIER}(i32 0)")

    def first(self, count: int) -> Value | None:
        """Whether this is one of the first `count` threads; None where all are."""
        if count >= self.threads:
            return None
        return self.b.compare("icmp ult", self.thread, self.b.i64(count))

    def counter(self, stride: int, trips: int) -> Dim:
        """The iteration of a loop of `trips` that this thread has; `stride` neighbours have the same one."""
        b, own = self.b, self.thread
        if trips == 1:
            return 0
        if stride > 1:
            own = b.binary("udiv", own, b.i64(stride))
        if stride * trips < self.threads:
            own = b.binary("urem", own, b.i64(trips))
        return self.memory.bind("t", own, trips)

    def partials(self, elem: str) -> Value:
        """Shared memory for one partial result of each thread."""
        if elem not in self._partials:
            nbytes = self.threads * _nbytes(elem)
            self._partials[elem] = self._allocate(f"partial.{elem}", self.threads, elem, nbytes)
        return self._partials[elem]


class DeviceStage(StageWriter):
    """Writes one stage inside the block loops that are open in `walk`."""

    def __init__(
        self, stage: Stage, loops: Sequence[Loop], walk: Walk, evaluator: Evaluator, block: Block
    ) -> None:
        super().__init__(stage, loops, walk, evaluator)
        self.block = block
        self.reducing = reducing_threads(stage, loops)
        self.count = loop_threads(stage, loops, {a: s.span for a, s in walk.axes.items()})
        self.stride = self.count

    def _write(self) -> None:
        some = None if self.reducing else self.block.first(self.count)
        if some is None:
            super()._write()
            return

        def arm() -> list[Value]:
            super(DeviceStage, self)._write()
            return []

        self.b.branch(some, arm)

    def _open(self, loops: Sequence[Loop]) -> None:
        if loops and loops[0].kind == "thread":
            self._thread(loops[0], lambda: self._open(loops[1:]))
        else:
            super()._open(loops)

    def _thread(self, loop: Loop, body: Callable[[], None]) -> None:
        state = self.walk.axes[loop.axis]
        trips = ceildiv(state.span, loop.step)
        assert isinstance(trips, int), "threads are counted when compiling"
        self.stride //= trips
        inner = state.enter(loop.step, self.block.counter(self.stride, trips))
        saved = self.stride
        with self.walk.state(loop.axis, inner):
            if state.exact:
                body()
            else:
                at = self.memory.value(self.memory.settle(inner.start, {}))
                inside = self.b.compare("icmp slt", at, self.memory.value(state.extent))
                self._when(inside, body)
        self.stride = saved * trips

    def _when(self, condition: Value, body: Callable[[], None]) -> None:
        def arm() -> list[Value]:
            body()
            return []

        self.b.branch(condition, arm)

    def _body(self, chosen: dict[str, list[Position]]) -> None:
        if not self.reducing:
            super()._body(chosen)
            return
        fixed = {
            a.name: Position(self.walk.position(a.name)) for a in self.stage.axes if a.name not in chosen
        }
        points = [{**fixed, **dict(zip(chosen, found, strict=True))} for found in product(*chosen.values())]
        args = (self.stage, self.value, self.inner, self.walk, self.evaluator)
        accs = DeviceReduction(*args, self.block, self.reducing).write(points)
        first = self.b.compare("icmp eq", self.block.thread, self.b.i64(0))
        for point, acc in zip(points, accs, strict=True):
            self._when(first, partial(self._finish, Point(point, acc)))


class DeviceReduction(Reduction):
    """A reduction of which the first `count` threads of a block do a share each."""

    def __init__(
        self,
        stage: Stage,
        value: Expr,
        loops: Sequence[Loop],
        walk: Walk,
        evaluator: Evaluator,
        block: Block,
        count: int,
    ) -> None:
        super().__init__(stage, value, loops, walk, evaluator)
        self.block, self.count = block, count
        self.thread_axis = next(loop.axis for loop in loops if loop.kind == "thread")

    def write(self, points: Sequence[Positions]) -> list[Value]:
        """The finished reduction at every point, known to all threads."""
        return [self._combined(acc) for acc in super().write(points)]

    def _loops(self, loops: list[Loop], at: dict[str, Position], accs: list[Value]) -> list[Value]:
        if not loops or loops[0].kind != "thread":
            return super()._loops(loops, at, accs)
        axis, rest = loops[0].axis, loops[1:]
        state = self.walk.axes[axis]
        number = self.memory.bind("t", self.block.thread, self.block.threads)
        dim = self.memory.settle(state.start + number, {})
        inside = self.block.first(self.count)
        if not state.exact:
            short = self.b.compare("icmp slt", self.memory.value(dim), self.memory.value(state.extent))
            inside = short if inside is None else self.b.binary("and", inside, short)
        at = {**at, axis: Position(dim)}
        if inside is None:
            return self._loops(rest, at, accs)
        return self.b.branch(inside, lambda: self._loops(rest, at, accs), lambda: list(accs))

    def _unit(self, axis: str) -> int:
        if axis != self.thread_axis:
            return super()._unit(axis)
        return min(loop.step for loop in self.loops if loop.axis == axis and loop.kind == "seq")

    def _rest(
        self, axis: str, left: Dim, loops: list[Loop], at: dict[str, Position], accs: list[Value]
    ) -> list[Value]:
        if axis != self.thread_axis:
            return super()._rest(axis, left, loops, at, accs)
        extent = self.walk.axes[axis].extent
        state = AxisState(extent, extent - left, self._unit(axis), False)
        with self.walk.state(axis, state):
            return self._loops(
                [loop for loop in loops if loop.kind == "thread" or loop.axis != axis], at, accs
            )

    def _combined(self, acc: Value) -> Value:
        """The partial results of all threads combined: in step h, thread t takes in what thread t + h has."""
        b, block, dtype = self.b, self.block, self.value.dtype
        narrow = acc.elem == "i1"
        elem = "i8" if narrow else acc.elem
        partials = block.partials(elem)

        def at(index: Value) -> Value:
            return b.inst(f"getelementptr {elem}, {partials}, {index}", "ptr")

        def read(index: Value) -> Value:
            raw = b.inst(f"load {elem}, {at(index)}, align {_nbytes(elem)}", elem)
            return b.inst(f"trunc {raw} to i1", "i1") if narrow else raw

        def write(value: Value) -> None:
            raw = b.inst(f"zext {value} to i8", "i8") if narrow else value
            b.line(f"store {raw}, {at(block.thread)}, align {_nbytes(elem)}")

        def when(count: int, body: Callable[[], None]) -> None:
            condition = block.first(count)
            if condition is None:
                body()
                return

            def arm() -> list[Value]:
                body()
                return []

            b.branch(condition, arm)

        block.barrier()  # until all have read what was combined before
        when(self.count, lambda: write(acc))
        left = self.count
        while left > 1:
            half = 1 << (left - 1).bit_length() - 1
            block.barrier()

            def step(half: int = half) -> None:
                other = b.binary("add", block.thread, b.i64(half))
                write(self._merge(read(block.thread), read(other), dtype))

            when(left - half, step)
            left = half
        block.barrier()
        return read(b.i64(0))

    def _merge(self, a: Value, c: Value, dtype: str) -> Value:
        """Two partial results as one; no part of it is moved or reused."""
        return self.evaluator.scalars.combine(self.combine, a, c, dtype)


def _nbytes(elem: str) -> int:
    """The size of an LLVM type."""
    return {"float": 4, "double": 8}.get(elem) or int(elem[1:]) // 8


def loop_threads(stage: Stage, loops: Sequence[Loop], spans: dict[str, Dim]) -> int:
    """How many threads the `thread` loops over parallel axes make; axes cover `spans` outside `loops`."""
    spans = dict(spans)
    reductions = {axis.name for axis in stage.reduce}
    count = 1
    for loop in loops:
        span = spans[loop.axis]
        if loop.kind == "thread" and loop.axis not in reductions:
            trips = ceildiv(span, loop.step)
            if not isinstance(trips, int):
                raise CompileError(
                    f"stage {stage.name}: axis {loop.axis} of extent {span} is given to threads whole",
                    why="its extent is not known when compiling",
                    hint="split it by a step first",
                )
            count *= trips
        spans[loop.axis] = min(loop.step, span) if isinstance(span, int) else loop.step
    return count


def reducing_threads(stage: Stage, loops: Sequence[Loop]) -> int:
    """How many threads share the reduction of a stage; 0 where each has its own."""
    spans: dict[str, Dim] = {axis.name: axis.extent for axis in stage.reduce}
    for loop in loops:
        if loop.axis not in spans:
            continue
        span = spans[loop.axis]
        if loop.kind == "thread":
            if not isinstance(span, int):
                raise CompileError(f"stage {stage.name}: axis {loop.axis} is given to threads whole")
            return span
        spans[loop.axis] = min(loop.step, span) if isinstance(span, int) else loop.step
    return 0


def stage_threads(nest: Nest, position: int) -> int:
    """How many threads a stage of a nest uses."""
    stage = nest.kernel.stages[position]
    spans: dict[str, Dim] = {axis.name: axis.extent for axis in stage.all_axes}
    loops = nest.loops(position)
    return max(1, reducing_threads(stage, loops), loop_threads(stage, loops, spans))

"""A loop nest in, the text of an LLVM module with one function out.

The function is `void NAME(ptr bufs, ptr dims, i64 tid, i64 nthreads)`: `bufs` holds the addresses of the
kernel's parameters in order and then that of the scratch memory, of which thread `tid` owns `scratch_bytes`
bytes from `tid * scratch_bytes`; `dims` holds the values of the kernel's symbolic dims in order. Every
thread calls it and does its share of the `par` loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from egc.codegen.builder import Builder, Value
from egc.codegen.evaluate import Evaluator
from egc.codegen.memory import Memory
from egc.codegen.scalars import Scalars, memory_type
from egc.codegen.storage import plan_locals, plan_sums, sums_dtype, sums_name, tile_start
from egc.codegen.target import Target
from egc.codegen.tile import StageWriter
from egc.codegen.walk import Walk, leading_parallel
from egc.ir.dims import Dim, product
from egc.ir.kernel import Kernel, Stage
from egc.ir.nest import Loop, Nest, check_nest


class Emitted(Struct, frozen=True):
    """A kernel as LLVM IR. `scratch_bytes` is what each thread needs, a dim over the kernel's symbols."""

    name: str
    text: str
    scratch_bytes: Dim


def emit(nest: Nest, target: Target) -> Emitted:
    """The LLVM IR of `nest` for `target`; NestError for a nest that breaks the form, CompileError for
    what has no code.
    """
    check_nest(nest)
    kernel = nest.kernel
    writer = _KernelWriter(nest)
    writer.write()
    writer.memory.write_fills()
    declarations = "\n".join(writer.b.declarations[name] for name in sorted(writer.b.declarations))
    text = (
        f'target triple = "{target.triple}"\n'
        f"define void @{kernel.name}(ptr %bufs, ptr %dims, i64 %tid, i64 %nthreads) #0 {{\n"
        f"entry:\n{writer.b.text()}\nret void\n}}\n{declarations}\n"
        f'attributes #0 = {{ nounwind "prefer-vector-width"="{target.vector_bits}" '
        f'"min-legal-vector-width"="{target.vector_bits}" "no-builtins" }}\n'
    )
    return Emitted(kernel.name, text, writer.scratch_bytes)


class _KernelWriter:
    """The state while one kernel is written."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.kernel = nest.kernel
        self.b = Builder()
        self.scalars = Scalars(self.b)
        storages, scratch = plan_locals(nest)
        self.sums, self.scratch_bytes = plan_sums(nest, scratch)
        packs = {pack.buffer: pack for pack in nest.packs}
        self.memory = Memory(self.b, self.scalars, self.kernel, storages, packs, frozenset(nest.fetched))
        self.evaluator = Evaluator(self.memory, self.scalars)
        self.tid = Value("%tid", "i64")
        self.nthreads = Value("%nthreads", "i64")

    def write(self) -> None:
        """The function's body."""
        self._prologue()
        if self.kernel.shared and len(self.kernel.stages) > 1:
            self._shared_stages()
        elif _independent(self.kernel):
            for position in range(len(self.kernel.stages)):
                self._own_stage(position)
        else:
            self._by_one_thread(self._all_stages)

    def _prologue(self) -> None:
        b, memory = self.b, self.memory
        for position, name in enumerate(self.kernel.symbols):
            at = b.pure(f"getelementptr i64, ptr %dims, i64 {position}", "ptr", 1)
            memory.values[name] = b.pure(f"load i64, {at}, align 8", "i64", 1, at)
        for position, buffer in enumerate(self.kernel.params):
            memory.pointers[buffer.name] = self._pointer_argument(position)
        for buffer in self.kernel.locals:
            storage = memory.storages[buffer.name]
            dtype = memory_type(buffer.type.dtype)
            memory.pointers[buffer.name] = self._local(dtype, product(storage.shape), storage.offset)
        for stage in self.kernel.stages:
            if sums := self.sums.get(stage.name):
                dtype = memory_type(sums_dtype(stage.value.dtype))
                memory.pointers[sums_name(stage)] = self._local(dtype, sums.elements, sums.offset)

    def _local(self, elem: str, count: Dim, offset: Dim | None) -> Value:
        """The address of local memory: `offset` bytes into the thread's scratch, or on the stack."""
        b, memory = self.b, self.memory
        if offset is None:
            name = b.name("local")
            b.allocas.append(f"%{name} = alloca [{max(int(count), 1)} x {elem}], align 64")  # type: ignore[arg-type]
            return Value(f"%{name}", "ptr")
        base = self._pointer_argument(len(self.kernel.params))
        own = b.mul(self.tid, memory.value(self.scratch_bytes))
        scratch = b.pure(f"getelementptr i8, {base}, {own}", "ptr", 1, base, own)
        at = memory.value(offset)
        return b.pure(f"getelementptr i8, {scratch}, {at}", "ptr", 1, scratch, at)

    def _pointer_argument(self, position: int) -> Value:
        at = self.b.pure(f"getelementptr ptr, ptr %bufs, i64 {position}", "ptr", 1)
        return self.b.pure(f"load ptr, {at}, align 8", "ptr", 1, at)

    def _by_one_thread(self, body: Callable[[], None]) -> None:
        def arm() -> list[Value]:
            body()
            return []

        self.b.branch(self.b.compare("icmp eq", self.tid, self.b.i64(0)), arm)

    def _own_stage(self, position: int) -> None:
        """A stage that shares no loops: its own parallel loops are shared among the threads."""
        stage, loops = self.kernel.stages[position], self.nest.loops(position)
        walk = Walk(self.memory, stage.all_axes)
        count = 0 if stage.ordered or stage.mode != "set" else leading_parallel(loops)
        writer = StageWriter(stage, loops[count:], walk, self.evaluator, self.sums.get(stage.name))
        if count:
            self.b.scope(lambda: walk.parallel(loops[:count], self.tid, self.nthreads, writer.write))
        else:
            self._by_one_thread(writer.write)

    def _all_stages(self) -> None:
        for stage, loops in zip(self.kernel.stages, self.nest.stages, strict=True):
            self._stage(stage, loops, Walk(self.memory, stage.all_axes))

    def _stage(self, stage: Stage, loops: Sequence[Loop], walk: Walk) -> None:
        StageWriter(stage, loops, walk, self.evaluator, self.sums.get(stage.name)).write()

    def _shared_stages(self) -> None:
        """Stages inside shared loops, of which the parallel ones are shared among the threads."""
        kernel, loops = self.kernel, self.nest.shared
        walk = Walk(self.memory, kernel.stages[0].axes[: kernel.shared])
        ordered = any(stage.ordered or stage.mode != "set" for stage in kernel.stages)
        count = 0 if ordered else leading_parallel(loops)

        def stages() -> None:
            for axis, state in walk.axes.items():
                self.memory.aliases[tile_start(axis)] = state.start
            for stage, own in zip(kernel.stages, self.nest.stages, strict=True):
                inner = Walk(self.memory, stage.all_axes)
                inner.axes.update(walk.axes)
                self._stage(stage, own, inner)

        def rest(position: int) -> None:
            if position == len(loops):
                self.b.scope(stages)
            else:
                walk.sequential(loops[position], lambda: rest(position + 1))

        if count:
            walk.parallel(loops[:count], self.tid, self.nthreads, lambda: rest(count))
        else:
            self._by_one_thread(lambda: rest(0))


def _independent(kernel: Kernel) -> bool:
    """Whether no stage reads what another one writes."""
    written = {stage.out for stage in kernel.stages}
    return not any(load.buffer in written for stage in kernel.stages for load in stage.loads())

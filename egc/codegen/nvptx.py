"""A loop nest mapped to a GPU in, the LLVM IR of one device function out, and how it is launched.

The function is `void NAME(ptr buffer…, i64 dim…, ptr scratch)`: the kernel's parameters, the values of its
symbolic dims, in order, and memory of which block i owns `scratch_bytes` bytes from `i * scratch_bytes`. It
is written by the machinery that writes CPU code; what differs is what its loops become. The iterations of
`block` loops are the blocks of the grid, those of `thread` loops the threads of a block (several loops of a
kind form one index space, the innermost loop fastest), and a local buffer that threads share lies in the
block's shared memory, with a barrier between the stages that write and read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import gcd

from msgspec import Struct

from egc.codegen.builder import Builder, Value
from egc.codegen.evaluate import Evaluator
from egc.codegen.indices import terms
from egc.codegen.memory import Access, Memory
from egc.codegen.nvptx_threads import Block, DeviceStage, stage_threads
from egc.codegen.scalars import Scalars, memory_type
from egc.codegen.storage import plan_locals, tile_start
from egc.codegen.target import Target
from egc.codegen.walk import Walk
from egc.errors import CompileError
from egc.ir.dims import Dim, ceildiv, dim_max, product
from egc.ir.expr import Const
from egc.ir.kernel import Stage
from egc.ir.nest import Loop, Nest, check_nest
from egc.ir.types import itemsize

# What every block may declare without asking the driver for more (CUDA C++ Programming Guide, section 20.7).
STATIC_SHARED_BYTES = 48 << 10
BLOCK_THREADS = 1024  # CUDA C++ Programming Guide, table of technical specifications
_ALIGNMENT = 64  # of every buffer that the runtime passes
_VECTOR_BYTES = 16  # the widest load of a thread (PTX ISA, ld)
_WIDEST = 16  # bytes of shared memory a thread: partial results of two types


class DeviceKernel(Struct, frozen=True):
    """A device function as LLVM IR: `declarations` once a module, `text` its definition. It is launched with
    `blocks` blocks (a dim over the kernel's symbols) of `threads` threads; a block uses `shared_bytes` of
    shared memory and `scratch_bytes` (a dim) of the scratch memory."""

    name: str
    text: str
    blocks: Dim
    threads: int
    shared_bytes: int
    scratch_bytes: Dim


def emit_device(nest: Nest, target: Target) -> DeviceKernel:
    """The device function of `nest`; NestError for a nest that breaks the form, CompileError for what has no
    code."""
    check_nest(nest)
    return _DeviceWriter(nest, target).write()


class DeviceMemory(Memory):
    """Memory in which a guarded load is a branch: threads outside the guard read nothing."""

    def load(
        self,
        access: Access,
        flat: Dim,
        lanes: int,
        mask: Value | None,
        guard: Value | None,
        other: Const | None,
    ) -> Value:
        """As in Memory, for scalars."""
        assert lanes == 1 and mask is None, "threads take the place of lanes"
        if guard is None:
            return self._scalar(access, flat)
        outside = self.scalars.const(other.value if other is not None else 0, access.dtype)
        return self.b.branch(guard, lambda: [self._scalar(access, flat)], lambda: [outside])[0]

    def _scalar(self, access: Access, flat: Dim) -> Value:
        b, elem = self.b, memory_type(access.dtype)
        pointer = self._advance(access, self.pointers[access.buffer], flat)
        least = max(b.load_level, self.load_level)
        text = f"load {elem}, {pointer}, align {_alignment(access, flat)}"
        return self.scalars.from_memory(b.pure(text, elem, 1, pointer, least=least), access.dtype)

    def store(self, access: Access, flat: Dim, value: Value, mask: Value | None) -> None:
        """As in Memory, for scalars."""
        assert mask is None, "threads take the place of lanes"
        raw = self.scalars.to_memory(value, access.dtype)
        pointer = self._advance(access, self.pointers[access.buffer], flat)
        self.b.line(f"store {raw}, {pointer}, align {_alignment(access, flat)}")


def _alignment(access: Access, flat: Dim) -> int:
    """The alignment in bytes of an element: LLVM joins neighbouring loads where the first one's is that of
    all. Every buffer begins on a boundary of 16 bytes or more."""
    size = itemsize(access.dtype)
    common = gcd(*(coefficient for _, coefficient in terms(flat))) * size
    return min(common & -common, _VECTOR_BYTES) if common else _VECTOR_BYTES


class _DeviceWriter:
    """The state while one device function is written."""

    def __init__(self, nest: Nest, target: Target) -> None:
        self.nest, self.target = nest, target
        self.kernel = kernel = nest.kernel
        self.b = Builder()
        self.scalars = Scalars(self.b)
        self.storages, _ = plan_locals(nest)
        packs = {pack.buffer: pack for pack in nest.packs}
        self.memory = DeviceMemory(self.b, self.scalars, kernel, self.storages, packs)
        self.evaluator = Evaluator(self.memory, self.scalars)
        self.fused = kernel.shared > 0 and len(kernel.stages) > 1
        self.globals: list[str] = []
        self.shared_bytes = 0
        self.scratch_bytes: Dim = 0
        threads = max(stage_threads(nest, i) for i in range(len(kernel.stages)))
        if threads > BLOCK_THREADS:
            raise CompileError(
                f"the kernel {kernel.name} has {threads} threads in a block",
                why=f"there can be {BLOCK_THREADS}",
            )
        self.number = self._register("ctaid")
        self.block = Block(self.b, self.memory, self._register("tid"), threads, self._shared_array)

    def _register(self, name: str) -> Value:
        """A special register, which counts less than 2³¹."""
        self.b.declare(f"llvm.nvvm.read.ptx.sreg.{name}.x", "i32")
        narrow = self.b.pure(f"call i32 @llvm.nvvm.read.ptx.sreg.{name}.x()", "i32", 1)
        return self.b.convert("zext", narrow, "i64")

    def _shared_array(self, stem: str, count: int, elem: str, nbytes: int) -> Value:
        """The address of a new array in the block's shared memory."""
        name = f"@{self.kernel.name}.{stem}"
        self.globals.append(f"{name} = internal addrspace(3) global [{count} x {elem}] undef, align 16")
        self.shared_bytes += ceildiv(nbytes, 16) * 16  # type: ignore[assignment]
        return self.b.pure(f"addrspacecast ptr addrspace(3) {name} to ptr", "ptr", 1)

    def write(self) -> DeviceKernel:
        """The whole function."""
        kernel = self.kernel
        self._prologue()
        self.b.scope(self._shared_stages if self.fused else self._separate_stages)
        blocks = reduce(dim_max, [product(self._trips(i)) for i in range(len(kernel.stages))])
        declarations = [self.b.declarations[name] for name in sorted(self.b.declarations)]
        attributes = f'nounwind "target-cpu"="{self.target.cpu}" "nvvm.maxntid"="{self.block.threads}"'
        text = "\n".join(
            [
                f'target triple = "{self.target.triple}"',
                *self.globals,
                f"define ptx_kernel void @{kernel.name}({', '.join(self._parameters())}) #0 {{",
                f"entry:\n{self.b.text()}\nret void\n}}",
                *declarations,
                f"attributes #0 = {{ {attributes} }}\n",
            ]
        )
        return DeviceKernel(
            kernel.name, text, blocks, self.block.threads, self.shared_bytes, self.scratch_bytes
        )

    def _parameters(self) -> list[str]:
        # Loads through `noalias readonly` pointers go through the read-only cache.
        found = [
            f"ptr {'noalias readonly ' if buffer.role == 'in' else ''}align {_ALIGNMENT} %b{i}"
            for i, buffer in enumerate(self.kernel.params)
        ]
        dims = [f"i64 %d{i}" for i in range(len(self.kernel.symbols))]
        return [*found, *dims, f"ptr align {_ALIGNMENT} %scratch"]

    def _prologue(self) -> None:
        memory = self.memory
        for i, name in enumerate(self.kernel.symbols):
            memory.values[name] = Value(f"%d{i}", "i64")
        for i, buffer in enumerate(self.kernel.params):
            memory.pointers[buffer.name] = Value(f"%b{i}", "ptr")
        self._place_locals()

    def _place_locals(self) -> None:
        """Local buffers lie in shared memory as far as it reaches; those too large, or of a size that only a
        run knows, lie in the block's part of the scratch memory."""
        b, memory = self.b, self.memory
        outside: list[tuple[str, Dim]] = []
        room = STATIC_SHARED_BYTES - _WIDEST * self.block.threads  # partial results of a reduction need some
        for buffer in self.kernel.locals:
            count = product(self.storages[buffer.name].shape)
            elem, size = memory_type(buffer.type.dtype), itemsize(buffer.type.dtype)
            if isinstance(count, int) and self.shared_bytes + count * size <= room:
                shared = self._shared_array(buffer.name, max(count, 1), elem, count * size)
                memory.pointers[buffer.name] = shared
            else:
                outside.append((buffer.name, self.scratch_bytes))
                self.scratch_bytes = self.scratch_bytes + ceildiv(count * size, _ALIGNMENT) * _ALIGNMENT
        for name, offset in outside:
            start = b.add(b.mul(self.number, memory.value(self.scratch_bytes)), memory.value(offset))
            memory.pointers[name] = b.pure(f"getelementptr i8, ptr %scratch, {start}", "ptr", 1, start)

    # Stages.

    def _separate_stages(self) -> None:
        """Stages that share no loops, each with blocks and threads of its own. Ordered ones have one thread
        each, the same one, which runs them one after another."""
        for position, stage in enumerate(self.kernel.stages):
            walk = Walk(self.memory, stage.all_axes)
            self._in_block(position, walk, partial(self._own_stage, position, walk))

    def _own_stage(self, position: int, walk: Walk) -> None:
        inner = self.nest.stages[position][len(self._block_loops(position)) :]
        self._stage(self.kernel.stages[position], inner, walk)

    def _shared_stages(self) -> None:
        """Stages inside shared loops; the threads of a block meet between them."""
        walk = Walk(self.memory, self.kernel.stages[0].axes[: self.kernel.shared])
        inner = self.nest.shared[len(self._block_loops(0)) :]

        def rest(position: int) -> None:
            if position == len(inner):
                self.b.scope(lambda: self._stages_of_tile(walk, bool(inner)))
            else:
                walk.sequential(inner[position], lambda: rest(position + 1))

        self._in_block(0, walk, lambda: rest(0))

    def _stages_of_tile(self, walk: Walk, repeated: bool) -> None:
        for axis, state in walk.axes.items():
            self.memory.aliases[tile_start(axis)] = state.start
        for position, (stage, own) in enumerate(zip(self.kernel.stages, self.nest.stages, strict=True)):
            if position:
                self.block.barrier()
            own_walk = Walk(self.memory, stage.all_axes)
            own_walk.axes.update(walk.axes)
            self._stage(stage, own, own_walk)
        if repeated:
            self.block.barrier()  # before the next tile writes what this one reads

    def _stage(self, stage: Stage, loops: Sequence[Loop], walk: Walk) -> None:
        DeviceStage(stage, loops, walk, self.evaluator, self.block).write()

    # Blocks.

    def _block_loops(self, position: int) -> tuple[Loop, ...]:
        loops = self.nest.shared if self.fused else self.nest.stages[position]
        count = 0
        while count < len(loops) and loops[count].kind == "block":
            count += 1
        return tuple(loops[:count])

    def _trips(self, position: int) -> list[Dim]:
        """How many iterations each block loop of a stage has."""
        walk = Walk(self.memory, self.kernel.stages[position].axes)
        found: list[Dim] = []
        for loop in self._block_loops(position):
            found.append(walk.axes[loop.axis].trips(loop.step))
            walk.axes[loop.axis] = walk.axes[loop.axis].enter(loop.step, 0)
        return found

    def _in_block(self, position: int, walk: Walk, body: Callable[[], None]) -> None:
        """`body` in the blocks of a stage, with the axes where the block's number puts them."""
        trips = self._trips(position)
        total = product(trips)
        if total == 0:
            return

        def inside() -> list[Value]:
            counters: list[Dim] = []
            rest = self.number
            for depth in range(len(trips) - 1, -1, -1):
                own, extent = rest, self.memory.value(trips[depth])
                if depth and trips[depth] != 1:
                    own, rest = self.b.binary("urem", rest, extent), self.b.binary("udiv", rest, extent)
                counters.insert(0, 0 if trips[depth] == 1 else walk.counter(own, trips[depth]))
            for loop, counter in zip(self._block_loops(position), counters, strict=True):
                walk.axes[loop.axis] = walk.axes[loop.axis].enter(loop.step, counter)
            body()
            return []

        self.b.branch(self.b.compare("icmp ult", self.number, self.memory.value(total)), inside)

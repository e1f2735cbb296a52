"""Where a kernel's local buffers live: on the stack, or in the scratch memory that the caller gives each
thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from msgspec import Struct

from egc.codegen.indices import sym
from egc.ir.dims import Dim, ceildiv, evaluate, product
from egc.ir.expr import IndexExpr
from egc.ir.kernel import Buffer, Kernel, Stage
from egc.ir.nest import Nest
from egc.ir.types import itemsize

_STACK_BYTES = 32 << 10  # the most that one buffer may take of the stack: a fraction of any thread's
_ALIGNMENT = 64


class Storage(Struct, frozen=True):
    """The memory of a local buffer: its extents there; per dim the shared axis whose tile it holds, or None
    for the whole dim; and its place, in bytes from the thread's scratch (None: on the stack).
    """

    shape: tuple[Dim, ...]
    folded: tuple[str | None, ...]
    offset: Dim | None

    def index(self, logical: tuple[IndexExpr, ...]) -> tuple[IndexExpr, ...]:
        """The index in memory of the element at `logical`."""
        return tuple(
            index if axis is None else index - sym(tile_start(axis))  # type: ignore[operator]
            for index, axis in zip(logical, self.folded, strict=True)
        )


def tile_start(axis: str) -> str:
    """The name of the symbol for the position at which the current tile of a shared axis begins."""
    return f"_start_{axis}"


def plan_locals(nest: Nest) -> tuple[Mapping[str, Storage], Dim]:
    """The storage of every local buffer, and the bytes of scratch that one thread needs.

    A dim that every access indexes by one shared axis itself needs only the tile of that axis which one
    iteration of the shared loops covers.
    """
    storages: dict[str, Storage] = {}
    scratch: Dim = 0
    for buffer in nest.kernel.locals:
        folded = tuple(_folded_axis(nest, buffer, dim) for dim in range(buffer.type.rank))
        shape = tuple(
            extent if axis is None else _tile(nest, axis)
            for extent, axis in zip(buffer.type.shape, folded, strict=True)
        )
        size = product(shape) * itemsize(buffer.type.dtype)
        if isinstance(size, int) and size <= _STACK_BYTES:
            storages[buffer.name] = Storage(shape, folded, None)
        else:
            storages[buffer.name] = Storage(shape, folded, scratch)
            scratch = scratch + ceildiv(size, _ALIGNMENT) * _ALIGNMENT
    return storages, scratch


class Sums(Struct, frozen=True):
    """The memory in which sums of a stage wait while other tiles have their turn (Nest.chunks): how many
    positions it has of every parallel axis, the axis of the lanes last; and its place, as of a Storage.
    """

    extents: Mapping[str, int]
    offset: Dim | None

    @property
    def elements(self) -> int:
        """How many sums there are."""
        return prod(self.extents.values())


def sums_name(stage: Stage) -> str:
    """What the memory of a stage's waiting sums is called."""
    return f"_sums_{stage.name}"


def sums_dtype(dtype: str) -> str:
    """As what sums of `dtype` are kept in memory: with all the bits that they have in registers."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def plan_sums(nest: Nest, scratch: Dim) -> tuple[Mapping[str, Sums], Dim]:
    """The memory of waiting sums by stage, after `scratch` bytes of other things; and the bytes of all."""
    found: dict[str, Sums] = {}
    for position, stage in enumerate(nest.kernel.stages):
        chunks = nest.chunks(position)
        if not chunks:
            continue
        loops = nest.loops(position)
        outside = loops[: loops.index(chunks[0])]
        lanes = next((loop.axis for loop in loops if loop.kind == "vec"), None)
        extents: dict[str, int] = {}
        for axis in sorted(stage.axes, key=lambda axis: axis.name == lanes):
            extent = evaluate(axis.extent, {})
            steps = [min(loop.step, extent) for loop in loops if loop.axis == axis.name]
            extents[axis.name] = min([extent, *(loop.step for loop in outside if loop.axis == axis.name)])
            if axis.name == lanes:
                vector = min([extent, *(step for step in steps if step > 1)])
                # The last vector of a row may have lanes that are no elements.
                whole = -(-extents[lanes] // vector) * vector
                extents[lanes] = whole - vector + (1 << (vector - 1).bit_length())
        size = prod(extents.values()) * itemsize(sums_dtype(stage.value.dtype))
        if size <= _STACK_BYTES:
            found[stage.name] = Sums(extents, None)
        else:
            found[stage.name] = Sums(extents, scratch)
            scratch = scratch + ceildiv(size, _ALIGNMENT) * _ALIGNMENT
    return found, scratch


def scratch_bytes(nest: Nest, dims: Mapping[str, int]) -> int:
    """Bytes of scratch that each thread of the kernel needs where the dims have these values."""
    return evaluate(plan_sums(nest, plan_locals(nest)[1])[1], dims)


def _tile(nest: Nest, axis: str) -> int:
    return min(loop.step for loop in nest.shared if loop.axis == axis)


def _folded_axis(nest: Nest, buffer: Buffer, dim: int) -> str | None:
    indices = {index[dim] for index in _accesses(nest.kernel, buffer.name)}
    shared = {axis.name for axis in nest.kernel.stages[0].axes[: nest.kernel.shared]}
    tiled = shared & {loop.axis for loop in nest.shared}
    found = [axis for axis in sorted(tiled) if indices == {sym(axis)}]
    return found[0] if found else None


def _accesses(kernel: Kernel, buffer: str) -> list[tuple[IndexExpr, ...]]:
    found = [load.index for stage in kernel.stages for load in stage.loads() if load.buffer == buffer]
    return found + [stage.index for stage in kernel.stages if stage.out == buffer]

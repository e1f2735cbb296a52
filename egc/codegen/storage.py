"""Where a kernel's local buffers live: on the stack, or in the scratch memory that the caller gives each
thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from egc.codegen.indices import sym
from egc.ir.dims import Dim, ceildiv, evaluate, product
from egc.ir.expr import IndexExpr
from egc.ir.kernel import Buffer, Kernel
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


def scratch_bytes(nest: Nest, dims: Mapping[str, int]) -> int:
    """Bytes of scratch that each thread of the kernel needs where the dims have these values."""
    return evaluate(plan_locals(nest)[1], dims)


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

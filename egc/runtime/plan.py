"""A program laid out in memory for one set of dims: where each buffer lies, and the table of steps."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from egc.errors import ArtifactError, EgcError, MemoryBudgetError
from egc.ir.dims import evaluate, parse_dim, symbols_of
from egc.ir.types import numpy_dtype
from egc.runtime import abi
from egc.runtime.host import HostError
from egc.runtime.inputs import check_requirements
from egc.runtime.manifest import DimText, HostStep, KernelStep, Manifest
from egc.runtime.memory import align, live_ranges, plan_arena
from egc.runtime.native import NativeCode, address_of, allocate

# Beyond this no machine has memory; sizes stay far from overflowing an int64 in generated code.
_MAX_BYTES = 1 << 46
_STEP_WORDS = abi.STEP_SIZE // 8


class Segment(Struct, frozen=True):
    """Steps `first` to `last` (exclusive): kernels that run in one call, or one host step."""

    first: int
    last: int
    host: bool


class Program:
    """What a manifest says, worked out once, for any dims."""

    def __init__(self, manifest: Manifest, native: NativeCode, constants: np.ndarray, threads: int) -> None:
        self.manifest = manifest
        self.constants = constants
        self.threads = threads
        self.roots = [manifest.root(i) for i in range(len(manifest.buffers))]
        self.dtypes = [numpy_dtype(buffer.dtype) for buffer in manifest.buffers]
        self.ranges = live_ranges(manifest)
        self.segments = _segments(manifest)
        kernels = [step for step in manifest.steps if isinstance(step, KernelStep)]
        self.addresses = {name: native.address_of(name) for name in sorted({k.symbol for k in kernels})}
        bound = {str(d) for port in manifest.inputs for d in port.shape if isinstance(d, str)}
        self.late = frozenset(manifest.symbols) - bound

    def is_late(self, dims: tuple[DimText, ...]) -> bool:
        """Whether `dims` depend on a symbol that only a host step binds."""
        return bool(self.late) and any(
            isinstance(dim, str) and symbols_of(parse_dim(dim)) & self.late for dim in dims
        )


def _segments(manifest: Manifest) -> list[Segment]:
    segments = []
    numbered = enumerate(manifest.steps)
    for host, group in itertools.groupby(numbered, lambda pair: isinstance(pair[1], HostStep)):
        indices = [i for i, _ in group]
        if host:
            segments += [Segment(i, i + 1, True) for i in indices]
        else:
            segments.append(Segment(indices[0], indices[-1] + 1, False))
    return segments


def value_of(dim: DimText, env: Mapping[str, int]) -> int:
    """The value of a dim where its symbols have the values in `env`."""
    return dim if isinstance(dim, int) else evaluate(parse_dim(dim), env)


def _of_no_elements(value: Any, shape: tuple[int, ...] | None) -> Any:
    """``value`` in the extents that are expected, where neither has an element: a stack of what no iteration
    of a loop made has none of its own."""
    if shape is None or value.size or 0 not in shape or len(shape) != value.ndim:
        return value
    return value.reshape(shape)


class Arena:
    """Memory that the plans of one session share, since only one of them runs at a time."""

    def __init__(self) -> None:
        self.memory = np.empty(0, np.uint8)

    def reserve(self, size: int) -> int:
        """The address of at least `size` bytes; what was there before moves and is lost if it must grow."""
        if size > self.memory.size:
            try:
                self.memory = allocate(size)
            except (OSError, ValueError, OverflowError) as error:
                raise MemoryBudgetError(
                    f"the run needs {size / 2**20:,.0f} MiB of working memory",
                    why=str(error),
                    hint="use smaller inputs",
                ) from None
        return address_of(self.memory)


class Plan:
    """The tables for one set of dims. Only who holds the session's lock may change or run them."""

    def __init__(self, program: Program, env: Mapping[str, int], arena: Arena) -> None:
        self.program = program
        self.env = dict(env)
        self.values: dict[int, Any] = {}  # what host steps have made, by buffer
        self._late_memory: list[np.ndarray] = []
        manifest = program.manifest
        check_requirements(manifest.requirements, self.env)
        self.shapes: list[tuple[int, ...] | None] = [
            None if program.is_late(b.shape) else self._shape(b.shape) for b in manifest.buffers
        ]
        self._offsets, arena_bytes = self._plan_arena()
        self._scratch = self._plan_scratch()
        scratch_bytes = max((offset + size for offset, size in self._scratch), default=0)
        self.arena_base = arena.reserve(arena_bytes + scratch_bytes)
        self._arena = arena.memory
        self._scratch_base = self.arena_base + arena_bytes
        self._build_tables()

    def _shape(self, dims: tuple[DimText, ...]) -> tuple[int, ...]:
        shape = tuple(value_of(dim, self.env) for dim in dims)
        if any(d < 0 for d in shape):
            raise EgcError("a tensor would have a negative extent", why=f"{dims} is {shape} for {self.env}")
        return shape

    def nbytes(self, buffer: int) -> int:
        """The size of a buffer whose shape is known."""
        shape = self.shapes[buffer]
        assert shape is not None
        size = self.program.dtypes[buffer].itemsize * math.prod(shape)
        if size > _MAX_BYTES:
            raise MemoryBudgetError(
                f"a tensor of shape {shape} has {size:,} bytes", hint="use smaller inputs"
            )
        return size

    def _plan_arena(self) -> tuple[dict[int, int], int]:
        manifest = self.program.manifest
        known = [i for i in self.program.ranges if self.shapes[i] is not None]
        sizes = [self.nbytes(i) for i in known]
        if manifest.arena_bytes is None:
            offsets, total = plan_arena(sizes, [self.program.ranges[i] for i in known])
            return dict(zip(known, offsets, strict=True)), total
        planned: dict[int, int] = {}
        for i, size in zip(known, sizes, strict=True):
            offset = manifest.buffers[i].offset
            if offset is None or offset % abi.ALIGNMENT or not 0 <= offset <= manifest.arena_bytes - size:
                raise ArtifactError("the artifact's memory plan is wrong", where=f"buffer {i}")
            planned[i] = offset
        return planned, align(manifest.arena_bytes)

    def _plan_scratch(self) -> list[tuple[int, int]]:
        """Offset and size of each step's scratch; steps with no barrier between them share none."""
        places: list[tuple[int, int]] = []
        start = 0
        for step in self.program.manifest.steps:
            size = 0
            if isinstance(step, KernelStep) and not self.program.is_late((step.scratch_bytes,)):
                size = align(value_of(step.scratch_bytes, self.env) * self.program.threads)
            places.append((start, size))
            start = 0 if isinstance(step, HostStep) or step.barrier else start + size
        return places

    def _build_tables(self) -> None:
        """Lay out the step table, the pointers and the dims; patch what is known of them."""
        steps = self.program.manifest.steps
        self._steps = np.zeros((len(steps), _STEP_WORDS), np.uint64)
        self.steps_address = address_of(self._steps)
        kernels = [(i, step) for i, step in enumerate(steps) if isinstance(step, KernelStep)]
        self._pointers = (ctypes.c_uint64 * (sum(len(k.arguments) + 1 for _, k in kernels) or 1))()
        self._dims = (ctypes.c_int64 * (sum(len(k.dims) for _, k in kernels) or 1))()
        pointers, dims = ctypes.addressof(self._pointers), ctypes.addressof(self._dims)
        self._uses: dict[int, list[int]] = {}
        at, dim_at = 0, 0
        self._late_steps: list[tuple[int, int, int]] = []
        for i, kernel in kernels:
            flags = 0 if kernel.barrier else abi.FLAG_NO_BARRIER
            row = (self.program.addresses[kernel.symbol], pointers + 8 * at, dims + 8 * dim_at, flags)
            self._steps[i] = row
            for argument in kernel.arguments:
                self._uses.setdefault(self.program.roots[argument], []).append(at)
                at += 1
            if self.program.is_late((*kernel.dims, kernel.scratch_bytes)):
                self._late_steps.append((i, at, dim_at))
            else:
                self._fill(kernel, at, dim_at, self._scratch_base + self._scratch[i][0])
            at += 1
            dim_at += len(kernel.dims)
        for buffer in self._uses:
            self._place(buffer)

    def _fill(self, kernel: KernelStep, at: int, dim_at: int, scratch: int) -> None:
        self._pointers[at] = scratch
        for j, dim in enumerate(kernel.dims):
            self._dims[dim_at + j] = value_of(dim, self.env)

    def _place(self, buffer: int) -> None:
        """Point the kernels to a constant, or to an arena buffer that is planned."""
        place = self.program.manifest.buffers[buffer]
        if place.where == "constant":
            self.set_address(buffer, address_of(self.memory_of(buffer)))
        elif place.where == "arena" and buffer in self._offsets:
            self.set_address(buffer, self.arena_base + self._offsets[buffer])

    def set_address(self, buffer: int, address: int) -> None:
        """Tell every kernel that uses `buffer` (a root) where it lies."""
        for at in self._uses.get(buffer, ()):
            self._pointers[at] = address

    def memory_of(self, buffer: int) -> np.ndarray:
        """A constant, or a planned arena buffer, as an array over its memory."""
        place, size = self.program.manifest.buffers[buffer], self.nbytes(buffer)
        if place.text is not None:
            return np.array(place.text, object).reshape(self.shapes[buffer])
        if place.where == "constant":
            memory, offset = self.program.constants, place.offset or 0
        else:
            memory, offset = self._arena, self._offsets[buffer]
        if offset + size > memory.size:
            raise ArtifactError(
                "the artifact is damaged", where=f"buffer {buffer}", why="outside its section"
            )
        return memory[offset : offset + size].view(self.program.dtypes[buffer]).reshape(self.shapes[buffer])

    def value(self, buffer: int) -> Any:
        """What a buffer holds: an array over its memory, or the Python object that a host step made."""
        root = self.program.roots[buffer]
        held = self.values[root] if root in self.values else self.memory_of(root)
        shape = self.shapes[buffer]
        if buffer == root or shape is None:
            return held
        return held.reshape(shape)

    def store(self, buffer: int, value: Any, title: str) -> None:
        """Put what a host step made into a buffer, and bind the symbols that its shape determines.

        HostError where compiled code reads the buffer, or it is an output, and its type is not as declared.
        """
        place = self.program.manifest.buffers[buffer]
        if isinstance(value, np.ndarray | np.generic):
            value = np.require(value, requirements=("C", "A"))
            if self.shapes[buffer] is None:
                self._bind_from(place.shape, value.shape)
            value = _of_no_elements(value, self.shapes[buffer])
        if place.where == "host":
            self.values[buffer] = value
            if buffer in self._uses:
                self._check_made(buffer, value, title)
                self.set_address(buffer, address_of(value))
            return
        self._check_made(buffer, value, title)
        root = self.program.roots[buffer]
        if place.where == "output" and root not in self.values:
            # Its shape was unknown until now. What the host made may be a view of an input:
            # the output is not.
            self.values[root] = np.array(value).reshape(self.shapes[root] or value.shape)
            self.set_address(root, address_of(self.values[root]))
        else:
            self.value(buffer)[...] = value

    def _check_made(self, buffer: int, value: Any, title: str) -> None:
        dtype, shape = self.program.dtypes[buffer], self.shapes[buffer]
        if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
            made = f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise HostError(
                f"{title} made {made} where the compiled code expects {dtype}{shape}",
                where="onnx.reference",
                hint="report this model: shape inference and the reference implementation disagree",
            )

    def _bind_from(self, dims: tuple[DimText, ...], shape: tuple[int, ...]) -> None:
        """Bind the late symbols that stand alone in `dims`, and lay out what depends on them."""
        if len(dims) != len(shape):
            return
        found = {
            dim: extent
            for dim, extent in zip(dims, shape, strict=True)
            if isinstance(dim, str) and dim in self.program.late and dim not in self.env
        }
        if found or not self._is_bound(dims):
            self._bind(found)

    def _bind(self, values: Mapping[str, int]) -> None:
        """Give late symbols their values; buffers that depend on them get memory of their own."""
        self.env.update(values)
        check_requirements(self.program.manifest.requirements, self.env)
        for i, buffer in enumerate(self.program.manifest.buffers):
            if self.shapes[i] is not None or not self._is_bound(buffer.shape):
                continue
            self.shapes[i] = self._shape(buffer.shape)
            if buffer.where == "arena":
                self.nbytes(i)
                self.values[i] = np.zeros(self.shapes[i], self.program.dtypes[i])
                self.set_address(i, address_of(self.values[i]))
        for i, at, dim_at in self._late_steps:
            kernel = self.program.manifest.steps[i]
            assert isinstance(kernel, KernelStep)
            if self._is_bound((*kernel.dims, kernel.scratch_bytes)):
                scratch = allocate(value_of(kernel.scratch_bytes, self.env) * self.program.threads)
                self._late_memory.append(scratch)
                self._fill(kernel, at, dim_at, address_of(scratch))

    def _is_bound(self, dims: tuple[DimText, ...]) -> bool:
        return all(isinstance(d, int) or symbols_of(parse_dim(d)) <= self.env.keys() for d in dims)

    def reset(self) -> None:
        """Forget what the last run bound late."""
        if not self.program.late:
            return
        self._late_memory.clear()
        for name in self.program.late:
            self.env.pop(name, None)
        for i, buffer in enumerate(self.program.manifest.buffers):
            if self.program.is_late(buffer.shape):
                self.shapes[i] = None

"""Kernels: what one fused kernel computes, with no order of execution yet.

    kernel ::= "kernel" NAME "(" param, … ")" [ "local" buffer… ] "{" stage+ "}"
    stage  ::= "stage" NAME "over" axis:extent, … [ "reduce" COMBINE axis:extent, … ]
                   out[index, …] = result        (with acc, the combined value, where there is a reduction)
                   value = expr                  (only where there is a reduction)

A stage computes one element of ``out`` for every point of its parallel axes. Stages run in order. The first
``shared`` axes have the same names and extents in every stage: stages may share loops over them, and a local
buffer then needs to hold only what one iteration of those loops uses. Where ``shared`` is 0 a kernel has one
stage, or stages that write disjoint parts of its outputs and read none of them.

Indices are dims (egc.ir.dims) over axis names and dim names, so a view is index arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TypeAlias

from msgspec import Struct

from egc.ir.dims import Dim, SymDim, symbols_of
from egc.ir.expr import Expr, IndexExpr, Load, index_symbols, loads
from egc.ir.types import TensorType

Role: TypeAlias = str  # "in" (read), "out" (written), "local" (lives in the kernel only)


class Axis(Struct, frozen=True):
    """An iteration axis; its name stands in index expressions for its position, 0 <= position < extent."""

    name: str
    extent: Dim

    def __str__(self) -> str:
        return f"{self.name}:{self.extent}"


class Buffer(Struct, frozen=True):
    """A row-major tensor in memory. ``constant`` marks an input whose content is known when compiling."""

    name: str
    type: TensorType
    role: Role
    constant: bool = False

    def __str__(self) -> str:
        return f"{'const ' if self.constant else ''}{self.role} {self.name}: {self.type}"


class Stage(Struct, frozen=True):
    """One tensor comprehension.

    ``value`` is computed at every point of ``axes`` x ``reduce`` and combined over ``reduce`` by ``combine``;
    ``result``, in which Acc stands for the combined value, is stored at ``out[index]``. Without a reduction
    ``combine`` is None, ``reduce`` is empty and ``result`` is the whole computation (``value`` equals it).
    ``mode`` is ``set``, or the function by which a scatter combines with what is stored already (add, mul,
    max, min): such a stage runs in order.
    """

    name: str
    axes: tuple[Axis, ...]
    out: str
    index: tuple[IndexExpr, ...]
    value: Expr
    result: Expr
    reduce: tuple[Axis, ...] = ()
    combine: str | None = None
    mode: str = "set"
    ordered: bool = False  # iterations must run one after another in order (scatter with repeated indices)

    @property
    def all_axes(self) -> tuple[Axis, ...]:
        """Parallel axes, then reduction axes."""
        return (*self.axes, *self.reduce)

    def loads(self) -> list[Load]:
        """The distinct loads of value, result and indirect store indices."""
        found = [*loads(self.value), *loads(self.result)]
        for index in self.index:
            if not isinstance(index, int | SymDim):
                found += loads(index)
        return list(dict.fromkeys(found))


class Kernel(Struct, frozen=True, dict=True):
    """A fused kernel. ``buffers`` holds parameters (in, out) in calling order, then locals."""

    name: str
    buffers: tuple[Buffer, ...]
    stages: tuple[Stage, ...]
    shared: int = 0

    @cached_property
    def buffer(self) -> dict[str, Buffer]:
        """Buffers by name."""
        return {buffer.name: buffer for buffer in self.buffers}

    @property
    def params(self) -> tuple[Buffer, ...]:
        """The buffers that the caller passes, in order."""
        return tuple(b for b in self.buffers if b.role != "local")

    @property
    def locals(self) -> tuple[Buffer, ...]:
        """The buffers that live inside the kernel."""
        return tuple(b for b in self.buffers if b.role == "local")

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """The dim names that the kernel needs values of, sorted: its run-time dims in calling order."""
        names: set[str] = set()
        for buffer in self.buffers:
            names |= buffer.type.symbols
        for stage in self.stages:
            axes = {axis.name for axis in stage.all_axes}
            used = index_symbols(stage.value) | index_symbols(stage.result)
            for index in stage.index:
                used |= symbols_of(index) if isinstance(index, int | SymDim) else index_symbols(index)
            for axis in stage.all_axes:
                used |= symbols_of(axis.extent)
            names |= used - axes
        return tuple(sorted(names))

    def __str__(self) -> str:
        return "\n".join(print_kernel(self))


def print_kernel(kernel: Kernel) -> Iterator[str]:
    """The lines of a kernel's text form."""
    shared = f" shared {kernel.shared}" if kernel.shared else ""
    yield f"kernel {kernel.name}({', '.join(map(str, kernel.params))}){shared} {{"
    for buffer in kernel.locals:
        yield f"  {buffer}"
    for stage in kernel.stages:
        yield from print_stage(stage)
    yield "}"


def print_stage(stage: Stage) -> Iterator[str]:
    """The lines of a stage's text form."""
    head = f"  stage {stage.name} over {', '.join(map(str, stage.axes)) or '()'}"
    if stage.combine:
        head += f" reduce {stage.combine} {', '.join(map(str, stage.reduce))}"
    yield head + (" ordered" if stage.ordered else "")
    if stage.combine:
        yield f"    value = {stage.value}"
    sign = "=" if stage.mode == "set" else f"{stage.mode}="
    yield f"    {stage.out}[{', '.join(map(str, stage.index)) or '()'}] {sign} {stage.result}"

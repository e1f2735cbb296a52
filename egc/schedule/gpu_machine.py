"""GPUs as data: a cost model's TOML file of kind "gpu" in, a frozen GpuMachine out.

Units are in the field names or in the docstrings; cycles are a multiprocessor's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from egc.errors import UsageError
from egc.machine import (
    Copies,
    Count,
    Few,
    Instructions,
    Level,
    Memory,
    NotNegative,
    Operators,
    Positive,
    Rates,
    decoded,
    instructions_of,
    levels_of,
    path_of,
    table_of,
    unusable,
)

_WARP = 32  # threads that run in step, on every GPU that CUDA knows
_Threads = Annotated[int, Meta(ge=1, le=1024)]  # of a block, on every one of them, too
_ThreadCounts = Annotated[tuple[_Threads, ...], Meta(min_length=1)]


class Multiprocessor(Struct, frozen=True, forbid_unknown_fields=True):
    """One of `count` multiprocessors. A cycle: `fma` float32 multiply-adds, `issue` instructions of a warp,
    `load_bytes` from the first cache. `latency` and `load_latency` are cycles of a multiply-add and of a load
    from the second cache; `registers`, `threads`, `blocks` and `shared_bytes` is what the blocks on it
    share."""

    count: Few
    ghz: Positive
    fma: Positive
    issue: Positive
    latency: Positive
    load_latency: Positive
    load_bytes: Positive
    registers: Count
    threads: Count
    blocks: Count
    shared_bytes: Count

    @property
    def hertz(self) -> float:
        """Cycles a second."""
        return self.ghz * 1e9


class GpuTiles(Struct, frozen=True, forbid_unknown_fields=True):
    """Candidates for the loop e-graph: threads along an axis, elements of an axis a thread, threads that
    share a reduction, reduction steps in straight-line code, least and most threads of a block; and limits:
    elements a thread computes, nests that are weighed for a stage."""

    threads: _ThreadCounts
    copies: Copies
    sums: _ThreadCounts
    reduction: Copies
    block_threads: tuple[_Threads, _Threads]
    tile: Few
    candidates: Annotated[int, Meta(ge=1, le=10_000_000)]


class GpuMachine(Struct, frozen=True, dict=True):
    """A GPU as the cost models see it. `levels` are the second cache and main memory. `launch` is seconds a
    kernel, `barrier` seconds until all threads of a block have met; `symbolic_extent` is what an unknown
    extent counts for."""

    name: str
    description: str
    arch: str
    core: Multiprocessor
    levels: tuple[Level, ...]
    launch: float
    barrier: float
    symbolic_extent: int
    operators: Operators
    tiles: GpuTiles
    instructions: Mapping[str, float]

    @property
    def warp(self) -> int:
        """Threads that run in step."""
        return _WARP

    @cached_property
    def peak_flops(self) -> float:
        """float32 operations a second of the whole device."""
        return 2 * self.core.fma * self.core.count * self.core.hertz

    @cached_property
    def rates(self) -> Rates:
        """What extraction needs to know."""
        memory = self.levels[-1]
        return Rates(
            flops=self.peak_flops,
            vector_ops=self.peak_flops / 2,
            bandwidth=memory.bandwidth,
            conversion_bandwidth=memory.bandwidth / 2,
            launch=self.launch,
            operators=self.operators,
        )


def load_gpu_machine(name_or_path: str) -> GpuMachine:
    """The GPU of a shipped cost model, or of a TOML file. UsageError for an unknown name, BadInput for a bad
    file."""
    path = path_of(name_or_path)
    if path is None:
        raise UsageError(
            f"there is no cost model {name_or_path!r}",
            hint="--cost-model sm_80, sm_90, or the path of a TOML file like cost_models/sm_80.toml",
        )
    return _read(path)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """A GPU's file. The fields of one name are those of `GpuMachine`."""

    kind: Literal["gpu"]
    description: str
    arch: str
    symbolic_extent: Count
    launch_ns: NotNegative
    barrier_ns: NotNegative
    core: Multiprocessor
    memory: tuple[Memory, ...]
    operators: Operators
    tiles: GpuTiles
    instructions: Instructions = Instructions()  # type: ignore[valid-type]
    measured: Mapping[str, str] = {}


@lru_cache(maxsize=8)
def _read(path: Path) -> GpuMachine:
    if table_of(path).get("kind") != "gpu":
        raise UsageError(f"{path.name} describes no GPU", hint="--target cpu, or --cost-model sm_80")
    file = decoded(path, _File)
    try:
        return _machine(path.stem, file)
    except ValueError as error:
        raise unusable(path, str(error)) from None


def _machine(name: str, file: _File) -> GpuMachine:
    """A GpuMachine from its file; ValueError where entries contradict one another."""
    names = [level.name for level in file.memory]
    if names != ["l2", "dram"]:
        raise ValueError(f"[[memory]] has {', '.join(names)}, not l2 and dram")
    least, most = file.tiles.block_threads
    if least > most:
        raise ValueError("`tiles.block_threads` begins with more than it ends with")
    if not any(least <= count <= most for count in file.tiles.threads):
        raise ValueError("none of `tiles.threads` lies within `tiles.block_threads`")
    same = set(_File.__struct_fields__) & set(GpuMachine.__struct_fields__) - {"instructions"}
    return GpuMachine(
        name=name,
        levels=levels_of(file.memory, 0, 1),
        launch=file.launch_ns * 1e-9,
        barrier=file.barrier_ns * 1e-9,
        instructions=instructions_of(file.instructions),
        **{field: getattr(file, field) for field in same},
    )

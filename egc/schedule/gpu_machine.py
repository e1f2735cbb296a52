"""GPUs as data: a cost model's TOML file of kind "gpu" in, a frozen GpuMachine out.

Units are in the field names or in the docstrings; cycles are a multiprocessor's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from egc.errors import BadInput, UsageError
from egc.machine import Level, Operators, Rates, filled
from egc.resources import cost_model

_WARP = 32  # threads that run in step, on every GPU that CUDA knows


class Multiprocessor(Struct, frozen=True):
    """One of `count` multiprocessors. A cycle: `fma` float32 multiply-adds, `issue` instructions of a warp,
    `load_bytes` from the first cache. `latency` and `load_latency` are cycles of a multiply-add and of a load
    from the second cache; `registers`, `threads`, `blocks` and `shared_bytes` is what the blocks on it
    share."""

    count: int
    hertz: float
    fma: float
    issue: float
    latency: float
    load_latency: float
    load_bytes: float
    registers: int
    threads: int
    blocks: int
    shared_bytes: int


class GpuTiles(Struct, frozen=True):
    """Candidates for the loop e-graph: threads along an axis, elements of an axis a thread, threads that
    share a reduction, reduction steps in straight-line code, least and most threads of a block; and limits:
    elements a thread computes, nests that are weighed for a stage."""

    threads: tuple[int, ...]
    copies: tuple[int, ...]
    sums: tuple[int, ...]
    reduction: tuple[int, ...]
    block_threads: tuple[int, int]
    tile: int
    candidates: int


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
    path = cost_model(name_or_path) or Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"there is no cost model {name_or_path!r}",
            hint="--cost-model sm_80, sm_90, or the path of a TOML file like cost_models/sm_80.toml",
        )
    return _read(path)


@lru_cache(maxsize=8)
def _read(path: Path) -> GpuMachine:
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput("the cost model cannot be read", where=str(path), why=str(error)) from None
    if table.get("kind") != "gpu":
        raise UsageError(f"{path.name} describes no GPU", hint="--target cpu, or --cost-model sm_80")
    try:
        return _machine(path.stem, table)
    except (KeyError, TypeError, ValueError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        hint = "cost_models/sm_80.toml shows every entry"
        raise BadInput("the cost model is not complete", where=str(path), why=why, hint=hint) from None


def _machine(name: str, table: Mapping[str, Any]) -> GpuMachine:
    core = dict(table["core"])
    core["hertz"] = core.pop("ghz") * 1e9
    tiles = {key: tuple(v) if isinstance(v, list) else v for key, v in table["tiles"].items()}
    levels = tuple(
        Level(
            level["name"], float(level.get("bytes", "inf")), level["gb_per_s"] * 1e9, level["gb_per_s"] * 1e9
        )
        for level in table["memory"]
    )
    return GpuMachine(
        name=name,
        description=table["description"],
        arch=table["arch"],
        core=filled(Multiprocessor, core),
        levels=levels,
        launch=table["launch_ns"] * 1e-9,
        barrier=table["barrier_ns"] * 1e-9,
        symbolic_extent=table["symbolic_extent"],
        operators=filled(Operators, table["operators"]),
        tiles=filled(GpuTiles, tiles),
        instructions=table.get("instructions", {}),
    )

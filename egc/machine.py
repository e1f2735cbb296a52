"""Machines as data: a cost model's TOML file in, a frozen Machine out.

Everything that the compiler knows about a processor stands in ``cost_models/NAME.toml``: registers, ports,
latencies, caches, bandwidths, what scalar functions cost, and which tile sizes are worth trying. Units are
in the field names or in the docstrings; cycles are the core's.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from egc.errors import BadInput, UsageError
from egc.ir.scalar import FUNCTIONS
from egc.resources import cost_model, data_folder
from egc.runtime.cpu import machine_features


class Operators(Struct, frozen=True):
    """What graph operators reach. The contractions: parts of the peak, of which a convolution that tests its
    taps against the border reaches the part `guarded`; a window that leaves the tensor along the vector axis
    works `guarded_lanes` times as long; `softmax` is vector instructions an element.
    """

    matmul: float
    conv_channels_last: float
    conv: float
    attention: float
    guarded: float
    guarded_lanes: float
    softmax: float


class Rates(Struct, frozen=True):
    """The machine as extraction sees it: peak in flop/s, scalar functions in instructions/s, bytes/s,
    seconds a launch, and what operators reach of them.
    """

    flops: float
    vector_ops: float
    bandwidth: float
    conversion_bandwidth: float
    launch: float
    operators: Operators


class Core(Struct, frozen=True):
    """One core: `fma`, `load`, `store` and `issue` are vector instructions a cycle; `latency` is that of a
    dependent multiply-add; `gather`, `scatter` are cycles a lane; `loop` is cycles an iteration of a loop
    that is not unrolled, of which the part `loop_hidden` runs beside multiply-adds that leave it ports; a
    loop of more than `queue` instructions of the tile is fetched anew each time, `refetch` cycles for one;
    `horizontal` is cycles to combine the lanes of a register; `translate` is cycles for an access to a page
    not used lately; `remainder` is what a cut-off tile costs beyond its share, in tiles; `turn` is cycles for
    a tile that adds a part of its sums, to have them from memory and back; `spare` registers are left to the
    code generator.
    """

    hertz: float
    vector_bits: int
    registers: int
    spare: int
    fma: float
    load: float
    store: float
    issue: float
    latency: float
    gather: float
    scatter: float
    loop: float
    loop_hidden: float
    queue: float
    refetch: float
    horizontal: float
    translate: float
    remainder: float
    turn: float


class Level(Struct, frozen=True):
    """A cache, or memory: `bytes` that one core may use of it; bytes a second into one core, and into all
    of them.
    """

    name: str
    bytes: float
    bandwidth: float
    shared_bandwidth: float


class Tiles(Struct, frozen=True):
    """Candidates for the loop e-graph: copies of a parallel axis, copies of a second one outside it,
    vectors side by side, copies of a reduction axis, positions of one in a chunk of its sums, block sizes in
    tiles, sizes of the tile that the stages of a fused kernel share; and how much straight-line code one tile
    may be (instructions).
    """

    unroll: tuple[int, ...]
    outer: tuple[int, ...]
    vectors: tuple[int, ...]
    reduction: tuple[int, ...]
    sums: tuple[int, ...]
    block: tuple[int, ...]
    shared: tuple[int, ...]
    instructions: int


class Machine(Struct, frozen=True, dict=True):
    """A processor as the cost models see it. `levels` are the memories outside the first cache, nearest
    first, the last one being main memory (its `bytes` is infinite); `l1_bytes` is the first cache.
    Costs t that overlap take (Σ tᵖ)^(1/p) together, where p is `overlap`: 1 where they add up, the larger
    the more hides behind the longest one. `exposed` is the part of the time of fetching constants from beyond
    the core's own caches that multiply-adds wait for; what is fetched ahead is late, too, by `late` times the
    part that it takes of the core's last cache. `launch` is seconds a kernel, `fork` seconds more for one
    whose iterations are shared among threads. `symbolic_extent` is what an unknown extent counts for. A run
    of contiguous bytes from beyond the core's own caches costs `stream_bytes` more than it has. `features`
    are those, as Linux names them, that tell such a processor.
    """

    name: str
    description: str
    arch: str
    features: tuple[str, ...]
    cores: int
    core: Core
    l1_bytes: float
    levels: tuple[Level, ...]
    line_bytes: int
    page_bytes: int
    stream_bytes: int
    overlap: float
    exposed: float
    late: float
    launch: float
    fork: float
    symbolic_extent: int
    operators: Operators
    tiles: Tiles
    instructions: Mapping[str, float]
    measured: Mapping[str, str]

    def lanes(self, itemsize: int) -> int:
        """How many elements of `itemsize` bytes one vector register holds."""
        return max(1, self.core.vector_bits // (8 * itemsize))

    @cached_property
    def capacities(self) -> tuple[float, ...]:
        """Bytes of the caches, nearest first."""
        return (self.l1_bytes, *(level.bytes for level in self.levels[:-1]))

    @cached_property
    def peak_flops(self) -> float:
        """float32 operations a second of one core."""
        return 2 * self.core.fma * self.lanes(4) * self.core.hertz

    @cached_property
    def rates(self) -> Rates:
        """What extraction needs to know of all cores together."""
        cores, memory = self.cores, self.levels[-2] if len(self.levels) > 1 else self.levels[-1]
        return Rates(
            flops=self.peak_flops * cores,
            vector_ops=self.core.fma * self.lanes(4) * self.core.hertz * cores,
            bandwidth=memory.shared_bandwidth,
            conversion_bandwidth=memory.shared_bandwidth / 2,
            launch=self.launch + self.fork,
            operators=self.operators,
        )


def load_machine(name_or_path: str) -> Machine:
    """The machine of a shipped cost model, or of a TOML file. UsageError for an unknown name, BadInput for
    a bad file.
    """
    path = cost_model(name_or_path)
    if path is None:
        path = Path(name_or_path)
        if not path.is_file():
            known = machine_names()
            near = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.4)
            raise UsageError(
                f"there is no cost model {name_or_path!r}",
                why=f"known are {', '.join(known)}, or the path of a TOML file",
                hint=f"--cost-model {near[0]}" if near else None,
            )
    return _read(path)


def machine_names() -> list[str]:
    """The names of the shipped cost models, sorted."""
    return sorted(path.stem for path in data_folder("cost_models").glob("*.toml"))


def machine_for(arch: str) -> Machine:
    """The cost model for code of architecture `arch` (`native`, `x86-64-v3`, `sm_90` …)."""
    return native() if arch == "native" else load_machine(arch)


@lru_cache(maxsize=1)
def native() -> Machine:
    """The shipped cost model that describes this CPU best: the one with most features, all of which it has.
    UsageError where there is none.
    """
    return _best(machine_features())


def _best(features: frozenset[str]) -> Machine:
    paths = map(cost_model, machine_names())
    machines = [_read(path) for path in paths if path and _table(path).get("kind") != "gpu"]
    fitting = [machine for machine in machines if features.issuperset(machine.features)]
    if not fitting:
        raise UsageError(
            "this CPU is not supported",
            why=f"none of the cost models {', '.join(m.name for m in machines)} is of a CPU like it",
            hint="--arch x86-64-v3, say, to compile for another machine",
        )
    return max(fitting, key=lambda machine: (len(machine.features), machine.name))


@lru_cache(maxsize=8)
def _table(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput("the cost model cannot be read", where=str(path), why=str(error)) from None


@lru_cache(maxsize=8)
def _read(path: Path) -> Machine:
    table = _table(path)
    if table.get("kind") == "gpu":
        raise UsageError(f"the cost model {path.stem} describes a GPU", hint="--target gpu --arch sm_80")
    try:
        return _machine(path.stem, table)
    except (KeyError, TypeError, ValueError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise BadInput(
            "the cost model is not complete",
            where=str(path),
            why=why,
            hint="cost_models/x86-64-v4.toml shows every entry",
        ) from None


def _machine(name: str, table: Mapping[str, Any]) -> Machine:
    """A Machine from its TOML; KeyError, TypeError or ValueError where entries are missing, unknown or
    senseless.
    """
    cores = table["cores"]
    l1, *outer = table["memory"]
    levels = tuple(
        Level(
            level["name"],
            float(level.get("bytes", "inf")),
            level["gb_per_s"] * 1e9,
            level.get("shared_gb_per_s", level["gb_per_s"] * cores) * 1e9,
        )
        for level in outer
    )
    if levels[-1].bytes != float("inf"):
        raise ValueError("the last entry of [[memory]] is main memory and has no size")
    names = [l1["name"], *(level.name for level in levels)]
    if names not in (["l1", "l2", "l3", "dram"], ["l1", "l2", "dram"]):
        raise ValueError(f"[[memory]] has {', '.join(names)}, not l1, l2, l3 where there is one, and dram")
    if unknown := sorted(table.get("instructions", {}).keys() - FUNCTIONS.keys()):
        raise ValueError(f"[instructions] names {', '.join(unknown)}: no scalar functions")
    if table["overlap"] < 1:
        raise ValueError("`overlap` is less than 1")
    rest = dict(table)
    del rest["memory"]
    core = dict(rest.pop("core"))
    core["hertz"] = core.pop("ghz") * 1e9
    tiles = {key: tuple(v) if isinstance(v, list) else v for key, v in rest.pop("tiles").items()}
    machine = Machine(
        name=name,
        description=rest.pop("description"),
        arch=rest.pop("arch"),
        features=tuple(rest.pop("features")),
        cores=rest.pop("cores"),
        core=filled(Core, core),
        l1_bytes=float(l1["bytes"]),
        levels=levels,
        line_bytes=rest.pop("line_bytes"),
        page_bytes=rest.pop("page_bytes"),
        stream_bytes=rest.pop("stream_bytes"),
        overlap=rest.pop("overlap"),
        exposed=rest.pop("exposed"),
        late=rest.pop("late"),
        launch=rest.pop("launch_ns") * 1e-9,
        fork=rest.pop("fork_ns") * 1e-9,
        symbolic_extent=rest.pop("symbolic_extent"),
        operators=filled(Operators, rest.pop("operators")),
        tiles=filled(Tiles, tiles),
        instructions=rest.pop("instructions", {}),
        measured=rest.pop("measured", {}),
    )
    if rest:
        raise ValueError(f"unknown entries {', '.join(sorted(rest))}")
    return machine


def filled(kind: type[Struct], values: Mapping[str, Any]) -> Any:
    """A Struct from a table that has exactly its fields."""
    known = set(kind.__struct_fields__)
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"unknown entries {', '.join(unknown)}")
    if missing := sorted(known - values.keys()):
        raise KeyError(missing[0])
    return kind(**values)

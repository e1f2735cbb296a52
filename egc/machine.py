"""Machines as data: a cost model's TOML file in, a frozen Machine out.

Everything that the compiler knows about a processor stands in ``cost_models/NAME.toml``: registers, ports,
latencies, caches, bandwidths, what scalar functions cost, and which tile sizes are worth trying. Units are
in the field names or in the docstrings; cycles are the core's.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert, defstruct
from msgspec.structs import asdict

from egc import files
from egc.errors import BadInput, UsageError
from egc.ir.scalar import FUNCTIONS
from egc.resources import cost_model, data_folder
from egc.runtime.cpu import machine_features

T = TypeVar("T")

# What an entry may be. The bounds are far from every machine and near enough that no figure made of such
# entries leaves what floating-point numbers and loops can hold.
Positive: TypeAlias = Annotated[float, Meta(ge=1e-6, le=1e9)]
NotNegative: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
Bytes: TypeAlias = Annotated[float, Meta(ge=1, le=1e15)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1 << 31)]
Few: TypeAlias = Annotated[int, Meta(ge=1, le=4096)]
Copies: TypeAlias = Annotated[tuple[Annotated[int, Meta(ge=1, le=256)], ...], Meta(min_length=1)]
Sizes: TypeAlias = Annotated[tuple[Annotated[int, Meta(ge=1, le=1 << 20)], ...], Meta(min_length=1)]


class Operators(Struct, frozen=True, forbid_unknown_fields=True):
    """What graph operators reach. The contractions: parts of the peak, of which a convolution that tests its
    taps against the border reaches the part `guarded`; a window that leaves the tensor along the vector axis
    works `guarded_lanes` times as long; `softmax` is vector instructions an element.
    """

    matmul: Positive
    conv_channels_last: Positive
    conv: Positive
    attention: Positive
    guarded: Positive
    guarded_lanes: Positive
    softmax: Positive


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


class Core(Struct, frozen=True, forbid_unknown_fields=True):
    """One core: `fma`, `load`, `store` and `issue` are vector instructions a cycle; `latency` is that of a
    dependent multiply-add; `gather`, `scatter` are cycles a lane; `loop` is cycles an iteration of a loop
    that is not unrolled, of which the part `loop_hidden` runs beside multiply-adds that leave it ports; a
    loop of more than `queue` instructions of the tile is fetched anew each time, `refetch` cycles for one;
    `horizontal` is cycles to combine the lanes of a register; `translate` is cycles for an access to a page
    not used lately; `remainder` is what a cut-off tile costs beyond its share, in tiles; `turn` is cycles for
    a tile that adds a part of its sums, to have them from memory and back; `spare` registers are left to the
    code generator.
    """

    ghz: Positive
    vector_bits: Annotated[int, Meta(ge=32, le=2048, multiple_of=32)]
    registers: Annotated[int, Meta(ge=4, le=4096)]
    spare: Annotated[int, Meta(ge=0, le=4096)]
    fma: Positive
    load: Positive
    store: Positive
    issue: Positive
    latency: Positive
    gather: NotNegative
    scatter: NotNegative
    loop: NotNegative
    loop_hidden: NotNegative
    queue: NotNegative
    refetch: NotNegative
    horizontal: NotNegative
    translate: NotNegative
    remainder: NotNegative
    turn: NotNegative

    @property
    def hertz(self) -> float:
        """Cycles a second."""
        return self.ghz * 1e9


class Level(Struct, frozen=True):
    """A cache, or memory: `bytes` that one core may use of it; bytes a second into one core, and into all
    of them.
    """

    name: str
    bytes: float
    bandwidth: float
    shared_bandwidth: float


class Tiles(Struct, frozen=True, forbid_unknown_fields=True):
    """Candidates for the loop e-graph: copies of a parallel axis, copies of a second one outside it,
    vectors side by side, copies of a reduction axis, positions of one in a chunk of its sums, block sizes in
    tiles, sizes of the tile that the stages of a fused kernel share; and how much straight-line code one tile
    may be (instructions).
    """

    unroll: Copies
    outer: Copies
    vectors: Copies
    reduction: Copies
    sums: Sizes
    block: Sizes
    shared: Sizes
    instructions: Annotated[int, Meta(ge=1, le=100_000)]


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
    path = path_of(name_or_path)
    if path is None:
        known = machine_names()
        near = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.4)
        raise UsageError(
            f"there is no cost model {name_or_path!r}",
            why=f"known are {', '.join(known)}, or the path of a TOML file",
            hint=f"--cost-model {near[0] if near else 'x86-64-v3, say'}",
        )
    return _read(path)


def path_of(name_or_path: str) -> Path | None:
    """The file of a cost model; None where there is none. BadInput where it is no plain file."""
    shipped = cost_model(name_or_path)
    if shipped is not None:
        return shipped
    path = Path(name_or_path)
    try:
        files.opened(path).close()
    except FileNotFoundError:
        return None
    except OSError as error:
        hint = "check the path"
        raise BadInput(
            "the cost model cannot be read", where=name_or_path, why=error.strerror, hint=hint
        ) from None
    return path


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
    fitting: list[tuple[int, str]] = []
    for name in machine_names():
        # What tells a processor stands above the first table; the rest of six files is not waited for.
        head, _, _ = (data_folder("cost_models") / f"{name}.toml").read_text().partition("\n[")
        described = tomllib.loads(head)
        if described.get("kind") != "gpu" and features.issuperset(described["features"]):
            fitting.append((len(described["features"]), name))
    if not fitting:
        raise UsageError(
            "this CPU is not supported",
            why="none of the shipped cost models is of a CPU like it",
            hint="--arch x86-64-v3, say, to compile for another machine",
        )
    return load_machine(max(fitting)[1])


@lru_cache(maxsize=8)
def table_of(path: Path) -> Mapping[str, Any]:
    """What a cost model's file says. BadInput where it is no TOML."""
    try:
        return tomllib.loads(files.text(path))
    except OSError as error:
        why = error.strerror
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        why = str(error)
    except RecursionError:
        why = "it is nested too deeply"
    raise BadInput(
        "the cost model cannot be read", where=str(path), why=why, hint="cost_models/ holds such files"
    )


def decoded(path: Path, kind: type[T]) -> T:
    """The entries of a cost model's file, whose types and ranges are those of `kind`'s fields. BadInput names
    the first one that is missing, unknown or senseless.
    """
    try:
        return convert(table_of(path), kind)
    except ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        for said, meant in _WORDS.items():
            what = what.replace(said, meant)
        place = place.strip("`.")
        raise unusable(path, f"`{place}`: {what}" if place else what) from None


# msgspec's words, and those for a TOML file.
_WORDS = {
    "Object missing required field": "there is no entry",
    "Object contains unknown field": "there should be no entry",
    "Expected": "expected",
}


def unusable(path: Path, why: str) -> BadInput:
    """The error for a cost model whose entries make no sense."""
    shown = "sm_80" if table_of(path).get("kind") == "gpu" else "x86-64-v4"
    return BadInput(
        "the cost model cannot be used",
        where=str(path),
        why=why,
        hint=f"cost_models/{shown}.toml shows every entry",
    )


class Memory(Struct, frozen=True, forbid_unknown_fields=True):
    """A level of memory as the file has it."""

    name: str
    bytes: Bytes | None = None
    gb_per_s: Positive | None = None
    shared_gb_per_s: Positive | None = None


# Instructions by scalar function, each of which may be left out.
Instructions = defstruct(
    "Instructions",
    [(name, NotNegative | UnsetType, UNSET) for name in FUNCTIONS],
    frozen=True,
    forbid_unknown_fields=True,
)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """A CPU's file. The fields of one name are those of `Machine`."""

    description: str
    arch: str
    features: tuple[str, ...]
    cores: Few
    line_bytes: Annotated[int, Meta(ge=16, le=1 << 16, multiple_of=16)]
    page_bytes: Count
    stream_bytes: Annotated[int, Meta(ge=0, le=1 << 31)]
    overlap: Annotated[float, Meta(ge=1, le=16)]
    exposed: NotNegative
    late: NotNegative
    launch_ns: NotNegative
    fork_ns: NotNegative
    symbolic_extent: Count
    core: Core
    memory: tuple[Memory, ...]
    operators: Operators
    tiles: Tiles
    instructions: Instructions = Instructions()  # type: ignore[valid-type]
    measured: Mapping[str, str] = {}


@lru_cache(maxsize=8)
def _read(path: Path) -> Machine:
    if table_of(path).get("kind") == "gpu":
        raise UsageError(f"the cost model {path.stem} describes a GPU", hint="--target gpu --arch sm_80")
    file = decoded(path, _File)
    try:
        return _machine(path.stem, file)
    except ValueError as error:
        raise unusable(path, str(error)) from None


def _machine(name: str, file: _File) -> Machine:
    """A Machine from its file; ValueError where entries contradict one another."""
    names = [level.name for level in file.memory]
    if names not in (["l1", "l2", "l3", "dram"], ["l1", "l2", "dram"]):
        raise ValueError(f"[[memory]] has {', '.join(names)}, not l1, l2, l3 where there is one, and dram")
    if file.core.spare >= file.core.registers:
        raise ValueError("`core.spare` is all of `core.registers`")
    if file.memory[0].bytes is None:
        raise ValueError("`memory[0].bytes` is missing")
    same = set(_File.__struct_fields__) & set(Machine.__struct_fields__) - {"instructions"}
    return Machine(
        name=name,
        l1_bytes=file.memory[0].bytes,
        levels=levels_of(file.memory, 1, file.cores),
        launch=file.launch_ns * 1e-9,
        fork=file.fork_ns * 1e-9,
        instructions=instructions_of(file.instructions),
        **{field: getattr(file, field) for field in same},
    )


def levels_of(memory: Sequence[Memory], first: int, cores: int) -> tuple[Level, ...]:
    """The levels from `first` on, of which all `cores` together reach what they reach alone, unless the file
    says otherwise. ValueError where a figure is missing, or main memory, the last one, has a size.
    """
    levels = []
    for i, level in enumerate(memory[first:], first):
        if level.gb_per_s is None:
            raise ValueError(f"`memory[{i}].gb_per_s` is missing")
        shared = level.gb_per_s * cores if level.shared_gb_per_s is None else level.shared_gb_per_s
        size = float("inf") if level.bytes is None else level.bytes
        levels.append(Level(level.name, size, level.gb_per_s * 1e9, shared * 1e9))
    if levels[-1].bytes != float("inf"):
        raise ValueError("the last entry of [[memory]] is main memory and has no size")
    return tuple(levels)


def instructions_of(given: Any) -> dict[str, float]:
    """Instructions of those scalar functions that a file names."""
    return {name: value for name, value in asdict(given).items() if value is not UNSET}

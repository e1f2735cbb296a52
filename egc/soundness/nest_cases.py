"""Kernels with data, and what a compiler would state about their loops: the cases on which a loop rule is
tried out.

The facts are those of egc.schedule, for machines made up at random: vectors of a few lanes, small tiles, tiny
caches; and for a rule that speaks of sizes itself also those sizes and extents round them. A symbolic extent
is a number in the loop e-graph (the machine's `symbolic_extent`) and another one when the nest runs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from math import prod

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from egc.ir.dims import Dim, evaluate
from egc.ir.evaluate_kernel import evaluate_kernel
from egc.ir.kernel import Kernel
from egc.ir.text import parse_kernel
from egc.ir.types import itemsize, numpy_dtype
from egc.machine import Machine, load_machine
from egc.schedule.access import model_stage
from egc.schedule.cells import Facts
from egc.schedule.choose import renamed
from egc.schedule.facts import FactWriter, axis_name
from egc.schedule.gpu import device_facts
from egc.schedule.gpu_machine import GpuMachine, load_gpu_machine
from egc.soundness.nest_kernels import KERNELS

# Extents of positions and of reductions, smaller ones first: the first counterexample is then a small one.
TIERS = (
    ((2, 3), (2, 3)),
    ((3, 4, 5), (3, 5)),
    ((1, 6, 7), (4, 7)),
    ((8, 9, 13), (1, 9, 17)),
)
SYMBOLIC = (1, 3, 6, 70)  # what a symbolic extent is when the nest runs


class Case(Struct, frozen=True, dict=True):
    """A kernel with values for its symbolic dims, data for its inputs, and what its loop e-graph is told.

    `names` has for every stage the axes by their names in the e-graph, `extents` their extents when the nest
    runs, `nominal` what the e-graph takes the symbolic ones for; `tier` its place in TIERS.
    """

    kernel: Kernel
    dims: Mapping[str, int]
    inputs: Mapping[str, np.ndarray]
    facts: Facts
    names: tuple[Mapping[str, str], ...]
    extents: Mapping[str, int]
    nominal: Mapping[str, int]
    gpu: bool
    tier: int = 0

    @cached_property
    def expected(self) -> Mapping[str, np.ndarray]:
        """What the kernel computes, with no order of execution."""
        with np.errstate(all="ignore"):
            return evaluate_kernel(self.kernel, self.inputs, self.dims)


ROUNDS = range(len(TIERS))  # after these, each kernel has been at extents of each tier


def cases(sizes: Sequence[int] = (), rounds: Iterable[int] = ROUNDS) -> Iterator[Case]:
    """Rounds of cases: in each round each kernel for a CPU and for a GPU, at extents of another of the TIERS;
    and in the first two rounds as many with some of the `sizes`, where there are any.
    """
    for turn in rounds:
        for number, name in enumerate(KERNELS):
            for gpu in (False, True):
                yield numbered_case((number + turn + 2 * gpu) % len(TIERS), name, gpu)
                if sizes and turn < 2:
                    yield numbered_case(turn, name, gpu, tuple(sizes))


def simpler_cases(case: Case) -> Iterator[Case]:
    """Cases for the same kind of machine at smaller known extents, smallest first."""
    for tier in range(2 if case.dims else min(case.tier, 2)):
        for name in KERNELS:
            simpler = numbered_case(tier, name, case.gpu)
            if not simpler.dims:
                yield simpler


@lru_cache(maxsize=2 * len(TIERS) * len(KERNELS))
def numbered_case(tier: int, name: str, gpu: bool, sizes: tuple[int, ...] = ()) -> Case:
    """A kernel at extents of a tier, in every third case one of them symbolic; or one extent is a multiple of
    one of the `sizes`, or somewhat more, and the others are small.
    """
    rng = random.Random(f"{tier} {name} {gpu} {sizes}")
    text = KERNELS[name]
    positions, reductions = TIERS[0 if sizes else tier]
    extents: dict[str, Dim | str] = {axis: rng.choice(positions) for axis in "ab"}
    extents |= {"k": rng.choice(reductions)}
    used = [axis for axis in extents if f"{{{axis}}}" in text]
    chosen = used[(tier + gpu) % len(used)] if sizes else rng.choice(used)
    dims: dict[str, int] = {}
    number = tier + list(KERNELS).index(name) + gpu
    if sizes:
        size = rng.choice(sizes)
        extents[chosen] = rng.choice((size, size + 1, 2 * size, 2 * size + 3))
    elif number % 3 == 2:
        extents[chosen], dims["n"] = "n", SYMBOLIC[number % len(SYMBOLIC)]
    roomy = tier % 2 == 1
    found = case(parse_kernel(text.format(**extents)), dims, rng, gpu, roomy, sizes)
    return replace(found, tier=len(TIERS) if sizes else tier)


def case(
    kernel: Kernel,
    dims: Mapping[str, int],
    rng: random.Random,
    gpu: bool,
    roomy: bool = False,
    sizes: Sequence[int] = (),
) -> Case:
    """A kernel with random data and the facts for a random machine, a `roomy` one with caches that hold not
    quite twice one of the constants, or of the parameters where there are none; `sizes` are some of tiles.
    """
    shapes = {b.name: [evaluate(dim, dims) for dim in b.type.shape] for b in kernel.buffers}
    kept = [b for b in kernel.params if b.constant] or kernel.params
    bytes_ = [itemsize(b.type.dtype) * prod(shapes[b.name]) for b in kept]
    machine = random_gpu(rng, sizes) if gpu else random_machine(rng, bytes_ if roomy else (), sizes)
    models = [model_stage(kernel, stage, machine) for stage in kernel.stages]  # type: ignore[arg-type]
    names = [
        {axis_name(kernel, i, axis.name): axis.name for axis in stage.all_axes}
        for i, stage in enumerate(kernel.stages)
    ]
    extents = {
        axis_name(kernel, i, axis.name): evaluate(axis.extent, dims)
        for i, stage in enumerate(kernel.stages)
        for axis in stage.all_axes
    }
    nominal = {
        axis_name(kernel, i, axis): extent
        for i, model in enumerate(models)
        for axis, extent in model.extents.items()
    }
    whole = len(kernel.stages) == 1
    if isinstance(machine, GpuMachine):
        own = [renamed(m, {a: axis_name(kernel, i, a) for a in m.extents}) for i, m in enumerate(models)]
        shared = set() if whole else {axis.name for axis in kernel.stages[0].axes[: kernel.shared]}
        facts = device_facts(own, [stage.combine for stage in kernel.stages], machine, shared)
    else:
        writer = FactWriter(kernel, machine)
        for i, model in enumerate(models):
            writer.stage(i, model, whole)
        facts = writer.facts()
    numbers = np.random.default_rng(rng.randrange(2**32))
    inputs = {
        buffer.name: _data(buffer.type.dtype, shapes[buffer.name], numbers)
        for buffer in kernel.params
        if buffer.role == "in"
    }
    return Case(kernel, dims, inputs, facts, tuple(names), extents, nominal, gpu)


def _data(dtype: str, shape: Sequence[int], numbers: np.random.Generator) -> np.ndarray:
    """Numbers whose sums depend on their order, or small integers, which serve as indices, too."""
    if dtype.startswith("float"):
        return numbers.standard_normal(shape).astype(numpy_dtype(dtype))
    return numbers.integers(0, 3, shape).astype(numpy_dtype(dtype))


def random_machine(rng: random.Random, held: Sequence[int], sizes: Sequence[int]) -> Machine:
    """A CPU with few lanes, tiles of sizes that may divide nothing, or of `sizes`, and caches that hold not
    quite twice something of one of the bytes `held`, or nothing, as the first one does always.
    """
    base = _cpu()
    lanes = _some(rng, [size for size in sizes if size <= 32], (2, 3, 4))
    tiles = replace(
        base.tiles,
        unroll=(2, _some(rng, sizes, (3, 4))),
        outer=(2,),
        vectors=(1, rng.choice((2, 3))),
        reduction=(2, _some(rng, sizes, (3, 4))),
        sums=(4, 3, 2),
        block=(2, _some(rng, sizes, (3,))),
        shared=(3, _some(rng, sizes, (4,))),
    )
    caches = [2 * size - 1 for size in held] or [16]
    levels = tuple(replace(level, bytes=rng.choice(caches)) for level in base.levels[:-1])
    core = replace(base.core, vector_bits=32 * lanes)
    return replace(base, core=core, tiles=tiles, l1_bytes=16.0, levels=(*levels, base.levels[-1]))


def random_gpu(rng: random.Random, sizes: Sequence[int]) -> GpuMachine:
    """A GPU with few threads, or of `sizes`."""
    base = _gpu()
    tiles = replace(
        base.tiles,
        threads=tuple(sorted({2, _some(rng, sizes, (3, 4, 5))})),
        copies=(1, _some(rng, sizes, (2, 3))),
        sums=(_some(rng, sizes, (2, 3, 4)),),
        reduction=(_some(rng, sizes, (2, 3)),),
    )
    return replace(base, tiles=tiles)


def _some(rng: random.Random, sizes: Sequence[int], usual: Sequence[int]) -> int:
    """One of the usual sizes, or where there are others rather one of these."""
    return rng.choice(sizes if sizes and rng.random() < 0.75 else usual)


@lru_cache(maxsize=1)
def _cpu() -> Machine:
    return load_machine("x86-64-v4")


@lru_cache(maxsize=1)
def _gpu() -> GpuMachine:
    return load_gpu_machine("sm_80")

"""Small kernels of every kind that the loop rules speak of, their data, and what a compiler would state about
their loops: the cases on which a loop rule is tried out.

The facts are those of egc.schedule, for machines made up at random: vectors of a few lanes, small tiles, tiny
caches. A symbolic extent is a number in the loop e-graph (the machine's `symbolic_extent`) and another one
when the nest runs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod

import numpy as np

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

# Each with its axes' extents left open: {a}, {b} are positions, {k}, {l} are reduced over.
KERNELS: Mapping[str, str] = {
    "map": """
kernel map(in x: float32[{a}], out y: float32[{a}]) {{
  stage map over i:{a}
    y[i] = neg(x[i])
}}""",
    "sum": """
kernel sum(in x: float32[{a}, {k}], out y: float32[{a}]) {{
  stage sum over i:{a} reduce add k:{k}
    value = x[i, k]
    y[i] = acc
}}""",
    "scatter": """
kernel scatter(in at: int64[{a}], in x: float32[{a}], out y: float32[3]) {{
  stage scatter over i:{a}
    y[at[i]] add= x[i]
}}""",
    "max": """
kernel max(in x: int32[{a}, {k}], out y: int32[{a}]) {{
  stage max over i:{a} reduce max k:{k}
    value = x[i, k]
    y[i] = acc
}}""",
    "turn": """
kernel turn(in x: float32[{b}, {a}], in c: float32[{b}], out y: float32[{a}, {b}]) {{
  stage turn over i:{a}, j:{b}
    y[i, j] = relu(add(x[j, i], c[j]))
}}""",
    "columns": """
kernel columns(in x: float32[{k}, {a}], out y: float32[{a}]) {{
  stage columns over i:{a} reduce add k:{k}
    value = x[k, i]
    y[i] = acc
}}""",
    "product": """
kernel product(in a: float32[{a}, {k}], const in b: float32[{k}, {b}], out y: float32[{a}, {b}]) {{
  stage product over i:{a}, j:{b} reduce add k:{k}
    value = mul(a[i, k], b[k, j])
    y[i, j] = relu(acc)
}}""",
    "running": """
kernel running(in x: float32[{a}], out y: float32[{a}]) {{
  stage running over i:{a} ordered
    y[i] = add(x[i], (y[i - 1] if inside(i - 1, {a}) else 0.0))
}}""",
    "centre": """
kernel centre(in x: float32[{a}, {b}], out y: float32[{a}, {b}]) shared 1 {{
  local top: float32[{a}]
  stage top over i:{a} reduce max j:{b}
    value = x[i, j]
    top[i] = acc
  stage y over i:{a}, j:{b}
    y[i, j] = sub(x[i, j], top[i])
}}""",
    "softmax": """
kernel softmax(in x: float32[{a}, {b}], out y: float32[{a}, {b}]) shared 1 {{
  local top: float32[{a}]
  local e: float32[{a}, {b}]
  local sum: float32[{a}]
  stage top over i:{a} reduce max j:{b}
    value = x[i, j]
    top[i] = acc
  stage e over i:{a}, j:{b}
    e[i, j] = exp(sub(x[i, j], top[i]))
  stage sum over i:{a} reduce add j:{b}
    value = e[i, j]
    sum[i] = acc
  stage y over i:{a}, j:{b}
    y[i, j] = div(e[i, j], sum[i])
}}""",
    "window": """
kernel window(in x: float32[{a}, {k}], const in w: float32[2, {k}, {b}], out y: float32[{a}, {b}]) {{
  stage window over h:{a}, o:{b} reduce add u:2, c:{k}
    value = mul((x[h + u - 1, c] if inside(h + u - 1, {a}) else 0.0), w[u, c, o])
    y[h, o] = acc
}}""",
    "attend": """
kernel attend(in q: float32[{a}, {k}], in t: float32[{b}, {k}], out y: float32[{a}, {b}]) shared 1 {{
  local s: float32[{a}, {b}]
  local top: float32[{a}]
  stage s over i:{a}, j:{b} reduce add r:{k}
    value = mul(q[i, r], t[j, r])
    s[i, j] = acc
  stage top over i:{a} reduce max j:{b}
    value = s[i, j]
    top[i] = acc
  stage y over i:{a}, j:{b}
    y[i, j] = sub(s[i, j], top[i])
}}""",
    "scores": """
kernel scores(in q: float32[{a}, {b}, {k}], in t: float32[{a}, {b}, {k}], out y: float32[{a}, {b}, {b}]) \
shared 1 {{
  local s: float32[{a}, {k}, {b}]
  stage turn over h:{a}, r:{k}, j:{b}
    s[h, r, j] = t[h, j, r]
  stage scores over h:{a}, i:{b}, j:{b} reduce add r:{k}
    value = mul(q[h, i, r], s[h, r, j])
    y[h, i, j] = acc
}}""",
}
# Extents of positions and of reductions, smaller ones first: the first counterexample is then a small one.
TIERS = (
    ((2, 3), (2, 3)),
    ((3, 4, 5), (3, 5)),
    ((5, 6, 7), (4, 7)),
    ((8, 9, 13), (1, 9, 17)),
)
SYMBOLIC = (1, 3, 6, 70)  # what a symbolic extent is when the nest runs


@dataclass(frozen=True)
class Case:
    """A kernel with values for its symbolic dims, data for its inputs, and what its loop e-graph is told.

    `names` has for every stage the axes by their names in the e-graph, `extents` their extents when the nest
    runs, `nominal` what the e-graph takes the symbolic ones for.
    """

    kernel: Kernel
    dims: Mapping[str, int]
    inputs: Mapping[str, np.ndarray]
    facts: Facts
    names: tuple[Mapping[str, str], ...]
    extents: Mapping[str, int]
    nominal: Mapping[str, int]

    @cached_property
    def expected(self) -> Mapping[str, np.ndarray]:
        """What the kernel computes, with no order of execution."""
        with np.errstate(all="ignore"):
            return evaluate_kernel(self.kernel, self.inputs, self.dims)


def cases() -> Iterator[Case]:
    """Cases in order of their size: each kernel at each of the TIERS, for a CPU and for a GPU."""
    for tier in range(len(TIERS)):
        for name in KERNELS:
            yield numbered_case(tier, name, False)
            yield numbered_case(tier, name, True)


@lru_cache(maxsize=2 * len(TIERS) * len(KERNELS))
def numbered_case(tier: int, name: str, gpu: bool) -> Case:
    """A kernel at extents of a tier, in every third case one of them symbolic."""
    rng = random.Random(f"{tier} {name} {gpu}")
    text = KERNELS[name]
    positions, reductions = TIERS[tier]
    extents: dict[str, Dim | str] = {axis: rng.choice(positions) for axis in "ab"}
    extents |= {"k": rng.choice(reductions)}
    dims: dict[str, int] = {}
    number = tier + list(KERNELS).index(name) + gpu
    if number % 3 == 2:
        chosen = rng.choice([axis for axis in extents if f"{{{axis}}}" in text])
        extents[chosen], dims["n"] = "n", SYMBOLIC[number % len(SYMBOLIC)]
    return case(parse_kernel(text.format(**extents)), dims, rng, gpu, roomy=tier % 2 == 1)


def case(kernel: Kernel, dims: Mapping[str, int], rng: random.Random, gpu: bool, roomy: bool = False) -> Case:
    """A kernel with random data and the facts for a random machine, a `roomy` one with caches that hold not
    quite twice one of the constants, or of the parameters where there are none.
    """
    shapes = {b.name: [evaluate(dim, dims) for dim in b.type.shape] for b in kernel.buffers}
    kept = [b for b in kernel.params if b.constant] or kernel.params
    sizes = [itemsize(b.type.dtype) * prod(shapes[b.name]) for b in kept]
    machine = random_gpu(rng) if gpu else random_machine(rng, sizes if roomy else ())
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
    return Case(kernel, dims, inputs, facts, tuple(names), extents, nominal)


def _data(dtype: str, shape: Sequence[int], numbers: np.random.Generator) -> np.ndarray:
    """Numbers whose sums depend on their order, or small integers, which serve as indices, too."""
    if dtype.startswith("float"):
        return numbers.standard_normal(shape).astype(numpy_dtype(dtype))
    return numbers.integers(0, 3, shape).astype(numpy_dtype(dtype))


def random_machine(rng: random.Random, sizes: Sequence[int]) -> Machine:
    """A CPU with few lanes, tiles of sizes that may divide nothing, and caches that hold not quite twice
    something of one of the `sizes` in bytes, or nothing.
    """
    base = _cpu()
    lanes = rng.choice((2, 3, 4))
    tiles = replace(
        base.tiles,
        unroll=(2, rng.choice((3, 4))),
        outer=(2,),
        vectors=(1, rng.choice((2, 3))),
        reduction=(2, rng.choice((3, 4))),
        block=(rng.choice((2, 3)),),
        shared=(rng.choice((2, 3)), 4),
    )
    caches = [2 * size - 1 for size in sizes] or [16]
    levels = tuple(replace(level, bytes=rng.choice(caches)) for level in base.levels[:-1])
    core = replace(base.core, vector_bits=32 * lanes)
    return replace(base, core=core, tiles=tiles, levels=(*levels, base.levels[-1]))


def random_gpu(rng: random.Random) -> GpuMachine:
    """A GPU with few threads."""
    base = _gpu()
    tiles = replace(
        base.tiles,
        threads=tuple(sorted({2, rng.choice((3, 4, 5))})),
        copies=(1, rng.choice((2, 3))),
        sums=(rng.choice((2, 3, 4)),),
        reduction=(rng.choice((2, 3)),),
    )
    return replace(base, tiles=tiles)


@lru_cache(maxsize=1)
def _cpu() -> Machine:
    return load_machine("x86-64-v4")


@lru_cache(maxsize=1)
def _gpu() -> GpuMachine:
    return load_gpu_machine("sm_80")

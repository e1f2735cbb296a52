"""What a mapped nest costs on a GPU: instructions, memory transactions, and how much of the device it keeps
busy.

A stage's loops say how many blocks there are, how many threads a block has, and what one thread does. The
time is the longest of: issuing the instructions, serving the loads from the first cache, the second cache and
memory, and the latency of what one thread does one after another, for as many rounds as the blocks need to
pass over the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from egc.schedule.access import Access, StageModel, Work
from egc.schedule.cells import For
from egc.schedule.gpu_machine import GpuMachine

_SECTOR = (
    32  # bytes of the smallest transfer between the caches (CUDA C++ Best Practices Guide, section 10.2.1)
)
_VECTOR_BYTES = 16  # the widest load of a thread (PTX ISA, ld)
_OVERHEAD_REGISTERS = 24  # addresses and counters of a thread; what ptxas reports for small kernels
_LOOP_INSTRUCTIONS = 4  # a counter, two addresses, a branch
_HIDDEN = 0.9  # the part of the shorter terms that hides behind the longest


class GpuCost(Struct, frozen=True):
    """Predicted seconds by term; `seconds` is the whole, in which terms overlap. `threads` and `blocks` are
    the launch."""

    compute: float
    l1: float
    l2: float
    dram: float
    latency: float
    launch: float
    seconds: float
    threads: int = 1
    blocks: int = 1

    @property
    def terms(self) -> dict[str, float]:
        """The terms by name."""
        return {n: getattr(self, n) for n in ("compute", "l1", "l2", "dram", "latency", "launch")}

    def __add__(self, other: GpuCost) -> GpuCost:
        sums = {name: getattr(self, name) + getattr(other, name) for name in (*self.terms, "seconds")}
        threads, blocks = max(self.threads, other.threads), max(self.blocks, other.blocks)
        return GpuCost(**sums, threads=threads, blocks=blocks)


class Mapped(Struct, frozen=True):
    """The loops of a stage sorted by what they are to a GPU; trips are iterations."""

    blocks: int
    threads: int
    inner_threads: tuple[tuple[str, int, int], ...]  # (axis, step, trips), innermost first
    sum_threads: int
    serial: int
    steps: int
    unrolled: int
    copies: Mapping[str, int]

    @property
    def tile(self) -> int:
        """Elements that a thread computes at once."""
        return math.prod(self.copies.values())


def trips(loop: For) -> int:
    """How many iterations a loop has."""
    return -(-loop.span // loop.step)


def mapping(loops: Sequence[For], reductions: frozenset[str]) -> Mapped:
    """What the loops of a stage mean, outermost first."""
    blocks = threads = serial = steps = unrolled = 1
    sum_threads = 0
    inner: list[tuple[str, int, int]] = []
    copies: dict[str, int] = {}
    for loop in loops:
        count = trips(loop)
        if loop.kind == "block":
            blocks *= count
        elif loop.kind == "thread":
            inner.insert(0, (loop.axis, loop.step, count))
            threads *= count
            if loop.axis in reductions:
                sum_threads = count
        elif loop.axis in reductions:
            steps *= count
            if loop.kind == "unroll":
                unrolled *= count
        elif loop.kind == "unroll":
            copies[loop.axis] = copies.get(loop.axis, 1) * count
        else:
            serial *= count
    return Mapped(blocks, threads, tuple(inner), sum_threads, serial, steps, unrolled, copies)


class GpuCoster:
    """Prices the nests of one stage."""

    def __init__(self, model: StageModel, machine: GpuMachine) -> None:
        self.model, self.machine = model, machine
        self.reductions = frozenset(model.reduction)
        self._sectors: dict[tuple[object, ...], int] = {}
        unique = sum(access.total for access in model.accesses)
        self.dram = unique / machine.levels[-1].bandwidth

    def registers(self, m: Mapped) -> int:
        """Registers of a thread: partial results, one operand of each load, addresses."""
        words = max(1, self.model.itemsize // 4)
        operands = sum(self._distinct(a, m) for a in self.model.accesses if a.reduced)
        return (m.tile + operands) * words + _OVERHEAD_REGISTERS

    def cost(self, loops: Sequence[For], block_threads: int | None = None) -> GpuCost | None:
        """The cost of a stage under `loops` in blocks of `block_threads`; None where a block does not fit."""
        machine, core = self.machine, self.machine.core
        m = mapping(loops, self.reductions)
        threads = max(block_threads or 0, m.threads)
        warps = -(-m.threads // machine.warp)
        registers = self.registers(m)
        if m.tile > machine.tiles.tile or registers > 255 or registers * threads > core.registers:
            return None
        instructions, transfers = self._thread_work(m)
        resident = min(
            core.blocks,
            core.threads // (machine.warp * -(-threads // machine.warp)),
            core.registers // (registers * threads),
        )
        if resident < 1:
            return None
        busiest = -(-m.blocks // core.count)  # blocks that the busiest multiprocessor has
        rounds = -(-m.blocks // (core.count * resident))
        compute = busiest * warps * instructions / core.issue / core.hertz
        l1 = busiest * warps * transfers * _SECTOR / core.load_bytes / core.hertz
        l2 = self._block_bytes(loops) * m.blocks / machine.levels[0].bandwidth
        latency = rounds * self._chain(m) / core.hertz
        if m.sum_threads:
            barriers = math.ceil(math.log2(max(2, m.sum_threads))) + 2
            latency += rounds * m.serial * barriers * machine.barrier
        terms = (compute, l1, l2, self.dram, latency)
        longest = max(terms)
        seconds = longest + (1 - _HIDDEN) * (sum(terms) - longest)
        return GpuCost(*terms, 0.0, seconds, threads, m.blocks)

    def _thread_work(self, m: Mapped) -> tuple[float, float]:
        """Instructions of one thread, and sectors that one warp moves, over the whole stage."""
        model = self.model
        wide = max(1.0, self.machine.core.issue * self.machine.warp / self.machine.core.fma)
        reducing = finishing = moved_reducing = moved_finishing = 0.0
        for access in model.accesses:
            width = self._width(access, m)
            count = (self._distinct(access, m) if not access.store else m.tile) / width
            cost = count * (3 if access.guarded else 1)
            moved = count * self._warp_sectors(access, m, width)
            if access.reduced:
                reducing, moved_reducing = reducing + cost, moved_reducing + moved
            else:
                finishing, moved_finishing = finishing + cost, moved_finishing + moved
        if self.reductions:
            reducing += m.tile * (model.combine * wide) + self._work(model.reducing, m)
            reducing += _LOOP_INSTRUCTIONS / m.unrolled
        finishing += self._work(model.finishing, m) + _LOOP_INSTRUCTIONS
        repeats = m.serial
        instructions = repeats * (m.steps * reducing + finishing)
        return instructions, repeats * (m.steps * moved_reducing + moved_finishing)

    def _chain(self, m: Mapped) -> float:
        """Cycles of what one thread must do one after another."""
        core = self.machine.core
        guarded = any(access.guarded for access in self.model.accesses)
        each = core.load_latency * (2 if guarded else 1) / m.unrolled + self.model.chain
        steps = m.steps * each if self.reductions else 0.0
        finishing = core.load_latency + core.latency * sum(work.instructions for work in self.model.finishing)
        return m.serial * (steps + finishing)

    def _work(self, works: Sequence[Work], m: Mapped) -> float:
        total = 0.0
        for work in works:
            total += work.instructions * math.prod(n for a, n in m.copies.items() if a in work.axes)
        return total

    def _distinct(self, access: Access, m: Mapped) -> int:
        """How many elements of an access a thread's tile reads at one step of the reduction."""
        return math.prod(count for axis, count in m.copies.items() if access.depends(axis))

    def _width(self, access: Access, m: Mapped) -> int:
        """How many neighbouring elements of a thread's tile one instruction loads or stores."""
        neighbours = [axis for axis in m.copies if access.stride.get(axis) == 1]
        if len(neighbours) != 1 or access.guarded:
            return 1
        width = math.gcd(m.copies[neighbours[0]], _VECTOR_BYTES // access.size)
        others = [stride for axis, stride in access.stride.items() if axis != neighbours[0]]
        return width if all(stride is not None and stride % width == 0 for stride in others) else 1

    def _warp_sectors(self, access: Access, m: Mapped, width: int) -> int:
        """How many sectors one load or store of a warp touches, of `width` elements a thread."""
        lanes, left = [], self.machine.warp
        for axis, step, count in m.inner_threads:
            stride = access.stride.get(axis, 0)
            lanes.append((None if stride is None else stride * step, min(count, left)))
            left = -(-left // count)
            if left <= 1:
                break
        lanes.append((1, width))
        key = (access.size, *lanes)
        if key not in self._sectors:
            self._sectors[key] = _sectors(lanes, access.size)
        return self._sectors[key]

    def _block_bytes(self, loops: Sequence[For]) -> float:
        """Bytes that one block moves between the caches."""
        spans = dict(self.model.extents)
        for loop in loops:
            if loop.kind == "block":
                spans[loop.axis] = min(loop.step, spans[loop.axis])
        return sum(access.bytes(spans, _SECTOR) for access in self.model.accesses)


def _sectors(lanes: Sequence[tuple[int | None, int]], size: int) -> int:
    addresses = [0]
    for stride, count in lanes:
        if stride is None:
            return math.prod(n for _, n in lanes)
        addresses = [address + stride * i for i in range(count) for address in addresses]
    return len({address * size // _SECTOR for address in addresses})

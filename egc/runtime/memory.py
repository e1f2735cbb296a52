"""Where buffers lie in the arena: those that are never alive together may share bytes."""

from __future__ import annotations

from collections.abc import Sequence

from egc.runtime import abi
from egc.runtime.manifest import HostStep, KernelStep, Manifest

Range = tuple[int, int]


def plan_arena(sizes: Sequence[int], ranges: Sequence[Range]) -> tuple[list[int], int]:
    """Offsets and the total, in bytes, for buffers of `sizes` bytes that are alive over inclusive `ranges`.

    Greedy by size, each into the smallest gap that fits (Pisarchyk and Lee, Efficient Memory Management for
    Deep Neural Net Inference, 2020, §5): the largest buffers come first and find the arena empty. Offsets
    and total are multiples of `abi.ALIGNMENT`; ties go to the earlier buffer, so equal inputs give equal
    plans.
    """
    offsets = [0] * len(sizes)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last: sorted by offset
    total = 0
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], ranges[i], i)):
        size = align(sizes[i])
        if size == 0:
            continue
        offset = _best_gap(placed, size, ranges[i])
        offsets[i] = offset
        total = max(total, offset + size)
        placed.append((offset, offset + size, *ranges[i]))
        placed.sort()
    return offsets, total


def align(size: int) -> int:
    """`size` rounded up to `abi.ALIGNMENT`."""
    return -(-size // abi.ALIGNMENT) * abi.ALIGNMENT


def _best_gap(placed: list[tuple[int, int, int, int]], size: int, alive: Range) -> int:
    """The offset of the smallest gap of at least `size` bytes between the buffers alive at the same time."""
    best, best_size, end = -1, 0, 0
    for start, stop, first, last in placed:
        if first > alive[1] or last < alive[0]:
            continue
        gap = start - end
        if gap >= size and (best < 0 or gap < best_size):
            best, best_size = end, gap
        end = max(end, stop)
    return end if best < 0 else best


def live_ranges(manifest: Manifest) -> dict[int, Range]:
    """For each arena buffer in use: the first and the last interval between barriers at which it is alive.

    Steps without a barrier between them run at the same time, so they count as one. An output of the model
    that lives in the arena is alive until the end, since it is copied out after the last step.
    """
    ranges: dict[int, Range] = {}
    interval = 0
    for step in manifest.steps:
        for buffer in buffers_of(step):
            root = manifest.root(buffer)
            if manifest.buffers[root].where == "arena":
                ranges[root] = (ranges.get(root, (interval, interval))[0], interval)
        interval += isinstance(step, HostStep) or step.barrier
    for port in manifest.outputs:
        root = manifest.root(port.buffer)
        if root in ranges:
            ranges[root] = (ranges[root][0], interval)
    return ranges


def buffers_of(step: KernelStep | HostStep) -> tuple[int, ...]:
    """The buffers that a step reads or writes."""
    if isinstance(step, KernelStep):
        return step.arguments
    return (*step.inputs, *step.outputs)

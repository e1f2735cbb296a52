"""Fetching the next panel of a constant while one is in use.

Each tile that uses a panel fetches a share of the next one, a few cache lines in each step of its sums, so
that it has come before it is used and its way from the far cache or memory costs no time of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from egc.codegen.memory import Access, Memory, Position
from egc.codegen.walk import Walk
from egc.ir.dims import Dim, floordiv
from egc.ir.expr import Load, walk
from egc.ir.kernel import Stage
from egc.ir.types import itemsize

_LINE_BYTES = 64  # of every processor that code is generated for
_INTO_OWN_CACHE = 2  # llvm.prefetch: 3 is the first cache, 2 the second one


@dataclass(frozen=True)
class Fetch:
    """What a tile fetches in a step of its sums: of the row of the next panel at the step's place some lines,
    each at the place in `places` that the tile's axes have there.
    """

    memory: Memory
    access: Access
    places: Sequence[Mapping[str, Position]]

    def write(self, at: Mapping[str, Position]) -> None:
        """The prefetches of one step, the axes of the sums being at `at`."""
        b = self.memory.b
        b.declare("llvm.prefetch.p0", "void", "ptr", "i32", "i32", "i32")
        for place in self.places:
            flat = self.memory.settle(self.access.flat, {**place, **at})
            pointer = self.memory.address(self.access, flat)
            b.line(f"call void @llvm.prefetch.p0({pointer}, i32 0, i32 {_INTO_OWN_CACHE}, i32 1)")


def fetches(stage: Stage, lanes_axis: str, walk_: Walk) -> Iterator[Fetch]:
    """What the tile of `stage` inside the loops of `walk_` fetches ahead, its lanes running along an axis."""
    memory = walk_.memory
    for load in dict.fromkeys(node for node in walk(stage.value) if isinstance(node, Load)):
        pack = memory.packs.get(load.buffer)
        if pack is None or not pack.ahead:
            continue
        lines = -(-pack.block * itemsize(load.dtype) // _LINE_BYTES)
        tile, each = _share(lanes_axis, walk_, lines)
        elements = _LINE_BYTES // itemsize(load.dtype)
        here = {axis.name: walk_.position(axis.name) for axis in stage.axes}
        # The last panel has none after it: a prefetch of what is no memory does nothing.
        firsts = [here[lanes_axis] + pack.block + (tile * each + i) * elements for i in range(each)]
        places = [
            {axis: Position(first if axis == lanes_axis else start) for axis, start in here.items()}
            for first in firsts
        ]
        yield Fetch(memory, memory.access(load.buffer, load.index), places)


def _share(lanes_axis: str, walk_: Walk, lines: int) -> tuple[Dim, int]:
    """Which share of the lines of a row this tile fetches, and how many lines a share has: the tiles that use
    one panel share the next one; where they are more than the lines, some fetch the same again.
    """
    loop = walk_.loops[-1] if walk_.loops else None
    if loop is None or loop.axis == lanes_axis:
        return 0, lines
    state = walk_.axes[loop.axis]
    tiles = -(-state.extent // loop.step) if isinstance(state.extent, int) else 1
    each = -(-lines // max(tiles, 1))
    shares = -(-lines // each)
    if shares < 2:
        return 0, lines
    memory = walk_.memory
    number = memory.value(memory.settle(floordiv(state.start, loop.step), {}))
    share = memory.b.binary("urem", number, memory.b.i64(shares))
    return memory.bind("share", share, shares), each

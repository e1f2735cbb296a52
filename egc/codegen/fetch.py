"""Fetching what comes next while something is computed.

Each tile that uses a panel of a constant fetches a share of the next one, and of an operand each tile fetches
what the next tile reads of it: a few cache lines in each step of the sums, so that they have come before they
are used, and their way from a far cache or memory costs no time of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from egc.codegen.indices import affine
from egc.codegen.memory import Access, Memory, Position
from egc.codegen.walk import Walk
from egc.ir.dims import Dim, floordiv, mod, symbols_of
from egc.ir.expr import Load, walk
from egc.ir.kernel import Stage
from egc.ir.nest import Loop
from egc.ir.types import itemsize

_LINE_BYTES = 64  # of every processor that code is generated for
_FIRST_CACHE, _OWN_CACHE = 3, 2  # llvm.prefetch's names for the first cache and the second one


@dataclass(frozen=True)
class Fetch:
    """What a tile fetches in a step of its sums: some lines of an access, each at the place in `places` that
    the tile's axes have there, into a cache. Where `along` is (sum, axis, n), the sum's axis is contiguous,
    and a line of n of its elements comes in n steps, for each of them at one position of `axis` further.
    """

    memory: Memory
    access: Access
    places: Sequence[Mapping[str, Position]]
    cache: int
    along: tuple[str, str, int] | None = None

    def write(self, at: Mapping[str, Position]) -> None:
        """The prefetches of one step, the axes of the sums being at `at`."""
        b = self.memory.b
        b.declare("llvm.prefetch.p0", "void", "ptr", "i32", "i32", "i32")
        for place in self.places:
            if self.along is not None:
                contiguous, axis, count = self.along
                place = {**place, axis: Position(place[axis].dim + mod(at[contiguous].dim, count))}
            flat = self.memory.settle(self.access.flat, {**place, **at})
            pointer = self.memory.address(self.access, flat)
            b.line(f"call void @llvm.prefetch.p0({pointer}, i32 0, i32 {self.cache}, i32 1)")


def fetches(stage: Stage, tile: Sequence[Loop], walk_: Walk) -> Iterator[Fetch]:
    """What the `tile` of `stage` inside the loops of `walk_` fetches ahead."""
    memory = walk_.memory
    lanes_axis = next((loop.axis for loop in tile if loop.kind == "vec"), None)
    if lanes_axis is None:
        return
    for load in dict.fromkeys(node for node in walk(stage.value) if isinstance(node, Load)):
        pack = memory.packs.get(load.buffer)
        if pack is not None and pack.ahead:
            yield _panel(stage, load, lanes_axis, walk_)
        elif load.buffer in memory.fetched:
            yield from _next_tile(stage, load, tile, lanes_axis, walk_)


def _panel(stage: Stage, load: Load, lanes_axis: str, walk_: Walk) -> Fetch:
    """A share of the next panel of a constant."""
    memory = walk_.memory
    block = memory.packs[load.buffer].block
    lines = -(-block * itemsize(load.dtype) // _LINE_BYTES)
    share, each = _share(lanes_axis, walk_, lines)
    elements = _LINE_BYTES // itemsize(load.dtype)
    here = {axis.name: walk_.position(axis.name) for axis in stage.axes}
    # The last panel has none after it: a prefetch of what is no memory does nothing.
    firsts = [here[lanes_axis] + block + (share * each + i) * elements for i in range(each)]
    places = [
        {axis: Position(first if axis == lanes_axis else start) for axis, start in here.items()}
        for first in firsts
    ]
    return Fetch(memory, memory.access(load.buffer, load.index), places, _OWN_CACHE)


def _next_tile(
    stage: Stage, load: Load, tile: Sequence[Loop], lanes_axis: str, walk_: Walk
) -> Iterator[Fetch]:
    """What the next tile reads of an operand that is contiguous along a sum: line by line, for each of the
    tile's positions along the axis that is next to it in memory.
    """
    memory = walk_.memory
    access = memory.access(load.buffer, load.index)
    names = symbols_of(access.flat)
    strides = affine(access.flat, frozenset(names))
    outside = next((loop for loop in reversed(walk_.loops) if loop.axis in names), None)
    if access.indirect or strides is None or outside is None or lanes_axis in names:
        return
    elements = _LINE_BYTES // itemsize(load.dtype)
    sums = [axis.name for axis in stage.reduce if strides.get(axis.name) == 1]
    lines = {
        loop.axis: stride
        for loop in tile
        if isinstance(stride := strides.get(loop.axis), int) and stride >= elements
    }
    if not sums or not lines:
        return
    axis = min(lines, key=lambda name: lines[name])
    span = walk_.axes[axis].span
    here = {one.name: walk_.position(one.name) for one in stage.axes}
    here[outside.axis] = here[outside.axis] + outside.step
    count = -(-span // elements) if isinstance(span, int) else 1
    places = [
        {name: Position(start + i * elements if name == axis else start) for name, start in here.items()}
        for i in range(count)
    ]
    yield Fetch(memory, access, places, _FIRST_CACHE, (sums[0], axis, elements))


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

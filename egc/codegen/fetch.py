"""Fetching what comes next while something is computed.

Each tile that uses a panel of a constant fetches a share of the next one, and of an operand each tile fetches
what the next tile reads of it: a few cache lines in each step of the sums, so that they have come before they
are used, and their way from a far cache or memory costs no time of its own. What is read when the sums are
complete is fetched while they are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from msgspec import Struct
from msgspec.structs import replace

from egc.codegen.indices import affine, sym
from egc.codegen.memory import LANE, Access, Memory, Position
from egc.codegen.walk import Walk
from egc.ir.dims import Dim, floordiv, mod, symbols_of
from egc.ir.expr import Expr, Load, walk
from egc.ir.kernel import Stage
from egc.ir.nest import Loop
from egc.ir.types import itemsize

_LINE_BYTES = 64  # of every processor that code is generated for
_FIRST_CACHE, _OWN_CACHE = 3, 2  # llvm.prefetch's names for the first cache and the second one


class Along(Struct):
    """Lines along a contiguous axis of the sums, for `rows` positions of another axis: while the sums pass
    the elements of one line, the line is fetched of each row in turn, and of none twice.
    """

    contiguous: str
    axis: str
    elements: int  # of a line
    rows: int  # divides `elements`
    _first: Dim | None = None  # where the step of the code began that is being written

    def row(self, at: Mapping[str, Position]) -> Dim | None:
        """The row whose turn it is where the axes of the sums are at `at`; None where it has had it."""
        here = at[self.contiguous].dim
        each = self.elements // self.rows
        if self._first is None or not isinstance(here - self._first, int):
            self._first = here
        past = here - self._first
        assert isinstance(past, int)
        return mod(floordiv(self._first, each) + past // each, self.rows) if past % each == 0 else None


class Fetch(Struct):
    """What a tile fetches in a step of its sums: a line of an access, at each of the places that the tile's
    axes have in `places`, into a cache. With `along`, what is read along a contiguous sum is fetched instead.
    A line is left out that begins at most `reach` elements after the one written last, which `_last` keeps.
    """

    memory: Memory
    access: Access
    places: Sequence[Mapping[str, Position]]
    cache: int
    along: Along | None = None
    reach: int = 0
    _last: Dim | None = None

    def write(self, at: Mapping[str, Position]) -> None:
        """The prefetches of one step, the axes of the sums being at `at`."""
        b = self.memory.b
        b.declare("llvm.prefetch.p0", "void", "ptr", "i32", "i32", "i32")
        for place in self.places:
            if self.along is not None:
                row = self.along.row(at)
                if row is None:
                    continue
                place = {**place, self.along.axis: Position(place[self.along.axis].dim + row)}
            flat = self.memory.settle(self.access.flat, {**place, **at})
            further = flat - self._last if self._last is not None else None
            if isinstance(further, int) and 0 <= further <= self.reach:
                continue
            self._last = flat
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
            yield from _panel(stage, load, lanes_axis, walk_)
        elif load.buffer in memory.fetched:
            yield from _next_tile(stage, load, tile, lanes_axis, walk_)


def result_fetches(
    stage: Stage, result: Expr, tile: Mapping[str, Sequence[Position]], unit: int, walk_: Walk
) -> Iterator[Fetch]:
    """What `result`, which the complete sums go into, reads at the positions of a tile: the lines of each row
    one after the other while the last axis of the sums passes, of which one step of the code covers `unit`
    positions. All lines at once would keep those waiting that the sums read, and an address of its own for
    each would take multiply-adds' ports: so all rows share one offset, and most fetches ask for a line again.
    """
    memory = walk_.memory
    last = stage.reduce[-1]
    steps = floordiv(last.extent, unit)
    lanes = next((axis for axis, at in tile.items() if at and at[0].lanes > 1), None)
    if not isinstance(steps, int) or not steps or lanes is None:
        return
    width = sum(position.lanes for position in tile[lanes])
    offset = floordiv(floordiv(sym(last.name), unit) * width, steps)
    whole = {LANE: Position(0)}
    firsts = {
        axis: [Position(memory.settle(position.dim, whole)) for position in positions]
        for axis, positions in tile.items()
    }
    here = {axis.name: Position(walk_.position(axis.name)) for axis in stage.axes}
    for load in dict.fromkeys(node for node in walk(result) if isinstance(node, Load)):
        access = memory.access(load.buffer, load.index)
        if load.buffer not in memory.fetched or access.indirect:
            continue
        moving = replace(access, flat=access.flat + offset)
        for row in product(*(positions for axis, positions in firsts.items() if axis != lanes)):
            names = (axis for axis in firsts if axis != lanes)
            place = {**here, lanes: firsts[lanes][0], **dict(zip(names, row, strict=True))}
            yield Fetch(memory, moving, [place], _FIRST_CACHE)


def _panel(stage: Stage, load: Load, lanes_axis: str, walk_: Walk) -> Iterator[Fetch]:
    """A share of the next panel of a constant; or, where its sums are made in chunks, of the panel's rows of
    the next chunk, after the last of which the next panel's first ones follow in memory.

    The tiles that use one panel fetch one part of the next one each, and line after line of it: so the
    processor sees an ascending stream, and fetches ahead of that by itself. Two lines a step from far
    apart, or lines that another tile has fetched already, come at half the speed (Golden Cove: its first
    cache waits for at most 16 lines at a time, its second for 48).
    """
    memory = walk_.memory
    access = memory.access(load.buffer, load.index)
    block = memory.packs[load.buffer].block
    sums = {axis.name: walk_.axes[axis.name] for axis in stage.reduce}
    strides = affine(access.flat, frozenset(sums))
    if access.indirect or strides is None:
        return
    tiles, number = _tiles(access, walk_)
    each = -(-block // tiles)  # elements in each step, of which a row of the panel is one
    shares = -(-block // each)
    first: Dim = 0
    if shares > 1:
        steps: Dim = 1
        for axis in sums.keys() & strides.keys():
            steps = steps * sums[axis].span
        share = memory.b.binary("urem", memory.value(number), memory.b.i64(shares))
        first = memory.bind("share", share, shares) * steps * each
    flat = strides.pop("", 0) + first
    for axis, stride in strides.items():
        begin = sums[axis].start
        flat = flat + begin * stride + (sym(axis) - begin) * floordiv(stride * each, block)
    # The last panel has none after it: a prefetch of what is no memory does nothing.
    place = {axis.name: Position(walk_.position(axis.name)) for axis in stage.axes}
    chunk = next((loop for loop in reversed(walk_.loops) if loop.axis in strides), None)
    if chunk is None:
        place[lanes_axis] = Position(place[lanes_axis].dim + block)
    else:
        flat = flat + strides[chunk.axis] * chunk.step
    line = _LINE_BYTES // itemsize(load.dtype)
    for offset in range(0, each, line):
        part = replace(access, flat=flat + offset)
        yield Fetch(memory, part, [place], _OWN_CACHE, reach=max(0, line - each))


def _tiles(panels: Access, walk_: Walk) -> tuple[int, Dim]:
    """How many tiles use one panel one after another, and the number of this tile among them, or one that
    leaves the same remainder."""
    tiles = 1
    number: Dim = 0
    moving = symbols_of(panels.flat)
    seen: set[str] = set()
    for loop in reversed(walk_.loops):
        state = walk_.axes[loop.axis]
        if loop.axis in moving or not isinstance(state.extent, int):
            break
        if loop.axis not in seen:
            number = number + floordiv(state.start, loop.step) * tiles
            tiles *= -(-state.extent // loop.step)
            seen.add(loop.axis)
    return tiles, walk_.memory.settle(number, {})


def _next_tile(
    stage: Stage, load: Load, tile: Sequence[Loop], lanes_axis: str, walk_: Walk
) -> Iterator[Fetch]:
    """What the next tile reads of an operand that is contiguous along a sum: line by line, for each of the
    tile's positions along the axis that is next to it in memory, or for a few more: a power of two.
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
    rows = min(elements, 1 << (span - 1).bit_length()) if isinstance(span, int) else elements
    places = [
        {name: Position(start + i * elements if name == axis else start) for name, start in here.items()}
        for i in range(count)
    ]
    yield Fetch(memory, access, places, _FIRST_CACHE, Along(sums[0], axis, elements, rows))

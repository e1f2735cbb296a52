"""A kernel's loops and what the loop rules may try on them: the facts of the loop e-graph.

Which sizes are tried comes from the machine's cost model; which axes are tried follows from how the stage
reads memory: lanes run along an axis that is contiguous for something, tiles along axes over which
something is reused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from egc.ir.kernel import Kernel
from egc.machine import Machine
from egc.schedule.access import Access, StageModel
from egc.schedule.cells import Facts, Row

# Reductions whose result does not depend on the order of their operands, for any dtype.
_ASSOCIATIVE = frozenset({"max", "min", "and", "or"})

_WHOLE = float(1 << 60)  # bytes of a cache that is all of memory, in an integer of egglog's


def axis_name(kernel: Kernel, stage: int, axis: str) -> str:
    """What the loop e-graph calls an axis: shared axes are one axis, others belong to their stage."""
    if not kernel.shared or axis in {a.name for a in kernel.stages[stage].axes[: kernel.shared]}:
        return axis
    return f"{kernel.stages[stage].name}.{axis}"


class FactWriter:
    """Collects the facts of some stages of a kernel, which become one e-graph."""

    def __init__(self, kernel: Kernel, machine: Machine) -> None:
        self.kernel, self.machine = kernel, machine
        self.rows: dict[str, dict[Row, None]] = {}
        self.stages: list[tuple[tuple[str, int], ...]] = []

    def add(self, relation: str, *row: str | int) -> None:
        """State one row."""
        self.rows.setdefault(relation, {})[row] = None

    def facts(self) -> Facts:
        """All facts collected so far."""
        return Facts(tuple(self.stages), {name: tuple(rows) for name, rows in self.rows.items()})

    def stage(self, position: int, model: StageModel, whole: bool) -> None:
        """The facts of a stage; `whole` says that the e-graph holds this stage only."""
        name = {axis: axis_name(self.kernel, position, axis) for axis in (*model.parallel, *model.reduction)}
        shared = {axis.name for axis in self.kernel.stages[position].axes[: self.kernel.shared]}
        order = [*model.parallel, *model.reduction]
        body = str(len(self.stages))
        self.stages.append(tuple((name[axis], model.extents[axis]) for axis in order))
        for axis in order:
            self.add("extent", name[axis], model.extents[axis])
            if axis in model.reduction:
                self.add("reduction", name[axis])
            elif not model.ordered:
                self.add("parallel", name[axis])
            if axis in shared:
                self.add("shared", name[axis])
        if model.ordered:
            return
        combine = self.kernel.stages[position].combine
        if combine in _ASSOCIATIVE:
            for axis in model.reduction:
                self.add("associative", name[axis])
        lanes = self.machine.lanes(model.itemsize)
        vector = [axis for axis in vector_axes(model) if whole or axis not in shared]
        self.streams(body, model, vector)
        self.add("partial-results", self.machine.core.registers * lanes)
        reused = [
            a for a in model.parallel if a not in vector and any(not x.depends(a) for x in model.accesses)
        ]
        free = [a for a in model.parallel if (whole or a not in shared) and (a in vector or a in reused[-2:])]
        for i, first in enumerate(free):
            for second in free[i + 1 :]:
                if first in vector or second in vector:
                    self.add("before", name[first], name[second])
        for axis in vector:
            counts = self.vector_counts(model, axis, lanes)
            for count in counts:
                self.add("vectors", name[axis], lanes, count)
            self.constants(body, model, axis, [lanes * count for count in counts], whole)
        self.tiles(model, vector, {axis: name[axis] for axis in order})
        if not whole:
            for axis in (axis for axis in model.parallel if axis in shared):
                for size in self.machine.tiles.shared:
                    if 1 < size < model.extents[axis]:
                        self.add("stage-tile", axis, size)

    def streams(self, body: str, model: StageModel, vectors: Sequence[str]) -> None:
        """Which operands of a sum of products with a constant the first cache does not hold, so that they
        come from further away while used: line by line along a sum, for several positions of another axis;
        or, where the sums are complete, along the lanes. Stated beside: how often each element is used.

        What a tile reads in all its steps is taken for a register tile of a quarter as many positions as
        there are vector registers.
        """
        reading = [access for access in model.accesses if access.reduced]
        if not any(access.constant for access in reading):
            return
        for access in model.accesses:
            late = not (access.reduced or access.store or access.constant)
            late = late and all(other.buffer != access.buffer for other in reading)
            row = max((model.extents[axis] for axis in vectors if access.is_unit(axis)), default=0)
            if late and access.total > self.machine.l1_bytes and row:
                length = math.prod(model.extents[axis] for axis in model.reduction)
                self.add("completes", body, access.buffer, length, row * access.size)
        for access in reading:
            line = self.machine.line_bytes // access.size
            strides = access.stride
            summed = any(strides.get(axis) == 1 for axis in model.reduction)
            rows = [axis for axis in model.parallel if (strides.get(axis) or 0) >= line]
            if access.constant or access.total <= self.machine.l1_bytes or not (summed and rows):
                continue
            spans = {axis: model.extents[axis] for axis in model.reduction}
            nearest = min(rows, key=lambda axis: strides[axis] or 0)
            spans[nearest] = min(self.machine.core.registers // 4, model.extents[nearest])
            self.add("first-cache", int(self.machine.l1_bytes))
            uses = math.prod(model.extents.values()) / access.elements(model.extents)
            read = int(access.bytes(spans, self.machine.line_bytes))
            self.add("streams", body, access.buffer, read, int(uses))

    def vector_counts(self, model: StageModel, axis: str, lanes: int) -> list[int]:
        """How many vectors side by side are worth trying along an axis."""
        extent = model.extents[axis]
        if axis in model.reduction:
            return [1] if lanes < extent else []
        most = extent // lanes if axis not in model.static else -(-extent // lanes)
        return [
            count
            for count in self.machine.tiles.vectors
            if count <= most and (axis in model.static or count * lanes < extent)
        ]

    def constants(self, body: str, model: StageModel, axis: str, widths: Sequence[int], whole: bool) -> None:
        """Constants that may be cut into panels along an axis of the lanes: all other axes step over whole
        panels.
        """
        for access in model.accesses:
            if not (access.constant and access.reduced and access.depends(axis)):
                continue
            uses = [
                load for stage in self.kernel.stages for load in stage.loads() if load.buffer == access.buffer
            ]
            along = [i for i, dim in enumerate(access.dims) if axis in dict(dim.steps)]
            if len(uses) > 1 or len(along) > 1 or access.stride[axis] is None:
                continue
            steps = dict(access.dims[along[0]].steps)
            chunk = self.chunks(model, access) if whole else 1.0
            for width in widths:
                if steps[axis] == 1 and all(
                    step % width == 0 for name, step in steps.items() if name != axis
                ):
                    self.add("panel", body, access.buffer, along[0], width)
                    self.far(model, access, along[0], width, chunk)

    def far(self, model: StageModel, access: Access, dim: int, width: int, chunk: float) -> None:
        """How large the panels of a constant are that the first cache does not hold, and a part `chunk` of
        each.
        """
        if model.static.issuperset(model.parallel) and access.total > self.machine.l1_bytes:
            panel = access.total / access.dims[dim].extent * width
            self.add("own-cache", int(min(self.machine.levels[0].bytes, _WHOLE)))
            for part in dict.fromkeys((1.0, chunk)):
                self.add("far", access.buffer, width, math.ceil(panel * part))

    def chunks(self, model: StageModel, access: Access) -> float:
        """State how the sums over a constant may be cut into chunks, in which tiles take turns: along their
        last axis by the first length of the machine's list that divides it, along the others at every
        position. Returns the part of the sums that is one chunk.
        """
        turns = [axis for axis in model.parallel if not access.depends(axis)]
        several = math.prod(model.extents[axis] for axis in turns) > max(self.machine.tiles.unroll)
        if not (several and model.static.issuperset(model.extents)):
            return 1.0
        *outer, last = model.reduction
        extent = model.extents[last]
        length = next((n for n in self.machine.tiles.sums if extent % n == 0 and n < extent), None)
        if length is None:
            return 1.0
        self.add("chunk", last, length)
        for axis in outer:
            self.add("chunk", axis, 1)
        for axis in turns:
            self.add("turn", axis)
        return length / math.prod(model.extents[axis] for axis in model.reduction)

    def tiles(self, model: StageModel, vector: Sequence[str], name: dict[str, str]) -> None:
        """Sizes of register tiles and blocks."""
        tiles = self.machine.tiles
        # Copies of an axis pay where something is reused along it, or where lines are read along one axis
        # and written along another.
        reused = [axis for axis in model.parallel if any(not a.depends(axis) for a in model.accesses)]
        rows = [axis for axis in reused if axis not in vector]
        # Without rows memory decides, which comes faster the more it is read in order: few steps at once.
        fewest = min(tiles.reduction)
        steps = tiles.reduction if rows else (fewest,)
        for axis in model.reduction:
            extent = model.extents[axis]
            if extent <= 2 * fewest and axis in model.static:
                self.add("tile", name[axis], extent)
            elif axis == model.reduction[-1] and axis not in vector:
                # A tile of a symbolic extent's nominal size is no tile of the extent.
                for size in steps:
                    if size < extent:
                        self.add("tile", name[axis], size)
        inner = rows[-1:] if model.reduction or len(vector) < 2 else []
        inner += [axis for axis in vector if len(vector) > 1 and axis in model.parallel]
        for axis in inner:
            for size in self.tile_sizes(model, axis):
                self.add("tile", name[axis], size)
        if len(rows) > 1 and model.reduction and 2 * model.extents[rows[-1]] < max(tiles.unroll):
            for size in tiles.outer:
                if size < model.extents[rows[-2]]:
                    self.add("tile", name[rows[-2]], size)
        # Blocks pay where two operands stream from afar at once.
        far = [a for a in model.accesses if a.reduced and a.total > self.machine.levels[0].bytes]
        if len(far) > 1:
            for axis in sorted({*inner, *vector} & set(model.parallel)):
                for factor in tiles.block:
                    self.add("block", name[axis], factor)

    def tile_sizes(self, model: StageModel, axis: str) -> list[int]:
        """Copies of an axis to try: the machine's list, and sizes that divide a short axis evenly."""
        extent, sizes = model.extents[axis], self.machine.tiles.unroll
        found = {size for size in sizes if size < extent}
        if axis in model.static:
            found |= {-(-extent // parts) for parts in (1, 2, 3, 4)}
        return sorted(size for size in found if 1 < size <= max(sizes))


def vector_axes(model: StageModel) -> list[str]:
    """The axes along which lanes may run: of the parallel ones those that are contiguous for most of what
    the innermost code reads and writes; of the reductions those that are contiguous for all that it reads.
    """
    inside = (
        [access for access in model.accesses if access.reduced] if model.reduction else list(model.accesses)
    )
    found: list[str] = []
    for axis in model.reduction:
        moved = [access for access in inside if access.depends(axis)]
        if moved and all(access.stride[axis] == 1 for access in moved):
            found.append(axis)

    def contiguous(axis: str, accesses: Sequence[Access]) -> int:
        return sum(a.stride.get(axis) == 1 or (a.constant and a.is_unit(axis)) for a in accesses)

    for accesses in (inside, model.accesses):
        counts = {axis: contiguous(axis, accesses) for axis in model.parallel}
        most = max(counts.values(), default=0)
        if most:
            return [axis for axis in model.parallel if counts[axis] == most] + found
    return found

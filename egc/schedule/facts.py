"""A kernel's loops and what the loop rules may try on them: the facts of the loop e-graph.

Which sizes are tried comes from the machine's cost model; which axes are tried follows from how the stage reads memory: lanes
run along an axis that is contiguous for something, tiles along axes over which something is reused.
"""

from __future__ import annotations

from collections.abc import Sequence

from egc.ir.kernel import Kernel
from egc.machine import Machine
from egc.schedule.access import StageModel
from egc.schedule.cells import Facts, Row

# Reductions whose result does not depend on the order of their operands, for any dtype.
_ASSOCIATIVE = frozenset({"max", "min", "and", "or"})


def axis_name(kernel: Kernel, stage: int, axis: str) -> str:
    """What the loop e-graph calls an axis: shared axes are one axis, others belong to their stage."""
    if axis in {a.name for a in kernel.stages[stage].axes[: kernel.shared]}:
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
        self.add("partial-results", self.machine.core.registers * lanes)
        free = [axis for axis in model.parallel if whole or axis not in shared]
        for i, first in enumerate(free):
            for second in free[i + 1 :]:
                if first in vector or second in vector:
                    self.add("before", name[first], name[second])
        for axis in vector:
            for count in self.vector_counts(model, axis, lanes):
                self.add("vectors", name[axis], lanes, count)
            self.constants(position, model, axis, name[axis])
        self.tiles(model, vector, {axis: name[axis] for axis in order})
        if not whole:
            for axis in shared & set(model.parallel):
                for size in self.machine.tiles.shared:
                    if size < model.extents[axis]:
                        self.add("stage-tile", axis, size)

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

    def constants(self, position: int, model: StageModel, axis: str, name: str) -> None:
        """Constants that may be cut into panels along an axis of the lanes."""
        for access in model.accesses:
            if not (access.constant and access.reduced and access.depends(axis)):
                continue
            others = [a for stage in self.kernel.stages for a in stage.loads() if a.buffer == access.buffer]
            along = [i for i, dim in enumerate(access.dims) if any(step[0] == axis for step in dim.steps)]
            if len(others) == 1 and len(along) == 1 and access.dims[along[0]].steps == ((axis, 1.0),):
                self.add("constant-along", str(position), access.buffer, along[0], name)

    def tiles(self, model: StageModel, vector: Sequence[str], name: dict[str, str]) -> None:
        """Sizes of register tiles and blocks."""
        tiles = self.machine.tiles
        for axis in model.reduction:
            short = max(tiles.reduction)
            extent = model.extents[axis]
            if extent <= 2 * short and axis in model.static:
                self.add("tile", name[axis], extent)
            elif axis == model.reduction[-1] and axis not in vector:
                for size in tiles.reduction:
                    self.add("tile", name[axis], size)
        rows = [
            axis
            for axis in model.parallel
            if any(not a.depends(axis) for a in model.accesses if not a.store) or len(vector) > 1
        ]
        inner = [axis for axis in rows if axis not in vector][-1:] + [
            axis for axis in rows if axis in vector and len(vector) > 1
        ]
        for axis in inner:
            for size in self.tile_sizes(model, axis):
                self.add("tile", name[axis], size)
        outer = [axis for axis in rows if axis not in vector][-2:-1]
        if outer and model.extents[inner[0]] < max(tiles.unroll):
            for size in tiles.outer:
                if size < model.extents[outer[0]]:
                    self.add("tile", name[outer[0]], size)
        far = [access for access in model.accesses if access.total > self.machine.levels[0].bytes]
        if model.reduction and len(far) > 1:
            for axis in {*inner, *vector} & set(model.parallel):
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
    """The axes along which lanes may run: contiguous in some access, and not scattered in most of the others."""
    found: list[str] = []
    for axis in (*model.parallel, *model.reduction):
        if axis in model.reduction and any(
            access.depends(axis) and access.stride[axis] != 1 for access in model.accesses if access.reduced
        ):
            continue
        constants = any(a.constant and a.reduced and a.depends(axis) for a in model.accesses)
        if constants or any(access.stride.get(axis) == 1 for access in model.accesses):
            found.append(axis)
    return found

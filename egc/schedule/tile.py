"""What straight-line code costs: the register tile of a stage, in cycles of the core's ports.

The tile's instructions are counted from the stage's accesses and scalar functions; its time is that of the
busiest port, or of the longest chain of dependent instructions (Fog, "The microarchitecture of Intel, AMD
and VIA CPUs"; the bound by chains is latency times the links of one chain).
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from egc.machine import Machine
from egc.schedule.access import Access, StageModel, Work


class TileCost(Struct, frozen=True):
    """Cycles of one pass over a tile: `compute` and `l1` for the body, `finish_*` for what follows the
    reduction once. `partials` is the number of registers that hold partial results; `slack` the cycles in
    which a loop's own instructions find room.
    """

    compute: float
    l1: float
    finish_compute: float
    finish_l1: float
    partials: float
    slack: float


class TileModel:
    """Costs of tiles of one stage. `vector` is the axis along the lanes, None for scalar code;
    `columns_inside` says that the vectors side by side come before the copies of other axes.
    """

    def __init__(
        self,
        stage: StageModel,
        accesses: tuple[Access, ...],
        spans: Mapping[str, int],
        vector: str | None,
        lanes: int,
        columns_inside: bool,
        machine: Machine,
    ) -> None:
        self.stage, self.accesses, self.spans = stage, accesses, spans
        self.vector, self.lanes, self.columns_inside, self.machine = vector, lanes, columns_inside, machine
        self.across = vector is not None and vector in stage.reduction

    def cost(self) -> TileCost | None:
        """The cost; None where the tile does not fit the registers or is too long."""
        stage, core = self.stage, self.machine.core
        partials = self.points(stage.parallel) if stage.combine else 0.0
        steps = self.points(stage.reduction)
        looped = any(self.spans.get(axis, 1) < stage.extents[axis] for axis in stage.reduction)
        value = sum(self.work(work) for work in stage.reducing)
        combining = stage.combine * partials * steps
        reads, cycles_in = self.traffic(reduced=True)
        reads += steps * sum(access.ahead for access in self.accesses)  # at least one line is fetched in each
        moves, cycles_out = self.traffic(reduced=False)
        finishing = sum(self.work(work) for work in stage.finishing)
        if self.across:
            finishing += core.horizontal * partials
        needed = partials + self.operands() + (2 if value else 1) if stage.combine else 0
        # The code generator begins one step of an unrolled reduction before it has ended the one before.
        needed += 1 if steps > 1 and looped and not self.across else 0
        crowded = needed > core.registers - core.spare
        body = value + combining + reads
        long = body + moves + finishing > self.machine.tiles.instructions
        # What is computed for a single point has to be computed, however long it is.
        if (crowded or long) and self.points(frozenset(self.spans)) > 1:
            return None
        busy = (value + combining) / core.fma
        issue = body / core.issue
        # The partial results of one straight-line tile do not wait for those of the next one.
        chain = stage.chain * steps if looped else 0.0
        refetched = body if looped and body > core.queue else 0.0
        return TileCost(
            max(busy, issue, chain) + core.refetch * refetched,
            cycles_in,
            max(finishing / core.fma, (finishing + moves) / core.issue),
            cycles_out,
            partials,
            max(busy, chain) - issue,
        )

    def points(self, axes: tuple[str, ...] | frozenset[str]) -> float:
        """How many vectors (or scalars) the tile computes of something that depends on `axes`."""
        count = 1.0
        for axis in axes:
            span = self.spans.get(axis, 1)
            count *= -(-span // self.lanes) if axis == self.vector else span
        return count

    def work(self, work: Work) -> float:
        """Instructions of a scalar function over the tile; what does not depend on the lanes is hoisted."""
        if self.vector is not None and not self.across and self.vector not in work.axes:
            return 0.0
        return work.instructions * self.points(work.axes)

    def traffic(self, reduced: bool) -> tuple[float, float]:
        """Loads and stores of the reduction's body, or of the rest: instructions, and cycles of the ports."""
        core = self.machine.core
        loads = stores = slow = 0.0
        for access in self.accesses:
            if access.reduced != reduced:
                continue
            if self.vector is None or not access.depends(self.vector):
                # One element for all lanes; what the reduction does not need is loaded before the loops.
                if access.store or self.vector is None or access.reduced:
                    count = access.elements(self.spans)
                    stores, loads = (stores + count, loads) if access.store else (stores, loads + count)
                continue
            count = access.vector_loads(self.spans, self.vector, self.lanes)
            if access.stride[self.vector] != 1:
                slow += count * self.lanes * (core.scatter if access.store else core.gather)
            elif access.store:
                stores += count
            else:
                loads += count
                slow += self.pages(access)
        return loads + stores, max(loads / core.load, stores / core.store) + slow

    def operands(self) -> float:
        """Registers that hold operands while one step of the reduction runs over the tile: the vectors, or
        the elements for all lanes where these are fewer. Vectors that several steps of a window share stay
        over them.
        """
        reduction = self.stage.reduction
        one = {axis: span for axis, span in self.spans.items() if axis not in reduction}
        window = self.spans.get(reduction[-1], 1) if reduction else 1
        many = {**one, reduction[-1]: window} if reduction else one
        vectors = scalars = 0.0
        for access in self.accesses:
            if not access.reduced:
                continue
            if self.vector is None or not access.depends(self.vector):
                scalars += access.elements(one)
                continue
            each = access.vector_loads(one, self.vector, self.lanes)
            shared = access.vector_loads(many, self.vector, self.lanes)
            vectors += each if self.across or shared >= each * window else shared
        if not scalars or not vectors:
            return vectors
        return vectors if self.columns_inside else scalars

    def pages(self, access: Access) -> float:
        """Cycles of address translation where steps of the innermost reduction land on another page."""
        if not (access.reduced and self.stage.reduction):
            return 0.0
        axis = self.stage.reduction[-1]
        stride = access.stride.get(axis)
        if stride is None:
            return 0.0
        crossing = min(1.0, stride * access.size / self.machine.page_bytes)
        return self.machine.core.translate * crossing * self.spans.get(axis, 1)

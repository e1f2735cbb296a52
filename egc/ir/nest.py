"""Loop nests: a kernel and the order in which it runs. The same form serves CPU and GPU.

    nest  ::= kernel, pack*, fetch*, shared loops, then for every stage its own loops, outermost first
    loop  ::= "for" AXIS "step" STEP KIND
    pack  ::= "pack" BUFFER "dim" D "by" BLOCK ["ahead"]
    fetch ::= "fetch" BUFFER

A loop walks its axis from the position that the enclosing loops over that axis give, in steps of ``step``, up
to the step of the nearest enclosing loop over the same axis (to the axis' extent where there is none). So
splitting an axis by 16 is two loops, `step 16` outside `step 1`; the product over the loops of an axis covers
it exactly once. Where a step does not divide, the last iteration is cut off at the extent.

Kinds:

    par      iterations are shared among the threads; only outermost loops, several par loops form one index
             space
    seq      one after another
    unroll   copies in straight-line code; inside the outermost reduction loop these span the register tile
    vec      one vector instruction per iteration set: step 1, innermost, at most one per stage
    block    GPU: one iteration a block of threads; only outermost loops
    thread   GPU: one iteration a thread of the block; outside the loops over reduction axes

Inside a loop over a reduction axis, loops over parallel axes are ``unroll`` or ``vec``: the partial results
of that register tile are held in registers across the whole reduction. A ``seq`` loop over a reduction axis
may also have ``seq`` loops over parallel axes inside: then it is a chunk loop, in which whole tiles take
turns. Each tile adds a part of its sums in its turn, and they wait in memory until the next one. The step of
a chunk loop divides the extent, and all extents are known when compiling. A ``vec`` loop over a reduction
axis keeps one partial result per lane and combines the lanes at the end; a ``thread`` loop over a reduction
axis does the same with the threads of a block: it has step 1, is innermost, and then no other loop of the
stage is a ``thread`` loop.

``pack`` gives a constant parameter a physical layout other than row-major: dim D is cut into blocks of BLOCK
elements (zero-filled at the end);
the block index becomes the outermost dim and the position in the block the innermost one. With ``ahead`` the
next block is fetched into the core's own cache while one is in use; values do not change.

``fetch`` says of an operand that each register tile of a reduction fetches what the next one reads of it; or,
if it is read where the sums are complete, what this one reads of it, while they are made.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from egc.ir.dims import Dim, ceildiv, dim_min
from egc.ir.kernel import Kernel, Stage, print_kernel

KINDS = ("par", "seq", "unroll", "vec", "block", "thread")


class Loop(Struct, frozen=True):
    """One loop over an axis."""

    axis: str
    step: int
    kind: str

    def __str__(self) -> str:
        return f"for {self.axis} step {self.step} {self.kind}"


class Pack(Struct, frozen=True):
    """The physical layout of a constant parameter: dim ``dim`` in panels of ``block`` elements, the next of
    which is fetched while one is in use if ``ahead``.
    """

    buffer: str
    dim: int
    block: int
    ahead: bool = False

    def __str__(self) -> str:
        return f"pack {self.buffer} dim {self.dim} by {self.block}{' ahead' if self.ahead else ''}"

    def physical_shape(self, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """The extents in memory of a buffer of logical ``shape``."""
        rest = tuple(d for i, d in enumerate(shape) if i != self.dim)
        return (ceildiv(shape[self.dim], self.block), *rest, self.block)


class Nest(Struct, frozen=True):
    """A scheduled kernel. ``stages`` has the loops of each stage, inside ``shared``,
    which run over shared axes; ``fetched`` the operands that are fetched ahead.
    """

    kernel: Kernel
    stages: tuple[tuple[Loop, ...], ...]
    shared: tuple[Loop, ...] = ()
    packs: tuple[Pack, ...] = ()
    fetched: tuple[str, ...] = ()

    def loops(self, stage: int) -> tuple[Loop, ...]:
        """All loops round a stage's body, shared ones first."""
        return (*self.shared, *self.stages[stage])

    def chunks(self, stage: int) -> tuple[Loop, ...]:
        """The loops over reduction axes of a stage inside which whole tiles take turns."""
        loops = self.loops(stage)
        reductions = {axis.name for axis in self.kernel.stages[stage].reduce}
        turns = [i for i, loop in enumerate(loops) if loop.kind == "seq" and loop.axis not in reductions]
        last = turns[-1] if turns else 0
        return tuple(loop for loop in loops[:last] if loop.axis in reductions)

    def trips(self, stage: int) -> tuple[Dim, ...]:
        """The greatest trip count of every loop round a stage."""
        remaining = {axis.name: axis.extent for axis in self.kernel.stages[stage].all_axes}
        out: list[Dim] = []
        for loop in self.loops(stage):
            out.append(ceildiv(remaining[loop.axis], loop.step))
            remaining[loop.axis] = dim_min(loop.step, remaining[loop.axis]) if loop.step > 1 else 1
        return tuple(out)

    def __str__(self) -> str:
        return "\n".join(print_nest(self))


class NestError(ValueError):
    """A nest that breaks a rule of the form; the text says which."""


def check_nest(nest: Nest) -> None:
    """Verify the rules in this module's head; NestError names the first that is broken."""
    for i, stage in enumerate(nest.kernel.stages):
        loops = nest.loops(i)
        extents = {axis.name: axis.extent for axis in stage.all_axes}
        reductions = {axis.name for axis in stage.reduce}
        step: dict[str, int] = {}
        chunks = nest.chunks(i)
        if chunks and (why := _no_chunks(stage, loops, chunks)):
            raise NestError(f"stage {stage.name}, {chunks[0]}: {why}")
        in_reduction = past_par = False
        for position, loop in enumerate(loops):
            where = f"stage {stage.name}, {loop}"
            if loop.axis not in extents:
                raise NestError(f"{where}: the stage has no such axis")
            if loop.kind not in KINDS or loop.step < 1:
                raise NestError(f"{where}: not a loop")
            if loop.axis in step and (step[loop.axis] % loop.step or step[loop.axis] == loop.step):
                raise NestError(f"{where}: the step does not divide the enclosing step {step[loop.axis]}")
            step[loop.axis] = loop.step
            if loop.kind in ("par", "block"):
                if past_par or loop.axis in reductions:
                    raise NestError(f"{where}: parallel loops are outermost and not over reductions")
            else:
                past_par = True
            if loop.kind == "thread" and loop.axis in reductions:
                if position != len(loops) - 1 or loop.step != 1:
                    raise NestError(f"{where}: a thread loop over a reduction is innermost and has step 1")
                if any(other.kind == "thread" for other in loops[:position]):
                    raise NestError(f"{where}: the threads have another loop already")
            if loop.kind == "vec" and (position != len(loops) - 1 or loop.step != 1):
                raise NestError(f"{where}: vec is innermost and has step 1")
            if in_reduction and loop.axis not in reductions and loop.kind not in ("seq", "unroll", "vec"):
                raise NestError(
                    f"{where}: inside a reduction only seq, unroll and vec run over parallel axes"
                )
            in_reduction |= loop.axis in reductions
        for name, extent in extents.items():
            if step.get(name, 0) != 1 and extent != 1:
                raise NestError(f"stage {stage.name}: the loops do not reach every element of axis {name}")


def _no_chunks(stage: Stage, loops: tuple[Loop, ...], chunks: tuple[Loop, ...]) -> str | None:
    """Why the sums of a stage cannot wait in memory between `chunks`; None where they can."""
    extents = {axis.name: axis.extent for axis in stage.all_axes}
    if stage.ordered or stage.mode != "set":
        return "what is computed in order is not computed in turns"
    if any(loop.kind in ("block", "thread") for loop in loops):
        return "the sums of a GPU's threads stay in their registers"
    if any(loop.kind == "vec" and loop.axis in {a.name for a in stage.reduce} for loop in loops):
        return "the partial results of lanes do not wait for other tiles"
    for loop in chunks:
        extent = extents[loop.axis]
        if loop.kind != "seq":
            return "only seq loops have tiles that take turns inside"
        if not isinstance(extent, int) or extent % loop.step:
            return (
                f"steps of {loop.step} do not divide the extent {extent}, as they must where tiles take turns"
            )
    if not all(isinstance(extent, int) for extent in extents.values()):
        return "tiles take turns only where all extents are known when compiling"
    return None


def print_nest(nest: Nest) -> Iterator[str]:
    """The lines of a nest's text form: the kernel, then packs and loops."""
    yield from print_kernel(nest.kernel)
    for pack in nest.packs:
        yield str(pack)
    for buffer in nest.fetched:
        yield f"fetch {buffer}"
    for depth, loop in enumerate(nest.shared):
        yield "  " * depth + str(loop)
    base = len(nest.shared)
    for stage, loops in zip(nest.kernel.stages, nest.stages, strict=True):
        for depth, loop in enumerate(loops):
            yield "  " * (base + depth) + str(loop)
        yield "  " * (base + len(loops)) + f"do {stage.name}"

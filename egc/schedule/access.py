"""What a stage reads, writes and computes, as the cost model sees it: index arithmetic turned into numbers.

An access knows, for every dim of its buffer, how far each axis moves it; so the number of distinct elements
that a tile of the iteration space touches is a product of ranges. Symbolic extents count for the machine's
`symbolic_extent`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from egc.ir.dims import Dim, SymDim, evaluate, symbols_of
from egc.ir.expr import Acc, Call, Cast, Expr, Load, children, index_symbols, is_indirect, walk
from egc.ir.kernel import Buffer, Kernel, Stage
from egc.ir.scalar import FUNCTIONS
from egc.ir.types import itemsize
from egc.machine import Machine

Spans = Mapping[str, int]  # positions of every axis inside a tile; 1 where the axis is missing


class DimAccess(Struct, frozen=True):
    """One dim of an accessed buffer in memory: `steps` says how far an axis moves along it. A dim cut into
    panels is two: the panel number (`divisor`) and the position in the panel, of which `extent` is the
    width.
    """

    extent: int
    steps: tuple[tuple[str, float], ...]
    divisor: int = 1

    def touched(self, spans: Spans) -> float:
        """How many positions of the dim a tile touches, at most."""
        reach = 1.0
        for axis, step in self.steps:
            reach += step * (spans.get(axis, 1) - 1)
        if self.divisor > 1:
            reach = -(-reach // self.divisor)
        return min(reach, self.extent)


class Access(Struct, frozen=True):
    """One load or store: `dims` in memory order; `stride` elements between neighbours along an axis (None
    where the index is not affine in it); `size` the bytes of an element; `total` the bytes of the buffer.
    """

    buffer: str
    dims: tuple[DimAccess, ...]
    stride: Mapping[str, int | None]
    size: int
    total: int
    constant: bool
    store: bool = False
    guarded: bool = False
    reduced: bool = False  # read while reducing
    ahead: bool = False  # in panels, of which the next one is fetched ahead

    def depends(self, axis: str) -> bool:
        """Whether the address changes along `axis`."""
        return axis in self.stride

    def is_unit(self, axis: str) -> bool:
        """Whether neighbours along `axis` are neighbours in some dim."""
        return any(step == (axis, 1.0) for dim in self.dims for step in dim.steps)

    def elements(self, spans: Spans) -> float:
        """How many distinct elements a tile touches, at most."""
        count = 1.0
        for dim in self.dims:
            count *= dim.touched(spans)
        points = 1
        for axis in self.stride:
            points *= spans.get(axis, 1)
        return min(count, points)

    def run(self, spans: Spans) -> float:
        """How many elements that a tile touches follow one another in memory."""
        run = 1.0
        for dim in reversed(self.dims):
            reach = dim.touched(spans)
            run *= reach
            if reach < dim.extent:
                break
        return max(1.0, min(run, self.elements(spans)))

    def bytes(self, spans: Spans, line: int) -> float:
        """How many bytes of whole cache lines a tile touches, at most."""
        count, run = self.elements(spans), self.run(spans)
        run_bytes = run * self.size
        # A run of bytes begins anywhere in a line, unless it is all there is.
        lines = run_bytes if count * self.size >= self.total else max(run_bytes, line)
        return min(count / run * lines, max(self.total, 1))

    def vector_loads(self, spans: Spans, axis: str, lanes: int) -> float:
        """How many vectors of `lanes` positions of `axis` a tile loads."""
        inner = dict(spans)
        whole = spans.get(axis, 1)
        inner[axis] = -(-whole // lanes)
        count = 1.0
        for dim in self.dims:
            reach = 1.0
            for name, step in dim.steps:
                reach += (step * lanes if name == axis else step) * (inner.get(name, 1) - 1)
            count *= min(reach, dim.extent) if dim.divisor == 1 else 1.0
        points = 1
        for name in self.stride:
            points *= inner.get(name, 1)
        return min(max(count, 1.0), points) if self.dims else 1.0

    def packed(self, dim: int, width: int) -> Access:
        """The access to the buffer cut into panels of `width` positions of `dim` (egc.ir.nest.Pack)."""
        own = self.dims[dim]
        panels = DimAccess(-(-own.extent // width), own.steps, width)
        inner = DimAccess(width, tuple((axis, step) for axis, step in own.steps if step % width))
        rest = tuple(d for i, d in enumerate(self.dims) if i != dim)
        total = self.size * panels.extent * width
        below = width
        for d in rest:
            total *= d.extent
            below *= d.extent
        stride: dict[str, int | None] = dict(_strides((*rest, inner)))
        for axis, step in own.steps:
            if step % width == 0:
                stride[axis] = (stride.get(axis) or 0) + round(step / width) * below
        return replace(self, dims=(panels, *rest, inner), stride=stride, total=total)


class Work(Struct, frozen=True):
    """Vector instructions for one point: `axes` is what the value depends on, so that it is computed once
    for all else.
    """

    axes: frozenset[str]
    instructions: float


class StageModel(Struct, frozen=True):
    """A stage as numbers. `fused` says that the value's multiplication is part of the combining
    multiply-add.
    """

    name: str
    extents: Mapping[str, int]
    static: frozenset[str]
    parallel: tuple[str, ...]
    reduction: tuple[str, ...]
    accesses: tuple[Access, ...]
    reducing: tuple[Work, ...]
    finishing: tuple[Work, ...]
    combine: float
    fused: bool
    chain: float
    itemsize: int
    ordered: bool


def model_stage(kernel: Kernel, stage: Stage, machine: Machine) -> StageModel:
    """The numbers of one stage."""
    nominal = Nominal(machine.symbolic_extent, {a.name: a.extent for a in stage.all_axes})
    extents = {axis.name: nominal.value(axis.extent) for axis in stage.all_axes}
    used = {axis.name for axis in stage.all_axes if axis.extent != 1}
    parallel = {axis.name for axis in stage.axes} & used
    reducing = tuple(_work(stage.value, used, machine)) if stage.combine else ()
    untouched = bool(stage.combine) and stage.result == Acc(stage.value.dtype)
    finishing = () if untouched else tuple(_work(stage.result, parallel, machine))
    accesses: dict[tuple[object, ...], Access] = {}
    for load, reduced in _loads(stage):
        access = replace(
            _access(kernel.buffer[load.buffer], load.index, used, nominal),
            guarded=bool(load.guards),
            reduced=reduced and bool(stage.combine),
        )
        accesses.setdefault((access.buffer, access.dims, access.reduced), access)
    store = replace(_access(kernel.buffer[stage.out], stage.index, used, nominal), store=True)
    fused = bool(stage.combine == "add" and isinstance(stage.value, Call) and stage.value.fn == "mul")
    combine = instructions(stage.combine, machine) if stage.combine else 0.0
    return StageModel(
        name=stage.name,
        extents=extents,
        static=frozenset(a.name for a in stage.all_axes if isinstance(a.extent, int)),
        parallel=tuple(a.name for a in stage.axes if a.name in used),
        reduction=tuple(a.name for a in stage.reduce if a.name in used),
        accesses=(*accesses.values(), store),
        reducing=_without_product(reducing) if fused else reducing,
        finishing=finishing,
        combine=combine,
        fused=fused,
        chain=machine.core.latency * combine,
        itemsize=_widest(kernel, stage),
        ordered=stage.ordered or stage.mode != "set",
    )


def instructions(fn: str, machine: Machine) -> float:
    """Vector instructions of a scalar function on a machine."""
    return float(machine.instructions.get(fn, FUNCTIONS[fn].flops))


class Nominal(Mapping[str, int]):
    """Numbers for names: axes stand at 0, symbolic dims at the machine's nominal extent."""

    def __init__(self, extent: int, axes: Mapping[str, Dim]) -> None:
        self.extent = extent
        self.axes = dict.fromkeys(axes, 0)

    def value(self, dim: Dim) -> int:
        """The nominal value of an extent; an empty axis counts as one position."""
        return max(1, dim if isinstance(dim, int) else evaluate(dim, self))

    def at(self, dim: Dim, axis: str, position: int) -> int:
        """The value of an index where `axis` is at `position` and the other axes are at 0."""
        saved, self.axes[axis] = self.axes[axis], position
        found = dim if isinstance(dim, int) else evaluate(dim, self)
        self.axes[axis] = saved
        return found

    def __getitem__(self, key: str) -> int:
        return self.axes.get(key, self.extent)

    def __contains__(self, key: object) -> bool:
        return True

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.axes)

    def __len__(self) -> int:
        return len(self.axes)


def _loads(stage: Stage) -> list[tuple[Load, bool]]:
    found = [(node, True) for node in walk(stage.value) if isinstance(node, Load)] if stage.combine else []
    found += [(node, False) for node in walk(stage.result) if isinstance(node, Load)]
    for index in stage.index:
        if is_indirect(index):
            found += [(node, False) for node in walk(index) if isinstance(node, Load)]  # type: ignore[arg-type]
    return list(dict.fromkeys(found))


def _access(buffer: Buffer, index: tuple[object, ...], axes: set[str], nominal: Nominal) -> Access:
    dims: list[DimAccess] = []
    irregular: set[str] = set()
    for extent_dim, position in zip(buffer.type.shape, index, strict=True):
        extent = max(1, nominal.value(extent_dim))
        if not isinstance(position, int | SymDim):
            names = sorted(index_symbols(position) & axes)  # type: ignore[arg-type]
            irregular |= set(names)
            dims.append(DimAccess(extent, tuple((name, float(extent)) for name in names)))
            continue
        steps, bent = _steps(position, axes, nominal)
        irregular |= bent
        dims.append(DimAccess(extent, steps))
    strides = _strides(tuple(dims))
    size = itemsize(buffer.type.dtype)
    total = size
    for dim in dims:
        total *= dim.extent
    return Access(
        buffer.name,
        tuple(dims),
        {axis: None if axis in irregular else stride for axis, stride in strides.items()},
        size,
        total,
        buffer.constant,
    )


def _steps(dim: Dim, axes: set[str], nominal: Nominal) -> tuple[tuple[tuple[str, float], ...], set[str]]:
    """How far each axis moves an index, and the axes in which it is not affine."""
    if isinstance(dim, int):
        return (), set()
    steps: list[tuple[str, float]] = []
    bent: set[str] = set()
    inside = {
        name
        for monomial, _ in dim.terms
        for atom in monomial
        if not isinstance(atom, str)
        for arg in atom.args
        for name in symbols_of(arg)
    }
    for axis in sorted(symbols_of(dim) & axes):
        far = 1 if axis not in inside else 16
        moved = abs(nominal.at(dim, axis, far) - nominal.at(dim, axis, 0)) / far
        if axis in inside:
            bent.add(axis)
        steps.append((axis, moved))
    return tuple(steps), bent


def _strides(dims: tuple[DimAccess, ...]) -> dict[str, int]:
    strides: dict[str, float] = {}
    below = 1
    for dim in reversed(dims):
        for axis, step in dim.steps:
            strides[axis] = strides.get(axis, 0.0) + step * below
        below *= dim.extent
    return {axis: round(stride) for axis, stride in strides.items()}


def _work(expr: Expr, axes: set[str], machine: Machine) -> list[Work]:
    """The distinct function calls of an expression."""
    found: list[Work] = []
    for node in dict.fromkeys(walk(expr)):
        match node:
            case Call(fn=fn):
                found.append(Work(_axes(node, axes), instructions(fn, machine)))
            case Cast():
                found.append(Work(_axes(node, axes), 2.0))
            case Load(guards=guards) if guards:
                found.append(Work(_axes(node, axes), float(len(guards))))
    return found


def _axes(expr: Expr, axes: set[str]) -> frozenset[str]:
    # The finished reduction depends on every parallel axis.
    if any(isinstance(node, Acc) for node in walk(expr)):
        return frozenset(axes)
    return frozenset(index_symbols(expr) & axes)


def _without_product(work: tuple[Work, ...]) -> tuple[Work, ...]:
    """The value's outermost product comes first in a walk; the multiply-add has it."""
    return work[1:]


def _widest(kernel: Kernel, stage: Stage) -> int:
    """The bytes of the widest element that the stage computes with; 16-bit floats are computed as float32."""
    sizes = [itemsize(kernel.buffer[stage.out].type.dtype)]
    waiting: list[Expr] = [stage.value, stage.result]
    while waiting:
        node = waiting.pop()
        sizes.append(4 if node.dtype in ("float16", "bfloat16") else itemsize(node.dtype))
        if not isinstance(node, Load):  # indices are computed beside the lanes
            waiting += children(node)
    return max(sizes)

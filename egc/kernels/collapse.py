"""Merging of axes that every access walks as one, so that schedules see few long axes.

Axes a (outside) and b (inside, extent B) are one axis of extent A*B when in every access of every stage,
row-major addresses are ``... + (a*B + b)*c``. The buffers' dims that hold a and b are merged too: the same
bytes under fewer dims. So the pixels of a 1x1 convolution become one axis, as do the taps and channels of a
row of a channels-last window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from egc.ir.dims import Dim, SymDim, product, symbol, symbols_of
from egc.ir.expr import Expr, Index, IndexExpr, Load, substitute_indices, transform, walk
from egc.ir.kernel import Axis, Buffer, Stage
from egc.ir.types import TensorType
from egc.kernels.domain import substitute_index
from egc.kernels.indices import Vector

Places: TypeAlias = "Mapping[str, Sequence[int]]"  # the stages that access a buffer

_MANY = 8  # beyond that many axes, merging only neighbours keeps compile time in bounds


class Merged(Struct, frozen=True):
    """Stages, the shape under which each buffer is accessed, local buffers, and the names of shared axes."""

    stages: tuple[Stage, ...]
    types: Mapping[str, TensorType]
    locals: tuple[Buffer, ...]
    shared: tuple[str, ...]


def collapse(
    stages: tuple[Stage, ...],
    locals_: tuple[Buffer, ...],
    types: Mapping[str, TensorType],
    shared: tuple[str, ...],
) -> Merged:
    """The stages with as few axes as their accesses allow, and buffers of matching shapes."""
    used = {stage.out for stage in stages} | {load.buffer for s in stages for load in s.loads()}
    known = {name: types[name] for name in used if name in types}
    known.update((buffer.name, buffer.type) for buffer in locals_)
    state = Merged(stages, known, locals_, shared)
    accessed = _stages_by_buffer(state)
    changed = True
    while changed:
        changed = False
        # Stage after stage: what is merged in one of many seldom lets an earlier one merge more.
        for i in range(len(stages)):
            while (merged := _merge_once(state, accessed, i)) is not None:
                state, changed = merged, len(stages) > 1
    state = _squeeze(state, accessed)
    final = tuple(replace(buffer, type=state.types[buffer.name]) for buffer in locals_)
    return replace(state, locals=final)


def _merge_once(state: Merged, accessed: Places, i: int) -> Merged | None:
    """The stages with two axes of stage ``i`` as one; None where no two may be."""
    for a, b in _candidates(state, i):
        where = range(len(state.stages)) if a.name in state.shared else (i,)
        if merged := _merge(state, accessed, tuple(where), a, b):
            return merged
    return None


def _candidates(state: Merged, i: int) -> Iterator[tuple[Axis, Axis]]:
    """(outer, inner) of axes of stage ``i`` that may be one: both shared, both parallel or both reduced."""
    stage = state.stages[i]
    common = tuple(axis for axis in stage.axes if axis.name in state.shared) if i == 0 else ()
    own = tuple(axis for axis in stage.axes if axis.name not in state.shared)
    for axes in (common, own, stage.reduce):
        for j, a in enumerate(axes):
            for k, b in enumerate(axes):
                if j != k and (len(axes) <= _MANY or k == j + 1):
                    yield a, b


class _Access(Struct, frozen=True):
    """One access to a buffer: its index vector."""

    buffer: str
    index: tuple[IndexExpr, ...]


def _accesses(stage: Stage) -> list[_Access]:
    found = [_Access(stage.out, stage.index)]
    return found + [_Access(load.buffer, load.index) for load in stage.loads()]


def _merge(state: Merged, accessed: Places, where: tuple[int, ...], a: Axis, b: Axis) -> Merged | None:
    spans: dict[str, tuple[int, int]] = {}
    for i in where:
        stage = state.stages[i]
        if _meets_alone(stage, a.name, b.name):
            return None
        for access in _accesses(stage):
            span = _span(access, state.types[access.buffer].shape, a, b)
            if span is None:
                return None
            if span:
                low, high = spans.get(access.buffer, span)
                spans[access.buffer] = (min(low, span[0]), max(high, span[1]))
    spans = {name: span for name, span in spans.items() if span[0] != span[1]}
    if not all(_may_flatten(state, accessed[name], name, span) for name, span in spans.items()):
        return None
    types = dict(state.types)
    stages = list(state.stages)
    for name, (low, high) in spans.items():
        shape = types[name].shape
        types[name] = TensorType(
            types[name].dtype, (*shape[:low], product(shape[low : high + 1]), *shape[high + 1 :])
        )
        for i in accessed[name]:
            stages[i] = _flatten(stages[i], name, low, high, shape)
    for i in where:
        stages[i] = _rename(stages[i], a, b)
    shared = tuple(name for name in state.shared if name != b.name)
    return replace(state, stages=tuple(stages), types=types, shared=shared)


def _span(access: _Access, shape: tuple[Dim, ...], a: Axis, b: Axis) -> tuple[int, int] | tuple[()] | None:
    """The first and last dim with a or b; () for neither, None where they do not walk as one axis."""
    at = [d for d, i in enumerate(access.index) if isinstance(i, SymDim) and symbols_of(i) & {a.name, b.name}]
    if not at:
        return ()
    low, high = at[0], at[-1]
    steps: list[Dim] = [0, 0]
    stride: Dim = 1
    for d in range(high, low - 1, -1):
        index = access.index[d]
        if not isinstance(index, int | SymDim):
            return None
        for i, axis in enumerate((a, b)):
            step = _coefficient(index, axis.name)
            if step is None:
                return None
            steps[i] = steps[i] + step * stride
        stride = stride * shape[d]
    return (low, high) if steps[0] == steps[1] * b.extent else None


def _coefficient(dim: Dim, name: str) -> Dim | None:
    """What ``dim`` gains when the axis ``name`` grows by one; None where that is not the same everywhere."""
    step: Dim = 0
    for monomial, coefficient in dim.terms if isinstance(dim, SymDim) else ():
        rest = [atom for atom in monomial if atom != name]
        if any(not isinstance(atom, str) and name in symbols_of(SymDim((((atom,), 1),))) for atom in rest):
            return None
        if len(monomial) - len(rest) > 1:
            return None
        if len(rest) < len(monomial):
            step = step + (SymDim(((tuple(rest), coefficient),)) if rest else coefficient)
    return step


def _meets_alone(stage: Stage, a: str, b: str) -> bool:
    """Whether a or b occurs in a guard, an extent, as a value, or in an index that depends on data."""
    names = {a, b}
    if any(symbols_of(axis.extent) & names for axis in stage.all_axes):
        return True
    for root in (stage.value, stage.result, *(i for i in stage.index if not isinstance(i, int | SymDim))):
        for node in walk(root):
            if isinstance(node, Index) and symbols_of(node.dim) & names:
                return True
            guards = node.guards if isinstance(node, Load) else ()
            if any((symbols_of(d) | symbols_of(e)) & names for d, e in guards):
                return True
    return False


def _may_flatten(state: Merged, places: Sequence[int], name: str, span: tuple[int, int]) -> bool:
    """Whether dims of a buffer may become one: none is indexed by data, locals keep shared dims apart."""
    local = any(buffer.name == name for buffer in state.locals)
    kinds: set[bool] = set()
    for stage in (state.stages[i] for i in places):
        for access in _accesses(stage):
            if access.buffer != name:
                continue
            for index in access.index[span[0] : span[1] + 1]:
                if not isinstance(index, int | SymDim):
                    return False
                if names := symbols_of(index) & {axis.name for axis in stage.all_axes}:
                    kinds |= {n in state.shared for n in names}
    return not (local and len(kinds) > 1)


def _flatten(stage: Stage, name: str, low: int, high: int, shape: tuple[Dim, ...]) -> Stage:
    def index(old: tuple[IndexExpr, ...]) -> tuple[IndexExpr, ...]:
        flat: Dim = 0
        for d in range(low, high + 1):
            part = old[d]
            assert isinstance(part, int | SymDim)
            flat = flat * shape[d] + part
        return (*old[:low], flat, *old[high + 1 :])

    return reindexed(stage, name, index)


def reindexed(stage: Stage, name: str, change: Callable[[Vector], Vector]) -> Stage:
    """The stage with the index vector of every access to the buffer ``name`` changed."""

    def rewrite(node: Expr) -> Expr:
        if isinstance(node, Load) and node.buffer == name:
            return replace(node, index=change(node.index))
        return node

    value = transform(stage.value, rewrite)
    result = value if stage.result is stage.value else transform(stage.result, rewrite)
    index = tuple(i if isinstance(i, int | SymDim) else transform(i, rewrite) for i in stage.index)
    return replace(stage, value=value, result=result, index=change(index) if stage.out == name else index)


def _rename(stage: Stage, a: Axis, b: Axis) -> Stage:
    """The stage over one axis named as ``a``, with ``a`` at 0 and ``b`` at the new axis in every index."""
    env: dict[str, Dim] = {a.name: 0, b.name: symbol(a.name)}

    def axes(old: tuple[Axis, ...]) -> tuple[Axis, ...]:
        merged = Axis(a.name, a.extent * b.extent)
        return tuple(merged if axis.name == a.name else axis for axis in old if axis.name != b.name)

    value = substitute_indices(stage.value, env)
    return replace(
        stage,
        axes=axes(stage.axes),
        reduce=axes(stage.reduce),
        value=value,
        result=value if stage.result is stage.value else substitute_indices(stage.result, env),
        index=tuple(substitute_index(i, env) for i in stage.index),
    )


def _squeeze(state: Merged, accessed: Places) -> Merged:
    """Buffers without the dims of extent 1 (whose index is 0 in every access)."""
    types = dict(state.types)
    stages = list(state.stages)
    for name, type_ in state.types.items():
        kept = [d for d, extent in enumerate(type_.shape) if extent != 1]
        if len(kept) == type_.rank:
            continue
        types[name] = TensorType(type_.dtype, tuple(type_.shape[d] for d in kept))
        for i in accessed.get(name, ()):
            stages[i] = reindexed(stages[i], name, picked(kept))
    return replace(state, stages=tuple(stages), types=types)


def _stages_by_buffer(state: Merged) -> Places:
    """The places of the stages that read or write each buffer: of a wide concatenation's many, one each."""
    found: dict[str, dict[int, None]] = {}
    for i, stage in enumerate(state.stages):
        for access in _accesses(stage):
            found.setdefault(access.buffer, {})[i] = None
    return {name: tuple(places) for name, places in found.items()}


def picked(dims: Sequence[int]) -> Callable[[Vector], Vector]:
    """The change of an index vector to its elements ``dims``, in that order."""
    return lambda old: tuple(old[d] for d in dims)

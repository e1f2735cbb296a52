"""One spelling for kernels that are the same up to names, so that each is scheduled and compiled once."""

from __future__ import annotations

import hashlib

from msgspec import Struct
from msgspec.structs import replace

from egc.ir.dims import SymDim, symbol, symbols_of
from egc.ir.expr import Expr, Load, substitute_indices, transform
from egc.ir.kernel import Axis, Buffer, Kernel, Stage
from egc.kernels.collapse import Merged
from egc.kernels.domain import stage_dims, substitute_index


class Lowered(Struct, frozen=True):
    """A kernel, and the values that its parameters stand for, in order."""

    kernel: Kernel
    args: tuple[str, ...]


def kernel_key(kernel: Kernel) -> str:
    """A hash that two kernels share exactly when they are the same but for the kernel's name."""
    text = str(replace(kernel, name="kernel"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def canonical(name: str, merged: Merged, constants: frozenset[str]) -> Lowered:
    """The kernel of ``merged`` with buffers and axes numbered by first use: inputs x, outputs y, locals t."""
    local = {buffer.name for buffer in merged.locals}
    written = list(dict.fromkeys(stage.out for stage in merged.stages if stage.out not in local))
    read: dict[str, None] = {}
    for stage in merged.stages:
        read.update((load.buffer, None) for load in stage.loads())
    inputs = [value for value in read if value not in local and value not in written]
    names = {value: f"x{i}" for i, value in enumerate(inputs)}
    names |= {value: f"y{i}" for i, value in enumerate(written)}
    names |= {buffer.name: f"t{i}" for i, buffer in enumerate(merged.locals)}
    buffers = [Buffer(names[v], merged.types[v], "in", v in constants) for v in inputs]
    buffers += [Buffer(names[v], merged.types[v], "out") for v in written]
    buffers += [Buffer(names[b.name], b.type, "local") for b in merged.locals]
    taken = frozenset().union(*(type_.symbols for type_ in merged.types.values()))
    stages = tuple(_renamed(stage, names, merged.shared, taken) for stage in merged.stages)
    kernel = Kernel(name, tuple(buffers), stages, len(merged.shared))
    return Lowered(kernel, (*inputs, *written))


def _renamed(stage: Stage, names: dict[str, str], shared: tuple[str, ...], taken: frozenset[str]) -> Stage:
    letters = _letters(taken | _free_symbols(stage))
    order = [axis.name for axis in stage.axes]
    # Shared axes come first in every stage, in one order.
    order.sort(key=lambda axis: shared.index(axis) if axis in shared else len(shared))
    new = {axis: f"{letters[0]}{i}" for i, axis in enumerate(order)}
    new |= {axis.name: f"{letters[1]}{i}" for i, axis in enumerate(stage.reduce)}
    env = {old: symbol(fresh) for old, fresh in new.items()}

    def rewrite(node: Expr) -> Expr:
        return replace(node, buffer=names[node.buffer]) if isinstance(node, Load) else node

    value = transform(substitute_indices(stage.value, env), rewrite)
    same = stage.result is stage.value or stage.result == stage.value
    extents = {axis.name: axis.extent for axis in stage.all_axes}
    index = tuple(substitute_index(i, env) for i in stage.index)
    return replace(
        stage,
        axes=tuple(Axis(new[axis], extents[axis]) for axis in order),
        reduce=tuple(Axis(new[axis.name], axis.extent) for axis in stage.reduce),
        out=names[stage.out],
        index=tuple(i if isinstance(i, int | SymDim) else transform(i, rewrite) for i in index),
        value=value,
        result=value if same else transform(substitute_indices(stage.result, env), rewrite),
    )


def _free_symbols(stage: Stage) -> frozenset[str]:

    found = frozenset().union(
        *(symbols_of(dim) for dim in stage_dims(stage)), *(symbols_of(a.extent) for a in stage.all_axes)
    )
    return found - {axis.name for axis in stage.all_axes}


def _letters(taken: frozenset[str]) -> tuple[str, str]:
    """Prefixes of axis names that no dim of the model begins with."""
    parallel, reduced = "i", "k"
    while any(name.startswith((parallel, reduced)) for name in taken):
        parallel, reduced = parallel + "_", reduced + "_"
    return parallel, reduced

"""Iteration domains: one axis per output dim, split until views leave plain linear indices.

A reshape in a group leaves ``v // c`` and ``v % c`` of an axis v. Where c divides the extent, splitting the
axis into (extent/c, c) opens both; egc.ir.simplify does the arithmetic, here we find which axis to split by
what.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from egc.ir.dims import Call, Dim, Shape, SymDim, mod, substitute, symbol, symbols_of
from egc.ir.dims import floordiv as exact
from egc.ir.expr import Expr, Index, IndexExpr, Load, substitute_indices, transform, walk
from egc.ir.kernel import Axis, Stage
from egc.ir.simplify import is_inside, simplify


class Domain(Struct, frozen=True):
    """The axes of a stage and the index vector that they give."""

    axes: tuple[Axis, ...]
    index: tuple[Dim, ...]

    def split(self, name: str, by: Dim, names: tuple[str, str]) -> Domain:
        """The domain with axis ``name`` cut into ``names``: extent/by outside, ``by`` inside."""
        axes, env = split_axes(self.axes, name, by, names)
        return Domain(axes, tuple(substitute(dim, env) for dim in self.index))


def domain_of(shape: Shape, prefix: str, taken: frozenset[str]) -> Domain:
    """One axis for every dim whose extent is not 1, named ``prefix`` and a number."""
    axes: list[Axis] = []
    index: list[Dim] = []
    for extent in shape:
        if extent == 1:
            index.append(0)
            continue
        name = fresh_name(prefix, taken | {axis.name for axis in axes})
        axes.append(Axis(name, extent))
        index.append(symbol(name))
    return Domain(tuple(axes), tuple(index))


def fresh_name(prefix: str, taken: frozenset[str]) -> str:
    """``prefix`` and the first number that makes a name not in ``taken``."""
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def split_axes(
    axes: tuple[Axis, ...], name: str, by: Dim, names: tuple[str, str]
) -> tuple[tuple[Axis, ...], Mapping[str, Dim]]:
    """``axes`` with one cut in two, and what stands for its position then."""
    outer, inner = names
    out: list[Axis] = []
    for axis in axes:
        out += [Axis(outer, exact(axis.extent, by)), Axis(inner, by)] if axis.name == name else [axis]
    return tuple(out), {name: symbol(outer) * by + symbol(inner)}


def simplified(stage: Stage) -> Stage:
    """The stage with indices simplified by the extents of its axes, without guards that always hold."""
    ranges = {axis.name: axis.extent for axis in stage.all_axes}

    def index(i: IndexExpr) -> IndexExpr:
        return simplify(i, ranges) if isinstance(i, int | SymDim) else i

    def rewrite(node: Expr) -> Expr:
        match node:
            case Index(dim=dim):
                return Index(simplify(dim, ranges))
            case Load(guards=guards):
                kept = tuple((simplify(d, ranges), simplify(e, ranges)) for d, e in guards)
                kept = tuple(dict.fromkeys(g for g in kept if not is_inside(*g, ranges)))
                return replace(
                    node, index=tuple(map(index, node.index)), guards=kept, other=node.other if kept else None
                )
            case _:
                return node

    return replace(
        stage,
        index=tuple(index(i) if isinstance(i, int | SymDim) else transform(i, rewrite) for i in stage.index),
        value=transform(stage.value, rewrite),
        result=transform(stage.result, rewrite),
    )


def find_split(stages: tuple[Stage, ...], axes: tuple[Axis, ...]) -> tuple[str, Dim] | None:
    """An axis of ``axes`` and a divisor of its extent by which an index divides it; None for none."""
    return find_split_in((dim for stage in stages for dim in stage_dims(stage)), axes)


def find_split_in(dims: Iterable[Dim], axes: tuple[Axis, ...]) -> tuple[str, Dim] | None:
    """As :func:`find_split`, for index expressions."""
    extents = {axis.name: axis.extent for axis in axes}
    for dim in dims:
        for call in _calls(dim):
            if found := _split_for(call, extents):
                return found
    return None


def stage_dims(stage: Stage) -> Iterator[Dim]:
    """Every dim expression over axes that occurs in a stage."""
    for i in stage.index:
        if isinstance(i, int | SymDim):
            yield i
        else:
            yield from expr_dims(i)
    yield from expr_dims(stage.value)
    if stage.result is not stage.value:
        yield from expr_dims(stage.result)


def expr_dims(expr: Expr) -> Iterator[Dim]:
    """Every dim expression in an expression: plain indices, guards and index values."""
    for node in walk(expr):
        match node:
            case Index(dim=dim):
                yield dim
            case Load(index=index, guards=guards):
                yield from (i for i in index if isinstance(i, int | SymDim))
                yield from (dim for dim, _ in guards)


def _calls(dim: Dim) -> Iterator[Call]:
    if isinstance(dim, int):
        return
    for monomial, _ in dim.terms:
        for atom in monomial:
            if isinstance(atom, Call):
                yield from _calls(atom.args[0])
                yield atom


def _split_for(call: Call, extents: Mapping[str, Dim]) -> tuple[str, Dim] | None:
    numerator, divisor = call.args
    if call.fn not in ("floordiv", "mod") or isinstance(numerator, int) or len(numerator.terms) != 1:
        return None
    ((monomial, coefficient),) = numerator.terms
    if coefficient < 0:
        return None
    for atom in monomial:
        if not isinstance(atom, str) or atom not in extents:
            continue
        factor: Dim = exact(numerator, symbol(atom))
        if symbols_of(factor) & extents.keys() or mod(divisor, factor) != 0:
            continue
        by, extent = exact(divisor, factor), extents[atom]
        if by not in (1, extent) and extent != 0 and mod(extent, by) == 0:
            return atom, by
    return None


def split_private(stage: Stage, shared: frozenset[str]) -> Stage:
    """The stage with its own axes split until no index divides them where it need not."""
    for _ in range(16):
        own = tuple(axis for axis in stage.all_axes if axis.name not in shared)
        found = find_split((stage,), own)
        if found is None:
            return stage
        name, by = found
        taken = frozenset(axis.name for axis in stage.all_axes)
        outer = fresh_name(name + "_", taken)
        names = (outer, fresh_name(name + "_", taken | {outer}))
        axes, env = split_axes(stage.axes, name, by, names)
        reduce, reduce_env = split_axes(stage.reduce, name, by, names)
        assert env == reduce_env
        stage = simplified(
            replace(
                stage,
                axes=axes,
                reduce=reduce,
                index=tuple(substitute_index(i, env) for i in stage.index),
                value=substitute_indices(stage.value, env),
                result=substitute_indices(stage.result, env),
            )
        )
    return stage


def substitute_index(index: IndexExpr, env: Mapping[str, Dim]) -> IndexExpr:
    """An index with axes replaced by index expressions."""
    return substitute(index, env) if isinstance(index, int | SymDim) else substitute_indices(index, env)

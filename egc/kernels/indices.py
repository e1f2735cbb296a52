"""Index vectors: how the elements of a view, a window or a gather stand in its operand.

An index is a dim (affine arithmetic over axes) or, where it depends on data, an int64 expression; the
functions here take either. Everything is exact for indices in range; nothing here knows the ranges
(egc.ir.simplify does that afterwards).
"""

from __future__ import annotations

from egc.ir.dims import Dim, Shape, SymDim, floordiv, mod, product
from egc.ir.expr import Call, Const, Expr, Index, IndexExpr, Load, call, transform
from egc.ir.extents import at_most_one

Vector = tuple[IndexExpr, ...]
Guards = tuple[tuple[Dim, Dim], ...]


def as_expr(index: IndexExpr) -> Expr:
    """An index as an int64 value."""
    if isinstance(index, int):
        return Const(index, "int64")
    return Index(index) if isinstance(index, SymDim) else index


def as_index(expr: Expr) -> IndexExpr:
    """An int64 value as an index: literals and index values become dims again."""
    match expr:
        case Const(value=value):
            return int(value)
        case Index(dim=dim):
            return dim
        case _:
            return expr


def add(a: IndexExpr, b: IndexExpr) -> IndexExpr:
    """``a + b``."""
    if isinstance(a, int | SymDim) and isinstance(b, int | SymDim):
        return a + b
    return b if a == 0 else a if b == 0 else call("add", as_expr(a), as_expr(b))


def scale(a: IndexExpr, factor: Dim) -> IndexExpr:
    """``a * factor``."""
    if isinstance(a, int | SymDim):
        return a * factor
    return a if factor == 1 else 0 if factor == 0 else call("mul", a, as_expr(factor))


def quotient(a: IndexExpr, b: Dim) -> IndexExpr:
    """``a // b`` for ``a >= 0`` or affine ``a``."""
    if isinstance(a, int | SymDim):
        return floordiv(a, b)
    return a if b == 1 else call("div", a, as_expr(b))


def remainder(a: IndexExpr, b: Dim) -> IndexExpr:
    """``a % b`` for ``a >= 0`` or affine ``a``."""
    if isinstance(a, int | SymDim):
        return mod(a, b)
    return 0 if b == 1 else call("mod", a, as_expr(b))


def broadcast_index(index: Vector, shape: Shape) -> Vector:
    """The element of an operand of ``shape`` that numpy's broadcasting puts at ``index`` of the result."""
    tail = index[len(index) - len(shape) :]
    return tuple(0 if at_most_one(extent) else i for i, extent in zip(tail, shape, strict=True))


def reshape_index(index: Vector, new: Shape, old: Shape) -> Vector:
    """The index in a tensor of shape ``old`` of the element that stands at ``index`` in its reshape to
    ``new``.

    Both shapes are cut into the finest runs of dims with equal products, so an unchanged dim keeps its own
    index and only dims that are merged or split meet a division.
    """
    out: list[IndexExpr] = []
    for new_run, old_run in factor_groups(new, old):
        old_dims = [old[k] for k in old_run]
        if any(d == 0 for d in old_dims):
            out += [0] * len(old_dims)
            continue
        flat: IndexExpr = 0
        for k in new_run:
            flat = add(scale(flat, new[k]), 0 if new[k] == 1 else index[k])
        wide = [d for d in old_dims if d != 1]
        seen = 0
        for extent in old_dims:
            if extent == 1:
                out.append(0)
                continue
            seen += 1
            position = quotient(flat, product(wide[seen:]))
            out.append(position if seen == 1 else remainder(position, extent))
    return tuple(out)


def factor_groups(new: Shape, old: Shape) -> list[tuple[range, range]]:
    """Runs of dims of ``new`` and ``old`` with equal products, as fine as comparing dims can tell."""
    groups: list[tuple[range, range]] = []
    i = j = start_new = start_old = 0
    size_new: Dim = 1
    size_old: Dim = 1
    while i < len(new) or j < len(old):
        if i == start_new and i < len(new):
            size_new, i = new[i], i + 1
        if j == start_old and j < len(old):
            size_old, j = old[j], j + 1
        while size_new != size_old and (i < len(new) or j < len(old)):
            # Widen the side that is smaller; where symbols hide which, the one that divides the other.
            if j < len(old) and (i == len(new) or _smaller(size_old, size_new)):
                size_old, j = size_old * old[j], j + 1
            else:
                size_new, i = size_new * new[i], i + 1
        if size_new == size_old == 0 or size_new != size_old:
            # An empty tensor, or extents that only agree at run time: one run for all that is left.
            i, j = len(new), len(old)
        groups.append((range(start_new, i), range(start_old, j)))
        start_new, start_old = i, j
        size_new = size_old = 1
    return groups


def _smaller(a: Dim, b: Dim) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a < b
    return mod(b, a) == 0 if a != 0 else True


def guarded(value: Expr, guards: Guards, fill: Expr) -> Expr:
    """``value`` where every guard holds, else ``fill``; where a guard fails, ``value`` reads nothing."""
    if not guards:
        return value

    def protect(node: Expr) -> Expr:
        if not isinstance(node, Load):
            return node
        other = node.other or Const(zero_of(node.dtype), node.dtype)
        return Load(node.buffer, node.index, node.dtype, node.guards + guards, other)

    if isinstance(value, Load) and isinstance(fill, Const) and (not value.guards or _same(value.other, fill)):
        # What the index itself reads is out of range too where a guard fails.
        index = tuple(i if isinstance(i, int | SymDim) else transform(i, protect) for i in value.index)
        return Load(value.buffer, index, value.dtype, value.guards + guards, fill)
    inside: Expr | None = None
    for dim, extent in guards:
        for test in (call("ge", as_expr(dim), as_expr(0)), call("lt", as_expr(dim), as_expr(extent))):
            inside = test if inside is None else call("and", inside, test)
    assert inside is not None
    return call("select", inside, transform(value, protect), fill)


def literal(value: float | bool, dtype: str) -> Const:
    """A literal of ``dtype``, written as a float where that is one."""
    return Const(float(value) if "float" in dtype else value, dtype)


def zero_of(dtype: str) -> int | float | bool:
    """Zero as a literal of ``dtype``."""
    return False if dtype == "bool" else 0.0 if "float" in dtype else 0


def _same(a: Const | None, b: Const) -> bool:
    return a is not None and a.dtype == b.dtype and repr(a.value) == repr(b.value)


def wrapped(index: Expr, extent: Dim) -> IndexExpr:
    """An index from data: negative ones count from the end, and all are clamped into ``[0, extent)``.

    ONNX calls an index outside the tensor an error; clamping keeps such data from reading or writing
    foreign memory.
    """
    if isinstance(index, Const) and isinstance(extent, int):
        place = int(index.value)
        return min(max(place + (extent if place < 0 else 0), 0), max(extent - 1, 0))
    position = call("select", call("lt", index, as_expr(0)), call("add", index, as_expr(extent)), index)
    return clamped(position, extent)


def clamped(index: Expr, extent: Dim) -> Expr:
    """An int64 value limited to ``[0, extent)``."""
    return Call("max", (Call("min", (index, as_expr(extent - 1)), "int64"), as_expr(0)), "int64")

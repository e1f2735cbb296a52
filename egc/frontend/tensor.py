"""Padding, triangles, diagonals, one-hot vectors: operators that make a tensor from positions."""

from __future__ import annotations

from collections.abc import Sequence

from egc.frontend.context import Context
from egc.frontend.proto import element_type
from egc.frontend.registry import NotCompiled, OnnxNode, operator
from egc.frontend.shape import known_dims, known_ints
from egc.ir.dims import Dim, SymDim

FAMILY = "tensor"


@operator("Pad", family=FAMILY)
def pad(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Constant, mirrored, clamped or wrapped padding."""
    x = node.required(0)
    rank = ctx.rank(x)
    value: str | None = None
    if node.version < 11:
        amounts: Sequence[Dim] = node.attr("pads")
        value = ctx.like(node.attr("value", 0.0), x)
    else:
        amounts = known_dims(ctx, node.input(1), "the padding")
        value = node.input(2)
    axes: Sequence[int] = range(rank)
    if node.input(3) is not None:
        axes = [ctx.axis(a, rank) for a in known_ints(ctx, node.input(3), "the list of axes")]
    if len(amounts) != 2 * len(axes):
        ctx.fail(f"{len(amounts)} amounts of padding for {len(axes)} axes")
    low: list[Dim] = [0] * rank
    high: list[Dim] = [0] * rank
    for i, axis in enumerate(axes):
        low[axis], high[axis] = amounts[i], amounts[len(axes) + i]
    mode = node.attr("mode", "constant")
    if mode == "constant":
        fill = ctx.like(0, x) if value is None else ctx.reshape(value, ())
        return [pad_constant(ctx, x, low, high, fill)]
    if mode not in ("reflect", "edge", "wrap"):
        ctx.fail(f"there is no padding mode {mode!r}")
    for axis in range(rank):
        if low[axis] != 0 or high[axis] != 0:
            x = _pad_by_index(ctx, x, axis, low[axis], high[axis], mode)
    return [x]


def pad_constant(ctx: Context, x: str, low: Sequence[Dim], high: Sequence[Dim], fill: str) -> str:
    """``x`` with ``fill`` at the ends of its axes; negative amounts cut off."""

    def cut(amount: Dim) -> Dim:
        return -amount if isinstance(amount, int) and amount < 0 else 0

    starts = [cut(a) for a in low]
    sizes = [d - s - cut(b) for d, s, b in zip(ctx.shape(x), starts, high, strict=True)]
    if list(sizes) != list(ctx.shape(x)):
        if any(isinstance(s, int) and s < 0 for s in sizes):
            ctx.fail(f"more is cut off than {ctx.type(x)} has")
        x = ctx.add("slice", (x,), starts=tuple(starts), sizes=tuple(sizes), steps=(1,) * len(sizes))
    grown = [tuple(0 if isinstance(a, int) and a < 0 else a for a in amounts) for amounts in (low, high)]
    if all(a == 0 for amounts in grown for a in amounts):
        return x
    return ctx.add("pad", (x, fill), low=grown[0], high=grown[1], interior=(0,) * len(sizes))


def _pad_by_index(ctx: Context, x: str, axis: int, low: Dim, high: Dim, mode: str) -> str:
    """Each place of the padded axis reads the place of ``x`` that the mode says: mirrored, clamped or
    wrapped."""
    extent = ctx.shape(x)[axis]
    if extent == 0:
        ctx.fail(f"an empty axis cannot be padded by {mode!r}")
    one, n = ctx.scalar(1, "int64"), ctx.extent(extent, "int64")
    place = ctx.iota((extent + low + high,), 0)
    place = ctx.map("sub", place, ctx.extent(low, "int64")) if low != 0 else place
    last = ctx.map("sub", n, one)
    if mode == "edge":
        place = ctx.map("min", ctx.map("max", place, ctx.scalar(0, "int64")), last)
    elif mode == "wrap":
        place = ctx.map("mod", place, n)
    else:
        # The image repeats with period 2(n - 1), the second half backwards.
        period = ctx.map("max", ctx.map("mul", last, ctx.scalar(2, "int64")), one)
        place = ctx.map("mod", place, period)
        place = ctx.map("min", place, ctx.map("sub", period, place))
        place = place if extent != 1 else ctx.map("mul", place, ctx.scalar(0, "int64"))
    return ctx.add("gather", (x, place), axis=axis)


def _diagonal(ctx: Context, rows: Dim, columns: Dim) -> str:
    """An int64 [rows, columns] tensor (by broadcasting) of column minus row."""
    return ctx.map("sub", ctx.iota((1, columns), 1), ctx.iota((rows, 1), 0))


@operator("Trilu", family=FAMILY)
def trilu(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The upper triangle keeps column - row >= k, the lower column - row <= k."""
    x = node.required(0)
    if ctx.rank(x) < 2:
        ctx.fail(f"{ctx.type(x)} has no triangle")
    k = ctx.scalar(0, "int64") if node.input(1) is None else ctx.reshape(node.required(1), ())
    keep = ctx.map("ge" if node.attr("upper", 1) else "le", _diagonal(ctx, *ctx.shape(x)[-2:]), k)
    return [ctx.map("select", keep, x, ctx.like(0, x))]


@operator("EyeLike", family=FAMILY)
def eye_like(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Ones on a diagonal."""
    x = node.required(0)
    if ctx.rank(x) != 2:
        ctx.fail(f"{ctx.type(x)} is no matrix")
    dtype = element_type(node.attr("dtype")) if node.attr("dtype") else ctx.dtype(x)
    eye = ctx.map("eq", _diagonal(ctx, *ctx.shape(x)), ctx.scalar(node.attr("k", 0), "int64"))
    return [ctx.cast(eye, dtype)]


@operator("OneHot", family=FAMILY)
def one_hot(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The on-value where the place along the new axis is the index; an index outside ±depth is nowhere."""
    indices, values = node.required(0), node.required(2)
    depth_data = ctx.const(node.input(1))
    depth: Dim = (
        int(depth_data.reshape(-1)[0])
        if depth_data is not None
        else known_dims(ctx, node.input(1), "the depth")[0]
    )
    indices = ctx.cast(indices, "int64")
    wrapped = ctx.map("add", indices, ctx.extent(depth, "int64"))
    indices = ctx.map("select", ctx.map("lt", indices, ctx.scalar(0, "int64")), wrapped, indices)
    rank = ctx.rank(indices) + 1
    axis = ctx.axis(node.attr("axis", -1), rank)
    hit = ctx.map(
        "eq",
        ctx.unsqueeze(indices, (axis,)),
        ctx.iota([depth if i == axis else 1 for i in range(rank)], axis),
    )
    off, on = (ctx.reshape(ctx.slice_axis(values, 0, i, 1), ()) for i in range(2))
    return [ctx.map("select", hit, on, off)]


@operator("Compress", family=FAMILY)
def compress(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """With a constant condition a gather of the places that it keeps."""
    x, condition = node.required(0), ctx.const(node.input(1))
    if condition is None:
        raise NotCompiled("how much it keeps is data")
    axis = node.attr("axis")
    if axis is None:
        x, axis = ctx.reshape(x, (ctx.type(x).size,)), 0
    axis = ctx.axis(axis, ctx.rank(x))
    kept = condition.reshape(-1).nonzero()[0]
    extent = ctx.shape(x)[axis]
    if isinstance(extent, SymDim) or kept.max(initial=-1) >= extent:
        raise NotCompiled("the condition may be longer than the axis")
    return [ctx.add("gather", (x, ctx.constant(kept.astype("int64"))), axis=axis)]

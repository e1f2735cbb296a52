"""Pooling: over windows, over all spatial axes, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.frontend.windows import Windows, pad_same, read_windows, round_up, same_padding
from egc.ir.dims import Dim, product
from egc.ir.scalar import combiner_identity
from egc.ir.types import numpy_dtype


def pool(ctx: Context, fn: str, x: str, windows: Windows) -> str:
    """The primitive ``pool`` over the spatial axes of ``x`` [N, C, s…]."""
    return ctx.add(
        "pool",
        (x,),
        fn=fn,
        window=(1, 1, *windows.sizes),
        strides=(1, 1, *windows.strides),
        dilations=(1, 1, *windows.dilations),
        low=(0, 0, *windows.low),
        high=(0, 0, *windows.high),
    )


def _windows(ctx: Context, node: OnnxNode, x: str, fill: float) -> tuple[str, Windows, Windows]:
    """x, the windows as they are, and the windows with ceil_mode taken into account."""
    sizes = node.attr("kernel_shape")
    if not sizes:
        ctx.fail("kernel_shape is missing")
    x, windows = read_windows(ctx, node, x, [int(s) for s in sizes], fill)
    # auto_pad SAME asks for ceil(extent / stride) windows, which are whole.
    rounded = bool(node.attr("ceil_mode", 0)) and same_padding(node) is None
    return x, windows, round_up(ctx, x, windows) if rounded else windows


@operator("MaxPool", family="pool")
def max_pool(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The maximum of each window, and on demand its position in the flattened operand."""
    x = node.required(0)
    lowest = combiner_identity("max", ctx.dtype(x))
    if node.wants(1):
        _, _, windows = _windows(ctx, node, x, lowest)
        return list(_max_with_positions(ctx, x, windows, bool(node.attr("storage_order", 0))))
    x, _, windows = _windows(ctx, node, x, lowest)
    return [pool(ctx, "max", x, windows)]


def _max_with_positions(ctx: Context, x: str, windows: Windows, column_major: bool) -> tuple[str, str]:
    """The maxima and their positions: windows are spread out, with the flat positions beside them."""
    shape = ctx.static_shape(x)
    batch, channels, *extents = shape
    outputs = windows.counts(extents)
    rank = len(extents)
    # taps[axis] holds, for every window and tap, the position along that axis in the unpadded operand.
    taps = [
        np.arange(o)[:, None] * s - low + np.arange(k)[None, :] * d
        for o, s, low, k, d in zip(
            outputs, windows.strides, windows.low, windows.sizes, windows.dilations, strict=True
        )
    ]
    order = (*range(2), *(2 + 2 * i for i in range(rank)), *(3 + 2 * i for i in range(rank)))
    flat_shape = (batch, channels, *outputs, int(np.prod(windows.sizes)))
    spread, inside = x, np.ones((1,) * (2 * rank), dtype=bool)
    position = np.zeros((1,) * (2 * rank), dtype=np.int64)
    strides = _strides(extents, column_major)
    for i, tap in enumerate(taps):
        spread = ctx.add("gather", (spread, ctx.constant(np.clip(tap, 0, extents[i] - 1))), axis=2 + 2 * i)
        lift = [
            tap.shape[0] if j == 2 * i else tap.shape[1] if j == 2 * i + 1 else 1 for j in range(2 * rank)
        ]
        inside = inside & ((tap >= 0) & (tap < extents[i])).reshape(lift)
        position = position + tap.reshape(lift) * strides[i]
    if not inside.all():
        # A tap in the padding repeats an element of the border; the identity takes its place.
        identity = ctx.like(combiner_identity("max", ctx.dtype(x)), x)
        spread = ctx.map("select", ctx.constant(inside[None, None]), spread, identity)
    spread = ctx.reshape(ctx.transpose(spread, order), flat_shape)
    arg = ctx.add("arg_reduce", (spread,), fn="max", axis=rank + 2, last=False)
    table = np.broadcast_to(position, np.broadcast_shapes(position.shape, inside.shape))
    table = np.ascontiguousarray(table.transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)]))
    table = np.broadcast_to(table.reshape(*outputs, -1), flat_shape).astype(np.int64)
    positions = ctx.add("gather_elements", (ctx.constant(table), arg), axis=rank + 2)
    plane = int(np.prod(extents))
    base = np.arange(batch * channels, dtype=np.int64).reshape(batch, channels, *(1,) * rank) * plane
    flat = ctx.map("add", ctx.squeeze(positions, (rank + 2,)), ctx.constant(base))
    return ctx.reduce("max", spread, (rank + 2,), keepdims=False), flat


def _strides(extents: Sequence[int], column_major: bool) -> list[int]:
    strides = [int(np.prod(extents[i + 1 :], dtype=np.int64)) for i in range(len(extents))]
    if column_major:
        strides = [int(np.prod(extents[:i], dtype=np.int64)) for i in range(len(extents))]
    return strides


@operator("AveragePool", family="pool")
def average_pool(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The mean of each window, over the elements in the operand or, on demand, in its padding too."""
    source = node.required(0)
    x, plain, windows = _windows(ctx, node, source, 0.0)
    total = pool(ctx, "add", x, windows)
    count_padding = bool(node.attr("count_include_pad", 0))
    if windows == plain and (count_padding or (not windows.padded and x == source)):
        return [ctx.map("div", total, ctx.like(int(np.prod(windows.sizes)), x))]
    # Counting is pooling ones: padding that counts is made of ones as well.
    extents = ctx.shape(source)[2:]
    if count_padding:
        extents = tuple(n + a + b for n, a, b in zip(extents, plain.low, plain.high, strict=True))
        extra = tuple(b - a for a, b in zip(plain.high, windows.high, strict=True))
        windows = Windows(
            windows.sizes,
            windows.strides,
            windows.dilations,
            (0,) * len(extents),
            tuple(max(e, 0) for e in extra),
        )
    counts = _counts(ctx, extents, windows, ctx.dtype(x), None if x == source else same_padding(node))
    if count_padding and any(e < 0 for e in extra):
        for axis, size in enumerate(ctx.shape(total)[2:], 2):
            counts = ctx.slice_axis(counts, axis, 0, size)
    return [ctx.map("div", total, counts)]


def _counts(ctx: Context, extents: Sequence[Dim], windows: Windows, dtype: str, same: str | None) -> str:
    """How many elements each window holds: [1, 1, windows…], the product of the counts along each axis.

    ``same`` is the mode of auto_pad where that pads the operand, which the windows then do not.
    """
    rank = len(extents)
    counts = None
    for i, extent in enumerate(extents):
        one = windows.along(i)
        if isinstance(extent, int):
            ones = ctx.constant(np.ones((1, 1, extent), numpy_dtype(dtype)))
        else:
            ones = ctx.expand(ctx.scalar(1, dtype), (1, 1, extent))
        if same is not None:
            ones, one = pad_same(ctx, ones, one, same, 0.0)
        along = pool(ctx, "add", ones, one)
        shape = tuple(ctx.shape(along)[2] if j == i else 1 for j in range(rank))
        along = ctx.reshape(along, (1, 1, *shape))
        counts = along if counts is None else ctx.map("mul", counts, along)
    assert counts is not None
    return counts


@operator("LpPool", family="pool")
def lp_pool(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The p-norm of each window; padding counts as 0."""
    x, _, windows = _windows(ctx, node, node.required(0), 0.0)
    power = float(node.attr("p", 2))
    return [_root(ctx, pool(ctx, "add", _power(ctx, x, power), windows), power)]


def _power(ctx: Context, x: str, power: float) -> str:
    if power == 2:
        return ctx.map("mul", x, x)
    return ctx.map("pow", ctx.map("abs", x), ctx.like(power, x)) if power != 1 else ctx.map("abs", x)


def _root(ctx: Context, x: str, power: float) -> str:
    if power == 2:
        return ctx.map("sqrt", x)
    return ctx.map("pow", x, ctx.like(1 / power, x)) if power != 1 else x


def _spatial(ctx: Context, x: str) -> range:
    if ctx.rank(x) < 2:
        ctx.fail(f"the operand is {ctx.type(x)}; it needs a batch and a channel axis")
    return range(2, ctx.rank(x))


@operator("GlobalAveragePool", family="pool")
def global_average_pool(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The mean over all spatial axes."""
    x = node.required(0)
    axes = _spatial(ctx, x)
    count = ctx.extent(product(ctx.shape(x)[2:]), ctx.dtype(x))
    return [ctx.map("div", ctx.reduce("add", x, axes), count)]


@operator("GlobalMaxPool", family="pool")
def global_max_pool(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The maximum over all spatial axes."""
    x = node.required(0)
    return [ctx.reduce("max", x, _spatial(ctx, x))]


@operator("GlobalLpPool", family="pool")
def global_lp_pool(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The p-norm over all spatial axes."""
    x = node.required(0)
    power = float(node.attr("p", 2))
    return [_root(ctx, ctx.reduce("add", _power(ctx, x, power), _spatial(ctx, x)), power)]


@operator("MaxUnpool", family="pool")
def max_unpool(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Values put back at the positions MaxPool took them from, zero elsewhere."""
    x, positions = node.required(0), node.required(1)
    shape = ctx.static_shape(x)
    sizes = [int(k) for k in node.attr("kernel_shape") or ()]
    rank = len(sizes)
    if rank != len(shape) - 2:
        ctx.fail(f"kernel_shape has {rank} entries, the operand is {ctx.type(x)}")
    strides = node.attr("strides") or (1,) * rank
    pads = node.attr("pads") or (0,) * (2 * rank)
    inferred = (
        *shape[:2],
        *((shape[2 + i] - 1) * strides[i] - pads[i] - pads[rank + i] + sizes[i] for i in range(rank)),
    )
    wanted = inferred
    if node.input(2) is not None:
        found = ctx.ints(node.input(2))
        if found is None:
            raise NotCompiled("output_shape is known only at run time")
        wanted = found
    if any(w < n for w, n in zip(wanted, inferred, strict=True)):
        raise NotCompiled(f"output_shape {list(wanted)} is smaller than {list(inferred)}")
    zeros = ctx.expand(ctx.like(0, x), (int(np.prod(inferred)),))
    flat = (int(np.prod(shape)),)
    filled = ctx.add(
        "scatter_elements", (zeros, ctx.reshape(positions, flat), ctx.reshape(x, flat)), axis=0, fn="set"
    )
    out = ctx.reshape(filled, inferred)
    if wanted != inferred:
        high = tuple(w - n for w, n in zip(wanted, inferred, strict=True))
        none = (0,) * len(high)
        out = ctx.add("pad", (out, ctx.like(0, x)), low=none, high=high, interior=none)
    return [out]

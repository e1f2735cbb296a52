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
        padded, _, windows = _windows(ctx, node, x, lowest)
        if padded != x:
            raise NotCompiled("positions where the padding depends on a symbolic extent")
        return list(_max_with_positions(ctx, x, windows, bool(node.attr("storage_order", 0))))
    x, _, windows = _windows(ctx, node, x, lowest)
    return [pool(ctx, "max", x, windows)]


def _max_with_positions(ctx: Context, x: str, windows: Windows, column_major: bool) -> tuple[str, str]:
    """The maxima and their positions: windows are spread out, each with its taps on a last axis."""
    batch, channels, *extents = ctx.shape(x)
    outputs = windows.outputs(extents)
    rank = len(extents)
    spread, inside = x, None
    for i, extent in enumerate(extents):
        # The position in the unpadded operand of every tap of every window along this axis: [windows, taps].
        starts = _affine(ctx, outputs[i], windows.strides[i], -windows.low[i])
        tap = ctx.map(
            "add", ctx.unsqueeze(starts, (1,)), _affine(ctx, windows.sizes[i], windows.dilations[i], 0)
        )
        if windows.low[i] or windows.high[i]:
            last = ctx.extent(extent - 1, "int64")
            valid = ctx.map("and", ctx.map("ge", tap, ctx.like(0, tap)), ctx.map("le", tap, last))
            valid = _lift(ctx, valid, 2 * i, 2 * rank)
            inside = valid if inside is None else ctx.map("and", inside, valid)
            tap = ctx.map("min", ctx.map("max", tap, ctx.like(0, tap)), last)
        spread = ctx.add("gather", (spread, tap), axis=2 + 2 * i)
    if inside is not None:
        # A tap in the padding repeats an element of the border; the identity takes its place.
        identity = ctx.like(combiner_identity("max", ctx.dtype(x)), x)
        spread = ctx.map("select", ctx.unsqueeze(inside, (0, 1)), spread, identity)
    order = (*range(2), *(2 + 2 * i for i in range(rank)), *(3 + 2 * i for i in range(rank)))
    flat_shape = (batch, channels, *outputs, int(np.prod(windows.sizes)))
    spread = ctx.reshape(ctx.transpose(spread, order), flat_shape)
    arg = ctx.squeeze(ctx.add("arg_reduce", (spread,), fn="max", axis=rank + 2, last=False), (rank + 2,))
    # A position is that of the window's first tap, plus what the tap that holds the maximum is beyond it.
    steps = _strides(extents, column_major)
    beyond = ctx.reshape(
        _sum_of_axes(ctx, windows.sizes, windows.dilations, (0,) * rank, steps),
        (int(np.prod(windows.sizes)),),
    )
    flat = ctx.add("gather", (beyond, arg), axis=0)
    starts_at = tuple(-low for low in windows.low)
    for shape, strides, begins, scale in (
        (outputs, windows.strides, starts_at, steps),
        ((batch, channels), (1, 1), (0, 0), (product((channels, *extents)), product(extents))),
    ):
        places = _sum_of_axes(ctx, shape, strides, begins, scale)
        flat = ctx.map("add", flat, places if shape is outputs else ctx.unsqueeze(places, range(2, 2 + rank)))
    return ctx.reduce("max", spread, (rank + 2,), keepdims=False), flat


def _affine(ctx: Context, count: Dim, step: int, start: int) -> str:
    """start, start + step, … : ``count`` of them."""
    if isinstance(count, int):
        return ctx.constant(np.arange(count) * step + start)
    numbers = ctx.iota((count,), 0)
    return ctx.map("add", ctx.map("mul", numbers, ctx.like(step, numbers)), ctx.like(start, numbers))


def _lift(ctx: Context, value: str, axis: int, rank: int) -> str:
    """``value`` with its axes at ``axis`` of a tensor of ``rank``, all others being of extent 1."""
    inner = range(axis, axis + ctx.rank(value))
    return ctx.unsqueeze(value, [i for i in range(rank) if i not in inner])


def _sum_of_axes(
    ctx: Context, shape: Sequence[Dim], strides: Sequence[int], starts: Sequence[int], scales: Sequence[Dim]
) -> str:
    """A tensor of ``shape``: the sum over all axes of scale · (start + stride · position along the axis)."""
    total = None
    for i, count in enumerate(shape):
        places = _affine(ctx, count, strides[i], starts[i])
        scaled = _lift(ctx, ctx.map("mul", places, ctx.extent(scales[i], "int64")), i, len(shape))
        total = scaled if total is None else ctx.map("add", total, scaled)
    assert total is not None
    return total


def _strides(extents: Sequence[Dim], column_major: bool) -> list[Dim]:
    return [product(list(extents[:i] if column_major else extents[i + 1 :])) for i in range(len(extents))]


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

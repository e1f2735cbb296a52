"""Sampling at computed positions: GridSample, AffineGrid, DeformConv, RoiAlign and Col2Im.

Positions are real numbers in elements of the operand. Operands are gathered channels-last, ``[N, S, C]`` over
the flattened spatial axes S at ``[N, P]`` positions, so that one position reads C neighbouring elements.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.frontend.windows import read_windows
from egc.ir.dims import Dim, product
from egc.ir.types import numpy_dtype

_MODES = {
    "bilinear": "linear",
    "bicubic": "cubic",
    "linear": "linear",
    "cubic": "cubic",
    "nearest": "nearest",
}


@operator("GridSample", family="sample")
def grid_sample(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x [N, C, d…] at the normalised positions grid [N, o…, axes], the last axis first."""
    x, grid = node.required(0), node.required(1)
    rank = ctx.rank(x) - 2
    if ctx.rank(grid) != rank + 2 or ctx.shape(grid)[-1] != rank:
        ctx.fail(f"the grid {ctx.type(grid)} does not address the {rank} spatial axes of {ctx.type(x)}")
    mode, padding = _MODES.get(node.attr("mode", "linear")), node.attr("padding_mode", "zeros")
    if mode is None or padding not in ("zeros", "border", "reflection"):
        ctx.fail(f"mode {node.attr('mode')!r} with padding_mode {padding!r} is unknown")
    extents, aligned = ctx.shape(x)[2:], bool(node.attr("align_corners", 0))
    outer = ctx.shape(grid)[1:-1]
    wide = ctx.cast(grid, "float64" if ctx.dtype(grid) == "float64" else "float32")
    flat = ctx.reshape(wide, (ctx.shape(grid)[0], product(outer), rank))
    positions = []
    for axis, extent in enumerate(extents):
        along = ctx.squeeze(ctx.slice_axis(flat, 2, rank - 1 - axis, 1), (2,))
        position = _denormalized(ctx, along, extent, aligned)
        if mode == "nearest":
            position = ctx.map("round", position)
        # A cubic's weights are those of the position itself; its taps are brought back one by one, below.
        positions.append(position if mode == "cubic" else _folded(ctx, position, extent, aligned, padding))
    out = _interpolate(ctx, _channels_last(ctx, x), extents, positions, mode, padding, aligned)
    batch, channels = ctx.shape(x)[:2]
    return [ctx.reshape(ctx.transpose(out, (0, 2, 1)), (batch, channels, *outer))]


def _channels_last(ctx: Context, x: str) -> str:
    """[N, C, d…] as [N, S, C]."""
    batch, channels, *extents = ctx.shape(x)
    return ctx.transpose(ctx.reshape(x, (batch, channels, product(extents))), (0, 2, 1))


def _denormalized(ctx: Context, position: str, extent: Dim, aligned: bool) -> str:
    """From -1…1 to elements: the ends are centres of elements where ``aligned``, else outer borders."""
    size = ctx.extent(extent - 1 if aligned else extent, ctx.dtype(position))
    shifted = ctx.map("mul", ctx.map("add", position, ctx.like(1, position)), size)
    if not aligned:
        shifted = ctx.map("sub", shifted, ctx.like(1, position))
    return ctx.map("mul", shifted, ctx.like(0.5, position))


def _folded(ctx: Context, position: str, extent: Dim, aligned: bool, padding: str) -> str:
    """Positions beyond the borders brought back as ``padding`` says; those inside stay as they are."""
    if padding == "zeros":
        return position
    last = ctx.extent(extent - 1, ctx.dtype(position))
    if padding == "reflection":
        return _reflected(ctx, position, extent, aligned)
    half = ctx.like(0.0 if aligned else 0.5, position)
    below = ctx.map("lt", position, ctx.map("neg", half))
    above = ctx.map("gt", position, ctx.map("add", last, half))
    clamped = ctx.map("min", ctx.map("max", position, ctx.like(0, position)), last)
    return ctx.map("select", ctx.map("or", below, above), clamped, position)


def _reflected(ctx: Context, position: str, extent: Dim, aligned: bool) -> str:
    """Positions mirrored at both borders as often as it takes: a triangle wave of period 2 * (high - low)."""
    low = 0.0 if aligned else -0.5
    span = ctx.extent(extent - 1 if aligned else extent, ctx.dtype(position))
    period = ctx.map("max", ctx.map("add", span, span), ctx.like(1e-6, position))
    start = ctx.like(low, position)
    phase = ctx.map("mod", ctx.map("sub", position, start), period)
    folded = ctx.map("min", phase, ctx.map("sub", period, phase))
    inside = ctx.map(
        "and", ctx.map("ge", position, start), ctx.map("le", position, ctx.map("add", start, span))
    )
    return ctx.map("select", inside, position, ctx.map("add", folded, start))


def _taps(ctx: Context, position: str, mode: str) -> list[tuple[str, str | None]]:
    """The whole-numbered positions that a position reads along one axis, and their weights (None for 1)."""
    if mode == "nearest":
        return [(position, None)]
    base = ctx.map("floor", position)
    fraction = ctx.map("sub", position, base)
    one = ctx.like(1, position)
    if mode == "linear":
        return [(base, ctx.map("sub", one, fraction)), (ctx.map("add", base, one), fraction)]
    out: list[tuple[str, str | None]] = []
    for offset in (-1, 0, 1, 2):
        distance = ctx.map("abs", ctx.map("sub", fraction, ctx.like(offset, position)))
        place = ctx.map("add", base, ctx.like(offset, position))
        out.append((place, _keys(ctx, distance, near=offset in (0, 1))))
    return out


def _keys(ctx: Context, distance: str, near: bool) -> str:
    """Keys' cubic kernel (IEEE Trans. ASSP 29(6), 1981, eq. 4), a = -3/4, for a distance below or above 1."""
    a = -0.75
    terms = (a + 2, -(a + 3), 0.0, 1.0) if near else (a, -5 * a, 8 * a, -4 * a)
    out = ctx.like(terms[0], distance)
    for term in terms[1:]:
        out = ctx.map("add", ctx.map("mul", out, distance), ctx.like(term, distance))
    return out


def _interpolate(
    ctx: Context,
    x: str,
    extents: Sequence[Dim],
    positions: Sequence[str],
    mode: str,
    padding: str,
    aligned: bool,
) -> str:
    """x [N, S, C] at positions [N, P] along each axis, weighted over the taps: [N, P, C]."""
    choices = [_taps(ctx, position, mode) for position in positions]
    total = None
    for combination in itertools.product(*choices):
        index, inside, weight = None, None, None
        for (place, factor), extent in zip(combination, extents, strict=True):
            if padding == "reflection":
                place = ctx.map("round", _reflected(ctx, place, extent, aligned))
            last = ctx.extent(extent - 1, ctx.dtype(place))
            zero = ctx.like(0, place)
            if padding == "zeros":
                within = ctx.map("and", ctx.map("ge", place, zero), ctx.map("le", place, last))
                inside = within if inside is None else ctx.map("and", inside, within)
            # Clamped as an integer too: a NaN among the positions becomes some integer, never a wild read.
            whole = ctx.cast(ctx.map("min", ctx.map("max", place, zero), last), "int64")
            whole = ctx.map("max", ctx.map("min", whole, ctx.extent(extent - 1, "int64")), ctx.like(0, whole))
            if index is None:
                index = whole
            else:
                index = ctx.map("add", ctx.map("mul", index, ctx.extent(extent, "int64")), whole)
            if factor is not None:
                weight = factor if weight is None else ctx.map("mul", weight, factor)
        assert index is not None
        value = ctx.add("gather_nd", (x, ctx.unsqueeze(index, (2,))), batch_dims=1)
        if inside is not None:
            value = ctx.map("select", ctx.unsqueeze(inside, (2,)), value, ctx.like(0, value))
        if weight is not None:
            value = ctx.map("mul", value, ctx.cast(ctx.unsqueeze(weight, (2,)), ctx.dtype(value)))
        total = value if total is None else ctx.map("add", total, value)
    assert total is not None
    return total


@operator("AffineGrid", family="sample")
def affine_grid(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The grid [N, d…, axes] for GridSample of affine maps theta [N, axes, axes + 1] over a given size."""
    theta, size = node.required(0), ctx.ints(node.required(1))
    if size is None:
        raise NotCompiled("size is data")
    extents = size[2:]
    rank = len(extents)
    if rank not in (2, 3):
        ctx.fail(f"size {list(size)} has {rank} spatial axes; it has two or three")
    aligned = bool(node.attr("align_corners", 0))
    axes = []
    for extent in extents:
        places = np.arange(extent, dtype=np.float64)
        if aligned:
            axes.append(places * (2 / (extent - 1)) - 1 if extent > 1 else places)
        else:
            axes.append((2 * places + 1) / extent - 1)
    grids = np.meshgrid(*axes, indexing="ij")
    points = np.stack([*(grid.ravel() for grid in reversed(grids)), np.ones(grids[0].size)], -1)
    base = ctx.constant(points.astype(numpy_dtype(ctx.dtype(theta))))
    out = ctx.add("matmul", (base, ctx.transpose(theta, (0, 2, 1))))
    return [ctx.reshape(out, (ctx.shape(theta)[0], *extents, rank))]


@operator("DeformConv", family="sample")
def deform_conv(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """A 2-D convolution whose taps are moved by learnt offsets and weighted by a mask."""
    x, w, offset = (node.required(i) for i in range(3))
    bias, mask = node.input(3), node.input(4)
    batch, channels, height, width = ctx.static_shape(x)
    outputs, depth, *taps = ctx.static_shape(w)
    if len(taps) != 2:
        raise NotCompiled("a deformable convolution of other than 2 axes")
    groups, offset_groups = int(node.attr("group", 1)), int(node.attr("offset_group", 1))
    _, windows = read_windows(ctx, node, x, taps)
    out = windows.counts((height, width))
    count = int(np.prod(taps))
    # Offsets [N, G, taps, 2, o…] move the taps; samples are taken for each group of channels apart.
    moved = ctx.reshape(offset, (batch * offset_groups, count, 2, *out))
    flat = (batch * offset_groups, count * out[0] * out[1])
    positions = []
    for axis in range(2):
        column = (-1, 1) if axis == 0 else (1, -1)
        tap = (np.arange(taps[axis]) * windows.dilations[axis]).reshape(column)
        start = (np.arange(out[axis]) * windows.strides[axis] - windows.low[axis]).reshape(column)
        base = np.broadcast_to(tap, taps).reshape(count, 1, 1) + start[None]
        place = ctx.constant(base.astype(numpy_dtype(ctx.dtype(offset))))
        along = ctx.map("add", ctx.squeeze(ctx.slice_axis(moved, 2, axis, 1), (2,)), place)
        positions.append(ctx.reshape(along, flat))
    parts = ctx.reshape(x, (batch * offset_groups, channels // offset_groups, height, width))
    samples = _interpolate(
        ctx, _channels_last(ctx, parts), (height, width), positions, "linear", "zeros", True
    )
    if mask is not None:
        samples = ctx.map("mul", samples, ctx.reshape(mask, (*flat, 1)))
    # [N*G, taps*o, C/G] to columns [N, groups, depth*taps, o] for one product with the weights.
    columns = ctx.reshape(samples, (*flat[:1], count, out[0] * out[1], channels // offset_groups))
    columns = ctx.transpose(columns, (0, 3, 1, 2))
    columns = ctx.reshape(columns, (batch, groups, depth * count, out[0] * out[1]))
    weights = ctx.reshape(w, (groups, outputs // groups, depth * count))
    result = ctx.reshape(ctx.add("matmul", (weights, columns)), (batch, outputs, *out))
    return [result if bias is None else ctx.map("add", result, ctx.reshape(bias, (outputs, 1, 1)))]


@operator("RoiAlign", family="sample")
def roi_align(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Each region as a small image of fixed size: bins of bilinear samples, averaged or their maximum."""
    x, rois, batches = (node.required(i) for i in range(3))
    ratio = int(node.attr("sampling_ratio", 0))
    if ratio < 1:
        raise NotCompiled("a sampling ratio that adapts to each region")
    rows, columns = (int(node.attr(name, 1)) for name in ("output_height", "output_width"))
    half_pixel = (
        node.version >= 16 and node.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    )
    height, width = ctx.shape(x)[2:]
    scale = ctx.like(float(node.attr("spatial_scale", 1.0)), rois)
    corners = ctx.map("sub", ctx.map("mul", rois, scale), ctx.like(0.5 if half_pixel else 0.0, rois))
    places = [
        _bins(ctx, corners, start, bins, ratio, clip=not half_pixel)
        for start, bins in ((1, rows), (0, columns))
    ]
    regions = ctx.shape(rois)[0]
    grid = (regions, rows * ratio, columns * ratio)
    indices = ctx.reshape(ctx.cast(batches, "int64"), (regions, 1, 1))
    pixels = ctx.transpose(x, (0, 2, 3, 1))
    vertical, horizontal = (
        _border_taps(ctx, place, extent) for place, extent in zip(places, (height, width), strict=True)
    )
    parts = []
    for (y, wy), (x_, wx) in itertools.product(vertical[0], horizontal[0]):
        corner = [indices, ctx.unsqueeze(y, (2,)), ctx.unsqueeze(x_, (1,))]
        address = ctx.concat([ctx.unsqueeze(ctx.expand(part, grid), (3,)) for part in corner], 3)
        weight = ctx.map("mul", ctx.unsqueeze(wy, (2,)), ctx.unsqueeze(wx, (1,)))
        value = ctx.add("gather_nd", (pixels, address), batch_dims=0)
        parts.append(ctx.map("mul", value, ctx.unsqueeze(weight, (3,))))
    average = node.attr("mode", "avg") == "avg"
    total = parts[0]
    for part in parts[1:]:
        total = ctx.map("add" if average else "max", total, part)
    inside = ctx.map("and", ctx.unsqueeze(vertical[1], (2,)), ctx.unsqueeze(horizontal[1], (1,)))
    total = ctx.map("select", ctx.unsqueeze(inside, (3,)), total, ctx.like(0, total))
    bins = ctx.reshape(total, (regions, rows, ratio, columns, ratio, ctx.shape(x)[1]))
    pooled = ctx.reduce("add" if average else "max", bins, (2, 4), keepdims=False)
    if average:
        pooled = ctx.map("div", pooled, ctx.like(ratio * ratio, pooled))
    return [ctx.transpose(pooled, (0, 3, 1, 2))]


def _bins(ctx: Context, corners: str, start: int, bins: int, ratio: int, clip: bool) -> str:
    """The sample positions [R, bins * ratio] along one axis of each region, [x1, y1, x2, y2]."""
    low, high = ctx.slice_axis(corners, 1, start, 1), ctx.slice_axis(corners, 1, start + 2, 1)
    extent = ctx.map("sub", high, low)
    if clip:
        extent = ctx.map("max", extent, ctx.like(1, extent))
    steps = (np.arange(bins * ratio) + 0.5) / (bins * ratio)
    return ctx.map(
        "add", low, ctx.map("mul", extent, ctx.constant(steps.astype(numpy_dtype(ctx.dtype(corners)))))
    )


def _border_taps(ctx: Context, place: str, extent: Dim) -> tuple[list[tuple[str, str]], str]:
    """Two taps with weights for each position, clamped to the border; -1 to extent counts."""
    size = ctx.extent(extent, ctx.dtype(place))
    inside = ctx.map("and", ctx.map("ge", place, ctx.like(-1, place)), ctx.map("le", place, size))
    last = ctx.extent(extent - 1, ctx.dtype(place))
    clamped = ctx.map("min", ctx.map("max", place, ctx.like(0, place)), last)
    base = ctx.map("floor", clamped)
    fraction = ctx.map("sub", clamped, base)
    bound, zero = ctx.extent(extent - 1, "int64"), ctx.scalar(0, "int64")
    low = ctx.map("max", ctx.map("min", ctx.cast(base, "int64"), bound), zero)
    high = ctx.map("min", ctx.map("add", low, ctx.scalar(1, "int64")), bound)
    return [(low, ctx.map("sub", ctx.like(1, fraction), fraction)), (high, fraction)], inside


@operator("Col2Im", family="sample")
def col2im(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Columns [N, C*taps, blocks] summed into images: a transposed convolution with identity weights."""
    x, image, block = node.required(0), ctx.ints(node.required(1)), ctx.ints(node.required(2))
    if image is None or block is None:
        raise NotCompiled("image_shape and block_shape are data")
    batch, width, _ = ctx.shape(x)
    count = int(np.prod(block))
    if not isinstance(width, int) or width % count:
        ctx.fail(f"{width} rows do not hold whole blocks of {count} elements")
    channels, rank = width // count, len(block)
    strides, dilations = (list(node.attr(name) or [1] * rank) for name in ("strides", "dilations"))
    pads = list(node.attr("pads") or [0] * (2 * rank))
    spans = [(k - 1) * d + 1 for k, d in zip(block, dilations, strict=True)]
    room = [n + pads[i] + pads[rank + i] - spans[i] for i, n in enumerate(image)]
    blocks = [r // s + 1 for r, s in zip(room, strides, strict=True)]
    columns = ctx.reshape(x, (batch, width, *blocks))
    identity = np.tile(np.eye(count).reshape(count, 1, *block), (channels, *(1,) * (rank + 1)))
    weights = ctx.constant(identity.astype(numpy_dtype(ctx.dtype(x))))
    return ctx.onnx(  # type: ignore[return-value]
        "ConvTranspose",
        [columns, weights],
        group=channels,
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=[r % s for r, s in zip(room, strides, strict=True)],
    )

"""Convolutions: float, transposed, integer and quantised."""

from __future__ import annotations

from collections.abc import Sequence

from egc.frontend.context import Context, OnnxNode
from egc.frontend.quant import requantize, zero_based
from egc.frontend.registry import operator
from egc.frontend.windows import Windows, read_windows
from egc.ir.dims import Dim


@operator("Conv", family="conv")
def conv(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Cross-correlation of [N, C, s…] with [M, C/groups, k…], bias added to every channel."""
    out = _conv(ctx, node, node.required(0), node.required(1))
    return [add_bias(ctx, out, node.input(2))]


@operator("ConvInteger", family="conv")
def conv_integer(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Conv of 8-bit integers less their zero points, in int32."""
    x = zero_based(ctx, node.required(0), node.input(2), axis=1)
    w = zero_based(ctx, node.required(1), node.input(3), axis=0)
    return [_conv(ctx, node, x, w)]


@operator("QLinearConv", family="conv")
def qlinear_conv(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Conv of quantised operands: in int32, then scaled, rounded and saturated."""
    x = zero_based(ctx, node.required(0), node.required(2), axis=1)
    w = zero_based(ctx, node.required(3), node.required(5), axis=0)
    out = add_bias(ctx, _conv(ctx, node, x, w), node.input(8))
    w_scale = _per_channel(ctx, node.required(4), ctx.rank(out))
    scale = ctx.map("div", ctx.map("mul", node.required(1), w_scale), node.required(6))
    return [requantize(ctx, out, scale, node.required(7))]


def _conv(ctx: Context, node: OnnxNode, x: str, w: str) -> str:
    sizes = ctx.shape(w)[2:]
    declared = node.attr("kernel_shape")
    if declared and all(isinstance(s, int) for s in sizes) and tuple(declared) != sizes:
        ctx.fail(f"kernel_shape is {list(declared)}, the weights are {ctx.type(w)}")
    x, windows = read_windows(ctx, node, x, sizes)
    return convolve(ctx, x, w, windows, int(node.attr("group", 1)))


def convolve(ctx: Context, x: str, w: str, windows: Windows, groups: int) -> str:
    """The primitive ``conv`` over ``windows``."""
    return ctx.add(
        "conv",
        (x, w),
        strides=windows.strides,
        dilations=windows.dilations,
        low=windows.low,
        high=windows.high,
        groups=groups,
    )


def add_bias(ctx: Context, x: str, bias: str | None) -> str:
    """``x`` [N, M, s…] plus ``bias`` [M], if there is one."""
    return x if bias is None else ctx.map("add", x, _per_channel(ctx, bias, ctx.rank(x)))


def _per_channel(ctx: Context, value: str, rank: int) -> str:
    """``value`` [M] as [M, 1, …] so that it broadcasts over [N, M, s…]; a scalar stays one."""
    if ctx.rank(value) == 0:
        return value
    return ctx.reshape(value, (*ctx.shape(value), *(1,) * (rank - 2)))


@operator("ConvTranspose", family="conv")
def conv_transpose(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The transpose of Conv: zeros between the elements of x, then the mirrored weights."""
    x, w = node.required(0), node.required(1)
    groups = int(node.attr("group", 1))
    _, windows = read_windows(ctx, _without_padding(node), x, ctx.shape(w)[2:])
    extra = tuple(int(v) for v in node.attr("output_padding") or (0,) * len(windows.sizes))
    low, high = _transposed_padding(ctx, node, ctx.shape(x)[2:], windows, extra)
    zero = ctx.like(0, x)
    gaps = (0, 0, *(s - 1 for s in windows.strides))
    if any(gaps):
        x = ctx.add("pad", (x, zero), low=(0,) * len(gaps), high=(0,) * len(gaps), interior=gaps)
    ones = (1,) * len(windows.sizes)
    # Padding p of the transposed convolution leaves span - 1 - p for the plain one; below 0, output is cut.
    before = [span - 1 - p for span, p in zip(windows.spans, low, strict=True)]
    after = [span - 1 - p + e for span, p, e in zip(windows.spans, high, extra, strict=True)]
    plain = Windows(
        windows.sizes,
        ones,
        windows.dilations,
        tuple(max(v, 0) for v in before),
        tuple(max(v, 0) for v in after),
    )
    out = convolve(ctx, x, _mirrored(ctx, w, groups), plain, groups)
    for axis, (start, end) in enumerate(zip(before, after, strict=True), 2):
        if start < 0 or end < 0:
            cut = max(-start, 0)
            out = ctx.slice_axis(out, axis, cut, ctx.shape(out)[axis] - cut - max(-end, 0))
    return [add_bias(ctx, out, node.input(2))]


def _without_padding(node: OnnxNode) -> OnnxNode:
    kept = {k: v for k, v in node.attributes.items() if k not in ("auto_pad", "pads")}
    return OnnxNode(
        node.op_type, node.domain, node.name, node.version, node.opset, node.inputs, node.outputs, kept
    )


def _transposed_padding(
    ctx: Context, node: OnnxNode, extents: Sequence[Dim], windows: Windows, extra: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is taken off at both ends of each axis, by ``pads``, ``auto_pad`` or ``output_shape``."""
    rank = len(windows.sizes)
    mode, wanted = node.attr("auto_pad", "NOTSET"), node.attr("output_shape")
    if not wanted and mode in ("NOTSET", "VALID"):
        pads = tuple(int(p) for p in node.attr("pads") or (0,) * (2 * rank)) if mode == "NOTSET" else ()
        pads = pads or (0,) * (2 * rank)
        if len(pads) != 2 * rank:
            ctx.fail(f"pads has {len(pads)} entries; {rank} spatial axes need {2 * rank}")
        return pads[:rank], pads[rank:]
    low, high = [], []
    for i, (extent, span, stride) in enumerate(zip(extents, windows.spans, windows.strides, strict=True)):
        target = int(wanted[-rank:][i]) if wanted else extent * stride
        total = stride * (extent - 1) + extra[i] + span - target
        if not isinstance(total, int):
            ctx.fail("output_shape fixes the result's extents, which the symbolic extents of x contradict")
        # output_shape may ask for more than there is: the rest is padding of zeros at the end.
        half = max(total, 0) // 2 if total >= 0 else 0
        low.append(half if mode == "SAME_UPPER" else total - half if total >= 0 else 0)
        high.append(total - low[-1])
    return tuple(low), tuple(high)


def _mirrored(ctx: Context, w: str, groups: int) -> str:
    """Weights [C, M/groups, k…] of a transposed convolution as [M, C/groups, k…], reversed along every k."""
    channels, outputs, *taps = ctx.shape(w)
    rank = len(taps)
    if groups > 1:
        w = ctx.reshape(w, (groups, channels // groups, outputs, *taps))
        w = ctx.transpose(w, (0, 2, 1, *range(3, 3 + rank)))
        w = ctx.reshape(w, (groups * outputs, channels // groups, *taps))
    else:
        w = ctx.transpose(w, (1, 0, *range(2, 2 + rank)))
    shape = ctx.shape(w)
    starts = (0, 0, *(t - 1 for t in taps))
    return ctx.add("slice", (w,), starts=starts, sizes=shape, steps=(1, 1, *(-1,) * rank))

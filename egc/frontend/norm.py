"""Normalisations, spelled in sums, differences and square roots; rules recognise the fused forms."""

from __future__ import annotations

from collections.abc import Sequence

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.ir.dims import product

_STASH = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}


def mean(ctx: Context, x: str, axes: Sequence[int]) -> str:
    """The mean of ``x`` over ``axes``, whose extents become 1."""
    count = ctx.extent(product([ctx.shape(x)[a] for a in axes]), ctx.dtype(x))
    return ctx.map("div", ctx.reduce("add", x, axes), count)


def centre(ctx: Context, x: str, axes: Sequence[int]) -> tuple[str, str, str]:
    """``x`` less its mean over ``axes``, the mean, and the variance (of the population)."""
    average = mean(ctx, x, axes)
    centred = ctx.map("sub", x, average)
    return centred, average, mean(ctx, ctx.map("mul", centred, centred), axes)


def deviation(ctx: Context, variance: str, epsilon: float) -> str:
    """sqrt(variance + epsilon)."""
    return ctx.map("sqrt", ctx.map("add", variance, ctx.like(epsilon, variance)))


def per_channel(ctx: Context, value: str, rank: int) -> str:
    """``value`` [C] as [C, 1, …], and [C, s…] as it is: it broadcasts over [N, C, s…] of ``rank`` axes."""
    return ctx.reshape(value, (*ctx.shape(value), *(1,) * max(rank - 1 - ctx.rank(value), 0)))


@operator("BatchNormalization", family="norm")
def batch_normalization(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, as one factor and one term for each channel;
    with opset 7's ``spatial=0`` for each activation, which the shapes of the statistics say.

    In training mode mean and variance are those of the batch, and the running ones are returned too.
    """
    x, scale, bias, running_mean, running_var = (node.required(i) for i in range(5))
    epsilon = float(node.attr("epsilon", 1e-5))
    rank = ctx.rank(x)
    if node.version < 14 and node.wants(1):
        raise NotCompiled("statistics of a batch in the form before opset 14")
    if not node.attr("training_mode", 0):
        return [_affine(ctx, x, scale, bias, running_mean, running_var, epsilon), None, None, None, None]  # type: ignore[list-item]
    axes = [i for i in range(rank) if i != 1]
    _, average, variance = centre(ctx, x, axes)
    average, variance = (ctx.reshape(v, ctx.shape(running_mean)) for v in (average, variance))
    out = _affine(ctx, x, scale, bias, average, variance, epsilon)
    momentum = float(node.attr("momentum", 0.9))
    blended = [
        ctx.map(
            "add",
            ctx.map("mul", running, ctx.like(momentum, running)),
            ctx.map("mul", ctx.cast(now, ctx.dtype(running)), ctx.like(1 - momentum, running)),
        )
        for running, now in ((running_mean, average), (running_var, variance))
    ]
    return [out, *blended]


def _affine(ctx: Context, x: str, scale: str, bias: str, average: str, variance: str, epsilon: float) -> str:
    dtype = ctx.dtype(x)
    wide = "float32" if dtype in ("float16", "bfloat16") else dtype
    scale, bias, average, variance = (ctx.cast(v, wide) for v in (scale, bias, average, variance))
    factor = ctx.map("div", scale, deviation(ctx, variance, epsilon))
    term = ctx.map("sub", bias, ctx.map("mul", average, factor))
    rank = ctx.rank(x)
    scaled = ctx.map("mul", ctx.cast(x, wide), per_channel(ctx, factor, rank))
    return ctx.cast(ctx.map("add", scaled, per_channel(ctx, term, rank)), dtype)


@operator("InstanceNormalization", family="norm")
def instance_normalization(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Each channel of each sample normalised over its spatial axes."""
    x, scale, bias = (node.required(i) for i in range(3))
    rank = ctx.rank(x)
    centred, _, variance = centre(ctx, x, range(2, rank))
    normal = ctx.map("div", centred, deviation(ctx, variance, float(node.attr("epsilon", 1e-5))))
    scaled = ctx.map("mul", normal, per_channel(ctx, scale, rank))
    return [ctx.map("add", scaled, per_channel(ctx, bias, rank))]


@operator("GroupNormalization", family="norm")
def group_normalization(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Groups of channels normalised together; scale and bias per group before opset 21, per channel since."""
    x, scale, bias = (node.required(i) for i in range(3))
    groups = int(node.attr("num_groups", 1))
    shape = ctx.shape(x)
    if groups < 1 or (isinstance(shape[1], int) and shape[1] % groups):
        ctx.fail(f"{shape[1]} channels do not part into {groups} groups")
    wide = _STASH.get(node.attr("stash_type", 1), "float32") if node.version >= 21 else ctx.dtype(x)
    grouped = ctx.reshape(ctx.cast(x, wide), (shape[0], groups, shape[1] // groups, *shape[2:]))
    rank = ctx.rank(grouped)
    centred, _, variance = centre(ctx, grouped, range(2, rank))
    normal = ctx.map("div", centred, deviation(ctx, variance, float(node.attr("epsilon", 1e-5))))
    if node.version < 21:
        scaled = ctx.map("mul", normal, per_channel(ctx, scale, rank))
        return [ctx.reshape(ctx.map("add", scaled, per_channel(ctx, bias, rank)), shape)]
    normal = ctx.cast(ctx.reshape(normal, shape), ctx.dtype(x))
    scaled = ctx.map("mul", normal, per_channel(ctx, scale, len(shape)))
    return [ctx.map("add", scaled, per_channel(ctx, bias, len(shape)))]


@operator("LayerNormalization", family="norm")
def layer_normalization(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x normalised over the axes from ``axis`` on, in the stash type; mean and 1/deviation too."""
    x, scale, bias = node.required(0), node.required(1), node.input(2)
    rank = ctx.rank(x)
    axes = range(ctx.axis(int(node.attr("axis", -1)), rank), rank)
    wide = _STASH.get(node.attr("stash_type", 1), "float32")
    wide = "float64" if ctx.dtype(x) == "float64" else wide
    centred, average, variance = centre(ctx, ctx.cast(x, wide), axes)
    spread = deviation(ctx, variance, float(node.attr("epsilon", 1e-5)))
    normal = ctx.cast(ctx.map("div", centred, spread), ctx.dtype(x))
    out = ctx.map("mul", normal, scale)
    if bias is not None:
        out = ctx.map("add", out, bias)
    return [out, average, ctx.map("reciprocal", spread)]


@operator("RMSNormalization", family="norm")
def rms_normalization(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x / sqrt(mean(x²) + epsilon) * scale over the axes from ``axis`` on, in the stash type."""
    x, scale = node.required(0), node.required(1)
    rank = ctx.rank(x)
    axes = range(ctx.axis(int(node.attr("axis", -1)), rank), rank)
    wide = _STASH.get(node.attr("stash_type", 1), "float32")
    value = ctx.cast(x, "float64" if ctx.dtype(x) == "float64" else wide)
    squares = mean(ctx, ctx.map("mul", value, value), axes)
    normal = ctx.map("div", value, deviation(ctx, squares, float(node.attr("epsilon", 1e-5))))
    return [ctx.map("mul", ctx.cast(normal, ctx.dtype(scale)), scale)]


@operator("LpNormalization", family="norm")
def lp_normalization(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x divided by its 1- or 2-norm along an axis; 0 where the norm is 0."""
    x = node.required(0)
    axis = ctx.axis(int(node.attr("axis", -1)), ctx.rank(x))
    power = int(node.attr("p", 2))
    if power not in (1, 2):
        ctx.fail(f"p is {power}; it is 1 or 2")
    magnitude = ctx.map("abs", x) if power == 1 else ctx.map("mul", x, x)
    norm = ctx.reduce("add", magnitude, (axis,))
    norm = norm if power == 1 else ctx.map("sqrt", norm)
    zero = ctx.like(0, x)
    return [ctx.map("select", ctx.map("eq", norm, zero), zero, ctx.map("div", x, norm))]


@operator("MeanVarianceNormalization", family="norm")
def mean_variance_normalization(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """(x - mean) / (deviation + 1e-9), by default over every axis but the channels."""
    x = node.required(0)
    rank = ctx.rank(x)
    axes = ctx.axes(node.attr("axes") or [a for a in (0, 2, 3) if a < rank], rank)
    average = mean(ctx, x, axes)
    # As the operator's function defines it: the variance is E[x²] - E[x]².
    variance = ctx.map("sub", mean(ctx, ctx.map("mul", x, x), axes), ctx.map("mul", average, average))
    spread = ctx.map("add", ctx.map("sqrt", variance), ctx.like(1e-9, x))
    return [ctx.map("div", ctx.map("sub", x, average), spread)]


@operator("LRN", family="norm")
def local_response_normalization(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x / (bias + alpha/size * sum of squares over ``size`` neighbouring channels) ** beta."""
    x = node.required(0)
    size = int(node.attr("size", 0))
    if size < 1:
        ctx.fail("size must be positive")
    rank = ctx.rank(x)

    def entry(channel: int, other: int) -> tuple[int, ...]:
        return tuple(channel if i == 1 else other for i in range(rank))

    # The window reaches floor((size-1)/2) channels back and ceil((size-1)/2) ahead.
    sums = ctx.add(
        "pool",
        (ctx.map("mul", x, x),),
        fn="add",
        window=entry(size, 1),
        strides=(1,) * rank,
        dilations=(1,) * rank,
        low=entry((size - 1) // 2, 0),
        high=entry(size // 2, 0),
    )
    scaled = ctx.map("mul", sums, ctx.like(float(node.attr("alpha", 1e-4)) / size, x))
    base = ctx.map("add", scaled, ctx.like(float(node.attr("bias", 1.0)), x))
    return [ctx.map("div", x, ctx.map("pow", base, ctx.like(float(node.attr("beta", 0.75)), x)))]

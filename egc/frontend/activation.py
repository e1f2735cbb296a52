"""Activations, spelled by the scalar functions; the rules recognise longer spellings than these."""

from __future__ import annotations

from collections.abc import Sequence

from egc.frontend.context import Context
from egc.frontend.registry import OnnxNode, operator
from egc.ir.dims import product
from egc.ir.types import is_float

FAMILY = "activation"


@operator("Relu", "Softplus", "HardSwish", family=FAMILY)
def named(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Operators that are one scalar function."""
    names = {"Relu": "relu", "Softplus": "softplus", "HardSwish": "hard_swish"}
    return [ctx.map(names[node.op_type], node.required(0))]


def _narrowed(ctx: Context, node: OnnxNode, out: str) -> str:
    return ctx.cast(out, ctx.dtype(node.required(0)))


@operator("LeakyRelu", family=FAMILY)
def leaky_relu(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """alpha x below zero, else x."""
    x = node.required(0)
    return [_below_zero(ctx, x, ctx.map("mul", x, ctx.like(node.attr("alpha", 0.01), x)))]


@operator("PRelu", family=FAMILY)
def prelu(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """slope x below zero, else x."""
    x, slope = node.required(0), node.required(1)
    return [_below_zero(ctx, x, ctx.map("mul", x, slope))]


def _below_zero(ctx: Context, x: str, other: str) -> str:
    """``other`` where ``x < 0``, else ``x``."""
    return ctx.map("select", ctx.map("lt", x, ctx.like(0, x)), other, x)


@operator("Elu", "Selu", family=FAMILY)
def elu(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x where positive, else alpha (eˣ - 1); SELU scales both by gamma (Klambauer et al.,
    arXiv:1706.02515)."""
    x = ctx.widen(node.required(0))
    selu = node.op_type == "Selu"
    alpha = node.attr("alpha", 1.67326319217681884765625 if selu else 1.0)
    expm1 = ctx.map("sub", ctx.map("exp", x), ctx.like(1, x))
    out = _below_zero(ctx, x, ctx.map("mul", expm1, ctx.like(alpha, x)))
    if selu:
        out = ctx.map("mul", out, ctx.like(node.attr("gamma", 1.05070102214813232421875), x))
    return [_narrowed(ctx, node, out)]


@operator("Celu", family=FAMILY)
def celu(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)); Barron, arXiv:1704.07483."""
    x = ctx.widen(node.required(0))
    alpha, zero = ctx.like(node.attr("alpha", 1.0), x), ctx.like(0, x)
    grown = ctx.map("sub", ctx.map("exp", ctx.map("div", x, alpha)), ctx.like(1, x))
    out = ctx.map("add", ctx.map("max", zero, x), ctx.map("min", zero, ctx.map("mul", alpha, grown)))
    return [_narrowed(ctx, node, out)]


@operator("HardSigmoid", family=FAMILY)
def hard_sigmoid(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """alpha x + beta, clipped to 0 … 1."""
    x = ctx.widen(node.required(0))
    line = ctx.map("mul", x, ctx.like(node.attr("alpha", 0.2), x))
    line = ctx.map("add", line, ctx.like(node.attr("beta", 0.5), x))
    return [_narrowed(ctx, node, ctx.map("max", ctx.like(0, x), ctx.map("min", ctx.like(1, x), line)))]


@operator("Softsign", family=FAMILY)
def softsign(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x / (1 + |x|)."""
    x = ctx.widen(node.required(0))
    return [_narrowed(ctx, node, ctx.map("div", x, ctx.map("add", ctx.like(1, x), ctx.map("abs", x))))]


@operator("Mish", family=FAMILY)
def mish(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x tanh(softplus(x)); Misra, arXiv:1908.08681."""
    x = ctx.widen(node.required(0))
    return [_narrowed(ctx, node, ctx.map("mul", x, ctx.map("tanh", ctx.map("softplus", x))))]


@operator("ThresholdedRelu", family=FAMILY)
def thresholded_relu(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x above alpha, else 0."""
    x = node.required(0)
    above = ctx.map("gt", x, ctx.like(node.attr("alpha", 1.0), x))
    return [ctx.map("select", above, x, ctx.like(0, x))]


@operator("Shrink", family=FAMILY)
def shrink(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x + bias below -lambd, x - bias above lambd, else 0."""
    x = node.required(0)
    dtype = ctx.dtype(x)
    # The attributes are floats: on integers the comparison and the shift are done in float and truncated.
    wide = x if is_float(dtype) else ctx.cast(x, "float32")
    bias, edge = ctx.like(node.attr("bias", 0.0), wide), node.attr("lambd", 0.5)
    low = ctx.map("lt", wide, ctx.like(-edge, wide))
    high = ctx.map("gt", wide, ctx.like(edge, wide))
    out = ctx.map("select", high, ctx.map("sub", wide, bias), ctx.like(0, wide))
    return [ctx.cast(ctx.map("select", low, ctx.map("add", wide, bias), out), dtype)]


@operator("Softmax", "LogSoftmax", "Hardmax", family=FAMILY)
def softmax(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Along one axis; before opset 13 over all axes from `axis` on, flattened to one."""
    x = ctx.widen(node.required(0))
    shape = ctx.shape(x)
    old = node.version < 13
    axis = node.attr("axis", 1 if old else -1)
    if not shape or (old and axis == len(shape)):
        ctx.fail(f"axis {axis} is not an axis of {ctx.type(x)}")
    axis = ctx.axis(axis, len(shape))
    axes = tuple(range(axis, len(shape))) if old else (axis,)
    if node.op_type == "Hardmax":
        return [_narrowed(ctx, node, _hardmax(ctx, x, axes))]
    shifted = ctx.map("sub", x, ctx.reduce("max", x, axes))
    exp = ctx.map("exp", shifted)
    total = ctx.reduce("add", exp, axes)
    if node.op_type == "LogSoftmax":
        return [_narrowed(ctx, node, ctx.map("sub", shifted, ctx.map("log", total)))]
    return [_narrowed(ctx, node, ctx.map("div", exp, total))]


def _hardmax(ctx: Context, x: str, axes: tuple[int, ...]) -> str:
    """1 at the first greatest element, 0 elsewhere; several axes are flattened to one and back."""
    shape, axis = ctx.shape(x), axes[0]
    if len(axes) > 1:
        x = ctx.reshape(x, (*shape[:axis], product(shape[axis:])))
    place = ctx.iota([d if i == axis else 1 for i, d in enumerate(ctx.shape(x))], axis)
    best = ctx.add("arg_reduce", (x,), fn="max", axis=axis, last=False)
    return ctx.reshape(ctx.cast(ctx.map("eq", place, best), ctx.dtype(x)), shape)

"""Quantisation: real numbers as integers or small floats by a scale and a zero point; their products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.ir.types import is_float, is_integer, numpy_dtype


def along(ctx: Context, value: str, axis: int, rank: int) -> str:
    """``value`` of one element as a scalar, of one axis as [1, …, n, …, 1] with n at ``axis`` of ``rank``."""
    if ctx.rank(value) == 0:
        return value
    if ctx.shape(value) == (1,):
        return ctx.reshape(value, ())
    if ctx.rank(value) != 1:
        ctx.fail(f"a scale or zero point is {ctx.type(value)}; it has one element or one axis")
    return ctx.reshape(value, tuple(ctx.shape(value)[0] if i == axis else 1 for i in range(rank)))


def zero_based(ctx: Context, value: str, zero: str | None, axis: int) -> str:
    """``value`` as int32 less its zero point, which is one number or one for each element of ``axis``."""
    wide = ctx.cast(value, "int32")
    if zero is None:
        return wide
    data = ctx.const(zero)
    if data is not None and not np.any(data):
        return wide
    return ctx.map("sub", wide, ctx.cast(along(ctx, zero, axis, ctx.rank(value)), "int32"))


def saturate(ctx: Context, value: str, zero: str | None, dtype: str) -> str:
    """``value`` (float) rounded half to even, moved by ``zero`` and saturated to the integers ``dtype``."""
    rounded = ctx.map("round", value)
    if zero is not None:
        rounded = ctx.map("add", rounded, ctx.cast(zero, ctx.dtype(value)))
    low, high = integer_range(dtype)
    clipped = ctx.map("min", ctx.map("max", rounded, ctx.like(low, rounded)), ctx.like(high, rounded))
    return ctx.cast(clipped, dtype)


def integer_range(dtype: str) -> tuple[int, int]:
    """The least and the greatest value of an integer type."""
    if dtype in ("int4", "uint4", "int2", "uint2"):
        bits = int(dtype[-1])
        return (0, (1 << bits) - 1) if dtype.startswith("u") else (-(1 << bits - 1), (1 << bits - 1) - 1)
    info = np.iinfo(numpy_dtype(dtype))
    return int(info.min), int(info.max)


def requantize(ctx: Context, value: str, scale: str, zero: str) -> str:
    """An int32 accumulator times ``scale``, quantised with ``zero``, whose type the result has."""
    real = ctx.map("mul", ctx.cast(value, ctx.dtype(scale)), scale)
    return saturate(ctx, real, ctx.reshape(zero, ()) if ctx.shape(zero) == (1,) else zero, ctx.dtype(zero))


@operator("MatMulInteger", family="quant")
def matmul_integer(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The product of 8-bit matrices less their zero points (per row of A, per column of B), in int32."""
    a, b = node.required(0), node.required(1)
    a = zero_based(ctx, a, _row(ctx, node.input(2), ctx.rank(a)), axis=max(ctx.rank(a) - 2, 0))
    b = zero_based(ctx, b, node.input(3), axis=ctx.rank(b) - 1)
    return ctx.onnx("MatMul", [a, b])  # type: ignore[return-value]


def _row(ctx: Context, zero: str | None, rank: int) -> str | None:
    if zero is not None and rank < 2 and ctx.rank(zero) == 1 and ctx.shape(zero) != (1,):
        ctx.fail("a zero point for each row needs a matrix")
    return zero


@operator("QLinearMatMul", family="quant")
def qlinear_matmul(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The product of quantised matrices: in int32, then scaled, rounded and saturated."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (node.required(i) for i in range(8))
    rows, columns = ctx.rank(a), ctx.rank(b)
    if ctx.dtype(y_zero).startswith("float8") or not is_integer(ctx.dtype(a)):
        raise NotCompiled("quantised to a float8 type")
    (product,) = ctx.onnx(
        "MatMul",
        [_centred(ctx, a, a_zero, rows - 2), _centred(ctx, b, b_zero, columns - 1)],
    )
    assert product is not None
    rank = ctx.rank(product)
    scale = ctx.map("mul", _aligned(ctx, a_scale, rank - 2, rank), _aligned(ctx, b_scale, rank - 1, rank))
    scale = ctx.map("div", scale, _aligned(ctx, y_scale, rank - 2, rank))
    return [requantize(ctx, product, scale, _aligned(ctx, y_zero, rank - 2, rank))]


def _centred(ctx: Context, value: str, zero: str, axis: int) -> str:
    wide = ctx.cast(value, "int32")
    return ctx.map("sub", wide, ctx.cast(_aligned(ctx, zero, axis, ctx.rank(value)), "int32"))


def _aligned(ctx: Context, value: str, axis: int, rank: int) -> str:
    """A scale or zero point as it broadcasts: one with several axes already does."""
    return value if ctx.rank(value) > 1 else along(ctx, value, axis, rank)


@operator("DynamicQuantizeLinear", family="quant")
def dynamic_quantize_linear(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x as uint8 with a scale and a zero point from its own range, which is made to hold 0."""
    x = node.required(0)
    axes = range(ctx.rank(x))
    zero = ctx.like(0, x)
    high = ctx.map("max", ctx.reduce("max", x, axes, keepdims=False), zero)
    low = ctx.map("min", ctx.reduce("min", x, axes, keepdims=False), zero)
    scale = ctx.map("div", ctx.map("sub", high, low), ctx.like(255, x))
    point = ctx.map("div", ctx.map("sub", zero, low), scale)
    zero_point = saturate(ctx, point, None, "uint8")
    return [saturate(ctx, ctx.map("div", x, scale), zero_point, "uint8"), scale, zero_point]


@operator("QuantizeLinear", family="quant")
def quantize_linear(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """round(x / scale) + zero point, saturated, per tensor, per axis or per block of an axis."""
    x, scale, zero = node.required(0), node.required(1), node.input(2)
    dtype = _quantized_dtype(ctx, node, zero)
    precision = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}.get(node.attr("precision", 0))
    if precision is None:
        precision = "float32" if ctx.dtype(x) == "int32" else ctx.dtype(scale)
    x = ctx.cast(x, precision)
    scale = _spread(ctx, node, ctx.cast(scale, precision), x)
    scaled = ctx.map("div", x, scale)
    offset = None if zero is None else _spread(ctx, node, zero, x)
    if is_integer(dtype):
        return [saturate(ctx, scaled, offset, dtype)]
    if offset is not None and not _is_zero(ctx, offset):
        scaled = ctx.map("add", scaled, ctx.cast(offset, precision))
    saturated = int(node.attr("saturate", 1))
    return ctx.onnx("Cast", [scaled], to=_ONNX_TYPE[dtype], saturate=saturated)  # type: ignore[return-value]


_ONNX_TYPE = {
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "float4_e2m1fn": 23,
}
_QUANTIZED = {
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    21: "uint4",
    22: "int4",
    25: "uint2",
    26: "int2",
    **{number: name for name, number in _ONNX_TYPE.items()},
}


def _quantized_dtype(ctx: Context, node: OnnxNode, zero: str | None) -> str:
    if zero is not None:
        return ctx.dtype(zero)
    number = int(node.attr("output_dtype", 0)) or 2
    if number not in _QUANTIZED:
        ctx.fail(f"output_dtype {number} is not a type to quantise to")
    return _QUANTIZED[number]


def _is_zero(ctx: Context, value: str) -> bool:
    data = ctx.const(value)
    return data is not None and not np.any(data.astype(np.float32))


@operator("DequantizeLinear", family="quant")
def dequantize_linear(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """(x - zero point) * scale, per tensor, per axis or per block of an axis."""
    x, scale, zero = node.required(0), node.required(1), node.input(2)
    names = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
    result = names.get(node.attr("output_dtype", 0), ctx.dtype(scale))
    spread = _spread(ctx, node, scale, x)
    if is_float(ctx.dtype(x)):
        value = ctx.cast(x, "float32")
        if zero is not None and not _is_zero(ctx, zero):
            value = ctx.map("sub", value, ctx.cast(_spread(ctx, node, zero, x), "float32"))
    else:
        wide = ctx.cast(x, "int32")
        if zero is not None and not _is_zero(ctx, zero):
            wide = ctx.map("sub", wide, ctx.cast(_spread(ctx, node, zero, x), "int32"))
        value = ctx.cast(wide, "float32" if ctx.dtype(scale) != "float64" else "float64")
    product = ctx.map("mul", value, ctx.cast(spread, ctx.dtype(value)))
    return [ctx.cast(product, result)]


def _spread(ctx: Context, node: OnnxNode, value: str, x: str) -> str:
    """A scale or zero point as it broadcasts over ``x``: per tensor, per axis, or repeated for each block."""
    rank = ctx.rank(x)
    block = int(node.attr("block_size", 0))
    if not block or ctx.rank(value) != rank or rank == 0:
        axis = int(node.attr("axis", 1))
        axis = axis % rank if rank and -rank <= axis < rank else 0
        return along(ctx, value, axis, rank)
    axis = ctx.axis(int(node.attr("axis", 1)), rank)
    shape, extent = ctx.shape(value), ctx.shape(x)[axis]
    tall = ctx.unsqueeze(value, (axis + 1,))
    tall = ctx.expand(tall, (*shape[: axis + 1], block, *shape[axis + 1 :]))
    flat = ctx.reshape(tall, (*shape[:axis], shape[axis] * block, *shape[axis + 1 :]))
    return ctx.slice_axis(flat, axis, 0, extent)

"""Elementwise operators: arithmetic, comparison, logic, bits, casts; one scalar function each, or a few."""

from __future__ import annotations

import math
from collections.abc import Sequence

from egc.frontend.context import Context
from egc.frontend.proto import BadProto, element_type
from egc.frontend.registry import NotCompiled, OnnxNode, operator
from egc.ir.types import COMPLEX, SMALL_FLOATS, is_float, is_integer

FAMILY = "elementwise"

_UNARY = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "BitwiseNot": "bit_not",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "reciprocal",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}
_BINARY = {
    "Add": "add",
    "And": "and",
    "BitwiseAnd": "bit_and",
    "BitwiseOr": "bit_or",
    "BitwiseXor": "bit_xor",
    "Div": "div",
    "Equal": "eq",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "Less": "lt",
    "LessOrEqual": "le",
    "Mul": "mul",
    "Or": "or",
    "Sub": "sub",
    "Xor": "xor",
}
_VARIADIC = {"Sum": "add", "Mean": "add", "Max": "max", "Min": "min"}
_INTEGER_IDENTITIES = frozenset({"ceil", "floor", "round"})


# Where rounding leaves the finite values of a float8: the middle between the greatest and the next power's
# first, which itself rounds to the even one of the two; what becomes of larger magnitudes (OCP 8-bit Floating
# Point Specification, and arXiv:2206.02915 for the fnuz types). ONNX's Cast lists the same.
_BEYOND: dict[str, tuple[str, float, float]] = {
    "float8_e4m3fn": ("gt", 464.0, math.nan),
    "float8_e4m3fnuz": ("ge", 248.0, math.nan),
    "float8_e5m2": ("ge", 61440.0, math.inf),
    "float8_e5m2fnuz": ("ge", 61440.0, math.nan),
}


def _cast_beyond(ctx: Context, x: str, dtype: str) -> str:
    """``x`` as a float8 that does not saturate: beyond its magnitudes NaN, or in float8_e5m2 infinities."""
    if dtype not in _BEYOND:
        raise NotCompiled(f"casts to {dtype} that do not saturate run on the host")
    compare, bound, special = _BEYOND[dtype]
    wide = ctx.widen(x)
    beyond = ctx.map(compare, ctx.map("abs", wide), ctx.like(bound, wide))
    value = ctx.scalar(special, dtype)
    if special == math.inf:
        below = ctx.map("lt", wide, ctx.like(0, wide))
        value = ctx.map("select", below, ctx.scalar(-special, dtype), value)
    return ctx.map("select", beyond, value, ctx.cast(x, dtype))


def numeric(ctx: Context, value: str) -> str:
    """``value``; NotCompiled where its elements are text, objects or complex numbers."""
    dtype = ctx.dtype(value)
    if dtype in ("string", "object", *COMPLEX):
        raise NotCompiled(f"{dtype} operands run on the host")
    return value


@operator(*_UNARY, family=FAMILY)
def unary(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Operators of one operand that are one scalar function; rounding leaves integers as they are."""
    x, fn = numeric(ctx, node.required(0)), _UNARY[node.op_type]
    if fn in _INTEGER_IDENTITIES and not is_float(ctx.dtype(x)):
        return [x]
    return [ctx.map(fn, x)]


@operator(*_BINARY, family=FAMILY)
def binary(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Operators of two operands that are one scalar function."""
    return [ctx.map(_BINARY[node.op_type], numeric(ctx, node.required(0)), numeric(ctx, node.required(1)))]


@operator(*_VARIADIC, family=FAMILY)
def variadic(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Any number of operands, combined from the left."""
    if not node.inputs:
        ctx.fail("it has no operands")
    out = numeric(ctx, node.required(0))
    for index in range(1, len(node.inputs)):
        out = ctx.map(_VARIADIC[node.op_type], out, node.required(index))
    if node.op_type == "Mean" and len(node.inputs) > 1:
        out = ctx.map("div", out, ctx.like(len(node.inputs), out))
    return [out]


@operator("Pow", family=FAMILY)
def power(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The result has the dtype of the base, whatever the exponent's."""
    x, y = numeric(ctx, node.required(0)), numeric(ctx, node.required(1))
    dtype = ctx.dtype(x)
    if is_integer(dtype) and is_float(ctx.dtype(y)):
        # As numpy does: raise in double, and truncate; but a whole power that rounding put just below itself
        # stays whole. The exponents are float32, whose powers lie further than that from whole numbers.
        raised = ctx.map("pow", ctx.cast(x, "float64"), ctx.cast(y, "float64"))
        whole = ctx.map("round", raised)
        away = ctx.map("abs", ctx.map("sub", raised, whole))
        near = ctx.map("le", away, ctx.map("mul", ctx.map("abs", whole), ctx.like(1e-12, raised)))
        return [ctx.cast(ctx.map("select", near, whole, raised), dtype)]
    exponent = ctx.scalar_const(y)
    if exponent is not None and is_float(dtype) and ctx.rank(y) <= ctx.rank(x):
        if exponent == 2:
            return [ctx.map("mul", x, x)]
        if exponent == 3:
            return [ctx.map("mul", x, ctx.map("mul", x, x))]
        if exponent == 1:
            return [x]
        if exponent == 0.5:
            return [ctx.map("sqrt", x)]
    return [ctx.map("pow", x, ctx.cast(y, dtype))]


@operator("Mod", family=FAMILY)
def modulo(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The divisor's sign, or with `fmod` the dividend's."""
    x, y = numeric(ctx, node.required(0)), node.required(1)
    if node.attr("fmod", 0):
        return [ctx.map("fmod", x, y)]
    return [ctx.map("mod", x, y)]


@operator("BitShift", family=FAMILY)
def bit_shift(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Unsigned and signed shifts by whole bits."""
    directions = {"LEFT": "shift_left", "RIGHT": "shift_right"}
    direction = node.attr("direction")
    if direction not in directions:
        ctx.fail(f"the direction {direction!r} is neither LEFT nor RIGHT")
    return [ctx.map(directions[direction], node.required(0), node.required(1))]


@operator("IsInf", family=FAMILY)
def is_inf(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Infinities of either sign, or of the one asked for."""
    x = node.required(0)
    negative, positive = node.attr("detect_negative", 1), node.attr("detect_positive", 1)
    if negative and positive:
        return [ctx.map("isinf", x)]
    if not negative and not positive:
        return [ctx.expand(ctx.scalar(False, "bool"), ctx.shape(x))]
    infinite = ctx.map("isinf", x)
    sign = ctx.map("lt" if negative else "gt", x, ctx.like(0, x))
    return [ctx.map("and", infinite, sign)]


@operator("Where", family=FAMILY)
def where(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The second operand where the first holds, else the third."""
    a, b = numeric(ctx, node.required(1)), node.required(2)
    return [ctx.map("select", node.required(0), a, b)]


@operator("Clip", family=FAMILY)
def clip(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """min(max(x, low), high): the upper bound wins where the bounds cross."""
    out = node.required(0)
    if node.version < 11:
        bounds = [
            None if (v := node.attr(k)) is None or abs(v) > 3.4e38 else ctx.like(v, out)
            for k in ("min", "max")
        ]
    else:
        bounds = [node.input(1), node.input(2)]
    for fn, bound in zip(("max", "min"), bounds, strict=True):
        if bound is not None:
            out = ctx.map(fn, out, ctx.reshape(bound, ()) if ctx.type(bound).size == 1 else bound)
    return [out]


@operator("Cast", family=FAMILY)
def cast(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """To the element type of the attribute."""
    try:
        dtype = element_type(node.attr("to"))
    except BadProto as error:
        ctx.fail(str(error))
    return [cast_to(ctx, node, dtype)]


@operator("CastLike", family=FAMILY)
def cast_like(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """To the second operand's element type."""
    return [cast_to(ctx, node, ctx.dtype(node.required(1)))]


def cast_to(ctx: Context, node: OnnxNode, dtype: str) -> str:
    """The first operand as ``dtype``; NotCompiled for text and for the rounding modes that ``cast`` does
    not have."""
    x = numeric(ctx, node.required(0))
    if dtype in ("string", *COMPLEX):
        raise NotCompiled(f"casts to {dtype} run on the host")
    if dtype in SMALL_FLOATS and not node.attr("saturate", 1) and is_float(ctx.dtype(x)):
        return _cast_beyond(ctx, x, dtype)
    if dtype == "float8_e8m0fnu" and node.attr("round_mode", "up") != "nearest":
        raise NotCompiled("casts to float8_e8m0fnu that round up or down run on the host")
    return ctx.cast(x, dtype)


@operator("Identity", family=FAMILY)
def identity(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The operand itself."""
    return [node.required(0)]


@operator("Dropout", family=FAMILY)
def dropout(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """In inference nothing is dropped: the identity, and a mask of ones."""
    x = node.required(0)
    training, ratio = node.input(2), node.input(1)
    if training is not None and ctx.scalar_const(training) is not False and ctx.scalar_const(ratio) != 0:
        raise NotCompiled("dropping at random in training mode runs on the host")
    dtype = "bool" if node.version >= 10 else ctx.dtype(x)
    return [x, ctx.expand(ctx.scalar(1, dtype), ctx.shape(x))] if node.wants(1) else [x]


@operator("Constant", family=FAMILY)
def constant(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The value of whichever attribute holds it."""
    import numpy as np

    if len(node.attributes) != 1:
        ctx.fail("it needs exactly one value")
    ((name, value),) = node.attributes.items()
    match name:
        case "value" | "sparse_value":
            return [ctx.constant(value)]
        case "value_float" | "value_floats":
            return [ctx.constant(np.array(value, dtype=np.float32))]
        case "value_int" | "value_ints":
            return [ctx.constant(np.array(value, dtype=np.int64))]
        case "value_string" | "value_strings":
            return [ctx.constant(np.array(value, dtype=object))]
    return ctx.fail(f"{name!r} is no value")

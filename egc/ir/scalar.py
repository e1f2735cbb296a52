"""The scalar functions: one table that every stage reads.

A function is named, has an arity, a rule for its result dtype and, where it is not primitive, a definition by
other functions. Primitive functions have a numpy meaning here and an LLVM meaning in ``egc/codegen``; a
defined function (``silu``) needs neither. The rule files know the same functions as the constructors of the
sort ``Fn``: ``silu`` is ``(Silu)``, ``gelu_erf`` is ``(GeluErf)``.

Integer division truncates toward zero and ``mod`` takes the divisor's sign for integers and floats alike, as
ONNX defines them; ``fmod`` takes the dividend's sign. ``min`` and ``max`` propagate NaN,
``round`` rounds half to even.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct


class Fn(Struct, frozen=True):
    """One scalar function.

    ``result`` is ``"same"`` (the dtype of the last operand), or a dtype name. ``definition`` builds the
    function from other functions: it takes ``call(name, *args)``, ``const(value)`` and the operands.
    ``flops`` is the number of vector instructions it costs per element, a rough figure that the cost models
    scale. ``reassociates`` says that evaluating it changes rounding against its ONNX spelling.
    """

    name: str
    arity: int
    result: str = "same"
    numpy: Callable[..., Any] | None = None
    definition: Callable[..., Any] | None = None
    flops: int = 1

    @property
    def constructor(self) -> str:
        """The name of this function in rule files: CamelCase."""
        return "".join(part.capitalize() for part in self.name.split("_"))


def _divide(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind in "iu":
        safe = np.where(b == 0, 1, b)
        quotient = np.floor_divide(a, safe)
        # numpy floors; ONNX truncates: move up by one where the signs differ and it does not divide.
        inexact = (np.remainder(a, safe) != 0) & ((a < 0) != (safe < 0))
        return np.where(b == 0, 0, quotient + inexact).astype(a.dtype)
    return np.divide(a, b)


def _mod(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if b.dtype.kind in "iu":
        return np.where(b == 0, 0, np.remainder(a, np.where(b == 0, 1, b))).astype(a.dtype)
    return np.mod(a, b)


def _fmod(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if b.dtype.kind in "iu":
        return np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b))).astype(a.dtype)
    return np.fmod(a, b)


def _pow(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        # Integer powers wrap, as products do; numpy refuses negative exponents, whose powers truncate to 0,
        # 1 or -1.
        whole = np.power(a, np.maximum(b, 0).astype(a.dtype))
        return np.where(b < 0, np.power(a.astype(np.float64), np.minimum(b, 0)).astype(a.dtype), whole)
    # numpy has ways of its own for scalar exponents: √x for x^½, also of -∞. A power does not hang on shapes.
    shape = np.broadcast_shapes(a.shape, b.shape)
    base, exponent = (np.broadcast_to(x, shape or (1,)).copy() for x in (a, b))
    if a.dtype.kind in "iu":
        base = base.astype(np.float64)
    power = np.where(exponent == 2, base * base, np.power(base, exponent))  # a square rounds once
    return power.astype(a.dtype).reshape(shape)


def _erf(x: Any) -> Any:
    x = np.asarray(x)
    out = np.array([math.erf(v) for v in x.astype(np.float64).ravel()], dtype=np.float64)
    return out.reshape(x.shape).astype(x.dtype)


def _shift_left(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    bits = a.dtype.itemsize * 8
    return np.where(b >= bits, 0, np.left_shift(a, np.minimum(b, bits - 1).astype(a.dtype))).astype(a.dtype)


def _shift_right(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    bits = a.dtype.itemsize * 8
    shifted = np.right_shift(a, np.minimum(b, bits - 1).astype(a.dtype))
    # A signed value keeps its sign bit, so that all bits are copies of it when none is left.
    return (shifted if a.dtype.kind == "i" else np.where(b >= bits, 0, shifted)).astype(a.dtype)


_PRIMITIVES = (
    Fn("neg", 1, numpy=np.negative),
    Fn("abs", 1, numpy=np.abs),
    Fn("exp", 1, numpy=np.exp, flops=10),
    Fn("log", 1, numpy=np.log, flops=14),
    Fn("sqrt", 1, numpy=np.sqrt, flops=8),
    Fn("floor", 1, numpy=np.floor),
    Fn("ceil", 1, numpy=np.ceil),
    Fn("round", 1, numpy=np.round),
    Fn("sign", 1, numpy=np.sign, flops=2),
    Fn("sin", 1, numpy=np.sin, flops=20),
    Fn("cos", 1, numpy=np.cos, flops=20),
    Fn("tan", 1, numpy=np.tan, flops=40),
    Fn("asin", 1, numpy=np.arcsin, flops=30),
    Fn("acos", 1, numpy=np.arccos, flops=30),
    Fn("atan", 1, numpy=np.arctan, flops=25),
    Fn("sinh", 1, numpy=np.sinh, flops=25),
    Fn("cosh", 1, numpy=np.cosh, flops=25),
    Fn("tanh", 1, numpy=np.tanh, flops=14),
    Fn("asinh", 1, numpy=np.arcsinh, flops=30),
    Fn("acosh", 1, numpy=np.arccosh, flops=30),
    Fn("atanh", 1, numpy=np.arctanh, flops=30),
    Fn("erf", 1, numpy=_erf, flops=18),
    Fn("isnan", 1, "bool", numpy=np.isnan),
    Fn("isinf", 1, "bool", numpy=np.isinf),
    Fn("not", 1, "bool", numpy=np.logical_not),
    Fn("bit_not", 1, numpy=np.bitwise_not),
    Fn("add", 2, numpy=np.add),
    Fn("sub", 2, numpy=np.subtract),
    Fn("mul", 2, numpy=np.multiply),
    Fn("div", 2, numpy=_divide, flops=6),
    Fn("mod", 2, numpy=_mod, flops=8),
    Fn("fmod", 2, numpy=_fmod, flops=8),
    Fn("pow", 2, numpy=_pow, flops=30),
    Fn("atan2", 2, numpy=np.arctan2, flops=30),
    Fn("min", 2, numpy=np.minimum),
    Fn("max", 2, numpy=np.maximum),
    Fn("eq", 2, "bool", numpy=np.equal),
    Fn("ne", 2, "bool", numpy=np.not_equal),
    Fn("lt", 2, "bool", numpy=np.less),
    Fn("le", 2, "bool", numpy=np.less_equal),
    Fn("gt", 2, "bool", numpy=np.greater),
    Fn("ge", 2, "bool", numpy=np.greater_equal),
    Fn("and", 2, "bool", numpy=np.logical_and),
    Fn("or", 2, "bool", numpy=np.logical_or),
    Fn("xor", 2, "bool", numpy=np.logical_xor),
    Fn("bit_and", 2, numpy=np.bitwise_and),
    Fn("bit_or", 2, numpy=np.bitwise_or),
    Fn("bit_xor", 2, numpy=np.bitwise_xor),
    Fn("shift_left", 2, numpy=_shift_left),
    Fn("shift_right", 2, numpy=_shift_right),
    Fn("select", 3, numpy=np.where),
)

# Definitions take (call, const, *operands). GELU: Hendrycks & Gimpel, arXiv:1606.08415; the tanh form is its
# eq. 2. Hard-swish and hard-sigmoid (slope 1/6, shift 1/2): Howard et al., arXiv:1905.02244.
_DEFINED = (
    Fn("relu", 1, definition=lambda c, k, x: c("max", x, k(0.0)), flops=1),
    Fn("reciprocal", 1, definition=lambda c, k, x: c("div", k(1.0), x), flops=6),
    Fn("rsqrt", 1, definition=lambda c, k, x: c("div", k(1.0), c("sqrt", x)), flops=12),
    Fn(
        "sigmoid",
        1,
        definition=lambda c, k, x: c("div", k(1.0), c("add", k(1.0), c("exp", c("neg", x)))),
        flops=17,
    ),
    Fn("silu", 1, definition=lambda c, k, x: c("div", x, c("add", k(1.0), c("exp", c("neg", x)))), flops=17),
    Fn(
        "softplus",
        1,
        # log(1 + eˣ) = max(x, 0) + log(1 + e^(-|x|)), which does not overflow.
        definition=lambda c, k, x: c(
            "add",
            c("max", x, k(0.0)),
            c("log", c("add", k(1.0), c("exp", c("neg", c("abs", x))))),
        ),
        flops=28,
    ),
    Fn(
        "gelu_erf",
        1,
        definition=lambda c, k, x: c(
            "mul",
            c("mul", k(0.5), x),
            c("add", k(1.0), c("erf", c("mul", x, k(math.sqrt(0.5))))),
        ),
        flops=22,
    ),
    Fn(
        "gelu_tanh",
        1,
        definition=lambda c, k, x: c(
            "mul",
            c("mul", k(0.5), x),
            c(
                "add",
                k(1.0),
                c(
                    "tanh",
                    c(
                        "mul",
                        k(math.sqrt(2.0 / math.pi)),
                        c("add", x, c("mul", k(0.044715), c("mul", x, c("mul", x, x)))),
                    ),
                ),
            ),
        ),
        flops=22,
    ),
    Fn(
        "hard_sigmoid",
        1,
        definition=lambda c, k, x: c(
            "max",
            k(0.0),
            c("min", k(1.0), c("add", c("mul", x, k(1.0 / 6.0)), k(0.5))),
        ),
        flops=4,
    ),
    Fn(
        "hard_swish",
        1,
        definition=lambda c, k, x: c(
            "mul",
            x,
            c("max", k(0.0), c("min", k(1.0), c("add", c("mul", x, k(1.0 / 6.0)), k(0.5)))),
        ),
        flops=5,
    ),
)

FUNCTIONS: Mapping[str, Fn] = {fn.name: fn for fn in (*_PRIMITIVES, *_DEFINED)}
BY_CONSTRUCTOR: Mapping[str, Fn] = {fn.constructor: fn for fn in FUNCTIONS.values()}

# Reductions: the combining function and its identity as a function of the dtype.
COMBINERS: tuple[str, ...] = ("add", "mul", "max", "min", "and", "or")


def combiner_identity(combine: str, dtype: str) -> int | float | bool:
    """The neutral element of a reduction by ``combine`` over ``dtype`` (-inf for ``max`` over floats)."""
    from egc.ir.types import is_float, numpy_dtype

    if combine in ("and", "or"):
        return combine == "and"
    if combine in ("add", "mul"):
        return 0 if combine == "add" else 1
    if dtype == "bool":
        return combine == "min"
    low = combine == "max"
    if is_float(dtype):
        return -math.inf if low else math.inf
    info = np.iinfo(numpy_dtype(dtype))
    return int(info.min if low else info.max)


def apply_numpy(name: str, args: tuple[Any, ...]) -> Any:
    """``name`` applied elementwise to numpy operands of one dtype (broadcast), as ONNX defines it,
    warnings silent.
    """
    fn = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        if fn.numpy is not None:
            return fn.numpy(*args)
        assert fn.definition is not None
        dtype = np.asarray(args[-1]).dtype
        return fn.definition(
            lambda inner, *operands: apply_numpy(inner, operands),
            lambda value: np.asarray(value, dtype=dtype),
            *args,
        )


def result_dtype(name: str, dtypes: tuple[str, ...]) -> str:
    """The dtype of ``name`` applied to operands of ``dtypes``."""
    rule = FUNCTIONS[name].result
    return (
        dtypes[-1]
        if rule == "same" and name not in ("shift_left", "shift_right", "pow")
        else (dtypes[0] if rule == "same" else rule)
    )

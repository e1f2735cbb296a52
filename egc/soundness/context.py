"""What random operands and attributes are drawn from, and which dtypes an operator takes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from msgspec import Struct

from egc.ir.types import FLOATS, TensorType, is_float, is_integer

_SHORT = 8  # extents of which a shape may have several

Operands = Sequence[TensorType | None]
Attrs = Mapping[str, Any]

# What each scalar function takes, where that is not every number (ONNX's own type constraints).
# fmt: off
_FLOAT_ONLY = frozenset({
    "exp", "log", "sqrt", "floor", "ceil", "round", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "isnan", "isinf", "atan2", "reciprocal", "rsqrt",
    "sigmoid", "silu", "softplus", "gelu_erf", "gelu_tanh", "hard_sigmoid", "hard_swish",
})
# fmt: on
BOOL_ONLY = frozenset({"and", "or", "xor", "not"})
_INT_ONLY = frozenset({"bit_and", "bit_or", "bit_xor", "bit_not", "shift_left", "shift_right"})
_ANY = frozenset({"eq", "ne", "select"})


def takes(fn: str, dtype: str) -> bool:
    """Whether the scalar function ``fn`` is defined for operands of ``dtype``."""
    if fn in _ANY:
        return True
    if fn in BOOL_ONLY:
        return dtype == "bool"
    if fn in _FLOAT_ONLY:
        return dtype in FLOATS
    if fn in _INT_ONLY:
        return is_integer(dtype) and (not fn.startswith("shift") or dtype.startswith("u"))
    if fn in ("neg", "abs", "sign"):
        return is_float(dtype) or (is_integer(dtype) and not dtype.startswith("u"))
    return dtype != "bool"


def admits(op: str, attrs: Attrs, dtypes: Sequence[str]) -> bool:
    """Whether a model may apply an operator to operands of these dtypes."""
    if op == "map":
        fn = attrs["fn"]
        return all(takes(fn, dtype) for dtype in (dtypes[1:] if fn == "select" else dtypes))
    if op in ("reduce", "pool", "cumulate"):
        return (attrs["fn"] in ("and", "or")) == (dtypes[0] == "bool")
    if op in ("softmax", "layer_norm", "rms_norm", "attention"):
        return dtypes[0] in FLOATS
    return op not in ("matmul", "conv", "conv_channels_last", "arg_reduce", "topk") or dtypes[0] != "bool"


class Context(Struct):
    """One attempt: its randomness, and the dtype, rank and extents that most of its tensors have."""

    rng: random.Random
    dtype: str
    rank: int
    extents: Sequence[int]

    def extent(self) -> int:
        """An extent."""
        return self.rng.choice(self.extents)

    def shape(self, rank: int) -> tuple[int, ...]:
        """A shape of that rank; one of many axes has short ones, and one axis at most is long."""
        shape: list[int] = []
        for _ in range(rank):
            most = 3 if rank >= 4 else max(self.extents) if max(shape, default=0) <= _SHORT else _SHORT
            shape.append(min(self.extent(), most))
        return tuple(shape)

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.rng.random() < probability

    def axis(self, rank: int) -> int:
        """An axis; 0 where there is none, which inference rejects."""
        return self.rng.randrange(rank) if rank else 0

    def dtype_like(self, operands: Operands) -> str:
        """The dtype of an operand that is known, else the usual one."""
        return next((t.dtype for t in operands if t is not None), self.dtype)

    def broadcastable(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts with ``shape``: usually equal, of the same rank or a scalar."""
        choice = self.rng.random()
        if choice < 0.45:
            return tuple(shape)
        if choice < 0.55:
            return ()
        if choice < 0.75:
            return tuple(1 if self.chance(0.5) else d for d in shape)
        if choice < 0.85 and shape:
            return (*(1 for _ in shape[:-1]), shape[-1])
        return tuple((self.extent() if d == 1 else 1 if self.chance(0.3) else d) for d in shape)


def row_vector(shape: Sequence[int]) -> tuple[int, ...]:
    """The row vector of the last extent."""
    return (*(1 for _ in shape[:-1]), *shape[-1:])


def regrouped(shape: Sequence[int], c: Context) -> tuple[int, ...]:
    """Another shape of as many elements: axes split, merged, added or dropped."""
    size, dims = prod(shape), list(shape)
    for _ in range(c.rng.choice((0, 1, 1, 2))):
        kind = c.rng.random()
        if kind < 0.4 and dims:
            i = c.rng.randrange(len(dims))
            factor = c.rng.choice([f for f in range(1, dims[i] + 1) if dims[i] % f == 0] or [1])
            dims[i : i + 1] = [factor, dims[i] // factor] if c.chance(0.5) else [dims[i] // factor, factor]
        elif kind < 0.8 and len(dims) > 1:
            i = c.rng.randrange(len(dims) - 1)
            dims[i : i + 2] = [dims[i] * dims[i + 1]]
        elif kind < 0.9 or not dims:
            dims.insert(c.rng.randrange(len(dims) + 1), 1)
        else:
            dims = [size]
    return tuple(dims)

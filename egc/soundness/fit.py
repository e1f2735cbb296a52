"""Random operands and attributes that an operator takes.

For each operator there is an order in which operands (numbers) and attributes (names) are chosen, and a
function that chooses one of them, given the others that are known. What it returns may still not fit where a
rule binds the rest; type inference then rejects it, and another attempt is made.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from egc.ir.ops import OPS
from egc.ir.scalar import FUNCTIONS
from egc.ir.types import FLOATS, TensorType, is_float, is_integer
from egc.soundness.values import Perm

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
_BOOL_ONLY = frozenset({"and", "or", "xor", "not"})
_INT_ONLY = frozenset({"bit_and", "bit_or", "bit_xor", "bit_not", "shift_left", "shift_right"})
_ANY = frozenset({"eq", "ne", "select"})


def takes(fn: str, dtype: str) -> bool:
    """Whether the scalar function ``fn`` is defined for operands of ``dtype``."""
    if fn in _ANY:
        return True
    if fn in _BOOL_ONLY:
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


@dataclass
class Context:
    """One attempt: its randomness, and the dtype, rank and extents that most of its tensors have."""

    rng: random.Random
    dtype: str
    rank: int
    extents: Sequence[int]
    slices: dict[int, list[tuple[int, int, int]]] = field(
        default_factory=dict
    )  # by operand list: see _slices

    def extent(self) -> int:
        """An extent."""
        return self.rng.choice(self.extents)

    def shape(self, rank: int) -> tuple[int, ...]:
        """A shape of that rank."""
        return tuple(self.extent() for _ in range(rank))

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


def order(op: str, operands: int) -> list[int | str]:
    """What to choose, in order."""
    attrs = [name for name, _ in OPS[op].attrs] if op in OPS else []
    numbers: list[int | str] = list(range(operands))
    if op == "map":
        return ["fn", *numbers]
    if op in ("conv", "conv_channels_last"):
        return [0, "groups", 1, "strides", "dilations", "low", "high"]
    if op == "scatter_elements":
        return [0, "axis", 1, 2, "fn"]
    if op == "expand":
        return [0, "shape"]
    return [*numbers, *attrs]


def choose_operand(op: str, i: int, operands: Operands, attrs: Attrs, context: Context) -> TensorType:
    """A type for operand ``i``, which is None in ``operands``."""
    chosen = _OPERANDS.get(op, _any_operand)(i, operands, attrs, context)
    return chosen if isinstance(chosen, TensorType) else TensorType(context.dtype_like(operands), chosen)


def choose_attribute(op: str, name: str, operands: Operands, attrs: Attrs, context: Context) -> Any:
    """A value for the attribute ``name``. KeyError where this module knows none."""
    specific = _ATTRIBUTES.get((op, name))
    return (specific or _ATTRIBUTES["", name])(operands, attrs, context)


# ---- operands ----


def _any_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    axes = attrs.get("axes") or (attrs.get("axis"),)
    needed = max((a + 1 for a in axes if isinstance(a, int)), default=0)
    window = attrs.get("window") or attrs.get("perm") or attrs.get("steps") or attrs.get("interior")
    rank = len(window) if window else c.rank if c.chance(0.9) else c.rng.randrange(5)
    return c.shape(max(rank, needed))


def _map_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    fn = attrs["fn"]
    known = [t for j, t in enumerate(operands) if t is not None and not (fn == "select" and j == 0)]
    dtype = known[0].dtype if known else c.dtype
    if fn in _BOOL_ONLY or (fn == "select" and i == 0):
        dtype = "bool"
    shapes = [t.extents for t in operands if t is not None]
    if not shapes:
        return TensorType(dtype, c.shape(c.rank))
    widest = max(shapes, key=len)
    return TensorType(dtype, c.broadcastable(widest) if widest else c.shape(c.rank))


def _matmul_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    other = operands[1 - i]
    if other is None:
        return c.shape(max(2, c.rank))
    if other.rank < 2:
        return c.shape(2)
    batch = other.extents[:-2]
    if c.chance(0.3):
        batch = tuple(1 if c.chance(0.5) else d for d in batch)
        batch = batch if c.chance(0.7) else ()
    if i == 1:
        return (*batch, other.extents[-1], c.extent())
    return (*batch, c.extent(), other.extents[-2])


def _conv_operand(
    i: int, operands: Operands, attrs: Attrs, c: Context, last: bool = False
) -> tuple[int, ...]:
    """Images first: [N, C, s…] and [M, C/g, k…], or with the channels last: [N, s…, C] and [k…, C/g, M]."""
    groups = attrs.get("groups") or 1
    other = operands[1 - i]
    if other is None and i == 0:
        spatial = len(attrs["strides"]) if attrs.get("strides") is not None else max(1, min(c.rank - 2, 3))
        image = [
            c.extent() * (groups if c.chance(0.7) else 1),
            *(c.extent() + c.rng.randrange(3) for _ in range(spatial)),
        ]
        return (c.extent(), *image[1:], image[0]) if last else (c.extent(), *image)
    if i == 0:
        assert other is not None
        taps, depth = (
            (other.extents[:-2], other.extents[-2]) if last else (other.extents[2:], other.extents[1])
        )
        spatial_extents = [k + c.rng.randrange(3) for k in taps]
        return (
            (c.extent(), *spatial_extents, depth * groups)
            if last
            else (c.extent(), depth * groups, *spatial_extents)
        )
    if other is None:
        return c.shape(max(3, c.rank))
    image_extents, channels = (
        (other.extents[1:-1], other.extents[-1]) if last else (other.extents[2:], other.extents[1])
    )
    taps = tuple(c.rng.randint(1, max(1, min(3, d))) for d in image_extents)
    depth, outputs = channels // groups, groups * max(1, c.extent() if c.chance(0.8) else 1)
    return (*taps, depth, outputs) if last else (outputs, depth, *taps)


def _conv_last_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return _conv_operand(i, operands, attrs, c, last=True)


def _reshape_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    if attrs.get("shape") is not None:
        return _regrouped(attrs["shape"], c)
    return c.shape(c.rank)


def _expand_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    if attrs.get("shape") is not None:
        shape = tuple(d if c.chance(0.5) else 1 for d in attrs["shape"])
        return shape[c.rng.randrange(len(shape) + 1) :] if c.chance(0.2) else shape
    return tuple(1 if c.chance(0.5) else d for d in c.shape(c.rank))


def _pad_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return _any_operand(0, operands, attrs, c) if i == 0 else ()


def _concat_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    other = operands[1 - i]
    if other is None:
        return _any_operand(i, operands, attrs, c)
    axis = attrs.get("axis")
    axis = c.axis(other.rank) if axis is None else axis
    return tuple(c.extent() if a == axis else d for a, d in enumerate(other.extents))


def _gather_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    if i == 0:
        return TensorType(c.dtype, _any_operand(0, operands, attrs, c) or (2,))
    return TensorType("int64", c.shape(c.rng.choice((0, 1, 1, 2))))


def _gather_elements_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    other = operands[1 - i]
    shape = _any_operand(i, operands, attrs, c) if other is None else other.extents
    if i == 0:
        return TensorType(c.dtype, shape)
    return TensorType("int64", tuple(c.rng.randint(min(1, d), d) for d in shape))


def _gather_nd_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    other = operands[1 - i]
    if i == 0:
        return TensorType(c.dtype, c.shape(max(1, c.rank)))
    batch = attrs.get("batch_dims") or 0
    rank = other.rank if other is not None else c.rank
    lead = other.extents[:batch] if other is not None else ()
    return TensorType(
        "int64", (*lead, *c.shape(c.rng.choice((0, 1))), c.rng.randint(1, max(1, rank - batch)))
    )


def _scatter_elements_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    x = operands[0]
    if i == 0 or x is None:
        return TensorType(c.dtype, c.shape(max(1, c.rank)))
    if i == 1:
        shape = (
            operands[2].extents
            if operands[2] is not None
            else tuple(c.rng.randint(min(1, d), d) for d in x.extents)
        )
        return TensorType("int64", shape)
    return TensorType(x.dtype, operands[1].extents if operands[1] is not None else x.extents)


def _scatter_nd_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    x, indices = operands[0], operands[1]
    if i == 0 or x is None:
        return TensorType(c.dtype, c.shape(max(1, c.rank)))
    if i == 1 or indices is None:
        return TensorType("int64", (*c.shape(c.rng.choice((0, 1))), c.rng.randint(1, max(1, x.rank))))
    return TensorType(x.dtype, (*indices.extents[:-1], *x.extents[indices.extents[-1] :]))


def _norm_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    x = operands[0]
    if i == 0 or x is None:
        return c.shape(max(1, c.rank))
    return x.extents if c.chance(0.3) else row_vector(x.extents) if c.chance(0.7) else ()


def _attention_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    """q [..., m, h], k [..., n, h], v [..., n, d], mask broadcast to [..., m, n]."""
    q, k, v = operands[:3]
    known = next((t for t in (q, k, v) if t is not None and t.rank >= 2), None)
    batch = known.extents[:-2] if known is not None else c.shape(max(0, c.rank - 2))
    head = next((t.extents[-1] for t in (q, k) if t is not None and t.rank >= 2), c.extent())
    length = next((t.extents[-2] for t in (k, v) if t is not None and t.rank >= 2), c.extent())
    match i:
        case 0:
            return (*batch, c.extent(), head)
        case 1:
            return (*batch, length, head)
        case 2:
            return (*batch, length, c.extent())
    rows = q.extents[-2] if q is not None and q.rank >= 2 else 1
    return c.rng.choice(
        ((), (*(1 for _ in batch), rows, length), (*batch, rows, length), (*(1 for _ in batch), 1, length))
    )


_OPERANDS: Mapping[str, Callable[[int, Operands, Attrs, Context], Any]] = {
    "map": _map_operand,
    "matmul": _matmul_operand,
    "conv": _conv_operand,
    "conv_channels_last": _conv_last_operand,
    "reshape": _reshape_operand,
    "expand": _expand_operand,
    "pad": _pad_operand,
    "concat": _concat_operand,
    "gather": _gather_operand,
    "gather_elements": _gather_elements_operand,
    "gather_nd": _gather_nd_operand,
    "scatter_elements": _scatter_elements_operand,
    "scatter_nd": _scatter_nd_operand,
    "layer_norm": _norm_operand,
    "rms_norm": _norm_operand,
    "attention": _attention_operand,
}


# ---- attributes ----


def _first(operands: Operands) -> TensorType:
    assert operands[0] is not None
    return operands[0]


def _fn(operands: Operands, attrs: Attrs, c: Context) -> str:
    """A scalar function of as many operands; for a rule that names none, any."""
    arity = len(operands)
    dtype = next((t.dtype for t in operands[-2:] if t is not None), c.dtype)
    return c.rng.choice(
        [name for name, fn in FUNCTIONS.items() if fn.arity == arity and takes(name, dtype)] or ["add"]
    )


def _reduce_fn(operands: Operands, attrs: Attrs, c: Context) -> str:
    return c.rng.choice(("and", "or") if _first(operands).dtype == "bool" else ("add", "mul", "max", "min"))


def _axes(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    rank = _first(operands).rank
    axes = sorted(c.rng.sample(range(rank), c.rng.randint(min(1, rank), rank)))
    if c.chance(0.2):
        c.rng.shuffle(axes)
    return tuple(axes)


def _last_axes(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    rank = _first(operands).rank
    return tuple(range(c.axis(rank), rank)) if c.chance(0.5) else (c.axis(rank),)


def _axis(operands: Operands, attrs: Attrs, c: Context) -> int:
    return c.axis(_first(operands).rank)


def _concat_axis(operands: Operands, attrs: Attrs, c: Context) -> int:
    a, b = operands
    assert a is not None and b is not None
    differing = [i for i, (m, n) in enumerate(zip(a.extents, b.extents, strict=False)) if m != n]
    return differing[0] if differing else c.axis(a.rank)


def _bool(operands: Operands, attrs: Attrs, c: Context) -> bool:
    return c.chance(0.5)


def _groups(operands: Operands, attrs: Attrs, c: Context, last: bool = False) -> int:
    x, w = operands[0], operands[1]
    if x is None:
        return 1
    channels = x.extents[-1 if last else 1] if x.rank > 1 else 1
    if w is not None:
        depth = w.extents[-2 if last else 1] if w.rank > 1 else 0
        return channels // depth if depth else 1
    divisors = [g for g in range(1, channels + 1) if channels % g == 0] or [1]
    return c.rng.choice((1, c.rng.choice(divisors), divisors[-1]))


def _spatial(operands: Operands, last: bool) -> list[tuple[int, int]]:
    """(extent, taps) of each spatial axis of a convolution."""
    x, w = operands
    assert x is not None and w is not None
    return list(
        zip(x.extents[1:-1], w.extents[:-2], strict=False)
        if last
        else zip(x.extents[2:], w.extents[2:], strict=False)
    )


def _strides(windows: Sequence[tuple[int, int]], c: Context) -> tuple[int, ...]:
    return tuple(c.rng.choice((1, 1, 2, 3)) for _ in windows)


def _dilations(windows: Sequence[tuple[int, int]], c: Context) -> tuple[int, ...]:
    return tuple(
        2 if taps > 1 and (taps - 1) * 2 < extent and c.chance(0.3) else 1 for extent, taps in windows
    )


def _padding(windows: Sequence[tuple[int, int]], c: Context) -> tuple[int, ...]:
    none = c.chance(0.3)
    return tuple(0 if none or taps == 0 else c.rng.randint(0, max(taps - 1, 1)) for _, taps in windows)


def _of_conv(
    choose: Callable[..., tuple[int, ...]], last: bool
) -> Callable[[Operands, Attrs, Context], tuple[int, ...]]:
    return lambda operands, attrs, c: choose(_spatial(operands, last), c)


def _of_pool(choose: Callable[..., tuple[int, ...]]) -> Callable[[Operands, Attrs, Context], tuple[int, ...]]:
    return lambda operands, attrs, c: choose(
        [
            (d, k) if k > 1 else (d, 0)
            for d, k in zip(_first(operands).extents, attrs["window"], strict=False)
        ],
        c,
    )


def _window(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return tuple(c.rng.randint(1, min(3, d)) if d and c.chance(0.6) else 1 for d in _first(operands).extents)


def _regrouped(shape: Sequence[int], c: Context) -> tuple[int, ...]:
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


def _new_shape(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return _regrouped(_first(operands).extents, c)


def _wider_shape(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    lead = c.shape(c.rng.choice((0, 0, 0, 1)))
    return (*lead, *(c.extent() if d == 1 and c.chance(0.7) else d for d in _first(operands).extents))


def _perm(operands: Operands, attrs: Attrs, c: Context) -> Perm:
    rank = _first(operands).rank
    axes = c.rng.sample(range(rank), rank)
    return Perm(tuple(axes), tuple(axes.index(i) for i in range(rank)))


def _slices(operands: Operands, attrs: Attrs, c: Context) -> list[tuple[int, int, int]]:
    """(start, size, step) of each axis, chosen together when the first of them is asked for."""
    if id(operands) not in c.slices:
        c.slices[id(operands)] = [
            _slice(extent, i, attrs, c) for i, extent in enumerate(_first(operands).extents)
        ]
    return c.slices[id(operands)]


def _slice(extent: int, i: int, attrs: Attrs, c: Context) -> tuple[int, int, int]:
    """One axis of a slice; steps of both signs, now and then nothing at all."""
    steps, starts = attrs.get("steps"), attrs.get("starts")
    step = steps[i] if steps is not None and i < len(steps) else c.rng.choice((1, 1, 2, -1, -2))
    if extent == 0:
        return 0, 0, step
    if starts is not None and i < len(starts):
        start = starts[i]
    elif c.chance(0.5):
        start = 0 if step > 0 else extent - 1
    else:
        start = c.rng.randrange(extent)
    room = (extent - 1 - start) // step if step > 0 else start // -step if step else 0
    most = max(1, room + 1)
    return start, 0 if c.chance(0.05) else most if c.chance(0.5) else c.rng.randint(1, most), step


def _part(k: int) -> Callable[[Operands, Attrs, Context], tuple[int, ...]]:
    return lambda operands, attrs, c: tuple(entry[k] for entry in _slices(operands, attrs, c))


def _amounts(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return tuple(c.rng.choice((0, 0, 1, 2)) for _ in _first(operands).extents)


def _gaps(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return tuple(c.rng.choice((0, 0, 0, 1)) for _ in _first(operands).extents)


def _iota_shape(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return c.shape(max(1, c.rank))


def _iota_axis(operands: Operands, attrs: Attrs, c: Context) -> int:
    return c.axis(len(attrs["shape"]))


def _k(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    axis = attrs.get("axis")
    shape = _first(operands).extents
    extent = shape[axis] if axis is not None and axis < len(shape) else min(shape, default=1)
    return (c.rng.randint(0 if c.chance(0.1) else min(1, extent), extent),)


def _batch_dims(operands: Operands, attrs: Attrs, c: Context) -> int:
    x, indices = operands
    assert x is not None and indices is not None
    shared = 0
    for a, b in zip(x.extents[:-1], indices.extents[:-1], strict=False):
        if a != b:
            break
        shared += 1
    return c.rng.randint(0, shared) if c.chance(0.3) else 0


def _dtype(operands: Operands, attrs: Attrs, c: Context) -> str:
    return c.rng.choice((*FLOATS[:3], "int64", "int32", "int8", "uint8", "bool"))


_ATTRIBUTES: dict[tuple[str, str], Callable[[Operands, Attrs, Context], Any]] = {
    ("map", "fn"): _fn,
    ("reduce", "fn"): _reduce_fn,
    ("cumulate", "fn"): lambda operands, attrs, c: c.rng.choice(("add", "add", "mul")),
    ("arg_reduce", "fn"): lambda operands, attrs, c: c.rng.choice(("max", "min")),
    ("pool", "fn"): lambda operands, attrs, c: c.rng.choice(("add", "max", "min")),
    ("", "fn"): lambda operands, attrs, c: c.rng.choice(("set", "add", "mul", "max", "min")),
    ("cast", "dtype"): _dtype,
    ("splat", "dtype"): lambda operands, attrs, c: c.dtype,
    ("", "axes"): _axes,
    ("layer_norm", "axes"): _last_axes,
    ("rms_norm", "axes"): _last_axes,
    ("", "axis"): _axis,
    ("concat", "axis"): _concat_axis,
    ("iota", "axis"): _iota_axis,
    ("", "last"): _bool,
    ("", "exclusive"): _bool,
    ("", "reverse"): _bool,
    ("", "largest"): _bool,
    ("conv", "groups"): _groups,
    ("conv_channels_last", "groups"): lambda operands, attrs, c: _groups(operands, attrs, c, last=True),
    ("reshape", "shape"): _new_shape,
    ("expand", "shape"): _wider_shape,
    ("iota", "shape"): _iota_shape,
    ("dim", "value"): lambda operands, attrs, c: c.shape(c.rng.choice((1, 2, 3))),
    ("", "perm"): _perm,
    ("pool", "window"): _window,
    ("slice", "starts"): _part(0),
    ("slice", "sizes"): _part(1),
    ("slice", "steps"): _part(2),
    ("pad", "low"): _amounts,
    ("pad", "high"): _amounts,
    ("pad", "interior"): _gaps,
    ("", "k"): _k,
    ("", "batch_dims"): _batch_dims,
    ("", "epsilon"): lambda operands, attrs, c: c.rng.choice((1e-5, 1e-6, 1e-3)),
    ("", "scale"): lambda operands, attrs, c: c.rng.choice((0.125, 0.5, 1.0)),
}
for _op, _last in (("conv", False), ("conv_channels_last", True)):
    _ATTRIBUTES[_op, "strides"] = _of_conv(_strides, _last)
    _ATTRIBUTES[_op, "dilations"] = _of_conv(_dilations, _last)
    _ATTRIBUTES[_op, "low"] = _ATTRIBUTES[_op, "high"] = _of_conv(_padding, _last)
_ATTRIBUTES["pool", "strides"] = _of_pool(_strides)
_ATTRIBUTES["pool", "dilations"] = _of_pool(_dilations)
_ATTRIBUTES["pool", "low"] = _ATTRIBUTES["pool", "high"] = _of_pool(_padding)

"""Result types of operators: a pure function of operand types and attributes.

The frontend, the e-graph's type facts and the checker of rules all call :func:`infer`;
an operator is typed in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from egc.ir.dims import Dim, Shape, SymDim, floordiv, product
from egc.ir.extents import at_most_one
from egc.ir.ops import OPS
from egc.ir.scalar import FUNCTIONS, result_dtype
from egc.ir.types import TensorType, parse_type

Attrs = Mapping[str, Any]


class InferError(ValueError):
    """Operands and attributes that do not fit together; the text says how."""


def infer(op: str, types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    """The result types of ``op`` over operands of ``types``; InferError where they do not fit."""
    low, high = OPS[op].arity
    if len(types) < low or (high is not None and len(types) > high):
        raise InferError(
            f"{op} takes {low if low == high else f'{low} to {high}'} operands, not {len(types)}"
        )
    try:
        out = _RULES[op](types, attrs)
    except InferError as error:
        raise InferError(f"{op}({', '.join(map(str, types))}): {error}") from None
    return out if isinstance(out, tuple) else (out,)


def broadcast(*shapes: Shape) -> Shape:
    """numpy's broadcast of shapes; two different symbolic dims, or a symbol and an integer over 1,
    are taken as equal, but for those that are never more than 1.
    """
    rank = max(map(len, shapes), default=0)
    out: list[Dim] = []
    for i in range(rank):
        dims = [s[i - rank + len(s)] for s in shapes if i - rank + len(s) >= 0]
        wide = list(dict.fromkeys(d for d in dims if d != 1))
        if len(wide) > 1:
            wide = [d for d in wide if isinstance(d, int) or not at_most_one(d)] or wide
        fixed = [d for d in wide if isinstance(d, int)]
        if len(fixed) > 1:
            raise InferError(f"extents {fixed[0]} and {fixed[1]} do not broadcast")
        # Of dims that must be equal the plainest says most: `sequence` rather than `min(sequence, 64)`.
        out.append(fixed[0] if fixed else min(wide, key=lambda d: len(str(d))) if wide else 1)
    return tuple(out)


def _map(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    fn = attrs["fn"]
    if FUNCTIONS[fn].arity != len(types):
        raise InferError(f"{fn} takes {FUNCTIONS[fn].arity} operands")
    compared = types[1:] if fn == "select" else types
    if len({t.dtype for t in compared}) > 1 and fn not in ("pow", "shift_left", "shift_right"):
        raise InferError("operands have different dtypes")
    if fn == "select" and types[0].dtype != "bool":
        raise InferError("the condition is not bool")
    return TensorType(result_dtype(fn, tuple(t.dtype for t in types)), broadcast(*(t.shape for t in types)))


def _axis(axis: int, rank: int) -> int:
    if not 0 <= axis < rank:
        raise InferError(f"axis {axis} is not an axis of a tensor of rank {rank}")
    return axis


def _reduce(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    (x,) = types
    axes = {_axis(a, x.rank) for a in attrs["axes"]}
    return TensorType(x.dtype, tuple(1 if i in axes else d for i, d in enumerate(x.shape)))


def _arg_reduce(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    return TensorType("int64", _reduce(types, {"axes": (attrs["axis"],)}).shape)


def _cumulate(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    _axis(attrs["axis"], types[0].rank)
    return types[0]


def _same_extent(a: Dim, b: Dim, what: str) -> None:
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise InferError(f"{what}: {a} and {b} differ")


def _matmul(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    a, b = types
    if a.rank < 2 or b.rank < 2:
        raise InferError("operands need at least two axes")
    if a.dtype != b.dtype:
        raise InferError("operands have different dtypes")
    _same_extent(a.shape[-1], b.shape[-2], "inner extents")
    return TensorType(a.dtype, (*broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))


def window_extent(extent: Dim, size: Dim, stride: int, dilation: int, low: int, high: int) -> Dim:
    """How many positions a window of ``size`` taps has along a padded axis."""
    span = extent + low + high - ((size - 1) * dilation + 1)
    if isinstance(span, int) and span < 0:
        raise InferError(f"a window of {size} does not fit an axis of {extent}")
    return floordiv(span, stride) + 1


def _conv(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x, w = types
    spatial = x.rank - 2
    if x.rank != w.rank or spatial < 1 or x.dtype != w.dtype:
        raise InferError("x and w need one dtype and one rank of at least 3")
    _same_extent(x.shape[1], w.shape[1] * attrs["groups"], "channels")
    return TensorType(x.dtype, (x.shape[0], w.shape[0], *_windows(x.shape[2:], w.shape[2:], attrs)))


def _conv_channels_last(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x, w = types
    if x.rank != w.rank or x.rank < 3 or x.dtype != w.dtype:
        raise InferError("x and w need one dtype and one rank of at least 3")
    _same_extent(x.shape[-1], w.shape[-2] * attrs["groups"], "channels")
    return TensorType(x.dtype, (x.shape[0], *_windows(x.shape[1:-1], w.shape[:-2], attrs), w.shape[-1]))


def _windows(extents: Shape, sizes: Shape, attrs: Attrs) -> Shape:
    keys = ("strides", "dilations", "low", "high")
    if any(len(attrs[key]) != len(extents) for key in keys):
        raise InferError(f"strides, dilations, low and high need {len(extents)} entries each")
    return tuple(
        window_extent(extent, size, *(attrs[key][i] for key in keys))
        for i, (extent, size) in enumerate(zip(extents, sizes, strict=True))
    )


def _pool(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    (x,) = types
    if len(attrs["window"]) != x.rank:
        raise InferError(f"the window needs {x.rank} entries")
    return TensorType(x.dtype, _windows(x.shape, attrs["window"], attrs))


def _reshape(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    (x,) = types
    old, new = x.size, product(attrs["shape"])
    if isinstance(old, int) and isinstance(new, int) and old != new:
        raise InferError(f"{old} elements do not fit the shape [{', '.join(map(str, attrs['shape']))}]")
    return TensorType(x.dtype, attrs["shape"])


def _transpose(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    (x,) = types
    if sorted(attrs["perm"]) != list(range(x.rank)):
        raise InferError(f"{attrs['perm']} is no permutation of {x.rank} axes")
    return TensorType(x.dtype, tuple(x.shape[i] for i in attrs["perm"]))


def _slice(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    (x,) = types
    if not len(attrs["starts"]) == len(attrs["sizes"]) == len(attrs["steps"]) == x.rank:
        raise InferError(f"starts, sizes and steps need {x.rank} entries each")
    for start, size, step, extent in zip(
        attrs["starts"], attrs["sizes"], attrs["steps"], x.shape, strict=True
    ):
        if all(isinstance(v, int) for v in (start, size, extent)) and size:
            last = start + (size - 1) * step
            if not (0 <= start < extent and 0 <= last < extent):
                raise InferError(f"elements {start}..{last} leave an axis of {extent}")
    return TensorType(x.dtype, attrs["sizes"])


def _pad(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x, value = types
    if value.shape != () or value.dtype != x.dtype:
        raise InferError("the padding value is not a scalar of the operand's dtype")
    if not len(attrs["low"]) == len(attrs["high"]) == len(attrs["interior"]) == x.rank:
        raise InferError(f"low, high and interior need {x.rank} entries each")
    for amount in (*attrs["low"], *attrs["high"], *attrs["interior"]):
        if isinstance(amount, int) and amount < 0:
            raise InferError("negative padding: use slice")
    shape = []
    for extent, low, high, gap in zip(x.shape, attrs["low"], attrs["high"], attrs["interior"], strict=True):
        gaps = 0 if gap == 0 or extent == 0 else (extent - 1) * gap
        shape.append(extent + low + high + gaps)
    return TensorType(x.dtype, tuple(shape))


def _expand(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    (x,) = types
    if x.rank > len(attrs["shape"]):
        raise InferError("cannot expand to a lower rank")
    for extent, new in zip(reversed(x.shape), reversed(attrs["shape"]), strict=False):
        if extent != 1:
            _same_extent(extent, new, "extents")
    return TensorType(x.dtype, attrs["shape"])


def _concat(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    axis = _axis(attrs["axis"], types[0].rank)
    first = types[0]
    for other in types[1:]:
        if other.dtype != first.dtype or other.rank != first.rank:
            raise InferError("operands need one dtype and one rank")
        for i in range(first.rank):
            if i != axis:
                _same_extent(first.shape[i], other.shape[i], f"axis {i}")
    total: Dim = 0
    for t in types:
        total = total + t.shape[axis]
    return TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _gather(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x, indices = types
    axis = _axis(attrs["axis"], x.rank)
    return TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _gather_elements(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x, indices = types
    _axis(attrs["axis"], x.rank)
    return TensorType(x.dtype, indices.shape)


def _gather_nd(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x, indices = types
    batch = attrs["batch_dims"]
    if not 0 <= batch < min(x.rank, max(indices.rank, 1)):
        raise InferError(f"batch_dims {batch} of operands of rank {x.rank} and {indices.rank}")
    depth = indices.shape[-1] if indices.rank else 0
    if isinstance(depth, SymDim) or not 1 <= depth <= x.rank - batch:
        raise InferError("the last extent of the indices must be a known number of axes")
    return TensorType(x.dtype, (*indices.shape[:-1], *x.shape[batch + depth :]))


def _scatter_elements(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x, indices, updates = types
    _axis(attrs["axis"], x.rank)
    if indices.rank != x.rank:
        raise InferError("data and indices have different ranks")
    return _scattered(x, updates, indices.shape)


def _scatter_nd(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x, indices, updates = types
    depth = indices.shape[-1] if indices.rank else 0
    if isinstance(depth, SymDim) or not 1 <= depth <= x.rank:
        raise InferError("the last extent of the indices must be a known number of axes")
    return _scattered(x, updates, (*indices.shape[:-1], *x.shape[depth:]))


def _scattered(x: TensorType, updates: TensorType, shape: Shape) -> TensorType:
    """The type of `x` with `updates` of `shape` put in."""
    if x.dtype != updates.dtype:
        raise InferError("data and updates have different dtypes")
    if updates.rank != len(shape):
        raise InferError(f"updates have rank {updates.rank}, not {len(shape)}")
    for axis, (have, want) in enumerate(zip(updates.shape, shape, strict=True)):
        _same_extent(have, want, f"axis {axis} of the updates")
    return x


def _topk(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    (x,) = types
    axis = _axis(attrs["axis"], x.rank)
    k, extent = attrs["k"][0], x.shape[axis]
    if isinstance(k, int) and isinstance(extent, int) and not 0 <= k <= extent:
        raise InferError(f"{k} of {extent} elements are asked for")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return TensorType(x.dtype, shape), TensorType("int64", shape)


def _host(types: tuple[TensorType, ...], attrs: Attrs) -> tuple[TensorType, ...]:
    return tuple(parse_type(text) for text in attrs["types"].split(";"))


def _normalised(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    x = types[0]
    for axis in attrs["axes"]:
        _axis(axis, x.rank)
    if broadcast(*(t.shape for t in types)) != x.shape:
        raise InferError("scale and bias do not broadcast to the operand")
    return x


def _attention(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    q, k, v, mask = types
    if min(q.rank, k.rank, v.rank) < 2:
        raise InferError("queries, keys and values are matrices")
    _same_extent(q.shape[-1], k.shape[-1], "head sizes")
    _same_extent(k.shape[-2], v.shape[-2], "key and value lengths")
    batch = broadcast(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    scores = (*batch, q.shape[-2], k.shape[-2])
    if len(broadcast(mask.shape, scores)) > len(scores) or any(
        extent == 1 and wide != 1 for extent, wide in zip(scores, broadcast(mask.shape, scores), strict=True)
    ):
        raise InferError("the mask does not broadcast to the scores")
    return TensorType(q.dtype, (*batch, q.shape[-2], v.shape[-1]))


_RULES: Mapping[str, Callable[[Any, Attrs], TensorType | tuple[TensorType, ...]]] = {
    "map": _map,
    "cast": lambda types, attrs: TensorType(attrs["dtype"], types[0].shape),
    "reduce": _reduce,
    "arg_reduce": _arg_reduce,
    "cumulate": _cumulate,
    "matmul": _matmul,
    "conv": _conv,
    "conv_channels_last": _conv_channels_last,
    "pool": _pool,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "expand": _expand,
    "concat": _concat,
    "gather": _gather,
    "gather_elements": _gather_elements,
    "gather_nd": _gather_nd,
    "scatter_elements": _scatter_elements,
    "scatter_nd": _scatter_nd,
    "iota": lambda types, attrs: TensorType("int64", attrs["shape"]),
    "dim": lambda types, attrs: TensorType("int64", (len(attrs["value"]),)),
    "topk": _topk,
    "host": _host,
    "softmax": lambda types, attrs: _cumulate(types, attrs),
    "layer_norm": _normalised,
    "rms_norm": _normalised,
    "attention": _attention,
}

"""The numpy meaning of each operator of egc.ir.ops: arrays and attributes in, one array (or a tuple of them)
out.

Conventions on precision stand at the head of egc.ir.evaluate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from egc.ir.infer import window_extent
from egc.ir.scalar import apply_numpy, combiner_identity, result_dtype
from egc.ir.types import SMALL_FLOATS, SMALL_INTS, dtype_of, numpy_dtype

Array = np.ndarray
Ints = tuple[int, ...]

_UFUNCS: Mapping[str, np.ufunc] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.logical_and,
    "or": np.logical_or,
}
# The greatest finite value of each small float that saturates (float8_e8m0fnu holds scales and does not).
_SATURATING = {
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
    "float4_e2m1fn": 6.0,
}
_NARROW_FLOATS = ("float16", "bfloat16", *SMALL_FLOATS)


def cast_to(x: Array, dtype: np.dtype) -> Array:
    """``x`` as ``dtype``: floats truncate to integers, integers wrap, anything but zero is True.

    Float8 and float4 types saturate, as ONNX's Cast does by default; NaN stays NaN where the type has it.
    """
    if x.dtype == dtype:
        return x
    if dtype.name in _SATURATING:
        greatest = np.float32(_SATURATING[dtype.name])
        wide = x.astype(np.float32) if x.dtype != np.float64 else x
        return np.clip(wide, -greatest, greatest).astype(dtype)
    if dtype == np.bool_:
        return _computable(x) != 0
    if dtype.name in SMALL_INTS:
        # ml_dtypes does not define its sub-byte conversions from every type; from int8 they wrap.
        return _computable(x).astype(np.int64).astype(np.int8).astype(dtype)
    if x.dtype.name in SMALL_INTS or (x.dtype.name in _NARROW_FLOATS and dtype.kind in "iu"):
        return _computable(x).astype(dtype)
    return x.astype(dtype)


def _computable(x: Array) -> Array:
    """``x`` in a type numpy computes in: float32 for narrow floats, (u)int8 for sub-byte integers."""
    name = x.dtype.name
    if name in _NARROW_FLOATS:
        return x.astype(np.float32)
    if name in SMALL_INTS:
        return x.astype(np.uint8 if name.startswith("u") else np.int8)
    return x


def _accumulator(x: Array) -> np.dtype:
    """The dtype in which sums and products of ``x`` accumulate."""
    if x.dtype.kind in "iub":
        return x.dtype
    if x.dtype.kind == "c":
        return np.dtype(np.complex128)
    return np.dtype(np.float64) if x.dtype.name not in SMALL_INTS else _computable(x[:0]).dtype


def _map(*args: Array, fn: str) -> Array:
    if fn == "select":
        # It only moves values, infinities of types that saturate among them.
        return np.asarray(np.where(*args))
    dtype = numpy_dtype(result_dtype(fn, tuple(dtype_of(a) for a in args)))
    return cast_to(np.asarray(apply_numpy(fn, tuple(_computable(a) for a in args))), dtype)


def _reduce(x: Array, *, fn: str, axes: Ints) -> Array:
    if fn in ("and", "or"):
        return np.asarray(_UFUNCS[fn].reduce(x, axis=axes, keepdims=True))
    if fn in ("max", "min"):
        identity = combiner_identity(fn, dtype_of(x))
        wide = _computable(x)
        initial = np.asarray(identity, dtype=wide.dtype)
        return cast_to(
            np.asarray(_UFUNCS[fn].reduce(wide, axis=axes, keepdims=True, initial=initial)), x.dtype
        )
    total = _UFUNCS[fn].reduce(x.astype(_accumulator(x)), axis=axes, keepdims=True, dtype=_accumulator(x))
    return cast_to(np.asarray(total), x.dtype)


def _arg_reduce(x: Array, *, fn: str, axis: int, last: bool) -> Array:
    wide = _computable(x)
    pick = np.argmax if fn == "max" else np.argmin
    if not last:
        return np.expand_dims(pick(wide, axis=axis), axis).astype(np.int64)
    flipped = pick(np.flip(wide, axis), axis=axis)
    return np.expand_dims(x.shape[axis] - 1 - flipped, axis).astype(np.int64)


def _cumulate(x: Array, *, fn: str, axis: int, exclusive: bool, reverse: bool) -> Array:
    wide = np.moveaxis(x.astype(_accumulator(x)), axis, 0)
    wide = wide[::-1] if reverse else wide
    if exclusive:
        first = np.full_like(wide[:1], combiner_identity(fn, dtype_of(x)))
        wide = np.concatenate([first, wide[:-1]])
    out = _UFUNCS[fn].accumulate(wide, axis=0, dtype=wide.dtype)
    out = out[::-1] if reverse else out
    return cast_to(np.ascontiguousarray(np.moveaxis(out, 0, axis)), x.dtype)


def _matmul(a: Array, b: Array) -> Array:
    dtype = _accumulator(a)
    # Products of 8- and 16-bit integers and sums of 2**20 of them are exact in float64, where BLAS is fast.
    if dtype.kind in "iu" and dtype.itemsize <= 2 and a.shape[-1] < 1 << 20:
        exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
        return exact.astype(np.int64).astype(a.dtype)
    return cast_to(np.matmul(a.astype(dtype), b.astype(dtype)), a.dtype)


def _patches(x: Array, fill: Any, window: Ints, attrs: Mapping[str, Ints]) -> Array:
    """The windows over every axis of ``x`` [d…] padded with ``fill``: [o…, window…], a view."""
    strides, dilations, low, high = (attrs[k] for k in ("strides", "dilations", "low", "high"))
    padded = np.pad(x, list(zip(low, high, strict=True)), constant_values=fill)
    extents = [window_extent(*v) for v in zip(x.shape, window, strides, dilations, low, high, strict=True)]
    spans = tuple((w - 1) * d + 1 for w, d in zip(window, dilations, strict=True))
    views = sliding_window_view(padded, spans)
    outer = tuple(slice(0, (o - 1) * s + 1, s) for o, s in zip(extents, strides, strict=True))
    return views[outer + tuple(slice(None, None, d) for d in dilations)]


def _conv(x: Array, w: Array, *, groups: int, **attrs: Ints) -> Array:
    dtype = np.dtype(np.int64) if x.dtype.kind in "iu" else _accumulator(x)
    spatial = x.ndim - 2
    window = (1, 1, *w.shape[2:])
    full = {k: (v0, v0, *attrs[k]) for k, v0 in (("strides", 1), ("dilations", 1), ("low", 0), ("high", 0))}
    patches = _patches(x.astype(dtype), 0, window, full)  # [N, C, o…, 1, 1, k…]
    batch, _, *out = patches.shape[: spatial + 2]
    outputs, depth, *taps = w.shape
    patches = patches.reshape(batch, groups, depth, *out, *taps)
    weights = w.astype(dtype).reshape(groups, outputs // groups, depth, *taps)
    result = np.empty((batch, groups, outputs // groups, *out), dtype)
    # [N, g, depth, o…, k…] to [g, N, o…, depth, k…]. np.tensordot makes 0 of NaN times a single 0.
    order = (1, 0, *range(3, 3 + spatial), 2, *range(3 + spatial, 3 + 2 * spatial))
    for group, rows in enumerate(patches.transpose(order)):
        # [N·o, depth·k] @ [depth·k, M/groups]
        columns = weights[group].reshape(outputs // groups, depth * math.prod(taps)).T
        found = np.matmul(rows.reshape(batch * math.prod(out), depth * math.prod(taps)), columns)
        result[:, group] = np.moveaxis(found.reshape(batch, *out, outputs // groups), -1, 1)
    return cast_to(result.reshape(batch, outputs, *out), x.dtype)


def _conv_channels_last(x: Array, w: Array, **attrs: Any) -> Array:
    spatial = x.ndim - 2
    first = np.moveaxis(x, -1, 1)
    weights = np.transpose(w, (spatial + 1, spatial, *range(spatial)))
    return np.ascontiguousarray(np.moveaxis(_conv(first, weights, **attrs), 1, -1))


def _pool(x: Array, *, fn: str, window: Ints, **attrs: Ints) -> Array:
    dtype = _accumulator(x) if fn in ("add", "mul") else _computable(x).dtype
    patches = _patches(x.astype(dtype), combiner_identity(fn, dtype_of(x)), window, attrs)
    return cast_to(_UFUNCS[fn].reduce(patches, axis=tuple(range(x.ndim, 2 * x.ndim)), dtype=dtype), x.dtype)


def _slice(x: Array, *, starts: Ints, sizes: Ints, steps: Ints) -> Array:
    index = []
    for start, size, step, extent in zip(starts, sizes, steps, x.shape, strict=True):
        last = start + (size - 1) * step
        if size and not (0 <= start < extent and 0 <= last < extent):
            raise ValueError(f"elements {start} to {last} leave an axis of {extent}")
        stop = start + size * step
        index.append(slice(0, 0) if size == 0 else slice(start, None if stop < 0 else stop, step))
    return x[tuple(index)]


def _pad(x: Array, value: Array, *, low: Ints, high: Ints, interior: Ints) -> Array:
    spans = [n + max(n - 1, 0) * gap for n, gap in zip(x.shape, interior, strict=True)]
    out = np.full([a + n + b for a, n, b in zip(low, spans, high, strict=True)], value, dtype=x.dtype)
    index = (slice(a, a + n, gap + 1) for a, n, gap in zip(low, spans, interior, strict=True))
    out[tuple(index)] = x
    return out


def _iota(*, shape: Ints, axis: int) -> Array:
    ramp = np.arange(shape[axis], dtype=np.int64).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(ramp, shape).copy()


def _gather_elements(x: Array, indices: Array, *, axis: int) -> Array:
    # Other axes of the indices may be shorter than those of x, which numpy does not accept.
    index = tuple(slice(None) if i == axis else slice(0, n) for i, n in enumerate(indices.shape))
    return np.take_along_axis(x[index], indices.astype(np.int64), axis)


def _gather_nd(x: Array, indices: Array, *, batch_dims: int) -> Array:
    batch = x.shape[:batch_dims]
    depth = indices.shape[-1]
    flat = x.reshape(math.prod(batch), *x.shape[batch_dims:])
    rows = indices.reshape(math.prod(batch), -1, depth).astype(np.int64)
    picked = flat[(np.arange(len(flat))[:, None], *np.moveaxis(rows, -1, 0))]
    return picked.reshape((*indices.shape[:-1], *x.shape[batch_dims + depth :]))


def _update(out: Array, index: tuple[Array, ...], updates: Array, fn: str) -> Array:
    if fn == "set":
        out = out.copy()
        out[index] = updates
        return out
    wide = _computable(out)
    wide = wide.copy() if wide is out else wide
    _UFUNCS[fn].at(wide, index, _computable(updates))
    return cast_to(wide, out.dtype)


def _scatter_elements(x: Array, indices: Array, updates: Array, *, axis: int, fn: str) -> Array:
    grid: list[Array] = list(np.indices(indices.shape, sparse=True))
    grid[axis] = indices.astype(np.int64)
    return _update(x, tuple(grid), updates, fn)


def _scatter_nd(x: Array, indices: Array, updates: Array, *, fn: str) -> Array:
    return _update(x, tuple(np.moveaxis(indices.astype(np.int64), -1, 0)), updates, fn)


def _topk(x: Array, *, k: Ints, axis: int, largest: bool) -> tuple[Array, Array]:
    wide = np.moveaxis(_computable(x), axis, -1)
    extent = x.shape[axis]
    if largest:
        # Reversed twice, a stable ascending sort is a stable descending one: ties keep the lower position.
        order = extent - 1 - np.argsort(wide[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(wide, axis=-1, kind="stable")
    order = np.ascontiguousarray(np.moveaxis(order[..., : k[0]], -1, axis)).astype(np.int64)
    return np.take_along_axis(x, order, axis), order


def _softmax64(x: Array, axis: int) -> Array:
    wide = x.astype(np.float64)
    shifted = np.exp(wide - np.max(wide, axis=axis, keepdims=True, initial=-np.inf))
    return shifted / np.sum(shifted, axis=axis, keepdims=True)


def _layer_norm(x: Array, scale: Array, bias: Array, *, axes: Ints, epsilon: float) -> Array:
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axes, keepdims=True)
    normal = centred / np.sqrt((centred * centred).mean(axes, keepdims=True) + epsilon)
    return cast_to(normal * scale.astype(np.float64) + bias.astype(np.float64), x.dtype)


def _rms_norm(x: Array, scale: Array, *, axes: Ints, epsilon: float) -> Array:
    wide = x.astype(np.float64)
    normal = wide / np.sqrt((wide * wide).mean(axes, keepdims=True) + epsilon)
    return cast_to(normal * scale.astype(np.float64), x.dtype)


def _attention(q: Array, k: Array, v: Array, mask: Array, *, scale: float) -> Array:
    wide_q, wide_k, wide_v = (a.astype(np.float64) for a in (q, k, v))
    scores = np.matmul(wide_q, np.swapaxes(wide_k, -1, -2)) * scale + mask.astype(np.float64)
    return cast_to(np.matmul(_softmax64(scores, -1), wide_v), q.dtype)


MEANINGS: Mapping[str, Callable[..., Any]] = {
    "map": _map,
    "cast": lambda x, dtype: cast_to(x, numpy_dtype(dtype)),
    "reduce": _reduce,
    "arg_reduce": _arg_reduce,
    "cumulate": _cumulate,
    "matmul": _matmul,
    "conv": _conv,
    "conv_channels_last": _conv_channels_last,
    "pool": _pool,
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, perm: np.transpose(x, perm),
    "slice": _slice,
    "pad": _pad,
    "expand": lambda x, shape: np.broadcast_to(x, shape),
    "concat": lambda *xs, axis: np.concatenate(xs, axis),
    "gather": lambda x, indices, axis: np.take(x, indices.astype(np.int64), axis),
    "gather_elements": _gather_elements,
    "gather_nd": _gather_nd,
    "scatter_elements": _scatter_elements,
    "scatter_nd": _scatter_nd,
    "iota": _iota,
    "dim": lambda value: np.asarray(value, dtype=np.int64),
    "topk": _topk,
    "softmax": lambda x, axis: cast_to(_softmax64(x, axis), x.dtype),
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "attention": _attention,
}

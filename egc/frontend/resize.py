"""Resize and Upsample: along each axis a few weighted taps, or a matrix product where the taps are many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.ir.dims import Dim, SymDim, floordiv
from egc.ir.types import is_float, numpy_dtype

Array = np.ndarray
# Up to this many taps an axis is resized by gathers that fuse with the arithmetic round them.
_MAX_GATHERS = 4


class _Mode(Struct, frozen=True):
    """How positions of the result map to positions of the operand, and what stands between two elements."""

    kind: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool


class _Axis(Struct, frozen=True):
    """One axis to resize: ``scale`` is result / operand, ``roi`` the normalised ends of the part used."""

    axis: int
    extent: Dim
    result: Dim
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


@operator("Resize", family="resize")
def resize(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The operand at other extents, by nearest, linear or cubic interpolation."""
    x = node.required(0)
    if node.version < 11:
        axes = _by_scales(ctx, x, range(ctx.rank(x)), _floats(ctx, node.required(1), "scales"))
        return [_resize(ctx, x, axes, _old_mode(ctx, node), 0.0)]
    axes = _requested(ctx, node, x)
    mode = _Mode(
        node.attr("mode", "nearest"),
        node.attr("coordinate_transformation_mode", "half_pixel"),
        node.attr("nearest_mode", "round_prefer_floor"),
        float(node.attr("cubic_coeff_a", -0.75)),
        bool(node.attr("exclude_outside", 0)),
        bool(node.attr("antialias", 0)),
    )
    return [_resize(ctx, x, axes, mode, float(node.attr("extrapolation_value", 0.0)))]


@operator("Upsample", family="resize")
def upsample(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Resize as it was before opset 10."""
    x = node.required(0)
    scales = node.attr("scales") if node.version < 9 else _floats(ctx, node.required(1), "scales")
    if scales is None:
        ctx.fail("scales is missing")
    axes = _by_scales(ctx, x, range(ctx.rank(x)), [float(s) for s in scales])
    return [_resize(ctx, x, axes, _old_mode(ctx, node), 0.0)]


def _old_mode(ctx: Context, node: OnnxNode) -> _Mode:
    kind = {"nearest": "nearest", "linear": "linear", "bilinear": "linear"}.get(node.attr("mode", "nearest"))
    if kind is None:
        ctx.fail(f"mode {node.attr('mode')!r} is none of nearest and linear")
    return _Mode(kind, "asymmetric", "simple", -0.75, False, False)


def _floats(ctx: Context, value: str, what: str) -> list[float]:
    data = ctx.const(value)
    if data is None:
        raise NotCompiled(f"{what} is known only at run time")
    return [float(v) for v in data.astype(np.float64).reshape(-1)]


def _requested(ctx: Context, node: OnnxNode, x: str) -> list[_Axis]:
    """The axes that a Resize since opset 11 names, with the extents it asks for."""
    rank = ctx.rank(x)
    numbers = node.attr("axes")
    axes = [ctx.axis(int(a), rank) for a in numbers] if numbers else list(range(rank))
    scales, sizes = node.input(2), node.input(3)
    if sizes is not None:
        found = _by_sizes(ctx, node, x, axes, sizes)
    elif scales is not None:
        found = _by_scales(ctx, x, axes, _floats(ctx, scales, "scales"))
    else:
        ctx.fail("neither scales nor sizes is given")
    if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        if node.input(1) is None:
            ctx.fail("tf_crop_and_resize needs roi")
        roi = _floats(ctx, node.required(1), "roi")
        count = len(axes)
        if len(roi) != 2 * count:
            ctx.fail(f"roi has {len(roi)} entries; {count} axes need {2 * count}")
        found = [
            _Axis(a.axis, a.extent, a.result, a.scale, (roi[i], roi[i + count])) for i, a in enumerate(found)
        ]
    return found


def _by_scales(ctx: Context, x: str, axes: Sequence[int], scales: Sequence[float]) -> list[_Axis]:
    if len(axes) != len(scales):
        ctx.fail(f"there are {len(scales)} scales for {len(axes)} axes")
    out = []
    for axis, scale in zip(axes, scales, strict=True):
        extent = ctx.shape(x)[axis]
        if isinstance(extent, int):
            out.append(_Axis(axis, extent, int(np.floor(extent * scale)), scale))
        elif scale == int(scale):
            out.append(_Axis(axis, extent, extent * int(scale), scale))
        elif 1 / scale == int(1 / scale):
            out.append(_Axis(axis, extent, floordiv(extent, int(1 / scale)), scale))
        else:
            raise NotCompiled(f"axis {axis} of the symbolic extent {extent} is scaled by {scale}")
    return out


def _by_sizes(ctx: Context, node: OnnxNode, x: str, axes: Sequence[int], sizes: str) -> list[_Axis]:
    results = ctx.shape_value(sizes)
    if results is None:
        raise NotCompiled("sizes is known only at run time")
    if len(results) != len(axes):
        ctx.fail(f"there are {len(results)} sizes for {len(axes)} axes")
    extents = [ctx.shape(x)[a] for a in axes]
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    out = []
    for axis, extent, result in zip(axes, extents, results, strict=True):
        scale = 1.0
        if extent != result:
            if isinstance(extent, int) and isinstance(result, int):
                scale = result / extent
            else:
                ratio = floordiv(result, extent)
                if not isinstance(ratio, int) or ratio * extent != result:
                    raise NotCompiled(f"axis {axis} is resized from {extent} to {result}")
                scale = float(ratio)
        out.append(_Axis(axis, extent, result, scale))
    if policy == "stretch":
        return out
    scale = (min if policy == "not_larger" else max)(a.scale for a in out)
    if any(isinstance(a.extent, SymDim) for a in out):
        raise NotCompiled("keep_aspect_ratio_policy over symbolic extents")
    return [_Axis(a.axis, a.extent, int(np.floor(a.extent * scale + 0.5)), scale) for a in out]  # type: ignore[operator]


def _resize(ctx: Context, x: str, axes: Sequence[_Axis], mode: _Mode, outside_value: float) -> str:
    dtype = ctx.dtype(x)
    interpolated = mode.kind != "nearest" and not is_float(dtype)
    out = ctx.cast(x, "float32") if interpolated else x
    for axis in axes:
        if axis.extent != axis.result or axis.scale != 1 or axis.roi != (0.0, 1.0):
            out = _resize_axis(ctx, out, axis, mode)
    if mode.coordinates == "tf_crop_and_resize":
        out = _outside(ctx, out, axes, outside_value)
    return ctx.cast(out, dtype)


def _resize_axis(ctx: Context, x: str, axis: _Axis, mode: _Mode) -> str:
    if isinstance(axis.extent, SymDim):
        return _resize_symbolic(ctx, x, axis, mode)
    assert isinstance(axis.result, int)
    indices, weights = taps(axis, mode)
    indices = np.clip(indices, 0, axis.extent - 1)
    if indices.shape[1] == 1:
        repeat = axis.result // axis.extent if axis.extent else 0
        if np.array_equal(indices[:, 0], np.repeat(np.arange(axis.extent), repeat)):
            return _repeat(ctx, x, axis.axis, repeat)
        return ctx.add("gather", (x, ctx.constant(indices[:, 0])), axis=axis.axis)
    kind = numpy_dtype(ctx.dtype(x))
    if indices.shape[1] <= _MAX_GATHERS:
        rank = ctx.rank(x)
        shape = [axis.result if i == axis.axis else 1 for i in range(rank)]
        terms = []
        for tap in range(indices.shape[1]):
            picked = ctx.add("gather", (x, ctx.constant(indices[:, tap])), axis=axis.axis)
            weight = ctx.constant(weights[:, tap].reshape(shape).astype(kind))
            terms.append(ctx.map("mul", picked, weight))
        out = terms[0]
        for term in terms[1:]:
            out = ctx.map("add", out, term)
        return out
    matrix = np.zeros((axis.result, axis.extent))
    np.add.at(matrix, (np.arange(axis.result)[:, None], indices), weights)
    last = ctx.rank(x) - 1
    perm = [i for i in range(last + 1) if i != axis.axis] + [axis.axis]
    moved = ctx.transpose(x, perm)
    moved = ctx.unsqueeze(moved, (0,)) if last == 0 else moved
    product = ctx.add("matmul", (moved, ctx.constant(np.ascontiguousarray(matrix.T).astype(kind))))
    product = ctx.squeeze(product, (0,)) if last == 0 else product
    return ctx.transpose(product, [perm.index(i) for i in range(last + 1)])


def _resize_symbolic(ctx: Context, x: str, axis: _Axis, mode: _Mode) -> str:
    """An axis of symbolic extent: nearest by a whole factor is repetition, whatever the extent."""
    factor = int(axis.scale)
    if (
        mode.kind == "nearest"
        and factor == axis.scale
        and factor >= 1
        and mode.coordinates != "align_corners"
    ):
        # The positions repeat with the factor's period, so one extent stands for all of them.
        probe = _Axis(axis.axis, 8, 8 * factor, axis.scale, axis.roi)
        indices, _ = taps(probe, mode)
        if np.array_equal(np.clip(indices[:, 0], 0, 7), np.repeat(np.arange(8), factor)):
            return _repeat(ctx, x, axis.axis, factor)
    raise NotCompiled(f"{mode.kind} interpolation along an axis of the symbolic extent {axis.extent}")


def _repeat(ctx: Context, x: str, axis: int, times: int) -> str:
    """Every element ``times`` times along ``axis``, as views."""
    if times == 1:
        return x
    shape = ctx.shape(x)
    tall = ctx.unsqueeze(x, (axis + 1,))
    tall = ctx.expand(tall, (*shape[: axis + 1], times, *shape[axis + 1 :]))
    return ctx.reshape(tall, (*shape[:axis], shape[axis] * times, *shape[axis + 1 :]))


def _outside(ctx: Context, x: str, axes: Sequence[_Axis], value: float) -> str:
    """``x`` with ``value`` where tf_crop_and_resize looks beyond the operand along any axis."""
    rank = ctx.rank(x)
    for axis in axes:
        position = _positions(axis, "tf_crop_and_resize")
        assert isinstance(axis.extent, int)
        beyond = (position < 0) | (position > axis.extent - 1)
        if beyond.any():
            mask = beyond.reshape([-1 if i == axis.axis else 1 for i in range(rank)])
            x = ctx.map("select", ctx.constant(mask), ctx.like(value, x), x)
    return x


def _positions(axis: _Axis, coordinates: str) -> Array:
    """The position in the operand, a real number, of each position of the result, as ONNX defines it."""
    assert isinstance(axis.extent, int) and isinstance(axis.result, int)
    y = np.arange(axis.result, dtype=np.float64)
    extent, width, start, end = axis.extent, axis.scale * axis.extent, *axis.roi
    match coordinates:
        case "half_pixel":
            return (y + 0.5) / axis.scale - 0.5
        case "half_pixel_symmetric":
            return extent / 2 * (1 - axis.result / width) + (y + 0.5) / axis.scale - 0.5
        case "pytorch_half_pixel":
            return (y + 0.5) / axis.scale - 0.5 if width != 1 else np.full_like(y, -0.5)
        case "align_corners":
            # ONNX's node tests and reference take scale * extent for the result's length, which may be
            # fractional; ONNX Runtime and PyTorch take the whole one. They agree where sizes are given.
            return y * (extent - 1) / (width - 1) if width != 1 else np.zeros_like(y)
        case "asymmetric":
            return y / axis.scale
        case "tf_crop_and_resize" if width != 1:
            return start * (extent - 1) + y * (end - start) * (extent - 1) / (width - 1)
        case "tf_crop_and_resize":
            return np.full_like(y, (start + (end - start) / 2) * (extent - 1))
        case _:
            raise NotCompiled(f"coordinate_transformation_mode {coordinates!r}")


def taps(axis: _Axis, mode: _Mode) -> tuple[Array, Array]:
    """The positions [result, taps] that each element reads, possibly outside, and their weights."""
    x = _positions(axis, mode.coordinates)
    if mode.kind == "nearest":
        rounded: dict[str, Callable[[Array], Array]] = {
            "round_prefer_floor": lambda v: np.ceil(v - 0.5),
            "round_prefer_ceil": lambda v: np.floor(v + 0.5),
            "floor": np.floor,
            "ceil": np.ceil,
            # Before opset 11, which gave it a name: the tests of opset 10 and onnxruntime round so.
            "simple": np.ceil if axis.scale < 1 else np.floor,
        }
        if mode.nearest not in rounded:
            raise NotCompiled(f"nearest_mode {mode.nearest!r}")
        index = rounded[mode.nearest](x).astype(np.int64)[:, None]
        return index, np.ones(index.shape)
    if mode.kind not in ("linear", "cubic"):
        raise NotCompiled(f"mode {mode.kind!r}")
    # An antialiasing filter is stretched by the shrinking factor, so it reaches over more taps.
    scale = min(axis.scale, 1.0) if mode.antialias else 1.0
    reach = 1 if mode.kind == "linear" else 2
    first = int(np.floor(-reach / scale)) + 1
    base = np.ceil(x).astype(np.int64) - 1
    index = base[:, None] + np.arange(first, 2 - first)[None, :]
    distance = np.abs(index - x[:, None]) * scale
    kernel = np.clip(1 - distance, 0, 1) if reach == 1 else _cubic(distance, mode.cubic)
    if mode.exclude_outside:
        kernel = np.where((index >= 0) & (index < axis.extent), kernel, 0)
    if mode.exclude_outside or mode.antialias:
        kernel = kernel / kernel.sum(axis=1, keepdims=True)
    return index, kernel


def _cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29(6), 1981, eq. 4) with parameter ``a``."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))

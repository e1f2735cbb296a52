"""MaxPool with its positions, LpPool and GlobalLpPool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from onnx.reference.op_run import OpRun

from egc.ir.scalar import combiner_identity


class MaxPool(OpRun):
    """The maximum of each window and its position in the flattened operand. That of ``onnx.reference`` errs
    in positions where the stride is 1, and counts windows under auto_pad SAME_LOWER by rounding down."""

    op_domain = ""

    def _run(self, x: Any, **attributes: Any) -> Any:
        windows = _read(attributes, x.shape[2:])
        rank = len(windows)
        lowest = combiner_identity("max", x.dtype.name)
        taps = _taps(x, windows, np.asarray(lowest).astype(x.dtype))
        best = taps.argmax(axis=-1)
        maxima = np.take_along_axis(taps, best[..., None], axis=-1)[..., 0]
        if len(self.onnx_node.output) < 2:
            return (maxima,)
        extents = x.shape[2:]
        column_major = bool(attributes.get("storage_order"))
        positions = np.zeros(best.shape, np.int64)
        for i, tap in enumerate(np.unravel_index(best, [w.size for w in windows])):
            w = windows[i]
            start = (np.arange(w.count) * w.stride - w.low).reshape(-1, *(1,) * (rank - 1 - i))
            step = np.prod(extents[:i] if column_major else extents[i + 1 :], dtype=np.int64)
            positions += (start + tap * w.dilation) * step
        plane = np.arange(x.shape[0] * x.shape[1]) * np.prod(extents, dtype=np.int64)
        return maxima, positions + plane.reshape(*x.shape[:2], *(1,) * rank)


class LpPool(OpRun):
    """The p-norm of each window, padding counting as 0. ``onnx.reference`` multiplies the mean over a window
    by the window's size, which differs where a window is partial under ceil_mode."""

    op_domain = ""

    def _run(self, x: Any, p: Any = 2, **attributes: Any) -> Any:
        taps = _taps(x, _read(attributes, x.shape[2:]), np.zeros((), x.dtype))
        return (((np.abs(taps) ** p).sum(axis=-1) ** (1 / p)).astype(x.dtype),)


class GlobalLpPool(OpRun):
    """The p-norm over all spatial axes, which ``onnx.reference`` lacks."""

    op_domain = ""

    def _run(self, x: Any, p: Any = 2) -> Any:
        axes = tuple(range(2, x.ndim))
        return (((np.abs(x) ** p).sum(axis=axes, keepdims=True) ** (1 / p)).astype(x.dtype),)


class _Window(Struct, frozen=True):
    """The windows along one axis: ``count`` of them, the first one starting at ``-low``."""

    size: int
    stride: int
    dilation: int
    low: int
    count: int

    @property
    def reach(self) -> int:
        """Where the last window ends, counted from ``-low``."""
        return (self.count - 1) * self.stride + (self.size - 1) * self.dilation + 1


def _read(attributes: Mapping[str, Any], extents: Sequence[int]) -> list[_Window]:
    sizes = attributes["kernel_shape"]
    rank = len(sizes)
    strides, dilations = (attributes.get(name) or [1] * rank for name in ("strides", "dilations"))
    mode = attributes.get("auto_pad") or "NOTSET"
    pads = list(attributes.get("pads") or ()) if mode == "NOTSET" else []
    pads = pads or [0] * (2 * rank)
    found = []
    for i, extent in enumerate(extents):
        size, stride, dilation, low = sizes[i], strides[i], dilations[i], pads[i]
        span = (size - 1) * dilation + 1
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-extent // stride)
            total = max((count - 1) * stride + span - extent, 0)
            low = total // 2 if mode == "SAME_UPPER" else total - total // 2
        elif attributes.get("ceil_mode"):
            # A window that would start in the padding at the end does not count.
            full = extent + low + pads[rank + i] - span
            count = min(-(-full // stride) + 1, -(-(extent + low) // stride))
        else:
            count = (extent + low + pads[rank + i] - span) // stride + 1
        found.append(_Window(size, stride, dilation, low, count))
    return found


def _taps(x: np.ndarray, windows: Sequence[_Window], fill: np.ndarray) -> np.ndarray:
    """The elements of every window, ``fill`` in the padding: [N, C, counts…, product of sizes]."""
    pads = [(0, 0), (0, 0)]
    for w, extent in zip(windows, x.shape[2:], strict=True):
        pads.append((w.low, max(w.reach - w.low - extent, 0)))
    spread = np.pad(x, pads, constant_values=fill)
    for axis, w in enumerate(windows, 2):
        # Each axis is followed at the end by one of its taps.
        reach = np.arange(w.count)[:, None] * w.stride + np.arange(w.size) * w.dilation
        spread = np.moveaxis(np.take(spread, reach, axis=axis), axis + 1, -1)
    return spread.reshape(*spread.shape[: 2 + len(windows)], -1)

"""Operators of the main domain that a subgraph on the host may hold and ``onnx.reference`` gets wrong."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_grid_sample, op_non_max_suppression, op_one_hot


class _Soft(OpRun):
    """Before opset 13 all axes from ``axis`` on count as one; ``onnx.reference`` takes the axis alone, as
    later opsets do."""

    op_domain = ""

    def _run(self, x: Any, axis: Any = None) -> Any:
        if self.run_params["opsets"][self.onnx_node.domain] >= 13:
            return (self._along_last(np.moveaxis(x, axis, -1), x.dtype, axis),)
        given = any(a.name == "axis" for a in self.onnx_node.attribute)
        place = (axis if given else 1) % max(x.ndim, 1)
        rows = x.reshape(int(np.prod(x.shape[:place])), int(np.prod(x.shape[place:])))
        return (self._along_last(rows, x.dtype, -1).reshape(x.shape),)

    def _along_last(self, x: np.ndarray, dtype: Any, axis: int) -> np.ndarray:
        if not x.size:
            return np.moveaxis(x, -1, axis)
        wide = x if dtype == np.float64 else x.astype(np.float32)
        return np.moveaxis(self._rows(wide).astype(dtype), -1, axis)

    @abstractmethod
    def _rows(self, x: np.ndarray) -> np.ndarray:
        """The results of rows along the last axis."""


class Softmax(_Soft):
    """exp(x) / Σ exp(x)."""

    def _rows(self, x: np.ndarray) -> np.ndarray:
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


class LogSoftmax(_Soft):
    """x - log Σ exp(x); ``onnx.reference`` takes the logarithm of what may be 0."""

    def _rows(self, x: np.ndarray) -> np.ndarray:
        shifted = x - x.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class Hardmax(_Soft):
    """One at the first maximum, zero elsewhere."""

    def _rows(self, x: np.ndarray) -> np.ndarray:
        out = np.zeros_like(x)
        np.put_along_axis(out, x.argmax(axis=-1)[..., None], 1, axis=-1)
        return out


class LRN(OpRun):
    """x / (bias + alpha / size · Σ x²)^beta over neighbouring channels; ``onnx.reference`` counts as many
    channels as there are samples, and wants two spatial axes."""

    op_domain = ""

    def _run(self, x: Any, alpha: Any = None, beta: Any = None, bias: Any = None, size: Any = None) -> Any:
        wide = x if x.dtype == np.float64 else x.astype(np.float32)
        before = (size - 1) // 2
        pads = [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(wide * wide, pads), size, axis=1)
        return ((wide / (bias + alpha / size * windows.sum(axis=-1)) ** beta).astype(x.dtype),)


class LpNormalization(OpRun):
    """x / its p-norm along an axis, 0 where the norm is; ``onnx.reference`` sums powers without taking
    absolute values."""

    op_domain = ""

    def _run(self, x: Any, axis: Any = None, p: Any = None) -> Any:
        wide = x if x.dtype == np.float64 else x.astype(np.float32)
        length = np.linalg.norm(wide, p, axis=axis, keepdims=True)
        return (np.where(length == 0, 0, wide / length).astype(x.dtype),)


class GridSample(op_grid_sample.GridSample):
    """``onnx.reference`` knows the modes by their names since opset 20 alone."""

    op_domain = ""

    def _run(
        self, X: Any, grid: Any, mode: Any = None, padding_mode: Any = None, align_corners: Any = None
    ) -> Any:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
        return super()._run(X, grid, mode, padding_mode, align_corners)


class NonMaxSuppression(op_non_max_suppression.NonMaxSuppression):
    """``onnx.reference`` fails where no number of boxes or no threshold is given, which are 0 then."""

    op_domain = ""

    def _run(
        self,
        boxes: Any,
        scores: Any,
        count: Any = None,
        overlap: Any = None,
        score: Any = None,
        center_point_box: Any = None,
    ) -> Any:
        if count is None or not int(np.reshape(count, -1)[0]):
            return (np.zeros((0, 3), np.int64),)
        overlap = np.zeros(1, np.float32) if overlap is None else overlap
        return super()._run(boxes, scores, count, overlap, score, center_point_box)


class OneHot(op_one_hot.OneHot):
    """``onnx.reference`` fails where the depth is a vector of one element."""

    op_domain = ""

    def _run(self, indices: Any, depth: Any, values: Any, axis: Any = None) -> Any:
        return super()._run(indices, np.reshape(depth, ()), values, axis)

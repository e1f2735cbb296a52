"""Scaling, and linear and support vector models of ai.onnx.ml.

``onnx.reference`` gives results of the operand's type where the specification says float32 (a Scaler of
integers rounds), has no post_transform for regressors, takes absent intercepts for NaN, finds the class after
the transformation, which may lose the order, and couples the probabilities of a support vector classifier
by a product that sums where it should not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from egc.ir.host_ops.scores import name_classes, pair, transform

_DOMAIN = "ai.onnx.ml"


class Scaler(OpRun):
    """(x - offset) * scale, per feature or one for all."""

    op_domain = _DOMAIN

    def _run(self, x: Any, offset: Any = None, scale: Any = None) -> Any:
        return (
            ((_samples(x) - np.array(offset, np.float32)) * np.array(scale, np.float32)).reshape(x.shape),
        )


class Normalizer(OpRun):
    """Rows divided by their maximum, sum of absolute values or Euclidean length, where that is not zero."""

    op_domain = _DOMAIN

    def _run(self, x: Any, norm: Any = None) -> Any:
        rows = _samples(x)
        if norm == "MAX":
            length = rows.max(axis=-1, keepdims=True)
        elif norm in ("L1", "L2"):
            length = np.linalg.norm(rows, 1 if norm == "L1" else 2, axis=-1, keepdims=True)
        else:
            raise ValueError(f"norm {norm!r} is unknown")
        return ((rows / np.where(length == 0, np.float32(1), length)).reshape(x.shape),)


class LinearRegressor(OpRun):
    """x C + intercepts, transformed."""

    op_domain = _DOMAIN

    def _run(self, x: Any, targets: Any = 1, post_transform: Any = None, **attributes: Any) -> Any:
        return (transform(_linear(_samples(x), attributes, int(targets)), post_transform),)


class LinearClassifier(OpRun):
    """The label of the highest score; one row of coefficients decides between two classes by its sign."""

    op_domain = _DOMAIN

    def _run(self, x: Any, post_transform: Any = None, **attributes: Any) -> Any:
        labels = attributes.get("classlabels_strings") or attributes.get("classlabels_ints") or []
        rows = _samples(x)
        scores = _linear(rows, attributes, len(attributes["coefficients"]) // rows.shape[1])
        if scores.shape[1] > 1:
            return name_classes(labels, scores.argmax(axis=1)), transform(scores, post_transform)
        best = (scores[:, 0] > 0).astype(np.int64)
        if len(labels) == 2:
            return name_classes(labels, best), pair(scores[:, 0], True, post_transform)
        return name_classes(labels, best), transform(scores, post_transform)


class SVMRegressor(OpRun):
    """Σ coefficient · kernel(x, support vector) + rho; its sign for one_class."""

    op_domain = _DOMAIN

    def _run(self, x: Any, post_transform: Any = None, **attributes: Any) -> Any:
        rows, rho = _samples(x), np.float32(attributes["rho"][0])
        weights = np.array(attributes["coefficients"], np.float32)
        supports = int(attributes.get("n_supports") or 0)
        kernels = _kernels(rows, attributes, supports) if supports else rows
        scores = (kernels @ weights + rho)[:, None]
        if attributes.get("one_class"):
            scores = np.where(scores > 0, np.float32(1), np.float32(-1))
        return (transform(scores, post_transform),)


class SVMClassifier(OpRun):
    """A vote over all pairs of classes, or without support vectors the highest of linear scores. Of two
    classes without probabilities, the one score becomes a pair as in ONNX Runtime."""

    op_domain = _DOMAIN

    def _run(self, x: Any, post_transform: Any = None, **attributes: Any) -> Any:
        labels = attributes.get("classlabels_strings") or attributes.get("classlabels_ints") or []
        rows, sizes = _samples(x), list(attributes.get("vectors_per_class") or ())
        weights = np.array(attributes["coefficients"], np.float32)
        rho = np.array(attributes["rho"], np.float32)
        if not sizes:
            scores = rows @ weights.reshape(len(labels), -1).T + rho[0]
            return name_classes(labels, scores.argmax(axis=1)), transform(scores, post_transform)
        kernels = _kernels(rows, attributes, sum(sizes))
        scores, votes = _duels(kernels, weights.reshape(len(sizes) - 1, -1), rho, sizes)
        best = name_classes(labels, votes.argmax(axis=1))
        if attributes.get("prob_a"):
            a, b = (np.array(attributes[name], np.float32) for name in ("prob_a", "prob_b"))
            chances = np.clip(1 / (1 + np.exp(scores * a + b)), 1e-7, 1 - 1e-7)
            scores = np.stack([_couple(row, len(sizes)) for row in chances]).astype(np.float32)
        elif len(sizes) == 2:
            return best, pair(scores[:, 0], post_transform not in (None, "NONE"), post_transform)
        return best, transform(scores, post_transform)


def _samples(x: np.ndarray) -> np.ndarray:
    """The operand as float32, one sample a row."""
    return np.atleast_2d(x).astype(np.float32)


def _linear(rows: np.ndarray, attributes: Mapping[str, Any], targets: int) -> np.ndarray:
    weights = np.array(attributes["coefficients"], np.float32).reshape(targets, -1)
    intercepts = np.array(attributes.get("intercepts") or 0, np.float32)
    return rows @ weights.T + intercepts


def _kernels(rows: np.ndarray, attributes: Mapping[str, Any], count: int) -> np.ndarray:
    """The kernel between each row and each of ``count`` support vectors."""
    vectors = np.array(attributes["support_vectors"], np.float32).reshape(count, -1)
    gamma, coef0, degree = (np.float32(v) for v in attributes.get("kernel_params") or (0, 0, 0))
    kind = attributes.get("kernel_type") or "LINEAR"
    if kind == "RBF":
        return np.exp(-gamma * ((rows[:, None] - vectors) ** 2).sum(axis=2))
    dots = rows @ vectors.T
    if kind == "LINEAR":
        return dots
    if kind == "POLY":
        return (gamma * dots + coef0) ** degree
    if kind == "SIGMOID":
        return np.tanh(gamma * dots + coef0)
    raise ValueError(f"kernel_type {kind!r} is unknown")


def _duels(
    kernels: np.ndarray, weights: np.ndarray, rho: np.ndarray, sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The score of every pair of classes, and the votes of each class."""
    ends = np.cumsum(sizes)
    parts = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    votes = np.zeros((len(kernels), len(sizes)), np.int64)
    scores: list[np.ndarray] = []
    for i in range(len(sizes)):
        for j in range(i + 1, len(sizes)):
            score = kernels[:, parts[i]] @ weights[j - 1, parts[i]]
            score = score + kernels[:, parts[j]] @ weights[i, parts[j]] + rho[len(scores)]
            scores.append(score)
            votes[np.arange(len(score)), np.where(score > 0, i, j)] += 1
    return np.stack(scores, axis=1), votes


def _couple(chances: np.ndarray, count: int) -> np.ndarray:
    """The probabilities of classes from those of all pairs: Wu, Lin and Weng (2004), algorithm 2."""
    r = np.zeros((count, count))
    r[np.triu_indices(count, 1)] = chances
    r += np.tril(1 - r.T, -1)
    q = -r.T * r
    np.fill_diagonal(q, (r**2).sum(axis=0))
    p = np.full(count, 1 / count)
    for _ in range(max(100, count)):
        qp = q @ p
        pqp = p @ qp
        if np.abs(qp - pqp).max() < 0.005 / count:
            break
        for t in range(count):
            step = (pqp - qp[t]) / q[t, t]
            p[t] += step
            pqp = (pqp + step * (step * q[t, t] + 2 * qp[t])) / (1 + step) ** 2
            qp = (qp + step * q[t]) / (1 + step)
            p /= 1 + step
    return p

"""What classifiers and regressors of ai.onnx.ml do with scores at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def transform(scores: np.ndarray, kind: str | None) -> np.ndarray:
    """``post_transform`` over the last axis of ``scores``. ValueError where it is unknown."""
    if kind in (None, "NONE"):
        return scores
    if kind == "LOGISTIC":
        return 1 / (1 + np.exp(-scores))
    if kind in ("SOFTMAX", "SOFTMAX_ZERO"):
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        if kind == "SOFTMAX_ZERO":
            # A score of zero stays zero and does not count.
            powers = np.where(np.abs(scores) > 1e-7, powers, 0)
        total = powers.sum(axis=-1, keepdims=True)
        return powers / np.where(total == 0, 1, total)
    if kind == "PROBIT":
        return math.sqrt(2.0) * _inverse_erf(2 * scores - 1)
    raise ValueError(f"post_transform {kind!r} is unknown")


def _inverse_erf(x: np.ndarray) -> np.ndarray:
    """The approximation of Winitzki (2008) with a = 0.147, which ONNX Runtime uses, too."""
    log = np.log((1 - x) * (1 + x))
    half = 2 / (np.pi * 0.147) + log / 2
    return np.sign(x) * np.sqrt(np.sqrt(half * half - log / 0.147) - half)


def classify(
    scores: np.ndarray,
    given: np.ndarray,
    base: np.ndarray | None,
    only: int | None,
    positive: bool,
    kind: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The index of each sample's class and the final scores, from the sums ``scores`` [N, classes].

    ``given`` says which of them any leaf gave. ``only`` is the one class that leaves name, None where there
    are several; ``positive`` that no weight is below zero. The specification does not say how one score
    decides between two classes. As in ONNX Runtime it stands for the second class, which wins above 0.5 if
    ``positive`` and above 0 else; LOGISTIC makes its negative the score of the first, and what is no
    probability then is not transformed.
    """
    count = scores.shape[1]
    if base is not None and len(base) != count and (len(base) > 1 or only is None):
        raise ValueError(f"{len(base)} base values do not fit {count} classes")
    if count > 2 or only is None:
        if base is not None:
            scores, given = scores + base, np.ones_like(given)
        if count == 1:
            return (scores[:, 0] > 0).astype(np.int64), transform(scores, kind)
        return np.where(given, scores, -np.inf).argmax(axis=1), transform(scores, kind)
    threshold = 0.5 if positive else 0.0
    if base is not None and len(base) == 2:
        scores = scores + base
        return (scores[:, only] > threshold).astype(np.int64), transform(scores, kind)
    one = scores[:, only] + (0 if base is None else base[0])
    best = (one > threshold).astype(np.int64)
    if only == 1:
        return best, transform(np.stack([np.zeros_like(one), one], axis=1), kind)
    return best, pair(one, positive, kind)


def pair(one: np.ndarray, positive: bool, kind: str | None) -> np.ndarray:
    """The scores of two classes from the one score [N] between them, which is the second's, transformed."""
    both = np.stack([1 - one if positive and kind != "LOGISTIC" else -one, one], axis=1)
    return transform(both, kind if kind in ("LOGISTIC", "PROBIT") else None)


def name_classes(labels: Sequence[Any], best: np.ndarray) -> np.ndarray:
    """The labels of classes by their index: numbers, or text in an array of objects."""
    strings = bool(labels) and isinstance(labels[0], str | bytes)
    if not labels:
        return best.astype(np.int64)
    if len(labels) == 1:
        # One label stands for the positive class; the other one has no name.
        labels = ["", labels[0]] if strings else [0, labels[0]]
    return np.array(labels, object if strings else np.int64)[best]

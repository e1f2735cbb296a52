"""Constant folding: a node over constants is evaluated when it is built, within bounds of memory and work."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from egc.ir.dims import product
from egc.ir.graph import AttrValue, GraphBuilder
from egc.ir.infer import infer
from egc.ir.types import TensorType, itemsize

# A folded result may have this many bytes, or this many for each byte of its operands: weights that are
# transposed, widened or dequantised are folded whatever their size, a constant broadcast to an image is
# not.
MAX_BYTES = 16 << 20
MAX_GROWTH = 8
# Contractions are bounded by multiply-adds as well: folding must not take longer than running the model
# once would.
MAX_WORK = 1 << 28

_NEVER = frozenset({"host", "dim"})
_CONTRACTIONS = frozenset({"matmul", "conv", "conv_channels_last", "pool"})


def fold(
    builder: GraphBuilder, op: str, inputs: tuple[str, ...], attrs: Mapping[str, AttrValue]
) -> tuple[np.ndarray, ...] | None:
    """The results of a node whose operands are all constants; None where one is not, or they would be too
    large.

    Raises InferError where operands and attributes do not fit together.
    """
    if op in _NEVER or any(name not in builder.constants for name in inputs):
        return None
    types = tuple(builder.types[name] for name in inputs)
    results = infer(op, types, attrs)
    if not all(t.is_static for t in results) or not _affordable(op, types, results, attrs):
        return None
    operands = tuple(builder.constants[name].data for name in inputs)
    return _view(op, operands, attrs) or _evaluate(op, operands, attrs)


def _affordable(
    op: str, types: tuple[TensorType, ...], results: tuple[TensorType, ...], attrs: Mapping[str, AttrValue]
) -> bool:
    size = sum(_bytes(t) for t in results)
    if size > max(MAX_BYTES, MAX_GROWTH * sum(map(_bytes, types))):
        return False
    if op == "expand":
        return size <= 4096
    if op == "iota":
        return size <= 1 << 16
    if op not in _CONTRACTIONS:
        return True
    match op:
        case "pool":
            taps = product(attrs["window"])  # type: ignore[arg-type]
        case "matmul":
            taps = types[0].shape[-1]
        case _:
            # Each result sums over a filter of one output channel, whichever axis those are counted on.
            taps = product(types[1].shape)
    return results[0].size * taps <= MAX_WORK  # type: ignore[operator]


def _bytes(type_: TensorType) -> int:
    return int(type_.size) * itemsize(type_.dtype)  # type: ignore[arg-type]


def _view(
    op: str, operands: tuple[np.ndarray, ...], attrs: Mapping[str, AttrValue]
) -> tuple[np.ndarray, ...] | None:
    """Reshapes, transposes and slices of constants, without copying where numpy can."""
    match op:
        case "reshape":
            return (operands[0].reshape(attrs["shape"]),)  # type: ignore[arg-type]
        case "transpose":
            return (operands[0].transpose(attrs["perm"]),)  # type: ignore[arg-type]
        case _:
            return None


def _evaluate(
    op: str, operands: tuple[np.ndarray, ...], attrs: Mapping[str, AttrValue]
) -> tuple[np.ndarray, ...]:
    from egc.ir.evaluate import evaluate_node

    results = evaluate_node(op, operands, attrs)
    return tuple(results) if isinstance(results, tuple | list) else (results,)

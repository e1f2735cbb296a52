"""The checksum of constants in numpy: what the writer uses, and what the compiled one must agree with."""

from __future__ import annotations

import numpy as np

from egc.runtime import abi

_MULTIPLIER = np.uint64(abi.MULTIPLIER)


def checksum(data: np.ndarray) -> np.ndarray:
    """One uint64 for each `abi.CHUNK_BYTES` of `data`, a vector of uint8; the last chunk may be short."""
    starts = range(0, data.size, abi.CHUNK_BYTES)
    return np.array([_chunk(data[start : start + abi.CHUNK_BYTES]) for start in starts], np.uint64)


def _chunk(data: np.ndarray) -> np.uint64:
    whole = data.size - data.size % abi.ROW_BYTES
    rows = data[:whole].view(np.uint64).reshape(-1, abi.CHUNK_LANES)
    lanes = np.arange(abi.CHUNK_LANES, dtype=np.uint64)
    scratch = np.empty_like(lanes)
    for row in rows:
        _mix(lanes, row, scratch)
    if whole < data.size:
        rest = np.zeros(abi.ROW_BYTES, np.uint8)
        rest[: data.size - whole] = data[whole:]
        _mix(lanes, rest.view(np.uint64), scratch)
    while lanes.size > 1:
        low, high = lanes[: lanes.size // 2], lanes[lanes.size // 2 :]
        low = low * _MULTIPLIER
        lanes = ((low << np.uint64(abi.ROTATION)) | (low >> np.uint64(64 - abi.ROTATION))) ^ high
    return ((lanes ^ np.uint64(data.size)) * _MULTIPLIER)[0]


def _mix(lanes: np.ndarray, row: np.ndarray, scratch: np.ndarray) -> None:
    """lanes ← rotate((lanes ^ row) · MULTIPLIER, ROTATION), in place."""
    np.bitwise_xor(lanes, row, out=lanes)
    np.multiply(lanes, _MULTIPLIER, out=lanes)
    np.right_shift(lanes, np.uint64(64 - abi.ROTATION), out=scratch)
    np.left_shift(lanes, np.uint64(abi.ROTATION), out=lanes)
    np.bitwise_or(lanes, scratch, out=lanes)

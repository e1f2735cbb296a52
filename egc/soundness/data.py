"""Arrays for the leaves of an instance: plain numbers, edge cases,
and indices where a reader asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from egc.ir.types import TensorType, is_float, numpy_dtype
from egc.soundness.plan import Plan, State, attribute_values
from egc.soundness.values import Rejected

# What mathematics speaks of; "special" and "extreme" are the corners of machine numbers.
PLAIN = ("small", "ramp", "normal", "positive", "zero")

_INDEXED = {"gather": 1, "gather_elements": 1, "gather_nd": 1, "scatter_elements": 1, "scatter_nd": 1}


def leaf_arrays(plan: Plan, state: State, mode: str, rng: np.random.Generator) -> dict[int, Any]:
    """An array for every leaf. Raises Rejected where a scatter has no meaning."""
    indices = _indices(plan, state, rng)
    with np.errstate(all="ignore"):
        return {
            i: indices[i] if i in indices else np.asarray(array(state.types[i], mode, rng))
            for i, node in enumerate(plan.nodes)
            if node.op == "leaf" and state.types[i] is not None
        }


def array(type_: TensorType, mode: str, rng: np.random.Generator) -> Any:
    """Random data of a type in one of the modes."""
    shape = type_.extents
    dtype = numpy_dtype(type_.dtype)
    if type_.dtype == "bool":
        return np.zeros(shape, bool) if mode == "zero" else rng.integers(0, 2, shape).astype(bool)
    if is_float(type_.dtype):
        return _floats(shape, mode, rng).astype(dtype)
    info = np.iinfo(dtype)
    match mode:
        case "zero":
            return np.zeros(shape, dtype)
        case "extreme":
            corners = np.array([info.min, info.max, info.min + 1, info.max - 1, 0, 1], dtype=dtype)
            return rng.choice(corners, shape)
        case "special" | "normal":
            return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
        case "positive":
            return rng.integers(1, 9, shape).astype(dtype)
        case "ramp":
            return np.arange(1, int(np.prod(shape)) + 1).reshape(shape).astype(dtype)
        case _:
            return rng.integers(max(info.min, -4), 5, shape).astype(dtype)


def _floats(shape: Sequence[int], mode: str, rng: np.random.Generator) -> Any:
    with np.errstate(all="ignore"):
        match mode:
            case "zero":
                return np.zeros(shape)
            case "small":
                return rng.integers(-4, 5, shape).astype(np.float64)
            case "ramp":
                return (np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape) % 32 + 1) / 4
            case "positive":
                return rng.random(shape) * 3 + 0.25
            case "special":
                corners = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.5, 2.0])
                return rng.choice(corners, shape)
            case "extreme":
                corners = np.array([3e38, -3e38, 1e-40, 65000.0, 1e30, -1e-30, 1.0, -2.0, 16777217.0])
                return rng.choice(corners, shape)
    return rng.standard_normal(shape) * 2


def _indices(plan: Plan, state: State, rng: np.random.Generator) -> dict[int, Any]:
    """Valid indices for the leaves that an operator reads as such; a scatter's name no element twice."""
    found: dict[int, Any] = {}
    # A scatter asks for more than a gather of the same indices: that they are distinct.
    for node in sorted(plan.nodes[: plan.left], key=lambda node: node.op.startswith("scatter")):
        position = _INDEXED.get(node.op)
        if position is None or plan.nodes[node.children[position]].op != "leaf":
            continue
        leaf = node.children[position]
        x, indices = state.types[node.children[0]], state.types[leaf]
        attrs = attribute_values(node, state)
        if node.op in ("gather", "gather_elements"):
            extent = x.shape[attrs["axis"]]
            found[leaf] = _integers(indices, -extent, extent, rng)
        elif node.op == "scatter_elements":
            found[leaf] = _distinct(indices, x.shape[attrs["axis"]], attrs["axis"], rng)
        else:
            batch = attrs.get("batch_dims", 0)
            found[leaf] = _coordinates(indices, x.shape[batch:], node.op == "scatter_nd", rng)
    return found


def _integers(type_: TensorType, low: int, high: int, rng: np.random.Generator) -> Any:
    if high <= low:
        return np.zeros(type_.extents, numpy_dtype(type_.dtype))
    return rng.integers(low, high, type_.extents).astype(numpy_dtype(type_.dtype))


def _distinct(type_: TensorType, extent: int, axis: int, rng: np.random.Generator) -> Any:
    """Indices that are distinct along ``axis``, a few of them negative:
    ONNX leaves it open who wins on a clash.
    """
    if type_.extents[axis] > extent:
        raise Rejected("a scatter names an element twice")
    out = np.zeros(type_.extents, numpy_dtype(type_.dtype))
    moved = np.moveaxis(out, axis, -1)
    for place in np.ndindex(moved.shape[:-1]):
        moved[place] = rng.permutation(extent)[: moved.shape[-1]] - rng.choice([0, extent])
    return out


def _coordinates(type_: TensorType, extents: Sequence[int], distinct: bool, rng: np.random.Generator) -> Any:
    depth = type_.extents[-1]
    bounds = [max(1, int(d)) for d in extents[:depth]]
    rows = int(np.prod(type_.extents[:-1]))
    total = int(np.prod(bounds))
    if distinct and rows > total:
        raise Rejected("a scatter names an element twice")
    flat = rng.permutation(total)[:rows] if distinct else rng.integers(0, total, rows)
    picked = np.stack(np.unravel_index(flat, bounds), -1) if depth else np.zeros((rows, 0))
    return picked.reshape(type_.extents).astype(numpy_dtype(type_.dtype))

"""Reading and writing by index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from egc.frontend.arithmetic import numeric
from egc.frontend.context import Context
from egc.frontend.registry import OnnxNode, operator
from egc.ir.dims import SymDim

FAMILY = "gather"
_REDUCTIONS = {"none": "set", "add": "add", "mul": "mul", "max": "max", "min": "min"}


@operator("Gather", family=FAMILY)
def gather(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Constant indices that follow one another are a slice."""
    x, indices = numeric(ctx, node.required(0)), node.required(1)
    axis = ctx.axis(node.attr("axis", 0), ctx.rank(x))
    extent = ctx.shape(x)[axis]
    places = ctx.const(indices)
    if places is not None and places.size and not isinstance(extent, SymDim):
        if places.min() < -extent or places.max() >= extent:
            ctx.fail(f"index {places.min()} or {places.max()} leaves an axis of {extent}")
        if (run := _run(places, extent)) is not None and places.ndim <= 1:
            part = ctx.slice_axis(x, axis, run, places.size)
            return [part if places.ndim else ctx.squeeze(part, (axis,))]
    return [ctx.add("gather", (x, indices), axis=axis)]


def _run(places: np.ndarray, extent: int) -> int | None:
    """The first of consecutive places, None where they are not consecutive."""
    flat = np.where(places < 0, places + extent, places).reshape(-1).astype(np.int64)
    return int(flat[0]) if (np.diff(flat) == 1).all() else None


@operator("GatherElements", family=FAMILY)
def gather_elements(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """numpy.take_along_axis."""
    x = numeric(ctx, node.required(0))
    axis = ctx.axis(node.attr("axis", 0), ctx.rank(x))
    return [ctx.add("gather_elements", (x, node.required(1)), axis=axis)]


@operator("GatherND", family=FAMILY)
def gather_nd(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Slices by index tuples."""
    x = numeric(ctx, node.required(0))
    return [ctx.add("gather_nd", (x, node.required(1)), batch_dims=node.attr("batch_dims", 0))]


@operator("ScatterElements", "Scatter", family=FAMILY)
def scatter_elements(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The inverse of GatherElements, combining what falls together."""
    x = numeric(ctx, node.required(0))
    axis = ctx.axis(node.attr("axis", 0), ctx.rank(x))
    operands = (x, node.required(1), node.required(2))
    return [ctx.add("scatter_elements", operands, axis=axis, fn=_reduction(ctx, node))]


@operator("ScatterND", family=FAMILY)
def scatter_nd(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The inverse of GatherND, combining what falls together."""
    operands = (numeric(ctx, node.required(0)), node.required(1), node.required(2))
    return [ctx.add("scatter_nd", operands, fn=_reduction(ctx, node))]


def _reduction(ctx: Context, node: OnnxNode) -> str:
    name = node.attr("reduction", "none")
    if name not in _REDUCTIONS:
        ctx.fail(f"there is no reduction {name!r}")
    return _REDUCTIONS[name]

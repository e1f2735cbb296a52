"""Control flow that is known when compiling: the branch that is taken, loops of few and known iterations.

Everything else (a condition that is data, a sequence carried through a loop) runs on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.messages import GraphProto
from egc.frontend.registry import operator

# A loop is unrolled into at most this many nodes of its body, over all iterations.
MAX_UNROLLED = 4096
_OPAQUE = frozenset({"If", "Loop", "Scan", "SequenceMap"})


@operator("If", family="control")
def branch(ctx: Context, node: OnnxNode) -> Sequence[str | None]:
    """The branch that a constant condition takes."""
    condition = ctx.const(node.required(0))
    if condition is None:
        raise NotCompiled("the condition is data")
    return ctx.inline(node.attr("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"))


@operator("Loop", family="control")
def loop(ctx: Context, node: OnnxNode) -> Sequence[str | None]:
    """A loop over a known number of iterations that its condition does not cut short, unrolled."""
    body: GraphProto = node.attr("body")
    trips = ctx.scalar_const(node.input(0))
    start = True if node.input(1) is None else ctx.scalar_const(node.input(1))
    if trips is None or start is None:
        raise NotCompiled("the number of iterations is data")
    trips = int(trips) if start else 0
    _check_size(ctx, body, trips)
    carried: list[str | None] = list(node.inputs[2:])
    _check_tensors(ctx, carried)
    collected: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
    for step in range(trips):
        keep, *results = ctx.inline(body, [ctx.scalar(step, "int64"), ctx.scalar(True, "bool"), *carried])
        going = ctx.scalar_const(keep)
        if going is None:
            raise NotCompiled("the condition depends on the iterations")
        carried = results[: len(carried)]
        _collect(ctx, collected, results[len(carried) :])
        if not going:
            break
    return [*carried, *_stacked(ctx, collected, [0] * len(collected))]


@operator("Scan", family="control")
def scan(ctx: Context, node: OnnxNode) -> Sequence[str | None]:
    """A scan over axes of known and small extent, unrolled."""
    if node.version < 9:
        return _batched_scan(ctx, node)
    return _scan(ctx, node, list(node.inputs))


def _batched_scan(ctx: Context, node: OnnxNode) -> list[str]:
    """Scan as it was in opset 8: each sample of a batch is scanned for itself, along its first axis."""
    if node.input(0) is not None:
        raise NotCompiled("a scan over sequences of their own lengths")
    values = [node.required(i) for i in range(1, len(node.inputs))]
    batch = ctx.shape(values[0])[0]
    if not isinstance(batch, int) or batch < 1:
        raise NotCompiled(f"a scan over the batch {batch}")
    samples = [
        _scan(ctx, node, [ctx.squeeze(ctx.slice_axis(v, 0, i, 1), (0,)) for v in values])
        for i in range(batch)
    ]
    columns = [[value for value in column if value is not None] for column in zip(*samples, strict=True)]
    return _stacked(ctx, columns, [0] * len(columns))


def _scan(ctx: Context, node: OnnxNode, inputs: list[str | None]) -> list[str | None]:
    body: GraphProto = node.attr("body")
    count = int(node.attr("num_scan_inputs", 0))
    if not 1 <= count <= len(inputs):
        ctx.fail(f"num_scan_inputs is {count}, the node has {len(inputs)} operands")
    carried: list[str | None] = inputs[:-count]
    scanned = [value for value in inputs[-count:] if value is not None]
    if len(scanned) < count:
        ctx.fail("an operand to scan over is missing")
    axes = [
        ctx.axis(int(a), ctx.rank(v))
        for a, v in zip(_each(node, "scan_input_axes", count), scanned, strict=True)
    ]
    backward = _each(node, "scan_input_directions" if node.version >= 9 else "directions", count)
    steps = ctx.shape(scanned[0])[axes[0]]
    if not isinstance(steps, int):
        raise NotCompiled(f"a scan over the symbolic extent {steps}")
    _check_size(ctx, body, steps)
    outputs = len(body.output) - len(carried)
    collected: list[list[str]] = [[] for _ in range(outputs)]
    for step in range(steps):
        elements = [
            ctx.squeeze(ctx.slice_axis(value, axis, steps - 1 - step if back else step, 1), (axis,))
            for value, axis, back in zip(scanned, axes, backward, strict=True)
        ]
        results = list(ctx.inline(body, [*carried, *elements]))
        carried = results[: len(carried)]
        _collect(ctx, collected, results[len(carried) :])
    reverse = _each(node, "scan_output_directions", outputs)
    ordered = [c[::-1] if back else c for c, back in zip(collected, reverse, strict=True)]
    return [*carried, *_stacked(ctx, ordered, _each(node, "scan_output_axes", outputs))]


def _each(node: OnnxNode, name: str, count: int) -> list[int]:
    """An attribute with an entry for each of ``count`` values, zeros by default."""
    return [int(v) for v in node.attr(name) or [0] * count]


def _check_size(ctx: Context, body: GraphProto, trips: int) -> None:
    if trips < 1:
        # The element types and extents of what no iteration makes are not written down.
        raise NotCompiled("a loop of no iterations")
    if trips * len(body.node) > MAX_UNROLLED:
        raise NotCompiled(f"{trips} iterations of {len(body.node)} nodes; up to {MAX_UNROLLED} are unrolled")
    # Trying to unroll a body that needs the host at every step would leave one host node for each iteration.
    nested = sorted({inner.op_type for inner in body.node} & _OPAQUE)
    if nested:
        raise NotCompiled(f"{nested[0]} inside a loop")


def _check_tensors(ctx: Context, values: Sequence[str | None]) -> None:
    if any(value is not None and ctx.dtype(value) == "object" for value in values):
        raise NotCompiled("a sequence is carried through the loop")


def _collect(ctx: Context, collected: list[list[str]], results: Sequence[str | None]) -> None:
    for column, value in zip(collected, results, strict=True):
        if value is None or ctx.dtype(value) == "object":
            raise NotCompiled("the loop collects values that are no tensors")
        if column and ctx.type(column[0]) != ctx.type(value):
            raise NotCompiled("the extents of what the loop collects change from one iteration to the next")
        column.append(value)


def _stacked(ctx: Context, columns: Sequence[Sequence[str]], axes: Sequence[int]) -> list[str]:
    out = []
    for column, axis in zip(columns, axes, strict=True):
        place = ctx.axis(axis, ctx.rank(column[0]) + 1)
        out.append(ctx.concat([ctx.unsqueeze(value, (place,)) for value in column], place))
    return out

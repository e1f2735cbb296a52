"""Operators that change shape only, and those that turn shapes into data."""

from __future__ import annotations

from collections.abc import Sequence

from egc.frontend.context import Context
from egc.frontend.registry import NotCompiled, OnnxNode, operator
from egc.ir.dims import Dim, Shape, SymDim, ceildiv, dim_max, dim_min, floordiv, product
from egc.ir.extents import at_least, simplify
from egc.ir.infer import broadcast

FAMILY = "shape"
# Exporters write the largest 32-bit or 64-bit number for "to the end"; no axis is that long.
_BEYOND = (1 << 31) - 1
_FAR = 1 << 48


def known_dims(ctx: Context, value: str | None, what: str) -> Shape:
    """The elements of a shape operand as dims; NotCompiled where they are known at run time only."""
    dims = ctx.shape_value(value)
    if dims is None:
        raise NotCompiled(f"{what} is data")
    return dims


def known_ints(ctx: Context, value: str | None, what: str) -> tuple[int, ...]:
    """The elements of an integer operand; NotCompiled where they are not constant."""
    ints = ctx.ints(value)
    if ints is None:
        raise NotCompiled(f"{what} is data")
    return ints


@operator("Shape", family=FAMILY)
def shape(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The extents, or a stretch of them, as data."""
    dims = ctx.shape(node.required(0))
    return [ctx.dims(list(dims[slice(node.attr("start", 0), node.attr("end"))]))]


@operator("Size", family=FAMILY)
def size(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The number of elements as data."""
    return [ctx.extent(ctx.type(node.required(0)).size, "int64")]


@operator("Reshape", family=FAMILY)
def reshape(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """0 copies an extent, -1 takes what is left."""
    x = node.required(0)
    wanted = known_dims(ctx, node.input(1), "its shape")
    old = ctx.shape(x)
    dims: list[Dim] = []
    for axis, dim in enumerate(wanted):
        if dim == 0 and not node.attr("allowzero", 0):
            if axis >= len(old):
                ctx.fail(f"the 0 at place {axis} of the shape has no axis to copy from in {ctx.type(x)}")
            dim = old[axis]
        dims.append(dim)
    return [ctx.reshape(x, _with_inferred(ctx, x, dims))]


def _with_inferred(ctx: Context, x: str, dims: list[Dim]) -> list[Dim]:
    """``dims`` with the one -1 among them replaced by what is left of the elements."""
    holes = [i for i, d in enumerate(dims) if d == -1]
    if any(isinstance(d, int) and d < -1 for d in dims) or len(holes) > 1:
        ctx.fail(f"the shape {dims} has a negative extent or more than one -1")
    if holes:
        rest = product([d for d in dims if d != -1])
        total = ctx.type(x).size
        if rest == 0:
            ctx.fail(f"the shape {dims} leaves -1 undefined")
        if isinstance(rest, int) and isinstance(total, int) and total % rest:
            ctx.fail(f"{total} elements do not divide into the shape {dims}")
        dims[holes[0]] = floordiv(total, rest)
    return dims


@operator("Flatten", family=FAMILY)
def flatten(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Two axes: those before `axis`, and the others."""
    x = node.required(0)
    dims, axis = ctx.shape(x), node.attr("axis", 1)
    if not -len(dims) <= axis <= len(dims):
        ctx.fail(f"axis {axis} is not a place between the axes of {ctx.type(x)}")
    axis = axis + len(dims) if axis < 0 else axis
    return [ctx.reshape(x, (product(dims[:axis]), product(dims[axis:])))]


def _given_axes(ctx: Context, node: OnnxNode) -> Sequence[int] | None:
    return (
        known_ints(ctx, node.input(1), "the list of axes") if node.input(1) is not None else node.attr("axes")
    )


@operator("Squeeze", family=FAMILY)
def squeeze(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Without axes of extent 1."""
    x = node.required(0)
    dims, given = ctx.shape(x), _given_axes(ctx, node)
    if given is None:
        if any(isinstance(d, SymDim) for d in dims):
            ctx.fail(
                f"the rank of its result depends on the run: {ctx.type(x)}", "fix the shapes with --shape"
            )
        given = [i for i, d in enumerate(dims) if d == 1]
    axes = ctx.axes(given, len(dims))
    for axis in axes:
        if isinstance(dims[axis], int) and dims[axis] != 1:
            ctx.fail(f"axis {axis} of {ctx.type(x)} has not the extent 1")
    return [ctx.squeeze(x, axes)]


@operator("Unsqueeze", family=FAMILY)
def unsqueeze(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """With new axes of extent 1."""
    x = node.required(0)
    given = _given_axes(ctx, node)
    if given is None:
        ctx.fail("it has no axes")
    return [ctx.unsqueeze(x, ctx.axes(given, ctx.rank(x) + len(given)))]


@operator("Transpose", family=FAMILY)
def transpose(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Axes reordered, or reversed where no order is given."""
    x = node.required(0)
    return [ctx.transpose(x, node.attr("perm") or tuple(reversed(range(ctx.rank(x)))))]


@operator("Expand", family=FAMILY)
def expand(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Broadcast both ways against a shape."""
    x = node.required(0)
    return [ctx.expand(x, broadcast(ctx.shape(x), known_dims(ctx, node.input(1), "its shape")))]


@operator("Tile", family=FAMILY)
def tile(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """An axis of extent 1 before each axis is broadcast to the number of repeats, and merged with it."""
    x = node.required(0)
    dims, repeats = ctx.shape(x), known_dims(ctx, node.input(1), "the number of repeats")
    if len(repeats) != len(dims):
        ctx.fail(f"{len(repeats)} repeats for {ctx.type(x)}")
    if any(isinstance(r, int) and r < 0 for r in repeats):
        ctx.fail(f"negative repeats: {', '.join(map(str, repeats))}")
    if all(r == 1 for r in repeats):
        return [x]
    split = [
        d for extent, r in zip(dims, repeats, strict=True) for d in ((1, extent) if r != 1 else (extent,))
    ]
    wide = [
        d for extent, r in zip(dims, repeats, strict=True) for d in ((r, extent) if r != 1 else (extent,))
    ]
    merged = [extent * r for extent, r in zip(dims, repeats, strict=True)]
    return [ctx.reshape(ctx.expand(ctx.reshape(x, split), wide), merged)]


@operator("Concat", family=FAMILY)
def concat(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Operands side by side."""
    values = [v for v in node.inputs if v is not None]
    if not values:
        ctx.fail("it has no operands")
    axis = ctx.axis(node.attr("axis", 1), ctx.rank(values[0]))
    return [ctx.concat(values, axis)]


@operator("Split", family=FAMILY)
def split(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Consecutive slices along one axis."""
    x = node.required(0)
    axis = ctx.axis(node.attr("axis", 0), ctx.rank(x))
    extent, count = ctx.shape(x)[axis], len(node.outputs)
    given: Sequence[Dim] | None = node.attr("split")
    if node.input(1) is not None:
        given = known_dims(ctx, node.input(1), "the list of sizes")
    if given is None:
        if node.attr("num_outputs", count) != count:
            ctx.fail(f"num_outputs is {node.attr('num_outputs')}, the node has {count} outputs")
        part = ceildiv(extent, count)
        given = [part] * (count - 1) + [extent - part * (count - 1)]
    total = sum(given)
    if len(given) != count or (isinstance(total, int) and isinstance(extent, int) and total != extent):
        ctx.fail(f"the sizes {list(given)} do not divide axis {axis} of {ctx.type(x)} into {count} outputs")
    out: list[str] = []
    start: Dim = 0
    for part in given:
        out.append(ctx.slice_axis(x, axis, start, part))
        start = start + part
    return out


@operator("Slice", family=FAMILY)
def slice_(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Strided ranges along axes, clamped."""
    x = node.required(0)
    dims = ctx.shape(x)
    if node.version < 10:
        starts, ends, axes = node.attr("starts"), node.attr("ends"), node.attr("axes")
        steps: tuple[int, ...] | None = None
    else:
        starts, ends = (known_dims(ctx, node.input(i), "the range") for i in (1, 2))
        axes = None if node.input(3) is None else known_ints(ctx, node.input(3), "the list of axes")
        steps = None if node.input(4) is None else known_ints(ctx, node.input(4), "the step")
    count = len(starts)
    axes = tuple(range(count)) if axes is None else tuple(ctx.axis(a, len(dims)) for a in axes)
    steps = (1,) * count if steps is None else steps
    if not len(ends) == len(axes) == len(steps) == count or len(set(axes)) != count:
        ctx.fail("starts, ends, axes and steps have different lengths, or an axis occurs twice")
    first: list[Dim] = [0] * len(dims)
    sizes, strides = list(dims), [1] * len(dims)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis >= len(dims) or step == 0:
            ctx.fail(f"step {step} along axis {axis} of {ctx.type(x)}")
        first[axis], sizes[axis] = slice_range(start, end, step, dims[axis])
        strides[axis] = step
    if list(sizes) == list(dims) and all(s == 1 for s in strides):
        return [x]
    return [ctx.add("slice", (x,), starts=tuple(first), sizes=tuple(sizes), steps=tuple(strides))]


def slice_range(start: Dim, end: Dim, step: int, extent: Dim) -> tuple[Dim, Dim]:
    """The first element and the number of elements of ``start:end:step`` along an axis, clamped as ONNX
    clamps."""
    if step > 0:
        if isinstance(start, int) and -_BEYOND < start < 0:
            # The last k elements: written so, the length comes out as min(k, extent).
            first = extent - dim_min(-start, extent)
        else:
            first = _clamped(start, extent, 0, extent)
        last = _clamped(end, extent, 0, extent)
        length = last - first
        if not at_least(length, 0):
            length = dim_max(length, 0)
        return simplify(first), ceildiv(simplify(length), step)
    first = _clamped(start, extent, 0, extent - 1)
    last = _clamped(end, extent, -1, extent - 1)
    length = first - last
    return simplify(first), ceildiv(simplify(length if at_least(length, 0) else dim_max(length, 0)), -step)


def _clamped(place: Dim, extent: Dim, low: Dim, high: Dim) -> Dim:
    """``place``, counted from the end where it is negative, moved into ``low … high``."""
    if isinstance(place, int) and abs(place) >= _BEYOND:
        return high if place > 0 else low
    if at_least(-place, 1):
        place = place + extent
    elif not at_least(place, 0):
        # The run will tell whether it counts from the end: the quotient is -1 where it is negative, else 0.
        place = place - extent * floordiv(place, _FAR)
    if not at_least(place - low, 0):
        place = dim_max(place, low)
    return place if at_least(high - place, 0) else dim_min(place, high)


@operator("ConstantOfShape", family=FAMILY)
def constant_of_shape(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """One value, broadcast."""
    import numpy as np

    dims = known_dims(ctx, node.input(0), "its shape")
    value = node.attr("value", np.zeros(1, np.float32))
    if value.size != 1 or any(isinstance(d, int) and d < 0 for d in dims):
        ctx.fail("it needs one value and extents that are not negative")
    return [ctx.expand(ctx.constant(value.reshape(())), dims)]


@operator("Range", family=FAMILY)
def range_(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """start + i delta for as many i as stay before the limit."""
    import numpy as np

    operands = [node.required(i) for i in range(3)]
    constants = [ctx.const(v) for v in operands]
    if all(c is not None for c in constants):
        start, limit, delta = (c.reshape(-1)[0] for c in constants if c is not None)
        if delta == 0:
            ctx.fail("its step is 0")
        length: Dim = max(int(np.ceil((float(limit) - float(start)) / float(delta))), 0)
    else:
        start_d, limit_d, delta_d = (known_dims(ctx, v, "the range")[0] for v in operands)
        if not isinstance(delta_d, int) or delta_d == 0:
            raise NotCompiled("its step is data")
        span = limit_d - start_d if delta_d > 0 else start_d - limit_d
        length = ceildiv(span, abs(delta_d))
        length = length if at_least(span, 0) else dim_max(length, 0)
    dtype = ctx.dtype(operands[0])
    place = ctx.cast(ctx.iota((length,), 0), dtype)
    scaled = (
        place if ctx.scalar_const(operands[2]) == 1 else ctx.map("mul", place, ctx.reshape(operands[2], ()))
    )
    if ctx.scalar_const(operands[0]) == 0:
        return [scaled]
    return [ctx.map("add", scaled, ctx.reshape(operands[0], ()))]


@operator("DepthToSpace", "SpaceToDepth", family=FAMILY)
def depth_and_space(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """A block of b × b pixels and b² channels are one another; `mode` says which of b² and c is the outer
    axis."""
    x = node.required(0)
    block = node.attr("blocksize")
    if ctx.rank(x) != 4 or block < 1:
        ctx.fail(f"a block of {block} over {ctx.type(x)}")
    n, c, h, w = ctx.shape(x)
    if node.op_type == "SpaceToDepth":
        parts = ctx.reshape(x, (n, c, floordiv(h, block), block, floordiv(w, block), block))
        moved = ctx.transpose(
            parts, (0, 3, 5, 1, 2, 4) if node.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
        )
        return [ctx.reshape(moved, (n, c * block * block, floordiv(h, block), floordiv(w, block)))]
    depth = floordiv(c, block * block)
    if node.attr("mode", "DCR") == "DCR":
        moved = ctx.transpose(ctx.reshape(x, (n, block, block, depth, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        moved = ctx.transpose(ctx.reshape(x, (n, depth, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return [ctx.reshape(moved, (n, depth, h * block, w * block))]

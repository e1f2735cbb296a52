"""Reductions and orders along axes: Reduce*, ArgMax and ArgMin, cumulative sums, TopK."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from egc.frontend.arithmetic import numeric
from egc.frontend.context import Context
from egc.frontend.registry import NotCompiled, OnnxNode, operator
from egc.ir.dims import product
from egc.ir.types import is_float

FAMILY = "reduction"


def _axes(ctx: Context, node: OnnxNode, x: str) -> tuple[int, ...]:
    """The axes to reduce, from the attribute or the second operand; all where none are given."""
    rank = ctx.rank(x)
    given: Sequence[int] | None = node.attr("axes")
    if node.input(1) is not None:
        given = ctx.ints(node.input(1))
        if given is None:
            raise NotCompiled("its axes are data")
    if not given:
        return () if node.attr("noop_with_empty_axes", 0) else tuple(range(rank))
    return ctx.axes(given, rank)


def mean(ctx: Context, x: str, axes: Sequence[int]) -> str:
    """The mean over ``axes``, which stay with extent 1: the sum divided by the number of elements."""
    count = product([ctx.shape(x)[a] for a in axes])
    return ctx.map("div", ctx.reduce("add", x, axes), ctx.extent(count, ctx.dtype(x)))


def _extreme(fn: str) -> Callable[[Context, str, Sequence[int]], str]:
    def emit(ctx: Context, x: str, axes: Sequence[int]) -> str:
        if ctx.dtype(x) == "bool":
            return ctx.reduce("or" if fn == "max" else "and", x, axes)
        return ctx.reduce(fn, x, axes)

    return emit


def _sum_square(ctx: Context, x: str, axes: Sequence[int]) -> str:
    return ctx.reduce("add", ctx.map("mul", x, x), axes)


def _l2(ctx: Context, x: str, axes: Sequence[int]) -> str:
    dtype = ctx.dtype(x)
    wide = x if is_float(dtype) else ctx.cast(x, "float64")
    return ctx.cast(ctx.map("sqrt", _sum_square(ctx, wide, axes)), dtype)


def _log_sum(ctx: Context, x: str, axes: Sequence[int]) -> str:
    dtype = ctx.dtype(x)
    total = ctx.reduce("add", x if is_float(dtype) else ctx.cast(x, "float64"), axes)
    return ctx.cast(ctx.map("log", total), dtype)


def _log_sum_exp(ctx: Context, x: str, axes: Sequence[int]) -> str:
    """log(sum(exp(x - max))) + max, which does not overflow; an infinite maximum is left in place."""
    dtype = ctx.dtype(x)
    wide = x if is_float(dtype) else ctx.cast(x, "float64")
    greatest = ctx.reduce("max", wide, axes)
    shift = ctx.map("select", ctx.map("isinf", greatest), ctx.like(0, wide), greatest)
    total = ctx.reduce("add", ctx.map("exp", ctx.map("sub", wide, shift)), axes)
    return ctx.cast(ctx.map("add", ctx.map("log", total), shift), dtype)


_REDUCTIONS: dict[str, Callable[[Context, str, Sequence[int]], str]] = {
    "ReduceSum": lambda ctx, x, axes: ctx.reduce("add", x, axes),
    "ReduceProd": lambda ctx, x, axes: ctx.reduce("mul", x, axes),
    "ReduceMax": _extreme("max"),
    "ReduceMin": _extreme("min"),
    "ReduceMean": mean,
    "ReduceL1": lambda ctx, x, axes: ctx.reduce("add", ctx.map("abs", x), axes),
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": _sum_square,
}


@operator(*_REDUCTIONS, family=FAMILY)
def reduce(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Every Reduce operator, over axes from the attribute or the second operand."""
    x = numeric(ctx, node.required(0))
    axes = _axes(ctx, node, x)
    out = _REDUCTIONS[node.op_type](ctx, x, axes)
    return [out if node.attr("keepdims", 1) else ctx.squeeze(out, axes)]


@operator("ArgMax", "ArgMin", family=FAMILY)
def arg_reduce(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The position of the greatest or least element."""
    x = numeric(ctx, node.required(0))
    axis = ctx.axis(node.attr("axis", 0), ctx.rank(x))
    fn, last = node.op_type[3:].lower(), bool(node.attr("select_last_index", 0))
    out = ctx.add("arg_reduce", (x,), fn=fn, axis=axis, last=last)
    return [out if node.attr("keepdims", 1) else ctx.squeeze(out, (axis,))]


@operator("CumSum", "CumProd", family=FAMILY)
def cumulate(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Prefix sums and products."""
    x = numeric(ctx, node.required(0))
    axes = ctx.ints(node.input(1))
    if axes is None or len(axes) != 1:
        raise NotCompiled("its axis is data")
    return [
        ctx.add(
            "cumulate",
            (x,),
            fn="add" if node.op_type == "CumSum" else "mul",
            axis=ctx.axis(axes[0], ctx.rank(x)),
            exclusive=bool(node.attr("exclusive", 0)),
            reverse=bool(node.attr("reverse", 0)),
        )
    ]


@operator("TopK", family=FAMILY)
def top_k(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Sorted whether or not `sorted` asks for it: any order is allowed then."""
    x = numeric(ctx, node.required(0))
    count = (node.attr("k"),) if node.version < 10 else ctx.shape_value(node.input(1))
    if count is None:
        raise NotCompiled("the number of elements to keep is data")
    axis = ctx.axis(node.attr("axis", -1), ctx.rank(x))
    extent = ctx.shape(x)[axis]
    if len(count) != 1 or (
        isinstance(count[0], int) and isinstance(extent, int) and not 0 <= count[0] <= extent
    ):
        ctx.fail(f"cannot keep {', '.join(map(str, count))} of {extent} elements")
    return ctx.add_multi("topk", (x,), k=count, axis=axis, largest=bool(node.attr("largest", 1)))


@operator("ReverseSequence", family=FAMILY)
def reverse_sequence(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Position t of a sequence of length n comes from n - 1 - t where t < n, and from t beyond."""
    x, lengths = node.required(0), ctx.cast(node.required(1), "int64")
    shape = ctx.shape(x)
    batch, time = (
        ctx.axis(node.attr("batch_axis", 1), len(shape)),
        ctx.axis(node.attr("time_axis", 0), len(shape)),
    )
    lengths = ctx.reshape(lengths, [d if i == batch else 1 for i, d in enumerate(shape)])
    place = ctx.iota([d if i == time else 1 for i, d in enumerate(shape)], time)
    mirrored = ctx.map("sub", ctx.map("sub", lengths, ctx.scalar(1, "int64")), place)
    index = ctx.map("select", ctx.map("lt", place, lengths), mirrored, place)
    return [ctx.add("gather_elements", (x, ctx.expand(index, shape)), axis=time)]

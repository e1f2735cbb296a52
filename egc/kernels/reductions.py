"""Reductions with one stage: what is combined for one element of the result, and over which axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from egc.ir.dims import Dim, floordiv
from egc.ir.expr import Expr, IndexExpr, call, cast
from egc.ir.graph import Node
from egc.ir.kernel import Axis
from egc.ir.scalar import combiner_identity
from egc.kernels.attributes import int_of, ints_of
from egc.kernels.elements import Elements, accumulator
from egc.kernels.indices import Vector, add, broadcast_index, guarded, literal, quotient, scale


class Reduction(Struct, frozen=True):
    """``combine`` of ``value`` over ``axes``; with no axes (extents of 1), the value itself."""

    value: Expr
    combine: str
    axes: tuple[Axis, ...]


def reduction(el: Elements, node: Node, index: Vector) -> Reduction:
    """What the element of ``node`` at ``index`` combines."""
    return _REDUCTIONS[node.op](el, node, index)


def _reduce(el: Elements, node: Node, index: Vector) -> Reduction:
    (x,) = node.inputs
    fn, dtype = str(node.attr("fn")), el.graph.types[x].dtype
    axes: list[Axis] = []
    inner = list(index)
    for a in sorted(ints_of(node, "axes")):
        new, inner[a] = el.axis("k", el.shape(x)[a])
        axes += new
    value = el.at(x, tuple(inner))
    if fn in ("add", "mul"):
        value = cast(value, accumulator(dtype))
    return Reduction(value, fn, tuple(axes))


def _product(a: Expr, b: Expr) -> Expr:
    wide = accumulator(a.dtype)
    return call("mul", cast(a, wide), cast(b, wide))


def _matmul(el: Elements, node: Node, index: Vector) -> Reduction:
    a, b = node.inputs
    axes, k = el.axis("k", el.shape(a)[-1])
    batch = index[:-2]
    left = el.at(a, (*broadcast_index(batch, el.shape(a)[:-2]), index[-2], k))
    right = el.at(b, (*broadcast_index(batch, el.shape(b)[:-2]), k, index[-1]))
    return Reduction(_product(left, right), "add", axes)


def _window(
    el: Elements, index: Vector, taps: tuple[Dim, ...], extents: tuple[Dim, ...], node: Node
) -> tuple[tuple[Axis, ...], Vector, Vector, tuple[tuple[Dim, Dim], ...]]:
    """(axes, positions in the window, positions in the operand, guards where padding may be met)."""
    axes: list[Axis] = []
    inside: list[Dim] = []
    where: list = []
    guards: list[tuple[Dim, Dim]] = []
    keys = ("strides", "dilations", "low", "high")
    for i, tap, extent, stride, dilation, low, high in zip(
        index, taps, extents, *(ints_of(node, key) for key in keys), strict=True
    ):
        new, k = el.axis("k", tap)
        axes += new
        inside.append(k)
        where.append(add(add(scale(i, stride), k * dilation), -low))
        if low or high:
            guards.append((where[-1], extent))
    return tuple(axes), tuple(inside), tuple(where), tuple(guards)


def _conv_channels_last(el: Elements, node: Node, index: Vector) -> Reduction:
    x, w = node.inputs
    groups = int_of(node, "groups")
    depth, outputs = el.shape(w)[-2:]
    axes, taps, where, guards = _window(el, index[1:-1], el.shape(w)[:-2], el.shape(x)[1:-1], node)
    channel_axes, channel = el.axis("k", depth)
    source = add(channel, scale(_group(index[-1], outputs, groups), depth))
    image = el.at(x, (index[0], *where, source))
    value = _guard(image, guards)
    weight = el.at(w, (*taps, channel, index[-1]))
    return Reduction(_product(value, weight), "add", (*axes, *channel_axes))


def _conv(el: Elements, node: Node, index: Vector) -> Reduction:
    x, w = node.inputs
    groups = int_of(node, "groups")
    outputs, depth = el.shape(w)[:2]
    channel_axes, channel = el.axis("k", depth)
    axes, taps, where, guards = _window(el, index[2:], el.shape(w)[2:], el.shape(x)[2:], node)
    source = add(channel, scale(_group(index[1], outputs, groups), depth))
    image = el.at(x, (index[0], source, *where))
    value = _guard(image, guards)
    weight = el.at(w, (index[1], channel, *taps))
    return Reduction(_product(value, weight), "add", (*channel_axes, *axes))


def _group(channel: IndexExpr, outputs: Dim, groups: int) -> IndexExpr:
    """The group of an output channel."""
    return 0 if groups == 1 else quotient(channel, floordiv(outputs, groups))


def _guard(image: Expr, guards: tuple[tuple[Dim, Dim], ...]) -> Expr:
    return guarded(image, guards, literal(0, image.dtype))


def _pool(el: Elements, node: Node, index: Vector) -> Reduction:
    (x,) = node.inputs
    fn, dtype = str(node.attr("fn")), el.graph.types[x].dtype
    axes, _, where, guards = _window(el, index, ints_of(node, "window"), el.shape(x), node)
    identity = literal(combiner_identity(fn, dtype), dtype)
    value = guarded(el.at(x, where), guards, identity)
    if fn in ("add", "mul"):
        value = cast(value, accumulator(dtype))
    return Reduction(value, fn, axes)


_REDUCTIONS: Mapping[str, Callable[[Elements, Node, Vector], Reduction]] = {
    "reduce": _reduce,
    "matmul": _matmul,
    "conv": _conv,
    "conv_channels_last": _conv_channels_last,
    "pool": _pool,
}
REDUCTIONS = frozenset(_REDUCTIONS)

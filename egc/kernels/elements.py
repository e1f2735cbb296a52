"""Element functions: the scalar expression that gives one element of a value of a group.

``Elements.at(value, index)`` walks from a value up through the group's elementwise, view and gather nodes;
a value from outside the group is a load, and a value with an entry in ``special`` (a reduction's
accumulator, a row kept in a local buffer) is what that entry says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy

import numpy as np

from egc.ir.dims import Dim, SymDim, floordiv, mod, symbol, symbols_of
from egc.ir.expr import Const, Expr, Index, IndexExpr, Load, call, cast
from egc.ir.graph import Graph, Node, Placeholder
from egc.ir.kernel import Axis
from egc.ir.types import is_float
from egc.kernels.attributes import dims_of, int_of, ints_of
from egc.kernels.indices import (
    Vector,
    add,
    as_expr,
    as_index,
    broadcast_index,
    clamped,
    guarded,
    quotient,
    remainder,
    reshape_index,
    scale,
    wrapped,
)


class LoweringError(ValueError):
    """A group that is no one kernel; the text says why. The partitioner never makes such a group."""


class Elements:
    """The elements of a group's values, as scalar expressions of loads; buffers have the values' names."""

    def __init__(self, graph: Graph, nodes: tuple[Node, ...]) -> None:
        self.graph = graph
        self.inside = {output: node for node in nodes for output in node.outputs}
        self.special: dict[str, Callable[[Vector], Expr]] = {}
        self._known: dict[tuple[str, Vector], Expr] = {}
        self.taken = symbols_near(graph, nodes)
        self._fresh: dict[str, int] = {}

    def fresh(self) -> Elements:
        """Elements of the same nodes with no name given, no value special and nothing remembered."""
        other = copy(self)
        other.special, other._known, other._fresh = {}, {}, {}
        return other

    def at(self, value: str, index: Vector) -> Expr:
        """The element of ``value`` at ``index``."""
        if value in self.special:
            return self.special[value](index)
        key = (value, index)
        if key not in self._known:
            node = self.inside.get(value)
            self._known[key] = self.load(value, index) if node is None else self._compute(node, index)
        return self._known[key]

    def load(self, value: str, index: Vector) -> Expr:
        """An element of a value in memory; of a constant whose elements are all equal, the literal."""
        dtype = self.graph.types[value].dtype
        constant = self.graph.constants.get(value)
        if constant is not None and (splat := constant.splat) is not None:
            return Const(splat, dtype)
        return Load(value, index, dtype)

    def axis(self, prefix: str, extent: Dim) -> tuple[tuple[Axis, ...], Dim]:
        """A new axis and its position; no axis and position 0 where the extent is 1."""
        if extent == 1:
            return (), 0
        axis = Axis(self.name(prefix), extent)
        return (axis,), symbol(axis.name)

    def name(self, prefix: str) -> str:
        """A name that no dim and no value of the model and no axis so far has."""
        while True:
            number = self._fresh.get(prefix, 0)
            self._fresh[prefix] = number + 1
            name = f"{prefix}{number}"
            if name not in self.taken and name not in self.graph.types:
                return name

    def reserve(self, name: str) -> None:
        """Keep a name from being given again."""
        self.taken |= {name}

    def forget(self) -> None:
        """Drop remembered elements: ``special`` has changed."""
        self._known.clear()

    def shape(self, value: str) -> tuple[Dim, ...]:
        """The extents of a value."""
        return self.graph.types[value].shape

    def _compute(self, node: Node, index: Vector) -> Expr:
        if node.op not in _ELEMENT:
            raise LoweringError(f"{node.op} (%{node.output}) is not computed element by element")
        return _ELEMENT[node.op](self, node, index)


def symbols_near(graph: Graph, nodes: tuple[Node, ...]) -> frozenset[str]:
    """The dim names that the types and attributes of some nodes speak of."""
    found: set[str] = set()
    for node in nodes:
        for name in (*node.inputs, *node.outputs):
            found |= graph.types[name].symbols
        for _, value in node.attrs:
            if isinstance(value, tuple):
                found.update(*map(symbols_of, value))
    return frozenset(found)


def _map(el: Elements, node: Node, index: Vector) -> Expr:
    args = (el.at(name, broadcast_index(index, el.shape(name))) for name in node.inputs)
    return call(str(node.attr("fn")), *args)


def _cast(el: Elements, node: Node, index: Vector) -> Expr:
    return cast(el.at(node.inputs[0], index), str(node.attr("dtype")))


def _reshape(el: Elements, node: Node, index: Vector) -> Expr:
    (x,) = node.inputs
    return el.at(x, reshape_index(index, el.shape(node.output), el.shape(x)))


def _transpose(el: Elements, node: Node, index: Vector) -> Expr:
    perm = ints_of(node, "perm")
    return el.at(node.inputs[0], tuple(index[perm.index(i)] for i in range(len(perm))))


def _slice(el: Elements, node: Node, index: Vector) -> Expr:
    moved = (
        add(scale(i, step), start)
        for i, start, step in zip(index, dims_of(node, "starts"), ints_of(node, "steps"), strict=True)
    )
    return el.at(node.inputs[0], tuple(moved))


def _expand(el: Elements, node: Node, index: Vector) -> Expr:
    (x,) = node.inputs
    return el.at(x, broadcast_index(index, el.shape(x)))


def _pad(el: Elements, node: Node, index: Vector) -> Expr:
    x, fill = node.inputs
    guards: list[tuple[Dim, Dim]] = []
    tests: list[Expr] = []
    inner: list[IndexExpr] = []
    edges = (dims_of(node, "low"), dims_of(node, "high"), ints_of(node, "interior"))
    for i, extent, low, high, gap in zip(index, el.shape(x), *edges, strict=True):
        position = add(i, -low)
        if (low, high, gap) == (0, 0, 0):
            inner.append(i)
        elif isinstance(position, int | SymDim):
            inner.append(floordiv(position, gap + 1))
            guards.append((floordiv(position, gap + 1), extent))
            if gap:
                guards.append((mod(position, gap + 1), 1))
        else:
            place = quotient(position, gap + 1)
            tests += [call("ge", as_expr(position), as_expr(0)), call("lt", as_expr(place), as_expr(extent))]
            if gap:
                tests.append(call("eq", as_expr(remainder(position, gap + 1)), as_expr(0)))
            inner.append(clamped(as_expr(place), extent))
    outside = el.at(fill, ())
    value = guarded(el.at(x, tuple(inner)), tuple(guards), outside)
    for test in tests:
        value = call("select", test, value, outside)
    return value


def _position(el: Elements, indices: str, at: Vector, extent: Dim) -> Expr | Dim:
    """An element of an index tensor as an index below ``extent``; unchecked where constants are in range."""
    element = el.at(indices, at)
    found = as_index(cast(element, "int64"))
    constant = el.graph.constants.get(element.buffer) if isinstance(element, Load) else None
    if isinstance(constant, Placeholder):
        constant = None  # its range is not known
    if constant is not None and constant.data.size and isinstance(extent, int):
        data: np.ndarray = constant.data
        if int(data.min()) >= 0 and int(data.max()) < extent:
            return found
    return wrapped(as_expr(found), extent)


def _gather(el: Elements, node: Node, index: Vector) -> Expr:
    x, indices = node.inputs
    axis, rank = int_of(node, "axis"), el.graph.types[indices].rank
    where = _position(el, indices, index[axis : axis + rank], el.shape(x)[axis])
    return el.at(x, (*index[:axis], where, *index[axis + rank :]))


def _gather_elements(el: Elements, node: Node, index: Vector) -> Expr:
    x, indices = node.inputs
    axis = int_of(node, "axis")
    where = _position(el, indices, index, el.shape(x)[axis])
    return el.at(x, (*index[:axis], where, *index[axis + 1 :]))


def _gather_nd(el: Elements, node: Node, index: Vector) -> Expr:
    x, indices = node.inputs
    batch, outer = int_of(node, "batch_dims"), el.graph.types[indices].rank - 1
    depth = el.shape(indices)[-1]
    assert isinstance(depth, int)
    picked = tuple(_position(el, indices, (*index[:outer], j), el.shape(x)[batch + j]) for j in range(depth))
    return el.at(x, (*index[:batch], *picked, *index[outer:]))


def _iota(el: Elements, node: Node, index: Vector) -> Expr:
    return as_expr(index[int_of(node, "axis")])


def _dim(el: Elements, node: Node, index: Vector) -> Expr:
    values = [as_expr(value) for value in dims_of(node, "value")]
    (position,) = index
    if isinstance(position, int):
        return values[position]
    out = values[-1]
    for k in range(len(values) - 2, -1, -1):
        out = call("select", call("eq", as_expr(position), as_expr(k)), values[k], out)
    return out


_ELEMENT: Mapping[str, Callable[[Elements, Node, Vector], Expr]] = {
    "map": _map,
    "cast": _cast,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "expand": _expand,
    "pad": _pad,
    "gather": _gather,
    "gather_elements": _gather_elements,
    "gather_nd": _gather_nd,
    "iota": _iota,
    "dim": _dim,
}
ELEMENTWISE = frozenset(_ELEMENT)


def accumulator(dtype: str) -> str:
    """The dtype in which sums over ``dtype`` are kept: float32 for narrower floats, else the same."""
    return "float32" if is_float(dtype) and dtype not in ("float32", "float64") else dtype


def count_as(dims: Dim, dtype: str) -> Expr:
    """An extent as a value of ``dtype``."""
    if isinstance(dims, int):
        return Const(float(dims) if is_float(dtype) else dims, dtype)
    return cast(Index(dims), dtype)

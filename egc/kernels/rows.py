"""Reductions with several stages: softmax, normalisation, attention, position of an extremum, prefix sums.

Each works on rows. The axes that say which row are shared by all stages, so what is kept between stages (``local``
buffers) need only hold the rows of one tile of them.

    softmax     p = max x;  e = exp(x - p);  t = 1 / sum e;  y = e * t
    layer_norm  m = sum x / n;  s = 1 / sqrt(sum (x - m)^2 / n + epsilon);  y = (x - m) * s * scale + bias
    rms_norm    s = 1 / sqrt(sum x^2 / n + epsilon);  y = x * s * scale
    attention   a = scale * q.k + mask;  p = max a;  e = exp(a - p);  t = 1 / sum e;  y = (sum e * v) * t
    arg_reduce  p = max x;  y = least i with x[i] = p
    cumulate    a[i] = fn(a[i - 1], x[i])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from egc.ir.dims import Dim, product, symbol
from egc.ir.expr import Acc, Const, Expr, Load, call, cast
from egc.ir.graph import Node
from egc.ir.kernel import Axis, Buffer, Stage
from egc.ir.scalar import combiner_identity
from egc.ir.types import TensorType, is_float
from egc.kernels.elements import Elements, accumulator, count_as
from egc.kernels.indices import Vector, as_expr, broadcast_index
from egc.kernels.reductions import Reduction

Row = Callable[[Vector], Expr]  # the element of a row at a position in it
_WIDEST = 2**63 - 1


class Rows:
    """The stages before the last one of a row-wise node, for one index vector of its result."""

    def __init__(
        self, el: Elements, node: Node, index: Vector, shared: tuple[Axis, ...], written: frozenset[str]
    ) -> None:
        self.el, self.node, self.index, self.shared, self.written = el, node, index, shared, written
        self.dims = row_dims(node, len(index))
        self.stages: list[Stage] = []
        self.buffers: list[Buffer] = []
        self.dtype = accumulator(el.graph.types[node.inputs[0]].dtype)
        self._here: Vector = tuple(symbol(axis.name) for axis in shared)

    def extents(self, value: str) -> tuple[Dim, ...]:
        """The extents of the rows of ``value``."""
        return tuple(self.el.shape(value)[d] for d in self.dims)

    def at(self, positions: Vector) -> Vector:
        """The index vector of the element of this row at ``positions``."""
        out = list(self.index)
        for d, position in zip(self.dims, positions, strict=True):
            out[d] = position
        return tuple(out)

    def walk(self, extents: Sequence[Dim], prefix: str = "r") -> tuple[tuple[Axis, ...], Vector]:
        """New axes over a row of these extents, and the positions that they give."""
        axes: list[Axis] = []
        positions: list[Dim] = []
        for extent in extents:
            new, position = self.el.axis(prefix, extent)
            axes += new
            positions.append(position)
        return tuple(axes), tuple(positions)

    def keep(self, extents: Sequence[Dim], row: Row, **reduction: object) -> Row:
        """A stage that stores ``row`` for every position in a local buffer; the stored row."""
        axes, positions = self.walk(extents)
        return self._stage(extents, axes, positions, row(positions), **reduction)

    def reduce(self, combine: str, extents: Sequence[Dim], row: Row, finish: Callable[[Expr], Expr]) -> Expr:
        """A stage that combines a row into one value, kept in a local buffer after ``finish``."""
        axes, positions = self.walk(extents, "k")
        value = row(positions)
        if not axes:
            return self._stage((), (), (), finish(value))(())
        result = finish(Acc(value.dtype))
        return self._stage((), (), (), value, combine=combine, reduce=axes, result=result)(())

    def operand(self, value: str, dtype: str) -> Row:
        """The rows of ``value`` as ``dtype``: stored by a stage of their own where they are computed or wanted."""
        extents = self.extents(value)
        axes, positions = self.walk(extents)
        found = self.el.at(value, self.at(positions))
        if value in self.written:
            self.stages.append(
                Stage(f"s{len(self.stages)}", (*self.shared, *axes), value, self.at(positions), found, found)
            )
            stored = self.el.graph.types[value].dtype
            self.el.special[value] = lambda index: Load(value, index, stored)
            return lambda where: cast(Load(value, self.at(where), stored), dtype)
        if isinstance(found, Load | Const):
            return lambda where: cast(self.el.at(value, self.at(where)), dtype)
        return self._stage(extents, axes, positions, cast(found, dtype))

    def _stage(
        self,
        extents: Sequence[Dim],
        axes: tuple[Axis, ...],
        positions: Vector,
        value: Expr,
        combine: str | None = None,
        reduce: tuple[Axis, ...] = (),
        result: Expr | None = None,
    ) -> Row:
        name = self.el.name("t")
        result = value if result is None else result
        shape = (*(axis.extent for axis in self.shared), *extents)
        self.buffers.append(Buffer(name, TensorType(result.dtype, shape), "local"))
        out = (*self._here, *positions)
        label = f"s{len(self.stages)}"
        self.stages.append(Stage(label, (*self.shared, *axes), name, out, value, result, reduce, combine))
        return lambda where: Load(name, (*self._here, *where), result.dtype)

    def scan(self, extent: Dim, row: Row, fn: str, *, exclusive: bool, reverse: bool) -> Row:
        """An ordered stage with ``a[i] = fn(a[i - 1], row[i])``, from the last element down if ``reverse``."""
        (axes, (step,)) = self.walk((extent,))
        name = self.el.name("t")
        identity = Const(combiner_identity(fn, self.dtype), self.dtype)
        if is_float(self.dtype):
            identity = Const(float(identity.value), self.dtype)

        def place(i: Dim) -> Dim:
            return extent - 1 - i if reverse else i

        before = place(step - 1)
        inside = ((before, extent),)
        last = Load(name, (*self._here, before), self.dtype, inside, identity)
        term = row((place(step),))
        if exclusive:
            from egc.kernels.indices import guarded

            term = guarded(row((before,)), inside, identity)
        value = call(fn, last, term)
        shape = (*(axis.extent for axis in self.shared), extent)
        self.buffers.append(Buffer(name, TensorType(self.dtype, shape), "local"))
        self.stages.append(
            Stage(
                f"s{len(self.stages)}",
                (*self.shared, *axes),
                name,
                (*self._here, place(step)),
                value,
                value,
                ordered=True,
            )
        )
        return lambda where: Load(name, (*self._here, *where), self.dtype)


def row_dims(node: Node, rank: int) -> tuple[int, ...]:
    """The dims of the result of a row-wise node along which its rows run."""
    match node.op:
        case "softmax" | "cumulate" | "arg_reduce":
            return (int(node.attr("axis")),)  # type: ignore[arg-type]
        case "attention":
            return (rank - 1,)
        case _:
            return tuple(sorted(node.attr("axes")))  # type: ignore[arg-type]


Last = tuple[Reduction | None, Expr]  # the last stage's reduction, and the element of the node's result


def last_stage(rows: Rows) -> Last:
    """Adds the stages of a row-wise node to ``rows`` and says what the element at its index is after them."""
    reduction, element = _ROWWISE[rows.node.op](rows)
    return reduction, cast(element, rows.el.graph.types[rows.node.output].dtype)


def _same(expr: Expr) -> Expr:
    return expr


def _inverse(expr: Expr) -> Expr:
    return call("div", Const(1.0, expr.dtype), expr)


def _own_positions(rows: Rows) -> Vector:
    return tuple(rows.index[d] for d in rows.dims)


def _exponentials(rows: Rows, extents: Sequence[Dim], row: Row) -> tuple[Row, Expr]:
    """``exp(row - max)`` and the inverse of its sum."""
    peak = rows.reduce("max", extents, row, _same)
    powers = rows.keep(extents, lambda where: call("exp", call("sub", row(where), peak)))
    return powers, rows.reduce("add", extents, powers, _inverse)


def _softmax(rows: Rows) -> Last:
    (x,) = rows.node.inputs
    powers, inverse = _exponentials(rows, rows.extents(x), rows.operand(x, rows.dtype))
    return None, call("mul", powers(_own_positions(rows)), inverse)


def _inverse_deviation(rows: Rows, extents: Sequence[Dim], row: Row) -> Expr:
    """``1 / sqrt(sum row^2 / n + epsilon)``."""
    count = count_as(product(tuple(extents)), rows.dtype)
    epsilon = Const(float(rows.node.attr("epsilon")), rows.dtype)  # type: ignore[arg-type]

    def finish(total: Expr) -> Expr:
        return _inverse(call("sqrt", call("add", call("div", total, count), epsilon)))

    return rows.reduce("add", extents, lambda where: call("mul", row(where), row(where)), finish)


def _layer_norm(rows: Rows) -> Last:
    x, scale, bias = rows.node.inputs
    extents = rows.extents(x)
    row = rows.operand(x, rows.dtype)
    count = count_as(product(extents), rows.dtype)
    mean = rows.reduce("add", extents, row, lambda total: call("div", total, count))
    centred = lambda where: call("sub", row(where), mean)  # noqa: E731
    deviation = _inverse_deviation(rows, extents, centred)
    normal = call("mul", centred(_own_positions(rows)), deviation)
    return None, call("add", call("mul", normal, _parameter(rows, scale)), _parameter(rows, bias))


def _rms_norm(rows: Rows) -> Last:
    x, scale = rows.node.inputs
    row = rows.operand(x, rows.dtype)
    deviation = _inverse_deviation(rows, rows.extents(x), row)
    return None, call("mul", call("mul", row(_own_positions(rows)), deviation), _parameter(rows, scale))


def _parameter(rows: Rows, value: str) -> Expr:
    return cast(rows.el.at(value, broadcast_index(rows.index, rows.el.shape(value))), rows.dtype)


def _attention(rows: Rows) -> Last:
    q, k, v, mask = rows.node.inputs
    el, dtype = rows.el, rows.dtype
    *batch, query, head = rows.index
    length = el.shape(k)[-2]

    def element(value: str, *tail: Dim) -> Expr:
        outer = broadcast_index(tuple(batch), el.shape(value)[:-2])
        return cast(el.at(value, (*outer, *tail)), dtype)

    axes, (key,) = rows.walk((length,))
    inner, (feature,) = rows.walk((el.shape(q)[-1],), "k")
    product_ = call("mul", element(q, query, feature), element(k, key, feature))
    scale = Const(float(rows.node.attr("scale")), dtype)  # type: ignore[arg-type]
    raw: Expr = Acc(dtype) if inner else product_
    scores = call("mul", raw, scale) if scale.value != 1.0 else raw
    bias = cast(el.at(mask, broadcast_index((*batch, query, key), el.shape(mask))), dtype)
    if not (isinstance(bias, Const) and bias.value == 0.0):
        scores = call("add", scores, bias)
    if inner:
        row = rows._stage((length,), axes, (key,), product_, "add", inner, scores)
    else:
        row = rows._stage((length,), axes, (key,), scores)
    powers, inverse = _exponentials(rows, (length,), row)
    over, (position,) = rows.walk((length,), "k")
    value = call("mul", powers((position,)), element(v, position, head))
    if not over:
        return None, call("mul", value, inverse)
    return Reduction(value, "add", over), call("mul", Acc(dtype), inverse)


def _arg_reduce(rows: Rows) -> Last:
    (x,) = rows.node.inputs
    dtype = rows.el.graph.types[x].dtype
    fn, last = str(rows.node.attr("fn")), bool(rows.node.attr("last"))
    extents = rows.extents(x)
    row = rows.operand(x, dtype)
    best = rows.reduce(fn, extents, row, _same)
    axes, (position,) = rows.walk(extents, "k")
    if not axes:
        return None, Const(0, "int64")
    element = row((position,))
    hit = call("eq", element, best)
    if is_float(dtype):
        # A NaN is the extremum of its row, as in numpy, and equals nothing.
        hit = call("or", hit, call("isnan", element))
    found = call("select", hit, as_expr(position), Const(-1 if last else _WIDEST, "int64"))
    return Reduction(found, "max" if last else "min", axes), Acc("int64")


def _cumulate(rows: Rows) -> Last:
    (x,) = rows.node.inputs
    (extent,) = rows.extents(x)
    row = rows.operand(x, rows.dtype)
    exclusive, reverse = bool(rows.node.attr("exclusive")), bool(rows.node.attr("reverse"))
    fn = str(rows.node.attr("fn"))
    return None, rows.scan(extent, row, fn, exclusive=exclusive, reverse=reverse)(_own_positions(rows))


_ROWWISE: Mapping[str, Callable[[Rows], Last]] = {
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "attention": _attention,
    "arg_reduce": _arg_reduce,
    "cumulate": _cumulate,
}
ROWWISE = frozenset(_ROWWISE)

"""Reductions with several stages: softmax, normalisation, attention, position of an extremum, prefix sums.

Each works on rows. The axes that say which row are shared by all stages, so what is kept between stages
(``local`` buffers) need only hold the rows of one tile of them.

    softmax     p = max x;  e = exp(x - p);  t = 1 / sum e;  y = e * t
    layer_norm  m = sum x / n;  s = 1 / sqrt(sum (x - m)^2 / n + epsilon);  y = (x - m) * s * scale + bias
    rms_norm    s = 1 / sqrt(sum x^2 / n + epsilon);  y = x * s * scale
    attention   a = scale * q.k + mask;  p = max a;  e = exp(a - p);  t = 1 / sum e;  y = (sum e * v) * t
    arg_reduce  p = max x;  y = least i with x[i] = p
    cumulate    a[i] = fn(a[i - 1], x[i])
    topk        r[i] = number of j before i in the order;  y[n] = x[i] with r[i] = n
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from egc.ir.dims import Dim, product, symbol
from egc.ir.expr import Acc, Const, Expr, IndexExpr, Load, call, cast
from egc.ir.graph import Node
from egc.ir.kernel import Axis, Buffer, Stage
from egc.ir.scalar import combiner_identity
from egc.ir.types import TensorType, is_float
from egc.kernels.attributes import float_of, int_of, ints_of
from egc.kernels.elements import Elements, accumulator, count_as
from egc.kernels.indices import Vector, as_expr, broadcast_index, guarded, literal
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

    def walk(self, extents: Sequence[Dim], prefix: str = "r") -> tuple[tuple[Axis, ...], tuple[Dim, ...]]:
        """New axes over a row of these extents, and the positions that they give."""
        axes: list[Axis] = []
        positions: list[Dim] = []
        for extent in extents:
            new, position = self.el.axis(prefix, extent)
            axes += new
            positions.append(position)
        return tuple(axes), tuple(positions)

    def keep(self, extents: Sequence[Dim], row: Row) -> Row:
        """A stage that stores ``row`` for every position in a local buffer; the stored row."""
        axes, positions = self.walk(extents)
        return self.store(extents, axes, positions, row(positions))

    def reduce(self, combine: str, extents: Sequence[Dim], row: Row, finish: Callable[[Expr], Expr]) -> Expr:
        """A stage that combines a row into one value, kept in a local buffer after ``finish``."""
        axes, positions = self.walk(extents, "k")
        value = row(positions)
        if not axes:
            return self.store((), (), (), finish(value))(())
        return self.store((), (), (), finish(Acc(value.dtype)), Reduction(value, combine, axes))(())

    def store(
        self,
        extents: Sequence[Dim],
        axes: tuple[Axis, ...],
        positions: Vector,
        result: Expr,
        reduction: Reduction | None = None,
    ) -> Row:
        """A stage that keeps ``result`` at ``positions`` of rows of ``extents``; the stored row."""
        name = self.local(result.dtype, extents)
        self.emit(name, (*self._here, *positions), axes, result, reduction)
        return lambda where: Load(name, (*self._here, *where), result.dtype)

    def local(self, dtype: str, extents: Sequence[Dim]) -> str:
        """A new local buffer with a row of ``extents`` for every point of the shared axes."""
        name = self.el.name("t")
        shape = (*(axis.extent for axis in self.shared), *extents)
        self.buffers.append(Buffer(name, TensorType(dtype, shape), "local"))
        return name

    def emit(
        self,
        out: str,
        index: Vector,
        axes: tuple[Axis, ...],
        result: Expr,
        reduction: Reduction | None = None,
        *,
        ordered: bool = False,
    ) -> None:
        """Append the stage that stores ``result`` over the shared axes and ``axes``."""
        name, axes = f"s{len(self.stages)}", (*self.shared, *axes)
        if reduction is None:
            stage = Stage(name, axes, out, index, result, result, ordered=ordered)
        else:
            stage = Stage(name, axes, out, index, reduction.value, result, reduction.axes, reduction.combine)
        self.stages.append(stage)

    def operand(self, value: str, dtype: str) -> Row:
        """The rows of ``value`` as ``dtype``, stored by a stage of their own where computed or wanted."""
        extents = self.extents(value)
        axes, positions = self.walk(extents)
        found = self.el.at(value, self.at(positions))
        if value in self.written:
            self.emit(value, self.at(positions), axes, found)
            stored = self.el.graph.types[value].dtype
            self.el.special[value] = lambda index: Load(value, index, stored)
            return lambda where: cast(Load(value, self.at(where), stored), dtype)
        if isinstance(found, Load | Const):
            return lambda where: cast(self.el.at(value, self.at(where)), dtype)
        return self.store(extents, axes, positions, cast(found, dtype))

    def scan(self, extent: Dim, row: Row, fn: str, *, exclusive: bool, reverse: bool) -> Row:
        """An ordered stage ``a[i] = fn(a[i - 1], row[i])``, from the last element down if ``reverse``."""
        axes, (step,) = self.walk((extent,))
        name = self.local(self.dtype, (extent,))
        identity = literal(combiner_identity(fn, self.dtype), self.dtype)

        def place(i: Dim) -> Dim:
            return extent - 1 - i if reverse else i

        before = place(step - 1)
        inside = ((before, extent),)
        last = Load(name, (*self._here, before), self.dtype, inside, identity)
        term = guarded(row((before,)), inside, identity) if exclusive else row((place(step),))
        self.emit(name, (*self._here, place(step)), axes, call(fn, last, term), ordered=True)
        return lambda where: Load(name, (*self._here, *where), self.dtype)


def row_dims(node: Node, rank: int) -> tuple[int, ...]:
    """The dims of the result of a row-wise node along which its rows run."""
    match node.op:
        case "softmax" | "cumulate" | "arg_reduce" | "topk":
            return (int_of(node, "axis"),)
        case "attention":
            return (rank - 1,)
        case _:
            return tuple(sorted(ints_of(node, "axes")))


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
    epsilon = Const(float_of(rows.node, "epsilon"), rows.dtype)

    def finish(total: Expr) -> Expr:
        return _inverse(call("sqrt", call("add", call("div", total, count), epsilon)))

    return rows.reduce("add", extents, lambda where: call("mul", row(where), row(where)), finish)


def _layer_norm(rows: Rows) -> Last:
    x, scale, bias = rows.node.inputs
    extents = rows.extents(x)
    row = rows.operand(x, rows.dtype)
    count = count_as(product(extents), rows.dtype)
    mean = rows.reduce("add", extents, row, lambda total: call("div", total, count))

    def centred(where: Vector) -> Expr:
        return call("sub", row(where), mean)

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

    def element(value: str, *tail: IndexExpr) -> Expr:
        outer = broadcast_index(tuple(batch), el.shape(value)[:-2])
        return cast(el.at(value, (*outer, *tail)), dtype)

    axes, (key,) = rows.walk((length,))
    inner, (feature,) = rows.walk((el.shape(q)[-1],), "k")
    product_ = call("mul", element(q, query, feature), element(k, key, feature))
    scale = Const(float_of(rows.node, "scale"), dtype)
    raw: Expr = Acc(dtype) if inner else product_
    scores = call("mul", raw, scale) if scale.value != 1.0 else raw
    bias = cast(el.at(mask, broadcast_index((*batch, query, key), el.shape(mask))), dtype)
    if not (isinstance(bias, Const) and bias.value == 0.0):
        scores = call("add", scores, bias)
    row = rows.store((length,), axes, (key,), scores, Reduction(product_, "add", inner) if inner else None)
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


def _topk(rows: Rows) -> Last:
    """The stages of the positions, which are written by one of them; the values are the last stage."""
    (x,) = rows.node.inputs
    positions = rows.node.outputs[1]
    dtype, extents = rows.el.graph.types[x].dtype, rows.extents(x)
    row = rows.operand(x, dtype)
    if extents == (1,):
        rows.emit(positions, rows.at((0,)), (), Const(0, "int64"))
        return None, row((0,))
    axes, (place,) = rows.walk(extents)
    over, (other,) = rows.walk(extents, "k")
    before = cast(_precedes(rows, row, other, place), "int64")
    rank = rows.store(extents, axes, (place,), Acc("int64"), Reduction(before, "add", over))
    over, (source,) = rows.walk(extents, "k")
    axes, at = rows.walk(rows.extents(positions))
    found = call("select", call("eq", rank((source,)), as_expr(at[0])), as_expr(source), as_expr(-1))
    rows.emit(positions, rows.at(at), axes, Acc("int64"), Reduction(found, "max", over))
    mine = call("eq", rank((source,)), as_expr(_own_positions(rows)[0]))
    value = call("select", mine, row((source,)), literal(combiner_identity("max", dtype), dtype))
    return Reduction(value, "max", over), Acc(dtype)


def _precedes(rows: Rows, row: Row, a: Dim, b: Dim) -> Expr:
    """Whether element a stands before element b: NaN is greatest, equal ones stand as in the row."""
    x, y = row((a,)), row((b,))
    largest = bool(rows.node.attr("largest"))
    first = call("gt" if largest else "lt", x, y)
    same = call("eq", x, y)
    if is_float(x.dtype):
        none = (call("isnan", x), call("isnan", y))
        great, less = none if largest else none[::-1]
        first = call("or", first, call("and", great, call("not", less)))
        same = call("or", same, call("and", *none))
    return call("or", first, call("and", same, call("lt", as_expr(a), as_expr(b))))


_ROWWISE: Mapping[str, Callable[[Rows], Last]] = {
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "attention": _attention,
    "arg_reduce": _arg_reduce,
    "cumulate": _cumulate,
    "topk": _topk,
}
ROWWISE = frozenset(_ROWWISE)

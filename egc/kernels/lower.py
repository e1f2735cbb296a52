"""One group of graph nodes as one kernel.

The domain of a group is the index space of its root value, one axis a dim. Element functions carry an index
of the root back to the operands: through elementwise nodes unchanged, through views as index arithmetic.
The group's reduction, if it has one, is met at one index vector on the way; what lies between it and the
root is the stage's ``result``. Where views leave divisions by an extent, the domain is split there and the
group is lowered again, until none is left; then axes that every access walks as one are merged
(egc.kernels.collapse).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from egc.ir.dims import Dim, Shape, SymDim, symbols_of
from egc.ir.expr import Acc, Const, Expr, IndexExpr, cast, transform
from egc.ir.graph import Graph, Node
from egc.ir.kernel import Axis, Buffer, Stage
from egc.ir.simplify import simplify
from egc.ir.types import FLOATS, SIGNED, UNSIGNED
from egc.kernels.attributes import dims_of, int_of, ints_of
from egc.kernels.canonical import Lowered, canonical
from egc.kernels.collapse import collapse
from egc.kernels.domain import (
    Domain,
    domain_of,
    find_split,
    find_split_in,
    fresh_name,
    simplified,
    split_private,
)
from egc.kernels.elements import ELEMENTWISE, Elements, LoweringError
from egc.kernels.group import Group
from egc.kernels.indices import Vector, wrapped, zero_of
from egc.kernels.layouts import Layouts, relaid
from egc.kernels.reductions import REDUCTIONS, Reduction, reduction
from egc.kernels.rows import ROWWISE, Rows, last_stage, row_dims

SCATTERS = frozenset({"scatter_elements", "scatter_nd"})
PIECEWISE = frozenset({"concat"})
LOWERABLE = ELEMENTWISE | REDUCTIONS | ROWWISE | SCATTERS | PIECEWISE
DTYPES = frozenset({*FLOATS, *SIGNED, *UNSIGNED, "bool"})
_MAX_SPLITS = 16
_MAX_RANKED = 4096


class _Piece(Struct, frozen=True):
    """A part of a group's output: ``value`` at every index of ``shape`` is stored at ``place`` of ``out``."""

    value: str | Expr
    shape: Shape
    out: str
    offset: tuple[Dim, ...]
    step: tuple[int, ...]

    def place(self, index: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """Where in the buffer the element at ``index`` is stored."""
        return tuple(o + i * s for i, o, s in zip(index, self.offset, self.step, strict=True))


def can_lower(node: Node, graph: Graph) -> bool:
    """Whether ``node`` becomes native code; the others (host, random, topk of long
    rows, text, complex and sub-byte types) do not."""
    if node.op not in LOWERABLE or (node.op == "topk" and not _short(node, graph)):
        return False
    return all(graph.types[name].dtype in DTYPES for name in (*node.inputs, *node.outputs))


def _short(node: Node, graph: Graph) -> bool:
    """Whether rows are short enough to be ranked by comparing every pair."""
    extent = graph.types[node.inputs[0]].shape[int_of(node, "axis")]
    return isinstance(extent, int) and extent <= _MAX_RANKED


def lower(graph: Graph, group: Group, name: str, layouts: Layouts | None = None) -> Lowered:
    """The kernel ``name`` that computes ``group``; LoweringError where the group is no one kernel.

    ``layouts`` says which values are stored in another order of dims (egc.kernels.layouts).
    """
    stages: list[Stage] = []
    locals_: list[Buffer] = []
    shared: tuple[str, ...] = ()
    elements, anchor = Elements(graph, group.nodes), _anchor(group)
    for piece in _pieces(graph, group):
        found, buffers, shared = _lower_piece(elements, anchor, group, piece)
        if stages and shared:
            raise LoweringError("a row-wise kernel has one piece")
        stages += found
        locals_ += buffers
    if scattered := list(_scatter(graph, group)):
        # Updates overwrite what the copy wrote: both run in order in one thread, as no barrier parts them.
        stages = [replace(stage, ordered=True) for stage in (*stages, *scattered)]
    named = tuple(replace(stage, name=f"s{i}") for i, stage in enumerate(stages))
    placed, types = relaid(named, graph.types, layouts or {})
    merged = collapse(placed, tuple(locals_), types, shared)
    return canonical(name, merged, frozenset(graph.constants))


def _pieces(graph: Graph, group: Group) -> Iterator[_Piece]:
    """The parts of the root that are stored by stages of their own."""
    root = group.root
    node = next(node for node in group.nodes if root in node.outputs)
    rank = graph.types[root].rank
    out, base = group.into or (root, (0,) * rank)
    ones = (1,) * rank
    if node.op == "concat":
        for operand, offset in concat_parts(graph, group.nodes, node, base):
            if operand not in group.placed:
                yield _Piece(operand, graph.types[operand].shape, out, offset, ones)
    elif node.op == "pad" and not any(ints_of(node, "interior")):
        low = dims_of(node, "low")
        inner = graph.types[node.inputs[0]].shape
        place = tuple(b + a for a, b in zip(low, base, strict=True))
        yield _Piece(node.inputs[0], inner, out, place, ones)
        fill = Elements(graph, group.nodes).at(node.inputs[1], ())
        for shape, offset in _borders(inner, graph.types[root].shape, low):
            yield _Piece(fill, shape, out, tuple(b + o for b, o in zip(base, offset, strict=True)), ones)
    elif node.op in SCATTERS:
        yield _Piece(node.inputs[0], graph.types[root].shape, out, base, ones)
    else:
        yield _Piece(root, graph.types[root].shape, out, base, ones)


def concat_parts(
    graph: Graph, nodes: tuple[Node, ...], concat: Node, base: tuple[Dim, ...]
) -> Iterator[tuple[str, tuple[Dim, ...]]]:
    """(operand, position of its first element) of a concatenation and of those among ``nodes`` in it."""
    inner = {node.output: node for node in nodes if node.op == "concat"}
    axis = int_of(concat, "axis")
    for operand in concat.inputs:
        if operand in inner:
            yield from concat_parts(graph, nodes, inner[operand], base)
        else:
            yield operand, base
        base = (*base[:axis], base[axis] + graph.types[operand].shape[axis], *base[axis + 1 :])


def _borders(inner: Shape, outer: Shape, low: tuple[Dim, ...]) -> Iterator[tuple[Shape, tuple[Dim, ...]]]:
    """(extents, offset) of disjoint boxes that cover ``outer`` but for the box ``inner`` at ``low``."""
    rank = len(inner)
    for axis in range(rank):
        high = outer[axis] - low[axis] - inner[axis]
        # Axes before this one keep to the inner box, those after it are whole: the boxes are disjoint.
        before, after = inner[:axis], outer[axis + 1 :]
        for width, start in ((low[axis], 0), (high, low[axis] + inner[axis])):
            if width != 0:
                yield (*before, width, *after), (*low[:axis], start, *(0,) * (rank - axis - 1))


class _SplitFirst(Exception):
    """The domain has to be split before it can be seen which of its axes are shared."""

    def __init__(self, split: tuple[str, Dim]) -> None:
        super().__init__()
        self.split = split


def _lower_piece(
    elements: Elements, anchor: Node | None, group: Group, piece: _Piece
) -> tuple[tuple[Stage, ...], tuple[Buffer, ...], tuple[str, ...]]:
    taken = elements.taken
    domain = domain_of(piece.shape, "i", taken)
    for _ in range(_MAX_SPLITS):
        try:
            stages, buffers, shared = _build(elements.fresh(), anchor, group, piece, domain)
            found = find_split(stages, domain.axes)
        except _SplitFirst as request:
            found = request.split
        if found is None:
            break
        names = {axis.name for axis in domain.axes} | taken
        outer = fresh_name("i", frozenset(names))
        domain = domain.split(*found, (outer, fresh_name("i", frozenset({*names, outer}))))
    else:
        raise LoweringError(f"the views round %{group.root} cut its axes into too many parts")
    own = frozenset(shared)
    return tuple(split_private(stage, own) for stage in stages), buffers, shared


def _build(
    el: Elements, anchor: Node | None, group: Group, piece: _Piece, domain: Domain
) -> tuple[tuple[Stage, ...], tuple[Buffer, ...], tuple[str, ...]]:
    """(stages, local buffers, names of the shared axes) of one piece over ``domain``."""
    for axis in domain.axes:
        el.reserve(axis.name)
    place = piece.place(domain.index)
    root = piece.value
    if 0 in piece.shape:
        # No element is ever computed: no stage may read operands that have none either.
        dtype = el.graph.types[piece.out].dtype
        root = Const(zero_of(dtype), dtype)
    if anchor is None or not isinstance(root, str):
        value = el.at(root, domain.index) if isinstance(root, str) else root
        return (simplified(Stage("s0", domain.axes, piece.out, place, value, value)),), (), ()
    seen: list[Vector] = []
    result = _result_of(el, anchor, root, domain.index, seen)
    if len(set(seen)) != 1:
        raise LoweringError(f"%{group.root} reads {anchor.op} (%{anchor.output}) at {len(set(seen))} places")
    index = seen[0]
    if anchor.op in REDUCTIONS:
        stage = _reduction_stage(reduction(el, anchor, index), result, domain.axes, piece.out, place)
        return (simplified(stage),), (), ()
    return _build_rows(el, anchor, index, group, piece, domain)


def _result_of(el: Elements, anchor: Node, value: str, index: Vector, seen: list[Vector]) -> Expr:
    """The element of ``value`` with Acc for that of ``anchor``, whose index vectors are added to ``seen``."""
    dtype = el.graph.types[anchor.output].dtype

    def met(at: Vector) -> Expr:
        seen.append(at)
        return Acc(dtype)

    el.special[anchor.output] = met
    return el.at(value, index)


def _reduction_stage(
    red: Reduction, result: Expr, axes: tuple[Axis, ...], out: str, place: tuple[IndexExpr, ...]
) -> Stage:
    """The stage of a reduction; Acc in ``result`` has the node's dtype, the accumulator may be wider."""
    wide = red.value.dtype
    element: Expr = Acc(wide) if red.axes else red.value

    def widen(node: Expr) -> Expr:
        return cast(element, node.dtype) if isinstance(node, Acc) else node

    result = transform(result, widen)
    if not red.axes:
        return Stage("s0", axes, out, place, result, result)
    return Stage("s0", axes, out, place, red.value, result, red.axes, red.combine)


def _build_rows(
    el: Elements, anchor: Node, met: Vector, group: Group, piece: _Piece, domain: Domain
) -> tuple[tuple[Stage, ...], tuple[Buffer, ...], tuple[str, ...]]:
    ranges = {axis.name: axis.extent for axis in domain.axes}
    index = tuple(simplify(i, ranges) for i in met if isinstance(i, int | SymDim))
    if len(index) < len(met):
        raise LoweringError(f"{anchor.op} (%{anchor.output}) is read at positions that depend on data")
    if (split := find_split_in(index, domain.axes)) is not None:
        raise _SplitFirst(split)
    dims = row_dims(anchor, len(index))
    inner = frozenset().union(*(symbols_of(index[d]) for d in dims))
    outer = frozenset().union(*(symbols_of(i) for d, i in enumerate(index) if d not in dims))
    names = {axis.name for axis in domain.axes}
    if inner & outer & names:
        raise LoweringError(f"a view after {anchor.op} (%{anchor.output}) mixes rows with positions in them")
    # In the order of the node's own dims: the loops over the rows of one matrix stay together and innermost.
    order = [name for i in index if not isinstance(i, int) for name in symbols_in_order(i)]
    shared = tuple(
        sorted((axis for axis in domain.axes if axis.name in outer), key=lambda axis: order.index(axis.name))
    )
    own = tuple(axis for axis in domain.axes if axis.name not in outer)
    if not shared:
        # Stages that read each other need a loop to share, if only of one turn.
        shared = (Axis(el.name("i"), 1),)
    written = frozenset(group.outputs[1:])
    rows = Rows(el, anchor, index, shared, written)
    red, element = last_stage(rows)
    result = _replace_anchor(el, anchor, piece.value, domain.index, element)
    place = piece.place(domain.index)
    axes = (*shared, *own)
    if red is None:
        last = Stage("s", axes, piece.out, place, result, result)
    else:
        last = Stage("s", axes, piece.out, place, red.value, result, red.axes, red.combine)
    stages = tuple(simplified(stage) for stage in (*rows.stages, last))
    return stages, tuple(rows.buffers), tuple(axis.name for axis in shared)


def symbols_in_order(dim: SymDim) -> list[str]:
    """The symbols of an index by how far a step of them goes: larger coefficients first."""

    def reach(name: str) -> int:
        return max(
            abs(c)
            for monomial, c in dim.terms
            if name in monomial or any(not isinstance(a, str) for a in monomial)
        )

    return sorted(symbols_of(dim), key=lambda name: (-reach(name), name))


def _replace_anchor(el: Elements, anchor: Node, value: str | Expr, index: Vector, element: Expr) -> Expr:
    assert isinstance(value, str)
    el.forget()
    el.special[anchor.output] = lambda _: element
    return el.at(value, index)


def _anchor(group: Group) -> Node | None:
    """The node of the group that is more than elementwise; LoweringError where there are several."""
    found = [node for node in group.nodes if node.op in REDUCTIONS or node.op in ROWWISE]
    if len(found) > 1:
        raise LoweringError(f"{' and '.join(node.op for node in found)} in one kernel")
    return found[0] if found else None


def _scatter(graph: Graph, group: Group) -> Iterator[Stage]:
    """The stage that puts updates in place; the copy of the data before it is ordered too."""
    node = next(node for node in group.nodes if group.root in node.outputs)
    if node.op not in SCATTERS:
        return
    x, indices, updates = node.inputs
    el = Elements(graph, group.nodes)
    shape = graph.types[x].shape
    domain = domain_of(graph.types[updates].shape, "i", el.taken)
    for axis in domain.axes:
        el.reserve(axis.name)
    target: list[IndexExpr]
    if node.op == "scatter_elements":
        axis_ = int_of(node, "axis")
        target = list(domain.index)
        target[axis_] = wrapped(cast(el.at(indices, domain.index), "int64"), shape[axis_])
    else:
        rank = graph.types[indices].rank - 1
        depth = int(graph.types[indices].shape[-1])  # type: ignore[arg-type]
        outer = domain.index[:rank]
        target = [wrapped(cast(el.at(indices, (*outer, j)), "int64"), shape[j]) for j in range(depth)]
        target += domain.index[rank:]
    value = el.at(updates, domain.index)
    mode = str(node.attr("fn"))
    yield simplified(
        Stage("s", domain.axes, group.root, tuple(target), value, value, mode=mode, ordered=True)
    )

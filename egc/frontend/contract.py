"""Matrix products: MatMul, Gemm, Einsum."""

from __future__ import annotations

from collections.abc import Sequence

from egc.frontend.arithmetic import numeric
from egc.frontend.context import Context
from egc.frontend.registry import NotCompiled, OnnxNode, operator
from egc.ir.dims import Dim, product

FAMILY = "contract"


@operator("MatMul", family=FAMILY)
def matmul(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Batched, broadcast matrix products; vectors on either side."""
    return [product_of(ctx, numeric(ctx, node.required(0)), numeric(ctx, node.required(1)))]


def product_of(ctx: Context, a: str, b: str) -> str:
    """numpy.matmul: a vector is a row on the left and a column on the right, and its axis is dropped
    again."""
    if not ctx.rank(a) or not ctx.rank(b):
        ctx.fail("scalars have no matrix product")
    left, right = ctx.rank(a) == 1, ctx.rank(b) == 1
    a = ctx.unsqueeze(a, (0,)) if left else a
    b = ctx.unsqueeze(b, (1,)) if right else b
    out = ctx.add("matmul", (a, b))
    rank = ctx.rank(out)
    return ctx.squeeze(out, [axis for axis, drop in ((rank - 2, left), (rank - 1, right)) if drop])


@operator("Gemm", family=FAMILY)
def gemm(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """alpha A B + beta C, A and B transposed where asked."""
    a, b, c = node.required(0), node.required(1), node.input(2)
    if ctx.rank(a) != 2 or ctx.rank(b) != 2:
        ctx.fail(f"{ctx.type(a)} and {ctx.type(b)} are no matrices")
    a = ctx.transpose(a, (1, 0)) if node.attr("transA", 0) else a
    b = ctx.transpose(b, (1, 0)) if node.attr("transB", 0) else b
    out = ctx.add("matmul", (a, b))
    if (alpha := node.attr("alpha", 1.0)) != 1:
        out = ctx.map("mul", out, ctx.like(alpha, out))
    beta = node.attr("beta", 1.0)
    if c is None or beta == 0:
        return [out]
    if beta != 1:
        c = ctx.map("mul", c, ctx.like(beta, c))
    return [ctx.map("add", out, c)]


@operator("Einsum", family=FAMILY)
def einsum(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Operands are joined two at a time from the left, each pair by one matrix product."""
    values = [numeric(ctx, v) for v in node.inputs if v is not None]
    operands, result = _equation(ctx, node.attr("equation"), [ctx.rank(v) for v in values])
    terms = [_diagonals(ctx, v, labels) for v, labels in zip(values, operands, strict=True)]
    while len(terms) > 1:
        later = {label for _, labels in terms[2:] for label in labels} | set(result)
        terms[:2] = [_join(ctx, terms[0], terms[1], later)]
    value, labels = _summed(ctx, *terms[0], set(result))
    if set(labels) != set(result):
        ctx.fail(f"the output {result!r} of the equation names an axis that no operand has")
    return [ctx.transpose(value, [labels.index(label) for label in result])]


def _equation(ctx: Context, text: str, ranks: list[int]) -> tuple[list[str], str]:
    """One letter for each axis of each operand and of the result; an ellipsis becomes digits, counted from
    its end."""
    text = text.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        ctx.fail(f"the equation {text!r} has {len(terms)} terms for {len(ranks)} operands")
    hidden = [
        rank - len(t.replace("...", "")) if "..." in t else 0 for t, rank in zip(terms, ranks, strict=True)
    ]
    if max(hidden) > 10 or min(hidden) < 0:
        ctx.fail(f"the equation {text!r} does not fit operands of rank {ranks}")
    operands = [t.replace("...", _ellipsis(n)) for t, n in zip(terms, hidden, strict=True)]
    for labels, rank in zip(operands, ranks, strict=True):
        if len(labels) != rank or (labels and not labels.isalnum()):
            ctx.fail(f"the equation {text!r} does not fit operands of rank {ranks}")
    if arrow:
        return operands, right.replace("...", _ellipsis(max(hidden)))
    names = "".join(operands)
    once = sorted(c for c in set(names) if c.isalpha() and names.count(c) == 1)
    return operands, _ellipsis(max(hidden)) + "".join(once)


def _ellipsis(count: int) -> str:
    return "0123456789"[:count][::-1]


def _diagonals(ctx: Context, value: str, labels: str) -> tuple[str, str]:
    """A label that one operand has twice keeps the diagonal of its two axes."""
    while len(set(labels)) != len(labels):
        first, second = next(
            (i, j) for i, a in enumerate(labels) for j, b in enumerate(labels) if i < j and a == b
        )
        shape = ctx.shape(value)
        place = ctx.iota([shape[i] if i == first else 1 for i in range(len(shape))], first)
        index = ctx.expand(place, [1 if i == second else d for i, d in enumerate(shape)])
        value = ctx.squeeze(ctx.add("gather_elements", (value, index), axis=second), (second,))
        labels = labels[:second] + labels[second + 1 :]
    return value, labels


def _summed(ctx: Context, value: str, labels: str, keep: set[str]) -> tuple[str, str]:
    axes = [i for i, label in enumerate(labels) if label not in keep]
    return ctx.reduce("add", value, axes, keepdims=False), "".join(c for c in labels if c in keep)


def _join(ctx: Context, a: tuple[str, str], b: tuple[str, str], later: set[str]) -> tuple[str, str]:
    """The sum over the labels that only these two terms have, as one batched matrix product."""
    (x, xs), (y, ys) = _summed(ctx, *a, later | set(b[1])), _summed(ctx, *b, later | set(a[1]))
    shared = [c for c in xs if c in ys]
    batch = [c for c in shared if c in later]
    # An extent of 1 on one side only is broadcast, which a product over that axis would not do.
    inner = [c for c in shared if c not in later]
    for label in inner:
        extents = ctx.shape(x)[xs.index(label)], ctx.shape(y)[ys.index(label)]
        if 1 in extents and extents[0] != extents[1]:
            raise NotCompiled(f"the summed label {label!r} is broadcast")
    rows, columns = [c for c in xs if c not in shared], [c for c in ys if c not in shared]
    if not inner:
        return _outer(ctx, (x, xs), (y, ys), batch + rows + columns)

    def folded(value: str, labels: str, groups: list[list[str]]) -> tuple[str, list[Dim]]:
        value = ctx.transpose(value, [labels.index(c) for group in groups for c in group])
        shape, start, dims = ctx.shape(value), len(groups[0]), list(ctx.shape(value)[: len(groups[0])])
        for group in groups[1:]:
            dims.append(product(shape[start : start + len(group)]))
            start += len(group)
        return ctx.reshape(value, dims), list(shape)

    left, left_shape = folded(x, xs, [batch, rows, inner])
    right, right_shape = folded(y, ys, [batch, inner, columns])
    out = ctx.add("matmul", (left, right))
    row_dims = left_shape[len(batch) : len(batch) + len(rows)]
    column_dims = right_shape[len(batch) + len(inner) :]
    out = ctx.reshape(out, [*ctx.shape(out)[: len(batch)], *row_dims, *column_dims])
    return out, "".join(batch + rows + columns)


def _outer(ctx: Context, a: tuple[str, str], b: tuple[str, str], labels: list[str]) -> tuple[str, str]:
    """A product without a sum: both terms broadcast over all labels."""

    def spread(value: str, names: str) -> str:
        order = [c for c in labels if c in names]
        value = ctx.transpose(value, [names.index(c) for c in order])
        extents = dict(zip(order, ctx.shape(value), strict=True))
        return ctx.reshape(value, [extents.get(c, 1) for c in labels])

    return ctx.map("mul", spread(*a), spread(*b)), "".join(labels)

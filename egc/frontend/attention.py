"""Attention and what stands round it in transformer decoders: rotary embedding, key-value caches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.ir.dims import Dim, SymDim, floordiv

_FLOAT_TYPES = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}


@operator("Attention", family="attention")
def attention(ctx: Context, node: OnnxNode) -> Sequence[str | None]:
    """softmax(q kᵀ scale + bias) v for each head, with caches, groups, soft capping and masks."""
    q, k, v = (node.required(i) for i in range(3))
    flat = ctx.rank(q) == 3
    if flat:
        heads, kv_heads = (int(node.attr(name) or 0) for name in ("q_num_heads", "kv_num_heads"))
        if heads < 1 or kv_heads < 1:
            ctx.fail("q_num_heads and kv_num_heads are needed with operands of rank 3")
        q, k, v = _heads(ctx, q, heads), _heads(ctx, k, kv_heads), _heads(ctx, v, kv_heads)
    past_length: Dim = 0
    if (past_key := node.input(4)) is not None:
        past_length = ctx.shape(past_key)[2]
        k = ctx.concat([past_key, k], 2)
        v = ctx.concat([node.required(5), v], 2)
    keys, values = k, v
    scores = _scores(ctx, node, q, keys)
    softcap = float(node.attr("softcap") or 0.0)
    raw = scores
    if softcap:
        bounded = ctx.map("tanh", ctx.map("div", scores, ctx.like(softcap, scores)))
        scores = ctx.map("mul", bounded, ctx.like(softcap, scores))
    bias, may_mask_all = _bias(ctx, node, scores, past_length)
    capped = scores
    if bias is not None:
        scores = ctx.map("add", scores, bias)
    weights = _softmax(ctx, node, scores)
    if bias is not None and may_mask_all:
        blind = ctx.map("eq", ctx.reduce("max", bias, (ctx.rank(bias) - 1,)), ctx.like(-np.inf, bias))
        weights = ctx.map("select", blind, ctx.like(0, weights), weights)
    out = _apply(ctx, ctx.cast(weights, ctx.dtype(v)), values)
    if flat:
        batch, heads, length, size = ctx.shape(out)  # type: ignore[assignment]
        out = ctx.reshape(ctx.transpose(out, (0, 2, 1, 3)), (batch, length, heads * size))
    # What output 3 shows was numbered differently when the mask came before the cap (opset 23).
    shown = {0: raw, 1: capped if softcap else scores, 2: scores, 3: weights}
    if node.version < 24 and not softcap:
        shown[1] = scores
    return [out, k, v, ctx.cast(shown[int(node.attr("qk_matmul_output_mode", 0))], ctx.dtype(q))]


def _heads(ctx: Context, x: str, heads: int) -> str:
    """[B, L, heads * size] as [B, heads, L, size]."""
    batch, length, width = ctx.shape(x)
    return ctx.transpose(ctx.reshape(x, (batch, length, heads, floordiv(width, heads))), (0, 2, 1, 3))


def _scores(ctx: Context, node: OnnxNode, q: str, k: str) -> str:
    """q kᵀ scale [B, heads, Lq, Lk]; narrow floats scale both operands by its root, against overflow."""
    size = ctx.shape(q)[-1]
    given = node.attr("scale")
    if given:
        scale = float(given)
    elif isinstance(size, int):
        scale = 1 / math.sqrt(size)
    else:
        raise NotCompiled("the head size is symbolic and no scale is given")
    if ctx.dtype(q) in ("float16", "bfloat16"):
        root = ctx.scalar(math.sqrt(scale), ctx.dtype(q))
        return _grouped(ctx, ctx.map("mul", q, root), ctx.map("mul", k, root), transposed=True)
    product = _grouped(ctx, q, k, transposed=True)
    return ctx.map("mul", product, ctx.like(scale, product))


def _apply(ctx: Context, weights: str, v: str) -> str:
    return _grouped(ctx, weights, v, transposed=False)


def _grouped(ctx: Context, a: str, b: str, transposed: bool) -> str:
    """a @ b (or a @ bᵀ) for each head; several heads of ``a`` [B, H, …] may share one of ``b`` [B, G, …]."""
    rank = ctx.rank(b)
    heads, groups = ctx.shape(a)[1], ctx.shape(b)[1]
    if heads == groups:
        right = ctx.transpose(b, (0, 1, 3, 2)) if transposed else b
        return ctx.add("matmul", (a, right))
    if isinstance(heads, SymDim) or isinstance(groups, SymDim):
        raise NotCompiled("how many heads share a key is symbolic")
    batch, _, rows, inner = ctx.shape(a)
    left = ctx.reshape(a, (batch, groups, floordiv(heads, groups), rows, inner))
    right = ctx.unsqueeze(b, (2,))
    right = ctx.transpose(right, (0, 1, 2, 4, 3)) if transposed else right
    product = ctx.add("matmul", (left, right))
    assert rank == 4
    return ctx.reshape(product, (batch, heads, rows, ctx.shape(product)[-1]))


def _softmax(ctx: Context, node: OnnxNode, scores: str) -> str:
    precision = _FLOAT_TYPES.get(node.attr("softmax_precision") or 0)
    wide = scores if precision is None else ctx.cast(scores, precision)
    axes = (ctx.rank(wide) - 1,)
    shifted = ctx.map("exp", ctx.map("sub", wide, ctx.reduce("max", wide, axes)))
    return ctx.map("div", shifted, ctx.reduce("add", shifted, axes))


def _bias(ctx: Context, node: OnnxNode, scores: str, past: Dim) -> tuple[str | None, bool]:
    """What is added to the scores, and whether it may forbid a query every key: masks as 0 and -inf."""
    dtype = ctx.dtype(scores)
    rows, columns = ctx.shape(scores)[-2:]
    bias = _given_mask(ctx, node.input(3), columns, dtype)
    nonpad = node.input(6)
    allowed: list[str] = []
    at_key = ctx.iota((1, columns), 1)
    # A query's position among the keys: `past` keys come before, or the valid keys end with the last query.
    at_query = ctx.map("add", ctx.iota((rows, 1), 0), ctx.extent(past, "int64"))
    if nonpad is not None:
        count = ctx.reshape(ctx.cast(nonpad, "int64"), (ctx.shape(nonpad)[0], 1, 1, 1))
        allowed.append(ctx.map("lt", at_key, count))
        if node.input(4) is None and node.version >= 24:
            first = ctx.map("sub", count, ctx.extent(rows, "int64"))
            at_query = ctx.map("add", ctx.iota((rows, 1), 0), first)
    if node.attr("is_causal", 0):
        allowed.append(ctx.map("le", at_key, at_query))
    left, right = (int(node.attr(f"{side}_window_size", -1)) for side in ("left", "right"))
    if left >= 0:
        nearest = ctx.map("sub", at_query, ctx.scalar(left, "int64"))
        allowed.append(ctx.map("ge", at_key, nearest))
    if right >= 0:
        allowed.append(ctx.map("le", at_key, ctx.map("add", at_query, ctx.scalar(right, "int64"))))
    may_mask_all = bias is not None or nonpad is not None or left >= 0 or right >= 0
    for condition in allowed:
        term = ctx.map("select", condition, ctx.scalar(0, dtype), ctx.scalar(-np.inf, dtype))
        bias = term if bias is None else ctx.map("add", bias, term)
    return bias, may_mask_all


def _given_mask(ctx: Context, mask: str | None, columns: Dim, dtype: str) -> str | None:
    """The operand attn_mask as a term, lengthened to ``columns`` keys by -inf."""
    if mask is None:
        return None
    if ctx.dtype(mask) == "bool":
        mask = ctx.map("select", mask, ctx.scalar(0, dtype), ctx.scalar(-np.inf, dtype))
    missing = columns - ctx.shape(mask)[-1]
    if missing != 0 and ctx.shape(mask)[-1] != 1:
        none = (0,) * ctx.rank(mask)
        value = ctx.like(-np.inf, mask)
        mask = ctx.add("pad", (mask, value), low=none, high=(*none[1:], missing), interior=none)
    return ctx.cast(mask, dtype)


@operator("RotaryEmbedding", family="attention")
def rotary_embedding(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Pairs of each head's first elements turned by the angle of their position; the rest passes through."""
    x, cosines, sines = (node.required(i) for i in range(3))
    flat = ctx.rank(x) == 3
    heads = int(node.attr("num_heads", 0))
    if flat:
        if heads < 1:
            ctx.fail("num_heads is needed with an operand of rank 3")
        batch, length, width = ctx.shape(x)
        x = ctx.reshape(x, (batch, length, heads, floordiv(width, heads)))
    else:
        x = ctx.transpose(x, (0, 2, 1, 3))
    size = ctx.shape(x)[-1]
    turned = int(node.attr("rotary_embedding_dim", 0)) or size
    if (positions := node.input(3)) is not None:
        cosines, sines = (ctx.add("gather", (table, positions), axis=0) for table in (cosines, sines))
    half = floordiv(turned, 2)
    cosines, sines = (ctx.unsqueeze(ctx.slice_axis(table, 2, 0, half), (2,)) for table in (cosines, sines))
    interleaved = bool(node.attr("interleaved", 0))
    if interleaved:
        pairs = ctx.slice_axis(x, 3, 0, turned)
        first, second = (ctx.slice_axis(pairs, 3, i, half, 2) for i in (0, 1))
    else:
        first, second = ctx.slice_axis(x, 3, 0, half), ctx.slice_axis(x, 3, half, half)
    real = ctx.map("sub", ctx.map("mul", cosines, first), ctx.map("mul", sines, second))
    imaginary = ctx.map("add", ctx.map("mul", sines, first), ctx.map("mul", cosines, second))
    if interleaved:
        both = ctx.concat([ctx.unsqueeze(real, (4,)), ctx.unsqueeze(imaginary, (4,))], 4)
        out = ctx.reshape(both, (*ctx.shape(real)[:3], turned))
    else:
        out = ctx.concat([real, imaginary], 3)
    if turned != size:
        out = ctx.concat([out, ctx.slice_axis(x, 3, turned, size - turned)], 3)
    if flat:
        return [ctx.reshape(out, (batch, length, width))]
    return [ctx.transpose(out, (0, 2, 1, 3))]


@operator("TensorScatter", family="attention")
def tensor_scatter(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """A cache with new entries written along an axis from each sample's position on, maybe circular."""
    cache, update, start = node.required(0), node.required(1), node.input(2)
    rank = ctx.rank(cache)
    axis = ctx.axis(int(node.attr("axis", -2)), rank)
    position = ctx.iota(ctx.shape(update), axis)
    if start is not None:
        first = ctx.reshape(ctx.cast(start, "int64"), (ctx.shape(start)[0], *(1,) * (rank - 1)))
        position = ctx.map("add", position, first)
    if node.attr("mode", "linear") == "circular":
        position = ctx.map("mod", position, ctx.extent(ctx.shape(cache)[axis], "int64"))
    return [ctx.add("scatter_elements", (cache, position, update), axis=axis, fn="set")]

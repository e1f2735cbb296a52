"""Random operands that an operator takes: a shape, or a type, for each of them that is not known yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from egc.ir.types import TensorType
from egc.soundness.context import BOOL_ONLY, Attrs, Context, Operands, regrouped, row_vector


def any_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    """The shape of an operand of which nothing special is asked."""
    axes = attrs.get("axes") or (attrs.get("axis"),)
    needed = max((a + 1 for a in axes if isinstance(a, int)), default=0)
    window = attrs.get("window") or attrs.get("perm") or attrs.get("steps") or attrs.get("interior")
    rank = len(window) if window else c.rank if c.chance(0.9) else c.rng.randrange(5)
    return c.shape(max(rank, needed))


def _map_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    fn = attrs["fn"]
    known = [t for j, t in enumerate(operands) if t is not None and not (fn == "select" and j == 0)]
    dtype = known[0].dtype if known else c.dtype
    if fn in BOOL_ONLY or (fn == "select" and i == 0):
        dtype = "bool"
    shapes = [t.extents for t in operands if t is not None]
    if not shapes:
        return TensorType(dtype, c.shape(c.rank))
    widest = max(shapes, key=len)
    return TensorType(dtype, c.broadcastable(widest) if widest else c.shape(c.rank))


def _matmul_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    other = operands[1 - i]
    if other is None:
        return c.shape(max(2, c.rank))
    if other.rank < 2:
        return c.shape(2)
    batch = other.extents[:-2]
    if c.chance(0.3):
        batch = tuple(1 if c.chance(0.5) else d for d in batch)
        batch = batch if c.chance(0.7) else ()
    if not batch and c.chance(0.5):
        batch = c.shape(max(0, c.rank - 2))  # the other one, a matrix, is the same for all of them
    if i == 1:
        return (*batch, other.extents[-1], c.extent())
    return (*batch, c.extent(), other.extents[-2])


def _conv_operand(
    i: int, operands: Operands, attrs: Attrs, c: Context, last: bool = False
) -> tuple[int, ...]:
    """Images first: [N, C, s…] and [M, C/g, k…], or with the channels last: [N, s…, C] and [k…, C/g, M]."""
    groups = attrs.get("groups") or 1
    other = operands[1 - i]
    if other is None and i == 0:
        spatial = len(attrs["strides"]) if attrs.get("strides") is not None else max(1, min(c.rank - 2, 3))
        image = [
            c.extent() * (groups if c.chance(0.7) else 1),
            *(c.extent() + c.rng.randrange(3) for _ in range(spatial)),
        ]
        return (c.extent(), *image[1:], image[0]) if last else (c.extent(), *image)
    if i == 0:
        assert other is not None
        taps, depth = (
            (other.extents[:-2], other.extents[-2]) if last else (other.extents[2:], other.extents[1])
        )
        spatial_extents = [k + c.rng.randrange(3) for k in taps]
        return (
            (c.extent(), *spatial_extents, depth * groups)
            if last
            else (c.extent(), depth * groups, *spatial_extents)
        )
    if other is None:
        return c.shape(max(3, c.rank))
    image_extents, channels = (
        (other.extents[1:-1], other.extents[-1]) if last else (other.extents[2:], other.extents[1])
    )
    taps = tuple(c.rng.randint(1, max(1, min(3, d))) for d in image_extents)
    depth, outputs = channels // groups, groups * max(1, c.extent() if c.chance(0.8) else 1)
    return (*taps, depth, outputs) if last else (outputs, depth, *taps)


def _conv_last_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return _conv_operand(i, operands, attrs, c, last=True)


def _reshape_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    if attrs.get("shape") is not None:
        return regrouped(attrs["shape"], c)
    return c.shape(c.rank)


def _expand_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    if attrs.get("shape") is not None:
        shape = tuple(d if c.chance(0.5) else 1 for d in attrs["shape"])
        return shape[c.rng.randrange(len(shape) + 1) :] if c.chance(0.2) else shape
    return tuple(1 if c.chance(0.5) else d for d in c.shape(c.rank))


def _pad_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return any_operand(0, operands, attrs, c) if i == 0 else ()


def _concat_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    other = operands[1 - i]
    if other is None:
        return any_operand(i, operands, attrs, c)
    axis = attrs.get("axis")
    axis = c.axis(other.rank) if axis is None else axis
    return tuple(c.extent() if a == axis else d for a, d in enumerate(other.extents))


def _gather_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    if i == 0:
        return TensorType(c.dtype, any_operand(0, operands, attrs, c) or (2,))
    return TensorType("int64", c.shape(c.rng.choice((0, 1, 1, 2))))


def _gather_elements_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    other = operands[1 - i]
    shape = any_operand(i, operands, attrs, c) if other is None else other.extents
    if i == 0:
        return TensorType(c.dtype, shape)
    return TensorType("int64", tuple(c.rng.randint(min(1, d), d) for d in shape))


def _gather_nd_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    other = operands[1 - i]
    if i == 0:
        return TensorType(c.dtype, c.shape(max(1, c.rank)))
    batch = attrs.get("batch_dims") or 0
    rank = other.rank if other is not None else c.rank
    lead = other.extents[:batch] if other is not None else ()
    return TensorType(
        "int64", (*lead, *c.shape(c.rng.choice((0, 1))), c.rng.randint(1, max(1, rank - batch)))
    )


def _scatter_elements_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    x = operands[0]
    if i == 0 or x is None:
        return TensorType(c.dtype, c.shape(max(1, c.rank)))
    if i == 1:
        shape = (
            operands[2].extents
            if operands[2] is not None
            else tuple(c.rng.randint(min(1, d), d) for d in x.extents)
        )
        return TensorType("int64", shape)
    return TensorType(x.dtype, operands[1].extents if operands[1] is not None else x.extents)


def _scatter_nd_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> TensorType:
    x, indices = operands[0], operands[1]
    if i == 0 or x is None:
        return TensorType(c.dtype, c.shape(max(1, c.rank)))
    if i == 1 or indices is None:
        return TensorType("int64", (*c.shape(c.rng.choice((0, 1))), c.rng.randint(1, max(1, x.rank))))
    return TensorType(x.dtype, (*indices.extents[:-1], *x.extents[indices.extents[-1] :]))


def _norm_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    x = operands[0]
    if i == 0 or x is None:
        return c.shape(max(1, c.rank))
    return x.extents if c.chance(0.3) else row_vector(x.extents) if c.chance(0.7) else ()


def _attention_operand(i: int, operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    """q [..., m, h], k [..., n, h], v [..., n, d], mask broadcast to [..., m, n]."""
    q, k, v = operands[:3]
    known = next((t for t in (q, k, v) if t is not None and t.rank >= 2), None)
    batch = known.extents[:-2] if known is not None else c.shape(max(0, c.rank - 2))
    head = next((t.extents[-1] for t in (q, k) if t is not None and t.rank >= 2), c.extent())
    length = next((t.extents[-2] for t in (k, v) if t is not None and t.rank >= 2), c.extent())
    match i:
        case 0:
            return (*batch, c.extent(), head)
        case 1:
            return (*batch, length, head)
        case 2:
            return (*batch, length, c.extent())
    rows = q.extents[-2] if q is not None and q.rank >= 2 else 1
    return c.rng.choice(
        ((), (*(1 for _ in batch), rows, length), (*batch, rows, length), (*(1 for _ in batch), 1, length))
    )


OPERANDS: Mapping[str, Callable[[int, Operands, Attrs, Context], Any]] = {
    "map": _map_operand,
    "matmul": _matmul_operand,
    "conv": _conv_operand,
    "conv_channels_last": _conv_last_operand,
    "reshape": _reshape_operand,
    "expand": _expand_operand,
    "pad": _pad_operand,
    "concat": _concat_operand,
    "gather": _gather_operand,
    "gather_elements": _gather_elements_operand,
    "gather_nd": _gather_nd_operand,
    "scatter_elements": _scatter_elements_operand,
    "scatter_nd": _scatter_nd_operand,
    "layer_norm": _norm_operand,
    "rms_norm": _norm_operand,
    "attention": _attention_operand,
}

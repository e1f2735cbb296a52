"""Arithmetic on shapes: small integer tensors whose elements are dims, followed through the operators of
shape code.

Exporters compute shapes with ordinary operators (Shape, Gather, Unsqueeze, Concat, Mul …). Where an extent
is symbolic such a tensor is no constant, yet each element is known as a dim. :func:`fold` evaluates an
operator on such tensors; a result that it cannot state exactly for every value of the symbols is left to
run as data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from egc.frontend.context import Context
from egc.frontend.registry import OnnxNode
from egc.ir.dims import Dim, SymDim, dim_max, dim_min, floordiv, mod
from egc.ir.extents import at_least
from egc.ir.types import SIGNED, is_float

_MAX_ELEMENTS = 64


class _Unknown(Exception):
    """The result depends on the symbols in a way that dims cannot state."""


def fold(ctx: Context, node: OnnxNode) -> Sequence[str] | None:
    """The outputs of ``node`` as tensors of dims; None where an operand is data or the operator does other
    things."""
    floating = bool(node.inputs) and node.inputs[0] is not None and is_float(ctx.dtype(node.inputs[0]))
    rule = (_FLOAT_RULES if floating else _RULES).get(node.op_type)
    if rule is None or node.domain or not node.inputs:
        return None
    operands = [_elements(ctx, value) for value in node.inputs if value is not None]
    if any(a is None or a.size > _MAX_ELEMENTS for a in operands) or len(operands) != len(node.inputs):
        return None
    arrays = [a for a in operands if a is not None]
    if not any(isinstance(d, SymDim) for a in arrays for d in a.reshape(-1)):
        return None
    try:
        result = rule(node, arrays)
    except _Unknown:
        return None
    results = result if isinstance(result, list) else [result]
    if any(r.size > _MAX_ELEMENTS for r in results):
        return None
    dtype = _result_dtype(ctx, node)
    return None if dtype is None else [ctx.dims(r, dtype) for r in results]


def _elements(ctx: Context, value: str) -> np.ndarray | None:
    """A tensor as dims, whole numbers among floats included: sizes times scales are computed so."""
    data = ctx.const(value)
    if data is None or data.dtype.kind != "f":
        return ctx.dims_array(value)
    if data.size > _MAX_ELEMENTS or not (np.isfinite(data).all() and (data == np.round(data)).all()):
        return None
    return np.array([int(v) for v in data.reshape(-1)], dtype=object).reshape(data.shape)


def _result_dtype(ctx: Context, node: OnnxNode) -> str | None:
    if node.op_type in _COMPARISONS or node.op_type == "Not":
        return "bool"
    if node.op_type == "Cast":
        from egc.frontend.proto import element_type

        dtype = element_type(node.attr("to"))
        # A float of fewer bits would round extents.
        return dtype if dtype in (*SIGNED, "float32", "float64") else None
    first = node.inputs[1] if node.op_type == "Where" else node.inputs[0]
    return ctx.dtype(first) if first is not None else None


def _elementwise(fn: Callable[..., Any]) -> Callable[[OnnxNode, list[np.ndarray]], np.ndarray]:
    def apply(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
        broadcast = np.broadcast_arrays(*operands)
        out = np.empty(broadcast[0].shape, dtype=object)
        for index in np.ndindex(out.shape):
            out[index] = fn(*(a[index] for a in broadcast))
        return out

    return apply


def _variadic(fn: Callable[[Dim, Dim], Dim]) -> Callable[[OnnxNode, list[np.ndarray]], np.ndarray]:
    def fold_all(*values: Dim) -> Dim:
        out = values[0]
        for value in values[1:]:
            out = fn(out, value)
        return out

    return _elementwise(fold_all)


def divide(a: Dim, b: Dim) -> Dim:
    """ONNX's quotient of integers, which truncates toward zero, by dims' quotient, which rounds down."""
    if b == 0:
        raise _Unknown
    quotient = floordiv(a, b)
    if _exact(a, b, quotient) or (at_least(a, 0) and at_least(b, 1)):
        return quotient
    if not at_least(b, 1):
        raise _Unknown
    if at_least(a + b, 1):
        # Between -b and 0 the quotient truncates to 0.
        return dim_max(quotient, 0)
    return dim_max(quotient, 0) + dim_min(-floordiv(-a, b), 0)


def _exact(a: Dim, b: Dim, quotient: Dim) -> bool:
    return quotient * b == a


def _divide_exactly(a: Dim, b: Dim) -> Dim:
    if b == 0 or not _exact(a, b, quotient := floordiv(a, b)):
        raise _Unknown
    return quotient


def _mod(a: Dim, b: Dim) -> Dim:
    if b == 0:
        raise _Unknown
    return mod(a, b)


def _equal(a: Dim, b: Dim) -> bool:
    difference = a - b
    if isinstance(difference, int):
        return difference == 0
    if at_least(difference, 1) or at_least(-difference, 1):
        return False
    raise _Unknown


def _less(a: Dim, b: Dim) -> bool:
    if at_least(b - a, 1):
        return True
    if at_least(a - b, 0):
        return False
    raise _Unknown


def _select(condition: Any, a: Dim, b: Dim) -> Dim:
    if isinstance(condition, SymDim):
        raise _Unknown
    return a if condition else b


def _concrete(array: np.ndarray) -> list[int]:
    flat = array.reshape(-1).tolist()
    if any(isinstance(d, SymDim) for d in flat):
        raise _Unknown
    return [int(d) for d in flat]


def _axes(node: OnnxNode, operands: list[np.ndarray], rank: int) -> list[int]:
    given = _concrete(operands[1]) if len(operands) > 1 else node.attr("axes")
    if given is None:
        return list(range(rank))
    if any(not -rank <= a < rank for a in given):
        raise _Unknown
    return [a % rank for a in given]


def _gather(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
    indices = np.array(_concrete(operands[1]), dtype=np.int64).reshape(operands[1].shape)
    return np.asarray(np.take(operands[0], indices, axis=node.attr("axis", 0)), dtype=object)


def _slice(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
    x = operands[0]
    if len(operands) == 1:
        starts, ends, axes = node.attr("starts"), node.attr("ends"), node.attr("axes")
        steps = None
    else:
        starts, ends = _concrete(operands[1]), _concrete(operands[2])
        axes = _concrete(operands[3]) if len(operands) > 3 else None
        steps = _concrete(operands[4]) if len(operands) > 4 else None
    index = [slice(None)] * x.ndim
    for i, axis in enumerate(axes or range(len(starts))):
        step = steps[i] if steps else 1
        if step == 0 or not -x.ndim <= axis < x.ndim:
            raise _Unknown
        index[axis] = slice(starts[i], ends[i], step)
    return x[tuple(index)]


def _concat(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(operands, axis=node.attr("axis", 0))


def _unsqueeze(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
    given = _concrete(operands[1]) if len(operands) > 1 else node.attr("axes")
    return np.expand_dims(operands[0], tuple(given))


def _squeeze(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
    x = operands[0]
    if len(operands) == 1 and node.attr("axes") is None:
        return np.squeeze(x)
    return np.squeeze(x, axis=tuple(_axes(node, operands, x.ndim)))


def _reshape(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
    shape = _concrete(operands[1])
    if 0 in shape:
        raise _Unknown
    return operands[0].reshape(shape)


def _flatten(node: OnnxNode, x: np.ndarray) -> np.ndarray:
    axis = node.attr("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _split(node: OnnxNode, operands: list[np.ndarray]) -> list[np.ndarray]:
    axis, count = node.attr("axis", 0), len(node.outputs)
    sizes = _concrete(operands[1]) if len(operands) > 1 else node.attr("split")
    if sizes is None:
        extent = operands[0].shape[axis]
        part = -(-extent // count)
        sizes = [part] * (count - 1) + [extent - part * (count - 1)]
    return np.split(operands[0], np.cumsum(sizes)[:-1], axis=axis)


def _reduce(fn: Callable[[Dim, Dim], Dim]) -> Callable[[OnnxNode, list[np.ndarray]], np.ndarray]:
    def apply(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
        x = operands[0]
        axes = tuple(_axes(node, operands, x.ndim))
        if x.size == 0 or not axes:
            raise _Unknown
        moved = np.moveaxis(x, axes, range(len(axes))).reshape(
            -1, *[d for i, d in enumerate(x.shape) if i not in axes]
        )
        out = moved[0:1][0] if moved.ndim > 1 else np.array(moved[0], dtype=object)
        for row in moved[1:]:
            out = _variadic(fn)(node, [np.asarray(out, dtype=object), np.asarray(row, dtype=object)])
        out = np.asarray(out, dtype=object)
        return np.expand_dims(out, axes) if node.attr("keepdims", 1) else out

    return apply


def _expand(node: OnnxNode, operands: list[np.ndarray]) -> np.ndarray:
    shape = np.broadcast_shapes(operands[0].shape, tuple(_concrete(operands[1])))
    if math.prod(shape) > _MAX_ELEMENTS:
        raise _Unknown
    return np.broadcast_to(operands[0], shape)


_COMPARISONS = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_RULES: Mapping[str, Callable[[OnnxNode, list[np.ndarray]], np.ndarray | list[np.ndarray]]] = {
    "Add": _elementwise(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(lambda a, b: a * b),
    "Div": _elementwise(divide),
    "Mod": _elementwise(_mod),
    "Neg": _elementwise(lambda a: -a),
    "Min": _variadic(dim_min),
    "Max": _variadic(dim_max),
    "Sum": _variadic(lambda a, b: a + b),
    "Equal": _elementwise(_equal),
    "Less": _elementwise(_less),
    "LessOrEqual": _elementwise(lambda a, b: not _less(b, a)),
    "Greater": _elementwise(lambda a, b: _less(b, a)),
    "GreaterOrEqual": _elementwise(lambda a, b: not _less(a, b)),
    "Where": _elementwise(_select),
    "Cast": lambda node, operands: operands[0],
    "Identity": lambda node, operands: operands[0],
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": lambda node, operands: np.transpose(operands[0], node.attr("perm")),
    "Flatten": lambda node, operands: _flatten(node, operands[0]),
    "Reshape": _reshape,
    "Split": _split,
    "Expand": _expand,
    "ReduceProd": _reduce(lambda a, b: a * b),
    "ReduceSum": _reduce(lambda a, b: a + b),
    "ReduceMax": _reduce(dim_max),
    "ReduceMin": _reduce(dim_min),
}
# Over floats a quotient is not rounded, so only an exact one is a dim; whole numbers need no rounding.
_FLOAT_RULES = {
    **{name: rule for name, rule in _RULES.items() if name != "Mod"},
    "Div": _elementwise(_divide_exactly),
    **dict.fromkeys(("Floor", "Ceil", "Round"), _RULES["Identity"]),
}

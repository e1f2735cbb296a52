"""Random operands and attributes that an operator takes.

For each operator there is an order in which operands (numbers) and attributes (names) are chosen, and a
function that chooses one of them, given the others that are known. What it returns may still not fit where a
rule binds the rest; type inference then rejects it, and another attempt is made.
"""

from __future__ import annotations

from typing import Any

from egc.ir.ops import OPS
from egc.ir.types import TensorType
from egc.soundness.attributes import ATTRIBUTES
from egc.soundness.context import Attrs, Context, Operands
from egc.soundness.operands import OPERANDS, any_operand


def order(op: str, operands: int) -> list[int | str]:
    """What to choose, in order."""
    attrs = [name for name, _ in OPS[op].attrs] if op in OPS else []
    numbers: list[int | str] = list(range(operands))
    if op == "map":
        return ["fn", *numbers]
    if op in ("conv", "conv_channels_last"):
        return [0, "groups", 1, "strides", "dilations", "low", "high"]
    if op == "scatter_elements":
        return [0, "axis", 1, 2, "fn"]
    if op == "expand":
        return [0, "shape"]
    return [*numbers, *attrs]


def choose_operand(op: str, i: int, operands: Operands, attrs: Attrs, context: Context) -> TensorType:
    """A type for operand ``i``, which is None in ``operands``."""
    chosen = OPERANDS.get(op, any_operand)(i, operands, attrs, context)
    return chosen if isinstance(chosen, TensorType) else TensorType(context.dtype_like(operands), chosen)


def choose_attribute(op: str, name: str, operands: Operands, attrs: Attrs, context: Context) -> Any:
    """A value for the attribute ``name``. KeyError where this module knows none."""
    specific = ATTRIBUTES.get((op, name))
    return (specific or ATTRIBUTES["", name])(operands, attrs, context)

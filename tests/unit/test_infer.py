"""Type inference: operands and attributes that do not fit are told apart from those that do."""

import pytest

from egc.ir.infer import InferError, infer
from egc.ir.types import TensorType

VECTOR, MATRIX = TensorType("float32", (3,)), TensorType("float32", (3, 3))


@pytest.mark.parametrize("position", range(3))
def test_attention_takes_matrices(position: int) -> None:
    operands = [MATRIX, MATRIX, MATRIX, TensorType("float32", ())]
    operands[position] = VECTOR
    with pytest.raises(InferError, match="matrices"):
        infer("attention", tuple(operands), {"scale": 1.0})


def test_no_more_than_all_elements_are_the_largest() -> None:
    attrs = {"axis": 0, "largest": True}
    assert infer("topk", (VECTOR,), {"k": (3,), **attrs})[0] == VECTOR
    with pytest.raises(InferError, match="4 of 3"):
        infer("topk", (VECTOR,), {"k": (4,), **attrs})

"""The result types of the operators of ai.onnx.ml that run on the host and that ONNX has no inference for.

They are those of what onnx.reference makes of a float32 matrix [N, features]: for other operands it does not
keep to the schemas, which say float32.
"""

from __future__ import annotations

from collections.abc import Mapping

from egc.frontend.messages import AttributeProto, NodeProto, TensorProto, TensorShapeProto, TypeProto

_CLASSIFIERS = ("SVMClassifier", "TreeEnsembleClassifier")
_REGRESSORS = ("SVMRegressor", "TreeEnsembleRegressor")
MODELS = frozenset({*_CLASSIFIERS, *_REGRESSORS})


def model_types(node: NodeProto, types: Mapping[str, TypeProto]) -> list[TypeProto | None]:
    """The types of the results of one of MODELS; none where its operand is no matrix of float32."""
    operand = types.get(node.input[0], TypeProto()).tensor_type
    if operand.elem_type != TensorProto.FLOAT or len(operand.shape.dim) != 2:
        return []
    rows, unknown = operand.shape.dim[0], TensorShapeProto.Dimension()
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in _CLASSIFIERS:
        text = attributes.get("classlabels_strings", AttributeProto()).strings
        return [
            _tensor(TensorProto.STRING if text else TensorProto.INT64, rows),
            _tensor(TensorProto.FLOAT, rows, unknown),
        ]
    # onnx.reference evaluates support vectors for one target.
    targets = attributes["n_targets"].i if node.op_type == "TreeEnsembleRegressor" else 1
    return [_tensor(TensorProto.FLOAT, rows, TensorShapeProto.Dimension(dim_value=targets))]


def _tensor(code: int, *dims: TensorShapeProto.Dimension) -> TypeProto:
    return TypeProto(tensor_type=TypeProto.Tensor(elem_type=code, shape=TensorShapeProto(dim=dims)))

"""Writes a model that computes |x| from its two halves: rules/README.md finds a rule for it.

python examples/rules/halves.py [halves.onnx]
"""

from __future__ import annotations

import sys

import onnx
from onnx import ModelProto, TensorProto, helper


def halves() -> ModelProto:
    """softmax(relu(x) + relu(-x)), x: float32[64, 1000]."""
    nodes = [
        helper.make_node("Relu", ["x"], ["p"], "above"),
        helper.make_node("Neg", ["x"], ["n"], "negated"),
        helper.make_node("Relu", ["n"], ["q"], "below"),
        helper.make_node("Add", ["p", "q"], ["size"], "size"),
        helper.make_node("Softmax", ["size"], ["y"], "softmax", axis=-1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [64, 1000])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [64, 1000])
    graph = helper.make_graph(nodes, "halves", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    onnx.save(halves(), sys.argv[1] if len(sys.argv) > 1 else "halves.onnx")

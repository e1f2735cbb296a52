"""The two models of the GPU slice: a perceptron with GELU and softmax, and a small convolutional network."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_IR_VERSION = 9  # the newest that the oldest supported onnxruntime reads


def perceptron(batch: int | str = 8, features: int = 64, hidden: int = 128, classes: int = 10) -> ModelProto:
    """Two layers with GELU in its erf form between them, and a softmax."""
    nodes = [
        _node("Gemm", "x w1 b1", "a", "fc1"),
        _node("Div", "a root2", "b", "gelu_div"),
        _node("Erf", "b", "c", "gelu_erf"),
        _node("Add", "c one", "d", "gelu_add"),
        _node("Mul", "a d", "e", "gelu_mul"),
        _node("Mul", "e half", "f", "gelu_half"),
        _node("Gemm", "f w2 b2", "g", "fc2"),
        _node("Softmax", "g", "y", "softmax", axis=-1),
    ]
    weights = _weights(w1=(features, hidden), b1=(hidden,), w2=(hidden, classes), b2=(classes,))
    scalars = {"root2": 2**0.5, "one": 1.0, "half": 0.5}
    weights += [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in scalars.items()]
    return _model("perceptron", nodes, [batch, features], [batch, classes], weights)


def convolutional(batch: int | str = 1, size: int = 20, classes: int = 10) -> ModelProto:
    """conv, relu, max pool, conv, relu, global pool, fully connected."""
    nodes = [
        _node("Conv", "x w1 b1", "a", "conv1", pads=[1, 1, 1, 1]),
        _node("Relu", "a", "b", "relu1"),
        _node("MaxPool", "b", "c", "pool", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Conv", "c w2 b2", "d", "conv2", pads=[1, 1, 1, 1]),
        _node("Relu", "d", "e", "relu2"),
        _node("GlobalAveragePool", "e", "f", "mean"),
        _node("Flatten", "f", "g", "flatten"),
        _node("Gemm", "g w3 b3", "y", "fc"),
    ]
    weights = _weights(w1=(8, 3, 3, 3), b1=(8,), w2=(16, 8, 3, 3), b2=(16,), w3=(16, classes), b3=(classes,))
    return _model("convolutional", nodes, [batch, 3, size, size], [batch, classes], weights)


def _node(op: str, inputs: str, output: str, name: str, **attrs: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=name, **attrs)


def _weights(**shapes: tuple[int, ...]) -> list[TensorProto]:
    rng = np.random.default_rng(0)
    found = []
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
        data = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        found.append(numpy_helper.from_array(data.astype(np.float32), name))
    return found


def _model(
    name: str,
    nodes: list[NodeProto],
    shape: list[int | str],
    result: list[int | str],
    weights: list[TensorProto],
) -> ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, result)
    graph = helper.make_graph(nodes, name, [x], [y], weights)
    return helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", 17)])

"""Operators as older opsets wrote them (attributes for operands, other defaults), against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ValueInfoProto, helper, numpy_helper

from egc.frontend.importer import import_model
from egc.frontend.proto import CODES
from egc.ir.evaluate import evaluate
from egc.ir.types import dtype_of

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((2, 4, 6, 6)).astype(np.float32)
MATRIX = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)

# operator, opset, operands that are data, operands that are constants, attributes, number of outputs
CASES: list[tuple[str, int, list[np.ndarray], list[Any], dict[str, Any], int]] = [
    ("Clip", 7, [X], [], {"min": -0.5, "max": 0.25}, 1),
    ("Clip", 7, [X], [], {"max": 0.25}, 1),
    ("Clip", 12, [X], [np.float32(-0.5)], {}, 1),
    ("Slice", 9, [X], [], {"starts": [0, 1], "ends": [1, -1], "axes": [0, 2]}, 1),
    ("Slice", 9, [X], [], {"starts": [1, -2], "ends": [9, 9]}, 1),
    ("Slice", 13, [X], [np.int64([3, -1]), np.int64([0, -9]), np.int64([2, 1]), np.int64([-2, -1])], {}, 1),
    ("Pad", 10, [X], [], {"pads": [0, 1, 0, 2, 0, 1], "value": 1.5}, 1),
    ("Pad", 10, [X], [], {"pads": [0, 1, 1, 0, 1, 2], "mode": "reflect"}, 1),
    ("Pad", 11, [X], [np.int64([0, -1, 0, 0, 2, -1]), np.float32(7)], {}, 1),
    ("Pad", 11, [X], [np.int64([0, 1, 1, 0, 1, 2])], {"mode": "edge"}, 1),
    ("Squeeze", 11, [X[:, :1]], [], {"axes": [1]}, 1),
    ("Squeeze", 11, [X[:1, :1]], [], {}, 1),
    ("Unsqueeze", 11, [X], [], {"axes": [0, 4]}, 1),
    ("Split", 11, [X], [], {"axis": 2, "split": [1, 3]}, 2),
    ("Split", 11, [X], [], {"axis": -1}, 2),
    ("Split", 18, [X], [], {"axis": 1, "num_outputs": 2}, 2),
    ("ReduceSum", 11, [X], [], {"axes": [0, 2], "keepdims": 0}, 1),
    ("ReduceMean", 11, [X], [], {"axes": [-1]}, 1),
    ("ReduceL2", 11, [X], [], {}, 1),
    ("ReduceLogSumExp", 11, [X], [], {"axes": [1]}, 1),
    ("ReduceSum", 13, [X], [np.int64([1])], {"keepdims": 0}, 1),
    ("TopK", 9, [X], [], {"k": 2, "axis": 1}, 2),
    ("TopK", 10, [X], [np.int64([3])], {}, 2),
    ("TopK", 11, [X], [np.int64([3])], {"largest": 0}, 2),
    ("Softmax", 11, [X], [], {"axis": 1}, 1),
    ("Softmax", 11, [X], [], {}, 1),
    ("Softmax", 13, [X], [], {"axis": 1}, 1),
    ("LogSoftmax", 7, [X], [], {"axis": 0}, 1),
    ("Hardmax", 11, [X], [], {"axis": 1}, 1),
    ("Dropout", 7, [X], [], {"ratio": 0.5}, 1),
    ("Dropout", 12, [X], [], {}, 1),
    ("Gemm", 7, [MATRIX, MATRIX, MATRIX[:, 0]], [], {"transA": 0, "transB": 1, "alpha": 0.5, "beta": 2.0}, 1),
    ("Gemm", 11, [MATRIX, MATRIX], [], {"transA": 1}, 1),
    ("OneHot", 9, [np.int64([0, 2, -1])], [np.int64([3]), np.float32([0, 5])], {"axis": 0}, 1),
    ("Scatter", 9, [X], [np.int64([[[0, 1]]]), np.float32([[[9, 8]]])], {"axis": 2}, 1),
    ("Flatten", 9, [X], [], {"axis": 2}, 1),
    ("Mod", 10, [X, X[::-1]], [], {"fmod": 1}, 1),
    ("CumSum", 11, [X], [np.int32(1)], {"exclusive": 1, "reverse": 1}, 1),
    ("Upsample", 9, [IMAGE], [np.float32([1, 1, 2, 3])], {"mode": "nearest"}, 1),
    ("Resize", 10, [IMAGE], [np.float32([1, 1, 2, 2])], {"mode": "linear"}, 1),
    ("Resize", 10, [IMAGE], [np.float32([1, 1, 0.6, 1.5])], {"mode": "nearest"}, 1),
    ("DepthToSpace", 7, [IMAGE], [], {"blocksize": 2}, 1),
    ("AveragePool", 7, [IMAGE], [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 1),
    ("MaxPool", 8, [IMAGE], [], {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 1),
    ("BatchNormalization", 7, [IMAGE], [np.float32([1, 2, 3, 4]) for _ in range(4)], {"epsilon": 1e-3}, 1),
    ("BatchNormalization", 7, [X[..., 0]], [np.abs(X[0, :, i]) for i in range(4)], {"spatial": 0}, 1),
    ("BatchNormalization", 7, [X], [np.abs(X[i % 2]) for i in range(4)], {"spatial": 0}, 1),
    ("PRelu", 9, [X, np.float32([0.1, 0.2, 0.3, 0.4])], [], {}, 1),
    ("Pow", 12, [np.abs(X), np.int32([1, 2, 3, 4])], [], {}, 1),
    ("EyeLike", 9, [MATRIX], [], {"k": 1}, 1),
    ("Expand", 8, [X[:, :1]], [np.int64([5, 1, 3, 1])], {}, 1),
    ("Tile", 7, [X], [np.int64([1, 2, 3])], {}, 1),
    ("ArgMax", 11, [X], [], {"axis": 1, "keepdims": 0}, 1),
    ("ThresholdedRelu", 10, [X], [], {"alpha": 0.3}, 1),
    ("Shrink", 9, [X], [], {"lambd": 0.4, "bias": 0.1}, 1),
    ("BitShift", 11, [np.uint8([1, 128, 255]), np.uint8([1, 3, 7])], [], {"direction": "RIGHT"}, 1),
    ("ReverseSequence", 10, [X], [np.int64([1, 3])], {"batch_axis": 0, "time_axis": 1}, 1),
]


@pytest.mark.parametrize(
    ("op_type", "opset", "data", "constants", "attributes", "outputs"),
    CASES,
    ids=[f"{i}-{case[0]}-{case[1]}" for i, case in enumerate(CASES)],
)
def test_an_older_form_computes_the_same(
    op_type: str,
    opset: int,
    data: list[np.ndarray],
    constants: list[Any],
    attributes: dict[str, Any],
    outputs: int,
) -> None:
    feeds = {f"x{i}": x for i, x in enumerate(data)}
    weights = {f"c{i}": np.asarray(c) for i, c in enumerate(constants)}
    names = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op_type, [*feeds, *weights], names, **attributes)],
        "old",
        [helper.make_tensor_value_info(name, CODES[dtype_of(x)], list(x.shape)) for name, x in feeds.items()],
        [ValueInfoProto(name=name) for name in names],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    imported = import_model(model)
    results = evaluate(imported.graph, {port.value: feeds[port.name] for port in imported.inputs})
    assert not imported.hosted
    for port, expected in zip(imported.outputs, session.run(None, feeds), strict=True):
        result = results[port.value]
        assert result.dtype == expected.dtype and result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)

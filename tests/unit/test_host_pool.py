"""MaxPool with positions and LpPool: on the host and compiled, over symbolic and known extents, against
onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import egc
from egc.frontend.importer import import_model
from egc.ir.evaluate import evaluate
from egc.ir.host import encode_host, run_host

CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("MaxPool", 2, {"kernel_shape": [1, 1]}),
    ("MaxPool", 2, {"kernel_shape": [2, 3]}),
    ("MaxPool", 2, {"kernel_shape": [2, 2], "storage_order": 1}),
    ("MaxPool", 2, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "storage_order": 1}),
    ("MaxPool", 2, {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1}),
    ("MaxPool", 2, {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    ("MaxPool", 2, {"kernel_shape": [3, 4], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("MaxPool", 2, {"kernel_shape": [3, 4], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("MaxPool", 2, {"kernel_shape": [3, 4], "strides": [2, 2], "auto_pad": "VALID"}),
    ("MaxPool", 1, {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "ceil_mode": 1}),
    ("MaxPool", 3, {"kernel_shape": [2, 2, 3], "strides": [1, 2, 2], "storage_order": 1}),
    ("LpPool", 2, {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1, "p": 2}),
    ("LpPool", 2, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 2], "ceil_mode": 1, "p": 3}),
    ("LpPool", 2, {"kernel_shape": [2, 3], "dilations": [2, 2], "p": 1}),
    ("LpPool", 1, {"kernel_shape": [4], "strides": [3], "auto_pad": "SAME_UPPER"}),
]


def make(op: str, rank: int, attributes: dict[str, Any], shape: list[Any]) -> bytes:
    outputs = ["y", "i"] if op == "MaxPool" else ["y"]
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], outputs, **attributes)],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(o, TensorProto.FLOAT if o == "y" else TensorProto.INT64, None)
            for o in outputs
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()


@pytest.mark.parametrize(("op", "rank", "attributes"), CASES)
def test_agrees_with_onnxruntime(op: str, rank: int, attributes: dict[str, Any]) -> None:
    extents = [2, 3, 11, 14, 6][: 2 + rank]
    x = np.random.default_rng(0).standard_normal(extents).astype(np.float32)
    expected = onnxruntime.InferenceSession(make(op, rank, attributes, extents)).run(None, {"x": x})
    named = ["n", "c", "h", "w", "d"][: 2 + rank]
    shapes = {"symbolic": named, "batch": ["n", *extents[1:]], "static": extents}
    results = {k: interpret(make(op, rank, attributes, shape), x) for k, shape in shapes.items()}
    node = helper.make_node(op, ["x"], ["y", "i"][: len(expected)], **attributes)
    results["host"] = run_host(encode_host(node, ["x"], list(node.output), {"": 18}), [x])
    for kind, found in results.items():
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6, err_msg=kind, strict=True)


def interpret(model: bytes, x: np.ndarray) -> list[np.ndarray]:
    """The model's results by numpy, as the frontend imports it."""
    imported = import_model(model)
    results = evaluate(imported.graph, {imported.inputs[0].value: x})
    return [results[port.value] for port in imported.outputs]


@pytest.mark.parametrize("shape", [["n", "c", "h", "w"], ["n", 3, 11, 14]])
def test_positions_are_compiled_over_symbolic_extents(shape: list[Any]) -> None:
    attributes = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    model = make("MaxPool", 2, attributes, shape)
    x = np.random.default_rng(1).standard_normal((2, 3, 11, 14)).astype(np.float32)
    expected = onnxruntime.InferenceSession(model).run(None, {"x": x})
    session = egc.compile(model)
    assert not any(node.op == "host" for node in import_model(model).graph.nodes)
    for mine, other in zip(session.run(None, {"x": x}), expected, strict=True):
        np.testing.assert_array_equal(mine, other, strict=True)

"""Operators of the main domain as a host step runs them in a subgraph, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from egc.ir.host import encode_host, run_host

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((3, 4, 5)) * 40).astype(np.float32)
IMAGE = RNG.standard_normal((2, 6, 4, 5)).astype(np.float32)
GRID = RNG.uniform(-1.3, 1.3, (2, 3, 3, 2)).astype(np.float32)
CORNERS = RNG.uniform(0, 1, (1, 8, 2)).astype(np.float32)
BOXES = np.concatenate([CORNERS, CORNERS + np.float32(0.4)], axis=-1)
VOTES = RNG.uniform(0, 1, (1, 2, 8)).astype(np.float32)

CASES: list[tuple[str, int, list[np.ndarray], dict[str, Any]]] = [
    *[(op, opset, [X], {"axis": axis}) for op in ("Softmax", "LogSoftmax", "Hardmax")
      for opset in (11, 13) for axis in (0, 1, -1)],
    ("Softmax", 11, [X], {}),
    ("Hardmax", 13, [np.round(X)], {}),
    ("LRN", 13, [IMAGE], {"size": 3, "alpha": 0.5, "beta": 0.7, "bias": 1.5}),
    ("LRN", 13, [IMAGE[:1]], {"size": 5}),
    ("LpNormalization", 17, [X], {"axis": 1, "p": 1}),
    ("LpNormalization", 17, [X], {"p": 2}),
    ("LpNormalization", 17, [np.zeros_like(X)], {"p": 1}),
    ("GlobalLpPool", 17, [IMAGE], {"p": 3}),
    ("GridSample", 16, [IMAGE, GRID], {"mode": "bilinear", "padding_mode": "border"}),
    ("GridSample", 16, [IMAGE, GRID], {"mode": "bicubic"}),
    ("GridSample", 16, [IMAGE, GRID], {"mode": "nearest", "align_corners": 1}),
    ("NonMaxSuppression", 11, [BOXES, VOTES], {}),
    ("NonMaxSuppression", 11, [BOXES, VOTES, np.int64([3])], {}),
    ("NonMaxSuppression", 11, [BOXES, VOTES, np.int64([3]), np.float32([0.4])], {}),
    ("OneHot", 17, [np.int64([0, 2, -1]), np.int64([3]), np.float32([2, 5])], {"axis": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "opset", "operands", "attributes"), CASES)
def test_agrees_with_onnxruntime(
    op: str, opset: int, operands: list[np.ndarray], attributes: dict[str, Any]
) -> None:
    feeds = {f"x{i}": value for i, value in enumerate(operands)}
    node = helper.make_node(op, list(feeds), ["y"], **attributes)
    inputs = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in feeds.items()
    ]
    (result,) = run_host(encode_host(node, list(feeds), ["y"], {"": opset}), operands)
    code = helper.np_dtype_to_tensor_dtype(result.dtype)
    graph = helper.make_graph([node], op, inputs, [helper.make_tensor_value_info("y", code, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5, strict=True)

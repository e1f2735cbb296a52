"""Scaling, linear and support vector models on the host, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from egc.ir.host import encode_host, run_host

DOMAIN = "ai.onnx.ml"
X = np.random.default_rng(5).standard_normal((6, 3)).astype(np.float32)
DTYPES = [np.float32, np.float64, np.int64]
TRANSFORMS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]


def numbers(count: int) -> list[float]:
    return [float(v) for v in np.cos(np.arange(count) * 1.7).astype(np.float32)]


def compare(op: str, outputs: dict[str, int], x: np.ndarray = X, **attributes: Any) -> None:
    shape = ["n", *x.shape[1:]]
    width = {"label": ["n"]}
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], list(outputs), domain=DOMAIN, **attributes)],
        "linear",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), shape)],
        [helper.make_tensor_value_info(o, code, width.get(o, ["n", "k"])) for o, code in outputs.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 3)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString()
    expected = onnxruntime.InferenceSession(model).run(None, {"x": x})
    (node,), opsets = graph.node, {"": 17, DOMAIN: 3}
    results = run_host(encode_host(node, ["x"], list(node.output), opsets), [x])
    for mine, other in zip(results, expected, strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        if mine.dtype == np.float32:
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(mine, other)


SCORES = {"y": TensorProto.FLOAT}
LABELLED = {"label": TensorProto.INT64, "y": TensorProto.FLOAT}


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaling(dtype: Any) -> None:
    x = (X * 5).astype(dtype)
    compare("Scaler", SCORES, x, offset=[0.1, 0.2, 0.3], scale=[1.0, 2.0, 3.0])
    compare("Scaler", SCORES, x, offset=[0.5], scale=[0.25])
    for norm in ("MAX", "L1", "L2"):
        compare("Normalizer", SCORES, x, norm=norm)
    compare("Normalizer", SCORES, np.zeros_like(x), norm="MAX")


@pytest.mark.parametrize("post_transform", TRANSFORMS)
def test_linear_regressors(post_transform: str) -> None:
    x = X / 9 + np.float32(0.4)
    options = {"targets": 2, "coefficients": numbers(6), "post_transform": post_transform}
    compare("LinearRegressor", SCORES, x, intercepts=[0.2, 0.4], **options)
    compare("LinearRegressor", SCORES, x, targets=2, coefficients=numbers(6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("post_transform", TRANSFORMS)
def test_linear_classifiers(post_transform: str, dtype: Any) -> None:
    x = X.astype(dtype)
    for classes in (1, 2, 3) if post_transform != "PROBIT" else (2, 3):
        # With one row of coefficients onnxruntime leaves the first score of PROBIT uninitialised.
        options = {"coefficients": numbers(3 * classes), "intercepts": numbers(classes)}
        options |= {"post_transform": post_transform}
        compare("LinearClassifier", LABELLED, x, classlabels_ints=[4, 7, 9][: max(classes, 2)], **options)
        strings = {**LABELLED, "label": TensorProto.STRING}
        compare("LinearClassifier", strings, x, classlabels_strings=list("abc")[: max(classes, 2)], **options)


def support(count: int, rows: int) -> dict[str, Any]:
    return {"support_vectors": numbers(3 * count), "coefficients": numbers(count * rows)}


KERNELS = [("LINEAR", [0.0] * 3), ("POLY", [0.5, 0.3, 2.0]), ("RBF", [0.4, 0, 3]), ("SIGMOID", [0.2, 0.1, 3])]


@pytest.mark.parametrize(("kernel", "params"), KERNELS)
def test_support_vectors(kernel: str, params: list[float]) -> None:
    options = {"kernel_type": kernel, "kernel_params": [float(p) for p in params]}
    compare("SVMRegressor", SCORES, n_supports=4, rho=[0.2], **support(4, 1), **options)
    compare("SVMRegressor", SCORES, n_supports=4, rho=[0.2], one_class=1, **support(4, 1), **options)
    for sizes in ([2, 2], [2, 1, 2]):
        pairs = len(sizes) * (len(sizes) - 1) // 2
        chances = {"prob_a": [-1.2, -0.8, -1.0][:pairs], "prob_b": [0.1, 0.2, -0.1][:pairs]}
        machine = support(sum(sizes), len(sizes) - 1) | {"rho": [0.2, 0.1, -0.1][:pairs]}
        machine |= {"vectors_per_class": sizes, **options}
        for post_transform in TRANSFORMS[:4]:
            for extra in ({}, chances):
                parts = {"post_transform": post_transform, **machine, **extra}
                compare("SVMClassifier", LABELLED, classlabels_ints=[4, 7, 9][: len(sizes)], **parts)
        strings = {**LABELLED, "label": TensorProto.STRING}
        compare("SVMClassifier", strings, classlabels_strings=list("abc")[: len(sizes)], **machine)

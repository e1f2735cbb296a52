"""Operators of ai.onnx.ml: what is compiled gives what ONNX Runtime and onnx.reference give."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import egc
from egc.errors import BadInput
from egc.frontend.importer import import_model

CODES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64,
         "int32": TensorProto.INT32}  # fmt: skip


def model(
    op_type: str,
    dtypes: list[str],
    shapes: list[list[Any]],
    outputs: int = 1,
    relu: bool = False,
    **attributes: Any,
) -> onnx.ModelProto:
    """One operator over inputs x0, x1 …, and a Relu over its last result where it is asked for."""
    names = [f"y{i}" for i in range(outputs)]
    inputs = [
        helper.make_tensor_value_info(f"x{i}", CODES[dtype], shape)
        for i, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=True))
    ]
    nodes = [
        helper.make_node(op_type, [p.name for p in inputs], list(names), domain="ai.onnx.ml", **attributes)
    ]
    if relu:
        nodes.append(helper.make_node("Relu", [names[-1]], ["z"]))
        names[-1] = "z"
    results = [helper.make_value_info(name, onnx.TypeProto()) for name in names]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, results), opset_imports=opsets, ir_version=9
    )


def data(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(len(shape)).standard_normal(shape) * 3
    return np.asarray(values.round() if dtype.startswith("int") else values, dtype)


def agree(
    proto: onnx.ModelProto, feeds: dict[str, np.ndarray], oracles: str = "both", hosted: bool = False
) -> list[np.ndarray]:
    """egc's results, which are those of ``oracles``: ``ort``, ``reference`` or ``both``."""
    assert bool(import_model(proto).hosted) == hosted
    mine: list[np.ndarray] = egc.compile(proto).run(None, feeds)
    runs = []
    if oracles in ("ort", "both"):
        runs.append(ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run)
    if oracles in ("reference", "both"):
        runs.append(ReferenceEvaluator(proto).run)
    for run in runs:
        for a, b in zip(mine, run(None, feeds), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(
                a, b, rtol=1e-5, atol=1e-6
            ) if a.dtype != object else np.testing.assert_array_equal(a, b)
    return mine


BATCHES = [3, "n"]


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("dtype", list(CODES))
def test_scaler(rows: int | str, length: int, dtype: str) -> None:
    attributes = {"offset": [0.5, -1.0, 2.0, 0.1][:length], "scale": [2.0, 0.3, -1.5, 7.0][:length]}
    proto = model("Scaler", [dtype], [[rows, 4]], **attributes)
    # onnx.reference gives the operand's dtype where the schema says float32.
    (y,) = agree(proto, {"x0": data(dtype, (3, 4))}, "both" if dtype == "float32" else "ort")
    assert y.dtype == np.float32


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("replaced", [float("nan"), 1.5])
@pytest.mark.parametrize("length", [1, 4])
def test_imputer_of_floats(rows: int | str, replaced: float, length: int) -> None:
    values = [0.5, -1.0, 2.0, 0.25][:length]
    x = data("float32", (3, 4))
    x[0, 1] = x[2, 2] = replaced
    for dtype, oracle in (("float32", "both"), ("float64", "reference")):
        proto = model(
            "Imputer", [dtype], [[rows, 4]], imputed_value_floats=values, replaced_value_float=replaced
        )
        (y,) = agree(proto, {"x0": x.astype(dtype)}, oracle)
        assert y[0, 1] == values[1 % length] and y.dtype == dtype


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_imputer_of_integers(dtype: str) -> None:
    x = data(dtype, (3, 4))
    x[1, 2] = -1
    proto = model("Imputer", [dtype], [["n", 4]], imputed_value_int64s=[7, 8, 9, 10], replaced_value_int64=-1)
    (y,) = agree(proto, {"x0": x}, "both" if dtype == "int64" else "reference")
    assert y[1, 2] == 9 and y.dtype == dtype


@pytest.mark.parametrize("rows", BATCHES)
@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("dtype", list(CODES))
def test_normalizer(rows: int | str, norm: str, dtype: str) -> None:
    x = data(dtype, (3, 4))
    x[1] = 0
    proto = model("Normalizer", [dtype], [[rows, 4]], norm=norm)
    # onnx.reference takes magnitudes for MAX, and the dtype of its operand.
    both = dtype == "float32" and norm != "MAX"
    (y,) = agree(proto, {"x0": x}, "both" if both else "ort")
    assert y.dtype == np.float32 and not y[1].any()
    agree(model("Normalizer", ["float32"], [[4]], norm=norm), {"x0": data("float32", (4,))}, "ort")


@pytest.mark.parametrize("dtype", list(CODES))
def test_binarizer(dtype: str) -> None:
    proto = model("Binarizer", [dtype], [["n", 4]], threshold=1.0)
    (y,) = agree(proto, {"x0": data(dtype, (3, 4))}, "both" if dtype == "float32" else "reference")
    assert y.dtype == dtype


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("places", [[2], [1, 2], [3, 0, 3]])
def test_array_feature_extractor(shape: tuple[int, ...], places: list[int]) -> None:
    declared = [*("n" if d != 4 else 4 for d in shape[:1]), *shape[1:]]
    for extent in (len(places), "k"):
        proto = model("ArrayFeatureExtractor", ["float32", "int64"], [declared, [extent]])
        agree(proto, {"x0": data("float32", shape), "x1": np.int64(places)})


def test_feature_vectorizer() -> None:
    proto = model(
        "FeatureVectorizer", ["float32"] * 3, [["n", 2], ["n", 4], ["n", 1]], inputdimensions=[2, 3, 2]
    )
    feeds = {f"x{i}": data("float32", (3, width)) for i, width in enumerate((2, 4, 1))}
    agree(proto, feeds)


@pytest.mark.parametrize("shape", [["n"], ["n", 3]])
def test_one_hot_encoder(shape: list[Any]) -> None:
    x = np.random.default_rng(0).integers(-2, 5, size=[5, 3][: len(shape)])
    for dtype in ("int64", "float32"):
        proto = model("OneHotEncoder", [dtype], [shape], cats_int64s=[3, -1, 0], zeros=1)
        agree(proto, {"x0": x.astype(dtype)})


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("intercepts", [[], [0.5, -1.0, 2.0]])
def test_linear_regressor(targets: int, intercepts: list[float]) -> None:
    weights = data("float32", (targets * 4,)).tolist()
    attributes = {
        "coefficients": weights,
        "targets": targets,
        "intercepts": intercepts[:targets] or [0.0] * targets,
    }
    proto = model("LinearRegressor", ["float32"], [["n", 4]], **attributes)
    agree(proto, {"x0": data("float32", (3, 4))})


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("labels", [[10, 20, 30], ["a", "b", "c"], [7, 8]])
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_linear_classifier(transform: str, labels: list[Any], dtype: str) -> None:
    """Labels that are text, and unusual transformations, are left to the host."""
    text, count = isinstance(labels[0], str), len(labels)
    attributes = {
        # Small: where scores become equal in their transformation, onnx.reference takes the first of them.
        "coefficients": (data("float32", (count * 4,)) / 20).tolist(),
        "intercepts": [0.5, -1.0, 2.0][:count],
        "post_transform": transform,
        "classlabels_strings" if text else "classlabels_ints": labels,
    }
    proto = model("LinearClassifier", [dtype], [["n", 4]], outputs=2, relu=True, **attributes)
    agree(proto, {"x0": data(dtype, (5, 4))}, hosted=text or transform == "SOFTMAX_ZERO")


TREE = {
    "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [1, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
}  # fmt: skip
SUPPORT = {
    "coefficients": [1.0, -1.0], "support_vectors": [0.0, 1, 2, 3, 4, 5, 6, 7], "rho": [0.1],
    "kernel_type": "RBF", "kernel_params": [0.1, 0.0, 3.0],
}  # fmt: skip
TARGETS = {
    "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 1], "target_weights": [1.0, 2.0],
    "n_targets": 2,
}  # fmt: skip
CLASSES = {
    "class_treeids": [0] * 3, "class_nodeids": [1, 2, 2], "class_ids": [0, 1, 2],
    "class_weights": [1.0, 2.0, 3.0],
}  # fmt: skip
VECTORS = {"vectors_per_class": [1, 1], "classlabels_ints": [0, 1]}


@pytest.mark.parametrize(
    ("op_type", "types", "attributes"),
    [
        ("TreeEnsembleRegressor", ["float32[n"], TREE | TARGETS),
        (
            "TreeEnsembleClassifier",
            ["int64[n]", "float32[n"],
            TREE | CLASSES | {"classlabels_int64s": [3, 4, 5]},
        ),
        (
            "TreeEnsembleClassifier",
            ["string[n]", "float32[n"],
            TREE | CLASSES | {"classlabels_strings": list("pqr")},
        ),
        ("SVMRegressor", ["float32[n, 1]"], SUPPORT | {"n_supports": 2}),
        ("SVMClassifier", ["int64[n]", "float32[n"], SUPPORT | VECTORS),
    ],
)
def test_models_on_the_host_have_types_and_may_stand_before_other_nodes(
    op_type: str, types: list[str], attributes: dict[str, Any]
) -> None:
    x = data("float32", (3, 4))
    for opset in (1, 3, 5):  # ONNX's inference knows these operators in some of them
        proto = model(op_type, ["float32"], [["n", 4]], outputs=len(types), relu=True, **attributes)
        proto.opset_import[1].version = opset
        found = [str(port.type) for port in import_model(proto).outputs]
        assert all(text.startswith(start) for text, start in zip(found, types, strict=True))
        agree(proto, {"x0": x}, hosted=True, oracles="both" if opset < 5 else "reference")


def test_what_does_not_fit_is_refused() -> None:
    for op_type, attributes in (
        ("Scaler", {"offset": [1.0, 2.0], "scale": [1.0, 2.0]}),
        ("Imputer", {"imputed_value_int64s": [1]}),
        ("Normalizer", {"norm": "L3"}),
        ("LinearRegressor", {"coefficients": [1.0, 2.0, 3.0]}),
        ("FeatureVectorizer", {"inputdimensions": [4, 4]}),
    ):
        with pytest.raises(BadInput, match=op_type):
            import_model(model(op_type, ["float32"], [["n", 4]], **attributes))

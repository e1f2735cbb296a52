"""Tree ensembles on the host, against onnxruntime, and by hand where onnxruntime does otherwise than the
specification says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import egc
from egc.ir.host import encode_host, run_host

DOMAIN = "ai.onnx.ml"
X = np.random.default_rng(3).standard_normal((40, 4)).astype(np.float32)
X[3, 1] = np.nan
MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE", "BRANCH_NEQ"]
TRANSFORMS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]


def forest(kind: str, ids: Sequence[int], low: float, high: float, trees: int = 3) -> dict[str, Any]:
    """The attributes of complete trees of depth 2; every leaf adds to each of ``ids``."""
    rng = np.random.default_rng(len(ids))
    rows: list[tuple[Any, ...]] = []
    leaves: list[tuple[Any, ...]] = []
    for tree in range(trees):
        for i in range(7):
            mode = "LEAF" if i > 2 else str(rng.choice(MODES))
            value, feature = float(np.float32(rng.normal())), int(rng.integers(4))
            rows.append((tree, i, feature, value, mode, 2 * i + 1, 2 * i + 2, int(rng.integers(2))))
            leaves += [(tree, i, j, float(np.float32(rng.uniform(low, high)))) for j in ids if i > 2]
    names = ["treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"]
    names.append("missing_value_tracks_true")
    found = {f"nodes_{k}": list(v) for k, v in zip(names, zip(*rows, strict=True), strict=True)}
    columns = zip(*leaves, strict=True)
    names = ["treeids", "nodeids", "ids", "weights"]
    return found | {f"{kind}_{k}": list(v) for k, v in zip(names, columns, strict=True)}


def make(
    op: str, outputs: dict[str, int], version: int = 3, dtype: int = TensorProto.FLOAT, **attrs: Any
) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], list(outputs), domain=DOMAIN, **attrs)],
        "trees",
        [helper.make_tensor_value_info("x", dtype, ["n", 4])],
        [helper.make_tensor_value_info(name, code, None) for name, code in outputs.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def compare(model: bytes, x: np.ndarray = X, other_model: bytes | None = None) -> None:
    expected = onnxruntime.InferenceSession(other_model or model).run(None, {"x": x})
    proto = onnx.ModelProto.FromString(model)
    (node,), opsets = proto.graph.node, {o.domain: o.version for o in proto.opset_import}
    results = run_host(encode_host(node, ["x"], list(node.output), opsets), [x])
    for mine, other in zip(results, expected, strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        if mine.dtype.kind == "f":
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("post_transform", [*TRANSFORMS, "PROBIT"])
@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_regressors(aggregate: str, post_transform: str) -> None:
    for targets, base in ((3, [0.1, 0.2, 0.15]), (3, []), (1, [0.3])):
        if targets == 1 and post_transform in TRANSFORMS[1:]:
            continue  # onnxruntime leaves out all but PROBIT where there is one target
        trees = forest("target", range(targets), 0.02, 0.2)
        options = {"base_values": base} if base else {}
        compare(
            make(
                "TreeEnsembleRegressor",
                {"y": TensorProto.FLOAT},
                n_targets=targets,
                aggregate_function=aggregate,
                post_transform=post_transform,
                **trees,
                **options,
            )
        )


@pytest.mark.parametrize("post_transform", TRANSFORMS)
@pytest.mark.parametrize("low", [0.0, -0.4])
@pytest.mark.parametrize(
    ("classes", "ids", "base"),
    [(2, [0], 0), (2, [0], 1), (2, [1], 0), (3, [0, 1, 2], 0), (3, [0, 1, 2], 3)],
)
def test_classifiers(classes: int, ids: list[int], base: int, low: float, post_transform: str) -> None:
    options: dict[str, Any] = {"base_values": [0.1, -0.05, 0.07][:base]} if base else {}
    options |= {"post_transform": post_transform, **forest("class", ids, low, 0.4)}
    outputs = {"label": TensorProto.INT64, "scores": TensorProto.FLOAT}
    compare(make("TreeEnsembleClassifier", outputs, classlabels_int64s=[0, 1, 12][:classes], **options))
    outputs["label"] = TensorProto.STRING
    compare(make("TreeEnsembleClassifier", outputs, classlabels_strings=["a", "b", "c"][:classes], **options))


def stump(kind: str, ids: list[int], weights: list[float]) -> dict[str, Any]:
    """One tree that parts x[0] at 0: a leaf for what is not above it, and one for the rest."""
    return {
        "nodes_treeids": [0] * 3,
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0] * 3,
        "nodes_values": [0.0] * 3,
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        f"{kind}_treeids": [0] * len(ids),
        f"{kind}_nodeids": [1, 2] if len(ids) == 2 else [1, 1, 2, 2],
        f"{kind}_ids": ids,
        f"{kind}_weights": weights,
    }


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_a_target_without_a_leaf_is_its_base_value(aggregate: str) -> None:
    # onnxruntime leaves the base value out there.
    trees = stump("target", [0, 1], [1.0, 2.0])
    options = {"n_targets": 2, "aggregate_function": aggregate, "base_values": [0.5, -0.5]}
    model = make("TreeEnsembleRegressor", {"y": TensorProto.FLOAT}, **options, **trees)
    (y,) = egc.compile(model).run(None, {"x": np.float32([[0] * 4, [1] * 4])})
    np.testing.assert_array_equal(y, [[1.5, -0.5], [0.5, 1.5]])


def test_two_classes_with_scores_of_their_own() -> None:
    # onnxruntime calls them 1 and 0, whatever their labels, by the sign of the second score.
    outputs = {"label": TensorProto.INT64, "scores": TensorProto.FLOAT}
    trees = stump("class", [0, 1, 0, 1], [0.75, 0.25, 0.25, 0.75])
    model = make("TreeEnsembleClassifier", outputs, classlabels_int64s=[7, 9], **trees)
    label, scores = egc.compile(model).run(None, {"x": np.float32([[0] * 4, [1] * 4])})
    np.testing.assert_array_equal(label, [7, 9])
    np.testing.assert_array_equal(scores, np.float32([[0.75, 0.25], [0.25, 0.75]]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("aggregate", range(4))
@pytest.mark.parametrize("post_transform", range(4))
def test_trees_by_index(dtype: Any, aggregate: int, post_transform: int) -> None:
    def tensor(values: list[Any], kind: Any) -> Any:
        return numpy_helper.from_array(np.array(values, kind))

    # Tree 0: x[0] <= 0.3 ? (x[1] in {0, 1} ? leaf 0 : leaf 1) : leaf 2; tree 1: x[2] > 0 ? leaf 1 : leaf 3.
    attributes = {
        "nodes_featureids": [0, 1, 2],
        "nodes_modes": tensor([0, 6, 3], np.uint8),
        "nodes_splits": tensor([0.3, 0, 0], dtype),
        "nodes_truenodeids": [1, 0, 1],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [2, 1, 3],
        "nodes_falseleafs": [1, 1, 1],
        "nodes_missing_value_tracks_true": [0, 1, 0],
        "membership_values": tensor([0, 1, np.nan], dtype),
        "leaf_targetids": [0, 1, 1, 0],
        "leaf_weights": tensor([0.5, 0.25, 0.125, 0.75], dtype),
        "tree_roots": [0, 2],
        "n_targets": 2,
        "aggregate_function": aggregate,
        "post_transform": post_transform,
    }
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = np.array([[0, 0, 1, 0], [0, 1, -1, 0], [0, 0.5, 1, 0], [1, 0, -1, 0], [0, np.nan, 0, 0]], dtype)
    # onnxruntime takes 1 for LOGISTIC and 2 for SOFTMAX; the specification has them the other way round.
    swapped = attributes | {"post_transform": {1: 2, 2: 1}.get(post_transform, post_transform)}
    models = (make("TreeEnsemble", {"y": code}, version=5, dtype=code, **a) for a in (attributes, swapped))
    compare(next(models), x, next(models))

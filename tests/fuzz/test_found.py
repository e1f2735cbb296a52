"""Small models that fuzzing found wrong, each by what was wrong with it, against onnx.reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import egc

Feeds = dict[str, np.ndarray]


def model(
    nodes: Sequence[NodeProto],
    feeds: Feeds,
    constants: Feeds | None = None,
    symbolic: Sequence[str] = (),
    opset: int = 21,
) -> ModelProto:
    """The model of some nodes; the inputs are as in ``feeds``, the first axis of ``symbolic`` is ``n``."""
    inputs = []
    for name, array in feeds.items():
        shape = ["n", *array.shape[1:]] if name in symbolic else array.shape
        inputs.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)
        )
    outputs = [helper.make_empty_tensor_value_info(name) for name in nodes[-1].output if name]
    arrays = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "found", inputs, outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def agrees(proto: ModelProto, feeds: Feeds, **options: Any) -> dict[str, Any]:
    """Assert that egc and onnx.reference agree; the session's coverage."""
    wanted = ReferenceEvaluator(proto).run(None, feeds)
    with egc.compile(proto, threads=2, **options) as session:
        for found, right in zip(session.run(None, feeds), wanted, strict=True):
            assert found.shape == right.shape and found.dtype == right.dtype
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)
        return session.coverage


def test_gather_nd_of_a_scalar_from_a_constant() -> None:
    feeds = {"x": normal(3)}
    constants = {"table": normal(5, seed=1), "at": np.array([-2])}
    nodes = [node("GatherND", "table at", "s"), node("Add", "x s")]
    agrees(model(nodes, feeds, constants), feeds)


def test_ceil_mode_under_a_symbolic_batch_is_compiled() -> None:
    feeds = {"x": normal(2, 3, 8, 8)}
    pool = node("AveragePool", "x", ceil_mode=1, count_include_pad=1, kernel_shape=[2, 1], strides=[2, 2])
    assert agrees(model([pool], feeds, symbolic=["x"]), feeds)["host"] == []


def test_a_cubic_beyond_the_border_is_weighted_by_its_own_position() -> None:
    """Against ONNX Runtime and PyTorch, which agree; onnx.reference moves the position to the border."""
    rng = np.random.default_rng(0)
    feeds = {"x": normal(1, 2, 5, 6), "grid": rng.uniform(-1.8, 1.8, (1, 4, 7, 2)).astype(np.float32)}
    for padding in ("border", "reflection"):
        proto = model([node("GridSample", "x grid", mode="cubic", padding_mode=padding)], feeds)
        (right,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
        with egc.compile(proto, threads=1) as session:
            np.testing.assert_allclose(session.run(None, feeds)[0], right, rtol=1e-5, atol=1e-5)

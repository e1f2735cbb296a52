"""Windows over symbolic extents: one program agrees with ONNX Runtime's at every extent."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import egc
from egc.frontend.importer import Imported, import_model
from egc.ir.evaluate import evaluate

EXTENTS = [(1, 1), (1, 2), (2, 5), (3, 4), (4, 3), (5, 1), (6, 9), (11, 8)]
SAME = ("SAME_UPPER", "SAME_LOWER")
POOLS = ("MaxPool", "AveragePool", "LpPool")


def _model(*layers: tuple[str, dict[str, Any]]) -> ModelProto:
    """``layers`` one after the other over [n, 2, h, w]; a convolution has weights of its own."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for i, (op, attributes) in enumerate(layers):
        operands = [f"v{i}"]
        if op == "Conv":
            attributes = dict(attributes)
            shape = (2, 2, *attributes.pop("kernel_shape"))
            weights.append(numpy_helper.from_array(rng.standard_normal(shape, np.float32), f"w{i}"))
            operands.append(f"w{i}")
        nodes.append(helper.make_node(op, operands, [f"v{i + 1}"], **attributes))
    image = helper.make_tensor_value_info("v0", TensorProto.FLOAT, ["n", 2, "h", "w"])
    result = helper.make_empty_tensor_value_info(f"v{len(layers)}")
    graph = helper.make_graph(nodes, "windows", [image], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _evaluated(imported: Imported, x: np.ndarray) -> np.ndarray:
    (image,), (result,) = imported.inputs, imported.outputs
    return evaluate(imported.graph, {image.value: x})[result.value]


def _images() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((2, 2, *extents), np.float32) for extents in EXTENTS]


def _onnxruntime(model: ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("mode", SAME)
@pytest.mark.parametrize("op", ["Conv", *POOLS])
def test_same_padding_of_symbolic_extents(op: str, mode: str) -> None:
    for size, stride in [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 3), (5, 2), (5, 4), (7, 2)]:
        attributes = {"kernel_shape": [size, size], "strides": [stride, stride], "auto_pad": mode}
        model = _model((op, attributes))
        imported = import_model(model)
        assert not imported.hosted
        reference = _onnxruntime(model)
        for x in _images():
            (expected,) = reference.run(None, {"v0": x})
            np.testing.assert_allclose(_evaluated(imported, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", SAME)
def test_same_padding_starts_windows_as_over_known_extents(mode: str) -> None:
    """Where the window is smaller than the stride, or dilated: ONNX Runtime refuses these, or differs."""
    for size, stride, dilation in [(1, 2, 1), (1, 4, 1), (2, 4, 1), (2, 5, 1), (3, 2, 2), (3, 3, 3)]:
        attributes = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "auto_pad": mode}
        model = _model(("Conv", attributes | {"dilations": [dilation] * 2}))
        imported = import_model(model)
        for x in _images():
            known = import_model(model, shapes={"v0": x.shape})
            np.testing.assert_allclose(_evaluated(imported, x), _evaluated(known, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", POOLS)
def test_ceil_mode_over_symbolic_extents(op: str) -> None:
    """Pads of which a window may begin in the last element, and of which none does."""
    for size, stride, pads in [
        (2, 2, [0, 0, 0, 0]),
        (3, 2, [0, 0, 0, 0]),
        (3, 2, [1, 1, 1, 1]),
        (2, 2, [0, 0, 1, 1]),
        (3, 3, [1, 0, 2, 1]),
        (1, 3, [0, 0, 0, 0]),
        (3, 4, [0, 1, 2, 2]),
    ]:
        for counted in (0, 1) if op == "AveragePool" else (None,):
            attributes = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": pads, "ceil_mode": 1}
            attributes |= {} if counted is None else {"count_include_pad": counted}
            model = _model((op, attributes))
            imported = import_model(model)
            assert not imported.hosted
            reference = _onnxruntime(model)
            for x in _images():
                if min(x.shape[2:]) >= size:
                    (expected,) = reference.run(None, {"v0": x})
                    np.testing.assert_allclose(_evaluated(imported, x), expected, rtol=1e-4, atol=1e-5)


def test_extents_after_same_padding_are_those_after_explicit_padding() -> None:
    """So the extents of layer upon layer are no longer than those that padding by numbers leaves."""
    layer = {"kernel_shape": [3, 3], "strides": [2, 2]}

    def shape(padding: dict[str, Any]) -> list[str]:
        (result,) = import_model(_model(*[("Conv", layer | padding)] * 6)).outputs
        return [str(extent) for extent in result.type.shape]

    stated = shape({"pads": [1, 1, 1, 1]})
    assert [shape({"auto_pad": mode}) for mode in SAME] == [stated, stated]


def test_one_artifact_of_same_padding_runs_at_all_extents() -> None:
    pad = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    layers = [("Conv", pad | {"kernel_shape": [3, 3]}), ("MaxPool", pad | {"kernel_shape": [3, 3]})]
    model = _model(*layers, ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}))
    reference = _onnxruntime(model)
    with egc.compile(model, threads=1) as session:
        for x in _images():
            (expected,) = reference.run(None, {"v0": x})
            np.testing.assert_allclose(session.run(None, {"v0": x})[0], expected, rtol=1e-4, atol=1e-5)

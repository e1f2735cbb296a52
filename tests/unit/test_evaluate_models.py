"""The numpy meaning of imported real models against ONNX Runtime, in float32 and in double precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from egc.frontend.importer import Imported, import_model
from egc.ir.dims import Dim
from egc.ir.evaluate import evaluate
from egc.ir.text import parse_graph

MODELS = sorted((Path(__file__).parent.parent / "models").glob("*.onnx"))


def feeds_for(imported: Imported) -> dict[str, np.ndarray]:
    """Random inputs by ONNX name; every symbolic dim has its own small extent, but for the mask over what is
    past and one token.
    """
    rng = np.random.default_rng(3)
    extents = {"past": 6, "total": 7}

    def extent(dim: Dim) -> int:
        return dim if isinstance(dim, int) else extents.setdefault(str(dim), 3 + len(extents))

    feeds = {}
    for port in imported.inputs:
        shape = tuple(map(extent, port.type.shape))
        if port.type.dtype.startswith("int"):
            feeds[port.name] = rng.integers(0, 2, shape).astype(port.type.dtype)
        else:
            feeds[port.name] = rng.standard_normal(shape).astype(port.type.dtype)
    return feeds


def test_a_dim_named_as_a_keyword_reads_back() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["in", "lambda"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    node = onnx.helper.make_node("Neg", ["x"], ["y"])
    graph = import_model(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [result]))).graph
    assert str(parse_graph(str(graph))) == str(graph)
    assert graph.symbols == ("in_", "lambda_")


def test_there_are_models() -> None:
    assert len(MODELS) >= 20


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model(path: Path) -> None:
    imported = import_model(path)
    assert imported.hosted == ()
    feeds = feeds_for(imported)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run([port.name for port in imported.outputs], feeds)
    given = {port.value: feeds[port.name] for port in imported.inputs}
    for dtype in (None, "float64"):
        results = evaluate(imported.graph, given, dtype)
        for port, reference in zip(imported.outputs, expected, strict=True):
            difference = np.linalg.norm(results[port.value] - reference)
            assert difference <= 2e-6 * np.linalg.norm(reference)
    text = str(imported.graph)
    assert str(parse_graph(text)) == text

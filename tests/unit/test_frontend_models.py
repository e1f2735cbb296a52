"""The tiny exports import wholly, with their dynamic dims, and compute what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from egc.frontend.importer import import_model
from egc.ir.dims import Dim
from egc.ir.evaluate import evaluate
from egc.ir.text import parse_graph

MODELS = sorted((Path(__file__).parent.parent / "models").glob("*.onnx"))


def _feed(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if dtype.startswith("float"):
        return rng.standard_normal(shape).astype(dtype)
    # Small enough for every vocabulary, and for masks.
    return rng.integers(0, 2, shape).astype(dtype)


def test_there_are_models() -> None:
    assert len(MODELS) >= 20


@pytest.mark.parametrize("extent", [2, 3])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_tiny_export_agrees_with_onnxruntime(path: Path, extent: int) -> None:
    imported = import_model(path)
    assert not imported.hosted
    rng = np.random.default_rng(0)
    extents = {"total": extent + 1}  # of a mask over what is past and one token; of all other dims it is one

    def sized(dim: Dim) -> int:
        return dim if isinstance(dim, int) else extents.get(str(dim), extent)

    feeds = {
        port.name: _feed(port.type.dtype, tuple(map(sized, port.type.shape)), rng) for port in imported.inputs
    }
    expected = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)
    results = evaluate(imported.graph, {port.value: feeds[port.name] for port in imported.inputs})
    for port, reference in zip(imported.outputs, expected, strict=True):
        np.testing.assert_allclose(results[port.value], reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", MODELS[::4], ids=lambda path: path.stem)
def test_an_imported_graph_prints_and_parses(path: Path) -> None:
    graph = import_model(path).graph
    data = {name: constant.data for name, constant in graph.constants.items()}
    assert str(parse_graph(str(graph), data)) == str(graph)

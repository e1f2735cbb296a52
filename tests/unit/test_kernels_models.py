"""The tiny real exports: the kernels that they become give, by their numpy meaning, what the graph means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from egc.frontend.importer import import_model
from egc.kernels import KernelCall
from tests.support.kernels import check_calls, random_array, shape_of

MODELS = sorted((Path(__file__).parents[1] / "models").glob("*.onnx"))


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_kernels_compute_the_model(path: Path) -> None:
    graph = import_model(path).graph
    dims = {name: 2 + i for i, name in enumerate(graph.symbols)}
    rng = np.random.default_rng(0)
    feeds = {}
    for name in graph.inputs:
        dtype, shape = graph.types[name].dtype, shape_of(graph, name, dims)
        # Integers are token ids and masks here: 0 and 1 are valid as both.
        ids = rng.integers(0, 2, shape).astype(dtype) if "int" in dtype else None
        feeds[name] = random_array(rng, dtype, shape) if ids is None else ids
    calls = check_calls(graph, dims=dims, feeds=feeds)
    assert all(isinstance(call, KernelCall) for call in calls)
    assert len(calls) < len(graph.nodes)

"""`--emit onnx`: the optimized graph runs elsewhere with the same results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from egc.egraph import saturate
from egc.errors import CompileError
from egc.explain.onnx_export import to_onnx
from egc.extract import extract
from egc.frontend.importer import Imported, import_model
from egc.ir.graph import Graph
from egc.machine import load_machine
from egc.rules import load_rules

MODELS = sorted((Path(__file__).parents[1] / "models").glob("*.torchscript.onnx"))


def fixed_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Every symbolic dim at 2, or at 8 where it is a length, 9 for what is past and one token."""
    extents = {"batch": 2, "total": 9}
    shapes = {}
    for value in onnx.load(path).graph.input:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value or extents.get(d.dim_param, 8) for d in dims)
    return shapes


def random_feeds(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        port.name: rng.integers(0, 2, port.shape).astype(np.int64)
        if "int64" in port.type
        else rng.standard_normal(port.shape).astype(np.float32)
        for port in session.get_inputs()
    }


def optimized(imported: Imported) -> Graph:
    rates = load_machine("x86-64-v3").rates
    return extract(imported.graph, saturate(imported.graph, load_rules()), rates).graph


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name.partition(".")[0])
def test_the_optimized_model_runs_in_onnxruntime_with_the_same_results(path: Path) -> None:
    imported = import_model(path, fixed_shapes(path))
    names = {port.value: port.name for port in imported.inputs}
    names |= {f"output {i}": port.name for i, port in enumerate(imported.outputs)}
    model = to_onnx(optimized(imported), names)
    onnx.checker.check_model(model)
    providers = ["CPUExecutionProvider"]
    exported = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    original = onnxruntime.InferenceSession(path, providers=providers)
    assert [p.name for p in exported.get_outputs()] == [p.name for p in original.get_outputs()]
    feeds = random_feeds(exported)
    for found, expected in zip(exported.run(None, feeds), original.run(None, feeds), strict=True):
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_symbolic_dims_are_refused_with_a_way_out() -> None:
    imported = import_model(next(path for path in MODELS if path.name.startswith("mlp")))
    with pytest.raises(CompileError, match="--shape"):
        to_onnx(imported.graph)

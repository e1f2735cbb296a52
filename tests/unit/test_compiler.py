"""The pipeline as a whole: same input, same bytes; stages can be looked at; errors are one message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import egc
from egc.compiler import Compiled, compile_model
from egc.errors import UsageError
from egc.explain.emit import emitted
from egc.ir.evaluate import evaluate
from egc.options import Options
from egc.runtime.session import Session

MODELS = Path(__file__).parents[1] / "models"
MLP = MODELS / "mlp.dynamo.onnx"


@pytest.fixture(scope="module")
def mlp() -> Compiled:
    return compile_model(MLP, Options(threads=2))


def test_the_same_model_gives_the_same_bytes(mlp: Compiled, tmp_path: Path) -> None:
    again = compile_model(MLP, Options(threads=2))
    for name, compiled in (("first", mlp), ("second", again)):
        compiled.write(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_the_order_of_sets_decides_nothing(tmp_path: Path) -> None:
    written = set()
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.egc"
        command = [sys.executable, "-m", "egc", "optimize", str(MODELS / "bert.dynamo.onnx"), "-o", str(path)]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True)
        written.add(path.read_bytes())
    assert len(written) == 1


def test_one_and_two_threads_a_file_and_no_file_agree(mlp: Compiled, tmp_path: Path) -> None:
    mlp.write(tmp_path / "mlp.egc")
    rng = np.random.default_rng(0)
    graph = mlp.imported.graph
    feeds = {
        p.name: rng.standard_normal([4 if isinstance(d, str) else d for d in p.shape], np.float32)
        for p in egc.load(tmp_path / "mlp.egc").get_inputs()
    }
    expected = list(evaluate(graph, dict(zip(graph.inputs, feeds.values(), strict=True)), "float64").values())
    for session in (
        egc.load(tmp_path / "mlp.egc", threads=1),
        egc.load(tmp_path / "mlp.egc", threads=2),
        Session(mlp.artifact(), threads=2),
    ):
        with session:
            for found, reference in zip(session.run(None, feeds), expected, strict=True):
                np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-6)


def test_every_stage_has_a_text(mlp: Compiled) -> None:
    assert emitted(mlp, "graph").startswith("graph ")
    assert "stage " in emitted(mlp, "kernels")
    assert "for " in emitted(mlp, "loops")
    assert "define void @" in emitted(mlp, "llvm")
    assert "vfmadd" in emitted(mlp, "asm") or "fmla" in emitted(mlp, "asm")
    with pytest.raises(UsageError, match="ptx"):
        emitted(mlp, "ptx")


def test_the_report_counts_what_was_done(mlp: Compiled) -> None:
    report = mlp.report()
    assert report["nodes"] == 7
    assert report["host"] == []
    assert report["kernels"] <= report["steps"]
    assert report["extraction"]["improved"] <= report["extraction"]["bottom-up"]


@pytest.mark.parametrize(
    "options", [{"target": "tpu"}, {"arch": "x86-64-v5"}, {"disable_rules": ("softmaxx",)}]
)
def test_bad_options_are_usage_errors(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        compile_model(MLP, Options(**options))  # type: ignore[arg-type]


def test_the_users_choice_of_rules_reaches_the_loops(mlp: Compiled) -> None:
    plain = {rule for kernel in mlp.kernels.values() for rule in kernel.scheduled.rules}
    name = sorted(rule for rule in plain if "unroll" in rule or "tile" in rule)[0]
    without = compile_model(MLP, Options(threads=2, disable_rules=(name,)))
    assert all(name not in kernel.scheduled.rules for kernel in without.kernels.values())


def test_a_constant_that_is_not_a_number_is_one_like_others() -> None:
    nodes = [helper.make_node("Add", ["x", "k"], ["y"]), helper.make_node("Max", ["x", "k"], ["z"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "yz"]
    graph = helper.make_graph(nodes, "g", [x], results, [numpy_helper.from_array(np.float32(np.nan), "k")])
    opsets = [helper.make_opsetid("", 18)]
    with egc.compile(helper.make_model(graph, opset_imports=opsets, ir_version=10), threads=1) as session:
        for found in session.run(None, {"x": np.ones((2, 3), np.float32)}):
            assert np.isnan(found).all()

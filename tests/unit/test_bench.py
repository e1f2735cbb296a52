"""The benchmark harness: what it feeds, what it compares, and that a failing runtime is not hidden."""

import argparse
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.demo import before_after
from egc.bench.compare import Plan, Process, Timing, compare, ratio_to_best_peer, relative_error
from egc.bench.inputs import InputSpec, input_specs, random_inputs
from egc.bench.report import Comparison, disagreements, geometric_mean, to_json, to_markdown
from egc.cli import main
from egc.cli.bench import add_parser, artifact_specs, compile_words, parse_peers
from egc.errors import BadInput, UsageError
from egc.runtime.artifact import write_artifact
from tests.support.artifacts import chain_parts

MODELS = Path(__file__).parents[1] / "models"
ONE_ROUND = Plan(rounds=1, seconds=0.0, least=2)


@pytest.fixture
def lookup(tmp_path: Path) -> Path:
    """`Gather(table[7, 3], Cast(Reshape(ids)))` plus a float input, both with a symbolic dim."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT32, ["n"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Reshape", ["ids", "flat"], ["shaped"]),
        helper.make_node("Cast", ["shaped"], ["wide"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "wide"], ["rows"], axis=0),
        helper.make_node("Add", ["rows", "x"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.ones((7, 3), np.float32), "table"),
        numpy_helper.from_array(np.array([-1]), "flat"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "lookup", [ids, x], [y], weights))
    path = tmp_path / "lookup.onnx"
    onnx.save(model, path)
    return path


def test_indices_stay_within_the_table_they_reach(lookup: Path) -> None:
    specs = input_specs(lookup, {"ids": (1000,)})
    assert specs == (InputSpec("ids", "int32", (1000,), 0, 7), InputSpec("x", "float32", (1, 3)))
    assert set(random_inputs(specs, 0)["ids"]) == set(range(7))


def test_inputs_depend_on_the_seed_alone(lookup: Path) -> None:
    specs = input_specs(lookup)
    first, again, other = (random_inputs(specs, seed)["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_specs_survive_json() -> None:
    spec = InputSpec("ids", "int64", (2, 3), 1, 9)
    assert InputSpec.from_json(spec.to_json()) == spec


def test_wrong_shapes_and_files_are_refused(lookup: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no input is called z"):
        input_specs(lookup, {"z": (1,)})
    with pytest.raises(UsageError, match="another rank"):
        input_specs(lookup, {"x": (1,)})
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"\xff not a model")
    with pytest.raises(BadInput, match="cannot read the model"):
        input_specs(garbage)


@pytest.mark.parametrize(
    ("output", "reference", "error"),
    [
        (np.array([3.0, 4.0]), np.array([3.0, 4.0]), 0.0),
        (np.array([3.0, 5.0]), np.array([3.0, 4.0]), 0.2),
        (np.zeros(2), np.zeros(2), 0.0),
        (np.array([0.5]), np.array([0.0]), 0.5),
        (np.zeros((2, 1)), np.zeros(2), math.inf),
        (np.zeros(2, np.float32), np.zeros(2), math.inf),
        (np.array([np.nan]), np.array([1.0]), math.inf),
    ],
)
def test_relative_error(output: np.ndarray, reference: np.ndarray, error: float) -> None:
    assert relative_error(output, reference) == pytest.approx(error)


def test_ratio_is_against_the_fastest_peer() -> None:
    timings = [Timing("egc", times=[2.0]), Timing("a", times=[3.0]), Timing("b", times=[1.0]), Timing("c")]
    assert ratio_to_best_peer(timings, "egc") == 0.5
    assert ratio_to_best_peer(timings, "c") is None
    assert ratio_to_best_peer(timings[:1], "egc") is None
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


def test_runtimes_are_timed_and_one_that_fails_is_reported(tmp_path: Path) -> None:
    model = MODELS / "mlp.torchscript.onnx"
    specs = input_specs(model)
    (timing,) = compare(model, specs, ["onnxruntime"], 1, ONE_ROUND)
    assert timing.failure is None
    assert len(timing.times) == 2
    assert timing.minimum > 0
    assert timing.peak_bytes > 10_000_000

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[:1000])
    (failed,) = compare(broken, specs, ["onnxruntime"], 1, ONE_ROUND)
    assert failed.failure is not None
    assert "onnxruntime could not load the model" in failed.failure
    comparison = Comparison("broken", 1, (failed,))
    assert len(disagreements([comparison], 1e-4)) == 1
    assert to_json([comparison], "egc")["models"][0]["runtimes"][0]["failure"] == failed.failure


def test_a_runtime_that_dies_in_a_round_leaves_the_others_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self: Process, do: str, **arguments: object) -> dict[str, Any]:
        if self.runtime == "onnxruntime" and arguments.get("seed") == 2:
            self.process.kill()
        return ask(self, do, **arguments)

    ask = Process.ask
    monkeypatch.setattr(Process, "ask", dies)
    path = MODELS / "mlp.torchscript.onnx"
    timings = compare(path, input_specs(path, {}), ["egc", "onnxruntime"], 1, Plan(3, 0.0, 2))
    own, other = timings
    assert (own.failure, len(own.times), own.peak_bytes > 0) == (None, 6, True)
    assert own.error is not None and own.error < 1e-4  # from the first round, which both were in
    assert other.failure is not None and "died" in other.failure
    assert other.times == []


def test_an_artifact_is_timed_alone(tmp_path: Path) -> None:
    path = tmp_path / "chain.egc"
    manifest, code, constants = chain_parts(length=3, shape=("n",), threads=2)
    write_artifact(path, manifest, code, constants, {})
    specs = artifact_specs(path, {"x": (1000,)})
    assert specs == (InputSpec("x", "float32", (1000,)),)
    assert artifact_specs(path, {})[0].shape == (1,)
    (timing,) = compare(path, specs, ["egc"], 2, ONE_ROUND)
    assert timing.failure is None
    assert len(timing.times) == 2
    assert timing.compile_seconds is None


def test_an_output_too_far_off_is_a_disagreement() -> None:
    comparison = Comparison(
        "m", 2, (Timing("egc", times=[1.0], error=2e-4), Timing("b", times=[2.0], error=1e-5))
    )
    (line,) = disagreements([comparison], 1e-4)
    assert line == "m, threads=2: egc differs by 2.0e-04, more than 1e-04"
    assert to_markdown([comparison], "egc").splitlines()[2] == "| m | 2 | 1000.00 | 2000.00 | 2.00 |"


def test_options_are_checked_and_handed_on_to_the_compiler() -> None:
    with pytest.raises(UsageError, match="no peer is called tvm"):
        parse_peers("tvm")
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    given = [
        "--shape",
        "x=1x3",
        "--rules",
        "a.egg",
        "--accuracy",
        "exact",
        "--disable-rule",
        "b",
        "--disable-rule",
        "c",
    ]
    words = compile_words(parser.parse_args(["bench", "m.onnx", *given]))
    pairs = set(itertools.pairwise(words))
    assert set(zip(given[::2], given[1::2], strict=True)) <= pairs


def test_the_demo_sets_the_program_before_beside_the_one_after(tmp_path: Path) -> None:
    model, artifact = MODELS / "mlp.dynamo.onnx", tmp_path / "mlp.egc"
    assert main(["optimize", str(model), "-o", str(artifact)]) == 0
    timings = [Timing(name, times=[1.0]) for name in ("egc", "onnxruntime")]
    table = before_after(model, artifact, timings)
    assert [str(cell) for cell in table.columns[0].cells][:2] == ["program", "on the host"]
    assert "kernel calls" in str(next(iter(table.columns[2].cells)))

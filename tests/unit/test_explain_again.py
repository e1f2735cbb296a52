"""Questions that a record cannot answer are asked of the e-graph again: of an artifact, without its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import asdict
from onnx import TensorProto, helper, numpy_helper

from egc.cli import main
from egc.compiler import Compiled, compile_model
from egc.errors import UsageError
from egc.explain.again import again, without
from egc.explain.premises import failure, first_failure
from egc.explain.source import source_of
from egc.frontend.importer import import_model
from egc.ir.graph import Placeholder
from egc.options import Options
from egc.resources import data_folder
from egc.runtime.artifact import open_artifact

MODELS = Path(__file__).parents[1] / "models"
RULE = """\
;; math: |max(x, 0)| = max(x, 0)
;; class: exact
(rewrite (Map1 (Abs) (Map1 (Relu) x)) (Map1 (Relu) x) :ruleset canonical :name "relu-is-not-negative")
"""


def model_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray] | None = None) -> bytes:
    """A model from x: float32[4, 8] to y."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def stored(compiled: Compiled) -> dict[str, Any]:
    """The record as its artifact holds it."""
    return compiled.artifact().record()


def program(record: dict[str, Any]) -> Any:
    """What `--ban` compares."""
    return record["extraction"], [(c["kernel"], c["onnx"], c["predicted"]) for c in record["calls"]]


@pytest.fixture(scope="module")
def bert() -> Compiled:
    return compile_model(MODELS / "bert.torchscript.onnx", Options(threads=1))


@pytest.mark.parametrize("rule", ["layer-norm", "transpose-of-transpose", "fuse-pointwise-chain"])
def test_a_ban_gives_the_program_that_compiling_without_the_rule_gives(bert: Compiled, rule: str) -> None:
    with again(stored(bert)) as known:
        found = without(known, rule)
    options = Options(threads=1, disable_rules=(rule,))
    assert program(found) == program(compile_model(MODELS / "bert.torchscript.onnx", options).record)
    assert program(found) != program(bert.record)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_the_imported_graph_comes_back_as_it_was(path: Path) -> None:
    imported = import_model(path)
    source = source_of(imported, Options(), 1, "x86-64-v4")
    onnx_nodes = [
        {
            "title": o.title,
            "name": o.name,
            "op": o.op_type,
            "inputs": list(o.inputs),
            "outputs": list(o.outputs),
        }
        for o in imported.origins
    ]
    record = {"source": source, "onnx": onnx_nodes, "machine": {"name": "x86-64-v4"}}
    with again(json.loads(json.dumps(record))) as known:
        assert known.imported.graph == imported.graph
        assert known.imported.outputs == imported.outputs
        assert known.imported.origins == imported.origins
        kinds = {type(constant) for constant in known.imported.graph.constants.values()}
    assert Placeholder in kinds  # the weights are not in the record


def test_a_record_brings_the_users_files_along(tmp_path: Path) -> None:
    rules, machine = tmp_path / "mine.egg", tmp_path / "slow.toml"
    rules.write_text(RULE)
    machine.write_text((data_folder("cost_models") / "x86-64-v3.toml").read_text())
    nodes = [helper.make_node("Relu", ["x"], ["a"], "relu"), helper.make_node("Abs", ["a"], ["y"], "abs")]
    options = Options(rules=(rules,), cost_model=str(machine), arch="x86-64-v3")
    record = stored(compile_model(model_of(nodes), options))
    rules.unlink()
    machine.unlink()
    assert record["machine"]["name"] == "slow"
    with again(record) as known:
        found = without(known, "relu-is-not-negative")
    [(kernel, covered, _)] = program(found)[1]
    assert "abs" in kernel and "abs" not in program(record)[1][0][0]
    assert covered == ["node 'relu' (Relu)", "node 'abs' (Abs)"]


def test_banning_a_rule_for_loops_schedules_every_kernel_again(bert: Compiled) -> None:
    record = stored(bert)
    with again(record) as known:
        found = without(known, "loop-vectorise-columns")
    assert [call["kernel"] for call in found["calls"]] == [call["kernel"] for call in record["calls"]]
    assert sum(c["predicted"] for c in found["calls"]) > sum(c["predicted"] for c in record["calls"])


def test_indices_keep_their_values(tmp_path: Path) -> None:
    indices = np.arange(8, dtype=np.int64).repeat(64)  # in range, so that no kernel wraps them
    nodes = [helper.make_node("Gather", ["x", "i"], ["g"], axis=1), helper.make_node("Exp", ["g"], ["y"])]
    model = model_of(nodes, {"i": indices})
    with again(stored(compile_model(model))) as known:
        found = without(known, "silu")
    assert program(found) == program(compile_model(model, Options(disable_rules=("silu",))).record)


def test_the_failing_premise_is_the_same_from_the_artifact(bert: Compiled) -> None:
    with again(stored(bert)) as known:
        assert asdict(failure(known, "silu")) == asdict(first_failure(bert.snapshot, bert.book.rule("silu")))


def test_a_record_of_another_egc_is_not_compiled_again(bert: Compiled) -> None:
    record = stored(bert)
    record["source"]["made_by"] = "another"
    with pytest.raises(UsageError, match="would not get the program"), again(record):
        pass


def test_the_command_line_answers_for_an_artifact(
    bert: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bert.egc"
    bert.write(path)
    assert main(["explain", str(path), "--ban", "layer-norm", "--json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    assert comparison["before"]["only"] and comparison["after"]["only"]
    assert main(["explain", str(path), "--why-not", "silu"]) == 0
    assert "fails" in capsys.readouterr().out
    assert main(["explain", str(path), "--ban", "layer-nrom"]) == 2
    assert "layer-norm" in capsys.readouterr().err


def test_equal_models_give_equal_artifacts(tmp_path: Path) -> None:
    rules = tmp_path / "mine.egg"
    rules.write_text(RULE)
    model = model_of([helper.make_node("Relu", ["x"], ["y"])])
    for name in ("one.egc", "two.egc"):
        compile_model(model, Options(rules=(rules,))).write(tmp_path / name)
    assert (tmp_path / "one.egc").read_bytes() == (tmp_path / "two.egc").read_bytes()
    assert open_artifact(tmp_path / "one.egc").record()["source"]["rules"] == [["mine.egg", RULE]]

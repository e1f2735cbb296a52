"""`egc explain`: everything is accounted for, and every question has an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import asdict
from onnx import TensorProto, helper, numpy_helper

from bench.make_models import make
from egc.cli import main
from egc.compiler import Compiled, compile_model
from egc.egraph import legal_fusions, saturate
from egc.errors import UsageError
from egc.explain.derive import account, nodes_of
from egc.explain.find import find
from egc.explain.premises import first_failure
from egc.explain.record import without_times
from egc.explain.why_not import rules_of_call, why_not
from egc.extract import extract
from egc.frontend.importer import import_model
from egc.kernels import build_kernels
from egc.machine import native
from egc.options import Options
from egc.rules import load_rules
from egc.runtime.artifact import open_artifact

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="module")
def bert() -> Compiled:
    return compile_model(MODELS / "bert.torchscript.onnx", Options(threads=1))


@pytest.fixture(scope="module")
def artifact(bert: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explain") / "bert.egc"
    bert.write(path)
    return path


def small_model(nodes: list[onnx.NodeProto], constants: Mapping[str, np.ndarray] | None = None) -> bytes:
    """A model from x to y, both float32[2, 3, 8, 8] unless nodes change the shape."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What `egc explain …` prints."""
    assert main(["explain", *words]) == 0
    return capsys.readouterr().out


# ---- the record ----


def test_every_onnx_node_is_accounted_for(bert: Compiled) -> None:
    record = bert.record
    assert len(record["onnx"]) == bert.imported.nodes
    for node in record["onnx"]:
        assert node["fate"] in ("kernel", "constant", "removed")
        assert bool(node["calls"]) == (node["fate"] == "kernel")
        assert node["calls"] or node["by"], f"{node['title']} vanished without a reason"
        assert all(node["title"] in record["calls"][i]["onnx"] for i in node["calls"])


def test_every_call_covers_onnx_nodes_and_is_derived_by_known_rules(bert: Compiled) -> None:
    record = bert.record
    titles = {node["title"] for node in record["onnx"]}
    assert len(record["calls"]) == len(bert.calls)
    for call in record["calls"]:
        assert call["onnx"] and set(call["onnx"]) <= titles
        assert all(record["steps"][step]["rule"] in record["rules"] for step in call["derivation"])
        assert set(call["fused_by"]) <= set(record["rules"])
    attention = next(call for call in record["calls"] if call["kernel"].startswith("attention"))
    assert {"softmax", "scores-scaled"} & {record["steps"][step]["rule"] for step in attention["derivation"]}


def test_alternatives_are_never_cheaper_than_what_was_chosen(bert: Compiled) -> None:
    found = [other for call in bert.record["calls"] for other in call["alternatives"]]
    total = bert.record["extraction"]["improved"]
    assert found
    for other in found:
        assert other["seconds"] >= -1e-6 * total
        assert other["term"] != other["chosen"]


def test_profiles_name_the_onnx_nodes(bert: Compiled) -> None:
    labels = [step.label for step in bert.program.manifest.steps]
    assert all("(" in label for label in labels)
    assert any("Softmax" in label for label in labels)


def test_the_record_survives_the_artifact(bert: Compiled, artifact: Path) -> None:
    assert open_artifact(artifact).record() == json.loads(json.dumps(without_times(bert.record)))


def test_an_artifact_answers_without_the_compiler(artifact: Path) -> None:
    script = (
        "import sys; from egc.cli import main; status = main(sys.argv[1:]);"
        "print(*(m for m in ('egglog', 'onnx', 'lark', 'llvmlite') if m in sys.modules), file=sys.stderr);"
        "sys.exit(status)"
    )
    for question in ([], ["5"], ["--why-not", "layer-norm"], ["--json"]):
        words = [sys.executable, "-c", script, "explain", str(artifact), *question]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stderr.split() == [] and done.stdout


def test_nodes_that_vanish_say_by_what() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"], "same"),
        helper.make_node("Transpose", ["a"], ["b"], "there", perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["b"], ["c"], "back", perm=[0, 3, 1, 2]),
        helper.make_node("Add", ["k", "k"], ["twice"], "known"),
        helper.make_node("Mul", ["c", "twice"], ["y"], "scale"),
        helper.make_node("Exp", ["x"], ["nobody"], "dead"),
    ]
    record = compile_model(small_model(nodes, {"k": np.float32([2.0])})).record
    fates = {node["name"]: (node["fate"], *node["by"]) for node in record["onnx"]}
    assert fates["same"] == ("removed", "import: passed on")
    assert fates["dead"] == ("removed", "import: unused")
    assert fates["known"] == ("constant", "import")
    assert fates["there"][0] == fates["back"][0] == "removed"
    assert "transpose-of-transpose" in fates["there"] + fates["back"]
    assert fates["scale"] == ("kernel",)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet", "densenet121", "bert_base"])
def test_real_models_are_accounted_for(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = import_model(make(name, tmp_path_factory.mktemp("models")))
    book, machine = load_rules(), native()
    snapshot = saturate(model.graph, book)
    extraction = extract(model.graph, snapshot, machine.rates)
    calls = build_kernels(extraction.graph, legal_fusions(extraction.graph, book))
    found = account(model, snapshot, extraction, calls, machine.rates)
    titles = {origin["title"] for origin in found.origins}
    assert len(found.origins) == model.nodes and len(found.covered) == len(calls)
    assert all(covered and set(covered) <= titles for covered in found.covered)
    assert all(origin["calls"] or origin["by"] for origin in found.origins)
    layouts = {"reshape", "transpose", "slice", "expand"}
    for call, steps in zip(calls, found.derivations, strict=True):
        original = all(set(node.outputs) <= model.graph.types.keys() for node in nodes_of(call))
        assert steps or original or {node.op for node in nodes_of(call)} <= layouts, nodes_of(call)


def test_a_copy_to_an_output_belongs_to_the_node_that_was_there() -> None:
    record = compile_model(small_model([helper.make_node("Identity", ["x"], ["y"], "same")])).record
    assert [call["onnx"] for call in record["calls"]] == [["node 'same' (Identity)"]]


# ---- a user's own rule ----

RULE = """\
;; math: |max(x, 0)| = max(x, 0)
;; class: exact
(rewrite (Map1 (Abs) (Map1 (Relu) x)) (Map1 (Relu) x) :ruleset canonical :name "relu-is-not-negative")
"""


def test_a_rule_of_the_users_own_is_the_cause_until_it_is_disabled(tmp_path: Path) -> None:
    file = tmp_path / "mine.egg"
    file.write_text(RULE)
    nodes = [helper.make_node("Relu", ["x"], ["a"], "relu"), helper.make_node("Abs", ["a"], ["y"], "abs")]
    model = small_model(nodes)
    name = "relu-is-not-negative"
    record = compile_model(model, Options(rules=(file,))).record
    absolute = next(node for node in record["onnx"] if node["name"] == "abs")
    behind = [rule for i in range(len(record["calls"])) for rule in rules_of_call(record, i)]
    assert name in behind or name in absolute["by"]
    assert record["rules"][name]["at"] == f"{file}:3"
    without = compile_model(model, Options(rules=(file,), disable_rules=(name,))).record
    assert name not in without["rules"] and without["left_out"] == {name: "disabled"}
    assert why_not(without, name, None)["verdict"] == "left out"


# ---- why not ----


def test_why_not_tells_chosen_from_lost_from_unmatched(bert: Compiled) -> None:
    record = bert.record
    chosen = why_not(record, "layer-norm", None)
    assert chosen["verdict"] == "chosen" and chosen["steps"]
    unmatched = why_not(record, "conv2d-channels-last", None)
    assert unmatched["verdict"] == "no match" and unmatched["matches"] == 0
    call = next(i for i in range(len(record["calls"])) if "layer-norm" not in rules_of_call(record, i))
    assert why_not(record, "layer-norm", [call])["verdict"] == "elsewhere"
    unused = [name for name in record["rules"] if why_not(record, name, None)["verdict"] == "unused"]
    assert unused and all(record["rules"][name]["stage"] in ("fusion", "loops") for name in unused)


def test_why_not_prices_what_lost() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Softmax", ["c"], ["y"], axis=1)]
    record = compile_model(small_model(nodes, {"w": np.ones((4, 3, 1, 1), np.float32)})).record
    answer = why_not(record, "hoist-transpose-map2-right", None)  # would divide rather than call it a softmax
    assert answer["verdict"] == "lost" and answer["matches"] > 0
    seconds = [loss["seconds"] for loss in answer["lost"]]
    assert seconds == sorted(seconds) and answer["seconds"] == seconds[0] > 0
    assert why_not(record, "hoist-transpose-map2-right", [answer["lost"][0]["call"]])["seconds"] == seconds[0]
    assert set(answer["lost"][0]["terms"]) == {"compute", "traffic", "conversion", "launch"}
    assert answer["lost"][0]["chosen"].startswith("softmax")


def test_why_not_says_which_budget_ended(bert: Compiled) -> None:
    growth = [dict(bert.record["growth"][0], stopped="40 rounds")]
    answer = why_not(dict(bert.record, growth=growth), "silu", None)
    assert answer["verdict"] == "budget" and answer["phases"] == ["canonical"]


def test_an_unknown_rule_is_refused_with_a_near_name(bert: Compiled) -> None:
    with pytest.raises(UsageError) as error:
        why_not(bert.record, "layer-nrom", None)
    assert "layer-norm" in str(error.value)


def test_the_first_failing_premise_and_its_nearest_candidate(bert: Compiled) -> None:
    failure = first_failure(bert.snapshot, bert.book.rule("silu"))
    assert failure.atom is not None and "Sigmoid" in failure.atom
    assert failure.held == 1 and failure.candidates > 0
    assert "x" in failure.candidate
    outermost = first_failure(bert.snapshot, bert.book.rule("conv2d-channels-last"))
    assert outermost.held == 0 and outermost.candidate == {}


def test_premises_are_tried_at_the_node_that_was_named(bert: Compiled) -> None:
    graph = bert.imported.graph
    product = next(node.output for node in graph.nodes if node.op == "map" and node.attr("fn") == "mul")
    total = next(node.output for node in graph.nodes if node.op == "map" and node.attr("fn") == "add")
    silu = bert.book.rule("silu")
    assert first_failure(bert.snapshot, silu, [product]).held == 1
    assert first_failure(bert.snapshot, silu, [total]).held == 0


def test_a_rule_that_matches_fails_nowhere(bert: Compiled) -> None:
    failure = first_failure(bert.snapshot, bert.book.rule("layer-norm"))
    assert failure.atom is None and failure.held == failure.total
    assert asdict(failure)["candidates"] == bert.record["rules"]["layer-norm"]["matches"]


# ---- the command line ----


def test_summary_and_kernels(artifact: Path, bert: Compiled, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, str(artifact))
    assert f"{bert.imported.nodes} ONNX nodes → {len(bert.calls)} kernel calls" in text
    assert all(growth.phase in text for growth in bert.snapshot.growth)
    assert "extraction: bottom-up" in text and "gap" in text
    assert "rules/graph.egg:" in text


def test_one_node_in_depth(artifact: Path, bert: Compiled, capsys: pytest.CaptureFixture[str]) -> None:
    index = next(i for i, call in enumerate(bert.record["calls"]) if call["kernel"].startswith("layer_norm"))
    call = bert.record["calls"][index]
    text = said(capsys, str(artifact), str(index))
    for heading in (
        "Derivation",
        "Chosen",
        "Before scheduling",
        "Loop nest",
        "Predicted cost",
        "Other loop nests",
    ):
        assert heading in text
    assert "layer-norm  rules/graph.egg:" in text and "matched" in text and "built" in text
    assert bert.record["kernels"][call["kernel"]]["nest"].splitlines()[0].strip() in text


def test_measured_beside_predicted(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(said(capsys, str(artifact), "--measure", "--json"))
    assert len(record["measured"]) == len(record["calls"]) and min(record["measured"]) > 0
    assert "measured" in said(capsys, str(artifact), "--measure")


def test_json_is_the_record(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(said(capsys, str(artifact), "--json")) == open_artifact(artifact).record()


def test_a_name_that_is_nothing_is_refused_with_near_ones(bert: Compiled) -> None:
    name = next(node["name"] for node in bert.record["onnx"] if node["name"])
    with pytest.raises(UsageError) as error:
        find(bert.record, name + "x")
    assert name in str(error.value)


def test_a_node_is_found_by_name_output_kernel_and_number(bert: Compiled) -> None:
    node = next(node for node in bert.record["onnx"] if node["calls"] and node["name"])
    index = bert.record["onnx"].index(node)
    assert (
        find(bert.record, node["name"]) == find(bert.record, node["outputs"][0]) == ([index], node["calls"])
    )
    assert find(bert.record, "0") == ([], [0])
    assert 0 in find(bert.record, bert.record["calls"][0]["kernel"])[1]


def test_banning_a_rule_shows_what_changes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], "exp"),
        helper.make_node("Softmax", ["e"], ["y"], "soft", axis=-1),
    ]
    model.write_bytes(small_model(nodes))
    comparison = json.loads(said(capsys, str(model), "--ban", "softmax", "--json"))
    assert [call["onnx"] for call in comparison["before"]["only"]]
    assert any("soft" in title for call in comparison["after"]["only"] for title in call["onnx"])
    difference = comparison["after"]["predicted"] - comparison["before"]["predicted"]
    assert comparison["difference"] == pytest.approx(difference)
    text = said(capsys, str(model), "--ban", "softmax")
    assert "Calls that go" in text and "Calls that come" in text
    assert "nothing changes" in said(capsys, str(model), "--ban", "silu")

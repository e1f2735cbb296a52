"""A rule of one's own that makes nodes needless is named as the cause, and without it they are back."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from egc.cli import main

RULE = """;; doc: Two negations cancel.
;; math: -(-x) = x
;; class: exact
;; example: (Map1 (Neg) (Map1 (Neg) a)) => a
(rewrite (Map1 (Neg) (Map1 (Neg) x)) x :ruleset canonical :name "my-double-negation")
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A model with two negations that cancel, and the rule that says so."""
    nodes = [helper.make_node(op, [a], [b]) for op, a, b in (("Neg", "x", "a"), ("Neg", "a", "b"))]
    nodes.append(helper.make_node("Exp", ["b"], ["y"]))
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 5]) for name in "xy")
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    (tmp_path / "mine.egg").write_text(RULE, encoding="utf-8")
    return str(tmp_path / "model.onnx"), str(tmp_path / "mine.egg")


def test_the_summary_names_the_rule(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, rules = files
    assert main(["explain", model, "--rules", rules]) == 0
    assert "removed by my-double-negation" in capsys.readouterr().out
    assert main(["explain", model, "--rules", rules, "--disable-rule", "my-double-negation"]) == 0
    assert "my-double-negation" not in capsys.readouterr().out


def test_why_not_says_what_is_gone(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    model, rules = files
    assert main(["explain", model, "--rules", rules, "--why-not", "my-double-negation"]) == 0
    said = capsys.readouterr().out
    assert "because of it these are gone" in said
    assert "Neg -> a" in said
    assert "Neg -> b" in said

"""`egc explain` and `egc rules` of bad input: one message that says what, and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from egc.cli import main
from egc.compiler import Compiled, compile_model
from egc.runtime.artifact import write_artifact


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "rectify")], "small", [x], [y])
    return compile_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.fixture
def folder(compiled: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, where commands run, with the artifact m.egc."""
    monkeypatch.chdir(tmp_path)
    compiled.write("m.egc")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said of a command line that is refused."""
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m.egc", "rectfy"], "did you mean rectify?"),
        (["m.egc", "7"], "nothing is called '7'"),
        (["m.egc", ""], "nothing is called ''"),
        (["m.egc", "silu"], "egc explain MODEL --why-not silu"),
        (["m.egc", "--why-not", "sliu"], "did you mean silu"),
        (["m.egc", "--ban", "sliu"], "silu"),
        (["m.egc", "rectify", "--ban", "silu"], "about the whole program"),
        (["m.egc", "rectify", "--html", "x.html"], "about the whole program"),
        (["m.egc", "--html", "nowhere/x.html"], "there is no folder nowhere"),
        (["m.egc", "--html", "."], "it is a folder"),
        (["m.egc", "--rules", "mine.egg", "--threads", "1"], "--threads, --rules would change nothing"),
        (["gone.egc"], "gone.egc"),
        (["gone.onnx"], "gone.onnx"),
    ],
)
def test_explain(folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, "explain", *words)
    assert [path.name for path in folder.iterdir()] == ["m.egc"]


def test_one_question_at_a_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "m.egc", "--ban", "silu", "--why-not", "silu"])
    assert "not allowed with" in capsys.readouterr().err


def test_an_artifact_without_a_record(
    folder: Path, compiled: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    program = compiled.program
    write_artifact(folder / "bare.egc", program.manifest, program.code, program.constants)
    for question in ([], ["rectify"], ["--ban", "silu"], ["--why-not", "silu"], ["--html", "x.html"]):
        assert "holds no record" in refused(capsys, "explain", "bare.egc", *question)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "it is empty"),
        (b";; what will stand here\n", "no rule and no declaration"),
        (b"\x7fELF\x02\x01\x01\x00\xd0\x00", "byte 9 is not UTF-8"),
    ],
)
def test_rule_files(
    folder: Path, content: bytes | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("mine.egg").write_bytes(content)
    assert said in refused(capsys, "rules", "check", "mine.egg")
    assert said in refused(capsys, "rules", "list", "--rules", "mine.egg")

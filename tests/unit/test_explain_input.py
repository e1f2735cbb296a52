"""`egc explain` and `egc rules` of bad input: one message that says what, and status 2."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from egc.cli import main
from egc.compiler import Compiled, compile_model
from egc.explain.again import again
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


PARTS = ["model", "machine", "calls", "kernels", "onnx", "steps", "rules", "source", "graph", "extraction"]


@pytest.mark.parametrize("key", PARTS)
@pytest.mark.parametrize("value", [None, 5, [5], {"x": 5}], ids=repr)
def test_records_of_another_form(
    compiled: Compiled, folder: Path, key: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are explained as far as they go, or refused in one message."""
    record = json.loads(json.dumps(compiled.artifact().record()))
    if value is None:
        del record[key]
    else:
        record[key] = value
    program = compiled.program
    write_artifact("n.egc", program.manifest, program.code, program.constants, record)
    for words in ([], ["rectify"], ["--why-not", "silu"], ["--ban", "silu"], ["--html", "n.html"]):
        status = main(["explain", "n.egc", *words])
        err = capsys.readouterr().err
        assert status in (0, 2) and "its own fault" not in err and (status == 0 or "error: " in err), err
    assert key not in ("machine", "calls", "onnx") or main(["explain", "n.egc"]) == 2


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (zlib.compress(bytes(300 << 20), 9), "longer than 256 MiB"),
        (zlib.compress(b"[" * 100_000), "recursion"),
        (zlib.compress(b"{"), "Expecting property name"),
        (zlib.compress(b"[]"), "it is no JSON object"),
        (zlib.compress(b"{}")[:-2], "it is cut off"),
        (b"no zlib", "incorrect header"),
        (zlib.compress(b"\xff"), "invalid start byte"),
        (zlib.compress(b"9" * 5000), "4300 digits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_records_that_are_none(
    compiled: Compiled, folder: Path, packed: bytes, why: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    program = compiled.program
    monkeypatch.setattr("egc.runtime.artifact.zlib.compress", lambda *_: packed)
    write_artifact("n.egc", program.manifest, program.code, program.constants, {})
    said = refused(capsys, "explain", "n.egc")
    assert why in said and "the record" in said


def test_the_files_of_a_record_stay_in_a_folder_of_their_own(compiled: Compiled, folder: Path) -> None:
    record = json.loads(json.dumps(compiled.artifact().record()))
    text = Path("m.egc").name
    record["source"]["rules"] = [[str(folder / "taken"), text], ["n" * 255, text]]
    with again(record) as known:
        assert all(path.parent != folder and path.read_text() == text for path in known.options.rules)
    assert not (folder / "taken").exists()

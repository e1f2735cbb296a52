"""The command line and what is no plain file, has no possible name, or is larger than any such file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from egc.cli import main
from egc.compiler import compile_model

Run = Callable[..., str]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and its artifact."""
    place = tmp_path_factory.mktemp("compiled")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, place / "m.onnx")
    compile_model(model).write(place / "a.egc")
    return place


@pytest.fixture(autouse=True)
def folder(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder that holds a model, an artifact and a pipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EGC_DEBUG", raising=False)
    for file in compiled.iterdir():
        shutil.copy(file, tmp_path)
    for name in ("pipe.onnx", "pipe.egc", "pipe"):
        os.mkfifo(name)
    return tmp_path


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line, which must fail with status 2 and one message that says what to try."""

    def run(*arguments: object) -> str:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's way out
            status = int(stop.code or 0)
        err = capfd.readouterr().err
        assert status == 2 and err.startswith("error: ") and err.count("error: ") == 1, err
        assert "Traceback" not in err and "its own fault" not in err and "\n  try: " in err, err
        return err

    return run


@pytest.mark.parametrize(
    "words",
    [
        "run pipe.onnx",
        "run pipe.egc",
        "run pipe",
        "verify pipe.onnx",
        "verify a.egc --model-file pipe",
        "bench pipe.onnx",
        "explain pipe.onnx",
        "explain pipe.egc",
        "optimize pipe -o b.egc",
        "optimize m.onnx --rules pipe",
        "optimize m.onnx --cost-model pipe",
        "optimize m.onnx --target gpu --arch sm_80 --cost-model pipe",
        "rules check pipe",
        "rules list --rules pipe",
        "run a.egc --input x=pipe",
    ],
)
def test_a_pipe_is_not_waited_for(refused: Run, words: str) -> None:
    assert "it is a pipe" in refused(*words.split())


@pytest.mark.parametrize(
    "words",
    [
        "rules check /dev/zero",
        "optimize m.onnx --rules /dev/zero",
        "optimize m.onnx --cost-model /dev/zero",
        "run a.egc --input x=/dev/zero",
        "run /dev/zero",
    ],
)
def test_a_device_is_not_read(refused: Run, words: str) -> None:
    assert "it is a device" in refused(*words.split())


@pytest.mark.parametrize(
    "words",
    ["verify .", "bench .", "verify a.egc --model-file .", "optimize .", "rules check .", "run . "],
)
def test_a_folder_is_called_one(refused: Run, words: str) -> None:
    assert "it is a folder" in refused(*words.split())


def test_text_without_end(refused: Run) -> None:
    for name in ("long.egg", "long.toml"):
        with Path(name).open("wb") as file:
            file.truncate(1 << 40)
    assert "longer than 16 MiB" in refused("rules", "check", "long.egg")
    assert "longer than 16 MiB" in refused("optimize", "m.onnx", "--rules", "long.egg")
    assert "longer than 16 MiB" in refused("optimize", "m.onnx", "--cost-model", "long.toml")


def npy(header: bytes) -> bytes:
    """A .npy file without data."""
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header


FLOATS = b"{'descr': '<f4', 'fortran_order': False, 'shape': "


@pytest.mark.parametrize(
    "content",
    [
        npy(FLOATS),
        npy(b"(" * 60),
        npy(FLOATS + b"7}"),
        b"\x93NUMPY\2\0" + (1 << 31).to_bytes(4, "little") + bytes(100),
        b"\x93NUMPY\3\0",
        npy(FLOATS + b"(%d,)}" % 10**23),
        npy(b"\xff" * 60),
    ],
    ids=["cut", "brackets", "number", "long", "start", "extent", "text"],
)
def test_headers_of_arrays_that_make_no_sense(refused: Run, content: bytes) -> None:
    Path("x.npy").write_bytes(content)
    assert "--input x: x.npy is not a .npy file" in refused("run", "a.egc", "--input", "x=x.npy")


LONG, DIGITS = "n" * 300, "9" * 5000


@pytest.mark.parametrize(
    "words",
    [
        f"run {LONG}",
        f"run {LONG}.egc",
        f"verify {LONG}",
        f"verify {'n' * 251}.egc",
        f"bench {LONG}",
        f"explain {LONG}.onnx",
        f"explain a.egc --html {LONG}",
        f"optimize {LONG}.onnx",
        f"optimize m.onnx -o {LONG}.egc",
        f"optimize m.onnx --cost-model {LONG}",
        f"optimize m.onnx --cost-model {'n' * 253}",
        f"optimize m.onnx --rules {LONG}",
        f"rules new -o {LONG} mine",
        f"run a.egc --output-dir {LONG}",
        f"run a.egc --input x={LONG}",
    ],
    ids=lambda words: words[:30],
)
def test_names_that_are_too_long(refused: Run, words: str) -> None:
    refused(*words.split())


@pytest.mark.parametrize(
    "words",
    [
        f"optimize m.onnx --shape x={DIGITS}x3",
        f"run a.egc --shape x={DIGITS}x3",
        "run a.egc --shape x=99999999999999999999999x3",
        f"explain a.egc {DIGITS}",
        f"run a.egc --threads {DIGITS}",
    ],
    ids=lambda words: words[:30],
)
def test_numbers_of_many_digits(refused: Run, words: str) -> None:
    refused(*words.split())


@pytest.mark.parametrize(
    "words",
    [
        ["optimize", "m.onnx", "--cost-model", ""],
        ["optimize", "m.onnx", "--emit", ","],
        ["optimize", "m.onnx", "-o", ""],
        ["optimize", ""],
        ["bench", "m.onnx", "--against", ","],
        ["explain", "a.egc", "--ban", ""],
        ["explain", "a.egc", "--why-not", ""],
        ["explain", "a.egc", "--html", ""],
        ["run", "a.egc", "--output-dir", ""],
        ["run", ""],
        ["rules", "check", ""],
    ],
    ids=" ".join,
)
def test_options_that_say_nothing(refused: Run, words: list[str]) -> None:
    refused(*words)


def test_a_reference_that_is_no_model_is_said_before_anything_runs(
    refused: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_session(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("egc.cli.verify.open_session", open_session)
    Path("junk.onnx").write_bytes(b"no model")
    assert "junk.onnx is not an ONNX model" in refused("verify", "a.egc", "--model-file", "junk.onnx")


@pytest.mark.parametrize("extent", [1 << 44, (1 << 63) - 1])
def test_random_inputs_larger_than_memory(capfd: pytest.CaptureFixture[str], extent: int) -> None:
    assert main(["run", "a.egc", "--shape", f"x={extent}x3"]) == 1
    err = capfd.readouterr().err
    assert "there is not enough memory for the input 'x'" in err and str(extent) in err and "try: " in err


def test_memory_that_runs_out_anywhere(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled_model(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("egc.cli.optimize.compiled_model", compiled_model)
    assert main(["optimize", "m.onnx"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("error: there is not enough memory\n") and err.count(": ") == 4

"""The command line and bad input: an exit status, one message of what and why, nothing left half-written.

Status 0 is done, 1 that the work failed, 2 bad usage or bad input.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from egc.cli import main
from egc.runtime.artifact import write_artifact
from tests.support.artifacts import make

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder and sees messages as users do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EGC_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def egc(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: (status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's way out
            status = int(stop.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert "its own fault" not in err
        return status, out, err

    return run


def save(
    name: str = "m.onnx",
    shape: Sequence[int | str] = (2, 3),
    nodes: Sequence[onnx.NodeProto] = (),
    initializers: Sequence[onnx.TensorProto] = (),
) -> Path:
    """A model from x to y: `nodes`, or one Relu."""
    nodes = nodes or [helper.make_node("Relu", ["x"], ["y"], name="only")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
    path = Path(name)
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def array(value: object, name: str = "x.npy") -> str:
    np.save(name, np.asarray(value))
    return f"x={name}"


def one_error(err: str) -> str:
    """Standard error, which must be one message."""
    assert err.startswith("error: ") and err.count("error: ") == 1, err
    return err


# Models.


@pytest.mark.parametrize("command", [("optimize",), ("run",), ("verify",), ("explain",)])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is no model", bytes(range(256)) * 8, b"PK\x03\x04" + bytes(60), b"\x08"],
    ids=["empty", "text", "bytes", "archive", "one byte"],
)
def test_files_that_are_no_models(egc: Run, command: tuple[str, ...], content: bytes) -> None:
    Path("m.onnx").write_bytes(content)
    status, _, err = egc(*command, "m.onnx")
    assert status == 2 and "m.onnx" in one_error(err)
    assert [p.name for p in Path().iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_truncated_models(egc: Run, keep: float) -> None:
    path = save()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    status, _, err = egc("optimize", path)
    assert status == 2 and "m.onnx" in one_error(err)
    assert not Path("m.egc").exists()


def test_a_model_that_is_not_there(egc: Run) -> None:
    for command in ("optimize", "run", "verify", "bench", "explain"):
        for name in ("absent.onnx", "absent.egc"):
            status, _, err = egc(command, name)
            # Nothing tells what an artifact should compute: `verify` asks for the model.
            word = "--model-file" if (command, name) == ("verify", "absent.egc") else name
            assert status == 2 and word in one_error(err), command
    status, _, err = egc("optimize", Path())
    assert status == 2 and "folder" in one_error(err)


def test_every_operator_that_nothing_can_run_is_named_at_once(egc: Run) -> None:
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Twiddle", ["b"], ["y"], name="second", domain="elsewhere"),
    ]
    status, _, err = egc("optimize", save(nodes=nodes))
    assert status == 2
    assert all(word in one_error(err) for word in ("Frobnicate", "first", "Twiddle", "second"))
    assert not Path("m.egc").exists()


def test_external_data_outside_the_models_folder(egc: Run) -> None:
    Path("model").mkdir()
    Path("secret").write_bytes(bytes(24))
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL
    )
    weight.external_data.add(key="location", value="../secret")
    weight.external_data.add(key="length", value="24")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    status, _, err = egc("optimize", save("model/m.onnx", nodes=[add], initializers=[weight]))
    assert status == 2 and "../secret" in one_error(err)
    assert not Path("model/m.egc").exists()


def test_huge_declared_tensors(egc: Run) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 20], raw_data=bytes(64))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    status, _, err = egc("optimize", save(nodes=[add], initializers=[weight]))
    assert status == 2 and "w" in one_error(err)
    status, _, err = egc("run", save(shape=[1 << 40, 1 << 20]))
    assert status in (1, 2) and one_error(err)


# What is asked for.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arch", "z80"], ["z80", "x86-64-v3", "aarch64"]),
        (["--arch", "sm_80"], ["sm_80"]),
        (["--target", "gpu", "--arch", "x86-64-v4"], ["x86-64-v4", "sm_80"]),
        (["--target", "tpu"], ["tpu"]),
        (["--cost-model", "nowhere.toml"], ["nowhere.toml"]),
        (["--rules", "nowhere.egg"], ["nowhere.egg"]),
        (["--disable-rule", "no-such-rule"], ["no-such-rule"]),
        (["--accuracy", "sloppy"], ["sloppy"]),
        (["--threads", "0"], ["0"]),
        (["--threads", "many"], ["many"]),
        (["--shape", "x"], ["NAME=1x3x224x224"]),
        (["--shape", "other=2x3"], ["other"]),
        (["--shape", "x=2x3x4"], ["x"]),
        (["--emit", "poetry"], ["poetry", "graph"]),
        (["-o", "no/such/folder/m.egc"], ["no/such/folder"]),
        (["--frobnicate"], ["--frobnicate"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_options(egc: Run, arguments: list[str], words: list[str]) -> None:
    status, _, err = egc("optimize", save(), *arguments)
    assert status == 2
    assert all(word in one_error(err) for word in words), err
    assert [p.name for p in Path().iterdir()] == ["m.onnx"]


def test_no_command_and_an_unknown_one(egc: Run) -> None:
    assert egc()[0] == 2
    status, _, err = egc("frobnicate")
    assert status == 2 and "frobnicate" in one_error(err)


def test_no_room_on_disk(folder: Path) -> None:
    path = save(shape=[64, 64], nodes=[helper.make_node("MatMul", ["x", "x"], ["y"])])
    Path("m.egc").write_bytes(b"what was there before")

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    done = subprocess.run(
        [sys.executable, "-m", "egc.cli", "optimize", path],
        capture_output=True,
        text=True,
        preexec_fn=no_room,
    )
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    assert "m.egc" in one_error(done.stderr)
    assert sorted(p.name for p in folder.iterdir()) == ["m.egc", "m.onnx"]
    assert Path("m.egc").read_bytes() == b"what was there before"


# Inputs of a run.


def test_wrong_inputs(egc: Run) -> None:
    assert egc("optimize", save())[0] == 0
    good = np.zeros((2, 3), np.float32)
    array(good)
    Path("text.npy").write_text("no array")
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    cases = {
        "z=x.npy": ["z", "x"],
        "x=absent.npy": ["absent.npy"],
        "x=text.npy": ["text.npy"],
        "x=objects.npy": ["objects.npy"],
        "x": ["NAME=FILE.npy"],
        array(good.astype(np.float64), "double.npy"): ["float64", "float32"],
        array(good.T, "turned.npy"): ["axis 0", "extent 3", "takes 2"],
        array(good[0], "row.npy"): ["1", "2"],
    }
    for option, words in cases.items():
        for model in ("m.egc", "m.onnx"):
            status, _, err = egc("run", model, "--input", option, "--output-dir", "out")
            assert status == 2, (option, err)
            assert all(word in one_error(err) for word in words), (option, err)
            assert not Path("out").exists()


def test_not_numbers_and_infinities_are_data(egc: Run) -> None:
    x = np.array([[np.nan, np.inf, -np.inf], [-0.0, 1.0, -1.0]], np.float32)
    status, out, _ = egc("run", save(), "--input", array(x), "--output-dir", "out")
    assert status == 0 and "y: float32[2, 3]" in out
    np.testing.assert_array_equal(np.load("out/y.npy"), np.maximum(x, 0))


@pytest.mark.parametrize("shape", [(), (0, 3), (0,), (2, 0, 4)])
def test_scalars_and_empty_tensors(egc: Run, shape: tuple[int, ...]) -> None:
    x = np.full(shape, -1.5, np.float32)
    status, _, err = egc("run", save(shape=shape), "--input", array(x), "--output-dir", "out")
    assert status == 0, err
    np.testing.assert_array_equal(np.load("out/y.npy"), np.zeros(shape, np.float32))


# Artifacts.


def test_damaged_artifacts(egc: Run) -> None:
    assert egc("optimize", save())[0] == 0
    data = Path("m.egc").read_bytes()
    flipped = bytearray(data)
    flipped[20] ^= 4  # in the header
    damages = {"cut": data[: len(data) // 2], "flipped": bytes(flipped), "empty": b"", "text": b"no artifact"}
    for name, content in damages.items():
        Path("m.egc").write_bytes(content)
        for command in (["run"], ["explain"], ["bench"], ["verify", "--model-file", "m.onnx"]):
            status, _, err = egc(*command, "m.egc")
            assert status == 2, (name, command, err)
            assert "m.egc" in one_error(err), (name, command)


def test_a_flipped_bit_is_found_or_plays_no_part(egc: Run) -> None:
    assert egc("optimize", save())[0] == 0
    data = Path("m.egc").read_bytes()
    _, expected, _ = egc("run", "m.egc")
    statuses = []
    for place in range(0, len(data), len(data) // 60):
        flipped = bytearray(data)
        flipped[place] ^= 4
        Path("m.egc").write_bytes(flipped)
        status, out, err = egc("run", "m.egc")
        statuses.append(status)
        assert (status, out) == (0, expected) or (status == 2 and "m.egc" in one_error(err)), place
    assert statuses.count(2) > 10


def test_an_artifact_for_another_processor(egc: Run) -> None:
    manifest, code, constants = make([], [], [], [], features=["avx1024"])
    write_artifact("m.egc", manifest, code, constants, {})
    status, _, err = egc("run", "m.egc")
    assert status == 2 and "avx1024" in one_error(err)


def test_an_artifact_is_not_compiled_again(egc: Run) -> None:
    assert egc("optimize", save())[0] == 0
    status, _, err = egc("optimize", "m.egc")
    assert status == 2 and "m.egc" in one_error(err)


def test_results_that_differ_are_a_failure(egc: Run) -> None:
    pytest.importorskip("onnxruntime")
    assert egc("optimize", save())[0] == 0
    assert egc("verify", "m.egc", "--model-file", "m.onnx")[0] == 0
    other = save("other.onnx", nodes=[helper.make_node("Exp", ["x"], ["y"])])
    status, out, err = egc("verify", "m.egc", "--model-file", other)
    assert status == 1 and "y" in out and not err

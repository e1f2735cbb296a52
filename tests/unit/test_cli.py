"""The command line and bad input: an exit status, one message of what and why, nothing left half-written.

Status 0 is done, 1 that the work failed, 2 bad usage or bad input.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from platform import machine
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from egc import compile as compile_model
from egc import load
from egc.bench.compare import Plan
from egc.cli import command_line, main
from egc.cli.verify import compare
from egc.errors import BadInput, UsageError
from egc.resources import data_folder
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


def outside(location: str) -> TensorProto:
    """Six weights in another file."""
    weight = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL
    )
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value="24")
    return weight


def test_external_data_outside_the_models_folder(egc: Run) -> None:
    Path("model").mkdir()
    Path("secret").write_bytes(bytes(24))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    status, _, err = egc("optimize", save("model/m.onnx", nodes=[add], initializers=[outside("../secret")]))
    assert status == 2 and "../secret" in one_error(err)
    assert not Path("model/m.egc").exists()


def test_an_artifact_does_not_take_the_place_of_the_models_data(egc: Run) -> None:
    Path("weights").write_bytes(bytes(range(24)))
    model = save(nodes=[helper.make_node("Add", ["x", "w"], ["y"])], initializers=[outside("weights")])
    status, _, err = egc("optimize", model, "-o", "weights")
    assert status == 2 and "weights" in one_error(err)
    assert Path("weights").read_bytes() == bytes(range(24))
    assert egc("optimize", model)[0] == 0


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
        (["--threads", "many"], ["many is not a positive number"]),
        (["--threads", "100000"], ["100000", "1 to 256"]),
        (["--time-budget", "nan"], ["nan"]),
        (["--time-budget", "-1"], ["-1"]),
        (["--ilp", "soon"], ["soon"]),
        (["--shape", "x"], ["NAME=1x3x224x224"]),
        (["--shape", "x=2x3", "--shape", "x=2x3"], ["x", "twice"]),
        (["--shape", "other=2x3"], ["other"]),
        (["--shape", "x=2x3x4"], ["x"]),
        (["--emit", "poetry"], ["poetry", "graph"]),
        (["--emit", "ptx"], ["ptx", "cpu"]),
        (["-o", "."], [".", "folder"]),
        (["-o", "m.onnx"], ["m.onnx", "reads"]),
        (["--emit", "onnx", "-o", "./m.onnx"], ["m.onnx", "reads"]),
        (["-o", "/dev/null"], ["/dev/null", "no plain file"]),
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


def test_a_page_does_not_take_the_place_of_its_model(egc: Run) -> None:
    content = save().read_bytes()
    Path("link.onnx").symlink_to("m.onnx")
    for name in ("m.onnx", "link.onnx"):
        status, _, err = egc("explain", "m.onnx", "--html", name)
        assert status == 2 and name in one_error(err)
    assert Path("m.onnx").read_bytes() == content


def test_options_may_stand_before_a_node(egc: Run) -> None:
    """As in `egc explain MODEL --why-not RULE NODE`."""
    assert egc("optimize", save())[0] == 0
    before = egc("explain", "m.egc", "--why-not", "layer-norm", "only")
    assert before == egc("explain", "m.egc", "only", "--why-not", "layer-norm")
    assert before[0] == 0
    status, _, err = egc("explain", "m.egc", "--json", "only", "more")
    assert status == 2 and "more" in one_error(err)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"threads": 0}, "0 threads"),
        ({"threads": "2"}, "'2' threads"),
        ({"threads": True}, "True threads"),
        ({"threads": 2.0}, "2.0 threads"),
        ({"cost_model": ""}, "cost model is ''"),
        ({"cost_model": 3}, "cost model is 3"),
        ({"cost_model": "a\0b"}, "a\\\\x00b|a\0b"),
        ({"shapes": [1]}, r"shapes is \[1\]"),
        ({"shapes": {"x": (10**30, 3)}}, "too large"),
        ({"values": "x"}, "values is 'x'"),
        ({"rules": 5}, "rules is 5"),
        ({"disable_rules": [5]}, r"disable_rules is \[5\]"),
        ({"target": None}, "target is None"),
        ({"arch": 8}, "arch is 8"),
        ({"time_budget": -1.0}, "time_budget"),
        ({"time_budget": "a minute"}, "time_budget"),
        ({"shapes": {"x": (2, -3)}}, "'x'"),
        ({"shapes": {"x": (2, 3.5)}}, "'x'"),
        ({"shapes": {"x": "2x3"}}, "'x'"),
        ({"disable_rules": "layer-norm"}, "layer-norm"),
        ({"rules": "mine.egg"}, "mine.egg"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_bad_arguments_of_the_python_call(arguments: dict[str, Any], values: str) -> None:
    with pytest.raises((UsageError, BadInput), match=values):
        compile_model(save(), **arguments)


@pytest.mark.parametrize("model", [None, 5, [save], object()], ids=["nothing", "number", "list", "object"])
def test_what_is_no_model_and_no_artifact(model: Any) -> None:
    with pytest.raises(UsageError, match="model"):
        compile_model(model)
    with pytest.raises(UsageError, match="artifact"):
        load(model)


@pytest.mark.parametrize("name", ["a\0b", "a" * 300])
def test_names_that_no_file_can_have(name: str) -> None:
    for call in (compile_model, load):
        with pytest.raises(BadInput, match="cannot read"):
            call(name)


def test_numbers_of_threads_may_be_any_integers_and_a_cost_model_any_path() -> None:
    path = Path("mine.toml")
    path.write_text((data_folder("cost_models") / "x86-64-v3.toml").read_text())
    arch = {"arch": "x86-64-v3"} if machine() == "x86_64" else {}
    cost_model = path if arch else None
    with compile_model(save(), threads=np.int64(2), cost_model=cost_model, **arch) as session:
        assert session.threads == 2 and type(session.threads) is int


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (np.zeros((2, 3)), "the model takes float32, and the value is float64"),
        (np.zeros((2, 4), np.float32), "the model takes the shape [2, 3], and the value has [2, 4]"),
        (np.zeros(2, np.float32), "the model takes the shape [2, 3], and the value has [2]"),
    ],
)
def test_values_of_another_type_than_their_input(value: np.ndarray, why: str) -> None:
    with pytest.raises(BadInput) as error:
        compile_model(save(), values={"x": value})
    assert "'x'" in str(error.value.where) and error.value.why == why


def test_extents_may_be_any_integers() -> None:
    with compile_model(save(shape=["n", 3]), shapes={"x": (np.int64(2), 3)}) as session:
        assert session.get_inputs()[0].shape == [2, 3]


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
        [sys.executable, "-m", "egc", "optimize", path],
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


def test_arguments_of_a_run(egc: Run) -> None:
    assert egc("optimize", save(shape=["n", 3]))[0] == 0
    array(np.zeros((2, 3), np.float32))
    np.savez("several.npz", x=np.zeros(3))
    Path("archive.npy").write_bytes(b"PK\x03\x04 and no more")
    for arguments, words in {
        ("--seed", "-1"): ["-1"],
        ("--seed", "one"): ["one"],
        ("--input", "x=several.npz"): ["several.npz"],
        ("--input", "x=archive.npy"): ["archive.npy"],
        ("--input", "x=x.npy", "--input", "x=x.npy"): ["x", "twice"],
        ("--shape", "z=2x3"): ["z", "x"],
        ("--shape", "x=2x4"): ["axis 1", "4"],
        ("--shape", "x=2x3x4"): ["3", "2"],
    }.items():
        status, _, err = egc("run", "m.egc", *arguments)
        assert status == 2, (arguments, err)
        assert all(word in one_error(err) for word in words), (arguments, err)


def test_every_output_has_a_file_of_its_own(egc: Run) -> None:
    names = ["a/b", "a_b", "a_b-2", "..", "é" * 300, "é" * 300 + "2"]
    nodes = [helper.make_node("Add", ["x", "x"], [name]) for name in names]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in names],
    )
    Path("m.onnx").write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    assert egc("run", "m.onnx", "--output-dir", "out")[0] == 0
    files = [path.name for path in Path("out").iterdir()]
    assert len(files) == len(names)
    assert {"a_b.npy", "a_b-2.npy", "a_b-2-2.npy", "output.npy"} < set(files)


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


def test_an_artifact_of_another_name(egc: Run) -> None:
    assert egc("optimize", save(), "-o", "program.bin")[0] == 0
    assert egc("run", "program.bin")[0] == 0
    assert egc("explain", "program.bin")[0] == 0


def test_results_that_differ_are_a_failure(egc: Run) -> None:
    assert egc("optimize", save())[0] == 0
    assert egc("verify", "m.egc", "--model-file", "m.onnx")[0] == 0
    other = save("other.onnx", nodes=[helper.make_node("Exp", ["x"], ["y"])])
    status, out, err = egc("verify", "m.egc", "--model-file", other)
    assert status == 1 and "y" in out and not err


def test_a_reference_that_is_not_there_or_of_another_model(egc: Run) -> None:
    assert egc("optimize", save())[0] == 0
    status, _, err = egc("verify", "m.egc", "--model-file", "absent.onnx")
    assert status == 2 and "absent.onnx" in one_error(err)


def test_names_that_look_like_markup(egc: Run) -> None:
    node = helper.make_node("Relu", ["x"], ["[/bold]"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("[/bold]", TensorProto.FLOAT, [2])],
    )
    Path("m.onnx").write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    status, out, _ = egc("verify", "m.onnx", "--reference", "onnx")
    assert status == 0 and "[/bold]" in out


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        (np.float32([1.0]), np.float32([1.0005]), True),
        (np.float32([1.0]), np.float32([1.1]), False),
        (np.float32([np.nan, np.inf]), np.float32([np.nan, np.inf]), True),
        (np.float32([1.0]), np.float32([np.nan]), False),
        (np.float32([np.inf]), np.float32([-np.inf]), False),
        (np.float32([1.0]), np.float64([1.0]), False),
        (np.int64([5000]), np.int64([5001]), False),
        (np.int64([2**60]), np.int64([2**60 + 1]), False),
        (np.complex64([1 + 1j]), np.complex64([1 + 1.0005j]), True),
        (ml_dtypes.bfloat16(1.0), ml_dtypes.bfloat16(1.0), True),
        (np.array(["a"]), np.array(["a"], object), True),
        (np.array(["a"]), np.array(["b"]), False),
        (None, None, True),
        (np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), True),
    ],
    ids=str,
)
def test_what_counts_as_agreement(found: Any, expected: Any, same: bool) -> None:
    assert compare("y", found, expected, 1e-3, 1e-5)["ok"] is same


def test_every_default_of_every_command_is_a_value() -> None:
    plain = (bool, int, float, str, Path, list, tuple, type(None))
    waiting = [command_line()]
    checked = 0
    while waiting:
        for action in waiting.pop()._actions:
            assert action.default is argparse.SUPPRESS or isinstance(action.default, plain), action
            checked += 1
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
    assert checked > 50


def test_bench_runs_with_the_rounds_that_it_has_by_default(egc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("egc.bench.compare.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("egc.cli.bench.Plan", lambda rounds=15: Plan(rounds, 0.0, 1))
    status, out, err = egc("bench", save())
    assert (status, err.strip()) == (0, "")
    assert "egc" in out


def test_a_cost_model_of_wider_registers_than_the_target_has_is_refused(egc: Run) -> None:
    status, _, err = egc("optimize", save(), "--arch", "x86-64-v3", "--cost-model", "x86-64-v4")
    assert status == 2
    assert "the cost model x86-64-v4 is of another machine than --arch x86-64-v3" in err
    assert not list(Path().glob("*.egc"))


def test_what_is_odd_about_a_rule_file_is_said(egc: Run) -> None:
    rules = Path("mine.egg")
    rules.write_text(
        ";; clas: exact\n;; class: exact\n"
        '(rewrite (Map1 (Neg) (Map1 (Neg) x)) x :ruleset canonical :name "twice")\n'
    )
    status, _, err = egc("optimize", save(), "--rules", rules)
    assert status == 0
    assert "warning: unknown key `clas:`" in err


def test_random_inputs_have_extents_that_the_model_takes(egc: Run) -> None:
    nodes = [
        helper.make_node("Concat", ["past", "x"], ["all"], axis=0),
        helper.make_node("Add", ["all", "mask"], ["y"]),
    ]
    shapes = {"past": ["p", 4], "x": ["t", 4], "mask": ["total", 4]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in shapes.items()]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    Path("kv.onnx").write_bytes(model.SerializeToString())
    status, out, err = egc("verify", "kv.onnx", "--reference", "onnx")
    assert (status, err) == (0, "")
    assert "float32[2, 4]" in out
    assert egc("verify", "kv.onnx", "--reference", "onnx", "--shape", "past=3x4")[0] == 0
    status, _, err = egc(
        "verify", "kv.onnx", "--reference", "onnx", "--shape", "past=3x4", "--shape", "mask=2x4"
    )
    assert status == 2
    assert "is needed" in err


@pytest.mark.parametrize(
    ("dtype", "error", "same"), [("float32", 3e-3, False), ("float16", 3e-3, True), ("float16", 3e-2, False)]
)
def test_narrow_floats_may_differ_by_their_own_rounding(dtype: str, error: float, same: bool) -> None:
    expected = np.linspace(-1, 1, 50).astype(dtype)
    assert compare("y", (expected * (1 + error)).astype(dtype), expected)["ok"] is same

"""The models of the GPU slice, end to end: emulator against CPU, PTX against ptxas, what is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from egc.cli import main
from egc.codegen.gpu import GPU_ARCHITECTURES
from egc.compiler import Compiled, compile_model
from egc.errors import ArtifactError, CompileError, UsageError
from egc.options import Options
from egc.runtime.artifact import open_artifact
from egc.runtime.gpu_code import GpuCode
from egc.runtime.session import Session
from tests.support.slice_models import convolutional, perceptron

MODELS = {"perceptron": perceptron, "convolutional": convolutional}


def find_ptxas() -> str | None:
    """ptxas of the wheel nvidia-cuda-nvcc, or of an installed toolkit."""
    site = Path(sysconfig.get_path("purelib"))
    for found in sorted(site.glob("nvidia/**/bin/ptxas")):
        return str(found)
    return shutil.which("ptxas")


PTXAS = find_ptxas()
needs_ptxas = pytest.mark.skipif(
    PTXAS is None, reason="ptxas is not installed (pip install nvidia-cuda-nvcc)"
)


@lru_cache
def compiled(name: str, arch: str | None) -> Compiled:
    options = Options(target="gpu", arch=arch) if arch else Options()
    return compile_model(MODELS[name](), options)


def inputs(name: str) -> dict[str, np.ndarray]:
    (x,) = MODELS[name]().graph.input
    shape = [d.dim_value for d in x.type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(3).standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("arch", GPU_ARCHITECTURES)
@pytest.mark.parametrize("name", MODELS)
def test_the_emulator_computes_what_the_cpu_does(name: str, arch: str) -> None:
    with (
        Session(compiled(name, None).artifact(), threads=1) as cpu,
        Session(compiled(name, arch).artifact(), threads=2, device="emulator") as gpu,
    ):
        (expected,), (found,) = cpu.run(None, inputs(name)), gpu.run(None, inputs(name))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_one_artifact_runs_at_several_batches() -> None:
    gpu_program = compile_model(perceptron("n"), Options(target="gpu", arch="sm_90"))
    reference = Session(compile_model(perceptron("n")).artifact(), threads=1)
    with reference, Session(gpu_program.artifact(), device="emulator") as session:
        for n in (1, 5, 70):
            x = {"x": np.random.default_rng(n).standard_normal((n, 64)).astype(np.float32)}
            np.testing.assert_allclose(
                session.run(None, x)[0], reference.run(None, x)[0], rtol=1e-4, atol=1e-6
            )


@needs_ptxas
@pytest.mark.parametrize("arch", GPU_ARCHITECTURES)
@pytest.mark.parametrize("name", MODELS)
def test_ptxas_takes_the_code_and_spills_nothing(name: str, arch: str, tmp_path: Path) -> None:
    code = GpuCode.from_bytes(compiled(name, arch).program.code)
    source = tmp_path / "model.ptx"
    source.write_text(code.ptx)
    done = subprocess.run(
        [str(PTXAS), f"-arch={arch}", "-v", "-o", str(tmp_path / "model.cubin"), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    spilled = re.findall(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr
    )
    assert spilled == [("0", "0", "0")] * len(code.launches)


@pytest.mark.parametrize("name", MODELS)
def test_facts_about_the_ptx(name: str) -> None:
    code = GpuCode.from_bytes(compiled(name, "sm_80").program.code)
    assert code.ptx.count(".target sm_80") == code.ptx.count(".address_size 64") == 1
    for kernel, launch in code.launches.items():
        body = re.search(rf"\.entry {kernel}\(.*?^}}", code.ptx, re.DOTALL | re.MULTILINE)
        assert body, kernel
        text = body[0]
        assert f".maxntid {launch.threads}\n" in text
        if kernel.startswith(("matmul", "conv")):
            assert "fma.rn.f32" in text
        # Buffers of the runtime are global memory, local ones shared: no access needs to find out which.
        assert not re.search(r"\b(ld|st)\.(local|v\d|[bfus]\d)", text)
        assert "ld.global.nc" in text
        assert ("bar.sync" in text) == (launch.shared_bytes > 0)
        assert "tf32" not in text


def test_a_model_s_nests_are_mapped_by_rules() -> None:
    for name in MODELS:
        for built in compiled(name, "sm_90").kernels.values():
            assert any(rule.startswith("gpu-") for rule in built.scheduled.rules), built.symbol
            kinds = {loop.kind for loops in built.nest.stages for loop in (*built.nest.shared, *loops)}
            assert kinds & {"block", "thread"} and not kinds & {"par", "vec"}


def test_a_rule_that_is_taken_out_is_not_used() -> None:
    taken_out = ("gpu-sum", "gpu-sum-whole", "gpu-threads-whole")
    program = compile_model(perceptron(), Options(target="gpu", arch="sm_80", disable_rules=taken_out))
    used = {rule for built in program.kernels.values() for rule in built.scheduled.rules}
    usual = {
        rule for built in compiled("perceptron", "sm_80").kernels.values() for rule in built.scheduled.rules
    }
    assert not used & set(taken_out) and usual & set(taken_out)


def test_what_has_no_code_for_a_gpu_is_named_all_at_once() -> None:
    nodes = [
        helper.make_node("Unique", ["x"], ["u"], name="first"),
        helper.make_node("Relu", ["u"], ["v"], name="between"),
        helper.make_node("Unique", ["v"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(CompileError, match="no code for a GPU") as raised:
        compile_model(model, Options(target="gpu", arch="sm_80"))
    text = str(raised.value)
    assert "first" in text and "second" in text and "between" not in text and "--target cpu" in text


@pytest.mark.parametrize("arch", ["native", "sm_8", "x86-64-v3"])
def test_an_unknown_gpu_is_refused(arch: str) -> None:
    with pytest.raises(UsageError, match="needs a GPU's architecture") as raised:
        compile_model(perceptron(), Options(target="gpu", arch=arch))
    assert "--arch sm_80" in str(raised.value)


def test_cost_models_of_the_other_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="describes no GPU"):
        compile_model(perceptron(), Options(target="gpu", arch="sm_80", cost_model="x86-64-v3"))


def test_a_damaged_nest_is_found() -> None:
    artifact = compiled("perceptron", "sm_80").artifact()
    code = bytes(artifact.code)
    with pytest.raises(ArtifactError, match="cannot be read"):
        GpuCode.from_bytes(code[:-1])
    with pytest.raises(ArtifactError, match="cannot be read"):
        GpuCode.from_bytes(code.replace(b'"version":1', b'"version":2'))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, artifact = tmp_path / "m.onnx", tmp_path / "m.egc"
    onnx.save(perceptron(), str(model))
    assert main(["optimize", str(model), "--target", "gpu", "--arch", "sm_90", "-o", str(artifact)]) == 0
    assert open_artifact(artifact).manifest.target.features == ("sm_90",)
    assert main(["run", str(artifact), "--device", "emulator", "--output-dir", str(tmp_path)]) == 0
    found = np.load(tmp_path / "y.npy")
    assert main(["run", str(model), "--output-dir", str(tmp_path)]) == 0
    np.testing.assert_allclose(found, np.load(tmp_path / "y.npy"), rtol=1e-4, atol=1e-6)
    assert main(["run", str(artifact)]) == 2
    assert "--device cuda, or --device emulator" in capsys.readouterr().err
    assert main(["optimize", str(model), "--target", "gpu", "--arch", "sm_90", "--emit", "ptx"]) == 0
    assert ".entry" in capsys.readouterr().out

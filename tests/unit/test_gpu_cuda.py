"""Sessions on a GPU, over a driver that stands in for NVIDIA's and runs the device functions on this CPU."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from egc.codegen.gpu import parse_gpu_arch
from egc.codegen.nvptx import emit_device
from egc.compiler import Compiled, compile_model
from egc.errors import ArtifactError, InputError, UsageError
from egc.ir.text import parse_nest
from egc.options import Options
from egc.runtime import cuda, cuda_driver
from egc.runtime.cuda import CudaSession
from egc.runtime.cuda_driver import DeviceError, Driver, pack_arguments
from egc.runtime.gpu_code import GpuCode
from egc.runtime.session import Session
from tests.support.device_ir import DeviceOnHost
from tests.support.fake_cuda import FakeCuda
from tests.support.slice_models import convolutional, perceptron


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return compile_model(perceptron("n"), Options(target="gpu", arch="sm_80"))


def fake(compiled: Compiled, **kwargs: Any) -> FakeCuda:
    code = GpuCode.from_bytes(compiled.program.code)
    target = parse_gpu_arch(code.arch)
    functions = {
        name: DeviceOnHost(emit_device(parse_nest(launch.nest), target))
        for name, launch in code.launches.items()
    }
    return FakeCuda(functions, **kwargs)


def feeds(n: int, features: int = 64) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(n).standard_normal((n, features)).astype(np.float32)}


def test_a_session_computes_what_the_cpu_does_at_several_extents(compiled: Compiled) -> None:
    library = fake(compiled)
    with (
        Session(compile_model(perceptron("n")).artifact(), threads=1) as cpu,
        CudaSession(compiled.artifact(), driver=Driver(library=library)) as gpu,
    ):
        for n in (3, 8, 3, 0):
            (expected,), (found,) = cpu.run(None, feeds(n)), gpu.run(["y"], feeds(n))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert gpu.coverage == {"compiled": 8, "host": []}
        assert library.calls.count("cuStreamBeginCapture_v2") == 3, "one recording for each set of dims"
        assert library.calls.count("cuGraphLaunch") == 4
        launched = library.calls.count("cuLaunchKernel")
        assert launched == 3 + 3, "recorded at 3 and 8; over no rows there is nothing to launch"
    assert not library.memory and library.calls[-1] == "cuDevicePrimaryCtxRelease_v2"
    assert set(map(type, library.objects.values())) <= {DeviceOnHost}, "every object is given back"


def test_a_convolutional_network(compiled: Compiled) -> None:
    del compiled
    model = convolutional(size=8)
    gpu_program = compile_model(model, Options(target="gpu", arch="sm_90"))
    x = {"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    with (
        Session(compile_model(model).artifact(), threads=1) as cpu,
        CudaSession(gpu_program.artifact(), driver=Driver(library=fake(gpu_program))) as gpu,
    ):
        np.testing.assert_allclose(gpu.run(None, x)[0], cpu.run(None, x)[0], rtol=1e-4, atol=1e-5)


def test_a_profile_has_every_step(compiled: Compiled) -> None:
    with CudaSession(compiled.artifact(), driver=Driver(library=fake(compiled))) as session:
        rows = session.profile(feeds(2))
    assert [label for label, _ in rows] == [step.label for step in compiled.program.manifest.steps]
    assert all(seconds == 0.5e-3 for _, seconds in rows)


def test_many_extents_do_not_pile_up_on_the_device(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_MAX_PLANS", 2)
    library = fake(compiled)
    with CudaSession(compiled.artifact(), driver=Driver(library=library)) as session:
        for n in range(1, 5):
            session.run(None, feeds(n))
        assert len(library.memory) == 1 + 2, "the constants, and two plans"


def test_wrong_inputs_are_refused_as_on_the_cpu(compiled: Compiled) -> None:
    with CudaSession(compiled.artifact(), driver=Driver(library=fake(compiled))) as session:
        with pytest.raises(InputError, match="has extent 3"):
            session.run(None, {"x": np.zeros((2, 3), np.float32)})
        with pytest.raises(InputError, match="no output"):
            session.run(["z"], feeds(1))
    with pytest.raises(UsageError, match="closed"):
        session.run(None, feeds(1))


def test_an_older_gpu_is_refused(compiled: Compiled) -> None:
    with pytest.raises(ArtifactError, match="Fake GPU is sm_75"):
        CudaSession(compiled.artifact(), driver=Driver(library=fake(compiled, capability=(7, 5))))


def test_the_words_of_the_driver_reach_the_user(compiled: Compiled) -> None:
    library = fake(compiled)
    library.cuMemAlloc_v2 = lambda *_: 2
    with pytest.raises(DeviceError) as raised:
        CudaSession(compiled.artifact(), driver=Driver(library=library))
    assert (raised.value.where, raised.value.why) == ("cuMemAlloc_v2", "fake error 2")


def test_the_log_of_the_driver_s_compiler_reaches_the_user(compiled: Compiled) -> None:
    library = fake(compiled)
    library.functions["missing"] = next(iter(library.functions.values()))
    with pytest.raises(ArtifactError) as raised:
        CudaSession(compiled.artifact(), driver=Driver(library=library))
    assert raised.value.why == "ptxas fatal: no such entry"


def test_no_driver_and_no_device_are_said_clearly(
    compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceError, match="no CUDA device 0"):
        Driver(library=FakeCuda({}, devices=0))
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda-that-is-nowhere.so.1")
    with pytest.raises(DeviceError, match="no NVIDIA driver") as raised:
        Session(compiled.artifact(), device="cuda")
    assert "--device emulator" in str(raised.value)


def test_a_driver_without_a_function_is_too_old() -> None:
    library = FakeCuda({})
    del library.cuGraphInstantiateWithFlags
    with pytest.raises(DeviceError, match="too old") as raised:
        Driver(library=library)
    assert "cuGraphInstantiateWithFlags" in str(raised.value)


def test_devices_and_artifacts_that_do_not_match(compiled: Compiled) -> None:
    cpu = compile_model(perceptron(2)).artifact()
    for device in ("cuda", "emulator"):
        with pytest.raises(UsageError, match=r"runs GPU artifacts|not for a GPU"):
            Session(cpu, device=device)
    with pytest.raises(UsageError, match="is for a GPU"):
        Session(compiled.artifact())
    with pytest.raises(UsageError, match="no device 'tpu'"):
        Session(compiled.artifact(), device="tpu")


def test_arguments_are_passed_by_address() -> None:
    words, pointers = pack_arguments([1 << 63, -1, 7])
    assert [ctypes.c_uint64.from_address(pointers[i]).value for i in range(3)] == [1 << 63, (1 << 64) - 1, 7]
    assert ctypes.sizeof(words) == 24
    pack_arguments([])


@pytest.mark.parametrize("call", ["cuLaunchKernel", "cuGraphInstantiateWithFlags", "cuModuleGetFunction"])
def test_what_fails_leaves_nothing_on_the_device(compiled: Compiled, call: str) -> None:
    library = fake(compiled)
    setattr(library, call, lambda *_: 2)
    with (
        pytest.raises(DeviceError),
        CudaSession(compiled.artifact(), driver=Driver(library=library)) as session,
    ):
        session.run(None, feeds(2))
    assert (library.memory, library.recording) == ({}, None)


def test_a_session_goes_on_after_a_launch_that_failed(compiled: Compiled) -> None:
    library = fake(compiled)
    works = library.cuLaunchKernel
    with CudaSession(compiled.artifact(), driver=Driver(library=library)) as session:
        library.cuLaunchKernel = lambda *_: 2
        with pytest.raises(DeviceError):
            session.run(None, feeds(2))
        assert len(library.memory) == 1, "the constants"
        library.cuLaunchKernel = works
        assert session.run(None, feeds(2))

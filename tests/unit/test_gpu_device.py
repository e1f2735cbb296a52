"""The models of the GPU slice on a real GPU; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from egc.compiler import compile_model
from egc.options import Options
from egc.runtime.cuda_driver import DeviceError, Driver
from egc.runtime.session import Session
from tests.support.slice_models import convolutional, perceptron

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def arch() -> str:
    """The newest architecture that code is generated for and that the device runs."""
    try:
        driver = Driver()
    except DeviceError as error:
        pytest.skip(str(error.why))
    if driver.capability < (8, 0):
        pytest.skip(f"{driver.name} is older than sm_80")
    return "sm_90" if driver.capability >= (9, 0) else "sm_80"


@pytest.mark.parametrize("n", [1, 33])
def test_the_perceptron(arch: str, n: int) -> None:
    program = compile_model(perceptron("n"), Options(target="gpu", arch=arch)).artifact()
    x = {"x": np.random.default_rng(n).standard_normal((n, 64)).astype(np.float32)}
    with Session(program, device="cuda") as gpu, Session(program, device="emulator") as emulator:
        np.testing.assert_allclose(gpu.run(None, x)[0], emulator.run(None, x)[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(gpu.run(None, x)[0], gpu.run(None, x)[0])


def test_the_convolutional_network(arch: str) -> None:
    program = compile_model(convolutional(), Options(target="gpu", arch=arch)).artifact()
    x = {"x": np.random.default_rng(0).standard_normal((1, 3, 20, 20)).astype(np.float32)}
    with Session(program, device="cuda") as gpu, Session(program, device="emulator") as emulator:
        np.testing.assert_allclose(gpu.run(None, x)[0], emulator.run(None, x)[0], rtol=1e-5, atol=1e-5)
        assert all(seconds > 0 for _, seconds in gpu.profile(x))

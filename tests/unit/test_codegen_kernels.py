"""Generated code computes what its kernel means, in whatever order its nest runs it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egc.codegen.target import Target, native, parse_arch
from egc.errors import UsageError
from egc.ir.evaluate_kernel import evaluate_kernel
from egc.ir.nest import Nest
from tests.support.native_kernel import NativeKernel
from tests.support.random_kernels import Case, cases, kind, scalar_nest, tiled_nest, vectorised_nest

_WIDE = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 2e-5, "float64": 1e-12}


def _targets() -> list[Target]:
    """The architectures that this machine can run."""
    try:
        own = native()
    except UsageError:
        return []
    if own.triple.startswith("aarch64"):
        return [own]
    return [parse_arch("x86-64-v3"), *([parse_arch("x86-64-v4")] if own.vector_bits == 512 else [])]


TARGETS = _targets()
pytestmark = pytest.mark.skipif(not TARGETS, reason="this machine runs none of the targets")


def assert_means(nest: Nest, case: Case, target: Target, threads: int = 1) -> None:
    """The code of `nest` gives what numpy gives for its kernel: the same bits for integers."""
    expected = evaluate_kernel(nest.kernel, case.inputs, case.dims)
    found = NativeKernel(nest, target).run(case.inputs, case.dims, threads)
    for name, want in expected.items():
        dtype = nest.kernel.buffer[name].type.dtype
        if kind(dtype) != "float":
            np.testing.assert_array_equal(found[name], want)
            continue
        got, want = found[name].astype(np.float64), want.astype(np.float64)
        scale = np.abs(want[np.isfinite(want)]).max(initial=1.0)
        np.testing.assert_allclose(got, want, rtol=_WIDE[dtype], atol=_WIDE[dtype] * scale)


_SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.arch)
@_SETTINGS
@given(case=cases(), threads=st.integers(1, 4))
def test_scalar_nests(target: Target, case: Case, threads: int) -> None:
    assert_means(scalar_nest(case.kernel), case, target, threads)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.arch)
@_SETTINGS
@given(case=cases(), data=st.data())
def test_vectorised_nests(target: Target, case: Case, data: st.DataObject) -> None:
    axes = [axis.name for axis in case.kernel.stages[0].all_axes]
    nest = vectorised_nest(
        case.kernel, data.draw(st.sampled_from(axes)), data.draw(st.sampled_from((2, 8, 16)))
    )
    assert_means(nest, case, target, threads=2)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.arch)
@_SETTINGS
@given(
    case=cases(),
    rows=st.sampled_from((1, 2, 3, 6)),
    columns=st.sampled_from((8, 16, 32)),
    depth=st.sampled_from((1, 2, 4)),
    pack=st.booleans(),
)
def test_tiled_nests(target: Target, case: Case, rows: int, columns: int, depth: int, pack: bool) -> None:
    assert_means(tiled_nest(case.kernel, rows, columns, 8, depth, pack), case, target, threads=3)

"""Kernels of several stages, indirect accesses and guards: generated code against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from egc.codegen.compile import compile_module, compile_nest
from egc.codegen.emit import emit
from egc.codegen.link import link
from egc.codegen.runtime_ir import support_ir
from egc.codegen.storage import plan_locals, scratch_bytes
from egc.codegen.target import native, parse_arch
from egc.errors import CompileError
from egc.ir.evaluate_kernel import evaluate_kernel
from egc.ir.nest import Nest
from egc.ir.text import parse_nest
from tests.support.elf_exec import emulator, run_under_qemu
from tests.support.native_kernel import NativeKernel
from tests.support.nests import convolution, product, softmax, transposed_scores
from tests.support.random_kernels import kind


def check(
    nest: Nest, inputs: dict[str, np.ndarray], dims: dict[str, int] | None = None, threads: int = 2
) -> None:
    """The native code of `nest` computes what its kernel means."""
    expected = evaluate_kernel(nest.kernel, inputs, dims or {})
    found = NativeKernel(nest, native()).run(inputs, dims, threads)
    for name, want in expected.items():
        if kind(want.dtype.name) == "float":
            np.testing.assert_allclose(found[name], want, rtol=2e-5, atol=2e-5)
        else:
            np.testing.assert_array_equal(found[name], want)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("n", "m"), [(4, 64), (5, 37), (68, 17), (3, 1), (1, 16), (0, 5)])
@pytest.mark.parametrize("tile", [1, 2])
@pytest.mark.parametrize("symbolic", [False, True])
def test_softmax_in_four_stages(n: int, m: int, tile: int, symbolic: bool) -> None:
    nest = softmax("N", "M", 16, tile) if symbolic else softmax(n, m, 16, tile)
    check(nest, {"x": floats(n, m)}, {"N": n, "M": m} if symbolic else {}, threads=3)


@pytest.mark.parametrize("h", ["H", 3])
def test_stage_into_a_local_buffer(h: object) -> None:
    nest = transposed_scores(h, 7, 9, 21)
    check(nest, {"q": floats(3, 7, 9), "t": floats(3, 21, 9)}, {"H": 3} if h == "H" else {})


@pytest.mark.parametrize("size", [1, 2, 7, 9])
@pytest.mark.parametrize(("inner", "outer"), [(1, 8), (5, 20), (3, 33)])
def test_convolution_with_padding(size: int, inner: int, outer: int) -> None:
    nest = convolution(size, inner, outer, 4, 16, 8)
    check(nest, {"x": floats(size, size, inner), "w": floats(3, 3, inner, outer)})


def test_local_buffers_hold_one_tile_of_the_shared_axis() -> None:
    storages, scratch = plan_locals(softmax("N", 40, 16, tile=2))
    assert {name: (s.shape, s.offset) for name, s in storages.items()} == {
        "top": ((2,), None),
        "grown": ((2, 40), None),
        "sum": ((2,), None),
    }
    assert scratch == 0


def test_large_and_symbolic_buffers_live_in_scratch() -> None:
    assert scratch_bytes(softmax("N", "M", 16), {"N": 9, "M": 100}) == 448
    assert scratch_bytes(softmax(9, 100_000, 16), {}) == 400_000


GATHER = """
kernel gather(in d: float32[10, 20], in at: int64[7], out y: float32[7, 20]) {{
  stage gather over i:7, j:20
    y[i, j] = d[at[i], j]
}}
{loops}
"""
SCATTER = """
kernel scatter(in u: float32[7, 20], in at: int64[7], out y: float32[10, 20]) {{
  stage scatter over i:7, j:20 ordered
    y[at[i], j] {sign} u[i, j]
}}
for i step 1 seq
  for j step 1 seq
    do scatter
"""
AT = np.array([0, 1, 2, 2, 3, 9, 0])


@pytest.mark.parametrize(
    "loops",
    [
        "for i step 1 par\n  for j step 1 seq\n    do gather",
        "for i step 1 par\n  for j step 16 seq\n    for j step 1 vec\n      do gather",
        "for j step 1 par\n  for i step 4 seq\n    for i step 1 vec\n      do gather",
    ],
)
def test_gather(loops: str) -> None:
    check(parse_nest(GATHER.format(loops=loops)), {"d": floats(10, 20), "at": AT})


@pytest.mark.parametrize("sign", ["=", "add=", "mul=", "max=", "min="])
def test_scatter_with_repeated_indices_runs_in_order(sign: str) -> None:
    inputs = {"u": floats(7, 20), "at": AT, "y": floats(10, 20)}
    check(parse_nest(SCATTER.format(sign=sign)), inputs, threads=3)


@pytest.mark.parametrize("extent", [7, 13, 16])
@pytest.mark.parametrize("threads", [1, 3])
def test_parallel_loops_that_split_one_axis_stay_within_it(extent: int, threads: int) -> None:
    text = f"""
kernel negated(in x: float32[40, 3], out y: float32[40, 3]) {{
  stage s0 over i:{extent}, j:3
    y[i, j] = neg(x[i, j])
}}
for i step 8 par
  for i step 1 par
    for j step 1 par
      do s0
"""
    x = floats(40, 3)
    found = NativeKernel(parse_nest(text), native()).run({"x": x}, {}, threads)["y"]
    np.testing.assert_array_equal(found[:extent], -x[:extent])
    assert np.unique(found[extent:]).size == 1, "what lies beyond was not touched"


def test_stages_that_depend_on_each_other_without_shared_loops_run_on_one_thread() -> None:
    text = """
kernel twice(in x: float32[64], out y: float32[64], out z: float32[64]) {
  stage first over i:64
    y[i] = add(x[i], 1.0)
  stage second over i:64
    z[i] = y[63 - i]
}
for i step 1 par
  do first
for i step 1 par
  do second
"""
    check(parse_nest(text), {"x": floats(64)}, threads=4)


def test_an_axis_of_unknown_extent_cannot_be_vectorised_whole() -> None:
    text = """
kernel copy(in x: float32[N], out y: float32[N]) {
  stage copy over i:N
    y[i] = x[i]
}
for i step 1 vec
  do copy
"""
    with pytest.raises(CompileError, match="split it by a step first"):
        emit(parse_nest(text), native())


def test_values_that_have_no_machine_type_are_refused() -> None:
    text = """
kernel copy(in x: float8_e5m2[4], out y: float8_e5m2[4]) {
  stage copy over i:4
    y[i] = x[i]
}
for i step 1 seq
  do copy
"""
    with pytest.raises(CompileError, match="float8_e5m2 values cannot be compiled"):
        emit(parse_nest(text), native())


@pytest.mark.parametrize("name", ["product", "softmax", "convolution"])
def test_arm_under_qemu(name: str) -> None:
    if emulator("aarch64") is None:
        pytest.skip("qemu-user is not installed")
    target = parse_arch("aarch64")
    nest, inputs = {
        "product": (product("M", 9, 21, 4, 8, 4), {"a": floats(13, 9), "b": floats(9, 24)}),
        "softmax": (softmax("M", 21, 4), {"x": floats(13, 21)}),
        "convolution": (convolution(5, 3, 8, 4, 8, 4), {"x": floats(5, 5, 3), "w": floats(3, 3, 3, 8)}),
    }[name]
    dims = [13] if nest.kernel.symbols else []
    compiled = compile_nest(nest, target)
    linked = link([compiled.code], [compile_module(support_ir(target.triple), target)])
    logical = dict(inputs)
    if name == "product":
        # In panels of 8: 21 columns fill three of them, the last one with zeros.
        logical["b"] = inputs["b"][:, :21]
        inputs["b"] = np.concatenate([inputs["b"][:, :21], np.zeros((9, 3), np.float32)], axis=1)
        inputs["b"] = np.ascontiguousarray(inputs["b"].reshape(9, 3, 8).transpose(1, 0, 2))
    if name == "convolution":
        inputs["w"] = inputs["w"][None]
    (want,) = evaluate_kernel(nest.kernel, logical, {"M": 13}).values()
    scratch = scratch_bytes(nest, {"M": 13})
    buffers = [*inputs.values(), np.zeros_like(want)]
    found = run_under_qemu(linked, compiled.name, buffers, dims, 3, scratch)[-1]
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5)

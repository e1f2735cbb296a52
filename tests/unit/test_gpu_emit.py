"""Device functions: their LLVM IR, run on this CPU with one thread for every thread of a block, agrees with
numpy."""

from __future__ import annotations

import numpy as np
import pytest

from egc.codegen.gpu import parse_gpu_arch
from egc.codegen.gpu_emulator import emulated_nest
from egc.codegen.nvptx import emit_device
from egc.codegen.target import native
from egc.errors import CompileError
from egc.ir.evaluate_kernel import evaluate_kernel
from egc.ir.nest import NestError, check_nest
from egc.ir.text import parse_nest
from egc.ir.types import numpy_dtype
from tests.support.device_ir import run_device
from tests.support.native_kernel import NativeKernel

TARGET = parse_gpu_arch("sm_80")

MATMUL = """
kernel matmul(in a: float32[37, 19], const in w: float32[19, 45], out y: float32[37, 45]) {
  stage s over i:37, j:45 reduce add k:19
    value = mul(a[i, k], w[k, j])
    y[i, j] = max(acc, 0.0)
}
for i step 8 block
  for j step 16 block
    for i step 2 thread
      for j step 2 thread
        for k step 4 seq
          for k step 1 unroll
            for i step 1 unroll
              for j step 1 unroll
                do s
"""
ANGLES = """
kernel angles(in x: DTYPE[21], in y: DTYPE[21], out z: DTYPE[21]) {
  stage s over i:21
    z[i] = add(sin(x[i]), fmod(x[i], y[i]))
}
for i step 8 block
  for i step 1 thread
    do s
"""
SYMBOLIC = """
kernel symbolic(in a: float32[n, 19], in w: float32[19, m], out y: float32[n, m]) {
  stage s over i:n, j:m reduce add k:19
    value = mul(a[i, k], w[k, j])
    y[i, j] = acc
}
for i step 4 block
  for j step 8 block
    for i step 2 thread
      for j step 1 thread
        for k step 1 seq
          for i step 1 unroll
            do s
"""
PADDED = """
kernel padded(in x: float32[9, 7], const in w: float32[3], out y: float32[9, 7]) {
  stage s over i:9, j:7 reduce add k:3
    value = mul((x[i, j + k - 1] if inside(j + k - 1, 7) else 2.0), w[k])
    y[i, j] = acc
}
for i step 2 block
  for i step 1 thread
    for j step 1 thread
      for k step 1 seq
        do s
"""
PIECES = """
kernel pieces(in a: float32[5, 3], in b: float32[4, 3], out y: float32[9, 3]) {
  stage s over i:5, j:3
    y[i, j] = neg(a[i, j])
  stage t over i:4, j:3
    y[i + 5, j] = b[i, j]
}
for i step 2 block
  for i step 1 thread
    for j step 1 thread
      do s
for i step 1 block
  for j step 1 thread
    do t
"""
SOFTMAX = """
kernel softmax(in x: float32[5, 77], out y: float32[5, 77]) shared 1 {
  local m: float32[5]
  local e: float32[5, 77]
  local t: float32[5]
  stage s0 over i:5 reduce max k:77
    value = x[i, k]
    m[i] = acc
  stage s1 over i:5, j:77
    e[i, j] = exp(sub(x[i, j], m[i]))
  stage s2 over i:5 reduce add k:77
    value = e[i, k]
    t[i] = acc
  stage s3 over i:5, j:77
    y[i, j] = div(e[i, j], t[i])
}
for i step 1 block
  for k step 16 seq
    for k step 1 thread
      do s0
  for j step 32 seq
    for j step 1 thread
      do s1
  for k step 32 seq
    for k step 1 thread
      do s2
  for j step 96 seq
    for j step 3 thread
      for j step 1 unroll
        do s3
"""
SUM = """
kernel total(in x: DTYPE[3, N], out y: DTYPE[3]) {
  stage s over i:3 reduce FN k:N
    value = x[i, k]
    y[i] = acc
}
for i step 1 block
  for k step 8 seq
    for k step 1 thread
      do s
"""
WHOLE_SUM = """
kernel whole(in x: float32[3, 11], out y: float32[3]) {
  stage s over i:3 reduce add k:11
    value = x[i, k]
    y[i] = acc
}
for i step 1 seq
  for k step 1 thread
    do s
"""
SCATTER = """
kernel scatter(in x: float32[6], in at: int64[4], in u: float32[4], out y: float32[6]) {
  stage s over i:6 ordered
    y[i] = x[i]
  stage t over i:4 ordered
    y[at[i]] add= u[i]
}
for i step 1 seq
  do s
for i step 1 seq
  do t
"""


def arrays(text: str, dims: dict[str, int]) -> tuple[object, dict[str, np.ndarray]]:
    nest = parse_nest(text)
    rng = np.random.default_rng(1)
    inputs = {}
    for buffer in nest.kernel.params:
        if buffer.role == "in":
            shape = [dims.get(str(d), d) for d in buffer.type.shape]
            dtype = numpy_dtype(buffer.type.dtype)
            inputs[buffer.name] = rng.uniform(-3, 4, shape).astype(dtype)
    return nest, inputs


def check(text: str, dims: dict[str, int] | None = None, **given: np.ndarray) -> None:
    """The device function, the emulated nest and numpy agree."""
    dims = dims or {}
    nest, inputs = arrays(text, dims)
    inputs |= given
    expected = evaluate_kernel(nest.kernel, inputs, dims)
    found = run_device(nest, emit_device(nest, TARGET), inputs, dims)
    emulated = NativeKernel(emulated_nest(nest), native()).run(inputs, dims, threads=2)
    assert set(found) == set(expected) == set(emulated)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(emulated[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", [MATMUL, PADDED, PIECES, SOFTMAX, WHOLE_SUM])
def test_a_mapped_nest_computes_its_kernel(text: str) -> None:
    check(text)


@pytest.mark.parametrize("n, m", [(1, 1), (4, 8), (7, 30), (0, 5)])
def test_extents_known_at_launch(n: int, m: int) -> None:
    check(SYMBOLIC, {"n": n, "m": m})


@pytest.mark.parametrize("extent", [8, 21, 40])
@pytest.mark.parametrize(
    "dtype, fn", [("float32", "add"), ("float64", "mul"), ("int64", "max"), ("int8", "min"), ("bool", "or")]
)
def test_threads_share_a_reduction(dtype: str, fn: str, extent: int) -> None:
    check(SUM.replace("DTYPE", dtype).replace("FN", fn).replace("N", str(extent)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_arguments_take_the_long_way(dtype: str) -> None:
    text = ANGLES.replace("DTYPE", dtype)
    x = np.resize(np.asarray([1e20, 3e38, 0.5, -1e10, 2.0**46], dtype), 21)
    check(text, x=x, y=np.full(21, 0.7, dtype))


def test_ordered_stages_run_in_one_thread() -> None:
    device = emit_device(parse_nest(SCATTER), TARGET)
    assert (device.blocks, device.threads) == (1, 1)
    check(SCATTER, at=np.array([2, 0, 2, 5]))


def test_a_launch_covers_all_positions() -> None:
    device = emit_device(parse_nest(MATMUL), TARGET)
    assert (device.blocks, device.threads, device.shared_bytes) == (5 * 3, 4 * 8, 0)
    assert emit_device(parse_nest(SYMBOLIC), TARGET).threads == 2 * 8


def test_shared_memory_holds_one_row_and_one_partial_result_a_thread() -> None:
    # t0 and t2 are one float each, on 16 bytes; e is a row of 77 floats; the widest reduction has 32 threads.
    assert emit_device(parse_nest(SOFTMAX), TARGET).shared_bytes == 16 + 320 + 16 + 32 * 4


def test_local_buffers_that_shared_memory_cannot_hold_lie_outside() -> None:
    text = SOFTMAX.replace("77", "12500")
    device = emit_device(parse_nest(text), TARGET)
    # On 64 bytes each, a row of floats; t still fits the 48 KiB of shared memory.
    assert (device.scratch_bytes, device.shared_bytes) == (50048, 16 + 16 + 32 * 4)
    check(text)


def test_local_buffers_of_unknown_extent_lie_outside() -> None:
    text = SOFTMAX.replace("77", "n").replace(":5", ":m").replace("[5", "[m")
    device = emit_device(parse_nest(text), TARGET)
    assert str(device.scratch_bytes) == "64*floordiv(4*n + 63, 64)" and device.threads == 32
    check(text, {"n": 77, "m": 5})


def test_a_block_has_at_most_1024_threads() -> None:
    text = SUM.replace("DTYPE", "float32").replace("FN", "add").replace("N", "9000")
    emit_device(parse_nest(text.replace("step 8", "step 1024")), TARGET)
    with pytest.raises(CompileError, match="2048 threads"):
        emit_device(parse_nest(text.replace("step 8", "step 2048")), TARGET)


def test_the_threads_of_a_block_are_counted_when_compiling() -> None:
    text = SYMBOLIC.replace("for j step 8 block\n", "").replace("    for i step 2", "  for i step 2")
    with pytest.raises(CompileError, match="given to threads whole"):
        emit_device(parse_nest(text), TARGET)


def test_threads_share_a_reduction_only_where_it_is_innermost() -> None:
    text = MATMUL.replace("for k step 1 unroll", "for k step 1 thread")
    with pytest.raises(NestError, match="innermost"):
        check_nest(parse_nest(text))

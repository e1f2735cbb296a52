"""The native runtime's own functions, on this machine and as AArch64 code under qemu."""

import ctypes

import numpy as np
import pytest

from egc.codegen.runtime_ir import runtime_ir
from egc.errors import CompileError
from egc.runtime import abi
from egc.runtime.checksum import checksum
from tests.support.elf_exec import emulator, run_under_qemu
from tests.support.native import ARM, X86, link_kernels

# Buffers: a context whose counters say that the other thread has arrived and one sleeps; data; room for
# hashes; results. The barrier opens at once, and waking calls the operating system, with no second thread.
PROBE = f"""
declare void @{abi.CHECKSUM}(ptr, i64, ptr)
declare i64 @{abi.TICKS}()
declare void @{abi.CALL}(ptr)
declare void @{abi.STOP}(ptr)
declare void @{abi.WORKER}(ptr, i64)

define void @count(ptr %buffers, ptr %dims, i64 %thread, i64 %threads) {{
  %at = load ptr, ptr %buffers
  %old = load i64, ptr %at
  %new = add i64 %old, 1
  store i64 %new, ptr %at
  ret void
}}

define void @probe(ptr %buffers, ptr %dims, i64 %thread, i64 %threads) {{
  %context = load ptr, ptr %buffers
  %data.at = getelementptr ptr, ptr %buffers, i64 1
  %data = load ptr, ptr %data.at
  %hashes.at = getelementptr ptr, ptr %buffers, i64 2
  %hashes = load ptr, ptr %hashes.at
  %result.at = getelementptr ptr, ptr %buffers, i64 3
  %result = load ptr, ptr %result.at
  %steps.at = getelementptr ptr, ptr %buffers, i64 4
  %steps = load ptr, ptr %steps.at
  %bytes = load i64, ptr %dims
  call void @{abi.CHECKSUM}(ptr %data, i64 %bytes, ptr %hashes)
  %before = call i64 @{abi.TICKS}()
  store ptr @count, ptr %steps
  %arguments.at = getelementptr i8, ptr %steps, i64 {abi.STEP_BUFFERS}
  store ptr %result.at, ptr %arguments.at
  %table.at = getelementptr i8, ptr %context, i64 {abi.CONTEXT_STEPS}
  store ptr %steps, ptr %table.at
  call void @{abi.CALL}(ptr %context)
  call void @{abi.STOP}(ptr %context)
  call void @{abi.WORKER}(ptr %context, i64 1)
  %after = call i64 @{abi.TICKS}()
  %passed = sub i64 %after, %before
  %passed.at = getelementptr i64, ptr %result, i64 1
  store i64 %passed, ptr %passed.at
  ret void
}}
"""


def word(context: np.ndarray, offset: int) -> np.ndarray:
    return context[offset : offset + 4].view(np.int32)


@pytest.mark.parametrize("triple", [X86, ARM])
def test_runtime_functions_under_qemu(triple: str) -> None:
    if emulator(triple.split("-")[0]) is None:
        pytest.skip("qemu-user is not installed")
    context = np.zeros(abi.CONTEXT_SIZE, np.uint8)
    for offset, value in (
        (abi.CONTEXT_ARRIVED, 1),
        (abi.CONTEXT_EPOCH_SLEEPERS, 1),
        (abi.CONTEXT_GENERATION_SLEEPERS, 1),
        (abi.CONTEXT_STEP_COUNT, 1),
        (abi.CONTEXT_THREADS, 2),
    ):
        word(context, offset)[:] = value
    data = np.random.default_rng(0).integers(0, 256, abi.CHUNK_BYTES + 40001, dtype=np.uint8)
    buffers = [
        context,
        data,
        np.zeros(2, np.uint64),
        np.zeros(2, np.int64),
        np.zeros(abi.STEP_SIZE, np.uint8),
    ]
    linked = link_kernels(PROBE, triple)
    context, _, hashes, (count, passed), _ = run_under_qemu(linked, "probe", buffers, [data.size])
    np.testing.assert_array_equal(hashes, checksum(data))
    assert count == 1
    assert passed > 0
    assert word(context, abi.CONTEXT_EPOCH) == 2
    assert word(context, abi.CONTEXT_ARRIVED) == 0
    assert word(context, abi.CONTEXT_GENERATION) == 1
    assert word(context, abi.CONTEXT_SHUTDOWN) == 1


@pytest.mark.parametrize("triple", ["riscv64-unknown-linux-gnu", "x86_64-pc-windows-msvc", "nonsense"])
def test_other_systems_are_refused(triple: str) -> None:
    with pytest.raises(CompileError, match="no runtime for"):
        runtime_ir(triple)


def test_fields_of_the_context_do_not_share_cache_lines() -> None:
    words = (
        abi.CONTEXT_EPOCH, abi.CONTEXT_EPOCH_SLEEPERS, abi.CONTEXT_ARRIVED, abi.CONTEXT_GENERATION,
        abi.CONTEXT_GENERATION_SLEEPERS, abi.CONTEXT_STEPS,
    )  # fmt: skip
    assert len({offset // 64 for offset in words}) == len(words)
    assert max(value for name, value in vars(abi).items() if name.startswith("CONTEXT_")) == abi.CONTEXT_SIZE
    assert ctypes.sizeof(ctypes.c_void_p) == 8

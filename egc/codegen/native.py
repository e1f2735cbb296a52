"""Kernels called in this process, one at a time: for tests, measurements and tuning. Programs run in
egc.runtime.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from egc.codegen.compile import KernelObject, compile_module
from egc.codegen.link import link
from egc.codegen.runtime_ir import support_ir
from egc.codegen.target import Target
from egc.ir.dims import evaluate

_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class NativeKernel:
    """The machine code of one kernel, mapped into this process: `call` it with the addresses of the
    parameters and of the symbolic dims, the thread's number and how many threads there are; `address` is
    where it stands.
    """

    def __init__(self, kernel: KernelObject, target: Target) -> None:
        self.kernel = kernel
        linked = link([kernel.code], [compile_module(support_ir(target.triple), target)])
        size = max(len(linked.code), 1)
        self._memory = mmap.mmap(-1, size, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(linked.code)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self.address: int = base + linked.symbols[kernel.name]
        self.call = _SIGNATURE(self.address)

    def bind(
        self, arrays: Sequence[np.ndarray], symbols: Sequence[str], dims: Mapping[str, int], threads: int = 1
    ) -> Callable[[int], None]:
        """A call with these arrays (parameters in order, packed ones in their layout), given the thread's
        number.
        """
        scratch = np.zeros(evaluate(self.kernel.scratch_bytes, dims) * threads + 64, np.uint8)
        addresses = [array.ctypes.data for array in arrays] + [-(-scratch.ctypes.data // 64) * 64]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        values = (ctypes.c_int64 * max(len(symbols), 1))(*[dims[name] for name in symbols])
        keep = (arrays, scratch)

        def call(thread: int) -> None:
            assert keep
            self.call(pointers, values, thread, threads)

        return call


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy of `array` that begins on a cache line, as every buffer of a program does."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    out = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


def best_seconds(run: Callable[[], None], budget: float = 0.2) -> float:
    """The least time of one `run` in repetitions over `budget` seconds, each of at least 2 ms."""
    run()
    began = time.perf_counter()
    run()
    repeat = max(1, int(2e-3 / max(time.perf_counter() - began, 1e-8)))
    best = float("inf")
    end = time.perf_counter() + budget
    while time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(repeat):
            run()
        best = min(best, (time.perf_counter() - began) / repeat)
    return best

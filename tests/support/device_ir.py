"""Runs the LLVM IR of a device function on this CPU, one operating-system thread for every thread of a block.

The IR is the one that PTX is made of. Only the special registers, the barrier and shared memory are replaced:
by callbacks into Python, and by a plain array, since blocks run one after another.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Mapping

import llvmlite.binding as llvm
import numpy as np

from egc.codegen.nvptx import DeviceKernel
from egc.codegen.program import packed
from egc.ir.dims import evaluate
from egc.ir.nest import Nest
from egc.ir.types import numpy_dtype

_SREG = "llvm.nvvm.read.ptx.sreg"
_BARRIER = "llvm.nvvm.barrier.cta.sync.aligned.all"


class DeviceOnHost:
    """The callable form of a device function."""

    def __init__(self, kernel: DeviceKernel) -> None:
        self.kernel = kernel
        head = next(line for line in kernel.text.splitlines() if line.startswith("define"))
        self.parameters = head.count("%")
        self._here = threading.local()
        self._barrier = threading.Barrier(kernel.threads, timeout=60)
        self._symbols = {
            "egc_test_tid": ctypes.CFUNCTYPE(ctypes.c_int32)(lambda: self._here.tid),
            "egc_test_ctaid": ctypes.CFUNCTYPE(ctypes.c_int32)(lambda: self._here.block),
            "egc_test_barrier": ctypes.CFUNCTYPE(None, ctypes.c_int32)(lambda _: self._meet()),
        }
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        for name, function in self._symbols.items():
            llvm.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
        module = llvm.parse_assembly(host_text(kernel.text))
        module.verify()
        # Without the features of this CPU, half floats would call a library that is not there.
        cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        machine = llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=1)
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        self._address = self._engine.get_function_address(kernel.name)
        self.barriers = 0

    def _meet(self) -> None:
        self.barriers += 1
        self._barrier.wait()

    def launch(self, words: list[int], blocks: int) -> None:
        """Every block, its threads at once; the arguments are addresses and dims."""
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(words))(self._address)
        failures: list[BaseException] = []

        def live(tid: int) -> None:
            self._here.tid = tid
            try:
                for block in range(blocks):
                    self._here.block = block
                    function(*words)
                    self._barrier.wait()
            except BaseException as error:
                failures.append(error)
                self._barrier.abort()

        threads = [threading.Thread(target=live, args=(i,)) for i in range(self.kernel.threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]


def host_text(text: str) -> str:
    """Device IR as host IR."""
    text = re.sub(r'target triple = "[^"]*"\n', "", text)
    text = text.replace("ptx_kernel ", "").replace("internal addrspace(3) global", "internal global")
    text = re.sub(r"addrspacecast ptr addrspace\(3\) (\S+) to ptr", r"getelementptr i8, ptr \1, i64 0", text)
    text = re.sub(r'"target-cpu"="[^"]*" "nvvm.maxntid"="\d+"', "", text)
    for name in ("tid", "ctaid"):
        text = text.replace(f"{_SREG}.{name}.x", f"egc_test_{name}")
    return text.replace(_BARRIER, "egc_test_barrier")


def run_device(
    nest: Nest, kernel: DeviceKernel, inputs: Mapping[str, np.ndarray], dims: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
    """The out buffers by name; each lies between margins that must stay as they were."""
    dims = dims or {}
    packs = {pack.buffer: pack for pack in nest.packs}
    arrays: dict[str, np.ndarray] = {}
    memory: dict[str, np.ndarray] = {}
    for buffer in nest.kernel.params:
        shape = tuple(evaluate(d, dims) for d in buffer.type.shape)
        dtype = numpy_dtype(buffer.type.dtype)
        content = np.full(shape, 1, dtype)
        if buffer.name in inputs:
            content = np.asarray(inputs[buffer.name], dtype).reshape(shape)
            if buffer.name in packs:
                content = packed(content, packs[buffer.name])
        raw = np.full(content.nbytes + 320, 0xA5, np.uint8)
        start = -(raw.ctypes.data + 64) % 64 + 64
        memory[buffer.name] = raw
        arrays[buffer.name] = raw[start : start + content.nbytes].view(dtype).reshape(content.shape)
        arrays[buffer.name][...] = content
    host = DeviceOnHost(kernel)
    blocks = evaluate(kernel.blocks, dims)
    scratch = np.full(blocks * evaluate(kernel.scratch_bytes, dims) + 64, 0xA5, np.uint8)
    words = [a.ctypes.data for a in arrays.values()] + [dims[s] for s in nest.kernel.symbols]
    host.launch([*words, -(-scratch.ctypes.data // 64) * 64], blocks)
    for name, raw in memory.items():
        start = arrays[name].ctypes.data - raw.ctypes.data
        edges = np.concatenate([raw[:start], raw[start + arrays[name].nbytes :]])
        assert (edges == 0xA5).all(), f"{kernel.name} wrote outside {name}"
    return {b.name: arrays[b.name].copy() for b in nest.kernel.params if b.role == "out"}

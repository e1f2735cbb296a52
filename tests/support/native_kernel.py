"""Runs one scheduled kernel natively, on numpy arrays."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping

import numpy as np

from egc.codegen.compile import compile_module, compile_nest
from egc.codegen.link import link
from egc.codegen.runtime_ir import support_ir
from egc.codegen.target import Target
from egc.ir.dims import evaluate
from egc.ir.nest import Nest, Pack
from egc.ir.types import numpy_dtype


def packed(array: np.ndarray, pack: Pack) -> np.ndarray:
    """`array` in the layout of `pack`: panels of `block` positions of one dim, zero-filled at the end."""
    panels = -(-array.shape[pack.dim] // pack.block)
    moved = np.moveaxis(array, pack.dim, -1)
    filled = np.zeros((*moved.shape[:-1], panels * pack.block), array.dtype)
    filled[..., : moved.shape[-1]] = moved
    return np.ascontiguousarray(np.moveaxis(filled.reshape(*moved.shape[:-1], panels, pack.block), -2, 0))


class NativeKernel:
    """Machine code of a nest. `bind` it to arrays once, then call it as often as wanted."""

    def __init__(self, nest: Nest, target: Target) -> None:
        self.nest = nest
        self.compiled = compile_nest(nest, target)
        linked = link([self.compiled.code], [compile_module(support_ir(target.triple), target)])
        self._memory = mmap.mmap(-1, len(linked.code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(linked.code)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self.call = signature(base + linked.symbols[self.compiled.name])

    def run(
        self, inputs: Mapping[str, np.ndarray], dims: Mapping[str, int] | None = None, threads: int = 1
    ) -> dict[str, np.ndarray]:
        """The out buffers by name. Out buffers that `inputs` holds begin with that content, others with ones' bits."""
        dims = dims or {}
        kernel = self.nest.kernel
        packs = {pack.buffer: pack for pack in self.nest.packs}
        arrays: dict[str, np.ndarray] = {}
        guarded: dict[str, np.ndarray] = {}
        for buffer in kernel.params:
            shape = tuple(evaluate(d, dims) for d in buffer.type.shape)
            dtype = numpy_dtype(buffer.type.dtype)
            if buffer.name in inputs:
                content = np.asarray(inputs[buffer.name], dtype).reshape(shape)
                if buffer.name in packs:
                    content = packed(content, packs[buffer.name])
            else:
                content = np.full(shape, 1, dtype)
            # A margin on both sides shows writes outside; reads outside see junk.
            guarded[buffer.name] = memory = np.full(content.nbytes + 256, 0xA5, np.uint8)
            arrays[buffer.name] = memory[128 : 128 + content.nbytes].view(dtype).reshape(content.shape)
            arrays[buffer.name][...] = content
        scratch = np.full(evaluate(self.compiled.scratch_bytes, dims) * threads + 64, 0xFF, np.uint8)
        addresses = [a.ctypes.data for a in arrays.values()] + [-(-scratch.ctypes.data // 64) * 64]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        values = (ctypes.c_int64 * max(len(kernel.symbols), 1))(*[dims[s] for s in kernel.symbols])
        for thread in range(threads):
            self.call(pointers, values, thread, threads)
        for name, memory in guarded.items():
            edges = np.concatenate([memory[:128], memory[128 + arrays[name].nbytes :]])
            assert (edges == 0xA5).all(), f"{kernel.name} wrote outside {name}"
        return {b.name: arrays[b.name].copy() for b in kernel.params if b.role == "out"}


"""Runs one scheduled kernel natively, on numpy arrays, and notices writes outside its buffers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from egc.codegen import native
from egc.codegen.compile import compile_nest
from egc.codegen.program import packed
from egc.codegen.target import Target
from egc.ir.dims import evaluate
from egc.ir.nest import Nest
from egc.ir.types import numpy_dtype

_JUNK = 0xA5


class NativeKernel:
    """Machine code of a nest."""

    def __init__(self, nest: Nest, target: Target) -> None:
        self.nest = nest
        self.compiled = compile_nest(nest, target)
        self._code = native.NativeKernel(self.compiled, target)

    def run(
        self, inputs: Mapping[str, np.ndarray], dims: Mapping[str, int] | None = None, threads: int = 1
    ) -> dict[str, np.ndarray]:
        """The out buffers by name; one that `inputs` holds begins with that content, others with ones."""
        dims = dims or {}
        kernel = self.nest.kernel
        packs = {pack.buffer: pack for pack in self.nest.packs}
        arrays: dict[str, np.ndarray] = {}
        memories: dict[str, np.ndarray] = {}
        for buffer in kernel.params:
            shape = tuple(evaluate(d, dims) for d in buffer.type.shape)
            dtype = numpy_dtype(buffer.type.dtype)
            content = np.ones(shape, dtype)
            if buffer.name in inputs:
                content = np.asarray(inputs[buffer.name], dtype).reshape(shape)
                if buffer.name in packs:
                    content = packed(content, packs[buffer.name])
            # A margin on both sides shows writes outside; reads outside see junk.
            memories[buffer.name] = memory = np.full(content.nbytes + 256, _JUNK, np.uint8)
            arrays[buffer.name] = memory[128 : 128 + content.nbytes].view(dtype).reshape(content.shape)
            arrays[buffer.name][...] = content
        call = self._code.bind(list(arrays.values()), kernel.symbols, dims, threads)
        for thread in range(threads):
            call(thread)
        for name, memory in memories.items():
            edges = np.concatenate([memory[:128], memory[128 + arrays[name].nbytes :]])
            assert (edges == _JUNK).all(), f"{kernel.name} wrote outside {name}"
        return {b.name: arrays[b.name].copy() for b in kernel.params if b.role == "out"}

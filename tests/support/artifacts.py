"""Small artifacts of hand-written kernels, for the tests of the runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from egc.runtime.artifact import Artifact, artifact_in_memory, layout_constants
from egc.runtime.manifest import (
    Buffer,
    Coverage,
    HostStep,
    KernelStep,
    Manifest,
    Port,
    Step,
    Target,
)
from tests.support.native import HOST, link_kernels

# out[i] = a[i] + b[i] for n = dims[0] float32; each thread computes its share.
ADD = """
define void @add(ptr %buffers, ptr %dims, i64 %thread, i64 %threads) {
entry:
  %a = load ptr, ptr %buffers
  %b.at = getelementptr ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %b.at
  %out.at = getelementptr ptr, ptr %buffers, i64 2
  %out = load ptr, ptr %out.at
  %n = load i64, ptr %dims
  %n.first = mul i64 %n, %thread
  %first = udiv i64 %n.first, %threads
  %following = add i64 %thread, 1
  %n.last = mul i64 %n, %following
  %last = udiv i64 %n.last, %threads
  %some = icmp ult i64 %first, %last
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ %first, %entry ], [ %next, %loop ]
  %a.i = getelementptr float, ptr %a, i64 %i
  %b.i = getelementptr float, ptr %b, i64 %i
  %out.i = getelementptr float, ptr %out, i64 %i
  %x = load float, ptr %a.i
  %y = load float, ptr %b.i
  %z = fadd float %x, %y
  store float %z, ptr %out.i
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %last
  br i1 %more, label %loop, label %done
done:
  ret void
}

; Each thread writes its number into its 64 bytes of scratch, and then copies scratch to out[thread], an i64.
define void @tag(ptr %buffers, ptr %dims, i64 %thread, i64 %threads) {
  %out = load ptr, ptr %buffers
  %scratch.at = getelementptr ptr, ptr %buffers, i64 1
  %scratch = load ptr, ptr %scratch.at
  %offset = mul i64 %thread, 64
  %mine = getelementptr i8, ptr %scratch, i64 %offset
  store volatile i64 %thread, ptr %mine
  %value = load volatile i64, ptr %mine
  %out.at = getelementptr i64, ptr %out, i64 %thread
  store i64 %value, ptr %out.at
  ret void
}
"""


def add_step(a: int, b: int, out: int, n: int | str, barrier: bool = True) -> KernelStep:
    return KernelStep("add", (a, b, out), (n,), 0, barrier, f"add to {out}")


def make(
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    buffers: Sequence[Buffer],
    steps: Sequence[Step],
    constants: Sequence[np.ndarray] = (),
    symbols: Sequence[str] = (),
    threads: int = 1,
    features: Sequence[str] = (),
    arena_bytes: int | None = None,
) -> tuple[Manifest, bytes, list[np.ndarray]]:
    """What `write_artifact` takes, for the kernels above. Constant buffers get their offsets in order."""
    linked = link_kernels(ADD)
    offsets = iter(layout_constants(c.nbytes for c in constants))
    placed = tuple(
        replace(b, offset=next(offsets)) if b.where == "constant" and b.text is None else b for b in buffers
    )
    manifest = Manifest(
        model="test",
        target=Target(HOST.split("-")[0], tuple(features)),
        threads=threads,
        symbols=tuple(symbols),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        buffers=placed,
        steps=tuple(steps),
        functions=linked.symbols,
        coverage=Coverage(len(steps), tuple(s.label for s in steps if isinstance(s, HostStep))),
        arena_bytes=arena_bytes,
    )
    return manifest, linked.code, list(constants)


def chain(length: int = 3, shape: tuple[int | str, ...] = ("n",), threads: int = 1) -> Artifact:
    """y = x + w + … + w, `length` additions through the arena; w is a constant of 1000 ones."""
    manifest, code, constants = chain_parts(length, shape, threads)
    return artifact_in_memory(manifest, code, constants, {"note": "a record"})


def chain_parts(
    length: int = 3, shape: tuple[int | str, ...] = ("n",), threads: int = 1
) -> tuple[Manifest, bytes, list[np.ndarray]]:
    buffers = [Buffer("float32", shape, "input"), Buffer("float32", (1000,), "constant")]
    buffers += [Buffer("float32", shape, "arena") for _ in range(length - 1)]
    buffers += [Buffer("float32", shape, "output")]
    count = "*".join(map(str, shape)) or 1
    steps = [add_step(0 if i == 0 else i + 1, 1, i + 2, count) for i in range(length)]
    symbols = [dim for dim in shape if isinstance(dim, str)]
    return make(
        [Port("x", "float32", shape, 0)],
        [Port("y", "float32", shape, length + 1)],
        buffers,
        steps,
        [np.ones(1000, np.float32)],
        symbols,
        threads,
    )

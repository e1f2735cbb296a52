"""What code is generated for: the processor as LLVM knows it, and its vector registers."""

from __future__ import annotations

import difflib
from functools import lru_cache

from msgspec import Struct

from egc.errors import UsageError


class Target(Struct, frozen=True):
    """A processor. `vector_bits` is the widest vector register's size, `registers` how many there are."""

    arch: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int

    def lanes(self, bits: int) -> int:
        """How many elements of `bits` bits one vector register holds."""
        return max(1, self.vector_bits // bits)


_X86 = "x86_64-unknown-linux-gnu"
_ARM = "aarch64-unknown-linux-gnu"

# The x86-64 levels are those of the System V psABI (x86-64-ABI, section 3.1.1).
_KNOWN = {
    "x86-64-v3": Target("x86-64-v3", _X86, "x86-64-v3", "", 256, 16),
    "x86-64-v4": Target("x86-64-v4", _X86, "x86-64-v4", "", 512, 32),
    "aarch64": Target("aarch64", _ARM, "generic", "+neon", 128, 32),
}
ARCHITECTURES = (*_KNOWN, "native")


def parse_arch(text: str) -> Target:
    """The target named `text`, one of ARCHITECTURES; UsageError lists them where it is none."""
    check_arch(text)
    return native() if text == "native" else _KNOWN[text]


def check_arch(text: str) -> None:
    """Raise UsageError where `text` names no target."""
    if text in ARCHITECTURES:
        return
    near = difflib.get_close_matches(text, ARCHITECTURES, n=1, cutoff=0.4)
    raise UsageError(
        f"unknown architecture {text!r}",
        why=f"code can be generated for {', '.join(ARCHITECTURES)}",
        hint=f"--arch {near[0]}" if near else "--arch native",
    )


@lru_cache(maxsize=1)
def native() -> Target:
    """The machine this process runs on; UsageError where it is older than every known architecture."""
    import llvmlite.binding as llvm

    triple = llvm.get_process_triple()
    cpu = llvm.get_host_cpu_name()
    features = llvm.get_host_cpu_features()
    flags = features.flatten()
    if triple.startswith("aarch64"):
        return Target("native", _ARM, cpu, flags, 128, 32)
    has = features.get
    if has("avx512f") and has("avx512bw") and has("avx512dq") and has("avx512vl"):
        return Target("native", _X86, cpu, flags, 512, 32)
    if has("avx2") and has("fma") and has("f16c"):
        return Target("native", _X86, cpu, flags, 256, 16)
    raise UsageError(
        f"this machine ({cpu}, {triple}) is not supported",
        why="it needs AVX2, FMA and F16C, or 64-bit Arm",
        hint=f"--arch one of {', '.join(_KNOWN)}, to compile for another machine",
    )

"""Does this machine have the CPU features that an artifact's code needs?"""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

from egc.errors import ArtifactError
from egc.runtime.manifest import Target

# LLVM's name of each feature that generated code may use → Linux's in /proc/cpuinfo.
_LINUX_NAMES = {
    "x86_64": {
        "avx": "avx",
        "avx2": "avx2",
        "avx512bf16": "avx512_bf16",
        "avx512bitalg": "avx512_bitalg",
        "avx512bw": "avx512bw",
        "avx512cd": "avx512cd",
        "avx512dq": "avx512dq",
        "avx512f": "avx512f",
        "avx512fp16": "avx512_fp16",
        "avx512ifma": "avx512ifma",
        "avx512vbmi": "avx512vbmi",
        "avx512vbmi2": "avx512_vbmi2",
        "avx512vl": "avx512vl",
        "avx512vnni": "avx512_vnni",
        "avx512vp2intersect": "avx512_vp2intersect",
        "avx512vpopcntdq": "avx512_vpopcntdq",
        "avxvnni": "avx_vnni",
        "bmi": "bmi1",
        "bmi2": "bmi2",
        "f16c": "f16c",
        "fma": "fma",
        "gfni": "gfni",
        "lzcnt": "abm",
        "movbe": "movbe",
        "popcnt": "popcnt",
        "sse3": "pni",
        "sse4.1": "sse4_1",
        "sse4.2": "sse4_2",
        "ssse3": "ssse3",
    },
    "aarch64": {
        "bf16": "bf16",
        "dotprod": "asimddp",
        "fp16fml": "asimdfhm",
        "fullfp16": "asimdhp",
        "i8mm": "i8mm",
        "lse": "atomics",
        "neon": "asimd",
        "rdm": "asimdrdm",
        "sve": "sve",
        "sve2": "sve2",
    },
}
# The levels of the x86-64 psABI §3.1.1, as far as generated code uses them.
_V2 = ("popcnt", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
_LEVELS = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}
_MACHINE_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


def needed_features(architecture: str, cpu: str, flags: str) -> tuple[str, ...]:
    """What a `Target` must name for code compiled for LLVM's `cpu` and `flags` ("+avx2,-avx512f"), sorted.

    Of all flags only those count that change the code: a CPU without `clzero` runs it as well.
    """
    known = _LINUX_NAMES[architecture]
    given = {flag[1:] for flag in flags.split(",") if flag.startswith("+")}
    return tuple(sorted({*_LEVELS.get(cpu, ()), *(given & known.keys())}))


def check_machine(target: Target) -> None:
    """ArtifactError where `target` is another architecture, or needs features that this CPU does not have."""
    machine = platform.machine().lower()
    machine = _MACHINE_NAMES.get(machine, machine)
    if target.architecture != machine:
        raise ArtifactError(
            f"the artifact was compiled for {target.architecture}; this machine is {machine}",
            hint="compile the model with --arch native on this machine",
        )
    missing = missing_features(target, machine_features())
    if missing:
        raise ArtifactError(
            f"this CPU lacks what the artifact was compiled for: {', '.join(missing)}",
            why="its code would stop at the first instruction that the CPU does not know",
            hint="compile the model with --arch native on this machine",
        )


def missing_features(target: Target, present: frozenset[str]) -> list[str]:
    """The features of `target` that are not among `present`, Linux's names, in order."""
    names = _LINUX_NAMES.get(target.architecture, {})
    return [feature for feature in target.features if names.get(feature, feature) not in present]


@lru_cache(maxsize=1)
def machine_features() -> frozenset[str]:
    """The feature flags of this machine's first CPU, as Linux names them."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError as error:
        raise ArtifactError(
            "cannot tell whether this CPU can run the artifact",
            where="/proc/cpuinfo",
            why=error.strerror,
            hint="run on Linux with /proc mounted",
        ) from None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()

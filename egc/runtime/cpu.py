"""Does this machine have the CPU features that an artifact's code needs?"""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

from egc.errors import ArtifactError
from egc.runtime.manifest import Target

# LLVM's name of a feature → Linux's in /proc/cpuinfo, where they differ by more than '.' or '-' for '_'.
_LINUX_NAMES = {
    "x86_64": {
        "64bit": "lm",
        "avx512bf16": "avx512_bf16",
        "avx512bitalg": "avx512_bitalg",
        "avx512fp16": "avx512_fp16",
        "avx512vbmi2": "avx512_vbmi2",
        "avx512vnni": "avx512_vnni",
        "avx512vp2intersect": "avx512_vp2intersect",
        "avx512vpopcntdq": "avx512_vpopcntdq",
        "avxvnni": "avx_vnni",
        "amx-bf16": "amx_bf16",
        "bmi": "bmi1",
        "crc32": "sse4_2",
        "lzcnt": "abm",
        "pclmul": "pclmulqdq",
        "prfchw": "3dnowprefetch",
        "rdrnd": "rdrand",
        "sahf": "lahf_lm",
        "sha": "sha_ni",
        "sse3": "pni",
    },
    "aarch64": {
        "bf16": "bf16",
        "crc": "crc32",
        "dotprod": "asimddp",
        "fp-armv8": "fp",
        "fullfp16": "asimdhp",
        "lse": "atomics",
        "neon": "asimd",
        "rdm": "asimdrdm",
    },
}
_MACHINE_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


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
    plain = {feature: feature.replace(".", "_").replace("-", "_") for feature in target.features}
    return [f for f in target.features if names.get(f, plain[f]) not in present]


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

"""Which CPU features an artifact asks for, and whether this machine has them."""

import llvmlite.binding as llvm
import pytest

from egc.runtime.cpu import machine_features, missing_features, needed_features
from egc.runtime.manifest import Target
from tests.support.native import HOST

ARCHITECTURE = HOST.split("-")[0]


def test_code_for_this_machine_runs_on_it() -> None:
    flags = llvm.get_host_cpu_features().flatten()
    needed = needed_features(ARCHITECTURE, llvm.get_host_cpu_name(), flags)
    assert len(needed) > 1
    assert missing_features(Target(ARCHITECTURE, needed), machine_features()) == []


def test_levels_and_flags_become_features() -> None:
    assert needed_features("x86_64", "znver5", "+fma,-avx2,+avx,+clzero") == ("avx", "fma")
    assert {"avx2", "fma"} < set(needed_features("x86_64", "x86-64-v3", ""))
    assert "avx512vl" in needed_features("x86_64", "x86-64-v4", "+popcnt")
    assert needed_features("aarch64", "generic", "+neon") == ("neon",)


@pytest.mark.parametrize("lacks", ["avx2", "bmi1", "sse4_1"])
def test_one_missing_feature_is_found(lacks: str) -> None:
    target = Target("x86_64", needed_features("x86_64", "x86-64-v3", ""))
    haswell = {"pni", "ssse3", "sse4_1", "sse4_2", "popcnt", "avx", "avx2"}
    haswell |= {"bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}
    assert missing_features(target, frozenset(haswell)) == []
    missing = missing_features(target, frozenset(haswell) - {lacks})
    assert missing == [{"bmi1": "bmi", "sse4_1": "sse4.1"}.get(lacks, lacks)]


def test_unknown_features_are_missing() -> None:
    assert missing_features(Target("x86_64", ("avx11",)), machine_features()) == ["avx11"]

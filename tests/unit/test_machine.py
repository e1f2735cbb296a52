"""Cost models are read whole or refused with a reason."""

import copy
import math
import tomllib
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from egc import machine
from egc.errors import BadInput, UsageError
from egc.machine import Machine, load_machine, native
from egc.resources import cost_model
from egc.schedule import gpu_machine
from egc.schedule.gpu_machine import GpuMachine, load_gpu_machine

CPUS = ["aarch64", "golden-cove-avx512", "x86-64-v3", "x86-64-v4", "zen5-avx512"]


@pytest.mark.parametrize("name", CPUS)
def test_shipped_machines_are_sensible(name: str) -> None:
    machine = load_machine(name)
    assert machine.name == name
    sizes = [machine.l1_bytes, *(level.bytes for level in machine.levels)]
    assert sizes == sorted(sizes)
    speeds = [level.bandwidth for level in machine.levels]
    assert speeds == sorted(speeds, reverse=True)
    assert all(level.bandwidth <= level.shared_bandwidth for level in machine.levels)
    assert max(machine.tiles.unroll) < machine.core.registers
    assert machine.rates.flops == machine.peak_flops * machine.cores


def test_the_peak_of_the_measured_machine() -> None:
    assert load_machine("zen5-avx512").peak_flops == pytest.approx(277e9, rel=0.01)


def test_this_machine_has_a_model() -> None:
    assert native().name in CPUS


AVX512 = "avx2 fma f16c avx512f avx512bw avx512dq avx512vl"


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ("sse2 avx2 fma f16c", "x86-64-v3"),
        (AVX512, "x86-64-v4"),
        (f"{AVX512} avx_vnni", "x86-64-v4"),
        (f"{AVX512} avx_vnni amx_tile", "golden-cove-avx512"),
        (f"{AVX512} avx_vnni avx512_vp2intersect", "zen5-avx512"),
        ("fp asimd evtstrm", "aarch64"),
    ],
)
def test_a_cpu_is_told_by_its_features(features: str, name: str) -> None:
    assert machine._best(frozenset(features.split())).name == name


def test_a_cpu_that_no_file_describes() -> None:
    with pytest.raises(UsageError, match="this CPU is not supported"):
        machine._best(frozenset(["sse2"]))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as error:
        load_machine("x86-64-v5")
    assert error.value.what == "there is no cost model 'x86-64-v5'"
    assert "zen5-avx512" in str(error.value.why)
    assert str(error.value.hint).startswith("--cost-model x86-64-v")


def shipped(name: str) -> str:
    path = cost_model(name)
    assert path is not None
    return path.read_text()


def test_a_machine_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(shipped("x86-64-v3").replace("registers = 16", "registers = 12"))
    machine = load_machine(str(path))
    assert (machine.name, machine.core.registers) == ("mine", 12)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("fma = 2\n", "", "`core`: there is no entry `fma`"),
        ("fma = 2\n", "fma = 2\nfmas = 3\n", "`core`: there should be no entry `fmas`"),
        ("overlap = 3\n", "", "there is no entry `overlap`"),
        ("overlap = 3\n", "overlap = 3\noverlapp = 3\n", "there should be no entry `overlapp`"),
        ('"dram"', '"hbm"', "[[memory]] has l1, l2, l3, hbm, not l1, l2, l3 where there is one, and dram"),
        ("[instructions]\n", "[instructions]\nexpp = 3\n", "`instructions`: there should be no entry `expp`"),
        ("overlap = 3\n", "overlap = 0.5\n", "`overlap`: expected `float` >= 1.0"),
        (
            "gb_per_s = 20\n",
            "gb_per_s = 20\nbytes = 4\n",
            "the last entry of [[memory]] is main memory and has no size",
        ),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, why: str) -> None:
    path = tmp_path / "mine.toml"
    text = shipped("x86-64-v3")
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(BadInput) as error:
        load_machine(str(path))
    assert error.value.why == why


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("cores = = 2")
    with pytest.raises(BadInput, match="the cost model cannot be read"):
        load_machine(str(path))


def entries(table: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every entry of a TOML file, tables and their elements included."""
    pairs = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in pairs:
        yield (*way, key)
        yield from entries(value, (*way, key))


WRONG: list[Any] = [
    *(-1, 0, float("nan"), float("inf"), 1e30, 1e-300, 1.5, 10**12, 10**400),
    *("x", [], [0], [-4], [[1, 2]], {}, True, date(2026, 1, 1), None),
]
# What stands for something even where it is 0, or may be any text.
FREE = {"description", "arch", "features", "name", "measured"}
OPTIONAL = {"instructions", "bytes", "shared_gb_per_s"}


@pytest.mark.parametrize(("name", "load"), [("x86-64-v3", load_machine), ("sm_80", load_gpu_machine)])
def test_no_entry_is_believed_unseen(
    name: str, load: Callable[[str], Machine | GpuMachine], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every entry with every wrong value, or left out (None), is refused by name, or is a possible number."""
    path, table = tmp_path / "mine.toml", tomllib.loads(shipped(name))
    path.touch()
    for way in entries(table):
        for wrong in WRONG:
            changed = copy.deepcopy(table)
            place = changed
            for key in way[:-1]:
                place = place[key]
            if wrong is None:
                del place[way[-1]]
            else:
                place[way[-1]] = wrong
            monkeypatch.setattr("egc.machine.table_of", lambda _, table=changed: table)
            monkeypatch.setattr("egc.schedule.gpu_machine.table_of", lambda _, table=changed: table)
            for module in (machine, gpu_machine):
                module._read.cache_clear()
            try:
                loaded = load(str(path))
            except BadInput as error:
                assert error.why and error.hint and ("kind" in way or str(way[0]) in error.why), (way, wrong)
            except UsageError:
                assert "kind" in way
            else:
                number = isinstance(wrong, (int, float)) and not isinstance(wrong, bool)
                small = number and 0 <= wrong < 1e13
                fewer = wrong is None and isinstance(way[-1], int)  # of several
                spared = fewer or (wrong in (None, {}) and OPTIONAL & set(way))
                assert small or spared or FREE & set(way), (way, wrong)
                assert math.isfinite(loaded.peak_flops) and loaded.rates.bandwidth > 0

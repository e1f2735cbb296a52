"""Nests for GPUs: what the rules and the cost model choose, and what they may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from egc.errors import BadInput, UsageError
from egc.ir.kernel import Kernel
from egc.ir.nest import check_nest
from egc.ir.text import parse_kernel
from egc.resources import data_folder
from egc.schedule.access import model_stage
from egc.schedule.cells import For, Saturator
from egc.schedule.gpu import gpu_rules, schedule_device
from egc.schedule.gpu_cost import GpuCoster, mapping
from egc.schedule.gpu_machine import GpuMachine, load_gpu_machine

MATMUL = """
kernel matmul(in a: float32[M, K], const in w: float32[K, N], out y: float32[M, N]) {
  stage s over i:M, j:N reduce add k:K
    value = mul(a[i, k], w[k, j])
    y[i, j] = acc
}
"""
ROWS = """
kernel rows(in x: float32[64, 1000], out y: float32[64, 1000]) shared 1 {
  local m: float32[64]
  stage s0 over i:64 reduce FN k:1000
    value = x[i, k]
    m[i] = acc
  stage s1 over i:64, j:1000
    y[i, j] = sub(x[i, j], m[i])
}
"""
MACHINES = ("sm_80", "sm_90")


def matmul(m: int | str, n: int, k: int) -> Kernel:
    return parse_kernel(MATMUL.replace("M", str(m)).replace("N", str(n)).replace("K", str(k)))


@pytest.mark.parametrize("name", MACHINES)
def test_a_large_product_fills_the_device_from_registers(name: str) -> None:
    machine = load_gpu_machine(name)
    scheduled = schedule_device(matmul(2048, 2048, 512), machine)
    check_nest(scheduled.nest)
    (loops,) = scheduled.nest.stages
    tile = {loop.axis: loop.step for loop in loops if loop.kind == "thread"}
    assert tile["i"] * tile["j"] >= 16, "a thread computes a tile, whose operands it reads once"
    low, high = machine.tiles.block_threads
    assert low <= scheduled.cost.threads <= high and scheduled.cost.blocks >= machine.core.count
    # A multiply-add does two operations: no prediction may beat the device's peak.
    assert scheduled.cost.seconds > 2 * 2048 * 2048 * 512 / machine.peak_flops
    assert {"gpu-block", "gpu-sink-threads"} <= set(scheduled.rules)


def test_a_small_product_spreads_its_sum_over_threads() -> None:
    scheduled = schedule_device(matmul(1, 8, 4096), load_gpu_machine("sm_80"))
    (loops,) = scheduled.nest.stages
    assert loops[-1].axis == "k" and loops[-1].kind == "thread"
    assert "gpu-sum" in scheduled.rules


def test_an_exact_product_keeps_each_sum_in_its_order() -> None:
    machine, exact = load_gpu_machine("sm_80"), Saturator(gpu_rules("exact"))
    scheduled = schedule_device(matmul(1, 8, 4096), machine, saturator=exact)
    assert all(loop.kind != "thread" for loops in scheduled.nest.stages for loop in loops if loop.axis == "k")
    # A maximum does not round, so threads may share it all the same.
    for fn, kinds in (("add", {"seq", "unroll"}), ("max", {"seq", "thread"})):
        nest = schedule_device(parse_kernel(ROWS.replace("FN", fn)), machine, saturator=exact).nest
        assert {loop.kind for loop in nest.stages[0] if loop.axis == "k"} <= kinds
        assert nest.stages[0][-1].kind == ("thread" if fn == "max" else "unroll")


def test_rows_are_blocks_that_all_stages_share() -> None:
    scheduled = schedule_device(parse_kernel(ROWS.replace("FN", "add")), load_gpu_machine("sm_90"))
    assert [(loop.axis, loop.kind) for loop in scheduled.nest.shared] == [("i", "block")]
    assert [loops[-1].kind for loops in scheduled.nest.stages] == ["thread", "thread"]
    assert scheduled.cost.blocks == 64


def test_neighbouring_threads_read_neighbouring_elements() -> None:
    text = """
kernel copy(in x: float32[512, 512], out y: float32[512, 512]) {
  stage s over i:512, j:512
    y[i, j] = neg(x[i, j])
}
"""
    (loops,) = schedule_device(parse_kernel(text), load_gpu_machine("sm_80")).nest.stages
    innermost = [loop for loop in loops if loop.kind == "thread"][-1]
    assert (innermost.axis, innermost.step) == ("j", 1)


def test_an_unknown_extent_is_split_by_known_steps() -> None:
    (loops,) = schedule_device(matmul("n", 64, 64), load_gpu_machine("sm_80")).nest.stages
    assert loops[0].axis == "i" and loops[0].kind == "block"


def test_the_alternatives_cost_more_and_are_nests_too() -> None:
    scheduled = schedule_device(matmul(256, 256, 256), load_gpu_machine("sm_80"))
    assert scheduled.alternatives
    for nest, cost in scheduled.alternatives:
        check_nest(nest)
        assert cost.seconds >= scheduled.cost.seconds and nest != scheduled.nest


def test_equal_kernels_get_equal_nests() -> None:
    kernel, machine = matmul(100, 60, 30), load_gpu_machine("sm_80")
    assert str(schedule_device(kernel, machine)) == str(schedule_device(kernel, machine))


# The cost of one nest.


def price(machine: GpuMachine, *loops: tuple[str, int, int, str]) -> float:
    kernel = matmul(512, 512, 64)
    coster = GpuCoster(model_stage(kernel, kernel.stages[0], machine), machine)  # type: ignore[arg-type]
    cost = coster.cost([For(*loop, 0) for loop in loops])
    assert cost is not None
    return cost.seconds


def test_a_cost_prefers_coalesced_loads_and_more_blocks() -> None:
    machine = load_gpu_machine("sm_80")
    sums = ("k", 1, 64, "seq")
    along = price(machine, ("i", 1, 512, "block"), ("j", 32, 512, "block"), ("j", 1, 32, "thread"), sums)
    across = price(machine, ("j", 1, 512, "block"), ("i", 32, 512, "block"), ("i", 1, 32, "thread"), sums)
    assert along < across
    few = price(
        machine,
        ("i", 512, 512, "block"),
        ("j", 32, 512, "block"),
        ("i", 1, 512, "seq"),
        ("j", 1, 32, "thread"),
        sums,
    )
    assert along < few


def test_a_tile_that_needs_too_many_registers_has_no_cost() -> None:
    machine = load_gpu_machine("sm_80")
    kernel = matmul(512, 512, 64)
    coster = GpuCoster(model_stage(kernel, kernel.stages[0], machine), machine)  # type: ignore[arg-type]
    loops = [For("i", 16, 512, "thread", 0), For("k", 1, 64, "seq", 0), For("i", 1, 16, "unroll", 0)]
    assert coster.cost(loops) is not None
    assert coster.cost([*loops, For("j", 1, 16, "unroll", 0)]) is None
    assert mapping(loops, frozenset("k")).threads == 32


# Machines.


@pytest.mark.parametrize("name, tflops", [("sm_80", 19.5), ("sm_90", 66.9)])
def test_the_published_peaks(name: str, tflops: float) -> None:
    assert load_gpu_machine(name).peak_flops == pytest.approx(tflops * 1e12, rel=0.01)


def test_a_new_machine_is_a_new_file(tmp_path: Path) -> None:
    text = (data_folder("cost_models") / "sm_80.toml").read_text()
    file = tmp_path / "small.toml"
    file.write_text(text.replace("count = 108", "count = 4"))
    machine = load_gpu_machine(str(file))
    assert machine == replace(load_gpu_machine("sm_80"), name="small", core=machine.core)
    assert machine.core.count == 4


@pytest.mark.parametrize(
    "old, new, why",
    [
        ("fma = 64", "fmas = 64", "`core`: there should be no entry `fmas`"),
        ("launch_ns = 2500", "", "there is no entry `launch_ns`"),
        ("[32, 256]", "[64, 32]", "begins with more than it ends with"),
        ("[32, 256]", "[3, 3]", "none of `tiles.threads` lies within"),
        ('"l2"', '"l3"', "[[memory]] has l3, dram, not l2 and dram"),
    ],
)
def test_a_file_that_is_not_complete_is_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    file = tmp_path / "odd.toml"
    file.write_text((data_folder("cost_models") / "sm_80.toml").read_text().replace(old, new))
    with pytest.raises(BadInput, match="cannot be used") as raised:
        load_gpu_machine(str(file))
    assert why in str(raised.value)


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="no cost model"):
        load_gpu_machine("sm_1")

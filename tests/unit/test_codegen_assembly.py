"""What makes the generated inner loops fast, as facts of the assembly: registers, few instructions."""

from __future__ import annotations

import re

import pytest

from egc.codegen.compile import assembly
from egc.codegen.emit import emit
from egc.codegen.target import Target, parse_arch
from egc.ir.nest import Nest
from egc.machine import load_machine
from egc.schedule import schedule
from tests.support import scheduling as make
from tests.support.nests import convolution, product


def inner_loop(nest: Nest, target: Target, multiply: str) -> list[str]:
    """The instructions of the loop with the most multiply-adds."""
    lines = [line.strip() for line in assembly(emit(nest, target).text, target).splitlines()]
    lines = [line for line in lines if line and not line.startswith((".p2align", ".cfi", "#", "//"))]
    loops: list[list[str]] = []
    for end, line in enumerate(lines):
        jump = re.match(r"(j\w+|b\.\w+|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.LBB\w+)", line)
        if jump and f"{jump[2]}:" in lines[:end]:
            body = lines[lines.index(f"{jump[2]}:") + 1 : end + 1]
            if not any(other.endswith(":") for other in body):
                loops.append(body)
    return max(loops, key=lambda body: sum(multiply in line for line in body))


@pytest.mark.parametrize(("arch", "rows", "columns", "lanes"), [
    ("x86-64-v4", 6, 64, 16), ("x86-64-v4", 14, 32, 16), ("x86-64-v3", 6, 16, 8), ("aarch64", 8, 8, 4)
])  # fmt: skip
def test_matrix_product(arch: str, rows: int, columns: int, lanes: int) -> None:
    multiply = "fmla" if arch == "aarch64" else "vfmadd"
    body = inner_loop(product(rows * 8, 768, columns * 4, rows, columns, lanes), parse_arch(arch), multiply)
    tile = rows * columns // lanes
    assert sum(multiply in line for line in body) == tile
    assert not [line for line in body if re.search(r"[re]sp|\bsp\b", line)], "the loop spills registers"
    assert not [line for line in body if re.match(r"(vmovups|vmovaps)\s+%\w+,.*\(", line)], "the loop stores"
    # One load for each row and each vector of columns, and little to count and to address.
    assert len(body) <= tile + rows + columns // lanes + 5


@pytest.mark.parametrize("machine", ["x86-64-v4", "zen5-avx512", "golden-cove-avx512"])
def test_the_tile_that_the_scheduler_chooses_fits_the_registers(machine: str) -> None:
    for kernel in (
        make.product(128, 768, 768),
        make.convolution(30, 128, 128, 3),
        make.convolution(9, 512, 512, 3),
    ):
        nest = schedule(kernel, load_machine(machine), threads=1).nest
        body = inner_loop(nest, parse_arch("x86-64-v4"), "vfmadd")
        assert sum("vfmadd" in line for line in body) >= 20
        assert not [line for line in body if re.search(r"zmm.*rsp|rsp.*zmm", line)], (
            "the loop spills registers"
        )


def test_the_guard_of_a_convolution_costs_its_inner_loop_nothing() -> None:
    body = inner_loop(convolution(14, 64, 64, 6, 64, 16), parse_arch("x86-64-v4"), "vfmadd")
    assert sum("vfmadd" in line for line in body) == 24
    assert not [line for line in body if re.match(r"(cmov|vblend|vpblend|kmov|set)", line)]
    assert len(body) <= 24 + 6 + 4 + 5


def test_vectors_are_as_wide_as_the_target_has_them() -> None:
    wide = inner_loop(product(48, 768, 128, 6, 64, 16), parse_arch("x86-64-v4"), "vfmadd")
    assert all("%zmm" in line for line in wide if "vfmadd" in line)

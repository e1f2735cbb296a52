"""What is fetched ahead, panels of constants and operands: nothing changes but the prefetches, and they cover
what comes next.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from msgspec.structs import replace

from egc.codegen.emit import emit
from egc.codegen.fetch import Along
from egc.codegen.memory import Position
from egc.codegen.target import native, parse_arch
from egc.ir.dims import evaluate, parse_dim
from egc.ir.nest import Loop, Nest
from egc.ir.text import parse_nest
from egc.machine import load_machine
from egc.rules import load_rules
from egc.schedule import schedule
from tests.support import scheduling as make
from tests.support.kernels import random_array
from tests.support.native_kernel import NativeKernel
from tests.support.nests import ahead, product

# The columns of b are 8 · head + position: a panel after the last one of a head is one of the next head.
HEADS = """
kernel heads(in a: float32[13, 20], const in b: float32[20, 24], out y: float32[3, 13, 8]) {
  stage heads over h:3, i:13, e:8 reduce add r:20
    value = mul(a[i, r], b[r, 8*h + e])
    y[h, i, e] = acc
}
pack b dim 1 by 8 ahead
for h step 1 par
  for i step 4 par
    for r step 1 seq
      for i step 1 unroll
        for e step 1 vec
          do heads
"""


def same(nest: Nest, plain: Nest, threads: int) -> None:
    """Both compute the same, bit by bit."""
    rng = np.random.default_rng(1)
    inputs = {
        b.name: random_array(rng, "float32", b.type.extents) for b in nest.kernel.params if b.role == "in"
    }
    found, expected = (NativeKernel(n, native()).run(inputs, threads=threads) for n in (nest, plain))
    np.testing.assert_array_equal(found["y"], expected["y"])


@pytest.mark.parametrize(
    "nest", [ahead(product(13, 20, 70, 4, 32, 16)), ahead(product(4, 20, 70, 4, 32, 16)), parse_nest(HEADS)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_values_are_those_without(nest: Nest, threads: int) -> None:
    same(nest, replace(nest, packs=tuple(replace(pack, ahead=False) for pack in nest.packs)), threads)


@pytest.mark.parametrize(("tiles", "each"), [(1, 4), (2, 2), (3, 2), (4, 1), (9, 1)])
def test_the_tiles_of_a_panel_share_the_lines_of_the_next(tiles: int, each: int) -> None:
    nest = ahead(product(6 * tiles, 768, 128, 6, 64, 16))
    text = emit(nest, parse_arch("x86-64-v4")).text
    assert len(re.findall(r"call void @llvm\.prefetch", text)) == each


@pytest.mark.parametrize(("rows", "each"), [(24, 2), (48, 1)])
def test_steps_within_one_line_fetch_it_once(rows: int, each: int) -> None:
    nest = ahead(product(rows, 768, 128, 6, 64, 16))
    loops = [loop for loop in nest.stages[0] if loop.axis != "r"]
    nest = replace(nest, stages=((*loops[:2], Loop("r", 2, "seq"), Loop("r", 1, "unroll"), *loops[2:]),))
    text = emit(nest, parse_arch("x86-64-v4")).text
    assert len(re.findall(r"call void @llvm\.prefetch", text)) == each


def test_the_text_form_says_so() -> None:
    nest = ahead(product(13, 20, 70, 4, 32, 16))
    assert "pack b dim 1 by 32 ahead" in str(nest)
    assert parse_nest(str(nest)) == nest


def test_constants_that_the_first_cache_does_not_hold_are_fetched_ahead() -> None:
    machine = load_machine("golden-cove-avx512")
    large, some, small = (
        schedule(make.product(128, k, n), machine, threads=2) for k, n in ((768, 3072), (768, 128), (64, 128))
    )
    for scheduled in (large, some):
        assert scheduled.nest.packs[0].ahead
        assert "loop-fetch-ahead" in scheduled.rules
    assert not any(pack.ahead for pack in small.nest.packs)
    assert "loop-fetch-ahead" not in small.rules


@pytest.mark.parametrize(("disabled", "rows"), [((), 512), (("loop-chunk", "loop-turns"), 9 * 512)])
def test_twice_what_is_fetched_ahead_fits_the_cache(disabled: tuple[str, ...], rows: int) -> None:
    """Of a panel of 9 · 512 rows one position of the window at a time, or the whole of a narrower one."""
    machine = load_machine("golden-cove-avx512")
    book = load_rules(disabled=disabled)
    nest = schedule(make.convolution(9, 512, 512, 3), machine, threads=1, book=book).nest
    (pack,) = nest.packs
    assert pack.ahead
    assert bool(nest.chunks(0)) == (not disabled)
    assert 2 * 4 * rows * pack.block <= machine.levels[0].bytes


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("nest", "operand"),
    [
        (product(13, 20, 70, 4, 32, 16), "a"),
        (product(49, 33, 64, 26, 32, 16), "a"),
        (schedule(make.convolution(9, 17, 40, 3), load_machine("golden-cove-avx512")).nest, "x"),
    ],
)
def test_values_are_those_without_operands_fetched(nest: Nest, operand: str, threads: int) -> None:
    same(replace(nest, fetched=(operand,)), replace(nest, fetched=()), threads)


@pytest.mark.parametrize(("rows", "each"), [(4, 1), (16, 1), (17, 2), (26, 2)])
def test_each_step_fetches_a_line_for_one_row_in_sixteen(rows: int, each: int) -> None:
    nest = replace(product(4 * rows, 768, 64, rows, 32, 16), fetched=("a",))
    text = emit(nest, parse_arch("x86-64-v4")).text
    assert len(re.findall(r"call void @llvm\.prefetch", text)) == each
    assert parse_nest(str(nest)) == nest


@pytest.mark.parametrize(("rows", "each"), [(4, 1), (6, 2), (13, 4)])
def test_no_step_fetches_a_row_that_has_had_its_turn(rows: int, each: int) -> None:
    """Four steps at once are a quarter of a line: in them, a quarter of the rows has its turn."""
    nest = replace(product(4 * rows, 768, 64, rows, 32, 16), fetched=("a",))
    loops = [loop for loop in nest.stages[0] if loop.axis != "r"]
    nest = replace(nest, stages=((*loops[:2], Loop("r", 4, "seq"), Loop("r", 1, "unroll"), *loops[2:]),))
    text = emit(nest, parse_arch("x86-64-v4")).text
    assert len(re.findall(r"call void @llvm\.prefetch", text)) == each


@pytest.mark.parametrize("unit", [1, 2, 3, 4, 48])
@pytest.mark.parametrize("rows", [1, 4, 8, 16])
def test_every_line_of_every_row_is_fetched(rows: int, unit: int) -> None:
    along = Along("r", "i", 16, rows)
    start = parse_dim("START")
    lines = set()
    for first in range(0, 48, unit):
        for step in range(unit):
            row = along.row({"r": Position(start + step)})
            if row is not None:
                lines.add((evaluate(row, {"START": first}), (first + step) // 16))
    assert lines == {(row, line) for row in range(rows) for line in range(3)}


def test_operands_that_the_first_cache_does_not_hold_are_fetched_by_rule() -> None:
    machine = load_machine("golden-cove-avx512")
    far, near, long, often = (
        schedule(make.product(*mkn), machine)
        for mkn in ((3136, 256, 64), (16, 256, 64), (196, 2048, 64), (196, 256, 1024))
    )
    assert (far.nest.fetched, near.nest.fetched) == (("a",), ())
    assert long.nest.fetched == (), "half of the first cache does not hold what a tile reads"
    assert often.nest.fetched == (), "each tile is used for 16 panels, and waited for once"
    assert "loop-fetch-next-tile" in far.rules
    assert "loop-fetch-next-tile" not in near.rules
    without = schedule(
        make.product(3136, 256, 64), machine, book=load_rules(disabled=["loop-fetch-next-tile"])
    )
    assert without.nest == replace(far.nest, fetched=())


def test_what_completes_short_sums_is_fetched_meanwhile() -> None:
    machine = load_machine("golden-cove-avx512")
    far, near, long = (
        schedule(make.residual(m, k, 64), machine) for m, k in ((784, 256), (16, 256), (784, 512))
    )
    assert [("x" in found.nest.fetched) for found in (far, near, long)] == [True, False, False]
    assert "loop-fetch-residual" in far.rules
    same(far.nest, replace(far.nest, fetched=()), threads=2)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_lines_of_each_row_come_one_after_the_other(steps: int) -> None:
    """A tile of 6 rows of 32 columns, whose sums take 64 steps of the code: half an element a step further in
    every row, and one fetch for a row where two positions of the sum make one step.
    """
    kernel = make.residual(12, 64 * steps, 64)
    loops = list(product(12, 64 * steps, 64, 6, 32, 16).stages[0])
    if steps == 2:
        at = next(i for i, loop in enumerate(loops) if loop.axis == "r")
        loops[at : at + 1] = [Loop("r", 2, "seq"), Loop("r", 1, "unroll")]
    renamed = [replace(loop, axis={"i": "m", "j": "n", "r": "k"}[loop.axis]) for loop in loops]
    text = emit(Nest(kernel, (tuple(renamed),), fetched=("x",)), parse_arch("x86-64-v4")).text
    assert len(re.findall(r"call void @llvm\.prefetch", text)) == 6
    halves = re.findall(r"(%\S+) = (?:ashr|lshr) i64 %\S+, 1\n", text)
    assert len(halves) == 1

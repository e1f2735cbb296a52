"""Tiles that take turns inside a loop over a sum: the sums wait in memory, and come out the same, bit by
bit.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from msgspec.structs import replace

from egc.codegen.emit import emit
from egc.codegen.storage import plan_locals, plan_sums, scratch_bytes
from egc.codegen.target import native, parse_arch
from egc.ir.evaluate_kernel import evaluate_kernel
from egc.ir.nest import Loop, Nest, NestError, check_nest
from egc.ir.text import parse_nest
from egc.machine import load_machine
from egc.schedule import predict, schedule
from tests.support import scheduling as make
from tests.support.kernels import random_array
from tests.support.native_kernel import NativeKernel
from tests.support.nests import ahead, product

# Something is added where the sums are complete; neither rows nor columns divide into tiles.
ROWS = """
kernel rows(in a: {dtype}[13, 24], const in b: {dtype}[24, 40], in r: {dtype}[13, 40], \
out y: {dtype}[13, 40]) {{
  stage rows over m:13, n:40 reduce {combine} k:24
    value = mul(a[m, k], b[k, n])
    y[m, n] = relu(add(acc, r[m, n]))
}}
pack b dim 1 by 32 ahead
{loops}
"""
TURNS = "for n step 32 par,for k step {chunk} seq,for m step 4 seq,for k step 2 seq,for m step 1 unroll"
TILE = "for n step 16 unroll,for k step 1 unroll,for n step 1 vec,do rows"
WINDOW = """
kernel window(in x: float32[9, 9, 12], const in w: float32[3, 36, 48], out y: float32[7, 7, 48]) {
  stage window over i:7, j:7, o:48 reduce add h:3, c:36
    value = mul(x[i + h, j + floordiv(c, 12), mod(c, 12)], w[h, c, o])
    y[i, j, o] = acc
}
pack w dim 2 by 32 ahead
for o step 32 seq
  for h step 1 seq
    for c step 12 seq
      for i step 2 seq
        for j step 3 seq
          for c step 1 seq
            for i step 1 unroll
              for j step 1 unroll
                for o step 16 unroll
                  for o step 1 vec
                    do window
"""


def lines(loops: str) -> str:
    return "\n".join("  " * depth + line for depth, line in enumerate(loops.split(",")))


def rows(chunk: int = 8, dtype: str = "float32", combine: str = "add") -> Nest:
    """A product in chunks of `chunk`."""
    loops = lines(f"{TURNS.format(chunk=chunk)},{TILE}")
    return parse_nest(ROWS.format(dtype=dtype, combine=combine, loops=loops))


def without_turns(nest: Nest) -> Nest:
    """The nest in which every tile finishes its sums in one turn."""
    chunks = nest.chunks(0)
    return replace(nest, stages=(tuple(loop for loop in nest.stages[0] if loop not in chunks),))


def outputs(nest: Nest, threads: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    inputs = {
        b.name: random_array(rng, b.type.dtype, b.type.extents) for b in nest.kernel.params if b.role == "in"
    }
    found = NativeKernel(nest, native()).run(inputs, threads=threads)
    expected = evaluate_kernel(nest.kernel, inputs, {})
    tolerance = 2e-2 if "float16" in nest.kernel.params[0].type.dtype else 1e-5
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name].astype("f8"), value.astype("f8"), rtol=tolerance, atol=tolerance
        )
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32"])
@pytest.mark.parametrize("chunk", [4, 12])
def test_the_order_of_additions_stays(chunk: int, dtype: str, threads: int) -> None:
    nest = rows(chunk, dtype)
    assert nest.chunks(0) == (Loop("k", chunk, "seq"),)
    np.testing.assert_array_equal(outputs(nest, threads)["y"], outputs(without_turns(nest))["y"])


def test_other_reductions_wait_too() -> None:
    nest = rows(combine="max")
    np.testing.assert_array_equal(outputs(nest)["y"], outputs(without_turns(nest))["y"])


def test_the_rows_of_a_window_stay_outside() -> None:
    nest = parse_nest(WINDOW)
    assert [str(loop) for loop in nest.chunks(0)] == ["for h step 1 seq", "for c step 12 seq"]
    plain = without_turns(nest)
    order = [loop for loop in plain.stages[0] if loop.axis != "h"]
    order.insert(3, Loop("h", 1, "seq"))
    plain = replace(plain, stages=(tuple(order),))
    np.testing.assert_array_equal(outputs(nest)["y"], outputs(plain)["y"])


def test_tiles_fetch_the_next_chunk() -> None:
    """Four tiles of 6 rows use a chunk of 192 rows of 64 columns: each fetches a line a step of the next
    chunk, which begins as many elements further on.
    """
    nest = ahead(product(24, 768, 128, 6, 64, 16))
    columns, tiles, *inner = nest.stages[0]
    loops = (columns, Loop("r", 192, "seq"), replace(tiles, kind="seq"), *inner)
    text = emit(replace(nest, stages=(loops,)), parse_arch("x86-64-v4")).text
    (fetch,) = re.findall(r"call void @llvm\.prefetch\.p0\(ptr (%\S+),", text)
    assert f"{fetch} = getelementptr float, ptr" in text
    assert re.search(rf"{fetch} = getelementptr float, ptr \S+, i64 {192 * 64}\n", text)


def test_what_waits_takes_as_much_memory_as_the_tiles_of_a_panel() -> None:
    (sums,) = plan_sums(rows(), plan_locals(rows())[1])[0].values()
    assert dict(sums.extents) == {"m": 13, "n": 32}
    assert (sums.elements, sums.offset) == (13 * 32, None)


def test_what_does_not_fit_the_stack_is_scratch() -> None:
    nest = schedule(make.product(512, 3072, 768), load_machine("golden-cove-avx512"), threads=1).nest
    wide = parse_nest(
        str(nest).split("pack")[0]
        + "\n"
        + lines(
            "for k step 384 seq,for m step 8 seq,for n step 32 seq,for k step 1 seq,for m step 1 unroll,"
            "for n step 16 unroll,for n step 1 vec,do product"
        )
    )
    assert scratch_bytes(wide, {}) == 512 * 768 * 4


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("for k step 8 seq", "for k step 16 seq", "steps of 16 do not divide the extent 24"),
        ("for k step 8 seq", "for k step 8 unroll", "only seq loops have tiles that take turns inside"),
        ("for n step 32 par", "for n step 32 block", "the sums of a GPU's threads stay in their registers"),
        ("m:13", "m:M", "tiles take turns only where all extents are known when compiling"),
    ],
)
def test_nests_that_break_the_form(old: str, new: str, why: str) -> None:
    text = str(rows()).replace(old, new)
    if new == "m:M":
        text = text.replace("[13,", "[M,")
    with pytest.raises(NestError, match=why):
        check_nest(parse_nest(text))


def test_long_sums_with_far_constants_are_made_in_chunks() -> None:
    machine = load_machine("golden-cove-avx512")
    found = schedule(make.convolution(9, 512, 512, 3), machine, threads=1)
    assert found.nest.chunks(0)
    assert {"loop-chunk", "loop-turns"} & set(found.rules)
    assert predict(found.nest, machine, threads=1) == found.cost
    nest = schedule(make.product(128, 3072, 768), machine, threads=1).nest
    assert [loop.axis for loop in nest.chunks(0)] == ["k"]
    costs = [predict(one, machine, threads=1).seconds for one in (nest, without_turns(nest))]
    assert costs == sorted(costs)
    assert not schedule(make.product(3136, 64, 64), machine, threads=1).nest.chunks(0)

"""How close generated matrix products and convolutions come to the machine's peak, on one thread.

    python -m bench.kernels [--arch x86-64-v4]

Each kernel has its nest given by hand: this measures code generation alone. The peak is measured too, by
independent multiply-adds on registers. Shapes are those of BERT-base (sequence 128) and ResNet-50 at batch
1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from egc.codegen.compile import CompiledKernel, compile_module, compile_nest
from egc.codegen.native import NativeKernel, aligned, best_seconds
from egc.codegen.program import packed
from egc.codegen.target import ARCHITECTURES, Target, parse_arch
from egc.ir.dims import symbol
from egc.ir.expr import Acc, Const, Load, call
from egc.ir.kernel import Axis, Buffer, Kernel, Stage
from egc.ir.nest import Loop, Nest, Pack
from egc.ir.types import TensorType

F32 = "float32"
# m, k, n of a product; size, channels in and out, window, stride of a convolution.
PRODUCTS = [(128, 768, 768), (128, 768, 2304), (128, 768, 3072), (128, 3072, 768), (384, 768, 768)]
CONVOLUTIONS = [
    (224, 3, 64, 7, 2),
    (56, 64, 64, 3, 1),
    (56, 64, 256, 1, 1),
    (56, 256, 64, 1, 1),
    (56, 128, 128, 3, 2),
    (28, 128, 128, 3, 1),
    (28, 512, 128, 1, 1),
    (14, 256, 256, 3, 1),
    (14, 1024, 256, 1, 1),
    (7, 512, 512, 3, 1),
    (7, 2048, 512, 1, 1),
]


def product_nest(m: int, k: int, n: int, rows: int, columns: int, lanes: int) -> Nest:
    """y[m, n] = a[m, k] · b[k, n], tiles of `rows` by `columns`, b packed in panels."""
    i, j, r = (symbol(name) for name in "ijr")
    a = Buffer("a", TensorType(F32, (m, k)), "in")
    b = Buffer("b", TensorType(F32, (k, n)), "in", constant=True)
    y = Buffer("y", TensorType(F32, (m, n)), "out")
    value = call("mul", Load("a", (i, r), F32), Load("b", (r, j), F32))
    axes = (Axis("i", m), Axis("j", n))
    stage = Stage("product", axes, "y", (i, j), value, Acc(F32), (Axis("r", k),), "add")
    loops = (
        Loop("j", columns, "par"),
        Loop("i", rows, "par"),
        Loop("r", 1, "seq"),
        *_tile("i", rows, "j", lanes),
    )
    return Nest(Kernel("product", (a, b, y), (stage,)), (loops,), (), (Pack("b", 1, columns),))


def convolution_nest(
    size: int, inner: int, outer: int, window: int, stride: int, pixels: int, columns: int, lanes: int
) -> Nest:
    """A channels-last convolution with `same` padding, tiles of `pixels` by `columns` channels."""
    padding = window // 2
    out = (size + 2 * padding - window) // stride + 1
    h, w, o, kh, kw, c = (symbol(name) for name in ("h", "w", "o", "kh", "kw", "c"))
    at = (h * stride + kh - padding, w * stride + kw - padding)
    guards = tuple((position, size) for position in at) if padding else ()
    x = Buffer("x", TensorType(F32, (size, size, inner)), "in")
    k = Buffer("k", TensorType(F32, (window, window, inner, outer)), "in", constant=True)
    y = Buffer("y", TensorType(F32, (out, out, outer)), "out")
    pixel = Load("x", (*at, c), F32, guards, Const(0.0, F32) if guards else None)
    value = call("mul", pixel, Load("k", (kh, kw, c, o), F32))
    axes = (Axis("h", out), Axis("w", out), Axis("o", outer))
    reduce = (Axis("kh", window), Axis("kw", window), Axis("c", inner))
    stage = Stage("convolution", axes, "y", (h, w, o), value, call("relu", Acc(F32)), reduce, "add")
    outside = (Loop("o", columns, "par"), Loop("h", 1, "par"), Loop("w", pixels, "par"))
    sums = tuple(Loop(axis.name, 1, "seq") for axis in reduce)
    kernel = Kernel("convolution", (x, k, y), (stage,))
    return Nest(kernel, ((*outside, *sums, *_tile("w", pixels, "o", lanes)),), (), (Pack("k", 3, columns),))


def _tile(rows: str, count: int, columns: str, lanes: int) -> tuple[Loop, ...]:
    unrolled = (Loop(rows, 1, "unroll"),) if count > 1 else ()
    return (*unrolled, Loop(columns, lanes, "unroll"), Loop(columns, 1, "vec"))


def peak(target: Target) -> float:
    """Measured single-thread float32 FLOP/s: twenty-four (or twelve) independent chains of multiply-adds."""
    chains, lanes, trips = (24 if target.registers > 16 else 12), target.lanes(32), 100_000
    vector = f"<{lanes} x float>"
    numbers = range(chains)
    phis = "\n".join(f"%a{i} = phi {vector} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in numbers)
    half = "splat (float 0.5)"
    fma = f"{vector} @llvm.fma.v{lanes}f32"
    steps = "\n".join(
        f"%b{i} = call {fma}({vector} {half}, {vector} {half}, {vector} %a{i})" for i in numbers
    )
    stores = "\n".join(
        f"%p{i} = getelementptr {vector}, ptr %out, i64 {i}\nstore {vector} %b{i}, ptr %p{i}, align 4"
        for i in numbers
    )
    text = f"""target triple = "{target.triple}"
define void @peak(ptr %bufs, ptr %dims, i64 %tid, i64 %nthreads) "prefer-vector-
width"="{target.vector_bits}" {{ entry: %out = load ptr, ptr %bufs br label %loop loop: %i = phi i64 [ 0,
%entry ], [ %next, %loop ] {phis} {steps} %next = add i64 %i, 1 %more = icmp slt i64 %next, {trips} br i1
%more, label %loop, label %done done: {stores} ret void }} declare {fma}({vector}, {vector}, {vector})
"""
    kernel = NativeKernel(CompiledKernel("peak", compile_module(text, target), 0), target)
    run = kernel.bind([np.zeros(chains * lanes, np.float32)], (), {})
    return 2 * chains * lanes * trips / best_seconds(lambda: run(0), 0.5)


def measure(nest: Nest, target: Target) -> float:
    """Seconds of one run, the data as warm as it gets."""
    rng = np.random.default_rng(0)
    packs = {pack.buffer: pack for pack in nest.packs}
    arrays: list[np.ndarray] = []
    for buffer in nest.kernel.params:
        array = rng.standard_normal(buffer.type.shape).astype(np.float32)  # type: ignore[arg-type]
        arrays.append(aligned(packed(array, packs[buffer.name]) if buffer.name in packs else array))
    run = NativeKernel(compile_nest(nest, target), target).bind(arrays, (), {})
    return best_seconds(lambda: run(0))


def tiles(target: Target) -> Sequence[tuple[int, int]]:
    """The register tiles tried: rows, columns."""
    lanes = target.lanes(32)
    if target.registers > 16:
        return [(6, 4 * lanes), (12, 2 * lanes), (14, 2 * lanes), (7, 4 * lanes), (8, 3 * lanes)]
    return [(6, 2 * lanes), (4, 3 * lanes)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="native", choices=ARCHITECTURES)
    target = parse_arch(parser.parse_args().arch)
    limit = peak(target)
    table = Table(title=f"{target.arch}, one thread, peak {limit / 1e9:.0f} GFLOP/s")
    for title in ("kernel", "best tile", "GFLOP/s", "of peak"):
        table.add_column(title, justify="left" if title == "kernel" else "right")
    lanes = target.lanes(32)
    for m, k, n in PRODUCTS:
        found = [(measure(product_nest(m, k, n, *tile, lanes), target), tile) for tile in tiles(target)]
        _row(table, f"product {m}×{k}×{n}", 2 * m * k * n, found, limit)
    for size, inner, outer, window, stride in CONVOLUTIONS:
        pixels = ((size - 1) // stride + 1) ** 2
        found = [
            (measure(convolution_nest(size, inner, outer, window, stride, *tile, lanes), target), tile)
            for tile in tiles(target)
        ]
        name = f"convolution {window}×{window}/{stride} {size}²×{inner}→{outer}"
        _row(table, name, 2 * pixels * inner * outer * window**2, found, limit)
    Console(width=100).print(table)


def _row(
    table: Table, name: str, flops: int, found: list[tuple[float, tuple[int, int]]], limit: float
) -> None:
    seconds, (rows, columns) = min(found)
    rate = flops / seconds
    table.add_row(name, f"{rows}×{columns}", f"{rate / 1e9:.0f}", f"{rate / limit:.0%}")


if __name__ == "__main__":
    main()

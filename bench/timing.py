"""Timing one kernel by itself: the machine's peak, and runs in a row on one thread or several.

The repetitions are a loop in machine code, so that Python's part is a microsecond in several milliseconds.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Sequence

import numpy as np

from egc.codegen.compile import KernelObject, compile_module, compile_nest
from egc.codegen.native import NativeKernel, aligned
from egc.codegen.program import packed
from egc.codegen.target import Target
from egc.ir.nest import Nest

_TURN_S = (
    8e-3  # several runs of the longest kernels: weights come back to a shared cache from the second one on
)
_ROUNDS = 200

# Calls the function job[0] with each of the job[1] tables job[3 + i] in turn, once as many threads have
# counted themselves in job[2] as there are: so all begin together. No barrier stands between the calls.
_REPEAT = """target triple = "{triple}"
define void @repeat(ptr %job, ptr %dims, i64 %tid, i64 %nthreads) {{
entry:
  %function = load ptr, ptr %job
  %count.at = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count.at
  %arrived = getelementptr i64, ptr %job, i64 2
  %before = atomicrmw add ptr %arrived, i64 1 seq_cst
  br label %wait
wait:
  %here = load atomic i64, ptr %arrived seq_cst, align 8
  %missing = icmp slt i64 %here, %nthreads
  br i1 %missing, label %wait, label %loop
loop:
  %i = phi i64 [ 0, %wait ], [ %next, %loop ]
  %slot = add i64 %i, 3
  %table.at = getelementptr ptr, ptr %job, i64 %slot
  %table = load ptr, ptr %table.at
  call void %function(ptr %table, ptr %dims, i64 %tid, i64 %nthreads)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""

_PEAK = """target triple = "{triple}"
define void @peak(ptr %bufs, ptr %dims, i64 %tid, i64 %nthreads) "prefer-vector-width"="{bits}" {{
entry:
  %a = load ptr, ptr %bufs
  %b.at = getelementptr ptr, ptr %bufs, i64 1
  %b = load ptr, ptr %b.at
  %y.at = getelementptr ptr, ptr %bufs, i64 2
  %y = load ptr, ptr %y.at
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  {phis}
  {steps}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, {trips}
  br i1 %more, label %loop, label %done
done:
  {stores}
  ret void
}}
declare {fma}
"""


class Repeater:
    """A function of machine code, ready to run again and again on `threads` threads, each run with the next
    one of `tables`, the arrays that it is given. `seconds` is of one run, from several in a row.
    """

    def __init__(
        self, code: NativeKernel, tables: Sequence[Sequence[np.ndarray]], target: Target, threads: int = 1
    ) -> None:
        self.threads = threads
        self._code, self._arrays = code, tables
        repeat = compile_module(_REPEAT.format(triple=target.triple), target)
        self._repeat = NativeKernel(KernelObject("repeat", repeat, 0), target)
        self._tables = [(ctypes.c_void_p * len(table))(*(a.ctypes.data for a in table)) for table in tables]
        self._used = 0
        self._count = 1
        self._count = max(1, int(_TURN_S / min(self.seconds() for _ in range(3))))

    def seconds(self) -> float:
        """Seconds of one run, from `_TURN_S` seconds of them. Where all runs are on the same arrays, one that
        does not count comes first: others have used the caches since the last turn.
        """
        if len(self._tables) == 1:
            self._run(1)
        return self._run(self._count) / self._count

    def _run(self, count: int) -> float:
        """Seconds of `count` runs in a row."""
        tables = [self._tables[(self._used + i) % len(self._tables)] for i in range(count)]
        self._used += count
        words = [self._code.address, count, 0, *map(ctypes.addressof, tables)]
        job = (ctypes.c_int64 * len(words))(*words)
        times: list[tuple[float, float]] = []

        def work(thread: int) -> None:
            began = time.perf_counter()
            self._repeat.call(ctypes.addressof(job), 0, thread, self.threads)
            times.append((began, time.perf_counter()))

        others = [threading.Thread(target=work, args=(i,)) for i in range(1, self.threads)]
        for other in others:
            other.start()
        work(0)
        for other in others:
            other.join()
        # Nobody begins before the last one has come.
        return max(end for _, end in times) - max(began for began, _ in times)


def kernel_runs(
    nest: Nest, kernel: KernelObject, target: Target, threads: int = 1, cold_bytes: int = 0
) -> Repeater:
    """Runs of a kernel of known extents on random data.

    Constants stand in memory as many times as it takes for `cold_bytes` of them, and the runs take turns:
    where that is more than a cache holds, each run finds them outside it. With 0 they are as warm as they
    get.
    """
    rng = np.random.default_rng(0)
    packs = {pack.buffer: pack for pack in nest.packs}
    table: list[np.ndarray] = []
    for buffer in nest.kernel.params:
        drawn = rng.standard_normal(buffer.type.shape).astype(np.dtype(buffer.type.dtype))  # type: ignore[arg-type]
        table.append(aligned(packed(drawn, packs[buffer.name]) if buffer.name in packs else drawn))
    table.append(aligned(np.zeros(int(kernel.scratch_bytes) * threads, np.uint8)))  # type: ignore[arg-type]
    constant = [buffer.constant for buffer in nest.kernel.params] + [False]
    weights = sum(array.nbytes for array, fixed in zip(table, constant, strict=True) if fixed)
    copies = -(-cold_bytes // weights) if weights else 1
    tables = [table]
    for _ in range(1, copies):
        tables.append([aligned(a) if fixed else a for a, fixed in zip(table, constant, strict=True)])
    return Repeater(NativeKernel(kernel, target), tables, target, threads)


def measure(nest: Nest, target: Target) -> float:
    """The least seconds of one run on one thread, the data as warm as it gets."""
    runs = kernel_runs(nest, compile_nest(nest, target), target)
    return min(runs.seconds() for _ in range(_ROUNDS))


def peak_runs(target: Target, threads: int = 1, operands: bool = False) -> tuple[Repeater, float]:
    """Runs of float32 multiply-adds in independent chains, and the operations of one run.

    With `operands` the chains are a register tile three vectors wide, whose operands come from the first
    cache as a matrix product's do; without, all stays in registers. A processor may run the two at
    different clocks.
    """
    columns, trips, lanes = 3, 50_000, target.lanes(32)
    rows = 8 if target.registers > 16 else 4
    chains = [(r, c) for r in range(rows) for c in range(columns)]
    vector = f"<{lanes} x float>"
    loads = [
        f"%b{c}.at = getelementptr {vector}, ptr %b, i64 {c}\n"
        f"%b{c} = load volatile {vector}, ptr %b{c}.at, align 64"
        for c in range(columns)
    ] + [
        f"%a{r}.at = getelementptr float, ptr %a, i64 {r}\n"
        f"%a{r}.one = load volatile float, ptr %a{r}.at\n"
        f"%a{r}.in = insertelement {vector} poison, float %a{r}.one, i64 0\n"
        f"%a{r} = shufflevector {vector} %a{r}.in, {vector} poison, <{lanes} x i32> zeroinitializer"
        for r in range(rows)
    ]
    half = "splat (float 0.5)"
    fma = f"{vector} @llvm.fma.v{lanes}f32"
    phis, steps, stores = [], [], []
    for i, (r, c) in enumerate(chains):
        factors = (f"%a{r}", f"%b{c}") if operands else (half, half)
        phis.append(f"%p{i} = phi {vector} [ zeroinitializer, %entry ], [ %n{i}, %loop ]")
        steps.append(f"%n{i} = call {fma}({vector} {factors[0]}, {vector} {factors[1]}, {vector} %p{i})")
        stores.append(
            f"%y{i} = getelementptr {vector}, ptr %y, i64 {i}\nstore {vector} %n{i}, ptr %y{i}, align 64"
        )
    text = _PEAK.format(
        triple=target.triple,
        bits=target.vector_bits,
        phis="\n".join(phis),
        steps="\n".join([*(loads if operands else []), *steps]),
        stores="\n".join(stores),
        trips=trips,
        fma=f"{fma}({vector}, {vector}, {vector})",
    )
    code = NativeKernel(KernelObject("peak", compile_module(text, target), 0), target)
    sizes = (rows, columns * lanes)
    # Threads store the same zeros.
    table = [aligned(np.zeros(n, np.float32)) for n in (*sizes, len(chains) * lanes)]
    return Repeater(code, [table], target, threads), 2.0 * len(chains) * lanes * trips

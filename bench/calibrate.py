"""Figures for a machine's cost model, measured by kernels that the compiler itself schedules and compiles.

    python -m bench.calibrate [--machine NAME] [--only rates|memory|functions|kernels] [--alternatives N]

It prints what `cost_models/NAME.toml` wants: the multiply-add rate, bandwidths by level for one core and
for all, what scalar functions cost; then how well the model predicts and ranks kernels that move data more
than they multiply: the prediction beside the measurement, and how much faster the best of the runners-up
is than the choice ("regret"). `python -m bench.kernels` does that for products and convolutions.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.timing import measure, peak_runs
from egc.codegen.compile import compile_nest
from egc.codegen.native import NativeKernel, aligned, best_seconds
from egc.codegen.target import Target, parse_arch
from egc.ir.dims import symbol
from egc.ir.expr import Acc, Const, Expr, Load, call
from egc.ir.kernel import Axis, Buffer, Kernel, Stage
from egc.ir.nest import Nest
from egc.ir.scalar import FUNCTIONS
from egc.ir.types import TensorType
from egc.machine import Machine, load_machine, native
from egc.schedule import Cost, schedule

F32 = "float32"
FUNCTION_NAMES = (
    "max", "min", "select", "div", "sqrt", "exp", "log", "tanh", "erf", "sigmoid", "silu", "gelu_erf",
    "gelu_tanh", "floor", "round", "sin", "pow",
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", help="a shipped cost model or a TOML file; default: this machine's")
    parser.add_argument("--only", choices=["rates", "memory", "functions", "kernels"])
    parser.add_argument("--alternatives", type=int, default=4, help="runners-up that are timed too")
    args = parser.parse_args()
    machine = load_machine(args.machine) if args.machine else native()
    target = parse_arch("native" if machine == native() else machine.arch)
    console = Console(width=120)
    sections: dict[str, Callable[[], Table]] = {
        "rates": lambda: rates(machine, target),
        "memory": lambda: memory(machine, target),
        "functions": lambda: functions(machine, target),
        "kernels": lambda: kernels(machine, target, args.alternatives),
    }
    for name, section in sections.items():
        if args.only in (None, name):
            console.print(section())


def rates(machine: Machine, target: Target) -> Table:
    """The multiply-add rate, as the clock that `ghz` stands for."""
    table = _table("rates", "figure", "model", "on registers", "operands from the first cache")
    found = []
    for operands in (False, True):
        runs, operations = peak_runs(target, operands=operands)
        found.append(operations / min(runs.seconds() for _ in range(500)))
    clock = machine.peak_flops / machine.core.hertz
    table.add_row("GFLOP/s", f"{machine.peak_flops / 1e9:.0f}", *(f"{rate / 1e9:.0f}" for rate in found))
    table.add_row("ghz", f"{machine.core.hertz / 1e9:.2f}", *(f"{rate / clock / 1e9:.2f}" for rate in found))
    return table


def memory(machine: Machine, target: Target) -> Table:
    """Bytes a second of a sum of two arrays whose size is half of what each level holds."""
    table = _table("memory", "level", "model GB/s", "one core", "model all", "all cores")
    inside = machine.l1_bytes
    for level in machine.levels:
        held = min(level.bytes / 2, 16 * inside)
        count = int(max(held, 2 * inside) / 12 / 1024) * 1024
        kernel = elementwise(count, lambda x, z: call("add", x, z))
        nest = schedule(kernel, machine, threads=1).nest
        one, every = (12 * count * n / _threaded(nest, target, n) for n in (1, machine.cores))
        table.add_row(
            level.name,
            f"{level.bandwidth / 1e9:.0f}",
            f"{one / 1e9:.0f}",
            f"{level.shared_bandwidth / 1e9:.0f}",
            f"{every / 1e9:.0f}",
        )
        inside = level.bytes
    return table


def functions(machine: Machine, target: Target) -> Table:
    """Vector instructions of scalar functions: cycles in the first cache times the multiply-adds a cycle."""
    table = _table("functions", "function", "model", "measured")
    count = 2048

    def seconds(make: Callable[[Expr, Expr], Expr]) -> float:
        return measure(schedule(elementwise(count, make), machine, threads=1).nest, target)

    empty = seconds(lambda x, z: call("add", x, z))
    for name in FUNCTION_NAMES:
        arity = FUNCTIONS[name].arity

        def make(x: Expr, z: Expr, name: str = name, arity: int = arity) -> Expr:
            first = call("lt", x, z) if arity == 3 else x
            return call("add", x, call(name, *(first, z, x)[:arity]))

        cycles = (seconds(make) - empty) * machine.core.hertz / (count / machine.lanes(4))
        model = machine.instructions.get(name, FUNCTIONS[name].flops)
        table.add_row(name, f"{model:g}", f"{cycles * machine.core.fma:.1f}")
    return table


def kernels(machine: Machine, target: Target, alternatives: int) -> Table:
    """Prediction beside measurement, on one thread."""
    table = _table("kernels", "kernel", "predicted µs", "measured µs", "ratio", "regret")
    ratios: list[float] = []
    for name, kernel in shapes():
        scheduled = schedule(kernel, machine, threads=1, alternatives=alternatives)
        found = scheduled.alternatives if alternatives else ()
        times = [measure(nest, target) for nest in (scheduled.nest, *(nest for nest, _ in found))]
        ratio = scheduled.cost.seconds / times[0]
        ratios.append(ratio)
        table.add_row(
            name,
            _micro(scheduled.cost),
            f"{times[0] * 1e6:.1f}",
            f"{ratio:.2f}",
            f"{times[0] / min(times):.2f}",
        )
    table.caption = (
        f"predicted ÷ measured: median {np.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
    )
    return table


def shapes() -> Iterator[tuple[str, Kernel]]:
    """Kernels of MobileNet, ResNet-50 and BERT."""
    for size, channels in [(114, 32), (16, 384)]:
        yield f"depthwise 3×3 {size}²×{channels}", windowed(size, channels, 3, 1, "add")
    yield "max pool 3×3/2 113²×64", windowed(113, 64, 3, 2, "max")
    yield (
        "add and max 800k",
        elementwise(802816, lambda x, z: call("max", call("add", x, z), Const(0.0, F32))),
    )
    yield "gelu 128×3072", elementwise(128 * 3072, lambda x, z: call("gelu_erf", call("add", x, z)))
    yield "transpose 3136×64", transpose(3136, 64)
    yield "softmax 1536×128", softmax(1536, 128)


def elementwise(count: int, make: Callable[[Expr, Expr], Expr]) -> Kernel:
    """y[i] = make(x[i], z[i])."""
    i = symbol("i")
    value = make(Load("x", (i,), F32), Load("z", (i,), F32))
    buffers = (_buffer("x", "in", count), _buffer("z", "in", count), _buffer("y", "out", count))
    return Kernel("elementwise", buffers, (Stage("map", (Axis("i", count),), "y", (i,), value, value),))


def windowed(size: int, channels: int, window: int, stride: int, combine: str) -> Kernel:
    """Depthwise convolution (combine add) or pooling (max), channels last, no padding."""
    out = (size - window) // stride + 1
    h, w, c, u, v = map(symbol, ("h", "w", "c", "u", "v"))
    value: Expr = Load("x", (h * stride + u, w * stride + v, c), F32)
    buffers = [_buffer("x", "in", size, size, channels)]
    if combine == "add":
        value = call("mul", value, Load("k", (u, v, c), F32))
        buffers.append(_buffer("k", "in", window, window, channels, constant=True))
    buffers.append(_buffer("y", "out", out, out, channels))
    axes = (Axis("h", out), Axis("w", out), Axis("c", channels))
    reduce = (Axis("u", window), Axis("v", window))
    stage = Stage("window", axes, "y", (h, w, c), value, Acc(F32), reduce, combine)
    return Kernel("windowed", tuple(buffers), (stage,))


def transpose(rows: int, columns: int) -> Kernel:
    """y[i, j] = x[j, i]."""
    i, j = symbol("i"), symbol("j")
    value = Load("x", (j, i), F32)
    stage = Stage("transpose", (Axis("i", rows), Axis("j", columns)), "y", (i, j), value, value)
    return Kernel(
        "transpose", (_buffer("x", "in", columns, rows), _buffer("y", "out", rows, columns)), (stage,)
    )


def softmax(rows: int, columns: int) -> Kernel:
    """exp(x - max) / sum, row by row."""
    r, i = symbol("r"), symbol("i")
    row, along = Axis("r", rows), Axis("i", columns)
    x, e = Load("x", (r, i), F32), Load("e", (r, i), F32)
    exp = call("exp", call("sub", x, Load("most", (r,), F32)))
    scaled = call("mul", e, Load("total", (r,), F32))
    stages = (
        Stage("most", (row,), "most", (r,), x, Acc(F32), (along,), "max"),
        Stage("exp", (row, along), "e", (r, i), exp, exp),
        Stage("total", (row,), "total", (r,), e, call("reciprocal", Acc(F32)), (along,), "add"),
        Stage("scale", (row, along), "y", (r, i), scaled, scaled),
    )
    params = (_buffer("x", "in", rows, columns), _buffer("y", "out", rows, columns))
    local = (
        _buffer("most", "local", rows),
        _buffer("e", "local", rows, columns),
        _buffer("total", "local", rows),
    )
    return Kernel("softmax", (*params, *local), stages, 1)


def _buffer(name: str, role: str, *shape: int, constant: bool = False) -> Buffer:
    return Buffer(name, TensorType(F32, shape), role, constant)


def _threaded(nest: Nest, target: Target, threads: int) -> float:
    """Seconds of one run in each of some threads at once, every thread on arrays of its own."""
    code = NativeKernel(compile_nest(nest, target), target)
    times = [0.0] * threads
    start = threading.Barrier(threads)

    def work(number: int) -> None:
        arrays = [aligned(np.ones(b.type.shape, np.float32)) for b in nest.kernel.params]  # type: ignore[arg-type]
        run = code.bind(arrays, (), {})
        start.wait()
        times[number] = best_seconds(lambda: run(0), 0.5)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return max(times)


def _micro(cost: Cost) -> str:
    """A cost and its largest terms, in microseconds."""
    largest = sorted(cost.terms.items(), key=lambda term: -term[1])[:2]
    terms = ", ".join(f"{name} {seconds * 1e6:.0f}" for name, seconds in largest)
    return f"{cost.seconds * 1e6:.1f} ({terms})"


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for other in others:
        table.add_column(other, justify="right")
    return table


if __name__ == "__main__":
    main()

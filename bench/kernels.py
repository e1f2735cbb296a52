"""How close the matrix products and convolutions of real models come to the machine's peak.

    python -m bench.kernels [--models resnet50,bert_base] [--threads 1 2] [--alternatives N]
        [--disable-rule NAME] [--json]

Each model is compiled as `egc optimize` does it; every distinct kernel with a product of a constant is then
timed by itself, as the scheduler chose its nest, beside what the cost model predicts. The peak is
measured in the same rounds: multiply-adds on registers, and, where a processor clocks down for it,
multiply-adds whose operands come from the first cache. `warm` runs find the weights where the last run
left them, `cold` runs in memory or the last cache, as a model's next inference does.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.make_models import DEFAULT_FOLDER, MAKERS, make
from bench.run import names
from bench.timing import kernel_runs, peak_runs
from egc.codegen.compile import compile_nest
from egc.codegen.jobs import BuiltKernel
from egc.codegen.target import Target, parse_arch
from egc.compiler import compile_model
from egc.ir.graph import Graph, Node
from egc.ir.kernel import Kernel
from egc.ir.nest import Nest
from egc.kernels import KernelCall
from egc.machine import load_machine, native
from egc.options import Options
from egc.schedule import Cost

_ROUNDS = 60
_COLD_BYTES = 64 << 20  # weights between two runs on the same ones: more than a core's own caches hold


@dataclass(frozen=True)
class Product:
    """A kernel that sums products of a constant: what it computes, how often a model calls it, its
    operations, and the nest chosen for some threads with its predicted cost and those of the runners-up.
    """

    name: str
    calls: int
    flops: float
    threads: int
    found: tuple[tuple[Nest, Cost], ...]

    @property
    def nest(self) -> Nest:
        """The chosen nest."""
        return self.found[0][0]

    @property
    def predicted(self) -> float:
        """Seconds."""
        return self.found[0][1].seconds


@dataclass(frozen=True)
class Row:
    """One line of the table. Times are seconds; `peak_share` is of the multiply-adds on registers measured
    in the same rounds, `cache_share` of those with operands from the first cache, both of the fastest runs;
    `regret` is the chosen nest's time over the best one's among the runners-up.
    """

    model: str
    kernel: str
    calls: int
    threads: int
    nest: str
    least: float
    median: float
    cold: float
    gflops: float
    peak_share: float
    cache_share: float
    cold_share: float
    predicted: float
    predicted_gflops: float
    predicted_ratio: float
    regret: float | None


def products(
    path: Path,
    threads: int,
    cost_model: str | None,
    alternatives: int,
    disabled: tuple[str, ...] = (),
) -> list[Product]:
    """The distinct kernels of a model with one product of a constant, in order of first use; matrices of one
    row, which wait for memory only, are left out.
    """
    compiled = compile_model(path, Options(threads=threads, cost_model=cost_model, disable_rules=disabled))
    calls = [call for call in compiled.calls if isinstance(call, KernelCall)]
    count = Counter(call.kernel.name for call in calls)
    graph = compiled.extraction.graph
    found: dict[tuple[str, str], Product] = {}
    for call in calls:
        node = _product(call, graph)
        if node is None:
            continue
        built = compiled.kernels[call.kernel.name]
        assert isinstance(built, BuiltKernel), "compiled for the CPU"
        scheduled = built.scheduled
        nests = ((scheduled.nest, scheduled.cost), *scheduled.alternatives[:alternatives])
        key = (label(node, graph), _loops(scheduled.nest))
        calls_before = found[key].calls if key in found else 0
        if not calls_before or call.kernel.name != found[key].nest.kernel.name:
            more = calls_before + count[call.kernel.name]
            first = found[key].found if calls_before else nests
            found[key] = Product(key[0], more, flops(call.kernel), threads, first)
    return list(found.values())


def _product(call: KernelCall, graph: Graph) -> Node | None:
    """The one node of a call that multiplies by a constant matrix or window, and has several rows."""
    nodes = [node for node in call.nodes if node.op in ("matmul", "conv_channels_last")]
    if len(nodes) != 1 or nodes[0].inputs[1] not in graph.constants:
        return None
    extents = graph.types[nodes[0].output].extents
    return nodes[0] if math.prod(extents[:-1]) > 1 else None


def label(node: Node, graph: Graph) -> str:
    """What a product computes: `product m×k×n`, or `conv window/stride size→size channels→channels`."""
    b, y = (graph.types[name].extents for name in (node.inputs[1], node.output))
    if node.op == "matmul":
        return f"product {math.prod(y[:-1])}×{b[-2]}×{b[-1]}"
    *window, inner, outer = b
    strides = node.attr("strides")
    assert isinstance(strides, tuple)
    size = "×".join(map(str, y[1:-1])) if len(set(y[1:-1])) > 1 else f"{y[1]}²"
    return f"conv {'×'.join(map(str, window))}/{strides[0]} {inner}→{outer} at {size}"


def flops(kernel: Kernel) -> float:
    """Multiplications and additions of a kernel's sums."""
    total = 0.0
    for stage in kernel.stages:
        if stage.combine == "add":
            total += 2.0 * math.prod(axis.extent for axis in stage.all_axes)  # type: ignore[misc]
    return total


class Subject:
    """One product with all its runs, of which every round takes one turn."""

    def __init__(self, model: str, product: Product, target: Target) -> None:
        self.model, self.product = model, product
        compiled = [compile_nest(nest, target) for nest, _ in product.found]
        threads = product.threads
        self.warm = [
            kernel_runs(nest, code, target, threads)
            for (nest, _), code in zip(product.found, compiled, strict=True)
        ]
        self.cold = kernel_runs(product.nest, compiled[0], target, threads, _COLD_BYTES)
        self.times: list[list[float]] = [[] for _ in self.warm]
        self.cold_times: list[float] = []

    def turn(self) -> None:
        """One turn of every nest."""
        for runs, times in zip(self.warm, self.times, strict=True):
            times.append(runs.seconds())
        self.cold_times.append(self.cold.seconds())

    def row(self, peak: float, cache_peak: float) -> Row:
        """The line of the table, given both peaks in operations a second."""
        product, least = self.product, min(self.times[0])
        others = [min(times) for times in self.times]
        return Row(
            self.model,
            product.name,
            product.calls,
            product.threads,
            _loops(product.nest),
            least,
            median(self.times[0]),
            min(self.cold_times),
            product.flops / least / 1e9,
            product.flops / least / peak,
            product.flops / least / cache_peak,
            product.flops / min(self.cold_times) / peak,
            product.predicted,
            product.flops / product.predicted / 1e9,
            product.predicted / least,
            least / min(others) if len(others) > 1 else None,
        )


class Peak:
    """The peak of some threads, measured in turns."""

    def __init__(self, target: Target, threads: int, operands: bool) -> None:
        self.runs, self.flops = peak_runs(target, threads, operands)
        self.threads, self.least = threads, math.inf

    def turn(self) -> None:
        """One turn."""
        self.least = min(self.least, self.runs.seconds())

    @property
    def rate(self) -> float:
        """Operations a second of all threads."""
        return self.flops * self.threads / self.least


def table_of(rows: Sequence[Row], title: str, caption: str) -> Table:
    """The rows as a table."""
    table = Table(title=title, caption=caption)
    columns = ["kernel", "calls", "nest", "µs, least", "median", "GFLOP/s", "of peak", "of L1 peak", "cold"]
    columns += ["predicted µs", "GFLOP/s", "pred. ÷ meas."]
    if any(row.regret is not None for row in rows):
        columns.append("regret")
    for column in columns:
        left = column in ("kernel", "nest")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    cells = [row.kernel, str(row.calls), row.nest, f"{row.least * 1e6:.0f}", f"{row.median * 1e6:.0f}"]
    cells += [f"{row.gflops:.0f}", f"{row.peak_share:.0%}", f"{row.cache_share:.0%}", f"{row.cold_share:.0%}"]
    cells += [f"{row.predicted * 1e6:.0f}", f"{row.predicted_gflops:.0f}", f"{row.predicted_ratio:.2f}"]
    return cells + ([f"{row.regret:.2f}"] if row.regret is not None else [])


def markdown_of(table: Table) -> str:
    """A table as Markdown."""
    header = [str(column.header) for column in table.columns]
    rule = ["---" if column.justify == "left" else "---:" for column in table.columns]
    body = [list(map(str, cells)) for cells in zip(*(column.cells for column in table.columns), strict=True)]
    lines = [f"**{table.title}**", "", *("| " + " | ".join(cells) + " |" for cells in [header, rule, *body])]
    return "\n".join([*lines, "", str(table.caption)])


def _loops(nest: Nest) -> str:
    """The loops of a nest's sums in short: axis:step and kind's first letter, outermost first."""
    sums = [i for i, stage in enumerate(nest.kernel.stages) if stage.combine == "add"]
    loops = [loop for i in sums for loop in nest.loops(i)]
    panels = [f"panels {pack.block}" for pack in nest.packs]
    return " ".join([*(f"{loop.axis}:{loop.step}{loop.kind[0]}" for loop in loops), *panels])


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=names, default=["resnet50", "bert_base"], metavar="NAME,…")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--machine", help="a shipped cost model or a TOML file; default: this machine's")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--alternatives", type=int, default=0, metavar="N", help="runners-up timed too")
    parser.add_argument("--disable-rule", action="append", default=[], metavar="NAME")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the models are")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables instead")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.models if name not in MAKERS]:
        parser.error(f"no model is called {', '.join(unknown)}; there are {', '.join(MAKERS)}")
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = parse()
    machine = load_machine(arguments.machine) if arguments.machine else native()
    target = parse_arch("native")
    output: dict[str, Any] = {"machine": machine.name, "peaks": {}, "kernels": []}
    for threads in arguments.threads:
        subjects = [
            Subject(name, product, target)
            for name in arguments.models
            for product in products(
                make(name, arguments.folder),
                threads,
                arguments.machine,
                arguments.alternatives,
                tuple(arguments.disable_rule),
            )
        ]
        registers, cache = (Peak(target, threads, operands) for operands in (False, True))
        for _ in range(arguments.rounds):
            for turn in (registers, cache, *subjects):
                turn.turn()
        rows = [subject.row(registers.rate, cache.rate) for subject in subjects]
        output["peaks"][threads] = {"registers": registers.rate / 1e9, "first cache": cache.rate / 1e9}
        output["kernels"] += [asdict(row) for row in rows]
        if not arguments.json:
            _print(rows, machine.name, registers, cache, arguments.markdown)
    if arguments.json:
        print(json.dumps(output, indent=1))


def _print(rows: Sequence[Row], machine: str, registers: Peak, cache: Peak, markdown: bool) -> None:
    threads = f"{registers.threads} thread{'s' if registers.threads > 1 else ''}"
    title = f"{machine}, {threads}: peak {registers.rate / 1e9:.0f} GFLOP/s on registers, "
    title += f"{cache.rate / 1e9:.0f} with operands from the first cache"
    counted: list[str] = []
    for peak, name in (("the peak", "peak_share"), ("the first cache's", "cache_share")):
        shares = [getattr(row, name) for row in rows]
        reach = sum(share >= 0.85 for share in shares)
        counted.append(f"{reach} of {len(rows)} at 85 % of {peak} or more, median {median(shares):.0%}")
    ratios = [row.predicted_ratio for row in rows]
    caption = (
        f"{'; '.join(counted)}; predicted ÷ measured: median {median(ratios):.2f}, "
        f"{min(ratios):.2f} to {max(ratios):.2f}"
    )
    table = table_of(rows, title, caption)
    if markdown:
        print(markdown_of(table))
    else:
        Console(width=170).print(table)


if __name__ == "__main__":
    main()

"""What a benchmark prints: a table for people, Markdown for documents, JSON for programs."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from egc.bench.compare import Timing, ratio_to_best_peer
from egc.bench.runtimes import version

COLUMNS = (
    "model",
    "runtime",
    "median ms",
    "min ms",
    "p90 ms",
    "× best peer",
    "error",
    "compile s",
    "load ms",
    "peak MB",
)


class Comparison(Struct, frozen=True):
    """One model's timings at one number of threads."""

    model: str
    threads: int
    timings: tuple[Timing, ...]

    def ratio(self, subject: str) -> float | None:
        """The subject's speed, relative to the best of the others."""
        return ratio_to_best_peer(self.timings, subject)


def geometric_mean(values: Sequence[float]) -> float | None:
    """The geometric mean of positive numbers; None of none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def disagreements(comparisons: Sequence[Comparison], tolerance: float) -> list[str]:
    """One line for each runtime that failed or is further from the reference than the tolerance."""
    lines = []
    for comparison in comparisons:
        for timing in comparison.timings:
            where = f"{comparison.model}, threads={comparison.threads}: {timing.runtime}"
            if timing.failure is not None:
                lines.append(f"{where}: {timing.failure}")
            elif timing.error is not None and timing.error > tolerance:
                lines.append(f"{where} differs by {timing.error:.1e}, more than {tolerance:.0e}")
    return lines


def machine() -> str:
    """The processor and the system, in a line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {platform.system()}, Python {platform.python_version()}"


def _cells(comparison: Comparison, timing: Timing, subject: str) -> list[str]:
    if timing.failure is not None:
        return [timing.runtime, "failed", *[""] * (len(COLUMNS) - 3)]
    ratio = comparison.ratio(subject) if timing.runtime == subject else None
    times = [f"{1e3 * seconds:.3f}" for seconds in (timing.median, timing.minimum, timing.p90)]
    return [
        timing.runtime,
        *times,
        "" if ratio is None else f"{ratio:.2f}",
        "" if timing.error is None else f"{timing.error:.0e}",
        "" if timing.compile_seconds is None else f"{timing.compile_seconds:.2f}",
        f"{1e3 * timing.load_seconds:.1f}",
        f"{timing.peak_bytes / 1e6:.0f}",
    ]


def wide_console() -> Console:
    """Standard output, wide enough for any table where it is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=400)


def print_table(comparisons: Sequence[Comparison], subject: str, console: Console, inputs: str = "") -> None:
    """The table of all models at each number of threads, and the geometric mean of the subject's ratios.
    `inputs` says in its title what all models were given.
    """
    for threads in sorted({comparison.threads for comparison in comparisons}, reverse=True):
        table = Table(title=f"{threads} thread{'s' * (threads > 1)}{inputs}", title_justify="left")
        for column in COLUMNS:
            table.add_column(
                column, justify="left" if column in ("model", "runtime") else "right", no_wrap=True
            )
        chosen = [comparison for comparison in comparisons if comparison.threads == threads]
        for comparison in chosen:
            for index, timing in enumerate(comparison.timings):
                name = Text(comparison.model if index == 0 else "")  # which may look like markup
                last = index == len(comparison.timings) - 1
                table.add_row(name, *_cells(comparison, timing, subject), end_section=last)
        console.print(table)
        ratios = [ratio for comparison in chosen if (ratio := comparison.ratio(subject)) is not None]
        if len(ratios) > 1:
            mean, least = geometric_mean(ratios), min(ratios)
            console.print(f"{subject} against the best peer: geometric mean {mean:.3f}, least {least:.3f}\n")


def to_markdown(comparisons: Sequence[Comparison], subject: str) -> str:
    """One row a model and number of threads: every median in ms, the subject's ratio to the best peer."""
    names = list(dict.fromkeys(timing.runtime for comparison in comparisons for timing in comparison.timings))
    header = ["model", "threads", *(f"{name} (ms)" for name in names), "ratio to the best peer"]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for comparison in comparisons:
        medians = {timing.runtime: timing.median for timing in comparison.timings if timing.times}
        ratio = comparison.ratio(subject)
        cells = [comparison.model, str(comparison.threads)]
        cells += [f"{1e3 * medians[name]:.2f}" if name in medians else "—" for name in names]
        lines.append("| " + " | ".join([*cells, "—" if ratio is None else f"{ratio:.2f}"]) + " |")
    for threads in sorted({comparison.threads for comparison in comparisons}, reverse=True):
        chosen = [comparison.ratio(subject) for comparison in comparisons if comparison.threads == threads]
        mean = geometric_mean([ratio for ratio in chosen if ratio is not None])
        if mean is not None:
            lines.append(
                "| " + " | ".join(["geometric mean", str(threads), *[""] * len(names), f"{mean:.2f}"]) + " |"
            )
    return "\n".join(lines)


def to_json(comparisons: Sequence[Comparison], subject: str) -> dict[str, Any]:
    """Everything measured, times in seconds and memory in bytes; `machine` and `versions` say on what."""
    names = sorted({timing.runtime for comparison in comparisons for timing in comparison.timings})
    ratios: dict[int, list[float]] = {}
    models = []
    for comparison in comparisons:
        ratio = comparison.ratio(subject)
        if ratio is not None:
            ratios.setdefault(comparison.threads, []).append(ratio)
        rows = [_timing_json(timing) for timing in comparison.timings]
        models.append(
            {"model": comparison.model, "threads": comparison.threads, "ratio": ratio, "runtimes": rows}
        )
    return {
        "machine": machine(),
        "versions": {name: version(name) for name in names},
        "subject": subject,
        "geometric_mean": {str(threads): geometric_mean(values) for threads, values in ratios.items()},
        "models": models,
    }


def _timing_json(timing: Timing) -> dict[str, Any]:
    if timing.failure is not None:
        return {"runtime": timing.runtime, "failure": timing.failure}
    # JSON has no infinity; an error that large is told as a string.
    error = "inf" if timing.error == math.inf else timing.error
    return {
        "runtime": timing.runtime,
        "median": timing.median,
        "minimum": timing.minimum,
        "p90": timing.p90,
        "inferences": len(timing.times),
        "error": error,
        "compile": timing.compile_seconds,
        "load": timing.load_seconds,
        "peak_bytes": timing.peak_bytes,
    }

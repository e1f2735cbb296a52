"""The newcomer's tour, `make demo`: a real CNN compiled, verified, run, compared and explained.

The model is SqueezeNet 1.1 with random weights, so that nothing has to be downloaded. Every step is the
command that a user would type, echoed before it runs; the tour stops at the first that fails.
"""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
from rich.console import Console
from rich.table import Table

import egc
from bench.make_models import make
from egc.bench.compare import QUICK, Timing, compare
from egc.bench.inputs import input_specs
from egc.bench.report import Comparison, disagreements, print_table, wide_console
from egc.runtime.artifact import open_artifact
from egc.runtime.manifest import KernelStep

FOLDER = Path("build")
TOLERANCE = 1e-4


def command(console: Console, *words: str) -> None:
    """Echo and run `egc …`. Raises `CalledProcessError` where it fails."""
    console.print(f"\n[bold]$ egc {' '.join(words)}[/bold]", highlight=False)
    subprocess.run([sys.executable, "-m", "egc", *words], check=True, stdin=subprocess.DEVNULL)


def before_after(model: Path, artifact: Path, timings: list[Timing]) -> Table:
    """The model as it came beside what it became."""
    graph = onnx.load(model).graph
    kinds = Counter(node.op_type for node in graph.node)
    common = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
    with egc.load(artifact) as session:
        host = session.coverage["host"]
    kernels = sum(isinstance(step, KernelStep) for step in open_artifact(artifact).manifest.steps)
    peer, own = (next(t for t in timings if t.runtime == name) for name in ("onnxruntime", "egc"))
    table = Table("", "before: ONNX Runtime", "after: egc", title="\nBefore and after", title_justify="left")
    table.add_row("program", f"{len(graph.node)} nodes ({common} …)", f"{kernels} kernel calls")
    table.add_row("on the host", "—", ", ".join(host) or "nothing")
    table.add_row("file", f"{model.stat().st_size / 1e6:.1f} MB", f"{artifact.stat().st_size / 1e6:.1f} MB")
    table.add_row("load", f"{1e3 * peer.load_seconds:.1f} ms", f"{1e3 * own.load_seconds:.1f} ms")
    table.add_row("inference, median", f"{1e3 * peer.median:.2f} ms", f"{1e3 * own.median:.2f} ms")
    table.add_row("peak memory", f"{peer.peak_bytes / 1e6:.0f} MB", f"{own.peak_bytes / 1e6:.0f} MB")
    return table


def main() -> int:
    """The tour; 0 where every step worked."""
    console = wide_console()
    threads = min(2, os.cpu_count() or 1)
    model, artifact = make("squeezenet", FOLDER / "models"), FOLDER / "squeezenet.egc"
    console.print(f"SqueezeNet 1.1 with random weights: {model}")
    try:
        command(console, "optimize", str(model), "-o", str(artifact), "--threads", str(threads))
        command(console, "verify", str(model), "--reference", "onnxruntime")
        command(console, "run", str(artifact), "--output-dir", str(FOLDER / "outputs"))
        timings = compare(model, input_specs(model), ["egc", "onnxruntime"], threads, QUICK)
        comparison = Comparison("squeezenet", threads, tuple(timings))
        if problems := disagreements([comparison], TOLERANCE):
            console.print("\n".join(problems), style="red", markup=False)
            return 1
        console.print(before_after(model, artifact, timings))
        print_table([comparison], "egc", console)
        command(console, "explain", str(artifact))
    except subprocess.CalledProcessError as failure:
        return failure.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())

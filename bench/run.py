"""Run egc, ONNX Runtime and OpenVINO side by side on the benchmark models: `python -m bench.run [--quick]`.

Batch 1, float32, one process a runtime, interleaved rounds; see `egc/bench/compare.py` for how. Models that
are missing are made first.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from bench.make_models import DEFAULT_FOLDER, MAKERS, make
from egc.bench.compare import QUICK, Plan, compare
from egc.bench.inputs import input_specs
from egc.bench.report import (
    Comparison,
    disagreements,
    machine,
    print_table,
    to_json,
    to_markdown,
    wide_console,
)
from egc.bench.runtimes import RUNTIMES


def names(text: str) -> list[str]:
    """A comma-separated list."""
    return [name for name in text.split(",") if name]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Run egc and its peers side by side on the benchmark models."
    )
    parser.add_argument(
        "--models", type=names, default=list(MAKERS), metavar="NAME,…", help=", ".join(MAKERS)
    )
    parser.add_argument(
        "--runtimes", type=names, default=list(RUNTIMES), metavar="NAME,…", help=", ".join(RUNTIMES)
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[2], metavar="N", help="default: 2")
    parser.add_argument("--accuracy", choices=["exact", "default", "fast"], default="default")
    parser.add_argument("--rounds", type=int, default=Plan().rounds, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a few short rounds, for a first impression")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest error allowed; default: %(default)s"
    )
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="where the models are; default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table instead")
    arguments = parser.parse_args()
    for kind, given, known in (
        ("model", arguments.models, MAKERS),
        ("runtime", arguments.runtimes, RUNTIMES),
    ):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"no {kind} is called {', '.join(unknown)}; there are {', '.join(known)}")
    return arguments


def main() -> int:
    """Run; 1 where a runtime failed or disagreed."""
    arguments = parse()
    plan = QUICK if arguments.quick else Plan(rounds=arguments.rounds)
    subject = arguments.runtimes[0]
    console = wide_console()
    status = Console(stderr=True)
    options = ["--accuracy", arguments.accuracy]
    comparisons = []
    for threads in arguments.threads:
        for name in arguments.models:
            path = make(name, arguments.folder)
            with status.status(name) as spinner:
                timings = compare(
                    path, input_specs(path), arguments.runtimes, threads, plan, options, spinner.update
                )
            comparison = Comparison(name, threads, tuple(timings))
            comparisons.append(comparison)
            medians = (
                f"{t.runtime} {1e3 * t.median:.2f} ms" if t.times else f"{t.runtime} failed" for t in timings
            )
            status.print(f"{name}, threads={threads}: {', '.join(medians)}", highlight=False)
    if arguments.json:
        print(json.dumps(to_json(comparisons, subject), indent=1))
    elif arguments.markdown:
        print(to_markdown(comparisons, subject))
    else:
        console.print(machine(), highlight=False)
        print_table(comparisons, subject, console, ", batch 1, float32")
    problems = disagreements(comparisons, arguments.tolerance)
    for problem in problems:
        status.print(problem, style="red", highlight=False, markup=False)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

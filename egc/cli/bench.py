"""`egc bench`: a model's speed beside other runtimes."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from egc.bench.compare import QUICK, Plan, compare
from egc.bench.inputs import InputSpec, input_specs
from egc.bench.report import Comparison, disagreements, print_table, to_json, wide_console
from egc.bench.runtimes import RUNTIMES, installed
from egc.cli.common import (
    a_path,
    add_compile_options,
    check_readable,
    listed,
    not_negative,
    parse_shapes,
    positive,
    refuse_compile_options,
)
from egc.errors import UsageError
from egc.runtime.artifact import is_artifact, open_artifact
from egc.runtime.gpu_code import ARCHITECTURE as GPU

PEERS = tuple(name for name in RUNTIMES if name != "egc")

# How ONNX Runtime's convention names the dtypes that can be drawn at random.
_DTYPES = {"float": "float32", "double": "float64"}


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help="time a model, beside other runtimes",
        description="Time a model on random inputs, in rounds that alternate with the other runtimes; "
        "outputs are compared with ONNX Runtime's. Exit status 1 where a runtime fails or differs.",
    )
    parser.add_argument("model", type=a_path, metavar="MODEL", help="an .onnx file, or an .egc (egc alone)")
    parser.add_argument("--against", default="", metavar="NAME,…", help=f"peers, of {', '.join(PEERS)}")
    parser.add_argument(
        "--tolerance", type=not_negative, default=1e-4, metavar="E", help="default: %(default)s"
    )
    parser.add_argument(
        "--rounds", type=positive, default=Plan().rounds, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--quick", action="store_true", help="a few short rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    add_compile_options(parser)
    parser.set_defaults(main=main)


def parse_peers(text: str) -> list[str]:
    """The peers named. Raises `UsageError` where one is unknown or not installed."""
    peers = listed("--against", text)
    if unknown := [name for name in peers if name not in PEERS]:
        raise UsageError(f"no peer is called {', '.join(unknown)}", hint=f"there are {', '.join(PEERS)}")
    if missing := [name for name in peers if not installed(name)]:
        raise UsageError(f"{', '.join(missing)} is not installed", hint="pip install 'egc[bench]'")
    return peers


def compile_words(args: argparse.Namespace) -> list[str]:
    """The options of compilation, as `egc optimize` takes them; threads are handed on by the harness."""
    words = ["--target", args.target, "--arch", args.arch, "--accuracy", args.accuracy]
    words += ["--time-budget", str(args.time_budget), "--ilp", str(args.ilp)]
    cost_models = [args.cost_model] if args.cost_model else []
    repeated = {
        "--rules": args.rules,
        "--disable-rule": args.disable_rule,
        "--shape": args.shape,
        "--cost-model": cost_models,
    }
    for option, values in repeated.items():
        for value in values:
            words += [option, str(value)]
    return words


def artifact_specs(path: Path, shapes: dict[str, tuple[int, ...]]) -> tuple[InputSpec, ...]:
    """How to draw an artifact's inputs; a dim that is symbolic, and not fixed by `shapes`, is 1."""
    import egc

    specs = []
    with egc.load(path, threads=1) as session:
        for value in session.get_inputs():
            kind = value.type.removeprefix("tensor(").removesuffix(")")
            dtype = np.dtype(_DTYPES.get(kind, kind)).name
            shape = tuple(extent if isinstance(extent, int) else 1 for extent in value.shape)
            specs.append(InputSpec(value.name, dtype, shapes.get(value.name, shape)))
    return tuple(specs)


def on_gpu(path: Path) -> bool:
    """Whether an artifact is for a GPU."""
    return open_artifact(path).manifest.target.architecture == GPU


def main(args: argparse.Namespace) -> int:
    """Run the subcommand; gives back the exit status."""
    peers = parse_peers(args.against)
    # Where a shape names a dim, that dim is 1 here, as any symbolic dim is.
    named = parse_shapes(args.shape)
    shapes = {name: tuple(e if isinstance(e, int) else 1 for e in shape) for name, shape in named.items()}
    check_readable(args.model)
    if args.target == "gpu" or (is_artifact(args.model) and on_gpu(args.model)):
        raise UsageError("programs for CPUs are timed, not for GPUs", hint="compile it for a CPU")
    if is_artifact(args.model):
        refuse_compile_options(args, "threads", "shape")
        if peers:
            hint = "give the .onnx file that it was made from"
            raise UsageError("the peers cannot run an artifact", hint=hint)
    specs = artifact_specs(args.model, shapes) if is_artifact(args.model) else input_specs(args.model, shapes)
    plan = QUICK if args.quick else Plan(rounds=args.rounds)
    threads = args.threads or len(os.sched_getaffinity(0))
    words = compile_words(args)
    with Console(stderr=True).status(Text(args.model.name)) as status:
        timings = compare(
            args.model, specs, ["egc", *peers], threads, plan, words, lambda text: status.update(Text(text))
        )
    comparison = Comparison(args.model.name, threads, tuple(timings))
    if args.json:
        print(json.dumps(to_json([comparison], "egc"), indent=1))
    else:
        print_table([comparison], "egc", wide_console())
    problems = disagreements([comparison], args.tolerance)
    for problem in problems:
        Console(stderr=True).print(problem, style="red", highlight=False, markup=False)
    return 1 if problems else 0

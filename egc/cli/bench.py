"""`egc bench`: a model's speed beside other runtimes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from egc.bench.compare import QUICK, Plan, compare
from egc.bench.inputs import InputSpec, input_specs
from egc.bench.report import Comparison, disagreements, print_table, to_json, wide_console
from egc.bench.runtimes import RUNTIMES, installed
from egc.errors import BadInput, UsageError

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
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="an .onnx file, or an .egc file (egc alone)"
    )
    parser.add_argument("--against", default="", metavar="NAME,…", help=f"peers, of {', '.join(PEERS)}")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--shape", action="append", default=[], metavar="NAME=1x3x224x224", help="an input's shape"
    )
    parser.add_argument("--accuracy", choices=["exact", "default", "fast"], default="default")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest error allowed; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=Plan.rounds, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a few short rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.set_defaults(main=main)


def parse_peers(text: str) -> list[str]:
    """The peers named. Raises `UsageError` where one is unknown or not installed."""
    peers = [name for name in text.split(",") if name]
    if unknown := [name for name in peers if name not in PEERS]:
        raise UsageError(f"no peer is called {', '.join(unknown)}", hint=f"there are {', '.join(PEERS)}")
    if missing := [name for name in peers if not installed(name)]:
        raise UsageError(f"{', '.join(missing)} is not installed", hint="pip install 'egc[bench]'")
    return peers


def parse_shapes(options: list[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=1x3x224x224` → {name: shape}. Raises `UsageError` where one is not of this form."""
    shapes = {}
    for option in options:
        name, equals, extents = option.rpartition("=")
        parts = extents.split("x") if extents else []
        if not equals or not all(part.isdecimal() for part in parts):
            raise UsageError(f"--shape {option}: not of the form NAME=1x3x224x224")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


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


def main(args: argparse.Namespace) -> int:
    """Run the subcommand; gives back the exit status."""
    peers, shapes = parse_peers(args.against), parse_shapes(args.shape)
    if args.threads < 1 or args.rounds < 1:
        raise UsageError("--threads and --rounds must be at least 1")
    if not args.model.is_file():
        raise BadInput("no such model", where=str(args.model))
    is_artifact = args.model.suffix == ".egc"
    if is_artifact and peers:
        raise UsageError("the peers cannot run an artifact", hint="give the .onnx file that it was made from")
    specs = artifact_specs(args.model, shapes) if is_artifact else input_specs(args.model, shapes)
    plan = QUICK if args.quick else Plan(rounds=args.rounds)
    options = ["--accuracy", args.accuracy, *(word for shape in args.shape for word in ("--shape", shape))]
    with Console(stderr=True).status(args.model.name) as status:
        timings = compare(args.model, specs, ["egc", *peers], args.threads, plan, options, status.update)
    comparison = Comparison(args.model.name, args.threads, tuple(timings))
    if args.json:
        print(json.dumps(to_json([comparison], "egc"), indent=1))
    else:
        print_table([comparison], "egc", wide_console())
    problems = disagreements([comparison], args.tolerance)
    for problem in problems:
        Console(stderr=True).print(problem, style="red", highlight=False, markup=False)
    return 1 if problems else 0

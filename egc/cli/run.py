"""``egc run``: run a model once and write its outputs."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from egc.cli.common import (
    a_path,
    add_compile_options,
    add_run_options,
    open_session,
    parse_shapes,
    random_inputs,
    read_inputs,
    write_arrays,
)


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "run",
        help="run a model once",
        description="Run a model or an artifact; inputs that are not given are random, by a fixed seed.",
    )
    parser.add_argument(
        "model", type=a_path, metavar="MODEL", help="an .egc, or an .onnx file, which is compiled"
    )
    parser.add_argument("--output-dir", type=a_path, metavar="DIR", help="write NAME.npy for each output")
    add_run_options(parser)
    add_compile_options(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run, write the outputs, and describe each in a line."""
    given = read_inputs(args.input)
    with open_session(args) as session:
        feeds = random_inputs(session, given, parse_shapes(args.shape), args.seed)
        results = session.run(None, feeds)
        outputs = {port.name: value for port, value in zip(session.get_outputs(), results, strict=True)}
    if args.output_dir is not None:
        write_arrays(args.output_dir, outputs)
    for name, value in outputs.items():
        print(describe(name, value))
    return 0


def describe(name: str, value: Any) -> str:
    """An output in one line: name, dtype, shape, range and mean."""
    if not isinstance(value, np.ndarray):
        return f"{name}: {type(value).__name__}"
    line = f"{name}: {value.dtype}{list(value.shape)}"
    if value.size and value.dtype.kind in "fiu":
        numbers = value.astype(np.float64)
        line += f"  min {numbers.min():.6g}  max {numbers.max():.6g}  mean {numbers.mean():.6g}"
    return line

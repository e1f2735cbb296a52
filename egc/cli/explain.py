"""``egc explain``: why a model was compiled the way it was."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from egc.cli.common import add_compile_options, compiled_model, is_artifact, options_of
from egc.errors import ArtifactError


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="say why a model was compiled the way it was",
        description="Explain a compilation: kernels, the ONNX nodes they cover, the rules that led to them, their loop "
        "nests and costs. An .egc answers from the record that it holds; an .onnx is compiled first.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("node", nargs="?", metavar="NODE", help="an ONNX node or a kernel to explain in depth")
    parser.add_argument("--json", action="store_true", help="print everything as JSON (docs/explain.md)")
    add_compile_options(parser)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Explain."""
    record = read_record(args)
    if args.json:
        print(json.dumps(record, indent=1))
        return 0
    from egc.explain.text import print_kernels, print_summary

    console = Console(highlight=False)
    print_summary(record, console)
    print_kernels(record, console)
    return 0


def read_record(args: argparse.Namespace) -> dict[str, Any]:
    """The record of an artifact, or of a model compiled now."""
    if not is_artifact(args.model):
        return compiled_model(args.model, options_of(args)).record
    from egc.runtime.artifact import open_artifact

    record = open_artifact(args.model).record()
    if not record:
        raise ArtifactError("the artifact holds no record", where=str(args.model), hint="compile the model again")
    return record

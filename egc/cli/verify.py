"""``egc verify``: compare a model's outputs with another implementation's."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from egc.cli.common import (
    SEED,
    add_compile_options,
    is_artifact,
    open_session,
    parse_shapes,
    random_inputs,
    read_inputs,
)
from egc.errors import CompileError, UsageError


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "verify",
        help="compare a model's results with a reference",
        description="Run a model on random inputs and compare every output with a reference. "
        "Exit status 1 where one differs.",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="an .onnx file, or an .egc beside its .onnx file"
    )
    parser.add_argument(
        "--model-file", type=Path, metavar="MODEL.onnx", help="what an artifact is compared with"
    )
    parser.add_argument("--reference", choices=["onnx", "onnxruntime"], default="onnxruntime")
    parser.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy")
    parser.add_argument("--rtol", type=float, default=1e-3, help="default: %(default)s")
    parser.add_argument(
        "--atol", type=float, default=1e-5, help="times the output's largest value; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the random inputs; default: %(default)s")
    add_compile_options(parser)
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run both, compare, report."""
    source = args.model_file or model_of(args.model)
    with open_session(args) as session:
        feeds = random_inputs(session, read_inputs(args.input), parse_shapes(args.shape), args.seed)
        results = session.run(None, feeds)
        names = [port.name for port in session.get_outputs()]
    expected = reference(args.reference, source, feeds)
    rows = [compare(*row, args.rtol, args.atol) for row in zip(names, results, expected, strict=True)]
    if args.json:
        print(json.dumps({"reference": args.reference, "outputs": rows}, indent=2))
    else:
        print_rows(rows, args.reference)
    return 0 if all(row["ok"] for row in rows) else 1


def model_of(path: Path) -> Path:
    """The model that an artifact was made from: the .onnx file of its name beside it.
    UsageError where there is none.
    """
    if not is_artifact(path):
        return path
    beside = path.with_suffix(".onnx")
    if beside.exists():
        return beside
    raise UsageError(
        "an artifact alone has no reference",
        where=str(path),
        why=f"there is no {beside.name} beside it",
        hint="--model-file MODEL.onnx names the model that it was made from",
    )


def reference(name: str, model: Path, feeds: dict[str, np.ndarray]) -> list[Any]:
    """The outputs of the reference implementation."""
    try:
        if name == "onnxruntime":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        else:
            from onnx.reference import ReferenceEvaluator

            session = ReferenceEvaluator(str(model))
    except ImportError:
        raise UsageError(
            f"{name} is not installed", hint="pip install 'egc[verify]', or --reference onnx"
        ) from None
    except Exception as error:
        raise CompileError(f"{name} cannot load the model", where=str(model), why=str(error)) from None
    try:
        return list(session.run(None, feeds))
    except Exception as error:
        raise CompileError(f"{name} cannot run the model", where=str(model), why=str(error)) from None


def compare(name: str, found: Any, expected: Any, rtol: float, atol: float) -> dict[str, Any]:
    """How far ``found`` is from ``expected``: largest and mean absolute error,
    and ‖difference‖ ÷ ‖expected‖.
    """
    a, b = np.asarray(found), np.asarray(expected)
    if a.shape != b.shape or a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        same = a.shape == b.shape and bool(np.all(a == b))
        return {
            "output": name,
            "ok": same,
            "max": None,
            "mean": None,
            "relative": None,
            "shape": list(a.shape),
        }
    x, y = a.astype(np.float64), b.astype(np.float64)
    # Equal infinities and NaN at the same places are agreement.
    agree = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        error = np.where(agree, 0.0, np.abs(x - y))
    finite = np.where(np.isfinite(y), y, 0.0)
    norm = float(np.linalg.norm(finite))
    scale = float(np.abs(finite).max(initial=0.0))
    ok = bool(np.all(error <= atol * max(scale, 1e-30) + rtol * np.abs(finite)))
    return {
        "output": name,
        "ok": ok,
        "max": float(error.max(initial=0.0)),
        "mean": float(error.mean()) if error.size else 0.0,
        "relative": float(np.linalg.norm(error)) / norm if norm else float(np.linalg.norm(error)),
        "shape": list(a.shape),
    }


def print_rows(rows: list[dict[str, Any]], name: str) -> None:
    """The comparison as a table."""
    table = Table("output", "shape", "max error", "mean error", "relative error", "", title=f"against {name}")
    for row in rows:
        numbers = ["–" if row[key] is None else f"{row[key]:.3g}" for key in ("max", "mean", "relative")]
        table.add_row(row["output"], str(row["shape"]), *numbers, "ok" if row["ok"] else "DIFFERS")
    Console().print(table)

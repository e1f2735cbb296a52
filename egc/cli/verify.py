"""``egc verify``: compare a model's outputs with another implementation's."""

from __future__ import annotations

import argparse
import json
import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from rich.table import Table
from rich.text import Text

from egc.bench.report import wide_console
from egc.cli.common import (
    a_path,
    add_compile_options,
    add_run_options,
    check_readable,
    not_negative,
    open_session,
    parse_shapes,
    random_inputs,
    read_inputs,
)
from egc.errors import BadInput, CompileError, UsageError
from egc.ir.types import is_float
from egc.runtime.artifact import is_artifact

# What outputs may differ by: relative to each element, and to the largest one.
RTOL, ATOL = 1e-3, 1e-5

if TYPE_CHECKING:
    from collections.abc import Iterator


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "verify",
        help="compare a model's results with a reference",
        description="Run a model on random inputs and compare every output with a reference. "
        "Exit status 1 where one differs.",
    )
    parser.add_argument(
        "model", type=a_path, metavar="MODEL", help="an .onnx file, or an .egc beside its .onnx file"
    )
    parser.add_argument(
        "--model-file", type=a_path, metavar="MODEL.onnx", help="what an artifact is compared with"
    )
    parser.add_argument(
        "--reference", choices=["onnx", "onnxruntime"], default="onnxruntime", help="default: %(default)s"
    )
    parser.add_argument(
        "--rtol", type=not_negative, help=f"default: {RTOL}, or 16 roundings of a narrower float"
    )
    parser.add_argument(
        "--atol",
        type=not_negative,
        help=f"times the output's largest value; default: {ATOL}, or 4 roundings of a narrower float",
    )
    add_run_options(parser)
    add_compile_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run both, compare, report."""
    source = args.model_file or model_of(args.model)
    check_readable(source)
    if source != args.model:
        from egc.frontend.load import load_model

        load_model(source)  # what is no model is said before anything is compiled or run
    with open_session(args) as session:
        feeds = random_inputs(session, read_inputs(args.input), parse_shapes(args.shape), args.seed)
        results = session.run(None, feeds)
        names = [port.name for port in session.get_outputs()]
    expected = reference(args.reference, source, feeds)
    if len(names) != len(expected):
        raise BadInput(
            f"the model has {len(expected)} outputs, and the artifact {len(names)}",
            where=str(source),
            hint="--model-file names the model that the artifact was made from",
        )
    outputs = chain.from_iterable(map(pairs, names, results, expected))
    rows = [compare(*output, args.rtol, args.atol) for output in outputs]
    if args.json:
        print(json.dumps({"reference": args.reference, "outputs": list(map(finite, rows))}, indent=2))
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
    if os.path.exists(beside):
        return beside
    raise UsageError(
        "an artifact alone has no reference",
        where=str(path),
        why=f"there is no {beside.name} beside it",
        hint="--model-file MODEL.onnx names the model that it was made from",
    )


def reference(name: str, model: Path, feeds: dict[str, np.ndarray]) -> list[Any]:
    """The outputs of the reference implementation."""
    other = {"onnx": "onnxruntime", "onnxruntime": "onnx"}[name]
    try:
        if name == "onnxruntime":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        else:
            from onnx.reference import ReferenceEvaluator

            session = ReferenceEvaluator(str(model))
    except ImportError:
        raise UsageError(
            f"{name} is not installed", hint=f"pip install 'egc[verify]', or --reference {other}"
        ) from None
    except Exception as error:
        raise CompileError(
            f"{name} cannot load the model", where=str(model), why=str(error), hint=f"--reference {other}"
        ) from None
    try:
        return list(session.run(None, feeds))
    except Exception as error:
        raise CompileError(
            f"{name} cannot run the model", where=str(model), why=str(error), hint=f"--reference {other}"
        ) from None


def pairs(name: str, found: Any, expected: Any) -> Iterator[tuple[str, Any, Any]]:
    """Outputs to compare: an output that is a sequence element by element."""
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            yield from pairs(f"{name}[{i}]", a, b)
    else:
        yield name, found, expected


def compare(
    name: str, found: Any, expected: Any, rtol: float | None = None, atol: float | None = None
) -> dict[str, Any]:
    """How far ``found`` is from ``expected``: largest and mean absolute error,
    and ‖difference‖ ÷ ‖expected‖. Whatever is no floating-point number must be equal.

    Runtimes round float16 and bfloat16 after every operator or after several, so the tolerances that hold
    where none is given are as many units of rounding as a few layers have.
    """
    row: dict[str, Any] = {"output": name, "ok": False, "max": None, "mean": None, "relative": None}
    row |= {"found": type_of(found), "expected": type_of(expected)}
    if row["found"] != row["expected"]:
        return row
    a, b = np.asarray(found), np.asarray(expected)
    # Equal infinities and NaN at the same places are agreement.
    agree = (a == b) | ((a != a) & (b != b))
    if a.dtype.kind not in "fiubc" and not is_float(a.dtype.name):
        return row | {"ok": bool(np.all(agree))}
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(invalid="ignore"):
        error = np.where(agree, 0.0, np.abs(x - y))
    finite = np.abs(np.where(np.isfinite(y), y, 0.0))
    norm = float(np.linalg.norm(finite))
    scale = float(finite.max(initial=0.0))
    narrow = is_float(a.dtype.name) and a.dtype.itemsize < 4
    rounding = float(ml_dtypes.finfo(a.dtype).eps) if narrow else 0.0
    rtol = max(RTOL, 16 * rounding) if rtol is None else rtol
    atol = max(ATOL, 4 * rounding) if atol is None else atol
    near = error <= atol * max(scale, 1e-30) + rtol * finite
    return row | {
        "ok": bool(np.all(agree if a.dtype.kind in "iub" else near)),
        "max": float(error.max(initial=0.0)),
        "mean": float(error.mean()) if error.size else 0.0,
        "relative": float(np.linalg.norm(error)) / (norm or 1.0),
    }


def type_of(value: Any) -> str:
    """An output's dtype and shape, such as float32[2, 3]."""
    if value is None or isinstance(value, (list, dict)):
        return "nothing" if value is None else f"{type(value).__name__} of {len(value)}"
    array = np.asarray(value)
    # NumPy has several dtypes for text.
    dtype = "string" if array.dtype.kind in "OSUT" else array.dtype.name
    return f"{dtype}{list(array.shape)}"


def print_rows(rows: list[dict[str, Any]], name: str) -> None:
    """The comparison as a table."""
    table = Table("output", "type", "max error", "mean error", "relative error", "", title=f"against {name}")
    for row in rows:
        numbers = ["–" if row[key] is None else f"{row[key]:.3g}" for key in ("max", "mean", "relative")]
        same = row["found"] == row["expected"]
        verdict = "ok" if row["ok"] else "DIFFERS" if same else f"DIFFERS: {row['expected']} is expected"
        # Names may hold what rich takes for markup.
        table.add_row(*map(Text, [row["output"], row["found"], *numbers, verdict]))
    wide_console().print(table)


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """A row for JSON, which has no word for infinities and NaN: text there."""
    return {
        key: str(value) if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in row.items()
    }

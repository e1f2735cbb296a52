"""``egc optimize``: compile a model to an artifact and say what was done."""

from __future__ import annotations

import argparse
import json
from typing import Any

from egc.cli.common import (
    a_path,
    add_compile_options,
    check_output,
    compiled_model,
    listed,
    options_of,
)
from egc.errors import UsageError
from egc.explain.units import counted

EMITTED = ("graph", "kernels", "loops", "llvm", "asm", "ptx", "onnx")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "optimize",
        help="compile a model to an artifact",
        description="Compile an ONNX model to an .egc artifact.",
    )
    parser.add_argument("model", type=a_path, metavar="MODEL.onnx", help="the model")
    parser.add_argument("-o", "--output", type=a_path, metavar="OUT.egc", help="default: MODEL.egc")
    add_compile_options(parser)
    parser.add_argument(
        "--emit",
        default="",
        metavar="KIND,…",
        help=f"print stages: {', '.join(EMITTED)}; onnx writes a model to OUT; no .egc without -o",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Compile, then write the artifact or print the stages asked for; both where -o names an artifact."""
    kinds = listed("--emit", args.emit)
    if unknown := [kind for kind in kinds if kind not in EMITTED]:
        raise UsageError(f"--emit {', '.join(unknown)}: no such stage", hint=f"one of {', '.join(EMITTED)}")
    other = "asm" if args.target == "gpu" else "ptx"
    if other in kinds:
        raise UsageError(f"--emit {other}: the target {args.target} has no such stage")
    suffix = ".optimized.onnx" if "onnx" in kinds else ".egc"
    output = args.output or args.model.parent / f"{args.model.stem}{suffix}"
    writes = not kinds or "onnx" in kinds or args.output
    if writes:
        check_output(output, [args.model, *args.rules])
    compiled = compiled_model(args.model, options_of(args))
    if writes:
        check_output(output, compiled.imported.files)
    report = compiled.report()
    stages: dict[str, str] = {}
    if kinds:
        from egc.explain.emit import emitted, write_onnx

        if "onnx" in kinds:
            write_onnx(compiled, output)
            report |= {"onnx": str(output)}
        stages = {kind: emitted(compiled, kind) for kind in kinds if kind != "onnx"}
    if not kinds or (args.output and "onnx" not in kinds):
        compiled.write(output)
        report |= {"artifact": str(output), "bytes": output.stat().st_size}
    if args.json:
        print(json.dumps(report | ({"stages": stages} if kinds else {}), indent=2))
    elif kinds:
        print(*stages.values(), *([f"wrote {output}"] if "onnx" in kinds else []), sep="\n")
    else:
        print_report(report)
    return 0


def print_report(report: dict[str, Any]) -> None:
    """The report for people: what came in, what came out, what was spent."""
    print(
        f"{report['model']}: {counted(report['nodes'], 'ONNX node')}"
        f" → {counted(report['steps'], 'kernel call')} of {counted(report['kernels'], 'distinct kernel')}"
    )
    if report["host"]:
        names = ", ".join(report["host"][:8]) + (" …" if len(report["host"]) > 8 else "")
        print(f"on the host, by onnx.reference: {len(report['host'])} nodes: {names}")
    costs = ", ".join(f"{name} {seconds * 1e3:.3f} ms" for name, seconds in report["extraction"].items())
    print(f"estimated by extraction: {costs}")
    for growth in report["saturation"]:
        if growth["stopped"] != "saturated":
            print(f"phase {growth['phase']} stopped: {growth['stopped']}")
    stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in report["seconds"].items())
    print(f"compiled in {sum(report['seconds'].values()):.2f} s ({stages})")
    print(f"wrote {report['artifact']}, {report['bytes'] / 2**20:.1f} MiB")

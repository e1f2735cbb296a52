"""``egc explain``: why a model was compiled the way it was."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
from rich.console import Console

from egc.cli.common import (
    a_path,
    add_compile_options,
    add_device,
    check_output,
    compiled_model,
    options_of,
    parse_shapes,
    progress,
    random_inputs,
    refuse_compile_options,
)
from egc.errors import ArtifactError, UsageError
from egc.files import whole
from egc.runtime.artifact import is_artifact

if TYPE_CHECKING:
    from egc.runtime.artifact import Artifact
    from egc.runtime.session import Session

_WARM_RUNS, _RUNS = 3, 9


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="say why a model was compiled the way it was",
        description="Explain a compilation: kernels, the ONNX nodes they cover, the rules that led to "
        "them, their loop nests and costs. An .egc answers from the record that it holds; an .onnx is "
        "compiled first.",
    )
    parser.add_argument(
        "model", type=a_path, metavar="MODEL", help="an .egc, or an .onnx file, which is compiled"
    )
    parser.add_argument(
        "node", nargs="?", metavar="NODE", help="an ONNX node, a value, a kernel or a call's number"
    )
    questions = parser.add_mutually_exclusive_group()
    questions.add_argument(
        "--why-not", metavar="RULE", help="why RULE is not behind the program, or not behind NODE"
    )
    questions.add_argument("--ban", metavar="RULE", help="what changes without RULE, and what it costs")
    questions.add_argument(
        "--html", type=a_path, metavar="FILE", help="write a page to explore, which needs no network"
    )
    parser.add_argument(
        "--measure", action="store_true", help="run it, and show measured times beside predicted ones"
    )
    add_device(parser)
    parser.add_argument("--json", action="store_true", help="print the answer as JSON (docs/explain.md)")
    add_compile_options(parser)
    parser.set_defaults(main=main)


class _Opened:
    """MODEL: its record, which was `read` from a file or made now, and the artifact."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.read = is_artifact(args.model)
        if self.read:
            refuse_compile_options(args, *(("threads", "shape") if args.measure else ()))
            from egc.runtime.artifact import open_artifact

            self.artifact: Artifact = open_artifact(args.model)
            self.record: dict[str, Any] = self.artifact.record()
            if not self.record:
                hint = "compile the model again"
                raise ArtifactError("the artifact holds no record", where=str(args.model), hint=hint)
        else:
            compiled = compiled_model(args.model, options_of(args))
            self.artifact, self.record = compiled.artifact(), compiled.record


def main(args: argparse.Namespace) -> int:
    """Explain."""
    if args.node is not None and (args.ban is not None or args.html):
        flag = "--ban" if args.ban is not None else "--html"
        raise UsageError(f"{flag} is about the whole program", hint=f"leave {args.node!r} out")
    if args.html:
        check_output(args.html, [args.model, *args.rules])
    if args.device and not args.measure:
        raise UsageError("--device says where --measure runs it", hint="leave it out, or add --measure")
    opened = _Opened(args)
    try:
        return _answer(opened, args)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        if not opened.read:
            raise
        raise ArtifactError(
            "the artifact's record makes no sense",
            where=str(args.model),
            why=f"{type(error).__name__}: {error}",
            hint="compile the model again; where that does not help, report it with what EGC_DEBUG=1 shows",
        ) from error


def _answer(opened: _Opened, args: argparse.Namespace) -> int:
    """Answer what was asked. Where the record is not as an egc writes it, any error."""
    if args.measure:
        opened.record["measured"] = measure(opened, args)
    if args.why_not is not None:
        return why_not(opened, args)
    if args.ban is not None:
        return ban(opened, args)
    if args.html:
        from egc.explain.html import page

        write_text(args.html, page(opened.record))
        print(f"wrote {args.html}")
        return 0
    return show(opened.record, args.node, args.json)


def show(record: dict[str, Any], node: str | None, as_json: bool) -> int:
    """Print a record, or what it says of one node."""
    from egc.explain.find import find, only
    from egc.explain.text import print_call, print_kernels, print_origin, print_summary

    if node is None and as_json:
        print_json(record)
        return 0
    console = plain_console()
    if node is None:
        print_summary(record, console)
        print_kernels(record, console)
        return 0
    nodes, calls = find(record, node)
    if as_json:
        print_json(only(record, nodes, calls))
        return 0
    for index in nodes:
        print_origin(record, index, console)
    # A kernel that many calls share is explained once: in its first call.
    shown = calls if nodes else calls[:1]
    for index in shown:
        print_call(record, index, console)
    if len(shown) < len(calls):
        console.print(f"\nthe same kernel runs as call {', '.join(map(str, calls[1:]))}")
    return 0


def print_json(data: dict[str, Any]) -> None:
    """The answer for programs."""
    print(json.dumps(data, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file: all of it or nothing."""
    from egc.runtime.artifact import WriteError

    try:
        with whole(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise WriteError("cannot write the page", where=str(path), why=error.strerror) from None


def plain_console() -> Console:
    """The terminal, or, where output goes elsewhere, long lines without blanks at their ends."""
    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, markup=False, width=160, file=cast("TextIO", _Trimmed(sys.stdout)))


class _Trimmed(io.TextIOBase):
    """Text on its way to a file, the blanks at the ends of lines taken off."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> int:
        return self.file.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        self.file.flush()


def measure(opened: _Opened, args: argparse.Namespace) -> list[float]:
    """Seconds of each call: the median of several runs on random inputs.

    A symbolic dim that no --shape fixes has the extent for which costs were predicted.
    """
    from egc.runtime.session import Session

    with Session(opened.artifact, threads=args.threads, device=args.device) as session:
        shapes = extents(session, parse_shapes(args.shape), opened.record["machine"]["symbolic_extent"])
        feeds = random_inputs(session, {}, shapes)
        runs = [session.profile(feeds) for _ in range(_WARM_RUNS + _RUNS)][_WARM_RUNS:]
    return [float(np.median([run[i][1] for run in runs])) for i in range(len(runs[0]))]


def extents(
    session: Session, given: dict[str, tuple[int | str, ...]], otherwise: int
) -> dict[str, list[int | str]]:
    """The shapes of all inputs: dims that ``given`` fixes for one, and ``otherwise`` for the others."""
    ports = session.get_inputs()
    bound = {
        dim: extent
        for port in ports
        for dim, extent in zip(port.shape, given.get(port.name, ()), strict=False)
        if isinstance(extent, int)
    }
    return {
        port.name: [
            bound.get(d, otherwise) if isinstance(d, str) and d.isidentifier() else d for d in port.shape
        ]
        for port in ports
    }


def why_not(opened: _Opened, args: argparse.Namespace) -> int:
    """Answer `--why-not RULE [NODE]`."""
    from egc.explain.answers import print_why_not
    from egc.explain.find import find
    from egc.explain.why_not import why_not as answer_of

    record = opened.record
    nodes, calls = find(record, args.node) if args.node else ([], None)
    answer = answer_of(record, args.why_not, calls)
    if answer["verdict"] in ("elsewhere", "no match", "budget", "unused"):
        from egc.explain.again import again
        from egc.explain.asked import asked

        with progress("asking the e-graph …"), again(record) as known:
            answer |= asked(known, answer, {record["onnx"][i]["title"] for i in nodes}, calls)
    if args.json:
        print_json(answer)
    else:
        print_why_not(record, answer, plain_console())
    return 0


def ban(opened: _Opened, args: argparse.Namespace) -> int:
    """Answer `--ban RULE`."""
    from egc.explain.again import again, without
    from egc.explain.answers import print_ban
    from egc.explain.ban import compare

    with progress("compiling without it …"), again(opened.record) as known:
        comparison = compare(opened.record, without(known, args.ban), args.ban)
    if args.json:
        print_json(comparison)
    else:
        print_ban(comparison, plain_console())
    return 0

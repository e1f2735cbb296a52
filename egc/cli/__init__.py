"""The command line: one module per subcommand, each with ``add_parser(subparsers)`` and
``main(args) -> exit code``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import egc
from egc.collector import seldom
from egc.errors import EgcError

COMMANDS = ("optimize", "run", "verify", "bench", "explain", "rules", "ops")

_EPILOG = """\
exit status: 0 done, 1 the work failed (mismatch, cannot compile), 2 bad usage or bad input
environment: EGC_DEBUG=1 shows tracebacks"""


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors look like egc's other errors."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}\n  try: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    _intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, with options also between positional arguments, as in MODEL --json NODE."""
        if self._intermixed or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._intermixed = True  # the method below calls this one
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False


def command_line(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of ``egc``, with these of its commands; imports their modules."""
    parser = _Parser(
        prog="egc",
        description="An optimizing compiler for ONNX models built on equality saturation.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"egc {egc.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name in commands:
        importlib.import_module(f"egc.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    # Whoever names a command waits for its imports alone.
    args = command_line(words[:1] if words and words[0] in COMMANDS else COMMANDS).parse_args(argv)
    try:
        status: int = args.main(args)
        sys.stdout.flush()
        return status
    except EgcError as error:
        if os.environ.get("EGC_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of a pipe went away: nobody is left to tell.
        # Keep the interpreter from flushing into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # what no command expects: above all a full disk behind standard output
        if os.environ.get("EGC_DEBUG"):
            raise
        print(f"error: {error.strerror or error}", file=sys.stderr)
        print(f"  where: {error.filename or 'a stream or a temporary file'}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print("error: there is not enough memory", file=sys.stderr)
        print(f"  where: egc {words[0]}\n  why: {error or 'a part of its work needs more'}", file=sys.stderr)
        print("  try: smaller inputs or a smaller model, or a machine with more memory", file=sys.stderr)
        return 1
    except Exception as error:
        if os.environ.get("EGC_DEBUG"):
            raise
        print(
            f"error: egc failed, and this is its own fault\n  why: {type(error).__name__}: {error}\n"
            "  try: EGC_DEBUG=1 shows where; please report it",
            file=sys.stderr,
        )
        return 1


def run() -> NoReturn:
    """The command ``egc``. It ends at once: to take the interpreter down object by object is 0.07 s more."""
    _check_streams()
    seldom()
    try:
        status = main()
    except SystemExit as stop:  # argparse's way out
        status = int(stop.code or 0)
    except KeyboardInterrupt:  # also while it imports
        print("interrupted", file=sys.stderr)
        status = 130
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # `main` has said so
            stream.flush()
    os._exit(status)


def _check_streams() -> None:
    """Streams that can take whatever is printed: closed ones lead nowhere, instead of into the next file that
    is opened, and characters that the locale lacks are replaced."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: Any = getattr(sys, name)
        if stream is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
        else:
            stream.reconfigure(errors="replace")

"""Writes docs/options.md: every command of egc with its arguments, as the parsers declare them.

python scripts/write_options.py > docs/options.md
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from egc.cli import COMMANDS, command_line

HEAD = """\
# Commands and options

What `egc COMMAND --help` says, on one page (`python scripts/write_options.py > docs/options.md`). Exit
status: 0 done, 1 the work failed (a mismatch, a model that cannot be compiled), 2 bad usage or bad input.

| environment | |
|---|---|
| `EGC_DEBUG=1` | errors come with their tracebacks |
| `XDG_CACHE_HOME` | the folder of `egc/`, which spares work from run to run; `~/.cache` where it is not set |
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for name in COMMANDS for line in section(name))]).rstrip() + "\n"


def section(name: str) -> Iterator[str]:
    """A command with its arguments, and each command within it."""
    (subparsers,) = (a for a in command_line([name])._actions if isinstance(a, argparse._SubParsersAction))
    yield from described(f"egc {name}", subparsers.choices[name], 2)


def described(title: str, parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """One parser's heading, description and table."""
    yield f"{'#' * level} {title}\n"
    yield f"{parser.description or ''}\n"
    rows: list[str] = []
    inner: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner = dict(action.choices)
        elif not isinstance(action, argparse._HelpAction):
            rows.append(f"| {spelled(action)} | {explained(action)} |")
    if rows:
        yield "\n".join(["| argument | |", "|---|---|", *rows]) + "\n"
    for name, other in inner.items():
        yield from described(f"{title} {name}", other, level + 1)


def spelled(action: argparse.Action) -> str:
    """How an argument is given."""
    values = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest
    )
    if not action.option_strings:
        return f"`{values}`" + (" …" if action.nargs in ("*", "+") else "")
    value = "" if action.nargs == 0 else f" {values}"
    again = " (again and again)" if isinstance(action, argparse._AppendAction) else ""
    return ", ".join(f"`{option}{value}`" for option in action.option_strings).replace("|", "\\|") + again


def explained(action: argparse.Action) -> str:
    """What an argument means, its default included where the help says so."""
    assert action.help, f"{action.dest} has no help"
    return (action.help % {"default": action.default, "prog": "egc"}).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")

"""`egc rules`: list the rules, check rule files, start a new one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from egc.cli.common import a_path
from egc.errors import BadInput, UsageError
from egc.explain.units import counted

if TYPE_CHECKING:
    from egc.rules.diagnostics import Diagnostic
    from egc.soundness.cost import Measured

TEMPLATE = """\
;;; {file}: rules for egc. Check this file with `egc rules check {file}`, use it with
;;; `egc optimize MODEL.onnx --rules {file}`, and see what it did with `egc explain`.
;;; rules/README.md teaches the language; rules/prelude.egg lists all constructors.

;; A rule says that two programs are equal; it adds the right side wherever the left side is found, and the
;; cost model chooses. Above it stand, each in a line of its own:
;;   what it does, in mathematics, and in a sentence where that helps;
;;   its class: `exact` (the same values), `reassociating` (other rounding) or `approximate`;
;;   an example that `egc rules check` runs.
;;
;; doc: Two negations cancel.
;; math: -(-x) = x
;; class: exact
;; example: (Map1 (Neg) (Map1 (Neg) a)) => a
(rewrite (Map1 (Neg) (Map1 (Neg) x)) x :ruleset canonical :name "{name}")

;; A condition is a premise behind `:when`; an equality binds a name to a fact:
;;     :when ((= s (shape x)) (= s (shape y)))
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `egc rules` and its commands."""
    about = "List, check and start rule files."
    parser = subparsers.add_parser("rules", help="list, check and start rule files", description=about)
    commands = parser.add_subparsers(dest="rules_command", required=True, metavar="COMMAND")

    listing = commands.add_parser(
        "list",
        help="name, class, place and meaning of every rule",
        description="Name, class, place and meaning of every rule.",
    )
    listing.add_argument(
        "--rules", action="append", default=[], type=a_path, metavar="FILE", help="add a rule file"
    )
    listing.add_argument("--json", action="store_true", help="print JSON")

    checking = commands.add_parser(
        "check",
        help="check rule files, or the shipped ones where none is given",
        description="Check rule files, or the shipped ones where none is given.",
    )
    checking.add_argument("files", nargs="*", type=a_path, metavar="FILE", help="what to check")
    checking.add_argument("--json", action="store_true", help="print JSON")

    new = commands.add_parser(
        "new",
        help="write a commented rule file to start from",
        description="Write a commented rule file to start from.",
    )
    new.add_argument("name", metavar="NAME", help="the first rule's name")
    new.add_argument("-o", "--output", type=a_path, metavar="FILE", help="the file (default: NAME.egg)")

    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run `egc rules …`; 0 where all is well, 1 where `check` found an error. Raises EgcError."""
    match args.rules_command:
        case "list":
            return _list(args.rules, args.json)
        case "check":
            return _check(args.files, args.json)
        case _:
            return _new(args.name, args.output)


def _list(extra: list[Path], as_json: bool) -> int:
    from egc.rules import load_rules

    book = load_rules(accuracy="fast", extra=extra)
    rows: list[dict[str, Any]] = [
        {
            "name": rule.name,
            "class": rule.rule_class.value,
            "ruleset": rule.ruleset,
            "file": rule.span.source.name,
            "line": rule.span.line,
            "math": rule.notes.math,
            "doc": rule.notes.doc,
            "source": rule.notes.source,
            "examples": [note.text for note in rule.notes.examples],
        }
        for rule in book.rules
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    columns = ["name", "class", "ruleset", "place"]
    table = [columns] + [[r["name"], r["class"], r["ruleset"], f"{r['file']}:{r['line']}"] for r in rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    meanings = ["what it does", *(r["math"] or r["doc"] or "" for r in rows)]
    for row, meaning in zip(table, meanings, strict=True):
        shown = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"{shown}  {meaning}".rstrip())
    return 0


def _check(files: list[Path], as_json: bool) -> int:
    from egc.files import real
    from egc.resources import shipped_rules
    from egc.rules.book import read_rules, shown_name
    from egc.rules.check import check
    from egc.soundness.check import check_soundness
    from egc.soundness.cost import idle, measure

    report = check(files, further=(check_soundness,))
    findings, measured = list(report.findings), {}
    if files and not report.errors:
        shipped = shipped_rules()
        loaded = read_rules([*shipped, *(path for path in files if real(path) not in shipped)])
        names = {shown_name(path) for path in files}
        rules = [rule for rule in loaded.rules if rule.span.source.name in names]
        measured = measure(rules, loaded)
        findings += idle(rules, measured)
    warnings = sum(d.warning for d in findings)
    if as_json:
        summary = {
            "rules": report.rules,
            "examples": report.examples,
            "findings": [_finding(d) for d in findings],
            "cost": {name: [asdict(run) for run in runs] for name, runs in measured.items()},
        }
        print(json.dumps(summary, indent=2))
        return 1 if report.errors else 0
    for finding in findings:
        print(finding)
    _print_costs(measured)
    checked = f"{counted(report.rules, 'rule')}, {counted(report.examples, 'example')}"
    print(f"{checked}: {counted(report.errors, 'error')}, {counted(warnings, 'warning')}")
    return 1 if report.errors else 0


def _finding(finding: Diagnostic) -> dict[str, Any]:
    """A finding for programs."""
    return {
        "severity": "warning" if finding.warning else "error",
        "message": finding.message,
        "file": finding.span.source.name,
        "line": finding.span.line,
        "column": finding.span.column,
        "hint": finding.hint,
        "details": list(finding.details),
    }


def _print_costs(measured: Mapping[str, Sequence[Measured]]) -> None:
    """A line a rule: what it matched, and how long one search took, in a small and in a large graph."""
    if not measured:
        return
    first = next(iter(measured.values()))
    sizes = " and ".join(str(run.rows) for run in first)
    print(f"matches, and the time to find them, in saturated e-graphs of {sizes} rows:")
    width = max(map(len, measured))
    for name, runs in measured.items():
        shown = "".join(f"{run.matches:>8} in {run.seconds * 1e3:7.2f} ms" for run in runs)
        print(f"  {name.ljust(width)}{shown}")


def _new(name: str, output: Path | None) -> int:
    from egc.rules.rule import is_rule_name

    if not is_rule_name(name):
        raise UsageError(f"`{name}` is no name for a rule", hint="letters, digits, `-`, `_`, `.` and `+`")
    path = output or Path(f"{name}.egg")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(name=name, file=path.name))
    except FileExistsError:
        raise UsageError(f"{path} exists already", hint="choose another name, or `-o FILE`") from None
    except OSError as error:
        raise BadInput(f"cannot write {path}", why=error.strerror, hint="-o FILE") from error
    print(f"wrote {path}; next: egc rules check {path}", file=sys.stderr)
    return 0

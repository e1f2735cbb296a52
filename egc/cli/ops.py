"""``egc ops``: the operator table."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from rich.table import Table

from egc.bench.report import wide_console


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "ops",
        help="list the ONNX operators",
        description="Every operator of the installed onnx package: compiled, decomposed by its ONNX function "
        "body, run on the host by onnx.reference, or unsupported, as nothing knows it.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the table."""
    rows = operator_rows()
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table("domain", "operator", "since", "how", "family")
    for row in rows:
        table.add_row(
            row["domain"] or "ai.onnx", row["operator"], str(row["since"]), row["how"], row["family"]
        )
    console = wide_console()
    console.print(table)
    counts = Counter(row["how"] for row in rows)
    console.print(
        ", ".join(f"{counts[how]} {how}" for how in ("compiled", "function", "host", "unsupported"))
    )
    return 0


def operator_rows() -> list[dict[str, Any]]:
    """One row an operator: domain, name, newest version, how it is run, family."""
    import onnx.defs

    from egc.frontend.hosted import runnable
    from egc.frontend.registry import operators

    table = operators()
    newest: dict[tuple[str, str], Any] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        key = (schema.domain, schema.name)
        if not schema.deprecated and (key not in newest or schema.since_version > newest[key].since_version):
            newest[key] = schema
    rows = []
    for (domain, name), schema in sorted(newest.items()):
        entry = table.get((domain, name))
        has_body = schema.has_function or schema.has_context_dependent_function
        hosted = "host" if runnable(domain, name, schema.since_version) else "unsupported"
        how = "compiled" if entry else "function" if has_body else hosted
        family = entry.family if entry else ""
        rows.append(
            {"domain": domain, "operator": name, "since": schema.since_version, "how": how, "family": family}
        )
    return rows

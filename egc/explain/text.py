"""A record as text for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

Record = dict[str, Any]


def milliseconds(seconds: float | None) -> str:
    """Seconds as text in milliseconds; a dash where unknown."""
    return "–" if seconds is None else f"{seconds * 1e3:.3g} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.3g} µs"


def print_summary(record: Record, console: Console) -> None:
    """What came in, what came out, what was spent and which budgets were hit."""
    calls = record["calls"]
    hosts = [call for call in calls if call["kind"] == "host"]
    console.print(
        f"[bold]{record['model']}[/bold]: {len(record['onnx'])} ONNX nodes → {len(calls)} kernel calls "
        f"({len(record['kernels'])} distinct kernels), predicted {milliseconds(predicted(record))} "
        f"on {record['machine']['name']}"
    )
    for call in hosts:
        console.print(f"  on the host: {', '.join(map(short, call['onnx']))}")
    for growth in record["growth"]:
        if growth["stopped"] != "saturated":
            console.print(f"  phase {growth['phase']} stopped by its budget: {growth['stopped']}")


def predicted(record: Record) -> float:
    """The sum of the calls' predicted seconds."""
    return sum(call["predicted"] or 0.0 for call in record["calls"])


def short(title: str) -> str:
    """An ONNX node's title without the word that starts it."""
    return title.removeprefix("node ")


def print_kernels(record: Record, console: Console) -> None:
    """One row a call: its kernel, cost, and the ONNX nodes that it covers."""
    table = Table("#", "kernel", "predicted", "ONNX nodes", title="Kernels", title_justify="left")
    for i, call in enumerate(record["calls"]):
        table.add_row(
            str(i), call["kernel"] or "host", milliseconds(call["predicted"]), ", ".join(map(short, call["onnx"]))
        )
    console.print(table)

"""The answers to `--why-not` and `--ban` as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from egc.explain.text import (
    main_term,
    nest_changes,
    ordered,
    plain_table,
    shortened,
    titled,
)
from egc.explain.units import difference, duration

Record = dict[str, Any]


_SHOWN = 4  # of a list


def print_why_not(record: Record, answer: Record, console: Console) -> None:
    """The answer of :func:`egc.explain.why_not.why_not`, with what the e-graph added."""
    head = Text(answer["rule"], style="bold")
    if answer["verdict"] == "left out":
        console.print(head.append(f" could not fire: {answer['why']}", style="not bold"))
        return
    console.print(head.append(f"  {answer['at']}  {answer['math'] or ''}", style="not bold"))
    console.print(_sentence(answer))
    for step in answer.get("steps", ())[:3]:
        lines = [f"matched {text}" for text in step["matched"]] + [
            f"built   {text}" for text in step["built"]
        ]
        console.print(titled("for example", Text("\n".join(lines))))
    for loss in answer.get("lost", ())[:_SHOWN]:
        _print_loss(record, loss, console)
    for nest in answer.get("nests", ())[:_SHOWN]:
        _print_nest(nest, console)
    if "fusions" in answer:
        _print_fusions(answer["fusions"], console)
    if "failure" in answer:
        _print_failure(answer["failure"], console)


def _sentence(answer: Record) -> str:
    """The verdict, in words."""
    times = {0: "it never matched", 1: "it matched once"}
    fired = times.get(answer["matches"], f"it matched {answer['matches']} times")
    match answer["verdict"]:
        case "chosen":
            return f"It did its part: {_calls(answer['calls'])} came from it."
        case "removed":
            nodes = answer["nodes"]
            more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
            return f"It did its part: because of it these are gone: {', '.join(nodes[:_SHOWN])}{more}."
        case "lost" if answer["seconds"] == 0:
            return f"It came second: {fired}, and the best of what it built costs as much as what was chosen."
        case "lost":
            by = difference(answer["seconds"])
            return (
                f"It lost on cost: {fired}, and the best of what it built costs {by} beside what was chosen."
            )
        case "unreachable" if answer["stage"] == "loops":
            return f"Not reachable: {fired}, but no nest that can be compiled came from it."
        case "unreachable":
            return (
                f"Not reachable: {fired}, but nothing that it built computes a value that the program needs."
            )
        case "elsewhere":
            return f"Not here: {fired}, but not on what this call computes."
        case "unused" if answer["stage"] == "fusion":
            return f"It is behind no kernel: {fired}."
        case "unused":
            return "It built no loop nest that was chosen; other nests are in the depth of each call."
        case "budget":
            return (
                f"A budget may have stopped it: {fired}, and {', '.join(answer['phases'])} ended by a budget."
            )
    return f"It found nothing: {fired}."


def _calls(numbers: Sequence[int]) -> str:
    """Some calls by number."""
    more = " …" if len(numbers) > 12 else ""
    return f"call{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:12]))}{more}"


def _print_loss(record: Record, loss: Record, console: Console) -> None:
    call = record["calls"][loss["call"]]
    where = Text(f"call {loss['call']}, which covers ").append_text(shortened(call["onnx"]))
    lines = Text(f"{loss['value']} = {loss['term']}\ninstead of {loss['chosen']}\n")
    by = "by the prices of extraction, which knows no loop nests:"
    console.print(titled(str(where), lines, Text(by, style="dim"), _terms(loss)))


def _print_nest(nest: Record, console: Console) -> None:
    lines = Text("\n".join(nest_changes(nest["chosen"], nest["nest"])) or "the same loops, found another way")
    cost = (Text(""), _terms(nest)) if any(nest["terms"].values()) else ()
    console.print(titled(f"{_calls(nest['calls'])}, {nest['kernel']}", lines, *cost))


def _terms(loss: Record) -> Table:
    """A difference in cost by its terms, those that do not differ left out."""
    table = plain_table("term", "difference", right=("difference",))
    for name, seconds in ordered(loss["terms"]):
        if seconds:
            table.add_row(name, difference(seconds))
    named = "in all"
    if term := main_term(loss["terms"]):
        named += f", mostly {term}"
    table.add_row(named, difference(loss["seconds"]))
    return table


def _print_fusions(fusions: Sequence[Record], console: Console) -> None:
    """The pairs that a rule allowed to share a kernel: those that do, and those that do not."""
    together = [pair for pair in fusions if len(pair["calls"]) == 1]
    apart = [pair for pair in fusions if len(pair["calls"]) > 1]
    for title, pairs in (
        ("In one kernel, which another rule allowed first", together),
        (
            "Not fused: it would cost more than the write and the reads that it saves, or a reader cannot",
            apart,
        ),
    ):
        if pairs:
            table = plain_table("producer", "consumer", "calls")
            for pair in pairs[:_SHOWN]:
                numbers = ", ".join(map(str, pair["calls"]))
                table.add_row(f"%{pair['producer']}", f"%{pair['consumer']}", numbers)
            console.print(titled(f"{title}: {len(pairs)}", table))


def _print_failure(failure: Record, console: Console) -> None:
    if failure["atom"] is None:
        console.print("  all of its premises hold now: it would fire in another round, or in a later phase")
        return
    held, total = failure["held"], failure["total"]
    console.print(Text(f"  premise {held + 1} of {total} fails: {failure['atom']}"))
    if not failure["candidate"]:
        return
    count = failure["candidates"]
    console.print("  the only candidate:" if count == 1 else f"  the nearest of {count} candidates:")
    table = plain_table("asked for", "there")
    for name, value in failure["candidate"].items():
        table.add_row(Text(name), Text(value))
    console.print(Padding(table, (0, 0, 0, 4)))


def print_ban(comparison: Record, console: Console) -> None:
    """The answer of :func:`egc.explain.ban.compare`."""
    before, after = comparison["before"], comparison["after"]
    console.print(Text(f"without {comparison['rule']}", style="bold"))
    console.print(f"  kernel calls {before['calls']} → {after['calls']}")
    console.print(
        f"  predicted {duration(before['predicted'])} → {duration(after['predicted'])}"
        f" ({difference(comparison['difference'])})"
    )
    if comparison["difference"] < 0:
        console.print("  cheaper without it: extraction prices terms before their loop nests are known")
    if not before["only"] and not after["only"]:
        console.print("  nothing changes")
        return
    for title, side in (("Calls that go", before), ("Calls that come", after)):
        table = plain_table("#", "kernel", "predicted", "ONNX nodes", right=("#", "predicted"))
        for call in side["only"]:
            table.add_row(
                str(call["call"]),
                call["kernel"] or "host",
                duration(call["predicted"]),
                shortened(call["onnx"]),
            )
        console.print(titled(f"{title}: {len(side['only'])}", table))

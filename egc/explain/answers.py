"""The answers to `--why-not` and `--ban` as text for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from egc.explain.text import difference, duration, main_term, plain_table, shortened, titled

Record = dict[str, Any]


def print_why_not(record: Record, answer: Record, console: Console) -> None:
    """The answer of :func:`egc.explain.why_not.why_not`, with ``failure`` where premises were tried."""
    head = Text(answer["rule"], style="bold")
    if answer["verdict"] == "left out":
        console.print(head.append(f" could not fire: {answer['why']}", style="not bold"))
        return
    console.print(head.append(f"  {answer['at']}  {answer['math'] or ''}", style="not bold"))
    fired = f"it matched {answer['matches']} times" if answer["matches"] else "it never matched"
    match answer["verdict"]:
        case "chosen":
            calls = ", ".join(map(str, answer["calls"][:12])) + (" …" if len(answer["calls"]) > 12 else "")
            console.print(f"It did its part: call {calls} came from it.")
            for step in answer["steps"][:3]:
                lines = [f"matched {text}" for text in step["matched"]] + [
                    f"built   {text}" for text in step["built"]
                ]
                console.print(titled("for example", Text("\n".join(lines))))
        case "lost":
            by = difference(answer["seconds"])
            console.print(
                f"It lost on cost: {fired}, and the best of what it built costs {by} beside what was chosen."
            )
            for loss in answer["lost"][:4]:
                _print_loss(record, loss, console)
        case "unreachable":
            console.print(
                f"Not reachable: {fired}, but nothing that it built computes a value that the program needs."
            )
        case "elsewhere":
            console.print(f"Not here: {fired}, but built no spelling of what this call computes.")
        case "unused":
            what = (
                "allowed no fusion that was made"
                if answer["stage"] == "fusion"
                else "built no loop nest that was chosen"
            )
            console.print(f"It {what}; other loop nests are in the depth of each call.")
        case "budget":
            console.print(
                f"A budget may have stopped it: {fired}, and {', '.join(answer['phases'])} ended by a budget."
            )
        case _:
            console.print(f"It found nothing: {fired}.")
    if "failure" in answer:
        _print_failure(answer["failure"], console)


def _print_loss(record: Record, loss: Record, console: Console) -> None:
    call = record["calls"][loss["call"]]
    where = Text(f"call {loss['call']}, which covers ").append_text(shortened(call["onnx"]))
    lines = Text(f"{loss['value']} = {loss['term']}\ninstead of {loss['chosen']}\n")
    table = plain_table("term", "difference", right=("difference",))
    for name, seconds in loss["terms"].items():
        table.add_row(name, difference(seconds))
    table.add_row("total", difference(loss["seconds"]))
    named = f"  {difference(loss['seconds'])}"
    if term := main_term(loss["terms"]):
        named += f", mostly {term}"
    console.print(titled(str(where), lines, Text(named.strip()), table))


def _print_failure(failure: Record, console: Console) -> None:
    if failure["atom"] is None:
        console.print("  all of its premises hold now: it would fire in another round, or in a later phase")
        return
    held, total = failure["held"], failure["total"]
    console.print(Text(f"  premise {held + 1} of {total} fails: {failure['atom']}"))
    if not failure["candidate"]:
        return
    console.print(f"  the nearest candidate, of {failure['candidates']} for which the {held} before it hold:")
    for name, value in failure["candidate"].items():
        console.print(Text(f"    {name} = {value}"))


def print_ban(comparison: Record, console: Console) -> None:
    """The answer of :func:`egc.explain.ban.compare`."""
    before, after = comparison["before"], comparison["after"]
    console.print(Text(f"without {comparison['rule']}", style="bold"))
    console.print(f"  kernel calls {before['calls']} → {after['calls']}")
    console.print(
        f"  predicted {duration(before['predicted'])} → {duration(after['predicted'])}"
        f" ({difference(comparison['difference'])})"
    )
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

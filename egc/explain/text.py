"""A record as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from egc.explain.units import counted, difference, duration

Record = dict[str, Any]

BAR = 24  # characters of the longest bar
TERMS = ("compute", "traffic", "l1", "l2", "l3", "dram", "latency", "conversion", "launch", "total")
# Alternatives in the graph's e-graph have no loop nests; what extraction decided by is what they differ in.
SPELLINGS = "Other spellings in the e-graph, by the prices of extraction, which knows no loop nests"


def short(title: str) -> str:
    """An ONNX node's title without the word that starts it."""
    return title.removeprefix("node ")


def predicted(record: Record) -> float:
    """The sum of the calls' predicted seconds."""
    return sum(call["predicted"] or 0.0 for call in record["calls"])


def bar(value: float, largest: float) -> str:
    """A bar of a length in proportion to ``value``."""
    eighths = round(8 * BAR * value / largest) if largest > 0 else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")


def titled(text: str, *parts: RenderableType) -> Group:
    """Parts under a heading."""
    return Group(Text(f"\n{text}", style="bold"), *(Padding(part, (0, 0, 0, 2)) for part in parts))


def plain_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """A table without a frame."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def print_summary(record: Record, console: Console) -> None:
    """What came in, what came out, what was spent and which budgets were hit."""
    calls, measured = record["calls"], record.get("measured")
    console.print(Text(record["model"], style="bold"))
    console.print(
        f"  {counted(len(record['onnx']), 'ONNX node')} → {counted(len(calls), 'kernel call')}"
        f" of {counted(len(record['kernels']), 'distinct kernel')}"
    )
    line = f"  predicted {duration(predicted(record))}"
    if measured:
        line += f", measured {duration(sum(measured))}"
    console.print(f"{line} on {record['machine']['name']}")
    fates: dict[str, int] = {}
    for node in record["onnx"]:
        fates[node["fate"]] = fates.get(node["fate"], 0) + 1
    words = {"kernel": "in kernels", "constant": "folded into constants", "removed": "removed"}
    console.print("  ONNX nodes: " + ", ".join(f"{n} {words[fate]}" for fate, n in fates.items()))
    gone = [rule for node in record["onnx"] if node["fate"] == "removed" for rule in node["by"]]
    if rules := [rule for rule in dict.fromkeys(gone) if rule in record["rules"]]:
        console.print(f"  removed by {', '.join(rules)}")
    hosts = [short(title) for call in calls if call["kind"] == "host" for title in call["onnx"]]
    console.print(
        f"  on the host, run by numpy: {', '.join(hosts)}" if hosts else "  nothing runs on the host"
    )
    costs = record["extraction"]
    console.print(
        "  extraction: " + ", ".join(f"{name} {duration(cost)}" for name, cost in costs.items()) + gap(costs)
    )
    console.print(titled("E-graph growth", growth_table(record)))


def gap(costs: Mapping[str, float]) -> str:
    """How far the methods of extraction lie apart."""
    best = costs.get("lower bound") or min(costs.values())
    worst = max(costs.values())
    return f" (gap {100 * (worst / best - 1):.2f} %)" if best > 0 else ""


def growth_table(record: Record) -> Table:
    """The e-graph after each phase; an artifact does not know how long a phase took."""
    timed = any(g["seconds"] is not None for g in record["growth"])
    columns = ["phase", "e-nodes", "e-classes", "rounds", *(["time"] if timed else []), "ended"]
    table = plain_table(*columns, right=("e-nodes", "e-classes", "rounds", "time"))
    for g in record["growth"]:
        ended = g["stopped"] if g["stopped"] == "saturated" else Text(f"budget: {g['stopped']}", style="red")
        cells = [g["phase"], str(g["enodes"]), str(g["eclasses"]), str(g["rounds"])]
        table.add_row(*cells, *([duration(g["seconds"])] if timed else []), ended)
    return table


def print_kernels(record: Record, console: Console) -> None:
    """One row a call: its kernel, predicted (and measured) seconds, and the ONNX nodes that it covers."""
    measured = record.get("measured")
    columns = ["#", "kernel", "predicted"] + (["measured"] if measured else []) + ["", "ONNX nodes"]
    table = plain_table(*columns, right=("#", "predicted", "measured"))
    largest = max((call["predicted"] or 0.0 for call in record["calls"]), default=0.0)
    for i, call in enumerate(record["calls"]):
        cells = [str(i), call["kernel"] or "host", duration(call["predicted"])]
        if measured:
            cells.append(duration(measured[i]))
        table.add_row(*cells, bar(call["predicted"] or 0.0, largest), shortened(call["onnx"]))
    console.print(titled("Kernels, in the order in which they run", table))
    used = rule_uses(record)
    if used:
        rules = plain_table("rule", "steps", "at", "", right=("steps",))
        for name, count in sorted(used.items(), key=lambda pair: (-pair[1], pair[0])):
            rule = record["rules"][name]
            rules.add_row(name, str(count), rule["at"], rule["math"] or rule["doc"] or "")
        console.print(titled("Rules that the kernels come from", rules))
    console.print(
        Text("\negc explain MODEL NODE says more of an ONNX node, a kernel or a call's number", style="dim")
    )


def shortened(titles: Sequence[str], room: int = 56) -> Text:
    """The titles of ONNX nodes, as many as fit a line; one at least."""
    words = list(map(short, titles))
    shown = next((n for n in range(len(words), 1, -1) if len(", ".join(words[:n])) <= room), 1)
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return Text(", ".join(words[:shown]) + more)


def rule_uses(record: Record) -> dict[str, int]:
    """How many steps of the kernels' derivations each rule is behind."""
    uses: dict[str, int] = {}
    for index in {index for call in record["calls"] for index in call["derivation"]}:
        rule = record["steps"][index]["rule"]
        uses[rule] = uses.get(rule, 0) + 1
    return uses


def print_origin(record: Record, index: int, console: Console) -> None:
    """An ONNX node: what importing made of it, and what became of that."""
    node = record["onnx"][index]
    console.print(Text(short(node["title"]), style="bold"))
    console.print(Text(f"  {node['op']}: {', '.join(node['inputs'])} → {', '.join(node['outputs'])}"))
    for term in node["terms"][:12]:
        console.print(Text(f"  imported as {term}"))
    match node["fate"]:
        case "constant":
            console.print(f"  its value is a constant: {', '.join(node['by'])}")
        case "removed":
            console.print(f"  it is gone: {', '.join(node['by'])}")
        case _:
            console.print(f"  computed by call {', '.join(map(str, node['calls']))}")


def print_call(record: Record, index: int, console: Console) -> None:
    """A call in depth: derivation, computation, loop nest, cost, runners-up."""
    call = record["calls"][index]
    name = call["kernel"] or "host"
    console.print(Text(f"\ncall {index}: {name}", style="bold"))
    console.print(Text(f"  covers {', '.join(map(short, call['onnx']))}"))
    console.print(
        Text(f"  reads {', '.join(call['reads']) or 'nothing'}; writes {', '.join(call['writes'])}")
    )
    console.print(titled("Derivation", derivation(record, call)))
    console.print(titled("Chosen: operators and layouts", Text("\n".join(chosen(record, call)))))
    if call["kind"] == "host":
        console.print("  numpy runs it: egc does not compile this operator or dtype")
        return
    kernel = record["kernels"][name]
    console.print(titled("Before scheduling", Text(kernel["text"])))
    rules = f"by {', '.join(kernel['rules'])}" if kernel["rules"] else ""
    heading = f"Loop nest, of {kernel['cells']} cells in its e-graph ({kernel['stopped']})"
    console.print(titled(heading, Text(kernel["nest"]), Text(rules, style="dim")))
    console.print(
        titled(
            "Predicted cost, whose terms overlap", cost_table(kernel["cost"]), *measured_line(record, index)
        )
    )
    console.print(titled("Other loop nests", nest_table(kernel)))
    console.print(titled(SPELLINGS, alternative_table(call["alternatives"])))


def derivation(record: Record, call: Record) -> RenderableType:
    """The steps from the ONNX nodes' terms to the call's."""
    lines = Text()
    by_title = {node["title"]: node for node in record["onnx"]}
    for title in call["onnx"]:
        for term in by_title.get(title, {"terms": []})["terms"]:
            lines.append(f"given  {term}", style="dim").append(f"   from {short(title)}\n", style="dim")
    for number, index in enumerate(call["derivation"], 1):
        step = record["steps"][index]
        rule = record["rules"][step["rule"]]
        lines.append(f"{number}. {step['rule']}", style="bold").append(f"  {rule['at']}", style="dim")
        lines.append(f"   {rule['math'] or rule['doc'] or ''}\n")
        lines.append_text(Text("".join(f"   matched {text}\n" for text in step["matched"])))
        lines.append_text(Text("".join(f"   built   {text}\n" for text in step["built"])))
    if call["fused_by"]:
        places = ", ".join(f"{name} ({record['rules'][name]['at']})" for name in call["fused_by"])
        lines.append(f"one kernel by {places}")
    return lines


def chosen(record: Record, call: Record) -> list[str]:
    """The nodes of the optimized graph that a call computes, with the types that say their layouts."""
    nodes = {node["outputs"][0]: node for node in record["graph"]}
    lines = []
    for name in call["nodes"]:
        if node := nodes.get(name):
            operands = [f"%{value}" for value in node["inputs"]]
            operands += [f"{key}={value}" for key, value in node["attrs"].items()]
            results = ", ".join(f"%{value}" for value in node["outputs"])
            lines.append(f"{results} = {node['op']}({', '.join(operands)}) : {'; '.join(node['types'])}")
    return lines


def ordered(terms: Mapping[str, float]) -> list[tuple[str, float]]:
    """Cost terms from the core outwards, the total last."""
    return sorted(terms.items(), key=lambda item: TERMS.index(item[0]) if item[0] in TERMS else len(TERMS))


def cost_table(cost: Mapping[str, float]) -> Table:
    """The terms of a predicted cost as bars; terms overlap, so the total is less than their sum."""
    table = plain_table("term", "time", "", right=("time",))
    for name, seconds in ordered(cost):
        table.add_row(name, duration(seconds), bar(seconds, max(cost.values())))
    return table


def measured_line(record: Record, index: int) -> list[Text]:
    """Predicted beside measured, where it was measured."""
    if not record.get("measured"):
        return []
    measured, expected = record["measured"][index], record["calls"][index]["predicted"]
    return [Text(f"measured {duration(measured)}, {measured / expected:.2f} times the prediction")]


def nest_table(kernel: Record) -> RenderableType:
    """The runners-up of scheduling: what they cost and where they differ."""
    if not kernel["alternatives"]:
        return Text("there is none")
    table = plain_table("predicted", "difference", "loops", right=("predicted", "difference"))
    for other in kernel["alternatives"]:
        total = other["cost"]["total"]
        table.add_row(
            duration(total),
            difference(total - kernel["cost"]["total"]),
            Text("\n".join(nest_changes(kernel["nest"], other["nest"]))),
        )
    return table


def nest_changes(chosen: str, other: str) -> list[str]:
    """Where a loop nest differs from the chosen one: loops of some stage, instead of others or moved."""
    before, after = ([line.strip() for line in nest.splitlines()] for nest in (chosen, other))
    several = sum(line.startswith("do ") for line in before) > 1
    found: list[tuple[str, str, str]] = []  # of a stage: the loops that were there, those that are there
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for tag, i, j, k, n in matcher.get_opcodes():
        if tag != "equal":
            stage = next((line.removeprefix("do ") for line in after[n:] if line.startswith("do ")), "")
            old, new = (" · ".join(map(_loop, lines)) for lines in (before[i:j], after[k:n]))
            found.append((f"in {stage}: " if several and stage else "", old, new))
    changes = []
    for at, (where, old, new) in enumerate(found):
        if (where, new, old) in found[:at]:
            continue
        if (where, new, old) in found[at + 1 :] and not (old and new):
            changes.append(f"{where}{new or old} further {'out' if new else 'in'}")
        else:
            changes.append(f"{where}{new or 'nothing'} instead of {old}" if old else f"{where}also {new}")
    return changes


def _loop(line: str) -> str:
    """A loop without the word that starts it."""
    return line.removeprefix("for ")


def alternative_table(alternatives: Sequence[Record]) -> RenderableType:
    """Other e-nodes that could have been chosen."""
    if not alternatives:
        return Text("there is none")
    table = plain_table("difference", "mostly", "term", "built by", right=("difference",))
    for other in alternatives:
        term = Text(f"{other['value']} = {other['term']}")
        table.add_row(
            difference(other["seconds"]),
            main_term(other["terms"]),
            term,
            ", ".join(other["rules"]) or "the model",
        )
    return table


def main_term(terms: Mapping[str, float]) -> str:
    """The cost term that makes the difference."""
    name = max((name for name, _ in ordered(terms)), key=lambda key: abs(terms[key]))
    return name if terms[name] else ""

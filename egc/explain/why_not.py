"""Why a rule is behind no kernel, or not behind this one: the answer that a record gives.

The verdicts, in the order in which they are looked for:

    left out     the rule was disabled, or the accuracy does not admit its class
    chosen       it is part of the derivation, or allowed a fusion, or built the loop nest
    removed      it took no part in a kernel, but made nodes of the model needless
    lost         it fired, and what it built costs more than what was chosen
    elsewhere    (of a node) it fired, but built no spelling of this node's values
    unreachable  it fired, but nothing that it built computes a value that the program needs
    unused       it speaks of kernels (fusion, loop nests), and none that was chosen came from it
    budget       it never fired, and a phase that runs it ended by a budget
    no match     it never fired: a premise failed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from egc.errors import UsageError

Record = dict[str, Any]


def why_not(record: Record, rule: str, calls: Sequence[int] | None) -> Record:
    """``verdict``, ``rule``, ``at``, and what shows it; among ``calls`` only, where they are given."""
    names = [name for name in (rule, f"{rule}/back") if name in record["rules"]]
    if not names:
        return _left_out(record, rule)
    answers = [_answer(record, name, calls) for name in names]
    order = ("chosen", "removed", "lost", "elsewhere", "unreachable", "unused", "budget", "no match")
    return min(answers, key=lambda answer: order.index(answer["verdict"]))


def _left_out(record: Record, rule: str) -> Record:
    for name, why in record["left_out"].items():
        if rule in (name, name.removesuffix("/back")):
            return {"rule": name, "verdict": "left out", "why": why}
    near = difflib.get_close_matches(rule, record["rules"], n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else "egc rules list shows them"
    raise UsageError(f"there is no rule {rule!r}", hint=hint)


def _answer(record: Record, rule: str, calls: Sequence[int] | None) -> Record:
    known = record["rules"][rule]
    answer: Record = {
        "rule": rule,
        "at": known["at"],
        "math": known["math"] or known["doc"],
        "matches": known["matches"],
    }
    answer["stage"] = known["stage"]
    among = range(len(record["calls"])) if calls is None else calls
    if chosen := [i for i in among if rule in rules_of_call(record, i)]:
        return answer | {"verdict": "chosen", "calls": chosen, "steps": _steps(record, rule, chosen)}
    if known["stage"] != "graph":
        return answer | {"verdict": "unused"}
    gone = [node["title"] for node in record["onnx"] if node["fate"] == "removed" and rule in node["by"]]
    if gone and not calls:
        return answer | {"verdict": "removed", "nodes": gone}
    if any(rule in record["calls"][i]["lost"] for i in among):
        seconds = _least(record, rule, among)
        return answer | {"verdict": "lost", "seconds": seconds, "lost": _lost(record, rule, calls)}
    if known["matches"] and calls is not None:
        return answer | {"verdict": "elsewhere"}
    if known["matches"]:
        return answer | {"verdict": "unreachable"}
    if ended := [g["phase"] for g in record["growth"] if g["stopped"] != "saturated"]:
        return answer | {"verdict": "budget", "phases": ended}
    return answer | {"verdict": "no match"}


def rules_of_call(record: Record, index: int) -> set[str]:
    """Every rule that had a hand in a call: its derivation, its fusion, its loop nest."""
    call = record["calls"][index]
    rules = {record["steps"][step]["rule"] for step in call["derivation"]} | set(call["fused_by"])
    if call["kernel"]:
        rules |= set(record["kernels"][call["kernel"]]["rules"])
    return rules


def _steps(record: Record, rule: str, calls: Sequence[int]) -> list[Record]:
    indices = {index for i in calls for index in record["calls"][i]["derivation"]}
    return [record["steps"][index] for index in sorted(indices) if record["steps"][index]["rule"] == rule]


def _least(record: Record, rule: str, calls: Iterable[int]) -> float:
    """By how much the program would get dearer with the best of the rule's results."""
    return min(record["calls"][i]["lost"][rule] for i in calls if rule in record["calls"][i]["lost"])


def _lost(record: Record, rule: str, calls: Sequence[int] | None) -> list[Record]:
    """The rule's results that were not chosen, the narrowest first; those that were recorded in full."""
    if calls is None:
        return list(record["rules"][rule]["lost"])
    found = [loss for loss in record["rules"][rule]["lost"] if loss["call"] in calls]
    for i in calls:
        found += [a for a in record["calls"][i]["alternatives"] if rule in a["rules"] and a not in found]
    return sorted(found, key=lambda loss: loss["seconds"])

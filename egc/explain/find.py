"""What a user means by NODE: an ONNX node's name, a value, a kernel's name, or the number of a call.

Some exporters number the values. `3` is then the value, and `call 3` the call.
"""

from __future__ import annotations

import difflib
from typing import Any

from egc.errors import UsageError

Record = dict[str, Any]


def find(record: Record, text: str) -> tuple[list[int], list[int]]:
    """The positions of the ONNX nodes and of the calls that ``text`` names; UsageError where it names
    nothing."""
    nodes = [
        i for i, node in enumerate(record["onnx"]) if text in (node["name"], node["title"], *node["outputs"])
    ]
    calls = [i for i, call in enumerate(record["calls"]) if text == call["kernel"] or text in call["writes"]]
    if nodes:
        return nodes, list(dict.fromkeys(c for i in nodes for c in record["onnx"][i]["calls"]))
    if calls:
        return [], calls
    number = text.removeprefix("call ")
    if number.isdecimal() and len(number) < 10 and int(number) < len(record["calls"]):
        return [], [int(number)]
    known = [node["name"] for node in record["onnx"] if node["name"]]
    known += [call["kernel"] for call in record["calls"] if call["kernel"]]
    known += [value for node in record["onnx"] for value in node["outputs"]]
    if text in record["rules"]:
        raise UsageError(
            f"{text!r} is a rule, not a part of this model", hint=f"egc explain MODEL --why-not {text}"
        )
    text = text if len(text) <= 80 else f"{text[:80]}…"
    near = difflib.get_close_matches(text, list(dict.fromkeys(known)), n=3, cutoff=0.4)
    raise UsageError(
        f"nothing is called {text!r} in this model",
        why="it is no ONNX node's name, no value, no kernel and no call's number",
        hint=f"did you mean {', '.join(near)}?" if near else "egc explain MODEL lists them",
    )


def only(record: Record, nodes: list[int], calls: list[int]) -> Record:
    """What a record says of some ONNX nodes and calls: these and the steps by their positions, kernels and
    rules by name."""
    by_call = {str(i): record["calls"][i] for i in calls}
    kernels = {call["kernel"] for call in by_call.values()} - {None}
    steps = {str(i): record["steps"][i] for call in by_call.values() for i in call["derivation"]}
    rules = {step["rule"] for step in steps.values()}
    for call in by_call.values():
        rules |= set(call["fused_by"])
    for name in kernels:
        rules |= set(record["kernels"][name]["rules"])
    return {
        "onnx": {str(i): record["onnx"][i] for i in nodes},
        "calls": by_call,
        "kernels": {name: kernel for name, kernel in record["kernels"].items() if name in kernels},
        "steps": steps,
        "rules": {name: rule for name, rule in record["rules"].items() if name in rules},
    }

"""What a user means by NODE: an ONNX node's name, a value, a kernel's name, or the number of a call."""

from __future__ import annotations

import difflib
from typing import Any

from egc.errors import UsageError

Record = dict[str, Any]


def find(record: Record, text: str) -> tuple[list[int], list[int]]:
    """The positions of the ONNX nodes and of the calls that ``text`` names; UsageError where it names
    nothing."""
    if text.isdecimal() and int(text) < len(record["calls"]):
        return [], [int(text)]
    nodes = [
        i for i, node in enumerate(record["onnx"]) if text in (node["name"], node["title"], *node["outputs"])
    ]
    calls = [i for i, call in enumerate(record["calls"]) if text == call["kernel"] or text in call["writes"]]
    if nodes:
        return nodes, list(dict.fromkeys(c for i in nodes for c in record["onnx"][i]["calls"]))
    if calls:
        return [], calls
    known = [node["name"] for node in record["onnx"] if node["name"]]
    known += [call["kernel"] for call in record["calls"] if call["kernel"]]
    near = difflib.get_close_matches(text, list(dict.fromkeys(known)), n=3, cutoff=0.4)
    raise UsageError(
        f"nothing is called {text!r} in this model",
        why="it is no ONNX node's name, no value, no kernel and no call's number",
        hint=f"did you mean {', '.join(near)}?" if near else "egc explain MODEL lists them",
    )

"""What changes without a rule: two records of one model, side by side."""

from __future__ import annotations

from collections import Counter
from typing import Any

from egc.explain.text import predicted

Record = dict[str, Any]


def compare(before: Record, after: Record, rule: str) -> Record:
    """The calls that only one of both programs has, and the difference in cost."""
    counts = [Counter(map(_key, record["calls"])) for record in (before, after)]
    return {
        "rule": rule,
        "before": _side(before, counts[0] - counts[1]),
        "after": _side(after, counts[1] - counts[0]),
        "difference": predicted(after) - predicted(before),
    }


def _key(call: Record) -> tuple[Any, ...]:
    return (call["kernel"], tuple(call["onnx"]))


def _side(record: Record, only: Counter[tuple[Any, ...]]) -> Record:
    left = Counter(only)
    calls = []
    for i, call in enumerate(record["calls"]):
        if left[_key(call)] > 0:
            left[_key(call)] -= 1
            calls.append(
                {"call": i, "kernel": call["kernel"], "onnx": call["onnx"], "predicted": call["predicted"]}
            )
    return {
        "calls": len(record["calls"]),
        "predicted": predicted(record),
        "extraction": record["extraction"],
        "only": calls,
    }

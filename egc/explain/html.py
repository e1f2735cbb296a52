"""The record as one page that needs no network: both graphs, linked, with what led from one to the other."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from egc.explain.layout import layered

Record = dict[str, Any]

_DISTANCE, _HEIGHT = 190.0, 78.0  # between the centres of boxes, in the page's units


def page(record: Record) -> str:
    """The page's text."""
    assets = resources.files("egc.explain") / "assets"
    parts = {
        name: (assets / name).read_text(encoding="utf-8")
        for name in ("page.html", "page.css", "page.js", "graph.js")
    }
    # In a script element only `</` and `<!--` could end the data.
    data = json.dumps(page_data(record), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    replacements = {
        "@TITLE@": html.escape(record["model"]),
        "@STYLE@": parts["page.css"],
        "@DATA@": data,
        "@GRAPH@": parts["graph.js"],
        "@SCRIPT@": parts["page.js"],
    }
    text = parts["page.html"]
    for key, value in replacements.items():
        text = text.replace(key, value, 1)
    return text


def page_data(record: Record) -> Record:
    """The record with both graphs laid out, without what only compiling again needs."""
    nodes = [(node["inputs"], node["outputs"]) for node in record["onnx"]]
    calls = [(call["reads"], call["writes"]) for call in record["calls"]]
    return {
        "record": {key: value for key, value in record.items() if key != "source"},
        "before": _graph(nodes),
        "after": _graph(calls),
    }


def _graph(nodes: Sequence[tuple[Sequence[str], Sequence[str]]]) -> Record:
    """The layout of boxes that read and write values: ``at`` has centres, ``edges`` pairs of boxes and
    ``paths`` points."""
    writers: dict[str, list[int]] = {}
    for i, (_, writes) in enumerate(nodes):
        for value in writes:
            writers.setdefault(value, []).append(i)
    edges = list(
        dict.fromkeys(edge for i, (reads, _) in enumerate(nodes) for edge in _edges(i, reads, writers))
    )
    at, paths = layered(len(nodes), edges, distance=_DISTANCE, height=_HEIGHT)
    return {
        "at": [_rounded(p) for p in at],
        "edges": edges,
        "paths": [[_rounded(p) for p in path] for path in paths],
    }


def _edges(reader: int, reads: Sequence[str], writers: Mapping[str, Sequence[int]]) -> list[tuple[int, int]]:
    # Several calls may write parts of one value; only those that run before the reader are what it reads.
    return [(writer, reader) for value in reads for writer in writers.get(value, ()) if writer < reader]


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 1), round(point[1], 1)

"""Why a rule for fusion is behind no kernel: the optimized graph's fusions are asked for again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict, replace

from egc.compiler import extracted
from egc.egraph import fusion_facts
from egc.egraph.provenance import fusions
from egc.egraph.reading import DECODED
from egc.explain.again import Again
from egc.explain.premises import TENSORS, Prober
from egc.explain.source import Record
from egc.ir.graph import print_attr
from egc.rules.provenance import table


def why_no_fusion(known: Again, name: str, calls: Sequence[int] | None) -> Record:
    """Of all calls, or of some as producers or consumers: ``verdict`` with what shows it (docs/explain.md).

    ``unused``: it allowed ``fusions``, each with ``producer``, ``consumer`` and their ``calls``; where these
    are one, another rule allowed it first. A rule that only prepares others has none. ``no match`` comes with
    the premise that fails.
    """
    book = known.book()
    rule = book.rule(name)
    snapshot = known.snapshot(book)
    graph = extracted(known.imported.graph, snapshot, known.machine.rates, known.options).graph
    reader, names = fusion_facts(graph, book)
    own = replace(book, rules=(rule,))
    pairs = [
        (names[producer], names[consumer])
        for (producer, consumer), cause in fusions(reader, own).items()
        if cause == name and producer in names and consumer in names
    ]
    calls_of = _calls_of(known.record)
    everything = [
        {"producer": a, "consumer": b, "calls": sorted(calls_of.get(a, set()) | calls_of.get(b, set()))}
        for a, b in pairs
    ]
    found = [pair for pair in everything if calls is None or set(calls) & set(pair["calls"])]
    matches = len(reader.rows(table(rule)))
    if matches:
        verdict = "unused" if found or not pairs else "elsewhere"
        return {"verdict": verdict, "matches": matches, "fusions": found}

    def shown(sort: str, value: Any) -> str | None:
        if sort == "T":
            return f"%{names[eclass]}" if (eclass := reader.number(value)) in names else None
        return print_attr(reader.decode(sort, value)) if sort in DECODED - {*TENSORS, "TVec"} else None

    failure = Prober(reader.egraph, book.environment.operators, rule, shown, TENSORS).probe(None)
    return {"verdict": "no match", "matches": 0, "failure": asdict(failure)}


def _calls_of(record: Record) -> dict[str, set[int]]:
    """The calls that compute each value of the optimized graph."""
    results = {node["outputs"][0]: node["outputs"] for node in record["graph"]}
    found: dict[str, set[int]] = {}
    for i, call in enumerate(record["calls"]):
        for first in call["nodes"]:
            for value in results.get(first, [first]):
                found.setdefault(value, set()).add(i)
    return found

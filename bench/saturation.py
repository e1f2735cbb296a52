"""Saturation and extraction of growing models: seconds and e-nodes over 12, 24 and 48 transformer layers.

    python -m bench.saturation [MODEL.onnx …] [--rounds 5]

Transformers are BERT encoders of width 96, since weights never enter the e-graph; models given get rows too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.transformers import bert
from egc.egraph import saturate
from egc.extract import extract
from egc.frontend.importer import import_model
from egc.ir.graph import Graph
from egc.machine import native
from egc.rules import load_rules

DEPTHS = (12, 24, 48)


def measure(graph: Graph, rounds: int) -> tuple[int, float, float]:
    """E-nodes, and the least seconds of saturation and of extraction over ``rounds``."""
    book, rates = load_rules(), native().rates
    saturation, extraction, enodes = [], [], 0
    for _ in range(rounds):
        started = time.perf_counter()
        snapshot = saturate(graph, book)
        between = time.perf_counter()
        extract(graph, snapshot, rates)
        saturation.append(between - started)
        extraction.append(time.perf_counter() - between)
        enodes = snapshot.size
    return enodes, min(saturation), min(extraction)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time saturation and extraction of growing models.")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    table = Table("model", "nodes", "e-nodes", "saturate s", "extract s", "ms a node")
    graphs = [(path.stem, import_model(path).graph) for path in args.models]
    graphs += [(f"{n} layers", import_model(bert("bert", 0, n, 96, 64)).graph) for n in DEPTHS]
    for name, graph in graphs:
        enodes, saturation, extraction = measure(graph, args.rounds)
        each = (saturation + extraction) / len(graph.nodes) * 1e3
        row = (f"{saturation:.2f}", f"{extraction:.2f}", f"{each:.2f}")
        table.add_row(name, str(len(graph.nodes)), str(enodes), *row)
    Console().print(table)


if __name__ == "__main__":
    main()

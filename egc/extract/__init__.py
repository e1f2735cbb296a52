"""Extraction: a Snapshot and a machine's rates come in,
the cheapest equivalent Graph and how it was chosen go out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec import Struct

from egc.egraph.snapshot import ENode, Snapshot
from egc.extract.bottom_up import bottom_up
from egc.extract.cost import CostModel, NodeCost
from egc.extract.decode import decode
from egc.extract.improve import improve
from egc.extract.solution import Solution
from egc.ir.graph import Graph
from egc.machine import Rates

__all__ = ["CostModel", "Extraction", "NodeCost", "Rates", "extract"]


class Extraction(Struct, frozen=True):
    """The optimized graph, and what each method of extraction reached.

    ``costs`` has the cost in seconds of the solution after each method; ``eclass`` the e-class of each value.
    """

    graph: Graph
    costs: Mapping[str, float]
    seconds: float
    solution: Solution
    eclass: Mapping[str, int]


def extract(
    source: Graph, snapshot: Snapshot, rates: Rates, *, seconds: float = 1.0, ilp_seconds: float = 0.0
) -> Extraction:
    """The cheapest graph that ``snapshot`` holds for the outputs of ``source``.

    Bottom-up first, then improvement on the cost with sharing for at most ``seconds``, then, where
    ``ilp_seconds`` is positive, an integer program warm-started from that (needs the package ``highspy``).
    """
    started = time.perf_counter()
    model = CostModel(snapshot, rates)
    cache: dict[tuple[int, ENode], float] = {}

    def cost_of(eclass: int, enode: ENode) -> float:
        key = (eclass, enode)
        if key not in cache:
            cache[key] = model.cost(eclass, enode).total
        return cache[key]

    roots = tuple(dict.fromkeys(snapshot.roots[name] for name in source.outputs))
    solution = bottom_up(snapshot, roots, cost_of)
    costs = {"bottom-up": solution.cost(cost_of)}
    solution = improve(snapshot, solution, cost_of, seconds)
    costs["improved"] = solution.cost(cost_of)
    if ilp_seconds > 0:
        from egc.extract.ilp import solve

        solution, bound = solve(snapshot, solution, cost_of, ilp_seconds)
        costs |= {"ilp": solution.cost(cost_of), "lower bound": bound}
    decoded = decode(source, snapshot, solution)
    return Extraction(decoded.graph, costs, time.perf_counter() - started, solution, decoded.eclass)

"""The graph e-graph: a Graph and a rule book come in, a Snapshot of the saturated e-graph goes out.

This is the only stage that touches egglog for tensor graphs: :mod:`encode` writes a graph as egglog terms,
:mod:`engine` runs the rulesets in phases under budgets,
:mod:`snapshot` reads the result back as plain values.
"""

from egc.egraph.engine import Budget, fusion_facts, legal_fusions, saturate
from egc.egraph.snapshot import ENode, Growth, Snapshot

__all__ = ["Budget", "ENode", "Growth", "Snapshot", "fusion_facts", "legal_fusions", "saturate"]

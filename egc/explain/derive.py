"""Which ONNX nodes each kernel covers, and by which rules it came from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from egc.egraph import Snapshot
from egc.extract import Extraction
from egc.frontend.importer import Imported
from egc.kernels import HostCall, KernelCall
from egc.rules import RuleBook


@dataclass
class Account:
    """``covered``, ``derivations`` and ``alternatives`` are by call."""

    origins: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    covered: list[list[str]] = field(default_factory=list)
    derivations: list[list[int]] = field(default_factory=list)
    alternatives: list[list[dict[str, Any]]] = field(default_factory=list)
    matches: dict[str, int] = field(default_factory=dict)


def account(
    imported: Imported,
    book: RuleBook,
    snapshot: Snapshot,
    extraction: Extraction,
    calls: Sequence[KernelCall | HostCall],
) -> Account:
    """Every ONNX node and every call accounted for."""
    result = Account()
    by_source: dict[str, list[int]] = {}
    for i, call in enumerate(calls):
        nodes = call.nodes if isinstance(call, KernelCall) else (call.node,)
        covered = list(dict.fromkeys(source for node in nodes for source in node.sources))
        result.covered.append(covered)
        result.derivations.append([])
        result.alternatives.append([])
        for source in covered:
            by_source.setdefault(source, []).append(i)
    for origin in imported.origins:
        result.origins.append(
            {
                "title": origin.title,
                "name": origin.name,
                "op": origin.op_type,
                "inputs": [name for name in origin.inputs if name],
                "outputs": [name for name in origin.outputs if name],
                "import": origin.fate,
                "calls": by_source.get(origin.title, []),
            }
        )
    return result

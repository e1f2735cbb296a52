"""A saturated e-graph as plain values: e-classes of e-nodes, their types, and what the rules recorded.

Extraction, explanation and tests read snapshots; only ``provenance`` still looks into egglog's tables, when
it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from egc.ir.types import TensorType

if TYPE_CHECKING:
    from egc.egraph.provenance import Provenance


class ENode(Struct, frozen=True):
    """An operator over e-classes.

    ``op`` is an operator of :mod:`egc.ir.ops`, or ``input``, ``const``, ``splat`` (leaves), or ``output``
    (attribute ``index`` of the e-class of an operator with several results).
    """

    op: str
    children: tuple[int, ...]
    attrs: tuple[tuple[str, Any], ...] = ()

    def attr(self, name: str) -> Any:
        """The value of attribute ``name``; KeyError where there is none."""
        return dict(self.attrs)[name]

    def __str__(self) -> str:
        parts = [f"c{child}" for child in self.children] + [f"{key}={value}" for key, value in self.attrs]
        return f"{self.op}({', '.join(parts)})"


class Growth(Struct, frozen=True):
    """What one phase did: e-nodes and e-classes after it, seconds, rounds, and why it stopped."""

    phase: str
    enodes: int
    eclasses: int
    seconds: float
    rounds: int
    stopped: str  # "saturated", or the budget that was hit


class Snapshot(Struct, frozen=True):
    """A frozen e-graph. ``roots`` maps each value of the graph to its e-class; ``provenance`` says what the
    rules did."""

    classes: Mapping[int, tuple[ENode, ...]]
    types: Mapping[int, TensorType]
    constant: frozenset[int]
    roots: Mapping[str, int]
    growth: tuple[Growth, ...] = ()
    provenance: Provenance | None = None

    @property
    def size(self) -> int:
        """The number of e-nodes."""
        return sum(map(len, self.classes.values()))

    def rules_of(self, enode: ENode) -> tuple[str, ...]:
        """The rules that built an e-node, in file order; none for a term of the model."""
        if self.provenance is None:
            return ()
        built = self.provenance.built_by.get(self.provenance.item_of[enode], ())
        return tuple(dict.fromkeys(self.provenance.rule_of(number) for number in built))

    def __str__(self) -> str:
        return "\n".join(print_snapshot(self))


def print_snapshot(snapshot: Snapshot) -> Iterator[str]:
    """The lines of a snapshot's text form, one e-class a paragraph."""
    names: dict[int, list[str]] = {}
    for name, eclass in snapshot.roots.items():
        names.setdefault(eclass, []).append(f"%{name}")
    for eclass, enodes in sorted(snapshot.classes.items()):
        kind = " constant" if eclass in snapshot.constant else ""
        known = f" {', '.join(names[eclass])}" if eclass in names else ""
        yield f"c{eclass} : {snapshot.types.get(eclass, '?')}{kind}{known}"
        for enode in enodes:
            rules = snapshot.rules_of(enode)
            yield f"  {enode}" + (f"  # {', '.join(rules)}" if rules else "")

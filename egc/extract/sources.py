"""Which ONNX nodes each chosen e-class computes.

Rules change layouts and spellings, so most chosen e-classes hold no value of the model. Every e-class is
therefore *anchored*: to a value of the model that it holds, or to one that it holds in another layout
(transposed or reshaped). A chosen e-node covers the ONNX nodes that lie between its anchor and the anchors of
the other chosen e-classes. What has no such nodes of its own (a padded copy, a product that several values
are cut from) serves its readers, and has theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from egc.egraph.snapshot import ENode, Snapshot
from egc.extract.solution import Solution
from egc.ir.graph import Graph

# Operators that show their operand's elements in another order or shape.
_LAYOUTS = frozenset({"transpose", "reshape"})

Sources = tuple[str, ...]


def sources_of(graph: Graph, snapshot: Snapshot, solution: Solution) -> Mapping[int, Sources]:
    """The ONNX nodes of every e-class that ``solution`` needs; () only where no ONNX node is near."""
    return _Attribution(graph, snapshot, solution).run()


class _Attribution:
    def __init__(self, graph: Graph, snapshot: Snapshot, solution: Solution) -> None:
        self.graph = graph
        self.snapshot = snapshot
        self.solution = solution
        self.names: dict[int, list[str]] = {}
        for name, eclass in snapshot.roots.items():
            self.names.setdefault(eclass, []).append(name)
        self.anchor = anchors(snapshot, self.names)
        self.needed = solution.order
        self.walked: dict[str, tuple[dict[str, None], set[int]]] = {}
        computed = [eclass for eclass in self.needed if eclass not in snapshot.constant]
        self.stops = {self.anchor[eclass] for eclass in computed if eclass in self.anchor}

    def run(self) -> Mapping[int, Sources]:
        own = {eclass: self.own(eclass, self.solution.choice[eclass]) for eclass in self.needed}
        readers: dict[int, list[int]] = {}
        for eclass in self.needed:
            for child in dict.fromkeys(self.solution.choice[eclass].children):
                readers.setdefault(child, []).append(eclass)
        found: dict[int, Sources] = {}
        for eclass in reversed(self.needed):  # readers first
            found[eclass] = own[eclass] or _union(found[reader] for reader in readers.get(eclass, ()))
        for eclass in self.needed:  # what nothing reads, at an output, belongs to what it shows
            if not found[eclass]:
                children = self.solution.choice[eclass].children
                found[eclass] = _union(found[child] for child in children if child in found)
        return found

    def own(self, eclass: int, enode: ENode) -> Sources:
        """The ONNX nodes between an e-class's anchor and the other anchors."""
        anchor = self.anchor.get(eclass)
        if anchor is None:
            return ()
        if enode.op in _LAYOUTS and self.anchor.get(enode.children[0]) == anchor:
            return ()  # the same value in another layout: its other form computes it
        found: dict[str, None] = {}
        for name in self.names[anchor]:
            # Of a long concatenation's parts, which are many, none has nodes of its own.
            value = name.partition("#")[0]
            if value not in self.walked:
                self.walked[value] = self.walk(value)
            nodes, met = self.walked[value]
            if anchor not in met:  # else they lead back to the value: they do nothing
                found.update(nodes)
        return tuple(found)

    def walk(self, name: str) -> tuple[dict[str, None], set[int]]:
        """The nodes behind a value of the model, up to the anchors, and the e-classes of their operands."""
        found: dict[str, None] = {}
        met: set[int] = set()
        seen: set[str] = set()
        stack = [name]
        while stack:
            value = stack.pop()
            node = self.graph.producer.get(value)
            if node is None or value in seen:
                continue
            seen.add(value)
            found.update(dict.fromkeys(node.sources))
            for operand in node.inputs:
                eclass = self.snapshot.roots[operand]
                met.add(eclass)
                if eclass not in self.stops and eclass not in self.snapshot.constant:
                    stack.append(operand)
        return found, met


def anchors(snapshot: Snapshot, names: Mapping[int, list[str]]) -> dict[int, int]:
    """For e-classes that hold a value of the model, in some layout: the e-class that holds it as the model
    does."""
    near: dict[int, list[int]] = {}
    for eclass, enodes in snapshot.classes.items():
        for enode in enodes:
            if enode.op in _LAYOUTS:
                near.setdefault(eclass, []).append(enode.children[0])
                near.setdefault(enode.children[0], []).append(eclass)
    found = {eclass: eclass for eclass in names}
    queue = deque(sorted(found))
    while queue:
        eclass = queue.popleft()
        for other in near.get(eclass, ()):
            if other not in found:
                found[other] = found[eclass]
                queue.append(other)
    return found


def _union(parts: Iterable[Sources]) -> Sources:
    return tuple(dict.fromkeys(source for part in parts for source in part))

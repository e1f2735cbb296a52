"""Which ONNX nodes each call covers, by which rules it came from them, and what else it could have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from egc.egraph import ENode, Snapshot
from egc.egraph.provenance import Provenance, Term
from egc.explain.terms import TermPrinter
from egc.extract import CostModel, Extraction, Rates
from egc.extract.switches import Switch, Switches
from egc.frontend.importer import Imported, Origin
from egc.ir.graph import Graph, Node
from egc.kernels import HostCall, KernelCall

Call = KernelCall | HostCall
Json = dict[str, Any]

_ALTERNATIVES = 4  # a call, and losses a rule, that are recorded


class Account(Struct):
    """``covered``, ``derivations``, ``alternatives`` and ``lost_in`` (by rule, the least seconds that one of
    its results would cost more) are by call, ``lost`` and ``matches`` by rule."""

    origins: list[Json] = field(default_factory=list)
    steps: list[Json] = field(default_factory=list)
    covered: list[list[str]] = field(default_factory=list)
    derivations: list[list[int]] = field(default_factory=list)
    alternatives: list[list[Json]] = field(default_factory=list)
    lost_in: list[dict[str, float]] = field(default_factory=list)
    lost: dict[str, list[Json]] = field(default_factory=dict)
    matches: Mapping[str, int] = field(default_factory=dict)


def account(
    imported: Imported, snapshot: Snapshot, extraction: Extraction, calls: Sequence[Call], rates: Rates
) -> Account:
    """Every ONNX node and every call accounted for."""
    return _Accountant(imported, snapshot, extraction, calls, rates).run()


def coverage(imported: Imported, graph: Graph, calls: Sequence[Call]) -> list[list[str]]:
    """The titles of the ONNX nodes that each call covers, in the model's order."""
    place = {origin.title: i for i, origin in enumerate(imported.origins)}
    found = []
    for call in calls:
        nodes = nodes_of(call)
        covered = dict.fromkeys(source for node in nodes for source in node.sources)
        titles = list(covered) or _copied(imported, graph, nodes)
        found.append(sorted(titles, key=lambda title: place.get(title, -1)))  # -1: inside a loop's body
    return found


def _copied(imported: Imported, graph: Graph, nodes: Sequence[Node]) -> list[str]:
    """The ONNX nodes whose results are only copied to the model's outputs: inputs, or constants."""
    written = {name for node in nodes for name in node.outputs}
    pairs = zip(graph.outputs, imported.outputs, strict=True)
    names = {port.name for value, port in pairs if value in written}
    return [origin.title for origin in imported.origins if names & set(origin.outputs)]


class _Accountant:
    def __init__(
        self,
        imported: Imported,
        snapshot: Snapshot,
        extraction: Extraction,
        calls: Sequence[Call],
        rates: Rates,
    ) -> None:
        assert snapshot.provenance is not None, "a saturated e-graph knows its provenance"
        self.imported = imported
        self.snapshot = snapshot
        self.provenance: Provenance = snapshot.provenance
        self.solution = extraction.solution
        self.eclass_of = extraction.eclass
        self.graph: Graph = extraction.graph
        self.calls = calls
        self.printer = TermPrinter(snapshot)
        self.switches = Switches(snapshot, extraction.solution, CostModel(snapshot, rates))
        self.index: dict[int, int] = {}  # match number → position in the record's steps
        self.result = Account(matches=self.provenance.counts)
        computed = (e for e in self.solution.order if e not in snapshot.constant)
        self.stops = {anchor for e in computed if (anchor := self.printer.anchor.get(e)) is not None}

    def run(self) -> Account:
        self.result.covered = coverage(self.imported, self.graph, self.calls)
        for i, call in enumerate(self.calls):
            nodes = nodes_of(call)
            self.result.derivations.append(self.derivation(nodes))
            self.result.alternatives.append(self.alternatives(i, nodes))
        calls_of: dict[str, list[int]] = {}
        for i, covered in enumerate(self.result.covered):
            for source in covered:
                calls_of.setdefault(source, []).append(i)
        by_source: dict[str, list[Node]] = {}
        for node in self.imported.graph.nodes:
            for source in node.sources:
                by_source.setdefault(source, []).append(node)
        self.result.origins = [
            self.origin(origin, calls_of.get(origin.title, []), by_source.get(origin.title, []))
            for origin in self.imported.origins
        ]
        return self.result

    # What a call is made of.

    def eclasses(self, nodes: Sequence[Node]) -> list[int]:
        """The e-classes that nodes of the optimized graph compute, parts of long concatenations included."""
        found: dict[int, None] = {}
        for node in nodes:
            for name in node.outputs:
                if name in self.eclass_of:
                    found[self.eclass_of[name]] = None
        for eclass in list(found):
            while self.solution.choice[eclass].op == "concat":
                eclass = self.solution.choice[eclass].children[0]
                if self.solution.choice[eclass].op != "concat":
                    break
                found[eclass] = None
        return list(found)

    def targets(self, eclasses: Sequence[int]) -> list[ENode]:
        """The chosen e-nodes of e-classes, and of the constants that they read."""
        found: dict[ENode, None] = {}
        stack = list(eclasses)
        while stack:
            enode = self.solution.choice[stack.pop()]
            if enode not in found:
                found[enode] = None
                stack += [child for child in enode.children if child in self.snapshot.constant]
        return list(found)

    def derivation(self, nodes: Sequence[Node]) -> list[int]:
        """The steps, as positions in the record, that lead to a call's nodes. Values of other calls are taken
        as given."""
        eclasses = self.eclasses(nodes)
        own = {self.printer.anchor.get(eclass) for eclass in eclasses}

        def within(eclass: int) -> bool:
            anchor = self.printer.anchor.get(eclass)
            return anchor is None or anchor in own or anchor not in self.stops

        return [self.step(number) for number in self.provenance.derivation(self.targets(eclasses), within)]

    def step(self, number: int) -> int:
        """The position of a match in the record's steps, where it is entered."""
        if number not in self.index:
            self.index[number] = len(self.result.steps)
            step = self.provenance.step(number)
            self.result.steps.append(
                {
                    "rule": step.rule,
                    "matched": self.printer.side(step.matched),
                    "built": self.printer.side(step.built) or self.united(step.variables),
                    "where": self.printer.variables(step),
                }
            )
        return self.index[number]

    def united(self, variables: Mapping[str, tuple[str, Any]]) -> list[str]:
        """What a rule that builds nothing says: its root equals a variable."""
        root = variables.get("egc-root")
        return [f"{self.printer.eclass(root[1])} itself"] if root else []

    # What else there was.

    def alternatives(self, index: int, nodes: Sequence[Node]) -> list[Json]:
        """The cheapest other spellings of a call's values, and by how much they are dearer."""
        found: list[tuple[Switch, Json]] = []
        lost: dict[str, float] = {}
        self.result.lost_in.append(lost)
        for eclass in self.eclasses(nodes):
            if eclass in self.snapshot.constant:
                continue
            for switch in self.switches.of(eclass):
                entry = self.alternative(index, switch)
                found.append((switch, entry))
                for rule in entry["rules"]:
                    self.lose(rule, entry)
                    lost[rule] = min(switch.seconds, lost.get(rule, switch.seconds))
        found.sort(key=lambda pair: pair[0].seconds)
        return [entry for _, entry in found[:_ALTERNATIVES]]

    def alternative(self, index: int, switch: Switch) -> Json:
        return {
            "call": index,
            "value": self.printer.eclass(switch.eclass),
            "term": self.printer.spelled(switch.enode, self.solution.choice),
            "chosen": self.printer.spelled(self.solution.choice[switch.eclass], self.solution.choice),
            "rules": list(self.snapshot.rules_of(switch.enode)),
            "seconds": switch.seconds,
            "terms": {
                name: getattr(switch.terms, name) for name in ("compute", "traffic", "conversion", "launch")
            },
        }

    def lose(self, rule: str, entry: Json) -> None:
        """Note that a rule's result was not chosen; the narrowest losses are kept."""
        losses = self.result.lost.setdefault(rule, [])
        losses.append(entry)
        losses.sort(key=lambda loss: loss["seconds"])
        del losses[_ALTERNATIVES:]

    # What became of the model's nodes.

    def origin(self, origin: Origin, calls: list[int], nodes: list[Node]) -> Json:
        fate: str = "kernel"
        by: list[str] = []
        if not calls:
            fate, by = self.vanished(origin, nodes)
        return {
            "title": origin.title,
            "name": origin.name,
            "op": origin.op_type,
            "inputs": [name for name in origin.inputs if name],
            "outputs": [name for name in origin.outputs if name],
            "fate": fate,
            "by": by,
            "calls": calls,
            "terms": [f"%{node.output} = {_spelled(node)}" for node in nodes],
        }

    def vanished(self, origin: Origin, nodes: list[Node]) -> tuple[str, list[str]]:
        """What became of a node that no call covers, and by what: importing, or rules."""
        if origin.fate == "constant":
            return "constant", ["import"]
        if origin.fate != "graph":
            return "removed", [f"import: {origin.fate}"]
        roots = [self.snapshot.roots[name] for node in nodes for name in node.outputs]
        if all(eclass in self.snapshot.constant for eclass in roots):
            return "constant", ["folded when compiling"]
        return "removed", self.removers(nodes)

    def removers(self, nodes: list[Node]) -> list[str]:
        """The rules that found something else to be equal to the values of ``nodes``."""
        names = {name for node in nodes for name in node.outputs}
        found: dict[str, None] = {}
        for enode, values in self.provenance.original.items():
            if names.isdisjoint(values):
                continue
            for number in self.provenance.consumers.get(self.provenance.item_of[enode], ()):
                step = self.provenance.step(number)
                if any(isinstance(term, Term) and term.enode == enode for term in step.matched):
                    found[step.rule] = None
        return list(found) or ["an equal value is computed elsewhere"]


def nodes_of(call: Call) -> tuple[Node, ...]:
    """The graph nodes that a call computes."""
    return call.nodes if isinstance(call, KernelCall) else (call.node,)


def _spelled(node: Node) -> str:
    attrs = dict(node.attrs)
    head = str(attrs.pop("fn")) if node.op == "map" else node.op
    return f"{head}({', '.join(f'%{name}' for name in node.inputs)})"

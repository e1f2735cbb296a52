"""What it would cost to choose another e-node: single switches away from a solution, with sharing counted."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from egc.egraph.snapshot import ENode, Snapshot
from egc.extract.cost import CostModel, NodeCost
from egc.extract.solution import Solution


class Switch(Struct, frozen=True):
    """Choosing ``enode`` for ``eclass``: how many seconds dearer the program gets, and by which terms."""

    eclass: int
    enode: ENode
    seconds: float
    terms: NodeCost


class Switches:
    """Prices switches away from one solution."""

    def __init__(self, snapshot: Snapshot, solution: Solution, model: CostModel) -> None:
        self.snapshot = snapshot
        self.choice = solution.choice
        self.position = {eclass: i for i, eclass in enumerate(solution.order)}
        self.uses: Counter[int] = Counter(solution.roots)
        for eclass in solution.order:
            self.uses.update(set(self.choice[eclass].children))
        self.model = model
        self._costs: dict[tuple[int, ENode], NodeCost] = {}

    def of(self, eclass: int) -> list[Switch]:
        """The other e-nodes of a needed e-class that could be chosen in place of its own, cheapest first."""
        found = []
        for enode in self.snapshot.classes[eclass]:
            if enode != self.choice[eclass] and self.possible(eclass, enode):
                found.append(self.price(eclass, enode))
        return sorted(found, key=lambda switch: (switch.seconds, str(switch.enode)))

    def possible(self, eclass: int, enode: ENode) -> bool:
        """Whether the choice stays free of cycles with ``enode`` in place of what is chosen for
        ``eclass``."""
        if any(child not in self.choice for child in enode.children):
            return False
        limit = self.position[eclass]
        seen: set[int] = set()
        stack = list(enode.children)
        while stack:
            child = stack.pop()
            if child == eclass:
                return False
            if child in seen or self.position.get(child, limit) < limit:
                continue  # what stands before the e-class in the order cannot need it
            seen.add(child)
            stack.extend(self.choice[child].children)
        return True

    def price(self, eclass: int, new: ENode) -> Switch:
        """The difference that a switch makes."""
        old = self.choice[eclass]
        uses: dict[int, int] = {}
        dearer = [self.cost(eclass, new)]
        cheaper = [self.cost(eclass, old)]
        stack = list(set(new.children))
        while stack:
            child = stack.pop()
            count = uses.get(child, self.uses[child])
            if count == 0:
                dearer.append(self.cost(child, self.choice[child]))
                stack.extend(set(self.choice[child].children))
            uses[child] = count + 1
        stack = list(set(old.children))
        while stack:
            child = stack.pop()
            uses[child] = uses.get(child, self.uses[child]) - 1
            if uses[child] == 0:
                cheaper.append(self.cost(child, self.choice[child]))
                stack.extend(set(self.choice[child].children))
        terms = NodeCost(
            *(
                sum(getattr(cost, name) for cost in dearer) - sum(getattr(cost, name) for cost in cheaper)
                for name in ("compute", "traffic", "conversion", "launch")
            )
        )
        seconds = sum(cost.total for cost in dearer) - sum(cost.total for cost in cheaper)
        return Switch(eclass, new, seconds, terms)

    def cost(self, eclass: int, enode: ENode) -> NodeCost:
        """The cost of one e-node."""
        key = (eclass, enode)
        if key not in self._costs:
            self._costs[key] = self.model.cost(eclass, enode)
        return self._costs[key]

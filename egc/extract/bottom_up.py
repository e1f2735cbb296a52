"""Bottom-up extraction: the cheapest e-node of every e-class, cheapest classes first.

Knuth's generalisation of Dijkstra's algorithm (Knuth, Information Processing Letters 6(1), 1977): an e-class
is settled when its price can no longer fall, so choices are free of cycles by construction. The price of an
e-class is what it costs to compute it alone *with sharing*: the sum over the set of e-classes that it needs.
(A tree's cost would double at every residual connection and say nothing about the graph.) Sets are bit masks,
and only e-classes that cost something have a bit,
so the union of two sets takes as long as the smaller one's own part is large.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

from egc.egraph.snapshot import ENode, Snapshot
from egc.extract.solution import CostOf, Solution


def bottom_up(snapshot: Snapshot, roots: tuple[int, ...], cost_of: CostOf) -> Solution:
    """A good first solution: a choice for every e-class that can be computed."""
    enodes: list[tuple[int, ENode, float]] = []
    waiting: list[int] = []
    users: dict[int, list[int]] = defaultdict(list)
    heap: list[tuple[float, int]] = []
    for eclass in sorted(snapshot.classes):
        for enode in snapshot.classes[eclass]:
            if eclass in enode.children:
                continue  # reads itself: an identity
            index = len(enodes)
            enodes.append((eclass, enode, cost_of(eclass, enode)))
            children = set(enode.children)
            waiting.append(len(children))
            for child in children:
                users[child].append(index)
            if not children:
                heapq.heappush(heap, (enodes[index][2], index))
    prices = _Prices()
    choice: dict[int, ENode] = {}
    while heap:
        _, index = heapq.heappop(heap)
        eclass, enode, own = enodes[index]
        if eclass in choice:
            continue
        choice[eclass] = enode
        prices.settle(eclass, enode, own)
        for user in users[eclass]:
            waiting[user] -= 1
            owner, reader, cost = enodes[user]
            if waiting[user] == 0 and owner not in choice:
                heapq.heappush(heap, (cost + prices.of(reader), user))
    return Solution(choice, roots)


class _Prices:
    """What settled e-classes need: a bit mask of costly e-classes, and the sum of their costs."""

    def __init__(self) -> None:
        self._need: dict[int, int] = {}
        self._total: dict[int, float] = {}
        self._costs: list[float] = []  # by bit

    def union(self, enode: ENode) -> tuple[int, float]:
        """What an e-node's operands need together."""
        need, total = 0, 0.0
        for child in sorted(set(enode.children), key=lambda child: (-self._total[child], child)):
            more = self._need[child] & ~need
            if need == 0:
                total = self._total[child]
            else:
                total += self._sum(more)
            need |= more
        return need, total

    def of(self, enode: ENode) -> float:
        """The cost of computing an e-node's operands."""
        return self.union(enode)[1]

    def settle(self, eclass: int, enode: ENode, own: float) -> None:
        """Fix an e-class's choice."""
        need, total = self.union(enode)
        if own > 0:
            need |= 1 << len(self._costs)
            self._costs.append(own)
        self._need[eclass] = need
        self._total[eclass] = total + own

    def _sum(self, bits: int) -> float:
        total = 0.0
        while bits:
            low = bits & -bits
            total += self._costs[low.bit_length() - 1]
            bits ^= low
        return total

"""Bottom-up extraction: the cheapest e-node of every e-class, cheapest classes first.

Knuth's generalisation of Dijkstra's algorithm (Knuth, Information Processing Letters 6(1), 1977): an e-class is settled
when its price can no longer fall, so choices are free of cycles by construction. An e-class that several others read
charges each of them only a share of its price; without that a model's tree cost doubles at every residual connection and
says nothing about the graph.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

from egc.egraph.snapshot import ENode, Snapshot
from egc.extract.solution import CostOf, Solution


def bottom_up(snapshot: Snapshot, roots: tuple[int, ...], cost_of: CostOf) -> Solution:
    """A good first solution: the choice for every e-class that has a finite price."""
    readers: dict[int, set[int]] = defaultdict(set)
    waiting: list[int] = []
    heap: list[tuple[float, int, int]] = []
    numbered: list[tuple[int, ENode, float]] = []
    users: dict[int, list[int]] = defaultdict(list)
    for eclass in sorted(snapshot.classes):
        for enode in snapshot.classes[eclass]:
            if eclass in enode.children:
                continue  # reads itself: an identity
            index = len(numbered)
            numbered.append((eclass, enode, cost_of(eclass, enode)))
            distinct = set(enode.children)
            waiting.append(len(distinct))
            for child in distinct:
                users[child].append(index)
                readers[child].add(eclass)
            if not distinct:
                heapq.heappush(heap, (numbered[index][2], index, eclass))
    price: dict[int, float] = {}
    choice: dict[int, ENode] = {}
    while heap:
        total, index, eclass = heapq.heappop(heap)
        if eclass in price:
            continue
        price[eclass] = total
        choice[eclass] = numbered[index][1]
        for user in users[eclass]:
            waiting[user] -= 1
            if waiting[user] == 0 and numbered[user][0] not in price:
                owner, enode, own = numbered[user]
                shares = sum(price[c] / max(1, len(readers[c])) for c in set(enode.children))
                heapq.heappush(heap, (own + shares, user, owner))
    return Solution(choice, roots)

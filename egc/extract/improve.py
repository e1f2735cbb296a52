"""Improving a solution on its true cost, with sharing counted once.

One e-class at a time, every other e-node of the class is tried: what it newly needs is added, what nothing
needs any more is dropped, and the switch is kept where the sum falls. Some e-classes pay only when several
read them, such as one product in place of three: for each that nothing needs, all e-classes that could read
it switch to it together. Passes repeat until one changes nothing or the time is up.
"""

from __future__ import annotations

import time
from collections import Counter

from egc.egraph.snapshot import ENode, Snapshot
from egc.extract.solution import CostOf, Solution, topological

# A gain below this fraction of the total is rounding, not an improvement.
_EPSILON = 1e-9


def improve(snapshot: Snapshot, start: Solution, cost_of: CostOf, seconds: float) -> Solution:
    """A solution at most as expensive as ``start``, by single switches."""
    return _Search(snapshot, start, cost_of).run(seconds)


class _Search:
    def __init__(self, snapshot: Snapshot, start: Solution, cost_of: CostOf) -> None:
        self.snapshot = snapshot
        self.roots = start.roots
        self.choice: dict[int, ENode] = dict(start.choice)
        self.cost_of = cost_of
        self.reindex()

    def reindex(self) -> None:
        """Count the readers of every needed e-class and its place in the order."""
        order = topological(self.choice, self.roots)
        self.position = {eclass: float(i) for i, eclass in enumerate(order)}
        self.uses: Counter[int] = Counter(self.roots)
        for eclass in order:
            self.uses.update(set(self.choice[eclass].children))
        self.total = sum(self.cost_of(eclass, self.choice[eclass]) for eclass in order)

    def run(self, seconds: float) -> Solution:
        deadline = time.thread_time() + seconds
        improved = True
        while improved and time.thread_time() < deadline:
            improved = False
            for eclass in sorted(self.position, key=self.position.__getitem__, reverse=True):
                if time.thread_time() > deadline:
                    break
                improved |= eclass in self.position and self.switch(eclass)
            for eclass in self.shareable():
                if time.thread_time() > deadline:
                    break
                improved |= self.share(eclass)
        return Solution(dict(self.choice), self.roots)

    def switch(self, eclass: int) -> bool:
        """Try the other e-nodes of ``eclass``; keep the best one that lowers the total."""
        current = self.choice[eclass]
        best, best_delta = None, -_EPSILON * self.total
        for enode in self.snapshot.classes[eclass]:
            if enode is current or enode == current or not self.fits(enode, eclass):
                continue
            delta = self.delta(eclass, current, enode)
            if delta < best_delta:
                best, best_delta = enode, delta
        if best is None:
            return False
        self.commit(eclass, current, best)
        return True

    def shareable(self) -> list[int]:
        """The e-classes that nothing needs and that at least two needed ones could read."""
        readers: Counter[int] = Counter()
        for eclass in self.position:
            others = {c for enode in self.snapshot.classes[eclass] for c in enode.children}
            readers.update(c for c in others if c not in self.position and c in self.choice)
        return sorted(eclass for eclass, count in readers.items() if count > 1)

    def share(self, shared: int) -> bool:
        """Let e-classes read ``shared`` that can, but for those that are better off alone; keep that where it
        lowers the total.
        """
        if shared in self.position:
            return False
        readers = [c for c in self.position if any(shared in e.children for e in self.snapshot.classes[c])]
        switches: list[tuple[int, ENode, ENode]] = []
        delta = 0.0
        # The first reader comes first, so that the place of what is shared is before all of them.
        for eclass in sorted(readers, key=self.position.__getitem__):
            if (enode := self.reading(eclass, shared)) is not None:
                switches.append((eclass, self.choice[eclass], enode))
                delta += self.delta(*switches[-1])
                self.commit(*switches[-1])
        for eclass, before, enode in reversed(switches.copy()):
            back = self.delta(eclass, enode, before) if eclass in self.position else 0.0
            if back < 0:
                switches.append((eclass, enode, before))
                delta += back
                self.commit(*switches[-1])
        if delta < -_EPSILON * self.total:
            return True
        for eclass, before, enode in reversed(switches):
            self.commit(eclass, enode, before)
        return False

    def reading(self, eclass: int, shared: int) -> ENode | None:
        """An e-node of a needed e-class that reads ``shared``; None where there is none."""
        for enode in self.snapshot.classes[eclass] if eclass in self.position else ():
            if shared in enode.children and self.fits(enode, eclass):
                return enode
        return None

    def fits(self, enode: ENode, eclass: int) -> bool:
        """Whether ``enode`` can be chosen for ``eclass`` without a cycle."""
        if eclass in enode.children or any(child not in self.choice for child in enode.children):
            return False
        return not self.reaches(enode, eclass)

    def commit(self, eclass: int, old: ENode, new: ENode) -> None:
        """Make a switch: count readers again and give newly needed e-classes a place before ``eclass``."""
        uses: dict[int, int] = {}
        self.delta(eclass, old, new, uses)
        self.choice[eclass] = new
        self.uses.update({child: count - self.uses[child] for child, count in uses.items()})
        for child, count in uses.items():
            if count == 0:
                self.position.pop(child, None)
        if not self.place(new.children, self.position[eclass]):
            self.reindex()

    def place(self, eclasses: tuple[int, ...], before: float) -> bool:
        """Give ``eclasses`` and what they need places below ``before``, where they have none or a later one;
        False where floats lie too close for one.
        """
        stack = [eclass for eclass in eclasses if self.is_late(eclass, before)]
        while stack:
            eclass = stack[-1]
            children = self.choice[eclass].children
            late = [child for child in children if self.is_late(child, before)]
            if late:
                stack.extend(late)
                continue
            stack.pop()
            if self.is_late(eclass, before):
                below = max((self.position[child] for child in children), default=-1.0)
                self.position[eclass] = (below + before) / 2
                if not below < self.position[eclass] < before:
                    return False
        return True

    def is_late(self, eclass: int, before: float) -> bool:
        """Whether ``eclass`` has no place before ``before``."""
        return self.position.get(eclass, before) >= before

    def reaches(self, enode: ENode, target: int) -> bool:
        """Whether ``enode`` needs ``target`` under the current choice."""
        limit = self.position[target]
        seen: set[int] = set()
        stack = list(enode.children)
        while stack:
            eclass = stack.pop()
            if eclass == target:
                return True
            if eclass in seen or self.position.get(eclass, limit) < limit:
                continue  # needed e-classes before the target in the order cannot need it
            seen.add(eclass)
            stack.extend(self.choice[eclass].children)
        return False

    def delta(self, eclass: int, old: ENode, new: ENode, uses: dict[int, int] | None = None) -> float:
        """The change of the total when ``eclass`` switches from ``old`` to ``new``;
        ``uses`` gets the new counts.
        """
        uses = {} if uses is None else uses

        def count(c: int) -> int:
            return uses.get(c, self.uses[c])

        delta = self.cost_of(eclass, new) - self.cost_of(eclass, old)
        stack = list(set(new.children))
        while stack:
            child = stack.pop()
            if count(child) == 0:
                delta += self.cost_of(child, self.choice[child])
                stack.extend(set(self.choice[child].children))
            uses[child] = count(child) + 1
        stack = list(set(old.children))
        while stack:
            child = stack.pop()
            uses[child] = count(child) - 1
            if uses[child] == 0:
                delta -= self.cost_of(child, self.choice[child])
                stack.extend(set(self.choice[child].children))
        return delta

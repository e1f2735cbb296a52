"""An extraction: one e-node for each e-class that the outputs need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from msgspec import Struct

from egc.egraph.snapshot import ENode

Choice = Mapping[int, ENode]
CostOf = Callable[[int, ENode], float]


class CyclicChoice(ValueError):
    """A choice in which an e-class needs itself."""


class Solution(Struct, frozen=True, dict=True):
    """A choice closed under children and free of cycles; ``order`` lists the needed e-classes,
    children first.
    """

    choice: Choice
    roots: tuple[int, ...]

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The e-classes that the roots need, children before parents;
        CyclicChoice where there is no such order.
        """
        return topological(self.choice, self.roots)

    def cost(self, cost_of: CostOf) -> float:
        """The sum of the chosen e-nodes' costs, each counted once however many read it."""
        return sum(cost_of(eclass, self.choice[eclass]) for eclass in self.order)


def topological(choice: Choice, roots: Sequence[int]) -> tuple[int, ...]:
    """What ``roots`` need under ``choice``, children first (depth first, iterative)."""
    done: set[int] = set()
    active: set[int] = set()
    order: list[int] = []
    for root in roots:
        stack: list[tuple[int, int]] = [(root, 0)]
        while stack:
            eclass, position = stack.pop()
            if position == 0:
                if eclass in done:
                    continue
                if eclass in active:
                    raise CyclicChoice(f"e-class c{eclass} needs itself")
                active.add(eclass)
            children = choice[eclass].children
            if position < len(children):
                stack.append((eclass, position + 1))
                if children[position] in active:
                    raise CyclicChoice(f"e-class c{children[position]} needs itself")
                if children[position] not in done:
                    stack.append((children[position], 0))
            else:
                active.discard(eclass)
                done.add(eclass)
                order.append(eclass)
    return tuple(order)

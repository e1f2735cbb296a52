"""Extraction as an integer program, for those who want the optimum or a bound on it.

One binary variable an e-node, one an e-class: the roots are needed; a needed e-class has one chosen e-node; a
chosen e-node needs its operands. E-classes that can reach each other also get an order, which a chosen e-node
must respect, so that no choice needs itself (Yang et al., "Equality Saturation for Tensor Graph
Superoptimization", MLSys 2021, §5.1). The search starts from a known solution and stops at a time limit with
the best so far and a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from egc.egraph.snapshot import ENode, Snapshot
from egc.errors import UsageError
from egc.extract.solution import CostOf, CyclicChoice, Solution


def solve(snapshot: Snapshot, start: Solution, cost_of: CostOf, seconds: float) -> tuple[Solution, float]:
    """The best solution found in ``seconds`` and a lower bound on the cost of any.

    Never worse than ``start``. UsageError where the package ``highspy`` is not installed.
    """
    try:
        import highspy
    except ImportError:
        raise UsageError(
            "extraction by integer programming needs the package highspy", hint="pip install 'egc[ilp]'"
        ) from None
    program = _Program(snapshot, start.roots, cost_of)
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("time_limit", float(seconds))
    solver.setOptionValue("random_seed", 0)
    solver.setOptionValue("threads", 1)
    program.write(solver, highspy)
    program.warm_start(solver, highspy, start)
    solver.run()
    info = solver.getInfo()
    values = np.asarray(solver.getSolution().col_value)
    bound = float(info.mip_dual_bound) * program.scale
    found = program.solution(values, start) if values.size else start
    return (found if found.cost(cost_of) < start.cost(cost_of) else start), bound


class _Program:
    """Columns and rows: e-nodes first, then e-classes, then places in the order."""

    def __init__(self, snapshot: Snapshot, roots: tuple[int, ...], cost_of: CostOf) -> None:
        self.roots = roots
        self.eclasses = _reachable(snapshot, roots)
        self.enodes = [
            (eclass, enode)
            for eclass in self.eclasses
            for enode in snapshot.classes[eclass]
            if eclass not in enode.children
        ]
        costs = np.array([cost_of(eclass, enode) for eclass, enode in self.enodes])
        # Seconds are tiny beside the solver's tolerances: count in units of the largest cost.
        self.scale = float(costs.max(initial=0.0)) or 1.0
        self.costs = costs / self.scale
        self.enode_column = {pair: i for i, pair in enumerate(self.enodes)}
        self.eclass_column = {eclass: len(self.enodes) + i for i, eclass in enumerate(self.eclasses)}
        self.component = _components(self.eclasses, self.enodes)
        sizes: dict[int, int] = {}
        for component in self.component.values():
            sizes[component] = sizes.get(component, 0) + 1
        self.size = sizes
        cyclic = [eclass for eclass in self.eclasses if sizes[self.component[eclass]] > 1]
        first = len(self.enodes) + len(self.eclasses)
        self.order_column = {eclass: first + i for i, eclass in enumerate(cyclic)}
        self.columns = first + len(cyclic)

    def write(self, solver: Any, highspy: Any) -> None:
        """Tell the solver the columns and the rows."""
        upper = np.ones(self.columns)
        lower = np.zeros(self.columns)
        for eclass, column in self.order_column.items():
            upper[column] = self.size[self.component[eclass]]
        for root in self.roots:
            lower[self.eclass_column[root]] = 1.0
        solver.addVars(self.columns, lower, upper)
        costs = np.zeros(self.columns)
        costs[: len(self.costs)] = self.costs
        every = np.arange(self.columns, dtype=np.int32)
        solver.changeColsCost(self.columns, every, costs)
        integers = np.arange(len(self.enodes), dtype=np.int32)
        kinds = np.full(len(integers), highspy.HighsVarType.kInteger)
        solver.changeColsIntegrality(len(integers), integers, kinds)
        starts: list[int] = []
        indices: list[int] = []
        values: list[float] = []
        low: list[float] = []
        for row, bound in self.rows():
            starts.append(len(indices))
            low.append(bound)
            indices.extend(row)
            values.extend(row.values())
        high = np.full(len(low), highspy.kHighsInf)
        solver.addRows(
            len(low),
            np.array(low),
            high,
            len(indices),
            np.array(starts, dtype=np.int32),
            np.array(indices, dtype=np.int32),
            np.array(values, dtype=np.float64),
        )

    def rows(self) -> Iterable[tuple[dict[int, float], float]]:
        """Rows as ({column: factor}, least value)."""
        chosen: dict[int, dict[int, float]] = {
            eclass: {self.eclass_column[eclass]: -1.0} for eclass in self.eclasses
        }
        for (eclass, enode), column in self.enode_column.items():
            chosen[eclass][column] = 1.0
            for child in set(enode.children):
                yield {self.eclass_column[child]: 1.0, column: -1.0}, 0.0
                if self.component[child] == self.component[eclass]:
                    size = float(self.size[self.component[eclass]])
                    # order(eclass) ≥ order(child) + 1 where the e-node is chosen; nothing where it is not.
                    row = {
                        self.order_column[eclass]: 1.0,
                        self.order_column[child]: -1.0,
                        column: -size - 1.0,
                    }
                    yield row, -size
        for row in chosen.values():
            yield row, 0.0

    def warm_start(self, solver: Any, highspy: Any, start: Solution) -> None:
        """Hand the solver the solution that is known."""
        values = np.zeros(self.columns)
        place: dict[int, int] = {}
        for eclass in start.order:
            component = self.component[eclass]
            values[self.enode_column[eclass, start.choice[eclass]]] = 1.0
            values[self.eclass_column[eclass]] = 1.0
            if eclass in self.order_column:
                values[self.order_column[eclass]] = place.get(component, 0)
                place[component] = place.get(component, 0) + 1
        solution = highspy.HighsSolution()
        solution.col_value = values.tolist()
        solver.setSolution(solution)

    def solution(self, values: np.ndarray, start: Solution) -> Solution:
        """The choice that a point of the program states; ``start`` where rounding broke it."""
        choice = dict(start.choice)
        for (eclass, enode), column in self.enode_column.items():
            if values[column] > 0.5:
                choice[eclass] = enode
        found = Solution(choice, self.roots)
        try:
            found.order  # noqa: B018  (computed here to see whether the choice is free of cycles)
        except CyclicChoice:
            return start
        return found


def _reachable(snapshot: Snapshot, roots: Iterable[int]) -> list[int]:
    """Every e-class that some choice for ``roots`` may need, sorted."""
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        eclass = stack.pop()
        if eclass not in seen:
            seen.add(eclass)
            stack.extend(child for enode in snapshot.classes[eclass] for child in enode.children)
    return sorted(seen)


def _components(eclasses: list[int], enodes: list[tuple[int, ENode]]) -> dict[int, int]:
    """Strongly connected components of "may need" (Tarjan, SIAM J. Comput. 1(2), 1972), without recursion."""
    children: dict[int, list[int]] = {eclass: [] for eclass in eclasses}
    for eclass, enode in enodes:
        children[eclass].extend(enode.children)
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    open_: list[int] = []
    is_open: set[int] = set()
    component: dict[int, int] = {}
    for root in eclasses:
        if root in index:
            continue
        work = [(root, 0)]
        while work:
            eclass, position = work.pop()
            if position == 0:
                index[eclass] = low[eclass] = len(index)
                open_.append(eclass)
                is_open.add(eclass)
            elif children[eclass][position - 1] in is_open:
                low[eclass] = min(low[eclass], low[children[eclass][position - 1]])
            for i in range(position, len(children[eclass])):
                child = children[eclass][i]
                if child not in index:
                    work.extend([(eclass, i + 1), (child, 0)])
                    break
                if child in is_open:
                    low[eclass] = min(low[eclass], index[child])
            else:
                if low[eclass] == index[eclass]:
                    while True:
                        member = open_.pop()
                        is_open.discard(member)
                        component[member] = eclass
                        if member == eclass:
                            break
    return component

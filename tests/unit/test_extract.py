"""Extraction: sharing counted once, no cycles, improvement never worsens, integer programming agrees."""

from __future__ import annotations

import pytest

from egc.egraph.snapshot import ENode, Snapshot
from egc.extract.bottom_up import bottom_up
from egc.extract.ilp import solve
from egc.extract.improve import improve
from egc.extract.solution import CyclicChoice, Solution, topological


def node(op: str, *children: int) -> ENode:
    return ENode(op, children)


def snapshot(classes: dict[int, tuple[ENode, ...]]) -> Snapshot:
    return Snapshot(classes, {}, frozenset(), {})


# Two users of one expensive e-class (2), or two cheaper private ones: sharing makes the expensive one pay.
SHARED = {
    0: (node("pair", 1, 3),),
    1: (node("use", 2), node("private")),
    2: (node("expensive"),),
    3: (node("use2", 2), node("private2")),
}
SHARED_COST = {"pair": 1.0, "use": 0.0, "use2": 0.0, "expensive": 10.0, "private": 6.0, "private2": 6.0}


def test_sharing_is_counted_once() -> None:
    cost = lambda eclass, enode: SHARED_COST[enode.op]  # noqa: E731
    both = Solution({0: SHARED[0][0], 1: SHARED[1][0], 2: SHARED[2][0], 3: SHARED[3][0]}, (0,))
    assert both.cost(cost) == 11.0


def test_readers_of_something_expensive_switch_to_it_together() -> None:
    cost = lambda eclass, enode: SHARED_COST[enode.op]  # noqa: E731
    graph = snapshot(SHARED)
    alone = bottom_up(graph, (0,), cost)
    assert alone.cost(cost) == 13.0  # each of the two alone is cheaper private
    assert improve(graph, alone, cost, 1.0).cost(cost) == 11.0


def test_who_is_better_off_alone_does_not_switch_with_the_others() -> None:
    classes = {
        0: (node("three", 1, 3, 4),),
        1: SHARED[1],
        2: SHARED[2],
        3: SHARED[3],
        4: (node("far", 2), node("near")),
    }
    costs = {**SHARED_COST, "three": 1.0, "far": 9.0, "near": 1.0}
    cost = lambda eclass, enode: costs[enode.op]  # noqa: E731
    graph = snapshot(classes)
    best = improve(graph, bottom_up(graph, (0,), cost), cost, 1.0)
    assert best.cost(cost) == 12.0
    assert [best.choice[eclass].op for eclass in (1, 3, 4)] == ["use", "use2", "near"]


def test_integer_programming_finds_what_switches_cannot() -> None:
    # What could be shared is one more step away, so that nothing needed could read it.
    classes = {
        0: (node("pair", 1, 3),),
        1: (node("use", 4), node("private")),
        2: (node("expensive"),),
        3: (node("use2", 5), node("private2")),
        4: (node("step", 2),),
        5: (node("step", 2),),
    }
    costs = {**SHARED_COST, "step": 0.0}
    cost = lambda eclass, enode: costs[enode.op]  # noqa: E731
    graph = snapshot(classes)
    greedy = improve(graph, bottom_up(graph, (0,), cost), cost, 1.0)
    assert greedy.cost(cost) == 13.0
    best, bound = solve(graph, greedy, cost, 10.0)
    assert best.cost(cost) == 11.0
    assert bound == pytest.approx(11.0)


def test_a_cycle_is_never_chosen() -> None:
    # 1 and 2 are each other's conversions; only 2 has a way of its own.
    classes = {1: (node("from", 2),), 2: (node("to", 1), node("source"))}
    costs = {"from": 1.0, "to": 1.0, "source": 100.0}
    cost = lambda eclass, enode: costs[enode.op]  # noqa: E731
    graph = snapshot(classes)
    solution = bottom_up(graph, (1,), cost)
    assert improve(graph, solution, cost, 1.0).order == (2, 1)
    best, _ = solve(graph, solution, cost, 10.0)
    assert best.order == (2, 1)
    with pytest.raises(CyclicChoice):
        topological({1: classes[1][0], 2: classes[2][0]}, (1,))


def test_long_chains_with_two_paths_a_level_keep_their_true_cost() -> None:
    # A tree's cost would be 2**200 here.
    depth = 200
    classes = {0: (node("leaf"),)}
    for level in range(1, depth + 1):
        classes[level] = (node("join", level - 1, level - 1), node("worse", level - 1))
    costs = {"leaf": 1.0, "join": 1.0, "worse": 2.0}
    cost = lambda eclass, enode: costs[enode.op]  # noqa: E731
    solution = bottom_up(snapshot(classes), (depth,), cost)
    assert solution.cost(cost) == depth + 1

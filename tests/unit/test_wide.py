"""Graphs that are wide: work grows in step with the operands of a concatenation.

What is counted is rule matches, rewritten stages and loop e-graphs, never seconds.
"""

from __future__ import annotations

import numpy as np
import pytest

from egc.egraph import Budget, saturate
from egc.egraph.engine import PHASES, _Run
from egc.extract import extract
from egc.ir.evaluate import evaluate
from egc.ir.graph import Graph, GraphBuilder
from egc.ir.types import TensorType
from egc.kernels import collapse
from egc.kernels.lower import lower
from egc.machine import load_machine
from egc.rules import load_rules
from egc.rules import syntax as s
from egc.schedule import schedule
from egc.schedule.scheduler import _solve
from tests.support.kernels import group_of
from tests.unit.test_egraph import RATES


def wide(operands: int, *shape: int) -> Graph:
    """Inputs of one shape side by side, along the first axis."""
    b = GraphBuilder("wide")
    parts = [b.input(f"x{i}", TensorType("float32", shape)) for i in range(operands)]
    return b.finish([b.add("concat", parts, axis=0)])


def test_no_rule_tries_pairs_of_extents() -> None:
    """egglog computes `vec-get` after it has joined the tables: two extents found by it are a product."""
    for rule in load_rules(accuracy="fast").rules:
        found = [
            fact
            for fact in rule.premises
            if isinstance(fact, s.Eq)
            and any(
                isinstance(side, s.Call) and side.head == "I" and isinstance(side.args[0], s.Var)
                for side in (fact.left, fact.right)
            )
        ]
        assert len(found) < 2, rule.name


def test_a_concatenation_of_many_is_one_after_extraction() -> None:
    operands = 1200  # more than Python nests calls
    graph = wide(operands, 2)
    chosen = extract(graph, saturate(graph, load_rules()), RATES).graph
    (node,) = chosen.nodes
    assert len(node.inputs) == operands
    feeds = {f"x{i}": np.float32([i, -i]) for i in range(operands)}
    for name, value in evaluate(graph, feeds).items():
        np.testing.assert_array_equal(evaluate(chosen, feeds)[name], value)


def test_parts_of_a_concatenation_are_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = wide(50, 2)
    snapshot = saturate(graph, load_rules())
    built: list[int] = []
    add = GraphBuilder.add

    def counted(self: GraphBuilder, op: str, inputs: list[str], *rest: object, **attrs: object) -> str:
        built.append(len(inputs))
        return add(self, op, inputs, *rest, **attrs)

    monkeypatch.setattr(GraphBuilder, "add", counted)
    extract(graph, snapshot, RATES)
    assert built == [50]


@pytest.mark.parametrize("shape", [(1,), (2, 3, 4)], ids=["scalars", "blocks"])
def test_each_stage_is_rewritten_a_few_times(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    merge, reindexed = collapse._merge, collapse.reindexed

    def counted(function):
        def call(*args):
            nonlocal calls
            calls += 1
            return function(*args)

        return call

    monkeypatch.setattr(collapse, "_merge", counted(merge))
    monkeypatch.setattr(collapse, "reindexed", counted(reindexed))
    counts = []
    for operands in (20, 40):
        calls = 0
        graph = wide(operands, *shape)
        lower(graph, group_of(graph), "wide")
        counts.append(calls)
    assert counts[1] <= 2.2 * counts[0]


def test_stages_that_differ_in_what_they_read_are_scheduled_once() -> None:
    graph = wide(30, 8, 40)
    kernel = lower(graph, group_of(graph), "wide").kernel
    before = _solve.cache_info().misses
    found = schedule(kernel, load_machine("golden-cove-avx512"), threads=1)
    assert len(found.nest.stages) == 30
    assert _solve.cache_info().misses - before <= 1


def test_a_spent_budget_begins_no_round(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    iterate = _Run.iterate

    def noted(self: _Run, ruleset: str) -> bool:
        ran.append(ruleset)
        return iterate(self, ruleset)

    monkeypatch.setattr(_Run, "iterate", noted)
    graph = wide(100, 2)
    snapshot = saturate(graph, load_rules(), Budget(seconds=0.0))
    assert [ruleset for ruleset in ran if ruleset != "facts"] == ["canonical"]
    assert ran.count("facts") == len(PHASES)
    assert {growth.stopped for growth in snapshot.growth[1:]} == {"0 s"}
    (node,) = extract(graph, snapshot, RATES).graph.nodes
    assert len(node.inputs) == 100

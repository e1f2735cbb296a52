"""Contractions that read one tensor become one, where that is cheaper: queries, keys, values; gated units."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from egc.egraph import saturate
from egc.extract import Rates, extract
from egc.ir.evaluate import evaluate
from egc.ir.graph import Graph, GraphBuilder
from egc.ir.types import TensorType
from egc.rules import load_rules

# Starting a kernel is so dear here that merging always pays.
RATES = Rates(flops=200e9, vector_ops=30e9, bandwidth=50e9, conversion_bandwidth=20e9, launch=1e-3)
RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def products(columns: list[int], shape: tuple[int, ...], bias: str, scaled: bool = False) -> Graph:
    """``x @ w + b`` for each number of columns; ``bias`` has the rank of each b, "-" for none."""
    b = GraphBuilder("products")
    x = b.input("x", TensorType("float32", shape))
    outputs = []
    for n, rank in zip(columns, bias, strict=True):
        y = b.add("matmul", (x, b.constant(normal(shape[-1], n))))
        if rank != "-":
            y = b.add("map", (y, b.constant(normal(n).reshape((1,) * (int(rank) - 1) + (n,)))), fn="add")
        if scaled and not outputs:
            y = b.add("map", (y, b.constant(np.float32(0.125))), fn="mul")
        outputs.append(b.add("map", (y,), fn="tanh"))
    return b.finish(tuple(outputs))


def optimized(graph: Graph, *disabled: str) -> tuple[Counter[str], Graph]:
    """How often the chosen graph has each operator, and the graph, whose results are right."""
    chosen = extract(graph, saturate(graph, load_rules(disabled=disabled)), RATES).graph
    feeds = {name: normal(*graph.types[name].shape) for name in graph.inputs}  # type: ignore[arg-type]
    before, after = (list(evaluate(g, feeds).values()) for g in (graph, chosen))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    return Counter(node.op for node in chosen.nodes), chosen


@pytest.mark.parametrize(
    ("columns", "shape", "bias"),
    [
        ([5, 5], (3, 4), "--"),
        ([8, 2, 2], (2, 3, 4), "---"),
        ([5, 5, 5], (2, 3, 4), "111"),
        ([6, 2, 3, 1], (3, 4), "1111"),
        ([5, 6, 7], (2, 3, 4), "333"),
        ([3, 5], (2, 2, 3, 4), "44"),
    ],
)
def test_products_of_one_tensor_are_computed_as_one(
    columns: list[int], shape: tuple[int, ...], bias: str
) -> None:
    found, chosen = optimized(products(columns, shape, bias))
    assert found["matmul"] == 1
    assert found["slice"] == len(columns)
    (product,) = (node for node in chosen.nodes if node.op == "matmul")
    assert chosen.types[product.output].shape == (*shape[:-1], sum(columns))


def test_without_its_rules_nothing_is_merged() -> None:
    assert optimized(products([5, 5], (3, 4), "--"), "merge-products")[0]["matmul"] == 2
    biased = products([5, 5, 5], (2, 3, 4), "111")
    assert optimized(biased, "merge-products", "merge-affine-maps")[0]["matmul"] == 3
    slices = optimized(biased, "merge-affine-maps")[1]  # of the products, each with a bias added to it
    assert [node.attr("fn") for node in slices.nodes if node.op == "map"].count("add") == 3
    slices = optimized(biased)[1]  # of the sum
    assert [node.attr("fn") for node in slices.nodes if node.op == "map"].count("add") == 1


def test_a_scale_behind_one_of_them_moves_into_its_weights_first() -> None:
    assert optimized(products([8, 8, 8], (2, 3, 4), "111", scaled=True))[0]["matmul"] == 1


def test_products_with_and_without_a_bias_are_merged() -> None:
    assert optimized(products([5, 6, 7, 8], (3, 4), "-1-1"))[0]["matmul"] == 1


def test_products_of_different_tensors_stay_apart() -> None:
    b = GraphBuilder("apart")
    outputs = []
    for name in "xy":
        x = b.input(name, TensorType("float32", (3, 4)))
        outputs.append(b.add("matmul", (x, b.constant(normal(4, 5)))))
    assert optimized(b.finish(tuple(outputs)))[0]["matmul"] == 2


def test_a_product_by_what_varies_is_no_part_of_a_group() -> None:
    b = GraphBuilder("varies")
    x = b.input("x", TensorType("float32", (3, 4)))
    w = b.input("w", TensorType("float32", (4, 5)))
    outputs = (b.add("matmul", (x, w)), b.add("matmul", (x, b.constant(normal(4, 5)))))
    assert optimized(b.finish(outputs))[0]["matmul"] == 2


def test_merging_that_costs_more_is_left_alone() -> None:
    """A kernel that starts for nothing leaves only the traffic of the parts, which merging does not lower."""
    graph = products([5, 5], (3, 4), "--")
    free = Rates(flops=200e9, vector_ops=30e9, bandwidth=1e15, conversion_bandwidth=20e9, launch=0.0)
    chosen = extract(graph, saturate(graph, load_rules()), free).graph
    assert sum(node.op == "matmul" for node in chosen.nodes) == 2

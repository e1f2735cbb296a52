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
from egc.machine import load_machine
from egc.rules import load_rules

OPERATORS = load_machine("x86-64-v4").operators
# Starting a kernel is so dear here that merging always pays.
RATES = Rates(200e9, 30e9, 50e9, 20e9, launch=1e-3, operators=OPERATORS)
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
    assert optimized(products([5, 5], (3, 4), "11"), "merge-affine-maps")[0]["matmul"] == 2


def test_a_scale_behind_one_of_them_moves_into_its_weights_first() -> None:
    assert optimized(products([8, 8, 8], (2, 3, 4), "111", scaled=True))[0]["matmul"] == 1


def test_products_with_and_without_a_bias_form_groups_of_their_own() -> None:
    assert optimized(products([5, 6, 7, 8], (3, 4), "-1-1"))[0]["matmul"] == 2


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


def convolutions(window: int, joined: bool) -> Graph:
    """Three convolutions of one image with bias and ReLU, side by side; with ``joined``, concatenated. Images
    come and go with their channels last.
    """
    b = GraphBuilder("side by side")
    x = b.add("transpose", (b.input("x", TensorType("float32", (2, 9, 9, 8))),), perm=(0, 3, 1, 2))
    outputs = []
    for channels in (16, 4, 12):
        w = b.constant(normal(channels, 8, window, window))
        pads = (window // 2, window // 2)
        y = b.add("conv", (x, w), strides=(1, 1), dilations=(1, 1), low=pads, high=pads, groups=1)
        y = b.add("map", (y, b.constant(normal(1, channels, 1, 1))), fn="mul")  # batch normalisation
        y = b.add("map", (y, b.constant(normal(1, channels, 1, 1))), fn="add")
        outputs.append(b.add("map", (y,), fn="relu"))
    if joined:
        outputs = [b.add("concat", tuple(outputs), axis=1)]
    return b.finish(tuple(b.add("transpose", (y,), perm=(0, 2, 3, 1)) for y in outputs))


def test_convolutions_of_one_pixel_are_products_and_merged() -> None:
    found, chosen = optimized(convolutions(1, joined=False))
    assert (found["matmul"], found["conv"], found["conv_channels_last"], found["slice"]) == (1, 0, 0, 3)
    assert [node.attr("fn") for node in chosen.nodes if node.op == "map"] == ["add", "relu"]
    apart, _ = optimized(convolutions(1, joined=False), "conv2d-1x1-as-product")
    assert apart["matmul"] == 0
    assert apart["conv"] + apart["conv_channels_last"] == 3


def test_convolutions_of_several_pixels_stay_apart() -> None:
    assert optimized(convolutions(3, joined=False))[0]["matmul"] == 0


def test_what_is_joined_in_place_is_not_cut_out_of_a_merged_product() -> None:
    """Each convolution writes its part of the concatenation; slices of one product would be copied."""
    real = Rates(200e9, 30e9, 50e9, 20e9, launch=1e-7, operators=OPERATORS)
    graph = convolutions(1, joined=True)
    chosen = extract(graph, saturate(graph, load_rules()), real).graph
    assert not [node for node in chosen.nodes if node.op == "slice"]


def test_merging_that_costs_more_is_left_alone() -> None:
    """A kernel that starts for nothing leaves only the traffic of the parts, which merging does not lower."""
    graph = products([5, 5], (3, 4), "--")
    free = Rates(200e9, 30e9, 1e15, 20e9, launch=0.0, operators=OPERATORS)
    chosen = extract(graph, saturate(graph, load_rules()), free).graph
    assert sum(node.op == "matmul" for node in chosen.nodes) == 2

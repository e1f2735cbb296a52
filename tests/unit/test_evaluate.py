"""egc.ir.evaluate against plain numpy and against definitions written out element by element."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from egc.ir.dims import symbol
from egc.ir.evaluate import EvaluateError, evaluate, evaluate_node
from egc.ir.graph import GraphBuilder
from egc.ir.types import TensorType


def one(op: str, *args: np.ndarray, **attrs: object) -> np.ndarray:
    (result,) = evaluate_node(op, args, attrs)
    return result


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_integers_wrap() -> None:
    x = np.array([127, -128], np.int8)
    assert one("map", x, np.array(1, np.int8), fn="add").tolist() == [-128, -127]
    assert one("reduce", np.array([[200, 100]], np.uint8), fn="add", axes=(1,)).tolist() == [[44]]
    wide = np.full((1, 600), 127, np.int8)
    assert one("matmul", wide, wide.T).tolist() == [[(127 * 127 * 600 + 128) % 256 - 128]]


def test_a_power_does_not_depend_on_shapes() -> None:
    x = np.array([-np.inf, 0.00421553, 3.0], np.float32)
    for exponent in (0.5, 2.0, -1.0, 0.7):
        by_scalar = one("map", x, np.array(exponent, np.float32), fn="pow")
        by_vector = one("map", x, np.full(3, exponent, np.float32), fn="pow")
        np.testing.assert_array_equal(by_scalar, by_vector)
    np.testing.assert_array_equal(one("map", x, np.array(2.0, np.float32), fn="pow"), x * x)


def test_narrow_floats_round_once() -> None:
    x = np.array([1.0], ml_dtypes.bfloat16)
    # gelu in bfloat16 steps would round six times; in float32 with one rounding it is the nearest bfloat16.
    expected = np.float32(0.5 * (1 + 0.6826894921370859)).astype(ml_dtypes.bfloat16)
    assert one("map", x, fn="gelu_erf")[0] == expected
    many = np.full((1, 4096), 0.1, np.float16)
    assert one("reduce", many, fn="add", axes=(1,))[0, 0] == np.float16(np.float64(np.float16(0.1)) * 4096)


def test_int4_arithmetic() -> None:
    x = np.array([7, -8], ml_dtypes.int4)
    out = one("map", x, np.array(1, ml_dtypes.int4), fn="add")
    assert out.dtype == ml_dtypes.int4 and out.astype(int).tolist() == [-8, -7]


@pytest.mark.parametrize("groups", [1, 2])
def test_conv_by_definition(rng: np.random.Generator, groups: int) -> None:
    x = rng.standard_normal((2, 4, 5, 6)).astype(np.float32)
    w = rng.standard_normal((6, 4 // groups, 3, 2)).astype(np.float32)
    attrs = {"strides": (2, 1), "dilations": (1, 2), "low": (1, 0), "high": (2, 1), "groups": groups}
    found = one("conv", x, w, **attrs)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 2), (0, 1)]).astype(np.float64)
    expected = np.zeros((2, 6, 3, 5))
    for n, m, i, j in itertools.product(*map(range, expected.shape)):
        base = m // (6 // groups) * (4 // groups)
        for c, h, v in itertools.product(range(4 // groups), range(3), range(2)):
            expected[n, m, i, j] += padded[n, base + c, 2 * i + h, j + 2 * v] * w[m, c, h, v]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    last = one("conv_channels_last", x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), **attrs)
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), found)


def test_pool_pads_with_the_identity() -> None:
    x = np.array([[-3, -2, -1]], np.int32)
    common = {"window": (1, 2), "strides": (1, 2), "dilations": (1, 1), "low": (0, 1), "high": (0, 0)}
    assert one("pool", x, fn="max", **common).tolist() == [[-3, -1]]
    assert one("pool", x, fn="add", **common).tolist() == [[-3, -3]]


@pytest.mark.parametrize(
    "fn,exclusive,reverse", list(itertools.product(["add", "mul"], [False, True], [False, True]))
)
def test_cumulate(fn: str, exclusive: bool, reverse: bool) -> None:
    values = [3, 2, 5, 4]
    found = one("cumulate", np.array([values]), fn=fn, axis=1, exclusive=exclusive, reverse=reverse)
    expected = []
    for i in range(4):
        span = values[i + exclusive :] if reverse else values[: i + 1 - exclusive]
        expected.append(sum(span) if fn == "add" else int(np.prod(span, dtype=np.int64)))
    assert found.tolist() == [expected]


def test_slice_backwards_to_the_start() -> None:
    assert one("slice", np.arange(5), starts=(4,), sizes=(3,), steps=(-2,)).tolist() == [4, 2, 0]
    assert one("slice", np.arange(5), starts=(9,), sizes=(0,), steps=(1,)).tolist() == []
    with pytest.raises(EvaluateError, match="elements 3 to 5 leave an axis of 5"):
        one("slice", np.arange(5), starts=(3,), sizes=(3,), steps=(1,))


def test_pad_with_interior() -> None:
    out = one("pad", np.array([1, 2, 3]), np.array(0), low=(1,), high=(2,), interior=(1,))
    assert out.tolist() == [0, 1, 0, 2, 0, 3, 0, 0]


def test_topk_keeps_the_lower_position_on_ties() -> None:
    values, positions = evaluate_node(
        "topk", [np.array([1, 3, 3, 2])], {"k": (3,), "axis": 0, "largest": True}
    )
    assert (values.tolist(), positions.tolist()) == ([3, 3, 2], [1, 2, 3])
    _, lowest = evaluate_node("topk", [np.array([1, 1, 0])], {"k": (2,), "axis": 0, "largest": False})
    assert lowest.tolist() == [2, 0]


def test_scatter_adds_repeated_positions() -> None:
    x, index = np.zeros((3,), np.float32), np.array([[1], [1], [-1]])
    out = one("scatter_nd", x, index, np.array([1, 2, 4], np.float32), fn="add")
    assert out.tolist() == [0, 3, 4]
    again = one("scatter_elements", x, np.array([1, 1]), np.array([5, 6], np.float32), axis=0, fn="max")
    assert again.tolist() == [0, 6, 0] and x.tolist() == [0, 0, 0]


def test_gather_nd_with_batch() -> None:
    x = np.arange(8).reshape(2, 2, 2)
    assert one("gather_nd", x, np.array([[1], [0]]), batch_dims=1).tolist() == [[2, 3], [4, 5]]


def test_attention_is_softmax_of_scores(rng: np.random.Generator) -> None:
    q, k, v = (rng.standard_normal((2, 3, 4)) for _ in range(3))
    mask = np.array([[0, -np.inf, 0]] * 3)
    scores = q @ k.transpose(0, 2, 1) * 0.5 + mask
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(one("attention", q, k, v, mask, scale=0.5), weights @ v, rtol=1e-12)


def symbolic_graph() -> GraphBuilder:
    builder = GraphBuilder("g")
    batch = symbol("batch")
    builder.input("x", TensorType("float32", (batch, 3)))
    builder.input("y", TensorType("float32", (2 * batch + 1,)))
    return builder


def test_symbols_are_bound_from_feeds() -> None:
    builder = symbolic_graph()
    flat = builder.add("reshape", ["x"], shape=(3 * symbol("batch"),))
    graph = builder.finish([flat])
    feeds = {"x": np.ones((4, 3), np.float32), "y": np.ones(9, np.float32)}
    assert evaluate(graph, feeds)[flat].shape == (12,)
    with pytest.raises(EvaluateError, match=r"y has the shape \[8\], its type .* means \[9\]"):
        evaluate(graph, {**feeds, "y": np.ones(8, np.float32)})
    with pytest.raises(EvaluateError, match="no value is given for the input x, y"):
        evaluate(graph, {})


def test_a_derived_extent_binds_its_symbol() -> None:
    builder = GraphBuilder("g")
    builder.input("y", TensorType("float32", (2 * symbol("n") + 1,)))
    out = builder.add("dim", [], value=(symbol("n"),))
    graph = builder.finish([out])
    assert evaluate(graph, {"y": np.zeros(9, np.float32)})[out].tolist() == [4]
    with pytest.raises(EvaluateError, match="'n' has no value"):
        evaluate(graph, {"y": np.zeros(8, np.float32)})


def test_double_precision_reference() -> None:
    builder = GraphBuilder("g")
    builder.input("x", TensorType("float16", (1,)))
    third = builder.add("map", ["x"], fn="reciprocal")
    wide = builder.add("cast", [third], dtype="float32")
    graph = builder.finish([wide])
    feeds = {"x": np.array([3.0], np.float16)}
    assert evaluate(graph, feeds)[wide][0] == np.float32(np.float16(1 / 3))
    assert evaluate(graph, feeds, dtype="float64")[wide][0] == 1 / 3

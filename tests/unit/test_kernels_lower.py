"""Every operator as a kernel of its own, against its meaning as a graph node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from egc.ir.dims import parse_dim
from egc.ir.graph import Graph, GraphBuilder
from egc.ir.types import parse_type
from egc.kernels.domain import stage_dims
from egc.kernels.lower import lower
from tests.support.kernels import check_group, group_of, run_lowered

Build = Callable[[GraphBuilder], str]


def graph_of(build: Build, **inputs: str) -> Graph:
    """The graph of one result over typed inputs."""
    builder = GraphBuilder("g")
    for name, text in inputs.items():
        builder.input(name, parse_type(text))
    first = build(builder)
    graph = builder.finish((first,))
    return builder.finish(graph.producer[first].outputs)


def conv(
    strides=(1, 1), dilations=(1, 1), low=(0, 0), high=(0, 0), groups=1, op="conv_channels_last"
) -> Build:
    return lambda b: b.add(
        op, ("x", "w"), strides=strides, dilations=dilations, low=low, high=high, groups=groups
    )


def pool(fn: str, window, strides, low, high) -> Build:
    return lambda b: b.add(
        "pool",
        ("x",),
        fn=fn,
        window=window,
        strides=strides,
        dilations=(1,) * len(window),
        low=low,
        high=high,
    )


def const(b: GraphBuilder, value: object, dtype: str) -> str:
    return b.constant(np.asarray(value, dtype=dtype))


SCALAR = "float32[]"
CASES: dict[str, tuple[Build, dict[str, str]]] = {
    "map broadcast": (
        lambda b: b.add("map", ("x", "y"), fn="sub"),
        {"x": "float32[3, 1, 4]", "y": "float32[5, 1]"},
    ),
    "map scalar": (lambda b: b.add("map", ("x",), fn="exp"), {"x": SCALAR}),
    "select": (
        lambda b: b.add("map", ("c", "x", "y"), fn="select"),
        {"c": "bool[4, 1]", "x": "float32[4, 3]", "y": SCALAR},
    ),
    "cast": (lambda b: b.add("cast", ("x",), dtype="int32"), {"x": "float32[3, 5]"}),
    "reduce add": (lambda b: b.add("reduce", ("x",), fn="add", axes=(0, 2)), {"x": "float32[3, 4, 5]"}),
    "reduce max": (lambda b: b.add("reduce", ("x",), fn="max", axes=(1,)), {"x": "int8[3, 4]"}),
    "reduce nothing": (lambda b: b.add("reduce", ("x",), fn="add", axes=()), {"x": "float32[3]"}),
    "reduce unit": (lambda b: b.add("reduce", ("x",), fn="mul", axes=(1,)), {"x": "float32[3, 1]"}),
    "reduce half": (lambda b: b.add("reduce", ("x",), fn="add", axes=(1,)), {"x": "float16[3, 70]"}),
    "reduce empty": (lambda b: b.add("reduce", ("x",), fn="max", axes=(1,)), {"x": "float32[3, 0]"}),
    "reduce and": (lambda b: b.add("reduce", ("x",), fn="and", axes=(1,)), {"x": "bool[3, 4]"}),
    "matmul": (lambda b: b.add("matmul", ("x", "y")), {"x": "float32[4, 5]", "y": "float32[5, 6]"}),
    "matmul batch": (
        lambda b: b.add("matmul", ("x", "y")),
        {"x": "float32[2, 1, 4, 5]", "y": "float32[3, 5, 6]"},
    ),
    "matmul bfloat16": (
        lambda b: b.add("matmul", ("x", "y")),
        {"x": "bfloat16[4, 5]", "y": "bfloat16[5, 6]"},
    ),
    "matmul int": (lambda b: b.add("matmul", ("x", "y")), {"x": "int32[4, 5]", "y": "int32[5, 1]"}),
    "matmul empty k": (lambda b: b.add("matmul", ("x", "y")), {"x": "float32[4, 0]", "y": "float32[0, 2]"}),
    "conv 1x1": (conv(), {"x": "float32[2, 5, 4, 3]", "w": "float32[1, 1, 3, 8]"}),
    "conv 3x3": (conv(), {"x": "float32[1, 5, 6, 3]", "w": "float32[3, 3, 3, 4]"}),
    "conv padded": (
        conv(strides=(2, 1), low=(1, 0), high=(1, 2)),
        {"x": "float32[1, 5, 6, 3]", "w": "float32[3, 3, 3, 4]"},
    ),
    "conv dilated": (conv(dilations=(2, 1)), {"x": "float32[1, 7, 6, 3]", "w": "float32[3, 3, 3, 4]"}),
    "conv grouped": (conv(groups=2), {"x": "float32[1, 5, 6, 4]", "w": "float32[3, 3, 2, 6]"}),
    "conv depthwise": (
        conv(groups=4, low=(1, 1), high=(1, 1)),
        {"x": "float32[1, 5, 6, 4]", "w": "float32[3, 3, 1, 4]"},
    ),
    "conv multiplier": (conv(groups=4), {"x": "float32[1, 5, 6, 4]", "w": "float32[3, 3, 1, 8]"}),
    "conv first": (
        conv(op="conv", groups=2, low=(1, 1), high=(0, 1)),
        {"x": "float32[2, 4, 5, 6]", "w": "float32[6, 2, 3, 3]"},
    ),
    "max pool": (
        pool("max", (1, 3, 3, 1), (1, 2, 2, 1), (0, 1, 1, 0), (0, 1, 1, 0)),
        {"x": "float32[1, 7, 7, 3]"},
    ),
    "sum pool": (pool("add", (1, 1, 2, 2), (1, 1, 2, 2), (0,) * 4, (0,) * 4), {"x": "float32[1, 3, 4, 6]"}),
    "max pool int8": (pool("max", (2,), (1,), (1,), (0,)), {"x": "int8[5]"}),
    "reshape": (lambda b: b.add("reshape", ("x",), shape=(4, 6)), {"x": "float32[2, 3, 4]"}),
    "reshape odd": (lambda b: b.add("reshape", ("x",), shape=(9, 4)), {"x": "float32[6, 6]"}),
    "reshape units": (lambda b: b.add("reshape", ("x",), shape=(1, 6, 1)), {"x": "float32[2, 1, 3]"}),
    "reshape empty": (lambda b: b.add("reshape", ("x",), shape=(0, 7)), {"x": "float32[2, 0, 3]"}),
    "transpose": (lambda b: b.add("transpose", ("x",), perm=(2, 0, 1)), {"x": "float32[2, 3, 4]"}),
    "slice": (
        lambda b: b.add("slice", ("x",), starts=(3, 1), sizes=(2, 2), steps=(-2, 1)),
        {"x": "float32[4, 5]"},
    ),
    "pad": (
        lambda b: b.add("pad", ("x", const(b, 1.5, "float32")), low=(1, 0), high=(0, 2), interior=(0, 0)),
        {"x": "float32[3, 2]"},
    ),
    "pad between": (
        lambda b: b.add("pad", ("x", "v"), low=(1, 2), high=(0, 1), interior=(1, 0)),
        {"x": "float32[3, 2]", "v": SCALAR},
    ),
    "expand": (lambda b: b.add("expand", ("x",), shape=(2, 3, 4)), {"x": "float32[3, 1]"}),
    "concat": (
        lambda b: b.add("concat", ("x", "y", "x"), axis=1),
        {"x": "float32[2, 3]", "y": "float32[2, 1]"},
    ),
    "gather": (lambda b: b.add("gather", ("x", "i"), axis=1), {"x": "float32[2, 6, 3]", "i": "int64[2, 4]"}),
    "gather constant": (
        lambda b: b.add("gather", ("x", const(b, [2, 0, -1], "int64")), axis=0),
        {"x": "float32[4, 3]"},
    ),
    "gather one": (lambda b: b.add("gather", ("x", const(b, -1, "int64")), axis=1), {"x": "float32[4, 3]"}),
    "gather elements": (
        lambda b: b.add("gather_elements", ("x", "i"), axis=0),
        {"x": "float32[6, 3]", "i": "int32[4, 2]"},
    ),
    "gather nd": (
        lambda b: b.add("gather_nd", ("x", "i"), batch_dims=1),
        {"x": "float32[2, 5, 6, 3]", "i": "int64[2, 4, 2]"},
    ),
    "scatter elements": (
        lambda b: b.add("scatter_elements", ("x", "i", "u"), axis=0, fn="add"),
        {"x": "float32[6, 3]", "i": "int64[4, 2]", "u": "float32[4, 2]"},
    ),
    "scatter nd": (
        lambda b: b.add("scatter_nd", ("x", "i", "u"), fn="set"),
        {"x": "float32[6, 3]", "i": "int64[4, 1]", "u": "float32[4, 3]"},
    ),
    "iota": (lambda b: b.add("iota", (), shape=(2, 3), axis=1), {}),
    "softmax": (lambda b: b.add("softmax", ("x",), axis=1), {"x": "float32[3, 5]"}),
    "softmax inner": (lambda b: b.add("softmax", ("x",), axis=0), {"x": "float32[3, 5]"}),
    "softmax one row": (lambda b: b.add("softmax", ("x",), axis=0), {"x": "float16[5]"}),
    "layer norm": (
        lambda b: b.add("layer_norm", ("x", "s", "b"), axes=(1, 2), epsilon=1e-5),
        {"x": "float32[3, 4, 5]", "s": "float32[4, 5]", "b": "float32[5]"},
    ),
    "rms norm": (
        lambda b: b.add("rms_norm", ("x", "s"), axes=(1,), epsilon=1e-5),
        {"x": "bfloat16[3, 4]", "s": "bfloat16[4]"},
    ),
    "attention": (
        lambda b: b.add("attention", ("q", "k", "v", "m"), scale=0.5),
        {
            "q": "float32[2, 3, 4, 5]",
            "k": "float32[2, 1, 6, 5]",
            "v": "float32[2, 3, 6, 7]",
            "m": "float32[4, 6]",
        },
    ),
    "argmax": (lambda b: b.add("arg_reduce", ("x",), fn="max", axis=1, last=False), {"x": "int32[3, 9]"}),
    "argmin last": (lambda b: b.add("arg_reduce", ("x",), fn="min", axis=0, last=True), {"x": "int32[9, 2]"}),
    "topk": (
        lambda b: b.add("topk", ("x",), k=(3,), axis=1, largest=True),
        {"x": "int32[3, 9, 2]"},
    ),
    "topk least": (lambda b: b.add("topk", ("x",), k=(9,), axis=0, largest=False), {"x": "int8[9]"}),
    "topk of one": (lambda b: b.add("topk", ("x",), k=(1,), axis=1, largest=True), {"x": "float32[3, 1]"}),
    "cumsum": (
        lambda b: b.add("cumulate", ("x",), fn="add", axis=1, exclusive=False, reverse=False),
        {"x": "float32[3, 5]"},
    ),
    "cumsum reverse": (
        lambda b: b.add("cumulate", ("x",), fn="add", axis=0, exclusive=True, reverse=True),
        {"x": "float16[3, 5]"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_operator(case: str) -> None:
    build, inputs = CASES[case]
    graph = graph_of(build, **inputs)
    check_group(graph)


@pytest.mark.parametrize("largest", [False, True])
def test_topk_orders_nan_and_ties_as_numpy_does(largest: bool) -> None:
    builder = GraphBuilder("g")
    builder.input("x", parse_type("float32[2, 7]"))
    outputs = builder.add_multi("topk", ("x",), k=(5,), axis=1, largest=largest)
    data = np.array([[1, np.nan, 3, 3, -np.inf, np.nan, 2], [np.inf, 0, -0.0, 5, np.inf, 0, 1]], np.float32)
    check_group(builder.finish(outputs), feeds={"x": data})


SYMBOLIC: dict[str, tuple[Build, dict[str, str]]] = {
    "map": (lambda b: b.add("map", ("x", "y"), fn="add"), {"x": "float32[b, s, 4]", "y": "float32[s, 1]"}),
    "heads": (
        lambda b: b.add(
            "transpose",
            (b.add("reshape", ("x",), shape=(parse_dim("b"), parse_dim("s"), 3, 4)),),
            perm=(0, 2, 1, 3),
        ),
        {"x": "float32[b, s, 12]"},
    ),
    "merge": (
        lambda b: b.add("reshape", ("x",), shape=(parse_dim("b*s"), 12)),
        {"x": "float32[b, s, 3, 4]"},
    ),
    "part": (
        lambda b: b.add("reshape", ("x",), shape=(parse_dim("b"), parse_dim("s"), 12)),
        {"y": "float32[b, s]", "x": "float32[b*s, 12]"},
    ),
    "matmul": (lambda b: b.add("matmul", ("x", "y")), {"x": "float32[b, s, 4]", "y": "float32[4, 5]"}),
    "softmax": (lambda b: b.add("softmax", ("x",), axis=2), {"x": "float32[b, 2, s]"}),
    "pool": (
        pool("max", (1, 1, 3), (1, 1, 2), (0, 0, 1), (0, 0, 1)),
        {"x": "float32[b + 1, 2, s]"},
    ),
    "concat": (lambda b: b.add("concat", ("x", "y"), axis=1), {"x": "float32[b, s]", "y": "float32[b, 2*s]"}),
}


@pytest.mark.parametrize("extents", [(2, 3), (1, 1), (1, 5), (3, 1), (0, 2)])
@pytest.mark.parametrize("case", SYMBOLIC)
def test_symbolic_dims(case: str, extents: tuple[int, int]) -> None:
    build, inputs = SYMBOLIC[case]
    graph = graph_of(build, **inputs)
    lowered = check_group(graph, dims=dict(zip("bs", extents, strict=True)))
    for stage in lowered.kernel.stages:
        assert not any("floordiv" in str(dim) or "mod" in str(dim) for dim in stage_dims(stage))


def test_a_nan_is_the_extremum_of_its_row() -> None:
    data = np.array([[1, np.nan, 3, np.nan], [4, 5, 5, 1]], np.float32)
    for last in (False, True):
        graph = graph_of(
            lambda b, last=last: b.add("arg_reduce", ("x",), fn="max", axis=1, last=last), x="float32[2, 4]"
        )
        check_group(graph, feeds={"x": data})


def test_indices_outside_the_tensor_stay_inside_it() -> None:
    graph = graph_of(lambda b: b.add("gather", ("x", "i"), axis=0), x="float32[3]", i="int64[4]")
    lowered = lower(graph, group_of(graph), "k")
    values = {"x": np.arange(3, dtype=np.float32), "i": np.array([-9, -1, 2, 7])}
    (found,) = run_lowered(lowered, graph, values, {}).values()
    assert found.tolist() == [0, 2, 2, 2]

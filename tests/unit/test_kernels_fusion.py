"""What is fused with what, and that fused programs compute what the graph means."""

from __future__ import annotations

import numpy as np
import pytest

from egc.ir.dims import parse_dim
from egc.ir.expr import expand_definitions, walk
from egc.ir.graph import Graph, GraphBuilder
from egc.ir.types import parse_type
from egc.kernels import HostCall, KernelCall, kernel_key
from tests.support.kernels import check_calls


class Net(GraphBuilder):
    """A builder with short names for what these tests write often."""

    def __init__(self, **inputs: str) -> None:
        super().__init__("net")
        for name, text in inputs.items():
            self.input(name, parse_type(text))

    def map(self, fn: str, *args: str) -> str:
        return self.add("map", args, fn=fn)

    def weights(self, *shape: int) -> str:
        rng = np.random.default_rng(len(self.constants))
        return self.constant(rng.uniform(-0.5, 0.5, shape).astype(np.float32))

    def scalar(self, value: float) -> str:
        return self.constant(np.float32(value))

    def conv(self, x: str, window: int, outputs: int, pad: int = 0, groups: int = 1) -> str:
        weights = self.weights(window, window, int(self.types[x].shape[-1]) // groups, outputs)
        return self.add(
            "conv_channels_last",
            (x, weights),
            strides=(1, 1),
            dilations=(1, 1),
            low=(pad, pad),
            high=(pad, pad),
            groups=groups,
        )

    def dense(self, x: str, outputs: int) -> str:
        product = self.add("matmul", (x, self.weights(int(self.types[x].shape[-1]), outputs)))
        return self.map("add", product, self.weights(outputs))

    def norm(self, x: str) -> str:
        width = int(self.types[x].shape[-1])
        axes = (self.types[x].rank - 1,)
        return self.add("layer_norm", (x, self.weights(width), self.weights(width)), axes=axes, epsilon=1e-5)

    def view(self, x: str, *shape: object) -> str:
        return self.add("reshape", (x,), shape=tuple(parse_dim(str(d)) for d in shape))

    def transpose(self, x: str, *perm: int) -> str:
        return self.add("transpose", (x,), perm=perm)


def ops_of(call: KernelCall | HostCall) -> list[str]:
    """The operators of a call, maps by their function."""
    assert isinstance(call, KernelCall)
    return [str(node.attr("fn")) if node.op == "map" else node.op for node in call.nodes]


def test_an_elementwise_chain_is_one_kernel_over_one_axis() -> None:
    net = Net(x="float32[2, 3, 4]", y="float32[2, 3, 4]")
    graph = net.finish((net.map("tanh", net.map("exp", net.map("add", "x", "y"))),))
    (call,) = check_calls(graph)
    assert ops_of(call) == ["add", "exp", "tanh"]
    (stage,) = call.kernel.stages
    assert [axis.extent for axis in stage.axes] == [24]


def test_convolution_bias_activation_and_residual_are_one_kernel() -> None:
    net = Net(x="float32[1, 6, 6, 4]")
    first = net.map("relu", net.map("add", net.conv("x", 1, 4), net.weights(4)))
    second = net.map("add", net.conv(first, 3, 4, pad=1), net.weights(4))
    graph = net.finish((net.map("relu", net.map("add", second, first)),))
    calls = check_calls(graph)
    assert [ops_of(call) for call in calls] == [
        ["conv_channels_last", "add", "relu"],
        ["conv_channels_last", "add", "add", "relu"],
    ]


def test_padding_is_written_by_the_producer_and_convolutions_lose_their_guards() -> None:
    net = Net(x="float32[1, 6, 6, 4]")
    first = net.map("relu", net.conv("x", 1, 4))
    edge = (0, 1, 1, 0)
    padded = net.add("pad", (first, net.scalar(0.0)), low=edge, high=edge, interior=(0,) * 4)
    graph = net.finish((net.conv(padded, 3, 4),))
    calls = check_calls(graph)
    assert [ops_of(call) for call in calls] == [["conv_channels_last", "relu", "pad"], ["conv_channels_last"]]
    for call in calls:
        assert not any(load.guards for stage in call.kernel.stages for load in stage.loads())


def test_two_convolutions_meet_in_one_epilogue() -> None:
    net = Net(x="float32[1, 5, 5, 4]")
    graph = net.finish((net.map("add", net.conv("x", 1, 8), net.conv("x", 1, 8)),))
    calls = check_calls(graph)
    assert sorted(map(ops_of, calls)) == [["conv_channels_last"], ["conv_channels_last", "add"]]


def test_a_reduction_is_followed_by_paths_that_part_and_meet() -> None:
    net = Net(x="float32[1, 5, 5, 4]")
    sums = net.map("add", net.conv("x", 1, 8), net.scalar(3.0))
    root = net.map("sqrt", net.map("abs", sums))
    graph = net.finish((net.map("div", sums, net.map("mul", root, net.map("sqrt", root))),))
    (call,) = check_calls(graph)
    assert ops_of(call) == ["conv_channels_last", "add", "abs", "sqrt", "sqrt", "mul", "div"]


def test_a_reduction_is_computed_once_where_paths_part_for_good() -> None:
    net = Net(x="float32[1, 5, 5, 4]")
    sums = net.map("add", net.conv("x", 1, 8), net.scalar(3.0))
    graph = net.finish((net.map("abs", sums), net.map("neg", sums)))
    calls = check_calls(graph)
    assert [ops_of(call) for call in calls] == [["conv_channels_last", "add"], ["abs"], ["neg"]]


def test_heads_are_stored_through_the_views_after_a_product() -> None:
    net = Net(x="float32[b, s, 12]")
    heads = net.transpose(net.view(net.dense("x", 12), "b", "s", 3, 4), 0, 2, 1, 3)
    (call,) = check_calls(net.finish((heads,)), dims={"b": 2, "s": 5})
    assert ops_of(call) == ["matmul", "add", "reshape", "transpose"]
    (stage,) = call.kernel.stages
    assert not any("floordiv" in str(i) for i in stage.index)


def test_attention_block() -> None:
    net = Net(x="float32[b, s, 12]", mask="float32[b, 1, 1, s]")
    q, k, v = (net.transpose(net.view(net.dense("x", 12), "b", "s", 3, 4), 0, 2, 1, 3) for _ in range(3))
    mixed = net.add("attention", (q, k, v, "mask"), scale=0.5)
    joined = net.view(net.transpose(mixed, 0, 2, 1, 3), "b", "s", 12)
    residual = net.map("add", net.dense(joined, 12), "x")
    graph = net.finish((net.norm(residual),))
    calls = check_calls(graph, dims={"b": 2, "s": 5})
    assert [ops_of(call) for call in calls] == [
        *[["matmul", "add", "reshape", "transpose"]] * 3,
        ["attention", "transpose", "reshape"],
        ["matmul", "add", "add"],
        ["layer_norm"],
    ]
    # Keys are stored with their positions innermost, for the scores; queries and values as they come.
    assert len({id(call.kernel) for call in calls[:3] if isinstance(call, KernelCall)}) == 2
    (keys,) = (call for call in calls[:3] if call.args[-1] == calls[3].args[1])
    assert str(keys.kernel.params[-1].type) == "float32[b, 12, s]"
    first = calls[3].kernel.stages[0]
    assert [str(axis.extent) for axis in first.axes] == ["b", "3", "s", "s"]


def test_a_residual_sum_is_written_by_the_normalisation_that_reads_it() -> None:
    net = Net(x="float32[2, 3, 8]", y="float32[2, 3, 8]")
    total = net.map("add", "x", "y")
    graph = net.finish((net.norm(total), net.map("tanh", total)))
    calls = check_calls(graph)
    assert [ops_of(call) for call in calls] == [["add", "layer_norm"], ["tanh"]]
    assert [b.role for b in calls[0].kernel.params].count("out") == 2


def test_embedding_sum_and_normalisation_are_one_kernel() -> None:
    net = Net(ids="int64[b, s]")
    table, positions = net.weights(10, 8), net.weights(6, 8)
    word = net.add("gather", (table, "ids"), axis=0)
    place = net.add("slice", (positions,), starts=(0, 0), sizes=(parse_dim("s"), 8), steps=(1, 1))
    graph = net.finish((net.norm(net.map("add", word, place)),))
    (call,) = check_calls(graph, dims={"b": 2, "s": 5})
    assert ops_of(call) == ["gather", "slice", "add", "layer_norm"]


def test_expensive_arithmetic_is_not_repeated_for_every_tile() -> None:
    net = Net(x="float32[4, 8]")
    graph = net.finish((net.dense(net.map("tanh", "x"), 6),))
    assert [ops_of(call) for call in check_calls(graph)] == [["tanh"], ["matmul", "add"]]


def test_a_broadcast_value_is_computed_once_when_it_is_expensive() -> None:
    net = Net(x="float32[64, 8]", s="float32[8]")
    scale = net.map("div", net.scalar(1.0), net.map("sqrt", net.map("abs", "s")))
    graph = net.finish((net.map("mul", "x", scale),))
    assert [ops_of(call) for call in check_calls(graph)] == [["abs", "sqrt", "div"], ["mul"]]


def test_a_mask_is_computed_once_and_not_for_every_score() -> None:
    net = Net(q="float32[1, 12, 64, 16]", k="float32[1, 12, 16, 64]", keep="int64[1, 1, 1, 64]")
    kept = net.add("cast", ("keep",), dtype="float32")
    mask = net.map("mul", net.map("sub", net.scalar(1.0), kept), net.scalar(-1e4))
    graph = net.finish((net.map("add", net.add("matmul", ("q", "k")), mask),))
    assert [ops_of(call) for call in check_calls(graph)] == [["cast", "sub", "mul"], ["matmul", "add"]]


@pytest.mark.parametrize(("channels", "copied"), [(3, False), (8, True)])
def test_a_convolution_reads_a_narrow_image_from_its_planes(channels: int, copied: bool) -> None:
    net = Net(x=f"float32[1, {channels}, 6, 6]")
    graph = net.finish((net.conv(net.transpose("x", 0, 2, 3, 1), 3, 4),))
    first, *_ = check_calls(graph)
    assert (ops_of(first) == ["transpose"]) == copied


def test_a_few_elements_are_computed_again_rather_than_by_a_kernel_of_their_own() -> None:
    net = Net(x="float32[8, 16]", bias="float32[16]")
    graph = net.finish((net.map("add", "x", net.map("neg", "bias")),))
    assert [ops_of(call) for call in check_calls(graph)] == [["neg", "add"]]


def test_operands_write_into_a_concatenation() -> None:
    net = Net(x="float32[1, 4, 4, 3]")
    squeezed = net.map("relu", net.conv("x", 1, 4))
    left = net.map("relu", net.conv(squeezed, 1, 6))
    right = net.map("relu", net.conv(squeezed, 3, 5, pad=1))
    graph = net.finish((net.add("concat", (left, right), axis=3),))
    calls = check_calls(graph)
    assert [ops_of(call) for call in calls] == [
        ["conv_channels_last", "relu"],
        ["conv_channels_last", "relu"],
        ["conv_channels_last", "relu", "concat"],
    ]
    assert calls[1].args[-1] == calls[2].args[-1] == graph.outputs[0]


def test_what_others_read_is_copied_into_a_concatenation() -> None:
    net = Net(x="float32[1, 4, 4, 3]")
    grown = net.map("relu", net.conv("x", 1, 2))
    graph = net.finish((net.add("concat", ("x", grown, net.map("neg", "x")), axis=3),))
    calls = check_calls(graph)
    assert [ops_of(call) for call in calls] == [["conv_channels_last", "relu"], ["neg", "concat"]]
    assert len(calls[1].kernel.stages) == 2


def test_nested_concatenations_are_one() -> None:
    net = Net(x="float32[2, 3]", y="float32[2, 2]")
    inner = net.add("concat", ("x", net.map("neg", "y")), axis=1)
    graph = net.finish((net.add("concat", (inner, "x"), axis=1),))
    (call,) = check_calls(graph)
    assert len(call.kernel.stages) == 3


def test_equal_kernels_are_one_object_and_names_do_not_matter() -> None:
    net = Net(x="float32[4, 8]", y="float32[4, 8]")
    outputs = (net.map("relu", net.dense("x", 8)), net.map("relu", net.dense("y", 8)))
    first, second = check_calls(net.finish(outputs))
    assert first.kernel is second.kernel and first.args != second.args
    other = Net(z="float32[4, 8]")
    (third,) = check_calls(other.finish((other.map("relu", other.dense("z", 8)),)))
    assert kernel_key(third.kernel) == kernel_key(first.kernel)
    assert third.kernel.name == first.kernel.name


def test_host_nodes_stand_between_the_kernels_that_they_need_and_serve() -> None:
    net = Net(x="float32[3, 5000]")
    negated = net.map("exp", "x")
    values, places = net.add_multi("topk", (negated,), k=(2,), axis=1, largest=True)
    graph = net.finish((net.map("exp", values), places))
    calls = check_calls(graph)
    assert [isinstance(call, HostCall) for call in calls] == [False, True, False]


def test_repeated_use_does_not_blow_expressions_up() -> None:
    net = Net(x="float32[4]")
    value = "x"
    for _ in range(40):
        value = net.map("mul", value, value)
    graph: Graph = net.finish((value,))
    calls = check_calls(graph, feeds={"x": np.ones(4, np.float32)})
    assert 1 < len(calls) <= 40


@pytest.mark.parametrize("fn", ["neg", "sigmoid", "gelu_erf"])
def test_a_long_chain_is_several_kernels(fn: str) -> None:
    """Expressions would be as deep as the chain; one that names its operand twice doubles at a node."""
    net = Net(x="float32[4]")
    value = "x"
    for _ in range(400):
        value = net.map(fn, value)
    calls = check_calls(net.finish((value,)), feeds={"x": np.ones(4, np.float32)})
    kernels = [call.kernel for call in calls if isinstance(call, KernelCall)]
    sizes = [sum(1 for _ in walk(expand_definitions(s.value))) for k in kernels for s in k.stages]
    assert sum(sizes) > 400 and max(sizes) < 1000


def test_a_value_may_have_the_name_of_a_local_buffer() -> None:
    builder = GraphBuilder("net")
    builder.input("t1", parse_type("float32[3, 5]"))
    softmax = builder.add("softmax", ("t1",), name="t0", axis=1)
    (call,) = check_calls(builder.finish((softmax,)))
    assert call.args == ("t1", "t0")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_with_expensive_operands_and_a_view_after_it(axis: int) -> None:
    net = Net(x="float32[3, 4, 5]", y="float32[5]")
    scores = net.map("add", net.map("tanh", "x"), "y")
    result = net.transpose(net.add("softmax", (scores,), axis=axis), 2, 0, 1)
    (call,) = check_calls(net.finish((result,)))
    assert ops_of(call) == ["tanh", "add", "softmax", "transpose"]


def test_a_view_that_mixes_rows_stays_outside() -> None:
    net = Net(x="float32[3, 5]")
    graph = net.finish((net.view(net.add("softmax", ("x",), axis=1), 5, 3),))
    assert [ops_of(call) for call in check_calls(graph)] == [["softmax"], ["reshape"]]

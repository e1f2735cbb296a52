"""Loops and branches that run on the host: the types of their results follow from their bodies."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import egc
from egc.errors import BadInput
from egc.frontend.importer import import_model

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
CONSTANTS = {
    "w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32),
    "front": np.int64([0]),
    "one": np.int64([1]),
}
node = helper.make_node


def info(name: str, code: int = FLOAT, shape: list[Any] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, shape)


def sequence(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_sequence_value_info(name, FLOAT, None)


def body(
    nodes: list[onnx.NodeProto],
    carried: list[onnx.ValueInfoProto],
    results: list[onnx.ValueInfoProto],
    tag: str = "",
) -> onnx.GraphProto:
    """A body that goes on until the trips are used up."""
    keep = node("Identity", [f"before{tag}"], [f"going{tag}"])
    inputs = [info(f"trip{tag}", INT64, []), info(f"before{tag}", BOOL, []), *carried]
    return helper.make_graph([keep, *nodes], "body", inputs, [info(f"going{tag}", BOOL, []), *results])


def model(nodes: list[onnx.NodeProto], *outputs: str) -> onnx.ModelProto:
    """A model of x [n, 4], the number of trips and a flag."""
    inputs = [info("x", FLOAT, ["n", 4]), info("trips", INT64, []), info("flag", BOOL, [])]
    constants = [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()]
    graph = helper.make_graph(nodes, "g", inputs, [info(name) for name in outputs], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def types(proto: onnx.ModelProto) -> list[str]:
    return [str(port.type) for port in import_model(proto).outputs]


def agree(proto: onnx.ModelProto, trips: tuple[int, ...] = (3, 1, 0)) -> None:
    """egc gives what ONNX Runtime does, whatever the trips, the batch and the flag are."""
    session = egc.compile(proto)
    reference = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for n, count in [(2, count) for count in trips] + [(5, 2)]:
        x = rng.standard_normal((n, 4)).astype(np.float32)
        for flag in (False, True):
            feeds = {"x": x, "trips": np.array(count), "flag": np.array(flag)}
            expected = reference.run(None, {port.name: feeds[port.name] for port in reference.get_inputs()})
            for mine, theirs in zip(session.run(None, feeds), expected, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


STEP = [node("MatMul", ["h", "w"], ["p"]), node("Tanh", ["p"], ["h1"])]
INNER = body([node("MatMul", ["k", "w"], ["k1"])], [info("k")], [info("k1")], tag="_inner")


@pytest.mark.parametrize("shape", [["n", 4], ["a", "b"], None])
def test_a_carried_value_keeps_its_extents(shape: list[Any] | None) -> None:
    loop = node(
        "Loop",
        ["trips", "", "x"],
        ["h2"],
        body=body(STEP, [info("h", FLOAT, shape)], [info("h1", FLOAT, shape)]),
    )
    proto = model([loop, node("Relu", ["h2"], ["y"])], "y")
    assert types(proto) == ["float32[n, 4]"]
    agree(proto)


def test_scan_outputs_are_stacks_and_keep_their_type_without_iterations() -> None:
    nodes = [*STEP, node("Identity", ["h1"], ["seen"]), node("Identity", ["trip"], ["number"])]
    results = [info("h1"), info("seen"), info("number", INT64)]
    loop = node("Loop", ["trips", "", "x"], ["h2", "all", "numbers"], body=body(nodes, [info("h")], results))
    proto = model([loop, node("Neg", ["all"], ["z"])], "h2", "z", "numbers")
    for value in proto.graph.output[2:]:
        value.type.tensor_type.elem_type = INT64
    assert types(proto) == ["float32[n, 4]", "float32[u0, n, 4]", "int64[u1]"]
    agree(proto, (3, 1))
    x = np.ones((2, 4), np.float32)
    # ONNX Runtime gives extents of 0 where the body does not declare them; numpy.stack would keep them.
    kept, stack, numbers = egc.compile(proto).run(
        None, {"x": x, "trips": np.array(0), "flag": np.array(True)}
    )
    np.testing.assert_array_equal(kept, x)
    assert (stack.shape, numbers.shape, numbers.dtype) == ((0, 2, 4), (0,), np.int64)


def test_an_extent_that_iterations_change_is_a_dim_of_its_own() -> None:
    loop = node(
        "Loop", ["trips", "", "x"], ["h2"],
        body=body([node("Concat", ["h", "x"], ["h1"], axis=0)], [info("h")], [info("h1")]),
    )  # fmt: skip
    proto = model([loop, node("Relu", ["h2"], ["y"])], "y")
    assert types(proto) == ["float32[u0, 4]"]
    agree(proto)


def test_what_the_body_declares_holds_where_inference_is_silent() -> None:
    """The extents of the reshaped value are data."""
    nodes = [
        node("Shape", ["h"], ["s"]),
        node("Mul", ["s", "once"], ["t"]),
        node("Reshape", ["h", "t"], ["h1"]),
    ]
    nodes = [node("Cast", ["flag"], ["f"], to=INT64), node("Max", ["f", "one"], ["once"]), *nodes]
    loop = node(
        "Loop", ["trips", "", "x"], ["h2"], body=body(nodes, [info("h")], [info("h1", FLOAT, ["n", 4])])
    )
    proto = model([loop, node("Relu", ["h2"], ["y"])], "y")
    assert types(proto) == ["float32[u0, 4]"]
    agree(proto)


def test_values_that_are_exchanged_have_only_the_extents_of_both() -> None:
    nodes = [node("Identity", ["a"], ["b1"]), node("Identity", ["b"], ["a1"])]
    loop = node(
        "Loop",
        ["trips", "", "x", "w"],
        ["c", "d"],
        body=body(nodes, [info("a"), info("b")], [info("a1"), info("b1")]),
    )
    proto = model([loop, node("Relu", ["c"], ["y"]), node("Relu", ["d"], ["z"])], "y", "z")
    assert types(proto) == ["float32[u0, 4]", "float32[u1, 4]"]
    agree(proto)


def test_loops_inside_loops_and_branches() -> None:
    inner = node("Loop", ["trips", "", "h"], ["h1"], body=INNER)
    nested = node("Loop", ["trips", "", "x"], ["h2"], body=body([inner], [info("h")], [info("h1")]))
    proto = model([nested, node("Relu", ["h2"], ["y"])], "y")
    assert types(proto) == ["float32[n, 4]"]
    agree(proto)
    looped = helper.make_graph([node("Loop", ["trips", "", "x"], ["t"], body=INNER)], "then", [], [info("t")])
    plain = helper.make_graph([node("Identity", ["x"], ["e"])], "else", [], [info("e")])
    branch = node("If", ["flag"], ["h2"], then_branch=looped, else_branch=plain)
    proto = model([branch, node("Relu", ["h2"], ["y"])], "y")
    assert types(proto) == ["float32[n, 4]"]
    agree(proto)


def test_a_rank_that_iterations_change_is_refused() -> None:
    loop = node(
        "Loop", ["trips", "", "x"], ["h2"],
        body=body([node("Unsqueeze", ["h", "front"], ["h1"])], [info("h")], [info("h1")]),
    )  # fmt: skip
    with pytest.raises(BadInput, match="the rank of its result 'h2' is not known"):
        import_model(model([loop, node("Relu", ["h2"], ["y"])], "y"))


@pytest.mark.parametrize("start", ["SequenceEmpty", "SequenceConstruct"])
def test_a_sequence_that_a_loop_fills(start: str) -> None:
    """As the ONNX exporter of PyTorch writes an EmbeddingBag."""
    nodes = [
        node("Unsqueeze", ["trip", "front"], ["here"]),
        node("Slice", ["x", "front", "here"], ["part"]),
        node("SequenceInsert", ["s", "part"], ["s1"]),
    ]
    loop = node("Loop", ["trips", "", "s0"], ["s2"], body=body(nodes, [sequence("s")], [sequence("s1")]))
    first = node(start, ["x"] * (start == "SequenceConstruct"), ["s0"])
    proto = model(
        [first, loop, node("ConcatFromSequence", ["s2"], ["c"], axis=0), node("Relu", ["c"], ["y"])], "y"
    )
    assert types(proto)[0].startswith("float32[u0, ")
    agree(proto, (3, 1))

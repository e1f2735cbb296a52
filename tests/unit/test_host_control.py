"""Loops and scans that are not unrolled, run as host nodes: trips, conditions, carried values, scan outputs,
directions, axes, and the batched form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import egc
from egc.ir.host import encode_host, run_host


def info(name: str, dtype: int = TensorProto.FLOAT, shape: tuple[int, ...] = (2,)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


# carried' = carried + step, going while its sum is below the limit; scan outputs: carried', and the trip.
BODY = helper.make_graph(
    [
        helper.make_node("Add", ["carried", "step"], ["sum"]),
        helper.make_node("ReduceSum", ["sum"], ["all"], keepdims=0),
        helper.make_node("Less", ["all", "limit"], ["going"]),
        helper.make_node("Identity", ["sum"], ["seen"]),
        helper.make_node("Identity", ["trip"], ["number"]),
    ],
    "body",
    [info("trip", TensorProto.INT64, ()), info("before", TensorProto.BOOL, ()), info("carried")],
    [
        info("going", TensorProto.BOOL, ()),
        info("sum"),
        info("seen"),
        info("number", TensorProto.INT64, ()),
    ],
)
LIMIT, STEP, START = np.float32(10), np.float32([1, 2]), np.float32([0, 1])


@pytest.mark.parametrize(
    ("trips", "condition", "expected"),
    [
        (2, None, 2),
        (2, True, 2),
        (9, None, 3),  # 4 + 3·2 reaches the limit: 1, 4, 7, 10
        (None, True, 3),
        (0, True, 0),
        (0, None, 0),
        (2, False, 0),
    ],
)
def test_a_loop_on_the_host(trips: int | None, condition: bool | None, expected: int) -> None:
    given = {"M": trips, "c": condition}
    names = [name if value is not None else "" for name, value in given.items()]
    node = helper.make_node("Loop", [*names, "start"], ["last", "seen_all", "numbers"], body=BODY)
    feeds = {name: np.array(value) for name, value in given.items() if value is not None}
    feeds |= {"start": START, "step": STEP, "limit": LIMIT}
    text = encode_host(node, list(feeds), list(node.output), {"": 18})
    last, seen, numbers = run_host(text, list(feeds.values()))
    np.testing.assert_array_equal(last, START + expected * STEP)
    steps = np.arange(1, expected + 1, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(seen, START + steps * STEP, strict=True)
    np.testing.assert_array_equal(numbers, np.arange(expected), strict=True)


# carried' = carried + a·b; scan outputs: carried', and a seen as a column.
SCAN_BODY = helper.make_graph(
    [
        helper.make_node("Mul", ["a", "b"], ["product"]),
        helper.make_node("Add", ["carried", "product"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["seen"]),
        helper.make_node("Transpose", ["a"], ["column"], perm=[0]),
        helper.make_node("Unsqueeze", ["column", "one"], ["upright"]),
    ],
    "body",
    [info("carried"), info("a"), info("b")],
    [info("sum"), info("seen"), info("upright", shape=(2, 1))],
    [onnx.numpy_helper.from_array(np.int64([1]), "one")],
)


def scan_model(shapes: dict[str, list[Any]], attributes: dict[str, Any]) -> bytes:
    node = helper.make_node(
        "Scan", ["start", "p", "q"], ["last", "s", "u"], body=SCAN_BODY, num_scan_inputs=2, **attributes
    )
    inputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in shapes.items()]
    outputs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in node.output]
    graph = helper.make_graph([node], "scan", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_directions": [1, 0]},
        {"scan_output_directions": [0, 1]},
        {"scan_input_axes": [1, 0], "scan_input_directions": [0, 1]},
        {"scan_output_axes": [1, 2], "scan_output_directions": [1, 0]},
        {"scan_output_axes": [-1, -2], "scan_input_axes": [-1, -2]},
    ],
)
def test_a_scan_over_a_symbolic_extent(attributes: dict[str, Any]) -> None:
    turned = attributes.get("scan_input_axes", [0])[0] != 0
    shapes: dict[str, list[Any]] = {"start": [2], "p": [2, "t"] if turned else ["t", 2], "q": ["t", 2]}
    model = scan_model(shapes, attributes)
    session, reference = egc.compile(model), onnxruntime.InferenceSession(model)
    rng = np.random.default_rng(0)
    for length in (1, 5):
        extents = {name: [length if d == "t" else d for d in shape] for name, shape in shapes.items()}
        feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in extents.items()}
        for mine, other in zip(session.run(None, feeds), reference.run(None, feeds), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-6, strict=True)


def test_a_scan_over_no_elements() -> None:
    model = scan_model({"start": [2], "p": ["t", 2], "q": ["t", 2]}, {})
    nothing = np.zeros((0, 2), np.float32)
    last, s, u = egc.compile(model).run(None, {"start": START, "p": nothing, "q": nothing})
    np.testing.assert_array_equal(last, START)
    assert (s.shape, u.shape) == ((0, 2), (0, 2, 1))


def test_a_batched_scan_with_lengths() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["carried", "a"], ["sum"]), helper.make_node("Identity", ["sum"], ["seen"])],
        "body",
        [info("carried"), info("a")],
        [info("sum"), info("seen")],
    )
    node = helper.make_node(
        "Scan", ["n", "start", "x"], ["last", "s"], body=body, num_scan_inputs=1, directions=[1]
    )
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    text = encode_host(node, ["n", "start", "x"], ["last", "s"], {"": 8})
    last, s = run_host(text, [np.int64([3, 2]), np.zeros((2, 2), np.float32), x])
    np.testing.assert_array_equal(last, [x[0].sum(0), x[1, :2].sum(0)])
    np.testing.assert_array_equal(s[0], np.cumsum(x[0, ::-1], axis=0))
    np.testing.assert_array_equal(s[1], [x[1, 1], x[1, 1] + x[1, 0], [0, 0]])

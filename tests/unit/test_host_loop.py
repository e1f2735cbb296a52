"""Loops that are not unrolled, run as host nodes: trips, conditions, carried values and scan outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

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

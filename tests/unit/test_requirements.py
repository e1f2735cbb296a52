"""What a program relies on about extents is checked by the run, before kernels compute addresses from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import egc
from egc.errors import InputError
from egc.frontend.importer import import_model


def _model(
    nodes: Sequence[NodeProto], shapes: dict[str, Sequence[Any]], **constants: Sequence[int]
) -> ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    arrays = [numpy_helper.from_array(np.array(data, np.int64), name) for name, data in constants.items()]
    graph = helper.make_graph(list(nodes), "test", inputs, outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


ADD = _model([helper.make_node("Add", ["x", "y"], ["z"])], {"x": ["a", 3], "y": ["b", 3]})
# Every second row: as many as there are where there is one.
SECOND = _model(
    [
        helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["row"]),
        helper.make_node("Min", ["x", "row"], ["z"]),
    ],
    {"x": ["n", 3]},
    starts=[0],
    ends=[1 << 40],
    axes=[0],
    steps=[2],
)
SPLIT = _model(
    [
        helper.make_node("Split", ["x", "parts"], ["p", "q"]),
        helper.make_node("Sub", ["p", "q"], ["z"]),
    ],
    {"x": ["n"]},
    parts=[2, 2],
)
TOPK = _model([helper.make_node("TopK", ["x", "k"], ["z", "at"])], {"x": ["n"]}, k=[3])


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("model", "good", "bad", "why"),
    [
        (ADD, {"x": ones(4, 3), "y": ones(4, 3)}, {"x": ones(4, 3), "y": ones(5, 3)}, "a == b is needed"),
        (SECOND, {"x": ones(1, 3)}, {"x": ones(4, 3)}, "they are 4 and 2"),
        (SPLIT, {"x": ones(4)}, {"x": ones(3)}, "3 <= n - 1 is needed; they are 3 and 2"),
        (TOPK, {"x": ones(3)}, {"x": ones(2)}, "3 <= n is needed; they are 3 and 2"),
    ],
    ids=["add", "slice", "split", "topk"],
)
def test_extents_that_contradict_the_program_are_an_error(
    model: ModelProto, good: dict[str, np.ndarray], bad: dict[str, np.ndarray], why: str
) -> None:
    with egc.compile(model, threads=1) as session:
        session.run(None, good)
        with pytest.raises(InputError, match="do not fit") as caught:
            session.run(None, bad)
        assert why in str(caught.value) and "node" in str(caught.value)
        session.run(None, good)


def test_what_always_holds_is_not_checked() -> None:
    relu = _model([helper.make_node("Add", ["x", "x"], ["z"])], {"x": ["n", "m"]})
    assert import_model(relu).requirements == ()
    assert [(str(r.left), r.relation) for r in import_model(TOPK).requirements] == [("3", "<=")]


def test_extents_that_a_host_operator_makes_are_checked_when_they_are_known() -> None:
    where = helper.make_node("NonZero", ["x"], ["at"])
    there = helper.make_node("Cast", ["at"], ["f"], to=TensorProto.FLOAT)
    model = _model([where, there, helper.make_node("Add", ["f", "y"], ["z"])], {"x": [4], "y": [1, "m"]})
    x = np.array([0, 1, 0, 1], np.float32)
    with egc.compile(model, threads=1) as session:
        np.testing.assert_array_equal(session.run(None, {"x": x, "y": ones(1, 2)})[0], [[2, 4]])
        with pytest.raises(InputError, match="do not fit"):
            session.run(None, {"x": x, "y": ones(1, 3)})


@pytest.mark.parametrize(("first", "last"), [(-1, 1 << 62), (0, 1), (-2, -1)])
def test_a_slice_of_one_element_broadcasts_over_what_it_was_cut_from(first: int, last: int) -> None:
    model = _model(
        [
            helper.make_node("Slice", ["x", "first", "last", "axis"], ["part"]),
            helper.make_node("Sub", ["x", "part"], ["z"]),
        ],
        {"x": [2, "t"]},
        first=[first],
        last=[last],
        axis=[1],
    )
    rng = np.random.default_rng(2 - first)
    with egc.compile(model, threads=1) as session:
        for extent in (9, 2, 40):
            x = rng.standard_normal((2, extent), np.float32)
            np.testing.assert_array_equal(session.run(None, {"x": x})[0], x - x[:, first:last])
        empty = np.zeros((2, 0), np.float32)
        assert session.run(None, {"x": empty})[0].shape == (2, 0)
        if first == -2:  # the one element has no second to last
            with pytest.raises(InputError, match=r"min\(1, t\) <= "):
                session.run(None, {"x": np.zeros((2, 1), np.float32)})


def test_extents_by_which_nothing_can_be_divided_are_an_error() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
        helper.make_node("Div", ["shape", "two"], ["half"]),
        helper.make_node("Concat", ["half", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["z"]),
    ]
    model = _model(nodes, {"x": ["n", 6]}, two=[2], rest=[-1])
    with egc.compile(model, threads=1) as session:
        x = ones(4, 6)
        assert session.run(None, {"x": x})[0].shape == (2, 12)
        with pytest.raises(InputError, match="n = 1"):
            session.run(None, {"x": ones(1, 6)})
        assert session.run(None, {"x": x})[0].shape == (2, 12)

"""Sizes that a model only declares: refused, or imported without allocating what they ask for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import SparseTensorProto, TensorProto, ValueInfoProto, helper, numpy_helper

from egc.errors import BadInput
from egc.frontend.importer import import_model
from egc.frontend.proto import CODES
from egc.ir.types import dtype_of

X = np.ones((2, 3, 8, 8), np.float32)
HUGE = 1 << 62

# operator, opset, data, constants, attributes
IMPORTED: list[tuple[str, int, list[np.ndarray], list[Any], dict[str, Any]]] = [
    ("HannWindow", 18, [], [np.int64(10**9)], {}),
    ("Range", 18, [], [np.int64(0), np.int64(10**12), np.int64(1)], {}),
    ("Tile", 18, [], [np.ones(1000, np.float32), np.int64([10**9])], {}),
    ("OneHot", 18, [], [np.arange(1000), np.int64(10**9), np.float32([0, 1])], {}),
    ("ConstantOfShape", 18, [], [np.int64([10**6, 10**6])], {}),
    ("Expand", 18, [], [np.ones(1, np.float32), np.int64([10**12])], {}),
    ("Pad", 18, [], [np.ones(3, np.float32), np.int64([10**9, 0])], {"mode": "reflect"}),
    ("EyeLike", 18, [], [np.ones((3000, 3000), np.float32)], {}),
    ("RandomNormal", 18, [], [], {"shape": [10**12]}),
]
REFUSED: list[tuple[str, int, list[np.ndarray], list[Any], dict[str, Any]]] = [
    ("Range", 18, [], [np.float32(0), np.float32(np.nan), np.float32(1)], {}),
    ("Range", 18, [], [np.int64(0), np.int64(10), np.int64(0)], {}),
    ("ConstantOfShape", 18, [], [np.int64([HUGE, HUGE])], {}),
    ("Pad", 18, [X], [np.int64([HUGE] * 8)], {}),
    ("Pad", 18, [X], [np.int64([-HUGE] * 8)], {}),
    ("Split", 18, [X], [], {"num_outputs": 10**9}),
    ("Unsqueeze", 18, [X], [np.int64([HUGE])], {}),
    ("Transpose", 18, [X], [], {"perm": [HUGE, 1, 0, 3]}),
    ("TopK", 18, [X], [np.int64([HUGE])], {}),
    ("Tile", 18, [X], [np.int64([1, -1, 2, 1])], {}),
    ("GatherND", 18, [X], [np.int64([[0], [1]])], {"batch_dims": 3}),
    ("GatherND", 18, [X], [np.int64([[0], [1]])], {"batch_dims": -1}),
    ("ScatterND", 18, [X], [np.int64([[0], [1]]), np.ones((2, 3), np.float32)], {}),
    ("ScatterND", 18, [X], [np.int64([[0], [1]]), np.ones((2, 3, 8, 7), np.float32)], {}),
    ("ScatterElements", 18, [X], [np.int64([[0], [1]]), np.ones((2, 1), np.float32)], {}),
    ("Reshape", 18, [X], [np.int64([0, -1, -1])], {}),
    ("Reshape", 18, [X], [np.int64([7, -1])], {}),
    ("Flatten", 18, [X], [], {"axis": HUGE}),
    ("Gather", 18, [X], [np.int64([HUGE])], {}),
    ("CumSum", 18, [X], [np.int64(HUGE)], {}),
    ("DepthToSpace", 18, [X], [], {"blocksize": 0}),
    ("SpaceToDepth", 18, [X], [], {"blocksize": 10**9}),
    ("Einsum", 18, [X], [], {"equation": "->->"}),
    ("Einsum", 18, [X], [], {"equation": "....ab"}),
    ("Softmax", 18, [np.float32(1)], [], {}),
    ("ReduceSum", 18, [X], [np.int64([0, 0])], {}),
    ("Cast", 18, [X], [], {"to": 12345}),
]


def _model(
    op_type: str, opset: int, data: list[np.ndarray], constants: list[Any], attributes: dict[str, Any]
) -> Any:
    feeds = {f"x{i}": np.asarray(x) for i, x in enumerate(data)}
    weights = {f"c{i}": np.asarray(c) for i, c in enumerate(constants)}
    names = ["y", "z"] if op_type in ("Split", "TopK") else ["y"]
    graph = helper.make_graph(
        [helper.make_node(op_type, [*feeds, *weights], names, **attributes)],
        "hostile",
        [helper.make_tensor_value_info(name, CODES[dtype_of(x)], list(x.shape)) for name, x in feeds.items()],
        [ValueInfoProto(name=name) for name in names],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("case", IMPORTED, ids=lambda case: case[0])
def test_large_results_of_small_constants_are_not_made(case: tuple[Any, ...]) -> None:
    graph = import_model(_model(*case)).graph
    held = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in case[3] if isinstance(x, np.ndarray))
    assert sum(constant.data.nbytes for constant in graph.constants.values()) <= held + 4096


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[0]}-{case[3:]}"[:60])
def test_impossible_sizes_are_refused(case: tuple[Any, ...]) -> None:
    with pytest.raises(BadInput) as caught:
        import_model(_model(*case))
    assert case[0] in str(caught.value.problems[0].where)


def _tensor(dtype: int, shape: list[int], raw: bytes | None = b"") -> TensorProto:
    tensor = TensorProto(name="w", data_type=dtype, dims=shape)
    if raw is not None:
        tensor.raw_data = raw
    return tensor


def _of_weights(rank: int = 1) -> Any:
    """A model that gives back the initializer `w`, or an input of this rank."""
    given = [] if rank == 1 else [helper.make_tensor_value_info("w", TensorProto.FLOAT, [1] * rank)]
    node = helper.make_node("Identity", ["w"], ["y"])
    graph = helper.make_graph([node], "hostile", given, [ValueInfoProto(name="y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    "tensor",
    [
        _tensor(TensorProto.FLOAT, [1] * 70, bytes(4)),
        _tensor(TensorProto.FLOAT, [0, HUGE]),
        _tensor(TensorProto.FLOAT, [HUGE, HUGE, 0], None),
        _tensor(TensorProto.STRING, [0, HUGE], None),
        _tensor(TensorProto.BOOL, [0, HUGE, 2]),
        _tensor(TensorProto.INT4, [0, HUGE]),
        _tensor(TensorProto.FLOAT16, [0, HUGE], None),
    ],
)
def test_initializers_whose_shapes_no_array_can_have(tensor: TensorProto) -> None:
    model = _of_weights()
    model.graph.initializer.append(tensor)
    with pytest.raises(BadInput) as caught:
        import_model(model)
    assert caught.value.where == "initializer 'w'" and caught.value.why


def test_an_input_of_too_high_a_rank() -> None:
    import_model(_of_weights(rank=64))
    with pytest.raises(BadInput, match="it has rank 65, and the most is 64"):
        import_model(_of_weights(rank=65))


@pytest.mark.parametrize("indices", [np.float32([0.5]), np.float32([[0.5]]), np.array([True])])
def test_indices_of_sparse_tensors_that_are_no_integers(indices: np.ndarray) -> None:
    model = _of_weights()
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    sparse = SparseTensorProto(values=values, indices=numpy_helper.from_array(indices, "i"), dims=[4])
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(BadInput, match="and should be int64"):
        import_model(model)


def test_external_data_in_a_circle_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    for location, why in {"a": "Too many levels of symbolic links", "pipe": "it is a pipe"}.items():
        model = _of_weights()
        tensor = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=location)
        model.graph.initializer.append(tensor)
        with pytest.raises(BadInput, match=why):
            import_model(model, folder=tmp_path)

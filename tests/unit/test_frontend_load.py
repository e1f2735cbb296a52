"""Every kind of bad file is one error that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from egc.errors import BadInput
from egc.frontend.importer import import_model
from egc.frontend.load import load_model
from egc.frontend.wire import part


def _model(**changes: object) -> ModelProto:
    weight = helper.make_tensor(
        "w", TensorProto.FLOAT, [4, 3], np.arange(12, dtype=np.float32).tobytes(), raw=True
    )
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
            helper.make_node("Relu", ["y"], ["z"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 3])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _external(model: ModelProto, location: str, offset: int = 0, length: int | None = None) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset)} | (
        {} if length is None else {"length": str(length)}
    )
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def _cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "z"


def _double(model: ModelProto) -> None:
    model.graph.node[1].output[0] = "y"


def _undefined(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def _huge(model: ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]


def _negative(model: ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-4, -3]


def _bad_type(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def _new_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 999


def _no_opset(model: ModelProto) -> None:
    del model.opset_import[:]


def _new_ir(model: ModelProto) -> None:
    model.ir_version = 999


def _no_graph(model: ModelProto) -> None:
    model.ClearField("graph")


def _unknown_operators(model: ModelProto) -> None:
    model.graph.node[0].op_type = "Frobnicate"
    model.graph.node[0].domain = "com.example"


def _bad_input_type(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = 77


def _missing_attribute(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Cast"


def _wrong_attribute(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Softmax"
    model.graph.node[1].attribute.append(helper.make_attribute("axis", "last"))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_cycle, "cycle"),
        (_double, "'y' is defined twice"),
        (_undefined, "'nowhere' is not defined"),
        (_huge, "it holds 48 bytes"),
        (_negative, "negative extent"),
        (_bad_type, "99 is not an element type"),
        (_new_opset, "opset 999 is not supported"),
        (_no_opset, "imports no operator set"),
        (_new_ir, "IR version 999 is not supported"),
        (_no_graph, "holds no graph"),
        (_unknown_operators, "com.example.Frobnicate"),
        (_bad_input_type, "77 is not an element type"),
        (_missing_attribute, "the attribute 'to' is missing"),
        (_wrong_attribute, "the attribute 'axis' is not of the type INT"),
    ],
)
def test_a_damaged_model_is_refused_with_its_reason(
    damage: Callable[[ModelProto], None], expected: str
) -> None:
    model = _model()
    damage(model)
    with pytest.raises(BadInput, match=expected.replace("(", r"\(")):
        import_model(model.SerializeToString())


@pytest.mark.parametrize(
    ("data", "expected"), [(b"", "is empty"), (b"\x89PNG\r\n\x1a\n", "is not an ONNX model")]
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=expected):
        load_model(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        load_model(tmp_path / "none.onnx")
    with pytest.raises(BadInput, match="it is a folder"):
        load_model(tmp_path)


def test_every_problem_is_told_at_once() -> None:
    model = _model()
    _undefined(model)
    model.graph.output[0].name = "other"
    with pytest.raises(BadInput) as caught:
        load_model(model)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("../weights.bin", "not a path inside the model's folder"),
        ("/etc/passwd", "not a path inside the model's folder"),
        ("a/../../weights.bin", "not a path inside the model's folder"),
        ("", "not a path inside the model's folder"),
        ("link.bin", "leads out of the model's folder"),
        ("none.bin", "does not exist"),
        ("short.bin", "leave the external file of 10 bytes"),
    ],
)
def test_external_data_must_lie_in_the_models_folder(tmp_path: Path, location: str, expected: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    (folder / "short.bin").write_bytes(bytes(10))
    model = _model()
    _external(model, location)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadInput, match=expected):
        load_model(folder / "model.onnx")


@pytest.mark.parametrize(("offset", "length"), [(-1, 48), (16, 48), (0, 47), (1 << 62, 48)])
def test_external_data_out_of_range_is_refused(tmp_path: Path, offset: int, length: int) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(63))
    model = _model()
    _external(model, "w.bin", offset, length)
    with pytest.raises(BadInput, match="external"):
        load_model(model, tmp_path)


def test_external_data_is_a_read_only_view_of_the_file(tmp_path: Path) -> None:
    data = np.arange(12, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(bytes(16) + data.tobytes())
    model = _model()
    _external(model, "w.bin", 16, 48)
    weight = load_model(model, tmp_path).initializers["w"]
    assert not weight.flags.owndata and not weight.flags.writeable
    np.testing.assert_array_equal(weight, data.reshape(4, 3))


def test_large_weights_are_views_of_the_file_and_equal_to_what_protobuf_reads(tmp_path: Path) -> None:
    data = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model = _model()
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(data, "w"))
    model.graph.initializer.insert(0, onnx.numpy_helper.from_array(np.arange(3), "small"))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    found = load_model(path)
    assert not found.proto.graph.initializer[1].HasField("raw_data")
    np.testing.assert_array_equal(found.initializers["w"], data)
    np.testing.assert_array_equal(found.initializers["small"], np.arange(3))
    parted = part(memoryview(model.SerializeToString()))
    assert parted is not None and len(parted[0]) < 4096 and list(parted[1]) == [1]


def test_nodes_out_of_order_are_sorted() -> None:
    model = _model()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert [node.op_type for node in load_model(model).nodes] == ["MatMul", "Relu"]


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int2", "uint2"])
def test_packed_integers_unpack_as_onnx_packs_them(dtype: str) -> None:
    import ml_dtypes

    low, high = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}[dtype]
    data = np.random.default_rng(1).integers(low, high + 1, (3, 5)).astype(getattr(ml_dtypes, dtype))
    model = _model()
    model.graph.initializer.append(onnx.numpy_helper.from_array(data, "packed"))
    np.testing.assert_array_equal(load_model(model).initializers["packed"].astype(int), data.astype(int))

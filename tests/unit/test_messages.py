"""ONNX's messages without its package: most models compile without it, and it is whole when asked for."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper


def run_alone(script: str, *args: str) -> str:
    """What a script prints in a process that has imported nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", script, *args], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def model(tmp_path: Path) -> Path:
    values = [0.5, -2.0, 3.0]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], values)  # as a typed field, not as raw bytes
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
        [weight],
    )
    path = tmp_path / "scaled.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_a_model_compiles_without_the_package(model: Path) -> None:
    script = """if True:
        import sys, numpy, egc
        session = egc.compile(sys.argv[1])
        print(session.run(None, {"x": numpy.ones(3, numpy.float32)})[0].tolist())
        print("onnx.helper" in sys.modules)
        import onnx
        print("onnx.helper" in sys.modules)
    """
    assert run_alone(script, str(model)).split("\n")[:3] == ["[0.5, -2.0, 3.0]", "False", "True"]


def test_the_package_is_whole_afterwards() -> None:
    script = """if True:
        from egc.frontend import messages
        import onnx.helper
        import onnx.onnx_ml_pb2
        print(messages.ModelProto is onnx.ModelProto is onnx.onnx_ml_pb2.ModelProto)
        print(messages.schemas is onnx.onnx_cpp2py_export.defs)
        print(onnx.helper.make_node("Relu", ["x"], ["y"]).op_type)
        print(onnx.defs.get_schema("Softmax").attributes["axis"].default_value.i)
    """
    assert run_alone(script).split() == ["True", "True", "Relu", "-1"]


def test_a_package_that_has_run_stays_as_it_is() -> None:
    script = """if True:
        import onnx
        before = onnx.helper
        from egc.frontend import messages
        print(onnx.helper is before, messages.ModelProto is onnx.ModelProto, type(onnx).__name__)
    """
    assert run_alone(script).split() == ["True", "True", "module"]

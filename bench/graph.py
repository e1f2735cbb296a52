"""A few words for writing ONNX graphs by hand, one line an operator."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class GraphBuilder:
    """Collects nodes and weights; an operator gives back the name of its (first) output."""

    def __init__(self, name: str, opset: int) -> None:
        self.name, self.opset = name, opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: int, shape: tuple[int | str, ...]) -> str:
        """Declare an input of the graph."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, shape: tuple[int | str, ...]) -> None:
        """Make the float value an output of the graph, under its own name."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def weight(self, array: np.ndarray, name: str) -> str:
        """A constant under the name given; float64 becomes float32."""
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.initializers[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        """A small constant, made once however often it is asked for."""
        name = f"constant_{np.dtype(dtype).name}_{value}".replace(" ", "")
        return name if name in self.initializers else self.weight(np.array(value, dtype), name)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; gives back its output's name, or the list of them where there are several."""
        stem = f"{kind}_{len(self.nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=stem, **attributes))
        return names[0] if outputs == 1 else names

    def model(self) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, list(self.initializers.values())
        )
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, producer_name="egc-bench", ir_version=9)

"""Random weights for convolutional networks, such that activations stay of order one from end to end.

The light models of the `onnx` package hold the architecture only. Constant or plainly random weights would
make activations vanish, explode or saturate the softmax, and then a wrong kernel could go unnoticed. So they
are drawn as He et al. (2015) have it, the network is run once on a random input, and on the way every
contraction is scaled to unit variance (Mishkin & Matas 2016, "All you need is a good init") and every batch
normalisation gets the statistics of the values it sees.

Normalised to unit scale and no shift, a deep random network would be chaotic (Yang et al. 2019, "A mean field
theory of batch normalization"): ResNet-50 then amplifies float32's rounding to 1e-5 of its output, whoever
computes it. Scales below one and shifts of order one, as trained networks have them, bring that to 1e-6.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

# Which inputs of an operator are weights, and what kind: the index in `node.input` → the role.
ROLES = {
    "Conv": {1: "kernel", 2: "bias"},
    "Gemm": {1: "matrix", 2: "bias"},
    "BatchNormalization": {1: "scale", 2: "shift", 3: "mean", 4: "variance"},
    "Mul": {1: "scale"},
    "Add": {1: "shift"},
}


def draw(role: str, node: onnx.NodeProto, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A random float32 weight of this role in this node."""
    if role in ("kernel", "matrix"):
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        fan_in = int(np.prod(shape[1:])) if role == "kernel" or transposed else shape[0]
        array = rng.normal(0.0, (2.0 / fan_in) ** 0.5, shape)
    elif role == "bias":
        array = rng.normal(0.0, 0.1, shape)
    elif role in ("scale", "variance"):
        array = rng.uniform(0.5, 1.0, shape)
    else:
        array = rng.normal(0.0, 1.0, shape)
    return array.astype(np.float32)


def round_statistic(values: np.ndarray) -> np.ndarray:
    """Three digits of each value: enough for a statistic, and no trace of how some machine rounds sums."""
    exponent = np.floor(np.log2(np.maximum(np.abs(values), 1e-6)))
    unit = np.exp2(exponent - 9)
    return (np.round(values / unit) * unit).astype(np.float32)


class Initialiser:
    """Walks a model's nodes in order, giving weights their values and evaluating each node as it goes."""

    def __init__(self, model: onnx.ModelProto, seed: int) -> None:
        self.model, self.rng = model, np.random.default_rng(seed)
        self.values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self.origins: dict[str, str] = {}  # a view of an initialiser → the initialiser
        self.weights: dict[str, np.ndarray] = {}
        self.remaining: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input:
                self.remaining[name] = self.remaining.get(name, 0) + 1

    def run(self) -> dict[str, np.ndarray]:
        """Every weight by name. Raises `FloatingPointError` where an activation is not finite."""
        for value in self.model.graph.input:
            if value.name not in self.values:
                shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                self.values[value.name] = self.rng.normal(size=shape).astype(np.float32)
        for node in self.model.graph.node:
            self.draw_weights(node)
            self.calibrate(node)
            for name in node.input:
                self.remaining[name] -= 1
                if not self.remaining[name]:
                    del self.values[name]
        return self.weights

    def set(self, name: str, array: np.ndarray) -> None:
        """Give a weight its value; the initialiser that it is a view of, if any, gets it in its own shape."""
        self.values[name] = array
        origin = self.origins.get(name, name)
        self.weights[origin] = array.reshape(self.shapes[origin])

    def draw_weights(self, node: onnx.NodeProto) -> None:
        """Draw the weights that the node reads, straight or through a Reshape or Unsqueeze."""
        if node.op_type in ("Reshape", "Unsqueeze") and node.input[0] in self.shapes:
            self.origins[node.output[0]] = node.input[0]
        for index, role in ROLES.get(node.op_type, {}).items():
            name = node.input[index] if index < len(node.input) else ""
            if name in self.shapes or name in self.origins:
                self.set(name, draw(role, node, self.values[name].shape, self.rng))

    def calibrate(self, node: onnx.NodeProto) -> None:
        """Evaluate the node, after fitting its weights to what it is fed."""
        if node.op_type == "BatchNormalization":
            x = self.values[node.input[0]]
            axes = (0, *range(2, x.ndim))
            self.set(node.input[3], round_statistic(x.mean(axes)))
            variance = x.var(axes)
            # A channel that happens to be silent now must not be amplified without bound on the next input.
            self.set(node.input[4], round_statistic(np.maximum(variance, 0.2 * variance.mean())))
        result = self.evaluate(node)
        if node.op_type in ("Conv", "Gemm"):
            # A power of two: the scale then does not depend on how this machine rounds.
            factor = np.float32(np.exp2(-np.round(np.log2(max(float(result.std()), 1e-6)))))
            if factor != 1.0:
                self.set(node.input[1], self.values[node.input[1]] * factor)
                result = self.evaluate(node)
        if result.dtype == np.float32 and not np.isfinite(result).all():
            raise FloatingPointError(f"{node.op_type} → {node.output[0]}: not finite")
        self.values[node.output[0]] = result

    def evaluate(self, node: onnx.NodeProto) -> np.ndarray:
        """The node's first output on the present values, by ONNX Runtime."""
        feeds = {name: self.values[name] for name in node.input if name}
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ]
        output = helper.make_empty_tensor_value_info(node.output[0])
        graph = helper.make_graph([node], "node", inputs, [output])
        model = helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run([node.output[0]], feeds)[0]


def initialise(model: onnx.ModelProto, seed: int) -> None:
    """Replace in place every float weight of the model's convolutions, products and normalisations.

    Raises `ValueError` where an initialiser is all zeros still, which would switch a part of the network off.
    """
    weights = Initialiser(model, seed).run()
    for tensor in model.graph.initializer:
        untouched = tensor.name not in weights and tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims
        if untouched and not numpy_helper.to_array(tensor).any():
            raise ValueError(f"{model.graph.name}: {tensor.name} was given no weights")
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))

"""The convolutional benchmark models: the `onnx` package's light CNNs with weights, and MobileNetV2."""

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from onnx import TensorProto, numpy_helper

from bench.graph import GraphBuilder
from bench.weights import initialise

LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def light(name: str, seed: int) -> onnx.ModelProto:
    """One of the light CNNs, with He-initialised weights as ordinary initialisers.

    In the package, a weight is `ConstantOfShape(shape)`; here it is an initialiser of that shape, which is
    how the model was before it was made light.
    """
    folder = Path(onnx.backend.test.__file__).parent / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    makers = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in makers:
        shape = numpy_helper.to_array(initializers.pop(node.input[0]))
        initializers[node.output[0]] = numpy_helper.from_array(np.zeros(shape, np.float32), node.output[0])
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in initializers.items() if name in used)
    # From IR version 4 an initialiser need not be an input, and then no caller can override it.
    model.ir_version = max(model.ir_version, 4)
    inputs = [value for value in graph.input if value.name in used and value.name not in initializers]
    del graph.input[:]
    graph.input.extend(inputs)
    initialise(model, seed)
    return model


def mobilenet_v2(seed: int) -> onnx.ModelProto:
    """MobileNetV2 at width 1.0 (Sandler et al. 2018, table 2), as PyTorch exports it in evaluation mode.

    Batch norms are folded into the convolutions, ReLU6 is a Clip between two scalars; float32[1, 3, 224, 224]
    → float32[1, 1000].
    """
    builder = GraphBuilder("mobilenet_v2", opset=18)
    low, high = builder.constant(0.0), builder.constant(6.0)
    count = 0

    def conv(x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        nonlocal count
        weight = builder.weight(
            np.zeros((outputs, inputs // groups, kernel, kernel)), f"features.{count}.weight"
        )
        bias = builder.weight(np.zeros(outputs), f"features.{count}.bias")
        count += 1
        return builder.op(
            "Conv", x, weight, bias, dilations=[1, 1], group=groups, kernel_shape=[kernel] * 2,
            pads=[kernel // 2] * 4, strides=[stride] * 2,
        )  # fmt: skip

    def relu6(x: str) -> str:
        return builder.op("Clip", x, low, high)

    x = builder.input("input", TensorProto.FLOAT, (1, 3, 224, 224))
    x = relu6(conv(x, 3, 32, 3, 2))
    channels = 32
    stages = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expand, width, repeats, first_stride in stages:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            hidden = channels * expand
            y = relu6(conv(x, channels, hidden, 1)) if expand != 1 else x
            y = conv(relu6(conv(y, hidden, hidden, 3, stride, hidden)), hidden, width, 1)
            x = builder.op("Add", x, y) if stride == 1 and channels == width else y
            channels = width
    x = relu6(conv(x, channels, 1280, 1))
    x = builder.op("Flatten", builder.op("GlobalAveragePool", x), axis=1)
    weight = builder.weight(np.zeros((1000, 1280)), "classifier.weight")
    bias = builder.weight(np.zeros(1000), "classifier.bias")
    builder.output(builder.op("Gemm", x, weight, bias, alpha=1.0, beta=1.0, transB=1), "output", (1, 1000))
    model = builder.model()
    initialise(model, seed)
    return model

"""The transformer benchmark models, spelled as exporters do: a BERT-base encoder, a small GPT decoder."""

import numpy as np
import onnx
from onnx import TensorProto

from bench.graph import GraphBuilder


class Layers:
    """The pieces that both models are made of; weights are seeded, each product keeps unit variance."""

    def __init__(self, builder: GraphBuilder, seed: int) -> None:
        self.builder, self.rng = builder, np.random.default_rng(seed)

    def normal(self, name: str, *shape: int, mean: float = 0.0, deviation: float = 0.1) -> str:
        """A normally distributed float32 weight."""
        return self.builder.weight(mean + deviation * self.rng.standard_normal(shape), name)

    def matrix(self, name: str, inputs: int, outputs: int) -> str:
        """A weight [inputs, outputs] that maps unit variance to unit variance."""
        return self.normal(name, inputs, outputs, deviation=inputs**-0.5)

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """`x @ W + b` on the last axis, as a MatMul with the transposed weight and an Add."""
        product = self.builder.op("MatMul", x, self.matrix(f"{name}.weight", inputs, outputs))
        return self.builder.op("Add", self.normal(f"{name}.bias", outputs), product)

    def shape(self, *extents: int) -> str:
        """A shape operand."""
        return self.builder.constant(list(extents), np.int64)


def bert_base(seed: int) -> onnx.ModelProto:
    """BERT-base (Devlin et al. 2019): 12 layers, width 768, 12 heads, sequence 128, vocabulary 30522.

    int64[1, 128] ids, mask and token types → the last hidden state, float32[1, 128, 768], and the pooled
    output, float32[1, 768].
    """
    return bert("bert_base", seed)


def bert(name: str, seed: int, depth: int = 12, width: int = 768, vocabulary: int = 30522) -> onnx.ModelProto:
    """BERT with ``depth`` layers of ``width``, 12 heads, sequence 128."""
    length, heads = 128, 12
    builder = GraphBuilder(name, opset=18)
    layers = Layers(builder, seed)
    op = builder.op
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    ids, mask, types = (builder.input(name, TensorProto.INT64, (1, length)) for name in inputs)

    def layer_norm(x: str, name: str) -> str:
        scale = layers.normal(f"{name}.weight", width, mean=1.0)
        return op(
            "LayerNormalization", x, scale, layers.normal(f"{name}.bias", width), axis=-1, epsilon=1e-12
        )

    def embedding(indices: str, name: str, rows: int) -> str:
        return op("Gather", layers.normal(f"embeddings.{name}.weight", rows, width, deviation=0.5), indices)

    positions = builder.weight(np.arange(length, dtype=np.int64)[None], "embeddings.position_ids")
    x = op("Add", embedding(ids, "word", vocabulary), embedding(types, "token_type", 2))
    x = layer_norm(op("Add", x, embedding(positions, "position", 512)), "embeddings.LayerNorm")
    # 0 where a token may be attended to, the lowest float where not.
    mask = op("Unsqueeze", mask, builder.constant([1, 2], np.int64))
    mask = op("Sub", builder.constant(1.0), op("Cast", mask, to=TensorProto.FLOAT))
    mask = op("Mul", mask, builder.constant(float(np.finfo(np.float32).min)))
    for index in range(depth):
        name = f"encoder.layer.{index}"
        split = layers.shape(1, length, heads, width // heads)
        query, key, value = (
            op("Reshape", layers.linear(x, f"{name}.attention.{part}", width, width), split)
            for part in ("query", "key", "value")
        )
        scores = op(
            "MatMul", op("Transpose", query, perm=[0, 2, 1, 3]), op("Transpose", key, perm=[0, 2, 3, 1])
        )
        scores = op("Add", op("Div", scores, builder.constant((width // heads) ** 0.5)), mask)
        context = op("MatMul", op("Softmax", scores, axis=-1), op("Transpose", value, perm=[0, 2, 1, 3]))
        context = op("Reshape", op("Transpose", context, perm=[0, 2, 1, 3]), layers.shape(1, length, width))
        attended = layers.linear(context, f"{name}.attention.output", width, width)
        x = layer_norm(op("Add", attended, x), f"{name}.attention.LayerNorm")
        hidden = layers.linear(x, f"{name}.intermediate", width, 4 * width)
        # GELU by the error function, as transformers' exports spell it before opset 20.
        error = op("Add", op("Erf", op("Div", hidden, builder.constant(2.0**0.5))), builder.constant(1.0))
        hidden = op("Mul", op("Mul", hidden, error), builder.constant(0.5))
        x = layer_norm(
            op("Add", layers.linear(hidden, f"{name}.output", 4 * width, width), x), f"{name}.LayerNorm"
        )
    builder.output(x, "last_hidden_state", (1, length, width))
    first = op("Gather", x, builder.constant(0, np.int64), axis=1)
    pooler = layers.matrix("pooler.weight", width, width), layers.normal("pooler.bias", width)
    builder.output(op("Tanh", op("Gemm", first, *pooler, transB=1)), "pooler_output", (1, width))
    return builder.model()


def gpt_small(seed: int) -> onnx.ModelProto:
    """A small character-level GPT: 6 layers, width 384, 6 heads, context 128, 256 characters, tied embedding.

    int64[1, 128] ids → logits, float32[1, 128, 256]. Spelled the other way from `bert_base` throughout:
    LayerNorm from primitives, GELU by tanh, one product for query, key and value, Gemm between two Reshapes,
    a causal mask by Where.
    """
    length, width, heads, vocabulary = 128, 384, 6, 256
    builder = GraphBuilder("gpt_small", opset=18)
    layers = Layers(builder, seed)
    op, constant = builder.op, builder.constant
    last = constant([-1], np.int64)

    def layer_norm(x: str, name: str) -> str:
        centred = op("Sub", x, op("ReduceMean", x, last, keepdims=1))
        variance = op("ReduceMean", op("Pow", centred, constant(2.0)), last, keepdims=1)
        normal = op("Div", centred, op("Sqrt", op("Add", variance, constant(1e-5))))
        scaled = op("Mul", normal, layers.normal(f"{name}.weight", width, mean=1.0))
        return op("Add", scaled, layers.normal(f"{name}.bias", width))

    def conv1d(x: str, name: str, inputs: int, outputs: int) -> str:
        weight, bias = (
            layers.matrix(f"{name}.weight", inputs, outputs),
            layers.normal(f"{name}.bias", outputs),
        )
        flat = op("Gemm", op("Reshape", x, layers.shape(-1, inputs)), weight, bias, alpha=1.0, beta=1.0)
        return op("Reshape", flat, layers.shape(1, length, outputs))

    def gelu(x: str) -> str:
        cubic = op("Mul", op("Pow", x, constant(3.0)), constant(0.044715))
        inner = op("Mul", op("Add", x, cubic), constant((2.0 / np.pi) ** 0.5))
        return op("Mul", op("Mul", x, constant(0.5)), op("Add", op("Tanh", inner), constant(1.0)))

    ids = builder.input("input_ids", TensorProto.INT64, (1, length))
    table = layers.normal("transformer.wte.weight", vocabulary, width, deviation=width**-0.5)
    positions = builder.weight(np.arange(length, dtype=np.int64)[None], "positions")
    position_table = layers.normal("transformer.wpe.weight", length, width, deviation=width**-0.5)
    x = op("Add", op("Gather", table, ids), op("Gather", position_table, positions))
    causal = builder.weight(np.tril(np.ones((1, 1, length, length), bool)), "causal")
    lowest = constant(float(np.finfo(np.float32).min))
    split = layers.shape(1, length, heads, width // heads)
    for index in range(6):
        name = f"transformer.h.{index}"
        joint = conv1d(layer_norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn", width, 3 * width)
        thirds = op("Split", joint, constant([width] * 3, np.int64), outputs=3, axis=2)
        query, key, value = (
            op("Transpose", op("Reshape", part, split), perm=[0, 2, 1, 3]) for part in thirds
        )
        scores = op("MatMul", query, op("Transpose", key, perm=[0, 1, 3, 2]))
        scores = op("Mul", scores, constant((width // heads) ** -0.5))
        weights = op("Softmax", op("Where", causal, scores, lowest), axis=-1)
        context = op("Transpose", op("MatMul", weights, value), perm=[0, 2, 1, 3])
        context = op("Reshape", context, layers.shape(1, length, width))
        x = op("Add", x, conv1d(context, f"{name}.attn.c_proj", width, width))
        hidden = gelu(conv1d(layer_norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc", width, 4 * width))
        x = op("Add", x, conv1d(hidden, f"{name}.mlp.c_proj", 4 * width, width))
    x = layer_norm(x, "transformer.ln_f")
    logits = op("MatMul", x, op("Transpose", table, perm=[1, 0]))
    builder.output(logits, "logits", (1, length, vocabulary))
    return builder.model()

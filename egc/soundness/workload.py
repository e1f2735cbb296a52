"""A graph that holds what models are made of, at any length: what the cost of a rule is measured on."""

from __future__ import annotations

import math

import numpy as np

from egc.ir.graph import Graph, GraphBuilder
from egc.ir.types import TensorType

WIDTH = 32
TOKENS = 16
HEADS = 2


def workload(blocks: int) -> Graph:
    """``blocks`` residual convolutions, then as many transformer layers, as exporters spell them."""
    b = _Builder()
    h = b.graph.input("x", TensorType("float32", (1, WIDTH, 4, 4)))
    for _ in range(blocks):
        h = b.residual(h)
    h = b.add("reshape", h, shape=(1, WIDTH, TOKENS))
    h = b.add("transpose", h, perm=(0, 2, 1))
    for _ in range(blocks):
        h = b.map("add", h, b.attention(b.norm(h)))
        h = b.map("add", h, b.feed_forward(b.norm(h)))
    return b.graph.finish([b.softmax(h, 2)])


class _Builder:
    """Parts of models, with random weights."""

    def __init__(self) -> None:
        self.graph = GraphBuilder("workload")
        self.rng = np.random.default_rng(0)

    def add(self, op: str, *operands: str, **attrs: object) -> str:
        return self.graph.add(op, operands, **attrs)  # type: ignore[arg-type]

    def map(self, fn: str, *operands: str) -> str:
        return self.add("map", *operands, fn=fn)

    def weight(self, *shape: int) -> str:
        return self.graph.constant(self.rng.standard_normal(shape).astype(np.float32))

    def scalar(self, value: float) -> str:
        return self.graph.constant(np.asarray(value, np.float32))

    def residual(self, x: str) -> str:
        """Convolution, batch normalisation, residual, relu, pooling."""
        window = {"strides": (1, 1), "dilations": (1, 1), "low": (1, 1), "high": (1, 1)}
        y = self.add("conv", x, self.weight(WIDTH, WIDTH, 3, 3), groups=1, **window)
        y = self.map("mul", y, self.weight(1, WIDTH, 1, 1))
        y = self.map("add", y, self.weight(1, WIDTH, 1, 1))
        y = self.map("max", self.map("add", y, x), self.scalar(0.0))
        full = {key: (*(int(key in ("strides", "dilations")),) * 2, *value) for key, value in window.items()}
        return self.add("pool", y, fn="max", window=(1, 1, 3, 3), **full)

    def mean(self, x: str) -> str:
        return self.map("div", self.add("reduce", x, fn="add", axes=(2,)), self.scalar(WIDTH))

    def norm(self, x: str) -> str:
        """Layer normalisation."""
        centred = self.map("sub", x, self.mean(x))
        variance = self.mean(self.map("mul", centred, centred))
        deviation = self.map("sqrt", self.map("add", variance, self.scalar(1e-5)))
        scaled = self.map("mul", self.map("div", centred, deviation), self.weight(1, 1, WIDTH))
        return self.map("add", scaled, self.weight(1, 1, WIDTH))

    def softmax(self, x: str, axis: int) -> str:
        e = self.map("exp", self.map("sub", x, self.add("reduce", x, fn="max", axes=(axis,))))
        return self.map("div", e, self.add("reduce", e, fn="add", axes=(axis,)))

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        return self.map(
            "add", self.add("matmul", x, self.weight(inputs, outputs)), self.weight(1, 1, outputs)
        )

    def attention(self, x: str) -> str:
        """Self-attention of several heads."""
        head = WIDTH // HEADS
        q, k, v = (
            self.add("transpose", self.add("reshape", y, shape=(1, TOKENS, HEADS, head)), perm=(0, 2, 1, 3))
            for y in (self.dense(x, WIDTH, WIDTH) for _ in range(3))
        )
        scores = self.add("matmul", q, self.add("transpose", k, perm=(0, 1, 3, 2)))
        scaled = self.map("mul", scores, self.scalar(1 / math.sqrt(head)))
        mixed = self.add("matmul", self.softmax(scaled, 3), v)
        joined = self.add(
            "reshape", self.add("transpose", mixed, perm=(0, 2, 1, 3)), shape=(1, TOKENS, WIDTH)
        )
        return self.dense(joined, WIDTH, WIDTH)

    def feed_forward(self, x: str) -> str:
        """Two products round a GELU."""
        y = self.dense(x, WIDTH, 2 * WIDTH)
        half = self.map("mul", y, self.scalar(math.sqrt(0.5)))
        gate = self.map("add", self.map("erf", half), self.scalar(1.0))
        return self.dense(self.map("mul", self.map("mul", y, gate), self.scalar(0.5)), 2 * WIDTH, WIDTH)

"""Writes a model with low-rank adapters, as fine-tuning leaves it: merge-adapters.egg is for such models.

    python examples/rules/adapters.py MODEL.onnx ADAPTED.onnx [--rank 16]

Every product with a constant matrix gets an adapter: x @ w becomes x @ w + ((x @ a) @ b) · scale.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

SCALE = 0.5


def with_adapters(model: onnx.ModelProto, rank: int, seed: int = 0) -> onnx.ModelProto:
    """``model`` with a random adapter of that rank at each product with a constant matrix [k, n]."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    rng = np.random.default_rng(seed)
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    graph.initializer.append(numpy_helper.from_array(np.float32(SCALE), "adapter.scale"))
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type != "MatMul" or len(weights.get(node.input[1], ())) != 2:
            nodes.append(node)
            continue
        k, n = weights[node.input[1]]
        prefix = f"{node.output[0]}.adapter"
        for name, shape in (("a", (k, rank)), ("b", (rank, n))):
            values = rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(shape[0]) * 4)
            graph.initializer.append(numpy_helper.from_array(values, f"{prefix}.{name}"))
        result = node.output[0]
        node.output[0] = f"{prefix}.base"
        nodes += [
            node,
            helper.make_node("MatMul", [node.input[0], f"{prefix}.a"], [f"{prefix}.low"]),
            helper.make_node("MatMul", [f"{prefix}.low", f"{prefix}.b"], [f"{prefix}.full"]),
            helper.make_node("Mul", [f"{prefix}.full", "adapter.scale"], [f"{prefix}.scaled"]),
            helper.make_node("Add", [f"{prefix}.base", f"{prefix}.scaled"], [result]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    return out


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="add low-rank adapters to a model")
    parser.add_argument("model", type=Path)
    parser.add_argument("adapted", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    onnx.save(with_adapters(onnx.load(args.model), args.rank), args.adapted)


if __name__ == "__main__":
    main()

"""Padding as a tensor of its own, so that the inner loops of convolutions need no guards."""

from __future__ import annotations

import numpy as np

from egc.ir.dims import Shape
from egc.ir.graph import Constant, Graph, Node
from egc.ir.types import TensorType, numpy_dtype
from egc.kernels.attributes import ints_of


def split_padding(graph: Graph) -> Graph:
    """The graph with padded channels-last convolutions as ``pad`` and an unpadded convolution.

    A depthwise convolution keeps its guards: it reads each element so few times that a padded copy costs
    more.
    """
    nodes: list[Node] = []
    types = dict(graph.types)
    constants = dict(graph.constants)
    padded: dict[tuple[str, tuple[int, ...]], str] = {}
    for node in graph.nodes:
        if not _wants_split(node, graph):
            nodes.append(node)
            continue
        x, weights = node.inputs
        low, high = ((0, *ints_of(node, key), 0) for key in ("low", "high"))
        key = (x, (*low, *high))
        if key not in padded:
            zero = _zero(constants, types, types[x].dtype)
            padded[key] = _fresh(types, f"{x}_padded")
            shape = tuple(e + a + b for e, a, b in zip(types[x].shape, low, high, strict=True))
            types[padded[key]] = TensorType(types[x].dtype, shape)
            edges = (("low", low), ("high", high), ("interior", (0,) * len(low)))
            nodes.append(Node("pad", (x, zero), (padded[key],), edges, node.sources))
        none = (0,) * (len(low) - 2)
        attrs = tuple((k, none if k in ("low", "high") else v) for k, v in node.attrs)
        nodes.append(Node(node.op, (padded[key], weights), node.outputs, attrs, node.sources))
    return Graph(graph.name, graph.inputs, graph.outputs, tuple(nodes), types, constants)


def _wants_split(node: Node, graph: Graph) -> bool:
    if node.op != "conv_channels_last":
        return False
    weights: Shape = graph.types[node.inputs[1]].shape
    depthwise = weights[-2] == 1 and node.attr("groups") != 1
    return not depthwise and any((*ints_of(node, "low"), *ints_of(node, "high")))


def _zero(constants: dict[str, Constant], types: dict[str, TensorType], dtype: str) -> str:
    zero = Constant(np.zeros((), numpy_dtype(dtype)))
    for name, constant in constants.items():
        if constant.type == zero.type and constant == zero:
            return name
    name = _fresh(types, "zero")
    constants[name], types[name] = zero, zero.type
    return name


def _fresh(types: dict[str, TensorType], name: str) -> str:
    number = 0
    while (fresh := name if number == 0 else f"{name}_{number}") in types:
        number += 1
    return fresh

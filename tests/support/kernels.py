"""Running kernels by their numpy meaning, against the numpy meaning of the graph that they come from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from egc.ir.dims import evaluate as evaluate_dim
from egc.ir.evaluate import bind, evaluate
from egc.ir.evaluate_kernel import evaluate_kernel
from egc.ir.graph import Graph, GraphBuilder, Node
from egc.ir.types import numpy_dtype
from egc.kernels.canonical import Lowered
from egc.kernels.group import Group
from egc.kernels.lower import lower


def group_of(graph: Graph, *nodes: Node, outputs: tuple[str, ...] = ()) -> Group:
    """A group of these nodes (all nodes of the graph if none is given), with the graph's outputs."""
    nodes = nodes or graph.nodes
    made = {out for node in nodes for out in node.outputs}
    inputs = dict.fromkeys(name for node in nodes for name in node.inputs if name not in made)
    return Group(nodes, tuple(inputs), outputs or graph.outputs)


def random_array(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values that are exact in narrow types: floats in [-2, 2], small integers, both booleans."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if "int" in dtype:
        return rng.integers(0 if dtype.startswith("u") else -4, 5, shape).astype(dtype)
    return rng.uniform(-2, 2, shape).astype(numpy_dtype(dtype))


def feeds_of(graph: Graph, rng: np.random.Generator, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """A random array for every input."""
    return {
        name: random_array(rng, graph.types[name].dtype, shape_of(graph, name, dims)) for name in graph.inputs
    }


def shape_of(graph: Graph, name: str, dims: Mapping[str, int]) -> tuple[int, ...]:
    """The extents of a value for given values of the dims."""
    return tuple(evaluate_dim(d, dims) for d in graph.types[name].shape)


def run_lowered(
    lowered: Lowered, graph: Graph, values: dict[str, np.ndarray], dims: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """The outputs of a kernel by the names of the graph's values, in the graph's shapes."""
    pairs = list(zip(lowered.kernel.params, lowered.args, strict=True))
    inputs = {buffer.name: values[arg] for buffer, arg in pairs if buffer.role == "in"}
    results = evaluate_kernel(lowered.kernel, inputs, dims)
    return {
        arg: results[buffer.name].reshape(shape_of(graph, arg, dims))
        for buffer, arg in pairs
        if buffer.role == "out"
    }


def check_group(
    graph: Graph,
    group: Group | None = None,
    dims: Mapping[str, int] | None = None,
    feeds: dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Lowered:
    """Lower a whole graph as one group and compare the kernel with the graph on random feeds."""
    group = group or group_of(graph)
    lowered = lower(graph, group, "k")
    feeds = feeds or feeds_of(graph, np.random.default_rng(seed), dims or {})
    env: dict[str, int] = dict(dims or {})
    for name in graph.inputs:
        bind(name, graph.types[name], feeds[name], env)
    values = {**feeds, **{name: c.data for name, c in graph.constants.items()}}
    found = run_lowered(lowered, graph, values, env)
    expected = evaluate(graph, feeds)
    assert set(found) == set(graph.outputs)
    for name, value in expected.items():
        compare(found[name], value)
    return lowered


def compare(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal for integers; for floats within the rounding of their dtype."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if found.dtype.kind in "iub":
        np.testing.assert_array_equal(found, expected)
        return
    tolerance = {2: 2e-2, 4: 2e-5, 8: 1e-12}[found.dtype.itemsize]
    np.testing.assert_allclose(
        found.astype(np.float64), expected.astype(np.float64), rtol=tolerance, atol=tolerance
    )


__all__ = ["GraphBuilder", "check_group", "compare", "feeds_of", "group_of", "random_array", "run_lowered"]

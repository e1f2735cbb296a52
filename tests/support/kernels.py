"""Running kernels by their numpy meaning, against the numpy meaning of the graph that they come from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from egc.ir.dims import evaluate as evaluate_dim
from egc.ir.evaluate import bind, evaluate, evaluate_node
from egc.ir.evaluate_kernel import evaluate_kernel
from egc.ir.graph import Graph, Node
from egc.ir.types import numpy_dtype
from egc.kernels import Group, HostCall, KernelCall, Lowered, build_kernels, lower, structurally_legal


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
    # What is in an out buffer already stays where the kernel does not write.
    inputs = {buffer.name: values[arg] for buffer, arg in pairs if arg in values}
    results = evaluate_kernel(lowered.kernel, inputs, dims)
    return {
        arg: results[buffer.name].reshape(shape_of(graph, arg, dims))
        for buffer, arg in pairs
        if buffer.role == "out"
    }


def run_calls(
    graph: Graph,
    calls: tuple[KernelCall | HostCall, ...],
    feeds: Mapping[str, np.ndarray],
    dims: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """The graph's outputs by running the calls in order: kernels by their numpy meaning, host nodes as nodes.

    Buffers begin with ones of every bit, so that an element which no kernel writes shows.
    """
    values = {**feeds, **{name: c.data for name, c in graph.constants.items()}}
    for call in calls:
        if isinstance(call, HostCall):
            attrs = {key: tuple(evaluate_dim(d, dims) for d in v) if isinstance(v, tuple) else v
                     for key, v in call.node.attrs}  # fmt: skip
            found = evaluate_node(call.node.op, [values[name] for name in call.node.inputs], attrs)
            values.update(zip(call.node.outputs, found, strict=True))
            continue
        for param, name in zip(call.kernel.params, call.args, strict=True):
            if name not in values:
                assert param.role == "out", f"%{name} is read before it is written"
                values[name] = garbage(param.type.dtype, shape_of(graph, name, dims))
        values.update(run_lowered(Lowered(call.kernel, call.args), graph, values, dims))
    return {name: values[name] for name in graph.outputs}


def garbage(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array with every bit set (NaN for floats); True for booleans."""
    out = np.zeros(shape, numpy_dtype(dtype))
    out.reshape(-1).view(np.uint8)[...] = 1 if dtype == "bool" else 0xFF
    return out


def check_calls(
    graph: Graph,
    dims: Mapping[str, int] | None = None,
    feeds: dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[KernelCall | HostCall, ...]:
    """Partition and lower a graph with every structurally legal fusion, and compare it with its meaning."""
    calls = build_kernels(graph, structurally_legal(graph))
    feeds = feeds or feeds_of(graph, np.random.default_rng(seed), dims or {})
    env: dict[str, int] = dict(dims or {})
    for name in graph.inputs:
        bind(name, graph.types[name], feeds[name], env)
    found = run_calls(graph, calls, feeds, env)
    for name, value in evaluate(graph, feeds).items():
        compare(found[name], value)
    return calls


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

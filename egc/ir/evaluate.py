"""What a Graph means, in numpy: the definition that every other execution of egc is compared with.

Integers wrap. float16, bfloat16 and the smaller floats are computed in float32 and rounded once per
operation; sums and products over many elements (reduce, cumulate, pool, matmul, conv) of any float accumulate
in float64 and are rounded once, and so do the recognised operators (softmax, layer_norm, rms_norm,
attention).

With ``dtype="float64"`` every float16, bfloat16 and float32 value is a float64 throughout: the reference
against which rounding errors are measured. The float8 and float4 types stay what they are there, since they
are used to quantise and not to compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egc.ir.dims import Dim, DimError, SymDim, substitute, symbols_of
from egc.ir.dims import evaluate as evaluate_dim
from egc.ir.graph import Graph, Node
from egc.ir.numpy_ops import MEANINGS, cast_to
from egc.ir.types import FLOATS, TensorType, dtype_of, numpy_dtype

Env = dict[str, int]


class EvaluateError(ValueError):
    """A graph that has no value for these feeds: the text says what does not fit."""


def evaluate(graph: Graph, feeds: Mapping[str, Any], dtype: str | None = None) -> dict[str, Any]:
    """The outputs of ``graph`` by name.

    ``feeds`` holds an array for every input (a list or None for a value of dtype ``object``); symbols in the
    inputs' shapes are bound from them. ``dtype`` is None or ``"float64"`` (see this module's head).
    EvaluateError where a feed is missing or does not have the input's dtype and shape, or a node's result has
    another shape than its type says.
    """
    if dtype not in (None, "float64"):
        raise ValueError(f"dtype is None or 'float64', not {dtype!r}")
    env: Env = {}
    values: dict[str, Any] = {}
    missing = [name for name in graph.inputs if name not in feeds]
    if missing:
        raise EvaluateError(f"no value is given for the input {', '.join(missing)}")
    for name in graph.inputs:
        value = feeds[name]
        if graph.types[name].dtype != "object":
            value = np.asarray(value)
        bind(name, graph.types[name], value, env)
        values[name] = _widened(value, dtype)
    for name, constant in graph.constants.items():
        values[name] = _widened(constant.data, dtype)
    last_use = _last_uses(graph)
    for i, node in enumerate(graph.nodes):
        for name, value in zip(node.outputs, _run(graph, node, values, env, dtype), strict=True):
            values[name] = value
        for name in dict.fromkeys(node.inputs):
            if last_use[name] == i:
                del values[name]
    return {name: values[name] for name in graph.outputs}


def evaluate_node(op: str, args: Sequence[Any], attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The results of one operation over arrays; every dim in ``attrs`` is an integer.

    EvaluateError names the operator where numpy refuses the operands; what a host node raises comes through.
    """
    if op == "host":
        from egc.ir.host import run_host

        return tuple(run_host(attrs["node"], args))
    try:
        with np.errstate(all="ignore"):
            result = MEANINGS[op](*args, **attrs)
    except (ValueError, IndexError) as error:
        operands = ", ".join(f"{getattr(a, 'dtype', type(a))}{list(np.shape(a))}" for a in args)
        raise EvaluateError(f"{op}({operands}): {error}") from error
    return result if isinstance(result, tuple) else (result,)


def bind(name: str, type_: TensorType, value: Any, env: Env) -> None:
    """Check that the array ``value`` has ``type_`` and add to ``env`` the symbols that its shape settles."""
    if type_.dtype == "object":
        return
    if dtype_of(value) != type_.dtype:
        raise EvaluateError(f"{name} has the dtype {dtype_of(value)}, its type is {type_}")
    _bind_shape(name, type_, value.shape, env)


def _bind_shape(name: str, type_: TensorType, shape: tuple[int, ...], env: Env) -> None:
    if len(shape) != type_.rank:
        raise EvaluateError(f"{name} has the shape {list(shape)}, its type is {type_}")
    for dim, extent in zip(type_.shape, shape, strict=True):
        if isinstance(dim, SymDim):
            _solve(substitute(dim, env), extent, env)
    try:
        wanted = tuple(evaluate_dim(dim, env) for dim in type_.shape)
    except DimError as error:
        raise EvaluateError(f"{name}: {type_}: {error}") from None
    if wanted != shape:
        raise EvaluateError(f"{name} has the shape {list(shape)}, its type {type_} means {list(wanted)}")


def _solve(dim: Dim, extent: int, env: Env) -> None:
    """Bind the symbol of ``dim`` where it is ``slope * symbol + constant`` with an integer solution."""
    names = symbols_of(dim)
    if len(names) != 1:
        return
    (name,) = names
    constant, at_one = substitute(dim, {name: 0}), substitute(dim, {name: 1})
    slope = at_one - constant
    if not (isinstance(constant, int) and isinstance(slope, int)) or slope == 0:
        return
    value = (extent - constant) // slope
    if substitute(dim, {name: value}) == extent:
        env[name] = value


def _run(graph: Graph, node: Node, values: dict[str, Any], env: Env, dtype: str | None) -> tuple[Any, ...]:
    try:
        attrs = {key: _static(value, env) for key, value in node.attrs}
    except DimError as error:
        raise EvaluateError(f"{node.output} = {node.op}: {error}") from None
    if dtype and node.op == "cast" and attrs["dtype"] in FLOATS:
        attrs["dtype"] = dtype
    args = [values[name] for name in node.inputs]
    if node.op == "host" and dtype:
        # The reference implementations of ONNX check dtypes: give a host node what its operands' types say.
        args = [_narrowed(a, graph.types[name]) for a, name in zip(args, node.inputs, strict=True)]
    results = evaluate_node(node.op, args, attrs)
    if len(results) != len(node.outputs):
        raise EvaluateError(
            f"{node.output} = {node.op}: {len(results)} results for {len(node.outputs)} names"
        )
    out = []
    for name, value in zip(node.outputs, results, strict=True):
        type_ = graph.types[name]
        if type_.dtype != "object":
            value = np.asarray(value)
            expected = dtype if dtype and type_.dtype in FLOATS and node.op != "host" else type_.dtype
            if dtype_of(value) != expected:
                raise EvaluateError(f"{name} = {node.op}: the result is {dtype_of(value)}, not {expected}")
            _bind_shape(f"{name} = {node.op}", type_, value.shape, env)
        out.append(_widened(value, dtype))
    return tuple(out)


def _static(value: Any, env: Env) -> Any:
    if isinstance(value, tuple):
        return tuple(evaluate_dim(v, env) for v in value)
    return value


def _widened(value: Any, dtype: str | None) -> Any:
    if dtype and isinstance(value, np.ndarray) and value.dtype.name in FLOATS:
        return value.astype(dtype)
    return value


def _narrowed(value: Any, type_: TensorType) -> Any:
    if isinstance(value, np.ndarray) and type_.dtype in FLOATS:
        return cast_to(value, numpy_dtype(type_.dtype))
    return value


def _last_uses(graph: Graph) -> dict[str, float]:
    """The index of the last node that reads each value; infinity for the graph's outputs."""
    last: dict[str, float] = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    last.update((name, math.inf) for name in graph.outputs)
    return last

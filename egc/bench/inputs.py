"""Random inputs that a model can digest: the right dtypes and shapes, and indices within their tables.

Importable without onnx, which only `input_specs` needs: the processes whose memory is measured draw inputs
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict

from egc.errors import BadInput, UsageError

if TYPE_CHECKING:
    import onnx

# Operators that hand indices on unchanged, so that a table behind them still bounds the input.
_TRANSPARENT = frozenset(
    {"Cast", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)


class InputSpec(Struct, frozen=True):
    """How to draw one input: integers come from [low, high), floats from the standard normal distribution."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    low: int = 0
    high: int = 2

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> InputSpec:
        """The inverse of `to_json`."""
        return InputSpec(value["name"], value["dtype"], tuple(value["shape"]), value["low"], value["high"])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A fresh array."""
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return rng.integers(0, 2, self.shape).astype(np.bool_)
        if dtype.kind in "iu":
            return rng.integers(self.low, self.high, self.shape).astype(dtype)
        return rng.standard_normal(self.shape).astype(dtype)


def random_inputs(specs: tuple[InputSpec, ...], seed: int) -> dict[str, np.ndarray]:
    """Inputs by name; the same seed gives the same inputs in every process."""
    rng = np.random.default_rng(seed)
    return {spec.name: spec.draw(rng) for spec in specs}


def input_specs(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[InputSpec, ...]:
    """How to draw the inputs of an ONNX model.

    `shapes` fixes the shape of inputs by name; a dim that stays symbolic is 1. An integer input that indexes
    tables stays below the smallest of them; a mask is all ones. Raises `BadInput` where the file is no ONNX
    model or an input is no tensor of numbers, `UsageError` where `shapes` names no input or has another rank.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise BadInput("cannot read the model", where=str(path), why=str(error)) from error
    shapes = dict(shapes or {})
    stored = {tensor.name for tensor in model.graph.initializer}
    bounds = _table_bounds(model.graph)
    specs = []
    for value in model.graph.input:
        if value.name not in stored:
            specs.append(_spec(value, shapes.pop(value.name, None), bounds.get(value.name)))
    if shapes:
        names = ", ".join(spec.name for spec in specs)
        raise UsageError(
            f"no input is called {', '.join(shapes)}", where=str(path), hint=f"the inputs are {names}"
        )
    return tuple(specs)


def _spec(value: onnx.ValueInfoProto, wanted: tuple[int, ...] | None, bound: int | None) -> InputSpec:
    from onnx import helper

    tensor = value.type.tensor_type
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError as error:
        raise BadInput("only tensors can be drawn at random", where=f"input {value.name}") from error
    if dtype.kind not in "biuf":
        raise BadInput(f"no random {dtype.name} values", where=f"input {value.name}")
    dims = tensor.shape.dim
    if wanted is not None and len(wanted) != len(dims):
        why = f"{len(wanted)} extents were given for {len(dims)} dims"
        raise UsageError("a shape of another rank", where=f"input {value.name}", why=why)
    shape = wanted or tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in dims)
    low = 1 if "mask" in value.name.lower() else 0
    return InputSpec(value.name, dtype.name, shape, low, max(bound or 2, low + 1))


def _table_bounds(graph: onnx.GraphProto) -> dict[str, int]:
    """For each value that indexes constant tables by Gather: the smallest extent indexed."""
    extents = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            extents[node.output[0]] = tuple(node.attribute[0].t.dims)
    bounds: dict[str, int] = {}
    for node in reversed(graph.node):  # consumers first, so that bounds flow back to the inputs
        if node.op_type == "Gather" and node.input[0] in extents:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            _lower(bounds, node.input[1], extents[node.input[0]][axis])
        elif node.op_type in _TRANSPARENT and node.output[0] in bounds:
            _lower(bounds, node.input[0], bounds[node.output[0]])
    return bounds


def _lower(bounds: dict[str, int], name: str, bound: int) -> None:
    bounds[name] = min(bound, bounds.get(name, bound))

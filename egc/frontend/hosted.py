"""Nodes that egc has no primitives for: opened by the function body of their ONNX schema, or left to the
host."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import FunctionProto, NodeProto, TypeProto, helper

from egc.frontend.context import Context
from egc.frontend.load import free_names, subgraphs
from egc.frontend.proto import CODES, BadProto, declared_type
from egc.frontend.registry import NodeError, OnnxNode, normal_domain
from egc.ir.dims import Dim, DimError, parse_dim, symbols_of
from egc.ir.host import decode_host, encode_host, run_host
from egc.ir.types import TensorType, dtype_of, itemsize

if TYPE_CHECKING:
    from egc.frontend.emit import Scope

_RANDOM = frozenset(
    {
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
        "Dropout",
    }
)
# Where onnx.reference keeps the operators of each domain.
_REFERENCE = {
    "": "onnx.reference.ops",
    "ai.onnx.ml": "onnx.reference.ops.aionnxml",
    "ai.onnx.preview": "onnx.reference.ops.aionnx_preview",
    "ai.onnx.preview.training": "onnx.reference.ops.aionnx_preview_training",
}
_CONTROL = frozenset({"Loop", "Scan", "If", "SequenceMap"})
# A host node over constants is run at once where operands and results stay below this; its results are
# weights else.
_MAX_FOLDED = 4 << 20
# Constants up to this size are shown to shape inference.
_MAX_SHOWN = 1 << 12


def type_proto(type_: TensorType) -> TypeProto:
    """A tensor type as ONNX writes it; a symbolic dim is a parameter named by its text."""
    shape = [d if isinstance(d, int) else str(d) for d in type_.shape]
    return helper.make_tensor_type_proto(CODES[type_.dtype], shape)


def function_body(
    context: Context, proto: NodeProto, node: OnnxNode, object_types: Mapping[str, TypeProto]
) -> FunctionProto | None:
    """The body that the operator's schema gives for this node; None where it has none."""
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, node.opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    versions = [v for v in schema.function_opset_versions if v <= node.opset]
    if schema.has_function and versions:
        return FunctionProto.FromString(schema.get_function_with_opset_version(max(versions)))
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= node.opset]
    if not (schema.has_context_dependent_function and versions):
        return None
    types = [
        (TypeProto() if v is None else _operand_type(context, v, object_types)).SerializeToString()
        for v in node.inputs
    ]
    body = schema.get_context_dependent_function_with_opset_version(
        max(versions), proto.SerializeToString(), types
    )
    return FunctionProto.FromString(body) if body else None


def _operand_type(context: Context, value: str, object_types: Mapping[str, TypeProto]) -> TypeProto:
    type_ = context.type(value)
    return object_types.get(value, TypeProto()) if type_.dtype == "object" else type_proto(type_)


@cache
def _runnable(domain: str, op_type: str, version: int) -> bool:
    """Whether onnx.reference has the operator, or its schema a function body that onnx.reference opens."""
    try:
        operators = importlib.import_module(_REFERENCE[domain])
        return bool(operators.load_op(domain, op_type, version))
    except Exception:  # onnx.reference raises whatever it likes for what it does not know
        return False


def _unknown(proto: NodeProto, opsets: Mapping[str, int], known: set[tuple[str, str]]) -> list[str]:
    """The operators in a node and its subgraphs that onnx.reference cannot run."""
    domain = normal_domain(proto.domain)
    missing: list[str] = []
    if (proto.domain, proto.op_type) not in known and not _runnable(
        domain, proto.op_type, opsets.get(domain, 1)
    ):
        missing.append(f"{domain}.{proto.op_type}" if domain else proto.op_type)
    for graph in subgraphs(proto):
        for inner in graph.node:
            missing += _unknown(inner, opsets, known)
    return missing


def emit_host(
    context: Context, proto: NodeProto, node: OnnxNode, scope: Scope, functions: Sequence[FunctionProto]
) -> list[str | None]:
    """A host node for ``proto``; NodeError where onnx.reference cannot run it or its result type is
    unknown."""
    missing = _unknown(proto, scope.opsets, {(f.domain, f.name) for f in functions})
    if missing:
        unknown = ", ".join(dict.fromkeys(missing))
        raise NodeError(
            f"neither egc nor onnx.reference knows the operator {unknown}",
            "export the model with standard ONNX operators, or with the function's body",
        )
    captured = sorted(set().union(*(free_names(g) for g in subgraphs(proto))))
    names = list(dict.fromkeys([*(n for n in proto.input if n), *captured]))
    operands = [scope.find(name) for name in names]
    bound = {name: value for name, value in zip(names, operands, strict=True) if value is not None}
    outputs = [name for name in proto.output if name]
    used = functions if any(_calls(proto, f) for f in functions) else ()
    text = encode_host(proto, list(bound), outputs, dict(scope.opsets), used)
    values = list(bound.values())
    types = _result_types(context, text, bound, scope)
    if (folded := _folded(context, node, text, values, types)) is not None:
        results = tuple(context.constant(array) for array in folded)
    else:
        found = [_complete(context, name, types.get(name), scope) for name in outputs]
        text_types = ";".join(map(str, found))
        results = context.builder.add_multi("host", values, context.sources, node=text, types=text_types)
        for value, name in zip(results, outputs, strict=True):
            if context.dtype(value) == "object":
                scope.object_types[value] = types[name]
    by_name = dict(zip(outputs, results, strict=True))
    return [by_name.get(name) for name in proto.output]


def _calls(proto: NodeProto, function: FunctionProto) -> bool:
    if (proto.domain, proto.op_type) == (function.domain, function.name):
        return True
    return any(_calls(inner, function) for graph in subgraphs(proto) for inner in graph.node)


def _result_types(
    context: Context, text: str, bound: Mapping[str, str], scope: Scope
) -> dict[str, TypeProto]:
    """What ONNX's own shape inference says of the host node's results; nothing of those it cannot tell."""
    model = decode_host(text)
    for value in model.graph.input:
        value.type.CopyFrom(_operand_type(context, bound[value.name], scope.object_types))
        data = context.const(bound[value.name])
        if data is not None and data.nbytes <= _MAX_SHOWN and data.dtype != object:
            model.graph.initializer.append(
                onnx.numpy_helper.from_array(np.asarray(data, order="C"), value.name)
            )
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise NodeError(f"ONNX's shape inference refuses it: {str(error).splitlines()[0]}") from None
    return {value.name: value.type for value in inferred.graph.output}


def _complete(context: Context, name: str, proto: TypeProto | None, scope: Scope) -> TensorType:
    """The type of a host result, with a fresh symbol for every extent that only the run will tell."""
    dtype, shape = declared_type(proto) if proto is not None else ("", None)
    declared = declared_type(scope.declared[name]) if name in scope.declared else ("", None)
    if shape is None and declared[1] is not None and dtype in ("", declared[0]):
        # The model itself says what shape inference cannot tell. Its names are not the graph's dims.
        dtype, shape = declared[0], [d if isinstance(d, int) else None for d in declared[1]]
    if not dtype or shape is None:
        raise NodeError(
            f"the {'rank' if dtype else 'type'} of its result {name!r} is not known before it runs"
        )
    dims: list[Dim] = []
    for extent in shape:
        dims.append(extent if isinstance(extent, int) else _known_dim(context, extent))
    return TensorType(dtype, tuple(dims))


def _known_dim(context: Context, text: str | None) -> Dim:
    try:
        dim = parse_dim(text) if text else None
    except DimError:
        dim = None
    known = (
        {s for type_ in context.builder.types.values() for s in type_.symbols} if dim is not None else set()
    )
    return dim if dim is not None and symbols_of(dim) <= known else context.fresh_symbol()


def _folded(
    context: Context, node: OnnxNode, text: str, values: Sequence[str], types: Mapping[str, TypeProto]
) -> list[np.ndarray] | None:
    """The results of a deterministic host node over small constants; None where it must wait for the run."""
    if node.op_type in _RANDOM or node.op_type in _CONTROL:
        return None
    operands = [context.const(value) for value in values]
    if any(data is None for data in operands):
        return None
    if sum(data.nbytes for data in operands if data is not None) > _MAX_FOLDED or not _small(types.values()):
        return None
    try:
        results: list[Any] = run_host(text, [data for data in operands if data is not None])
    except Exception as error:  # onnx.reference runs arbitrary numpy code
        raise NodeError(f"onnx.reference cannot run it: {type(error).__name__}: {error}") from None
    arrays = [result for result in results if isinstance(result, np.ndarray)]
    if len(arrays) != len(results) or any(_unnamed(array) for array in arrays):
        return None
    return arrays


def _unnamed(array: np.ndarray) -> bool:
    try:
        dtype_of(array)
    except ValueError:
        return True
    return False


def _small(types: Any) -> bool:
    """Whether results stay small; an unknown extent is one that the operands bound, as in NonZero."""
    for proto in types:
        try:
            dtype, shape = declared_type(proto)
        except BadProto:
            return False
        if not dtype or dtype == "object" or shape is None:
            return False
        size = 1
        for extent in shape:
            size *= extent if isinstance(extent, int) else 1
        if size * itemsize(dtype) > _MAX_FOLDED:
            return False
    return True

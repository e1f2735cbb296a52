"""Nodes that egc has no primitives for: opened by the function body of their ONNX schema, or left to the
host."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from egc.frontend.bodytypes import declare_stacked
from egc.frontend.context import Context
from egc.frontend.hosttypes import complete_types, operand_type, result_types
from egc.frontend.load import free_names, subgraphs
from egc.frontend.messages import FunctionProto, NodeProto, TypeProto, schemas
from egc.frontend.proto import BadProto, declared_type
from egc.frontend.registry import NodeError, OnnxNode, normal_domain
from egc.ir.host import encode_host, run_host
from egc.ir.types import dtype_of, itemsize

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


def function_body(
    context: Context, proto: NodeProto, node: OnnxNode, object_types: Mapping[str, TypeProto]
) -> FunctionProto | None:
    """The body that the operator's schema gives for this node; None where it has none."""
    try:
        schema: Any = schemas.get_schema(node.op_type, node.opset, node.domain)
    except schemas.SchemaError:
        return None
    versions = [v for v in schema.function_opset_versions if v <= node.opset]
    if schema.has_function and versions:
        return FunctionProto.FromString(schema.get_function_with_opset_version(max(versions)))
    versions = [v for v in schema.context_dependent_function_opset_versions if v <= node.opset]
    if not (schema.has_context_dependent_function and versions):
        return None
    types = [
        (TypeProto() if v is None else operand_type(context, v, object_types)).SerializeToString()
        for v in node.inputs
    ]
    body = schema.get_context_dependent_function_with_opset_version(
        max(versions), proto.SerializeToString(), types
    )
    return FunctionProto.FromString(body) if body else None


@cache
def runnable(domain: str, op_type: str, version: int) -> bool:
    """Whether egc or onnx.reference has the operator for the host, or its schema a function body that
    onnx.reference opens."""
    from egc.ir.host_ops import OPERATORS

    if any((o.op_domain, o.__name__) == (domain, op_type) for o in OPERATORS):
        return True
    try:
        operators = importlib.import_module(_REFERENCE[domain])
        return bool(operators.load_op(domain, op_type, version))
    except Exception:  # onnx.reference raises whatever it likes for what it does not know
        return False


def _unknown(proto: NodeProto, opsets: Mapping[str, int], known: set[tuple[str, str]]) -> list[str]:
    """The operators in a node and its subgraphs that onnx.reference cannot run."""
    domain = normal_domain(proto.domain)
    missing: list[str] = []
    if (proto.domain, proto.op_type) not in known and not runnable(
        domain, proto.op_type, opsets.get(domain, 1)
    ):
        missing.append(f"{domain}.{proto.op_type}" if domain else proto.op_type)
    for graph in subgraphs(proto):
        for inner in graph.node:
            missing += _unknown(inner, opsets, known)
    return missing


def check_known(proto: NodeProto, opsets: Mapping[str, int], functions: Sequence[FunctionProto]) -> None:
    """NodeError where onnx.reference lacks the operator of a node, or of one in its subgraphs."""
    missing = _unknown(proto, opsets, {(f.domain, f.name) for f in functions})
    if missing:
        unknown = ", ".join(dict.fromkeys(missing))
        raise NodeError(
            f"neither egc nor onnx.reference knows the operator {unknown}",
            "export the model with standard ONNX operators, or with the function's body",
        )


def emit_host(
    context: Context, proto: NodeProto, node: OnnxNode, scope: Scope, functions: Sequence[FunctionProto]
) -> list[str | None]:
    """A host node for ``proto``; NodeError where onnx.reference cannot run it or its result type is
    unknown."""
    check_known(proto, scope.opsets, functions)
    captured = sorted(set().union(*(free_names(g) for g in subgraphs(proto))))
    names = list(dict.fromkeys([*(n for n in proto.input if n), *captured]))
    operands = [scope.find(name) for name in names]
    bound = {name: value for name, value in zip(names, operands, strict=True) if value is not None}
    outputs = [name for name in proto.output if name]
    used = functions if any(_calls(proto, f) for f in functions) else ()
    text = encode_host(proto, list(bound), outputs, dict(scope.opsets), used)
    values = list(bound.values())
    types = result_types(context, text, bound, scope)
    if (folded := _folded(context, node, text, values, types)) is not None:
        results = tuple(context.constant(array) for array in folded)
    else:
        found = complete_types(context, outputs, types, text, bound, scope)
        if node.op_type == "Loop":
            proto = declare_stacked(proto, types)
            text = encode_host(proto, list(bound), outputs, dict(scope.opsets), used)
        text_types = ";".join(map(str, found))
        results = context.builder.add_multi("host", values, context.sources, node=text, types=text_types)
        for value, name in zip(results, outputs, strict=True):
            if context.dtype(value) == "object":
                scope.object_types[value] = types[name]
        if node.op_type == "SequenceEmpty":
            scope.empty_sequences.update(results)
    by_name = dict(zip(outputs, results, strict=True))
    return [by_name.get(name) for name in proto.output]


def _calls(proto: NodeProto, function: FunctionProto) -> bool:
    if (proto.domain, proto.op_type) == (function.domain, function.name):
        return True
    return any(_calls(inner, function) for graph in subgraphs(proto) for inner in graph.node)


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

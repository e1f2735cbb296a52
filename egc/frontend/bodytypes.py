"""The types of a node's results, by ONNX's shape inference; those of Loop and If by what their bodies return.

ONNX's inference drops the shape of every value that a Loop carries, as an iteration may change it. Here the
body is inferred as a model of its own, from the types that the values have before the first iteration: an
extent that the body returns as it was given is that extent after any number of iterations, zero included; no
other one is known. Where inference cannot tell what the body returns, what the body declares of it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import reduce

from egc.frontend.load import free_names
from egc.frontend.messages import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TensorShapeProto,
    TypeProto,
)
from egc.frontend.mltypes import MODELS, model_types

# A round that is not the last knows less of the carried values than the one before, mostly some extents less.
_MAX_ROUNDS = 8
# Bodies within one another that are looked into; ONNX's own inference serves those that lie deeper.
_MAX_NESTED = 4
# The operators that have rules of their own, by domain and name.
_OWN = {(domain, name) for domain in ("", "ai.onnx") for name in ("Loop", "If")}
_OWN |= {("ai.onnx.ml", name) for name in MODELS}

Types = Mapping[str, TypeProto]


def infer(model: ModelProto, empty: Collection[str] = (), depth: int = 0) -> ModelProto:
    """``model`` with the types that can be told; ``empty`` names the values that are sequences without
    elements.

    Raises what ``onnx.shape_inference`` does.
    """
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(model, data_prop=True)
    if depth == _MAX_NESTED:
        return inferred
    made = {n.output[0] for n in model.graph.node if n.op_type == "SequenceEmpty" and n.output}
    for node in list(inferred.graph.node):
        if (node.domain, node.op_type) not in _OWN:
            continue
        types = _types(inferred)
        if all(_settled(types.get(name)) for name in node.output if name):
            continue
        if node.op_type in MODELS:
            results = model_types(node, types)
        else:
            rule = _loop if node.op_type == "Loop" else _branches
            results = rule(inferred, node, types, made.union(empty), depth + 1)
        _state(inferred.graph, node, results)
        # What follows the node can be told now.
        inferred = shape_inference.infer_shapes(inferred, data_prop=True)
    return inferred


def _types(model: ModelProto) -> dict[str, TypeProto]:
    from onnx.helper import make_tensor_type_proto

    graph = model.graph
    weights = {t.name: make_tensor_type_proto(t.data_type, t.dims) for t in graph.initializer}
    values = (*graph.value_info, *graph.output, *graph.input)
    return weights | {v.name: v.type for v in values if v.type.WhichOneof("value")}


def _settled(type_: TypeProto | None) -> bool:
    """Whether the rank of a tensor, or of a sequence's elements, is known."""
    if type_ is None:
        return False
    kind = type_.WhichOneof("value")
    if kind == "sequence_type":
        return _settled(type_.sequence_type.elem_type)
    return kind is not None and (kind != "tensor_type" or type_.tensor_type.HasField("shape"))


def _state(graph: GraphProto, node: NodeProto, results: Iterable[TypeProto | None]) -> None:
    """Write the types of ``node``'s results into ``graph``; None leaves what is there."""
    values = {value.name: value for value in (*graph.value_info, *graph.output)}
    for name, type_ in zip(node.output, results, strict=False):
        if name and type_ is not None:
            value = values.get(name)
            (graph.value_info.add(name=name) if value is None else value).type.CopyFrom(type_)


def _body(model: ModelProto, graph: GraphProto, given: Types, outer: Types) -> ModelProto:
    """A subgraph as a model: its inputs are of the types ``given``, and what it reads from outside are more
    inputs. The names of its dims are its own and are dropped."""
    body = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    body.graph.CopyFrom(graph)
    for value in (*body.graph.input, *body.graph.output, *body.graph.value_info):
        _drop_names(value.type)
    for value in body.graph.input:
        if value.name in given:
            value.type.CopyFrom(given[value.name])
    captured = free_names(graph)
    for name in sorted(captured & outer.keys()):
        body.graph.input.add(name=name, type=outer[name])
    body.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in captured)
    return body


def _drop_names(type_: TypeProto) -> None:
    kind = type_.WhichOneof("value")
    if kind == "sequence_type":
        _drop_names(type_.sequence_type.elem_type)
    elif kind == "tensor_type":
        for dim in type_.tensor_type.shape.dim if type_.tensor_type.HasField("shape") else ():
            dim.ClearField("dim_param")


def _attribute(node: NodeProto, name: str) -> GraphProto:
    found: AttributeProto = next(a for a in node.attribute if a.name == name)
    return found.g


def _branches(
    model: ModelProto, node: NodeProto, types: Types, empty: Collection[str], depth: int
) -> list[TypeProto | None]:
    """What holds of the results of either branch."""
    results = []
    for name in ("then_branch", "else_branch"):
        body = infer(_body(model, _attribute(node, name), {}, types), empty, depth)
        results.append([value.type for value in body.graph.output])
    return [join(a, b) for a, b in zip(*results, strict=True)]


def _loop(
    model: ModelProto, node: NodeProto, types: Types, empty: Collection[str], depth: int
) -> list[TypeProto | None]:
    """What holds of the carried values after any number of iterations, and of the stacks of scan outputs."""
    graph = _attribute(node, "body")
    names = [value.name for value in graph.input]
    carried = [types.get(name) for name in node.input[2:]]
    void = [name in empty for name in node.input[2:]]
    counters = {names[0]: _scalar(TensorProto.INT64), names[1]: _scalar(TensorProto.BOOL)}
    for _ in range(_MAX_ROUNDS):
        given = {name: t for name, t in zip(names[2:], carried, strict=True) if t is not None}
        outside = set(empty) - set(names)
        body = infer(_body(model, graph, given | counters, types), outside, depth)
        returned = [value.type for value in body.graph.output[1:]]
        filled = [
            _filled(body, name, t) if nothing else None
            for name, t, nothing in zip(names[2:], carried, void, strict=True)
        ]
        void = [False] * len(void)
        now = [new or join(a, b) for new, a, b in zip(filled, carried, returned, strict=False)]
        if now == carried:
            return [*carried, *map(_stack, returned[len(carried) :])]
        carried = now
    return []


def declare_stacked(loop: NodeProto, types: Types) -> NodeProto:
    """``loop`` with a body that declares the types of its scan outputs, as far as ``types``, those of the
    loop's results, tell them: where there is no iteration nothing else does."""
    declared = NodeProto()
    declared.CopyFrom(loop)
    body, carried = _attribute(declared, "body"), len(loop.input) - 2
    for name, value in zip(loop.output[carried:], body.output[1 + carried :], strict=False):
        type_ = types.get(name)
        if type_ is not None and type_.WhichOneof("value") == "tensor_type" and _settled(type_):
            value.type.CopyFrom(type_)
            del value.type.tensor_type.shape.dim[0]
            _drop_names(value.type)
    return declared


def _filled(body: ModelProto, name: str, type_: TypeProto | None) -> TypeProto | None:
    """The type of the sequence ``name`` once ``body`` has inserted elements, if it was empty before; None
    where it inserts none, or such of unknown rank."""
    types, sequences, elements = _types(body), {name}, list[TypeProto | None]()
    for node in body.graph.node:
        if node.op_type == "SequenceInsert" and node.input[0] in sequences:
            sequences.add(node.output[0])
            elements.append(types.get(node.input[1]))
    element = reduce(join, elements) if elements else None
    if type_ is None or element is None or not _settled(element):
        return None
    return TypeProto(sequence_type=TypeProto.Sequence(elem_type=element))


def join(a: TypeProto | None, b: TypeProto | None) -> TypeProto | None:
    """What is true of values of either type; None where they have nothing in common."""
    if a is None or b is None or a == b:
        return a if a == b else None
    kind = a.WhichOneof("value")
    if kind == b.WhichOneof("value") == "sequence_type":
        element = join(a.sequence_type.elem_type, b.sequence_type.elem_type)
        return None if element is None else TypeProto(sequence_type=TypeProto.Sequence(elem_type=element))
    if kind != "tensor_type" or kind != b.WhichOneof("value"):
        return None
    one, other = a.tensor_type, b.tensor_type
    if one.elem_type != other.elem_type:
        return None
    out = TypeProto(tensor_type=TypeProto.Tensor(elem_type=one.elem_type))
    if one.HasField("shape") and other.HasField("shape") and len(one.shape.dim) == len(other.shape.dim):
        none = TensorShapeProto.Dimension()
        dims = [d if d == e else none for d, e in zip(one.shape.dim, other.shape.dim, strict=True)]
        out.tensor_type.shape.CopyFrom(TensorShapeProto(dim=dims))
    return out


def _scalar(code: int) -> TypeProto:
    return TypeProto(tensor_type=TypeProto.Tensor(elem_type=code, shape=TensorShapeProto()))


def _stack(type_: TypeProto) -> TypeProto | None:
    """The type of what one iteration after the other returns, stacked."""
    if type_.WhichOneof("value") != "tensor_type" or not _settled(type_):
        return None
    dims = [TensorShapeProto.Dimension(), *type_.tensor_type.shape.dim]
    tensor = TypeProto.Tensor(elem_type=type_.tensor_type.elem_type, shape=TensorShapeProto(dim=dims))
    return TypeProto(tensor_type=tensor)

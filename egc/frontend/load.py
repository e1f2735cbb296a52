"""Opening a model: every kind of bad file ends here, as one clear BadInput that holds all its problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
from google.protobuf.message import DecodeError
from msgspec import Struct

from egc.errors import BadInput, Problems, UsageError
from egc.files import mapped
from egc.frontend import wire
from egc.frontend.messages import IR_VERSION, FunctionProto, GraphProto, ModelProto, NodeProto, schemas
from egc.frontend.proto import BadProto, ExternalData, dense_array, tensor_array
from egc.frontend.registry import normal_domain

Source: TypeAlias = "str | PathLike[str] | bytes | ModelProto"

# Nodes are placed by a recursive search over names; deeper subgraphs than this are surely hostile.
_MAX_NESTING = 32


class Model(Struct, frozen=True):
    """A model that was opened and checked: its proto, its weights by name, and the opset of each domain."""

    proto: ModelProto
    name: str
    initializers: Mapping[str, np.ndarray]
    opsets: Mapping[str, int]
    nodes: tuple[NodeProto, ...]
    external: ExternalData


def load_model(source: Source, folder: str | PathLike[str] | None = None) -> Model:
    """Open a model from a path, bytes or a proto; BadInput tells all that is wrong with it.

    ``folder`` is where external data lies when the model is not a path. Weights stay where they are: views
    of the proto's bytes, or read-only maps of the external files.
    """
    proto, name, beside, cut = _open(source)
    external = ExternalData(Path(folder) if folder is not None else beside)
    problems = Problems()
    opsets = _check_header(proto, problems)
    _check_text(proto, problems)
    problems.raise_if_any(BadInput, f"{name} cannot be used")
    initializers = _initializers(proto.graph, external, cut, problems)
    nodes = _check_names(proto.graph, initializers, problems)
    for function in proto.functions:
        _check_function(function, problems)
    problems.raise_if_any(BadInput, f"{name} cannot be used")
    return Model(proto, Path(name).stem, initializers, opsets, nodes, external)


def _open(source: Source) -> tuple[ModelProto, str, Path | None, dict[int, np.ndarray]]:
    """The proto, the model's name, its folder, and by index the raw bytes of the initializers that the
    proto lacks."""
    if isinstance(source, ModelProto):
        return source, source.graph.name or "model", None, {}
    if isinstance(source, bytes | bytearray | memoryview):
        data, name, folder = np.frombuffer(source, np.uint8), "the model", None
    elif not isinstance(source, str | PathLike):
        raise UsageError(
            f"the model is {type(source).__name__}, and no model", hint="give a path, bytes or a ModelProto"
        )
    else:
        path = Path(source)
        name, folder = path.name, path.parent
        data = _map(path)
    if not data.size:
        raise BadInput(f"{name} is empty", hint="the export or the download did not finish")
    proto = ModelProto()
    parted = wire.part(data.data)
    message, spans = parted if parted is not None else (data.tobytes(), {})
    try:
        proto.ParseFromString(message)
    except (DecodeError, RecursionError, ValueError):
        raise BadInput(
            f"{name} is not an ONNX model",
            why="its bytes are no ModelProto: the file is truncated, damaged, or of another format",
            hint="export or copy it again",
        ) from None
    return proto, name, folder, {index: data[start:stop] for index, (start, stop) in spans.items()}


def _map(path: Path) -> np.ndarray:
    try:
        return mapped(path)
    except OSError as error:
        raise BadInput(f"cannot read {path}", why=error.strerror, hint="check the path") from None


def _check_text(proto: ModelProto, problems: Problems) -> None:
    """protobuf hands out names that are not UTF-8 as bytes; they become one problem."""

    def of_graph(graph: GraphProto) -> Iterator[object]:
        yield graph.name
        for value in (*graph.input, *graph.output, *graph.value_info):
            yield value.name
            yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
        yield from (tensor.name for tensor in graph.initializer)
        yield from (sparse.values.name for sparse in graph.sparse_initializer)
        for node in graph.node:
            yield from of_node(node)

    def of_node(node: NodeProto) -> Iterator[object]:
        yield from (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
        for inner in subgraphs(node):
            yield from of_graph(inner)

    def of_all() -> Iterator[object]:
        yield from of_graph(proto.graph)
        yield from (entry.domain for entry in proto.opset_import)
        for function in proto.functions:
            yield from (
                function.name,
                function.domain,
                *function.input,
                *function.output,
                *function.attribute,
            )
            for node in function.node:
                yield from of_node(node)

    wrong = [text for text in of_all() if isinstance(text, bytes)]
    if wrong:
        problems.add("a name is not UTF-8 text", where=repr(wrong[0])[:80], why="the file is damaged")


def _check_header(proto: ModelProto, problems: Problems) -> dict[str, int]:
    if not proto.HasField("graph"):
        problems.add("the file holds no graph", why="it is not an ONNX model, or it is truncated")
        return {}
    if not 3 <= proto.ir_version <= IR_VERSION:
        problems.add(
            f"IR version {proto.ir_version} is not supported",
            why=f"versions 3 to {IR_VERSION} are",
            hint="a newer onnx package may know it" if proto.ir_version > IR_VERSION else None,
        )
    opsets: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = normal_domain(entry.domain)
        if opsets.setdefault(domain, entry.version) != entry.version:
            problems.add(f"two versions of the operator set {entry.domain or 'ai.onnx'!r} are imported")
    _, newest = schemas.schema_version_map()[""]
    version = opsets.get("", newest)
    if not opsets:
        problems.add("the model imports no operator set")
    elif not 1 <= version <= newest:
        problems.add(
            f"opset {version} is not supported",
            why=f"the installed onnx package knows the opsets 1 to {newest}",
            hint="install a newer onnx package, or export with a lower opset" if version > newest else None,
        )
    return opsets


def _initializers(
    graph: GraphProto, external: ExternalData, cut: Mapping[int, np.ndarray], problems: Problems
) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for i, tensor in enumerate(graph.initializer):
        if not tensor.name or tensor.name in found:
            problems.add(
                f"two initializers are named {tensor.name!r}" if tensor.name else "an initializer has no name"
            )
            continue
        try:
            found[tensor.name] = tensor_array(tensor, external, cut.get(i))
        except BadProto as error:
            problems.add(
                "an initializer cannot be read", where=f"initializer {tensor.name!r}", why=str(error)
            )
            found[tensor.name] = np.zeros(0, np.float32)
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        try:
            found[name] = dense_array(sparse, external)
        except BadProto as error:
            problems.add("a sparse initializer cannot be read", where=f"initializer {name!r}", why=str(error))
            found[name] = np.zeros(0, np.float32)
    return found


def _title(node: NodeProto) -> str:
    return (
        f"node {node.name!r} ({node.op_type})"
        if node.name
        else f"node {node.op_type} -> {', '.join(node.output)}"
    )


def _check_names(
    graph: GraphProto, initializers: Mapping[str, np.ndarray], problems: Problems
) -> tuple[NodeProto, ...]:
    """The graph's nodes in topological order; names that are undefined, given twice or cyclic become
    problems."""
    producers: dict[str, int] = {}
    given = set(initializers)
    seen_inputs: set[str] = set()
    for value in graph.input:
        if not value.name or value.name in seen_inputs:
            problems.add(f"two inputs are named {value.name!r}" if value.name else "an input has no name")
        seen_inputs.add(value.name)
    given |= seen_inputs
    for i, node in enumerate(graph.node):
        for name in node.output:
            if name and (name in producers or name in given):
                problems.add(f"the value {name!r} is defined twice", where=_title(node))
            elif name:
                producers[name] = i
    for i, node in enumerate(graph.node):
        for name in sorted(set(_reads(node))):
            if name not in given and name not in producers:
                problems.add(f"the value {name!r} is not defined", where=_title(graph.node[i]))
    for value in graph.output:
        if value.name not in given and value.name not in producers:
            problems.add(f"the graph output {value.name!r} is not defined")
    if not graph.output:
        problems.add("the graph has no outputs")
    return () if problems else _sorted(graph, producers, problems)


def _sorted(graph: GraphProto, producers: Mapping[str, int], problems: Problems) -> tuple[NodeProto, ...]:
    needs = [{producers[name] for name in _reads(node) if name in producers} for node in graph.node]
    if all(j < i for i, before in enumerate(needs) for j in before):
        return tuple(graph.node)
    users: list[list[int]] = [[] for _ in needs]
    for i, before in enumerate(needs):
        for j in before:
            users[j].append(i)
    waiting = [len(before) for before in needs]
    order = [i for i, count in enumerate(waiting) if count == 0]
    for i in order:
        for user in users[i]:
            waiting[user] -= 1
            if waiting[user] == 0:
                order.append(user)
    if len(order) < len(needs):
        stuck = [_title(graph.node[i]) for i, count in enumerate(waiting) if count > 0]
        more = f" and {len(stuck) - 5} more" if len(stuck) > 5 else ""
        problems.add("the graph has a cycle", where="; ".join(stuck[:5]) + more)
    return tuple(graph.node[i] for i in order)


def _reads(node: NodeProto) -> Iterator[str]:
    """The names that a node reads, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from free_names(graph)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def free_names(graph: GraphProto, depth: int = 0) -> set[str]:
    """The names that a subgraph takes from outside."""
    if depth > _MAX_NESTING:
        raise BadInput(
            "the model is nested too deeply", why=f"more than {_MAX_NESTING} graphs within one another"
        )
    defined = {value.name for value in graph.input}
    defined |= {tensor.name for tensor in graph.initializer}
    defined |= {sparse.values.name for sparse in graph.sparse_initializer}
    free: set[str] = set()
    for node in graph.node:
        free |= {name for name in node.input if name and name not in defined}
        for inner in subgraphs(node):
            free |= free_names(inner, depth + 1) - defined
        defined |= set(node.output)
    return free | {value.name for value in graph.output if value.name not in defined}


def _check_function(function: FunctionProto, problems: Problems) -> None:
    where = f"function {function.domain}.{function.name}"
    defined = set(function.input)
    for node in function.node:
        for name in _reads(node):
            if name not in defined:
                problems.add(f"the value {name!r} is not defined before its use", where=where)
        for name in node.output:
            if name and name in defined:
                problems.add(f"the value {name!r} is defined twice", where=where)
            defined.add(name)
    for name in function.output:
        if name not in defined:
            problems.add(f"the output {name!r} is not defined", where=where)

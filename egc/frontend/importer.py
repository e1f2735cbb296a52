"""From an opened model to a Graph: names, shapes, node by node, with all problems collected on the way."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from egc.errors import BadInput, Problems
from egc.frontend.context import Context
from egc.frontend.emit import Emitter, HostedNode, Scope
from egc.frontend.load import Model, Source, load_model
from egc.frontend.proto import BadProto, declared_type
from egc.frontend.registry import node_title, normal_domain
from egc.frontend.requirements import Requirement, requirements
from egc.ir.dims import Dim, DimError, SymDim, parse_dim, symbol, symbols_of
from egc.ir.graph import Graph
from egc.ir.types import TensorType, dtype_of

# Extents beyond this overflow the 64-bit byte counts of every later stage.
_MAX_EXTENT = 1 << 40


class Port(Struct, frozen=True):
    """An input or an output of the model: its ONNX name, the graph's value, and its type."""

    name: str
    value: str
    type: TensorType


class Origin(Struct, frozen=True):
    """A node of the model and what importing made of it.

    ``title`` is what ``Node.sources`` calls it; ``inputs`` and ``outputs`` are ONNX names, "" where absent.
    ``fate`` is ``graph`` (it became graph nodes), ``constant`` (its results are known now), ``passed on``
    (its result is its operand) or ``unused`` (nothing reads its results).
    """

    title: str
    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fate: str


class Imported(Struct, frozen=True):
    """An imported model. Ports stand in ONNX order; ``hosted`` are the nodes that egc does not compile, and
    why; ``nodes`` is how many nodes the model has, ``origins`` what became of each; ``requirements`` is what
    the run has to check; ``files`` held its external data.

    An output's value may be an input or a constant of the graph, and two outputs may be one value.
    """

    graph: Graph
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    hosted: tuple[HostedNode, ...]
    nodes: int = 0
    origins: tuple[Origin, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    files: tuple[Path, ...] = ()


def import_model(
    source: Source | Model,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    folder: str | PathLike[str] | None = None,
) -> Imported:
    """The graph of a model; BadInput holds everything that is wrong with it.

    ``shapes`` gives input shapes (integers, or dims as text) in place of the declared ones. ``values``
    gives inputs that are fixed when compiling, such as a shape that the model takes as data; they stay
    inputs, which nothing reads. ``folder`` is where external data lies when ``source`` is not a path.
    """
    model = source if isinstance(source, Model) else load_model(source, folder)
    context = Context(_identifier(model.name) or "model", model.opsets.get("", 0))
    problems = Problems()
    emitter = Emitter(context, model, problems)
    scope = emitter.root
    for name, data in model.initializers.items():
        scope.values[name] = context.constant(data, _value_name(name))
    inputs = _inputs(model, context, scope, problems, dict(shapes or {}), dict(values or {}))
    problems.raise_if_any(BadInput, f"{model.name}: the inputs do not fit")
    for value in (*model.proto.graph.value_info, *model.proto.graph.output):
        scope.declared[value.name] = value.type
    emitter.run(model.nodes, scope)
    problems.raise_if_any(BadInput, f"{model.name} cannot be imported")
    results = [scope.values[value.name] for value in model.proto.graph.output]
    assert all(result is not None for result in results), "a node without a value is a problem"
    outputs = [str(result) for result in results]
    graph = _renamed(context.builder.finish(outputs), scope)
    renamed = dict(zip(outputs, graph.outputs, strict=True))
    ports = tuple(
        Port(value.name, renamed[result], graph.types[renamed[result]])
        for value, result in zip(model.proto.graph.output, outputs, strict=True)
    )
    live = {source for node in graph.nodes for source in node.sources if node.op == "host"}
    hosted = tuple(node for node in emitter.hosted if node.title in live)
    origins = _origins(model, scope, context, graph)
    return Imported(
        graph, inputs, ports, hosted, len(model.nodes), origins, requirements(graph), model.external.files
    )


def _origins(model: Model, scope: Scope, context: Context, graph: Graph) -> tuple[Origin, ...]:
    """What importing made of each node of the model."""
    compiled = {source for node in graph.nodes for source in node.sources}
    found: list[Origin] = []
    for proto in model.nodes:
        domain = normal_domain(proto.domain)
        title = node_title(domain, proto.op_type, proto.name, proto.output)
        operands = {scope.values.get(name) for name in proto.input if name}
        results = [scope.values.get(name) for name in proto.output if name]
        fate = "unused"
        if title in compiled:
            fate = "graph"
        elif results and results[0] in operands:
            fate = "passed on"
        elif any(value in context.builder.constants for value in results):
            fate = "constant"
        found.append(Origin(title, proto.name, proto.op_type, tuple(proto.input), tuple(proto.output), fate))
    return tuple(found)


def _inputs(
    model: Model,
    context: Context,
    scope: Scope,
    problems: Problems,
    shapes: dict[str, Sequence[int | str]],
    values: dict[str, np.ndarray],
) -> tuple[Port, ...]:
    ports: list[Port] = []
    # An input that has an initializer is a constant: the initializer is its default, and nobody overrides it.
    protos = [value for value in model.proto.graph.input if value.name not in model.initializers]
    for proto in protos:
        for dim in proto.type.tensor_type.shape.dim:
            if _identifier(dim.dim_param):
                context.reserve_symbol(_identifier(dim.dim_param))
    settled, alone = _settled(protos, shapes), _alone(protos, shapes)
    for proto in protos:
        try:
            type_ = _input_type(proto, context, shapes.pop(proto.name, None), settled, alone)
        except (BadProto, DimError, ValueError) as error:
            problems.add("an input cannot be used", where=f"input {proto.name!r}", why=str(error))
            continue
        if type_ is None:
            hint = f"give its shape: --shape {proto.name}=1x3x224x224"
            problems.add("the rank of an input is unknown", where=f"input {proto.name!r}", hint=hint)
            continue
        value = context.builder.input(
            context.builder.fresh("x") if not proto.name else _free(context, proto.name), type_
        )
        scope.object_types[value] = proto.type
        ports.append(Port(proto.name, value, type_))
        given = values.pop(proto.name, None)
        if given is not None:
            try:
                value = context.constant(_fixed(given, type_))
            except ValueError as error:
                problems.add("a value cannot be used", where=f"input {proto.name!r}", why=str(error))
        scope.values[proto.name] = value
    for name in (*shapes, *values):
        known = ", ".join(value.name for value in protos)
        problems.add(f"the model has no input {name!r}", hint=f"its inputs are {known}" if known else None)
    return tuple(ports)


def _fixed(given: Any, type_: TensorType) -> np.ndarray:
    """The array that an input is fixed to; ValueError where the input is of another type."""
    array = np.asarray(given)
    dtype = dtype_of(array)
    if dtype != type_.dtype:
        raise ValueError(f"the model takes {type_.dtype}, and the value is {dtype}")
    extents = list(zip(type_.shape, array.shape, strict=False))
    if array.ndim != len(type_.shape) or any(isinstance(d, int) and d != extent for d, extent in extents):
        shape = ", ".join(map(str, type_.shape))
        raise ValueError(f"the model takes the shape [{shape}], and the value has {list(array.shape)}")
    return array


def _settled(protos: Sequence[Any], shapes: Mapping[str, Sequence[int | str]]) -> dict[str, int]:
    """The extents that given shapes settle for the names of dims: they hold for all inputs that name them."""
    settled: dict[str, int] = {}
    for proto in protos:
        with suppress(BadProto):  # which `_input_type` reports
            declared = declared_type(proto.type)[1] or ()
            for dim, extent in zip(declared, shapes.get(proto.name, ()), strict=False):
                if isinstance(dim, str) and dim and isinstance(extent, int):
                    settled.setdefault(dim, extent)
    return settled


def _alone(protos: Sequence[Any], shapes: Mapping[str, Sequence[int | str]]) -> frozenset[str]:
    """The names of dims that are extents of inputs by themselves, so that a run tells their values."""
    found: set[str] = set()
    for proto in protos:
        with suppress(BadProto):  # which `_input_type` reports
            found.update(
                dim
                for dim in shapes.get(proto.name) or declared_type(proto.type)[1] or ()
                if isinstance(dim, str)
            )
    return frozenset(found)


def _input_type(
    proto: Any,
    context: Context,
    given: Sequence[int | str] | None,
    settled: Mapping[str, int],
    alone: frozenset[str],
) -> TensorType | None:
    dtype, declared = declared_type(proto.type)
    if not dtype:
        raise BadProto("it has no type")
    wanted: Sequence[int | str | None] | None = given
    if given is None and declared is not None:
        wanted = [settled.get(dim, dim) if isinstance(dim, str) else dim for dim in declared]
    if wanted is None:
        return None
    if given is not None and declared is not None and len(given) != len(declared):
        raise BadProto(f"a shape of rank {len(given)} was given, the model declares rank {len(declared)}")
    shape: list[Dim] = []
    for axis, extent in enumerate(wanted):
        fixed = declared[axis] if given is not None and declared is not None else extent
        if isinstance(fixed, int) and isinstance(extent, int) and fixed != extent:
            raise BadProto(f"axis {axis} has the extent {fixed}, {extent} was given")
        shape.append(_dim(extent, f"{_identifier(proto.name) or 'x'}_{axis}", context, alone))
    return TensorType(dtype, tuple(shape))


def _dim(extent: int | str | None, fallback: str, context: Context, alone: frozenset[str]) -> Dim:
    """An extent as a dim. What reads as arithmetic (`past + sequence`) is that if the names in it are extents
    that stand `alone`, else a name like any other.
    """
    if isinstance(extent, int):
        if extent > _MAX_EXTENT:
            raise BadProto(f"an extent of {extent}")
        return extent
    try:
        dim: Dim = parse_dim(extent) if extent else symbol(fallback)
        if extent and not symbols_of(dim) <= alone:
            raise DimError(f"no run tells the value of {extent}")
    except DimError:
        dim = symbol(_identifier(extent or "") or fallback)
    if isinstance(dim, SymDim):
        for name in symbols_of(dim):
            context.reserve_symbol(name)
    return dim


def _renamed(graph: Graph, scope: Scope) -> Graph:
    """``graph`` with the values of the model's top level under their ONNX names, where those are free."""
    names: dict[str, str] = {}
    computed = graph.producer
    taken = {name for name in graph.types if name not in computed}
    for onnx_name, value in scope.values.items():
        wanted = _value_name(onnx_name)
        if value is not None and value in computed and value not in names and wanted not in taken:
            names[value] = wanted
            taken.add(wanted)
    for name in computed:
        if name not in names:
            names[name] = name if name not in taken else _numbered(name, taken)
            taken.add(names[name])
    nodes = tuple(
        replace(
            node,
            inputs=tuple(names.get(n, n) for n in node.inputs),
            outputs=tuple(names.get(n, n) for n in node.outputs),
        )
        for node in graph.nodes
    )
    types = {names.get(name, name): type_ for name, type_ in graph.types.items()}
    outputs = tuple(names.get(name, name) for name in graph.outputs)
    return replace(graph, nodes=nodes, types=types, outputs=outputs)


def _numbered(name: str, taken: set[str]) -> str:
    index = 1
    while f"{name}_{index}" in taken:
        index += 1
    return f"{name}_{index}"


def _free(context: Context, name: str) -> str:
    wanted = _value_name(name)
    return wanted if wanted not in context.builder.types else _numbered(wanted, set(context.builder.types))


def _value_name(name: str) -> str:
    """An ONNX name in the characters that the text form of a graph reads as one name."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name)


def _identifier(name: str) -> str:
    """An ONNX dim name as a symbol; "" for one without any letter or digit."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    if not plain.strip("_"):
        return ""
    if keyword.iskeyword(plain):
        # The text form of a dim is read as a Python expression.
        return f"{plain}_"
    return plain if not plain[0].isdigit() else f"d{plain}"

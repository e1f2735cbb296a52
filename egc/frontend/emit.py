"""Node by node: operands resolved, the operator's entry called, function bodies and subgraphs opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from msgspec import Struct, field

from egc.errors import Problems
from egc.frontend import registry, symbolic
from egc.frontend.context import Context
from egc.frontend.hosted import check_known, emit_host, function_body
from egc.frontend.load import Model
from egc.frontend.messages import AttributeProto, FunctionProto, GraphProto, NodeProto, TypeProto, schemas
from egc.frontend.proto import BadProto, attribute_value, dense_array, tensor_array
from egc.frontend.registry import NodeError, NotCompiled, OnnxNode
from egc.ir.dims import DimError
from egc.ir.evaluate import EvaluateError
from egc.ir.infer import InferError

# Operators of this opset broadcast as numpy does; before it, attributes said how.
OLDEST_OPSET = 7
# Function bodies and subgraphs within one another.
_MAX_DEPTH = 32
# A node whose attributes contradict its operands shows itself in one of these, raised by numpy or by index
# arithmetic.
_MALFORMED = (ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError, AttributeError)


class HostedNode(Struct, frozen=True):
    """A node that egc does not compile."""

    title: str
    op_type: str
    domain: str
    why: str
    name: str = ""


class Scope(Struct):
    """What names mean in one graph or function body. A value None stands for an absent optional operand.

    ``failed`` holds the names whose nodes went wrong: what reads them is skipped, so that one fault is told
    once.
    """

    opsets: Mapping[str, int]
    values: dict[str, str | None] = field(default_factory=dict)
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    parent: Scope | None = None
    failed: set[str] = field(default_factory=set)
    declared: dict[str, TypeProto] = field(default_factory=dict)
    object_types: dict[str, TypeProto] = field(default_factory=dict)
    empty_sequences: set[str] = field(default_factory=set)
    depth: int = 0

    def find(self, name: str) -> str | None:
        """The value that ``name`` stands for here or outside; KeyError where it is not defined."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        raise KeyError(name)

    def broken(self, name: str) -> bool:
        """Whether the node of ``name`` went wrong."""
        if name in self.values:
            return False
        return name in self.failed or (self.parent is not None and self.parent.broken(name))

    def inner(self, **changes: Any) -> Scope:
        """A scope inside this one."""
        if self.depth >= _MAX_DEPTH:
            raise NodeError(
                f"functions and subgraphs are nested more than {_MAX_DEPTH} deep", "look for a recursion"
            )
        settings: dict[str, Any] = {"opsets": self.opsets, "parent": self, "attributes": self.attributes}
        settings |= {"object_types": self.object_types, "empty_sequences": self.empty_sequences, **changes}
        return Scope(**settings, depth=self.depth + 1)


class Emitter:
    """Emits the nodes of one model into a Context."""

    def __init__(self, context: Context, model: Model, problems: Problems) -> None:
        self.context, self.model, self.problems = context, model, problems
        self.hosted: list[HostedNode] = []
        self.functions = {(f.domain, f.name, f.overload): f for f in model.proto.functions}
        self.root = Scope(model.opsets)
        self._scope = self.root
        self._titles: list[str] = []
        self._outer_name = ""
        context._emit, context._inline = self.call, self.inline

    def run(self, nodes: Iterable[NodeProto], scope: Scope) -> None:
        """Emit ``nodes`` in order; what goes wrong is noted, and what depends on it skipped.

        An operator that nothing can run is told of wherever it stands: all of them at once.
        """
        for proto in nodes:
            try:
                if any(name and scope.broken(name) for name in proto.input):
                    scope.failed.update(proto.output)
                    self._check_known(proto, scope)
                    continue
                self._emit_proto(proto, scope)
            except NodeError as error:
                self._problem(proto, scope, error.why, error.hint)
            except (InferError, DimError, BadProto, EvaluateError) as error:
                self._problem(proto, scope, str(error))
            except MemoryError:
                self._problem(proto, scope, "its sizes ask for more memory than there is")
            except _MALFORMED as error:
                self._problem(proto, scope, f"its attributes and operands do not fit together: {error}")

    def call(
        self, op_type: str, inputs: Sequence[str | None], attributes: Mapping[str, Any], outputs: int
    ) -> Sequence[str | None]:
        """Another operator of the default domain, by its own table entry (Context.onnx)."""
        node = OnnxNode(
            op_type,
            "",
            "",
            _since(op_type, "", self.context.opset),
            self.context.opset,
            tuple(inputs),
            tuple(f"o{i}" for i in range(outputs)),
            attributes,
        )
        entry = registry.find("", op_type)
        if entry is None:
            raise NotCompiled(f"{op_type} has no entry")
        return entry.emit(self.context, node)

    def inline(self, graph: GraphProto, arguments: Sequence[str | None]) -> Sequence[str | None]:
        """A subgraph's nodes emitted where the running node stands (Context.inline)."""
        scope = self._scope.inner()
        for tensor in graph.initializer:
            scope.values[tensor.name] = self.context.constant(tensor_array(tensor, self.model.external))
        for sparse in graph.sparse_initializer:
            scope.values[sparse.values.name] = self.context.constant(dense_array(sparse, self.model.external))
        scope.values.update(zip((v.name for v in graph.input), arguments, strict=False))
        return self._body(graph.node, [v.name for v in graph.output], scope)

    def _body(self, nodes: Iterable[NodeProto], outputs: Sequence[str], scope: Scope) -> list[str | None]:
        outer, self._scope = self._scope, scope
        before = len(self.problems)
        try:
            self.run(nodes, scope)
        finally:
            self._scope = outer
        if len(self.problems) > before:
            raise _Reported
        return [scope.find(name) if name else None for name in outputs]

    def _emit_proto(self, proto: NodeProto, scope: Scope) -> None:
        node = self._resolve(proto, scope)
        titles, self._titles = self._titles, [*self._titles, str(node)]
        if not titles:
            self._outer_name = node.name
        outer, self._scope = self._scope, scope
        sources, self.context.sources = self.context.sources, (self._titles[0],)
        try:
            results = list(self._results(proto, node, scope))
        except _Reported:
            scope.failed.update(proto.output)
            return
        finally:
            self._titles, self._scope, self.context.sources = titles, outer, sources
        for name, value in zip(proto.output, results, strict=False):
            if name:
                scope.values[name] = value
        for name in proto.output[len(results) :]:
            if name:
                raise NodeError(f"the operator has no output number {list(proto.output).index(name)}")

    def _resolve(self, proto: NodeProto, scope: Scope) -> OnnxNode:
        domain = registry.normal_domain(proto.domain)
        attributes: dict[str, Any] = {}
        for attribute in self._attributes(proto, scope):
            attributes[attribute.name] = attribute_value(attribute, self.model.external)
        opset = scope.opsets.get(domain, 0 if domain else self.context.opset)
        if not domain and opset < OLDEST_OPSET:
            _check_old_form(proto.op_type, opset)
        return OnnxNode(
            proto.op_type,
            domain,
            proto.name,
            _since(proto.op_type, domain, opset),
            opset,
            tuple(scope.find(name) if name else None for name in proto.input),
            tuple(proto.output),
            attributes,
        )

    def _attributes(self, proto: NodeProto, scope: Scope) -> list[AttributeProto]:
        """The node's attributes, with references to the enclosing function's attributes replaced."""
        out = []
        for attribute in proto.attribute:
            if attribute.ref_attr_name:
                if (given := scope.attributes.get(attribute.ref_attr_name)) is None:
                    continue
                bound = AttributeProto()
                bound.CopyFrom(given)
                bound.name = attribute.name
                attribute = bound
            out.append(attribute)
        return out

    def _check_known(self, proto: NodeProto, scope: Scope) -> None:
        """NodeError where nothing can run a node, whatever its operands are."""
        if registry.find(registry.normal_domain(proto.domain), proto.op_type) is None:
            check_known(proto, scope.opsets, tuple(self.functions.values()))

    def _results(self, proto: NodeProto, node: OnnxNode, scope: Scope) -> Sequence[str | None]:
        function = self.functions.get((proto.domain, proto.op_type, proto.overload))
        if function is not None:
            return self._function(function, proto, node, scope, {})
        if (known := symbolic.fold(self.context, node)) is not None:
            return known
        entry = registry.find(node.domain, node.op_type)
        why = "egc has no such operator"
        if entry is not None:
            _check_counts(node)
            try:
                return entry.emit(self.context, node)
            except NotCompiled as reason:
                why = str(reason)
        elif (
            body := function_body(self.context, self._bound(proto, scope), node, scope.object_types)
        ) is not None:
            defaults = _schema_defaults(node)
            return self._function(body, proto, node, scope, defaults)
        return self._host(proto, node, scope, why)

    def _function(
        self,
        function: FunctionProto,
        proto: NodeProto,
        node: OnnxNode,
        scope: Scope,
        defaults: Mapping[str, AttributeProto],
    ) -> Sequence[str | None]:
        opsets = {registry.normal_domain(e.domain): e.version for e in function.opset_import}
        attributes = {a.name: a for a in function.attribute_proto} | dict(defaults)
        attributes |= {a.name: a for a in self._attributes(proto, scope)}
        inner = scope.inner(opsets=opsets, attributes=attributes, parent=None)
        if len(node.inputs) > len(function.input):
            raise NodeError(f"the function takes {len(function.input)} operands, not {len(node.inputs)}")
        for i, name in enumerate(function.input):
            inner.values[name] = node.input(i)
        # A body made for this node may leave out the outputs that the node does not name.
        wanted = [name if given else "" for name, given in zip(function.output, proto.output, strict=False)]
        return self._body(function.node, wanted, inner)

    def _bound(self, proto: NodeProto, scope: Scope) -> NodeProto:
        """``proto`` without references to attributes of an enclosing function."""
        bound = NodeProto()
        bound.CopyFrom(proto)
        bound.domain = registry.normal_domain(proto.domain)
        del bound.attribute[:]
        bound.attribute.extend(self._attributes(proto, scope))
        return bound

    def _host(self, proto: NodeProto, node: OnnxNode, scope: Scope, why: str) -> Sequence[str | None]:
        results = emit_host(
            self.context, self._bound(proto, scope), node, scope, tuple(self.functions.values())
        )
        self.hosted.append(HostedNode(self._titles[0], node.op_type, node.domain, why, self._outer_name))
        return results

    def _problem(self, proto: NodeProto, scope: Scope, why: str, hint: str | None = None) -> None:
        scope.failed.update(proto.output)
        title = f"{proto.domain}.{proto.op_type}" if proto.domain else proto.op_type
        name = (
            f"node {proto.name!r} ({title})" if proto.name else f"node {title} -> {', '.join(proto.output)}"
        )
        where = " in ".join((name, *reversed(self._titles)))
        self.problems.add("a node cannot be imported", where=where, why=why, hint=hint)


class _Reported(Exception):
    """A function body went wrong, and its problems have been noted."""


def _check_old_form(op_type: str, opset: int) -> None:
    """Older opsets are welcome as long as the operator still has the form that it had then."""
    if _since(op_type, "", opset) != _since(op_type, "", OLDEST_OPSET):
        raise NodeError(
            f"its form of opset {opset} is not supported; forms since opset {OLDEST_OPSET} are",
            "convert the model with onnx.version_converter",
        )


@cache
def _since(op_type: str, domain: str, opset: int) -> int:
    try:
        return int(schemas.get_schema(op_type, opset, domain).since_version)
    except schemas.SchemaError:
        return opset


def _check_counts(node: OnnxNode) -> None:
    try:
        schema: Any = schemas.get_schema(node.op_type, node.opset, node.domain)
    except schemas.SchemaError:
        raise NodeError(
            f"the opset {node.opset} of {node.domain or 'ai.onnx'} has no operator {node.op_type}"
        ) from None
    given = len(node.inputs)
    if not schema.min_input <= given <= schema.max_input:
        raise NodeError(
            f"it has {given} operands, the operator takes {schema.min_input} to {schema.max_input}"
        )
    if len(node.outputs) > schema.max_output:
        raise NodeError(f"it has {len(node.outputs)} outputs, the operator has {schema.max_output}")
    for name in node.attributes:
        if name not in schema.attributes:
            raise NodeError(f"the operator has no attribute {name!r} in this opset")
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in node.attributes:
            raise NodeError(f"the attribute {name!r} is missing")
        if name in node.attributes and not _of_kind(node.attributes[name], attribute.type.name):
            raise NodeError(f"the attribute {name!r} is not of the type {attribute.type.name}")


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "FLOAT": float,
    "INT": int,
    "STRING": str,
    "TENSOR": np.ndarray,
    "SPARSE_TENSOR": np.ndarray,
    "GRAPH": GraphProto,
    "TYPE_PROTO": TypeProto,
}


def _of_kind(value: Any, name: str) -> bool:
    """Whether an attribute's value is of the kind that the schema calls ``name``."""
    if name in _KINDS:
        return isinstance(value, _KINDS[name])
    element = _KINDS.get(name.removesuffix("S"))
    return isinstance(value, list) and (element is None or all(isinstance(v, element) for v in value))


def _schema_defaults(node: OnnxNode) -> dict[str, AttributeProto]:
    from onnx.defs import get_schema  # with the defaults as messages

    schema = get_schema(node.op_type, node.opset, node.domain)
    return {name: a.default_value for name, a in schema.attributes.items() if a.default_value.name}

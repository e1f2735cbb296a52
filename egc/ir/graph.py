"""A tensor graph: typed values in single assignment form.

    graph   ::= "graph" NAME "{" input* constant* node* "return" "%"value… "}"
    input   ::= "input" %value ":" type
    constant::= "constant" %value ":" type "=" (literal | sha256)
    node    ::= %value… "=" op "(" %value… ")" ["{" attr=value,
            … "}"] ":" type… ["# from" JSON list of ONNX nodes]

Nodes stand in topological order. A constant is its type and the hash of its bytes; the bytes stay where they
are (an array, possibly memory-mapped) and never enter the e-graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NoReturn, TypeAlias

import numpy as np
from msgspec import Struct, field

from egc.ir.dims import Dim, extents
from egc.ir.ops import OPS
from egc.ir.types import TensorType, dtype_of, itemsize

AttrValue: TypeAlias = "int | float | str | bool | tuple[Dim, ...]"


@dataclass(frozen=True, eq=False)  # no Struct: Placeholder has a constructor of its own
class Constant:
    """A tensor known at compile time. Equal when type and bytes are equal;
    ``data`` may be a read-only memory map.
    """

    data: np.ndarray

    @cached_property
    def type(self) -> TensorType:
        """The constant's dtype and shape."""
        return TensorType(dtype_of(self.data), tuple(int(d) for d in self.data.shape))

    @property
    def nbytes(self) -> int:
        """The size of the content."""
        return self.data.nbytes

    @cached_property
    def digest(self) -> str:
        """A hash of type and bytes, in hexadecimal; the constant's name in the e-graph."""
        hasher = hashlib.sha256(str(self.type).encode())
        if self.type.dtype == "string":
            hasher.update(repr(self.data.tolist()).encode())
        else:
            hasher.update(np.ascontiguousarray(self.data).reshape(-1).view(np.uint8).data)
        return hasher.hexdigest()[:32]

    @cached_property
    def splat(self) -> int | float | bool | None:
        """The one value of all elements of a non-empty numeric constant, None where they differ."""
        if self.data.size == 0 or self.type.dtype == "string" or self.data.dtype.kind == "c":
            return None
        first = self.data.reshape(-1)[0]
        # Most weights differ within a few elements: look there before reading all of them.
        if not _uniform(self.data.reshape(-1)[:16], first) or not _uniform(self.data, first):
            return None
        value = first.item()
        return value if isinstance(value, bool | int) else float(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self.type == other.type and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


class Placeholder(Constant):
    """A constant whose bytes are not at hand: it has a type and a digest, and no data."""

    def __init__(self, type_: TensorType, digest: str) -> None:
        # The parent's cached properties are plain entries of the instance's dictionary.
        self.__dict__.update(type=type_, digest=digest, splat=None)

    @property
    def data(self) -> NoReturn:
        """Always ValueError."""
        raise ValueError(f"the data of the constant {self.type} {self.digest} is not at hand")

    @property
    def nbytes(self) -> int:
        """The size that the content would have."""
        return prod(extents(self.type.shape)) * itemsize(self.type.dtype)


def _uniform(data: np.ndarray, first: np.generic) -> bool:
    # Compared bit for bit, so that NaN equals itself and -0.0 differs from 0.0.
    raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1, data.dtype.itemsize)
    return bool((raw == np.asarray(first).reshape(1).view(np.uint8)).all())


class Node(Struct, frozen=True):
    """One operation: ``attrs`` in the order of the operator's table entry,
    ``sources`` the ONNX nodes it came from.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: tuple[tuple[str, AttrValue], ...] = ()
    sources: tuple[str, ...] = ()

    def attr(self, name: str) -> AttrValue:
        """The value of attribute ``name``; KeyError where the operator has none of that name."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(f"{self.op} has no attribute {name!r}")

    @property
    def output(self) -> str:
        """The name of the first result."""
        return self.outputs[0]


class Graph(Struct, frozen=True, dict=True):
    """A whole model. ``types`` has an entry for every value: inputs, constants and results of nodes."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Constant] = field(default_factory=dict)

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """The node that computes each value that a node computes."""
        return {output: node for node in self.nodes for output in node.outputs}

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each value, in order, each node once."""
        users: dict[str, dict[int, Node]] = {}
        for i, node in enumerate(self.nodes):
            for name in node.inputs:
                users.setdefault(name, {})[i] = node
        return {name: tuple(found.values()) for name, found in users.items()}

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every dim name of the inputs' shapes, sorted."""
        return tuple(sorted(frozenset().union(*(self.types[name].symbols for name in self.inputs))))

    def __str__(self) -> str:
        return "\n".join(print_graph(self))


def print_graph(graph: Graph) -> Iterator[str]:
    """The lines of a graph's text form."""
    yield f"graph {graph.name} {{"
    for name in graph.inputs:
        yield f"  input %{name} : {graph.types[name]}"
    for name, constant in graph.constants.items():
        value = constant.splat
        text = f"splat {value!r}" if value is not None else f"sha256 {constant.digest}"
        yield f"  constant %{name} : {constant.type} = {text}"
    for node in graph.nodes:
        results = ", ".join(f"%{name}" for name in node.outputs)
        operands = ", ".join(f"%{name}" for name in node.inputs)
        attrs = ", ".join(f"{key}={print_attr(value)}" for key, value in node.attrs)
        types = "; ".join(str(graph.types[name]) for name in node.outputs)
        source = f"  # from {json.dumps(node.sources, ensure_ascii=False)}" if node.sources else ""
        yield f"  {results} = {node.op}({operands}){f' {{{attrs}}}' if attrs else ''} : {types}{source}"
    yield f"  return {', '.join(f'%{name}' for name in graph.outputs)}"
    yield "}"


def print_attr(value: AttrValue) -> str:
    """An attribute's text: JSON for scalars and strings, ``[a, b]`` for tuples of dims."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


# Constants up to this size are hashed when they are built, so that equal ones share a value;
# weights are hashed later.
_HASHED_BYTES = 4096


class GraphBuilder:
    """Builds a Graph node by node, inferring each result's type;
    the frontend and the extractor write through it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Constant] = {}
        self._inputs: list[str] = []
        self._nodes: list[Node] = []
        self._by_digest: dict[tuple[str, TensorType], str] = {}
        self._fresh = 0

    def input(self, name: str, type_: TensorType) -> str:
        """Declare a graph input."""
        self.types[name] = type_
        self._inputs.append(name)
        return name

    def constant(self, data: np.ndarray | Constant, name: str | None = None) -> str:
        """The value of a constant tensor; equal constants share one value,
        unless they are too large to hash for that.
        """
        constant = data if isinstance(data, Constant) else Constant(np.asarray(data))
        if constant.nbytes > _HASHED_BYTES:
            name = self.fresh("c") if name is None or name in self.types else name
            self.constants[name] = constant
            self.types[name] = constant.type
            return name
        key = (constant.digest, constant.type)
        if key not in self._by_digest:
            name = self.fresh("c") if name is None or name in self.types else name
            self._by_digest[key] = name
            self.constants[name] = constant
            self.types[name] = constant.type
        return self._by_digest[key]

    def add(
        self,
        op: str,
        inputs: tuple[str, ...] | list[str],
        sources: tuple[str, ...] = (),
        name: str | None = None,
        **attrs: AttrValue,
    ) -> str:
        """Append a node and return its first result; InferError where operands and attributes do not fit."""
        return self.add_multi(op, inputs, sources, (name,) if name else None, **attrs)[0]

    def add_multi(
        self,
        op: str,
        inputs: tuple[str, ...] | list[str],
        sources: tuple[str, ...] = (),
        names: tuple[str | None, ...] | None = None,
        **attrs: AttrValue,
    ) -> tuple[str, ...]:
        """Append a node of several results; ``names`` are taken where they are free."""
        from egc.ir.infer import infer

        order = tuple((key, attrs[key]) for key, _ in OPS[op].attrs)
        types = infer(op, tuple(self.types[name] for name in inputs), dict(order))
        wanted = names or (None,) * len(types)
        outputs = tuple(name if name and name not in self.types else self.fresh("v") for name in wanted)
        self.types.update(zip(outputs, types, strict=True))
        self._nodes.append(Node(op, tuple(inputs), outputs, order, sources))
        return outputs

    def fresh(self, prefix: str) -> str:
        """A value name that is not taken."""
        while True:
            self._fresh += 1
            if (name := f"{prefix}{self._fresh}") not in self.types:
                return name

    def finish(self, outputs: tuple[str, ...] | list[str]) -> Graph:
        """The graph of what ``outputs`` need: nodes and constants that nothing reads are left out."""
        needed = set(outputs)
        kept: list[Node] = []
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        kept.reverse()
        constants = {name: c for name, c in self.constants.items() if name in needed}
        live = {*self._inputs, *constants, *(out for node in kept for out in node.outputs)}
        types = {name: t for name, t in self.types.items() if name in live}
        return Graph(self.name, tuple(self._inputs), tuple(outputs), tuple(kept), types, constants)

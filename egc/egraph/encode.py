"""Writing a Graph as egglog terms.

Value i of the graph is named ``(Id i)``; every node's term refers to its operands by these names, so terms
stay flat. Operands of a scalar function get one rank (a reshape is inserted where numpy would align them) and
a constant operand of a commutative function comes second, so that rules need one pattern, not four.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from egc.egraph.terms import Terms
from egc.egraph.vocabulary import NAME, constructor_of
from egc.ir.graph import Graph, Node

COMMUTATIVE = frozenset(
    {"add", "mul", "min", "max", "and", "or", "xor", "bit_and", "bit_or", "bit_xor", "eq", "ne"}
)

# A uniform constant is written by value only where a double holds it exactly.
_EXACT = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int32",
    "int64",
    "int8",
    "int16",
    "uint8",
    "uint16",
    "uint32",
)
_EXACT_LIMIT = 2**53


class Encoded(Struct, frozen=True):
    """The commands that build a graph's e-graph, and the ``Id`` of every value."""

    commands: tuple[Any, ...]
    ids: Mapping[str, int]


def encode(graph: Graph, terms: Terms) -> Encoded:
    """The commands that insert ``graph``, its types and the constness of its constants."""
    encoder = _Encoder(graph, terms)
    for name in graph.inputs:
        encoder.define(name, terms.call("Input", terms.literal(name)))
    for name in graph.constants:
        encoder.constant(name)
    for node in graph.nodes:
        encoder.node(node)
    return Encoded(tuple(encoder.commands), encoder.ids)


class _Encoder:
    def __init__(self, graph: Graph, terms: Terms) -> None:
        self.graph = graph
        self.terms = terms
        self.commands: list[Any] = []
        self.ids: dict[str, int] = {}

    def id(self, name: str) -> Any:
        return self.terms.call(NAME, self.terms.literal(self.ids[name]))

    def define(self, name: str, term: Any) -> None:
        """Name ``term`` as the value ``name`` and state its type."""
        terms = self.terms
        self.ids[name] = len(self.ids)
        type_ = self.graph.types[name]
        constant = terms.literal(name in self.graph.constants)
        row = (self.id(name), term, terms.dims(type_.shape), terms.literal(type_.dtype), constant)
        self.commands.append(terms.assert_(terms.call("value", *row)))

    def part(self, name: str, term: Any) -> Any:
        """Name a part of a node's term, so that facts about it can be told of the node."""
        self.ids[name] = len(self.ids)
        self.commands.append(self.terms.union(self.id(name), term))
        return self.id(name)

    def constant(self, name: str) -> None:
        constant = self.graph.constants[name]
        value = constant.splat
        exact = constant.type.dtype in _EXACT and value is not None and abs(value) <= _EXACT_LIMIT
        # A NaN is not equal to itself: rules, and whoever looks e-nodes up, had better meet a name.
        by_value = isinstance(value, float) and value == value and constant.type.dtype in _EXACT
        if not exact and not by_value:
            self.define(name, self.terms.call("Const", self.terms.literal(constant.digest)))
            return
        assert value is not None
        splat = self.terms.call(
            "Splat", self.terms.literal(constant.type.dtype), self.terms.literal(float(value))
        )
        if constant.type.rank:
            splat = self.terms.call("Expand", splat, self.terms.dims(constant.type.shape))
        self.define(name, splat)

    def node(self, node: Node) -> None:
        terms = self.terms
        constructor = constructor_of(node.op, len(node.inputs))
        attrs = dict(node.attrs)
        if node.op == "concat":
            self.concat(node)
            return
        operands = list(map(self.id, self.ordered(node)))
        if node.op == "map":
            operands = [self.aligned(name, node) for name in self.ordered(node)]
        args: list[Any] = []
        for name, sort in constructor.args:
            if name == "operand":
                args.append(operands.pop(0))
            elif name == "operands":
                args.append(terms.vector(operands))
            else:
                args.append(terms.attr(sort, attrs[name]))
        term = terms.call(constructor.name, *args)
        if not constructor.multi:
            self.define(node.output, term)
            return
        for i, output in enumerate(node.outputs):
            self.define(output, terms.call("Output", term, terms.literal(i)))

    def ordered(self, node: Node) -> tuple[str, ...]:
        """The operands, a constant second where order does not matter."""
        if node.op == "map" and node.attr("fn") in COMMUTATIVE:
            a, b = node.inputs
            if a in self.graph.constants and b not in self.graph.constants:
                return b, a
        return node.inputs

    def aligned(self, name: str, node: Node) -> Any:
        """An operand of a scalar function, with leading extents of 1 up to the result's rank."""
        rank = self.graph.types[node.output].rank
        type_ = self.graph.types[name]
        if type_.rank in (0, rank):
            return self.id(name)
        return self.terms.call(
            "Reshape", self.id(name), self.terms.dims((1,) * (rank - type_.rank) + type_.shape)
        )

    def concat(self, node: Node) -> None:
        if len(node.inputs) == 1:
            term = self.terms.call(
                "Reshape", self.id(node.inputs[0]), self.terms.dims(self.graph.types[node.output].shape)
            )
        else:
            axis = self.terms.attr("i64", node.attr("axis"))
            term = self.id(node.inputs[0])
            for i, name in enumerate(node.inputs[1:], 1):
                term = self.terms.call("Concat", term, self.id(name), axis)
                if i < len(node.inputs) - 1:
                    term = self.part(f"{node.output}#{i}", term)
        self.define(node.output, term)

"""The operator table: one entry for every ONNX operator that egc spells in its own primitives.

    @operator("Softplus", family="activation")
    def softplus(ctx: Context, node: OnnxNode) -> Sequence[str]:
        return [ctx.map("softplus", node.inputs[0])]

An entry turns one ONNX node into graph nodes and returns the values of the node's outputs. It raises
:class:`NotCompiled` where egc has no spelling for this use of the operator (the node then runs on the host,
and is reported) and :class:`NodeError`, usually through ``ctx.fail``, where the node itself is wrong.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct, field

if TYPE_CHECKING:
    from egc.frontend.context import Context

# The modules of this package that hold operators, one for each family.
FAMILIES = (
    "activation",
    "arithmetic",
    "attention",
    "contract",
    "control",
    "conv",
    "gather",
    "ml",
    "norm",
    "pool",
    "quant",
    "reduction",
    "resize",
    "rnn",
    "sample",
    "shape",
    "signal",
    "tensor",
    "training",
)
DOMAINS: Mapping[str, str] = {"ai.onnx": ""}


class NotCompiled(Exception):
    """This use of the operator has no spelling in egc's primitives; the text says why.
    The node goes to the host.
    """


class NodeError(Exception):
    """The node is wrong: ``why`` and a ``hint`` of what to try."""

    def __init__(self, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.why, self.hint = why, hint


class OnnxNode(Struct, frozen=True):
    """An ONNX node with its operands resolved.

    ``version`` is the opset that introduced the form of the operator in force (its ``since_version``),
    ``opset`` the model's opset of this domain. ``inputs`` are egc values, None where an optional operand is
    absent. ``attributes`` are Python values: numbers, strings, lists of them, numpy arrays for tensors,
    GraphProtos for subgraphs. ``outputs`` are the ONNX names, "" where an optional output is absent.
    """

    op_type: str
    domain: str
    name: str
    version: int
    opset: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def input(self, index: int) -> str | None:
        """Operand ``index``; None where it is absent, however that is spelled."""
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> str:
        """Operand ``index``; NodeError where it is absent."""
        value = self.input(index)
        if value is None:
            raise NodeError(f"operand {index} is missing")
        return value

    def attr(self, name: str, default: Any = None) -> Any:
        """Attribute ``name``, or ``default`` where the node has none."""
        return self.attributes.get(name, default)

    def wants(self, index: int) -> bool:
        """Whether the node names an output number ``index``."""
        return index < len(self.outputs) and self.outputs[index] != ""

    def __str__(self) -> str:
        return node_title(self.domain, self.op_type, self.name, self.outputs)


def node_title(domain: str, op_type: str, name: str, outputs: Iterable[str]) -> str:
    """What messages and ``Node.sources`` call an ONNX node."""
    title = f"{domain}.{op_type}" if domain else op_type
    if name:
        return f"node {name!r} ({title})"
    return f"node {title} -> {', '.join(output for output in outputs if output)}"


Emit: TypeAlias = "Callable[[Context, OnnxNode], Sequence[str | None]]"


class Operator(Struct, frozen=True):
    """One entry of the table."""

    op_type: str
    domain: str
    family: str
    emit: Emit


_TABLE: dict[tuple[str, str], Operator] = {}


def operator(*op_types: str, family: str, domain: str = "") -> Callable[[Emit], Emit]:
    """Enter the decorated function into the table as the meaning of ``op_types``."""

    def enter(emit: Emit) -> Emit:
        for op_type in op_types:
            if (domain, op_type) in _TABLE:
                raise ValueError(f"{op_type} is in the operator table twice")
            _TABLE[domain, op_type] = Operator(op_type, domain, family, emit)
        return emit

    return enter


@cache
def operators() -> Mapping[tuple[str, str], Operator]:
    """The whole table, by (domain, operator)."""
    for family in FAMILIES:
        importlib.import_module(f"egc.frontend.{family}")
    return _TABLE


def find(domain: str, op_type: str) -> Operator | None:
    """The entry of an operator; None where egc has none of its own."""
    return operators().get((normal_domain(domain), op_type))


def normal_domain(domain: str) -> str:
    """The domain's one spelling: ``ai.onnx`` is the same as the empty name."""
    return DOMAINS.get(domain, domain)


def families() -> Iterable[str]:
    """The families' names as the table knows them, sorted."""
    return sorted({entry.family for entry in operators().values()})

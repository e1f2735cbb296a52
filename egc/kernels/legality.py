"""Kinds of nodes for fusion, and the edges that may lie inside one kernel when no rule file says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from egc.ir.dims import Dim
from egc.ir.expr import Call, Load, expand_definitions, walk
from egc.ir.graph import Graph, Node
from egc.ir.ops import VIEWS
from egc.ir.scalar import FUNCTIONS
from egc.ir.types import itemsize
from egc.kernels.lower import SCATTERS, can_lower
from egc.kernels.reductions import REDUCTIONS
from egc.kernels.rows import ROWWISE

_LANE_BYTES = 4
Legal = Mapping[tuple[str, str], str]
CONTRACTIONS = frozenset({"matmul", "conv", "conv_channels_last"})
MAPS = frozenset({"map", "cast"})
GATHERS = frozenset({"gather", "gather_elements", "gather_nd"})
SOURCES = frozenset({"iota", "dim"})
POINTWISE = MAPS | GATHERS | SOURCES
ANCHORS = REDUCTIONS | ROWWISE
NORMALISATIONS = frozenset({"softmax", "layer_norm", "rms_norm"})


def structurally_legal(graph: Graph) -> Legal:
    """The edges that one kernel can hold by its form alone, named ``structure``; for tests and tools."""
    legal: dict[tuple[str, str], str] = {}
    for user in graph.nodes:
        for value in user.inputs:
            producer = graph.producer.get(value)
            if producer is None or not (can_lower(user, graph) and can_lower(producer, graph)):
                continue
            inlined = producer.op in POINTWISE | VIEWS
            stored = producer.op in ANCHORS and user.op in MAPS | VIEWS | {"pad", "concat"}
            if inlined or stored or (producer.op, user.op) in (("concat", "concat"), ("pad", "concat")):
                legal[value, user.output] = "structure"
    return legal


def flops(node: Node) -> int:
    """Vector instructions for one element of a map; views and loads cost none."""
    return FUNCTIONS[str(node.attr("fn"))].flops if node.op == "map" else int(node.op in MAPS | GATHERS)


def spelled(node: Node) -> tuple[int, tuple[int, ...]]:
    """How many calls ``node`` adds to an expression, and how often each of its operands stands in it: a
    function that is defined by others may name an operand several times.
    """
    return _spelled(str(node.attr("fn"))) if node.op == "map" else (1, (1,) * len(node.inputs))


@lru_cache
def _spelled(fn: str) -> tuple[int, tuple[int, ...]]:
    operands = tuple(Load(str(i), (), "float32") for i in range(FUNCTIONS[fn].arity))
    parts = Counter(walk(expand_definitions(Call(fn, operands, "float32"))))
    return sum(n for part, n in parts.items() if isinstance(part, Call)), tuple(parts[x] for x in operands)


def work(node: Node, graph: Graph) -> int:
    """Like ``flops``, in instructions on 4-byte lanes: 8-byte elements take two, their conversions three."""
    widest = max((itemsize(graph.types[name].dtype) for name in (*node.inputs, *node.outputs)), default=4)
    if widest <= _LANE_BYTES:
        return flops(node)
    return flops(node) * (3 if node.op == "cast" else 2)


def estimate(dim: Dim, typical: int = 64) -> int:
    """A size as a number, symbols standing for a typical extent: good enough to weigh traffic."""
    from egc.ir.dims import DimError, evaluate, symbols_of

    try:
        return max(evaluate(dim, dict.fromkeys(symbols_of(dim), typical)), 0)
    except DimError:
        return typical


__all__ = [
    "ANCHORS",
    "CONTRACTIONS",
    "POINTWISE",
    "SCATTERS",
    "Legal",
    "estimate",
    "flops",
    "spelled",
    "structurally_legal",
    "work",
]

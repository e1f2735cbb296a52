"""What a graph takes for granted about extents that only the run knows.

Two symbolic dims that meet in an addition are taken as equal, a symbolic slice as inside its operand. Kernels
rely on it with every address that they compute, so the run checks it before the first kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from egc.ir.dims import Dim, Shape, SymDim, dim_min, product
from egc.ir.extents import at_least, at_most_one, simplify
from egc.ir.graph import Graph, Node
from egc.ir.infer import broadcast
from egc.ir.types import TensorType

Relation = Literal["==", "<="]


class Requirement(Struct, frozen=True):
    """``left relation right`` has to hold for the dims of a run; ``where`` names the ONNX nodes."""

    left: Dim
    relation: Relation
    right: Dim
    where: str


_Pairs = Iterator[tuple[Dim, Relation, Dim]]


def requirements(graph: Graph) -> tuple[Requirement, ...]:
    """What has to hold for a graph to be meaningful, each once; what always holds is left out."""
    found: dict[tuple[Dim, Relation, Dim], Requirement] = {}
    for node in graph.nodes:
        for left, relation, right in _of_node(node, [graph.types[name] for name in node.inputs]):
            if not _always(left, relation, right):
                requirement = Requirement(left, relation, right, ", ".join(node.sources))
                found.setdefault((left, relation, right), requirement)
    return tuple(found.values())


def _always(left: Dim, relation: Relation, right: Dim) -> bool:
    rest = right - left
    if relation == "==":
        return simplify(rest) == 0
    return at_least(rest, 0)


def _of_node(node: Node, types: Sequence[TensorType]) -> _Pairs:
    shapes = [type_.shape for type_ in types]
    match node.op:
        case "map":
            yield from _broadcast(shapes)
        case "matmul":
            yield shapes[0][-1], "==", shapes[1][-2]
            yield from _broadcast([shape[:-2] for shape in shapes])
        case "conv":
            yield shapes[0][1], "==", shapes[1][1] * int(str(node.attr("groups")))
        case "expand":
            yield from _broadcast([shapes[0], _dims(node, "shape")])
        case "reshape":
            yield product(shapes[0]), "==", product(_dims(node, "shape"))
        case "concat":
            axis = node.attr("axis")
            for other in shapes[1:]:
                pairs = zip(shapes[0], other, strict=True)
                yield from ((a, "==", b) for i, (a, b) in enumerate(pairs) if i != axis)
        case "slice":
            yield from _inside(node, shapes[0])
        case "topk":
            yield _dims(node, "k")[0], "<=", shapes[0][int(str(node.attr("axis")))]
        case "gather_nd":
            batch = int(str(node.attr("batch_dims")))
            yield from ((a, "==", b) for a, b in zip(shapes[0][:batch], shapes[1][:batch], strict=True))
        case "gather_elements":
            axis = node.attr("axis")
            pairs = zip(shapes[1], shapes[0], strict=True)
            yield from ((a, "<=", b) for i, (a, b) in enumerate(pairs) if i != axis)
        case "scatter_elements":
            yield from ((a, "==", b) for a, b in zip(shapes[1], shapes[2], strict=True))


def _dims(node: Node, name: str) -> Shape:
    value = node.attr(name)
    assert isinstance(value, tuple)
    return value


def _broadcast(shapes: Sequence[Shape]) -> _Pairs:
    """Extents that stand over each other are equal, but for those that are 1 whatever the run. One that may
    be 0 instead must not be, unless nothing is read of it.
    """
    result = broadcast(*shapes)
    for shape in shapes:
        for extent, wide in zip(reversed(shape), reversed(result), strict=False):
            if extent in (1, wide):
                continue
            if isinstance(extent, SymDim) and at_most_one(extent):
                yield dim_min(1, wide), "<=", extent
            else:
                yield wide, "==", extent


def _inside(node: Node, shape: Shape) -> _Pairs:
    """The first and the last element of each range are elements of the operand."""
    ranges = zip(_dims(node, "starts"), _dims(node, "sizes"), _dims(node, "steps"), shape, strict=True)
    for start, size, step, extent in ranges:
        assert isinstance(step, int)
        if all(not isinstance(dim, SymDim) for dim in (start, size, extent)):
            continue
        # Where the size is 0 the last element lies a step before the first, and both hold.
        last = start + (size - 1) * step
        low, high = (start, last) if step > 0 else (last, start)
        yield 0, "<=", low
        yield high, "<=", extent - 1

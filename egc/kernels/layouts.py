"""Physical layouts of values between kernels: dims stored in another order than the graph's.

The scores of attention are q @ k^T: the innermost loop runs over keys, which lie a row apart in k. Where k
passes from one kernel to another and nobody else reads it, it is stored with its keys innermost: the
writer's stores are strided once, the reader's loads, which meet every element once for each query, become
contiguous.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from egc.ir.dims import symbol
from egc.ir.expr import Load
from egc.ir.graph import Graph, Node
from egc.ir.kernel import Stage
from egc.ir.types import TensorType
from egc.kernels.collapse import picked, reindexed
from egc.kernels.elements import Elements
from egc.kernels.group import Group

Layouts = Mapping[str, tuple[int, ...]]  # the graph's dims of a value in the order of memory, outermost first


def physical_layouts(graph: Graph, groups: tuple[Group, ...]) -> Layouts:
    """The values that are stored in an order of dims of their own; all others are row-major."""
    readers: dict[str, int] = {}
    inside = {node.output for group in groups for node in group.nodes}
    for group in groups:
        for name in group.inputs:
            readers[name] = readers.get(name, 0) + 1
    for node in graph.nodes:
        if node.output not in inside:
            # A host node reads arrays as the graph says they are.
            readers.update((name, 2) for name in node.inputs)
    writers = {group.root: group for group in groups if group.into is None}
    found: dict[str, tuple[int, ...]] = {}
    for group in groups:
        for node in group.nodes:
            if node.op != "attention":
                continue
            layout = _keys_innermost(graph, group, node)
            if layout and layout[0] in writers and readers[layout[0]] == 1 and layout[0] not in graph.outputs:
                found[layout[0]] = layout[1]
    return found


def _keys_innermost(graph: Graph, group: Group, node: Node) -> tuple[str, tuple[int, ...]] | None:
    """(value in memory, order of its dims, keys last); None where keys and features are no dims."""
    el = Elements(graph, group.nodes)
    keys = node.inputs[1]
    index = [symbol(el.name("v")) for _ in graph.types[keys].shape]
    element = el.at(keys, tuple(index))
    if not isinstance(element, Load) or not element.index or element.index[-1] != index[-1]:
        return None
    rank = len(element.index)
    places = [d for d, i in enumerate(element.index) if i == index[-2]]
    if len(places) != 1 or element.guards:
        return None
    return element.buffer, (*(d for d in range(rank) if d != places[0]), places[0])


def relaid(
    stages: tuple[Stage, ...], types: Mapping[str, TensorType], layouts: Layouts
) -> tuple[tuple[Stage, ...], Mapping[str, TensorType]]:
    """Stages and types with every access to a value in its physical order of dims."""
    used = {stage.out for stage in stages} | {load.buffer for stage in stages for load in stage.loads()}
    out = dict(types)
    for name in used & layouts.keys():
        order = layouts[name]
        out[name] = replace(types[name], shape=tuple(types[name].shape[d] for d in order))
        stages = tuple(reindexed(stage, name, picked(order)) for stage in stages)
    return stages, out

"""Groups with more than one written value, and values that more than one group writes.

After every value is either written or inlined, two kinds of neighbours still gain by one kernel:

- A row-wise kernel reads rows that a purely elementwise kernel writes for it and for others (the residual
sum before a normalisation): it computes and writes those rows itself. - A concatenation copies an operand
that another kernel writes for it alone: that kernel writes into the concatenation.
"""

from __future__ import annotations

from msgspec.structs import replace

from egc.ir.dims import Dim
from egc.ir.graph import Graph, Node
from egc.kernels.elements import LoweringError
from egc.kernels.group import Group
from egc.kernels.legality import ANCHORS, NORMALISATIONS, Legal
from egc.kernels.lower import concat_parts, lower
from egc.kernels.order import runnable


def merged(graph: Graph, legal: Legal, groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """The groups after both improvements, in an order in which they can run."""
    out = {group.root: group for group in groups}
    for group in groups:
        _absorb_rows(graph, legal, out, group)
    for group in tuple(out.values()):
        _write_in_place(graph, legal, out, group)
    return ordered(graph, tuple(out.values()))


def _absorb_rows(graph: Graph, legal: Legal, groups: dict[str, Group], group: Group) -> None:
    anchor = next((node for node in group.nodes if node.op in NORMALISATIONS), None)
    if anchor is None:
        return
    value = anchor.inputs[0]
    rows, rule = groups.get(value), legal.get((value, anchor.output))
    if rows is None or rule is None or rows.outputs != (value,) or 0 in graph.types[value].shape:
        return
    if any(node.op in ANCHORS or node.op in ("concat", "pad") for node in rows.nodes):
        return
    others = tuple(name for name in group.inputs if name != value)
    if _depends(graph, others, value):
        return
    inputs = tuple(dict.fromkeys((*rows.inputs, *others)))
    rules = tuple(dict.fromkeys((*rows.fused_by, *group.fused_by, rule)))
    both = Group((*rows.nodes, *group.nodes), inputs, (*group.outputs, value), rules)
    try:
        lower(graph, both, "trial")
    except LoweringError:
        return
    del groups[value]
    groups[group.root] = both


def _depends(graph: Graph, values: tuple[str, ...], on: str) -> bool:
    """Whether computing any of ``values`` needs the value ``on``."""
    seen: set[str] = set()
    stack = list(values)
    while stack:
        name = stack.pop()
        if name == on:
            return True
        if name not in seen and name in graph.producer:
            seen.add(name)
            stack.extend(graph.producer[name].inputs)
    return False


def _write_in_place(graph: Graph, legal: Legal, groups: dict[str, Group], group: Group) -> None:
    """Let the kernels of a concatenation's operands write into it."""
    if group.root not in groups:
        return
    concat = graph.producer[group.root]
    if concat.op != "concat" or group.into:
        return
    origin: tuple[Dim, ...] = (0,) * graph.types[concat.output].rank
    parts = list(concat_parts(graph, group.nodes, concat, origin))
    placed: list[str] = []
    for operand, offset in parts:
        reader = graph.users[operand][0]
        rule = legal.get((operand, reader.output))
        writer = groups.get(operand)
        if [part for part, _ in parts].count(operand) > 1:
            continue
        if rule is None or writer is None or not _only_reader(graph, operand, reader) or writer.into:
            continue
        if writer.outputs[0] != operand or graph.producer[operand].op in (
            "concat",
            "scatter_elements",
            "scatter_nd",
        ):
            continue
        rules = tuple(dict.fromkeys((*writer.fused_by, rule)))
        groups[operand] = replace(writer, into=(concat.output, offset), fused_by=rules)
        placed.append(operand)
    if not placed:
        return
    inputs = tuple(name for name in group.inputs if name not in placed)
    groups[group.root] = replace(group, inputs=inputs, placed=tuple(placed))
    if len(placed) == len(parts):
        # Nothing is left to copy: the last writer stands for the concatenation.
        last = groups[placed[-1]]
        groups[placed[-1]] = replace(last, nodes=(*last.nodes, *group.nodes))
        del groups[group.root]


def _only_reader(graph: Graph, value: str, reader: Node) -> bool:
    return graph.users[value] == (reader,) and value not in graph.outputs


def ordered(graph: Graph, groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """The groups in an order in which they can run, with the nodes that no group computes in between."""
    position = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
    inside = {node.output for group in groups for node in group.nodes}
    others = [node for node in graph.nodes if node.output not in inside]
    steps: list[Group | Node] = [*groups, *others]
    steps.sort(key=lambda step: position[step.root if isinstance(step, Group) else step.output])
    writes = [step.writes if isinstance(step, Group) else step.outputs for step in steps]
    found = runnable(steps, [step.inputs for step in steps], writes)
    return tuple(step for step in found if isinstance(step, Group))

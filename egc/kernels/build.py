"""The calls of a whole graph: groups lowered, equal kernels shared, host nodes in between."""

from __future__ import annotations

from msgspec.structs import replace

from egc.ir.graph import Graph
from egc.ir.kernel import Kernel
from egc.kernels.canonical import kernel_key
from egc.kernels.group import Group, HostCall, KernelCall
from egc.kernels.layouts import physical_layouts
from egc.kernels.legality import ANCHORS, Legal
from egc.kernels.lower import can_lower, lower
from egc.kernels.order import runnable
from egc.kernels.partition import partition

_NAME_PARTS = 4


def build_kernels(graph: Graph, legal: Legal) -> tuple[KernelCall | HostCall, ...]:
    """The calls that compute ``graph``, in an order in which they can run.

    ``legal`` maps (producer value, consumer's first output) to the rule that lets both share a kernel.
    Kernels that are equal but for names are one object, named after what they compute and a hash.
    """
    kernels: dict[str, Kernel] = {}
    calls: list[KernelCall | HostCall] = []
    groups = partition(graph, legal)
    layouts = physical_layouts(graph, groups)
    for group in groups:
        lowered = lower(graph, group, "kernel", layouts)
        key = kernel_key(lowered.kernel)
        if key not in kernels:
            kernels[key] = replace(lowered.kernel, name=f"{_title(group)}_{key[:10]}")
        calls.append(KernelCall(kernels[key], lowered.args, group.nodes, group.fused_by))
    calls += [HostCall(node) for node in graph.nodes if not can_lower(node, graph)]
    position = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
    calls.sort(key=lambda call: max(position[name] for name in _writes(call)))
    return tuple(runnable(calls, [_reads(call) for call in calls], [_writes(call) for call in calls]))


def _title(group: Group) -> str:
    """The operators of a group, the reduction first: what a kernel is called in reports."""
    nodes = sorted(group.nodes, key=lambda node: node.op not in ANCHORS)
    names = [str(node.attr("fn")) if node.op == "map" else node.op for node in nodes]
    short = list(dict.fromkeys(names))
    return "_".join(short[:_NAME_PARTS]) + ("_etc" if len(short) > _NAME_PARTS else "")


def _reads(call: KernelCall | HostCall) -> tuple[str, ...]:
    if isinstance(call, HostCall):
        return call.node.inputs
    return tuple(v for param, v in zip(call.kernel.params, call.args, strict=True) if param.role == "in")


def _writes(call: KernelCall | HostCall) -> tuple[str, ...]:
    if isinstance(call, HostCall):
        return call.node.outputs
    return tuple(v for param, v in zip(call.kernel.params, call.args, strict=True) if param.role == "out")

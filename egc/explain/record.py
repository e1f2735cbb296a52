"""What really happened in a compilation, as plain data: the record that is stored in the artifact and that
every explanation reads. ``docs/explain.md`` describes it, key by key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from egc.egraph.engine import FACTS, FUSION, PHASES
from egc.explain.derive import Account, account
from egc.ir.graph import Graph, Node, print_attr
from egc.ir.kernel import print_kernel
from egc.ir.nest import Nest, print_nest
from egc.kernels import HostCall, KernelCall

if TYPE_CHECKING:
    from egc.codegen.gpu import BuiltDevice
    from egc.codegen.jobs import BuiltKernel
    from egc.egraph import Snapshot
    from egc.extract import Extraction
    from egc.frontend.importer import Imported
    from egc.machine import Machine
    from egc.rules import Rule, RuleBook
    from egc.schedule import Cost
    from egc.schedule.gpu_machine import GpuMachine

VERSION = 1

Call = KernelCall | HostCall


def build_record(
    imported: Imported,
    book: RuleBook,
    machine: Machine | GpuMachine,
    snapshot: Snapshot,
    extraction: Extraction,
    calls: Sequence[Call],
    kernels: Mapping[str, BuiltKernel | BuiltDevice],
    seconds: Mapping[str, float],
    source: dict[str, Any],
) -> dict[str, Any]:
    """The record of one compilation, JSON-ready. ``seconds`` are the stages' times so far; ``source`` is what
    :func:`egc.explain.source.source_of` says."""
    accounted = account(imported, snapshot, extraction, calls, machine.rates)
    return {
        "version": VERSION,
        "model": imported.graph.name,
        "machine": {
            "name": machine.name,
            "description": machine.description,
            "symbolic_extent": machine.symbolic_extent,
        },
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
        "growth": [asdict(growth) for growth in snapshot.growth],
        "extraction": dict(extraction.costs),
        "onnx": accounted.origins,
        "inputs": list(extraction.graph.inputs),
        "outputs": list(extraction.graph.outputs),
        "graph": [_node(node, extraction.graph) for node in extraction.graph.nodes],
        "calls": [_call(i, call, kernels, accounted, extraction.graph) for i, call in enumerate(calls)],
        "kernels": {name: _kernel(built) for name, built in kernels.items()},
        "steps": accounted.steps,
        "rules": {rule.name: _rule(rule, accounted) for rule in book.rules},
        "left_out": dict(book.left_out),
        "source": source,
    }


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """The record as an artifact holds it: what was measured while compiling left out, so that bytes
    repeat."""
    kernels = {name: {**kernel, "build_seconds": None} for name, kernel in record["kernels"].items()}
    growth = [{**phase, "seconds": None} for phase in record["growth"]]
    return {**record, "seconds": {}, "growth": growth, "kernels": kernels}


def _node(node: Node, graph: Graph) -> dict[str, Any]:
    return {
        "op": node.op,
        "attrs": {key: print_attr(value) for key, value in node.attrs},
        "inputs": list(node.inputs),
        "outputs": list(node.outputs),
        "types": [str(graph.types[name]) for name in node.outputs],
    }


def _call(
    index: int, call: Call, kernels: Mapping[str, BuiltKernel | BuiltDevice], accounted: Account, graph: Graph
) -> dict[str, Any]:
    if isinstance(call, HostCall):
        return {
            "kind": "host",
            "kernel": None,
            "onnx": list(accounted.covered[index]),
            "nodes": [call.node.output],
            "reads": list(call.node.inputs),
            "writes": list(call.node.outputs),
            "fused_by": [],
            "derivation": list(accounted.derivations[index]),
            "alternatives": [],
            "lost": {},
            "predicted": None,
        }
    params = list(zip(call.kernel.params, call.args, strict=True))
    return {
        "kind": "kernel",
        "kernel": call.kernel.name,
        "onnx": list(accounted.covered[index]),
        "nodes": [node.output for node in call.nodes],
        "reads": list(dict.fromkeys(v for p, v in params if p.role == "in" and v not in graph.constants)),
        "constants": list(dict.fromkeys(v for p, v in params if v in graph.constants)),
        "writes": [v for p, v in params if p.role == "out"],
        "fused_by": list(call.fused_by),
        "derivation": list(accounted.derivations[index]),
        "alternatives": accounted.alternatives[index],
        "lost": accounted.lost_in[index],
        "predicted": kernels[call.kernel.name].scheduled.cost.seconds,
    }


def _kernel(built: BuiltKernel | BuiltDevice) -> dict[str, Any]:
    scheduled = built.scheduled
    return {
        "text": "\n".join(print_kernel(scheduled.nest.kernel)),
        "nest": nest_text(scheduled.nest),
        "cost": cost_terms(scheduled.cost),
        "alternatives": [
            {"nest": nest_text(nest), "cost": cost_terms(cost)} for nest, cost in scheduled.alternatives
        ],
        "rules": list(scheduled.rules),
        "cells": scheduled.cells,
        "stopped": scheduled.stopped,
        "code_bytes": len(built.object),
        "build_seconds": round(built.seconds, 4),
    }


def nest_text(nest: Nest) -> str:
    """A nest's packs and loops, without the kernel that they run over."""
    kernel_lines = sum(1 for _ in print_kernel(nest.kernel))
    return "\n".join(list(print_nest(nest))[kernel_lines:])


def cost_terms(cost: Cost) -> dict[str, float]:
    """A predicted cost in seconds: its terms, and ``total``, in which they overlap."""
    return {**cost.terms, "total": cost.seconds}


def _stage(rule: Rule) -> str:
    """Which e-graph a rule works in: ``graph``, ``fusion`` or ``loops``."""
    if rule.ruleset == FUSION:
        return "fusion"
    return "graph" if rule.ruleset in {FACTS, *(name for _, names in PHASES for name in names)} else "loops"


def _rule(rule: Rule, accounted: Account) -> dict[str, Any]:
    return {
        "stage": _stage(rule),
        "class": rule.rule_class.value,
        "ruleset": rule.ruleset,
        "at": rule.location,
        "math": rule.notes.math,
        "doc": rule.notes.doc,
        "matches": accounted.matches.get(rule.name, 0),
        "lost": accounted.lost.get(rule.name, []),
    }

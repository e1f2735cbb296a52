"""The way through once more, from a record: what a record cannot say is asked of the e-graph itself,
saturated again from what :mod:`egc.explain.source` noted.

Constants whose content the record does not hold are placeholders, and so is what folds from them. Two folded
constants that are equal by value only, or one that turns out to be uniform, would be seen when compiling and
are not seen here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from egc.codegen.gpu import device_saturator
from egc.codegen.jobs import loop_rules
from egc.codegen.workshop import Workshop
from egc.compiler import distinct_kernels, extracted, kernels_of, saturated
from egc.egraph import Snapshot
from egc.errors import UsageError
from egc.explain.derive import coverage
from egc.explain.source import Record, made_by
from egc.frontend.importer import Imported, Origin, Port
from egc.ir.dims import extents
from egc.ir.graph import Constant
from egc.ir.kernel import Kernel
from egc.ir.text import parse_graph
from egc.ir.types import numpy_dtype
from egc.kernels import KernelCall
from egc.machine import Machine, load_machine
from egc.options import Options, RuleChoice
from egc.rules import RuleBook, load_rules
from egc.schedule import schedule
from egc.schedule.gpu import schedule_device
from egc.schedule.gpu_machine import GpuMachine, load_gpu_machine


class Again(Struct, frozen=True):
    """A model as a record holds it: imported, with its options and its machine."""

    record: Record
    imported: Imported
    options: Options
    machine: Machine | GpuMachine

    def book(self, ban: str | None = None) -> RuleBook:
        """The rules that could fire, without ``ban``; UsageError where there is no rule of that name."""
        disabled = (*self.options.disable_rules, *([] if ban is None else [ban]))
        return load_rules(disabled=disabled, accuracy=self.options.accuracy, extra=self.options.rules)

    def snapshot(self, book: RuleBook) -> Snapshot:
        """The saturated e-graph."""
        return saturated(self.imported.graph, book, self.options)


@contextmanager
def again(record: Record) -> Iterator[Again]:
    """A record's model, ready to be compiled once more; UsageError where this egc would compile it
    differently.

    The user's files are in a temporary folder as long as the context lasts.
    """
    source, name = record["source"], record["machine"]["name"]
    if source["made_by"] != made_by(name):
        raise UsageError(
            "this question compiles the model again, and would not get the program that the artifact holds",
            why="it was compiled by an egc with other rules, or with another cost model",
            hint="compile the model again with this egc",
        )
    with TemporaryDirectory() as folder:
        files = []
        for i, (file, text) in enumerate(source["rules"]):
            # Nothing but a name, and one that is short enough with what stands before it.
            files.append(Path(folder) / f"{i}-{Path(file).name[-60:]}")
            files[-1].write_text(text, encoding="utf-8")
        if source["cost_model"] is not None:
            path = Path(folder) / f"{Path(name).name}.toml"
            path.write_text(source["cost_model"], encoding="utf-8")
            name = str(path)
        known = source["options"]
        disabled = tuple(known["disable_rules"])
        options = Options(**{**known, "rules": tuple(files), "disable_rules": disabled, "cost_model": name})
        machine = (load_gpu_machine if options.target == "gpu" else load_machine)(name)
        yield Again(record, _imported(record), options, machine)


def _imported(record: Record) -> Imported:
    """The imported model; its inputs' names are the graph's."""
    source = record["source"]
    graph = parse_graph(source["graph"])
    graph = replace(
        graph,
        constants={name: _filled(constant, source["values"]) for name, constant in graph.constants.items()},
    )
    ports = zip(source["outputs"], graph.outputs, strict=True)
    outputs = tuple(Port(name, value, graph.types[value]) for name, value in ports)
    origins = tuple(
        Origin(node["title"], node["name"], node["op"], tuple(node["inputs"]), tuple(node["outputs"]), fate)
        for node, fate in zip(record["onnx"], source["fates"], strict=True)
    )
    return Imported(graph, (), outputs, (), len(origins), origins)


def _filled(constant: Constant, values: Mapping[str, str]) -> Constant:
    """A constant with its content, where the record holds it."""
    content = values.get(constant.digest)
    if content is None:
        return constant
    data = np.frombuffer(base64.b64decode(content), numpy_dtype(constant.type.dtype))
    return Constant(data.reshape(extents(constant.type.shape)))


def without(known: Again, rule: str) -> Record:
    """The program without a rule, as far as :func:`egc.explain.ban.compare` looks at it: ``calls``, each with
    ``kernel``, ``onnx`` and ``predicted``, and ``extraction``. UsageError where there is no such rule.
    """
    options = known.options
    book = known.book(ban=rule)
    with Workshop() as workshop:
        snapshot = known.snapshot(book)
        extraction = extracted(known.imported.graph, snapshot, known.machine.rates, options)
        calls = kernels_of(extraction.graph, book)
        seconds = _already(known.record, book)
        new = [kernel for kernel in distinct_kernels(calls) if kernel.name not in seconds]
        choice = RuleChoice(options.accuracy, (*options.disable_rules, rule), options.rules)
        seconds |= workshop.each(_predicted, new, known.machine, options.threads, choice)
    covered = coverage(known.imported, extraction.graph, calls)
    return {
        "extraction": dict(extraction.costs),
        "calls": [
            {"kernel": call.kernel.name, "onnx": onnx, "predicted": seconds[call.kernel.name]}
            if isinstance(call, KernelCall)
            else {"kernel": None, "onnx": onnx, "predicted": None}
            for call, onnx in zip(calls, covered, strict=True)
        ],
    }


def _already(record: Record, book: RuleBook) -> dict[str, float]:
    """What is known of kernels by their names: all that the record predicts, unless a rule for loops is
    banned."""
    banned = (name for name, why in book.left_out.items() if name in record["rules"])
    if any(record["rules"][name]["stage"] == "loops" for name in banned):
        return {}
    return {name: kernel["cost"]["total"] for name, kernel in record["kernels"].items()}


def _predicted(kernel: Kernel, machine: Machine | GpuMachine, threads: int, choice: RuleChoice) -> float:
    """A kernel's predicted seconds; runs in a worker process."""
    if isinstance(machine, GpuMachine):
        return schedule_device(kernel, machine, saturator=device_saturator(choice)).cost.seconds
    return schedule(kernel, machine, threads=threads, book=loop_rules(choice)).cost.seconds

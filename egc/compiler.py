"""The whole way from a model to a program, one plain function after another.

Every stage's value is kept in :class:`Compiled`: `egc optimize --emit`, `egc explain` and tests look at it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from egc.codegen.link import link
from egc.codegen.program import PlacedKernel, Program, assemble
from egc.codegen.target import Target, check_arch, parse_arch
from egc.codegen.workshop import Workshop
from egc.collector import paused
from egc.egraph import Budget, Snapshot, legal_fusions, saturate
from egc.errors import UsageError
from egc.explain.record import build_record, without_times
from egc.explain.source import source_of
from egc.extract import Extraction, extract
from egc.frontend.importer import Imported, import_model
from egc.frontend.load import Source
from egc.ir.graph import Graph
from egc.kernels import HostCall, KernelCall, build_kernels
from egc.machine import Machine, Rates, load_machine, machine_for
from egc.options import Options, RuleChoice
from egc.rules import RuleBook, load_rules
from egc.runtime.abi import MAX_THREADS
from egc.runtime.artifact import Artifact, artifact_in_memory, write_artifact
from egc.runtime.session import checked_threads
from egc.schedule.gpu_machine import GpuMachine, load_gpu_machine

if TYPE_CHECKING:
    from egc.codegen.gpu import BuiltDevice
    from egc.codegen.jobs import BuiltKernel

# How a time budget is shared out; searches for loops have budgets of their own (egc.schedule).
_SATURATION_SHARE, _EXTRACTION_SHARE = 0.3, 0.1


class Compiled(Struct, frozen=True):
    """A compiled model and the value of every stage on the way; ``seconds`` by stage, in order."""

    imported: Imported
    book: RuleBook
    machine: Machine | GpuMachine
    target: Target
    snapshot: Snapshot
    extraction: Extraction
    calls: tuple[KernelCall | HostCall, ...]
    kernels: Mapping[str, BuiltKernel | BuiltDevice]
    program: Program
    record: dict[str, Any]
    seconds: Mapping[str, float]

    def write(self, path: str | Path) -> None:
        """Write the artifact: all of it or nothing."""
        record = without_times(self.record)
        write_artifact(path, self.program.manifest, self.program.code, self.program.constants, record)

    def report(self) -> dict[str, Any]:
        """What was done, as plain data: `egc optimize` prints it."""
        graph = self.imported.graph
        return {
            "model": graph.name,
            "nodes": self.imported.nodes,
            "steps": len(self.calls),
            "kernels": len(self.kernels),
            "host": list(self.program.manifest.coverage.host),
            "saturation": [asdict(growth) for growth in self.snapshot.growth],
            "extraction": dict(self.extraction.costs),
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
        }

    def artifact(self) -> Artifact:
        """The artifact without a file."""
        return artifact_in_memory(
            self.program.manifest, self.program.code, self.program.constants, without_times(self.record)
        )


class _Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@paused()
def compile_model(
    source: Source, options: Options | None = None, workshop: Workshop | None = None
) -> Compiled:
    """Compile a model (a path, bytes or a ModelProto); errors are EgcError.

    Whoever compiles many models gives one ``workshop`` for all of them, and closes it.
    """
    options = options or Options()
    if options.target not in ("cpu", "gpu"):
        raise UsageError(f"unknown target {options.target!r}", hint="--target cpu or --target gpu")
    threads = checked_threads(default_threads() if options.threads is None else options.threads)
    clock = _Clock()
    machine = _machine(options)
    # Worker processes start now, while this one reads the model.
    with nullcontext(workshop) if workshop else Workshop() as workshop:
        with clock("rules"):
            book = load_rules(disabled=options.disable_rules, accuracy=options.accuracy, extra=options.rules)
        with clock("import"):
            imported = import_model(source, options.shapes, options.values)
        workshop.warm(len(imported.graph.nodes))
        with clock("saturate"):
            snapshot = saturated(imported.graph, book, options)
        with clock("extract"):
            extraction = extracted(imported.graph, snapshot, machine.rates, options)
        with clock("kernels"):
            graph = extraction.graph
            calls = kernels_of(graph, book)
        with clock("codegen"):
            target = _target(options, workshop)
            kernels: Mapping[str, BuiltKernel | BuiltDevice]
            rules = options.rule_choice
            if isinstance(machine, GpuMachine):
                from egc.codegen.gpu import build_gpu  # 10 ms that compiling for a CPU need not wait for

                kernels, program = build_gpu(workshop, imported, graph, calls, machine, target, rules)
            else:
                _check_fit(machine, target)
                kernels, program = build_cpu(
                    workshop, imported, graph, calls, machine, target, threads, rules
                )
        with clock("record"):
            stages = dict(clock.seconds)
            noted = source_of(imported, options, threads, machine.name)
            record = build_record(
                imported, book, machine, snapshot, extraction, calls, kernels, stages, noted
            )
    return Compiled(
        imported, book, machine, target, snapshot, extraction, calls, kernels, program, record, clock.seconds
    )


def saturated(graph: Graph, book: RuleBook, options: Options) -> Snapshot:
    """The e-graph of ``graph``, within its share of the time budget."""
    return saturate(graph, book, Budget(seconds=options.time_budget * _SATURATION_SHARE))


def extracted(graph: Graph, snapshot: Snapshot, rates: Rates, options: Options) -> Extraction:
    """The cheapest equivalent graph, found within its share of the time budget."""
    seconds = min(1.0, options.time_budget * _EXTRACTION_SHARE)
    return extract(graph, snapshot, rates, seconds=seconds, ilp_seconds=options.ilp_seconds)


def kernels_of(graph: Graph, book: RuleBook) -> tuple[KernelCall | HostCall, ...]:
    """The calls that compute an extracted graph."""
    return build_kernels(graph, legal_fusions(graph, book))


def _machine(options: Options) -> Machine | GpuMachine:
    """The cost model that chooses the code. Raises UsageError for an architecture that is not known."""
    if options.target == "gpu":
        from egc.codegen.gpu import parse_gpu_arch

        return load_gpu_machine(options.cost_model or parse_gpu_arch(options.arch).arch)
    check_arch(options.arch)
    return load_machine(options.cost_model) if options.cost_model else machine_for(options.arch)


def _target(options: Options, workshop: Workshop) -> Target:
    """What code is generated for; a worker, which has LLVM, knows what this machine is."""
    if options.target == "gpu":
        from egc.codegen.gpu import parse_gpu_arch

        return parse_gpu_arch(options.arch)
    return workshop.native() if options.arch == "native" else parse_arch(options.arch)


def _check_fit(machine: Machine, target: Target) -> None:
    """UsageError where a cost model counts on more than the target's registers are."""
    core, triple = machine.core, parse_arch(machine.arch).triple
    if triple != target.triple or core.vector_bits > target.vector_bits or core.registers > target.registers:
        raise UsageError(
            f"the cost model {machine.name} is of another machine than --arch {target.arch}",
            why=f"it counts on {core.registers} registers of {core.vector_bits} bits",
            hint=f"--arch {machine.arch}, or another --cost-model",
        )


def build_cpu(
    workshop: Workshop,
    imported: Imported,
    graph: Graph,
    calls: Sequence[KernelCall | HostCall],
    machine: Machine,
    target: Target,
    threads: int,
    rules: RuleChoice,
) -> tuple[Mapping[str, BuiltKernel], Program]:
    """Every distinct kernel built, and the program."""
    kernels, runtime = workshop.build(distinct_kernels(calls), machine, target, threads, rules)
    linked = link([*runtime.always, *(k.object for k in kernels.values())], runtime.library)
    compiled = {
        name: PlacedKernel(kernel.nest, kernel.symbol, kernel.scratch_bytes)
        for name, kernel in kernels.items()
    }
    return kernels, assemble(imported, graph, calls, compiled, linked, target, threads)


def distinct_kernels(calls: Sequence[KernelCall | HostCall]) -> tuple[Any, ...]:
    """The kernels of the calls, each once, in order of first use."""
    return tuple({call.kernel.name: call.kernel for call in calls if isinstance(call, KernelCall)}.values())


def default_threads() -> int:
    """The number of cores that this process may use, or the most threads that a session can have."""
    import os

    return min(len(os.sched_getaffinity(0)), MAX_THREADS)

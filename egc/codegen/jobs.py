"""What worker processes do: schedule, emit and compile one kernel, or the native run-time.

egc.codegen.workshop has the processes; this module is imported where the work is done.
"""

from __future__ import annotations

from functools import lru_cache
from time import perf_counter

from msgspec import Struct

from egc.cache import folder, key_of, recall, remember
from egc.codegen.compile import compile_module, llvm_version
from egc.codegen.emit import emit
from egc.codegen.runtime_ir import runtime_ir, support_ir
from egc.codegen.target import Target
from egc.ir.dims import Dim
from egc.ir.kernel import Kernel
from egc.ir.nest import Nest
from egc.machine import Machine
from egc.options import RuleChoice
from egc.rules import RuleBook, load_rules
from egc.rules.bindings import egglog_bindings
from egc.schedule import Scheduled, prepare, schedule
from egc.schedule.cells import shipped_loop_rules

LOOPS = "loops"  # the ruleset of the loop e-graph


class BuiltKernel(Struct, frozen=True):
    """A kernel as scheduled and compiled: `object` is an ELF object that defines the function `symbol`."""

    scheduled: Scheduled
    symbol: str
    object: bytes
    scratch_bytes: Dim
    seconds: float

    @property
    def nest(self) -> Nest:
        """The chosen loop nest."""
        return self.scheduled.nest


class RuntimeObjects(Struct, frozen=True):
    """The native run-time: objects of every program, and a library linked where something needs it."""

    always: tuple[bytes, ...]
    library: tuple[bytes, ...]


@lru_cache(maxsize=4)
def loop_rules(choice: RuleChoice) -> RuleBook:
    """The loop rules of a choice, read once a worker."""
    if choice == RuleChoice():
        return shipped_loop_rules()
    book = load_rules(disabled=choice.disabled, accuracy=choice.accuracy, extra=choice.extra)
    return book.only({LOOPS})


def build_kernel(
    kernel: Kernel, machine: Machine, target: Target, threads: int, rules: RuleChoice
) -> BuiltKernel:
    """Schedule and compile one kernel in this process."""
    started = perf_counter()
    scheduled = schedule(kernel, machine, threads=threads, book=loop_rules(rules))
    emitted = emit(scheduled.nest, target)
    code = compile_module(emitted.text, target)
    return BuiltKernel(scheduled, emitted.name, code, emitted.scratch_bytes, perf_counter() - started)


def build_runtime(target: Target) -> RuntimeObjects:
    """The native run-time for a target, compiled now or by an earlier run."""
    texts = (runtime_ir(target.triple), support_ir(target.triple))
    described = (target.triple, target.cpu, target.features, repr(llvm_version()))
    key = key_of(*(text.encode() for text in (*texts, *described)))
    path = folder("runtime") / f"{key.hex()[:16]}.objects"
    content = recall(path, key)
    if content is None:
        always, library = (compile_module(text, target) for text in texts)
        remember(path, key, len(always).to_bytes(8, "little") + always + library)
        return RuntimeObjects((always,), (library,))
    end = 8 + int.from_bytes(content[:8], "little")
    return RuntimeObjects((content[8:end],), (content[end:],))


def warm() -> None:
    """Import what building needs, while the parent reads the model."""
    egglog_bindings()
    prepare()
    llvm_version()

"""From kernels to a GPU program: PTX, how each function is launched, and the nests that the emulator runs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import perf_counter

from msgspec import Struct
from msgspec.structs import replace

from egc.codegen.compile import assembly
from egc.codegen.jobs import loop_rules
from egc.codegen.link import LinkedCode
from egc.codegen.nvptx import emit_device
from egc.codegen.program import PlacedKernel, Program, assemble
from egc.codegen.target import Target
from egc.codegen.workshop import Workshop
from egc.errors import CompileError, Problem, UsageError
from egc.frontend.importer import Imported
from egc.ir.dims import Dim, SymDim
from egc.ir.graph import Graph
from egc.ir.kernel import Kernel
from egc.ir.nest import Nest
from egc.kernels import HostCall, KernelCall
from egc.options import RuleChoice
from egc.runtime.gpu_code import GpuCode, Launch
from egc.schedule import Scheduled
from egc.schedule.cells import Saturator
from egc.schedule.gpu import gpu_rules, schedule_device
from egc.schedule.gpu_machine import GpuMachine

_TRIPLE = "nvptx64-nvidia-cuda"
# PTX 8.0 is the first version that knows both, and is in every driver since CUDA 12.0.
_KNOWN = {arch: Target(arch, _TRIPLE, arch, "+ptx80", 32, 255) for arch in ("sm_80", "sm_90")}
GPU_ARCHITECTURES = tuple(_KNOWN)


def parse_gpu_arch(text: str) -> Target:
    """The GPU target named `text`; UsageError lists them where it is none. A GPU is not guessed from this
    machine."""
    if text in _KNOWN:
        return _KNOWN[text]
    near = difflib.get_close_matches(text, GPU_ARCHITECTURES, n=1, cutoff=0.4)
    raise UsageError(
        f"--target gpu needs a GPU's architecture, not {text!r}",
        why=f"code can be generated for {', '.join(GPU_ARCHITECTURES)}",
        hint=f"--arch {near[0] if near else GPU_ARCHITECTURES[0]}",
    )


class BuiltDevice(Struct, frozen=True):
    """A kernel as mapped and compiled: `ptx` is a module that defines the entry `symbol`, launched as
    `launch` says."""

    scheduled: Scheduled
    symbol: str
    ptx: str
    blocks: Dim
    threads: int
    shared_bytes: int
    scratch_bytes: Dim
    seconds: float

    @property
    def nest(self) -> Nest:
        """The chosen loop nest."""
        return self.scheduled.nest

    @property
    def object(self) -> bytes:
        """What is stored of the code."""
        return self.ptx.encode()


@lru_cache(maxsize=4)
def device_saturator(rules: RuleChoice) -> Saturator:
    """The loop e-graph of a worker, told the rules once."""
    if rules.disabled or rules.extra:
        return Saturator(loop_rules(rules))
    return Saturator(gpu_rules(rules.accuracy))  # two files in place of all


def build_device(
    kernel: Kernel, machine: GpuMachine, target: Target, rules: RuleChoice
) -> BuiltDevice | CompileError:
    """Schedule and compile one kernel in this process. An error is returned, so that all can be reported at
    once."""
    started = perf_counter()
    try:
        scheduled = schedule_device(kernel, machine, saturator=device_saturator(rules))
        device = emit_device(scheduled.nest, target)
        ptx = assembly(device.text, target)
    except CompileError as error:
        return error
    seconds = perf_counter() - started
    return BuiltDevice(
        scheduled,
        device.name,
        ptx,
        device.blocks,
        device.threads,
        device.shared_bytes,
        device.scratch_bytes,
        seconds,
    )


def build_gpu(
    workshop: Workshop,
    imported: Imported,
    graph: Graph,
    calls: Sequence[KernelCall | HostCall],
    machine: GpuMachine,
    target: Target,
    rules: RuleChoice,
) -> tuple[Mapping[str, BuiltDevice], Program]:
    """Every distinct kernel built, and the program. CompileError names every ONNX node that has no code for a
    GPU."""
    distinct = {call.kernel.name: call.kernel for call in calls if isinstance(call, KernelCall)}
    built = workshop.each(build_device, tuple(distinct.values()), machine, target, rules)
    _refuse(calls, {name: found for name, found in built.items() if isinstance(found, CompileError)})
    devices = {name: found for name, found in built.items() if isinstance(found, BuiltDevice)}
    compiled = {name: PlacedKernel(d.nest, d.symbol, 0) for name, d in devices.items()}
    code = gpu_code(devices, target)
    linked = LinkedCode("nvptx64", code.to_bytes(), {d.symbol: 0 for d in devices.values()})
    return devices, assemble(imported, graph, calls, compiled, linked, target, 1)


def gpu_code(devices: Mapping[str, BuiltDevice], target: Target) -> GpuCode:
    """All functions as one PTX module, with their launches and nests."""
    launches = {
        d.symbol: Launch(_text(d.blocks), d.threads, d.shared_bytes, _text(d.scratch_bytes), str(d.nest))
        for d in devices.values()
    }
    return GpuCode(target.arch, join_ptx([d.ptx for d in devices.values()]), launches)


def join_ptx(modules: Sequence[str]) -> str:
    """PTX modules as one: the directives at their heads are the same and may stand only once."""
    last = ".address_size 64"
    heads = {module[: module.index(last)] for module in modules}
    assert len(heads) <= 1, "the modules are of one target"
    bodies = [module.partition(last)[2].strip("\n\0") for module in modules]
    return "\n\n".join([*(head + last for head in heads), *bodies]) + "\n"


def _text(dim: Dim) -> int | str:
    return str(dim) if isinstance(dim, SymDim) else dim


def _refuse(calls: Sequence[KernelCall | HostCall], failed: Mapping[str, CompileError]) -> None:
    """Raise where there are calls that a GPU does not run."""
    problems: dict[Problem, None] = {}
    for call in calls:
        if isinstance(call, HostCall):
            why = "it would run on the host, by onnx.reference"
            problems[Problem(f"{_names(call)}: there is no code for a GPU", why=why)] = None
        elif error := failed.get(call.kernel.name):
            problems[Problem(f"{_names(call)}: {error.what}", why=error.why)] = None
    if problems:
        *others, last = problems
        raise CompileError(
            f"{len(problems)} steps of the model have no code for a GPU",
            problems=(*others, replace(last, hint="--target cpu compiles them all")),
        )


def _names(call: KernelCall | HostCall) -> str:
    nodes = call.nodes if isinstance(call, KernelCall) else (call.node,)
    sources = dict.fromkeys(source for node in nodes for source in node.sources)
    return ", ".join(sources) or nodes[0].op

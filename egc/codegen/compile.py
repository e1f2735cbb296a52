"""LLVM IR to object code, in this process or in worker processes.

The IR comes unrolled, vectorised and with its loop invariants hoisted, so the optimiser runs only what
pays: LLVM's own code generator does the rest. llvmlite holds one lock round every LLVM call and LLVM may
abort the process on IR that it cannot select, hence the worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

from egc.codegen.emit import emit
from egc.codegen.target import Target
from egc.errors import CompileError
from egc.ir.dims import Dim
from egc.ir.nest import Nest


@dataclass(frozen=True)
class CompiledKernel:
    """The object file of a kernel, which defines the function `name`; `scratch_bytes` is what each thread
    needs.
    """

    name: str
    code: bytes
    scratch_bytes: Dim


def compile_module(text: str, target: Target, opt_level: int = 2) -> bytes:
    """The ELF object of a module of LLVM IR; CompileError with LLVM's words where it is not valid."""
    module, machine = _prepare(text, target, opt_level)
    return machine.emit_object(module)


def assembly(text: str, target: Target, opt_level: int = 2) -> str:
    """The assembly text of a module of LLVM IR."""
    module, machine = _prepare(text, target, opt_level)
    return machine.emit_assembly(module)


def compile_nest(nest: Nest, target: Target, opt_level: int = 2) -> CompiledKernel:
    """One scheduled kernel, compiled in this process."""
    emitted = emit(nest, target)
    return CompiledKernel(
        emitted.name, compile_module(emitted.text, target, opt_level), emitted.scratch_bytes
    )


def compile_many(nests: Sequence[Nest], target: Target, workers: int = 2) -> list[CompiledKernel]:
    """The kernels compiled in `workers` processes, in the order of `nests`.

    CompileError names the kernel that failed, also where LLVM took the whole process down.
    """
    if workers <= 1 or len(nests) <= 1:
        return [compile_nest(nest, target) for nest in nests]
    # Longest first would balance better, yet kernels are many and short; chunks keep the traffic low.
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        futures = [pool.submit(compile_nest, nest, target) for nest in nests]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool:
            pass
    return [_compile_alone(nest, target) for nest in nests]


def _compile_alone(nest: Nest, target: Target) -> CompiledKernel:
    """One kernel in a process of its own: finds the one that LLVM dies on."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        try:
            return pool.submit(compile_nest, nest, target).result()
        except BrokenProcessPool:
            raise CompileError(
                f"LLVM could not compile the kernel {nest.kernel.name}",
                why="its code generator ended the process",
                hint="please report it, with the output of --emit loops",
            ) from None


@lru_cache(maxsize=1)
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm


@lru_cache(maxsize=8)
def _machine(target: Target, opt_level: int) -> Any:
    llvm = _llvm()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=opt_level, reloc="pic", codemodel="small"
    )


def _prepare(text: str, target: Target, opt_level: int) -> tuple[Any, Any]:
    llvm = _llvm()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError("the generated LLVM IR is not valid", why=str(error)) from None
    return module, _machine(target, opt_level)

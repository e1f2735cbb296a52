"""LLVM IR to object code, in this process; egc.codegen.jobs has the worker processes.

The IR comes unrolled, vectorised and with its loop invariants hoisted: the optimiser would add nothing,
so only the code generator runs. A 6×64 matrix product takes it 8 ms.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from msgspec import Struct

from egc.codegen.emit import emit
from egc.codegen.target import Target
from egc.errors import CompileError
from egc.ir.dims import Dim
from egc.ir.nest import Nest


class KernelObject(Struct, frozen=True):
    """The object file of a kernel, which defines the function `name`; `scratch_bytes` is what each thread
    needs.
    """

    name: str
    code: bytes
    scratch_bytes: Dim


def compile_module(text: str, target: Target) -> bytes:
    """The ELF object of a module of LLVM IR; CompileError with LLVM's words where it is not valid."""
    module, machine = _prepare(text, target)
    return machine.emit_object(module)


def assembly(text: str, target: Target) -> str:
    """The assembly text of a module of LLVM IR."""
    module, machine = _prepare(text, target)
    return machine.emit_assembly(module)


def compile_nest(nest: Nest, target: Target) -> KernelObject:
    """One scheduled kernel, compiled in this process."""
    emitted = emit(nest, target)
    return KernelObject(emitted.name, compile_module(emitted.text, target), emitted.scratch_bytes)


def llvm_version() -> tuple[int, ...]:
    """The version of LLVM that generates the code."""
    return tuple(_llvm().llvm_version_info)


@lru_cache(maxsize=1)
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm


@lru_cache(maxsize=8)
def _machine(target: Target) -> Any:
    llvm = _llvm()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )


def _prepare(text: str, target: Target) -> tuple[Any, Any]:
    llvm = _llvm()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError("the generated LLVM IR is not valid", why=str(error)) from None
    return module, _machine(target)

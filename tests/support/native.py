"""Compiles hand-written LLVM IR for tests, and makes artifacts of it."""

from __future__ import annotations

from functools import lru_cache

import llvmlite.binding as llvm

from egc.codegen.link import LinkedCode, link
from egc.codegen.runtime_ir import runtime_ir, support_ir

X86 = "x86_64-unknown-linux-gnu"
ARM = "aarch64-unknown-linux-gnu"
HOST = llvm.get_default_triple()
if HOST.startswith("x86_64"):
    HOST = X86
elif HOST.startswith("aarch64"):
    HOST = ARM


@lru_cache
def compile_ir(source: str, triple: str = HOST, features: str = "", relocation: str = "pic") -> bytes:
    """The ELF object of a module of LLVM IR text, at full optimisation."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly(source)
    module.triple = triple
    module.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(
        features=features, opt=3, reloc=relocation, codemodel="small"
    )
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    return machine.emit_object(module)


@lru_cache
def link_kernels(source: str, triple: str = HOST, features: str = "") -> LinkedCode:
    """Kernels and the native runtime in one blob."""
    return link(
        [compile_ir(source, triple, features), compile_ir(runtime_ir(triple), triple, features)],
        [compile_ir(support_ir(triple), triple, features)],
    )

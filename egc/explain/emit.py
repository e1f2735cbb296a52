"""The text of a compiled model's stages, for ``egc optimize --emit``."""

from __future__ import annotations

from egc.codegen.compile import assembly
from egc.codegen.emit import emit
from egc.compiler import Compiled
from egc.errors import UsageError
from egc.kernels import KernelCall


def emitted(compiled: Compiled, kind: str) -> str:
    """The text of one stage: graph, kernels, loops, llvm, asm; UsageError for a stage the target does not have."""
    match kind:
        case "graph":
            return str(compiled.extraction.graph)
        case "kernels":
            return "\n\n".join(str(kernel.nest.kernel) for kernel in compiled.kernels.values()) + _calls(compiled)
        case "loops":
            return "\n\n".join(str(kernel.nest) for kernel in compiled.kernels.values())
        case "llvm":
            return "\n".join(emit(k.nest, compiled.target).text for k in compiled.kernels.values())
        case "asm":
            texts = [emit(k.nest, compiled.target).text for k in compiled.kernels.values()]
            return "\n".join(assembly(text, compiled.target) for text in texts)
    raise UsageError(f"--emit {kind}: the target {compiled.target.arch} has no such stage")


def _calls(compiled: Compiled) -> str:
    lines = ["", ""]
    for call in compiled.calls:
        if isinstance(call, KernelCall):
            lines.append(f"call {call.kernel.name}({', '.join('%' + name for name in call.args)})")
        else:
            lines.append(f"host {', '.join('%' + name for name in call.node.outputs)}")
    return "\n".join(lines)

"""The text of a compiled model's stages, for ``egc optimize --emit``."""

from __future__ import annotations

from pathlib import Path

from egc.codegen.compile import assembly
from egc.codegen.emit import emit
from egc.codegen.gpu import join_ptx
from egc.codegen.nvptx import emit_device
from egc.compiler import Compiled
from egc.errors import UsageError
from egc.files import whole
from egc.kernels import KernelCall
from egc.runtime.artifact import WriteError
from egc.schedule.gpu_machine import GpuMachine


def emitted(compiled: Compiled, kind: str) -> str:
    """The text of one stage: graph, kernels, loops, llvm, asm (CPU) or ptx (GPU);
    UsageError for a stage the target does not have.
    """
    gpu = isinstance(compiled.machine, GpuMachine)
    match kind:
        case "graph":
            return str(compiled.extraction.graph)
        case "kernels":
            return "\n\n".join(str(kernel.nest.kernel) for kernel in compiled.kernels.values()) + _calls(
                compiled
            )
        case "loops":
            return "\n\n".join(str(kernel.nest) for kernel in compiled.kernels.values())
        case "llvm" if gpu:
            return "\n".join(emit_device(k.nest, compiled.target).text for k in compiled.kernels.values())
        case "ptx" if gpu:
            return join_ptx([k.object.decode() for k in compiled.kernels.values()])
        case "llvm":
            return "\n".join(emit(k.nest, compiled.target).text for k in compiled.kernels.values())
        case "asm" if not gpu:
            texts = [emit(k.nest, compiled.target).text for k in compiled.kernels.values()]
            return "\n".join(assembly(text, compiled.target) for text in texts)
    raise UsageError(f"--emit {kind}: the target {'gpu' if gpu else 'cpu'} has no such stage")


def write_onnx(compiled: Compiled, path: Path) -> None:
    """Write the optimized graph as an ONNX model with the original's inputs and outputs:
    all of it or nothing.
    """
    from egc.explain.onnx_export import to_onnx

    imported = compiled.imported
    names = {port.value: port.name for port in imported.inputs}
    names |= {f"output {i}": port.name for i, port in enumerate(imported.outputs)}
    model = to_onnx(compiled.extraction.graph, names)
    try:
        with whole(path) as file:
            file.write(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise WriteError("cannot write the model", where=str(path), why=error.strerror) from None


def _calls(compiled: Compiled) -> str:
    lines = ["", ""]
    for call in compiled.calls:
        if isinstance(call, KernelCall):
            lines.append(f"call {call.kernel.name}({', '.join('%' + name for name in call.args)})")
        else:
            lines.append(f"host {', '.join('%' + name for name in call.node.outputs)}")
    return "\n".join(lines)

"""Running a GPU artifact without a GPU: its loop nests are compiled for this CPU when it is loaded.

This is the one place of the runtime that needs the compiler, and loads it only when it is called.
"""

from __future__ import annotations

from importlib import import_module

from egc.errors import UsageError
from egc.runtime.artifact import Artifact
from egc.runtime.gpu_code import ARCHITECTURE


def emulated(artifact: Artifact) -> Artifact:
    """The artifact as one for this CPU. UsageError where it is not for a GPU, or the compiler is not
    installed."""
    if artifact.manifest.target.architecture != ARCHITECTURE:
        raise UsageError(
            "the emulator runs GPU artifacts",
            where=artifact.name,
            why=f"this one is for {artifact.manifest.target.architecture}",
            hint="leave out --device, or compile the model with --target gpu --arch sm_80",
        )
    try:
        compiler = import_module("egc.codegen.gpu_emulator")
    except ImportError as error:
        raise UsageError(
            "the emulator needs egc's compiler", why=str(error), hint="pip install egc"
        ) from None
    result: Artifact = compiler.emulated_artifact(artifact)
    return result

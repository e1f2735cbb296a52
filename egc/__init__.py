"""egc: an optimizing compiler for ONNX models built on equality saturation.

    session = egc.compile("model.onnx", target="cpu", threads=2)      # or egc.load("model.egc")
    outputs = session.run(None, {"x": array})                         # as in onnxruntime

The way of a model, one function a stage (egc/compiler.py):

    import_model     egc.frontend   ONNX → Graph of few primitives
    saturate         egc.egraph     Graph + rules/*.egg → e-graph Snapshot
    extract          egc.extract    Snapshot + cost model → the cheapest equivalent Graph
    build_kernels    egc.kernels    Graph → fused Kernels
    schedule         egc.schedule   Kernel + rules/loops.egg → loop Nest
    emit, compile    egc.codegen    Nest → LLVM IR → machine code
    assemble         egc.codegen    code, packed constants, memory plan → Artifact
    Session          egc.runtime    Artifact + arrays → arrays

Importing this package is cheap: the compiler is imported when it is first used, and never to run an artifact.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egc.runtime.session import Session

__version__ = "0.1.0"
__all__ = ["backend", "compile", "load"]


def compile(
    model: Any,
    target: str = "cpu",
    *,
    arch: str = "native",
    threads: int | None = None,
    rules: Sequence[str | os.PathLike[str]] = (),
    disable_rules: Sequence[str] = (),
    cost_model: str | os.PathLike[str] | None = None,
    accuracy: str = "default",
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    values: Mapping[str, Any] | None = None,
    time_budget: float = 60.0,
    device: str | None = None,
) -> Session:
    """Compile a model and return a Session over it, without a file in between.

    ``model`` is the path of an ``.onnx`` file, its bytes, or a ModelProto. ``threads`` is by default the
    number of cores this process may use; ``accuracy`` is exact, default or fast; ``shapes`` fixes input
    shapes and ``values`` whole inputs, such as a shape that the model takes as data; ``time_budget`` bounds
    the searches, in seconds. Raises egc.errors.EgcError.
    """
    from egc.collector import paused

    with paused():
        from pathlib import Path

        from egc.compiler import compile_model
        from egc.errors import UsageError
        from egc.options import Options
        from egc.runtime.session import Session

        for name, value in {"rules": rules, "disable_rules": disable_rules}.items():
            if isinstance(value, (str, os.PathLike)):  # a string is a sequence, too, of letters
                raise UsageError(f"{name} is {value!r}", hint=f"give a list: {name}=[{value!r}]")
            if not isinstance(value, Iterable) or not all(isinstance(v, (str, os.PathLike)) for v in value):
                raise UsageError(f"{name} is {value!r}", hint="give a list of strings")
        options = Options(
            target=target,
            arch=arch,
            threads=threads,
            rules=tuple(map(Path, rules)),
            disable_rules=tuple(disable_rules),
            cost_model=os.fspath(cost_model) if isinstance(cost_model, os.PathLike) else cost_model,
            accuracy=accuracy,
            shapes={} if shapes is None else shapes,
            values={} if values is None else values,
            time_budget=time_budget,
        )
        artifact = compile_model(model, options).artifact()
    return Session(artifact, threads=threads, device=device)


def load(path: str | os.PathLike[str], *, threads: int | None = None, device: str | None = None) -> Session:
    """A Session over an ``.egc`` artifact;
    ``device`` is ``cuda`` or ``emulator`` for one that is made for a GPU.

    Artifacts hold native code: load only those you trust.
    """
    from egc.runtime.session import Session

    return Session(path, threads=threads, device=device)


def __getattr__(name: str) -> Any:
    if name == "backend":
        import importlib

        return importlib.import_module("egc.backend")
    raise AttributeError(f"module 'egc' has no attribute {name!r}")

"""A GPU program as a CPU program: the same mapped loop nests, block by block, threads as loops.

Blocks are independent, so they are shared among the CPU's threads. The threads of a block become a loop round
each stage by itself: stages meet where the block's threads meet at a barrier. Threads that share a reduction
become the lanes of a vector, whose partial results are combined in the same way. What a block keeps in shared
memory is a buffer of one CPU thread.
"""

from __future__ import annotations

from msgspec.structs import replace

from egc.codegen.compile import compile_nest
from egc.codegen.jobs import build_runtime
from egc.codegen.link import link
from egc.codegen.target import native
from egc.errors import ArtifactError
from egc.ir.dims import SymDim
from egc.ir.nest import Loop, Nest
from egc.ir.text import parse_nest
from egc.ir.text_expr import TextError
from egc.runtime import manifest as m
from egc.runtime.artifact import Artifact, artifact_in_memory
from egc.runtime.cpu import needed_features
from egc.runtime.gpu_code import GpuCode


def emulated_nest(nest: Nest) -> Nest:
    """The nest for a CPU that does what `nest` does on a GPU."""
    reductions = {axis.name for stage in nest.kernel.stages for axis in stage.reduce}

    def loop(one: Loop) -> Loop:
        if one.kind == "block":
            return replace(one, kind="par")
        if one.kind == "thread":
            return replace(one, kind="vec" if one.axis in reductions else "seq")
        return one

    return replace(
        nest,
        shared=tuple(map(loop, nest.shared)),
        stages=tuple(tuple(map(loop, loops)) for loops in nest.stages),
    )


def emulated_artifact(artifact: Artifact) -> Artifact:
    """The artifact of the same program for this CPU, over the same constants; ArtifactError where a nest
    cannot be read."""
    code = GpuCode.from_bytes(bytes(artifact.code))
    target = native()
    objects, scratch = [], {}
    for name, launch in code.launches.items():
        try:
            nest = parse_nest(launch.nest)
        except TextError as error:
            raise ArtifactError(
                "the artifact is damaged", where=f"the nest of {name}", why=str(error)
            ) from None
        compiled = compile_nest(emulated_nest(nest), target)
        objects.append(compiled.code)
        scratch[name] = compiled.scratch_bytes
    runtime = build_runtime(target)
    linked = link([*runtime.always, *objects], runtime.library)

    def step(one: m.Step) -> m.Step:
        if isinstance(one, m.HostStep):
            return one
        size = scratch[one.symbol]
        return replace(one, scratch_bytes=str(size) if isinstance(size, SymDim) else size)

    architecture = target.triple.partition("-")[0]
    manifest = replace(
        artifact.manifest,
        target=m.Target(architecture, needed_features(architecture, target.cpu, target.features)),
        functions=linked.symbols,
        steps=tuple(map(step, artifact.manifest.steps)),
    )
    host = artifact_in_memory(replace(manifest, buffers=(), steps=(), inputs=(), outputs=()), linked.code)
    return replace(artifact, manifest=manifest, code=host.code)

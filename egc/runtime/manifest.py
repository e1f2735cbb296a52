"""The manifest: what the compiler tells the runtime about a program, as plain data with a JSON form.

A *dim* is an integer, or the text of an expression over the names in `symbols` (see egc.ir.dims). A buffer
is named by its index in `buffers`. Where a buffer lives:

    input      the caller's array                 constant  at `offset` in the artifact's constants
    output     a fresh array for the caller       arena     in the session's arena, at `offset` where planned
    host       a Python object that a host step   view      the bytes of buffer `of`, under another shape
               makes, reads, or both
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct, json

from egc.errors import ArtifactError
from egc.ir.dims import DimError, parse_dim, symbols_of
from egc.ir.types import DTYPES

DimText: TypeAlias = "int | str"
Where: TypeAlias = Literal["input", "output", "constant", "arena", "host", "view"]


class Target(Struct, frozen=True):
    """The machine the code is for: `x86_64` or `aarch64`, and LLVM's names of the CPU features it needs."""

    architecture: str
    features: tuple[str, ...] = ()


class Port(Struct, frozen=True):
    """An input or output of the model, and the buffer that holds it."""

    name: str
    dtype: str
    shape: tuple[DimText, ...]
    buffer: int


class Buffer(Struct, frozen=True):
    """A row-major tensor in memory. `offset`, in bytes: of a constant, or of a planned arena buffer.

    A constant of dtype `string` has its elements in `text` instead.
    """

    dtype: str
    shape: tuple[DimText, ...]
    where: Where
    offset: int | None = None
    of: int | None = None
    text: tuple[str, ...] | None = None


class KernelStep(Struct, frozen=True, tag_field="kind", tag="kernel"):
    """A call of native code with `arguments` (buffers) and the values of `dims`.

    `scratch_bytes` is what one thread needs. Without `barrier` the next step may start before this one is
    finished by all threads. `label` names the step in profiles.
    """

    symbol: str
    arguments: tuple[int, ...]
    dims: tuple[DimText, ...] = ()
    scratch_bytes: DimText = 0
    barrier: bool = True
    label: str = ""


class HostStep(Struct, frozen=True, tag_field="kind", tag="host"):
    """An ONNX node that `onnx.reference` runs, or an operator of egc's own that numpy runs.

    An ONNX node: `model` is its text as `egc.ir.host` writes it; `inputs` and `outputs` are the buffers of
    that model's inputs and outputs, in order. An operator: `model` is empty, `op` its name in `egc.ir.ops`
    and `attrs` the JSON of its attributes, in which a symbolic dim is `{"dim": text}`. `label` names the step
    in errors and profiles.
    """

    model: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    label: str
    op: str = ""
    attrs: str = "{}"


Step: TypeAlias = "KernelStep | HostStep"


class Requirement(Struct, frozen=True):
    """`left relation right` (`==` or `<=`) has to hold for the dims of a run; `where` names ONNX nodes."""

    left: DimText
    relation: Literal["==", "<="]
    right: DimText
    where: str


class Coverage(Struct, frozen=True):
    """How many ONNX nodes are compiled, and the names of those that run on the host."""

    compiled: int
    host: tuple[str, ...] = ()


class Manifest(Struct, frozen=True):
    """A whole program. `functions`: the offset in the code of each kernel and runtime function.

    `arena_bytes` is set where every arena buffer has its offset; else the runtime plans the arena, once the
    dims are known. `model` is a name for people.
    """

    model: str
    target: Target
    threads: int
    symbols: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    functions: Mapping[str, int]
    coverage: Coverage
    arena_bytes: int | None = None
    requirements: tuple[Requirement, ...] = ()

    def root(self, buffer: int) -> int:
        """The buffer whose bytes `buffer` shows: itself, or what a chain of views leads to."""
        while (of := self.buffers[buffer].of) is not None:
            buffer = of
        return buffer

    def to_json(self) -> bytes:
        """Canonical bytes: equal manifests give equal bytes."""
        return json.encode(self, order="sorted")

    @staticmethod
    def from_json(text: bytes) -> Manifest:
        """The manifest that `to_json` wrote; ArtifactError where the text is none or contradicts itself."""
        try:
            manifest = json.decode(text, type=Manifest)
            _check(manifest)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(
                "the artifact cannot be read",
                where="its manifest",
                why=f"{type(error).__name__}: {error}",
                hint="compile the model again",
            ) from None
        return manifest


def _check(manifest: Manifest) -> None:
    """ValueError where an index or an expression of the manifest leads nowhere."""
    known = frozenset(manifest.symbols)
    for i, buffer in enumerate(manifest.buffers):
        if buffer.dtype not in DTYPES:
            raise ValueError(f"buffer {i} is {buffer.dtype}")
        if (buffer.where == "view") != (buffer.of is not None) or not -1 < (buffer.of or 0) < max(i, 1):
            raise ValueError(f"buffer {i} is a view of {buffer.of}")
        if buffer.where == "constant" and not isinstance(buffer.offset, int) and buffer.text is None:
            raise ValueError(f"the constant buffer {i} has no content")
        _check_dims(buffer.shape, known)
    for port in (*manifest.inputs, *manifest.outputs):
        _check_buffers(manifest, (port.buffer,))
        _check_dims(port.shape, known)
    for requirement in manifest.requirements:
        sides = (requirement.left, requirement.right)
        _check_dims(tuple(dim for dim in sides if isinstance(dim, str)), known)
    for step in manifest.steps:
        if isinstance(step, KernelStep):
            _check_buffers(manifest, step.arguments)
            _check_dims((*step.dims, step.scratch_bytes), known)
            if step.symbol not in manifest.functions:
                raise ValueError(f"the kernel {step.symbol} has no code")
        else:
            _check_buffers(manifest, (*step.inputs, *step.outputs))


def _check_buffers(manifest: Manifest, buffers: tuple[int, ...]) -> None:
    for buffer in buffers:
        if not 0 <= buffer < len(manifest.buffers):
            raise ValueError(f"there is no buffer {buffer}")


def _check_dims(dims: tuple[DimText, ...], known: frozenset[str]) -> None:
    for dim in dims:
        if isinstance(dim, str):
            try:
                unknown = symbols_of(parse_dim(dim)) - known
            except DimError as error:
                raise ValueError(str(error)) from None
            if unknown:
                raise ValueError(f"the dims {sorted(unknown)} are not declared")
        elif dim < 0:
            raise ValueError(f"the dim {dim} is negative")

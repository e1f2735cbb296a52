"""From compiled kernels to a program: buffers, packed constants,
steps and the manifest that the runtime reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from egc.codegen.link import LinkedCode
from egc.codegen.target import Target
from egc.frontend.importer import Imported
from egc.ir.dims import Dim, Shape, SymDim, extents, symbols_of
from egc.ir.graph import Graph
from egc.ir.host import decode_host
from egc.ir.nest import Nest, Pack
from egc.ir.types import TensorType
from egc.kernels import HostCall, KernelCall
from egc.runtime import gpu_code
from egc.runtime import manifest as m
from egc.runtime.artifact import layout_constants
from egc.runtime.cpu import needed_features
from egc.runtime.host import encode_attrs
from egc.runtime.memory import live_ranges, plan_arena


class PlacedKernel(Struct, frozen=True):
    """One distinct kernel's nest, the symbol of its function,
    and the scratch bytes that each thread needs.
    """

    nest: Nest
    symbol: str
    scratch_bytes: Dim


class Program(Struct, frozen=True):
    """What an artifact holds: manifest, code, and the constants in the order of their offsets."""

    manifest: m.Manifest
    code: bytes
    constants: tuple[np.ndarray, ...]


def assemble(
    imported: Imported,
    graph: Graph,
    calls: Sequence[KernelCall | HostCall],
    kernels: Mapping[str, PlacedKernel],
    linked: LinkedCode,
    target: Target,
    threads: int,
) -> Program:
    """The program that runs ``calls`` in order. ``kernels`` is keyed by the names of the calls' kernels."""
    assembler = _Assembler(graph, kernels)
    inputs = tuple(
        m.Port(p.name, p.type.dtype, _dims(p.type.shape), assembler.place(p.value, "input"))
        for p in imported.inputs
    )
    for name in graph.outputs:
        assembler.place(name, _home(graph.types[name], "output"))
    steps = tuple(assembler.step(call) for call in calls)
    outputs = tuple(
        m.Port(port.name, port.type.dtype, _dims(graph.types[value].shape), assembler.place(value, "output"))
        for port, value in zip(imported.outputs, graph.outputs, strict=True)
    )
    hosted = _hosted(imported, calls)
    draft = m.Manifest(
        model=graph.name,
        target=m.Target(target.triple.partition("-")[0], _features(target)),
        threads=threads,
        symbols=_symbols(graph),
        requirements=_requirements(imported, _symbols(graph)),
        inputs=inputs,
        outputs=outputs,
        buffers=tuple(assembler.buffers),
        steps=steps,
        functions=linked.symbols,
        coverage=m.Coverage(imported.nodes - len(hosted), hosted),
    )
    return Program(_planned(draft), linked.code, tuple(assembler.constants))


class _Assembler:
    def __init__(self, graph: Graph, kernels: Mapping[str, PlacedKernel]) -> None:
        self.graph = graph
        self.kernels = kernels
        self.buffers: list[m.Buffer] = []
        self.constants: list[np.ndarray] = []
        self.places: dict[tuple[str, Pack | None, Shape], int] = {}
        self.offset = 0

    def place(
        self, value: str, where: m.Where | None = None, pack: Pack | None = None, shape: Shape = ()
    ) -> int:
        """The buffer of a value; constants get one for each layout in which they are read.

        ``pack`` speaks of the constant as an array of ``shape``, which may merge dims of the value's own.
        """
        if value not in self.graph.constants:
            pack = None
        key = (value, pack, shape if pack else ())
        if key not in self.places:
            type_ = self.graph.types[value]
            if value in self.graph.constants:
                buffer = self.constant(value, pack, shape)
            else:
                buffer = m.Buffer(type_.dtype, _dims(type_.shape), _home(type_, where or "arena"))
            self.places[key] = len(self.buffers)
            self.buffers.append(buffer)
        return self.places[key]

    def constant(self, value: str, pack: Pack | None, shape: Shape) -> m.Buffer:
        """A constant's buffer, its content packed now."""
        data = self.graph.constants[value].data
        if self.graph.types[value].dtype == "string":
            text = (v.decode() if isinstance(v, bytes) else str(v) for v in data.reshape(-1).tolist())
            return m.Buffer("string", data.shape, "constant", text=tuple(text))
        if pack is not None:
            data = packed(data.reshape(extents(shape)), pack)
        self.constants.append(data)
        offset, after = layout_constants((data.nbytes, 0))
        buffer = m.Buffer(self.graph.types[value].dtype, data.shape, "constant", self.offset + offset)
        self.offset += after
        return buffer

    def step(self, call: KernelCall | HostCall) -> m.Step:
        """The runtime's step for one call."""
        if isinstance(call, HostCall):
            return self.host(call)
        compiled = self.kernels[call.kernel.name]
        packs = {pack.buffer: pack for pack in compiled.nest.packs}
        arguments = tuple(
            self.place(value, pack=packs.get(param.name), shape=param.type.shape)
            for param, value in zip(call.kernel.params, call.args, strict=True)
        )
        return m.KernelStep(
            compiled.symbol,
            arguments,
            call.kernel.symbols,
            _text(compiled.scratch_bytes),
            label=_label(call),
        )

    def host(self, call: HostCall) -> m.HostStep:
        """A step that ``onnx.reference`` runs, or numpy where the operator is egc's own."""
        node = call.node
        inputs = tuple(self.place(value, "host") for value in node.inputs)
        outputs = tuple(self.place(value, "host") for value in node.outputs)
        if node.op != "host":
            return m.HostStep("", inputs, outputs, node.op, node.op, encode_attrs(dict(node.attrs)))
        text = str(node.attr("node"))
        onnx_node = decode_host(text).graph.node[0]
        return m.HostStep(text, inputs, outputs, onnx_node.name or onnx_node.op_type)


def _hosted(imported: Imported, calls: Sequence[KernelCall | HostCall]) -> tuple[str, ...]:
    """The ONNX nodes that run on the host, by name where they have one."""
    names = {node.title: node.name or node.title for node in imported.hosted}
    sources = (source for call in calls if isinstance(call, HostCall) for source in call.node.sources)
    return tuple(dict.fromkeys(names.get(source, source) for source in sources))


def _label(call: KernelCall) -> str:
    """What a call is shown as: its kernel and the ONNX nodes that it covers."""
    sources = dict.fromkeys(source for node in call.nodes for source in node.sources)
    return f"{call.kernel.name} ({', '.join(sources)})" if sources else call.kernel.name


def packed(data: np.ndarray, pack: Pack) -> np.ndarray:
    """``data`` in the physical layout that ``pack`` describes (egc.ir.nest)."""
    extent = data.shape[pack.dim]
    missing = -extent % pack.block
    if missing:
        widths = [(0, missing if axis == pack.dim else 0) for axis in range(data.ndim)]
        data = np.pad(data, widths)
    blocks = (extent + missing) // pack.block
    split = data.reshape(*data.shape[: pack.dim], blocks, pack.block, *data.shape[pack.dim + 1 :])
    return np.ascontiguousarray(np.moveaxis(split, (pack.dim, pack.dim + 1), (0, -1)))


def _planned(draft: m.Manifest) -> m.Manifest:
    """The manifest with arena offsets, where every arena buffer has a known size."""
    arena = [i for i, buffer in enumerate(draft.buffers) if buffer.where == "arena"]
    if any(isinstance(dim, str) for i in arena for dim in draft.buffers[i].shape):
        return draft
    ranges = live_ranges(draft)
    used = [i for i in arena if i in ranges]
    sizes = [_nbytes(draft.buffers[i]) for i in used]
    offsets, total = plan_arena(sizes, [ranges[i] for i in used])
    buffers = list(draft.buffers)
    for i, offset in zip(used, offsets, strict=True):
        buffers[i] = replace(buffers[i], offset=offset)
    return replace(draft, buffers=tuple(buffers), arena_bytes=total)


def _nbytes(buffer: m.Buffer) -> int:
    from egc.ir.types import itemsize

    total = itemsize(buffer.dtype)
    for dim in buffer.shape:
        assert isinstance(dim, int)
        total *= dim
    return total


def _home(type_: TensorType, where: m.Where) -> m.Where:
    """Text and Python objects live on the host, wherever arrays would live."""
    return "host" if type_.dtype in ("string", "object") and where != "input" else where


def _symbols(graph: Graph) -> tuple[str, ...]:
    """Every dim name of the program, sorted."""
    return tuple(sorted(frozenset().union(*(type_.symbols for type_ in graph.types.values()))))


def _requirements(imported: Imported, symbols: tuple[str, ...]) -> tuple[m.Requirement, ...]:
    """What the run checks. A symbol that is gone was of a host node that nothing needed."""
    return tuple(
        m.Requirement(_text(r.left), r.relation, _text(r.right), r.where)
        for r in imported.requirements
        if symbols_of(r.left) | symbols_of(r.right) <= frozenset(symbols)
    )


def _text(dim: Dim) -> m.DimText:
    return str(dim) if isinstance(dim, SymDim) else dim


def _dims(dims: Sequence[Dim]) -> tuple[m.DimText, ...]:
    return tuple(map(_text, dims))


def _features(target: Target) -> tuple[str, ...]:
    architecture = target.triple.partition("-")[0]
    if architecture == gpu_code.ARCHITECTURE:
        return (target.arch,)
    return needed_features(architecture, target.cpu, target.features)

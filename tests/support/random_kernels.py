"""Hypothesis strategies for kernels of one stage, their data, and nests that run them in different orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from egc.ir.dims import Dim, symbol
from egc.ir.expr import Acc, Cast, Const, Expr, Index, Load, call
from egc.ir.kernel import Axis, Buffer, Kernel, Stage
from egc.ir.nest import Loop, Nest, Pack
from egc.ir.types import TensorType, is_float, numpy_dtype

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "uint16", "bool")
_UNARY = {
    "float": ("neg", "abs", "exp", "tanh", "relu", "floor"),
    "int": ("neg", "abs", "sign"),
    "bool": ("not",),
}
_BINARY = {
    "float": ("add", "sub", "mul", "max", "min"),
    "int": ("add", "sub", "mul", "max", "div", "mod"),
    "bool": ("and", "xor"),
}
_COMBINE = {"float": ("add", "max", "min"), "int": ("add", "mul", "max", "min"), "bool": ("and", "or")}


@dataclass(frozen=True)
class Case:
    """A kernel, values for its dims and data for its inputs."""

    kernel: Kernel
    dims: dict[str, int]
    inputs: dict[str, np.ndarray]


def kind(dtype: str) -> str:
    return "bool" if dtype == "bool" else "float" if is_float(dtype) else "int"


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A kernel over two parallel axes and up to one reduction axis, every extent known or symbolic."""
    dtype = draw(st.sampled_from(DTYPES))
    dims: dict[str, int] = {}
    axes = [_axis(draw, name, dims) for name in "ij"]
    reduce = [_axis(draw, "k", dims)] if draw(st.booleans()) else []
    buffers: list[Buffer] = []
    value = _expression(draw, [*axes, *reduce], dtype, dims, buffers)
    combine = draw(st.sampled_from(_COMBINE[kind(dtype)])) if reduce else None
    result: Expr = Acc(dtype) if reduce else value
    if reduce and draw(st.booleans()):
        result = call(
            draw(st.sampled_from(_BINARY[kind(dtype)][:2])), result, _load(draw, axes, dtype, dims, buffers)
        )
    out = Buffer("out", TensorType(dtype, (axes[1].extent, axes[0].extent)), "out")
    stage = Stage("s", tuple(axes), "out", (symbol("j"), symbol("i")), value, result, tuple(reduce), combine)
    kernel = Kernel("random", (*buffers, out), (stage,))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inputs = {b.name: _data(rng, b, dims) for b in buffers}
    return Case(kernel, dims, inputs)


def _axis(draw: st.DrawFn, name: str, dims: dict[str, int]) -> Axis:
    extent = draw(st.sampled_from((0, 1, 2, 3, 5, 8, 13, 16, 17, 33)))
    if draw(st.booleans()):
        return Axis(name, extent)
    dims[f"n_{name}"] = extent
    return Axis(name, symbol(f"n_{name}"))


def _expression(
    draw: st.DrawFn, axes: list[Axis], dtype: str, dims: dict[str, int], buffers: list[Buffer]
) -> Expr:
    expr = _load(draw, axes, dtype, dims, buffers)
    for _ in range(draw(st.integers(0, 2))):
        match draw(st.sampled_from(("unary", "binary", "constant", "select", "index"))):
            case "unary":
                expr = call(draw(st.sampled_from(_UNARY[kind(dtype)])), expr)
            case "binary":
                other = _load(draw, axes, dtype, dims, buffers)
                expr = call(draw(st.sampled_from(_BINARY[kind(dtype)])), expr, other)
            case "constant":
                expr = call(_BINARY[kind(dtype)][0], expr, Const(1, dtype))
            case "select":
                other = _load(draw, axes, dtype, dims, buffers)
                expr = call("select", call("eq" if dtype == "bool" else "lt", expr, other), expr, other)
            case "index" if dtype != "bool":
                position = draw(st.sampled_from(axes))
                expr = call("add", expr, Cast(Index(symbol(position.name) % 3), dtype))
    return expr


def _load(
    draw: st.DrawFn, axes: Sequence[Axis], dtype: str, dims: dict[str, int], buffers: list[Buffer]
) -> Load:
    """A load of a new buffer: some of the axes in some order, plain, reversed, shifted under a guard, or
    regrouped.
    """
    chosen = draw(st.permutations(axes))[: draw(st.integers(1, len(axes)))]
    shape: list[Dim] = []
    index: list[Dim] = []
    guards: list[tuple[Dim, Dim]] = []
    for axis in chosen:
        at = symbol(axis.name)
        match draw(st.sampled_from(("plain", "plain", "reversed", "shifted", "split", "strided"))):
            case "plain":
                shape, index = [*shape, axis.extent], [*index, at]
            case "reversed":
                shape, index = [*shape, axis.extent], [*index, axis.extent - 1 - at]
            case "shifted":
                shape, index = [*shape, axis.extent], [*index, at - 2]
                guards.append((at - 2, axis.extent))
            case "split":
                shape, index = [*shape, axis.extent // 4 + 1, 4], [*index, at // 4, at % 4]
            case "strided":
                shape, index = [*shape, 2 * axis.extent], [*index, 2 * at]
    name = f"b{len(buffers)}"
    buffers.append(Buffer(name, TensorType(dtype, tuple(shape)), "in", constant=True))
    other = Const(1, dtype) if guards else None
    return Load(name, tuple(index), dtype, tuple(guards), other)


def _data(rng: np.random.Generator, buffer: Buffer, dims: dict[str, int]) -> np.ndarray:
    from egc.ir.dims import evaluate

    shape = tuple(evaluate(d, dims) for d in buffer.type.shape)
    dtype = numpy_dtype(buffer.type.dtype)
    if kind(buffer.type.dtype) == "float":
        return rng.integers(-16, 16, shape).astype(np.float32).astype(dtype) / dtype.type(8)
    return rng.integers(0, 2 if buffer.type.dtype == "bool" else 7, shape).astype(dtype)


def scalar_nest(kernel: Kernel) -> Nest:
    """One loop an axis, in order."""
    stages = []
    for stage in kernel.stages:
        parallel = tuple(Loop(axis.name, 1, "par") for axis in stage.axes)
        stages.append((*parallel, *(Loop(axis.name, 1, "seq") for axis in stage.reduce)))
    return Nest(kernel, tuple(stages))


def vectorised_nest(kernel: Kernel, axis: str, lanes: int) -> Nest:
    """The axis `axis`, parallel or reduced, in vectors of `lanes`."""
    stage = kernel.stages[0]
    parallel = [Loop(a.name, lanes if a.name == axis else 1, "par") for a in stage.axes]
    reduced = [Loop(a.name, lanes if a.name == axis else 1, "seq") for a in stage.reduce]
    return Nest(kernel, ((*parallel, *reduced, Loop(axis, 1, "vec")),))


def tiled_nest(kernel: Kernel, rows: int, columns: int, lanes: int, depth: int, pack: bool) -> Nest:
    """A register tile of `rows` i by `columns` j in vectors of `lanes`, k unrolled by `depth`."""
    stage = kernel.stages[0]
    loops = [Loop("j", 2 * columns, "par"), Loop("i", rows, "par"), Loop("j", columns, "seq")]
    loops += [Loop(a.name, depth, "seq") for a in stage.reduce]
    if depth > 1:
        loops += [Loop(a.name, 1, "unroll") for a in stage.reduce]
    if rows > 1:
        loops.append(Loop("i", 1, "unroll"))
    if columns > lanes:
        loops.append(Loop("j", lanes, "unroll"))
    loops.append(Loop("j", 1, "vec"))
    packs = [
        Pack(b.name, d, columns)
        for b in kernel.params
        if pack and b.constant
        for d in range(b.type.rank)
        if all(load.index[d] == symbol("j") for load in stage.loads() if load.buffer == b.name)
    ]
    first = {p.buffer: p for p in reversed(packs)}
    return Nest(kernel, (tuple(loops),), (), tuple(first.values()))

"""What an operator function works with: the graph under construction, constants, symbolic shapes, and
shorthands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from egc.frontend.fold import fold
from egc.frontend.registry import NodeError, NotCompiled, OnnxNode
from egc.ir.dims import Dim, Shape, SymDim, symbol
from egc.ir.graph import AttrValue, GraphBuilder
from egc.ir.infer import InferError, broadcast
from egc.ir.types import TensorType, is_float, itemsize, numpy_dtype

Emitter = Callable[[str, Sequence["str | None"], Mapping[str, Any], int], Sequence["str | None"]]
Inliner = Callable[[Any, Sequence["str | None"]], Sequence["str | None"]]
# Sizes beyond this overflow the 64-bit arithmetic of later stages; no machine holds such a tensor.
_MAX_BYTES = 1 << 46


class Context:
    """The graph under construction, with shorthands for what operator functions do most.

    Values are named by strings. Nodes whose operands are all constants are evaluated at once, within bounds
    (egc.frontend.fold), so an operator function need not treat constants apart. ``opset`` is the model's
    version of the default domain.
    """

    def __init__(self, name: str, opset: int) -> None:
        self.builder = GraphBuilder(name)
        self.opset = opset
        self.sources: tuple[str, ...] = ()
        self._dims: dict[str, np.ndarray] = {}
        self._symbols: set[str] = set()
        self._emit: Emitter | None = None
        self._inline: Inliner | None = None

    # What is known of a value.

    def type(self, value: str) -> TensorType:
        """The type of ``value``."""
        return self.builder.types[value]

    def shape(self, value: str) -> Shape:
        """The extents of ``value``."""
        return self.builder.types[value].shape

    def dtype(self, value: str) -> str:
        """The element type of ``value``."""
        return self.builder.types[value].dtype

    def rank(self, value: str) -> int:
        """The number of axes of ``value``."""
        return len(self.builder.types[value].shape)

    def const(self, value: str | None) -> np.ndarray | None:
        """The elements of ``value`` where they are known when compiling, else None."""
        constant = self.builder.constants.get(value) if value is not None else None
        return None if constant is None else constant.data

    def scalar_const(self, value: str | None) -> Any:
        """The one element of a constant of one element as a Python number, else None."""
        data = self.const(value)
        return (
            data.reshape(-1)[0].item()
            if data is not None and data.size == 1 and data.dtype != object
            else None
        )

    def dims_array(self, value: str | None) -> np.ndarray | None:
        """The elements of an integer tensor as dims, in an object array of its shape; None where they are
        data."""
        if value is None:
            return None
        if value not in self._dims:
            data = self.const(value)
            if data is None or data.dtype.kind not in "iub" or data.size > 4096:
                return None
            self._dims[value] = np.array([int(v) for v in data.reshape(-1)], dtype=object).reshape(data.shape)
        return self._dims[value]

    def shape_value(self, value: str | None) -> Shape | None:
        """The elements of an integer tensor, in row-major order, as dims; None where they are known only at
        run time."""
        array = self.dims_array(value)
        return None if array is None else tuple(array.reshape(-1).tolist())

    def ints(self, value: str | None) -> tuple[int, ...] | None:
        """The elements of a constant integer tensor; None where it is not constant."""
        dims = self.shape_value(value)
        ints = tuple(d for d in dims or () if isinstance(d, int))
        return ints if dims is not None and len(ints) == len(dims) else None

    # Building.

    def add(self, op: str, inputs: Sequence[str], **attrs: AttrValue) -> str:
        """Append a node of one result, or its value where all operands are constant and it is small."""
        return self.add_multi(op, inputs, **attrs)[0]

    def add_multi(self, op: str, inputs: Sequence[str], **attrs: AttrValue) -> tuple[str, ...]:
        """Append a node, or its values where all operands are constant and they are small."""
        folded = fold(self.builder, op, tuple(inputs), attrs)
        if folded is not None:
            return tuple(self.constant(array) for array in folded)
        results = self.builder.add_multi(op, tuple(inputs), self.sources, None, **attrs)
        for name in results:
            type_ = self.type(name)
            if type_.is_static and type_.size * itemsize(type_.dtype) > _MAX_BYTES:  # type: ignore[operator]
                self.fail(f"a value of the type {type_} would not fit any memory")
        return results

    def onnx(
        self, op_type: str, inputs: Sequence[str | None], outputs: int = 1, **attributes: Any
    ) -> Sequence[str | None]:
        """The results of another ONNX operator (of the model's opset) over egc values, by its own table
        entry."""
        assert self._emit is not None
        return self._emit(op_type, inputs, attributes, outputs)

    def inline(self, subgraph: Any, arguments: Sequence[str | None] = ()) -> Sequence[str | None]:
        """The results of a GraphProto attribute, its nodes emitted here; ``arguments`` are bound to its
        inputs."""
        assert self._inline is not None
        return self._inline(subgraph, arguments)

    def constant(self, data: np.ndarray | np.generic, name: str | None = None) -> str:
        """A constant tensor. Small equal ones share a value; large ones are not hashed for it."""
        return self.builder.constant(np.asarray(data), name)

    def scalar(self, value: float | int | bool, dtype: str) -> str:
        """A constant of rank 0."""
        return self.constant(np.asarray(value).astype(numpy_dtype(dtype)))

    def like(self, value: float | int | bool, other: str) -> str:
        """A constant of rank 0 with the dtype of ``other``."""
        return self.scalar(value, self.dtype(other))

    def dims(self, values: np.ndarray | Sequence[Dim], dtype: str = "int64") -> str:
        """An integer tensor whose elements are dims; a constant where all are integers."""
        array = np.asarray(values, dtype=object)
        if all(isinstance(d, int) for d in array.reshape(-1)):
            return self.constant(array.astype(numpy_dtype(dtype)))
        out = self.builder.add("dim", (), self.sources, value=tuple(array.reshape(-1).tolist()))
        if array.ndim != 1:
            out = self.builder.add("reshape", (out,), self.sources, shape=array.shape)
        out = self.cast(out, dtype)
        self._dims[out] = array
        return out

    def map(self, fn: str, *inputs: str) -> str:
        """A scalar function over broadcast operands."""
        return self.add("map", inputs, fn=fn)

    def cast(self, value: str, dtype: str) -> str:
        """``value`` converted to ``dtype``; itself where it has it already."""
        return value if self.dtype(value) == dtype else self.add("cast", (value,), dtype=dtype)

    def widen(self, value: str) -> str:
        """``value`` as float32 where it is a float of fewer bits: what has several steps is rounded once,
        at its end."""
        dtype = self.dtype(value)
        return (
            self.cast(value, "float32") if is_float(dtype) and dtype not in ("float32", "float64") else value
        )

    def reshape(self, value: str, shape: Sequence[Dim]) -> str:
        """``value`` with new extents, in row-major order."""
        return (
            value if self.shape(value) == tuple(shape) else self.add("reshape", (value,), shape=tuple(shape))
        )

    def squeeze(self, value: str, axes: Sequence[int]) -> str:
        """``value`` without the given axes (counted from the front), whose extents are 1."""
        drop = set(axes)
        return self.reshape(value, [d for i, d in enumerate(self.shape(value)) if i not in drop])

    def unsqueeze(self, value: str, axes: Sequence[int]) -> str:
        """``value`` with axes of extent 1 at the given positions of the result (counted from the front)."""
        old, new = iter(self.shape(value)), set(axes)
        rank = self.rank(value) + len(new)
        return self.reshape(value, [1 if i in new else next(old) for i in range(rank)])

    def transpose(self, value: str, perm: Sequence[int]) -> str:
        """``value`` with its axes reordered; itself where ``perm`` changes nothing."""
        identity = tuple(perm) == tuple(range(self.rank(value)))
        return value if identity else self.add("transpose", (value,), perm=tuple(perm))

    def expand(self, value: str, shape: Sequence[Dim]) -> str:
        """``value`` broadcast to ``shape``; itself where it has it already."""
        return (
            value if self.shape(value) == tuple(shape) else self.add("expand", (value,), shape=tuple(shape))
        )

    def broadcast(self, *values: str) -> tuple[str, ...]:
        """``values`` expanded to their common shape."""
        shape = broadcast(*(self.shape(v) for v in values))
        return tuple(self.expand(v, shape) for v in values)

    def reduce(self, fn: str, value: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """``value`` reduced over ``axes`` (counted from the front); itself where there are none."""
        out = self.add("reduce", (value,), fn=fn, axes=tuple(sorted(axes))) if axes else value
        return out if keepdims else self.squeeze(out, axes)

    def slice_axis(self, value: str, axis: int, start: Dim, size: Dim, step: int = 1) -> str:
        """Elements ``start``, ``start + step`` … (``size`` of them, all in range) of one axis; all of the
        others."""
        shape = self.shape(value)
        if start == 0 and step == 1 and size == shape[axis]:
            return value
        starts: list[Dim] = [0] * len(shape)
        sizes, steps = list(shape), [1] * len(shape)
        starts[axis], sizes[axis], steps[axis] = start, size, step
        return self.add("slice", (value,), starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))

    def concat(self, values: Sequence[str], axis: int) -> str:
        """``values`` side by side along ``axis``."""
        return values[0] if len(values) == 1 else self.add("concat", tuple(values), axis=axis)

    def iota(self, shape: Sequence[Dim], axis: int) -> str:
        """An int64 tensor of each element's position along ``axis``."""
        return self.add("iota", (), shape=tuple(shape), axis=axis)

    def extent(self, dims: Dim, dtype: str) -> str:
        """One dim as a scalar of ``dtype``."""
        if isinstance(dims, int):
            return self.scalar(dims, dtype)
        return self.cast(self.dims(np.array(dims, dtype=object)), dtype)

    # Checking.

    def axis(self, axis: int, rank: int) -> int:
        """``axis`` counted from the front; NodeError where there is none."""
        if not isinstance(axis, int) or not -rank <= axis < rank:
            self.fail(f"axis {axis} is not an axis of a tensor of rank {rank}")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """``axes`` counted from the front, sorted; NodeError where one does not exist or occurs twice."""
        found = tuple(sorted(self.axis(int(a), rank) for a in axes))
        if len(set(found)) != len(found):
            self.fail(f"axes {list(axes)} name one axis twice")
        return found

    def static_shape(self, value: str) -> tuple[int, ...]:
        """The shape of ``value`` as integers; NotCompiled where a dim is symbolic."""
        shape = self.shape(value)
        if any(isinstance(d, SymDim) for d in shape):
            raise NotCompiled(f"needs a static shape, not {self.type(value)}")
        return shape  # type: ignore[return-value]

    def fail(self, why: str, hint: str | None = None) -> NoReturn:
        """The node is wrong; reported with the node's name, together with all other problems of the model."""
        raise NodeError(why, hint)

    def fresh_symbol(self, prefix: str = "u") -> SymDim:
        """A dim name that nothing else uses."""
        index = 0
        while f"{prefix}{index}" in self._symbols:
            index += 1
        self.reserve_symbol(name := f"{prefix}{index}")
        return symbol(name)

    def reserve_symbol(self, name: str) -> None:
        """Keep ``fresh_symbol`` from handing out ``name``."""
        self._symbols.add(name)


__all__ = ["Context", "InferError", "NodeError", "NotCompiled", "OnnxNode"]

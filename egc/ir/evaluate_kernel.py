"""What a kernel computes, by numpy: the meaning that generated code is checked against.

Every stage is evaluated over its whole iteration space at once, with one index array per axis; locals are
full tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from egc.ir.dims import Dim, SymDim, evaluate
from egc.ir.expr import Acc, Call, Cast, Const, Expr, Index, IndexExpr, Load
from egc.ir.kernel import Kernel, Stage
from egc.ir.scalar import apply_numpy, combiner_identity
from egc.ir.types import numpy_dtype

Arrays = dict[str, np.ndarray]
REDUCE = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "and": np.logical_and,
    "or": np.logical_or,
}


def evaluate_kernel(kernel: Kernel, inputs: Mapping[str, np.ndarray], dims: Mapping[str, int]) -> Arrays:
    """The content of every out buffer, given the in buffers by name and the values of the symbolic dims.

    An out buffer that is given in `inputs` begins with that content (a scatter adds to it), others begin
    with zeros.
    """
    arrays: Arrays = {}
    for buffer in kernel.buffers:
        shape = tuple(evaluate(dim, dims) for dim in buffer.type.shape)
        if buffer.name in inputs:
            arrays[buffer.name] = np.array(inputs[buffer.name]).reshape(shape)
        else:
            arrays[buffer.name] = np.zeros(shape, numpy_dtype(buffer.type.dtype))
    for stage in kernel.stages:
        _Space(stage, arrays, dims).run()
    return {buffer.name: arrays[buffer.name] for buffer in kernel.params if buffer.role == "out"}


class Points:
    """Points of an iteration space: `env` has the values of dims and the positions of axes, as arrays that
    broadcast against each other; `arrays` the content of the buffers.
    """

    def __init__(self, arrays: Arrays, env: Mapping[str, Any]) -> None:
        self.arrays = arrays
        self.env: dict[str, Any] = dict(env)

    def dim(self, dim: Dim) -> np.ndarray:
        """The values of an index polynomial over the space."""
        if isinstance(dim, int):
            return np.asarray(dim, dtype=np.int64)
        total = np.asarray(0, dtype=np.int64)
        for monomial, coefficient in dim.terms:
            term = np.asarray(coefficient, dtype=np.int64)
            for atom in monomial:
                if isinstance(atom, str):
                    term = term * self.env[atom]
                else:
                    a, b = self.dim(atom.args[0]), self.dim(atom.args[1])
                    term = term * _INDEX_FUNCTIONS[atom.fn](a, b)
            total = total + term
        return total

    def index(self, index: IndexExpr) -> np.ndarray:
        """The values of one index of an access."""
        return self.dim(index) if isinstance(index, int | SymDim) else self.value(index, None)

    def value(self, expr: Expr, acc: np.ndarray | None) -> np.ndarray:
        """The values of an expression over the space."""
        match expr:
            case Const(value=value, dtype=dtype):
                return np.asarray(value).astype(numpy_dtype(dtype))
            case Index(dim=dim):
                return self.dim(dim)
            case Acc():
                assert acc is not None
                return acc
            case Cast(arg=arg, dtype=dtype):
                with np.errstate(all="ignore"):
                    return self.value(arg, acc).astype(numpy_dtype(dtype))
            case Call(fn=fn, args=args):
                return np.asarray(apply_numpy(fn, tuple(self.value(arg, acc) for arg in args)))
            case Load():
                return self.load(expr)
        raise TypeError(f"no such expression: {expr}")

    def load(self, load: Load) -> np.ndarray:
        """The elements that a load reads; `other` where a guard fails."""
        array = self.arrays[load.buffer]
        index = np.broadcast_arrays(*map(self.index, load.index)) if load.index else []
        inside = np.asarray(True)
        for dim, extent in load.guards:
            at = self.dim(dim)
            inside = inside & (at >= 0) & (at < self.dim(extent))
        if not load.guards:
            return array[tuple(index)]
        other = np.asarray(load.other.value if load.other else 0).astype(array.dtype)
        shape = np.broadcast_shapes(inside.shape, *(i.shape for i in index))
        inside = np.broadcast_to(inside, shape)
        out = np.full(shape, other, dtype=array.dtype)
        out[inside] = array[tuple(np.broadcast_to(i, shape)[inside] for i in index)]
        return out


class _Space(Points):
    """A stage's iteration space: its axes as index arrays that broadcast against each other."""

    def __init__(self, stage: Stage, arrays: Arrays, dims: Mapping[str, int]) -> None:
        super().__init__(arrays, dims)
        self.stage = stage
        extents = [evaluate(axis.extent, dims) for axis in stage.all_axes]
        self.shape = tuple(extents)
        for position, (axis, extent) in enumerate(zip(stage.all_axes, extents, strict=True)):
            shape = [1] * len(extents)
            shape[position] = extent
            self.env[axis.name] = np.arange(extent, dtype=np.int64).reshape(shape)

    def run(self) -> None:
        """Compute the stage and store its result."""
        stage = self.stage
        if stage.ordered and any(load.buffer == stage.out for load in stage.loads()):
            self._run_recurrence()
            return
        acc: np.ndarray | None = None
        if stage.combine:
            dtype = numpy_dtype(stage.value.dtype)
            # Narrow floats are summed in float32, as the generated code does.
            wide = np.float32 if dtype.itemsize == 2 and dtype.kind not in "iu" else dtype
            # In an empty space there is nothing to evaluate, and constant indices need not be inside their
            # buffer.
            value = np.zeros(self.shape) if 0 in self.shape else self.value(stage.value, None)
            value = np.broadcast_to(value, self.shape).astype(wide)
            over = tuple(range(len(stage.axes), len(self.shape)))
            initial = combiner_identity(stage.combine, stage.value.dtype)
            with np.errstate(all="ignore"):
                acc = REDUCE[stage.combine].reduce(
                    value, axis=over, keepdims=True, initial=initial, dtype=wide
                )
        parallel = (*self.shape[: len(stage.axes)], *[1] * len(stage.reduce))
        out = self.arrays[stage.out]
        if 0 in parallel:
            return
        result = np.broadcast_to(self.value(stage.result, acc), parallel).astype(out.dtype)
        index = tuple(np.broadcast_to(self.index(i), parallel) for i in stage.index)
        if stage.mode == "set" and not stage.ordered:
            out[index] = result if index else result.reshape(())
            return
        for place in np.ndindex(*parallel):
            at = tuple(int(i[place]) for i in index)
            new = result[place]
            out[at] = new if stage.mode == "set" else apply_numpy(stage.mode, (out[at], new))

    def _run_recurrence(self) -> None:
        """Point by point: an ordered stage may read what its earlier points stored."""
        out, names = self.arrays[self.stage.out], [axis.name for axis in self.stage.axes]
        for place in np.ndindex(*self.shape):
            self.env.update((name, np.asarray(i)) for name, i in zip(names, place, strict=True))
            at = tuple(int(self.index(i)) for i in self.stage.index)
            out[at] = self.value(self.stage.result, None).astype(out.dtype)


_INDEX_FUNCTIONS = {
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "min": np.minimum,
    "max": np.maximum,
}

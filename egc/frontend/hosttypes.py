"""The types of a host node's results: by shape inference (bodytypes.py), and for symbolic dims by trial.

Shape inference follows integers through operators, not expressions. So where dims are symbolic it is run
twice with other primes in their place, shapes that are operands being shown as they would be then: an
extent that comes out both times as the value of a dim of the operands is that dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from egc.frontend.bodytypes import infer
from egc.frontend.context import Context
from egc.frontend.messages import TypeProto
from egc.frontend.proto import CODES, declared_type
from egc.frontend.registry import NodeError
from egc.ir.dims import Dim, DimError, evaluate, parse_dim, symbols_of
from egc.ir.host import decode_host
from egc.ir.types import TensorType, numpy_dtype

if TYPE_CHECKING:
    from egc.frontend.emit import Scope

# Constants up to this many bytes are shown to shape inference.
_MAX_SHOWN = 1 << 12
# What stands for each symbol in the two trials; a node with more symbols is not tried. Few and many elements,
# so that an extent that is bounded by some constant shows it in one of the trials.
_PRIMES = (
    (3, 5, 7, 11, 13, 17, 19, 23),
    (1000003, 1000033, 1000037, 1000039, 1000081, 1000099, 1000117, 1000121),
)

Env = Mapping[str, int]


def type_proto(type_: TensorType, env: Env | None = None) -> TypeProto:
    """A tensor type as ONNX writes it; a symbolic dim is its value under ``env``, or a parameter named by
    its text."""
    shape = [d if isinstance(d, int) else str(d) if env is None else evaluate(d, env) for d in type_.shape]
    from onnx.helper import make_tensor_type_proto

    return make_tensor_type_proto(CODES[type_.dtype], shape)


def operand_type(
    context: Context, value: str, objects: Mapping[str, TypeProto], env: Env | None = None
) -> TypeProto:
    """The type of an operand as ONNX writes it; that of a sequence or optional as it was found."""
    type_ = context.type(value)
    return objects.get(value, TypeProto()) if type_.dtype == "object" else type_proto(type_, env)


def result_types(
    context: Context, text: str, bound: Mapping[str, str], scope: Scope, env: Env | None = None
) -> dict[str, TypeProto]:
    """What shape inference says of the results of the host node ``text``, by name; ``bound`` are its
    operands.

    NodeError where it finds the node to be wrong.
    """
    from onnx import numpy_helper, shape_inference

    model = decode_host(text)
    for value in model.graph.input:
        operand = bound[value.name]
        value.type.CopyFrom(operand_type(context, operand, scope.object_types, env))
        data = _shown(context, operand, env)
        if data is not None:
            model.graph.initializer.append(numpy_helper.from_array(data, value.name))
    empty = [name for name, value in bound.items() if value in scope.empty_sequences]
    try:
        inferred = infer(model, empty)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise NodeError(f"ONNX's shape inference refuses it: {str(error).splitlines()[0]}") from None
    return {value.name: value.type for value in inferred.graph.output}


def _shown(context: Context, value: str, env: Env | None) -> np.ndarray | None:
    """An operand's elements where they are few and known, or known under ``env``."""
    data = context.const(value)
    if data is None and env is not None and (dims := context.dims_array(value)) is not None:
        flat = [evaluate(d, env) for d in dims.reshape(-1)]
        data = np.array(flat, dtype=numpy_dtype(context.dtype(value))).reshape(dims.shape)
    if data is None or data.nbytes > _MAX_SHOWN or data.dtype == object:
        return None
    return np.asarray(data, order="C")


def complete_types(
    context: Context,
    names: list[str],
    types: Mapping[str, TypeProto],
    text: str,
    bound: Mapping[str, str],
    scope: Scope,
) -> list[TensorType]:
    """The types of a host node's results, with a fresh symbol for every extent that only the run will
    tell."""
    known = _known_dims(context, bound)
    trials = _trials(context, text, bound, scope, known)
    return [_complete(context, name, types.get(name), trials.get(name), scope) for name in names]


def _known_dims(context: Context, bound: Mapping[str, str]) -> list[Dim]:
    """The dims that the operands have as extents or as elements."""
    found: dict[Dim, None] = {}
    for value in bound.values():
        array = context.dims_array(value)
        elements = array.reshape(-1).tolist() if array is not None else []
        found.update(dict.fromkeys((*context.shape(value), *elements)))
    return list(found)


def _trials(
    context: Context, text: str, bound: Mapping[str, str], scope: Scope, known: list[Dim]
) -> dict[str, list[Dim | None]]:
    """Each result's extents as two trials show them, None for an extent that they do not settle."""
    symbols = sorted(frozenset().union(*map(symbols_of, known)))
    if not symbols or len(symbols) > len(_PRIMES[0]):
        return {}
    envs = [dict(zip(symbols, primes, strict=False)) for primes in _PRIMES]
    try:
        first, second = (result_types(context, text, bound, scope, env) for env in envs)
    except NodeError:
        # The primes need not satisfy what the model promises of its dims, such as that two of them are equal.
        return {}
    values: dict[tuple[object, object], Dim] = {
        (evaluate(d, envs[0]), evaluate(d, envs[1])): d for d in known
    }
    found: dict[str, list[Dim | None]] = {}
    for name in first:
        (_, a), (_, b) = declared_type(first[name]), declared_type(second[name])
        if a is not None and b is not None and len(a) == len(b):
            pairs = zip(a, b, strict=True)
            found[name] = [values.get(pair) for pair in pairs]
    return found


def _complete(
    context: Context, name: str, proto: TypeProto | None, trial: list[Dim | None] | None, scope: Scope
) -> TensorType:
    dtype, shape = declared_type(proto) if proto is not None else ("", None)
    declared = declared_type(scope.declared[name]) if name in scope.declared else ("", None)
    if shape is None and trial is not None:
        shape = [None] * len(trial)
    if shape is None and declared[1] is not None and dtype in ("", declared[0]):
        # The model itself says what shape inference cannot tell. Its names are not the graph's dims.
        dtype, shape = declared[0], [d if isinstance(d, int) else None for d in declared[1]]
    if not dtype or shape is None:
        what = "rank" if dtype else "type"
        raise NodeError(f"the {what} of its result {name!r} is not known before it runs")
    dims: list[Dim] = []
    for i, extent in enumerate(shape):
        tried = trial[i] if trial is not None and len(trial) == len(shape) else None
        if isinstance(extent, int):
            dims.append(extent)
        else:
            dims.append(tried if tried is not None else _named_dim(context, extent))
    return TensorType(dtype, tuple(dims))


def _named_dim(context: Context, text: str | None) -> Dim:
    """The dim that shape inference passed on by its text; a fresh one where it is not of the graph's
    symbols."""
    try:
        dim = parse_dim(text) if text else None
    except DimError:
        dim = None
    if dim is None:
        return context.fresh_symbol()
    known = {s for type_ in context.builder.types.values() for s in type_.symbols}
    return dim if symbols_of(dim) <= known else context.fresh_symbol()

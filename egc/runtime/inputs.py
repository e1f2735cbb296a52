"""Checks what a caller hands to a session: names, dtypes and shapes, all problems reported at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egc.errors import InputError, MemoryBudgetError, Problems
from egc.ir.dims import DimError, evaluate, parse_dim, symbols_of
from egc.runtime.manifest import DimText, Port, Requirement

_HEADLINE = "the inputs do not fit the model"


def take(
    ports: Sequence[Port], dtypes: Sequence[np.dtype], feeds: Mapping[str, Any]
) -> list[np.ndarray] | None:
    """The arrays in the order of `ports` where names and dtypes fit and no copy is needed; None otherwise.

    This is the fast path of every run. Shapes are not looked at: they are the key that plans are found by.
    """
    if type(feeds) is not dict or len(feeds) != len(ports):
        return None
    arrays = []
    for port, dtype in zip(ports, dtypes, strict=True):
        array = feeds.get(port.name)
        if type(array) is not np.ndarray or array.dtype != dtype:
            return None
        flags = array.flags
        if not (flags.c_contiguous and flags.aligned):
            return None
        arrays.append(array)
    return arrays


def check_feeds(ports: Sequence[Port], dtypes: Sequence[np.dtype], feeds: Mapping[str, Any]) -> list[Any]:
    """The arrays in the order of `ports`, copied where not contiguous; InputError says what is wrong.

    Sequences, optionals and maps (dtype `object`) are only read by host steps and pass as they are.
    """
    if not isinstance(feeds, Mapping):
        raise InputError(
            f"the inputs must be a dict of names and arrays, not {type(feeds).__name__}",
            hint='session.run(None, {"name": array})',
        )
    problems = Problems()
    names = {port.name for port in ports}
    for name in feeds:
        if name not in names:
            problems.add(
                f"the model has no input {name!r}", hint=f"its inputs are {', '.join(sorted(names))}"
            )
    arrays: dict[str, Any] = {}
    for port, dtype in zip(ports, dtypes, strict=True):
        if port.name not in feeds:
            problems.add(f"the input {port.name!r} is missing", hint=f"it is {_describe(port)}")
            continue
        if port.dtype == "object":
            arrays[port.name] = feeds[port.name]
            continue
        array = _as_array(port, dtype, feeds[port.name], problems)
        if array is not None:
            arrays[port.name] = array
    present = [port for port in ports if port.name in arrays and port.dtype != "object"]
    _bind(present, [arrays[port.name].shape for port in present], problems)
    problems.raise_if_any(InputError, _HEADLINE)
    return [arrays[port.name] for port in ports]


def bind_shapes(ports: Sequence[Port], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """The values of the symbols that the inputs' shapes give; InputError where they contradict the model."""
    problems = Problems()
    tensors = [(port, shape) for port, shape in zip(ports, shapes, strict=True) if port.dtype != "object"]
    env = _bind([port for port, _ in tensors], [shape for _, shape in tensors], problems)
    problems.raise_if_any(InputError, _HEADLINE)
    return env


def check_requirements(requirements: Sequence[Requirement], env: Mapping[str, int]) -> None:
    """InputError where extents contradict what the program relies on, as far as `env` settles it."""
    problems = Problems()
    for requirement in requirements:
        left, right = _value(requirement.left, env), _value(requirement.right, env)
        if left is None or right is None:
            continue
        if left != right if requirement.relation == "==" else left > right:
            problems.add(
                "the extents of the inputs do not fit together",
                where=requirement.where or None,
                why=f"{requirement.left} {requirement.relation} {requirement.right} is needed;"
                f" they are {left} and {right}",
            )
    problems.raise_if_any(InputError, _HEADLINE)


def _value(dim: DimText, env: Mapping[str, int]) -> int | None:
    if isinstance(dim, int):
        return dim
    parsed = parse_dim(dim)
    return evaluate(parsed, env) if symbols_of(parsed) <= env.keys() else None


def _as_array(port: Port, dtype: np.dtype, value: Any, problems: Problems) -> np.ndarray | None:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        problems.add(f"the input {port.name!r} is no array", why=str(error))
        return None
    if dtype.kind == "O" and array.dtype.kind in "OUST":
        array = array.astype(object)
    if array.dtype != dtype:
        problems.add(
            f"the input {port.name!r} has dtype {array.dtype}; the model takes {port.dtype}",
            hint=f"convert it: array.astype({port.dtype!r})",
        )
        return None
    try:
        return np.require(array, requirements=("C", "A"))
    except MemoryError:
        raise no_memory(f"a copy of the input {port.name!r}", array.shape, dtype) from None


def no_memory(what: str, shape: Sequence[int], dtype: np.dtype) -> MemoryBudgetError:
    """The error for a tensor that there is no memory for."""
    return MemoryBudgetError(
        f"there is not enough memory for {what}",
        why=f"{dtype}{_text(shape)} has {math.prod(shape) * dtype.itemsize:,} bytes",
        hint="use smaller inputs",
    )


def _bind(ports: Sequence[Port], shapes: Sequence[tuple[int, ...]], problems: Problems) -> dict[str, int]:
    env: dict[str, int] = {}
    source: dict[str, str] = {}
    fitting = []
    for port, shape in zip(ports, shapes, strict=True):
        if len(shape) != len(port.shape):
            problems.add(
                f"the input {port.name!r} has rank {len(shape)}; the model takes rank {len(port.shape)}",
                why=f"its shape is {_text(shape)}, and should be {_text(port.shape)}",
            )
            continue
        fitting.append((port, shape))
        for axis, (dim, extent) in enumerate(zip(port.shape, shape, strict=True)):
            if isinstance(dim, str) and dim.isidentifier() and dim not in env:
                env[dim] = extent
                source[dim] = f"axis {axis} of {port.name!r}"
    for port, shape in fitting:
        for axis, (dim, extent) in enumerate(zip(port.shape, shape, strict=True)):
            why = _mismatch(dim, extent, env, source)
            if why:
                problems.add(f"axis {axis} of the input {port.name!r} has extent {extent}", why=why)
    return env


def _mismatch(dim: int | str, extent: int, env: Mapping[str, int], source: Mapping[str, str]) -> str | None:
    """Why `extent` is wrong for `dim`, or None where it is right."""
    if isinstance(dim, int):
        return None if dim == extent else f"the model takes {dim}"
    try:
        expected = evaluate(parse_dim(dim), env)
    except DimError as error:
        return f"the model takes {dim}, and {error}"
    if expected == extent:
        return None
    return f"the model takes {dim}, which is {expected} by {source.get(dim, 'the other inputs')}"


def _describe(port: Port) -> str:
    return f"{port.dtype}{_text(port.shape)}"


def _text(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"
